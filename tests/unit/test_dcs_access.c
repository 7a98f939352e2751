#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dcs/access.h"

/* Who may call what. */

static void a_role_is_known_by_the_kind_of_the_certificate(void **state)
{
    (void)state;
    assert_int_equal(access_of_kind("first"), ACCESS_ADMIN);
    assert_int_equal(access_of_kind("node"), ACCESS_ADMIN);
    assert_int_equal(access_of_kind("admin"), ACCESS_ADMIN);
    assert_int_equal(access_of_kind("operator"), ACCESS_OPERATOR);
    assert_int_equal(access_of_kind("viewer"), ACCESS_VIEWER);
    assert_int_equal(access_of_kind("auditor"), ACCESS_NONE); /* of a newer program */
    assert_int_equal(access_of_kind(""), ACCESS_NONE);
    assert_int_equal(access_of_role("node"), ACCESS_NONE); /* nobody is issued that */
    assert_int_equal(access_of_role("first"), ACCESS_NONE);
}

static void what_is_open_needs_no_role_and_nothing_else_is_open(void **state)
{
    (void)state;
    for (enum method m = 0; m < METHOD_COUNT; m++)
        assert_int_equal(access_needed(m) == ACCESS_NONE,
                         method_table[m].kind == METHOD_KIND_OPEN);
}

static void a_viewer_writes_nothing(void **state)
{
    (void)state;
    for (enum method m = 0; m < METHOD_COUNT; m++)
        if (method_table[m].kind == METHOD_KIND_WRITE)
            assert_true(access_needed(m) >= ACCESS_OPERATOR);
}

static void what_gives_or_takes_access_is_an_admins(void **state)
{
    (void)state;
    static const enum method methods[] = {
        METHOD_TOKEN_CREATE,   METHOD_TOKEN_REVOKE,  METHOD_CERT_ISSUE,
        METHOD_CERT_LIST,      METHOD_CERT_REVOKE,   METHOD_MEMBER_REMOVE,
        METHOD_MEMBER_PROMOTE, METHOD_MEMBER_DEMOTE, METHOD_SNAPSHOT_SAVE,
        METHOD_SNAPSHOT_PIECE, METHOD_CA_FETCH};
    for (size_t i = 0; i < ARRAY_LEN(methods); i++)
        assert_int_equal(access_needed(methods[i]), ACCESS_ADMIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_role_is_known_by_the_kind_of_the_certificate),
        cmocka_unit_test(what_is_open_needs_no_role_and_nothing_else_is_open),
        cmocka_unit_test(a_viewer_writes_nothing),
        cmocka_unit_test(what_gives_or_takes_access_is_an_admins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
