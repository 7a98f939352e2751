/* The engine of a node, abstract: mirror, lease, view -> decide -> plan_check -> execute. */
#include <stdio.h>

#include "base/assert.h"
#include "tests/sim/core_world.h"

/* The fence holds the deadline that it was told last; a new life of the daemon finds it there. */
void agent_start(struct world *w, struct node *x, bool adopt)
{
    x->alive = true;
    /* What a hand-over before replaced is forgotten: a promotion may have been requested since. */
    x->handover_token = w->store.sync.token;
    x->permitted_token = x->refused_token = 0;
    x->stopping = x->mirrored = x->txn_unknown = x->has_sync_before = false;
    x->dcs_lost_ms = w->now_ms;
    x->lost_ms = 0;
    (void)memset(&x->busy, 0, sizeof x->busy);
    x->done_at_ms = 0;
    x->pg.set_known = x->pg.confirmed = false;
    if (!adopt || !store_lease_alive(w, x->lease))
        x->lease = 0, x->deadline_ms = 0;
}

static void keep_lease(struct world *w, struct node *x)
{
    if (x->isolated || x->withhold || w->now_ms < x->renew_ms)
        return;
    if (!store_lease_alive(w, x->lease)) {
        x->lease = w->lease_next++;
        x->armed =
            false; /* what was ordered under the old lease must not live on the new one */
    }
    ASSERT(x->lease < ARRAY_LEN(w->lease_end_ms));
    /* Submitted a while ago, applied now. */
    w->lease_end_ms[x->lease] = w->now_ms + TTL_MS;
    x->deadline_ms = w->now_ms - MIN(w->now_ms, rng_below(&w->rng, 100)) + TTL_MS - MARGIN_MS;
    x->renew_ms = w->now_ms + TTL_MS / 4;
    if (x->armed)
        x->fence_deadline_ms = x->deadline_ms;
}

static void look(struct world *w, struct node *x)
{
    if (!x->isolated && world_chance(w, 700)) {
        x->mirror = w->store;
        x->mirror_ms = w->now_ms;
        x->mirrored = true;
        x->dcs_lost_ms = 0;
        x->txn_unknown = false;
    }
    if (x->mirrored && w->now_ms > x->mirror_ms + 500) {
        x->mirrored = false;
        x->dcs_lost_ms = w->now_ms;
    }
    if (x->mirror.has_leader && x->mirror.leader.token != x->leader_token) {
        x->leader_token = x->mirror.leader.token;
        x->leader_ms = w->now_ms;
    }
    if (!x->mirrored || x->mirror.has_leader)
        x->lost_ms = 0;
    else if (x->lost_ms == 0)
        x->lost_ms = w->now_ms;
}

static void see_senders(const struct world *w, const struct node *x, struct view_pg *pg)
{
    for (size_t i = 0; i < w->n; i++) {
        const struct node *s = &w->node[i];
        if (!s->pg.streaming || &w->node[s->pg.upstream] != x)
            continue;
        struct view_walsender *out = &pg->senders[pg->senders_n++];
        (void)memcpy(out->incarnation, s->data.incarnation, sizeof s->data.incarnation);
        (void)memcpy(out->name, s->name, sizeof out->name);
        out->streaming = true;
        out->flush_lsn = pg_lsn(s->data.n);
    }
}

static void see_pg(const struct world *w, const struct node *x, struct view_pg *pg)
{
    const struct data *d = &x->data;
    pg->data = d->state;
    pg->proc = x->pg.proc;
    if (d->state == PG_DATA_EMPTY)
        return;
    pg->system_id = 77;
    (void)memcpy(pg->incarnation, d->incarnation, sizeof pg->incarnation);
    (void)memcpy(pg->lineage, d->lineage, sizeof pg->lineage);
    pg->standby_signal = d->standby_signal;
    pg->in_recovery = x->pg.proc != PG_PROC_STOPPED && x->pg.in_recovery;
    pg->accepts = x->pg.proc == PG_PROC_RUNNING;
    pg->crashed = x->pg.crashed;
    pg->clean = d->clean;
    pg->timeline = data_timeline(d);
    pg->lsn = pg->replay_lsn = pg_lsn(d->n);
    pg->shutdown_lsn = x->pg.proc == PG_PROC_STOPPED && d->clean && !d->standby_signal
                           ? pg_lsn(d->shutdown_n)
                           : 0;
    pg->recovery_ms = 100;
    if (x->pg.upstream >= 0)
        (void)memcpy(pg->upstream, w->node[x->pg.upstream].name, sizeof pg->upstream);
    pg->walreceiver = pg->streaming = x->pg.streaming;
    pg->stuck = x->pg.stuck;
    pg->follow_token = d->follow_token;
    pg->sealed_token = d->sealed_token;
    pg->sealed_lsn = pg_lsn(d->sealed_n);
    pg->sealed_timeline = d->sealed_timeline;
    pg->roles_ready = x->pg.roles;
    pg->checkpointed = x->pg.checkpointed;
    if (d->tl_n > 1) {
        pg->parent = d->tl[d->tl_n - 2].id;
        pg->switch_lsn = pg_lsn(d->tl[d->tl_n - 1].start);
    }
    pg->set = x->pg.set;
    pg->set_known = x->pg.set_known;
    pg->set_confirmed = x->pg.confirmed;
    (void)memcpy(pg->old, x->pg.old, sizeof pg->old);
    pg->old_n = x->pg.old_n;
    if (pg_writable(x))
        see_senders(w, x, pg);
}

