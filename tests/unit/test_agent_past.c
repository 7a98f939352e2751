/* What the status page remembers of the last minutes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/rest_live.h"
#include "agent/rest_past.h"
#include "base/str.h"

static struct rest_past past;
static struct view view;

static void begin(void)
{
    past = (struct rest_past){0};
    view = (struct view){.has_leader = true, .members_n = 2};
    str_cut(view.leader.name, sizeof view.leader.name, "a");
    str_cut(view.members[0].name, sizeof view.members[0].name, "a");
    str_cut(view.members[1].name, sizeof view.members[1].name, "b");
}

static void at(uint64_t now_ms, uint64_t leader_lsn, uint64_t b_lsn, const char *rule)
{
    view.now_ms = now_ms;
    view.members[0].lsn = leader_lsn - 1;
    view.members[1].lsn = b_lsn;
    past_note(&past, &view, leader_lsn, now_ms, rule, "why");
}

static void a_sample_is_taken_every_two_seconds(void **state)
{
    (void)state;
    begin();
    for (uint64_t ms = 0; ms < 10000; ms += 100)
        at(1000 + ms, 100 + ms, 100, "leader");
    assert_int_equal(past.samples_n, 5);
    assert_int_equal(past.members_n, 2);
    assert_int_equal(past_lag(&past, &past.members[0], 4), 0); /* the leader does not lag */
    assert_int_equal(past_lag(&past, &past.members[1], 0), 0);
    assert_int_equal(past_lag(&past, &past.members[1], 4), 8000);
}

static void the_oldest_sample_goes_and_so_does_who_is_long_gone(void **state)
{
    (void)state;
    begin();
    for (uint64_t i = 0; i < PAST_SAMPLES + 10; i++)
        at((i + 1) * PAST_EVERY_MS, 1000 + i, 1000, "leader");
    assert_int_equal(past.samples_n, PAST_SAMPLES);
    assert_int_equal(past_lag(&past, &past.members[1], 0), 10);
    assert_int_equal(past_lag(&past, &past.members[1], PAST_SAMPLES - 1), PAST_SAMPLES + 9);
    view.members_n = 1;
    at(1000000, 2000, 0, "leader");
    assert_int_equal(past.members_n, 2);
    assert_true(past_lag(&past, &past.members[1], PAST_SAMPLES - 1) == PAST_UNKNOWN);
    for (uint64_t i = 1; i < PAST_SAMPLES; i++)
        at(1000000 + i * PAST_EVERY_MS, 2000, 0, "leader");
    assert_int_equal(past.members_n, 1);
}

static void decisions_are_changes_of_rule_newest_first(void **state)
{
    (void)state;
    static const char *const rules[] = {"seal", "seal", "busy",  "election",
                                        "",     "txn",  "leader"};
    begin();
    for (size_t i = 0; i < ARRAY_LEN(rules); i++)
        at(i, 1, 1, rules[i]);
    assert_int_equal(past.decisions_n, 3);
    assert_string_equal(past.decisions[0].rule, "leader");
    assert_string_equal(past.decisions[2].rule, "seal");
    for (uint64_t i = 0; i < 3 * (uint64_t)PAST_DECISIONS; i++)
        at(100 + i, 1, 1, i % 2 == 0 ? "x" : "y");
    assert_int_equal(past.decisions_n, PAST_DECISIONS);
    assert_string_equal(past.decisions[0].rule, "y");
}

static void what_the_page_is_told_is_json_before_anything_is_known(void **state)
{
    (void)state;
    static struct rest_facts f;
    char *text = rest_live_text(&f, 5, true);
    assert_non_null(text);
    assert_non_null(strstr(text, "\"leader\":null"));
    assert_non_null(strstr(text, "\"stale\":true"));
    free(text);
    /* a text that was cut in the middle of a character */
    str_cut(f.past.decisions[0].reason, sizeof f.past.decisions[0].reason, "caf\xc3");
    f.past.decisions_n = 1;
    text = rest_live_text(&f, 5, false);
    assert_non_null(strstr(text, "\"caf\""));
    assert_null(strstr(text, "\"lag\":{"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sample_is_taken_every_two_seconds),
        cmocka_unit_test(the_oldest_sample_goes_and_so_does_who_is_long_gone),
        cmocka_unit_test(decisions_are_changes_of_rule_newest_first),
        cmocka_unit_test(what_the_page_is_told_is_json_before_anything_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
