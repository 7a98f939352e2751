#include "agent/rest_live.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "agent/rest_body.h"
#include "agent/rest_check.h"
#include "base/str.h"

static json_t *number(uint64_t n)
{
    return json_integer((json_int_t)MIN(n, (uint64_t)INT64_MAX));
}

static void put(json_t *o, const char *name, json_t *value)
{
    json_object_set_new(o, name, value);
}

/* Names and reasons are cut at bytes: what is no UTF-8 any more is left out rather than all of it. */
static json_t *text(const char *s)
{
    json_t *j = json_string(s);
    for (size_t n = strlen(s); j == NULL && n > 0; n--)
        j = json_stringn(s, n - 1);
    return j != NULL ? j : json_string("");
}

static json_t *lsn(uint64_t n)
{
    return json_sprintf("%" PRIX32 "/%" PRIX32, (uint32_t)(n >> 32), (uint32_t)n);
}

static const char *role(const struct rest_facts *f, const struct member_rec *m, uint64_t now_ms)
{
    const struct view *v = &f->view;
    if (rest_leads(f, m, now_ms))
        return v->leader.standby ? "standby leader" : "leader";
    if (!rest_in_sync_set(v, m->incarnation))
        return "replica";
    return view_record_mode(v) == SYNC_QUORUM ? "quorum standby" : "sync standby";
}

static json_t *members(const struct rest_facts *f, uint64_t now_ms)
{
    const struct view *v = &f->view;
    uint64_t leader_lsn = rest_leader_lsn(f);
    json_t *a = json_array();
    for (size_t i = 0; i < v->members_n; i++) {
        const struct member_rec *m = &v->members[i];
        json_t *o = json_object();
        put(o, "name", text(m->name));
        put(o, "role", json_string(role(f, m, now_ms)));
        put(o, "state", text(m->state));
        put(o, "timeline", number(m->timeline));
        put(o, "lsn", lsn(m->lsn));
        put(o, "lag", number(leader_lsn - MIN(leader_lsn, m->lsn)));
        put(o, "host", text(m->conn_host));
        put(o, "port", number(m->conn_port));
        put(o, "url", text(m->api_url));
        put(o, "upstream", text(m->upstream));
        put(o, "pending_restart", json_boolean(m->pending_restart));
        put(o, "sick", text(m->sick_why));
        put(o, "copied", number(m->copied));
        put(o, "copied_bytes", number(m->copied_bytes));
        put(o, "copy_since_ms", number(m->copy_since_ms));
        json_array_append_new(a, o);
    }
    return a;
}

static json_t *dcs(const struct status_reply *s)
{
    json_t *o = json_object();
    put(o, "leader", text(s->leader));
    put(o, "state", text(s->state));
    put(o, "term", number(s->term));
    put(o, "voters", number(s->voters));
    put(o, "quorum", number(s->quorum));
    put(o, "reachable", number(s->reachable_voters));
    put(o, "fsync_us", number(s->fsync_us_p99));
    return o;
}

static json_t *disks(const struct host_seen *h)
{
    const struct {
        const char *name;
        const struct host_disk *d;
    } all[] = {{"data_dir", &h->state}, {"PGDATA", &h->pgdata}};
    json_t *a = json_array();
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        if (!all[i].d->known)
            continue;
        json_t *o = json_object();
        put(o, "name", json_string(all[i].name));
        put(o, "free", number(all[i].d->free_bytes));
        put(o, "total", number(all[i].d->total_bytes));
        put(o, "full_in_s", number(all[i].d->full_in_s));
        json_array_append_new(a, o);
    }
    return a;
}

static json_t *slots(const struct pg_seen *pg)
{
    json_t *a = json_array();
    for (size_t i = 0; i < pg->slots_n; i++) {
        json_t *o = json_object();
        put(o, "name", text(pg->slots[i].name));
        put(o, "active", json_boolean(pg->slots[i].active));
        put(o, "bytes", number(pg->slots[i].retained_bytes));
        put(o, "status", text(pg->slots[i].wal_status));
        json_array_append_new(a, o);
    }
    return a;
}

static json_t *decisions(const struct rest_past *p)
{
    json_t *a = json_array();
    for (size_t i = 0; i < p->decisions_n; i++) {
        json_t *o = json_object();
        put(o, "at_ms", number(p->decisions[i].wall_ms));
        put(o, "rule", text(p->decisions[i].rule));
        put(o, "reason", text(p->decisions[i].reason));
        json_array_append_new(a, o);
    }
    return a;
}

/* null where a member was not there */
static json_t *lags(const struct rest_past *p)
{
    json_t *o = json_object();
    for (size_t i = 0; i < p->members_n; i++) {
        json_t *a = json_array();
        for (size_t k = 0; k < p->samples_n; k++) {
            uint64_t lag = past_lag(p, &p->members[i], k);
            json_array_append_new(a, lag == PAST_UNKNOWN ? json_null() : number(lag));
        }
        put(o, p->members[i].name, a);
    }
    return json_pack("{s:i, s:o}", "every_ms", PAST_EVERY_MS, "members", o);
}

static const char *sync_mode(const struct view *v)
{
    switch (v->config.sync_mode) {
    case SYNC_OFF:
        return "off";
    case SYNC_ON:
        return "on";
    case SYNC_QUORUM:
        return "quorum";
    }
    return "off";
}

static void put_cluster(json_t *o, const struct rest_facts *f, uint64_t now_ms)
{
    const struct view *v = &f->view;
    bool led = v->has_leader && !rest_lease_ended(f, now_ms);
    put(o, "leader", led ? text(v->leader.name) : json_null());
    put(o, "leader_state", text(led ? v->leader.state : ""));
    put(o, "token", number(led ? v->leader.token : 0));
    put(o, "sync_mode", json_string(sync_mode(v)));
    put(o, "ttl_ms", number(v->config.ttl_ms));
    put(o, "pause", json_boolean(v->config.pause));
    put(o, "members", members(f, now_ms));
}

char *rest_live_text(const struct rest_facts *f, uint64_t now_ms, bool past)
{
    const struct view *v = &f->view;
    int ignored;
    json_t *o = json_object();
    put(o, "scope", text(f->scope));
    put(o, "self", text(f->name));
    put(o, "version", json_string(REGENT_VERSION));
    put(o, "wall_ms", number(f->wall_ms + (now_ms - MIN(now_ms, v->now_ms))));
    put(o, "stale", json_boolean(rest_stale(f, now_ms)));
    put(o, "role", json_string(f->known ? rest_role(f, now_ms) : "unknown"));
    put(o, "state", json_string(rest_state(f, now_ms, &ignored)));
    put(o, "lease_ms", number(v->deadline_ms - MIN(v->deadline_ms, now_ms)));
    put(o, "is_leader", json_boolean(rest_holds_lease(f, now_ms)));
    put(o, "changes", json_string(f->changes != NULL ? f->changes : "no"));
    put(o, "vip_up", json_boolean(f->vip_up));
    put_cluster(o, f, now_ms);
    put(o, "dcs", f->has_dcs ? dcs(&f->dcs) : json_null());
    put(o, "slots", slots(&f->pg));
    put(o, "disks", disks(&f->host));
    put(o, "certificate_s",
        f->host.has_certificate ? json_integer((json_int_t)f->host.certificate_s)
                                : json_null());
    put(o, "decisions", decisions(&f->past));
    if (past)
        put(o, "lag", lags(&f->past));
    char *result = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return result;
}
