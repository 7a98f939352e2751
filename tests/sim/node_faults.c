/* What goes wrong, and when. Every fault ends by itself; at the end of the faulty time everything is put
 * right, and the cluster has a bounded time to settle. */
#include <stdio.h>

#include "base/assert.h"
#include "base/mem.h"
#include "tests/sim/node_world.h"

enum {
    WARM_MS = 9000,
    FAULTS_MS = 36000,
    RUSH_MS = 72000,
    SETTLE_MS = 3 * 5000 + 20000,
    HASH_MS = 4000
};

typedef void fault_fn(struct sim *w, struct sim_node *x, uint64_t for_us);

uint64_t faults_left(const struct sim *w, uint64_t us)
{
    return w->quiet_us > w->now_us ? MIN(us, w->quiet_us - w->now_us) : 0;
}

bool faults_next(struct sim *w)
{
    uint64_t n = w->faults++;
    bool wanted = n >= SIM_FAULTS || !w->without[n];
    sim_note(w, NULL, "fault %llu%s", (unsigned long long)n, wanted ? "" : " is left out");
    return wanted;
}

struct sim_node *faults_primary(struct sim *w)
{
    for (size_t i = 0; i < w->n; i++)
        if (pg_writable(&w->node[i]))
            return &w->node[i];
    return NULL;
}

static struct sim_node *any_other(struct sim *w, const struct sim_node *x)
{
    size_t i = sim_random(w, w->n - 1);
    return &w->node[i >= x->id - 1 ? i + 1 : i];
}

/* ---- the network ---- */

static void on_reach(struct sim *w, struct sim_node *none, void *arg)
{
    (void)none;
    (void)arg;
    memset(w->cut, 0, sizeof w->cut);
    sim_note(w, NULL, "the network heals");
    net_changed(w);
}

static void cut_for(struct sim *w, uint64_t for_us)
{
    net_changed(w);
    sim_at(w, NULL, WORLD, for_us, "reach", on_reach, NULL);
}

static void isolate(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    sim_note(w, x, "isolated for %.1f s", (double)for_us / 1e6);
    for (size_t i = 0; i < w->n; i++)
        w->cut[x->id - 1][i] = w->cut[i][x->id - 1] = i != x->id - 1;
    cut_for(w, for_us);
}

static void one_way(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    bool out = sim_chance(w, 500);
    sim_note(w, x, "%s for %.1f s", out ? "not heard" : "hears nobody", (double)for_us / 1e6);
    for (size_t i = 0; i < w->n; i++)
        if (i != x->id - 1)
            *(out ? &w->cut[x->id - 1][i] : &w->cut[i][x->id - 1]) = true;
    cut_for(w, for_us);
}

/* Everybody still reaches a majority, and not everybody everybody. */
static void ring(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    struct sim_node *y = any_other(w, x);
    sim_note(w, x, "cut from %s for %.1f s", y->name, (double)for_us / 1e6);
    w->cut[x->id - 1][y->id - 1] = w->cut[y->id - 1][x->id - 1] = true;
    cut_for(w, for_us);
}

static void on_calm(struct sim *w, struct sim_node *none, void *arg)
{
    (void)none;
    (void)arg;
    w->loss = w->duplicate = w->reorder = 0;
    w->late = w->scenario == SCENARIO_LATE && w->now_us < w->quiet_us ? 50 : 0;
}

static void bad_network(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    (void)x;
    w->loss = (unsigned)sim_random(w, 100);
    w->duplicate = (unsigned)sim_random(w, 50);
    w->reorder = (unsigned)sim_random(w, 200);
    sim_note(w, NULL, "bad network for %.1f s", (double)for_us / 1e6);
    sim_at(w, NULL, WORLD, for_us, "calm", on_calm, NULL);
}

/* Requests on their way to the leader of Raft arrive when the world has moved on. */
static void late_calls(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    (void)x;
    w->late = (unsigned)sim_between(w, 200, 700);
    sim_note(w, NULL, "calls come late for %.1f s", (double)for_us / 1e6);
    sim_at(w, NULL, WORLD, for_us, "calm", on_calm, NULL);
}

static void break_client(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    (void)w;
    (void)for_us;
    client_break(x);
}

