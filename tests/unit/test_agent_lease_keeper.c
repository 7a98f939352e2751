/* The holder's side of a lease: DESIGN.md lease rules 4 and 5. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "agent/lease_keeper.h"
#include "conf/lease_rule.h"

/* TTL 5 s: margin 500, period 1250. */
static struct lease_keeper held(void)
{
    struct lease_keeper k = {0};
    keeper_granted(&k, 7, 1, 0, 5000, 1000);
    return k;
}

static void the_deadline_counts_from_the_first_submission(void **state)
{
    (void)state;
    struct lease_keeper k = held();
    assert_int_equal(k.deadline_ms, 1000 + 4500);
    assert_false(keeper_due(&k, 2249));
    assert_true(keeper_due(&k, 2250));
    assert_int_equal(keeper_submit(&k, 5000, 2250), 1);
    assert_int_equal(k.deadline_ms, 5500); /* sending moves nothing */
    keeper_acked(&k, 1);
    assert_int_equal(k.deadline_ms, 2250 + 4500);
}

static void renewals_answered_together_come_together(void **state)
{
    (void)state;
    struct lease_keeper first = held(), second = held();
    keeper_submit(&first, 5000, 2250);
    keeper_submit(&second, 5000, 2700);
    keeper_align(&first, 2875); /* 625 ms after the first came */
    keeper_align(&second, 2875);
    assert_int_equal(first.next_ms, 3500);
    assert_int_equal(second.next_ms, 3500);
    keeper_align(&first, 3400); /* an answer that was late */
    assert_int_equal(first.next_ms, 3500);
}

static void an_old_answer_moves_nothing(void **state)
{
    (void)state;
    struct lease_keeper k = held();
    keeper_submit(&k, 5000, 2250);
    keeper_submit(&k, 5000, 3500);
    keeper_acked(&k, 2);
    assert_int_equal(k.deadline_ms, 8000);
    keeper_acked(&k, 1);
    keeper_acked(&k, 2);
    assert_int_equal(k.deadline_ms, 8000);
}

static void an_answer_to_a_forgotten_submission_moves_nothing(void **state)
{
    (void)state;
    struct lease_keeper k = held();
    for (uint64_t i = 0; i < KEEPER_OUTSTANDING + 1; i++)
        keeper_submit(&k, 5000, 2000 + i);
    keeper_acked(&k, 1); /* its place in the ring was taken */
    assert_int_equal(k.deadline_ms, 5500);
    keeper_acked(&k, 99); /* never sent */
    assert_int_equal(k.deadline_ms, 5500);
}

static void a_shorter_ttl_binds_from_its_submission(void **state)
{
    (void)state;
    struct lease_keeper k = held();
    keeper_submit(&k, 2000, 2000);
    assert_int_equal(k.deadline_ms, 2000 + 1800);
    /* and an answer to an earlier, longer one does not lift it */
    k = held();
    keeper_submit(&k, 5000, 2000);
    keeper_submit(&k, 2000, 2100);
    keeper_acked(&k, 1);
    assert_int_equal(k.deadline_ms, 2100 + 1800);
}

static void a_short_ttl_in_between_binds_although_a_longer_followed(void **state)
{
    (void)state;
    struct lease_keeper k = held();
    keeper_submit(&k, 5000, 2000);
    keeper_submit(&k, 2000, 2100);
    keeper_submit(&k, 5000, 2200);
    keeper_acked(&k, 1);
    assert_int_equal(k.deadline_ms, 2100 + 1800);
    keeper_acked(&k, 3);
    assert_int_equal(k.deadline_ms, 2200 + 4500);
}

static void a_longer_ttl_binds_from_its_answer(void **state)
{
    (void)state;
    struct lease_keeper k = held();
    keeper_submit(&k, 20000, 2000);
    assert_int_equal(k.deadline_ms, 5500);
    keeper_acked(&k, 1);
    assert_int_equal(k.deadline_ms, 2000 + 18000);
}

static void a_lost_lease_keeps_its_deadline(void **state)
{
    (void)state;
    struct lease_keeper k = held();
    keeper_gone(&k);
    assert_int_equal(k.id, 0);
    assert_int_equal(k.deadline_ms, 5500);
    assert_false(keeper_due(&k, 1000000));
}

static void rule_5_refuses_what_cannot_be_renewed_in_time(void **state)
{
    (void)state;
    static const struct {
        uint64_t ttl_ms, election_ms;
        bool fits;
    } rows[] = {
        {5000, 1000, true}, {5000, 1300, false}, {4000, 1000, false}, {2000, 300, true},
        {2000, 500, false}, {1000, 100, false},  {30000, 1000, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct errmsg e = {0};
        enum err rv = lease_rule_check(rows[i].ttl_ms, rows[i].election_ms, &e);
        assert_int_equal(rv == ERR_OK, rows[i].fits);
        if (rv != ERR_OK)
            assert_non_null(strstr(e.text, "raise ttl"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_deadline_counts_from_the_first_submission),
        cmocka_unit_test(renewals_answered_together_come_together),
        cmocka_unit_test(an_old_answer_moves_nothing),
        cmocka_unit_test(an_answer_to_a_forgotten_submission_moves_nothing),
        cmocka_unit_test(a_shorter_ttl_binds_from_its_submission),
        cmocka_unit_test(a_short_ttl_in_between_binds_although_a_longer_followed),
        cmocka_unit_test(a_longer_ttl_binds_from_its_answer),
        cmocka_unit_test(a_lost_lease_keeps_its_deadline),
        cmocka_unit_test(rule_5_refuses_what_cannot_be_renewed_in_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
