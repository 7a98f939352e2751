/* Giving the leader key away on purpose: a switchover, or the daemon was told to end. The state lives in
 * the records: request, leader.state, and whether PostgreSQL is down. */
#include "agent/core/rules.h"

#include <stdio.h>

#include "agent/core/candidate.h"
#include "base/assert.h"

static bool runs_as_primary(const struct view *v)
{
    return view_is_leader(v) && v->pg.proc == PG_PROC_RUNNING && !v->pg.in_recovery;
}

static bool wanted(const struct view *v)
{
    return v->has_failover || v->stopping || relief_by_switchover(v);
}

/* Nobody asked for it. */
static bool by_sickness(const struct view *v)
{
    return !v->has_failover && !v->stopping;
}

static const char *because(const struct view *v)
{
    return by_sickness(v) ? v->pg.sick_why : "switchover";
}

/* Ends the request; plan.reason is its result. */
static bool refuse(struct plan *p)
{
    p->txn = TXN_CLEAR_FAILOVER;
    p->action = ACTION_NONE;
    return true;
}

/* A TTL from the end of this step; 0: it is not what was done last. */
static uint64_t ttl_after(const struct view *v, enum plan_action step)
{
    return v->busy.done_action == step ? v->busy.done_ms + v->config.ttl_ms : 0;
}

/* What passes by itself within a TTL of the order, or of the last step of it, is no reason to call it off. */
static uint64_t passing_until_ms(const struct view *v)
{
    uint64_t ordered = v->has_failover ? v->failover_ms + v->config.ttl_ms : 0;
    uint64_t before = MAX(ttl_after(v, ACTION_CHECKPOINT), ttl_after(v, ACTION_SEAL));
    return MAX(ordered, MAX(before, ttl_after(v, ACTION_STOP_FAST)));
}

/* Who is to take over. NULL with *ret_said: p is the answer, the order ends or is looked at again; without it, nobody
 * has ordered anything, and nobody can take over. */
static const struct member_rec *receiver(const struct view *v, struct plan *p, bool *ret_said)
{
    bool passes;
    const struct member_rec *to =
        candidate_switchover(v, v->has_failover ? v->failover.candidate : "", p, &passes);
    char why[sizeof p->reason];
    *ret_said = false;
    if (to != NULL)
        return to;
    (void)memcpy(why, p->reason, sizeof why);
    uint64_t until_ms = passing_until_ms(v);
    if (passes && v->now_ms < until_ms) {
        (void)plan_say(p, "switchover: not yet, %s: looking again", why);
        *ret_said = plan_wait(p, until_ms);
    } else if (v->has_failover) {
        (void)plan_say(p, "refused: %s", why);
        *ret_said = refuse(p);
    }
    return NULL;
}

static bool other_leader_meant(const struct view *v)
{
    return v->has_failover && v->failover.leader[0] != '\0' &&
           strcmp(v->failover.leader, v->self) != 0;
}

/* True: the order ends here, without a look at the candidates. */
static bool refuse_order(const struct view *v, struct plan *p)
{
    if (v->has_failover && v->failover.at_ms != 0 && (v->failover_late || v->config.pause)) {
        (void)plan_say(p, v->config.pause
                              ? "refused: nothing that is scheduled is done in a pause"
                              : "refused: the time for it passed meanwhile");
        return refuse(p);
    }
    bool meant =
        v->failover.candidate[0] == '\0' || strcmp(v->failover.candidate, v->self) == 0;
    if (other_leader_meant(v) && v->failover.force && meant) {
        (void)plan_say(p, "done"); /* by an election */
        return refuse(p);
    }
    if (other_leader_meant(v)) {
        (void)plan_say(p, "refused: %s is not the leader, %s is", v->failover.leader, v->self);
        return refuse(p);
    }
    return false;
}

/* The stop writes what is dirty while clients wait: have it done before. The candidate looks at its
 * LSN closely from now on. */
