/* GET /openapi.json: written from the table of the paths, so that it describes what is served. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "agent/rest_route.h"
#include "base/str.h"

struct body_field {
    const char *name;
    const char *type;
    bool always;
};

static const struct body_field status_fields[] = {
    {"state", "string", true},
    {"role", "string", true},
    {"dcs_last_seen", "integer", true},
    {"patroni", "object", true},
    {"regent", "object", true},
    {"postmaster_start_time", "string", false},
    {"server_version", "integer", false},
    {"xlog", "object", false},
    {"timeline", "integer", false},
    {"replication", "array", false},
    {"replication_state", "string", false},
    {"sync_standby", "boolean", false},
    {"quorum_standby", "boolean", false},
    {"pause", "boolean", false},
    {"cluster_unlocked", "boolean", false},
    {"tags", "object", false},
    {"database_system_identifier", "string", false},
    {"pending_restart", "boolean", false},
    {"sick", "object", false},
    {"scheduled_restart", "object", false},
};
static const struct body_field cluster_fields[] = {{"members", "array", true},
                                                   {"scope", "string", true},
                                                   {"pause", "boolean", false},
                                                   {"scheduled_switchover", "object", false}};
static const struct body_field config_fields[] = {
    {"ttl", "integer", true},
    {"loop_wait", "integer", true},
    {"retry_timeout", "integer", true},
    {"maximum_lag_on_failover", "integer", true},
    {"synchronous_mode", "string", true},
};

static json_t *schema(const struct body_field *fields, size_t n)
{
    json_t *properties = json_object();
    json_t *required = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *p = json_pack("{s:s}", "type", fields[i].type);
        if (strcmp(fields[i].type, "array") == 0)
            json_object_set_new(p, "items", json_pack("{s:s}", "type", "object"));
        json_object_set_new(properties, fields[i].name, p);
        if (fields[i].always)
            json_array_append_new(required, json_string(fields[i].name));
    }
    return json_pack("{s:s, s:o, s:o}", "type", "object", "properties", properties, "required",
                     required);
}

/* The shape of a JSON body; NULL: it is none. */
static json_t *body_schema(const struct rest_route *r)
{
    switch (r->kind) {
    case ROUTE_CHECK:
    case ROUTE_STATUS:
        return json_pack("{s:s}", "$ref", "#/components/schemas/Status");
    case ROUTE_CONFIG:
        return json_pack("{s:s}", "$ref", "#/components/schemas/Config");
    case ROUTE_JSON:
        if (r->body == rest_cluster_body)
            return json_pack("{s:s}", "$ref", "#/components/schemas/Cluster");
        if (r->body == rest_discovery_body)
            return json_pack("{s:s, s:{s:s}}", "type", "array", "items", "type", "object");
        return json_pack("{s:s, s:{s:s, s:{}}}", "type", "array", "items", "type", "array",
                         "items");
    case ROUTE_OPENAPI:
        return json_pack("{s:s}", "type", "object");
    case ROUTE_JOURNAL:
        return json_pack("{s:s, s:{s:s}}", "type", "array", "items", "type", "object");
    case ROUTE_PROBE:
    case ROUTE_FAILSAFE:
    case ROUTE_METRICS:
    case ROUTE_EVENTS:
        break;
    }
    return NULL;
}

static json_t *response(const char *text, json_t *body)
{
    json_t *o = json_pack("{s:s}", "description", text);
    if (body != NULL)
        json_object_set_new(o, "content",
                            json_pack("{s:{s:o}}", "application/json", "schema", body));
    return o;
}

