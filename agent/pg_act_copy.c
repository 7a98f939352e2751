/* INITDB, CLONE, REWIND: by the worker, then the directory is looked at anew. */
#include <stdio.h>

#include "agent/pg_remote.h"
#include "agent/pg_text.h"
#include "agent/postgres_private.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "conf/dynamic.h"

enum { SOURCE_WAIT_MS = 30000, SOURCE_POLL_MS = 200 };

static void ask_source(struct postgres *p);

static void looked_at(struct postgres *p, const struct worker_reply *r)
{
    p->probe = *r;
    p->probe_valid = true;
    action_end(p, ERR_OK, NULL);
}

static void look(struct postgres *p)
{
    struct worker_req q;
    postgres_req(p, &q, "probe");
    action_worker(p, &q, PG_WORKER_MS, looked_at);
}

static void copied(struct postgres *p, const struct worker_reply *r)
{
    if (r->text[0] != '\0')
        log_event(LOG_WARN, "put_aside",
                  KV(KV_STR("action", plan_action_name(p->act.plan.action))), "%s", r->text);
    str_cut(p->kept, sizeof p->kept, r->text);
    stuck_copied(p, p->act.plan.action == ACTION_REWIND);
    p->follow = (struct follow){.known = true};
    look(p);
}

static void source_of(const struct postgres *p, const struct conf_user *user,
                      struct worker_req *q)
{
    (void)snprintf(q->host, sizeof q->host, "%s", p->act.upstream.host);
    if (str_parse_u64(p->act.upstream.port, &q->port) != ERR_OK)
        q->port = 0; /* several */
    str_cut(q->ports, sizeof q->ports, p->act.upstream.port);
    q->read_write = p->act.upstream.read_write;
    (void)snprintf(q->user, sizeof q->user, "%s", user->username != NULL ? user->username : "");
    (void)snprintf(q->passfile, sizeof q->passfile, "%s", p->passfile);
    memcpy(q->lineage, p->act.plan.lineage, sizeof q->lineage);
}

static void put_args(struct buf *b, char *const *options, size_t n)
{
    for (size_t i = 0; i < n; i++)
        buf_append(b, options[i], strlen(options[i]) + 1);
}

static void put_option(struct buf *args, const char *name, const char *value)
{
    buf_printf(args, "--%s=%s", name, value);
    buf_append_u8(args, 0);
}

/* By a program of the administrator. */
static void bootstrap(struct postgres *p, const struct conf_method *m)
{
    struct worker_req q;
    struct buf args CLEANUP(buf_close) = BUF_INIT;
    struct buf recovery CLEANUP(buf_close) = BUF_INIT;
    struct buf purge CLEANUP(buf_close) = BUF_INIT;
    const struct conf_user *u = &p->config->postgresql.authentication.superuser;
    static const char commands[] = "restore_command\0recovery_end_command\0"
                                   "archive_cleanup_command\0";
    postgres_req(p, &q, "bootstrap");
    if (!m->no_params) {
        put_args(&args, m->params, m->n_params);
        put_option(&args, "scope", p->config->scope);
        put_option(&args, "datadir", p->config->postgresql.data_dir);
    }
    for (size_t i = 0; i < m->n_recovery_conf; i++) {
        buf_printf(&recovery, "%s = ", m->recovery_conf[i].key);
        if (pg_put_conf(&recovery, m->recovery_conf[i].value) != ERR_OK) {
            action_fail(p, ERR_INVALID, "recovery_conf: the value of %s cannot be written",
                        m->recovery_conf[i].key);
            return;
        }
        buf_append_u8(&recovery, '\n');
    }
    buf_append_slice(&purge, settings_owned());
    buf_append(&purge, commands, sizeof commands - 1);
    q.args = buf_slice(&args);
    q.command = slice_of(m->command, strlen(m->command) + 1);
    q.recovery = buf_slice(&recovery);
    q.purge = buf_slice(&purge);
    q.keep_recovery = m->keep_existing_recovery_conf;
    str_cut(q.user, sizeof q.user, u->username);
    q.password = slice_str(u->password);
    log_event(LOG_INFO, "method", KV(KV_STR("method", m->name)), "making the cluster by %s",
              m->name);
    action_worker(p, &q, 0, copied);
}