bool rule_switch_checkpoint(const struct view *v, struct plan *p)
{
    if (!runs_as_primary(v) || !wanted(v) || !is_state(v->leader.state, "running"))
        return false;
    if (refuse_order(v, p))
        return true;
    bool said;
    const struct member_rec *to = receiver(v, p, &said);
    if (to == NULL)
        return said;
    p->txn = TXN_LEADER_STATE;
    p->action = ACTION_CHECKPOINT;
    p->token = v->leader.token;
    p->leader = v->leader;
    (void)memcpy(p->leader.state, "stopping", sizeof "stopping");
    p->relief = by_sickness(v);
    return plan_say(p, "%s to %s: checkpoint first", because(v), to->name);
}

bool rule_switch_stop(const struct view *v, struct plan *p)
{
    if (!runs_as_primary(v) || !wanted(v))
        return false;
    bool said;
    const struct member_rec *to = receiver(v, p, &said);
    if (said)
        return true;
    p->action = ACTION_STOP_FAST;
    p->token = v->leader.token;
    p->limit_ms = v->config.ttl_ms; /* a hung walsender stalls a fast stop for up to 60 s */
    if (to == NULL)
        return plan_say(
            p, "the daemon was told to end and nobody can take over: stopping PostgreSQL");
    (void)memcpy(p->leader.incarnation, to->incarnation, sizeof p->leader.incarnation);
    p->relief = by_sickness(v);
    return plan_say(p, "%s to %s: stopping PostgreSQL", because(v), to->name);
}

static bool hand_over(const struct view *v, const struct member_rec *to, struct plan *p)
{
    p->txn = TXN_HANDOVER;
    p->token = v->leader.token;
    (void)memcpy(p->target, to->name, sizeof p->target);
    (void)memcpy(p->leader.name, to->name, sizeof p->leader.name);
    (void)memcpy(p->leader.incarnation, to->incarnation, sizeof p->leader.incarnation);
    (void)memcpy(p->leader.conn_host, to->conn_host, sizeof p->leader.conn_host);
    (void)memcpy(p->leader.state, "acquired", sizeof "acquired");
    p->leader.conn_port = to->conn_port;
    p->leader.token = v->leader.token + 1;
    p->leader.shutdown_lsn = v->pg.shutdown_lsn;
    p->sync = v->sync;
    (void)memcpy(p->sync.leader, to->name, sizeof p->sync.leader);
    (void)memcpy(p->sync.incarnation, to->incarnation, sizeof p->sync.incarnation);
    p->sync.token = v->leader.token + 1;
    (void)memset(p->sync.v, 0, sizeof p->sync.v);
    p->sync.v_n = 0;
    p->sync.q = 1;
    p->sync.disarmed = false;
    p->relief = by_sickness(v);
    if (p->relief)
        (void)memcpy(p->leader.relieves, v->self, sizeof p->leader.relieves);
    return plan_say(p, "%s has everything up to the shutdown checkpoint: handing over",
                    to->name);
}

/* Nobody is known to have its last record. An operator who said `--force` wants another leader all the same: an
 * election finds one, by seals, as after a crash. */
static bool give_up(const struct view *v, const char *why, struct plan *p)
{
    bool named = strcmp(v->failover.leader, v->self) == 0;
    if (v->has_failover && v->failover.force && named && other_eligible(v) != NULL) {
        (void)plan_say(p, "%s, and the switchover is forced: released for an election", why);
        return plan_release(v, p);
    }
    (void)plan_say(p, "%s: nothing was handed over", why);
    return v->has_failover ? refuse(p) : false;
}

