/* The engine's ports in production. */
#include "agent/daemon.h"
#include "base/clock.h"
#include "base/log.h"
#include "conf/lease_rule.h"

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
    if (d->witness) { /* it has no PostgreSQL, and no fence below */
        (void)memset(ret_pg, 0, sizeof *ret_pg);
        return;
    }
    postgres_observe(d->postgres, ret_pg);
    engine_set_pg_version(d->engine, postgres_version(d->postgres));
}

static void port_run(void *arg, const struct plan *p, const struct postgres_upstream *up,
                     uint64_t deadline_ms, postgres_cb *cb, void *cb_arg)
{
    struct daemon *d = arg;
    if (p->action == ACTION_RELOAD)
        daemon_reread(d);
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

static uint64_t port_catalogue(void *arg, struct slice *ret_json)
{
    struct daemon *d = arg;
    return postgres_catalogue(d->postgres, ret_json);
}

static void port_fence(void *arg, struct fence_state *ret_state)
{
    struct daemon *d = arg;
    if (d->witness)
        (void)memset(ret_state, 0, sizeof *ret_state);
    else
        *ret_state = *fence_state(d->fence);
}

static void fence_trouble(const char *order, enum err rv)
{
    if (rv != ERR_OK)
        log_event(LOG_ERROR, "fence", NO_KV, "the order to %s was not given: %s", order,
                  rv == ERR_UNAVAILABLE ? "there is no fence, or it takes none" : err_name(rv));
}

static void port_arm(void *arg, uint64_t token, uint64_t deadline_ms)
{
    struct daemon *d = arg;
    fence_trouble("arm", fence_arm(d->fence, token, deadline_ms));
}

static void port_extend(void *arg, uint64_t deadline_ms)
{
    struct daemon *d = arg;
    fence_extend(d->fence, deadline_ms);
}

static bool port_shorten(void *arg, uint64_t deadline_ms)
{
    struct daemon *d = arg;
    return fence_shorten(d->fence, deadline_ms);
}

static void port_disarm(void *arg)
{
    struct daemon *d = arg;
    fence_trouble("disarm", fence_disarm(d->fence));
}

static void port_confirm(void *arg, uint64_t challenge)
{
    struct daemon *d = arg;
    fence_confirm(d->fence, challenge);
}

static void port_kill(void *arg)
{
    struct daemon *d = arg;
    fence_trouble("kill", fence_kill(d->fence));
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
    rest_loop_lag(d->rest, now_ms - MIN(now_ms, d->wake_at_ms));
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

static void on_dcs_status(void *arg, const struct client_reply *reply)
{
    struct daemon *d = arg;
    struct status_reply s;
    bool told = reply->status == ERR_OK &&
                msg_decode(&msg_status_reply, reply->result, &s, NULL) == ERR_OK;
    rest_dcs_status(d->rest, told ? &s : NULL);
}

static void on_member_list(void *arg, const struct client_reply *reply)
{
    struct daemon *d = arg;
    struct member_list list;
    bool told = reply->status == ERR_OK &&
                msg_decode(&msg_member_list, reply->result, &list, NULL) == ERR_OK;
    templates_members(d->templates, told ? &list : NULL);
}

static void port_published(void *arg, const struct view *v, const struct plan *p)
{
    struct daemon *d = arg;
    struct rest_news news = {.view = v,
                             .plan = p,
                             .mirror = engine_mirror(d->engine),
                             .pg = d->witness ? NULL : postgres_seen(d->postgres),
                             .host = d->host != NULL ? host_watch_seen(d->host) : NULL,
                             .fence = d->witness ? NULL : fence_state(d->fence),
                             .pg_version = d->witness ? "" : postgres_version(d->postgres)};
    if (!d->closing && rest_dcs_due(d->rest, v->now_ms))
        client_call(d->client, METHOD_CLUSTER_STATUS, &(struct empty){}, 0, on_dcs_status, d);
    vip_keeper_look(d->vip, v);
    if (!watchdog_keeper_look(d->watchdog, v->config.ttl_ms, v->now_ms))
        daemon_give_up(d);
    dns_publish(d->dns, v);
    rest_publish(d->rest, &news);
    if (!d->closing)
        rest_jobs_look(d->jobs);
    templates_publish(d->templates, news.mirror);
    if (d->callbacks != NULL)
        callbacks_publish(d->callbacks, v, p, postgres_reloads(d->postgres));
    if (!d->closing && templates_members_due(d->templates, v->now_ms))
        client_call(d->client, METHOD_MEMBER_LIST, &(struct empty){}, 0, on_member_list, d);
    if (engine_stopped(d->engine) && !d->closing)
        daemon_finish(d);
}

const struct engine_ports daemon_ports = {
    .now_ms = port_now,
    .wall_ms = port_wall,
    .call = port_call,
    .watch = port_watch,
    .observe = port_observe,
    .run = port_run,
    .cancel = port_cancel,
    .configure = port_configure,
    .watch_closely = port_watch_closely,
    .catalogue = port_catalogue,
    .fence = port_fence,
    .arm = port_arm,
    .extend = port_extend,
    .shorten = port_shorten,
    .disarm = port_disarm,
    .confirm = port_confirm,
    .kill = port_kill,
    .remember = port_remember,
    .wake_at = port_wake_at,
    .published = port_published,
};

/* ---- what REST orders ---- */

static const struct view *rest_view(void *arg)
{
    struct daemon *d = arg;
    return engine_view(d->engine);
}

static const struct mirror *rest_mirror(void *arg)
{
    struct daemon *d = arg;
    return engine_mirror(d->engine);
}

static void rest_reload(void *arg)
{
    struct daemon *d = arg;
    if (!d->witness)
        postgres_reload(d->postgres);
}

static enum err rest_check_ttl(void *arg, uint64_t ttl_s, struct errmsg *e)
{
    const struct daemon *d = arg;
    return lease_rule_check(ttl_s * 1000, d->config.dcs.election_ms, e);
}

static struct hba_roles rest_roles(void *arg)
{
    const struct daemon *d = arg;
    return conf_roles(&d->config);
}

const struct rest_jobs_ports daemon_rest_ports = {
    .call = port_call,
    .view = rest_view,
    .mirror = rest_mirror,
    .reload = rest_reload,
    .check_ttl = rest_check_ttl,
    .roles = rest_roles,
};
