/* Transcripts of confirmations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "agent/pg_syncconf.h"

static struct sync_set set_of(uint64_t k, const char *a, const char *b)
{
    struct sync_set s = {.k = k};
    const char *const names[] = {a, b};
    for (size_t i = 0; i < 2; i++)
        if (names[i] != NULL)
            (void)snprintf(s.s[s.s_n++], sizeof s.s[0], "%s", names[i]);
    return s;
}

static void look(struct syncconf *c, uint64_t lsn, const char *a, uint64_t a_lsn, const char *b,
                 uint64_t b_lsn)
{
    const struct syncconf_sender senders[] = {{a, a_lsn}, {b, b_lsn}};
    syncconf_look(c, senders, (size_t)(a != NULL) + (size_t)(b != NULL), lsn);
}

static void from_nothing_a_commit_must_be_seen_waiting_first(void **state)
{
    struct sync_set none = {.k = 0};
    struct sync_set want = set_of(1, "a", NULL);
    struct syncconf c;
    (void)state;
    syncconf_start(&c, &want, &none, 1, false, false, false);
    assert_int_equal(c.step, SYNCCONF_NOBODY);
    syncconf_shown(&c, SYNCCONF_NOBODY_NAMES, SYNCCONF_NOBODY_NAMES); /* of another time */
    assert_int_equal(c.step, SYNCCONF_NOBODY);
    syncconf_written(&c);
    syncconf_probe_waits(&c);
    assert_int_equal(c.step, SYNCCONF_NOBODY_SHOW);
    syncconf_shown(&c, "", SYNCCONF_NOBODY_NAMES);
    assert_int_equal(c.step, SYNCCONF_NOBODY_SHOW);
    syncconf_shown(&c, SYNCCONF_NOBODY_NAMES, SYNCCONF_NOBODY_NAMES);
    assert_int_equal(c.step, SYNCCONF_PROBE);
    syncconf_written(&c);
    assert_int_equal(c.step, SYNCCONF_PROBE);
    syncconf_probe_waits(&c);
    assert_int_equal(c.step, SYNCCONF_WRITE);
    syncconf_written(&c);
    syncconf_shown(&c, "x", "x");
    syncconf_marked(&c, 100);
    look(&c, 100, "a", 99, NULL, 0);
    assert_int_equal(c.step, SYNCCONF_SENDERS);
    look(&c, 110, "a", 100, NULL, 0);
    assert_int_equal(c.step, SYNCCONF_FLUSHED);
    look(&c, 120, "a", 110, NULL, 0); /* the position is of a look that began after (a) */
    assert_int_equal(c.step, SYNCCONF_FLUSHED);
    look(&c, 130, "a", 120, NULL, 0);
    assert_int_equal(c.step, SYNCCONF_DONE);
}

/* Up to the step where walsenders are waited for. */
static void to_senders(struct syncconf *c, const struct sync_set *want,
                       const struct sync_set *old, size_t old_n, bool everybody)
{
    syncconf_start(c, want, old, old_n, everybody, true, false);
    assert_int_equal(c->step, SYNCCONF_WRITE);
    syncconf_written(c);
    syncconf_shown(c, "x", "x");
    syncconf_marked(c, 100);
    assert_int_equal(c->step, SYNCCONF_SENDERS);
}

static void a_walsender_of_the_old_set_counts_until_it_has_confirmed_or_is_gone(void **state)
{
    struct sync_set old = set_of(1, "a", NULL);
    struct sync_set want = set_of(1, "b", NULL);
    struct syncconf c;
    (void)state;
    to_senders(&c, &want, &old, 1, false);
    look(&c, 100, "a", 50, "b", 100);
    assert_int_equal(c.step, SYNCCONF_SENDERS);
    look(&c, 100, "b", 100, NULL, 0);
    assert_int_equal(c.step, SYNCCONF_FLUSHED);

    to_senders(&c, &want, &old, 1, false);
    look(&c, 100, "a", 100, "b", 100);
    assert_int_equal(c.step, SYNCCONF_FLUSHED);
}

static void others_do_not_count_unless_the_old_sets_are_unknown(void **state)
{
    struct sync_set want = set_of(1, "b", NULL);
    struct syncconf c;
    (void)state;
    to_senders(&c, &want, NULL, 0, false);
    look(&c, 100, "pg_receivewal", 0, "b", 100);
    assert_int_equal(c.step, SYNCCONF_FLUSHED);
    to_senders(&c, &want, NULL, 0, true);
    look(&c, 100, "pg_receivewal", 0, "b", 100);
    assert_int_equal(c.step, SYNCCONF_SENDERS);
}

static void k_members_must_have_what_was_acknowledged_before(void **state)
{
    struct sync_set old = set_of(1, "c", NULL);
    struct sync_set want = set_of(2, "a", "b");
    struct syncconf c;
    (void)state;
    to_senders(&c, &want, &old, 1, false);
    look(&c, 100, "a", 100, NULL, 0); /* b is gone: fine for (a) */
    assert_int_equal(c.step, SYNCCONF_FLUSHED);
    look(&c, 200, "a", 300, "a", 300); /* two walsenders of one name are one standby */
    assert_int_equal(c.step, SYNCCONF_FLUSHED);
    look(&c, 300, "a", 300, "b", 199);
    assert_int_equal(c.step, SYNCCONF_FLUSHED);
    look(&c, 400, "a", 300, "b", 200);
    assert_int_equal(c.step, SYNCCONF_DONE);
}

static void an_empty_set_is_confirmed_when_the_old_walsenders_know_it(void **state)
{
    struct sync_set old = set_of(1, "a", NULL);
    struct sync_set none = {.k = 0};
    struct syncconf c;
    (void)state;
    to_senders(&c, &none, &old, 1, false);
    look(&c, 100, "a", 99, NULL, 0);
    assert_int_equal(c.step, SYNCCONF_SENDERS);
    look(&c, 100, "a", 100, NULL, 0);
    look(&c, 100, "a", 100, NULL, 0);
    assert_int_equal(c.step, SYNCCONF_DONE);
}

static void what_a_postmaster_started_with_is_confirmed_all_the_same(void **state)
{
    struct sync_set want = set_of(1, "a", NULL);
    struct syncconf c;
    (void)state;
    syncconf_start(&c, &want, NULL, 0, false, false, true);
    assert_int_equal(c.step, SYNCCONF_TRY);
    syncconf_written(&c);
    syncconf_shown(&c, "x", "x");
    assert_int_equal(c.step, SYNCCONF_TRY);
    syncconf_probe_waits(&c);
    assert_int_equal(c.step, SYNCCONF_SHOW);
    syncconf_probe_passed(&c); /* it is let go now, or was ended: it has waited */
    assert_int_equal(c.step, SYNCCONF_SHOW);
    syncconf_start(&c, &want, NULL, 0, false, false, true);
    syncconf_probe_passed(&c);
    assert_int_equal(c.step, SYNCCONF_NOBODY);
    syncconf_start(&c, &want, NULL, 0, false, true, true);
    assert_int_equal(c.step, SYNCCONF_SHOW);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_nothing_a_commit_must_be_seen_waiting_first),
        cmocka_unit_test(a_walsender_of_the_old_set_counts_until_it_has_confirmed_or_is_gone),
        cmocka_unit_test(others_do_not_count_unless_the_old_sets_are_unknown),
        cmocka_unit_test(k_members_must_have_what_was_acknowledged_before),
        cmocka_unit_test(an_empty_set_is_confirmed_when_the_old_walsenders_know_it),
        cmocka_unit_test(what_a_postmaster_started_with_is_confirmed_all_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
