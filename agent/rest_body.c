#include "agent/rest_body.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "agent/core/plan.h"
#include "agent/rest_check.h"
#include "base/assert.h"

/* ---- values ---- */

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

/* Python's isoformat(): 2026-01-02 03:04:05.678901+00:00 */
static json_t *time_text(uint64_t us, char between)
{
    char text[48];
    struct tm t;
    time_t s = (time_t)(us / 1000000);
    if (us == 0 || gmtime_r(&s, &t) == NULL)
        return json_null();
    (void)snprintf(text, sizeof text, "%04d-%02d-%02d%c%02d:%02d:%02d.%06d+00:00",
                   t.tm_year + 1900, t.tm_mon + 1, t.tm_mday, between, t.tm_hour, t.tm_min,
                   t.tm_sec, (int)(us % 1000000));
    return json_string(text);
}

static char *take_text(json_t *root)
{
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}

uint64_t rest_server_version(const char *text)
{
    char *dot;
    unsigned long major = strtoul(text, &dot, 10);
    unsigned long minor = *dot == '.' ? strtoul(dot + 1, NULL, 10) : 0;
    return (uint64_t)major * 10000 + minor;
}

uint64_t rest_dcs_seen_s(const struct rest_facts *f)
{
    const struct view *v = &f->view;
    uint64_t ago_ms = v->dcs_ready ? 0 : v->now_ms - MIN(v->now_ms, v->dcs_lost_ms);
    return (f->wall_ms - MIN(f->wall_ms, ago_ms)) / 1000;
}

/* ---- state and role ---- */

enum {
    STATE_UNKNOWN = -1,
    STATE_INITDB = 0,
    STATE_CREATING_REPLICA = 4,
    STATE_RUNNING = 5,
    STATE_STARTING = 6,
    STATE_START_FAILED = 8,
    STATE_STOPPING = 11,
    STATE_STOPPED = 12,
    STATE_CRASHED = 14,
};

static const char *say(int *ret_number, int n, const char *text)
{
    *ret_number = n;
    return text;
}

static bool start_failed(const struct view_busy *b)
{
    return b->failed && (b->failed_action == ACTION_START_PRIMARY ||
                         b->failed_action == ACTION_START_STANDBY);
}

const char *rest_state(const struct rest_facts *f, uint64_t now_ms, int *ret_number)
{
    const struct view *v = &f->view;
    if (!f->known)
        return say(ret_number, STATE_UNKNOWN, "unknown");
    if (v->busy.action == ACTION_INITDB)
        return say(ret_number, STATE_INITDB, "initializing new cluster");
    if (v->busy.action == ACTION_CLONE || v->busy.action == ACTION_REWIND)
        return say(ret_number, STATE_CREATING_REPLICA, "creating replica");
    switch (v->pg.proc) {
    case PG_PROC_STOPPED:
        if (start_failed(&v->busy))
            return say(ret_number, STATE_START_FAILED, "start failed");
        return v->pg.crashed ? say(ret_number, STATE_CRASHED, "crashed")
                             : say(ret_number, STATE_STOPPED, "stopped");
    case PG_PROC_STARTING:
        return say(ret_number, STATE_STARTING, "starting");
    case PG_PROC_RUNNING:
        return rest_answers(f, now_ms) ? say(ret_number, STATE_RUNNING, "running")
                                       : say(ret_number, STATE_UNKNOWN, "unknown");
    case PG_PROC_STOPPING:
    case PG_PROC_DYING:
        return say(ret_number, STATE_STOPPING, "stopping");
    }
    UNREACHABLE();
}

const char *rest_role(const struct rest_facts *f, uint64_t now_ms)
{
    const struct view *v = &f->view;
    if (v->pg.data != PG_DATA_OURS)
        return "uninitialized";
    if (v->pg.proc == PG_PROC_RUNNING && !v->pg.in_recovery)
        return rest_fenced(f, now_ms) ? "demoted" : "primary";
    return rest_holds_lease(f, now_ms) && v->leader.standby ? "standby_leader" : "replica";
}

