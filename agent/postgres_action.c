/* One action at a time: how it begins, writes files, and ends. */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>

#include "agent/pg_text.h"
#include "agent/postgres_private.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/str.h"
#include "conf/dynamic.h"

void action_end(struct postgres *p, enum err status, const struct errmsg *e)
{
    ASSERT(p->act.active);
    struct errmsg none = {0};
    struct errmsg copy = e != NULL ? *e : none;
    postgres_cb *cb = p->act.cb;
    void *arg = p->act.arg;
    /* A rewind that was given up, or whose source was not ready, says nothing about the data. */
    if (p->act.plan.action == ACTION_REWIND &&
        (status == ERR_CANCELLED || status == ERR_UNAVAILABLE || status == ERR_TIMEOUT))
        p->rewind_failed = false;
    (void)uv_timer_stop(&p->timer);
    hook_forget(p->act.hook);
    pg_sql_reset(p->sql);
    pg_sql_reset(p->remote);
    p->checking = false;
    if (p->act.plan.action == ACTION_SEAL)
        p->trouble[0] = '\0'; /* what it waited for */
    p->act = (struct action){.active = false};
    pg_monitor_closely(p->monitor, p->closely);
    cb(arg, status, &copy);
}

bool action_may_lead(struct postgres *p)
{
    const struct fence_state *f = fence_state(p->fence);
    bool ours = f->armed && f->token == p->act.plan.token;
    if (ours && f->deadline_ms > clock_boot_ms() + f->kill_budget_ms)
        return true;
    action_fail(p, ERR_PRECONDITION, "leadership with token %llu has ended meanwhile",
                (unsigned long long)p->act.plan.token);
    return false;
}

void action_fail(struct postgres *p, enum err status, const char *fmt, ...)
{
    struct errmsg e = {.code = status};
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(e.text, sizeof e.text, fmt, ap);
    va_end(ap);
    action_end(p, status, &e);
}

/* True when the action failed or was given up, and has been ended. */
static bool action_over(struct postgres *p, enum err status, const struct errmsg *e)
{
    ASSERT(p->act.active);
    if (p->act.cancelled)
        action_fail(p, ERR_CANCELLED, "given up");
    else if (status != ERR_OK)
        action_end(p, status, e);
    else
        return false;
    return true;
}

/* What the files say now needs no other look at them. */
static void wrote(struct postgres *p)
{
    p->act.writing = false;
    if (p->act.plan.lineage[0] != '\0')
        memcpy(p->probe.lineage, p->act.plan.lineage, sizeof p->probe.lineage);
    if (p->act.unsealed)
        p->probe.seal_token = p->probe.seal_lsn = p->probe.seal_timeline = 0;
}

static void worker_cb(void *arg, enum err status, const struct errmsg *e,
                      const struct worker_reply *r)
{
    struct postgres *p = container_of(arg, struct postgres, act);
    CHECK_MAGIC(p, POSTGRES_MAGIC);
    ASSERT(p->act.active && p->act.in_worker);
    p->act.in_worker = false;
    void (*otherwise)(struct postgres * p, enum err why, const struct errmsg *err) =
        p->act.otherwise;
    p->act.otherwise = NULL;
    if (status != ERR_OK && status != ERR_CANCELLED && !p->act.cancelled && otherwise != NULL) {
        otherwise(p, status, e);
        return;
    }
    if (action_over(p, status, e))
        return;
    if (p->act.writing)
        wrote(p);
    p->act.then(p, r);
}

void action_worker(struct postgres *p, const struct worker_req *q, uint64_t timeout_ms,
                   action_step *then)
{
    p->act.in_worker = true;
    p->act.then = then;
    pg_worker_send(p->worker, q, timeout_ms, worker_cb, &p->act);
}

void action_in(struct postgres *p, uint64_t ms, uv_timer_cb cb)
{
    (void)uv_timer_start(&p->timer, cb, ms, 0);
}

static void add_file(struct msg_list *list, const char *path, const struct buf *content)
{
    struct worker_file f = {.content = buf_slice(content), .mode = 0600};
    if (str_copy(f.path, sizeof f.path, path) != ERR_OK)
        UNREACHABLE(); /* set_paths() has measured it */
    msg_list_append(list, &msg_worker_file, &f);
}

