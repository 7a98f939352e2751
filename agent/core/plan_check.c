/* The safety invariants of DESIGN.md §4 as predicates on any view and plan, independent of the rules:
 * they say what must never be done, not what should be. */
#include "agent/core/rules.h"
#include "agent/core/syncrep.h"
#include "base/assert.h"

/* True: the plan keeps it. */
typedef bool invariant_fn(const struct view *v, const struct plan *p);

static bool only_action(const struct plan *p, enum plan_action a)
{
    return p->action == a;
}

/* The key is ours, the record says so too, and both carry the token the plan was made for. */
static bool leads(const struct view *v, const struct plan *p)
{
    return v->dcs_ready && view_is_leader(v) && p->token == v->leader.token &&
           view_is_record_leader(v) && v->sync.token == v->leader.token;
}

static bool becomes_writable(const struct plan *p)
{
    return p->action == ACTION_PROMOTE || p->action == ACTION_START_PRIMARY;
}

static bool writable_as_leader(const struct view *v, const struct plan *p)
{
    return !becomes_writable(p) || leads(v, p);
}

static bool writable_armed(const struct view *v, const struct plan *p)
{
    return !becomes_writable(p) || (v->armed && view_lease_valid(v));
}

/* Whatever the records say: the other site may be taking writes. */
static bool never_in_standby_cluster(const struct view *v, const struct plan *p)
{
    return !becomes_writable(p) || !v->config.standby_cluster;
}

/* The other site, as the source of all data: only who leads a standby cluster knows it. */
static bool to_site(const struct view *v, const struct plan *p)
{
    return strcmp(p->target, REMOTE_SITE) == 0 && v->config.standby_cluster;
}

static bool site_leader(const struct view *v, const struct plan *p)
{
    return to_site(v, p) && leads(v, p) && token_unspent(v);
}

static bool promote_cut_off(const struct view *v, const struct plan *p)
{
    if (!only_action(p, ACTION_PROMOTE))
        return true;
    if (v->leader.shutdown_lsn != 0)
        return v->pg.lsn >= v->leader.shutdown_lsn;
    return v->pg.upstream[0] == '\0' && !v->pg.walreceiver;
}

static bool promote_once(const struct view *v, const struct plan *p)
{
    return !only_action(p, ACTION_PROMOTE) || v->leader.timeline == 0;
}

static bool promote_running_standby(const struct view *v, const struct plan *p)
{
    return !only_action(p, ACTION_PROMOTE) ||
           (v->pg.proc == PG_PROC_RUNNING && v->pg.in_recovery);
}

/* The administrator's command moves what belongs to the primary: only for who is about to be it, and before. */
static bool hook_as_leader(const struct view *v, const struct plan *p)
{
    bool asks = only_action(p, ACTION_PRE_PROMOTE);
    bool promotes = only_action(p, ACTION_PROMOTE);
    if (promotes && v->pre_promote)
        return v->permitted_token == v->leader.token && v->refused_token != v->leader.token;
    return !asks || (view_is_leader(v) && p->token == v->leader.token && v->armed &&
                     v->pg.in_recovery && v->leader.timeline == 0);
}

/* Without a new timeline: data that was a primary, and not a standby's. */
static bool start_primary_in_place(const struct view *v, const struct plan *p)
{
    return !only_action(p, ACTION_START_PRIMARY) ||
           (v->pg.proc == PG_PROC_STOPPED && v->pg.data == PG_DATA_OURS &&
            !v->pg.standby_signal);
}

static bool first_set_safe(const struct view *v, const struct plan *p)
{
    return !becomes_writable(p) || syncrep_set_safe(&p->set, &v->sync);
}

static bool acquire_when_absent(const struct view *v, const struct plan *p)
{
    return p->txn != TXN_ACQUIRE ||
           (v->dcs_ready && !v->has_leader && v->has_sync && p->token == v->sync.token &&
            view_lease_valid(v) && v->pg.incarnation[0] != '\0' &&
            (!view_writable(v) || view_disarmed(v)));
}