/* Patroni's word for a member of V: by quorum it is another one. NULL: it is none. */
static const char *sync_role(const struct view *v, const char *incarnation)
{
    switch (view_record_mode(v)) {
    case SYNC_OFF:
        return NULL;
    case SYNC_ON:
        return rest_in_sync_set(v, incarnation) ? "sync_standby" : NULL;
    case SYNC_QUORUM:
        return rest_in_sync_set(v, incarnation) ? "quorum_standby" : NULL;
    }
    UNREACHABLE();
}

/* ---- GET /patroni ---- */

static const char *member_of(const struct view *v, const char *incarnation)
{
    const struct member_rec *m = view_member_of(v, incarnation);
    return m != NULL ? m->name : incarnation;
}

static void add_replication(json_t *root, const struct rest_facts *f)
{
    json_t *list = json_array();
    for (size_t i = 0; i < f->pg.senders_n; i++) {
        const struct pg_sender *s = &f->pg.senders[i];
        json_array_append_new(
            list,
            json_pack("{s:s, s:s, s:o, s:s, s:s, s:o}", "usename", s->usename,
                      "application_name", member_of(&f->view, s->application_name),
                      "client_addr",
                      s->client_addr[0] != '\0' ? json_string(s->client_addr) : json_null(),
                      "state", s->state, "sync_state", s->sync_state, "sync_priority",
                      number(s->sync_priority)));
    }
    if (json_array_size(list) > 0)
        json_object_set_new(root, "replication", list);
    else
        json_decref(list);
}

static void add_standby(json_t *root, const struct rest_facts *f)
{
    const struct view *v = &f->view;
    const char *sync = sync_role(v, v->pg.incarnation);
    if (sync != NULL)
        json_object_set_new(root, sync, json_true());
    json_object_set_new(
        root, "xlog",
        json_pack("{s:o, s:o, s:o, s:b}", "received_location", number(v->pg.lsn),
                  "replayed_location", number(v->pg.replay_lsn), "replayed_timestamp",
                  time_text(f->pg.replayed_us, ' '), "paused", (int)f->pg.replay_paused));
    if (v->pg.streaming)
        json_object_set_new(root, "replication_state", json_string("streaming"));
}

/* What only a running PostgreSQL tells. */
static void add_running(json_t *root, const struct rest_facts *f)
{
    const struct view *v = &f->view;
    json_object_set_new(root, "server_version", number(rest_server_version(f->pg_version)));
    if (v->pg.in_recovery)
        add_standby(root, f);
    else
        json_object_set_new(root, "xlog", json_pack("{s:o}", "location", number(v->pg.lsn)));
    json_object_set_new(root, "timeline", number(v->pg.timeline));
    add_replication(root, f);
}

static void add_flag(json_t *root, const char *name, bool on)
{
    if (on)
        json_object_set_new(root, name, json_true());
}

/* As in Patroni a tag that is off is not there. */
static void add_tags(json_t *root, const struct rest_tags *t)
{
    json_t *tags = json_object();
    add_flag(tags, "clonefrom", t->clonefrom);
    add_flag(tags, "nofailover", t->nofailover);
    add_flag(tags, "noloadbalance", t->noloadbalance);
    add_flag(tags, "nostream", t->nostream);
    add_flag(tags, "nosync", t->nosync);
    if (t->replicatefrom[0] != '\0')
        json_object_set_new(tags, "replicatefrom", json_string(t->replicatefrom));
    if (t->failover_priority != 1)
        json_object_set_new(tags, "failover_priority", json_integer(t->failover_priority));
    if (t->sync_priority > 1)
        json_object_set_new(tags, "sync_priority", json_integer(t->sync_priority));
    if (json_object_size(tags) > 0)
        json_object_set_new(root, "tags", tags);
    else
        json_decref(tags);
}

