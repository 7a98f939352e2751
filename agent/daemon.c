/* The life of regentd. */
#include "agent/daemon.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "agent/systemd.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/notify.h"
#include "base/str.h"
#include "conf/lease_rule.h"

/* ---- events ---- */

static void on_client_state(void *arg, bool connected, const struct hello_reply *hello)
{
    struct daemon *d = arg;
    (void)hello;
    engine_connected(d->engine, connected);
}

static void on_fence_changed(void *arg, const struct fence_state *s)
{
    struct daemon *d = arg;
    (void)s;
    if (d->postgres != NULL)
        postgres_fence_changed(d->postgres);
    if (d->engine != NULL)
        engine_wake(d->engine);
}

static void on_fence_lost(void *arg)
{
    log_event(LOG_ERROR, "fence_lost", NO_KV,
              "the fence is gone or stalls: PostgreSQL is killed");
    on_fence_changed(arg, NULL);
}

static void on_postgres_changed(void *arg)
{
    struct daemon *d = arg;
    if (d->engine != NULL)
        engine_wake(d->engine);
}

static void on_limit(uv_timer_t *t)
{
    struct daemon *d = t->data;
    log_event(LOG_WARN, "stop", NO_KV,
              "handing over took longer than %d s: leaving; the fence keeps the deadline",
              DAEMON_STOP_LIMIT_MS / 1000);
    d->restarting = true;
    daemon_finish(d);
}

static void on_term(uv_signal_t *s, int number)
{
    struct daemon *d = s->data;
    d->restarting = d->restarting || (number == SIGTERM && systemd_restarts_us()) ||
                    engine_leaves_postgres(d->engine);
    log_event(LOG_INFO, "signal", KV(KV_STR("signal", number == SIGINT ? "SIGINT" : "SIGTERM")),
              d->restarting ? "leaving; PostgreSQL runs on for adoption"
                            : "stopping; a primary hands over first");
    notify_send("STOPPING=1");
    if (d->restarting || d->witness) {
        daemon_finish(d);
        return;
    }
    engine_stop(d->engine);
    uv_timer_start(&d->limit, on_limit, DAEMON_STOP_LIMIT_MS, 0);
}

void daemon_give_up(struct daemon *d)
{
    if (d->failed || d->closing)
        return;
    d->failed = true;
    notify_send("STOPPING=1");
    engine_stop(d->engine);
    uv_timer_start(&d->limit, on_limit, DAEMON_STOP_LIMIT_MS, 0);
}

/* SIGUSR2 announces a restart: PostgreSQL is left running for the next daemon. */
static void on_leave(uv_signal_t *s, int number)
{
    struct daemon *d = s->data;
    (void)number;
    d->restarting = true;
    engine_restart(d->engine);
    log_event(LOG_INFO, "signal", KV(KV_STR("signal", "SIGUSR2")),
              "the next stop leaves PostgreSQL running for adoption");
}

static void on_hangup(uv_signal_t *s, int number)
{
    struct daemon *d = s->data;
    (void)number;
    daemon_reread(d);
    if (!d->witness)
        postgres_reload(d->postgres);
}

/* The watchdog hears of us when both loops turn: the DCS thread has answered a call of this one. */
static void on_alive(void *arg, const struct client_reply *reply)
{
    (void)arg;
    if (reply->status == ERR_OK)
        notify_send("WATCHDOG=1");
}

static void on_alive_timer(uv_timer_t *t)
{
    struct daemon *d = t->data;
    if (!d->closing)
        client_call(d->client, METHOD_CLUSTER_STATUS, &(struct empty){}, 0, on_alive, d);
}

static void on_frugal_timer(uv_timer_t *t)
{
    (void)t;
    mem_give_back();
}

/* ---- life ---- */

static void watch_signal(struct daemon *d, uv_signal_t *s, int number, uv_signal_cb cb)
{
    ASSERT(uv_signal_init(&d->loop, s) == 0);
    s->data = d;
    ASSERT(uv_signal_start(s, cb, number) == 0);
    uv_unref((uv_handle_t *)s);
}

static void on_client_closed(void *arg)
{
    struct daemon *d = arg;
    d->client = NULL;
}

static void close_handle(uv_handle_t *h)
{
    if (!uv_is_closing(h))
        uv_close(h, NULL);
}

