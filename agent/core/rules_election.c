/* There is no leader: seal, compare, acquire. */
#include "agent/core/rules.h"

#include "agent/core/candidate.h"
#include "base/assert.h"
#include "base/mutant.h"

uint64_t election_grace_ms(const struct view *v)
{
    return MIN(1000, v->config.ttl_ms / 4);
}

bool plan_acquire(const struct view *v, struct plan *p)
{
    p->txn = TXN_ACQUIRE;
    p->token = v->sync.token;
    p->sync = v->sync;
    (void)memcpy(p->sync.leader, v->self, sizeof p->sync.leader);
    (void)memcpy(p->sync.incarnation, v->pg.incarnation, sizeof p->sync.incarnation);
    p->sync.token = v->sync.token + 1;
    p->sync.unknown = false;
    if (v->sick_leader[0] != '\0' && strcmp(v->sick_leader, v->sync.incarnation) == 0 &&
        !view_is_record_leader(v))
        (void)memcpy(p->leader.relieves, v->sync.leader, sizeof p->leader.relieves);
    p->sync.disarmed = view_disarmed(v) && view_writable(v);
    if (MUTANT(keep_v_at_acquisition))
        return true;
    (void)memset(p->sync.v, 0, sizeof p->sync.v);
    p->sync.v_n = 0;
    p->sync.q = 1;
    return true;
}

bool rule_no_record(const struct view *v, struct plan *p)
{
    if (v->has_sync)
        return false;
    (void)plan_say(
        p, "the cluster is initialized, but its sync record is missing: nothing is decided");
    return plan_wait(p, UINT64_MAX);
}

/* What is left of a forced switchover that could not hand over: give_up() in rules_switch.c. */
static bool ordered_away(const struct view *v)
{
    return v->has_failover && v->failover.force && is_state(v->failover.kind, "switchover") &&
           strcmp(v->failover.leader, v->self) == 0;
}

/* The record's own leader has everything that was acknowledged, by definition: it needs no seal. It
 * gives way for a while when its PostgreSQL crashed and another member can take over. */
bool rule_record_leader(const struct view *v, struct plan *p)
{
    if (v->has_leader || !view_is_record_leader(v) || v->pg.data != PG_DATA_OURS)
        return false;
    bool stopped = v->pg.proc == PG_PROC_STOPPED;
    bool lonely = v->pg.proc == PG_PROC_RUNNING && v->pg.in_recovery &&
                  v->pg.upstream[0] == '\0' && !v->pg.walreceiver;
    if (!stopped && !lonely)
        return false; /* starting, stopping, or still connected: the rules below */
    if (stopped && failover_ordered(v) && paused_down(v)) {
        p->txn = TXN_CLEAR_FAILOVER;
        return plan_say(p,
                        "refused: paused, and PostgreSQL is stopped here; `regentctl start %s` "
                        "brings it back as the leader",
                        v->self);
    }
    bool ordered = ordered_away(v) && other_eligible(v) != NULL;
    uint64_t ordered_ms = v->lost_ms + 2 * v->config.ttl_ms;
    if (stopped && ordered && v->now_ms < ordered_ms) {
        (void)plan_say(p, "an operator has ordered that another leads: giving way");
        return plan_wait(p, ordered_ms);
    }
    if (stopped && ordered) {
        p->txn = TXN_CLEAR_FAILOVER;
        return plan_say(p,
                        "PostgreSQL did not stop cleanly in time, and nobody else took over");
    }
    /* A sick one lets everybody have a turn. */
    bool sick = v->config.sick_failover && v->pg.sick != SICK_NOT;
    uint64_t until_ms =
        v->lost_ms + (sick ? v->members_n * v->config.ttl_ms : 3 * election_grace_ms(v));
    if (stopped && crash_gives_way(v) && v->now_ms < until_ms) {
        (void)plan_say(p, "%s: giving way to %s for a moment",
                       sick ? v->pg.sick_why : "PostgreSQL crashed here",
                       other_eligible(v)->name);
        return plan_wait(p, until_ms);
    }
    until_ms = v->lost_ms + 2 * v->config.ttl_ms;
    if (v->refused_token == v->sync.token && v->refused_token != 0 && v->now_ms < until_ms) {
        (void)plan_say(p, "pre_promote refused the promotion here: giving way for a while");
        return plan_wait(p, until_ms);
    }
    if (!view_lease_valid(v)) {
        (void)plan_say(p, "last leader, waiting for a lease to resume");
        return plan_wait(p, UINT64_MAX);
    }
    (void)plan_say(p, "the record names this data as the last leader: resuming");
    return plan_acquire(v, p);
}

