/* dcs/watch: what a watcher is told, and when it is cut off. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "dcs/watch.h"

/* Writes down what it is told: "rev:key=value,..." "rev!" cancelled, "rev<compacted" too old. */
struct receiver {
    struct buf text;
    bool full;
    bool counts; /* "rev:events ", with "..." when there are more */
    size_t n_prev;
};

static bool receive(void *arg, struct slice event, bool must)
{
    struct receiver *r = arg;
    struct watch_event ev;
    struct event one;
    struct msg_iter it;
    if (r->full && !must) {
        return false;
    }
    assert_int_equal(msg_decode(&msg_watch_event, event, &ev, NULL), ERR_OK);
    assert_true(ev.watch != 0);
    buf_printf(&r->text, "%llu", (unsigned long long)ev.revision);
    if (ev.compacted != 0) {
        buf_printf(&r->text, "<%llu ", (unsigned long long)ev.compacted);
        return true;
    }
    buf_printf(&r->text, ev.cancelled ? "! " : ":");
    if (r->counts) {
        size_t n = 0;
        assert_int_equal(msg_iter_init(&it, ev.events), ERR_OK);
        while (msg_iter_next(&it, &msg_event, &one, NULL) == ERR_OK) {
            r->n_prev += one.prev.mod_revision != 0;
            n++;
        }
        buf_printf(&r->text, "%zu%s ", n, ev.more ? "..." : "");
        assert_true(event.n < 2 * 1024 * 1024 + 4096);
        return true;
    }
    if (ev.events.n > 0) {
        assert_int_equal(msg_iter_init(&it, ev.events), ERR_OK);
        while (msg_iter_next(&it, &msg_event, &one, NULL) == ERR_OK) {
            buf_printf(&r->text, "%c%.*s%s", one.type[0], (int)one.kv.key.n,
                       (const char *)one.kv.key.p, one.prev.mod_revision != 0 ? "+ " : " ");
        }
    }
    return true;
}

static void expect(struct receiver *r, const char *text)
{
    assert_string_equal(buf_cstr(&r->text), text);
    buf_clear(&r->text);
}

static struct watch *add(struct watch_hub *h, struct receiver *r, const char *key,
                         const char *end, uint64_t start, bool prev)
{
    struct watch_req req = {
        .key = slice_str(key), .end = slice_str(end), .start_revision = start, .prev_kv = prev};
    struct watch *w = NULL;
    if (strcmp(end, "*") == 0) {
        req.end = slice_of("", 1);
    }
    assert_int_equal(watch_add(h, &req, 10, receive, r, &w), ERR_OK);
    return w;
}

static void change(struct watch_hub *h, const char *key, uint64_t revision, bool deleted)
{
    struct kv kv = {.key = slice_str(key), .value = slice_str("v"), .mod_revision = revision};
    struct kv prev = {.key = slice_str(key), .mod_revision = revision - 1};
    watch_event(h, deleted, &kv, &prev);
}

static void test_keys_and_ranges(void **state)
{
    struct watch_hub h;
    struct receiver one = {0}, range = {0}, all = {0};
    (void)state;
    watch_hub_init(&h);
    (void)add(&h, &one, "b", "", 0, false);
    (void)add(&h, &range, "b", "d", 0, false);
    (void)add(&h, &all, "b", "*", 0, false);
    const char *const keys[] = {"a", "b", "bb", "c", "d", "z"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        change(&h, keys[i], 11, false);
    }
    watch_revision_done(&h, 11);
    expect(&one, "11:pb ");
    expect(&range, "11:pb pbb pc ");
    expect(&all, "11:pb pbb pc pd pz ");
    watch_hub_close(&h);
    buf_close(&one.text);
    buf_close(&range.text);
    buf_close(&all.text);
}

