#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/pg_limits.h"

static struct pg_limits limits(const char *text)
{
    struct pg_limits l;
    if (text[0] == '\0')
        return (struct pg_limits){.known = false};
    assert_int_equal(pg_limits_parse(text, &l), ERR_OK);
    return l;
}

static void what_is_written_is_read_and_nothing_else(void **state)
{
    static const char *const bad[] = {
        "",          "1",        "1/2/3/4",    "1/2/3/4/5/6",        "1/2/3/4/",
        "1/2/3/4/x", "/2/3/4/5", "1/2/3/4/-5", "1/2/3/4/99999999999"};
    char text[PG_LIMITS_TEXT];
    (void)state;
    struct pg_limits l = limits("100/8/10/0/64");
    pg_limits_text(&l, text);
    assert_string_equal(text, "100/8/10/0/64");
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(pg_limits_parse(bad[i], &l), ERR_INVALID);
        assert_false(l.known);
        pg_limits_text(&l, text);
        assert_string_equal(text, "");
    }
}

/* wanted by the files (0: not said), in the control file, of the others, started with */
static void standbys_are_raised_first_and_lowered_last(void **state)
{
    static const struct {
        const char *what;
        bool primary;
        const char *wanted, *control, *others, *starts;
    } rows[] = {
        {"raised on a standby", false, "200/8/10/0/64", "100/8/10/0/64", "100/8/10/0/64",
         "200/8/10/0/64"},
        {"raised, primary, standbys have not", true, "200/8/10/0/64", "100/8/10/0/64",
         "100/8/10/0/64", "100/8/10/0/64"},
        {"raised, primary, standbys have", true, "200/8/10/0/64", "100/8/10/0/64",
         "200/8/10/0/64", "200/8/10/0/64"},
        {"raised half way", true, "200/8/10/0/64", "100/8/10/0/64", "150/8/10/0/64",
         "150/8/10/0/64"},
        {"raised, primary, no standby runs", true, "200/8/10/0/64", "100/8/10/0/64", "",
         "200/8/10/0/64"},
        {"lowered on a standby, primary has not", false, "50/8/10/0/64", "100/8/10/0/64",
         "100/8/10/0/64", "100/8/10/0/64"},
        {"lowered on a standby, not replayed yet", false, "50/8/10/0/64", "100/8/10/0/64",
         "50/8/10/0/64", "100/8/10/0/64"},
        {"lowered on a standby, replayed", false, "50/8/10/0/64", "50/8/10/0/64",
         "50/8/10/0/64", "50/8/10/0/64"},
        {"lowered on the primary", true, "50/8/10/0/64", "100/8/10/0/64", "100/8/10/0/64",
         "50/8/10/0/64"},
        {"one up, one down", true, "200/4/10/0/64", "100/8/10/0/64", "100/8/10/0/64",
         "100/4/10/0/64"},
        {"a promoted standby keeps what it had", true, "200/8/10/0/64", "200/8/10/0/64",
         "100/8/10/0/64", "200/8/10/0/64"},
        {"the file does not say: standby", false, "0/0/16/0/0", "100/8/10/0/64",
         "100/8/10/0/64", "100/8/16/0/64"},
        {"the file does not say: primary", true, "0/0/16/0/0", "100/8/10/0/64", "100/8/16/0/64",
         "0/0/16/0/0"},
        {"nothing is known of the data", false, "100/8/10/0/64", "", "120/8/10/0/64",
         "120/8/10/0/64"},
        {"a standby of nobody", false, "50/8/10/0/64", "100/8/10/0/64", "", "100/8/10/0/64"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct pg_limits wanted = limits(rows[i].wanted);
        struct pg_limits control = limits(rows[i].control);
        struct pg_limits others = limits(rows[i].others);
        struct pg_limits l = rows[i].primary ? pg_limits_primary(&wanted, &control, &others)
                                             : pg_limits_standby(&wanted, &control, &others);
        char text[PG_LIMITS_TEXT];
        pg_limits_text(&l, text);
        if (strcmp(text, rows[i].starts) != 0)
            fail_msg("%s: %s", rows[i].what, text);
        if (!rows[i].primary && pg_limits_below(&l, &others))
            fail_msg("%s: below the primary", rows[i].what);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_and_nothing_else),
        cmocka_unit_test(standbys_are_raised_first_and_lowered_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