bool rule_nothing_to_stand_with(const struct view *v, struct plan *p)
{
    if (v->pg.data == PG_DATA_OURS)
        return false;
    (void)plan_say(p, "no leader to clone from");
    return plan_wait(p, UINT64_MAX);
}

bool rule_start_lonely(const struct view *v, struct plan *p)
{
    if (v->pg.proc != PG_PROC_STOPPED)
        return false;
    p->action = ACTION_START_STANDBY;
    p->token = v->sync.token;
    return plan_say(p, "no leader: starting as a standby of nobody");
}

bool rule_seal(const struct view *v, struct plan *p)
{
    if (v->pg.proc != PG_PROC_RUNNING) {
        (void)plan_say(p, "no leader: waiting for PostgreSQL to start or stop");
        return plan_wait(p, UINT64_MAX);
    }
    ASSERT(v->pg.in_recovery); /* rule_writable_without_lease */
    /* Whatever was noted: connected is not sealed. */
    if (v->pg.sealed_token == v->sync.token &&
        ((v->pg.upstream[0] == '\0' && !v->pg.walreceiver) || MUTANT(trust_noted_seal)))
        return false;
    if (MUTANT(forget_sealing))
        return false;
    p->action = ACTION_SEAL;
    p->token = v->sync.token;
    return plan_say(p, "the leader with token %llu is gone: sealing",
                    (unsigned long long)v->sync.token);
}

bool rule_publish_seal(const struct view *v, struct plan *p)
{
    if (v->pg.incarnation[0] == '\0')
        return false;
    const struct seal_rec *known = view_seal_of(v, v->pg.incarnation, v->sync.token);
    if (known != NULL && known->lsn == v->pg.sealed_lsn &&
        known->timeline == v->pg.sealed_timeline)
        return false;
    p->txn = TXN_SEAL;
    p->token = v->sync.token;
    (void)memcpy(p->seal.name, v->self, sizeof p->seal.name);
    (void)memcpy(p->seal.incarnation, v->pg.incarnation, sizeof p->seal.incarnation);
    p->seal.token = v->sync.token;
    p->seal.timeline = v->pg.sealed_timeline;
    p->seal.lsn = v->pg.sealed_lsn;
    (void)memcpy(p->seal.lineage, v->pg.lineage, sizeof p->seal.lineage);
    return plan_say(p, "sealed at %X/%X", (unsigned)(v->pg.sealed_lsn >> 32),
                    (unsigned)v->pg.sealed_lsn);
}

bool failover_ordered(const struct view *v)
{
    return v->has_failover && v->failover.force && is_state(v->failover.kind, "failover");
}

/* The operator has said which node leads on, knowing what may be lost: neither the record nor what the
 * others have is asked. It is sealed like every candidate. */
bool rule_forced_failover(const struct view *v, struct plan *p)
{
    if (!failover_ordered(v))
        return false;
    if (strcmp(v->failover.candidate, v->self) != 0) {
        if (view_member(v, v->failover.candidate) == NULL)
            return false;
        (void)plan_say(p, "an operator has ordered that %s leads", v->failover.candidate);
        return plan_wait(p, UINT64_MAX);
    }
    if (!view_lease_valid(v)) {
        (void)plan_say(p, "ordered to lead, waiting for a lease");
        return plan_wait(p, UINT64_MAX);
    }
    p->forced = true;
    (void)plan_say(p,
                   "an operator has ordered that this node leads: what only %s has may be lost",
                   v->sync.leader);
    return plan_acquire(v, p);
}

/* The last rule: applies always. */
bool rule_election(const struct view *v, struct plan *p)
{
    switch (candidate_choose(v, p)) {
    case CANDIDATE_SELF:
        if (view_lease_valid(v))
            return plan_acquire(v, p);
        (void)plan_say(p, "the best of the sealed, waiting for a lease");
        return plan_wait(p, UINT64_MAX);
    case CANDIDATE_WAIT:
    case CANDIDATE_OTHER:
    case CANDIDATE_NONE:
        ASSERT(p->reason[0] != '\0');
        return true;
    }
    UNREACHABLE();
}
