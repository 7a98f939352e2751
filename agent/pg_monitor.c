#include "agent/pg_monitor.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"

enum {
    MONITOR_MAGIC = 0x4d4f4e49,
    LOOK_MS = 250,
    CLOSE_MS = 10,
    EAGER_MS = 20,
    LONG_EVERY_MS = 5000,
    ANSWER_MS = 2000, /* then it counts as hung */
    CONNECT_MS = 2000,
    DOOR_EVERY_MS = 2000,
};

struct pg_monitor {
    uint32_t magic;
    pg_monitor_target *target;
    pg_monitor_cb *cb;
    void *arg;
    struct pg_sql *sql;
    struct pg_sql *ident; /* replication connection: which timeline is replayed */
    struct pg_sql *door;  /* a new connection now and then: does the postmaster still open? */
    uv_timer_t timer;
    bool on, eager, closely;
    bool poked;       /* while a look was under way */
    bool refused;     /* the last look was answered with an error: asked again at once */
    uint64_t long_ms; /* when the long question was asked */
    bool asking;      /* a look or a connection attempt is under way */
    bool answered;    /* the last look was answered */
    bool identifying;
    bool knocking;
    bool shut;               /* the last knock was not answered in time */
    bool silent;             /* nor was the last look */
    bool opened;             /* this postmaster has answered a look */
    uint64_t door_ms;        /* of the next knock */
    uint64_t identify_lsn;   /* replayed up to here when the timeline was asked for */
    uint64_t identified_lsn; /* ... and answered; UINT64_MAX: never */
    struct pg_seen seen;
    char error[200];
};

static void look(struct pg_monitor *m);

static void timer_cb(uv_timer_t *timer)
{
    struct pg_monitor *m = timer->data;
    CHECK_MAGIC(m, MONITOR_MAGIC);
    look(m);
}

static void look_in(struct pg_monitor *m, uint64_t ms)
{
    if (m->on)
        (void)uv_timer_start(&m->timer, timer_cb, ms, 0);
}

static uint64_t pause_ms(const struct pg_monitor *m)
{
    if (m->poked)
        return 0;
    if (!m->answered && m->eager)
        return EAGER_MS;
    return m->closely && m->answered ? CLOSE_MS : LOOK_MS;
}

static void lost(struct pg_monitor *m, const struct pg_sql_reply *r)
{
    (void)snprintf(m->error, sizeof m->error, "%s", r->e.text);
    m->silent = m->opened && r->status == ERR_TIMEOUT;
    m->answered = false;
    m->asking = false;
    m->refused = false;
    pg_sql_reset(m->sql);
    look_in(m, pause_ms(m));
    m->poked = false;
    m->cb(m->arg);
}

static void knocked_cb(void *arg, const struct pg_sql_reply *r)
{
    struct pg_monitor *m = arg;
    bool was = m->shut;
    m->knocking = false;
    m->shut = r->status == ERR_TIMEOUT; /* a refusal is an answer */
    pg_sql_reset(m->door);
    if (was != m->shut)
        m->cb(m->arg);
}

/* The connection of the looks was let in long ago: it says nothing about the postmaster. */
static void knock(struct pg_monitor *m)
{
    struct pg_sql_target t = {.n = 0};
    uint64_t now_ms = clock_boot_ms();
    if (m->knocking || now_ms < m->door_ms)
        return;
    m->knocking = true;
    m->door_ms = now_ms + DOOR_EVERY_MS;
    m->target(m->arg, &t, PG_MONITOR_DOOR);
    pg_sql_connect(m->door, &t, CONNECT_MS, knocked_cb, m);
}

static void identified_cb(void *arg, const struct pg_sql_reply *r)
{
    struct pg_monitor *m = arg;
    uint64_t timeline = 0;
    if (r->status == ERR_OK && r->n == 1 && PQntuples(r->results[0]) == 1 &&
        str_parse_u64(pg_sql_text(r->results[0], 0, 1), &timeline) == ERR_OK) {
        m->identified_lsn = m->identify_lsn;
        if (m->seen.in_recovery)
            m->seen.timeline = MAX(m->seen.timeline, timeline);
        m->cb(m->arg);
    }
    m->identifying = false;
    pg_sql_reset(m->ident);
}

