/* dcs/renew: renewals gathered on the leader, and their order before expiries. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base.h"
#include "dcs/renew.h"

static struct renew_item item(uint64_t lease, uint64_t ttl_ms, uint64_t held_ms,
                              uint64_t arrived_ms)
{
    return (struct renew_item){.renew = {.id = lease, .ttl_ms = ttl_ms, .held_ms = held_ms},
                               .arrived_ms = arrived_ms};
}

static void add(struct renew *r, struct renew_item *i, uint64_t known_ttl_ms, uint64_t now_ms)
{
    list_init(&i->link);
    assert_true(renew_add(r, i, known_ttl_ms, now_ms));
}

static void test_a_renewal_waits_an_eighth_of_its_ttl_at_most(void **state)
{
    struct renew r;
    struct renew_item a = item(1, 8000, 0, 100);
    (void)state;
    renew_init(&r);
    assert_false(renew_due(&r, UINT64_MAX - 1));
    add(&r, &a, 0, 100);
    assert_false(renew_due(&r, 1099));
    assert_true(renew_due(&r, 1100));
}

static void test_a_renewal_of_a_long_ttl_waits_a_second_at_most(void **state)
{
    struct renew r;
    struct renew_item a = item(1, 600000, 0, 100);
    (void)state;
    renew_init(&r);
    add(&r, &a, 0, 100);
    assert_false(renew_due(&r, 1099));
    assert_true(renew_due(&r, 1100));
}

static void test_the_most_urgent_one_decides_for_all(void **state)
{
    struct renew r;
    struct renew_item a = item(1, 8000, 0, 0), b = item(2, 0, 0, 10);
    (void)state;
    renew_init(&r);
    add(&r, &a, 0, 0);
    add(&r, &b, 1600, 10); /* the TTL it has */
    assert_int_equal(r.due_ms, 210);
    assert_ptr_equal(renew_take(&r), &a);
    assert_ptr_equal(renew_take(&r), &b);
    assert_null(renew_take(&r));
    assert_int_equal(r.due_ms, UINT64_MAX);
}

static void test_what_it_waited_elsewhere_counts(void **state)
{
    struct renew r;
    struct renew_item a = item(1, 8000, 600, 0), b = item(2, 8000, 5000, 0),
                      c = item(3, 8000, 0, 0);
    (void)state;
    renew_init(&r);
    add(&r, &a, 0, 0);
    assert_int_equal(r.due_ms, 400);
    add(&r, &b, 0, 0);
    assert_int_equal(r.due_ms, 0);
    add(&r, &c, 0, 700); /* it reached this node at 0 and waited for a leader */
    assert_int_equal(renew_held_ms(&a, 250), 850);
    assert_int_equal(renew_held_ms(&c, 900), 900);
}

static void test_one_that_is_given_up_leaves(void **state)
{
    struct renew r;
    struct renew_item a = item(1, 8000, 0, 0), b = item(2, 8000, 0, 0);
    (void)state;
    renew_init(&r);
    add(&r, &a, 0, 0);
    add(&r, &b, 0, 0);
    renew_forget(&r, &a);
    assert_ptr_equal(renew_take(&r), &b);
    assert_null(renew_take(&r));
}

static void test_no_expiry_before_received_renewals(void **state)
{
    struct renew r;
    struct renew_item a = item(1, 8000, 0, 0);
    (void)state;
    renew_init(&r);
    assert_true(renew_may_expire(&r, 10, 10));
    add(&r, &a, 0, 0);
    assert_false(renew_may_expire(&r, 10, 10));
    (void)renew_take(&r);
    assert_true(renew_may_expire(&r, 10, 10));
}

static void test_no_expiry_before_the_leader_has_applied_its_predecessors_entries(void **state)
{
    struct renew r;
    (void)state;
    renew_init(&r);
    assert_false(renew_may_expire(&r, 9, 10));
    assert_true(renew_may_expire(&r, 11, 10));
}

static void test_expiries_are_proposed_once(void **state)
{
    struct renew r;
    (void)state;
    renew_init(&r);
    renew_expire_proposed(&r, 20);
    assert_false(renew_may_expire(&r, 19, 10));
    renew_applied(&r, 19);
    assert_false(renew_may_expire(&r, 19, 10));
    renew_applied(&r, 20);
    assert_true(renew_may_expire(&r, 20, 10));
    renew_expire_proposed(&r, 21);
    renew_reset(&r); /* leadership lost: another leader's business */
    assert_true(renew_may_expire(&r, 20, 10));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_renewal_waits_an_eighth_of_its_ttl_at_most),
        cmocka_unit_test(test_a_renewal_of_a_long_ttl_waits_a_second_at_most),
        cmocka_unit_test(test_the_most_urgent_one_decides_for_all),
        cmocka_unit_test(test_what_it_waited_elsewhere_counts),
        cmocka_unit_test(test_one_that_is_given_up_leaves),
        cmocka_unit_test(test_no_expiry_before_received_renewals),
        cmocka_unit_test(test_no_expiry_before_the_leader_has_applied_its_predecessors_entries),
        cmocka_unit_test(test_expiries_are_proposed_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
