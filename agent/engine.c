#include "agent/engine.h"

#include <inttypes.h>
#include <stdio.h>

#include "agent/engine_internal.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/mutant.h"
#include "base/str.h"

/* ---- life ---- */

enum err engine_new(const struct engine_options *o, struct engine **ret_engine,
                    struct errmsg *e)
{
    struct engine *g = mem_alloc(sizeof *g);
    g->magic = ENGINE_MAGIC;
    g->o = *o;
    if (mirror_init(&g->mirror, o->scope) != ERR_OK ||
        str_copy(g->scope, sizeof g->scope, o->scope) != ERR_OK ||
        str_copy(g->name, sizeof g->name, o->name) != ERR_OK ||
        str_copy(g->conn_host, sizeof g->conn_host, o->conn_host) != ERR_OK ||
        str_copy(g->api_url, sizeof g->api_url, o->api_url) != ERR_OK ||
        str_copy(g->pg_version, sizeof g->pg_version, o->pg_version) != ERR_OK) {
        mem_free(g);
        return err_set(e, ERR_LIMIT, "scope, name or connect address is too long");
    }
    str_cut(g->mirror.self, sizeof g->mirror.self, o->name);
    g->since_ms = o->ports->wall_ms(o->arg);
    g->born_ms = engine_now(g);
    config_view(o->bootstrap, &g->view.config);
    *ret_engine = g;
    return ERR_OK;
}

void engine_free(struct engine *g)
{
    if (g == NULL)
        return;
    CHECK_MAGIC(g, ENGINE_MAGIC);
    mirror_close(&g->mirror);
    buf_close(&g->fill_kvs);
    g->magic = 0;
    mem_free(g);
}

void engine_wake(struct engine *g)
{
    CHECK_MAGIC(g, ENGINE_MAGIC);
    if (g->ticking)
        g->again = true;
    else
        g->o.ports->wake_at(g->o.arg, engine_now(g));
}

void engine_late(struct engine *g)
{
    g->tilt = true;
}

void engine_stop(struct engine *g)
{
    g->stopping = true;
    engine_wake(g);
}

void engine_restart(struct engine *g)
{
    g->restarting = true;
    engine_wake(g);
}

bool engine_stopped(const struct engine *g)
{
    return g->stopped;
}

bool engine_leaves_postgres(const struct engine *g)
{
    return g->view.config.pause && !g->fence.armed;
}

void engine_set_pre_promote(struct engine *g, bool on)
{
    g->o.pre_promote = on;
}

void engine_set_file_waits(struct engine *g, const char *keys)
{
    str_cut(g->file_waits, sizeof g->file_waits, keys);
    engine_wake(g);
}

void engine_set_pg_version(struct engine *g, const char *version)
{
    str_cut(g->pg_version, sizeof g->pg_version, version);
}

const struct view *engine_view(const struct engine *g)
{
    return &g->view;
}

const struct plan *engine_plan(const struct engine *g)
{
    return &g->plan;
}

const struct mirror *engine_mirror(const struct engine *g)
{
    return &g->mirror;
}

/* ---- observe ---- */

/* Since when the DCS is not to be relied on, and whether that is more than reading again. */
static void note_dcs(struct engine *g, struct view *v)
{
    bool quorum = v->now_ms < g->contact_ms + v->config.ttl_ms;
    /* A mirror that no quorum has confirmed for a TTL may tell of a world that is gone. */
    v->dcs_ready = v->dcs_ready && quorum;
    if (v->dcs_ready)
        g->dcs_lost_ms = 0;
    else if (g->dcs_lost_ms == 0)
        g->dcs_lost_ms = v->now_ms;
    v->dcs_lost_ms = g->dcs_lost_ms;
    v->dcs_gone = !quorum || (!v->dcs_ready && v->now_ms >= g->dcs_lost_ms + v->config.ttl_ms);
}

enum { LATE_MS = 30000 }; /* a schedule that is so old has been missed */

static bool time_has_come(uint64_t at_ms, uint64_t wall_ms, bool *ret_late)
{
    *ret_late = at_ms != 0 && wall_ms > at_ms + LATE_MS;
    return at_ms == 0 || wall_ms >= at_ms;
}