/* "regent_n2, regent_n3" */
static void put_ahead(const struct postgres *p, char *ret, size_t size)
{
    size_t n = 0;
    ret[0] = '\0';
    for (size_t i = 0; i < p->ahead_n; i++) {
        char slot[64];
        pg_slot_name(p->ahead[i], slot);
        n += (size_t)snprintf(ret + n, size - n, "%s%s", i > 0 ? ", " : "", slot);
    }
}

void postgres_render(const struct postgres *p, struct pg_render *r, struct render_texts *t)
{
    const struct site *site = site_followed(p);
    pg_slot_name(p->config->name, t->slot);
    put_ahead(p, t->ahead, sizeof t->ahead);
    *r = (struct pg_render){
        .config = p->config,
        .dynamic = &p->settings,
        .socket_dir = p->socket_dir,
        .passfile = p->passfile,
        .conninfo = p->follow.conninfo,
        .site = site,
        .slot = site != NULL   ? site->primary_slot_name
                : p->use_slots ? t->slot
                               : "",
        .logical_slots = slots_logical(p),
        .native_slots = slots_native(p),
        .ahead = p->use_slots ? t->ahead : "",
        .upstream = p->follow.name,
        .follow_token = p->follow.token,
        .retry_interval_ms = p->retry_interval_ms,
        .strict = p->strict,
        .closed = p->closed,
    };
}

enum err postgres_files(struct postgres *p, const char *sync_names, struct msg_list *ret,
                        struct errmsg *e)
{
    struct pg_render r;
    struct render_texts texts;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    postgres_render(p, &r, &texts);
    enum err rv = pg_render_conf(&r, &b, e);
    if (rv != ERR_OK)
        return rv;
    if (sync_names != NULL) {
        struct buf names CLEANUP(buf_close) = BUF_INIT;
        rv = pg_render_sync(sync_names, &names);
        if (rv != ERR_OK)
            return err_set(e, rv, "synchronous_standby_names cannot be written");
        add_file(ret, "postgresql.regent-sync.conf", &names);
    }
    add_file(ret, "postgresql.conf", &b);
    buf_clear(&b);
    rv = pg_render_hba(&r, &b, e);
    if (rv != ERR_OK)
        return rv;
    add_file(ret, "pg_hba.conf", &b);
    buf_clear(&b);
    rv = pg_render_ident(&r, &b, e);
    if (rv != ERR_OK)
        return rv;
    add_file(ret, "pg_ident.conf", &b);
    buf_clear(&b);
    pg_render_passfile(p->config, &b);
    add_file(ret, p->passfile, &b);
    if (b.p != NULL)
        explicit_bzero(b.p, b.len);
    return ERR_OK;
}

/* Lineage and seal of the plan go with a write. */
static void note_in(struct postgres *p, struct worker_req *q)
{
    memcpy(q->lineage, p->act.plan.lineage, sizeof q->lineage);
    /* For a leader's token newer than the loss: the engine has proven that before. */
    q->unseal = p->act.has_upstream || p->act.plan.action == ACTION_PROMOTE;
    p->act.writing = true;
    p->act.unsealed = q->unseal;
}

void action_note(struct postgres *p, action_step *then)
{
    struct worker_req q;
    postgres_req(p, &q, "write");
    note_in(p, &q);
    action_worker(p, &q, PG_WORKER_MS, then);
}

static void write_files(struct postgres *p, const char *op, const char *sync_names,
                        int signal_number, action_step *then)
{
    struct worker_req q;
    struct errmsg e = {0};
    struct msg_list list = {0};
    struct buf files CLEANUP(buf_close) = BUF_INIT;
    struct buf dirs CLEANUP(buf_close) = BUF_INIT;
    postgres_req(p, &q, op);
    enum err rv = postgres_files(p, sync_names, &list, &e);
    if (rv != ERR_OK) {
        msg_list_close(&list);
        action_end(p, rv, &e);
        return;
    }
    msg_list_end(&list, &files);
    q.files = buf_slice(&files);
    q.purge = settings_owned();
    q.slots = slots_copies(p);
    q.standby =
        p->act.plan.action != ACTION_START_PRIMARY && p->act.plan.action != ACTION_REWIND;
    (void)snprintf(q.path, sizeof q.path, "%s", p->socket_dir);
    if (str_parse_u64(p->port, &q.port) != ERR_OK)
        q.port = 0;
    if (str_starts(p->socket_dir, "/tmp/")) {
        buf_append(&dirs, p->socket_dir, strlen(p->socket_dir) + 1);
        q.dirs = buf_slice(&dirs);
    }
    q.signal = (uint64_t)signal_number;
    note_in(p, &q);
    action_worker(p, &q, PG_WORKER_MS, then);
}

