#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "agent/pg_text.h"

static void an_lsn_is_read_as_postgresql_writes_it(void **state)
{
    static const struct {
        const char *text;
        uint64_t lsn;
    } good[] = {{"0/0", 0},
                {"0/3000148", 0x3000148},
                {"16/B374D848", 0x16b374d848},
                {"ffffffff/ffffffff", UINT64_MAX}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        uint64_t lsn = 1;
        char again[PG_LSN_TEXT];
        uint64_t twice = 1;
        assert_int_equal(pg_lsn_parse(good[i].text, &lsn), ERR_OK);
        assert_true(lsn == good[i].lsn);
        pg_lsn_text(lsn, again);
        assert_int_equal(pg_lsn_parse(again, &twice), ERR_OK);
        assert_true(twice == lsn);
    }
}

static void what_is_no_lsn_is_refused(void **state)
{
    static const char *const bad[] = {"",     "/",    "0",     "0/",          "/0",   "0/0 ",
                                      " 0/0", "0/0/", "0x1/0", "123456789/0", "0/-1", "0/g"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        uint64_t lsn = 7;
        assert_int_equal(pg_lsn_parse(bad[i], &lsn), ERR_INVALID);
        assert_true(lsn == 7);
    }
}

typedef enum err put(struct buf *b, const char *value);

static void expect(put *fn, const char *value, const char *wanted)
{
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    enum err rv = fn(&b, value);
    if (wanted == NULL) {
        assert_int_equal(rv, ERR_INVALID);
        return;
    }
    assert_int_equal(rv, ERR_OK);
    assert_string_equal(buf_cstr(&b), wanted);
}

static void a_value_in_postgresql_conf_stays_one_value(void **state)
{
    (void)state;
    expect(pg_put_conf, "", "''");
    expect(pg_put_conf, "on", "'on'");
    expect(pg_put_conf, "it's", "'it''s'");
    expect(pg_put_conf, "back\\slash", "'back\\\\slash'");
    expect(pg_put_conf, "x' # include 'y", "'x'' # include ''y'");
    expect(pg_put_conf, "\\'", "'\\\\'''");
    expect(pg_put_conf, "line\nbreak = 1", NULL);
    expect(pg_put_conf, "bell\a", NULL);
}

static void a_name_in_pg_hba_is_never_a_keyword(void **state)
{
    (void)state;
    expect(pg_put_hba, "all", "\"all\"");
    expect(pg_put_hba, "a\"b", "\"a\"\"b\"");
    expect(pg_put_hba, "+role", "\"+role\"");
    expect(pg_put_hba, "two\nlines", NULL);
    expect(pg_put_hba, "", NULL);
}

static void only_names_of_settings_are_settings(void **state)
{
    (void)state;
    assert_true(pg_setting_name_ok("work_mem"));
    assert_true(pg_setting_name_ok("pg_stat_statements.max"));
    assert_false(pg_setting_name_ok(""));
    assert_false(pg_setting_name_ok("1work"));
    assert_false(pg_setting_name_ok("a.b.c"));
    assert_false(pg_setting_name_ok("a."));
    assert_false(pg_setting_name_ok("a = 1\nb"));
    assert_false(pg_setting_name_ok("include 'x'"));
}

static void sql_and_connection_strings_and_password_files_are_escaped(void **state)
{
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    (void)state;
    pg_put_ident(&b, "a\"b");
    buf_append_u8(&b, '|');
    pg_put_literal(&b, "it's");
    buf_append_u8(&b, '|');
    pg_put_literal(&b, "\\'");
    buf_append_u8(&b, '|');
    pg_put_conninfo(&b, "host", "o'h \\n");
    pg_put_conninfo(&b, "port", "");
    buf_append_u8(&b, '|');
    pg_put_passfile(&b, "a:b\\c");
    assert_string_equal(buf_cstr(&b),
                        "\"a\"\"b\"|'it''s'| E'\\\\'''|host='o\\'h \\\\n' |a\\:b\\\\c");
}

static void two_members_never_share_a_slot(void **state)
{
    static const char *const names[] = {
        "n1",
        "N1",
        "n-1",
        "n_1",
        "n.1",
        "regent_n1",
        "",
        "a-very-long-name-of-a-member-that-does-not-fit-into-a-slot-1",
        "a-very-long-name-of-a-member-that-does-not-fit-into-a-slot-2"};
    char slots[ARRAY_LEN(names)][64];
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        pg_slot_name(names[i], slots[i]);
        assert_true(strlen(slots[i]) < 64);
        assert_int_equal(strspn(slots[i], "abcdefghijklmnopqrstuvwxyz0123456789_"),
                         strlen(slots[i]));
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(slots[i], slots[j]);
    }
    assert_string_equal(slots[0], "regent_n1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_lsn_is_read_as_postgresql_writes_it),
        cmocka_unit_test(what_is_no_lsn_is_refused),
        cmocka_unit_test(a_value_in_postgresql_conf_stays_one_value),
        cmocka_unit_test(a_name_in_pg_hba_is_never_a_keyword),
        cmocka_unit_test(only_names_of_settings_are_settings),
        cmocka_unit_test(sql_and_connection_strings_and_password_files_are_escaped),
        cmocka_unit_test(two_members_never_share_a_slot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
