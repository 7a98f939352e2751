/* The event queue, the clocks and the trace of a simulated cluster. */
#include "tests/sim/node_world.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/mem.h"

/* ---- random numbers and hashes ---- */

uint64_t sim_random(struct sim *w, uint64_t n)
{
    return rng_below(&w->rng, n);
}

uint64_t sim_between(struct sim *w, uint64_t a, uint64_t b)
{
    ASSERT(a <= b);
    return a + rng_below(&w->rng, b - a + 1);
}

bool sim_chance(struct sim *w, unsigned permille)
{
    return rng_below(&w->rng, 1000) < permille;
}

uint64_t sim_hash(uint64_t h, const void *p, size_t n)
{
    const uint8_t *b = p;
    uint64_t eight;
    for (; n >= sizeof eight; n -= sizeof eight, b += sizeof eight) {
        memcpy(&eight, b, sizeof eight);
        h = (h ^ eight) * 0x9e3779b97f4a7c15;
        h ^= h >> 29;
    }
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * 0x100000001b3;
    return h;
}

/* ---- the trace ---- */

void sim_note(struct sim *w, const struct sim_node *x, const char *fmt, ...)
{
    char *line = w->lines[w->n_lines++ % SIM_TRACE];
    int n = snprintf(line, SIM_LINE, "%10.3f %-5s ", (double)w->now_us / 1e3,
                     x == NULL ? "" : x->name);
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(line + n, SIM_LINE - (size_t)n, fmt, ap);
    va_end(ap);
    w->hash = sim_hash(w->hash, line, strlen(line));
    if (w->trace)
        (void)puts(line);
}

void sim_violation(struct sim *w, const char *fmt, ...)
{
    if (w->violation[0] != '\0')
        return;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(w->violation, sizeof w->violation, fmt, ap);
    va_end(ap);
    sim_note(w, NULL, "VIOLATION %s", w->violation);
}

void sim_print_trace(const struct sim *w)
{
    uint64_t from = w->n_lines > SIM_TRACE ? w->n_lines - SIM_TRACE : 0;
    for (uint64_t i = from; i < w->n_lines; i++)
        (void)fprintf(stderr, "%s\n", w->lines[i % SIM_TRACE]);
}

/* ---- events: a heap by time, then by age ---- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->seq < b->seq;
}

static void heap_push(struct sim *w, struct sim_event *e)
{
    if (w->heap_n == w->heap_cap) {
        w->heap_cap = MAX(w->heap_cap * 2, (size_t)1024);
        w->heap = mem_resize(w->heap, w->heap_cap * sizeof *w->heap);
    }
    size_t i = w->heap_n++;
    for (; i > 0 && before(e, w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = e;
}

static struct sim_event *heap_pop(struct sim *w)
{
    struct sim_event *top = w->heap[0];
    struct sim_event *e = w->heap[--w->heap_n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= w->heap_n)
            break;
        if (child + 1 < w->heap_n && before(w->heap[child + 1], w->heap[child]))
            child++;
        if (!before(w->heap[child], e))
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    if (w->heap_n > 0)
        w->heap[i] = e;
    return top;
}

void sim_at(struct sim *w, struct sim_node *x, enum domain d, uint64_t delay_us,
            const char *what, sim_fn *fn, void *arg)
{
    ASSERT((x == NULL) == (d == WORLD));
    struct sim_event *e = mem_alloc(sizeof *e);
    *e = (struct sim_event){.at_us = w->now_us + delay_us,
                            .seq = w->seq++,
                            .x = x,
                            .domain = d,
                            .life = x == NULL ? 0 : x->life[d],
                            .what = what,
                            .fn = fn,
                            .arg = arg};
    heap_push(w, e);
}

/* A frozen process does nothing: what is due for it waits for the thaw, in its order. */
static bool postponed(struct sim *w, struct sim_event *e)
{
    if (e->x == NULL || e->x->paused_until_us[e->domain] <= w->now_us)
        return false;
    e->at_us = e->x->paused_until_us[e->domain];
    e->seq = w->seq++;
    heap_push(w, e);
    return true;
}

