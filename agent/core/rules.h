/* The rules of decide(), by theme. Private to agent/core.
 *
 * A rule looks at the view and either does not apply (false; the plan is as it was) or fills the plan
 * and ends the search (true). The order is in decide.c; a rule may rely on those before it. */
#ifndef REGENT_AGENT_CORE_RULES_H
#define REGENT_AGENT_CORE_RULES_H

#include "agent/core/plan.h"

typedef bool rule_fn(const struct view *v, struct plan *p);

/* rules_safety.c: what must happen whatever else is going on */
rule_fn rule_tilt, rule_data_unknown, rule_foreign_leader, rule_writable_without_lease,
    rule_deadline_passed, rule_processes_left;
/* rules_busy.c: what has to end first */
rule_fn rule_stop_anyway, rule_dcs_not_ready, rule_txn, rule_busy, rule_other_system,
    rule_restarting;
/* rules_bootstrap.c */
rule_fn rule_bootstrap;
/* rules_leader.c: the leader key is ours */
rule_fn rule_leader_start_late, rule_leader_without_data, rule_record_disagrees,
    rule_leader_crashed, rule_leader_start, rule_leader_promote, rule_promotion_refused,
    rule_leader_publish, rule_leader_roles, rule_leader_sync, rule_leader_checkpoint,
    rule_leader;
/* rules_switch.c: giving the key away on purpose */
rule_fn rule_switch_checkpoint, rule_switch_stop, rule_switch_handover, rule_leave,
    rule_leave_standby;
/* rules_site.c: the key is ours, in a standby cluster */
rule_fn rule_site_renewed, rule_site_promote, rule_site_release, rule_site_start,
    rule_site_demote, rule_site_hand_over, rule_site_follow, rule_site_publish, rule_site_sync,
    rule_site_replace, rule_site_leader;
/* rules_sick.c */
rule_fn rule_sick_kill, rule_sick_release, rule_sick_leader, rule_sick_standby;
/* rules_pause.c */
rule_fn rule_resume_arm, rule_pause_disarm, rule_pause_release, rule_pause, rule_disarmed_key,
    rule_disarmed_holder;
/* rules_request.c: what a person asked of this node */
rule_fn rule_request_cancel, rule_request_begin, rule_request_stop, rule_request_clone,
    rule_request_end, rule_request_hold;
/* rules_follower.c: a standby with the tag clonefrom that can be cloned from now */
bool clone_source(const struct view *v, const struct member_rec *m);
/* rules_follower.c: the leader key is somebody else's */
rule_fn rule_own_old_key, rule_leader_not_running, rule_clone, rule_follower_starting,
    rule_stopped_follower, rule_follower_diverged, rule_follower_blocked, rule_follower_slots,
    rule_follow, rule_following;
/* rules_election.c: there is no leader */
rule_fn rule_no_record, rule_record_leader, rule_start_lonely, rule_nothing_to_stand_with,
    rule_seal, rule_publish_seal, rule_forced_failover, rule_election;

/* ---- shared by the rules ---- */

/* p->reason, cut when too long. Always true, so that a rule can end with it. */
bool plan_say(struct plan *p, const char *fmt, ...) PRINTF(2, 3);
/* Nothing to do until `at_ms`, UINT64_MAX: until the event that the reason names. */
bool plan_wait(struct plan *p, uint64_t at_ms);
/* TXN_ACQUIRE: the key for this node, and the record with V empty: only the new leader may lead until
 * it has seen a set confirmed. */
bool failover_ordered(const struct view *v);
bool plan_acquire(const struct view *v, struct plan *p);
/* TXN_RELEASE; the record before our acquisition comes back while a promotion has not been requested. */
bool plan_release(const struct view *v, struct plan *p);
/* Actions that make this node follow the leader: target, token, timeline and lineage. */
bool plan_follow(const struct view *v, struct plan *p, enum plan_action a);
/* ACTION_CLONE, from the member that is meant for it: a tagged standby, else the leader. */
bool plan_clone(const struct view *v, struct plan *p);
/* What the policy (remove_data_directory_on_...) says of data that cannot follow: to be deleted for the clone. */
bool is_given_up(const struct view *v);
/* The same of a reinitialize with --remove-data that is under way, of the data that was there when it began. */
bool is_ordered_away(const struct view *v);
bool is_state(const char *state, const char *wanted);
/* Whom a running standby streams from: the member that its tag replicatefrom names while that one streams, directly or
 * by others, from the leader and not by way of this node; else the leader. */