/* ---- machines and processes ---- */

static void on_power(struct sim *w, struct sim_node *none, void *arg)
{
    struct sim_node *x = &w->node[*(uint64_t *)arg - 1];
    (void)none;
    if (!x->machine_down)
        return;
    x->machine_down = false;
    daemon_start(x);
}

void fault_machine(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    if (x->machine_down)
        return;
    sim_note(w, x, "loses power for %.1f s", (double)for_us / 1e6);
    x->machine_down = true;
    x->frozen_until_us = 0;
    clock_set_rate(x, x->true_rate_ppm);
    daemon_end(x, true);
    pg_gone(x);
    fence_die(x);
    net_changed(w);
    sim_at(w, NULL, WORLD, for_us, "power", on_power, mem_dup(&x->id, sizeof x->id));
}

static void on_outage(struct sim *w, struct sim_node *none, void *arg)
{
    struct sim_node *primary = faults_primary(w);
    (void)none;
    if (primary == NULL || w->now_us >= w->quiet_us)
        return;
    fault_machine(w, primary, faults_left(w, sim_between(w, 8 * SEC, 14 * SEC)));
    fault_machine(w, &w->node[*(uint64_t *)arg - 1],
                  faults_left(w, sim_between(w, 300 * MS, 4 * SEC)));
}

/* The primary and the one standby that has everything lose power; that one is back first. */
static void outage(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    struct sim_node *primary = faults_primary(w);
    if (primary == NULL)
        return;
    if (x == primary)
        x = any_other(w, x);
    sim_note(w, x, "alone is reached by %s for %.1f s", primary->name, (double)for_us / 1e6);
    for (size_t i = 0; i < w->n; i++)
        if (&w->node[i] != x && &w->node[i] != primary)
            w->cut[primary->id - 1][i] = w->cut[i][primary->id - 1] = true;
    cut_for(w, for_us + SEC); /* what is on its way is lost with its sender */
    sim_at(w, NULL, WORLD, for_us, "outage", on_outage, mem_dup(&x->id, sizeof x->id));
}

void fault_daemon(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    (void)w;
    if (!x->up[DAEMON])
        return;
    daemon_end(x, false);
    daemon_back(x, for_us);
}

static void restart_daemon(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    if (!x->up[DAEMON])
        return;
    engine_restart(x->engine);
    fault_daemon(w, x, MIN(for_us, 500 * MS));
}

static void end_daemon(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    (void)for_us;
    if (!x->up[DAEMON] || x->paused_until_us[DAEMON] > w->now_us)
        return;
    sim_note(w, x, "told to end");
    engine_stop(x->engine);
}

static void pause_daemon(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    sim_note(w, x, "daemon frozen for %.1f s", (double)for_us / 1e6);
    domain_pause(x, DAEMON, for_us);
    net_changed(w);
}

static void pause_fence(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    sim_note(w, x, "daemon and fence frozen for %.1f s", (double)for_us / 1e6);
    domain_pause(x, DAEMON, for_us);
    domain_pause(x, FENCE, for_us);
    x->pg.unfenced = true;
    net_changed(w);
}

static void on_thaw(struct sim *w, struct sim_node *none, void *arg)
{
    struct sim_node *x = &w->node[*(uint64_t *)arg - 1];
    (void)none;
    if (w->now_us >= x->frozen_until_us) /* not frozen again meanwhile */
        clock_set_rate(x, x->true_rate_ppm);
}

static void pause_machine(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    bool clock = sim_chance(w, 500);
    if (x->machine_down)
        return;
    x->frozen_until_us = MAX(x->frozen_until_us, w->now_us + for_us);
    sim_note(w, x, "machine frozen for %.1f s, its clock %s", (double)for_us / 1e6,
             clock ? "runs on" : "stands");
    for (int d = 0; d < DOMAINS; d++)
        domain_pause(x, (enum domain)d, for_us);
    x->pg.unfenced = true;
    if (!clock) {
        clock_set_rate(x, 0);
        x->doubt_until_us = x->frozen_until_us + w->longest_ttl_s * SEC;
    }
    sim_at(w, NULL, WORLD, for_us, "thaw", on_thaw, mem_dup(&x->id, sizeof x->id));
    net_changed(w);
}

