/* regentd: one daemon per node. The DCS runs in a thread of its own (dcs/); the agent's loop is here, in the
 * main thread: client of the DCS, fence, PostgreSQL, REST, signals. */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <uv.h>

#include "agent/engine.h"
#include "agent/rest.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "dcs/dcs.h"

enum { EXIT_CONFIG = 2, STOP_LIMIT_MS = 60000, KILL_BUDGET_MS = 200 };

struct daemon {
    struct config config;
    struct config_rec bootstrap;
    struct msg_arena bootstrap_arena;
    uv_loop_t loop;
    uv_timer_t wake, limit;
    uv_signal_t term, interrupt, leave;
    uint64_t wake_at_ms;
    struct dcs *dcs;
    struct client *client;
    struct client_watch *watch;
    struct fence *fence;
    struct postgres *postgres;
    struct rest *rest;
    struct engine *engine;
    bool restarting;
    bool closing;
    bool witness;
};

/* ---- ports of the engine ---- */

static uint64_t port_now(void *arg)
{
    (void)arg;
    return clock_boot_ms();
}

static uint64_t port_wall(void *arg)
{
    (void)arg;
    return clock_wall_ms();
}

static void port_call(void *arg, enum method m, const void *params, uint64_t deadline_ms,
                      client_cb *cb, void *cb_arg)
{
    struct daemon *d = arg;
    client_call(d->client, m, params, deadline_ms, cb, cb_arg);
}

static void on_watch(void *arg, enum err status, const struct watch_event *ev)
{
    struct daemon *d = arg;
    if (status != ERR_OK)
        d->watch = NULL;
    engine_watch(d->engine, status, ev);
}

static void port_watch(void *arg, struct slice key, struct slice end, uint64_t start_revision)
{
    struct daemon *d = arg;
    struct watch_req r = {.key = key, .end = end, .start_revision = start_revision};
    if (d->watch != NULL)
        client_unwatch(d->watch);
    d->watch = client_watch(d->client, &r, on_watch, d);
}

static void port_observe(void *arg, struct view_pg *ret_pg)
{
    struct daemon *d = arg;
    postgres_observe(d->postgres, ret_pg);
    engine_set_pg_version(d->engine, postgres_version(d->postgres));
}

static void port_run(void *arg, const struct plan *p, const struct postgres_upstream *up,
                     uint64_t deadline_ms, postgres_cb *cb, void *cb_arg)
{
    struct daemon *d = arg;
    postgres_run(d->postgres, p, up, deadline_ms, cb, cb_arg);
}

static void port_cancel(void *arg)
{
    struct daemon *d = arg;
    postgres_cancel(d->postgres);
}

static void port_configure(void *arg, const struct postgres_dynamic *dynamic)
{
    struct daemon *d = arg;
    postgres_configure(d->postgres, dynamic);
}

static void port_watch_closely(void *arg, bool on)
{
    struct daemon *d = arg;
    postgres_watch_closely(d->postgres, on);
}

static void port_fence(void *arg, struct fence_state *ret_state)
{
    struct daemon *d = arg;
    *ret_state = *fence_state(d->fence);
}

static void fence_trouble(const char *what, enum err rv, const struct errmsg *e)
{
    if (rv != ERR_OK)
        log_event(LOG_ERROR, "fence", NO_KV, "%s: %s", what, e->text);
}

static void port_arm(void *arg, uint64_t token, uint64_t deadline_ms)
{
    struct daemon *d = arg;
    struct errmsg e = {0};
    fence_trouble("arm", fence_arm(d->fence, token, deadline_ms), &e);
}

static void port_extend(void *arg, uint64_t deadline_ms)
{
    struct daemon *d = arg;
    fence_extend(d->fence, deadline_ms);
}

static void port_disarm(void *arg)
{
    struct daemon *d = arg;
    struct errmsg e = {0};
    fence_trouble("disarm", fence_disarm(d->fence), &e);
}

static void port_confirm(void *arg, uint64_t challenge)
{
    struct daemon *d = arg;
    fence_confirm(d->fence, challenge);
}

static void port_kill(void *arg)
{
    struct daemon *d = arg;
    struct errmsg e = {0};
    fence_trouble("kill", fence_kill(d->fence), &e);
}

static void port_remember(void *arg, uint64_t lease, uint64_t nonce)
{
    struct daemon *d = arg;
    fence_remember(d->fence, lease, nonce);
}

static void on_wake(uv_timer_t *t)
{
    struct daemon *d = t->data;
    uint64_t now_ms = clock_boot_ms();
    if (now_ms > d->wake_at_ms + engine_view(d->engine)->config.ttl_ms / 4) {
        log_event(LOG_WARN, "late", KV(KV_U64("late_ms", now_ms - d->wake_at_ms)),
                  "the loop was late: looking before acting");
        engine_late(d->engine);
    }
    engine_tick(d->engine);
}