static void test_all_events_of_a_revision_come_together(void **state)
{
    struct watch_hub h;
    struct receiver r = {0};
    (void)state;
    watch_hub_init(&h);
    (void)add(&h, &r, "a", "*", 0, true);
    change(&h, "a", 11, false);
    change(&h, "b", 11, true);
    expect(&r, "");
    watch_revision_done(&h, 11);
    expect(&r, "11:pa+ db+ ");
    watch_revision_done(&h, 12);
    expect(&r, "");
    watch_hub_close(&h);
    buf_close(&r.text);
}

static void test_nothing_before_the_start_revision(void **state)
{
    struct watch_hub h;
    struct receiver r = {0};
    (void)state;
    watch_hub_init(&h);
    (void)add(&h, &r, "a", "", 13, false);
    for (uint64_t revision = 11; revision <= 14; revision++) {
        change(&h, "a", revision, false);
        watch_revision_done(&h, revision);
    }
    expect(&r, "13:pa 14:pa ");
    watch_hub_close(&h);
    buf_close(&r.text);
}

static void test_history_is_told_to_the_one_that_asked(void **state)
{
    struct watch_hub h;
    struct receiver old = {0}, late = {0};
    (void)state;
    watch_hub_init(&h);
    (void)add(&h, &old, "a", "", 0, false);
    struct watch *w = add(&h, &late, "a", "", 9, false);
    watch_replay_begin(&h, w);
    for (uint64_t revision = 9; revision <= 10; revision++) {
        change(&h, "a", revision, false);
        watch_revision_done(&h, revision);
    }
    assert_true(watch_replay_end(&h));
    expect(&late, "9:pa 10:pa ");
    expect(&old, "");
    change(&h, "a", 11, false);
    watch_revision_done(&h, 11);
    expect(&late, "11:pa ");
    expect(&old, "11:pa ");
    watch_hub_close(&h);
    buf_close(&old.text);
    buf_close(&late.text);
}

static void test_a_slow_one_is_cut_off_with_where_to_resume(void **state)
{
    struct watch_hub h;
    struct receiver slow = {0}, quick = {0};
    (void)state;
    watch_hub_init(&h);
    (void)add(&h, &slow, "a", "", 0, false);
    (void)add(&h, &quick, "a", "", 0, false);
    slow.full = true;
    change(&h, "a", 11, false);
    watch_revision_done(&h, 11);
    change(&h, "a", 12, false);
    watch_revision_done(&h, 12);
    expect(&slow, "11! ");
    expect(&quick, "11:pa 12:pa ");
    assert_int_equal(h.n, 1);
    watch_hub_close(&h);
    buf_close(&slow.text);
    buf_close(&quick.text);
}

static void change_sized(struct watch_hub *h, const char *key, uint64_t revision, size_t n,
                         size_t n_prev)
{
    static uint8_t bytes[1536 * 1024];
    struct kv kv = {
        .key = slice_str(key), .value = slice_of(bytes, n), .mod_revision = revision};
    struct kv prev = {
        .key = slice_str(key), .value = slice_of(bytes, n_prev), .mod_revision = 10};
    watch_event(h, false, &kv, &prev);
}

static void test_previous_pairs_are_left_out_rather_than_a_message_outgrow_a_frame(void **state)
{
    struct watch_hub h;
    struct receiver r = {0};
    (void)state;
    watch_hub_init(&h);
    (void)add(&h, &r, "a", "*", 0, true);
    change_sized(&h, "a", 11, 1536 * 1024, 1000 * 1024);
    watch_revision_done(&h, 11);
    expect(&r, "11:pa ");
    change_sized(&h, "a", 12, 10, 1000 * 1024);
    watch_revision_done(&h, 12);
    expect(&r, "12:pa+ ");
    change_sized(&h, "a", 13, 10, 1000 * 1024);
    change_sized(&h, "b", 13, 1536 * 1024, 10);
    watch_revision_done(&h, 13);
    expect(&r, "13:pa+ 13:pb ");
    watch_hub_close(&h);
    buf_close(&r.text);
}

