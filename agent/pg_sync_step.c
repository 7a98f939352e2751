/* The steps of a confirmation, carried out: files by the worker, the rest by connections of its own.
 * Every failure is a later try. */
#include <inttypes.h>
#include <stdio.h>

#include "agent/pg_text.h"
#include "agent/postgres_private.h"
#include "base/assert.h"
#include "base/clock.h"

#define PROBE_NAME "regent probe"

enum { SYNC_POLL_MS = 10, SYNC_RETRY_MS = 200, SYNC_OVERRULED_MS = 1000, SYNC_TRY_MS = 1000 };

static void again_cb(uv_timer_t *timer)
{
    struct postgres *p = timer->data;
    CHECK_MAGIC(p, POSTGRES_MAGIC);
    sync_step(p);
}

static void again(struct postgres *p, uint64_t ms)
{
    p->sync_busy = false;
    (void)uv_timer_start(&p->sync_timer, again_cb, ms, 0);
}

static void retry(struct postgres *p)
{
    pg_sql_reset(p->sync_sql);
    again(p, SYNC_RETRY_MS);
}

static void connect_sync(struct postgres *p, struct pg_sql *sql, pg_sql_cb *cb)
{
    struct pg_sql_target t = {.n = 0};
    postgres_local_target(p, &t, PG_MONITOR_LOOK);
    pg_sql_connect(sql, &t, PG_CONNECT_MS, cb, p);
}

static void reloaded(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status != ERR_OK) {
        retry(p);
        return;
    }
    if (p->sync.step == SYNCCONF_WRITE)
        p->sync_written = true;
    syncconf_written(&p->sync);
    p->sync_since_ms = clock_boot_ms();
    pg_sql_reset(
        p->sync_sql); /* what follows is asked on connections that begin after the reload */
    again(p, 0);
    /* Where the sets in force are not known (adopted), only the end of the confirmation tells. */
    if (p->act.active && p->act.plan.action == ACTION_SET_SYNC && p->sync_written &&
        p->set_known)
        action_end(p, ERR_OK, NULL);
}

/* A backend that waits for a standby does not see that its client has gone: a probe that was given up, also one of an
 * earlier daemon, would keep a connection that the next one needs. */
static void reload_connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    char sql[200];
    PGconn *probe = pg_sql_conn(p->sync_probe);
    if (r->status != ERR_OK) {
        retry(p);
        return;
    }
    (void)snprintf(sql, sizeof sql,
                   "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
                   "application_name = '" PROBE_NAME "' AND pid <> %d; SELECT pg_reload_conf()",
                   probe != NULL ? PQbackendPID(probe) : 0);
    pg_sql_query(p->sync_sql, sql, PG_SQL_MS, reloaded, p);
}

static void written(void *arg, enum err status, const struct errmsg *e,
                    const struct worker_reply *r)
{
    struct postgres *p = container_of(arg, struct postgres, sync_busy);
    (void)e;
    (void)r;
    p->sync_writing = false;
    if (p->sync_stale || !p->sync_busy) { /* the set changed meanwhile: written again */
        p->sync_stale = false;
        again(p, 0);
    } else if (status != ERR_OK) {
        retry(p);
    } else {
        connect_sync(p, p->sync_sql, reload_connected);
    }
}

static void write_names(struct postgres *p, const char *names)
{
    struct worker_req q;
    struct buf content CLEANUP(buf_close) = BUF_INIT;
    struct buf files CLEANUP(buf_close) = BUF_INIT;
    struct msg_list list = {0};
    struct worker_file f = {.mode = 0600};
    memcpy(f.path, "postgresql.regent-sync.conf", sizeof "postgresql.regent-sync.conf");
    if (pg_render_sync(names, &content) != ERR_OK) {
        again(p, SYNC_RETRY_MS);
        return;
    }
    f.content = buf_slice(&content);
    msg_list_append(&list, &msg_worker_file, &f);
    msg_list_end(&list, &files);
    postgres_req(p, &q, "write");
    q.files = buf_slice(&files);
    p->sync_writing = true;
    p->sync_stale = false;
    pg_worker_send(p->worker, &q, PG_WORKER_MS, written, &p->sync_busy);
}

static const char *wanted(struct postgres *p, char *names, size_t size)
{
    if (p->sync.step == SYNCCONF_NOBODY || p->sync.step == SYNCCONF_NOBODY_SHOW)
        return SYNCCONF_NOBODY_NAMES;
    return sync_text(&p->set, names, size) == ERR_OK ? names : "";
}

static void reset_done(void *arg, const struct pg_sql_reply *r)
{
    (void)r;
    /* The reload that makes it take effect is part of writing again. */
    struct postgres *p = arg;
    p->sync_since_ms = clock_boot_ms();
    connect_sync(p, p->sync_sql, reload_connected);
}

static void shown(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    char names[PG_SYNC_NAMES_MAX];
    enum syncconf_step before = p->sync.step;
    if (r->status != ERR_OK) {
        retry(p);
        return;
    }
    syncconf_shown(&p->sync, pg_sql_text(r->results[0], 0, 0), wanted(p, names, sizeof names));
    if (p->sync.step == before && clock_boot_ms() - p->sync_since_ms > SYNC_OVERRULED_MS) {
        /* postgresql.auto.conf is read last. */
        (void)snprintf(p->trouble, sizeof p->trouble,
                       "ALTER SYSTEM set synchronous_standby_names: taken back");
        pg_sql_query(p->sync_sql, "ALTER SYSTEM RESET synchronous_standby_names", PG_SQL_MS,
                     reset_done, p);
        return;
    }
    if (p->sync.step == before)
        pg_sql_reset(p->sync_sql); /* a fresh connection each time */
    again(p, p->sync.step == before ? SYNC_POLL_MS : 0);
}

