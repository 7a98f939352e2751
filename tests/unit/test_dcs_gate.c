#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base.h"
#include "dcs/gate.h"

/* Who may connect how often. */

static size_t admitted(struct gate *g, const uint8_t *address, uint64_t now_ms, size_t tries)
{
    size_t n = 0;
    for (size_t i = 0; i < tries; i++)
        n += gate_admit(g, address, now_ms);
    return n;
}

static const uint8_t v4[16] = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 1};
static const uint8_t other_v4[16] = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 2};
static const uint8_t v6[16] = {0x20, 1, 0xd, 0xb8, [15] = 1};
static const uint8_t same_v6[16] = {0x20, 1, 0xd, 0xb8, [15] = 2};

static void a_host_has_a_budget_that_fills_again(void **t)
{
    static struct gate g;
    (void)t;
    assert_int_equal(admitted(&g, v4, 1000, 1000), GATE_BURST);
    assert_int_equal(admitted(&g, v4, 1005, 10), 0);
    assert_int_equal(admitted(&g, v4, 1010, 10), 1);
    assert_int_equal(admitted(&g, v4, 2010, 1000), GATE_PER_S);
    assert_int_equal(admitted(&g, v4, 1000000, 1000), GATE_BURST);
    /* a clock never gives anything by going back */
    assert_int_equal(admitted(&g, v4, 999999, 10), 0);
}

static void hosts_do_not_pay_for_each_other(void **t)
{
    static struct gate g;
    (void)t;
    assert_int_equal(admitted(&g, v4, 1000, 1000), GATE_BURST);
    assert_int_equal(admitted(&g, other_v4, 1000, 1), 1);
    assert_int_equal(admitted(&g, v6, 1000, 1000), GATE_BURST);
    assert_int_equal(admitted(&g, same_v6, 1000, 1), 0);
}

static void the_hosts_seen_last_are_remembered(void **t)
{
    static struct gate g;
    (void)t;
    assert_int_equal(admitted(&g, v4, 1000, 1000), GATE_BURST);
    for (unsigned i = 0; i < GATE_HOSTS_MAX - 1; i++) {
        uint8_t a[16] = {
            [10] = 0xff, [11] = 0xff, [12] = 11, [14] = (uint8_t)(i >> 8), [15] = (uint8_t)i};
        assert_true(gate_admit(&g, a, 1001));
    }
    assert_false(gate_admit(&g, v4, 1002));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_host_has_a_budget_that_fills_again),
        cmocka_unit_test(hosts_do_not_pay_for_each_other),
        cmocka_unit_test(the_hosts_seen_last_are_remembered),
    };
    return cmocka_run_group_tests_name("dcs_gate", tests, NULL, NULL);
}
