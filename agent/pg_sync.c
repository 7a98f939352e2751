/* The synchronous set of this primary: written, reloaded, confirmed. Executes what pg_syncconf asks
 * for, beside the actions; every failure is a later try, and until DONE the old sets count. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/core/syncrep.h"
#include "agent/pg_text.h"
#include "agent/postgres_private.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/str.h"

enum { SYNC_POLL_MS = 10, SYNC_RETRY_MS = 200, SYNC_OVERRULED_MS = 1000 };

static void step(struct postgres *p);

enum err sync_text(const struct sync_set *set, char *ret, size_t size)
{
    /* All of S must answer: FIRST says so to people; any k of it: ANY. */
    return syncrep_names(set, set->k == set->s_n ? SYNC_ON : SYNC_QUORUM, ret, size);
}

/* Reads back what sync_text() wrote; anything else is no set of ours. */
static bool parse_names(const char *text, struct sync_set *ret)
{
    struct sync_set s = {0};
    char again[PG_SYNC_NAMES_MAX];
    unsigned long k = 0;
    int at = 0;
    *ret = s;
    if (text[0] == '\0')
        return true;
    if (sscanf(text, "FIRST %lu (%n", &k, &at) != 1 &&
        sscanf(text, "ANY %lu (%n", &k, &at) != 1)
        return false;
    for (const char *p = text + at; at > 0 && *p == '"' && s.s_n < SYNC_MAX;) {
        size_t n = strcspn(p + 1, "\"");
        if (str_copy_slice(s.s[s.s_n], sizeof s.s[0], slice_of(p + 1, n)) != ERR_OK ||
            p[1 + n] != '"')
            return false;
        s.s_n++;
        p += n + 2;
        if (*p == ',')
            p++;
    }
    s.k = k;
    if (s.k > s.s_n || sync_text(&s, again, sizeof again) != ERR_OK || strcmp(again, text) != 0)
        return false;
    *ret = s;
    return true;
}

static bool same_set(const struct sync_set *a, const struct sync_set *b)
{
    char x[PG_SYNC_NAMES_MAX];
    char y[PG_SYNC_NAMES_MAX];
    return sync_text(a, x, sizeof x) == ERR_OK && sync_text(b, y, sizeof y) == ERR_OK &&
           strcmp(x, y) == 0;
}

static void drop_connections(struct postgres *p)
{
    (void)uv_timer_stop(&p->sync_timer);
    pg_sql_reset(p->sync_sql);
    pg_sql_reset(p->sync_probe);
    p->sync_busy = false;
}

/* ---- the set changes ---------------------------------------------------------------------- */

void sync_set_names(struct postgres *p, const struct sync_set *set)
{
    drop_connections(p);
    p->sync.step = SYNCCONF_OFF;
    p->sync_written = false;
    if (p->set_known && same_set(&p->set, set))
        return;
    if (p->set_known && p->old_n == VIEW_SETS)
        p->set_known = false;
    else if (p->set_known)
        p->old[p->old_n++] = p->set;
    p->set = *set;
}

void sync_fresh(struct postgres *p, const struct sync_set *set)
{
    drop_connections(p);
    p->set = *set;
    p->set_known = true;
    p->old_n = 0;
    p->sync.step = SYNCCONF_OFF;
    p->sync_written = true;
    p->sync_waits = false;
    p->sync_adopt = false;
}

void sync_adopted(struct postgres *p)
{
    drop_connections(p);
    memset(&p->set, 0, sizeof p->set);
    p->set_known = false;
    p->old_n = 0;
    p->sync.step = SYNCCONF_OFF;
    p->sync_written = false;
    p->sync_waits = false;
    p->sync_adopt = true;
}

/* A stopped one: it will start with what START_* gives it. */
void sync_stop(struct postgres *p)
{
    drop_connections(p);
    p->sync.step = SYNCCONF_OFF;
    p->sync_waits = false;
}

static void finished(struct postgres *p)
{
    p->set_known = true;
    p->old_n = 0;
    p->sync_waits = p->set.k > 0;
    p->sync_serial = pg_monitor_seen(p->monitor)->serial;
    p->trouble[0] = '\0';
    p->conf_dirty = p->conf_dirty || p->closed;
    p->closed = false;
    drop_connections(p);
    postgres_told(p);
}

/* ---- its confirmation ---------------------------------------------------------------------- */

static void again_cb(uv_timer_t *timer)
{
    struct postgres *p = timer->data;
    CHECK_MAGIC(p, POSTGRES_MAGIC);
    step(p);
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
    postgres_local_target(p, &t, false);
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
    if (p->act.active && p->act.plan.action == ACTION_SET_SYNC && p->sync_written)
        action_end(p, ERR_OK, NULL);
}

