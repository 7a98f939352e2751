#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"

static void the_same_seed_gives_the_same_numbers(void **state)
{
    (void)state;
    struct rng a;
    struct rng b;
    struct rng c;
    rng_seed(&a, 42);
    rng_seed(&b, 42);
    rng_seed(&c, 43);
    bool differs = false;
    for (int i = 0; i < 1000; i++) {
        uint64_t x = rng_u64(&a);
        assert_true(x == rng_u64(&b));
        differs = differs || x != rng_u64(&c);
    }
    assert_true(differs);
}

/* A recorded seed must give the same run next year: these are the numbers of the reference
 * implementations of splitmix64 and xoshiro256** for this seed. */
static void the_sequence_never_changes(void **state)
{
    (void)state;
    static const uint64_t want[] = {0x99ec5f36cb75f2b4U, 0xbf6e1f784956452aU,
                                    0x1a5f849d4933e6e0U};
    struct rng r;
    rng_seed(&r, 0);
    for (size_t i = 0; i < ARRAY_LEN(want); i++)
        assert_true(rng_u64(&r) == want[i]);
}

static void below_stays_below_and_reaches_everything(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 7);
    unsigned seen[6] = {0};
    for (int i = 0; i < 6000; i++) {
        uint64_t x = rng_below(&r, 6);
        assert_true(x < 6);
        seen[x]++;
    }
    for (size_t i = 0; i < ARRAY_LEN(seen); i++)
        assert_in_range(seen[i], 800, 1200);
    for (int i = 0; i < 100; i++)
        assert_true(rng_below(&r, 1) == 0);
    for (int i = 0; i < 100; i++)
        assert_true(rng_below(&r, UINT64_MAX) < UINT64_MAX);
}

static void the_system_fills_any_length(void **state)
{
    (void)state;
    static const size_t lengths[] = {0, 1, 32, 256, 257, 1000};
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        uint8_t *p = mem_alloc(lengths[i] + 8);
        rng_system(p, lengths[i]);
        for (size_t j = 0; j < 8; j++)
            assert_int_equal(p[lengths[i] + j], 0);
        mem_free(p);
    }
    uint8_t a[16];
    uint8_t b[16];
    rng_system(a, sizeof a);
    rng_system(b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
}

static void clocks_do_not_run_backwards(void **state)
{
    (void)state;
    uint64_t boot = clock_boot_ms();
    uint64_t boot_us = clock_boot_us();
    uint64_t mono = clock_mono_ms();
    uint64_t raw = clock_raw_ms();
    for (int i = 0; i < 1000; i++) {
        assert_true(clock_boot_ms() >= boot);
        assert_true(clock_boot_us() >= boot_us);
        assert_true(clock_mono_ms() >= mono);
        assert_true(clock_raw_ms() >= raw);
        boot = clock_boot_ms();
        boot_us = clock_boot_us();
        mono = clock_mono_ms();
        raw = clock_raw_ms();
    }
    /* it may be stopped in between */
    assert_in_range(clock_boot_us() / 1000 - boot, 0, 600000);
}

static void wall_time_is_written_in_utc(void **state)
{
    (void)state;
    static const struct {
        uint64_t wall_ms;
        const char *text;
    } rows[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {951782400001U, "2000-02-29T00:00:00.001Z"},
        {1767323045678U, "2026-01-02T03:04:05.678Z"},
        {253402300799999U, "9999-12-31T23:59:59.999Z"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[CLOCK_TEXT_MAX];
        clock_wall_text(rows[i].wall_ms, text);
        assert_string_equal(text, rows[i].text);
    }
}

static void memory_helpers_copy_and_zero(void **state)
{
    (void)state;
    char *text CLEANUP(mem_cleanup) = mem_printf("%s=%d", "ttl", 5);
    assert_string_equal(text, "ttl=5");
    char *copy CLEANUP(mem_cleanup) = mem_strdup(text);
    assert_string_equal(copy, text);
    char *part CLEANUP(mem_cleanup) = mem_dup(text, 3);
    assert_string_equal(part, "ttl");
    uint64_t *zeros CLEANUP(mem_cleanup) = mem_array(10, sizeof *zeros);
    for (size_t i = 0; i < 10; i++)
        assert_true(zeros[i] == 0);
    zeros = mem_resize(zeros, 20 * sizeof *zeros);
    zeros[19] = 1;
    assert_true(zeros[9] == 0);
    char *moved CLEANUP(mem_cleanup) = TAKE(copy);
    assert_null(copy);
    assert_string_equal(moved, "ttl=5");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_gives_the_same_numbers),
        cmocka_unit_test(the_sequence_never_changes),
        cmocka_unit_test(below_stays_below_and_reaches_everything),
        cmocka_unit_test(the_system_fills_any_length),
        cmocka_unit_test(clocks_do_not_run_backwards),
        cmocka_unit_test(wall_time_is_written_in_utc),
        cmocka_unit_test(memory_helpers_copy_and_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
