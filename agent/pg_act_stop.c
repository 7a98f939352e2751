/* STOP_FAST, STOP_IMMEDIATE, KILL: done when no process of it is left. */
#include <signal.h>

#include "agent/postgres_private.h"
#include "base/clock.h"
#include "base/log.h"

enum { KILL_AFTER_MS = 5000, STRAGGLER_MS = 1000, STRAGGLER_PART = 4 };

static void late_cb(uv_timer_t *timer);

static bool is_stop(const struct action *a)
{
    return a->active && a->step != 0 &&
           (a->plan.action == ACTION_STOP_FAST || a->plan.action == ACTION_STOP_IMMEDIATE ||
            a->plan.action == ACTION_KILL);
}

void act_stop_look(struct postgres *p)
{
    if (is_stop(&p->act) && !postgres_running(p) && !p->fence_seen.processes_left)
        action_end(p, ERR_OK, NULL);
}

static void signal_it(struct postgres *p, int number)
{
    enum err rv = fence_signal(p->fence, number);
    if (rv != ERR_OK && postgres_running(p))
        rv = fence_kill(p->fence);
    (void)rv; /* what came of it is seen, or the next deadline passes */
}

/* A fast stop waits for walsenders, up to wal_sender_timeout; an immediate one for nothing. */
static void late_cb(uv_timer_t *timer)
{
    struct postgres *p = timer->data;
    p->act.step++;
    if (p->act.step == 2) {
        signal_it(p, SIGQUIT);
    } else {
        enum err rv = fence_kill(p->fence);
        (void)rv;
    }
    action_in(p, KILL_AFTER_MS, late_cb);
}

static uint64_t left_ms(const struct postgres *p)
{
    uint64_t now = clock_boot_ms();
    return p->act.deadline_ms > now ? p->act.deadline_ms - now : 0;
}

static void ended(void *arg, enum err status, const struct errmsg *e,
                  const struct worker_reply *r)
{
    (void)arg;
    (void)status; /* it may be gone; what comes of it is seen, or the limit passes */
    (void)e;
    (void)r;
}

/* A standby that hangs holds up the stop for wal_sender_timeout. Only one of them has to have the last record:
 * the walsenders of the others are ended. */
static void stragglers_cb(uv_timer_t *timer)
{
    struct postgres *p = timer->data;
    const struct pg_seen *s = pg_monitor_seen(p->monitor);
    for (size_t i = 0; i < MIN(s->senders_n, (size_t)VIEW_WALSENDERS); i++) {
        struct worker_req q;
        if (strcmp(s->senders[i].application_name, p->act.plan.leader.incarnation) == 0)
            continue;
        postgres_req(p, &q, "signal");
        q.pid = s->senders[i].pid;
        q.signal = SIGTERM;
        pg_worker_send(p->worker, &q, PG_WORKER_MS, ended, p);
    }
    action_in(p, left_ms(p), late_cb);
}

static void stop_fast(struct postgres *p)
{
    p->stopping = true;
    signal_it(p, SIGINT);
    uint64_t stragglers_ms = MIN(left_ms(p) / STRAGGLER_PART, STRAGGLER_MS);
    if (p->act.plan.leader.incarnation[0] != '\0' && stragglers_ms > 0)
        action_in(p, stragglers_ms, stragglers_cb);
    else
        action_in(p, p->act.deadline_ms == 0 ? 60000 : left_ms(p), late_cb);
}

/* Whatever it says: it may tell others, not hold up the stop. */
static void told_others(struct postgres *p, enum err status, const struct errmsg *e)
{
    if (status != ERR_OK)
        log_event(LOG_WARN, "hook", KV(KV_STR("hook", "before_stop")), "%s", e->text);
    p->act.deadline_ms +=
        p->act.deadline_ms == 0 ? 0 : clock_boot_ms() - p->act.began_ms; /* its time is extra */
    stop_fast(p);
    postgres_told(p);
}

void act_stop(struct postgres *p)
{
    p->act.step = 1;
    p->stopping = p->stopping || p->act.plan.action != ACTION_STOP_FAST;
    if (p->act.plan.action == ACTION_KILL) {
        enum err rv = fence_kill(p->fence);
        (void)rv;
        p->act.step = 2;
        action_in(p, KILL_AFTER_MS, late_cb);
    } else if (p->act.plan.action == ACTION_STOP_IMMEDIATE) {
        p->act.step = 2;
        signal_it(p, SIGQUIT);
        action_in(p, KILL_AFTER_MS, late_cb);
    } else if (postgres_running(p)) {
        hook_run(p, "before_stop", p->config->postgresql.before_stop, NULL,
                 p->config->postgresql.hook_timeout * 1000, told_others);
    } else {
        stop_fast(p);
    }
    act_stop_look(p);
    if (p->act.active)
        postgres_told(p);
}
