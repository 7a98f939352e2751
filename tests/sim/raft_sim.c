/* Seeded simulation of a whole cluster of Raft cores.
 *
 *     raft_sim --seeds A-B      runs them, prints one line
 *     raft_sim --seed N         runs one, prints its event hash
 *     raft_sim --repeat N       runs one twice and compares the hashes
 *
 * RAFT_WORLD_TRACE=1 in the environment prints every event. A violation prints the seed and the last
 * 200 events, and aborts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/str.h"
#include "tests/sim/raft_world.h"

static const size_t VOTERS_MIN = 2;
static const size_t VOTERS_MAX = 5;

enum { CHAOS_MS = 12000, CALM_MS = 40000 };

struct sim {
    struct world *w;
    uint64_t submitted;
    uint64_t accepted;
    bool churn;   /* membership changes */
    bool crashes; /* of whole nodes */
    bool big;     /* entries that split frames */
};

static bool chance(struct sim *s, unsigned thousandths)
{
    return world_random(s->w, 1000) < thousandths;
}

static uint64_t any_node(struct sim *s)
{
    return 1 + world_random(s->w, s->w->n_nodes);
}

/* ---- clients ---- */

/* To everybody who believes to lead: also to those who no longer do. */
static void submit(struct sim *s)
{
    static uint8_t data[600 * 1024];
    for (uint64_t id = 1; id <= s->w->n_nodes; id++) {
        struct world_node *n = &s->w->nodes[id];
        if (!n->up || raft_core_state(n->core) != RAFT_CORE_LEADER)
            continue;
        uint64_t burst = 1 + world_random(s->w, 8);
        while (burst-- > 0) {
            size_t size = s->big && chance(s, 20) ? 200 * 1024 + world_random(s->w, 400 * 1024)
                                                  : world_random(s->w, 40);
            s->submitted++;
            memset(data, (int)(s->submitted & 0xff), MIN(size, (size_t)4096));
            memcpy(data, &s->submitted, MIN(size, sizeof s->submitted));
            uint64_t index;
            enum err r = world_submit(s->w, id, slice_of(data, size), &index);
            s->accepted += r == ERR_OK;
        }
    }
}

/* ---- faults ---- */

static size_t voters_of(const struct raft_membership *m)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n; i++)
        n += m->servers[i].role == RAFT_ROLE_VOTER;
    return n;
}

static bool in(const struct raft_membership *m, uint64_t id)
{
    for (size_t i = 0; i < m->n; i++) {
        if (m->servers[i].id == id)
            return true;
    }
    return false;
}

static void change_membership(struct sim *s)
{
    struct world *w = s->w;
    struct world_node *l = world_leader(w);
    if (l == NULL)
        return;
    const struct raft_membership *m = raft_core_membership(l->core);
    size_t voters = voters_of(m);
    const struct raft_server *pick = &m->servers[world_random(w, m->n)];
    uint64_t id = pick->id;
    enum raft_role role = pick->role;
    switch (world_random(w, 4)) {
    case 0: /* a new learner, or one that joined and was not taken */
        if (m->n >= 7)
            return;
        id = 1;
        while (id <= w->n_nodes &&
               (in(m, id) || in(&w->membership, id) || w->nodes[id].removed || id <= 5))
            id++;
        if (id > w->n_nodes && w->n_nodes == WORLD_NODES_MAX)
            return;
        if (id > w->n_nodes)
            id = world_join(w);
        (void)world_change(w, l->id, id, RAFT_ROLE_LEARNER, false);
        return;
    case 1: /* promotion */
        if (role == RAFT_ROLE_LEARNER && voters < VOTERS_MAX)
            (void)world_change(w, l->id, id, RAFT_ROLE_VOTER, false);
        return;
    case 2: /* demotion */
        if (role == RAFT_ROLE_VOTER && voters > (chance(s, 200) ? 1 : VOTERS_MIN))
            (void)world_change(w, l->id, id, RAFT_ROLE_LEARNER, false);
        return;
    default:
        if (role != RAFT_ROLE_VOTER || voters > VOTERS_MIN)
            (void)world_change(w, l->id, id, role, true);
        return;
    }
}

/* Nodes that are out of the committed membership for good are sometimes switched off. */
static void retire(struct sim *s)
{
    struct world *w = s->w;
    uint64_t id = any_node(s);
    struct world_node *n = &w->nodes[id];
    if (n->removed || n->membership.n == 0 || in(&w->membership, id) ||
        w->membership.index <= n->membership.index)
        return;
    struct world_node *l = world_leader(w);
    if (l != NULL && in(raft_core_membership(l->core), id))
        return;
    world_stop(w, id, true);
    n->removed = true;
}

