#include "agent/rest_route.h"

#include <stdlib.h>

#include "agent/rest_metrics.h"
#include "agent/rest_order.h"
#include "base/assert.h"

enum { OK = 200, BAD_GATEWAY = 502, UNAVAILABLE = 503 };

#define CHECK(path, check, tags, lag, summary)                         \
    {                                                                  \
        path, ROUTE_CHECK, check, tags, lag, rest_status_body, summary \
    }

const struct rest_route rest_routes[] = {
    CHECK("/", check_primary, false, false, "This node is the primary"),
    CHECK("/primary", check_primary, false, false, "This node is the primary"),
    CHECK("/read-write", check_primary, false, false, "This node is the primary"),
    CHECK("/master", check_primary, false, false, "This node is the primary"),
    CHECK("/leader", check_leader, false, false, "This node has the leader key"),
    CHECK("/standby-leader", check_standby_leader, false, false,
          "This node leads a standby cluster"),
    CHECK("/standby_leader", check_standby_leader, false, false,
          "This node leads a standby cluster"),
    CHECK("/replica", check_replica, true, true, "This node is a standby that takes readers"),
    CHECK("/read-only", check_read_only, true, true, "This node takes readers"),
    CHECK("/synchronous", check_sync, true, true, "This node is a synchronous standby"),
    CHECK("/sync", check_sync, true, true, "This node is a synchronous standby"),
    CHECK("/read-only-sync", check_read_only_sync, true, true,
          "The primary or a synchronous standby"),
    CHECK("/read-only-synchronous", check_read_only_sync, true, true,
          "The primary or a synchronous standby"),
    CHECK("/quorum", check_quorum, true, true, "This node is a standby of the quorum"),
    CHECK("/read-only-quorum", check_read_only_quorum, true, true,
          "The primary or a standby of the quorum"),
    CHECK("/asynchronous", check_async, true, true, "This node is an asynchronous standby"),
    CHECK("/async", check_async, true, true, "This node is an asynchronous standby"),
    CHECK("/health", check_health, true, false, "PostgreSQL runs and answers"),
    {"/liveness", ROUTE_PROBE, check_liveness, false, false, NULL, "The agent's loop runs"},
    {"/readiness", ROUTE_PROBE, check_readiness, false, true, NULL,
     "The leader, or a standby that streams and keeps up"},
    {"/patroni", ROUTE_STATUS, NULL, false, false, rest_status_body, "Status of this node"},
    {"/cluster", ROUTE_JSON, NULL, false, false, rest_cluster_body, "The members"},
    {"/history", ROUTE_JSON, NULL, false, false, rest_history_body,
     "The timelines that have ended"},
    {"/config", ROUTE_CONFIG, NULL, false, false, rest_config_body,
     "The dynamic configuration"},
    {"/failsafe", ROUTE_FAILSAFE, NULL, false, false, NULL,
     "Patroni's failsafe mode, which there is none of"},
    {"/metrics", ROUTE_METRICS, NULL, false, false, NULL, "Metrics for Prometheus"},
    {"/sd/prometheus", ROUTE_JSON, NULL, false, false, rest_discovery_body,
     "Where the metrics of all nodes are (Prometheus' http_sd)"},
    {"/events", ROUTE_EVENTS, NULL, false, false, NULL,
     "What the status page shows, as server-sent events"},
    {"/journal", ROUTE_JOURNAL, NULL, false, false, NULL,
     "The newest decisions of every node, newest first"},
    {"/openapi.json", ROUTE_OPENAPI, NULL, false, false, NULL, "This description"},
};
const size_t rest_routes_n = ARRAY_LEN(rest_routes);

#define CONFIG_CODES "200 400 409 411 503"
#define SWITCH_CODES "200 202 400 411 412 422 503"

const struct rest_verb rest_verbs[] = {
    {"PATCH", "/config", VERB_CONFIG_PATCH,
     "Change the dynamic configuration; null takes a key away", CONFIG_CODES},
    {"PUT", "/config", VERB_CONFIG_PUT, "Replace the dynamic configuration", CONFIG_CODES},
    {"POST", "/switchover", VERB_SWITCHOVER, "Hand the leadership over", SWITCH_CODES},
    {"DELETE", "/switchover", VERB_SWITCHOVER_DELETE, "Take a scheduled switchover back",
     "200 404 409 503"},
    {"POST", "/failover", VERB_FAILOVER, "Make a node the leader although data may be lost",
     SWITCH_CODES},
    {"POST", "/restart", VERB_RESTART, "Restart this node's PostgreSQL",
     "200 202 400 409 422 500 503"},
    {"DELETE", "/restart", VERB_RESTART_DELETE, "Take a scheduled restart back", "200 404 503"},
    {"POST", "/reload", VERB_RELOAD, "Have PostgreSQL read its configuration", "202 503"},
    {"POST", "/reinitialize", VERB_REINITIALIZE, "Copy this standby's data anew",
     "200 400 503"},
};
const size_t rest_verbs_n = ARRAY_LEN(rest_verbs);