/* PostgreSQL is down. Only a clean stop has a last record that a candidate can have. */
bool rule_switch_handover(const struct view *v, struct plan *p)
{
    if (!view_is_leader(v) || !wanted(v) || v->pg.proc != PG_PROC_STOPPED ||
        v->leader.timeline == 0 || v->leader.standby)
        return false;
    if (!v->pg.clean || v->pg.shutdown_lsn == 0)
        return give_up(v, "PostgreSQL did not stop cleanly in time", p);
    bool said;
    const struct member_rec *to = receiver(v, p, &said);
    if (to == NULL)
        return said;
    if (has_shutdown_checkpoint(v, to))
        return hand_over(v, to, p);
    /* PostgreSQL waits for its walsenders before it is down: normally the last record is there already. */
    uint64_t until_ms = ttl_after(v, ACTION_STOP_FAST);
    if (v->now_ms < until_ms) {
        (void)plan_say(p, "waiting for %s to have the shutdown checkpoint", to->name);
        return plan_wait(p, until_ms);
    }
    char why[120];
    (void)snprintf(why, sizeof why, "%s did not get the shutdown checkpoint in time", to->name);
    return give_up(v, why, p);
}

/* A standby leader hands over as it runs: cut off from the other site first, so that what it has received ends
 * somewhere, and the successor can have all of it. */
bool rule_site_hand_over(const struct view *v, struct plan *p)
{
    bool follows = v->pg.proc == PG_PROC_RUNNING && v->pg.in_recovery;
    if (!view_is_leader(v) || !v->config.standby_cluster || !v->leader.standby || !follows ||
        (!v->has_failover && !v->stopping))
        return false;
    if (refuse_order(v, p))
        return true;
    bool said;
    const struct member_rec *to = receiver(v, p, &said);
    if (to == NULL)
        return said;
    if (v->pg.upstream[0] != '\0' || v->pg.walreceiver) {
        p->action = ACTION_SEAL;
        p->token = v->leader.token - 1;
        return plan_say(p, "switchover to %s: cut off from the other site first", to->name);
    }
    if (has_received_all(v, to)) {
        (void)hand_over(v, to, p);
        return plan_say(p, "%s has all that was received here: handing over", to->name);
    }
    (void)plan_say(p, "waiting for %s to have all that was received here", to->name);
    uint64_t until_ms = ttl_after(v, ACTION_SEAL);
    if (v->now_ms < until_ms)
        return plan_wait(p, until_ms);
    (void)plan_say(p,
                   "%s did not get all that was received here in time: nothing was handed over",
                   to->name);
    return v->has_failover ? refuse(p) : false;
}

/* Told to end, with the key, and nobody to hand it to. */
bool rule_leave(const struct view *v, struct plan *p)
{
    if (!view_is_leader(v) || !v->stopping)
        return false;
    if (v->pg.proc == PG_PROC_STOPPED) {
        (void)plan_say(p, "told to end, PostgreSQL is stopped: the leader key is released");
        return plan_release(v, p);
    }
    if (runs_as_primary(v))
        return false; /* with a checkpoint and a candidate, if there is one */
    if (v->pg.proc == PG_PROC_STOPPING) {
        (void)plan_say(p, "told to end: waiting for PostgreSQL to stop");
        return plan_wait(p, UINT64_MAX);
    }
    p->action = ACTION_STOP_FAST;
    p->limit_ms = v->config.ttl_ms;
    return plan_say(p, "told to end: stopping PostgreSQL before it is promoted");
}

bool rule_leave_standby(const struct view *v, struct plan *p)
{
    if (!v->stopping)
        return false;
    if (v->pg.proc == PG_PROC_STOPPED) {
        (void)plan_say(p, "PostgreSQL is stopped: the daemon may leave");
        return plan_wait(p, UINT64_MAX);
    }
    if (v->pg.proc == PG_PROC_STOPPING) {
        (void)plan_say(p, "told to end: waiting for PostgreSQL to stop");
        return plan_wait(p, UINT64_MAX);
    }
    p->action = ACTION_STOP_FAST;
    p->limit_ms = v->config.ttl_ms;
    return plan_say(p, "told to end: stopping PostgreSQL");
}