/* As the engine does it: what the hand-over to this node has replaced. */
static void note_handover(struct node *x)
{
    const struct store *s = &x->mirror;
    if (!s->has_leader || strcmp(s->leader.name, x->name) != 0 || s->leader.shutdown_lsn == 0 ||
        s->leader.timeline != 0 || s->leader.token <= x->handover_token)
        return;
    x->handover_token = s->leader.token;
    x->has_sync_before = s->sync.token == s->leader.token &&
                         s->sync_before.token + 1 == s->leader.token &&
                         !s->sync_before.disarmed;
    x->sync_before = s->sync_before;
}

static void build_view(const struct world *w, const struct node *x, struct view *v)
{
    const struct store *s = &x->mirror;
    (void)memset(v, 0, sizeof *v);
    v->now_ms = w->now_ms;
    (void)memcpy(v->self, x->name, sizeof v->self);
    v->dcs_ready = x->mirrored;
    v->dcs_lost_ms = x->dcs_lost_ms;
    v->revision = s->revision;
    v->lost_ms = x->lost_ms;
    v->txn_pending = x->txn.active;
    v->txn_unknown = x->txn_unknown;
    v->config = w->config;
    v->config.pause = s->pause;
    v->has_initialize = s->has_initialize;
    v->initialize = s->initialize;
    v->initialize_leased = s->initialize_leased;
    v->has_leader = s->has_leader;
    if (s->has_leader)
        v->leader = s->leader, v->leader_lease = s->leader_lease;
    v->leader_ms = x->leader_ms;
    v->has_sync = s->has_sync;
    v->sync = s->sync;
    v->sync_mod_revision = s->sync_rev;
    v->has_failover = s->has_failover;
    v->failover = s->failover;
    v->failover_mod_revision = s->failover_rev;
    (void)memcpy(v->history, s->history, sizeof v->history);
    v->history_n = s->history_n;
    for (size_t i = 0; i < w->n; i++) {
        if (s->member_lease[i] != 0)
            v->members[v->members_n++] = s->members[i];
        if (s->seal_rev[i] != 0) {
            v->seal_mod_revisions[v->seals_n] = s->seal_rev[i];
            v->seals[v->seals_n++] = s->seals[i];
        }
    }
    v->lease = x->lease;
    v->deadline_ms = x->deadline_ms;
    v->armed = x->armed;
    v->tilt = x->was_paused;
    v->stopping = x->stopping;
    v->can_bootstrap = true;
    v->pre_promote = w->hooks;
    v->permitted_token = x->permitted_token;
    v->refused_token = x->refused_token;
    v->busy = x->busy;
    v->has_sync_before = x->has_sync_before;
    v->sync_before = x->sync_before;
    see_pg(w, x, &v->pg);
    v->pg.sick = x->sick;
    v->pg.failing_ms = x->failing_ms;
    (void)memcpy(v->pg.sick_why, "sick", sizeof "sick");
}

static void publish(struct world *w, struct node *x)
{
    size_t at = (size_t)(x - w->node);
    if (x->isolated || w->now_ms < x->publish_ms || !store_lease_alive(w, x->lease))
        return;
    struct member_rec *m = &w->store.members[at];
    (void)memset(m, 0, sizeof *m);
    (void)memcpy(m->name, x->name, sizeof m->name);
    if (x->data.state != PG_DATA_EMPTY)
        (void)memcpy(m->incarnation, x->data.incarnation, sizeof m->incarnation);
    bool running = x->pg.proc == PG_PROC_RUNNING;
    (void)snprintf(m->role, sizeof m->role, "%s", pg_writable(x) ? "primary" : "replica");
    (void)snprintf(m->state, sizeof m->state, "%s",
                   !running          ? "stopped"
                   : x->pg.streaming ? "streaming"
                                     : "running");
    m->timeline = data_timeline(&x->data);
    m->lsn = m->replay_lsn = pg_lsn(x->data.n);
    m->lease = x->lease;
    m->nosync = x->sick >= SICK_HUNG;
    (void)snprintf(m->sick, sizeof m->sick, "%s", sick_name(x->sick));
    w->store.member_lease[at] = x->lease;
    w->store.revision++;
    x->publish_ms = w->now_ms + 10 + rng_below(&w->rng, 60);
}

