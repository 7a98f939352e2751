#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/err.h"

static void every_code_has_a_name_a_text_and_a_grpc_number(void **state)
{
    (void)state;
    for (int i = 0; i < ERR_COUNT; i++) {
        enum err code = (enum err)i;
        assert_non_null(err_name(code));
        assert_true(err_name(code)[0] != '\0');
        assert_true(err_text(code)[0] != '\0');
        assert_in_range(err_grpc(code), 0, 16);
        assert_int_equal(err_grpc(code) == 0, code == ERR_OK);
    }
}

static void names_lead_back_to_their_code_and_differ(void **state)
{
    (void)state;
    for (int i = 0; i < ERR_COUNT; i++)
        assert_int_equal(err_from_name(slice_str(err_name((enum err)i))), i);
}

static void unknown_names_and_codes_are_internal(void **state)
{
    (void)state;
    static const char *const names[] = {"", "OK", "ok ", "no_such_code"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        assert_int_equal(err_from_name(slice_str(names[i])), ERR_INTERNAL);
    assert_string_equal(err_name(ERR_COUNT), "internal");
    assert_string_equal(err_text(ERR_COUNT), "internal error");
    assert_int_equal(err_grpc(ERR_COUNT), 13);
    assert_false(err_retryable(ERR_COUNT));
}

static void names_on_the_wire_are_a_contract(void **state)
{
    (void)state;
    static const struct {
        enum err code;
        const char *name;
        int grpc;
    } rows[] = {
        {ERR_OK, "ok", 0},
        {ERR_CANCELLED, "cancelled", 1},
        {ERR_OUTCOME_UNKNOWN, "outcome_unknown", 2},
        {ERR_INVALID, "invalid", 3},
        {ERR_TIMEOUT, "timeout", 4},
        {ERR_NOT_FOUND, "not_found", 5},
        {ERR_EXISTS, "exists", 6},
        {ERR_DENIED, "denied", 7},
        {ERR_LIMIT, "limit", 8},
        {ERR_NO_SPACE, "no_space", 8},
        {ERR_PRECONDITION, "precondition", 9},
        {ERR_COMPACTED, "compacted", 11},
        {ERR_UNSUPPORTED, "unsupported", 12},
        {ERR_UNAVAILABLE, "unavailable", 14},
        {ERR_CORRUPT, "corrupt", 15},
        {ERR_UNAUTHENTICATED, "unauthenticated", 16},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_string_equal(err_name(rows[i].code), rows[i].name);
        assert_int_equal(err_grpc(rows[i].code), rows[i].grpc);
    }
}

/* Sending a request again whose outcome is unknown could apply it twice. */
static void an_unknown_outcome_is_never_retried_as_it_is(void **state)
{
    (void)state;
    assert_false(err_retryable(ERR_OUTCOME_UNKNOWN));
    assert_true(err_retryable(ERR_UNAVAILABLE));
}

static void errno_is_translated_once(void **state)
{
    (void)state;
    static const struct {
        int number;
        enum err code;
    } rows[] = {
        {0, ERR_OK},
        {ENOSPC, ERR_NO_SPACE},
        {EDQUOT, ERR_NO_SPACE},
        {ENOENT, ERR_NOT_FOUND},
        {EEXIST, ERR_EXISTS},
        {EACCES, ERR_DENIED},
        {EPERM, ERR_DENIED},
        {ETIMEDOUT, ERR_TIMEOUT},
        {EIO, ERR_IO},
        {EBADF, ERR_IO},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_int_equal(err_from_errno(rows[i].number), rows[i].code);
}

static void a_message_is_optional(void **state)
{
    (void)state;
    assert_int_equal(err_set(NULL, ERR_IO, "disk %d", 7), ERR_IO);
    assert_int_equal(err_wrap(NULL, ERR_IO, "disk %d", 7), ERR_IO);
}

static void wrapping_puts_the_context_in_front(void **state)
{
    (void)state;
    struct errmsg e;
    assert_int_equal(err_set(&e, ERR_NOT_FOUND, "no file %s", "a.yml"), ERR_NOT_FOUND);
    assert_int_equal(err_wrap(&e, ERR_INVALID, "reading %s", "conf"), ERR_INVALID);
    assert_int_equal(e.code, ERR_INVALID);
    assert_string_equal(e.text, "reading conf: no file a.yml");
}

static void a_long_message_is_cut_and_terminated(void **state)
{
    (void)state;
    struct errmsg e;
    char big[2 * sizeof e.text];
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = '\0';
    (void)err_set(&e, ERR_IO, "%s", big);
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
    (void)err_wrap(&e, ERR_IO, "%s", "context");
    assert_memory_equal(e.text, "context: xxx", 12);
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
    (void)err_wrap(&e, ERR_IO, "%s", big);
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_a_name_a_text_and_a_grpc_number),
        cmocka_unit_test(names_lead_back_to_their_code_and_differ),
        cmocka_unit_test(unknown_names_and_codes_are_internal),
        cmocka_unit_test(names_on_the_wire_are_a_contract),
        cmocka_unit_test(an_unknown_outcome_is_never_retried_as_it_is),
        cmocka_unit_test(errno_is_translated_once),
        cmocka_unit_test(a_message_is_optional),
        cmocka_unit_test(wrapping_puts_the_context_in_front),
        cmocka_unit_test(a_long_message_is_cut_and_terminated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
