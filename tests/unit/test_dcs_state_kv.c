#include "tests/unit/dcs_state_script.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Keys, ranges, transactions, history. */

static void a_put_makes_one_revision(void **t)
{
    (void)t;
    SCRIPT({"put a 1", "rev 1 | put a=1 @1"},
           {"put a 2 prev", "rev 2 (a=1) | put a=2 was 1 @2"},
           {"put b 3", "rev 3 | put b=3 @3"}, {"get a", "1 a=2"},
           {"meta a", "create 1 mod 2 version 2 lease L0"},
           {"meta b", "create 3 mod 3 version 1 lease L0"});
}

static void a_delete_of_nothing_makes_none(void **t)
{
    (void)t;
    SCRIPT({"del a", "rev 0 0"}, {"put a 1", "rev 1 | put a=1 @1"},
           {"del a prev", "rev 2 1(a=1) | del a was 1 @2"}, {"del a", "rev 2 0"},
           {"get a", "0"});
}

static void a_key_put_again_after_a_delete_is_a_new_one(void **t)
{
    (void)t;
    SCRIPT({"put a 1", "rev 1 | put a=1 @1"}, {"del a", "rev 2 1 | del a was 1 @2"},
           {"put a 2", "rev 3 | put a=2 @3"}, {"meta a", "create 3 mod 3 version 1 lease L0"});
}

static void ranges_are_half_open_and_bytewise(void **t)
{
    (void)t;
    SCRIPT({"put a 1", "rev 1 | put a=1 @1"}, {"put ab 2", "rev 2 | put ab=2 @2"},
           {"put b 3", "rev 3 | put b=3 @3"}, {"put B 4", "rev 4 | put B=4 @4"},
           {"get a b", "2 a=1,ab=2"}, {"get a *", "3 a=1,ab=2,b=3"},
           {"get \"\" *", "4 B=4,a=1,ab=2,b=3"}, {"get b a", "0"}, {"get a a", "0"},
           {"get \"\" *  limit=2", "4+ B=4,a=1"}, {"get \"\" * limit=4", "4 B=4,a=1,ab=2,b=3"},
           {"get a b keys", "2 a=,ab="}, {"get a * count", "3"}, {"get a count", "1"},
           {"get \"\" * max=1", "4+ B=4"}, {"get \"\"", "invalid"});
}

static void ranges_are_sorted_and_bounded(void **t)
{
    (void)t;
    SCRIPT({"put a 3", "rev 1 | put a=3 @1"}, {"put b 1", "rev 2 | put b=1 @2"},
           {"put c 2", "rev 3 | put c=2 @3"}, {"put a 4", "rev 4 | put a=4 was 3 @4"},
           {"put z 0", "rev 5 | put z=0 @5"}, {"get a z down", "3 c=2,b=1,a=4"},
           {"get a z sort=value", "3 b=1,c=2,a=4"}, {"get a z sort=mod down", "3 a=4,c=2,b=1"},
           {"get a z sort=create", "3 a=4,b=1,c=2"},
           {"get a z sort=version down", "3 a=4,b=1,c=2"},
           {"get a * sort=mod down limit=1", "4+ z=0"},
           {"get a z sort=key limit=2", "3+ a=4,b=1"},
           {"get a z sort=value keys", "3 b=,c=,a="}, {"get a * sort=mod count", "4"},
           {"get a * min_mod=3", "3 a=4,c=2,z=0"}, {"get a * max_mod=3", "2 b=1,c=2"},
           {"get a * min_create=2 max_create=3 down", "2 c=2,b=1"}, {"get a sort=mod", "1 a=4"},
           {"get a min_mod=5", "0"}, {"get a z sort=colour", "invalid"},
           {"get a z sort=mod rev=3 down", "3 c=2,b=1,a=3"},
           {"get a z sort=value rev=3", "3 b=1,c=2,a=3"},
           {"get a z rev=4 min_mod=3", "2 a=4,c=2"}, {"get a z rev=3 min_mod=3", "1 c=2"},
           {"get a * rev=4 max_create=2 down limit=1", "2+ b=1"},
           {"get a * rev=2 sort=version count", "2"}, {"get a rev=1 sort=mod", "1 a=3"},
           {"get a rev=1 min_mod=2", "0"}, {"get a * sort=value max=1", "4+ z=0"});
}

