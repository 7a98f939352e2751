#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "dcs/raft_log.h"

static void fill(struct raft_log *l, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        char text[32];
        int len = snprintf(text, sizeof text, "entry %llu", (unsigned long long)l->last + 1);
        raft_log_append(l, 1 + l->last / 100, RAFT_ENTRY_COMMAND, slice_of(text, (size_t)len));
    }
}

static void entries_stay_where_they_are_while_the_ring_grows(void **state)
{
    (void)state;
    struct raft_log l;
    raft_log_init(&l, 1);
    fill(&l, 700);
    raft_log_trim(&l, 600);
    fill(&l, 5000);
    assert_int_equal(l.first, 601);
    assert_int_equal(l.last, 5700);
    for (uint64_t i = l.first; i <= l.last; i++) {
        char text[32];
        int len = snprintf(text, sizeof text, "entry %llu", (unsigned long long)i);
        assert_true(
            slice_eq(raft_log_view(raft_log_get(&l, i)).data, slice_of(text, (size_t)len)));
        assert_int_equal(raft_log_get(&l, i)->term, 1 + (i - 1) / 100);
    }
    assert_false(raft_log_has(&l, 600));
    assert_false(raft_log_has(&l, 5701));
    raft_log_close(&l);
}

static void bytes_are_the_sum_of_what_is_there(void **state)
{
    (void)state;
    struct raft_log l;
    raft_log_init(&l, 1);
    fill(&l, 100);
    size_t all = raft_log_bytes(&l, 1, 100);
    assert_int_equal(raft_log_bytes(&l, 1, 50) + raft_log_bytes(&l, 51, 100), all);
    assert_int_equal(raft_log_bytes(&l, 0, 1000), all);
    assert_int_equal(raft_log_bytes(&l, 60, 50), 0);
    raft_log_truncate(&l, 51);
    assert_int_equal(raft_log_bytes(&l, 1, 100), raft_log_bytes(&l, 1, 50));
    fill(&l, 50);
    assert_int_equal(raft_log_bytes(&l, 1, 100), all);
    raft_log_reset(&l, 500);
    assert_int_equal(raft_log_bytes(&l, 1, 1000), 0);
    assert_int_equal(l.last, 499);
    raft_log_close(&l);
}

static void a_held_entry_outlives_the_log(void **state)
{
    (void)state;
    struct raft_log l;
    raft_log_init(&l, 1);
    fill(&l, 3);
    struct raft_log_entry *e = raft_log_hold(&l, 2);
    raft_log_truncate(&l, 1);
    raft_log_close(&l);
    assert_true(slice_eq(raft_log_view(e).data, slice_str("entry 2")));
    raft_log_release(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_stay_where_they_are_while_the_ring_grows),
        cmocka_unit_test(bytes_are_the_sum_of_what_is_there),
        cmocka_unit_test(a_held_entry_outlives_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