static void test_a_revision_too_large_for_a_message_comes_in_parts(void **state)
{
    struct watch_hub h;
    struct receiver all = {.counts = true}, one = {0};
    (void)state;
    watch_hub_init(&h);
    (void)add(&h, &all, "a", "*", 0, true);
    (void)add(&h, &one, "z", "", 0, false);
    for (size_t i = 0; i < 9000; i++) {
        change(&h, "a", 11, true);
    }
    change(&h, "z", 11, true);
    watch_revision_done(&h, 11);
    expect(&all, "11:2096... 11:2096... 11:2096... 11:2096... 11:617 ");
    assert_int_equal(all.n_prev, 9001);
    expect(&one, "11:dz ");
    change(&h, "a", 12, true);
    watch_revision_done(&h, 12);
    expect(&all, "12:1 ");
    watch_hub_close(&h);
    buf_close(&all.text);
    buf_close(&one.text);
}

static void test_previous_pairs_of_a_large_revision_are_told_as_far_as_a_message_goes(
    void **state)
{
    struct watch_hub h;
    struct receiver r = {.counts = true};
    (void)state;
    watch_hub_init(&h);
    (void)add(&h, &r, "a", "*", 0, true);
    for (size_t i = 0; i < 1000; i++) {
        change_sized(&h, "a", 11, 0, 4096);
    }
    watch_revision_done(&h, 11);
    assert_true(r.n_prev > 400 && r.n_prev < 512);
    expect(&r, "11:535... 11:465 ");
    watch_hub_close(&h);
    buf_close(&r.text);
}

static void test_one_that_stops_reading_within_a_revision_gets_the_rest_of_it(void **state)
{
    struct watch_hub h;
    struct receiver r = {.counts = true};
    (void)state;
    watch_hub_init(&h);
    (void)add(&h, &r, "a", "*", 0, false);
    for (size_t i = 0; i < 9000; i++) {
        change(&h, "a", 11, true);
        r.full = r.text.len > 0;
    }
    watch_revision_done(&h, 11);
    expect(&r, "11:3823... 11:3823... 11:1354 ");
    change(&h, "a", 12, true);
    watch_revision_done(&h, 12);
    expect(&r, "12! 0 ");
    watch_hub_close(&h);
    buf_close(&r.text);
}

static void test_a_revision_that_would_fill_the_connection_ends_the_watch(void **state)
{
    struct watch_hub h;
    struct receiver r = {0};
    (void)state;
    watch_hub_init(&h);
    (void)add(&h, &r, "a", "*", 0, false);
    r.full = true; /* nothing of it goes out that must not */
    for (size_t i = 0; i < 7; i++) {
        change_sized(&h, "a", 11, 1024 * 1024, 0);
    }
    watch_revision_done(&h, 11);
    expect(&r, "11! ");
    r.full = false;
    (void)add(&h, &r, "a", "*", 0, false);
    for (size_t i = 0; i < 7; i++) {
        change_sized(&h, "a", 12, 1024 * 1024, 0);
    }
    buf_clear(&r.text); /* the parts before it */
    watch_revision_done(&h, 12);
    expect(&r, "12<12 ");
    assert_int_equal(h.n, 0);
    watch_hub_close(&h);
    buf_close(&r.text);
}

static struct watch *add_window(struct watch_hub *h, struct receiver *r, uint64_t credit)
{
    struct watch_req req = {
        .key = slice_str("a"), .end = slice_of("", 1), .credit = credit, .progress_ms = 1000};
    struct watch *w = NULL;
    assert_int_equal(watch_add(h, &req, 10, receive, r, &w), ERR_OK);
    return w;
}

