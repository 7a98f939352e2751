#include "agent/postgres_private.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"

enum { HOUSE_MS = 500, PROBE_RETRY_MS = 1000 };

static void house_cb(uv_timer_t *timer);

bool postgres_running(const struct postgres *p)
{
    return p->fence_seen.postmaster != 0;
}

void postgres_req(const struct postgres *p, struct worker_req *q, const char *op)
{
    *q = (struct worker_req){0};
    (void)snprintf(q->op, sizeof q->op, "%s", op);
    (void)snprintf(q->name, sizeof q->name, "%s", p->config->name);
    (void)snprintf(q->data_dir, sizeof q->data_dir, "%s", p->config->postgresql.data_dir);
    (void)snprintf(q->bin_dir, sizeof q->bin_dir, "%s",
                   p->config->postgresql.bin_dir != NULL ? p->config->postgresql.bin_dir : "");
}

/* What the role or database has set is overruled: these come with the connection. */
void postgres_local_target(struct postgres *p, struct pg_sql_target *t,
                           enum pg_monitor_kind kind)
{
    const struct conf_user *u = &p->config->postgresql.authentication.superuser;
    pg_sql_target_add(t, "host", p->socket_dir);
    pg_sql_target_add(t, "port", p->port);
    pg_sql_target_add(t, "user", u->username);
    if (kind != PG_MONITOR_DOOR)
        pg_sql_target_add(t, "password", u->password);
    pg_sql_target_add(t, "passfile", "/dev/null/none"); /* libpq warns of one that is no file */
    pg_sql_target_add(t, "application_name", "regent");
    pg_sql_target_add(t, "gssencmode", "disable");
    pg_sql_target_add(t, "client_encoding", "UTF8");
    if (kind == PG_MONITOR_IDENTIFY)
        pg_sql_target_add(t, "replication", "database");
    pg_sql_target_add(t, "dbname", "postgres");
    pg_sql_target_add(
        t, "options",
        "-c search_path=pg_catalog -c synchronous_commit=local "
        "-c statement_timeout=30s -c lock_timeout=2s -c default_transaction_read_only=off "
        "-c session_preload_libraries= -c local_preload_libraries= "
        "-c idle_in_transaction_session_timeout=0 -c datestyle=ISO "
        "-c standard_conforming_strings=on -c log_statement=none "
        "-c log_min_duration_statement=-1 -c log_min_error_statement=panic -c jit=off");
}

static void monitor_target(void *arg, struct pg_sql_target *t, enum pg_monitor_kind kind)
{
    postgres_local_target(arg, t, kind);
}

/* ---- the data directory --------------------------------------------------------------------- */

static void probed(void *arg, enum err status, const struct errmsg *e,
                   const struct worker_reply *r)
{
    struct postgres *p = arg;
    CHECK_MAGIC(p, POSTGRES_MAGIC);
    p->probing = false;
    /* A worker that died with the fence of before says nothing about the data: the next one is asked at once. */
    bool lost = status == ERR_UNAVAILABLE && !p->probe_lost;
    p->probe_lost = status == ERR_UNAVAILABLE;
    if (p->probe_again || lost) {
        p->probe_again = false;
        postgres_probe(p);
        return;
    }
    if (status != ERR_OK) {
        (void)snprintf(p->trouble, sizeof p->trouble, "data directory: %s", e->text);
        p->probe_retry_ms = clock_boot_ms() + PROBE_RETRY_MS;
    } else {
        p->probe = *r;
        p->probe_valid = true;
        p->trouble[0] = '\0';
    }
    postgres_told(p);
}

void postgres_probe(struct postgres *p)
{
    struct worker_req q;
    if (p->probing) {
        p->probe_again = true;
        return;
    }
    p->probing = true;
    p->probe_retry_ms = 0;
    postgres_req(p, &q, "probe");
    pg_worker_send(p->worker, &q, PG_WORKER_MS, probed, p);
}

/* ---- facts that arrive ------------------------------------------------------------------------ */

static void looks(struct postgres *p)
{
    act_start_look(p);
    act_promote_look(p);
    act_follow_look(p);
    sync_look(p);
    stuck_look(p);
    house_look(p);
    postgres_told(p);
}

