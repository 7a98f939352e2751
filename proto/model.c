#include "proto/model.h"

#include <jansson.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/str.h"

bool model_is_sync(const struct sync_rec *sync, const struct member_rec *m)
{
    for (size_t i = 0; i < sync->v_n; i++)
        if (m->incarnation[0] != '\0' && strcmp(sync->v[i], m->incarnation) == 0)
            return true;
    return false;
}

static bool leads(const struct model_facts *f, const struct member_rec *m)
{
    return f->leader != NULL && strcmp(f->leader->name, m->name) == 0;
}

static const char *role_of(const struct model_facts *f, const struct member_rec *m)
{
    if (leads(f, m))
        return "leader";
    if (!model_is_sync(f->sync, m))
        return "replica";
    return strcmp(f->sync->mode, "quorum") == 0 ? "quorum_standby" : "sync_standby";
}

/* "https://10.0.0.1:8008/patroni" */
static void put_rest(json_t *o, const char *url)
{
    char address[160];
    char host[160] = "";
    uint16_t port = 0;
    const char *at = strstr(url, "://");
    bool tls = str_starts(url, "https:");
    at = at != NULL ? at + strlen("://") : url;
    if (str_copy_slice(address, sizeof address, slice_of(at, strcspn(at, "/"))) != ERR_OK ||
        str_host_port(address, host, sizeof host, &port) != ERR_OK)
        host[0] = '\0';
    json_object_set_new(o, "rest_host", json_string(host));
    json_object_set_new(o, "rest_port", json_integer(port));
    json_object_set_new(o, "rest_tls", json_boolean(tls));
}

static json_t *member(const struct model_facts *f, const struct member_rec *m)
{
    bool v6 = strchr(m->conn_host, ':') != NULL;
    json_t *o = json_object();
    json_object_set_new(o, "name", json_string(m->name));
    json_object_set_new(o, "host", json_string(m->conn_host));
    json_object_set_new(o, "port", json_integer((json_int_t)m->conn_port));
    json_object_set_new(
        o, "address",
        json_sprintf(v6 ? "[%s]:%u" : "%s:%u", m->conn_host, (unsigned)m->conn_port));
    put_rest(o, m->api_url);
    json_object_set_new(o, "role", json_string(role_of(f, m)));
    json_object_set_new(o, "state", json_string(m->state));
    json_object_set_new(o, "timeline", json_integer((json_int_t)m->timeline));
    json_object_set_new(o, "is_leader", json_boolean(leads(f, m)));
    json_object_set_new(o, "is_self", json_boolean(strcmp(f->self, m->name) == 0));
    json_object_set_new(o, "nofailover", json_boolean(m->nofailover));
    json_object_set_new(o, "noloadbalance", json_boolean(m->noloadbalance));
    json_object_set_new(o, "nosync", json_boolean(m->nosync));
    return o;
}

enum which { ALL, STANDBYS, SYNCHRONOUS };

static json_t *list(const struct model_facts *f, enum which which)
{
    json_t *a = json_array();
    for (size_t i = 0; i < f->members_n; i++) {
        const struct member_rec *m = &f->members[i];
        if (m->conn_port == 0 || (which != ALL && leads(f, m)) ||
            (which == SYNCHRONOUS && !model_is_sync(f->sync, m)))
            continue;
        json_array_append_new(a, member(f, m));
    }
    size_t n = json_array_size(a);
    for (size_t i = 0; i < n; i++)
        json_object_set_new(json_array_get(a, i), "last", json_boolean(i + 1 == n));
    return a;
}

static json_t *one(const struct model_facts *f, const char *name)
{
    for (size_t i = 0; name != NULL && i < f->members_n; i++)
        if (strcmp(f->members[i].name, name) == 0)
            return member(f, &f->members[i]);
    return json_null();
}

void model_json(const struct model_facts *f, struct buf *ret_json)
{
    bool runs = f->leader != NULL && strcmp(f->leader->state, "running") == 0;
    json_t *set = json_object();
    for (size_t i = 0; i < f->set_n; i++)
        json_object_set_new(set, f->set[i].name, json_string(f->set[i].value));
    json_t *o = json_object();
    json_object_set_new(o, "scope", json_string(f->scope));
    json_object_set_new(o, "set", set);
    json_object_set_new(o, "leader", one(f, runs ? f->leader->name : NULL));
    json_object_set_new(o, "self", one(f, f->self));
    json_object_set_new(o, "members", list(f, ALL));
    json_object_set_new(o, "standbys", list(f, STANDBYS));
    json_object_set_new(o, "synchronous", list(f, SYNCHRONOUS));
    char *text = json_dumps(o, JSON_COMPACT);
    ASSERT(text != NULL);
    buf_append_slice(ret_json, slice_str(text));
    free(text);
    json_decref(o);
}
