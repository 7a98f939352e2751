/* decide() on several nodes against an abstract world: seeded faults, then quiet.
 *
 *   core_sim [--seeds N] [--first S] [--mode on|strict|quorum|off] [--nodes N] [--trace]
 *
 * Checked: plan_check on every plan; no acknowledged commit is missing on a new primary (synchronous
 * modes); nobody acknowledges after a newer token has; a standby never streams a log that is not its own
 * past; and when the faults end, a primary takes writes and everybody follows it within QUIET_MS. */
#include "tests/sim/core_world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"

enum { FAULTS_MS = 40000, QUIET_MS = 40000 };

bool world_chance(struct world *w, uint64_t permille)
{
    return rng_below(&w->rng, 1000) < permille;
}

void world_violation(struct world *w, const char *fmt, ...)
{
    va_list ap;
    if (w->violation[0] != '\0')
        return;
    va_start(ap, fmt);
    (void)vsnprintf(w->violation, sizeof w->violation, fmt, ap);
    va_end(ap);
}

void world_log(struct world *w, const struct node *x, const char *fmt, ...)
{
    va_list ap;
    if (!w->trace)
        return;
    (void)printf("%6llu %-5s ", (unsigned long long)(w->now_ms - 100000),
                 x == NULL ? "store" : x->name);
    va_start(ap, fmt);
    (void)vprintf(fmt, ap);
    va_end(ap);
    (void)putchar('\n');
}

bool world_linked(const struct world *w, const struct node *a, const struct node *b)
{
    (void)w;
    return !a->isolated && !b->isolated;
}

struct node *world_node(struct world *w, const char *name)
{
    for (size_t i = 0; i < w->n; i++)
        if (strcmp(w->node[i].name, name) == 0)
            return &w->node[i];
    UNREACHABLE();
}

void world_init(struct world *w, uint64_t seed, size_t n)
{
    (void)memset(w, 0, sizeof *w);
    rng_seed(&w->rng, seed);
    w->n = n;
    w->now_ms = 100000;
    w->lease_next = 1;
    w->config = (struct view_config){.ttl_ms = TTL_MS,
                                     .sync_node_count = 1,
                                     .maximum_lag_on_failover = 1 << 24,
                                     .primary_start_timeout_ms = 300000,
                                     .retry_interval_ms = 100,
                                     .sick_failover = true,
                                     .sick_interval_ms = 3000,
                                     .use_pg_rewind = true};
    for (size_t i = 0; i < n; i++) {
        struct node *x = &w->node[i];
        (void)snprintf(x->name, sizeof x->name, "n%zu", i + 1);
        x->data.state = PG_DATA_EMPTY;
        x->pg.upstream = -1;
        agent_start(w, x, false);
    }
}

static void fence_tick(struct world *w, struct node *x)
{
    if (x->fence_frozen || x->disarmed || !pg_writable(x) || w->now_ms < x->fence_deadline_ms)
        return;
    world_log(w, x, "the fence kills at the deadline");
    pg_kill(w, x);
}

/* ---- faults ---- */

static void heal(struct world *w, struct node *x)
{
    if (x->isolated)
        world_log(w, x, "connected again");
    x->isolated = x->fence_frozen = false;
    x->sick = SICK_NOT;
    x->failing_ms = 0;
    if (x->paused) {
        x->paused = false;
        x->was_paused = true; /* the loop was late */
        world_log(w, x, "agent runs again");
    }
}

static void kill_agent(struct world *w, struct node *x, uint64_t for_ms)
{
    x->alive = false;
    x->back_ms = w->now_ms + for_ms;
    x->busy.action = ACTION_NONE;
    /* What it had begun ends or not without it. */
    if (x->done_at_ms > w->now_ms && world_chance(w, 500) && x->doing.action == ACTION_SET_SYNC)
        pg_effect(w, x, &x->doing);
    world_log(w, x, "agent dies");
}

static void wipe(struct world *w, struct node *x)
{
    bool counts =
        w->store.has_sync && strcmp(w->store.sync.incarnation, x->data.incarnation) == 0;
    if (counts || pg_writable(x) || x->data.state != PG_DATA_OURS || !w->store.has_leader)
        return;
    for (size_t i = 0; i < w->store.sync.v_n; i++)
        if (strcmp(w->store.sync.v[i], x->data.incarnation) == 0)
            /* the loss of a copy that was promised, together with others, may lose a commit */
            return;
    pg_kill(w, x);
    (void)memset(&x->data, 0, sizeof x->data);
    x->data.state = PG_DATA_EMPTY;
    x->pg.stuck = x->pg.crashed = false;
    world_log(w, x, "data directory wiped");
}