static void seen_cb(void *arg)
{
    struct postgres *p = arg;
    CHECK_MAGIC(p, POSTGRES_MAGIC);
    const struct pg_seen *s = pg_monitor_seen(p->monitor);
    if (pg_monitor_accepts(p->monitor) && !p->ever_seen) {
        p->ever_seen = true;
        p->kept[0] = '\0';
        if (!p->follow.known) {
            p->follow.known = true;
            p->follow.token = s->follow_token;
            memcpy(p->follow.name, s->upstream, sizeof p->follow.name);
            memcpy(p->follow.conninfo, s->conninfo, sizeof p->follow.conninfo);
            p->conf_dirty = true;
        }
    }
    looks(p);
}

/* Everything that was known of a postmaster that is gone. */
static void postmaster_gone(struct postgres *p)
{
    p->probe_valid = false;
    p->ever_seen = false;
    buf_clear(&p->catalogue);
    p->roles_ready = false;
    p->conf_dirty = false;
    p->house_busy = false;
    pg_sql_reset(p->house_sql);
    pg_sql_reset(p->spare);
    slots_stop(p);
    stuck_stop(p);
    sync_stop(p);
}

void postgres_fence_changed(struct postgres *p)
{
    CHECK_MAGIC(p, POSTGRES_MAGIC);
    struct fence_state was = p->fence_seen;
    p->fence_seen = *fence_state(p->fence);
    const struct fence_state *now = &p->fence_seen;
    bool running = now->postmaster != 0;
    /* What failed for want of a fence is asked of this one at once. */
    if (now->connected && !was.connected)
        p->probe_retry_ms = 0;
    if (running && was.postmaster != now->postmaster) {
        bool ours = p->act.active && (p->act.plan.action == ACTION_START_PRIMARY ||
                                      p->act.plan.action == ACTION_START_STANDBY);
        p->stopping = false;
        p->ever_seen = false;
        p->starting_ms = clock_boot_ms();
        buf_clear(&p->catalogue);
        if (!ours) {
            p->follow.known = false;
            sync_adopted(p);
            postgres_probe(p);
        }
        pg_monitor_run(p->monitor, true, true);
    }
    if (!running)
        pg_monitor_run(p->monitor, false, false);
    if (!running && was.postmaster != 0)
        postmaster_gone(p);
    if (!running && !now->processes_left) {
        p->stopping = false;
        if (now->connected && !p->probe_valid && !p->probing && p->probe_retry_ms == 0)
            postgres_probe(p);
    }
    act_start_look(p);
    act_stop_look(p);
    postgres_told(p);
}

/* Beside data that is there and is not being replaced. */
static void look_after_health(struct postgres *p)
{
    struct worker_req q;
    bool copies = p->act.active &&
                  (p->act.plan.action == ACTION_CLONE || p->act.plan.action == ACTION_REWIND ||
                   p->act.plan.action == ACTION_INITDB);
    bool there = strcmp(p->probe.data, "ours") == 0 && !copies && p->fence_seen.connected;
    postgres_req(p, &q, "health");
    if (pg_health_step(p->health, there ? &q : NULL, pg_monitor_hung(p->monitor),
                       pg_monitor_seen(p->monitor)->unarchived))
        postgres_told(p);
}

static void house_cb(uv_timer_t *timer)
{
    struct postgres *p = timer->data;
    CHECK_MAGIC(p, POSTGRES_MAGIC);
    bool due = p->probe_retry_ms != 0 && clock_boot_ms() >= p->probe_retry_ms;
    if (due || (!p->probe_valid && !p->probing && p->probe_retry_ms == 0))
        postgres_probe(p);
    house_look(p);
    look_after_health(p);
}

/* Positions move all the time; only what they are compared for is news. */
static void still(struct view_pg *v)
{
    v->lsn = v->replay_lsn = 0;
    for (size_t i = 0; i < v->senders_n; i++)
        v->senders[i].flush_lsn = 0;
}

void postgres_told(struct postgres *p)
{
    struct view_pg now;
    postgres_observe(p, &now);
    if (!p->closely) /* else every byte counts */
        still(&now);
    /* Byte by byte: postgres_observe() has zeroed the gaps; at worst it is told once too often. */
    const void *a = &now;
    const void *b = &p->told;
    if (memcmp(a, b, sizeof now) == 0)
        return;
    memcpy(&p->told, &now, sizeof now);
    if (p->ops.changed != NULL)
        p->ops.changed(p->arg);
}