/* `reason` is JSON text, "" when it is not known. */
static void add_pending(json_t *o, bool pending, const char *reason)
{
    add_flag(o, "pending_restart", pending);
    json_t *j = pending ? json_loads(reason, 0, NULL) : NULL;
    if (json_object_size(j) > 0)
        json_object_set(o, "pending_restart_reason", j);
    json_decref(j);
}

static void add_sick(json_t *o, const char *kind, const char *why)
{
    if (kind[0] != '\0')
        json_object_set_new(o, "sick", json_pack("{s:s, s:s}", "kind", kind, "reason", why));
}

static void add_node(json_t *root, const struct rest_facts *f)
{
    const struct view *v = &f->view;
    char system_id[24];
    add_flag(root, "pause", v->config.pause);
    add_flag(root, "cluster_unlocked", !v->has_leader);
    json_object_set_new(root, "dcs_last_seen", number(rest_dcs_seen_s(f)));
    add_tags(root, &f->tags);
    if (v->pg.system_id != 0) {
        (void)snprintf(system_id, sizeof system_id, "%" PRIu64, v->pg.system_id);
        json_object_set_new(root, "database_system_identifier", json_string(system_id));
    }
    add_pending(root, v->pg.pending_restart, v->pg.pending_reason);
    add_sick(root, sick_name(v->pg.sick), v->pg.sick_why);
}

static void add_scheduled_restart(json_t *root, const struct request_rec *r)
{
    if (strcmp(r->kind, "restart") != 0 || r->at_ms == 0)
        return;
    json_t *o = json_pack("{s:o}", "schedule", time_text(r->at_ms * 1000, 'T'));
    if (r->role[0] != '\0')
        json_object_set_new(o, "role", json_string(r->role));
    if (r->pg_version[0] != '\0')
        json_object_set_new(o, "postgres_version", json_string(r->pg_version));
    if (r->timeout_ms != 0)
        json_object_set_new(o, "timeout", number(r->timeout_ms / 1000));
    add_flag(o, "restart_pending", r->pending);
    json_object_set_new(root, "scheduled_restart", o);
}

char *rest_status_body(const struct rest_facts *f, uint64_t now_ms)
{
    const struct view *v = &f->view;
    int state;
    json_t *root = json_object();
    json_object_set_new(root, "state", json_string(rest_state(f, now_ms, &state)));
    if (state == STATE_RUNNING && f->pg.start_us != 0)
        json_object_set_new(root, "postmaster_start_time", time_text(f->pg.start_us, ' '));
    json_object_set_new(root, "role", json_string(rest_role(f, now_ms)));
    if (state == STATE_RUNNING)
        add_running(root, f);
    add_node(root, f);
    add_scheduled_restart(root, &f->request);
    json_object_set_new(root, "patroni",
                        json_pack("{s:s, s:s, s:s}", "version", REST_PATRONI_VERSION, "scope",
                                  f->scope, "name", f->name));
    json_object_set_new(root, "regent",
                        json_pack("{s:s, s:s, s:b, s:b}", "version", REGENT_VERSION, "rule",
                                  f->rule, "dcs_ready", (int)v->dcs_ready, "armed",
                                  (int)v->armed));
    return take_text(root);
}

/* ---- GET /cluster ---- */

static void add_lag(json_t *o, const char *what, uint64_t leader_lsn, uint64_t lsn)
{
    char name[32];
    (void)snprintf(name, sizeof name, "%s_lag", what);
    json_object_set_new(
        o, name, lsn == 0 ? json_string("unknown") : number(leader_lsn - MIN(leader_lsn, lsn)));
    (void)snprintf(name, sizeof name, "%s_lsn", what);
    json_object_set_new(o, name, lsn == 0 ? json_string("unknown") : lsn_text(lsn));
}

