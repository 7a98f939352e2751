/* SEAL (DESIGN.md §4): from here on the old primary gets no acknowledgement out of this standby.
 *
 * A reload with an empty primary_conninfo is not enough: with replay held up by a report the startup
 * process does not look at it, and the walreceiver goes on. So: the postmaster has taken the reload
 * (a connection forked afterwards shows it), the walreceiver is told to end, and none has been there
 * for two retry intervals. Then what was received can only be read, and the seal is written down. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "agent/pg_text.h"
#include "agent/postgres_private.h"
#include "base/clock.h"
#include "base/str.h"

enum { SEAL_MS = 30000 };

static void look_again_cb(uv_timer_t *timer);
static void fresh(struct postgres *p);

static bool sound(struct postgres *p, const struct pg_sql_reply *r)
{
    if (r->status == ERR_OK)
        return true;
    action_fail(p, r->status, "seal: %s", r->e.text);
    return false;
}

static void sealed(struct postgres *p, const struct worker_reply *r)
{
    (void)r;
    p->probe.seal_token = p->act.plan.token;
    p->probe.seal_lsn = p->act.lsn;
    p->probe.seal_timeline = p->act.timeline;
    action_end(p, ERR_OK, NULL);
}

static void write_down(struct postgres *p)
{
    struct worker_req q;
    postgres_req(p, &q, "seal");
    memcpy(q.incarnation, p->probe.incarnation, sizeof q.incarnation);
    q.token = p->act.plan.token;
    q.lsn = p->act.lsn;
    q.timeline = p->act.timeline;
    action_worker(p, &q, PG_WORKER_MS, sealed);
}

/* The replayed timeline; a received one that is newer was seen while there was a walreceiver. */
static void identified(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    uint64_t timeline = 0;
    if (!sound(p, r))
        return;
    if (r->n != 1 || str_parse_u64(pg_sql_text(r->results[0], 0, 1), &timeline) != ERR_OK) {
        action_fail(p, ERR_INVALID, "seal: IDENTIFY_SYSTEM is not understood");
        return;
    }
    p->act.timeline =
        MAX(p->act.timeline, MAX(timeline, pg_monitor_seen(p->monitor)->timeline));
    write_down(p);
}

static void ident_connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (sound(p, r))
        pg_sql_query(p->sql, "IDENTIFY_SYSTEM", PG_SQL_MS, identified, p);
}

static void ended(struct postgres *p, const struct worker_reply *r)
{
    (void)r;
    action_in(p, 1, look_again_cb);
}

static void end_walreceiver(struct postgres *p, uint64_t pid)
{
    struct worker_req q;
    postgres_req(p, &q, "signal");
    q.pid = pid;
    q.signal = SIGTERM;
    p->act.pid = pid;
    action_worker(p, &q, PG_WORKER_MS, ended);
}

/* pid, received timeline, receive LSN, replay LSN */
static void looked(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    struct action *a = &p->act;
    uint64_t pid = 0;
    uint64_t timeline = 0;
    uint64_t receive = 0;
    uint64_t replay = 0;
    uint64_t now = clock_boot_ms();
    if (!sound(p, r))
        return;
    const PGresult *row = r->results[0];
    /* NULL: no such process */
    if (str_parse_u64(pg_sql_text(row, 0, 0), &pid) != ERR_OK)
        pid = 0;
    if (str_parse_u64(pg_sql_text(row, 0, 1), &timeline) != ERR_OK)
        timeline = 0;
    a->timeline = MAX(a->timeline, timeline);
    if (pid != 0) {
        a->since_ms = 0;
        if (now - a->began_ms > SEAL_MS)
            action_fail(p, ERR_TIMEOUT, "seal: the walreceiver does not end");
        else if (pid != a->pid)
            end_walreceiver(p, pid);
        else
            action_in(p, PG_POLL_MS / 2, look_again_cb);
        return;
    }
    if (a->since_ms == 0) {
        a->since_ms = now;
        pg_monitor_poke(p->monitor);
    }
    /* What is observed at the end shows the seal: the plan that follows is made from it. */
    bool seen = pg_monitor_seen(p->monitor)->at_ms > a->since_ms || now - a->began_ms > SEAL_MS;
    if (!seen || now - a->since_ms < 2 * p->retry_interval_ms) {
        action_in(p, PG_POLL_MS, look_again_cb);
        return;
    }
    if ((pg_sql_text(row, 0, 2)[0] != '\0' &&
         pg_lsn_parse(pg_sql_text(row, 0, 2), &receive) != ERR_OK) ||
        pg_lsn_parse(pg_sql_text(row, 0, 3), &replay) != ERR_OK) {
        action_fail(p, ERR_INVALID, "seal: positions are not understood");
        return;
    }
    a->lsn = MAX(receive, replay);
    struct pg_sql_target t = {.n = 0};
    postgres_local_target(p, &t, true);
    pg_sql_connect(p->sql, &t, PG_CONNECT_MS, ident_connected, p);
}

static void look_again_cb(uv_timer_t *timer)
{
    struct postgres *p = timer->data;
    pg_sql_query(p->sql,
                 "SELECT (SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver' "
                 "LIMIT 1), (SELECT received_tli FROM pg_stat_get_wal_receiver()), "
                 "pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()",
                 PG_SQL_MS, looked, p);
}

static void fresh_again_cb(uv_timer_t *timer)
{
    fresh(timer->data);
}

static void shown(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (!sound(p, r))
        return;
    if (strcmp(pg_sql_text(r->results[0], 0, 1), "t") != 0) {
        action_fail(p, ERR_PRECONDITION, "seal: this PostgreSQL is no standby");
        return;
    }
    if (strcmp(pg_sql_text(r->results[0], 0, 0), "t") == 0) {
        action_in(p, 0, look_again_cb);
        return;
    }
    if (clock_boot_ms() - p->act.began_ms > SEAL_MS) {
        action_fail(p, ERR_TIMEOUT, "seal: primary_conninfo does not take its value");
        return;
    }
    pg_sql_reset(p->sql);
    action_in(p, 2, fresh_again_cb);
}

static void fresh_connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (sound(p, r))
        pg_sql_query(p->sql,
                     "SELECT current_setting('primary_conninfo') = '', pg_is_in_recovery()",
                     PG_SQL_MS, shown, p);
}

static void fresh(struct postgres *p)
{
    action_connect(p, fresh_connected);
}

static void reloaded(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (!sound(p, r))
        return;
    pg_sql_reset(p->sql);
    fresh(p);
}

static void connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (sound(p, r))
        pg_sql_query(p->sql, "SELECT pg_reload_conf()", PG_SQL_MS, reloaded, p);
}

static void written(struct postgres *p, const struct worker_reply *r)
{
    (void)r;
    action_connect(p, connected);
}

void act_seal(struct postgres *p)
{
    if (!postgres_running(p)) {
        action_fail(p, ERR_PRECONDITION, "seal: PostgreSQL is not running");
        return;
    }
    p->follow = (struct follow){.known = true};
    action_write(p, "write", NULL, written);
}