static bool acquire_record_emptied(const struct view *v, const struct plan *p)
{
    return p->txn != TXN_ACQUIRE || (p->sync.v_n == 0 && p->sync.token == v->sync.token + 1 &&
                                     strcmp(p->sync.incarnation, v->pg.incarnation) == 0 &&
                                     strcmp(p->sync.mode, v->sync.mode) == 0);
}

static bool counted_are_behind(const struct view *v, const struct plan *p,
                               const struct seal_rec *own, size_t *ret_n)
{
    *ret_n = 0;
    for (size_t i = 0; i < p->counted_n; i++) {
        if (p->counted[i] >= v->seals_n)
            return false;
        const struct seal_rec *s = &v->seals[p->counted[i]];
        bool newer =
            s->timeline > own->timeline || (s->timeline == own->timeline && s->lsn > own->lsn);
        for (size_t j = 0; j < i; j++)
            if (p->counted[j] == p->counted[i] ||
                strcmp(v->seals[p->counted[j]].incarnation, s->incarnation) == 0)
                return false;
        if (s->token != v->sync.token || newer)
            return false;
        if (view_in_v(v, s->incarnation))
            (*ret_n)++;
    }
    return true;
}

/* The record's own leader; else a sealed, and in synchronous modes the most advanced of q of V. */
static bool acquire_by_right(const struct view *v, const struct plan *p)
{
    if (p->txn != TXN_ACQUIRE || view_is_record_leader(v))
        return true;
    const struct seal_rec *own = view_seal_of(v, v->pg.incarnation, v->sync.token);
    size_t counted;
    if (own == NULL || own->lsn != v->pg.sealed_lsn || v->pg.sealed_token != v->sync.token)
        return false;
    if (p->forced)
        return failover_ordered(v) && strcmp(v->failover.candidate, v->self) == 0;
    if (v->sync.unknown || v->nofailover)
        return false;
    if (!counted_are_behind(v, p, own, &counted))
        return false;
    return view_record_mode(v) == SYNC_OFF ||
           (view_in_v(v, v->pg.incarnation) && v->sync.v_n > 0 && counted >= v->sync.q);
}

static bool acquire_cut_off(const struct view *v, const struct plan *p)
{
    return p->txn != TXN_ACQUIRE || v->pg.proc == PG_PROC_STOPPED || view_writable(v) ||
           (v->pg.upstream[0] == '\0' && !v->pg.walreceiver);
}

/* It may take writes without a deadline: only who holds it knows. */
static bool acquire_not_from_disarmed(const struct view *v, const struct plan *p)
{
    return p->txn != TXN_ACQUIRE || !v->sync.disarmed ||
           (view_is_record_leader(v) && p->sync.disarmed == view_writable(v));
}

/* The promise of a deadline is given when it is held, or when there is nothing to hold it for. */
static bool rearmed_first(const struct view *v, const struct plan *p)
{
    bool ends = p->txn == TXN_SYNC && v->sync.disarmed && !p->sync.disarmed;
    return !ends || v->pg.proc == PG_PROC_STOPPED ||
           (v->armed && view_lease_valid(v) && p->arm);
}

static bool record_by_leader(const struct view *v, const struct plan *p)
{
    return p->txn != TXN_SYNC || (leads(v, p) && p->sync.token == v->sync.token &&
                                  strcmp(p->sync.incarnation, v->sync.incarnation) == 0);
}

/* One behind another standby confirms nothing to the leader. Its record may be older than its walsender here; names that
 * are in force already only go. */
static bool behind_another(const struct view *v, const char *incarnation)
{
    const struct member_rec *m = view_member_of(v, incarnation);
    bool other = m != NULL && m->upstream[0] != '\0' && strcmp(m->upstream, v->self) != 0;
    bool known =
        view_in_v(v, incarnation) || names_have(v->pg.set.s, v->pg.set.s_n, incarnation);
    for (size_t i = 0; i < v->pg.old_n; i++)
        known = known || names_have(v->pg.old[i].s, v->pg.old[i].s_n, incarnation);
    for (size_t i = 0; i < v->pg.senders_n; i++)
        known = known || (v->pg.senders[i].streaming &&
                          strcmp(v->pg.senders[i].incarnation, incarnation) == 0);
    return other && !known;
}

