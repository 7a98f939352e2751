/* How long something took, counted by size since the process began: what a histogram of Prometheus is made
 * of. Not for several threads at once. */
#ifndef REGENT_DCS_LATENCY_H
#define REGENT_DCS_LATENCY_H

#include "proto/messages.h"

/* doubling up to 8.192 s, as etcd's from 1 ms on */
enum { LATENCY_BUCKETS = 17, LATENCY_FIRST_US = 125 };

struct latency {
    uint64_t in[LATENCY_BUCKETS]; /* each alone; what is above all bounds counts in n only */
    uint64_t n;
    uint64_t sum_us;
};

void latency_add(struct latency *l, uint64_t us);
/* The bound of the bucket in which `percent` of all are reached; the last bound for what is above it. */
uint64_t latency_percentile_us(const struct latency *l, unsigned percent);
/* name: at most 15 bytes. */
void latency_tell(const struct latency *l, const char *name, struct latency_reply *ret_reply);

#endif
