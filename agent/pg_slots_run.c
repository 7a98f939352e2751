/* Permanent slots of a running PostgreSQL: looks at them here and at the leader's, and does what follows. A chain of
 * callbacks beside the actions; what fails is tried again at the next look. */
#include <stdio.h>
#include <stdlib.h>

#include "agent/pg_remote.h"
#include "agent/pg_text.h"
#include "agent/postgres_private.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/str.h"

enum { LOOK_MS = 2000, STEP_MS = 20000, COPY_AGAIN_MS = 600000, STATE_MAX = 4096 };

static unsigned major_of(const struct postgres *p)
{
    return (unsigned)strtoul(p->probe.version, NULL, 10);
}

bool slots_logical(const struct postgres *p)
{
    const struct slots *s = &p->slots;
    bool any = slots_any_logical(&s->config);
    for (size_t i = 0; i < s->memory.retired_n; i++)
        any = any || s->memory.retired[i].type == SLOT_LOGICAL;
    return any;
}

bool slots_native(const struct postgres *p)
{
    return major_of(p) >= SLOTS_NATIVE_MAJOR && slots_logical(p);
}

static void finish(struct postgres *p)
{
    struct slots *s = &p->slots;
    s->busy = false;
    p->conf_dirty = p->conf_dirty || s->logical != slots_logical(p);
    s->logical = slots_logical(p);
    s->next_ms = clock_boot_ms() + LOOK_MS;
    memcpy(s->unsafe, s->plan.unsafe, sizeof s->unsafe);
    postgres_told(p);
}

/* Without a look nothing is known to be safe. */
static void give_up(struct postgres *p, const char *why)
{
    struct slots *s = &p->slots;
    pg_sql_reset(s->local);
    pg_sql_reset(s->remote);
    s->plan.unsafe[0] = '\0';
    if (slots_any_logical(&s->config))
        slots_say(s->plan.unsafe, sizeof s->plan.unsafe, "all", why);
    finish(p);
}

/* ---- steps ---- */

static void next_step(struct postgres *p);

static void stepped(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    struct slots *s = &p->slots;
    const struct slot_step *done = &s->plan.step[s->at];
    if (r->status != ERR_OK)
        slots_say(s->plan.unsafe, sizeof s->plan.unsafe, done->slot.name, r->e.text);
    if (r->status != ERR_OK && r->status != ERR_PRECONDITION) {
        pg_sql_reset(s->local);
        finish(p);
        return;
    }
    s->at++;
    next_step(p);
}

static void step_connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    struct slots *s = &p->slots;
    struct buf sql CLEANUP(buf_close) = BUF_INIT;
    if (r->status != ERR_OK) { /* such as: there is no such database */
        s->database[0] = '\0';
        stepped(arg, r);
        return;
    }
    slots_step_sql(&s->plan.step[s->at], &sql);
    pg_sql_query(s->local, buf_cstr(&sql), STEP_MS, stepped, p);
}

/* A logical slot is made and moved only from within its database. */
static void with_database(struct postgres *p, const char *database, pg_sql_cb *cb)
{
    struct slots *s = &p->slots;
    struct pg_sql_target t = {.n = 0};
    const struct pg_sql_reply ready = {.status = ERR_OK};
    if (pg_sql_ready(s->local) && strcmp(s->database, database) == 0) {
        cb(p, &ready);
        return;
    }
    pg_sql_reset(s->local);
    str_cut(s->database, sizeof s->database, database);
    postgres_local_target(p, &t, false);
    for (size_t i = 0; i < t.n; i++)
        if (strcmp(t.keywords[i], "dbname") == 0)
            t.values[i] = s->database;
    pg_sql_connect(s->local, &t, PG_CONNECT_MS, cb, p);
}

