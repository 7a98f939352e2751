/* What happened to the cluster since this daemon started, counted from one view to the next. Pure. */
#ifndef REGENT_AGENT_REST_COUNT_H
#define REGENT_AGENT_REST_COUNT_H

#include "agent/core/view.h"

enum { COUNT_BUCKETS = 9, COUNT_RULES = 8 };

/* Of a histogram: counts of each bucket alone, bounds in rest_count.c; what is above all counts in n only. */
struct rest_histogram {
    uint64_t in[COUNT_BUCKETS];
    uint64_t n;
    uint64_t sum_ms;
};

/* Why the cluster has another leadership than before. */
enum count_reason {
    COUNT_FAILOVER,   /* another node took a free leader key */
    COUNT_SWITCHOVER, /* it was handed over */
    COUNT_RESTART,    /* the same node took it again */
    COUNT_REASONS
};

struct rest_counts {
    uint64_t failovers[COUNT_REASONS];
    /* from the first sight of no running leader until the next one runs */
    struct rest_histogram outage[COUNT_REASONS];
    struct rest_histogram loop_lag;
    /* This node had the leader key and lost it: how often, by the rule that decided then. The last place
     * takes what finds no other. */
    struct {
        char rule[48];
        uint64_t n;
    } demotions[COUNT_RULES];
    /* state */
    uint64_t token; /* of the last leader seen; 0: none yet */
    char leader[64];
    /* since when there is no running leader; 0: there is one, or none was seen yet */
    uint64_t broken_ms;
    enum count_reason reason; /* of the change under way */
    bool changed;             /* there is one: its outage is still being timed */
    bool led;
};

extern const uint64_t count_bounds_ms[COUNT_BUCKETS];

void count_view(struct rest_counts *c, const struct view *v, const char *rule);
void count_time(struct rest_histogram *h, uint64_t ms);
const char *count_reason_name(enum count_reason r);

#endif