static bool record_renewed(const struct view *v, const struct plan *p)
{
    if (p->txn != TXN_LEADER_STATE)
        return !p->has_sync;
    if (!p->has_sync)
        return strcmp(p->leader.incarnation, v->leader.incarnation) == 0;
    return view_leader_named(v) && p->token == v->leader.token && v->config.standby_cluster &&
           token_unspent(v) && v->pg.proc == PG_PROC_STOPPED && v->pg.standby_signal &&
           p->leader.timeline == 0 && p->sync.token == v->sync.token &&
           v->sync.token == v->leader.token && v->sync.v_n == 0 && p->sync.v_n == 0 &&
           view_record_mode(v) == SYNC_OFF &&
           strcmp(v->sync.incarnation, v->leader.incarnation) == 0 &&
           strcmp(p->sync.incarnation, v->pg.incarnation) == 0 &&
           strcmp(p->leader.incarnation, v->pg.incarnation) == 0;
}

static bool record_of_direct(const struct view *v, const struct plan *p)
{
    for (size_t i = 0; p->txn == TXN_SYNC && i < p->sync.v_n; i++)
        if (behind_another(v, p->sync.v[i]))
            return false;
    return true;
}

static bool record_safe(const struct view *v, const struct plan *p)
{
    return p->txn != TXN_SYNC || syncrep_step_safe(v, &p->sync);
}

/* `on`: all of V must answer, so all of V is in the set. */
static bool record_inside_set(const struct view *v, const struct plan *p)
{
    if (p->txn != TXN_SYNC || strcmp(p->sync.mode, "on") != 0 || !v->pg.set_known)
        return true;
    for (size_t i = 0; i < p->sync.v_n; i++)
        if (!names_have(v->pg.set.s, v->pg.set.s_n, p->sync.v[i]) &&
            !view_in_v(v, p->sync.v[i]))
            return false;
    return true;
}

static bool set_by_leader(const struct view *v, const struct plan *p)
{
    return !only_action(p, ACTION_SET_SYNC) ||
           (leads(v, p) && v->pg.proc == PG_PROC_RUNNING && !v->pg.in_recovery);
}

static bool set_safe(const struct view *v, const struct plan *p)
{
    return !only_action(p, ACTION_SET_SYNC) || syncrep_set_safe(&p->set, &v->sync);
}

static bool one_side_of_sync(const struct view *v, const struct plan *p)
{
    (void)v;
    return !only_action(p, ACTION_SET_SYNC) || p->txn == TXN_NONE;
}

static bool release_when_stopped(const struct view *v, const struct plan *p)
{
    return p->txn != TXN_RELEASE ||
           (view_leader_named(v) && v->pg.proc == PG_PROC_STOPPED && p->action == ACTION_NONE);
}

static bool restore_before_promotion(const struct view *v, const struct plan *p)
{
    return p->txn != TXN_RELEASE || !p->restore_sync ||
           (v->has_sync_before && v->sync_before.token + 1 == v->leader.token &&
            v->leader.timeline == 0 && p->sync.token == v->sync.token);
}

/* A standby leader that is cut off has its last record as well: the last that it received. */
static bool has_last_record(const struct view *v, const struct plan *p)
{
    const struct view_pg *pg = &v->pg;
    if (v->leader.standby)
        return v->config.standby_cluster && pg->proc == PG_PROC_RUNNING && pg->in_recovery &&
               pg->upstream[0] == '\0' && !pg->walreceiver && p->leader.shutdown_lsn == 0;
    return pg->proc == PG_PROC_STOPPED && pg->clean && pg->shutdown_lsn != 0 &&
           p->leader.shutdown_lsn == pg->shutdown_lsn;
}

static bool handover_clean(const struct view *v, const struct plan *p)
{
    return p->txn != TXN_HANDOVER ||
           (leads(v, p) && has_last_record(v, p) && p->leader.token == v->leader.token + 1 &&
            p->sync.token == p->leader.token && p->sync.v_n == 0 &&
            strcmp(p->sync.incarnation, p->leader.incarnation) == 0);
}

