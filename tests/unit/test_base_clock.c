#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"

static uint64_t kernel_us(clockid_t id)
{
    struct timespec t;
    assert_int_equal(clock_gettime(id, &t), 0);
    return (uint64_t)t.tv_sec * 1000000U + (uint64_t)t.tv_nsec / 1000U;
}

/* Leases rest on it: a wall clock that is set would end them, or make them last. */
static void times_of_leases_are_of_the_clock_that_nobody_sets(void **state)
{
    (void)state;
    uint64_t before = kernel_us(CLOCK_BOOTTIME);
    uint64_t ms = clock_boot_ms();
    uint64_t us = clock_boot_us();
    uint64_t after = kernel_us(CLOCK_BOOTTIME);
    assert_true(before / 1000U <= ms && ms <= after / 1000U);
    assert_true(before <= us && us <= after);
}

static void the_wall_clock_is_for_people(void **state)
{
    (void)state;
    char text[CLOCK_TEXT_MAX];
    clock_wall_text(1700000000123U, text);
    assert_string_equal(text, "2023-11-14T22:13:20.123Z");
}

static void a_time_needs_its_zone(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum err status;
        uint64_t ms;
    } rows[] = {
        {"1970-01-02T00:00:00Z", ERR_OK, 86400000},
        {"1970-01-02T00:00Z", ERR_OK, 86400000},
        {"1970-01-02 00:00:00+00:00", ERR_OK, 86400000},
        {"1970-01-02T01:00:00+01:00", ERR_OK, 86400000},
        {"1970-01-01T22:30:00.250-0130", ERR_OK, 86400000},
        {"1970-01-02T02:00:00+02", ERR_OK, 86400000},
        {"1970-01-02T00:00:00", ERR_UNSUPPORTED, 0},
        {"1970-01-01T00:00:00Z", ERR_INVALID, 0},
        {"1970-01-02T00:00:00Zulu", ERR_INVALID, 0},
        {"1970-01-02T00:00:00+1", ERR_INVALID, 0},
        {"1970-01-02T00:00:00+010", ERR_INVALID, 0},
        {"1970-01-02T00:00:00+01000", ERR_INVALID, 0},
        {"tomorrow", ERR_INVALID, 0},
        {"", ERR_INVALID, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t ms = 0;
        enum err rv = clock_wall_parse(rows[i].text, &ms);
        if (rv != rows[i].status || ms != rows[i].ms)
            fail_msg("%s: %d, %llu", rows[i].text, (int)rv, (unsigned long long)ms);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_time_needs_its_zone),
        cmocka_unit_test(times_of_leases_are_of_the_clock_that_nobody_sets),
        cmocka_unit_test(the_wall_clock_is_for_people),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
