/* PRE_PROMOTE, PROMOTE and CHECKPOINT. */
#include <stdio.h>

#include "agent/postgres_private.h"
#include "base/clock.h"
#include "base/str.h"

enum { STEP_WRITE = 1, STEP_SHOW, STEP_WAIT, CHECKPOINT_MS = 3600 * 1000 };

/* Replay waits for these sessions: the startup process looks for the order to promote only between
 * two records. They are read-only ones, on a server that stops being a standby. */
#define UNBLOCK                                                                              \
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = "           \
    "'client backend' AND pid <> pg_backend_pid() AND application_name <> 'regent' AND "     \
    "(backend_xmin IS NOT NULL OR state LIKE 'idle in transaction%' OR EXISTS (SELECT FROM " \
    "pg_locks l WHERE l.pid = pg_stat_activity.pid AND l.locktype = 'relation' AND "         \
    "l.granted))"                                                                            \
    " AND EXISTS (SELECT FROM pg_stat_activity s WHERE s.backend_type = 'startup' AND "      \
    "(s.wait_event LIKE 'RecoveryConflict%' OR s.wait_event_type IN ('Lock', 'BufferPin')))"

static void request(struct postgres *p);
static void show(struct postgres *p);

static bool replay_waits(const struct pg_seen *s)
{
    return strstr(s->startup_wait, "RecoveryConflict") != NULL ||
           str_starts(s->startup_wait, "Lock:") || str_starts(s->startup_wait, "BufferPin:");
}

static void unblocked(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    (void)r;
    p->act.since_ms = clock_boot_ms();
}

void act_promote_look(struct postgres *p)
{
    struct action *a = &p->act;
    const struct pg_seen *s = pg_monitor_seen(p->monitor);
    if (!a->active || a->plan.action != ACTION_PROMOTE)
        return;
    if (!postgres_running(p)) {
        if (!a->in_worker)
            action_fail(p, ERR_UNAVAILABLE, "PostgreSQL ended before it was promoted");
        return;
    }
    if (a->step != STEP_WAIT || !pg_monitor_accepts(p->monitor))
        return;
    if (!s->in_recovery) {
        p->probe.standby = false;
        action_end(p, ERR_OK, NULL);
    } else if (replay_waits(s) && pg_sql_ready(p->sql)) {
        pg_sql_query(p->sql, UNBLOCK, PG_SQL_MS, unblocked, p);
    }
}

static void requested(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status != ERR_OK) {
        action_fail(p, r->status, "promotion: %s", r->e.text);
        return;
    }
    p->act.step = STEP_WAIT;
    pg_monitor_closely(p->monitor, true);
}

static void request(struct postgres *p)
{
    if (!action_may_lead(p))
        return;
    /* "server is not in recovery" comes when somebody else did it: then the look shows it. */
    pg_sql_query(p->sql, "SELECT pg_promote(false) WHERE pg_is_in_recovery(); " UNBLOCK,
                 PG_SQL_MS, requested, p);
}

static void show_again_cb(uv_timer_t *timer)
{
    show(timer->data);
}

static void shown(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    char names[PG_SYNC_NAMES_MAX];
    if (r->status != ERR_OK) {
        action_fail(p, r->status, "promotion: %s", r->e.text);
        return;
    }
    if (sync_text(&p->act.plan.set, names, sizeof names) == ERR_OK &&
        strcmp(pg_sql_text(r->results[0], 0, 0), names) == 0) {
        p->sync_written = true;
        request(p);
        return;
    }
    if (clock_boot_ms() - p->act.since_ms > PG_SQL_MS) {
        action_fail(p, ERR_TIMEOUT,
                    "promotion: synchronous_standby_names does not take its value");
        return;
    }
    pg_sql_reset(p->sql);
    action_in(p, PG_POLL_MS, show_again_cb);
}

static void show_connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status != ERR_OK)
        action_fail(p, r->status, "promotion: %s", r->e.text);
    else
        pg_sql_query(p->sql, "SELECT current_setting('synchronous_standby_names')", PG_SQL_MS,
                     shown, p);
}

/* Before the first write every new session waits for the set. */
static void show(struct postgres *p)
{
    action_connect(p, show_connected);
}

static void reloading(struct postgres *p, const struct worker_reply *r)
{
    (void)r;
    p->act.step = STEP_SHOW;
    p->act.since_ms = clock_boot_ms();
    show(p);
}

/* ---- the short way: the set is in force already ---- */

static void connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (p->act.step == STEP_WRITE)
        p->act.since_ms = r->status != ERR_OK; /* noted() goes on */
    else if (r->status != ERR_OK)
        action_fail(p, r->status, "promotion: %s", r->e.text);
    else
        request(p);
}

static void noted(struct postgres *p, const struct worker_reply *r)
{
    bool failed = p->act.since_ms != 0;
    (void)r;
    p->act.step = STEP_SHOW;
    p->act.since_ms = clock_boot_ms();
    if (pg_sql_ready(p->sql))
        request(p);
    else if (failed)
        action_connect(p, connected);
}

/* Nothing waits for the other files: they are written afterwards. The connection is there, or is made meanwhile. */
static void promote_at_once(struct postgres *p)
{
    p->sync_written = true;
    p->conf_dirty = true;
    if (pg_sql_ready(p->spare))
        action_swap(p);
    else
        action_connect(p, connected);
    action_note(p, noted);
}

void act_promote(struct postgres *p)
{
    const struct pg_seen *s = pg_monitor_seen(p->monitor);
    char names[PG_SYNC_NAMES_MAX];
    if (sync_text(&p->act.plan.set, names, sizeof names) != ERR_OK) {
        action_fail(p, ERR_INVALID, "the synchronous set does not fit");
        return;
    }
    sync_set_names(p, &p->act.plan.set);
    p->follow = (struct follow){.known = true};
    p->act.step = STEP_WRITE;
    if (p->set_known && p->old_n == 0 && !p->sync_writing && s->in_recovery &&
        pg_monitor_accepts(p->monitor) && strcmp(s->sync_names, names) == 0)
        promote_at_once(p);
    else
        action_reload(p, names, reloading);
}

static void permitted(struct postgres *p, enum err status, const struct errmsg *e)
{
    if (status != ERR_OK)
        action_fail(p, ERR_PRECONDITION, "%s", e->text);
    else
        action_end(p, ERR_OK, NULL);
}

/* Asked under a key that was proven a moment ago; the lease goes on meanwhile. */
void act_pre_promote(struct postgres *p)
{
    hook_run(p, "pre_promote", p->config->postgresql.pre_promote, NULL,
             p->config->postgresql.hook_timeout * 1000, permitted);
}

static void checkpointed(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status != ERR_OK)
        action_fail(p, r->status, "checkpoint: %s", r->e.text);
    else
        action_end(p, ERR_OK, NULL);
}

static void checkpoint_connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status != ERR_OK)
        checkpointed(arg, r);
    else
        pg_sql_query(p->sql, "SET statement_timeout = 0; CHECKPOINT", CHECKPOINT_MS,
                     checkpointed, p);
}

void act_checkpoint(struct postgres *p)
{
    action_connect(p, checkpoint_connected);
}