static void adopt(struct postgres *p)
{
    struct worker_req q;
    const struct conf_user *u = &p->config->postgresql.authentication.superuser;
    postgres_req(p, &q, "adopt");
    str_cut(q.user, sizeof q.user, u->username);
    q.password = slice_str(u->password);
    log_event(
        LOG_INFO, "adopt", NO_KV,
        "the data that is here becomes the cluster's; a server that runs on it is stopped");
    action_worker(p, &q, 0, copied);
}

static void initdb(struct postgres *p)
{
    struct worker_req q;
    struct buf args CLEANUP(buf_close) = BUF_INIT;
    const struct conf_user *u = &p->config->postgresql.authentication.superuser;
    postgres_req(p, &q, "initdb");
    put_args(&args, p->config->bootstrap.initdb, p->config->bootstrap.n_initdb);
    q.args = buf_slice(&args);
    (void)snprintf(q.user, sizeof q.user, "%s", u->username != NULL ? u->username : "postgres");
    q.password = slice_str(u->password != NULL ? u->password : "");
    memcpy(q.lineage, p->act.plan.lineage, sizeof q.lineage);
    action_worker(p, &q, 0, copied);
}

/* ---- CLONE: the methods in their order; the step is the next one ---- */

static void clone_now(struct postgres *p, const struct worker_reply *r);

static void basebackup(struct postgres *p)
{
    struct worker_req q;
    struct buf args CLEANUP(buf_close) = BUF_INIT;
    postgres_req(p, &q, "clone");
    q.remove_old = p->act.plan.remove_old;
    put_args(&args, p->config->postgresql.basebackup, p->config->postgresql.n_basebackup);
    q.args = buf_slice(&args);
    source_of(p, &p->config->postgresql.authentication.replication, &q);
    action_worker(p, &q, 0, copied);
}

/* Patroni's options. The password is in the file that PGPASSFILE names. */
static void put_options(const struct postgres *p, const struct conf_method *m,
                        const struct worker_req *q, struct buf *args)
{
    struct buf dsn CLEANUP(buf_close) = BUF_INIT;
    if (m->no_params)
        return;
    pg_put_conninfo(&dsn, "host", q->host);
    pg_put_conninfo(&dsn, "port", q->ports);
    pg_put_conninfo(&dsn, "user", q->user);
    put_args(args, m->params, m->n_params);
    put_option(args, "scope", p->config->scope);
    put_option(args, "datadir", p->config->postgresql.data_dir);
    put_option(args, "role", "replica");
    put_option(args, "connstring", buf_cstr(&dsn));
}

static void restore(struct postgres *p, const struct conf_method *m)
{
    struct worker_req q;
    struct buf args CLEANUP(buf_close) = BUF_INIT;
    postgres_req(p, &q, "restore");
    source_of(p, &p->config->postgresql.authentication.replication, &q);
    put_options(p, m, &q, &args);
    q.args = buf_slice(&args);
    q.command = slice_of(m->command, strlen(m->command) + 1);
    q.keep_data = m->keep_data;
    q.remove_old = p->act.plan.remove_old;
    log_event(LOG_INFO, "method", KV(KV_STR("method", m->name)), "making the copy by %s",
              m->name);
    action_worker(p, &q, 0, copied);
}

static void next_method(struct postgres *p, enum err status, const struct errmsg *e)
{
    const struct conf_method *all[CONF_METHODS_MAX];
    size_t n = copy_methods(p, all);
    const char *name = p->act.step <= n ? all[p->act.step - 1]->name : "the copy";
    if (p->act.step >= n) {
        action_fail(p, status, "%s: %s", name, e->text);
        return;
    }
    log_event(LOG_WARN, "method", KV(KV_STR("method", name)),
              "%s failed, the next one is tried: %s", name, e->text);
    clone_now(p, NULL);
}

static void clone_now(struct postgres *p, const struct worker_reply *r)
{
    const struct conf_method *all[CONF_METHODS_MAX];
    size_t n = copy_methods(p, all);
    (void)r;
    if (p->act.step >= n) {
        basebackup(p);
        return;
    }
    const struct conf_method *m = all[p->act.step++];
    p->act.otherwise = next_method;
    if (m->command[0] == '\0')
        basebackup(p);
    else
        restore(p, m);
}

