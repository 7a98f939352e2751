/* standby_cluster of the dynamic configuration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "conf/dynamic.h"
#include "conf/site.h"

static void patronis_shape_is_read(void **state)
{
    struct site s;
    (void)state;
    const char *json =
        "{\"host\": \"a,b.example,10.0.0.3\", \"port\": 5433, \"primary_slot_name\": \"dr\", "
        "\"create_replica_methods\": [\"barman\", \"basebackup\"], "
        "\"restore_command\": \"cp /x/%f %p\", \"recovery_min_apply_delay\": \"5min\", "
        "\"archive_cleanup_command\": null}";
    assert_int_equal(site_parse(slice_str(json), &s, NULL), ERR_OK);
    assert_string_equal(s.host, "a,b.example,10.0.0.3");
    assert_string_equal(s.port, "5433");
    assert_string_equal(s.primary_slot_name, "dr");
    assert_string_equal(s.restore_command, "cp /x/%f %p");
    assert_string_equal(s.recovery_min_apply_delay, "5min");
    assert_string_equal(s.archive_cleanup_command, "");
    assert_int_equal(s.create_replica_methods_n, 2);
    assert_string_equal(s.create_replica_methods[1], "basebackup");
    assert_true(site_many(&s));
    assert_int_equal(site_parse(slice_str("{\"host\": \"::1\"}"), &s, NULL), ERR_OK);
    assert_false(site_many(&s));
    assert_int_equal(site_parse(slice_str("null"), &s, NULL), ERR_OK);
    assert_string_equal(s.host, "");
}

static void an_empty_one_is_none(void **state)
{
    struct buf out CLEANUP(buf_close) = BUF_INIT;
    (void)state;
    assert_int_equal(dynamic_check(slice_str("{\"standby_cluster\": {}}"), &out, NULL), ERR_OK);
    assert_null(strstr(buf_cstr(&out), "standby_cluster"));
    buf_clear(&out);
    assert_int_equal(
        dynamic_check(slice_str("{\"standby_cluster\": {\"host\": \"a\"}}"), &out, NULL),
        ERR_OK);
    assert_non_null(strstr(buf_cstr(&out), "\"standby_cluster\":{\"host\":\"a\"}"));
}

static void what_cannot_be_is_refused_with_its_reason(void **state)
{
    static const struct {
        const char *json, *complaint;
    } rows[] = {
        {"[]", "a map"},
        {"{\"hots\": \"a\"}", "unknown key"},
        {"{\"port\": 5432}", "host is missing"},
        {"{\"host\": \"a b\"}", "names or addresses"},
        {"{\"host\": \"a,,b\"}", "names or addresses"},
        {"{\"host\": \"/run/x\"}", "names or addresses"},
        {"{\"host\": \"a' sslmode='disable\"}", "names or addresses"},
        {"{\"host\": \"a\", \"port\": 0}", "1 to 65535"},
        {"{\"host\": \"a\", \"port\": \"1,x\"}", "as many as hosts"},
        {"{\"host\": \"a,b,c\", \"port\": \"1,2\"}", "as many as hosts"},
        {"{\"host\": \"a,b\", \"port\": \"1,x\"}", "1 to 65535"},
        {"{\"host\": {}}", "one value"},
        {"{\"host\": \"a\", \"primary_slot_name\": \"A-1\"}", "lower-case letters"},
        {"{\"host\": \"a\", \"restore_command\": \"x\\ny\"}", "line break"},
        {"{\"host\": \"a\", \"create_replica_methods\": \"x\"}", "a list"},
        {"{\"host\": \"a\", \"create_replica_methods\": [{}]}", "one value"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct site s;
        struct errmsg e = {0};
        assert_int_equal(site_parse(slice_str(rows[i].json), &s, &e), ERR_INVALID);
        if (strstr(e.text, rows[i].complaint) == NULL)
            fail_msg("%s: %s", rows[i].json, e.text);
        assert_string_equal(s.host, "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patronis_shape_is_read),
        cmocka_unit_test(an_empty_one_is_none),
        cmocka_unit_test(what_cannot_be_is_refused_with_its_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
