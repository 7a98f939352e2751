#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base.h"
#include "dcs/compare.h"

/* Who is wrong when members differ. */

#define SAYS(i, h)                                           \
    {                                                        \
        .id = (i), .voter = true, .known = true, .hash = (h) \
    }
#define SILENT(i)                \
    {                            \
        .id = (i), .voter = true \
    }
#define LEARNER(i, h)                         \
    {                                         \
        .id = (i), .known = true, .hash = (h) \
    }

static void verdicts(void **t)
{
    static const struct {
        struct compare_vote votes[5];
        size_t n, n_voters;
        enum compare_verdict want;
        uint64_t hash;
    } rows[] = {
        {{SAYS(1, 7)}, 1, 1, COMPARE_EQUAL, 7},
        {{SAYS(1, 7), SAYS(2, 7), SAYS(3, 7)}, 3, 3, COMPARE_EQUAL, 7},
        {{SAYS(1, 7), SAYS(2, 7), SILENT(3)}, 3, 3, COMPARE_EQUAL, 7},
        {{SAYS(1, 7), SAYS(2, 7)}, 2, 3, COMPARE_EQUAL, 7},
        {{SAYS(1, 7)}, 1, 3, COMPARE_TOO_FEW, 0},
        {{SILENT(1), SILENT(2), SILENT(3)}, 3, 3, COMPARE_TOO_FEW, 0},
        {{SAYS(1, 7), SAYS(2, 7), SAYS(3, 8)}, 3, 3, COMPARE_ODD, 7},
        {{SAYS(1, 8), SAYS(2, 7), SAYS(3, 7)}, 3, 3, COMPARE_ODD, 7},
        {{SAYS(1, 7), SAYS(2, 8)}, 2, 3, COMPARE_SPLIT, 0},
        {{SAYS(1, 7), SAYS(2, 8), SAYS(3, 9)}, 3, 3, COMPARE_SPLIT, 0},
        {{SAYS(1, 7), SAYS(2, 8)}, 2, 2, COMPARE_SPLIT, 0},
        {{SAYS(1, 7), SAYS(2, 7), SAYS(3, 8), SAYS(4, 8)}, 4, 4, COMPARE_SPLIT, 0},
        {{SAYS(1, 7), SAYS(2, 7), SAYS(3, 8), SAYS(4, 8), SAYS(5, 8)}, 5, 5, COMPARE_ODD, 8},
        {{SAYS(1, 7), SAYS(2, 7), SAYS(3, 7), LEARNER(4, 8)}, 4, 3, COMPARE_ODD, 7},
        {{SAYS(1, 7), LEARNER(2, 7), LEARNER(3, 7)}, 3, 3, COMPARE_TOO_FEW, 0},
        {{SAYS(1, 7), LEARNER(2, 8), LEARNER(3, 8)}, 3, 1, COMPARE_ODD, 7},
    };
    (void)t;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t hash = 1;
        enum compare_verdict v =
            compare_votes(rows[i].votes, rows[i].n, rows[i].n_voters, &hash);
        if (v != rows[i].want || hash != rows[i].hash)
            fail_msg("row %zu: verdict %d, hash %llu", i, (int)v, (unsigned long long)hash);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(verdicts)};
    return cmocka_run_group_tests_name("dcs_compare", tests, NULL, NULL);
}
