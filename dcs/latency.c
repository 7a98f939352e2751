#include "dcs/latency.h"

#include "base/assert.h"
#include "base/str.h"

static uint64_t bound_us(size_t i)
{
    ASSERT(i < LATENCY_BUCKETS);
    return (uint64_t)LATENCY_FIRST_US << i;
}

void latency_add(struct latency *l, uint64_t us)
{
    size_t i = 0;
    while (i < LATENCY_BUCKETS && us > bound_us(i))
        i++;
    if (i < LATENCY_BUCKETS)
        l->in[i]++;
    l->n++;
    l->sum_us += us;
}

uint64_t latency_percentile_us(const struct latency *l, unsigned percent)
{
    ASSERT(percent <= 100);
    uint64_t sum = 0;
    if (l->n == 0)
        return 0;
    for (size_t i = 0; i < LATENCY_BUCKETS; i++) {
        sum += l->in[i];
        if (sum * 100 >= l->n * percent)
            return bound_us(i);
    }
    return bound_us(LATENCY_BUCKETS - 1);
}

void latency_tell(const struct latency *l, const char *name, struct latency_reply *ret_reply)
{
    struct latency_reply *r = ret_reply;
    *r = (struct latency_reply){.count = l->n,
                                .sum_us = l->sum_us,
                                .p50_us = latency_percentile_us(l, 50),
                                .p99_us = latency_percentile_us(l, 99),
                                .buckets_n = LATENCY_BUCKETS};
    enum err fits = str_copy(r->name, sizeof r->name, name);
    ASSERT(fits == ERR_OK);
    for (size_t i = 0; i < LATENCY_BUCKETS; i++)
        r->buckets[i] = (struct latency_bucket){.le_us = bound_us(i), .count = l->in[i]};
}