static bool handover_received(const struct view *v, const struct plan *p)
{
    if (p->txn != TXN_HANDOVER)
        return true;
    const struct member_rec *m = view_member(v, p->target);
    bool named =
        v->has_failover && v->failover.force && strcmp(v->failover.candidate, p->target) == 0;
    return m != NULL && strcmp(m->incarnation, p->leader.incarnation) == 0 && !m->nofailover &&
           (!member_sick(v, m) || named) && m->lease != 0 &&
           (v->leader.standby ? has_received_all(v, m) : has_shutdown_checkpoint(v, m)) &&
           (v->sync.v_n == 0 || view_record_mode(v) == SYNC_OFF ||
            view_in_v(v, m->incarnation));
}

static bool destroys(const struct plan *p)
{
    return p->action == ACTION_REWIND || p->action == ACTION_CLONE ||
           p->action == ACTION_INITDB;
}

static bool destroy_stopped(const struct view *v, const struct plan *p)
{
    return !destroys(p) || (v->dcs_ready && v->pg.proc == PG_PROC_STOPPED);
}

static bool destroy_not_counted_on(const struct view *v, const struct plan *p)
{
    if (!destroys(p) || (!view_in_v(v, v->pg.incarnation) && !view_is_record_leader(v)))
        return true;
    return site_leader(v, p) && view_record_mode(v) == SYNC_OFF && v->sync.v_n == 0;
}

static bool makes_cluster(const struct view *v)
{
    return v->initialize_leased && !v->has_leader && !v->has_sync &&
           strcmp(v->initialize.name, v->self) == 0;
}

/* A copy of a standby that streams from the leader on its timeline is as good as one of the leader. */
static bool sound_source(const struct view *v, const struct plan *p)
{
    const struct member_rec *m = view_member(v, p->target);
    return strcmp(p->target, v->leader.name) == 0 ||
           (p->action == ACTION_CLONE && m != NULL && m->clonefrom &&
            strcmp(m->upstream, v->leader.name) == 0 && strcmp(m->state, "streaming") == 0 &&
            m->timeline == v->leader.timeline && strcmp(m->name, v->self) != 0);
}

static bool destroy_from_leader(const struct view *v, const struct plan *p)
{
    if (p->action != ACTION_REWIND && p->action != ACTION_CLONE)
        return true;
    if (strcmp(p->target, REMOTE_SITE) == 0)
        return site_leader(v, p) || (to_site(v, p) && p->action == ACTION_CLONE &&
                                     makes_cluster(v) && v->pg.data == PG_DATA_EMPTY);
    return v->has_leader && p->token == v->leader.token && sound_source(v, p) &&
           strcmp(v->self, v->leader.name) != 0 && v->leader.timeline != 0;
}

static bool deleted_as_told(const struct view *v, const struct plan *p)
{
    const struct request_rec *r = &v->request;
    bool allowed =
        v->pg.rewind_failed ? v->config.remove_on_rewind_failure : v->config.remove_on_diverged;
    bool asked = v->has_request && strcmp(r->kind, "reinitialize") == 0 &&
                 r->state[0] != '\0' && r->remove_data;
    bool that = v->pg.data != PG_DATA_OURS || strcmp(v->pg.incarnation, r->incarnation) == 0;
    return !p->remove_old || (only_action(p, ACTION_CLONE) && (allowed || (asked && that)));
}

static bool initdb_in_empty(const struct view *v, const struct plan *p)
{
    return !only_action(p, ACTION_INITDB) ||
           ((v->pg.data == PG_DATA_EMPTY || (v->pg.data == PG_DATA_BROKEN && v->adopt)) &&
            makes_cluster(v));
}

/* A seal is for one loss; pointing at a leader lifts it only for a newer token. */
static bool seal_without_leader(const struct view *v, const struct plan *p)
{
    bool seals = p->action == ACTION_SEAL || p->txn == TXN_SEAL;
    return !seals || (v->dcs_ready && v->has_sync && !view_writable(v) &&
                      (v->has_leader ? view_is_leader(v) && p->token == v->leader.token - 1
                                     : p->token == v->sync.token));
}

static bool seal_true(const struct view *v, const struct plan *p)
{
    return p->txn != TXN_SEAL ||
           (v->pg.sealed_token == p->token && p->seal.token == p->token &&
            p->seal.lsn == v->pg.sealed_lsn &&
            strcmp(p->seal.incarnation, v->pg.incarnation) == 0 && !v->pg.walreceiver);
}

