/* What this node tells the others: its member record, and the journal of its plans. */
#include <inttypes.h>
#include <stdio.h>

#include "agent/engine_internal.h"
#include "base/log.h"
#include "base/str.h"

enum { JOURNAL_KEEP = 500, JOURNAL_TRIM_EVERY = 50, VIEW_TEXT_MAX = 16384 };

/* ---- member record ---- */

static const char *state_text(const struct view *v)
{
    if (v->busy.action == ACTION_INITDB)
        return "initializing new cluster";
    if (v->busy.action == ACTION_CLONE)
        return "creating replica";
    if (v->busy.action == ACTION_REWIND)
        return "rewinding";
    bool again = v->has_request && v->request.state[0] != '\0' &&
                 strcmp(v->request.kind, "restart") == 0 && v->pg.proc != PG_PROC_RUNNING;
    if (again)
        return "restarting";
    switch (v->pg.proc) {
    case PG_PROC_STOPPED:
        return v->pg.crashed ? "crashed" : "stopped";
    case PG_PROC_STARTING:
        return "starting";
    case PG_PROC_RUNNING:
        if (v->pg.in_recovery && v->nostream)
            return "in archive recovery";
        return v->pg.in_recovery && v->pg.streaming ? "streaming" : "running";
    case PG_PROC_STOPPING:
    case PG_PROC_DYING:
        return "stopping";
    }
    UNREACHABLE();
}

static const char *role_text(const struct view *v)
{
    if (v->pg.data != PG_DATA_OURS)
        return "uninitialized";
    if (v->pg.proc == PG_PROC_RUNNING && !v->pg.in_recovery)
        return "primary";
    return view_is_leader(v) && v->leader.standby ? "standby_leader" : "replica";
}

static bool makes_data(const struct view_busy *b)
{
    return b->action == ACTION_INITDB || b->action == ACTION_CLONE ||
           b->action == ACTION_REWIND;
}

static void member_of_view(const struct engine *g, struct member_rec *ret)
{
    const struct view *v = &g->view;
    *ret = (struct member_rec){
        .timeline = v->pg.timeline,
        .lsn = v->pg.lsn,
        .replay_lsn = v->pg.replay_lsn,
        .lease = g->keeper.id,
        .armed = g->fence.connected,
        .paused = v->config.pause,
        .since_ms = g->since_ms,
        .conn_port = g->o.conn_port,
        .nofailover = v->nofailover,
        .nosync = v->nosync || view_request_leaves(v) || sick_leaves_sync(v),
        .restart_at_ms = g->mirror.request_meta.present ? g->mirror.request.at_ms : 0,
        .noloadbalance = g->o.noloadbalance,
        .clonefrom = g->o.clonefrom,
        .nostream = v->nostream,
        .failover_priority = g->o.failover_priority,
        .sync_priority = MAX(g->o.sync_priority, 0),
        .pending_restart = v->pg.pending_restart,
        .copied = v->pg.copied,
        .copied_bytes = v->pg.copied_bytes,
        .copy_since_ms = makes_data(&v->busy) ? g->busy_wall_ms : 0,
        .slots_wait = v->pg.slots_wait,
    };
    if (v->pg.pending_restart)
        memcpy(ret->pending_reason, v->pg.pending_reason, sizeof ret->pending_reason);
    memcpy(ret->slots, v->pg.slots, sizeof ret->slots);
    memcpy(ret->limits, v->pg.limits, sizeof ret->limits);
    str_cut(ret->sick, sizeof ret->sick, sick_name(v->pg.sick));
    memcpy(ret->sick_why, v->pg.sick_why, sizeof ret->sick_why);
    memcpy(ret->file_waits, g->file_waits, sizeof ret->file_waits);
    str_cut(ret->name, sizeof ret->name, g->name);
    str_cut(ret->incarnation, sizeof ret->incarnation, v->pg.incarnation);
    memcpy(ret->replicatefrom, v->replicatefrom, sizeof ret->replicatefrom);
    str_cut(ret->role, sizeof ret->role, role_text(v));
    str_cut(ret->state, sizeof ret->state, state_text(v));
    str_cut(ret->conn_host, sizeof ret->conn_host, g->conn_host);
    str_cut(ret->api_url, sizeof ret->api_url, g->api_url);
    str_cut(ret->upstream, sizeof ret->upstream, v->pg.streaming ? v->pg.upstream : "");
    str_cut(ret->software, sizeof ret->software, REGENT_VERSION);
    str_cut(ret->pg_version, sizeof ret->pg_version, g->pg_version);
#ifdef REGENT_PRETEND_NEXT
    str_cut(ret->next, sizeof ret->next, "next");
#endif
}

