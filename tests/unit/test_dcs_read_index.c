/* dcs/read_index: rounds that confirm a leader's term. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base.h"
#include "dcs/read_index.h"

static const uint64_t three[] = {1, 2, 3};
static const uint64_t five[] = {1, 2, 3, 4, 5};
enum { RESEND_MS = 100 };

static void test_a_single_voter_is_confirmed_at_once(void **state)
{
    struct read_index r = {0};
    (void)state;
    read_index_begin(&r, 1, 5);
    uint64_t ticket = read_index_ask(&r);
    assert_true(read_index_due(&r, 0, RESEND_MS));
    read_index_start(&r, three, 1, 0);
    assert_true(read_index_confirmed(&r) >= ticket);
    assert_false(read_index_due(&r, 1000, RESEND_MS));
}

static void test_a_majority_with_the_leader_confirms(void **state)
{
    struct read_index r = {0};
    (void)state;
    read_index_begin(&r, 1, 5);
    uint64_t ticket = read_index_ask(&r);
    uint64_t round = read_index_start(&r, five, 5, 0);
    read_index_answer(&r, 2, 5, round, true);
    assert_true(read_index_confirmed(&r) < ticket);
    read_index_answer(&r, 2, 5, round, true);
    assert_true(read_index_confirmed(&r) < ticket);
    read_index_answer(&r, 4, 5, round, true);
    assert_true(read_index_confirmed(&r) >= ticket);
}

static void test_a_leader_that_is_no_voter_needs_a_majority_of_the_others(void **state)
{
    static const uint64_t others[] = {2, 3, 4};
    struct read_index r = {0};
    (void)state;
    read_index_begin(&r, 1, 5);
    uint64_t ticket = read_index_ask(&r);
    uint64_t round = read_index_start(&r, others, 3, 0);
    read_index_answer(&r, 2, 5, round, true);
    assert_true(read_index_confirmed(&r) < ticket);
    read_index_answer(&r, 3, 5, round, true);
    assert_true(read_index_confirmed(&r) >= ticket);
}

static void test_a_read_waits_for_a_round_that_starts_after_it(void **state)
{
    struct read_index r = {0};
    (void)state;
    read_index_begin(&r, 1, 5);
    (void)read_index_ask(&r);
    uint64_t round = read_index_start(&r, three, 3, 0);
    uint64_t late = read_index_ask(&r);
    assert_false(read_index_due(&r, 0, RESEND_MS)); /* one at a time */
    read_index_answer(&r, 2, 5, round, true);
    assert_true(read_index_confirmed(&r) < late);
    assert_true(read_index_due(&r, 0, RESEND_MS));
    round = read_index_start(&r, three, 3, 0);
    read_index_answer(&r, 3, 5, round, true);
    assert_true(read_index_confirmed(&r) >= late);
}

static void test_no_from_another_term_or_stranger_counts(void **state)
{
    struct read_index r = {0};
    (void)state;
    read_index_begin(&r, 1, 5);
    uint64_t ticket = read_index_ask(&r);
    uint64_t round = read_index_start(&r, three, 3, 0);
    read_index_answer(&r, 2, 5, round, false);
    read_index_answer(&r, 2, 6, round, true);
    read_index_answer(&r, 9, 5, round, true);
    read_index_answer(&r, 2, 5, round + 1, true);
    assert_true(read_index_confirmed(&r) < ticket);
}

static void test_a_lost_round_is_followed_by_one_that_covers_its_reads(void **state)
{
    struct read_index r = {0};
    (void)state;
    read_index_begin(&r, 1, 5);
    uint64_t ticket = read_index_ask(&r);
    uint64_t lost = read_index_start(&r, five, 5, 0);
    read_index_answer(&r, 2, 5, lost, true);
    assert_false(read_index_due(&r, RESEND_MS - 1, RESEND_MS));
    assert_true(read_index_due(&r, RESEND_MS, RESEND_MS));
    uint64_t next = read_index_start(&r, five, 5, RESEND_MS);
    /* One old answer and one new: both are later than the read. */
    read_index_answer(&r, 3, 5, next, true);
    assert_true(read_index_confirmed(&r) >= ticket);
}

static void test_a_new_term_confirms_nothing_of_the_old_one(void **state)
{
    struct read_index r = {0};
    (void)state;
    read_index_begin(&r, 1, 5);
    (void)read_index_ask(&r);
    uint64_t old = read_index_start(&r, three, 3, 0);
    read_index_begin(&r, 1, 7);
    uint64_t ticket = read_index_ask(&r);
    assert_true(ticket > old);
    read_index_answer(&r, 2, 5, old, true);
    assert_true(read_index_confirmed(&r) < ticket);
    uint64_t round = read_index_start(&r, three, 3, 0);
    assert_true(round > old);
    read_index_answer(&r, 2, 7, old, true);
    assert_true(read_index_confirmed(&r) < ticket);
    read_index_answer(&r, 2, 7, round, true);
    assert_true(read_index_confirmed(&r) >= ticket);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_single_voter_is_confirmed_at_once),
        cmocka_unit_test(test_a_majority_with_the_leader_confirms),
        cmocka_unit_test(test_a_leader_that_is_no_voter_needs_a_majority_of_the_others),
        cmocka_unit_test(test_a_read_waits_for_a_round_that_starts_after_it),
        cmocka_unit_test(test_no_from_another_term_or_stranger_counts),
        cmocka_unit_test(test_a_lost_round_is_followed_by_one_that_covers_its_reads),
        cmocka_unit_test(test_a_new_term_confirms_nothing_of_the_old_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