void action_write(struct postgres *p, const char *op, const char *sync_names, action_step *then)
{
    write_files(p, op, sync_names, 0, then);
}

void action_reload(struct postgres *p, const char *sync_names, action_step *then)
{
    write_files(p, "write", sync_names, SIGHUP, then);
}

void action_swap(struct postgres *p)
{
    struct pg_sql *spare = p->spare;
    p->spare = p->sql;
    p->sql = spare;
}

void action_connect(struct postgres *p, pg_sql_cb *cb)
{
    struct pg_sql_target t = {.n = 0};
    postgres_local_target(p, &t, PG_MONITOR_LOOK);
    pg_sql_connect(p->sql, &t, PG_CONNECT_MS, cb, p);
}

static void refuse_cb(uv_timer_t *timer)
{
    action_fail(timer->data, ERR_INTERNAL, "no such action");
}

static void dispatch(struct postgres *p)
{
    switch (p->act.plan.action) {
    case ACTION_INITDB:
    case ACTION_REWIND:
    case ACTION_CLONE:
        buf_clear(&p->slots.copies); /* other data may lack the WAL that they need */
        act_copy(p);
        return;
    case ACTION_START_PRIMARY:
    case ACTION_START_STANDBY:
        act_start(p);
        return;
    case ACTION_STOP_FAST:
    case ACTION_STOP_IMMEDIATE:
    case ACTION_KILL:
        act_stop(p);
        return;
    case ACTION_FOLLOW:
        act_follow(p);
        return;
    case ACTION_SEAL:
        act_seal(p);
        return;
    case ACTION_PROMOTE:
        act_promote(p);
        return;
    case ACTION_PRE_PROMOTE:
        act_pre_promote(p);
        return;
    case ACTION_CHECKPOINT:
        act_checkpoint(p);
        return;
    case ACTION_SET_SYNC:
        act_sync(p);
        return;
    case ACTION_ENSURE_ROLES:
        act_roles(p);
        return;
    case ACTION_RELOAD:
        /* Housekeeping does it when the action has ended. */
        action_end(p, ERR_OK, NULL);
        postgres_reload(p);
        return;
    case ACTION_NONE:
    case ACTION_COUNT:
        break;
    }
    action_in(p, 0, refuse_cb);
}

/* From the loop, so that the callback never comes inside postgres_run(). */
static void begin_cb(uv_timer_t *timer)
{
    struct postgres *p = timer->data;
    CHECK_MAGIC(p, POSTGRES_MAGIC);
    if (p->act.cancelled)
        action_fail(p, ERR_CANCELLED, "given up");
    else
        dispatch(p);
}

void postgres_run(struct postgres *p, const struct plan *plan,
                  const struct postgres_upstream *upstream, uint64_t deadline_ms,
                  postgres_cb *cb, void *arg)
{
    CHECK_MAGIC(p, POSTGRES_MAGIC);
    ASSERT(!p->act.active);
    p->act = (struct action){.active = true,
                             .plan = *plan,
                             .has_upstream = upstream != NULL,
                             .deadline_ms = deadline_ms,
                             .began_ms = clock_boot_ms(),
                             .cb = cb,
                             .arg = arg};
    if (upstream != NULL)
        p->act.upstream = *upstream;
    if (upstream != NULL && strcmp(upstream->name, REMOTE_SITE) == 0)
        site_upstream(p, &p->act.upstream);
    action_in(p, 0, begin_cb);
}

static void cancelled_cb(uv_timer_t *timer)
{
    struct postgres *p = timer->data;
    if (p->act.active)
        action_fail(p, ERR_CANCELLED, "given up");
}

/* A worker call under way is waited for: it always answers. Everything else stops here. */
void postgres_cancel(struct postgres *p)
{
    CHECK_MAGIC(p, POSTGRES_MAGIC);
    if (!p->act.active || p->act.cancelled)
        return;
    p->act.cancelled = true;
    if (p->act.in_worker) {
        pg_worker_cancel(p->worker, &p->act);
        return;
    }
    pg_sql_reset(p->sql);
    action_in(p, 0, cancelled_cb);
}