/* Without it the promotion makes one. */
static void spare_connected(void *arg, const struct pg_sql_reply *r)
{
    (void)arg;
    (void)r;
}

static void prepare_spare(struct postgres *p)
{
    struct pg_sql_target t = {.n = 0};
    if (p->act.active || !postgres_running(p) || !pg_monitor_accepts(p->monitor) ||
        !pg_monitor_seen(p->monitor)->in_recovery)
        return;
    postgres_local_target(p, &t, PG_MONITOR_LOOK);
    pg_sql_connect(p->spare, &t, PG_CONNECT_MS, spare_connected, p);
}

void postgres_watch_closely(struct postgres *p, bool on)
{
    p->closely = on;
    pg_monitor_closely(p->monitor, on);
    if (on)
        prepare_spare(p);
    else
        pg_sql_reset(p->spare);
}

const char *postgres_version(const struct postgres *p)
{
    return p->probe.version;
}

/* What cannot be read leaves the settings as they were. */
static void take_settings(struct postgres *p, struct slice json)
{
    struct pg_settings settings;
    struct errmsg e = {0};
    buf_clear(&p->settings_json);
    buf_append_slice(&p->settings_json, json);
    if (pg_settings_parse(json, &settings, &e) == ERR_OK) {
        pg_settings_close(&p->settings);
        p->settings = settings;
        if (str_starts(p->trouble, "dynamic configuration"))
            p->trouble[0] = '\0';
    } else {
        (void)snprintf(p->trouble, sizeof p->trouble, "dynamic configuration: %s", e.text);
    }
}

void postgres_configure(struct postgres *p, const struct postgres_dynamic *d)
{
    CHECK_MAGIC(p, POSTGRES_MAGIC);
    bool same = slice_eq(buf_slice(&p->settings_json), d->parameters_json) &&
                p->retry_interval_ms == d->retry_interval_ms && p->use_slots == d->use_slots &&
                p->strict == d->strict &&
                slice_eq(buf_slice(&p->slots.slots_json), d->slots_json);
    const void *was = p->ahead;
    const void *is = d->ahead;
    bool ahead = p->ahead_n != d->ahead_n || memcmp(was, is, sizeof p->ahead) != 0;
    if (!same)
        take_settings(p, d->parameters_json);
    p->retry_interval_ms = d->retry_interval_ms;
    p->use_slots = d->use_slots;
    p->strict = d->strict;
    if (p->stuck && d->leader_token > p->stuck_token)
        stuck_forget(p); /* another leader may be followed as it is */
    p->conf_dirty = p->conf_dirty || !same;
    site_configure(p, d->site_json);
    if (d->settings_only)
        return;
    p->leader_limits = d->leader;
    p->standby_limits = d->standbys;
    house_members(p, d);
    slots_configure(p, d);
    memcpy(p->ahead, d->ahead, sizeof p->ahead);
    p->ahead_n = d->ahead_n;
    p->conf_dirty = p->conf_dirty || (ahead && slots_native(p));
    p->conf_changed = p->conf_changed || (!same && p->configured);
    p->configured = true;
    house_look(p);
}

void postgres_reload(struct postgres *p)
{
    CHECK_MAGIC(p, POSTGRES_MAGIC);
    p->conf_dirty = true;
    house_look(p);
}

/* ---- life ---------------------------------------------------------------------------------------- */

