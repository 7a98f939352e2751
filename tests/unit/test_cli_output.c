/* Rows in the four formats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/cli.h"
#include "cli_fixture.h"

static const struct output_column columns[] = {
    {.name = "Name"},
    {.name = "Receive Lag", .heading = "Lag", .number = true, .right = true},
    {.name = "Tags", .json = true, .optional = true},
    {.name = "Never", .optional = true}};

static const char *printed(enum cli_format format, bool rows)
{
    struct cli c = {.format = format};
    struct output *o = output_new(&c, "+ Title +", columns, ARRAY_LEN(columns));
    if (rows) {
        output_row(o, (const char *[]){"n1", "12", "{\"zone\":\"a\",\"nosync\":true}", NULL});
        output_row(o, (const char *[]){"tab\t\"quote\"", NULL, NULL, NULL});
    }
    capture_begin(STDOUT_FILENO);
    output_print(o);
    return capture_end();
}

static void a_table_has_headings_and_leaves_empty_columns_out(void **state)
{
    (void)state;
    const char *text = printed(CLI_TABLE, true);
    assert_non_null(strstr(text, "+ Title +\nName "));
    assert_non_null(strstr(text, "Lag  Tags"));
    assert_non_null(strstr(text, "12  zone: a, nosync: true"));
    assert_null(strstr(text, "Never"));
    assert_string_equal(printed(CLI_TABLE, false), "+ Title +\n");
}

static void json_has_numbers_and_objects_and_no_empty_cells(void **state)
{
    (void)state;
    assert_string_equal(
        printed(CLI_JSON, true),
        "[{\"Name\":\"n1\",\"Receive Lag\":12,\"Tags\":{\"zone\":\"a\",\"nosync\":true}},"
        "{\"Name\":\"tab\\t\\\"quote\\\"\"}]\n");
    assert_string_equal(printed(CLI_JSON, false), "[]\n");
}

static void yaml_quotes_texts_as_json_does(void **state)
{
    (void)state;
    assert_string_equal(printed(CLI_YAML, true), "- Name: \"n1\"\n  Receive Lag: 12\n"
                                                 "  Tags: {\"zone\": \"a\", \"nosync\": true}\n"
                                                 "- Name: \"tab\\t\\\"quote\\\"\"\n");
    assert_string_equal(printed(CLI_YAML, false), "[]\n");
}

static void tsv_has_every_column_and_one_line_a_row(void **state)
{
    (void)state;
    assert_string_equal(printed(CLI_TSV, true), "Name\tReceive Lag\tTags\tNever\n"
                                                "n1\t12\t{\"zone\":\"a\",\"nosync\":true}\t\n"
                                                "tab \"quote\"\t\t\t\n");
}

static void an_lsn_is_written_as_postgresql_does(void **state)
{
    (void)state;
    char text[24];
    assert_string_equal(cli_lsn(0, text), "0/0");
    assert_string_equal(cli_lsn(0x16B3748, text), "0/16B3748");
    assert_string_equal(cli_lsn(UINT64_MAX, text), "FFFFFFFF/FFFFFFFF");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_has_headings_and_leaves_empty_columns_out),
        cmocka_unit_test(json_has_numbers_and_objects_and_no_empty_cells),
        cmocka_unit_test(yaml_quotes_texts_as_json_does),
        cmocka_unit_test(tsv_has_every_column_and_one_line_a_row),
        cmocka_unit_test(an_lsn_is_written_as_postgresql_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
