#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dcs/intake.h"

/* Who may send on, of many whose requests are not whole yet. */

enum { N = INTAKE_PLACES + 3, LARGE = 2 * INTAKE_FREE };

struct crowd {
    struct intake i;
    struct intake_ticket t[N];
};

static void crowd_init(struct crowd *c)
{
    intake_init(&c->i);
    for (size_t k = 0; k < N; k++)
        intake_ticket_init(&c->t[k]);
}

/* All of them have sent the beginning of something large at `now_ms`. */
static void all_begin(struct crowd *c, uint64_t now_ms)
{
    for (size_t k = 0; k < N; k++)
        assert_int_equal(intake_note(&c->i, &c->t[k], LARGE, now_ms), k < INTAKE_PLACES);
}

static void small_requests_never_wait(void **state)
{
    static struct crowd c;
    (void)state;
    crowd_init(&c);
    all_begin(&c, 1000);
    struct intake_ticket small;
    intake_ticket_init(&small);
    assert_true(intake_note(&c.i, &small, INTAKE_FREE, 1000));
    assert_true(intake_note(&c.i, &small, 0, 1000));
}

static void whoever_waits_goes_on_in_order_as_others_end(void **state)
{
    static struct crowd c;
    (void)state;
    crowd_init(&c);
    all_begin(&c, 1000);
    assert_null(intake_next(&c.i, 1000));
    assert_true(intake_note(&c.i, &c.t[4], 10, 1100)); /* it is whole, and the next has begun */
    assert_ptr_equal(intake_next(&c.i, 1100), &c.t[INTAKE_PLACES]);
    assert_null(intake_next(&c.i, 1100));
    assert_false(intake_note(&c.i, &c.t[4], LARGE, 1200)); /* behind those that wait */
    intake_leave(&c.i, &c.t[0]);                           /* closed */
    intake_leave(&c.i, &c.t[INTAKE_PLACES + 1]);           /* closed while it waited */
    assert_ptr_equal(intake_next(&c.i, 1200), &c.t[INTAKE_PLACES + 2]);
    intake_leave(&c.i, &c.t[1]);
    assert_ptr_equal(intake_next(&c.i, 1200), &c.t[4]);
    assert_null(intake_next(&c.i, 1200));
}

static void a_place_that_is_given_up_goes_to_nobody_before_those_that_wait(void **state)
{
    static struct crowd c;
    (void)state;
    crowd_init(&c);
    all_begin(&c, 1000);
    struct intake_ticket late;
    intake_ticket_init(&late);
    intake_leave(&c.i, &c.t[0]);
    assert_false(intake_note(&c.i, &late, LARGE, 1000));
    assert_ptr_equal(intake_next(&c.i, 1000), &c.t[INTAKE_PLACES]);
}

static void who_holds_a_place_and_does_not_go_on_has_to_go(void **state)
{
    static struct crowd c;
    (void)state;
    crowd_init(&c);
    all_begin(&c, 1000);
    assert_null(intake_stalled(&c.i, 1000 + INTAKE_STILL_MS - 1));
    for (size_t k = 0; k < INTAKE_PLACES; k++)
        if (k != 7)
            assert_true(intake_note(&c.i, &c.t[k], LARGE + 1, 1000 + INTAKE_STILL_MS));
    assert_ptr_equal(intake_stalled(&c.i, 1000 + INTAKE_STILL_MS), &c.t[7]);
    intake_leave(&c.i, &c.t[7]);
    assert_null(intake_stalled(&c.i, 1000 + INTAKE_STILL_MS));
    /* going on by drops is not enough */
    for (size_t k = 0; k < INTAKE_PLACES; k++)
        if (k != 7)
            assert_true(intake_note(&c.i, &c.t[k], LARGE + 2, 1000 + INTAKE_HOLD_MS - 1));
    assert_null(intake_stalled(&c.i, 1000 + INTAKE_HOLD_MS - 1));
    assert_ptr_equal(intake_stalled(&c.i, 1000 + INTAKE_HOLD_MS), &c.t[0]);
}

static void nobody_has_to_go_while_nobody_waits(void **state)
{
    static struct crowd c;
    (void)state;
    crowd_init(&c);
    assert_true(intake_note(&c.i, &c.t[0], LARGE, 1000));
    assert_null(intake_stalled(&c.i, 1000000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_requests_never_wait),
        cmocka_unit_test(whoever_waits_goes_on_in_order_as_others_end),
        cmocka_unit_test(a_place_that_is_given_up_goes_to_nobody_before_those_that_wait),
        cmocka_unit_test(who_holds_a_place_and_does_not_go_on_has_to_go),
        cmocka_unit_test(nobody_has_to_go_while_nobody_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