static bool same_record(const struct member_rec *a, const struct member_rec *b)
{
    const void *one = a;
    const void *other = b;
    if (memcmp(one, other, sizeof *a) == 0)
        return true; /* most often; padding that differs only costs the longer way */
    struct buf x CLEANUP(buf_close) = BUF_INIT;
    struct buf y CLEANUP(buf_close) = BUF_INIT;
    msg_encode(&msg_member_rec, a, &x);
    msg_encode(&msg_member_rec, b, &y);
    return slice_eq(buf_slice(&x), buf_slice(&y));
}

static bool only_counts_differ(const struct member_rec *a, const struct member_rec *b)
{
    struct member_rec x = *a;
    x.lsn = b->lsn;
    x.replay_lsn = b->replay_lsn;
    x.copied = b->copied;
    x.copied_bytes = b->copied_bytes;
    return same_record(&x, b);
}

static void on_published(void *arg, const struct client_reply *reply)
{
    struct engine *g = arg;
    CHECK_MAGIC(g, ENGINE_MAGIC);
    g->publishing = false;
    if (reply->status != ERR_OK)
        g->member_known = false; /* say it again */
    engine_wake(g);
}

/* The end of the log, by an election or a hand-over. While a stopping leader still streams, that is not
 * reached, and saying every step would take the time it is meant to save. */
static bool is_waited_for(const struct view *v)
{
    return !v->has_leader || (strcmp(v->leader.state, "stopping") == 0 && !v->pg.streaming);
}

/* Who is one too many would be seen by some and not by others: nobody sees it, and it says so itself. */
static bool room_for_us(struct engine *g)
{
    bool room =
        g->mirror.members_n < VIEW_MEMBERS || mirror_member_mod(&g->mirror, g->name) != 0;
    if (!room && !g->left_out)
        log_event(
            LOG_ERROR, "left_out", NO_KV,
            "there are %d members with PostgreSQL, the most there can be: this node tells "
            "nobody of itself, is in no synchronous set and is handed no key; end the "
            "daemon of another one, or `regentctl leave` here",
            VIEW_MEMBERS);
    g->left_out = !room;
    return room;
}

/* At once when something but the position or the progress changed, or when somebody waits for the position; else when a renewal
 * was answered, four times a TTL: the leader gathers those, so the others tell theirs at the same time, and the
 * stores commit all of them once. */
void engine_publish_member(struct engine *g)
{
    struct member_rec now;
    if (g->keeper.id == 0 || !g->connected || g->publishing || g->revoking || g->stopped ||
        !g->mirror.complete || !room_for_us(g))
        return;
    member_of_view(g, &now);
    if (g->member_known && same_record(&now, &g->published))
        return;
    if (g->member_known && only_counts_differ(&now, &g->published) &&
        !is_waited_for(&g->view) && !g->position_due)
        return;
    char name[MIRROR_KEY_MAX];
    char key[MIRROR_KEY_MAX];
    struct buf json CLEANUP(buf_close) = {0};
    if (str_format(name, sizeof name, "members/%s", g->name) != ERR_OK ||
        mirror_key(&g->mirror, key, "%s", name) != ERR_OK)
        return;
    msg_to_json(&msg_member_rec, &now, &json);
    struct put_req r = {
        .key = slice_str(key), .value = buf_slice(&json), .lease = g->keeper.id};
    g->published = now;
    g->position_due = false;
    g->member_known = true;
    g->publishing = true;
    g->o.ports->call(g->o.arg, METHOD_KV_PUT, &r, g->view.config.ttl_ms, on_published, g);
}

/* ---- journal ---- */

static void on_trim(void *arg, const struct client_reply *reply)
{
    struct engine *g = arg;
    CHECK_MAGIC(g, ENGINE_MAGIC);
    (void)reply;
    g->journal_trimming = false;
}