static void a_compare_of_a_range_holds_for_each_key(void **t)
{
    (void)t;
    SCRIPT({"put a 1", "rev 1 | put a=1 @1"}, {"put b 1", "rev 2 | put b=1 @2"},
           {"put c 2", "rev 3 | put c=2 @3"},
           {"txn value a..c = 1 ? get a : ", "rev 3 then range1(a=1)"},
           {"txn value a..d = 1 ? get a : ", "rev 3 else"},
           {"txn mod a..* < 4 ? get a : ", "rev 3 then range1(a=1)"},
           {"txn mod a..* < 3 ? get a : ", "rev 3 else"},
           {"txn version x..z = 0 ? get a : ", "rev 3 then range1(a=1)"},
           {"txn value x..z = 1 ? get a : ", "rev 3 else"},
           {"txn value x..z != 1 ? get a : ", "rev 3 then range1(a=1)"});
}

static void a_range_delete_is_one_revision(void **t)
{
    (void)t;
    SCRIPT({"put a 1", "rev 1 | put a=1 @1"}, {"put b 2", "rev 2 | put b=2 @2"},
           {"put c 3", "rev 3 | put c=3 @3"},
           {"del a c prev", "rev 4 2(a=1,b=2) | del a was 1, del b was 2 @4"},
           {"get \"\" *", "1 c=3"}, {"del \"\" *", "rev 5 1 | del c was 3 @5"});
}

static void bad_keys_are_refused_and_change_nothing(void **t)
{
    (void)t;
    SCRIPT({"put \"\" 1", "invalid"}, {"put a 1 lease=77", "not_found"},
           {"del \"\"", "invalid"}, {"get a", "0"}, {"put a 1", "rev 1 | put a=1 @1"});
}

static void an_absent_key_compares_as_zero_and_to_no_value(void **t)
{
    (void)t;
    SCRIPT({"txn version a = 0 ? put x 1 :", "rev 1 then put | put x=1 @1"},
           {"txn create a > 0 ? put x 2 :", "rev 1 else"},
           {"txn mod a < 1 ? get x :", "rev 1 then range1(x=1)"},
           {"txn lease a != 0 ? :", "rev 1 else"}, {"txn value a = 1 ? :", "rev 1 else"},
           {"txn value a != 1 ? :", "rev 1 then"}, {"txn value a < 1 ? :", "rev 1 else"},
           {"txn value a > 1 ? :", "rev 1 else"});
}

static void compares_see_value_version_create_mod(void **t)
{
    (void)t;
    SCRIPT({"put a m", "rev 1 | put a=m @1"}, {"put a n", "rev 2 | put a=n was m @2"},
           {"txn value a = n ? :", "rev 2 then"}, {"txn value a > m ? :", "rev 2 then"},
           {"txn value a < n1 ? :", "rev 2 then"}, {"txn version a = 2 ? :", "rev 2 then"},
           {"txn create a = 1 ? :", "rev 2 then"}, {"txn mod a = 2 ? :", "rev 2 then"},
           {"txn mod a = 2 , value a = x ? :", "rev 2 else"},
           {"txn mod a = 2 , value a = n ? :", "rev 2 then"}, {"txn ? :", "rev 2 then"});
}

static void a_transaction_is_one_revision_and_sees_itself(void **t)
{
    (void)t;
    SCRIPT({"txn ? put a 1 , get a , put a 2 prev , del a prev , get a , put b 3 :",
            "rev 1 then put range1(a=1) put(a=1) delete1(a=2) range0 put"
            " | put a=1, put a=2 was 1, del a was 2, put b=3 @1"},
           {"replay 1", "next 2 | put a=1, put a=2 was 1, del a was 2, put b=3 @1"});
}