static void crash_or_start(struct sim *s)
{
    struct world_node *n = &s->w->nodes[any_node(s)];
    if (n->removed)
        return;
    if (n->up)
        world_stop(s->w, n->id, true);
    else
        world_start(s->w, n->id);
}

static void power_cut(struct sim *s)
{
    for (uint64_t id = 1; id <= s->w->n_nodes; id++)
        world_stop(s->w, id, true);
    for (uint64_t id = 1; id <= s->w->n_nodes; id++) {
        if (!s->w->nodes[id].removed)
            world_start(s->w, id);
    }
}

static void partition(struct sim *s)
{
    struct world *w = s->w;
    world_heal(w);
    uint64_t mask = rng_u64(&w->rng);
    bool one_way = chance(s, 200);
    for (uint64_t a = 1; a <= WORLD_NODES_MAX; a++) {
        for (uint64_t b = 1; b <= WORLD_NODES_MAX; b++) {
            bool apart = ((mask >> a) & 1) != ((mask >> b) & 1);
            w->cut[a][b] = apart && (!one_way || ((mask >> a) & 1));
        }
    }
}

static void fault(struct sim *s)
{
    struct world *w = s->w;
    struct world_node *n = &w->nodes[any_node(s)];
    switch (world_random(w, 12)) {
    case 0:
        partition(s);
        break;
    case 1:
    case 2:
        world_heal(w);
        break;
    case 3:
        world_isolate(w, n->id, true);
        break;
    case 4:
    case 5:
        if (s->crashes)
            crash_or_start(s);
        break;
    case 6:
        n->paused_until_ms = w->now_ms + world_random(w, 3 * w->o.election_ms);
        break;
    case 7:
        n->disk_slow_ms = chance(s, 500) ? 0 : world_random(w, 2 * w->o.election_ms);
        break;
    case 8: {
        struct world_node *l = world_leader(w);
        if (l != NULL)
            world_transfer(w, l->id, chance(s, 500) ? 0 : n->id);
        break;
    }
    case 9:
        if (s->crashes && chance(s, 100))
            power_cut(s);
        break;
    default:
        if (s->churn)
            change_membership(s);
        retire(s);
    }
}

/* ---- the end: everything heals, everybody agrees ---- */

static bool converged(struct world *w, void *arg)
{
    (void)arg;
    struct world_node *l = world_leader(w);
    if (l == NULL || raft_core_change_pending(l->core) ||
        raft_core_commit_index(l->core) != raft_core_last_index(l->core) ||
        raft_core_commit_index(l->core) < raft_core_term_start(l->core))
        return false;
    const struct raft_membership *m = raft_core_membership(l->core);
    for (size_t i = 0; i < m->n; i++) {
        struct world_node *n = &w->nodes[m->servers[i].id];
        if (n->removed)
            continue; /* a learner whose addition was committed after it was given up */
        if (raft_core_applied_index(n->core) != raft_core_last_index(l->core) ||
            raft_core_stored_index(n->core) != raft_core_last_index(l->core) ||
            raft_core_leader(n->core) != l->id)
            return false;
    }
    return true;
}

static void calm(struct sim *s)
{
    struct world *w = s->w;
    world_heal(w);
    w->o.loss = w->o.duplicate = w->o.reorder = 0;
    for (uint64_t id = 1; id <= w->n_nodes; id++) {
        struct world_node *n = &w->nodes[id];
        n->disk_slow_ms = 0;
        n->paused_until_ms = 0;
        if (!n->up && !n->removed)
            world_start(w, id);
    }
    if (!world_until(w, converged, NULL, CALM_MS)) {
        for (uint64_t id = 1; id <= w->n_nodes; id++) {
            struct world_node *n = &w->nodes[id];
            if (n->up)
                (void)fprintf(
                    stderr,
                    "%llu state %d term %llu last %llu stored %llu commit %llu applied %llu\n",
                    (unsigned long long)id, raft_core_state(n->core),
                    (unsigned long long)raft_core_term(n->core),
                    (unsigned long long)raft_core_last_index(n->core),
                    (unsigned long long)raft_core_stored_index(n->core),
                    (unsigned long long)raft_core_commit_index(n->core),
                    (unsigned long long)raft_core_applied_index(n->core));
        }
        world_violation(w, "no agreement after %d ms of calm", CALM_MS);
    }
    struct world_node *l = world_leader(w);
    const struct raft_membership *m = raft_core_membership(l->core);
    for (size_t i = 0; i < m->n; i++) {
        struct world_node *n = &w->nodes[m->servers[i].id];
        if (n->removed)
            continue;
        if (n->state.chain != l->state.chain)
            world_violation(w, "%llu and the leader differ in their states",
                            (unsigned long long)n->id);
    }
}

/* ---- one seed ---- */