static void fault(struct world *w)
{
    struct node *x = &w->node[rng_below(&w->rng, w->n)];
    switch (rng_below(&w->rng, 15)) {
    case 0:
    case 1:
        pg_kill(w, x);
        break;
    case 2:
        if (x->alive)
            kill_agent(w, x, rng_below(&w->rng, 4000));
        break;
    case 3:
        x->paused = true;
        x->fence_frozen = w->lossless && world_chance(w, 500);
        world_log(w, x, "agent%s frozen", x->fence_frozen ? " and fence" : "");
        break;
    case 4:
    case 5:
        x->isolated = true;
        world_log(w, x, "isolated");
        break;
    case 6: /* the node dies */
        x->sick = SICK_NOT;
        pg_kill(w, x);
        kill_agent(w, x, 1000 + rng_below(&w->rng, 5000));
        x->armed = false;
        break;
    case 7:
        wipe(w, x);
        break;
    case 8:
    case 9:
        if (w->store.has_failover)
            break;
        (void)memset(&w->store.failover, 0, sizeof w->store.failover);
        if (world_chance(w, 500))
            (void)memcpy(w->store.failover.candidate, x->name, sizeof x->name);
        w->store.has_failover = true;
        w->store.failover_rev = ++w->store.revision;
        world_log(w, NULL, "switchover requested");
        break;
    case 10:
        if (x->alive)
            x->stopping = true;
        world_log(w, x, "told to end");
        break;
    case 11:
        w->store.pause = !w->store.pause;
        w->store.revision++;
        world_log(w, NULL, w->store.pause ? "paused" : "resumed");
        break;
    case 12:
    case 13:
        x->sick = (enum sick)(SICK_ARCHIVE + rng_below(&w->rng, SICK_STUCK));
        x->failing_ms = w->now_ms;
        world_log(w, x, "sick: %s", sick_name(x->sick));
        break;
    default:
        for (size_t i = 0; i < w->n; i++)
            heal(w, &w->node[i]);
        break;
    }
}

static void step(struct world *w)
{
    w->now_ms += TICK_MS;
    store_tick(w);
    for (size_t i = 0; i < w->n; i++)
        fence_tick(w, &w->node[i]);
    pg_tick(w);
    for (size_t i = 0; i < w->n; i++)
        agent_tick(w, &w->node[i]);
}

/* One primary, its agent knows it, everybody else streams from it and a commit was released lately. */
static bool settled(const struct world *w)
{
    const struct node *leader = NULL;
    for (size_t i = 0; i < w->n; i++)
        if (pg_writable(&w->node[i])) {
            if (leader != NULL)
                return false;
            leader = &w->node[i];
        }
    if (leader == NULL || strcmp(w->store.leader.state, "running") != 0 ||
        w->store.has_failover)
        return false;
    for (size_t i = 0; i < w->n; i++)
        if (&w->node[i] != leader && !w->node[i].pg.streaming)
            return false;
    return leader->data.n - leader->pg.acked_n < 20 &&
           (w->config.sync_mode == SYNC_OFF || w->store.sync.v_n > 0);
}

static void run(struct world *w)
{
    uint64_t end_ms = w->now_ms + FAULTS_MS;
    uint64_t next_ms = w->now_ms + 6000;
    while (w->now_ms < end_ms && w->violation[0] == '\0') {
        step(w);
        if (w->now_ms < next_ms)
            continue;
        fault(w);
        next_ms = w->now_ms + rng_below(&w->rng, world_chance(w, 300) ? 100 : 3000);
    }
    for (size_t i = 0; i < w->n; i++)
        heal(w, &w->node[i]);
    w->store.pause = false;
    world_log(w, NULL, "---- quiet ----");
    end_ms = w->now_ms + QUIET_MS;
    while (w->now_ms < end_ms && w->violation[0] == '\0') {
        step(w);
        if (settled(w))
            return;
    }
    if (w->violation[0] == '\0')
        world_violation(w, "not settled %d ms after the last fault", QUIET_MS);
}

static void set_mode(struct world *w, const char *mode)
{
    w->config.sync_mode = strcmp(mode, "off") == 0      ? SYNC_OFF
                          : strcmp(mode, "quorum") == 0 ? SYNC_QUORUM
                                                        : SYNC_ON;
    w->config.sync_strict = strcmp(mode, "strict") == 0;
    w->lossless = w->config.sync_mode != SYNC_OFF;
}

int main(int argc, char **argv)
{
    static struct world w;
    uint64_t first = 1;
    uint64_t seeds = 50;
    size_t nodes = 3;
    const char *mode = NULL;
    bool trace = false;
    static const char *const modes[] = {"on", "strict", "quorum", "off"};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--trace") == 0)
            trace = true;
        else if (i + 1 < argc && strcmp(argv[i], "--seeds") == 0)
            seeds = strtoull(argv[++i], NULL, 10);
        else if (i + 1 < argc && strcmp(argv[i], "--first") == 0)
            first = strtoull(argv[++i], NULL, 10);
        else if (i + 1 < argc && strcmp(argv[i], "--nodes") == 0)
            nodes = strtoull(argv[++i], NULL, 10);
        else if (i + 1 < argc && strcmp(argv[i], "--mode") == 0)
            mode = argv[++i];
        else
            return (void)fprintf(stderr, "core_sim: unknown argument %s\n", argv[i]), 2;
    }
    nodes = MIN(nodes, NODES);
    uint64_t commits = 0;
    uint64_t tokens = 0;
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        const char *m = mode != NULL ? mode : modes[seed % ARRAY_LEN(modes)];
        world_init(&w, seed, nodes);
        set_mode(&w, m);
        w.trace = trace;
        w.hooks = seed % 3 == 0;
        run(&w);
        commits += w.acked_count;
        tokens += w.store.sync.token;
        if (w.violation[0] != '\0') {
            (void)printf("VIOLATED seed %llu mode %s at %llu ms: %s\n",
                         (unsigned long long)seed, m, (unsigned long long)(w.now_ms - 100000),
                         w.violation);
            return 1;
        }
    }
    (void)printf("clean: %llu seeds, %llu commits acknowledged, %llu leaders\n",
                 (unsigned long long)seeds, (unsigned long long)commits,
                 (unsigned long long)tokens);
    return 0;
}