/* The tools need the password file before there is any data directory. */
static void write_passfile(struct postgres *p, action_step *then)
{
    struct worker_req q;
    struct buf pass CLEANUP(buf_close) = BUF_INIT;
    struct buf files CLEANUP(buf_close) = BUF_INIT;
    struct msg_list list = {0};
    struct worker_file f = {.mode = 0600};
    postgres_req(p, &q, "write");
    pg_render_passfile(p->config, &pass);
    (void)snprintf(f.path, sizeof f.path, "%s", p->passfile);
    f.content = buf_slice(&pass);
    msg_list_append(&list, &msg_worker_file, &f);
    msg_list_end(&list, &files);
    q.files = buf_slice(&files);
    action_worker(p, &q, PG_WORKER_MS, then);
    if (pass.p != NULL)
        explicit_bzero(pass.p, pass.len);
}

static void rewound(struct postgres *p, const struct worker_reply *r)
{
    copied(p, r);
}

static void rewind_now(struct postgres *p)
{
    struct worker_req q;
    struct errmsg e = {0};
    struct msg_list list = {0};
    struct buf files CLEANUP(buf_close) = BUF_INIT;
    p->follow = (struct follow){.known = true};
    enum err rv = postgres_files(p, "", &list, &e);
    if (rv != ERR_OK) {
        msg_list_close(&list);
        action_end(p, rv, &e);
        return;
    }
    msg_list_end(&list, &files);
    postgres_req(p, &q, "rewind");
    source_of(p, &p->config->postgresql.authentication.rewind, &q);
    q.files = buf_slice(&files);
    q.purge = settings_owned();
    p->rewind_failed =
        true; /* until it has been done; a cancelled one is looked at like a failed one */
    action_worker(p, &q, 0, rewound);
}

static void ask_again_cb(uv_timer_t *timer)
{
    ask_source(timer->data);
}

/* pg_rewind reads the source's timeline from its control file, which only a checkpoint moves. */
static void source_said(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    uint64_t timeline = 0;
    bool sound = r->status == ERR_OK && r->n == 1 &&
                 str_parse_u64(pg_sql_text(r->results[0], 0, 0), &timeline) == ERR_OK;
    if (sound && timeline >= p->act.plan.timeline) {
        pg_sql_reset(p->remote);
        rewind_now(p);
        return;
    }
    if (clock_boot_ms() - p->act.began_ms > SOURCE_WAIT_MS) {
        /* A standby makes one when its own source has: that may be long. Then a clone. */
        bool standby = sound && strcmp(pg_sql_text(r->results[0], 0, 1), "t") == 0;
        p->rewind_failed = p->rewind_failed || standby;
        if (sound)
            action_fail(p, standby ? ERR_PRECONDITION : ERR_UNAVAILABLE,
                        "the source has made no checkpoint on its timeline yet");
        else
            action_fail(p, ERR_UNAVAILABLE, "the source of the rewind: %s", r->e.text);
        return;
    }
    pg_sql_reset(p->remote);
    action_in(p, SOURCE_POLL_MS, ask_again_cb);
}

static void source_connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status != ERR_OK)
        source_said(arg, r);
    else
        pg_sql_query(p->remote,
                     "SELECT timeline_id, pg_catalog.pg_is_in_recovery()"
                     " FROM pg_catalog.pg_control_checkpoint()",
                     PG_SQL_MS, source_said, p);
}

static void ask_source(struct postgres *p)
{
    pg_remote_connect(p->remote, &p->act.upstream, &p->config->postgresql.authentication.rewind,
                      false, source_connected, p);
}

static void ask_source_step(struct postgres *p, const struct worker_reply *r)
{
    (void)r;
    ask_source(p);
}

void act_copy(struct postgres *p)
{
    enum plan_action action = p->act.plan.action;
    bool adopts = action == ACTION_INITDB && postgres_is_foreign(p);
    if (postgres_running(p) || (p->fence_seen.processes_left && !adopts)) {
        action_fail(p, ERR_PRECONDITION, "PostgreSQL runs: its data is not touched");
        return;
    }
    if (action != ACTION_INITDB && !p->act.has_upstream) {
        action_fail(p, ERR_INVALID, "no source is given");
        return;
    }
    p->probe_valid = false; /* whatever comes of it, it is looked at anew */
    if (action == ACTION_INITDB) {
        if (adopts)
            adopt(p);
        else if (p->config->bootstrap.custom != NULL)
            bootstrap(p, p->config->bootstrap.custom);
        else
            initdb(p);
        return;
    }
    write_passfile(p, action == ACTION_CLONE ? clone_now : ask_source_step);
}
