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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_of_leases_are_of_the_clock_that_nobody_sets),
        cmocka_unit_test(the_wall_clock_is_for_people),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
