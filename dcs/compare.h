/* Do members hold the same state? What each says of its hash at one index, and what follows. Pure. */
#ifndef REGENT_DCS_COMPARE_H
#define REGENT_DCS_COMPARE_H

#include "base/base.h"

struct compare_vote {
    uint64_t id;
    bool voter;
    bool known; /* it had a hash of that index */
    uint64_t hash;
};

enum compare_verdict {
    COMPARE_TOO_FEW, /* nobody differs, and no majority has spoken */
    COMPARE_EQUAL,   /* a majority of the voters has *ret_hash, nobody differs */
    COMPARE_ODD,     /* a majority has *ret_hash, somebody has another one: who has is wrong */
    COMPARE_SPLIT    /* some differ, and no majority says who is wrong */
};

/* n_voters: how many the cluster has, heard or not. */
enum compare_verdict compare_votes(const struct compare_vote *votes, size_t n, size_t n_voters,
                                   uint64_t *ret_hash);

#endif
