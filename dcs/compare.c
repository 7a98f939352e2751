#include "dcs/compare.h"

static size_t count(const struct compare_vote *votes, size_t n, uint64_t hash)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        k += votes[i].voter && votes[i].known && votes[i].hash == hash;
    return k;
}

enum compare_verdict compare_votes(const struct compare_vote *votes, size_t n, size_t n_voters,
                                   uint64_t *ret_hash)
{
    const struct compare_vote *first = NULL;
    bool differs = false, majority = false;
    *ret_hash = 0;
    for (size_t i = 0; i < n; i++) {
        const struct compare_vote *v = &votes[i];
        if (!v->known)
            continue;
        first = first == NULL ? v : first;
        differs = differs || v->hash != first->hash;
        if (count(votes, n, v->hash) > n_voters / 2) {
            majority = true;
            *ret_hash = v->hash;
        }
    }
    if (majority)
        return differs ? COMPARE_ODD : COMPARE_EQUAL;
    return differs ? COMPARE_SPLIT : COMPARE_TOO_FEW;
}