static void next_step(struct postgres *p)
{
    struct slots *s = &p->slots;
    if (s->at == s->plan.step_n) {
        finish(p);
        return;
    }
    const struct slot_def *d = &s->plan.step[s->at].slot;
    with_database(p, d->type == SLOT_LOGICAL ? d->database : "postgres", step_connected);
}

/* ---- copies ---- */

/* "\x0a1b..." */
static bool state_of(const char *hex, uint8_t *ret, size_t *ret_n)
{
    size_t n = strlen(hex);
    *ret_n = n / 2;
    return n > 0 && n % 2 == 0 && n / 2 <= STATE_MAX && hex_decode(hex, ret, n / 2) == ERR_OK;
}

static void states_read(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    struct slots *s = &p->slots;
    struct msg_list list = {0};
    uint8_t state[STATE_MAX];
    if (r->status != ERR_OK || r->n != 1) {
        slots_say(s->plan.unsafe, sizeof s->plan.unsafe, "copy", r->e.text);
        pg_sql_reset(s->remote);
        next_step(p);
        return;
    }
    buf_clear(&s->copies);
    for (int i = 0; i < PQntuples(r->results[0]); i++) {
        struct worker_file f = {.mode = 0600};
        size_t n;
        if (!state_of(pg_sql_text(r->results[0], i, 1), state, &n) ||
            str_copy(f.path, sizeof f.path, pg_sql_text(r->results[0], i, 0)) != ERR_OK)
            continue;
        f.content = slice_of(state, n);
        msg_list_append(&list, &msg_worker_file, &f);
    }
    msg_list_end(&list, &s->copies);
    s->copies_token = s->leader_token;
    next_step(p);
}

/* PostgreSQL replaces that file as a whole: it is never read half written. */
static void read_states(struct postgres *p)
{
    struct slots *s = &p->slots;
    struct buf sql CLEANUP(buf_close) = BUF_INIT;
    buf_printf(&sql, "SELECT slot_name, encode(pg_read_binary_file('pg_replslot/' || slot_name "
                     "|| '/state'), 'hex') FROM pg_replication_slots WHERE slot_name IN (''");
    for (size_t i = 0; i < s->plan.copy_n; i++)
        buf_printf(&sql, ", '%s'", s->plan.copy[i]); /* [a-z0-9_] */
    buf_printf(&sql, ")");
    pg_sql_query(s->remote, buf_cstr(&sql), PG_SQL_MS, states_read, p);
}

struct slice slots_copies(struct postgres *p)
{
    struct slots *s = &p->slots;
    bool now = p->act.plan.action == ACTION_START_STANDBY && p->follow.token != 0 &&
               p->follow.token == s->copies_token;
    return now ? buf_slice(&s->copies) : slice_of(NULL, 0);
}

void slots_copied(struct postgres *p)
{
    if (p->slots.copies.len > 0)
        p->slots.again_ms = clock_boot_ms() + COPY_AGAIN_MS;
    buf_clear(&p->slots.copies);
}

bool slots_wait(const struct postgres *p)
{
    return p->slots.copies.len > 0 && p->slots.copies_token == p->follow.token;
}

/* ---- looks ---- */

static void judge(struct postgres *p, const char *why_not)
{
    struct slots *s = &p->slots;
    char own[64];
    pg_slot_name(p->config->name, own);
    const struct slots_facts f = {.config = &s->config,
                                  .major = major_of(p),
                                  .primary = !pg_monitor_seen(p->monitor)->in_recovery,
                                  .here = &s->here,
                                  .leader = why_not == NULL ? &s->leader : NULL,
                                  .why_not = why_not,
                                  .own_slot = own,
                                  .leader_token = s->leader_token};
    slots_judge(&f, &s->memory, &s->plan);
    s->at = 0;
    buf_clear(&s->copies);
    if (s->plan.copy_n > 0 && clock_boot_ms() >= s->again_ms && pg_sql_ready(s->remote))
        read_states(p);
    else
        next_step(p);
}