static json_t *member_json(const struct rest_facts *f, const struct member_rec *m,
                           uint64_t now_ms)
{
    const struct view *v = &f->view;
    bool leader = rest_leads(f, m, now_ms);
    const char *sync = sync_role(v, m->incarnation);
    const char *leads = v->leader.standby ? "standby_leader" : "leader";
    const char *role = leader ? leads : sync != NULL ? sync : "replica";
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "name", m->name, "role", role,
                          "state", m->state, "api_url", m->api_url, "host", m->conn_host,
                          "port", number(m->conn_port));
    if (m->timeline != 0)
        json_object_set_new(o, "timeline", number(m->timeline));
    struct rest_tags tags = {.nofailover = m->nofailover,
                             .noloadbalance = m->noloadbalance,
                             .clonefrom = m->clonefrom,
                             /* what follows from another tag is not one */
                             .nosync = m->nosync && !m->nostream && m->replicatefrom[0] == '\0',
                             .nostream = m->nostream,
                             .failover_priority = m->failover_priority,
                             .sync_priority = m->sync_priority};
    memcpy(tags.replicatefrom, m->replicatefrom, sizeof tags.replicatefrom);
    add_tags(o, &tags);
    add_pending(o, m->pending_restart, m->pending_reason);
    add_sick(o, m->sick, m->sick_why);
    if (m->restart_at_ms != 0)
        json_object_set_new(
            o, "scheduled_restart",
            json_pack("{s:o}", "schedule", time_text(m->restart_at_ms * 1000, 'T')));
    if (m->slots[0] != '\0')
        json_object_set_new(o, "slots_unsafe", json_string(m->slots));
    if (leader)
        return o;
    const struct member_rec *top = v->has_leader ? view_member(v, v->leader.name) : NULL;
    uint64_t leader_lsn = MAX(top != NULL ? top->lsn : 0, m->lsn);
    add_lag(o, "receive", leader_lsn, m->lsn);
    add_lag(o, "replay", leader_lsn, m->replay_lsn);
    json_object_set(o, "lag", json_object_get(o, "replay_lag"));
    json_object_set(o, "lsn", json_object_get(o, "receive_lsn"));
    return o;
}

char *rest_cluster_body(const struct rest_facts *f, uint64_t now_ms)
{
    const struct view *v = &f->view;
    json_t *members = json_array();
    for (size_t i = 0; i < v->members_n; i++)
        json_array_append_new(members, member_json(f, &v->members[i], now_ms));
    json_t *root = json_pack("{s:o, s:s}", "members", members, "scope", f->scope);
    add_flag(root, "pause", v->config.pause);
    if (f->failover.at_ms != 0) {
        json_t *o = json_pack("{s:o, s:s}", "at", time_text(f->failover.at_ms * 1000, 'T'),
                              "from", f->failover.leader);
        if (f->failover.candidate[0] != '\0')
            json_object_set_new(o, "to", json_string(f->failover.candidate));
        json_object_set_new(root, "scheduled_switchover", o);
    }
    return take_text(root);
}

/* ---- GET /history, /config ---- */

/* [[timeline, switch LSN, reason, time, new leader], ...]: a row per timeline that has ended. */
char *rest_history_body(const struct rest_facts *f, uint64_t now_ms)
{
    (void)now_ms;
    const struct view *v = &f->view;
    json_t *rows = json_array();
    for (size_t i = 1; i < v->history_n; i++) {
        const struct history_entry *h = &v->history[i];
        json_array_append_new(rows, json_pack("[o, o, s, o, s]", number(h->parent),
                                              number(h->switch_lsn), h->reason,
                                              time_text(h->at_ms * 1000, 'T'), h->name));
    }
    return take_text(rows);
}

char *rest_config_body(const struct rest_facts *f, uint64_t now_ms)
{
    (void)now_ms;
    json_t *j = f->config_json != NULL ? json_loads(f->config_json, 0, NULL) : NULL;
    return j != NULL ? take_text(j) : NULL;
}