/* Whoever streams from the leader on its timeline has nothing that the leader has not. */
static bool follow_leader(const struct view *v, const struct plan *p)
{
    bool points = p->action == ACTION_FOLLOW ||
                  (p->action == ACTION_START_STANDBY && p->target[0] != '\0');
    return !points || strcmp(p->target, v->leader.name) == 0 || site_leader(v, p) ||
           (p->action == ACTION_FOLLOW && strcmp(p->target, v->replicatefrom) == 0 &&
            streams_from_leader(v, view_member(v, p->target)));
}

static bool follow_newer(const struct view *v, const struct plan *p)
{
    bool points = p->action == ACTION_FOLLOW ||
                  (p->action == ACTION_START_STANDBY && p->target[0] != '\0');
    bool other = !view_leader_named(v) || strcmp(p->target, REMOTE_SITE) == 0;
    return !points || (v->dcs_ready && v->has_leader && other && p->token == v->leader.token &&
                       p->token > v->pg.sealed_token);
}

static bool must_die(const struct view *v)
{
    bool lost = v->dcs_ready && !view_is_leader(v);
    return !v->tilt && v->pg.data != PG_DATA_UNKNOWN && view_writable(v) && !view_disarmed(v) &&
           (lost || (!view_lease_valid(v) && !view_nothing_known(v)));
}

static bool fenced_at_once(const struct view *v, const struct plan *p)
{
    return !must_die(v) || p->action == ACTION_KILL;
}

static bool nothing_blind(const struct view *v, const struct plan *p)
{
    bool idle = p->txn == TXN_NONE && p->action == ACTION_NONE;
    if (v->tilt || v->pg.data == PG_DATA_UNKNOWN)
        return idle;
    return !(v->txn_pending || v->txn_unknown || !v->dcs_ready) || p->txn == TXN_NONE;
}

static bool single_flight(const struct view *v, const struct plan *p)
{
    return v->busy.action == ACTION_NONE || p->action == ACTION_NONE ||
           p->action == ACTION_KILL;
}

static bool same_system(const struct view *v, const struct plan *p)
{
    bool other = view_other_system(v);
    bool stops =
        p->action == ACTION_NONE || p->action == ACTION_KILL || p->action == ACTION_STOP_FAST;
    return !other || !v->dcs_ready || (p->txn == TXN_NONE && stops);
}

static bool bootstrap_once(const struct view *v, const struct plan *p)
{
    if (p->txn == TXN_BOOTSTRAP_BEGIN)
        return !v->has_initialize && !v->has_leader && v->can_bootstrap;
    if (p->txn != TXN_BOOTSTRAP_DONE)
        return true;
    return v->initialize_leased && strcmp(v->initialize.name, v->self) == 0 && v->armed &&
           view_lease_valid(v) && v->pg.proc == PG_PROC_STOPPED && v->pg.incarnation[0] != '\0';
}

static bool could_relieve(const struct view *v, const struct member_rec *m)
{
    bool counts = view_record_mode(v) == SYNC_OFF || view_in_v(v, m->incarnation);
    return counts && strcmp(m->name, v->self) != 0 && !m->nofailover && !member_sick(v, m) &&
           member_follows(m);
}

static bool relieved_by_a_healthy(const struct view *v, const struct plan *p)
{
    bool found = false;
    for (size_t i = 0; i < v->members_n; i++)
        found = found || could_relieve(v, &v->members[i]);
    return !(p->relief || p->withhold) ||
           (found && v->config.sick_failover && v->pg.sick != SICK_NOT && view_is_leader(v) &&
            !v->config.pause && !view_disarmed(v));
}

/* Two that are sick in turn do not throw the key at each other. */
static bool relief_damped(const struct view *v, const struct plan *p)
{
    return !(p->relief || p->withhold) || v->leader.relieves[0] == '\0' ||
           v->now_ms >= v->leader_ms + v->config.sick_interval_ms;
}

static bool withheld_when_dead(const struct view *v, const struct plan *p)
{
    return !p->withhold || v->pg.proc == PG_PROC_DYING || v->pg.proc == PG_PROC_STOPPED;
}

