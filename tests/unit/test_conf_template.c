/* Text templates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "conf/template.h"

static const char model[] =
    "{\"scope\":\"demo\",\"leader\":{\"host\":\"10.0.0.1\",\"port\":5432},\"none\":null,"
    "\"empty\":[],\"yes\":true,\"no\":false,\"evil\":\"a\\nb\",\"set\":{\"a\":\"A\"},"
    "\"members\":[{\"name\":\"n1\",\"last\":false},{\"name\":\"n2\",\"last\":true}]}";

struct row {
    const char *text, *want; /* want: what comes of it, or "!CODE: message" */
};

static void check(const struct row *row)
{
    struct buf out = BUF_INIT;
    struct errmsg e = {0};
    char got[1024];
    enum err rv = template_render("t", slice_str(row->text), slice_str(model), &out, &e);
    (void)snprintf(got, sizeof got, rv == ERR_OK ? "%s" : "!%s: %s",
                   rv == ERR_OK ? buf_cstr(&out) : err_name(rv), e.text);
    assert_string_equal(got, row->want);
    buf_close(&out);
}

static void values_come_from_the_innermost_section_that_has_them(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"", ""},
        {"text { } {x", "text { } {x"},
        {"{{scope}} {{ leader.host }}:{{leader.port}} {{yes}}", "demo 10.0.0.1:5432 true"},
        {"{{set.a}} {{set.b|x y}} {{set.a|z}} {{none|-}}", "A x y A -"},
        {"{{#leader}}{{host}} of {{scope}}{{/leader}}", "10.0.0.1 of demo"},
        {"{{#members}}{{name}}{{^last}},{{/last}}{{/members}}", "n1,n2"},
        {"{{#members}}{{#members}}{{name}}{{/members}}{{/members}}", "n1n2n1n2"},
        {"{{#empty}}a{{/empty}}{{^empty}}b{{/empty}}{{#no}}c{{/no}}{{^none}}d{{/none}}", "bd"},
        {"{{#set.a}}a{{/set.a}}{{#set.b}}b{{/set.b}}{{^set.b}}c{{/set.b}}", "ac"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        check(&rows[i]);
}

static void a_line_with_a_section_mark_alone_leaves_nothing(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"a\n{{#members}}\n  {{name}}\n{{/members}}\nb\n", "a\n  n1\n  n2\nb\n"},
        {"a\n  {{! note }}\nb", "a\nb"},
        {"{{#yes}}\nx\n{{/yes}}", "x\n"},
        {"a {{#yes}}x{{/yes}}\n", "a x\n"},
        {"{{#yes}}\n{{/yes}}\n", ""},
        {"{{#yes}}{{/yes}}\n", "\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        check(&rows[i]);
}

static void mistakes_name_the_line(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"a\n{{x}}", "!invalid: t:2: {{x}}: there is no such value"},
        {"{{set.x}}", "!invalid: t:1: {{set.x}}: not given; it has no default"},
        {"{{members}}", "!invalid: t:1: {{members}}: a list or a map: make it a section"},
        {"{{none.host}}", "!unavailable: t:1: {{none.host}}: there is none now"},
        {"{{evil}}", "!invalid: t:1: {{evil}}: the value has a control character in it"},
        {"{{#members}}", "!invalid: t:1: {{members}}: the section does not end"},
        {"x\n\n{{/members}}", "!invalid: t:3: {{members}}: ends a section that is not open"},
        {"{{scope", "!invalid: t:1: {{}}: there is no }} behind it"},
        {"{{}}", "!invalid: t:1: {{}}: a name of 1 to 127 bytes is missing"},
        {"{{#x}}{{/x}}", "!invalid: t:1: {{x}}: there is no such value"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        check(&rows[i]);
}

static void nesting_and_size_are_bounded(void **state)
{
    (void)state;
    struct buf text = BUF_INIT;
    struct buf out = BUF_INIT;
    for (int i = 0; i < 20; i++)
        buf_printf(&text, "{{#members}}");
    for (int i = 0; i < 20; i++)
        buf_printf(&text, "{{/members}}");
    assert_int_equal(template_render("t", buf_slice(&text), slice_str(model), &out, NULL),
                     ERR_INVALID);
    buf_clear(&text);
    for (int i = 0; i < 7; i++)
        buf_printf(&text, "{{#members}}");
    for (int i = 0; i < 20000; i++)
        buf_append_u8(&text, 'x');
    for (int i = 0; i < 7; i++)
        buf_printf(&text, "{{/members}}");
    buf_close(&out);
    assert_int_equal(template_render("t", buf_slice(&text), slice_str(model), &out, NULL),
                     ERR_LIMIT);
    buf_close(&text);
    buf_close(&out);
}

static void the_built_in_ones_are_there(void **state)
{
    (void)state;
    assert_non_null(strstr(template_builtin("haproxy"), "httpchk OPTIONS /primary"));
    assert_non_null(template_builtin("pgbouncer"));
    assert_non_null(template_builtin("keepalived"));
    assert_null(template_builtin("else"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_from_the_innermost_section_that_has_them),
        cmocka_unit_test(a_line_with_a_section_mark_alone_leaves_nothing),
        cmocka_unit_test(mistakes_name_the_line),
        cmocka_unit_test(nesting_and_size_are_bounded),
        cmocka_unit_test(the_built_in_ones_are_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