static void port_wake_at(void *arg, uint64_t at_ms)
{
    struct daemon *d = arg;
    uint64_t now_ms = clock_boot_ms();
    if (d->closing)
        return;
    d->wake_at_ms = MAX(at_ms, now_ms);
    uv_update_time(&d->loop);
    uv_timer_start(&d->wake, on_wake, d->wake_at_ms - now_ms, 0);
}

static void finish(struct daemon *d);

static void port_published(void *arg, const struct view *v, const struct plan *p)
{
    struct daemon *d = arg;
    rest_publish(d->rest, v, p, engine_mirror(d->engine), postgres_version(d->postgres));
    if (engine_stopped(d->engine) && !d->closing)
        finish(d);
}

static const struct engine_ports ports = {
    .now_ms = port_now,
    .wall_ms = port_wall,
    .call = port_call,
    .watch = port_watch,
    .observe = port_observe,
    .run = port_run,
    .cancel = port_cancel,
    .configure = port_configure,
    .watch_closely = port_watch_closely,
    .fence = port_fence,
    .arm = port_arm,
    .extend = port_extend,
    .disarm = port_disarm,
    .confirm = port_confirm,
    .kill = port_kill,
    .remember = port_remember,
    .wake_at = port_wake_at,
    .published = port_published,
};

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
              STOP_LIMIT_MS / 1000);
    d->restarting = true;
    finish(d);
}

static void on_term(uv_signal_t *s, int number)
{
    struct daemon *d = s->data;
    log_event(LOG_INFO, "signal", KV(KV_STR("signal", number == SIGINT ? "SIGINT" : "SIGTERM")),
              d->restarting ? "leaving; PostgreSQL runs on for adoption"
                            : "stopping; a primary hands over first");
    (void)sd_notify(0, "STOPPING=1");
    if (d->restarting || d->witness) {
        finish(d);
        return;
    }
    engine_stop(d->engine);
    uv_timer_start(&d->limit, on_limit, STOP_LIMIT_MS, 0);
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
static void finish(struct daemon *d)
{
    if (d->closing)
        return;
    d->closing = true;
    rest_stop(TAKE(d->rest));
    if (d->watch != NULL)
        client_unwatch(d->watch);
    client_close(d->client, on_client_closed, d);
    postgres_free(TAKE(d->postgres));
    fence_close(TAKE(d->fence), d->restarting);
    close_handle((uv_handle_t *)&d->wake);
    close_handle((uv_handle_t *)&d->limit);
    close_handle((uv_handle_t *)&d->term);
    close_handle((uv_handle_t *)&d->interrupt);
    close_handle((uv_handle_t *)&d->leave);
}

static enum err start_dcs(struct daemon *d, struct errmsg *e)
{
    const struct config *c = &d->config;
    char *ca_key CLEANUP(mem_cleanup) = mem_printf("%s/pki/ca.key", c->data_dir);
    char *secrets CLEANUP(mem_cleanup) = mem_printf("%s/secrets.yml", c->data_dir);
    struct dcs_options o = {
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
    };
    for (size_t i = 0; i < c->dcs.n_join && i < DCS_JOIN_MAX; i++)
        o.join[o.n_join++] = c->dcs.join[i];
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
        .kill_budget_ms = KILL_BUDGET_MS,
        .nofailover = c->tags.nofailover,
        .nosync = c->tags.nosync,
        .noloadbalance = c->tags.noloadbalance,
        .clonefrom = c->tags.clonefrom,
        .failover_priority = c->tags.failover_priority,
        .witness = d->witness,
        .ports = &ports,
        .arg = d,
    };
    return engine_new(&o, &d->engine, e);
}

static enum err start_postgres(struct daemon *d, struct errmsg *e)
{
    struct fence_options f = {.data_dir = d->config.data_dir,
                              .pg_data_dir = d->config.postgresql.data_dir,
                              .spawn = true,
                              .kill_budget_ms = KILL_BUDGET_MS};
    static const struct fence_ops fence_ops = {.changed = on_fence_changed,
                                               .lost = on_fence_lost};
    static const struct postgres_ops pg_ops = {.changed = on_postgres_changed};
    enum err rv = fence_open(&d->loop, &f, &fence_ops, d, &d->fence, e);
    if (rv != ERR_OK)
        return rv;
    struct postgres_options p = {.config = &d->config, .fence = d->fence};
    return postgres_new(&d->loop, &p, &pg_ops, d, &d->postgres, e);
}

