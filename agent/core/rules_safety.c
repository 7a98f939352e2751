/* What must happen whatever else is going on. */
#include "agent/core/rules.h"

#include "base/mutant.h"

/* The loop was late: what we know may be old. Look first, the fence holds the deadline meanwhile. */
bool rule_tilt(const struct view *v, struct plan *p)
{
    if (!v->tilt)
        return false;
    (void)plan_say(p, "the loop was late: looking for one pass before acting");
    return plan_wait(p, UINT64_MAX);
}

bool rule_data_unknown(const struct view *v, struct plan *p)
{
    if (v->pg.data != PG_DATA_UNKNOWN)
        return false;
    (void)plan_say(p, "the data directory has not been looked at yet");
    return plan_wait(p, UINT64_MAX);
}

/* Somebody else leads. Whatever our lease says, at most one may take writes, and it is not us. */
bool rule_foreign_leader(const struct view *v, struct plan *p)
{
    if (!v->dcs_ready || !v->has_leader || view_is_leader(v) || !view_writable(v) ||
        view_disarmed(v) || MUTANT(ignore_foreign_leader))
        return false;
    p->action = ACTION_KILL;
    p->token = v->leader.token;
    return plan_say(
        p, "%s holds the leader key with token %llu while PostgreSQL may take writes here",
        v->leader.name, (unsigned long long)v->leader.token);
}

/* The key is gone: expired, or deleted by hand. A postmaster of a bootstrap does not run yet. */
bool rule_writable_without_lease(const struct view *v, struct plan *p)
{
    if (!v->dcs_ready || v->has_leader || !view_writable(v) || view_disarmed(v))
        return false;
    p->action = ACTION_KILL;
    p->token = v->sync.token;
    return plan_say(p, "the leader key is gone while PostgreSQL may take writes here");
}

bool rule_deadline_passed(const struct view *v, struct plan *p)
{
    if (!view_writable(v) || view_lease_valid(v) || view_disarmed(v) || view_nothing_known(v) ||
        MUTANT(ignore_deadline))
        return false;
    p->action = ACTION_KILL;
    p->token = v->leader.token;
    return plan_say(
        p, "the deadline of the lease has passed while PostgreSQL may take writes here");
}

/* Backends outlive their postmaster for a moment and may finish a commit. */
bool rule_processes_left(const struct view *v, struct plan *p)
{
    if (v->pg.proc != PG_PROC_DYING || MUTANT(release_before_last_backend))
        return false;
    p->action = ACTION_KILL;
    return plan_say(p, "the postmaster is gone and left processes behind");
}