static void reload_connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status != ERR_OK)
        retry(p);
    else
        pg_sql_query(p->sync_sql, "SELECT pg_reload_conf()", PG_SQL_MS, reloaded, p);
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
    pg_sql_reset(p->sync_probe); /* it returned without waiting, or was ended: another one */
}

static void probe_connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status != ERR_OK) {
        pg_sql_reset(p->sync_probe);
        return;
    }
    /* A commit that writes WAL and waits; a message changes no row. */
    pg_sql_query(p->sync_probe,
                 "SET synchronous_commit = on; SET statement_timeout = 0; SELECT "
                 "pg_logical_emit_message(true, 'regent', 'probe')",
                 60000, probe_over, p);
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
    if (!pg_sql_connected(p->sync_probe) && !p->sync_probing) {
        p->sync_probing = true;
        connect_sync(p, p->sync_probe, probe_connected);
    }
    p->sync_probing = pg_sql_connected(p->sync_probe) || p->sync_probing;
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
    p->sync_probing = p->sync_probing && conn == NULL && p->sync_probe_tries++ < 100;
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

static void step(struct postgres *p)
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

/* ---- looks ------------------------------------------------------------------------------------ */

static void feed(struct postgres *p, const struct pg_seen *s)
{
    struct syncconf_sender senders[PG_SENDERS_MAX];
    enum syncconf_step before = p->sync.step;
    if (s->serial <= p->sync_serial)
        return;
    for (size_t i = 0; i < s->senders_n; i++)
        senders[i] =
            (struct syncconf_sender){s->senders[i].application_name, s->senders[i].flush_lsn};
    syncconf_look(&p->sync, senders, s->senders_n, s->flush_lsn);
    if (p->sync.step == SYNCCONF_FLUSHED && before == SYNCCONF_SENDERS)
        p->sync_serial = s->serial;
    if (p->sync.step == SYNCCONF_DONE)
        finished(p);
}

static void begin(struct postgres *p)
{
    p->sync_probing = false;
    p->sync_probe_tries = 0;
    /* The name nobody bears is in force until the wanted ones are written. */
    syncconf_start(&p->sync, &p->set, p->old, p->old_n, !p->set_known, p->sync_waits,
                   p->sync_written);
    p->sync_since_ms = clock_boot_ms();
    if (p->set_known && p->old_n == 0 && p->set.k == 0 && p->sync_written)
        p->sync.step = SYNCCONF_DONE; /* nothing to confirm: nobody has ever waited here */
    else
        step(p);
}

/* Somebody changed the value behind our back: what is in force is not known any more. */
static void drifted(struct postgres *p)
{
    p->set_known = false;
    p->sync.step = SYNCCONF_OFF;
    p->sync_waits = false;
    p->sync_written = false;
    p->sync_adopt = true;
    (void)snprintf(p->trouble, sizeof p->trouble,
                   "synchronous_standby_names was changed behind the agent's back");
}

void sync_look(struct postgres *p)
{
    const struct pg_seen *s = pg_monitor_seen(p->monitor);
    char names[PG_SYNC_NAMES_MAX];
    if (!postgres_running(p) || !pg_monitor_accepts(p->monitor))
        return;
    if (p->sync_adopt && p->sync.step == SYNCCONF_OFF && !p->sync_wanted) {
        (void)parse_names(s->sync_names, &p->set);
        p->sync_adopt = false;
    }
    if (s->in_recovery)
        return;
    if (p->sync.step == SYNCCONF_OFF && (p->set_known || p->sync_wanted)) {
        begin(p);
        p->sync_wanted = false;
    } else if (p->sync.step == SYNCCONF_SENDERS || p->sync.step == SYNCCONF_FLUSHED) {
        feed(p, s);
    } else if (p->sync.step == SYNCCONF_DONE && s->serial > p->sync_serial + 1 &&
               sync_text(&p->set, names, sizeof names) == ERR_OK &&
               strcmp(names, s->sync_names) != 0) {
        drifted(p);
    }
}

/* ---- the action ------------------------------------------------------------------------------- */

static void in_recovery_written(struct postgres *p, const struct worker_reply *r)
{
    (void)r;
    p->sync_written = true;
    action_end(p, ERR_OK, NULL);
}

void act_sync(struct postgres *p)
{
    char names[PG_SYNC_NAMES_MAX];
    if (sync_text(&p->act.plan.set, names, sizeof names) != ERR_OK) {
        action_fail(p, ERR_INVALID, "the synchronous set does not fit");
        return;
    }
    if (!postgres_running(p)) {
        action_fail(p, ERR_PRECONDITION, "PostgreSQL is not running");
        return;
    }
    sync_set_names(p, &p->act.plan.set);
    postgres_told(p); /* the new one shows before a byte of it is written */
    if (pg_monitor_seen(p->monitor)->in_recovery) {
        action_write(p, "write", names, in_recovery_written);
        return;
    }
    p->sync_wanted = true;
    p->sync_stale = p->sync_writing;
    sync_look(p);
}
