/* A seed that breaks has dozens of faults, and two or three of them matter. Which: they are left out in halves, quarters
 * and so on, and stay out when it breaks without them. */
#include "tests/sim/node_world.h"

enum { RUNS_MAX = 300 };

static bool breaks(uint64_t seed, const struct sim_options *o)
{
    struct sim *w = sim_new(seed, o);
    bool ok = sim_run(w);
    sim_free(w);
    return !ok;
}

/* False: all of them are out already. */
static bool leave_out(struct sim_options *o, size_t from, size_t to)
{
    bool news = false;
    for (size_t i = from; i < to; i++) {
        news = news || !o->without[i];
        o->without[i] = true;
    }
    return news;
}

size_t sim_shrink(uint64_t seed, struct sim_options *o, uint64_t faults)
{
    size_t n = MIN((size_t)faults, (size_t)SIM_FAULTS);
    unsigned runs = 0;
    for (size_t size = n; size > 0; size /= 2) {
        for (size_t from = 0; from < n && runs < RUNS_MAX; from += size) {
            struct sim_options fewer = *o;
            if (!leave_out(&fewer, from, MIN(from + size, n)))
                continue;
            runs++;
            if (breaks(seed, &fewer))
                *o = fewer;
        }
    }
    size_t left = 0;
    for (size_t i = 0; i < n; i++)
        left += !o->without[i];
    return left;
}
