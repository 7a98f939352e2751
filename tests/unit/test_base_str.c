#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/str.h"

static void copying_refuses_instead_of_cutting(void **state)
{
    (void)state;
    char dst[4];
    assert_int_equal(str_copy(dst, sizeof dst, "abc"), ERR_OK);
    assert_string_equal(dst, "abc");
    assert_int_equal(str_copy(dst, sizeof dst, "abcd"), ERR_LIMIT);
    assert_string_equal(dst, "");
    assert_int_equal(str_copy(dst, sizeof dst, ""), ERR_OK);
    assert_string_equal(dst, "");
    assert_int_equal(str_copy(dst, 0, ""), ERR_LIMIT);
}

static void a_slice_with_a_nul_inside_is_refused(void **state)
{
    (void)state;
    char dst[8];
    assert_int_equal(str_copy_slice(dst, sizeof dst, slice_of("a\0b", 3)), ERR_INVALID);
    assert_string_equal(dst, "");
    assert_int_equal(str_copy_slice(dst, sizeof dst, slice_of("abX", 2)), ERR_OK);
    assert_string_equal(dst, "ab");
    assert_int_equal(str_copy_slice(dst, sizeof dst, slice_of(NULL, 0)), ERR_OK);
    assert_string_equal(dst, "");
}

static void formatting_refuses_instead_of_cutting(void **state)
{
    (void)state;
    char dst[6];
    assert_int_equal(str_format(dst, sizeof dst, "%d-%s", 12, "ab"), ERR_OK);
    assert_string_equal(dst, "12-ab");
    assert_int_equal(str_format(dst, sizeof dst, "%d-%s", 12, "abc"), ERR_LIMIT);
    assert_string_equal(dst, "");
}

static void numbers_are_whole_decimal_and_in_range(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum err code;
        uint64_t value;
    } rows[] = {
        {"0", ERR_OK, 0},
        {"007", ERR_OK, 7},
        {"18446744073709551615", ERR_OK, UINT64_MAX},
        {"18446744073709551616", ERR_LIMIT, 0},
        {"99999999999999999999", ERR_LIMIT, 0},
        {"", ERR_INVALID, 0},
        {"-1", ERR_INVALID, 0},
        {"+1", ERR_INVALID, 0},
        {" 1", ERR_INVALID, 0},
        {"1 ", ERR_INVALID, 0},
        {"0x10", ERR_INVALID, 0},
        {"1.5", ERR_INVALID, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t value = 4711;
        assert_int_equal(str_parse_u64(rows[i].text, &value), rows[i].code);
        assert_true(value == (rows[i].code == ERR_OK ? rows[i].value : 4711));
    }
}

static void a_prefix_is_a_prefix(void **state)
{
    (void)state;
    assert_true(str_starts("regentctl", "regent"));
    assert_true(str_starts("regent", "regent"));
    assert_true(str_starts("", ""));
    assert_false(str_starts("rege", "regent"));
    assert_false(str_starts("Regent", "regent"));
}

static void hex_goes_there_and_back(void **state)
{
    (void)state;
    uint8_t all[256];
    uint8_t back[256];
    char text[513];
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (uint8_t)i;
    hex_encode(text, all, sizeof all);
    assert_int_equal(strlen(text), 512);
    assert_memory_equal(text, "000102030405", 12);
    assert_int_equal(hex_decode(text, back, sizeof back), ERR_OK);
    assert_memory_equal(all, back, sizeof all);
}

static void hex_takes_both_cases_and_nothing_else(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum err code;
    } rows[] = {{"beEF", ERR_OK},      {"BEef", ERR_OK},      {"beef0", ERR_INVALID},
                {"bee", ERR_INVALID},  {"", ERR_INVALID},     {"begf", ERR_INVALID},
                {"be f", ERR_INVALID}, {"0xbe", ERR_INVALID}, {"be/:", ERR_INVALID}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint8_t out[2] = {0, 0};
        assert_int_equal(hex_decode(rows[i].text, out, 2), rows[i].code);
        if (rows[i].code == ERR_OK)
            assert_memory_equal(out, "\xbe\xef", 2);
    }
    assert_int_equal(hex_decode("", NULL, 0), ERR_OK);
}

static void addresses_need_a_host_and_a_port(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *host; /* NULL: refused */
        uint16_t port;
    } rows[] = {
        {"10.0.0.1:7400", "10.0.0.1", 7400},
        {"db.example:1", "db.example", 1},
        {"[fd00::1]:65535", "fd00::1", 65535},
        {"[10.0.0.1]:80", "10.0.0.1", 80},
        {"fd00::1:7400", NULL, 0},
        {"10.0.0.1", NULL, 0},
        {"10.0.0.1:", NULL, 0},
        {":7400", NULL, 0},
        {"[]:7400", NULL, 0},
        {"[fd00::1]", NULL, 0},
        {"host:0", NULL, 0},
        {"host:65536", NULL, 0},
        {"host:18446744073709551616", NULL, 0},
        {"host:7a", NULL, 0},
        {"host:-1", NULL, 0},
        {"", NULL, 0},
        {"a.host.name.that.is.too.long.for.it:7400", NULL, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char host[32];
        uint16_t port = 0;
        enum err code = str_host_port(rows[i].text, host, sizeof host, &port);
        assert_int_equal(code, rows[i].host != NULL ? ERR_OK : ERR_INVALID);
        if (rows[i].host != NULL) {
            assert_string_equal(host, rows[i].host);
            assert_int_equal(port, rows[i].port);
        }
    }
}

static void the_distance_counts_single_edits(void **state)
{
    (void)state;
    static const struct {
        const char *a;
        const char *b;
        size_t distance;
    } rows[] = {
        {"", "", 0},          {"ttl", "ttl", 0},        {"ttl", "tll", 1},
        {"loop_wait", "", 9}, {"kitten", "sitting", 3}, {"scope", "scpoe", 2},
        {"ab", "ba", 2},      {"listen", "listens", 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(str_distance(rows[i].a, rows[i].b), rows[i].distance);
        assert_int_equal(str_distance(rows[i].b, rows[i].a), rows[i].distance);
    }
    char longer[100];
    memset(longer, 'a', sizeof longer);
    longer[63] = '\0';
    assert_int_equal(str_distance(longer, longer), 0);
    longer[63] = 'a';
    longer[64] = '\0';
    assert_int_equal(str_distance(longer, longer), 63);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copying_refuses_instead_of_cutting),
        cmocka_unit_test(a_slice_with_a_nul_inside_is_refused),
        cmocka_unit_test(formatting_refuses_instead_of_cutting),
        cmocka_unit_test(numbers_are_whole_decimal_and_in_range),
        cmocka_unit_test(a_prefix_is_a_prefix),
        cmocka_unit_test(hex_goes_there_and_back),
        cmocka_unit_test(hex_takes_both_cases_and_nothing_else),
        cmocka_unit_test(addresses_need_a_host_and_a_port),
        cmocka_unit_test(the_distance_counts_single_edits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