static enum err start(struct daemon *d, struct errmsg *e)
{
    enum err rv;
    ASSERT(uv_loop_init(&d->loop) == 0);
    ASSERT(uv_timer_init(&d->loop, &d->wake) == 0 && uv_timer_init(&d->loop, &d->limit) == 0);
    d->wake.data = d;
    d->limit.data = d;
    watch_signal(d, &d->term, SIGTERM, on_term);
    watch_signal(d, &d->interrupt, SIGINT, on_term);
    watch_signal(d, &d->leave, SIGUSR2, on_leave);
    if ((rv = start_dcs(d, e)) != ERR_OK ||
        (!d->witness && (rv = start_postgres(d, e)) != ERR_OK) ||
        (rv = start_engine(d, e)) != ERR_OK ||
        (rv = rest_start(&d->config, &d->rest, e)) != ERR_OK ||
        (rv = start_client(d, e)) != ERR_OK)
        return rv;
    engine_wake(d->engine);
    return ERR_OK;
}

static enum err read_config(struct daemon *d, const char *path)
{
    struct buf report CLEANUP(buf_close) = {.max = 65536};
    enum err rv = config_load(path, &d->config, &report);
    (void)fwrite(report.p, 1, report.len, stderr);
    if (rv != ERR_OK)
        return rv;
    enum log_level level = LOG_INFO;
    if (log_level_parse(d->config.log.level, &level) != ERR_OK)
        level = LOG_INFO;
    log_setup(level, strcmp(d->config.log.format, "json") == 0 ? LOG_JSON : LOG_LOGFMT);
    log_set_name(d->config.name);
    d->witness = strcmp(d->config.dcs.role, "witness") == 0;
    struct errmsg e = {0};
    char *secrets CLEANUP(mem_cleanup) = mem_printf("%s/secrets.yml", d->config.data_dir);
    rv = d->witness ? ERR_OK : config_load_secrets(&d->config, secrets, &e);
    if (rv == ERR_OK)
        rv = config_from_json(slice_str(d->config.bootstrap.dcs_json), &d->bootstrap,
                              &d->bootstrap_arena, &e);
    if (rv == ERR_OK)
        rv = keeper_check(d->bootstrap.ttl * 1000, d->config.dcs.election_ms, KILL_BUDGET_MS,
                          &e);
    if (rv != ERR_OK)
        (void)fprintf(stderr, "%s: %s\n", path, e.text);
    return rv;
}

static void usage(FILE *to)
{
    (void)fprintf(
        to, "usage: regentd [-c FILE] [--check-config]\n\n"
            "Runs this node's DCS member and HA agent in the foreground; logs to stderr.\n\n"
            "  -c, --config FILE   configuration (default: $REGENT_CONFIG, "
            "/etc/regent/regent.yml)\n"
            "      --check-config  report every error of the file and exit\n"
            "      --version       print the version and exit\n"
            "  -h, --help          this text\n\n"
            "Signals: SIGTERM hands over and stops PostgreSQL; SIGUSR2 before it leaves "
            "PostgreSQL\n"
            "running for the next daemon.\n");
}

static int parse_args(int argc, char **argv, const char **ret_config, bool *ret_check)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"check-config", no_argument, NULL, 'C'},
                                            {"version", no_argument, NULL, 'V'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        if (c == 'c') {
            *ret_config = optarg;
        } else if (c == 'C') {
            *ret_check = true;
        } else if (c == 'V' || c == 'h') {
            if (c == 'h')
                usage(stdout);
            else
                (void)printf("regentd %s\n", REGENT_VERSION);
            return 0;
        } else {
            usage(stderr);
            return EXIT_CONFIG;
        }
    }
    if (optind < argc) {
        (void)fprintf(stderr, "regentd: unexpected argument \"%s\"\n", argv[optind]);
        return EXIT_CONFIG;
    }
    return -1;
}

int main(int argc, char **argv)
{
    static struct daemon d;
    const char *config = NULL;
    bool check = false;
    struct errmsg e = {0};
    int done = parse_args(argc, argv, &config, &check);
    if (done >= 0)
        return done;
    (void)signal(SIGPIPE, SIG_IGN);
    (void)umask(077); /* whatever is written below data_dir is nobody else's */
    if (read_config(&d, config_path(config)) != ERR_OK)
        return EXIT_CONFIG;
    if (check) {
        (void)printf("%s: no errors\n", d.config.path);
        return 0;
    }
    if (start(&d, &e) != ERR_OK) {
        (void)fprintf(stderr, "regentd: %s\n", e.text);
        log_event(LOG_FATAL, "start", NO_KV, "%s", e.text);
        if (d.fence != NULL)
            fence_close(d.fence, true);
        if (d.dcs != NULL)
            dcs_stop(d.dcs);
        return 1;
    }
    log_event(LOG_INFO, "start",
              KV(KV_STR("scope", d.config.scope), KV_STR("dcs", d.config.dcs.listen),
                 KV_STR("version", REGENT_VERSION)),
              "regentd runs");
    (void)sd_notify(0, "READY=1");
    (void)uv_run(&d.loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&d.loop);
    engine_free(d.engine);
    dcs_stop(d.dcs);
    log_event(LOG_INFO, "stop", NO_KV, "regentd has stopped");
    msg_arena_close(&d.bootstrap_arena);
    config_close(&d.config);
    return 0;
}