const struct rest_route *rest_route_find(const char *path)
{
    for (size_t i = 0; i < rest_routes_n; i++)
        if (strcmp(rest_routes[i].path, path) == 0)
            return &rest_routes[i];
    return NULL;
}

const struct rest_verb *rest_verb_find(const char *method, const char *path)
{
    for (size_t i = 0; i < rest_verbs_n; i++)
        if (strcmp(rest_verbs[i].path, path) == 0 && strcmp(rest_verbs[i].method, method) == 0)
            return &rest_verbs[i];
    return NULL;
}

static bool passes(const struct rest_facts *f, const struct rest_route *r,
                   const struct rest_query *q, uint64_t now_ms)
{
    return f->known && r->check(f, q, now_ms) && (!r->tags || check_tags(f, q, now_ms));
}

static struct rest_reply text_reply(unsigned code, const char *text)
{
    return (struct rest_reply){code, strdup(text), "text/plain"};
}

static struct rest_reply reply(const struct rest_facts *f, const struct rest_route *r,
                               const struct rest_query *q, uint64_t now_ms)
{
    static const char json[] = "application/json";
    char *body;
    switch (r->kind) {
    case ROUTE_CHECK:
        return (struct rest_reply){passes(f, r, q, now_ms) ? OK : UNAVAILABLE,
                                   r->body(f, now_ms), json};
    case ROUTE_PROBE:
        return (struct rest_reply){passes(f, r, q, now_ms) ? OK : UNAVAILABLE, NULL, json};
    case ROUTE_STATUS:
        return (struct rest_reply){f->known ? OK : UNAVAILABLE, r->body(f, now_ms), json};
    case ROUTE_JSON:
        return f->known ? (struct rest_reply){OK, r->body(f, now_ms), json}
                        : text_reply(UNAVAILABLE, "The agent has not looked yet\n");
    case ROUTE_CONFIG:
        body = r->body(f, now_ms);
        return body != NULL
                   ? (struct rest_reply){OK, body, json}
                   : text_reply(BAD_GATEWAY, "There is no dynamic configuration yet\n");
    case ROUTE_FAILSAFE:
        return text_reply(BAD_GATEWAY, "There is no failsafe mode\n");
    case ROUTE_METRICS:
        return (struct rest_reply){OK, rest_metrics_body(f, now_ms),
                                   "text/plain; version=0.0.4; charset=utf-8"};
    case ROUTE_OPENAPI:
        return (struct rest_reply){OK, rest_openapi_body(), json};
    case ROUTE_EVENTS:
        return (struct rest_reply){OK, NULL, "text/event-stream"};
    case ROUTE_JOURNAL: /* when it is known, it has been read instead */
        return text_reply(UNAVAILABLE, "The agent has not looked yet\n");
    }
    UNREACHABLE();
}

/* Load balancers ask by OPTIONS and HEAD, often: nothing is written for them that nobody reads. */
static unsigned code_alone(const struct rest_facts *f, const struct rest_route *r,
                           const struct rest_query *q, uint64_t now_ms)
{
    switch (r->kind) {
    case ROUTE_CHECK:
    case ROUTE_PROBE:
        return passes(f, r, q, now_ms) ? OK : UNAVAILABLE;
    case ROUTE_STATUS:
    case ROUTE_JSON:
    case ROUTE_JOURNAL:
        return f->known ? OK : UNAVAILABLE;
    case ROUTE_CONFIG:
        return f->config_json != NULL ? OK : BAD_GATEWAY;
    case ROUTE_FAILSAFE:
        return BAD_GATEWAY;
    case ROUTE_METRICS:
    case ROUTE_OPENAPI:
    case ROUTE_EVENTS:
        return OK;
    }
    UNREACHABLE();
}

void rest_answer(const struct rest_facts *f, const struct rest_route *r,
                 const struct rest_query *q, uint64_t now_ms, bool with_body,
                 struct rest_reply *ret)
{
    if (with_body)
        *ret = reply(f, r, q, now_ms);
    else
        *ret = (struct rest_reply){code_alone(f, r, q, now_ms), NULL, "text/plain"};
    ASSERT(ret->code != 0);
}