/* Orders whose time has come; before that decide() knows nothing of them. */
static void see_orders(struct engine *g, struct view *v)
{
    const struct mirror *m = &g->mirror;
    uint64_t wall_ms = g->o.ports->wall_ms(g->o.arg);
    bool late = false;
    v->has_failover = v->has_failover && time_has_come(v->failover.at_ms, wall_ms, &late);
    v->failover_late = late;
    if (!v->has_failover || strcmp(g->failover_id, v->failover.id) != 0)
        g->failover_ms = v->now_ms;
    str_cut(g->failover_id, sizeof g->failover_id, v->has_failover ? v->failover.id : "");
    v->failover_ms = v->has_failover ? g->failover_ms : 0;
    v->has_request = m->request_meta.present && time_has_come(m->request.at_ms, wall_ms, &late);
    v->request_late = v->has_request && late;
    if (v->has_request)
        v->request = m->request;
    if (!v->has_request || strcmp(g->request_id, m->request.id) != 0)
        g->request_ms = v->now_ms;
    str_cut(g->request_id, sizeof g->request_id, v->has_request ? m->request.id : "");
    v->request_ms = v->has_request ? g->request_ms : 0;
}

/* Until a promotion is requested, a hand-over can be undone like an acquisition: the old primary has stopped, and
 * what it had acknowledged is told by the record of before. */
static void note_handover(struct engine *g)
{
    const struct mirror *m = &g->mirror;
    const struct leader_rec *l = &m->leader;
    if (m->leader_meta.present && l->standby)
        g->has_sync_before = false; /* it leads: what was before is over */
    if (!m->leader_meta.present || strcmp(l->name, g->name) != 0 || l->shutdown_lsn == 0 ||
        l->timeline != 0 || l->token <= g->handover_token)
        return;
    g->handover_token = l->token;
    g->has_sync_before = m->has_sync_before && m->sync.token == l->token &&
                         m->sync_before.token + 1 == l->token && !m->sync_before.disarmed;
    g->sync_before = m->sync_before;
}

/* As `*v = (struct view){0}`, but of the long lists only what is in use: behind that they are zero at all times. */
static void clear(struct view *v)
{
    size_t rest = offsetof(struct view, seals_n);
    memset(v->members, 0, v->members_n * sizeof v->members[0]);
    memset(v->seals, 0, v->seals_n * sizeof v->seals[0]);
    memset(v->seal_mod_revisions, 0, v->seals_n * sizeof v->seal_mod_revisions[0]);
    v->members_n = 0;
    memset(v, 0, offsetof(struct view, members));
    memset((char *)v + rest, 0, sizeof *v - rest);
}

static void observe(struct engine *g)
{
    struct view *v = &g->view;
    uint64_t now_ms = engine_now(g);
    g->o.ports->fence(g->o.arg, &g->fence);
    engine_txn_settle(g);
    clear(v);
    v->now_ms = now_ms;
    mirror_view(&g->mirror, g->o.bootstrap, v);
    str_cut(v->self, sizeof v->self, g->name);
    note_dcs(g, v);
    see_orders(g, v);
    v->txn_pending = g->txn_pending;
    v->txn_unknown = g->txn_unknown;
    bool inherits = !g->lease_settled && g->fence.connected && g->fence.lease != 0;
    v->lease = inherits ? g->fence.lease : g->keeper.id;
    v->deadline_ms = !inherits        ? g->keeper.deadline_ms
                     : g->fence.armed ? g->fence.deadline_ms
                                      : 0;
    note_handover(g);
    v->armed = g->fence.connected && g->fence.armed && g->fence.token == engine_arm_token(v);
    v->has_sync_before = g->has_sync_before;
    v->sync_before = g->sync_before;
    v->tilt = g->tilt;
    v->nofailover = g->o.nofailover || g->o.failover_priority <= 0;
    v->nostream = g->o.nostream;
    str_cut(v->replicatefrom, sizeof v->replicatefrom,
            g->o.replicatefrom != NULL ? g->o.replicatefrom : "");
    v->nosync =
        g->o.nosync || g->o.sync_priority <= 0 || v->nostream || v->replicatefrom[0] != '\0';
    v->stopping = g->stopping;
    v->restarting = g->restarting;
    v->can_bootstrap = !g->o.witness;
    v->pre_promote = g->o.pre_promote;
    v->permitted_token = g->permitted_token;
    v->refused_token = g->refused_token;
    v->busy = g->busy;
    g->o.ports->observe(g->o.arg, &v->pg);
    v->adopt = g->o.adopt && v->pg.foreign && !v->pg.standby_signal;
}

/* ---- execute ---- */

