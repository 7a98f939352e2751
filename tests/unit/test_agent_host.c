/* What is told of the machine and of the slots. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/host_watch.h"
#include "agent/pg_monitor.h"

enum { MINUTE_MS = 60000 };
#define GB (UINT64_C(1) << 30)

static void a_disk_that_fills_up_steadily_has_a_date(void **state)
{
    (void)state;
    struct host_history h = {0};
    uint64_t left = 0;
    for (uint64_t m = 0; m <= 20; m++) {
        left = host_forecast(&h, (struct host_sample){m * MINUTE_MS, (100 - m) * GB});
        if (m < 5)
            assert_int_equal(left, 0); /* too little is known */
    }
    assert_int_equal(left, 80 * 60); /* 80 GB, one a minute */
}

static void a_disk_that_does_not_fill_up_has_none(void **state)
{
    (void)state;
    struct host_history h = {0};
    for (uint64_t m = 0; m < 200; m++)
        assert_int_equal(host_forecast(&h, (struct host_sample){m * MINUTE_MS, (100 + m) * GB}),
                         0);
    assert_int_equal(host_forecast(&h, (struct host_sample){300 * (uint64_t)MINUTE_MS, 0}), 1);
}

static void only_the_newest_samples_count(void **state)
{
    (void)state;
    struct host_history h = {0};
    for (uint64_t m = 0; m < HOST_SAMPLES; m++)
        (void)host_forecast(&h, (struct host_sample){m * MINUTE_MS, (1000 - m) * GB});
    uint64_t left = 0;
    for (uint64_t m = HOST_SAMPLES; m < 2 * HOST_SAMPLES; m++)
        left = host_forecast(&h, (struct host_sample){m * MINUTE_MS, 500 * GB});
    assert_int_equal(left, 0);
}

static void slots_are_read_from_one_text(void **state)
{
    (void)state;
    static struct pg_seen s;
    pg_slots_parse("a_1,1,1048576,reserved;b,0,0,;c,1,7", &s);
    assert_int_equal(s.slots_n, 3);
    assert_string_equal(s.slots[0].name, "a_1");
    assert_string_equal(s.slots[0].wal_status, "reserved");
    assert_true(s.slots[0].active && s.slots[0].retained_bytes == 1048576);
    assert_true(!s.slots[1].active && s.slots[2].retained_bytes == 7);
    pg_slots_parse("", &s);
    assert_int_equal(s.slots_n, 0);
    pg_slots_parse("nonsense;;,,,", &s);
    assert_int_equal(s.slots_n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_that_fills_up_steadily_has_a_date),
        cmocka_unit_test(a_disk_that_does_not_fill_up_has_none),
        cmocka_unit_test(only_the_newest_samples_count),
        cmocka_unit_test(slots_are_read_from_one_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