static void ident_connected_cb(void *arg, const struct pg_sql_reply *r)
{
    struct pg_monitor *m = arg;
    if (r->status == ERR_OK) {
        pg_sql_query(m->ident, "IDENTIFY_SYSTEM", ANSWER_MS, identified_cb, m);
        return;
    }
    m->identifying = false;
}

/* A walreceiver says its timeline; without one only a replication connection does. */
static void identify(struct pg_monitor *m)
{
    struct pg_sql_target t = {.n = 0};
    if (m->identifying || !m->seen.in_recovery || m->seen.received_timeline != 0 ||
        m->identified_lsn == m->seen.replay_lsn)
        return;
    m->identifying = true;
    m->identify_lsn = m->seen.replay_lsn;
    m->target(m->arg, &t, PG_MONITOR_IDENTIFY);
    pg_sql_connect(m->ident, &t, CONNECT_MS, ident_connected_cb, m);
}

static void history_cb(void *arg, const struct pg_sql_reply *r)
{
    struct pg_monitor *m = arg;
    m->asking = false;
    if (r->status == ERR_UNAVAILABLE || r->status == ERR_TIMEOUT) {
        lost(m, r);
        return;
    }
    if (r->status == ERR_OK && r->n == 1 &&
        pg_history_last(pg_sql_text(r->results[0], 0, 0), &m->seen.parent,
                        &m->seen.switch_lsn) == ERR_OK)
        m->cb(m->arg);
    look_in(m, pause_ms(m));
    m->poked = false;
}

/* After a promotion, here or at the other site: where the new timeline began. */
static bool ask_history(struct pg_monitor *m)
{
    char sql[96];
    bool ours = !m->seen.in_recovery || strcmp(m->seen.upstream, REMOTE_SITE) == 0;
    if (!ours || m->seen.timeline <= 1 || m->seen.parent != 0)
        return false;
    (void)snprintf(sql, sizeof sql,
                   "SELECT pg_read_file('pg_wal/%08" PRIX64 ".history', 0, 65536, true)",
                   m->seen.timeline);
    pg_sql_query(m->sql, sql, ANSWER_MS, history_cb, m);
    return true;
}

static void seen_cb(void *arg, const struct pg_sql_reply *r)
{
    struct pg_monitor *m = arg;
    CHECK_MAGIC(m, MONITOR_MAGIC);
    struct pg_sql_reply bad = *r;
    /* A look that spans the promotion asks a primary what only a standby answers. */
    if (r->status == ERR_PRECONDITION && !m->refused) {
        m->refused = true;
        m->asking = false;
        look(m);
        return;
    }
    if (r->status == ERR_OK &&
        ((r->n != 2 && r->n != 3) ||
         pg_seen_parse(r->results[0], r->results[1], r->n == 3 ? r->results[2] : NULL,
                       &m->seen) != ERR_OK))
        bad.status = err_set(&bad.e, ERR_INVALID, "PostgreSQL's answer is not understood");
    if (bad.status != ERR_OK) {
        lost(m, &bad);
        return;
    }
    m->asking = false;
    m->answered = true;
    m->refused = false;
    m->silent = false;
    m->opened = true;
    m->eager = false;
    m->error[0] = '\0';
    m->seen.serial++;
    identify(m);
    knock(m);
    m->asking = ask_history(m);
    if (!m->asking) {
        look_in(m, pause_ms(m));
        m->poked = false;
    }
    m->cb(m->arg);
}

static void connected_cb(void *arg, const struct pg_sql_reply *r)
{
    struct pg_monitor *m = arg;
    CHECK_MAGIC(m, MONITOR_MAGIC);
    if (r->status != ERR_OK) {
        lost(m, r);
        return;
    }
    m->asking = false;
    look(m);
}

