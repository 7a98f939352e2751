/* Paused, PostgreSQL is left alone, and its life does not hang on the store: the fence holds no deadline.
 * That is recorded before it happens, and while it is recorded nobody else may acquire the key. */
#include "agent/core/rules.h"

#include "agent/core/candidate.h"

static bool runs_as_primary(const struct view *v)
{
    return v->pg.proc == PG_PROC_RUNNING && !v->pg.in_recovery;
}

/* By a switchover; not by a person, and not by a crash. A rewind or clone came after such a stop. */
static bool stopped_here(const struct view *v)
{
    return v->busy.done_action == ACTION_STOP_FAST || v->busy.done_action == ACTION_REWIND ||
           v->busy.done_action == ACTION_CLONE;
}

bool paused_down(const struct view *v)
{
    return v->config.pause && !stopped_here(v) && !request_wants_running(v);
}

static bool change_flag(const struct view *v, struct plan *p, bool disarmed)
{
    p->txn = TXN_SYNC;
    p->token = v->leader.token;
    p->sync = v->sync;
    p->sync.disarmed = disarmed;
    return true;
}

bool rule_pause_disarm(const struct view *v, struct plan *p)
{
    if (!v->config.pause || !view_is_leader(v) || !runs_as_primary(v) || v->sync.disarmed ||
        v->has_failover || v->stopping)
        return false;
    (void)plan_say(p, "paused: from here on the fence holds no deadline, and nobody else may "
                      "lead");
    return change_flag(v, p, true);
}

/* The way back: first the fence, then the record. A stopped PostgreSQL needs no deadline. */
bool rule_resume_arm(const struct view *v, struct plan *p)
{
    if (!view_is_leader(v) || !v->sync.disarmed)
        return false;
    bool stopped = v->pg.proc == PG_PROC_STOPPED;
    if (!stopped && v->config.pause)
        return false;
    if (!stopped && (!v->armed || !view_lease_valid(v))) {
        (void)plan_say(p, "resuming: waiting for the fence to hold our deadline again");
        return plan_wait(p, UINT64_MAX);
    }
    (void)plan_say(p, stopped ? "PostgreSQL is stopped: there is nothing to hold a deadline for"
                              : "resuming: the fence holds our deadline again");
    return change_flag(v, p, false);
}

/* A primary that a person stopped, or that crashed: the key goes, so that a failover can be ordered. */
bool rule_pause_release(const struct view *v, struct plan *p)
{
    if (!view_is_leader(v) || v->pg.proc != PG_PROC_STOPPED || !paused_down(v))
        return false;
    (void)plan_say(p, "paused, and PostgreSQL is stopped: the leader key is released");
    return plan_release(v, p);
}

/* What an order of a person, or the end of one, still needs. */
static bool goes_on(const struct view *v)
{
    if (v->pg.proc == PG_PROC_STOPPED && request_wants_running(v))
        return true;
    if (!v->has_leader)
        return failover_ordered(v) && strcmp(v->failover.candidate, v->self) == 0;
    if (v->pg.proc == PG_PROC_STOPPED)
        return stopped_here(v);
    return follow_due(v) && candidate_follow(v) == FOLLOW_AS_IS;
}

/* Nothing starts, stops or is elected by itself; the rules before this one go on. A standby still follows
 * the leader there is: that takes a reload. */
bool rule_pause(const struct view *v, struct plan *p)
{
    if (!v->config.pause || goes_on(v))
        return false;
    (void)plan_say(p, "automatic management is paused");
    return plan_wait(p, UINT64_MAX);
}

/* The key ran out while nobody could renew it. The data is still the primary's, and the record has kept
 * everybody else from taking it. */
bool rule_disarmed_key(const struct view *v, struct plan *p)
{
    if (v->has_leader || !view_disarmed(v) || !runs_as_primary(v))
        return false;
    if (!view_lease_valid(v)) {
        (void)plan_say(p, "primary without a key, waiting for a lease to take it again");
        return plan_wait(p, UINT64_MAX);
    }
    (void)plan_say(p, "primary without a key since it ran out in the pause: taken again");
    return plan_acquire(v, p);
}

bool rule_disarmed_holder(const struct view *v, struct plan *p)
{
    if (v->has_leader || !v->sync.disarmed || view_is_record_leader(v))
        return false;
    (void)plan_say(p,
                   "%s was paused without a deadline and may still take writes: nobody else "
                   "leads; when it is certainly down, `regentctl resume --force`",
                   v->sync.leader);
    return plan_wait(p, UINT64_MAX);
}