void fault_postmaster(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    (void)for_us;
    if (!x->up[POSTGRES])
        return;
    sim_note(w, x, "the postmaster is killed");
    pg_kill(x, sim_between(w, 1 * MS, 20 * MS), false, false);
}

void fault_fence(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    (void)w;
    (void)for_us;
    fence_die(x);
}

static void slow_disk(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    x->slow_disk_us = sim_between(w, 20 * MS, 800 * MS);
    x->slow_until_us = w->now_us + for_us;
    sim_note(w, x, "slow disk, up to %.0f ms, for %.1f s", (double)x->slow_disk_us / 1e3,
             (double)for_us / 1e6);
}

static void on_unheld(struct sim *w, struct sim_node *x, void *arg)
{
    (void)w;
    (void)arg;
    x->pg.held = false;
    if (!x->pg.local)
        x->pg.replayed = x->data.n;
    if (x->pg.in_recovery && x->pg.upstream != x->data.upstream) {
        x->pg.upstream = x->data.upstream;
        wal_cut(x);
    }
    wal_wake(x);
}

/* A report on the standby: replay waits, and so does the reload of the startup process. */
static void hold_replay(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    if (!x->up[POSTGRES] || !x->pg.in_recovery || x->pg.held)
        return;
    sim_note(w, x, "replay is held up for %.1f s", (double)for_us / 1e6);
    x->pg.held = true;
    sim_at(w, x, POSTGRES, for_us, "unheld", on_unheld, NULL);
}

/* ---- a late transaction meets the worst moment ---- */

/* The primary goes on alone ... */
static void on_standbys_down(struct sim *w, struct sim_node *none, void *arg)
{
    struct sim_node *primary = faults_primary(w);
    (void)none;
    (void)arg;
    for (size_t i = 0; i < w->n && primary != NULL && w->now_us < w->quiet_us; i++)
        if (&w->node[i] != primary)
            fault_postmaster(w, &w->node[i], 0);
}

/* ... and dies. */
static void on_strike(struct sim *w, struct sim_node *none, void *arg)
{
    struct sim_node *x = faults_primary(w);
    (void)none;
    (void)arg;
    if (x == NULL || w->now_us >= w->quiet_us)
        return;
    fault_machine(w, x, faults_left(w, 16 * SEC));
}

/* When it counts after all, the mistake is put right in milliseconds, and it matters only when those it names have
 * not got everything. */
uint64_t faults_late(struct sim *w)
{
    if (w->scenario != SCENARIO_LATE || w->now_us < WARM_MS * MS || w->now_us >= w->quiet_us ||
        w->now_us < w->calm_until_us || !sim_chance(w, 500))
        return 0;
    uint64_t in_us = sim_between(w, 3 * SEC, 7 * SEC);
    w->calm_until_us = w->now_us + in_us + 12 * SEC; /* others are to lead meanwhile */
    for (uint64_t before_us = 100 * MS; before_us <= 2500 * MS; before_us += 100 * MS)
        sim_at(w, NULL, WORLD, in_us - before_us, "standbys down", on_standbys_down, NULL);
    sim_at(w, NULL, WORLD, in_us + sim_random(w, 8 * MS), "strike", on_strike, NULL);
    return in_us;
}

/* ---- the schedule ---- */

struct kind {
    fault_fn *fn;
    unsigned weight[SCENARIO_COUNT];
    uint64_t from_ms, to_ms;
    bool likes_primary, inside; /* inside: not of a machine that stands still */
};