static void look(struct pg_monitor *m)
{
    if (!m->on || m->asking)
        return;
    m->asking = true;
    if (!pg_sql_connected(m->sql)) {
        struct pg_sql_target t = {.n = 0};
        m->target(m->arg, &t, PG_MONITOR_LOOK);
        pg_sql_connect(m->sql, &t, CONNECT_MS, connected_cb, m);
        return;
    }
    m->seen.at_ms = clock_boot_ms();
    bool is_long = !m->closely && m->seen.at_ms >= m->long_ms + LONG_EVERY_MS;
    if (is_long)
        m->long_ms = m->seen.at_ms;
    pg_sql_query(m->sql, is_long ? pg_seen_long_query : pg_seen_query, ANSWER_MS, seen_cb, m);
}

struct pg_monitor *pg_monitor_new(uv_loop_t *loop, pg_monitor_target *target, pg_monitor_cb *cb,
                                  void *arg)
{
    struct pg_monitor *m = mem_alloc(sizeof *m);
    m->magic = MONITOR_MAGIC;
    m->target = target;
    m->cb = cb;
    m->arg = arg;
    m->sql = pg_sql_new(loop);
    m->ident = pg_sql_new(loop);
    m->door = pg_sql_new(loop);
    int rv = uv_timer_init(loop, &m->timer);
    ASSERT(rv == 0);
    m->timer.data = m;
    return m;
}

static void closed_cb(uv_handle_t *handle)
{
    mem_free(handle->data);
}

void pg_monitor_free(struct pg_monitor *m)
{
    if (m == NULL)
        return;
    CHECK_MAGIC(m, MONITOR_MAGIC);
    pg_sql_free(m->sql);
    pg_sql_free(m->ident);
    pg_sql_free(m->door);
    uv_close((uv_handle_t *)&m->timer, closed_cb);
}

void pg_monitor_run(struct pg_monitor *m, bool on, bool eager)
{
    CHECK_MAGIC(m, MONITOR_MAGIC);
    if (m->on == on && (!eager || m->eager))
        return;
    m->eager = eager;
    if (m->on != on) {
        uint64_t serial = m->seen.serial;
        m->on = on;
        m->asking = m->answered = m->poked = m->refused = m->identifying = false;
        m->knocking = m->shut = m->silent = m->opened = false;
        m->door_ms = clock_boot_ms() + DOOR_EVERY_MS;
        m->identified_lsn = UINT64_MAX;
        m->long_ms = 0;
        m->error[0] = '\0';
        pg_sql_reset(m->sql);
        pg_sql_reset(m->ident);
        pg_sql_reset(m->door);
        m->seen = (struct pg_seen){.serial = serial};
        (void)uv_timer_stop(&m->timer);
    }
    if (on)
        look_in(m, 0);
}

void pg_monitor_poke(struct pg_monitor *m)
{
    if (m->asking)
        m->poked = true;
    else
        look_in(m, 0);
}

void pg_monitor_closely(struct pg_monitor *m, bool on)
{
    m->closely = on;
    if (on)
        pg_monitor_poke(m);
}

bool pg_monitor_accepts(const struct pg_monitor *m)
{
    return m->on && m->answered;
}

const struct pg_seen *pg_monitor_seen(const struct pg_monitor *m)
{
    return &m->seen;
}

bool pg_monitor_knows_timeline(const struct pg_monitor *m)
{
    return !m->seen.in_recovery || m->seen.received_timeline != 0 ||
           m->identified_lsn == m->seen.replay_lsn;
}

const char *pg_monitor_hung(const struct pg_monitor *m)
{
    if (!m->on)
        return NULL;
    return m->silent ? "it does not answer" : m->shut ? "it lets nobody in" : NULL;
}

const char *pg_monitor_error(const struct pg_monitor *m)
{
    return m->error;
}
