/* dcs/latency: counted by size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dcs/latency.h"

static void a_bound_belongs_to_its_bucket(void **state)
{
    struct latency l = {0};
    (void)state;
    latency_add(&l, 0);
    latency_add(&l, LATENCY_FIRST_US);
    latency_add(&l, LATENCY_FIRST_US + 1);
    assert_int_equal(l.in[0], 2);
    assert_int_equal(l.in[1], 1);
    assert_int_equal(l.n, 3);
    assert_int_equal(l.sum_us, 2 * LATENCY_FIRST_US + 1);
}

static void what_is_above_all_bounds_counts_in_the_whole_only(void **state)
{
    struct latency l = {0};
    uint64_t in = 0;
    (void)state;
    latency_add(&l, 8192000);
    latency_add(&l, 8192001);
    for (size_t i = 0; i < LATENCY_BUCKETS; i++)
        in += l.in[i];
    assert_int_equal(l.in[LATENCY_BUCKETS - 1], 1);
    assert_int_equal(in, 1);
    assert_int_equal(l.n, 2);
    assert_int_equal(latency_percentile_us(&l, 99), 8192000);
}

static void a_percentile_is_a_bound(void **state)
{
    struct latency l = {0};
    (void)state;
    assert_int_equal(latency_percentile_us(&l, 99), 0);
    for (int i = 0; i < 98; i++)
        latency_add(&l, 100);
    latency_add(&l, 900);
    latency_add(&l, 3000);
    assert_int_equal(latency_percentile_us(&l, 50), 125);
    assert_int_equal(latency_percentile_us(&l, 99), 1000);
    assert_int_equal(latency_percentile_us(&l, 100), 4000);
}

static void a_message_has_every_bucket_and_its_bound(void **state)
{
    struct latency l = {0};
    struct latency_reply r;
    (void)state;
    latency_add(&l, 300);
    latency_tell(&l, "fsync", &r);
    assert_string_equal(r.name, "fsync");
    assert_int_equal(r.count, 1);
    assert_int_equal(r.buckets_n, LATENCY_BUCKETS);
    assert_int_equal(r.buckets[2].le_us, 500);
    assert_int_equal(r.buckets[2].count, 1);
    assert_int_equal(r.p99_us, 500);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bound_belongs_to_its_bucket),
        cmocka_unit_test(what_is_above_all_bounds_counts_in_the_whole_only),
        cmocka_unit_test(a_percentile_is_a_bound),
        cmocka_unit_test(a_message_has_every_bucket_and_its_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