static void on_action(void *arg, enum err status, const struct errmsg *e)
{
    struct engine *g = arg;
    CHECK_MAGIC(g, ENGINE_MAGIC);
    const char *name = plan_action_name((enum plan_action)g->busy.action);
    uint64_t took_ms = engine_now(g) - g->busy.since_ms;
    if (g->busy.action == ACTION_PRE_PROMOTE && status == ERR_OK)
        g->permitted_token = g->hook_token;
    else if (g->busy.action == ACTION_PRE_PROMOTE && status != ERR_CANCELLED)
        g->refused_token = g->hook_token;
    if (status == ERR_OK) {
        log_event(LOG_INFO, "action_done",
                  KV(KV_STR("action", name), KV_U64("took_ms", took_ms)), "%s done", name);
        g->busy = (struct view_busy){.done_action = g->busy.action, .done_ms = engine_now(g)};
    } else {
        log_event(LOG_ERROR, "action_failed",
                  KV(KV_STR("action", name), KV_U64("took_ms", took_ms)), "%s failed: %s", name,
                  e != NULL ? e->text : err_text(status));
        uint64_t failures = g->busy.failed_action == g->busy.action ? g->busy.failures + 1 : 1;
        g->busy = (struct view_busy){.since_ms = g->busy.since_ms,
                                     .failed = true,
                                     .failures = failures,
                                     .failed_action = g->busy.action,
                                     .failed_ms = engine_now(g)};
        str_cut(g->busy.error, sizeof g->busy.error, e != NULL ? e->text : err_text(status));
    }
    engine_wake(g);
}

bool engine_upstream(const struct engine *g, const char *name, struct postgres_upstream *ret_up)
{
    const struct view *v = &g->view;
    if (v->config.standby_cluster && strcmp(name, REMOTE_SITE) == 0) {
        *ret_up = (struct postgres_upstream){.name = REMOTE_SITE};
        return true;
    }
    const struct member_rec *m = view_member(v, name);
    const char *host = m != NULL ? m->conn_host : v->leader.conn_host;
    uint64_t port = m != NULL ? m->conn_port : v->leader.conn_port;
    if (name[0] == '\0' || (m == NULL && strcmp(v->leader.name, name) != 0) || port == 0 ||
        port > 65535)
        return false;
    (void)snprintf(ret_up->port, sizeof ret_up->port, "%u", (unsigned)port);
    return str_copy(ret_up->name, sizeof ret_up->name, name) == ERR_OK &&
           str_copy(ret_up->host, sizeof ret_up->host, host) == ERR_OK;
}

static void run_action(struct engine *g, const struct plan *p)
{
    struct postgres_upstream up = {0};
    bool has_upstream = engine_upstream(g, p->target, &up);
    uint64_t failures = g->busy.failures;
    uint64_t failed_action = g->busy.failed_action;
    g->busy = (struct view_busy){.action = (uint64_t)p->action,
                                 .since_ms = engine_now(g),
                                 .failures = failures,
                                 .failed_action = failed_action};
    g->busy_wall_ms = g->o.ports->wall_ms(g->o.arg);
    str_cut(g->busy.target, sizeof g->busy.target, p->target);
    if (p->action == ACTION_PRE_PROMOTE)
        g->hook_token = p->token;
    if (p->action == ACTION_PROMOTE || p->action == ACTION_START_PRIMARY) {
        g->may_write = true;
        g->has_sync_before = false; /* from here on nothing is undone */
    }
    uint64_t limit_ms = p->limit_ms != 0 ? p->limit_ms : g->view.config.ttl_ms;
    uint64_t deadline_ms = engine_now(g) + limit_ms;
    log_event(LOG_INFO, "action",
              KV(KV_STR("action", plan_action_name(p->action)), KV_STR("rule", p->rule),
                 KV_STR("target", p->target), KV_U64("token", p->token)),
              "%s", p->reason);
    g->o.ports->run(g->o.arg, p, has_upstream ? &up : NULL, deadline_ms, on_action, g);
}

/* What is meant for a node whose record does not say where it is would be done towards nobody. */
static bool has_place(const struct engine *g, const struct plan *p)
{
    struct postgres_upstream up;
    return p->target[0] == '\0' || engine_upstream(g, p->target, &up);
}

static bool needs_proof(const struct engine *g, const struct plan *p)
{
    return plan_action_destructive(p->action) && !p->cancel && g->busy.action == ACTION_NONE &&
           has_place(g, p);
}