static void on_count(void *arg, const struct client_reply *reply)
{
    struct engine *g = arg;
    CHECK_MAGIC(g, ENGINE_MAGIC);
    struct range_reply r;
    struct msg_iter it;
    struct kv kv;
    g->journal_trimming = false;
    if (reply->status != ERR_OK ||
        msg_decode(&msg_range_reply, reply->result, &r, NULL) != ERR_OK ||
        r.count <= JOURNAL_KEEP || msg_iter_init(&it, r.kvs) != ERR_OK)
        return;
    uint64_t drop = r.count - JOURNAL_KEEP;
    while (drop > 0 && msg_iter_next(&it, &msg_kv, &kv, NULL) == ERR_OK)
        drop--;
    char from[MIRROR_KEY_MAX];
    if (drop != 0 || mirror_key(&g->mirror, from, "journal/") != ERR_OK)
        return;
    struct delete_req d = {.key = slice_str(from), .end = kv.key};
    g->journal_trimming = true;
    g->o.ports->call(g->o.arg, METHOD_KV_DELETE, &d, 0, on_trim, g);
}

static void trim_journal(struct engine *g)
{
    char from[MIRROR_KEY_MAX];
    char end[MIRROR_KEY_MAX];
    if (g->journal_trimming || g->journal_written % JOURNAL_TRIM_EVERY != 0 ||
        mirror_key(&g->mirror, from, "journal/") != ERR_OK ||
        mirror_key(&g->mirror, end, "journal0") != ERR_OK)
        return;
    struct range_req r = {
        .key = slice_str(from), .end = slice_str(end), .keys_only = true, .local = true};
    g->journal_trimming = true;
    g->o.ports->call(g->o.arg, METHOD_KV_RANGE, &r, 0, on_count, g);
}

static void on_journal(void *arg, const struct client_reply *reply)
{
    (void)arg;
    (void)reply; /* the journal explains; nothing depends on it */
}

void engine_journal(struct engine *g, const struct plan *p)
{
    uint64_t wall_ms = g->o.ports->wall_ms(g->o.arg);
    struct journal_rec rec = {.at_ms = wall_ms,
                              .token = g->view.has_leader ? g->view.leader.token
                                                          : g->view.sync.token};
    str_cut(rec.node, sizeof rec.node, g->name);
    str_cut(rec.rule, sizeof rec.rule, p->rule);
    str_cut(rec.reason, sizeof rec.reason, p->reason);
    str_cut(rec.action, sizeof rec.action, plan_action_name(p->action));
    str_cut(rec.txn, sizeof rec.txn, plan_txn_name(p->txn));
    if (!g->connected || g->o.no_journal)
        return;
    static char text[VIEW_TEXT_MAX]; /* agent thread only */
    if (view_print(&g->view, text, sizeof text) == ERR_OK)
        rec.view = slice_str(text);
    g->journal_number = MAX(g->journal_number + 1, wall_ms * 1000);
    char key[MIRROR_KEY_MAX];
    if (mirror_key(&g->mirror, key, "journal/%020" PRIu64 "-%s", g->journal_number, g->name) !=
        ERR_OK)
        return;
    struct buf json CLEANUP(buf_close) = {0};
    msg_to_json(&msg_journal_rec, &rec, &json);
    struct put_req r = {.key = slice_str(key), .value = buf_slice(&json)};
    g->o.ports->call(g->o.arg, METHOD_KV_PUT, &r, g->view.config.ttl_ms, on_journal, g);
    g->journal_written++;
    trim_journal(g);
}

/* ---- what PostgreSQL needs of the dynamic configuration ---- */

/* A member that follows, or may: what it runs with bounds what a primary may be started with. */
static void note_limits(const struct engine *g, const struct member_rec *m,
                        struct postgres_dynamic *d)
{
    struct pg_limits l;
    if (pg_limits_parse(m->limits, &l) != ERR_OK || strcmp(m->name, g->name) == 0)
        return;
    if (g->view.has_leader && strcmp(g->view.leader.name, m->name) == 0)
        d->leader = l;
    else if (strcmp(m->role, "primary") != 0)
        d->standbys = pg_limits_min(&d->standbys, &l);
}

/* Who may be promoted: of the record and of the set to come; in asynchronous mode whoever streams from here. */
static bool may_lead_next(const struct view *v, const struct member_rec *m)
{
    bool streams = strcmp(m->state, "streaming") == 0 && strcmp(m->upstream, v->self) == 0;
    if (m->nofailover || m->incarnation[0] == '\0' || strcmp(m->name, v->self) == 0)
        return false;
    if (view_record_mode(v) == SYNC_OFF)
        return streams;
    return view_in_v(v, m->incarnation) ||
           names_have(v->pg.set.s, v->pg.set.s_n, m->incarnation);
}

