/* Random numbers: a seedable generator (xoshiro256**) for everything a simulation must repeat, and
 * the kernel's for ids and secrets. */
#ifndef REGENT_BASE_RNG_H
#define REGENT_BASE_RNG_H

#include "base/base.h"

struct rng {
    uint64_t s[4];
};

void rng_seed(struct rng *r, uint64_t seed);
uint64_t rng_u64(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n); /* 0 .. n-1; n > 0 */

/* From the kernel; ends the process when it has none. */
void rng_system(void *p, size_t n);

#endif