static void a_transaction_that_cannot_run_whole_does_nothing(void **t)
{
    (void)t;
    SCRIPT(
        {"txn ? put a 1 , put b 2 lease=99 :", "not_found"}, {"get a", "0"},
        {"txn ? put a 1 : put b 2 lease=99", "rev 1 then put | put a=1 @1"},
        {"txn ? put a 1 , put \"\" 2 :", "invalid"}, {"txn ? put a 1 : put \"\" 2", "invalid"},
        {"txn colour a = 1 ? put a 2 :", "invalid"}, {"txn mod a ~ 1 ? put a 2 :", "invalid"},
        {"txn ? jump a :", "invalid"}, {"meta a", "create 1 mod 1 version 1 lease L0"});
}

static void a_transaction_inside_another_is_part_of_it(void **t)
{
    (void)t;
    SCRIPT({"txn version a = 0 ? put a 1 , ( version b = 0 ? put b 2 , get a : get b ) , put c "
            "3 :",
            "rev 1 then put txn(then put range1(a=1)) put | put a=1, put b=2, put c=3 @1"},
           {"txn value a = 1 ? ( value b = 9 ? put a 5 : get b , ( ? put d 4 : ) ) :",
            "rev 2 then txn(else range1(b=2) txn(then put)) | put d=4 @2"},
           {"txn value a = 9 ? : ( ? get a , ( value a = 9 ? : del a prev ) : )",
            "rev 3 else txn(then range1(a=1) txn(else delete1(a=1))) | del a was 1 @3"},
           {"txn ? ( ? : ) :", "rev 3 then txn(then)"},
           {"replay 1", "next 4 | put a=1, put b=2, put c=3 @1, put d=4 @2, del a was 1 @3"});
}

static void inner_compares_are_decided_before_anything_runs(void **t)
{
    (void)t;
    SCRIPT({"txn ? put a 1 , ( version a = 0 ? put b 1 : put b 2 ) , "
            "( value a = 1 ? put c 1 : put c 2 ) :",
            "rev 1 then put txn(then put) txn(else put) | put a=1, put b=1, put c=2 @1"},
           {"txn ? del a , ( version a > 0 ? get a : ) :",
            "rev 2 then delete1 txn(then range0) | del a was 1 @2"});
}

static void an_inner_transaction_that_cannot_run_spoils_the_whole(void **t)
{
    (void)t;
    SCRIPT({"txn ? put a 1 , ( ? put b 2 lease=99 : ) :", "not_found"},
           {"txn ? put a 1 , ( ? jump b : ) :", "invalid"},
           {"txn ? put a 1 , ( colour b = 1 ? : ) :", "invalid"},
           {"txn ? put a 1 , ( ? ( ? ( ? ( ? get a : ) : ) : ) : ) :", "limit"},
           {"txn ? put a 1 : ( ? ( ? ( ? ( ? get a : ) : ) : ) : )", "limit"},
           /* what does not run must be sound, no more */
           {"txn ? put a 1 : ( ? put b \"\" : put \"\" b )", "invalid"}, {"get a", "0"},
           {"txn ? ( ? ( ? ( ? put a 1 : ) : ) : ) : ( ? put b 2 lease=99 : )",
            "rev 1 then txn(then txn(then txn(then put))) | put a=1 @1"},
           {"txn value a = 2 ? ( ? put b 2 lease=99 : ) : ( value a = 1 ? : put b 2 lease=99 )",
            "rev 1 else txn(then)"});
}