static const struct kind kinds[] = {
    /* mix kill daemons fence late orders sick rush outage */
    {isolate, {6, 0, 0, 8, 5, 3, 2, 1}, 300, 14000, true, false},
    {one_way, {4, 0, 0, 6, 2, 2, 1, 1}, 300, 12000, true, false},
    {ring, {4, 0, 0, 4, 2, 1, 0, 0}, 300, 12000, true, false},
    {bad_network, {4, 0, 0, 2, 0, 1, 1, 1}, 500, 8000, false, false},
    {late_calls, {4, 0, 0, 2, 0, 2, 0, 0}, 2000, 20000, false, false},
    {break_client, {4, 0, 2, 2, 4, 2, 2, 2}, 0, 0, true, false},
    {fault_machine, {6, 0, 0, 6, 5, 3, 3, 0}, 500, 12000, true, false},
    {outage, {2, 0, 0, 1, 0, 0, 0, 0, 10}, 50, 500, false, false},
    {fault_daemon, {5, 0, 6, 6, 6, 4, 4, 4}, 50, 9000, true, true},
    {restart_daemon, {3, 0, 3, 1, 0, 2, 2, 1}, 50, 500, true, true},
    {end_daemon, {3, 0, 0, 1, 3, 2, 1, 0}, 0, 0, true, true},
    {pause_daemon, {5, 0, 0, 6, 3, 3, 2, 1}, 300, 12000, true, true},
    {pause_fence, {6, 0, 0, 0, 0, 1, 0, 0}, 300, 14000, true, true},
    {pause_machine, {5, 0, 0, 0, 0, 2, 0, 0}, 300, 14000, true, false},
    {fault_postmaster, {5, 0, 0, 4, 16, 4, 4, 4}, 0, 0, true, true},
    {fault_fence, {3, 0, 0, 2, 3, 2, 1, 1}, 0, 0, true, true},
    {slow_disk, {4, 0, 0, 2, 2, 1, 1, 1}, 500, 8000, false, false},
    {hold_replay, {4, 0, 0, 2, 0, 2, 1, 1}, 500, 10000, false, true},
    {order_switchover, {5, 0, 0, 3, 6, 8, 2, 0}, 0, 0, false, false},
    {order_failover, {1, 0, 0, 1, 0, 4, 0, 0}, 0, 0, false, false},
    {order_mode, {3, 0, 0, 0, 0, 2, 0, 1}, 0, 0, false, false},
    {order_ttl, {3, 0, 0, 5, 0, 5, 1, 0}, 0, 0, false, false},
    {order_pause, {1, 0, 0, 1, 0, 8, 1, 0}, 500, 12000, true, false},
    {order_request, {3, 0, 0, 2, 0, 14, 0, 0}, 500, 8000, true, false},
    {fault_illness, {0, 0, 0, 0, 0, 0, 40, 0}, 2000, 25000, true, false},
};

/* Each seed has kinds of its own, and likes some of them more: what needs many of one kind, or none of
 * another, is not found by the mean of all. */
static void choose_swarm(struct sim *w)
{
    bool swarm = w->scenario == SCENARIO_MIX || w->scenario == SCENARIO_ORDERS;
    unsigned all = 0;
    _Static_assert(ARRAY_LEN(kinds) <= SIM_KINDS, "no room for the weights");
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (kinds[i].weight[w->scenario] == 0)
            continue;
        unsigned times = !swarm ? 1 : sim_chance(w, 400) ? 0 : (unsigned)sim_between(w, 1, 4);
        w->weight[i] = kinds[i].weight[w->scenario] * times;
        all += w->weight[i];
    }
    for (size_t i = 0; i < ARRAY_LEN(kinds) && all == 0; i++)
        w->weight[i] = kinds[i].weight[w->scenario];
}

static const struct kind *choose(struct sim *w)
{
    unsigned all = 0;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        all += w->weight[i];
    uint64_t at = sim_random(w, all);
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (at < w->weight[i])
            return &kinds[i];
        at -= w->weight[i];
    }
    UNREACHABLE();
}

static void on_fault(struct sim *w, struct sim_node *none, void *arg)
{
    (void)none;
    (void)arg;
    if (w->now_us >= w->quiet_us)
        return;
    if (w->now_us < w->calm_until_us) {
        sim_at(w, NULL, WORLD, w->calm_until_us - w->now_us, "fault", on_fault, NULL);
        return;
    }
    bool daemons = w->scenario == SCENARIO_DAEMONS;
    const struct kind *k = choose(w);
    struct sim_node *x = &w->node[sim_random(w, w->n)];
    if (k->likes_primary && sim_chance(w, 500) && faults_primary(w) != NULL)
        x = faults_primary(w);
    uint64_t to_ms = daemons ? MIN(k->to_ms, (uint64_t)700) : k->to_ms;
    uint64_t for_us = faults_left(w, sim_between(w, k->from_ms * MS, to_ms * MS));
    if ((!k->inside || x->frozen_until_us <= w->now_us) && faults_next(w))
        k->fn(w, x, for_us);
    bool rush = w->scenario == SCENARIO_RUSH; /* has an order of its own */
    uint64_t next_us = daemons || rush      ? sim_between(w, 6 * SEC, 9 * SEC)
                       : sim_chance(w, 300) ? sim_random(w, 200 * MS)
                                            : sim_random(w, 5 * SEC);
    sim_at(w, NULL, WORLD, next_us, "fault", on_fault, NULL);
}

