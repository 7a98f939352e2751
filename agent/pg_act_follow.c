/* FOLLOW: another upstream for a running standby; a reload, no restart. Done when the server shows it. */
#include "agent/postgres_private.h"
#include "base/clock.h"

enum { STEP_WAIT = 1 };

void act_follow_look(struct postgres *p)
{
    struct action *a = &p->act;
    const struct pg_seen *s = pg_monitor_seen(p->monitor);
    if (!a->active || a->plan.action != ACTION_FOLLOW || a->step != STEP_WAIT)
        return;
    if (!postgres_running(p))
        action_fail(p, ERR_UNAVAILABLE, "PostgreSQL ended");
    else if (pg_monitor_accepts(p->monitor) && s->follow_token == p->follow.token &&
             strcmp(s->upstream, p->follow.name) == 0 &&
             strcmp(s->conninfo, p->follow.conninfo) == 0)
        action_end(p, ERR_OK, NULL);
    else if (clock_boot_ms() - a->since_ms > PG_SQL_MS)
        action_fail(p, ERR_TIMEOUT, "the new upstream does not show after the reload");
}

/* A standby that is not consistent yet lets nobody in, and may never become it from its old upstream:
 * what comes of the reload is seen later. */
static void reloading(struct postgres *p, const struct worker_reply *r)
{
    (void)r;
    if (!p->ever_seen) {
        action_end(p, ERR_OK, NULL);
        return;
    }
    p->act.step = STEP_WAIT;
    p->act.since_ms = clock_boot_ms();
    pg_monitor_closely(p->monitor, true);
}

void act_follow(struct postgres *p)
{
    struct action *a = &p->act;
    bool standby = p->ever_seen ? pg_monitor_seen(p->monitor)->in_recovery : p->probe.standby;
    if (!postgres_running(p) || !standby) {
        action_fail(p, ERR_PRECONDITION, "only a running standby follows");
        return;
    }
    if (!follow_set(p, a->has_upstream ? &a->upstream : NULL, a->plan.token)) {
        action_fail(p, ERR_LIMIT, "the connection string is too long");
        return;
    }
    stuck_forget(p);
    action_reload(p, NULL, reloading);
}