static json_t *responses(const struct rest_route *r, bool with_body)
{
    json_t *o = json_object();
    bool check = r->kind == ROUTE_CHECK || r->kind == ROUTE_PROBE;
    json_t *body = with_body ? body_schema(r) : NULL;
    if (r->kind == ROUTE_FAILSAFE || r->kind == ROUTE_CONFIG)
        json_object_set_new(o, "502", response("There is none", NULL));
    if (r->kind != ROUTE_FAILSAFE)
        json_object_set_new(o, "200",
                            response(check ? "It is so" : "As asked for", json_incref(body)));
    if (check)
        json_object_set_new(o, "503", response("It is not so", json_incref(body)));
    else if (r->kind == ROUTE_STATUS || r->kind == ROUTE_JSON || r->kind == ROUTE_JOURNAL)
        json_object_set_new(o, "503", response("The agent has not looked yet", NULL));
    if (r->lag || r->kind == ROUTE_JOURNAL)
        json_object_set_new(o, "400", response("A parameter is not understood", NULL));
    json_decref(body);
    return o;
}

static void add_parameter(json_t *list, const char *name, const char *text)
{
    json_array_append_new(list,
                          json_pack("{s:s, s:s, s:s, s:{s:s}}", "name", name, "in", "query",
                                    "description", text, "schema", "type", "string"));
}

static json_t *operation(const struct rest_route *r, bool with_body)
{
    json_t *parameters = json_array();
    if (r->lag)
        add_parameter(parameters, "lag",
                      "At most so far behind the leader: bytes, or 16kB, 10MB");
    if (r->kind == ROUTE_PROBE && r->lag)
        add_parameter(parameters, "mode", "apply or write: which position counts");
    if (r->tags && r->lag)
        add_parameter(parameters, "replication_state", "streaming");
    if (r->tags)
        add_parameter(parameters, "tag_clonefrom", "tag_NAME: this node's tag has that value");
    if (r->kind == ROUTE_JOURNAL)
        add_parameter(parameters, "limit", "How many: 1 to 100 (20)");
    return json_pack("{s:s, s:o, s:o}", "summary", r->summary, "parameters", parameters,
                     "responses", responses(r, with_body));
}

static json_t *verb_responses(const struct rest_verb *v)
{
    json_t *o = json_object();
    json_object_set_new(o, "401", response("Not authenticated", NULL));
    json_object_set_new(o, "403", response("Not for this client", NULL));
    for (const char *p = v->codes; *p != '\0'; p += strspn(p, " ")) {
        char code[8] = "";
        size_t n = strcspn(p, " ");
        (void)snprintf(code, sizeof code, "%.*s", (int)n, p);
        json_object_set_new(o, code, response(code[0] == '2' ? "Done" : "Not done", NULL));
        p += n;
    }
    return o;
}

static void add_verbs(json_t *paths)
{
    for (size_t i = 0; i < rest_verbs_n; i++) {
        const struct rest_verb *v = &rest_verbs[i];
        char method[8];
        (void)snprintf(method, sizeof method, "%s", v->method);
        for (char *c = method; *c != '\0'; c++)
            *c = (char)(*c - 'A' + 'a');
        json_t *path = json_object_get(paths, v->path);
        if (path == NULL) {
            path = json_object();
            json_object_set_new(paths, v->path, path);
        }
        json_object_set_new(
            path, method,
            json_pack("{s:s, s:o}", "summary", v->summary, "responses", verb_responses(v)));
    }
}

char *rest_openapi_body(void)
{
    json_t *paths = json_object();
    for (size_t i = 0; i < rest_routes_n; i++)
        json_object_set_new(paths, rest_routes[i].path,
                            json_pack("{s:o, s:o, s:o}", "get",
                                      operation(&rest_routes[i], true), "head",
                                      operation(&rest_routes[i], false), "options",
                                      operation(&rest_routes[i], false)));
    add_verbs(paths);
    json_t *root = json_pack(
        "{s:s, s:{s:s, s:s, s:s}, s:o, s:{s:{s:o, s:o, s:o}}}", "openapi", "3.0.3", "info",
        "title", "Regent", "version", REGENT_VERSION, "description",
        "Health checks and status of one node, compatible with Patroni " REST_PATRONI_VERSION,
        "paths", paths, "components", "schemas", "Status",
        schema(status_fields, ARRAY_LEN(status_fields)), "Cluster",
        schema(cluster_fields, ARRAY_LEN(cluster_fields)), "Config",
        schema(config_fields, ARRAY_LEN(config_fields)));
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}