static void on_settled(struct sim *w, struct sim_node *none, void *arg)
{
    const char *why;
    (void)none;
    (void)arg;
    bool now = check_settled(w, &why);
    if (now && w->settled) {
        w->end_us = w->now_us; /* and it was so a second ago */
        return;
    }
    w->settled = now;
    orders_end(w); /* again: what was asked may not have arrived */
    sim_at(w, NULL, WORLD, SEC, "settled?", on_settled, NULL);
}

static void on_quiet(struct sim *w, struct sim_node *none, void *arg)
{
    sim_note(w, NULL, "---- quiet ----");
    on_reach(w, none, arg);
    on_calm(w, none, arg);
    for (size_t i = 0; i < w->n; i++) {
        struct sim_node *x = &w->node[i];
        x->slow_until_us = 0;
        sick_heal(x);
        if (!x->up[DAEMON]) {
            x->machine_down = false;
            daemon_start(x);
        }
    }
    sim_at(w, NULL, WORLD, 2 * SEC, "settled?", on_settled, NULL);
}

static void on_hash(struct sim *w, struct sim_node *none, void *arg)
{
    (void)none;
    (void)arg;
    check_states(w);
    sim_at(w, NULL, WORLD, HASH_MS * MS, "hash", on_hash, NULL);
}

/* ---- the primary's machine dies ---- */

static void on_gap(struct sim *w, struct sim_node *none, void *arg)
{
    (void)none;
    (void)arg;
    uint64_t bound_us = w->config.ttl * SEC + 500 * MS;
    if (w->gap_us > bound_us)
        sim_violation(
            w,
            "no commit was acknowledged for %.3f s (from %.3f) when a node died, bound %.3f s",
            (double)w->gap_us / 1e6, (double)w->gap_from_us / 1e6, (double)bound_us / 1e6);
}

static void on_kill_primary(struct sim *w, struct sim_node *none, void *arg)
{
    struct sim_node *x = faults_primary(w);
    const char *why;
    (void)none;
    (void)arg;
    if (x == NULL || !check_settled(w, &why)) {
        sim_violation(w, "not settled before the kill: %s",
                      x == NULL ? "nobody is writable" : why);
        return;
    }
    w->gap_us = 0;
    fault_machine(w, x, faults_left(w, 12 * SEC));
    sim_at(w, NULL, WORLD, 11 * SEC, "gap", on_gap, NULL);
}

void faults_begin(struct sim *w)
{
    bool kill = w->scenario == SCENARIO_KILL;
    if (!kill)
        choose_swarm(w);
    uint64_t faulty_ms = kill ? 22000 : w->scenario == SCENARIO_RUSH ? RUSH_MS : FAULTS_MS;
    w->quiet_us = (WARM_MS + faulty_ms) * MS;
    w->end_us = w->quiet_us + SETTLE_MS * MS;
    if (kill)
        sim_at(w, NULL, WORLD, WARM_MS * MS + sim_random(w, 6 * SEC), "kill", on_kill_primary,
               NULL);
    else
        sim_at(w, NULL, WORLD, WARM_MS * MS + sim_random(w, SEC), "fault", on_fault, NULL);
    if (w->scenario == SCENARIO_RUSH)
        rush_begin(w);
    sim_at(w, NULL, WORLD, WARM_MS * MS, "calm", on_calm, NULL);
    sim_at(w, NULL, WORLD, w->quiet_us, "quiet", on_quiet, NULL);
    sim_at(w, NULL, WORLD, HASH_MS * MS, "hash", on_hash, NULL);
}