struct sum {
    uint64_t hash, events, accepted, elections, installs, snapshots, changes;
};

static void options_of(uint64_t seed, struct world_options *o)
{
    struct rng r;
    rng_seed(&r, seed ^ 0x5eed);
    world_options_default(o);
    o->seed = seed;
    o->election_ms = 150 + rng_below(&r, 600);
    o->heartbeat_ms = o->election_ms / (5 + rng_below(&r, 8));
    o->snapshot_every = 8 + rng_below(&r, 200);
    o->trailing = o->snapshot_every + rng_below(&r, 50);
    o->log_bytes_max = 64 * 1024 << rng_below(&r, 8);
    o->loss = rng_below(&r, 3) == 0 ? (unsigned)rng_below(&r, 200) : 0;
    o->duplicate = rng_below(&r, 3) == 0 ? (unsigned)rng_below(&r, 200) : 0;
    o->reorder = rng_below(&r, 3) == 0 ? (unsigned)rng_below(&r, 300) : 0;
    o->delay_ms = 1 + rng_below(&r, 20);
    o->disk_ms = rng_below(&r, 10);
    o->apply_bytes_max = rng_below(&r, 3) == 0 ? 1 + rng_below(&r, 500) : 0;
    o->quiet_ms = rng_below(&r, 3) == 0 ? 1 + rng_below(&r, 3000) : 0;
    o->quiet_bytes = rng_below(&r, 4096);
}

static void run_seed(uint64_t seed, struct sum *sum)
{
    struct world_options o;
    options_of(seed, &o);
    struct sim s = {.w = world_new(&o, 1 + 2 * (seed % 3))};
    s.w->restore_ms = 1 + seed % 4 * 1000;
    s.churn = chance(&s, 600);
    s.crashes = chance(&s, 800);
    s.big = chance(&s, 100);
    for (uint64_t id = 1; id <= s.w->n_nodes; id++)
        world_start(s.w, id);
    uint64_t end = s.w->now_ms + CHAOS_MS;
    uint64_t next_fault = s.w->now_ms + 1000;
    while (s.w->now_ms < end) {
        world_run(s.w, 1 + world_random(s.w, 100));
        submit(&s);
        if (s.w->now_ms >= next_fault) {
            fault(&s);
            next_fault = s.w->now_ms + world_random(s.w, 600);
        }
    }
    calm(&s);
    sum->hash = s.w->hash;
    sum->events += s.w->n_events;
    sum->accepted += s.accepted;
    sum->changes += s.w->membership.index > 1;
    for (size_t t = 0; t < WORLD_TERMS_MAX; t++)
        sum->elections += s.w->leader_of[t] != 0;
    for (uint64_t id = 1; id <= s.w->n_nodes; id++) {
        sum->installs += s.w->nodes[id].restores;
        sum->snapshots += s.w->nodes[id].n_files;
    }
    world_free(s.w);
}

static bool parse_range(const char *text, uint64_t *ret_from, uint64_t *ret_to)
{
    char copy[64];
    if (str_copy(copy, sizeof copy, text) != ERR_OK)
        return false;
    char *dash = strchr(copy, '-');
    if (dash != NULL)
        *dash = '\0';
    if (str_parse_u64(copy, ret_from) != ERR_OK)
        return false;
    *ret_to = *ret_from;
    return dash == NULL || str_parse_u64(dash + 1, ret_to) == ERR_OK;
}

int main(int argc, char **argv)
{
    uint64_t from;
    uint64_t to;
    if (argc != 3 || !parse_range(argv[2], &from, &to)) {
        (void)fprintf(stderr, "usage: raft_sim --seeds A-B | --seed N | --repeat N\n");
        return 2;
    }
    struct sum sum = {0};
    for (uint64_t seed = from; seed <= to; seed++) {
        run_seed(seed, &sum);
        struct sum again = {0};
        if (strcmp(argv[1], "--repeat") == 0)
            run_seed(seed, &again);
        if (strcmp(argv[1], "--repeat") == 0 && again.hash != sum.hash) {
            (void)fprintf(stderr, "seed %llu gave hash %016llx, then %016llx\n",
                          (unsigned long long)seed, (unsigned long long)sum.hash,
                          (unsigned long long)again.hash);
            return 1;
        }
    }
    (void)printf(
        "%llu seeds: hash of the last %016llx, %llu events, %llu entries, %llu elections, "
        "%llu snapshots, %llu installs, %llu with changed membership\n",
        (unsigned long long)to - from + 1, (unsigned long long)sum.hash,
        (unsigned long long)sum.events, (unsigned long long)sum.accepted,
        (unsigned long long)sum.elections, (unsigned long long)sum.snapshots,
        (unsigned long long)sum.installs, (unsigned long long)sum.changes);
    return 0;
}