static void test_a_closed_window_is_told_nothing_until_it_has_credit(void **state)
{
    struct watch_hub h;
    struct receiver r = {0}, other = {0};
    (void)state;
    watch_hub_init(&h);
    struct watch *w = add_window(&h, &r, 1);
    (void)add(&h, &other, "a", "*", 0, false);
    for (uint64_t revision = 11; revision <= 13; revision++) {
        change(&h, "a", revision, false);
        watch_revision_done(&h, revision);
    }
    expect(&r, "11:pa "); /* of which it took all that was left */
    expect(&other, "11:pa 12:pa 13:pa ");
    assert_true(w->behind);
    assert_int_equal(w->events.list.body.len, 0);
    assert_int_equal(w->next_revision, 12);
    watch_progress(&h, 60000, 13); /* which would say that all up to there was told */
    expect(&r, "");
    assert_true(watch_grant(w, 1000));
    watch_replay_begin(&h, w);
    for (uint64_t revision = 12; revision <= 13; revision++) {
        change(&h, "a", revision, false);
        watch_revision_done(&h, revision);
    }
    assert_true(watch_replay_end(&h));
    expect(&r, "12:pa 13:pa ");
    assert_false(w->behind);
    assert_false(watch_grant(w, 1000)); /* nothing was missed */
    change(&h, "a", 14, false);
    watch_revision_done(&h, 14);
    expect(&r, "14:pa ");
    watch_hub_close(&h);
    buf_close(&r.text);
    buf_close(&other.text);
}

static void test_a_revision_that_was_begun_goes_out_whole_whatever_the_window(void **state)
{
    struct watch_hub h;
    struct receiver r = {.counts = true};
    (void)state;
    watch_hub_init(&h);
    struct watch *w = add_window(&h, &r, 1);
    for (size_t i = 0; i < 9000; i++) {
        change(&h, "a", 11, true);
    }
    watch_revision_done(&h, 11);
    expect(&r, "11:3823... 11:3823... 11:1354 ");
    assert_int_equal(w->credit, 0);
    assert_true(w->behind && !watch_grant(w, 0) && w->behind);
    assert_true(watch_grant(w, UINT64_MAX) && !watch_grant(w, UINT64_MAX));
    assert_int_equal(w->credit, WATCH_CREDIT_MAX);
    watch_hub_close(&h);
    buf_close(&r.text);
}

static void test_puts_or_deletes_can_be_left_out(void **state)
{
    struct watch_hub h;
    struct receiver puts = {0}, deletes = {0};
    (void)state;
    watch_hub_init(&h);
    add(&h, &puts, "a", "*", 0, false)->no_delete = true;
    add(&h, &deletes, "a", "*", 0, false)->no_put = true;
    change(&h, "a", 11, false);
    change(&h, "b", 11, true);
    watch_revision_done(&h, 11);
    change(&h, "a", 12, false);
    watch_revision_done(&h, 12);
    expect(&puts, "11:pa 12:pa ");
    expect(&deletes, "11:db ");
    watch_hub_close(&h);
    buf_close(&puts.text);
    buf_close(&deletes.text);
}

static void test_progress_is_told_to_those_that_heard_nothing_for_long(void **state)
{
    struct watch_hub h;
    struct receiver r = {0}, other = {0};
    (void)state;
    watch_hub_init(&h);
    add(&h, &r, "a", "", 0, false)->progress_ms = 2000;
    (void)add(&h, &other, "a", "", 0, false);
    watch_progress(&h, 1000, 10);
    expect(&r, "");
    watch_progress(&h, 1000, 12);
    expect(&r, "12:");
    watch_progress(&h, 1000, 12);
    change(&h, "a", 13, false);
    watch_revision_done(&h, 13);
    expect(&r, "13:pa ");
    watch_progress(&h, 1000, 13);
    expect(&r, "");
    watch_progress(&h, 1000, 13);
    expect(&r, "13:");
    expect(&other, "13:pa ");
    watch_hub_close(&h);
    buf_close(&r.text);
    buf_close(&other.text);
}