static bool fence_kept(const struct view *v, const struct plan *p)
{
    bool known = v->dcs_ready && !v->txn_pending && !v->txn_unknown;
    bool recorded =
        view_disarmed(v) && v->config.pause && (known || !v->armed) && !becomes_writable(p);
    return p->arm || recorded || !(view_writable(v) || becomes_writable(p));
}

static const struct {
    invariant_fn *fn;
    const char *text;
} invariants[] = {
    {writable_as_leader, "writable only with key and record ours and the plan's token"},
    {never_in_standby_cluster, "nothing becomes writable in a standby cluster"},
    {writable_armed, "writable only under a valid lease that the fence holds"},
    {promote_cut_off,
     "promoted only when cut off, or with everything up to the shutdown checkpoint"},
    {promote_running_standby, "promoted only a running standby"},
    {promote_once, "one promotion a token"},
    {hook_as_leader, "asked and promoted as pre_promote permits, with the key"},
    {start_primary_in_place, "started in place only the stopped data of a primary"},
    {first_set_safe, "the first set keeps the rule against the record"},
    {acquire_when_absent,
     "acquired only when the key is absent, with a lease, while read-only"},
    {acquire_record_emptied, "an acquisition leaves a record of its own with V empty"},
    {acquire_by_right,
     "acquired only by the record's leader, the most advanced of q sealed of V, or by order"},
    {acquire_cut_off, "acquired only when cut off from the old leader"},
    {acquire_not_from_disarmed, "nobody acquires from a holder whose fence is disarmed"},
    {rearmed_first, "the record says armed only when the fence is"},
    {record_by_leader, "the record is changed only by its leader"},
    {record_of_direct, "recorded is only who streams from the leader itself"},
    {record_safe, "a record keeps the rule against every set in force"},
    {record_inside_set, "in mode on V is inside the set"},
    {set_by_leader, "the set is changed only on the leader"},
    {set_safe, "a set keeps the rule against the record"},
    {one_side_of_sync, "set and record are never changed together"},
    {release_when_stopped, "released only when no process is left"},
    {restore_before_promotion, "the record is restored only before a promotion was requested"},
    {handover_clean,
     "handed over only after a clean stop, or by a standby leader that is cut off"},
    {handover_received, "handed over only to one that has the last record and may lead"},
    {destroy_stopped, "data is replaced only while PostgreSQL is stopped"},
    {destroy_not_counted_on, "data that the record counts on is not replaced"},
    {destroy_from_leader,
     "data is replaced only from the leader, its own only from the other site"},
    {deleted_as_told,
     "data is deleted only for a clone, and where the policy or a person says so"},
    {initdb_in_empty, "a cluster is made only in an empty directory, or of data that is given "
                      "to it, by who won the "
                      "race"},
    {seal_without_leader, "sealed only for a loss"},
    {seal_true, "a seal says what the node has, cut off"},
    {follow_newer, "a seal is lifted only for a newer token"},
    {record_renewed,
     "the record's data is named anew only by its leader, for a copy of the other site's"},
    {follow_leader, "followed is the leader, or by order one that streams from it"},
    {fenced_at_once, "killed at once when writable without the right to be"},
    {nothing_blind, "nothing is done blindly"},
    {single_flight, "one action at a time"},
    {same_system, "another cluster's data is not touched"},
    {bootstrap_once, "one bootstrap"},
    {relieved_by_a_healthy, "a sick leader gives way only by policy and to a healthy member"},
    {relief_damped, "sickness ends no leadership that another sickness has just begun"},
    {withheld_when_dead, "the lease is withheld only when PostgreSQL is being ended"},
    {fence_kept, "the fence stays armed while PostgreSQL may take writes"},
};

enum err plan_check(const struct view *v, const struct plan *p, struct errmsg *e)
{
    ASSERT(p->rule != NULL && p->action < ACTION_COUNT && p->txn < TXN_COUNT);
    for (size_t i = 0; i < ARRAY_LEN(invariants); i++)
        if (!invariants[i].fn(v, p))
            return err_set(e, ERR_INTERNAL, "rule %s breaks: %s (%s, %s: %s)", p->rule,
                           invariants[i].text, plan_action_name(p->action),
                           plan_txn_name(p->txn), p->reason);
    return ERR_OK;
}
