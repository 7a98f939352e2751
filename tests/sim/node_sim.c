/* Whole nodes under seeded faults (node_world.h).
 *
 *   node_sim --seeds A-B [--trace] [--nodes N] [--scenario NAME] [--mode MODE]
 *   node_sim --repeat A-B            each seed twice: the same events must happen
 *   node_sim --mutation NAME --seeds A-B     succeeds when some seed sees what was broken
 *   node_sim --seeds A --only 3,17           with these faults of the seed alone
 *
 * On a violation: the seed, what broke, the last events, and the fewest faults found that break it (with a mutation only
 * for --shrink). */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <sqlite3.h>

#include "base/log.h"
#include "tests/sim/node_world.h"

static const char *const mutation_names[MUTATION_COUNT] = {
    [MUTATION_NONE] = "none",
    [MUTATION_FENCE_IDLE] = "fence_idle",
    [MUTATION_NO_DEADLINE] = "no_deadline",
    [MUTATION_NO_SHORTENING] = "no_shortening",
    [MUTATION_NO_SEAL] = "no_seal",
    [MUTATION_NO_CONFIRM] = "no_confirm",
    [MUTATION_NO_SYNC_GUARD] = "no_sync_guard",
    [MUTATION_NO_DAMPING] = "no_damping",
    [MUTATION_SEAL_IN_REPLAY] = "seal_in_replay",
};
static const char *const scenario_names[SCENARIO_COUNT] = {
    [SCENARIO_MIX] = "mix",     [SCENARIO_KILL] = "kill", [SCENARIO_DAEMONS] = "daemons",
    [SCENARIO_FENCE] = "fence", [SCENARIO_LATE] = "late", [SCENARIO_ORDERS] = "orders",
    [SCENARIO_SICK] = "sick",   [SCENARIO_RUSH] = "rush", [SCENARIO_OUTAGE] = "outage",
};

struct args {
    uint64_t first, last;
    bool trace, repeat, keep_going, shrink;
    struct sim_options o;
};

static int usage(void)
{
    (void)fprintf(
        stderr,
        "usage: node_sim [--seeds A-B] [--repeat A-B] [--trace] [--keep-going] [--shrink]\n"
        "                [--nodes N] [--scenario NAME] [--mode MODE] [--mutation NAME] [--only "
        "N,N,...]\n");
    return 2;
}

static int find_name(const char *const *names, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

/* Faults by their numbers. */
static bool parse_only(struct sim_options *o, const char *list)
{
    memset(o->without, true, sizeof o->without);
    for (char *end;; list = end + 1) {
        uint64_t n = strtoull(list, &end, 10);
        if (end == list || n >= SIM_FAULTS)
            return false;
        o->without[n] = false;
        if (*end != ',')
            return *end == '\0';
    }
}

static bool parse_flag(struct args *a, const char *word)
{
    struct {
        const char *name;
        bool *flag;
    } flags[] = {
        {"--trace", &a->trace}, {"--keep-going", &a->keep_going}, {"--shrink", &a->shrink}};
    for (size_t i = 0; i < ARRAY_LEN(flags); i++)
        if (strcmp(word, flags[i].name) == 0)
            return *flags[i].flag = true;
    return false;
}

static bool parse(struct args *a, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *v = i + 1 < argc ? argv[i + 1] : NULL;
        if (parse_flag(a, argv[i]))
            continue;
        if (v == NULL)
            return false;
        i++;
        if (strcmp(argv[i - 1], "--seeds") == 0 || strcmp(argv[i - 1], "--repeat") == 0) {
            char *end;
            a->repeat = argv[i - 1][2] == 'r';
            a->first = a->last = strtoull(v, &end, 10);
            if (*end == '-')
                a->last = strtoull(end + 1, NULL, 10);
        } else if (strcmp(argv[i - 1], "--nodes") == 0) {
            a->o.nodes = strtoull(v, NULL, 10);
        } else if (strcmp(argv[i - 1], "--mode") == 0) {
            a->o.mode = v;
        } else if (strcmp(argv[i - 1], "--mutation") == 0) {
            int m = find_name(mutation_names, MUTATION_COUNT, v);
            a->o.mutation = (enum mutation)MAX(m, 0);
            if (m < 0)
                return false;
        } else if (strcmp(argv[i - 1], "--only") == 0) {
            if (!parse_only(&a->o, v))
                return false;
        } else if (strcmp(argv[i - 1], "--scenario") == 0) {
            a->o.scenario = find_name(scenario_names, SCENARIO_COUNT, v);
            if (a->o.scenario < 0)
                return false;
        } else {
            return false;
        }
    }
    return a->first <= a->last && a->o.nodes <= SIM_NODES;
}