static void a_put_keeps_what_it_ignores(void **t)
{
    (void)t;
    SCRIPT(
        {"put a - keep_value", "not_found"}, {"put a 1 keep_lease", "not_found"},
        {"grant 5000 7", "L1 ttl 5000 nonce 7 n 0"}, {"put a 1 lease=L1", "rev 1 | put a=1 @1"},
        {"put a 2 keep_lease", "rev 2 | put a=2 was 1 @2"},
        {"meta a", "create 1 mod 2 version 2 lease L1"},
        {"put a - keep_value keep_lease prev", "rev 3 (a=2) | put a=2 was 2 @3"},
        {"meta a", "create 1 mod 3 version 3 lease L1"},
        {"put a - keep_value", "rev 4 | put a=2 was 2 @4"},
        {"meta a", "create 1 mod 4 version 4 lease L0"}, {"put a 3 keep_value", "invalid"},
        {"put a 3 lease=L1 keep_lease", "invalid"}, {"get a", "1 a=2"},
        {"grant 5000 8", "L2 ttl 5000 nonce 8 n 0"},
        {"put a - keep_value lease=L2", "rev 5 | put a=2 was 2 @5"}, {"revoke L1", "L1 gone"},
        {"get a", "1 a=2"}, {"revoke L2", "L2 gone | del a was 2 @6"});
}

/* What it keeps is of the store before the transaction. */
static void a_put_in_a_transaction_keeps_what_it_ignores(void **t)
{
    (void)t;
    SCRIPT({"put a 1", "rev 1 | put a=1 @1"},
           {"txn ? put a - keep_value : ", "rev 2 then put | put a=1 was 1 @2"},
           {"txn ? put b - keep_value : ", "not_found"},
           {"txn ? put b 1 , put b - keep_value : ", "not_found"},
           {"txn value a = 2 ? put b - keep_value : put a 5 keep_lease",
            "rev 3 else put | put a=5 was 1 @3"},
           {"txn ? del a , put a - keep_value keep_lease : ",
            "rev 4 then delete1 put | del a was 5, put a= @4"},
           {"get a", "1 a="});
}

static struct slice many_of(struct buf *out, const struct txn_op *op, size_t n)
{
    struct msg_list list = {0};
    buf_clear(out);
    for (size_t i = 0; i < n; i++)
        msg_list_append(&list, &msg_txn_op, op);
    msg_list_end(&list, out);
    return buf_slice(out);
}

static void operations_are_bounded_over_all_levels(void **t)
{
    (void)t;
    struct script *x = script_new();
    struct buf leaves = BUF_INIT, inner = BUF_INIT;
    struct txn_op get = {.op = "range", .key = slice_str("a")};
    struct txn_op txn = {.op = "txn"};
    struct txn_req r = {0};
    /* 4 lists of 127 and the 4 that hold them: 512 */
    txn.then = many_of(&leaves, &get, 127);
    r.then = many_of(&inner, &txn, 4);
    assert_memory_equal(script_command(x, STATE_CMD_TXN, &msg_txn_req, &r),
                        "rev 0 then txn(then range0", 26);
    txn.then = many_of(&leaves, &get, 128);
    r.then = many_of(&inner, &txn, 4);
    assert_string_equal(script_command(x, STATE_CMD_TXN, &msg_txn_req, &r), "limit");
    r.otherwise = r.then = many_of(&inner, &txn, 2); /* those that do not run count as well */
    assert_string_equal(script_command(x, STATE_CMD_TXN, &msg_txn_req, &r), "limit");
    txn.then = many_of(&leaves, &get, 129);
    r.otherwise = (struct slice){0};
    r.then = many_of(&inner, &txn, 1);
    assert_string_equal(script_command(x, STATE_CMD_TXN, &msg_txn_req, &r), "limit");
    buf_close(&leaves);
    buf_close(&inner);
    script_free(x);
}

static void history_is_replayed_from_a_revision(void **t)
{
    (void)t;
    SCRIPT({"put a 1", "rev 1 | put a=1 @1"}, {"put a 2", "rev 2 | put a=2 was 1 @2"},
           {"del a", "rev 3 1 | del a was 2 @3"},
           {"replay 1", "next 4 | put a=1 @1, put a=2 was 1 @2, del a was 2 @3"},
           {"replay 0", "next 4 | put a=1 @1, put a=2 was 1 @2, del a was 2 @3"},
           {"replay 3", "next 4 | del a was 2 @3"}, {"replay 4", "next 4"},
           {"replay 1 max=1", "next 2 | put a=1 @1"});
}