const char *follow_target(const struct view *v);
/* This member streams from the leader, if need be by way of others, but not of this node; on the leader's timeline. */
bool streams_from_leader(const struct view *v, const struct member_rec *m);
/* A running standby that is not pointed at the leader there is, or at whom it should stream from. */
bool follow_due(const struct view *v);
/* A seal is not older than the leader that is to be followed: left alone. */
bool sealed_too_new(const struct view *v, struct plan *p);
/* A request under way ends with a running PostgreSQL. */
bool request_wants_running(const struct view *v);
/* Paused: a PostgreSQL that stands still stays as it is, unless this node stopped it itself. */
bool paused_down(const struct view *v);
/* A live member whose PostgreSQL runs as a standby, going by what it publishes. */
bool member_follows(const struct member_rec *m);

/* One that streamed from here has nothing behind our last record; more is the log of another promotion
 * that chose the same timeline id. The slack covers the size of the record itself. */
enum { HANDOVER_SLACK = 1024 };
bool has_shutdown_checkpoint(const struct view *v, const struct member_rec *m);
/* Of a standby leader that is cut off: m has as much. */
bool has_received_all(const struct view *v, const struct member_rec *m);

/* How long an action that failed so often in a row is put off (decide.c). */
uint64_t back_off_ms(uint64_t failures);
/* An election leaves this long to those who have not sealed: min(1 s, TTL/4). */
uint64_t election_grace_ms(const struct view *v);
/* Could another live member be promoted, going by what it publishes? */
const struct member_rec *other_eligible(const struct view *v);
/* When the start of our primary, which is under way, has lasted too long and another could take over;
 * UINT64_MAX: never. */
uint64_t start_given_up_ms(const struct view *v);
/* Should our stopped, unclean primary give way to another member instead of recovering in place? */
bool crash_gives_way(const struct view *v);

/* The key has not been promoted with: nobody has written under its token. */
bool token_unspent(const struct view *v);
/* A timeline is recorded, but PostgreSQL knows better where it began. */
bool switch_to_correct(const struct view *v, const struct history_entry *known);

/* ---- rules_sick.c ---- */

/* The key leaves this node because it is sick: policy, damping and patience permit it, and a healthy member
 * can take over. */
bool relief_due(const struct view *v);
/* ... by stopping PostgreSQL and handing over, as in a switchover. */
bool relief_by_switchover(const struct view *v);
/* ... but what is left of PostgreSQL neither ends nor can be looked at: plan.withhold. */
bool relief_withholds(const struct view *v);
/* Policy: it is not chosen before others. */
bool member_sick(const struct view *v, const struct member_rec *m);

/* ---- lineage.c: which promotions a data directory went through ---- */

enum { LINEAGE_MAX = 16 };
struct lineage {
    struct {
        uint64_t timeline, token;
    } at[LINEAGE_MAX]; /* newest first */
    size_t n;
};
/* A text that is not one gives an empty lineage: not known. */
void lineage_parse(const char *text, struct lineage *ret);
/* Token of the promotion that made `timeline` in this data; 0: not known. */
uint64_t lineage_token(const struct lineage *l, uint64_t timeline);
/* The recorded chain that ends at `timeline`. Empty when the history does not know it. */
/* PostgreSQL follows its upstream to a new timeline by itself, also when no agent is there to note which
 * promotion made it. True: the data got beyond its newest noted pair like that, and more than one promotion
 * may have made `timeline`, so that nothing is known about what is in it. */
bool lineage_doubtful(const struct view *v, const struct lineage *own, uint64_t timeline);
void lineage_recorded(const struct view *v, uint64_t timeline, struct lineage *ret);
/* Lineage of this data that was promoted, with the number that the promotion chose; the promotions that never
 * happened are left out. */
void lineage_settled(const struct view *v, struct lineage *ret);
/* As text; cut at the old end when it is too long. */
void lineage_print(const struct lineage *l, char *ret, size_t size);
/* Entry of `timeline` in the recorded history, the newest of that number; NULL: none. */
const struct history_entry *history_of(const struct view *v, uint64_t timeline);
/* Where does (timeline, lsn) of data with this lineage stand on the recorded way to the newest
 * timeline? 1-based, higher is newer; 0: not on it. */
size_t lineage_rank(const struct view *v, const char *lineage, uint64_t timeline, uint64_t lsn);

/* ---- syncrep_target.c ---- */

/* A name that nobody bears: strict mode with no standby. */
#define SYNC_NOBODY "regent_nobody"
/* What set and record should be, given who streams. */
void syncrep_target(const struct view *v, struct sync_set *ret_set, struct sync_rec *ret_rec);
/* What must be set before the first write of a PostgreSQL that becomes writable. */
void syncrep_first_set(const struct view *v, struct sync_set *ret_set);
bool sync_set_equal(const struct sync_set *a, const struct sync_set *b);
/* May the record be changed to r now? The rule for every set in force, or a proof by what holds already. */
bool syncrep_step_safe(const struct view *v, const struct sync_rec *r);

#endif