struct totals {
    uint64_t acked, lost, promotions, events, revisions, hash;
};

static const struct sim *running; /* for the trace when an assertion fails */

/* The process ends anyway; the trace is worth the risk. */
/* NOLINTBEGIN(bugprone-signal-handler,cert-sig30-c) */
static void on_abort(int signal_number)
{
    (void)signal(signal_number, SIG_DFL);
    if (running != NULL) {
        sim_print_trace(running);
        (void)fprintf(stderr, "ABORTED seed %llu, scenario %s\n",
                      (unsigned long long)running->seed, scenario_names[running->scenario]);
    }
    (void)raise(signal_number);
}
/* NOLINTEND(bugprone-signal-handler,cert-sig30-c) */

static void shrink(const struct args *a, uint64_t seed, uint64_t faults)
{
    struct sim_options o = a->o;
    const char *comma = " ";
    running = NULL;
    size_t n = sim_shrink(seed, &o, faults);
    (void)printf("seed %llu: %zu of %llu faults are enough: --only", (unsigned long long)seed,
                 n, (unsigned long long)faults);
    for (size_t i = 0; i < ARRAY_LEN(o.without); i++)
        if (!o.without[i] && i < faults) {
            (void)printf("%s%zu", comma, i);
            comma = ",";
        }
    (void)printf("\n");
}

/* The hash of what happened; *ret_ok false: a check failed. */
static uint64_t run(const struct args *a, uint64_t seed, bool *ret_ok, struct totals *t)
{
    struct sim *w = sim_new(seed, &a->o);
    w->trace = a->trace;
    running = w;
    *ret_ok = sim_run(w);
    if (!*ret_ok && a->o.mutation == MUTATION_NONE) {
        if (!a->trace)
            sim_print_trace(w);
        (void)fprintf(stderr,
                      "VIOLATED seed %llu, scenario %s, mode %s, %zu nodes, at %.3f ms: %s\n",
                      (unsigned long long)seed, scenario_names[w->scenario],
                      w->config.synchronous_mode, w->n, (double)w->now_us / 1e3, w->violation);
    } else if (!*ret_ok) {
        (void)printf("seen at seed %llu: %s\n", (unsigned long long)seed, w->violation);
    }
    t->acked += w->acked;
    t->lost += w->lost;
    t->promotions += w->promotions;
    t->events += w->events;
    t->revisions += w->revision_max;
    uint64_t hash = w->hash, faults = w->faults;
    t->hash = sim_hash(t->hash, &hash, sizeof hash);
    running = NULL;
    sim_free(w);
    if (!*ret_ok && (a->o.mutation == MUTATION_NONE || a->shrink))
        shrink(a, seed, faults);
    return hash;
}

static int run_all(const struct args *a)
{
    struct totals t = {0};
    uint64_t bad = 0;
    for (uint64_t seed = a->first; seed <= a->last; seed++) {
        bool ok;
        uint64_t hash = run(a, seed, &ok, &t);
        if (a->repeat && hash != run(a, seed, &ok, &t)) {
            (void)fprintf(stderr, "seed %llu does not repeat\n", (unsigned long long)seed);
            return 1;
        }
        if (ok)
            continue;
        bad++;
        if (a->o.mutation != MUTATION_NONE)
            return 0;
        if (!a->keep_going)
            return 1;
    }
    if (a->o.mutation != MUTATION_NONE) {
        (void)fprintf(stderr, "%s: no seed from %llu to %llu sees it\n",
                      mutation_names[a->o.mutation], (unsigned long long)a->first,
                      (unsigned long long)a->last);
        return 1;
    }
    (void)printf(
        "%llu seeds, %llu violated: %llu commits acknowledged, %llu lost (asynchronous), "
        "%llu leaders, %llu revisions, %llu events, hash %016llx; %.0f failovers a second of a "
        "core\n",
        (unsigned long long)a->last - a->first + 1, (unsigned long long)bad,
        (unsigned long long)t.acked, (unsigned long long)t.lost,
        (unsigned long long)t.promotions, (unsigned long long)t.revisions,
        (unsigned long long)t.events, (unsigned long long)t.hash,
        (double)t.promotions * CLOCKS_PER_SEC / (double)MAX(clock(), (clock_t)1));
    return bad > 0;
}

int main(int argc, char **argv)
{
    struct args a = {.first = 1, .last = 20, .o = {.scenario = -1}};
    if (!parse(&a, argc, argv))
        return usage();
    log_setup(LOG_FATAL, LOG_LOGFMT);
    /* a lock less for each of its allocations */
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    (void)signal(SIGABRT, on_abort);
    return run_all(&a);
}