/* ---- transactions ---- */

static void begin_txn(struct world *w, struct node *x, const struct view *v,
                      const struct plan *p)
{
    struct pending_txn *t = &x->txn;
    (void)memset(t, 0, sizeof *t);
    t->active = true;
    t->plan = *p;
    t->lease = x->lease;
    t->sync_rev = v->sync_mod_revision;
    t->failover_rev = v->failover_mod_revision;
    for (size_t i = 0; i < p->counted_n; i++) {
        t->seal_rev[i] = v->seal_mod_revisions[p->counted[i]];
        (void)memcpy(t->counted[i], v->seals[p->counted[i]].name, sizeof t->counted[i]);
    }
    /* Some are under way for long: they land in the next life of the world. */
    t->apply_ms = w->now_ms + rng_below(&w->rng, world_chance(w, 30) ? 3000 : 30);
    t->reply_ms = t->apply_ms + rng_below(&w->rng, 30);
}

static void txn_tick(struct world *w, struct node *x)
{
    struct pending_txn *t = &x->txn;
    if (!t->active)
        return;
    if (!t->applied && w->now_ms >= t->apply_ms) {
        t->applied = true;
        t->ok = !(x->isolated && world_chance(w, 900)) && store_apply(w, x, t);
    }
    bool late = w->now_ms > t->reply_ms + 300;
    if (!t->applied || w->now_ms < t->reply_ms || !x->alive || x->paused ||
        (x->isolated && !late))
        return;
    t->active = false;
    if (x->isolated) {
        x->txn_unknown = true;
        return;
    }
    x->mirror = w->store; /* the reply carries a revision; the mirror waits for it */
    x->mirror_ms = w->now_ms;
    if (t->ok && t->plan.txn == TXN_ACQUIRE)
        /* sync_before: the record it compared with */
        x->has_sync_before = !x->sync_before.disarmed;
}

/* ---- actions ---- */

static bool still_right(const struct world *w, const struct node *x, const struct plan *p)
{
    if (!plan_action_destructive(p->action))
        return true;
    return !x->isolated && w->store.has_leader && w->store.leader.token == p->token;
}

static void begin_action(struct world *w, struct node *x, const struct plan *p)
{
    static const uint64_t longest_ms[ACTION_COUNT] = {
        [ACTION_INITDB] = 300,      [ACTION_START_PRIMARY] = 300, [ACTION_START_STANDBY] = 300,
        [ACTION_FOLLOW] = 30,       [ACTION_SEAL] = 200,          [ACTION_PROMOTE] = 200,
        [ACTION_CHECKPOINT] = 500,  [ACTION_STOP_FAST] = 400,     [ACTION_STOP_IMMEDIATE] = 50,
        [ACTION_REWIND] = 1000,     [ACTION_CLONE] = 1500,        [ACTION_SET_SYNC] = 20,
        [ACTION_ENSURE_ROLES] = 50, [ACTION_PRE_PROMOTE] = 500};
    if (p->action == ACTION_KILL) {
        pg_kill(w, x);
        (void)memset(&x->busy, 0, sizeof x->busy);
        x->done_at_ms = 0;
        return;
    }
    if (!still_right(w, x, p))
        return;
    if (p->action == ACTION_PROMOTE || p->action == ACTION_START_PRIMARY)
        x->has_sync_before = false;
    if (p->action == ACTION_CLONE || p->action == ACTION_REWIND)
        x->data.state = PG_DATA_BROKEN;
    x->doing = *p;
    x->busy.action = (uint64_t)p->action;
    x->busy.since_ms = w->now_ms;
    (void)memcpy(x->busy.target, p->target, sizeof x->busy.target);
    x->done_at_ms = w->now_ms + TICK_MS + rng_below(&w->rng, longest_ms[p->action]);
    if (p->action == ACTION_START_PRIMARY || p->action == ACTION_START_STANDBY)
        world_log(w, x, "starts");
}