static void a_compacted_revision_is_an_error(void **t)
{
    (void)t;
    SCRIPT({"put a 1", "rev 1 | put a=1 @1"}, {"put a 2", "rev 2 | put a=2 was 1 @2"},
           {"put b 3", "rev 3 | put b=3 @3"}, {"compact 4", "invalid"}, {"compact 1", "ok"},
           {"compact 1", "compacted"}, {"replay 1", "compacted"}, {"replay 0", "compacted"},
           {"replay 2", "next 4 | put a=2 @2, put b=3 @3"}, {"compact 3", "ok"},
           {"replay 3", "compacted"}, {"replay 4", "next 4"}, {"get \"\" *", "2 a=2,b=3"},
           {"reopen", "at 0"}, {"replay 3", "compacted"});
}

static void a_range_of_the_past_is_as_it_was(void **t)
{
    (void)t;
    SCRIPT({"put a 1", "rev 1 | put a=1 @1"}, {"put b 2", "rev 2 | put b=2 @2"},
           {"put a 3", "rev 3 | put a=3 was 1 @3"}, {"del b", "rev 4 1 | del b was 2 @4"},
           {"put b 5", "rev 5 | put b=5 @5"}, {"put c 6", "rev 6 | put c=6 @6"},
           {"get \"\" * rev=1", "1 a=1"}, {"get \"\" * rev=2", "2 a=1,b=2"},
           {"get \"\" * rev=3", "2 a=3,b=2"}, {"get \"\" * rev=4", "1 a=3"},
           {"get \"\" * rev=5", "2 a=3,b=5"}, {"get \"\" * rev=6", "3 a=3,b=5,c=6"},
           {"get \"\" * rev=7", "invalid"}, {"get a rev=2", "1 a=1"}, {"get b rev=4", "0"},
           {"get a b rev=2", "1 a=1"}, {"get \"\" * rev=2 limit=1", "2+ a=1"},
           {"get \"\" * rev=2 max=1", "2+ a=1"}, {"get \"\" * rev=2 count", "2"},
           {"get \"\" * rev=2 keys", "2 a=,b="});
}

static void a_past_that_is_not_kept_is_said_and_never_guessed(void **t)
{
    (void)t;
    SCRIPT({"put a 1", "rev 1 | put a=1 @1"}, {"put b 2", "rev 2 | put b=2 @2"},
           {"put b 3", "rev 3 | put b=3 was 2 @3"}, {"compact 2", "ok"},
           {"get \"\" * rev=1", "compacted"}, {"get \"\" * rev=3", "2 a=1,b=3"},
           /* the put that made b=2 went with the compaction, a was not changed since */
           {"get b rev=2", "compacted"}, {"get a rev=2", "1 a=1"},
           {"get \"\" * rev=2 count", "2"}, {"put a 4", "rev 4 | put a=4 was 1 @4"},
           {"get a rev=3", "compacted"}, {"get b rev=3", "1 b=3"}, {"get a rev=4", "1 a=4"},
           {"get a rev=3 min_mod=9", "compacted"}, {"get a rev=3 count max_mod=9", "compacted"},
           {"get a rev=3 sort=value", "compacted"},
           /* of a page: what it does not show does not matter */
           {"put c 5", "rev 5 | put c=5 @5"}, {"get \"\" * rev=3 limit=1", "compacted"},
           {"get b * rev=4 limit=1", "1 b=3"}, {"put c 6", "rev 6 | put c=6 was 5 @6"},
           {"compact 5", "ok"}, {"get \"\" * rev=5 limit=2", "3+ a=4,b=3"},
           {"get \"\" * rev=5", "compacted"}, {"get c rev=5", "compacted"},
           {"get \"\" * rev=6 sort=mod down", "3 c=6,a=4,b=3"});
}