static void note_slots(const struct engine *g, const struct config_rec *c,
                       struct postgres_dynamic *d)
{
    const struct view *v = &g->view;
    d->slots_json = c->slots;
    d->ignore_json = c->ignore_slots;
    d->leader_token = v->has_leader ? v->leader.token : 0;
    if (v->has_leader && !view_leader_named(v))
        (void)engine_upstream(g, v->leader.name, &d->leader_at);
    for (size_t i = 0; i < v->members_n; i++)
        if (may_lead_next(v, &v->members[i]))
            memcpy(d->ahead[d->ahead_n++], v->members[i].name, sizeof d->ahead[0]);
}

/* Its slot here: held for it while this node is a standby, or not even while it leads. */
static void note_member(const struct engine *g, const struct member_rec *m,
                        struct postgres_dynamic *d)
{
    bool leads = view_leader_named(&g->view) && g->view.leader.standby;
    bool below =
        strcmp(m->replicatefrom, g->name) == 0 || (leads && m->replicatefrom[0] == '\0');
    bool streams = m->upstream[0] != '\0';
    d->below[d->members_n] = below;
    d->elsewhere[d->members_n] = m->nostream || (streams && strcmp(m->upstream, g->name) != 0);
    memcpy(d->members[d->members_n++], m->name, sizeof d->members[0]);
}

void engine_configure(struct engine *g)
{
    struct postgres_dynamic d;
    bool present = g->mirror.config_meta.present;
    bool ready = mirror_ready(&g->mirror);
    if (!ready && (g->config_mod != 0 || !present))
        return;
    const struct config_rec *c = present ? &g->mirror.config : g->o.bootstrap;
    memset(&d, 0, sizeof d); /* compared byte by byte; at worst it is told once too often */
    d.settings_only = !ready;
    d.parameters_json = c->postgresql;
    d.site_json = c->standby_cluster;
    d.retry_interval_ms = g->view.config.retry_interval_ms;
    d.use_slots = c->use_slots;
    d.slot_ttl_ms = c->member_slots_ttl * 1000; /* 0, of an older record: the default */
    d.strict = g->view.config.sync_strict;
    note_slots(g, c, &d);
    for (size_t i = 0; i < g->mirror.members_n; i++) {
        const struct member_rec *m = &g->mirror.members[i];
        note_limits(g, m, &d);
        if (strcmp(m->name, g->name) != 0)
            note_member(g, m, &d);
    }
    uint64_t mod = g->mirror.config_meta.mod_revision + 1;
    const void *now = &d;
    const void *before = &g->configured;
    if (g->config_mod == mod && memcmp(now, before, sizeof d) == 0)
        return;
    g->config_mod = mod;
    g->configured = d;
    g->o.ports->configure(g->o.arg, &d);
}

/* ---- what PostgreSQL says of its parameters ---- */

static void on_settings(void *arg, const struct client_reply *reply)
{
    struct engine *g = arg;
    CHECK_MAGIC(g, ENGINE_MAGIC);
    g->catalogue_writing = false;
    if (reply->status != ERR_OK)
        g->catalogue_serial = 0; /* again */
}

/* By the leader, when nothing else is to be done: a failover does not wait for it. */
void engine_publish_settings(struct engine *g)
{
    enum { SETTINGS_MS = 5000 };
    struct settings_rec rec = {.version = ""};
    struct buf json CLEANUP(buf_close) = BUF_INIT;
    char key[MIRROR_KEY_MAX];
    const struct view *v = &g->view;
    if (!g->planned || strcmp(g->plan.rule, "leader") != 0 || g->catalogue_writing ||
        !g->connected)
        return;
    uint64_t serial = g->o.ports->catalogue(g->o.arg, &rec.settings);
    bool same = serial == g->catalogue_serial && v->leader.token == g->catalogue_token;
    if (serial == 0 || same || mirror_key(&g->mirror, key, "settings") != ERR_OK)
        return;
    str_cut(rec.version, sizeof rec.version, g->pg_version);
    msg_to_json(&msg_settings_rec, &rec, &json);
    struct put_req r = {.key = slice_str(key), .value = buf_slice(&json)};
    g->catalogue_serial = serial;
    g->catalogue_token = v->leader.token;
    g->catalogue_writing = true;
    g->o.ports->call(g->o.arg, METHOD_KV_PUT, &r, SETTINGS_MS, on_settings, g);
}