static bool possible(struct world *w, const struct node *x, const struct plan *p)
{
    if (p->action == ACTION_CLONE || p->action == ACTION_REWIND) {
        const struct node *up = world_node(w, p->target);
        return pg_writable(up) && world_linked(w, x, up);
    }
    bool needs_pg = p->action == ACTION_SEAL || p->action == ACTION_PROMOTE ||
                    p->action == ACTION_FOLLOW || p->action == ACTION_CHECKPOINT ||
                    p->action == ACTION_SET_SYNC || p->action == ACTION_ENSURE_ROLES;
    return !needs_pg || x->pg.proc == PG_PROC_RUNNING;
}

static void end_action(struct world *w, struct node *x)
{
    if (x->busy.action == ACTION_NONE || w->now_ms < x->done_at_ms)
        return;
    /* A primary starts only under an armed fence. */
    bool fenced =
        (x->doing.action == ACTION_PROMOTE || x->doing.action == ACTION_START_PRIMARY) &&
        (!x->armed || w->now_ms >= x->fence_deadline_ms);
    bool ok = possible(w, x, &x->doing) && !fenced && !world_chance(w, 20);
    uint64_t action = x->busy.action;
    if (action == ACTION_PRE_PROMOTE) {
        ok = ok && !world_chance(w, 300);
        *(ok ? &x->permitted_token : &x->refused_token) = x->doing.token;
    }
    if (ok) {
        x->busy.done_action = action;
        x->busy.done_ms = w->now_ms;
        x->busy.failed = false;
        x->busy.failures = 0;
        if (x->doing.action == ACTION_PROMOTE || x->doing.action == ACTION_START_PRIMARY)
            world_log(w, x, "becomes primary, token %llu", (unsigned long long)x->doing.token);
        pg_effect(w, x, &x->doing);
    } else {
        x->busy.failures =
            x->busy.failed && x->busy.failed_action == action ? x->busy.failures + 1 : 1;
        x->busy.failed = true;
        x->busy.failed_action = action;
        x->busy.failed_ms = w->now_ms;
        if (x->doing.action == ACTION_SEAL)
            x->data.sealed_token = 0;
    }
    x->busy.action = ACTION_NONE;
}

static void arm(struct node *x, const struct view *v, const struct plan *p)
{
    bool recorded = v->config.pause && view_disarmed(v) && view_is_leader(v) && !v->tilt;
    x->disarmed = x->disarmed && pg_writable(x);
    if (p->arm && x->lease != 0 && view_lease_valid(v)) {
        x->armed = true;
        x->disarmed = false;
        x->fence_deadline_ms = x->deadline_ms;
    } else if (!p->arm && (!pg_writable(x) || recorded)) {
        x->armed = false;
        x->disarmed = recorded;
    }
}

static void execute(struct world *w, struct node *x, const struct view *v, const struct plan *p)
{
    if (strcmp(w->last_rule[x - w->node], p->rule) != 0)
        world_log(w, x, "rule %s: %s", p->rule, p->reason);
    (void)snprintf(w->last_rule[x - w->node], sizeof w->last_rule[0], "%s", p->rule);
    arm(x, v, p);
    if (p->cancel) {
        x->busy.action = ACTION_NONE;
        return;
    }
    if (p->txn != TXN_NONE) {
        begin_txn(w, x, v, p);
        if (p->txn == TXN_ACQUIRE)
            x->sync_before = v->sync;
    }
    if (p->action != ACTION_NONE)
        begin_action(w, x, p);
}

void agent_tick(struct world *w, struct node *x)
{
    static struct view v;
    struct plan p;
    struct errmsg e;
    txn_tick(w, x);
    if (!x->alive && w->now_ms >= x->back_ms)
        agent_start(w, x, true);
    if (!x->alive || x->paused)
        return;
    keep_lease(w, x);
    look(w, x);
    publish(w, x);
    end_action(w, x);
    note_handover(x);
    build_view(w, x, &v);
    decide(&v, &p);
    if (plan_check(&v, &p, &e) != ERR_OK) {
        world_violation(w, "%s: %s", x->name, e.text);
        return;
    }
    x->was_paused = false;
    x->withhold = p.withhold;
    execute(w, x, &v, &p);
    if (x->stopping && x->pg.proc == PG_PROC_STOPPED && !view_leader_named(&v) &&
        !x->txn.active) {
        x->alive = false;
        w->lease_end_ms[x->lease] = x->lease == 0 ? 0 : w->now_ms;
        x->back_ms = w->now_ms + 500;
    }
}