/* Everything of the agent closes; uv_run() returns when the last handle is gone. */
void daemon_finish(struct daemon *d)
{
    if (d->closing)
        return;
    d->closing = true;
    rest_jobs_close(d->jobs); /* first: it wakes connections that sleep */
    rest_stop(TAKE(d->rest));
    dns_stop(TAKE(d->dns));
    templates_stop(TAKE(d->templates));
    callbacks_stop(TAKE(d->callbacks), d->restarting);
    host_watch_stop(TAKE(d->host));
    vip_keeper_stop(TAKE(d->vip));
    watchdog_keeper_free(TAKE(d->watchdog));
    if (d->watch != NULL)
        client_unwatch(d->watch);
    client_close(d->client, on_client_closed, d);
    postgres_free(TAKE(d->postgres));
    fence_close(TAKE(d->fence), d->restarting);
    close_handle((uv_handle_t *)&d->wake);
    close_handle((uv_handle_t *)&d->limit);
    close_handle((uv_handle_t *)&d->alive);
    close_handle((uv_handle_t *)&d->frugal);
    close_handle((uv_handle_t *)&d->term);
    close_handle((uv_handle_t *)&d->interrupt);
    close_handle((uv_handle_t *)&d->leave);
    close_handle((uv_handle_t *)&d->hangup);
}

void daemon_dcs_options(const struct config *c, const char *ca_key, const char *secrets,
                        struct dcs_options *ret_options)
{
    *ret_options = (struct dcs_options){
        .scope = c->scope,
        .name = c->name,
        .data_dir = c->data_dir,
        .listen = c->dcs.listen,
        .connect_address = c->dcs.connect_address,
        .role = c->dcs.role,
        .ca_file = c->dcs.tls.ca,
        .cert_file = c->dcs.tls.cert,
        .key_file = c->dcs.tls.key,
        .ca_key_file = ca_key,
        .secrets_file = secrets,
        .election_ms = c->dcs.election_ms,
        .heartbeat_ms = c->dcs.heartbeat_ms,
        .archive_dir = c->dcs.snapshots.dir,
        .archive_interval_s = c->dcs.snapshots.interval,
        .archive_keep = c->dcs.snapshots.keep,
    };
    for (size_t i = 0; i < c->dcs.n_join && i < DCS_JOIN_MAX; i++)
        ret_options->join[ret_options->n_join++] = c->dcs.join[i];
}

static enum err start_dcs(struct daemon *d, struct errmsg *e)
{
    char *ca_key CLEANUP(mem_cleanup) = mem_printf("%s/pki/ca.key", d->config.data_dir);
    char *secrets CLEANUP(mem_cleanup) = mem_printf("%s/secrets.yml", d->config.data_dir);
    struct dcs_options o;
    daemon_dcs_options(&d->config, ca_key, secrets, &o);
    return dcs_start(&o, &d->dcs, e);
}

static enum err start_client(struct daemon *d, struct errmsg *e)
{
    struct client_options o = {
        .name = d->config.name, .connect_fd = dcs_connect, .connect_arg = d->dcs};
    enum err rv = client_new(&d->loop, &o, &d->client, e);
    if (rv == ERR_OK)
        client_on_state(d->client, on_client_state, d);
    return rv;
}

static enum err start_engine(struct daemon *d, struct errmsg *e)
{
    const struct config *c = &d->config;
    char host[128] = "";
    char api[160] = "";
    uint16_t port = 0;
    if (!d->witness &&
        str_host_port(c->postgresql.connect_address, host, sizeof host, &port) != ERR_OK)
        return err_set(e, ERR_INVALID, "postgresql.connect_address: \"%s\" is not host:port",
                       c->postgresql.connect_address);
    if (c->restapi.connect_address[0] != '\0')
        (void)snprintf(api, sizeof api, "%s://%s/patroni",
                       c->restapi.certfile[0] != '\0' ? "https" : "http",
                       c->restapi.connect_address);
    struct engine_options o = {
        .scope = c->scope,
        .name = c->name,
        .conn_host = host,
        .conn_port = port,
        .api_url = api,
        .pg_version = "",
        .bootstrap = &d->bootstrap,
        .election_ms = c->dcs.election_ms,
        .kill_budget_ms = LEASE_KILL_BUDGET_MS,
        .adopt = strcmp(c->bootstrap.method, "adopt") == 0,
        .pre_promote = !d->witness && c->postgresql.pre_promote[0] != '\0',
        .nofailover = c->tags.nofailover,
        .nosync = c->tags.nosync,
        .noloadbalance = c->tags.noloadbalance,
        .clonefrom = c->tags.clonefrom,
        .nostream = c->tags.nostream,
        .replicatefrom = c->tags.replicatefrom,
        .failover_priority = c->tags.failover_priority,
        .sync_priority = c->tags.sync_priority,
        .witness = d->witness,
        .ports = &daemon_ports,
        .arg = d,
    };
    return engine_new(&o, &d->engine, e);
}