static void entries_are_skipped_up_to_the_applied_index(void **t)
{
    (void)t;
    SCRIPT({"put a 1", "rev 1 | put a=1 @1"}, {"commit", ""}, {"index 0", ""}, {"put a 2", ""},
           {"get a", "1 a=1"});
}

static void uncommitted_work_comes_back_from_the_log(void **t)
{
    (void)t;
    SCRIPT({"put a 1", "rev 1 | put a=1 @1"}, {"commit", ""}, {"put b 2", "rev 2 | put b=2 @2"},
           {"reopen", "at 1"}, {"get \"\" *", "2 a=1,b=2"}, {"full", ""}, {"reopen", "at 2"},
           {"put c 3", "rev 3 | put c=3 @3"});
}

static void a_copy_carries_everything_and_a_restore_replaces_everything(void **t)
{
    (void)t;
    SCRIPT({"put a 1", "rev 1 | put a=1 @1"}, {"grant 5000 1", "L1 ttl 5000 nonce 1 n 0"},
           {"renew L1 1 3", "L1 ttl 5000 nonce 1 n 3"}, {"session 9", "S1"},
           {"put b 2 s=S1/1 lease=L1", "rev 2 | put b=2 @2"}, {"commit", ""},
           {"renew L1 1 4", "L1 ttl 5000 nonce 1 n 4"}, {"copy", "at 6"},
           {"put a 9", "rev 3 | put a=9 was 1 @3"}, {"del b", "rev 4 1 | del b was 2 @4"},
           {"index 6", ""}, {"now 2000", ""}, {"restore", "ok"}, {"get \"\" *", "2 a=1,b=2"},
           {"leases", "L1 ttl 5000 nonce 1 n 4 left 5000 keys 1"},
           {"put b 2 s=S1/1 lease=L1", "rev 2"}, {"put c 3", "rev 3 | put c=3 @3"},
           {"replay 1", "next 4 | put a=1 @1, put b=2 @2, put c=3 @3"}, {"commit", ""},
           {"reopen", "at 8"});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_put_makes_one_revision),
        cmocka_unit_test(a_delete_of_nothing_makes_none),
        cmocka_unit_test(a_key_put_again_after_a_delete_is_a_new_one),
        cmocka_unit_test(ranges_are_half_open_and_bytewise),
        cmocka_unit_test(ranges_are_sorted_and_bounded),
        cmocka_unit_test(a_compare_of_a_range_holds_for_each_key),
        cmocka_unit_test(a_range_delete_is_one_revision),
        cmocka_unit_test(bad_keys_are_refused_and_change_nothing),
        cmocka_unit_test(an_absent_key_compares_as_zero_and_to_no_value),
        cmocka_unit_test(compares_see_value_version_create_mod),
        cmocka_unit_test(a_transaction_is_one_revision_and_sees_itself),
        cmocka_unit_test(a_transaction_that_cannot_run_whole_does_nothing),
        cmocka_unit_test(a_transaction_inside_another_is_part_of_it),
        cmocka_unit_test(inner_compares_are_decided_before_anything_runs),
        cmocka_unit_test(an_inner_transaction_that_cannot_run_spoils_the_whole),
        cmocka_unit_test(a_put_keeps_what_it_ignores),
        cmocka_unit_test(a_put_in_a_transaction_keeps_what_it_ignores),
        cmocka_unit_test(operations_are_bounded_over_all_levels),
        cmocka_unit_test(history_is_replayed_from_a_revision),
        cmocka_unit_test(a_compacted_revision_is_an_error),
        cmocka_unit_test(a_range_of_the_past_is_as_it_was),
        cmocka_unit_test(a_past_that_is_not_kept_is_said_and_never_guessed),
        cmocka_unit_test(entries_are_skipped_up_to_the_applied_index),
        cmocka_unit_test(uncommitted_work_comes_back_from_the_log),
        cmocka_unit_test(a_copy_carries_everything_and_a_restore_replaces_everything),
    };
    return cmocka_run_group_tests_name("dcs_state_kv", tests, NULL, NULL);
}
