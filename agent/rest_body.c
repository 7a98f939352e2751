#include "agent/rest_body.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"

static json_t *lsn_text(uint64_t lsn)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRIX32 "/%" PRIX32, (uint32_t)(lsn >> 32),
                   (uint32_t)lsn);
    return json_string(text);
}

static json_t *number(uint64_t n)
{
    return json_integer((json_int_t)n);
}

static const char *state_of(const struct view *v)
{
    const struct member_rec *self = view_member(v, v->self);
    if (v->pg.proc == PG_PROC_RUNNING)
        return "running";
    return self != NULL && self->state[0] != '\0' ? self->state : "stopped";
}

static const char *role_of(const struct view *v)
{
    if (v->pg.data != PG_DATA_OURS)
        return "uninitialized";
    return v->pg.proc == PG_PROC_RUNNING && !v->pg.in_recovery ? "primary" : "replica";
}

/* "15.8" -> 150008, as PostgreSQL's server_version_num. */
static uint64_t version_number(const char *text)
{
    char *dot;
    unsigned long major = strtoul(text, &dot, 10);
    unsigned long minor = *dot == '.' ? strtoul(dot + 1, NULL, 10) : 0;
    return (uint64_t)major * 10000 + minor;
}

static bool in_sync_set(const struct view *v, const char *incarnation)
{
    for (size_t i = 0; i < v->sync.v_n; i++)
        if (incarnation[0] != '\0' && strcmp(v->sync.v[i], incarnation) == 0)
            return true;
    return false;
}

static void add_walsenders(json_t *root, const struct view_pg *pg)
{
    json_t *list = json_array();
    for (size_t i = 0; i < pg->senders_n; i++) {
        const struct view_walsender *s = &pg->senders[i];
        json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "application_name",
                                              s->name[0] != '\0' ? s->name : s->incarnation,
                                              "state", s->streaming ? "streaming" : "catchup",
                                              "sync_state", "async"));
    }
    if (json_array_size(list) > 0)
        json_object_set_new(root, "replication", list);
    else
        json_decref(list);
}

static void add_position(json_t *root, const struct view *v)
{
    if (v->pg.proc != PG_PROC_RUNNING)
        return;
    json_object_set_new(root, "timeline", number(v->pg.timeline));
    if (!v->pg.in_recovery) {
        json_object_set_new(root, "xlog", json_pack("{s:o}", "location", number(v->pg.lsn)));
        add_walsenders(root, &v->pg);
        return;
    }
    json_object_set_new(root, "xlog",
                        json_pack("{s:o, s:o, s:n, s:b}", "received_location",
                                  number(v->pg.lsn), "replayed_location",
                                  number(v->pg.replay_lsn), "replayed_timestamp", "paused", 0));
    if (v->pg.streaming)
        json_object_set_new(root, "replication_state", json_string("streaming"));
    if (in_sync_set(v, v->pg.incarnation))
        json_object_set_new(root, "sync_standby", json_true());
}

static char *take_text(json_t *root)
{
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}

char *rest_status_body(const struct rest_facts *f)
{
    const struct view *v = &f->view;
    char system_id[24];
    json_t *root = json_object();
    json_object_set_new(root, "state", json_string(state_of(v)));
    json_object_set_new(root, "role", json_string(role_of(v)));
    if (v->pg.proc == PG_PROC_RUNNING && f->pg_version[0] != '\0')
        json_object_set_new(root, "server_version", number(version_number(f->pg_version)));
    add_position(root, v);
    if (v->pg.system_id != 0) {
        (void)snprintf(system_id, sizeof system_id, "%" PRIu64, v->pg.system_id);
        json_object_set_new(root, "database_system_identifier", json_string(system_id));
    }
    if (!v->has_leader)
        json_object_set_new(root, "cluster_unlocked", json_true());
    if (v->config.pause)
        json_object_set_new(root, "pause", json_true());
    json_object_set_new(root, "patroni",
                        json_pack("{s:s, s:s, s:s}", "version", REGENT_VERSION, "scope",
                                  f->scope, "name", v->self));
    json_object_set_new(root, "regent",
                        json_pack("{s:s, s:b, s:b}", "rule", f->rule, "dcs_ready", v->dcs_ready,
                                  "armed", v->armed));
    return take_text(root);
}

static uint64_t leader_lsn(const struct view *v)
{
    uint64_t lsn = 0;
    for (size_t i = 0; i < v->members_n; i++)
        lsn = MAX(lsn, v->members[i].lsn);
    return lsn;
}

static json_t *member_json(const struct view *v, const struct member_rec *m)
{
    bool leader = v->has_leader && strcmp(v->leader.name, m->name) == 0;
    const char *role = leader                           ? "leader"
                       : in_sync_set(v, m->incarnation) ? "sync_standby"
                                                        : "replica";
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "name", m->name, "role", role,
                          "state", m->state, "api_url", m->api_url, "host", m->conn_host,
                          "port", number(m->conn_port));
    if (m->timeline != 0)
        json_object_set_new(o, "timeline", number(m->timeline));
    if (!leader && m->lsn != 0) {
        uint64_t top = leader_lsn(v);
        json_object_set_new(o, "receive_lsn", lsn_text(m->lsn));
        json_object_set_new(o, "receive_lag", number(top - MIN(top, m->lsn)));
        json_object_set_new(o, "replay_lsn", lsn_text(m->replay_lsn));
        json_object_set_new(o, "replay_lag", number(top - MIN(top, m->replay_lsn)));
        json_object_set_new(o, "lag", number(top - MIN(top, m->replay_lsn)));
        json_object_set_new(o, "lsn", lsn_text(m->lsn));
    }
    return o;
}

char *rest_cluster_body(const struct rest_facts *f)
{
    const struct view *v = &f->view;
    json_t *members = json_array();
    for (size_t i = 0; i < v->members_n; i++)
        json_array_append_new(members, member_json(v, &v->members[i]));
    json_t *root = json_pack("{s:o, s:s}", "members", members, "scope", f->scope);
    if (v->config.pause)
        json_object_set_new(root, "pause", json_true());
    return take_text(root);
}

/* [[timeline, switch LSN, reason, time, new leader], ...]: a row per timeline that has ended. */
char *rest_history_body(const struct rest_facts *f)
{
    const struct view *v = &f->view;
    json_t *rows = json_array();
    for (size_t i = 1; i < v->history_n; i++) {
        const struct history_entry *h = &v->history[i];
        char at[CLOCK_TEXT_MAX];
        clock_wall_text(h->at_ms, at);
        json_array_append_new(rows, json_pack("[o, o, s, s, s]", number(h->parent),
                                              number(h->switch_lsn), h->reason, at, h->name));
    }
    return take_text(rows);
}
