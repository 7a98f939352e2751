#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/buf.h"

static void appends_come_out_in_order(void **state)
{
    (void)state;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    buf_append_u8(&b, 0xab);
    buf_append_be32(&b, 0x01020304);
    buf_append_be64(&b, 0x05060708090a0b0cU);
    buf_append_slice(&b, slice_str("xy"));
    buf_append(&b, NULL, 0);
    static const uint8_t want[] = {0xab, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 'x', 'y'};
    assert_int_equal(b.len, sizeof want);
    assert_memory_equal(b.p, want, sizeof want);
    assert_true(buf_ok(&b));
}

static void printf_grows_the_buffer_as_needed(void **state)
{
    (void)state;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    for (int i = 0; i < 1000; i++)
        buf_printf(&b, "%04d", i);
    assert_int_equal(b.len, 4000);
    assert_memory_equal(b.p, "00000001", 8);
    assert_memory_equal(b.p + 3996, "0999", 4);
    buf_clear(&b);
    char big[5000];
    memset(big, 'z', sizeof big);
    big[sizeof big - 1] = '\0';
    buf_printf(&b, "<%s>", big);
    assert_int_equal(b.len, 5001);
    assert_int_equal(b.p[5000], '>');
}

static void the_bound_is_inclusive(void **state)
{
    (void)state;
    static const struct {
        size_t max;
        size_t n;
        bool ok;
    } rows[] = {{1, 0, true},    {1, 1, true},   {1, 2, false},     {64, 64, true},
                {64, 65, false}, {100, 7, true}, {0, 100000, true}, {65536, 65537, false}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf b CLEANUP(buf_close) = {.max = rows[i].max};
        uint8_t data[1] = {'q'};
        for (size_t j = 0; j < rows[i].n; j++)
            buf_append(&b, data, 1);
        assert_int_equal(buf_ok(&b), rows[i].ok);
        assert_int_equal(b.len, rows[i].ok ? rows[i].n : rows[i].max);
    }
}

static void an_append_over_the_bound_is_dropped_whole_and_sticks(void **state)
{
    (void)state;
    struct buf b CLEANUP(buf_close) = {.max = 10};
    buf_append(&b, "12345678", 8);
    buf_append(&b, "abc", 3);
    assert_false(buf_ok(&b));
    assert_int_equal(b.len, 8);
    buf_append_u8(&b, 'x');
    assert_int_equal(b.len, 8);
    assert_null(buf_reserve(&b, 0));
    buf_clear(&b);
    assert_true(buf_ok(&b));
    buf_append(&b, "1234567890", 10);
    assert_true(buf_ok(&b));
}

static void printf_over_the_bound_is_dropped_whole(void **state)
{
    (void)state;
    struct buf b CLEANUP(buf_close) = {.max = 4};
    buf_printf(&b, "%s", "abc");
    buf_printf(&b, "%s", "defg");
    assert_false(buf_ok(&b));
    assert_int_equal(b.len, 3);
}

static void an_absurd_length_overflows_instead_of_wrapping(void **state)
{
    (void)state;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    buf_append_u8(&b, 1);
    assert_null(buf_reserve(&b, SIZE_MAX));
    assert_false(buf_ok(&b));
    buf_clear(&b);
    assert_null(buf_reserve(&b, SIZE_MAX / 2));
    assert_int_equal(b.len, 0);
}

static void reserve_gives_room_behind_the_end(void **state)
{
    (void)state;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    buf_append(&b, "ab", 2);
    uint8_t *to = buf_reserve(&b, 1000);
    assert_ptr_equal(to, b.p + 2);
    memset(to, 'c', 1000);
    assert_int_equal(b.len, 2);
    b.len += 1000;
    assert_memory_equal(b.p, "abcc", 4);
}

static void consume_drops_at_the_front(void **state)
{
    (void)state;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    buf_append(&b, "headtail", 8);
    buf_consume(&b, 0);
    buf_consume(&b, 4);
    assert_int_equal(b.len, 4);
    assert_memory_equal(b.p, "tail", 4);
    buf_consume(&b, 4);
    assert_int_equal(b.len, 0);
    buf_append(&b, "again", 5);
    assert_string_equal(buf_cstr(&b), "again");
}

static void trim_gives_back_most_of_what_is_not_used(void **state)
{
    (void)state;
    static const struct {
        size_t len, cap, keep, want;
    } rows[] = {{10, 1000, 100, 20}, {0, 1000, 100, 0},      {300, 1000, 100, 1000},
                {0, 100, 100, 100},  {10, 1000, 1000, 1000}, {249, 1000, 100, 498}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buf b CLEANUP(buf_close) = BUF_INIT;
        memset(buf_reserve(&b, rows[i].cap), 'x', rows[i].cap);
        b.len = rows[i].len;
        buf_trim(&b, rows[i].keep);
        assert_int_equal(b.cap, rows[i].want);
        assert_int_equal(b.len, rows[i].len);
        buf_append_u8(&b, 'y');
        assert_int_equal(b.p[b.len - 1], 'y');
        assert_true(b.len == 1 || b.p[0] == 'x');
    }
}

static void cstr_terminates_without_lengthening(void **state)
{
    (void)state;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    assert_string_equal(buf_cstr(&b), "");
    buf_append(&b, "text", 4);
    assert_string_equal(buf_cstr(&b), "text");
    assert_int_equal(b.len, 4);
}

static void close_leaves_an_empty_usable_buffer(void **state)
{
    (void)state;
    struct buf b CLEANUP(buf_close) = {.max = 5};
    buf_append(&b, "123456", 6);
    assert_false(buf_ok(&b));
    buf_close(&b);
    buf_close(&b);
    assert_true(buf_ok(&b));
    assert_int_equal(buf_slice(&b).n, 0);
    assert_int_equal(b.max, 5);
    buf_append(&b, "12345", 5);
    assert_true(slice_eq(buf_slice(&b), slice_str("12345")));
}

static void slices_compare_as_bytes_then_by_length(void **state)
{
    (void)state;
    static const struct {
        const char *a;
        const char *b;
        int sign;
    } rows[] = {{"", "", 0},     {"", "a", -1},   {"a", "", 1},        {"a", "b", -1},
                {"ab", "b", -1}, {"a", "ab", -1}, {"\xff", "\x01", 1}, {"key", "key", 0}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int c = slice_cmp(slice_str(rows[i].a), slice_str(rows[i].b));
        assert_int_equal((c > 0) - (c < 0), rows[i].sign);
        assert_int_equal(slice_eq(slice_str(rows[i].a), slice_str(rows[i].b)),
                         rows[i].sign == 0);
    }
    assert_true(slice_eq(slice_of(NULL, 0), slice_str("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_come_out_in_order),
        cmocka_unit_test(printf_grows_the_buffer_as_needed),
        cmocka_unit_test(the_bound_is_inclusive),
        cmocka_unit_test(an_append_over_the_bound_is_dropped_whole_and_sticks),
        cmocka_unit_test(printf_over_the_bound_is_dropped_whole),
        cmocka_unit_test(an_absurd_length_overflows_instead_of_wrapping),
        cmocka_unit_test(reserve_gives_room_behind_the_end),
        cmocka_unit_test(consume_drops_at_the_front),
        cmocka_unit_test(trim_gives_back_most_of_what_is_not_used),
        cmocka_unit_test(cstr_terminates_without_lengthening),
        cmocka_unit_test(close_leaves_an_empty_usable_buffer),
        cmocka_unit_test(slices_compare_as_bytes_then_by_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