static void fire(struct sim *w, struct sim_event *e)
{
    if (e->x == NULL || (e->x->up[e->domain] && e->x->life[e->domain] == e->life)) {
        w->events++;
        w->hash = sim_hash(w->hash, &e->at_us, sizeof e->at_us);
        w->hash = sim_hash(w->hash, e->what, strlen(e->what));
        e->fn(w, e->x, e->arg);
    }
    mem_free(e->arg);
    mem_free(e);
}

/* A loop that wakes itself without end stands still in virtual time. */
static void check_advance(struct sim *w)
{
    enum { EVENTS_MAX = 50000 };
    if (w->now_us / MS != w->busy_ms) {
        w->busy_ms = w->now_us / MS;
        w->busy_from = w->events;
    } else if (w->events - w->busy_from > EVENTS_MAX) {
        sim_violation(w, "%d events in one millisecond: somebody wakes himself without end",
                      EVENTS_MAX);
    }
}

bool sim_run(struct sim *w)
{
    while (w->violation[0] == '\0' && w->now_us < w->end_us && w->heap_n > 0) {
        struct sim_event *e = heap_pop(w);
        ASSERT(e->at_us >= w->now_us);
        w->now_us = e->at_us;
        if (!postponed(w, e))
            fire(w, e);
        check_advance(w);
    }
    if (w->violation[0] == '\0')
        check_end(w);
    return w->violation[0] == '\0';
}

/* ---- clocks ---- */

static uint64_t local_us(const struct sim_node *x)
{
    return x->local_us + (x->w->now_us - x->base_us) * x->rate_ppm / 1000000;
}

void clock_set_rate(struct sim_node *x, uint64_t rate_ppm)
{
    x->local_us = local_us(x);
    x->base_us = x->w->now_us;
    x->rate_ppm = rate_ppm;
}

uint64_t sim_wall_ms(const struct sim *w)
{
    return 1700000000000 + w->now_us / MS;
}

uint64_t clock_of(const struct sim_node *x)
{
    return local_us(x) / MS;
}

uint64_t until_local(const struct sim_node *x, uint64_t local_ms)
{
    uint64_t now = local_us(x);
    if (local_ms > NEVER / MS / 4)
        return NEVER / 4;
    if (local_ms * MS <= now)
        return 0;
    uint64_t rate = x->rate_ppm != 0 ? x->rate_ppm : 1000000;
    return ((local_ms * MS - now) * 1000000 + rate - 1) / rate;
}

/* ---- domains ---- */

void domain_begin(struct sim_node *x, enum domain d)
{
    ASSERT(!x->up[d]);
    x->up[d] = true;
    x->life[d]++;
    x->paused_until_us[d] = x->frozen_until_us;
}

void domain_end(struct sim_node *x, enum domain d)
{
    x->up[d] = false;
    x->life[d]++;
    x->paused_until_us[d] = 0;
}

void domain_pause(struct sim_node *x, enum domain d, uint64_t for_us)
{
    if (x->up[d])
        x->paused_until_us[d] = MAX(x->paused_until_us[d], x->w->now_us + for_us);
}

bool domain_runs(const struct sim_node *x, enum domain d)
{
    return x->up[d] && x->paused_until_us[d] <= x->w->now_us;
}

struct sim_node *sim_node_named(struct sim *w, const char *name)
{
    for (size_t i = 0; i < w->n; i++)
        if (strcmp(w->node[i].name, name) == 0)
            return &w->node[i];
    return NULL;
}

void sim_drop_events(struct sim *w)
{
    while (w->heap_n > 0) {
        struct sim_event *e = heap_pop(w);
        mem_free(e->arg);
        mem_free(e);
    }
    mem_free(TAKE(w->heap));
}