static enum err set_paths(struct postgres *p, const struct postgres_options *o,
                          struct errmsg *e)
{
    char host[256];
    uint16_t port = 0;
    const char *run = o->run_dir != NULL ? o->run_dir : o->config->data_dir;
    char real[4096];
    enum err rv = pg_listen(o->config, host, sizeof host, &port, e);
    if (rv != ERR_OK)
        return rv;
    (void)snprintf(p->port, sizeof p->port, "%u", port);
    pg_socket_dir(run, p->socket_dir);
    /* Of a fence of its own it may not be there yet. */
    if (realpath(run, real) == NULL && str_copy(real, sizeof real, run) != ERR_OK)
        real[0] = '\0';
    if (real[0] != '/' ||
        str_format(p->passfile, sizeof p->passfile, "%s/pgpass", real) != ERR_OK ||
        (o->log_path == NULL
             ? str_format(p->log_path, sizeof p->log_path, "%s/postgresql.log", real)
             : str_copy(p->log_path, sizeof p->log_path, o->log_path)) != ERR_OK)
        return err_set(e, ERR_INVALID, "%.200s is no usable directory", run);
    const char *data = o->config->postgresql.data_dir;
    if (data == NULL || data[0] != '/' || strlen(data) >= WORKER_PATH - 64)
        return err_set(e, ERR_INVALID, "postgresql.data_dir: an absolute path is needed");
    return ERR_OK;
}

static void on_progress(void *arg, uint64_t percent, uint64_t bytes)
{
    struct postgres *p = arg;
    CHECK_MAGIC(p, POSTGRES_MAGIC);
    p->act.copied = p->act.in_worker ? percent : 0;
    p->act.copied_bytes = p->act.in_worker ? bytes : 0;
}

enum err postgres_new(uv_loop_t *loop, const struct postgres_options *o,
                      const struct postgres_ops *ops, void *arg, struct postgres **ret_pg,
                      struct errmsg *e)
{
    struct postgres *p = mem_alloc(sizeof *p);
    p->magic = POSTGRES_MAGIC;
    p->loop = loop;
    p->config = o->config;
    p->fence = o->fence;
    p->ops = *ops;
    p->arg = arg;
    p->retry_interval_ms = 100;
    p->born_ms = clock_boot_ms();
    enum err rv = set_paths(p, o, e);
    if (rv != ERR_OK) {
        mem_free(p);
        return rv;
    }
    p->worker = pg_worker_new(loop, o->fence, on_progress, p);
    p->monitor = pg_monitor_new(loop, monitor_target, seen_cb, p);
    p->health = pg_health_new(loop, o->fence);
    struct pg_sql **sql[] = {&p->sql,      &p->spare,      &p->house_sql,   &p->remote,
                             &p->sync_sql, &p->sync_probe, &p->slots.local, &p->slots.remote};
    for (size_t i = 0; i < ARRAY_LEN(sql); i++)
        *sql[i] = pg_sql_new(loop);
    uv_timer_t *timers[] = {&p->timer, &p->house, &p->sync_timer};
    for (size_t i = 0; i < ARRAY_LEN(timers); i++) {
        (void)uv_timer_init(loop, timers[i]);
        timers[i]->data = p;
        p->open_timers++;
    }
    (void)uv_timer_start(&p->house, house_cb, HOUSE_MS, HOUSE_MS);
    *ret_pg = p;
    postgres_fence_changed(p);
    return ERR_OK;
}

/* The timers are part of it: the last of them to close takes it along. */
static void timer_closed(uv_handle_t *handle)
{
    struct postgres *p = handle->data;
    if (--p->open_timers > 0)
        return;
    p->magic = 0;
    mem_free(p);
}

void postgres_free(struct postgres *p)
{
    if (p == NULL)
        return;
    CHECK_MAGIC(p, POSTGRES_MAGIC);
    p->ops = (struct postgres_ops){0};
    hook_forget(TAKE(p->act.hook));
    pg_worker_free(p->worker);
    pg_monitor_free(p->monitor);
    pg_health_free(p->health);
    struct pg_sql *sql[] = {p->sql,      p->spare,      p->house_sql,   p->remote,
                            p->sync_sql, p->sync_probe, p->slots.local, p->slots.remote};
    for (size_t i = 0; i < ARRAY_LEN(sql); i++)
        pg_sql_free(sql[i]);
    pg_settings_close(&p->settings);
    buf_close(&p->settings_json);
    buf_close(&p->site_json);
    buf_close(&p->catalogue);
    buf_close(&p->slots.slots_json);
    buf_close(&p->slots.ignore_json);
    buf_close(&p->slots.copies);
    uv_timer_t *timers[] = {&p->timer, &p->house, &p->sync_timer};
    for (size_t i = 0; i < ARRAY_LEN(timers); i++)
        uv_close((uv_handle_t *)timers[i], timer_closed);
}