static void leader_read(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    struct slots *s = &p->slots;
    bool ok = r->status == ERR_OK && r->n == 1 &&
              slots_seen_parse(r->results[0], NULL, &s->leader) == ERR_OK;
    if (!ok)
        pg_sql_reset(s->remote);
    judge(p, ok ? NULL : "the leader's slots cannot be read");
}

static void leader_connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status == ERR_OK)
        pg_sql_query(p->slots.remote, slots_query, PG_SQL_MS, leader_read, p);
    else
        leader_read(arg, r);
}

static void look_at_leader(struct postgres *p)
{
    struct slots *s = &p->slots;
    const struct pg_sql_reply ready = {.status = ERR_OK};
    const void *a = &s->remote_to;
    const void *b = &s->leader_at;
    if (strcmp(s->leader_at.name, p->follow.name) != 0 || s->leader_at.port[0] == '\0' ||
        p->follow.conninfo[0] == '\0') {
        judge(p, s->leader_at.name[0] == '\0' ? "there is no leader"
                                              : "this standby does not stream from the leader");
        return;
    }
    if (pg_sql_ready(s->remote) && memcmp(a, b, sizeof s->remote_to) == 0) {
        leader_connected(p, &ready);
        return;
    }
    pg_sql_reset(s->remote);
    s->remote_to = s->leader_at;
    pg_remote_connect(s->remote, &s->leader_at, &p->config->postgresql.authentication.rewind,
                      false, leader_connected, p);
}

static void here_read(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status != ERR_OK || r->n != 2 ||
        slots_seen_parse(r->results[0], r->results[1], &p->slots.here) != ERR_OK)
        give_up(p, "the slots here cannot be read");
    else if (pg_monitor_seen(p->monitor)->in_recovery)
        look_at_leader(p);
    else
        judge(p, "");
}

static void here_connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status != ERR_OK)
        give_up(p, "PostgreSQL here does not answer");
    else
        pg_sql_query(p->slots.local, slots_local_query, PG_SQL_MS, here_read, p);
}

void slots_look(struct postgres *p)
{
    struct slots *s = &p->slots;
    bool any = s->config.permanent_n > 0 || s->memory.retired_n > 0;
    if (s->busy || clock_boot_ms() < s->next_ms || !any)
        return;
    s->busy = true;
    with_database(p, "postgres", here_connected);
}

void slots_pause(struct postgres *p)
{
    if (!p->slots.busy)
        pg_sql_reset(p->slots.local);
}

void slots_stop(struct postgres *p)
{
    struct slots *s = &p->slots;
    pg_sql_reset(s->local);
    pg_sql_reset(s->remote);
    s->busy = false;
    s->next_ms = 0;
    s->unsafe[0] = '\0';
}

void slots_configure(struct postgres *p, const struct postgres_dynamic *d)
{
    struct slots *s = &p->slots;
    struct slot_config now;
    struct errmsg e = {0};
    s->leader_at = d->leader_at;
    s->leader_token = d->leader_token;
    if (slice_eq(buf_slice(&s->slots_json), d->slots_json) &&
        slice_eq(buf_slice(&s->ignore_json), d->ignore_json))
        return;
    buf_clear(&s->slots_json);
    buf_append_slice(&s->slots_json, d->slots_json);
    buf_clear(&s->ignore_json);
    buf_append_slice(&s->ignore_json, d->ignore_json);
    /* Whoever stored it has checked it; what cannot be read leaves everything as it was. */
    if (slots_parse(d->slots_json, d->ignore_json, &now, &e) != ERR_OK) {
        (void)snprintf(s->unsafe, sizeof s->unsafe, "all: %.150s", e.text);
        return;
    }
    slots_retire(&s->memory, &s->config, &now);
    s->config = now;
    s->logical = slots_logical(p);
    s->next_ms = 0;
    if (now.permanent_n == 0) {
        s->unsafe[0] = '\0';
        buf_clear(&s->copies);
    }
}
