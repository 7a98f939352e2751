#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "conf/dynamic.h"
#include "conf/slots.h"

static void patronis_shapes_are_read(void **state)
{
    struct slot_config c;
    (void)state;
    const char *slots = "{\"a\": {\"type\": \"physical\"}, \"b\": {\"database\": \"app\", "
                        "\"plugin\": \"pgoutput\"}, \"c\": {}, \"d\": null}";
    const char *rules =
        "[{\"name\": \"x\"}, {\"type\": \"logical\", \"plugin\": \"wal2json\"}]";
    assert_int_equal(slots_parse(slice_str(slots), slice_str(rules), &c, NULL), ERR_OK);
    assert_int_equal(c.permanent_n, 3);
    assert_int_equal(slots_permanent(&c, "a")->type, SLOT_PHYSICAL);
    assert_int_equal(slots_permanent(&c, "b")->type, SLOT_LOGICAL);
    assert_string_equal(slots_permanent(&c, "b")->database, "app");
    assert_int_equal(slots_permanent(&c, "c")->type, SLOT_PHYSICAL);
    assert_null(slots_permanent(&c, "d"));
    assert_true(slots_any_logical(&c));
    static const struct {
        struct slot_def slot;
        bool ignored;
    } rows[] = {{{"x", SLOT_PHYSICAL, "", ""}, true},
                {{"y", SLOT_PHYSICAL, "", ""}, false},
                {{"y", SLOT_LOGICAL, "db", "wal2json"}, true},
                {{"y", SLOT_LOGICAL, "db", "pgoutput"}, false}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_int_equal(slots_ignored(&c, &rows[i].slot), rows[i].ignored);
    assert_int_equal(slots_parse(slice_str("null"), slice_of(NULL, 0), &c, NULL), ERR_OK);
    assert_false(slots_any_logical(&c));
}

static void what_cannot_be_is_refused_with_its_reason(void **state)
{
    static const struct {
        const char *json, *complaint;
    } rows[] = {
        {"{\"slots\": []}", "slots: a map"},
        {"{\"slots\": {\"A-b\": {}}}", "slots.A-b: a slot's name has"},
        {"{\"slots\": {\"regent_n1\": {}}}", "members' own"},
        {"{\"slots\": {\"a\": 7}}", "slots.a: a map"},
        {"{\"slots\": {\"a\": {\"type\": \"both\"}}}", "physical or logical"},
        {"{\"slots\": {\"a\": {\"type\": \"logical\"}}}", "needs a database and a plugin"},
        {"{\"slots\": {\"a\": {\"type\": \"physical\", \"plugin\": \"x\"}}}", "has neither"},
        {"{\"slots\": {\"a\": {\"databse\": \"x\"}}}", "unknown key \"databse\""},
        {"{\"slots\": {\"a\": {\"database\": \"\", \"plugin\": \"x\"}}}", "1 to 63 bytes"},
        {"{\"ignore_slots\": {}}", "ignore_slots: a list"},
        {"{\"ignore_slots\": [7]}", "ignore_slots[0]: a map"},
        {"{\"ignore_slots\": [{\"name\": \"a\"}, {}]}", "ignore_slots[1]: a rule without"},
        {"{\"ignore_slots\": [{\"nam\": \"a\"}]}", "there are name, type"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf out CLEANUP(buf_close) = BUF_INIT;
        struct errmsg e = {0};
        assert_int_equal(dynamic_check(slice_str(rows[i].json), &out, &e), ERR_INVALID);
        if (strstr(e.text, rows[i].complaint) == NULL)
            fail_msg("%s: %s", rows[i].json, e.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patronis_shapes_are_read),
        cmocka_unit_test(what_cannot_be_is_refused_with_its_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