static void execute(struct engine *g, const struct plan *p)
{
    /* A proof serves the plan that asked for it, from tick to tick: what was read before a pause, or for a plan
     * that was given up, says nothing any more. */
    if (!needs_proof(g, p) && !MUTANT(proof_keeps))
        g->proof = (struct engine_proof){0};
    if (p->action == ACTION_KILL) {
        g->o.ports->kill(g->o.arg);
        if (g->busy.action != ACTION_NONE)
            g->o.ports->cancel(g->o.arg);
    } else if (p->cancel) {
        g->o.ports->cancel(g->o.arg);
    } else if (p->action != ACTION_NONE && g->busy.action == ACTION_NONE && has_place(g, p) &&
               (!plan_action_destructive(p->action) || engine_proven(g, p))) {
        run_action(g, p);
    }
    if (p->txn != TXN_NONE || g->txn_unknown)
        engine_txn(g, p);
    const struct view *v = &g->view;
    bool promotes = view_is_leader(v) && v->pg.in_recovery;
    bool closely = !v->has_leader || strcmp(v->leader.state, "stopping") == 0 || promotes;
    if (closely != g->watching_closely) {
        g->watching_closely = closely;
        g->o.ports->watch_closely(g->o.arg, closely);
    }
}

/* ---- the tick ---- */

static bool same_plan(const struct plan *a, const struct plan *b)
{
    return a->rule == b->rule && a->action == b->action && a->txn == b->txn &&
           a->token == b->token && strcmp(a->target, b->target) == 0;
}

/* Waiting for our own transaction or action is no decision: neither logged nor journalled. */
static bool is_decision(const struct plan *p)
{
    return strcmp(p->rule, "txn") != 0 && strcmp(p->rule, "busy") != 0;
}

/* True when the decision is another one than before. */
static bool note_plan(struct engine *g, const struct plan *p)
{
    bool news = is_decision(p) && !(g->planned && same_plan(&g->decided, p));
    g->plan = *p;
    g->planned = true;
    if (!news)
        return false;
    g->decided = *p;
    log_event(LOG_INFO, "plan",
              KV(KV_STR("rule", p->rule), KV_STR("action", plan_action_name(p->action)),
                 KV_STR("txn", plan_txn_name(p->txn)), KV_STR("target", p->target),
                 KV_U64("token", p->token)),
              "%s", p->reason);
    return true;
}

static void decide_and_act(struct engine *g)
{
    struct plan p = {0};
    struct errmsg e = {0};
    decide(&g->view, &p);
    ASSERT(p.rule != NULL);
    if (plan_check(&g->view, &p, &e) != ERR_OK) {
        log_event(LOG_ERROR, "plan_refused", KV(KV_STR("rule", p.rule)),
                  "not executed: %s (%s)", e.text, p.reason);
        p.action = ACTION_NONE;
        p.txn = TXN_NONE;
        p.wake_ms = g->view.now_ms + ENGINE_HOUSEKEEPING_MS;
    }
    bool news = note_plan(g, &p);
    engine_fence_step(g);
    execute(g, &p);
    if (news)
        engine_journal(g, &p);
}

static void schedule(struct engine *g)
{
    uint64_t now_ms = engine_now(g);
    uint64_t at_ms = now_ms + ENGINE_HOUSEKEEPING_MS;
    if (g->planned && !g->o.witness)
        at_ms = MIN(at_ms, MAX(g->plan.wake_ms, now_ms + 1));
    /* Without a connection the lease has no step to take: a renewal that is due waits for it. */
    bool talks = g->connected && !g->revoking && !g->stopped && !g->o.witness;
    if (g->keeper.id != 0 && talks && !(g->planned && g->plan.withhold))
        at_ms = MIN(at_ms, MAX(g->keeper.next_ms, now_ms));
    else if (g->keeper.id == 0 && talks && !g->lease_asked)
        at_ms = MIN(at_ms, MAX(g->lease_retry_ms, now_ms + 10));
    if (g->again)
        at_ms = now_ms;
    g->again = false;
    g->o.ports->wake_at(g->o.arg, at_ms);
}

void engine_tick(struct engine *g)
{
    CHECK_MAGIC(g, ENGINE_MAGIC);
    ASSERT(!g->ticking);
    g->ticking = true;
    observe(g);
    if (g->connected && !g->mirror.complete)
        engine_fill(g);
    if (!g->o.witness && !g->stopped) {
        engine_lease_step(g);
        decide_and_act(g);
        engine_publish_member(g);
        engine_configure(g);
        engine_publish_settings(g);
        /* While the data is being looked at, nobody knows whether there is something to hand over. */
        bool idle = g->view.pg.proc == PG_PROC_STOPPED && g->view.pg.data != PG_DATA_UNKNOWN &&
                    g->busy.action == ACTION_NONE &&
                    /* Without a quorum there is nobody to hand over to: the lease runs out. */
                    (!view_leader_named(&g->view) || g->view.dcs_gone);
        if (g->stopping && !g->revoking && idle)
            engine_revoke(g);
    } else if (g->stopping) {
        g->stopped = true;
    }
    g->o.ports->published(g->o.arg, &g->view, &g->plan);
    g->tilt = false;
    g->ticking = false;
    schedule(g);
}