static void test_all_can_be_ended_at_once(void **state)
{
    struct watch_hub h;
    struct receiver r = {0};
    (void)state;
    watch_hub_init(&h);
    (void)add(&h, &r, "a", "", 0, false);
    (void)add(&h, &r, "b", "", 0, false);
    watch_end_all(&h);
    expect(&r, "11! 11! ");
    assert_int_equal(h.n, 0);
    watch_hub_close(&h);
    buf_close(&r.text);
}

static void test_one_cut_off_by_history_disturbs_nobody(void **state)
{
    struct watch_hub h;
    struct receiver slow = {0}, other = {0};
    (void)state;
    watch_hub_init(&h);
    (void)add(&h, &other, "a", "", 0, false);
    struct watch *w = add(&h, &slow, "a", "", 9, false);
    slow.full = true;
    watch_replay_begin(&h, w);
    for (uint64_t revision = 9; revision <= 10; revision++) {
        change(&h, "a", revision, false);
        watch_revision_done(&h, revision);
    }
    assert_false(watch_replay_end(&h));
    expect(&slow, "9! ");
    expect(&other, "");
    watch_hub_close(&h);
    buf_close(&slow.text);
    buf_close(&other.text);
}

static void test_one_that_asks_for_too_old_a_revision_is_told(void **state)
{
    struct watch_hub h;
    struct receiver r = {0};
    (void)state;
    watch_hub_init(&h);
    struct watch *w = add(&h, &r, "a", "", 3, false);
    watch_end_compacted(&h, w, 7);
    expect(&r, "3<7 ");
    assert_int_equal(h.n, 0);
    watch_hub_close(&h);
    buf_close(&r.text);
}

static void test_a_receiver_that_leaves_takes_its_watches_along(void **state)
{
    struct watch_hub h;
    struct receiver a = {0}, b = {0};
    (void)state;
    watch_hub_init(&h);
    struct watch *w = add(&h, &a, "a", "", 0, false);
    (void)add(&h, &a, "b", "", 0, false);
    (void)add(&h, &b, "a", "", 0, false);
    assert_ptr_equal(watch_find(&h, w->id, &a), w);
    assert_null(watch_find(&h, w->id, &b));
    watch_free_all_of(&h, &a);
    assert_int_equal(h.n, 1);
    watch_hub_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_and_ranges),
        cmocka_unit_test(test_all_events_of_a_revision_come_together),
        cmocka_unit_test(test_nothing_before_the_start_revision),
        cmocka_unit_test(test_history_is_told_to_the_one_that_asked),
        cmocka_unit_test(test_a_slow_one_is_cut_off_with_where_to_resume),
        cmocka_unit_test(
            test_previous_pairs_are_left_out_rather_than_a_message_outgrow_a_frame),
        cmocka_unit_test(test_a_revision_too_large_for_a_message_comes_in_parts),
        cmocka_unit_test(
            test_previous_pairs_of_a_large_revision_are_told_as_far_as_a_message_goes),
        cmocka_unit_test(test_one_that_stops_reading_within_a_revision_gets_the_rest_of_it),
        cmocka_unit_test(test_a_revision_that_would_fill_the_connection_ends_the_watch),
        cmocka_unit_test(test_a_closed_window_is_told_nothing_until_it_has_credit),
        cmocka_unit_test(test_a_revision_that_was_begun_goes_out_whole_whatever_the_window),
        cmocka_unit_test(test_puts_or_deletes_can_be_left_out),
        cmocka_unit_test(test_progress_is_told_to_those_that_heard_nothing_for_long),
        cmocka_unit_test(test_all_can_be_ended_at_once),
        cmocka_unit_test(test_one_cut_off_by_history_disturbs_nobody),
        cmocka_unit_test(test_one_that_asks_for_too_old_a_revision_is_told),
        cmocka_unit_test(test_a_receiver_that_leaves_takes_its_watches_along),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
