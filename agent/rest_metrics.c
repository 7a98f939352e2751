#include "agent/rest_metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "agent/rest_body.h"
#include "agent/rest_check.h"
#include "base/buf.h"
#include "base/mem.h"
#include "base/str.h"

enum { METRICS_MAX = 1 << 20 };

struct out {
    struct buf text;
    const struct rest_facts *f;
    uint64_t now_ms;
};

/* ---- the format ---- */

static void label(struct out *o, const char *name, const char *value)
{
    buf_printf(&o->text, "%s=\"", name);
    for (const char *c = value; *c != '\0'; c++) {
        if (*c == '\\' || *c == '"')
            buf_append_u8(&o->text, '\\');
        if (*c == '\n')
            buf_printf(&o->text, "\\n");
        else
            buf_append_u8(&o->text, (uint8_t)*c);
    }
    buf_append_u8(&o->text, '"');
}

static void head(struct out *o, const char *name, const char *type, const char *help)
{
    buf_printf(&o->text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* name{scope,name[,key]}, and the blank before the value */
static void series(struct out *o, const char *name, const char *key, const char *value)
{
    buf_printf(&o->text, "%s{", name);
    label(o, "scope", o->f->scope);
    buf_append_u8(&o->text, ',');
    label(o, "name", o->f->name);
    if (key != NULL) {
        buf_append_u8(&o->text, ',');
        label(o, key, value);
    }
    buf_printf(&o->text, "} ");
}

static void put(struct out *o, uint64_t n)
{
    buf_printf(&o->text, "%" PRIu64 "\n", n);
}

static void put_seconds(struct out *o, uint64_t us)
{
    buf_printf(&o->text, "%" PRIu64 ".%06u\n", us / 1000000, (unsigned)(us % 1000000));
}

static void gauge(struct out *o, const char *name, uint64_t n, const char *help)
{
    head(o, name, "gauge", help);
    series(o, name, NULL, NULL);
    put(o, n);
}

static void counter(struct out *o, const char *name, uint64_t n, const char *help)
{
    head(o, name, "counter", help);
    series(o, name, NULL, NULL);
    put(o, n);
}

static void gauge_us(struct out *o, const char *name, uint64_t us, const char *help)
{
    head(o, name, "gauge", help);
    series(o, name, NULL, NULL);
    put_seconds(o, us);
}

/* The series of a histogram with one label more, or none: key NULL. */
static void histogram(struct out *o, const char *name, const char *key, const char *value,
                      const struct rest_histogram *h)
{
    char part[80];
    char bound[16];
    uint64_t sum = 0;
    (void)snprintf(part, sizeof part, "%s_bucket", name);
    for (size_t i = 0; i <= COUNT_BUCKETS; i++) {
        sum = i < COUNT_BUCKETS ? sum + h->in[i] : h->n;
        (void)snprintf(bound, sizeof bound, "%g",
                       i < COUNT_BUCKETS ? (double)count_bounds_ms[i] / 1000 : 0.0);
        series(o, part, key, value);
        o->text.len -= strlen("} ");
        buf_append_u8(&o->text, ',');
        label(o, "le", i < COUNT_BUCKETS ? bound : "+Inf");
        buf_printf(&o->text, "} ");
        put(o, sum);
    }
    (void)snprintf(part, sizeof part, "%s_sum", name);
    series(o, part, key, value);
    put_seconds(o, h->sum_ms * 1000);
    (void)snprintf(part, sizeof part, "%s_count", name);
    series(o, part, key, value);
    put(o, h->n);
}

/* ---- Patroni's ---- */

static void patroni_node(struct out *o)
{
    const struct rest_facts *f = o->f;
    const struct view *v = &f->view;
    int state = 0;
    (void)rest_state(f, o->now_ms, &state);
    bool running = rest_answers(f, o->now_ms);
    const char *role = rest_role(f, o->now_ms);
    bool in_set = running && v->pg.in_recovery && rest_in_sync_set(v, v->pg.incarnation);
    enum sync_mode mode = view_record_mode(v);
    head(o, "patroni_version", "gauge",
         "Release of Patroni whose interface this is, two digits a part.");
    series(o, "patroni_version", NULL, NULL);
    buf_printf(&o->text, "040104\n");
    gauge(o, "patroni_postgres_running", running, "1 when PostgreSQL runs and answers.");
    gauge_us(o, "patroni_postmaster_start_time", running ? f->pg.start_us : 0,
             "When PostgreSQL was started, in seconds since 1970.");
    gauge(o, "patroni_primary", strcmp(role, "primary") == 0,
          "1 when this node runs as the primary.");
    gauge(o, "patroni_standby_leader", strcmp(role, "standby_leader") == 0,
          "1 when this node leads a standby cluster.");
    gauge(o, "patroni_replica", strcmp(role, "replica") == 0, "1 when this node is a standby.");
    gauge(o, "patroni_sync_standby", in_set && mode == SYNC_ON,
          "1 when this node is a synchronous standby.");
    gauge(o, "patroni_quorum_standby", in_set && mode == SYNC_QUORUM,
          "1 when this node is a standby of the quorum.");
    gauge(o, "patroni_postgres_server_version",
          running ? rest_server_version(f->pg_version) : 0,
          "server_version_num of PostgreSQL, 0 when it does not run.");
    head(o, "patroni_postgres_state", "gauge",
         "State: 0 initdb, 4 creating replica or rewinding, 5 running, 6 starting, 8 start "
         "failed, 11 stopping, 12 stopped, 14 crashed, -1 not known.");
    series(o, "patroni_postgres_state", NULL, NULL);
    buf_printf(&o->text, "%d\n", state);
}

static void patroni_wal(struct out *o)
{
    const struct rest_facts *f = o->f;
    const struct view_pg *pg = &f->view.pg;
    bool running = rest_answers(f, o->now_ms);
    bool standby = running && pg->in_recovery;
    gauge(o, "patroni_xlog_location", running && !standby ? pg->lsn : 0,
          "Flushed WAL position of a primary, else 0.");
    gauge(o, "patroni_xlog_received_location", standby ? pg->lsn : 0,
          "Received WAL position of a standby, else 0.");
    gauge(o, "patroni_xlog_replayed_location", standby ? pg->replay_lsn : 0,
          "Replayed WAL position of a standby, else 0.");
    gauge_us(o, "patroni_xlog_replayed_timestamp", standby ? f->pg.replayed_us : 0,
             "Commit time of the last transaction that was replayed, 0 when there is none.");
    gauge(o, "patroni_xlog_paused", standby && f->pg.replay_paused, "1 when replay is paused.");
    gauge(o, "patroni_postgres_streaming", standby && pg->streaming,
          "1 when this standby streams.");
    gauge(o, "patroni_postgres_in_archive_recovery", 0,
          "1 when this standby replays from an archive.");
    gauge(o, "patroni_postgres_timeline", running ? pg->timeline : 0,
          "Timeline of PostgreSQL, 0 when it does not run.");
}

static void patroni_cluster(struct out *o)
{
    const struct view *v = &o->f->view;
    gauge(o, "patroni_cluster_unlocked", !v->has_leader, "1 when nobody has the leader key.");
    gauge(o, "patroni_failsafe_mode_is_active", 0, "1 while the failsafe mode is active.");
    gauge(o, "patroni_failsafe_mode_enabled", 0, "1 when the failsafe mode is configured.");
    gauge(o, "patroni_dcs_last_seen", rest_dcs_seen_s(o->f),
          "When the DCS was last heard of, in seconds since 1970.");
    gauge(o, "patroni_pending_restart", v->pg.pending_restart,
          "1 when PostgreSQL must be restarted for a setting.");
    gauge(o, "patroni_is_paused", v->config.pause, "1 when automatic failover is paused.");
    head(o, "patroni_failover_priority", "gauge", "Tag failover_priority of this node.");
    series(o, "patroni_failover_priority", NULL, NULL);
    buf_printf(&o->text, "%" PRId64 "\n", o->f->tags.failover_priority);
}

/* ---- the DCS: etcd's names, where etcd has one ---- */

/* Names and help by the name in the status; what is not here is not shown. */
static const struct {
    const char *name, *metric, *help;
} latencies[] = {
    {"fsync", "etcd_disk_wal_fsync_duration_seconds",
     "Writing a group of entries to log.db, the fsync included."},
    {"state", "etcd_disk_backend_commit_duration_seconds", "Commits of state.db."},
    {"commit", "regent_raft_commit_seconds",
     "On the leader, from an entry's submission until it is known to be committed."},
    {"apply", "regent_raft_apply_duration_seconds", "Applying an entry to the state."},
    {"round", "regent_raft_quorum_round_duration_seconds",
     "On the leader, one round of its voters for linearizable reads."},
    {"loop", "regent_dcs_loop_duration_seconds",
     "One turn of the DCS's loop, from waking up to the next wait."},
};

static void latency_series(struct out *o, const char *name, const struct latency_reply *l)
{
    char part[80];
    char bound[24];
    uint64_t sum = 0;
    (void)snprintf(part, sizeof part, "%s_bucket", name);
    for (size_t i = 0; i < l->buckets_n; i++) {
        sum += l->buckets[i].count;
        (void)snprintf(bound, sizeof bound, "%g", (double)l->buckets[i].le_us / 1e6);
        series(o, part, "le", bound);
        put(o, sum);
    }
    series(o, part, "le", "+Inf");
    put(o, l->count);
    (void)snprintf(part, sizeof part, "%s_sum", name);
    series(o, part, NULL, NULL);
    put_seconds(o, l->sum_us);
    (void)snprintf(part, sizeof part, "%s_count", name);
    series(o, part, NULL, NULL);
    put(o, l->count);
}

static void dcs_latencies(struct out *o, const struct status_reply *s)
{
    for (size_t i = 0; i < s->latencies_n; i++) {
        for (size_t k = 0; k < ARRAY_LEN(latencies); k++) {
            if (strcmp(latencies[k].name, s->latencies[i].name) == 0) {
                head(o, latencies[k].metric, "histogram", latencies[k].help);
                latency_series(o, latencies[k].metric, &s->latencies[i]);
            }
        }
    }
}

static void dcs_metrics(struct out *o)
{
    const struct status_reply *s = &o->f->dcs;
    if (!o->f->has_dcs)
        return;
    gauge(o, "etcd_server_has_leader", s->leader_id != 0, "1 when a Raft leader is known.");
    gauge(o, "etcd_server_is_leader", strcmp(s->state, "leader") == 0,
          "1 when this member is the Raft leader.");
    gauge(o, "etcd_server_is_learner", s->learner, "1 when this member has no vote.");
    counter(o, "etcd_server_leader_changes_seen_total", s->leader_changes,
            "How often this member saw a Raft leader take over.");
    gauge(o, "etcd_server_quota_backend_bytes", s->quota_bytes,
          "How large state.db may get by clients' writes.");
    gauge(o, "regent_dcs_watches", s->watches, "Watches on this member.");
    gauge(o, "regent_dcs_watches_slow", s->watches_behind,
          "Watches that wait for their client to take what was sent.");
    gauge(o, "etcd_mvcc_db_total_size_in_bytes", s->db_bytes,
          "Size of state.db without its free pages, which the quota is compared with.");
    gauge(o, "etcd_mvcc_db_total_size_in_use_in_bytes", s->db_bytes,
          "The same: there is nothing to defragment.");
    gauge(o, "etcd_debugging_mvcc_current_revision", s->revision, "Revision of the store.");
    gauge(o, "etcd_debugging_mvcc_compact_revision", s->compacted_revision,
          "Revision below which the store has forgotten.");
    counter(o, "etcd_server_proposals_committed_total", s->commit_index,
            "Index of the last Raft entry known to be committed.");
    counter(o, "etcd_server_proposals_applied_total", s->applied_index,
            "Index of the last Raft entry applied.");
    gauge(o, "regent_dcs_requests", s->requests, "Requests under way on this member.");
    counter(o, "regent_dcs_slow_requests_total", s->slow_requests,
            "Requests that took a second or more; the log says what they waited for.");
    gauge(o, "regent_raft_term", s->term, "Raft term.");
    gauge(o, "regent_raft_log_bytes", s->log_bytes, "Size of log.db.");
    gauge(o, "regent_raft_voters", s->voters, "Voters of the DCS.");
    gauge(o, "regent_raft_quorum", s->quorum, "Voters that a decision needs.");
    gauge(o, "regent_raft_reachable_voters", s->reachable_voters,
          "Voters that this member reaches, itself among them.");
    gauge(o, "regent_dcs_quarantined", strcmp(s->trouble, "quarantined") == 0,
          "1 when this member's state differs from the majority's: replace the node.");
    gauge(o, "regent_dcs_removed", strcmp(s->trouble, "removed") == 0,
          "1 when this node is no member of the DCS any more.");
    gauge_us(o, "regent_raft_fsync_p99_seconds", s->fsync_us_p99,
             "99th percentile of the last fsyncs of log.db.");
    dcs_latencies(o, s);
}

/* ---- ours ---- */

static void regent_lease(struct out *o)
{
    const struct rest_facts *f = o->f;
    const struct view *v = &f->view;
    head(o, "regent_build_info", "gauge", "1; the version is a label.");
    series(o, "regent_build_info", "version", REGENT_VERSION);
    put(o, 1);
    uint64_t left_ms = v->deadline_ms - MIN(v->deadline_ms, o->now_ms);
    gauge_us(o, "regent_lease_remaining_seconds", left_ms * 1000,
             "For how long this node's lease holds, leader or not; 0 when it does not.");
    gauge(o, "regent_is_leader", rest_holds_lease(f, o->now_ms),
          "1 while this node has the leader key and its lease holds.");
    gauge(o, "regent_fence_armed", v->armed,
          "1 when the fence kills PostgreSQL at the end of the lease.");
    uint64_t fence_ms = f->fence_deadline_ms - MIN(f->fence_deadline_ms, o->now_ms);
    gauge_us(
        o, "regent_fence_deadline_seconds", fence_ms * 1000,
        "Until the fence kills PostgreSQL unless the lease is renewed; 0: it is not armed.");
    gauge(o, "regent_watchdog_running", f->watchdog_on,
          "1 while the hardware watchdog counts and is fed.");
    gauge(o, "regent_vip_up", f->vip_up, "1 when the virtual address is on this node.");
    gauge(o, "regent_dcs_ready", !rest_stale(f, o->now_ms),
          "1 when this node's copy of the records is confirmed by a quorum.");
    gauge_us(o, "regent_view_age_seconds", (o->now_ms - MIN(o->now_ms, v->now_ms)) * 1000,
             "Age of the view that the answers are made of.");
    gauge(o, "regent_leader_token", v->has_leader ? v->leader.token : 0,
          "Fencing token of the leader, 0 when there is none.");
    gauge(o, "regent_action_failures", v->busy.failures,
          "How often the action under way has failed in a row.");
}

static void regent_members(struct out *o)
{
    const struct view *v = &o->f->view;
    uint64_t leader_lsn = rest_leader_lsn(o->f);
    gauge(o, "regent_members", v->members_n, "Nodes with a live agent and PostgreSQL.");
    gauge(o, "regent_sync_standbys", view_record_mode(v) == SYNC_OFF ? 0 : v->sync.v_n,
          "Standbys that may be promoted without a loss.");
    gauge(o, "regent_sync_expected", v->config.sync_mode != SYNC_OFF,
          "1 when a synchronous mode is configured.");
    gauge(o, "regent_sync_confirmed", v->pg.set_known && v->pg.set_confirmed,
          "1 when every commit waits for the synchronous set now configured here.");
    if (v->members_n == 0)
        return;
    head(o, "regent_sync_member", "gauge",
         "1 when a member may be promoted without a loss (it is in the synchronous record).");
    for (size_t i = 0; i < v->members_n; i++) {
        series(o, "regent_sync_member", "member", v->members[i].name);
        put(o, rest_in_sync_set(v, v->members[i].incarnation));
    }
    head(o, "regent_replication_lag_bytes", "gauge",
         "WAL that a member has not received, going by the records.");
    for (size_t i = 0; i < v->members_n; i++) {
        series(o, "regent_replication_lag_bytes", "member", v->members[i].name);
        put(o, leader_lsn - MIN(leader_lsn, v->members[i].lsn));
    }
}

static void disk(struct out *o, const char *metric, const char *help, size_t field)
{
    const struct host_seen *h = &o->f->host;
    const struct {
        const char *what;
        const struct host_disk *d;
    } disks[] = {{"data_dir", &h->state}, {"pgdata", &h->pgdata}};
    head(o, metric, "gauge", help);
    for (size_t i = 0; i < ARRAY_LEN(disks); i++) {
        const uint64_t values[] = {disks[i].d->free_bytes, disks[i].d->total_bytes,
                                   disks[i].d->full_in_s};
        if (!disks[i].d->known || (field == 2 && values[field] == 0))
            continue;
        series(o, metric, "disk", disks[i].what);
        put(o, values[field]);
    }
}

static void regent_host(struct out *o)
{
    const struct host_seen *h = &o->f->host;
    if (h->looks == 0)
        return;
    disk(o, "regent_disk_free_bytes", "Room on the disk of data_dir and of PGDATA.", 0);
    disk(o, "regent_disk_size_bytes", "Size of that disk.", 1);
    disk(o, "regent_disk_full_in_seconds",
         "Until it is full, as it has gone for the last half hour; absent when it is not "
         "filling up.",
         2);
    if (!h->has_certificate)
        return;
    head(o, "regent_certificate_expiry_seconds", "gauge",
         "Until this node's certificate expires; below 0: it has.");
    series(o, "regent_certificate_expiry_seconds", NULL, NULL);
    buf_printf(&o->text, "%" PRId64 "\n", h->certificate_s);
}

static void regent_sick(struct out *o)
{
    head(o, "regent_sick", "gauge", "1 when this node is sick in this way, or was lately.");
    for (enum sick s = SICK_ARCHIVE; s <= SICK_STUCK; s++) {
        series(o, "regent_sick", "kind", sick_name(s));
        put(o, o->f->view.pg.sick == s);
    }
}

static void regent_slots(struct out *o)
{
    const struct pg_seen *pg = &o->f->pg;
    if (pg->slots_n == 0 || !rest_accepts(o->f, o->now_ms))
        return;
    head(o, "regent_slot_retained_bytes", "gauge", "WAL that is kept for a replication slot.");
    for (size_t i = 0; i < pg->slots_n; i++) {
        series(o, "regent_slot_retained_bytes", "slot", pg->slots[i].name);
        put(o, pg->slots[i].retained_bytes);
    }
    head(o, "regent_slot_active", "gauge", "1 when somebody streams from the slot.");
    for (size_t i = 0; i < pg->slots_n; i++) {
        series(o, "regent_slot_active", "slot", pg->slots[i].name);
        put(o, pg->slots[i].active);
    }
}

static void regent_slots_unsafe(struct out *o)
{
    head(o, "regent_slots_unsafe", "gauge",
         "1 when a permanent slot is not good on this node, or would not be after its "
         "promotion.");
    series(o, "regent_slots_unsafe", NULL, NULL);
    put(o, o->f->view.pg.slots[0] != '\0');
}

static void regent_counts(struct out *o)
{
    const struct rest_counts *c = &o->f->counts;
    head(o, "regent_failovers_total", "counter",
         "Changes of leadership seen since the start of this daemon, by reason.");
    for (int i = 0; i < COUNT_REASONS; i++) {
        series(o, "regent_failovers_total", "reason", count_reason_name((enum count_reason)i));
        put(o, c->failovers[i]);
    }
    head(o, "regent_failover_duration_seconds", "histogram",
         "From the first sight of no running leader until the next one runs, by reason.");
    for (int i = 0; i < COUNT_REASONS; i++)
        histogram(o, "regent_failover_duration_seconds", "reason",
                  count_reason_name((enum count_reason)i), &c->outage[i]);
    head(o, "regent_demotions_total", "counter",
         "How often this node lost the leader key, by the rule that decided then.");
    for (size_t i = 0; i < COUNT_RULES && c->demotions[i].n != 0; i++) {
        series(o, "regent_demotions_total", "rule", c->demotions[i].rule);
        put(o, c->demotions[i].n);
    }
    head(o, "regent_loop_lag_seconds", "histogram", "How late the agent's loop woke up.");
    histogram(o, "regent_loop_lag_seconds", NULL, NULL, &c->loop_lag);
}

static void process_metrics(struct out *o)
{
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u) != 0)
        return;
    head(o, "process_cpu_seconds_total", "counter",
         "Processor time of regentd, user and system.");
    series(o, "process_cpu_seconds_total", NULL, NULL);
    put_seconds(o, (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
                       (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec));
}

char *rest_metrics_body(const struct rest_facts *f, uint64_t now_ms)
{
    struct out o = {.text = {.max = METRICS_MAX}, .f = f, .now_ms = now_ms};
    if (f->known) {
        patroni_node(&o);
        patroni_wal(&o);
        patroni_cluster(&o);
        regent_lease(&o);
        regent_members(&o);
        regent_host(&o);
        regent_sick(&o);
        regent_slots(&o);
        regent_slots_unsafe(&o);
    }
    dcs_metrics(&o);
    regent_counts(&o);
    process_metrics(&o);
    char *text = strdup(buf_cstr(&o.text));
    buf_close(&o.text);
    return text;
}