static void show_connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status != ERR_OK)
        retry(p);
    else
        pg_sql_query(p->sync_sql, "SELECT current_setting('synchronous_standby_names')",
                     PG_SQL_MS, shown, p);
}

static void probe_over(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    (void)r;
    p->sync_passed = true;
    p->sync_probing = false;
    pg_sql_reset(p->sync_probe); /* it returned without waiting, or was ended: another one */
}

static void probe_connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status != ERR_OK) {
        p->sync_probing = false;
        pg_sql_reset(p->sync_probe);
        return;
    }
    /* A commit that writes WAL and waits; a message changes no row. */
    pg_sql_query(p->sync_probe,
                 "SET application_name = '" PROBE_NAME "'; "
                 "SET synchronous_commit = on; SET statement_timeout = 0; SELECT "
                 "pg_logical_emit_message(true, 'regent', 'probe')",
                 60000, probe_over, p);
}

static void probe_begin(struct postgres *p)
{
    if (p->sync_probing)
        return;
    p->sync_probing = true;
    connect_sync(p, p->sync_probe, probe_connected);
}

static void probe_looked(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status != ERR_OK) {
        retry(p);
        return;
    }
    if (strcmp(pg_sql_text(r->results[0], 0, 0), "t") == 0) {
        syncconf_probe_waits(&p->sync);
        again(p, 0);
        return;
    }
    if (p->sync.step == SYNCCONF_TRY &&
        (p->sync_passed || clock_boot_ms() - p->sync_since_ms > SYNC_TRY_MS)) {
        syncconf_probe_passed(&p->sync);
        again(p, 0);
        return;
    }
    probe_begin(p);
    again(p, SYNC_POLL_MS);
}

static void probe_look(struct postgres *p)
{
    char sql[160];
    PGconn *conn = pg_sql_conn(p->sync_probe);
    (void)snprintf(
        sql, sizeof sql,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %d AND wait_event = "
        "'SyncRep')",
        conn != NULL ? PQbackendPID(conn) : 0);
    pg_sql_query(p->sync_sql, sql, PG_SQL_MS, probe_looked, p);
}

static void mark_read(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    uint64_t lsn = 0;
    if (r->status != ERR_OK || pg_lsn_parse(pg_sql_text(r->results[0], 0, 0), &lsn) != ERR_OK ||
        lsn == 0) {
        retry(p);
        return;
    }
    syncconf_marked(&p->sync, lsn);
    p->sync_serial =
        pg_monitor_seen(p->monitor)->serial + 1; /* a look under way began before */
    again(p, 0);
}

static void mark_written(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status != ERR_OK)
        retry(p);
    else
        pg_sql_query(p->sync_sql, "SELECT pg_current_wal_flush_lsn()", PG_SQL_MS, mark_read, p);
}

static void sql_step(struct postgres *p)
{
    switch (p->sync.step) {
    case SYNCCONF_TRY:
    case SYNCCONF_PROBE:
        probe_look(p);
        break;
    case SYNCCONF_MARK:
        /* synchronous_commit is local on our connections: flushed here, waits for nobody. */
        pg_sql_query(p->sync_sql, "SELECT pg_logical_emit_message(true, 'regent', 'mark')",
                     PG_SQL_MS, mark_written, p);
        break;
    case SYNCCONF_OFF:
    case SYNCCONF_NOBODY:
    case SYNCCONF_NOBODY_SHOW:
    case SYNCCONF_WRITE:
    case SYNCCONF_SHOW:
    case SYNCCONF_SENDERS:
    case SYNCCONF_FLUSHED:
    case SYNCCONF_DONE:
        UNREACHABLE();
    }
}

static void sql_connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status != ERR_OK)
        retry(p);
    else
        sql_step(p);
}

void sync_step(struct postgres *p)
{
    char names[PG_SYNC_NAMES_MAX];
    if (p->sync_busy || p->sync_writing || p->sync.step == SYNCCONF_OFF ||
        p->sync.step == SYNCCONF_DONE || !postgres_running(p))
        return;
    p->sync_busy = true;
    switch (p->sync.step) {
    case SYNCCONF_NOBODY:
    case SYNCCONF_WRITE:
        write_names(p, wanted(p, names, sizeof names));
        break;
    case SYNCCONF_NOBODY_SHOW:
    case SYNCCONF_SHOW:
        connect_sync(p, p->sync_sql, show_connected);
        break;
    case SYNCCONF_TRY:
        probe_begin(p); /* at once: soon a standby will be there that answers it */
        if (pg_sql_ready(p->sync_sql))
            sql_step(p);
        else
            connect_sync(p, p->sync_sql, sql_connected);
        break;
    case SYNCCONF_PROBE:
    case SYNCCONF_MARK:
        if (pg_sql_ready(p->sync_sql))
            sql_step(p);
        else
            connect_sync(p, p->sync_sql, sql_connected);
        break;
    case SYNCCONF_SENDERS:
    case SYNCCONF_FLUSHED:
        p->sync_busy = false;
        pg_monitor_poke(p->monitor);
        (void)uv_timer_start(&p->sync_timer, again_cb, SYNC_POLL_MS, 0);
        break;
    case SYNCCONF_OFF:
    case SYNCCONF_DONE:
        break;
    }
}