/* Beside the socket is PostgreSQL's to write; its log goes where Debian's logrotate looks after it. */
static void installed_paths(const char *socket, char ret_run_dir[static POSTGRES_PATH_MAX],
                            char ret_log[static POSTGRES_PATH_MAX])
{
    static const char logs[] = "/var/log/postgresql";
    const char *slash = strrchr(socket, '/');
    (void)snprintf(ret_run_dir, POSTGRES_PATH_MAX, "%.*s", (int)(slash - socket), socket);
    bool kept = access(logs, F_OK) == 0;
    (void)snprintf(ret_log, POSTGRES_PATH_MAX, "%s/%s.log", kept ? logs : ret_run_dir,
                   kept ? strrchr(ret_run_dir, '/') + 1 : "postgresql");
}

static enum err start_postgres(struct daemon *d, struct errmsg *e)
{
    char run_dir[POSTGRES_PATH_MAX];
    char log[POSTGRES_PATH_MAX];
    struct fence_options f = {.data_dir = d->config.data_dir,
                              .socket_path = d->fence_socket,
                              .pg_data_dir = d->config.postgresql.data_dir,
                              .spawn = d->fence_socket == NULL,
                              .kill_budget_ms = LEASE_KILL_BUDGET_MS};
    static const struct fence_ops fence_ops = {.changed = on_fence_changed,
                                               .lost = on_fence_lost};
    static const struct postgres_ops pg_ops = {.changed = on_postgres_changed};
    enum err rv = fence_open(&d->loop, &f, &fence_ops, d, &d->fence, e);
    if (rv != ERR_OK)
        return rv;
    d->vip = vip_keeper_new(&d->loop, &d->config, d->fence);
    d->watchdog = watchdog_keeper_new(&d->config, d->fence);
    struct postgres_options p = {.config = &d->config, .fence = d->fence};
    if (d->fence_socket != NULL) {
        installed_paths(d->fence_socket, run_dir, log);
        p.run_dir = run_dir;
        p.log_path = log;
    }
    return postgres_new(&d->loop, &p, &pg_ops, d, &d->postgres, e);
}

static enum err start_all(struct daemon *d, struct errmsg *e)
{
    enum err rv;
    ASSERT(uv_loop_init(&d->loop) == 0);
    uv_timer_t *timers[] = {&d->wake, &d->limit, &d->alive, &d->frugal};
    for (size_t i = 0; i < ARRAY_LEN(timers); i++) {
        ASSERT(uv_timer_init(&d->loop, timers[i]) == 0);
        timers[i]->data = d;
    }
    watch_signal(d, &d->term, SIGTERM, on_term);
    watch_signal(d, &d->interrupt, SIGINT, on_term);
    watch_signal(d, &d->leave, SIGUSR2, on_leave);
    watch_signal(d, &d->hangup, SIGHUP, on_hangup);
    /* What can be refused comes first: a fence outlives a daemon that does not start. */
    d->jobs = rest_jobs_new(&d->loop, &daemon_rest_ports, d);
    if ((!d->witness && (rv = watchdog_check(&d->config, e)) != ERR_OK) ||
        (rv = rest_start(&d->config, d->jobs, &d->rest, e)) != ERR_OK ||
        (rv = dns_start(&d->config, &d->dns, e)) != ERR_OK ||
        (rv = templates_start(&d->loop, &d->config, &d->templates, e)) != ERR_OK ||
        (rv = start_dcs(d, e)) != ERR_OK ||
        (!d->witness && (rv = start_postgres(d, e)) != ERR_OK) ||
        (rv = start_engine(d, e)) != ERR_OK || (rv = start_client(d, e)) != ERR_OK)
        return rv;
    if (!d->witness)
        d->callbacks = callbacks_new(&d->loop, &d->config);
    d->host = host_watch_new(&d->loop, &d->config);
    engine_wake(d->engine);
    uint64_t watchdog_ms = notify_watchdog_us() / 1000 / 4;
    if (watchdog_ms != 0)
        uv_timer_start(&d->alive, on_alive_timer, watchdog_ms, watchdog_ms);
    uv_timer_start(&d->frugal, on_frugal_timer, DAEMON_STARTED_MS, DAEMON_HOUR_MS);
    return ERR_OK;
}

enum err daemon_start(struct daemon *d, struct errmsg *e)
{
    enum err rv = start_all(d, e);
    if (rv == ERR_OK)
        return rv;
    rest_stop(TAKE(d->rest));
    if (d->fence != NULL)
        fence_close(TAKE(d->fence), true);
    if (d->dcs != NULL)
        dcs_stop(TAKE(d->dcs));
    return rv;
}

void daemon_close(struct daemon *d)
{
    (void)uv_loop_close(&d->loop);
    rest_jobs_free(TAKE(d->jobs));
    engine_free(TAKE(d->engine));
    dcs_stop(TAKE(d->dcs));
    msg_arena_close(&d->bootstrap_arena);
    config_close(&d->config);
}
