#include "tests/unit/dcs_state_script.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/mem.h"

/* Exactly once; tokens and members, which are given once, too. */

static void the_same_request_again_is_answered_and_not_applied(void **t)
{
    (void)t;
    SCRIPT({"session 5", "S1"}, {"put a 1 s=S1/1", "rev 1 | put a=1 @1"},
           {"put a 1 s=S1/1", "rev 1"}, {"put b 2", "rev 2 | put b=2 @2"},
           {"put a 1 s=S1/1", "rev 1"},
           {"put a 9 prev s=S1/2", "rev 3 (a=1) | put a=9 was 1 @3"},
           {"put a 9 prev s=S1/2", "rev 3 (a=1)"}, {"reopen", "at 0"},
           {"put a 9 prev s=S1/2", "rev 3 (a=1)"},
           {"txn mod a = 3 ? del a prev : s=S1/3", "rev 4 then delete1(a=9) | del a was 9 @4"},
           {"txn mod a = 3 ? del a prev : s=S1/3", "rev 4 then delete1(a=9)"},
           {"txn ? ( ? put a 5 : ) : s=S1/4", "rev 5 then txn(then put) | put a=5 @5"},
           {"txn ? ( ? put a 5 : ) : s=S1/4", "rev 5 then txn(then put)"});
}

static void a_refusal_is_kept_as_well(void **t)
{
    (void)t;
    SCRIPT({"session 5", "S1"}, {"put a 1 lease=65537 s=S1/1", "not_found"},
           {"grant 5000 1 s=S1/2", "L1 ttl 5000 nonce 1 n 0"},
           {"grant 5000 1 s=S1/2", "L1 ttl 5000 nonce 1 n 0"}, {"put a 1 s=S1/1", "not_found"},
           {"revoke L1 s=S1/3", "L1 gone"}, {"revoke L1 s=S1/3", "L1 gone"},
           {"revoke L1 s=S1/4", "not_found"});
}

static void the_same_nonce_is_the_same_session(void **t)
{
    (void)t;
    SCRIPT({"session 5", "S1"}, {"session 6", "S2"}, {"session 5", "S1"},
           {"session 0", "invalid"}, {"put a 1 s=12345/1", "precondition"},
           {"put a 1 s=S1/0", "invalid"}, {"get a", "0"});
}

static void sequences_may_arrive_in_any_order_within_the_window(void **t)
{
    (void)t;
    SCRIPT({"session 5", "S1"}, {"put a 3 s=S1/3", "rev 1 | put a=3 @1"},
           {"put a 1 s=S1/1", "rev 2 | put a=1 was 3 @2"}, {"put a 3 s=S1/3", "rev 1"},
           {"put a 64 s=S1/64", "rev 3 | put a=64 was 1 @3"},
           {"put a 2 s=S1/2", "rev 4 | put a=2 was 64 @4"}, {"put a 1 s=S1/1", "rev 2"},
           {"put a 66 s=S1/66", "rev 5 | put a=66 was 2 @5"},
           {"put a 2 s=S1/2", "outcome_unknown"}, {"put a 1 s=S1/1", "outcome_unknown"},
           {"put a 3 s=S1/3", "rev 1"}, {"get a", "1 a=66"});
}

static void a_long_result_is_kept_in_short(void **t)
{
    (void)t;
    struct script *x = script_new();
    char line[256];
    char word[48];
    memset(word, 'v', sizeof word - 1);
    word[sizeof word - 1] = '\0';
    for (int i = 0; i < 300; i++) {
        (void)snprintf(line, sizeof line, "put k%03d %s", i, word);
        (void)script_run(x, line);
    }
    (void)script_run(x, "session 5");
    assert_true(strlen(script_run(x, "txn ? get k l , put z 1 : s=S1/1")) > 5000);
    assert_string_equal(script_run(x, "txn ? get k l , put z 1 : s=S1/1"), "rev 301 then");
    assert_true(strlen(script_run(x, "del k l prev s=S1/2")) > 5000);
    assert_string_equal(script_run(x, "del k l prev s=S1/2"), "rev 302 300");
    script_free(x);
}

/* With two others all that there may be. */
static void fill_with_sessions(struct script *x, int first_nonce)
{
    char line[64];
    for (int i = 0; i < 1022; i++) {
        (void)snprintf(line, sizeof line, "session %d", first_nonce + i);
        (void)script_run(x, line);
    }
}

/* More than 1024 of them: the ones idle longest go, those with a living lease last. */
static void idle_sessions_are_evicted_and_a_lease_protects(void **t)
{
    (void)t;
    struct script *x = script_new();
    assert_string_equal(script_run(x, "session 1"), "S1");
    assert_string_equal(script_run(x, "session 2"), "S2");
    assert_string_equal(script_run(x, "session 3"), "S3");
    (void)script_run(x, "grant 5000 1 s=S1/1");
    (void)script_run(x, "put a 1 s=S2/1");
    fill_with_sessions(x, 1000);
    assert_string_equal(script_run(x, "put c 1 s=S3/1"), "precondition");
    assert_string_equal(script_run(x, "put a 1 s=S2/1"), "rev 1");
    fill_with_sessions(x, 5000);
    assert_string_equal(script_run(x, "put a 1 s=S2/1"), "rev 1");
    assert_string_equal(script_run(x, "put b 1 s=S1/2"), "rev 2 | put b=1 @2");
    assert_string_not_equal(script_run(x, "session 3"), "S3");
    assert_string_equal(script_run(x, "reopen"), "at 0");
    script_free(x);
}

static void a_token_admits_a_member_once(void **t)
{
    (void)t;
    SCRIPT({"init n1 10.0.0.1:7400", "1 n1 active"}, {"init n1 10.0.0.1:7400", "precondition"},
           {"token t1 voter 1 5000 secret", "ok"}, {"token t1 voter 1 5000 other", "exists"},
           {"tokens", "t1 voter 1"}, {"redeem t1 wrong n2 10.0.0.2:7400", "denied"},
           {"redeem t9 secret n2 10.0.0.2:7400", "denied"},
           {"redeem t1 secret n1 10.0.0.2:7400", "exists"},
           {"redeem t1 secret n2 10.0.0.1:7400", "exists"},
           {"redeem t1 secret n2 10.0.0.2", "invalid"},
           {"redeem t1 secret n/2 10.0.0.2:7400", "invalid"}, {"tokens", "t1 voter 1"},
           {"redeem t1 secret n2 10.0.0.2:7400", "id 2 voter of 2 in cluster-1"},
           {"redeem t1 secret n3 10.0.0.3:7400", "denied"},
           {"members", "1 n1 voter active; 2 n2 voter joining"});
}

static void a_token_redeemed_again_with_its_key_answers_the_same(void **t)
{
    (void)t;
    SCRIPT({"init n1 h:1", "1 n1 active"}, {"token t1 voter 1 5000 secret", "ok"},
           {"redeem t1 secret n2 h:2 k", "id 2 voter of 2 in cluster-1"}, {"tokens", ""},
           {"redeem t1 secret n2 h:2 k", "id 2 voter of 2 in cluster-1"},
           {"redeem t1 secret n2 h:2 other", "denied"}, {"redeem t1 secret n3 h:2 k", "denied"},
           {"redeem t1 secret n2 h:3 k", "denied"}, {"redeem t1 wrong n2 h:2 k", "denied"},
           {"token t2 voter 2 5000 secret", "ok"}, {"member 2 active", "2 n2 active"},
           {"commit", ""}, {"redeem t1 secret n2 h:2 k", "id 2 voter of 2 in cluster-1"},
           {"reopen", "at 10"}, {"redeem t1 secret n2 h:2 k", "id 2 voter of 2 in cluster-1"},
           {"redeem t2 secret n3 h:3 k", "id 3 voter of 3 in cluster-1"},
           {"redeem t2 secret n3 h:3 k", "id 3 voter of 3 in cluster-1"},
           {"tokens", "t2 voter 1"}, {"member 2 removed", "2 n2 removed"},
           {"redeem t1 secret n2 h:2 k", "denied"}, {"wall 5000", ""},
           {"redeem t2 secret n3 h:3 k", "denied"});
}

/* Spent ones stay for those that ask again, but keep no new one out. */
static void spent_tokens_give_way(void **t)
{
    (void)t;
    struct script *x = script_new();
    for (int i = 0; i < 64; i++) {
        char line[64];
        (void)snprintf(line, sizeof line, "token t%d voter 1 9000 s", i);
        assert_string_equal(script_run(x, line), "ok");
    }
    assert_string_equal(script_run(x, "token u voter 1 9000 s"), "limit");
    (void)script_run(x, "redeem t0 s n1 h:1 k");
    assert_string_equal(script_run(x, "token u voter 1 9000 s"), "ok");
    assert_string_equal(script_run(x, "redeem t0 s n1 h:1 k"), "denied");
    script_free(x);
}

static void a_token_ends_by_time_and_by_revocation(void **t)
{
    (void)t;
    SCRIPT({"token t1 learner 2 5000 secret", "ok"}, {"token t2 witness 1 5000 secret", "ok"},
           {"token t3 king 1 5000 secret", "invalid"}, {"token t3 voter 0 5000 s", "invalid"},
           {"token t3 voter 1 1000 s", "invalid"}, {"untoken t2", "ok"},
           {"untoken t2", "not_found"}, {"redeem t2 secret n2 h:1", "denied"},
           {"wall 4999", ""}, {"redeem t1 secret n2 h:1", "id 1 learner of 1 in cluster-1"},
           {"wall 5000", ""}, {"redeem t1 secret n3 h:2", "denied"},
           {"token t4 voter 1 9000 secret", "ok"}, {"tokens", "t4 voter 1"});
}

static void ids_are_never_given_twice(void **t)
{
    (void)t;
    SCRIPT({"init n1 h:1", "1 n1 active"}, {"token t1 voter 9 5000 s", "ok"},
           {"redeem t1 s n2 h:2", "id 2 voter of 2 in cluster-1"},
           {"member 2 active", "2 n2 active"}, {"member 2 active", "2 n2 active"},
           {"member 2 joining", "precondition"}, {"member 2 removed", "2 n2 removed"},
           {"member 2 active", "precondition"}, {"member 7 active", "not_found"},
           {"redeem t1 s n2 h:2", "id 3 voter of 2 in cluster-1"}, {"commit", ""},
           {"member 3 removed", "3 n2 removed"}, {"reopen", "at 10"},
           {"redeem t1 s n2 h:2", "id 4 voter of 2 in cluster-1"},
           {"members", "1 n1 voter active; 4 n2 voter joining"});
}

/* A number of a certificate is the index of the entry that issued it; 0: it was made elsewhere. */
static void a_revoked_name_may_be_given_again(void **t)
{
    (void)t;
    SCRIPT({"issue ann admin", "#1"}, {"issue bob viewer", "#2"}, {"issue ann admin", "#3"},
           {"certs", "ann admin #1; bob viewer #2; ann admin #3"}, {"refused ann 1", "no"},
           {"unissue ann", "2 to #4"}, {"refused ann 1", "yes"}, {"refused ann 3", "yes"},
           {"refused ann 0", "yes"}, {"refused bob 2", "no"}, {"refused bob 0", "no"},
           {"certs", "bob viewer #2; no ann to #4"}, {"issue ann operator", "#5"},
           {"refused ann 5", "no"}, {"refused ann 4", "yes"}, {"refused ann 0", "yes"},
           {"refused ann 6", "yes"}, /* of the future: a number from elsewhere */
           {"certs", "bob viewer #2; ann operator #5; no ann to #4"},
           {"unissue ann", "1 to #6"}, {"refused ann 5", "yes"},
           /* again, because the answer was lost: the same end */
           {"unissue ann", "0 to #7"}, {"certs", "bob viewer #2; no ann to #7"});
}

static void a_revocation_survives_a_restart_and_a_copy(void **t)
{
    (void)t;
    SCRIPT({"issue ann admin", "#1"}, {"issue bob viewer", "#2"}, {"unissue ann", "1 to #3"},
           {"commit", ""}, {"issue cid viewer", "#4"}, {"reopen", "at 3"},
           {"certs", "bob viewer #2; cid viewer #4; no ann to #3"}, {"refused ann 1", "yes"},
           {"copy", "at 4"}, {"unissue bob", "1 to #5"}, {"restore", "ok"},
           {"certs", "bob viewer #2; cid viewer #4; no ann to #3"}, {"refused bob 2", "no"},
           {"refused ann 1", "yes"});
}

static void an_unlisted_name_is_revoked_when_that_is_said(void **t)
{
    (void)t;
    SCRIPT({"unissue ann", "not_found"}, {"certs", ""}, {"unissue ann unlisted", "0 to #2"},
           {"refused ann 0", "yes"}, {"refused ann 1", "yes"},
           {"unissue \"\" unlisted", "0 to #3"});
}

/* A connection that was let in before the revocation asks for a new certificate behind it. */
static void what_renews_a_revoked_certificate_is_refused(void **t)
{
    (void)t;
    SCRIPT({"issue ann admin", "#1"}, {"issue ann admin renews=1", "#2"},
           {"certs", "ann admin #2"}, {"unissue ann", "1 to #3"}, {"refused ann 1", "yes"},
           {"refused ann 2", "yes"}, {"issue ann admin renews=2", "denied"},
           {"issue ann admin", "#5"}, {"issue ann admin renews=5", "#6"});
}

static void certificates_end_by_themselves_and_are_bounded(void **t)
{
    (void)t;
    struct script *x = script_new();
    char line[64];
    for (int i = 0; i < 512; i++) {
        (void)snprintf(line, sizeof line, "issue c%d viewer", i);
        assert_int_equal(script_run(x, line)[0], '#');
    }
    assert_string_equal(script_run(x, "issue more viewer"), "limit");
    /* one that is renewed takes no further place, and takes nobody else's */
    assert_string_equal(script_run(x, "issue c8 viewer renews=8"), "limit");
    assert_string_equal(script_run(x, "issue c8 viewer renews=9"), "#515");
    assert_string_equal(script_run(x, "issue c8 viewer renews=515"), "#516");
    assert_string_equal(script_run(x, "unissue c7"), "1 to #517");
    assert_string_equal(script_run(x, "issue more viewer"), "#518");
    assert_string_equal(script_run(x, "wall 31536001000"), ""); /* a year later */
    assert_string_equal(script_run(x, "issue last admin"), "#519");
    assert_string_equal(script_run(x, "certs"), "last admin #519; no c7 to #517");
    script_free(x);
}

static void revoked_names_are_bounded(void **t)
{
    (void)t;
    struct script *x = script_new();
    char line[64];
    for (int i = 0; i < 1024; i++) {
        (void)snprintf(line, sizeof line, "unissue c%d unlisted", i);
        assert_int_equal(script_run(x, line)[0], '0');
    }
    assert_string_equal(script_run(x, "unissue more unlisted"), "limit");
    assert_string_equal(script_run(x, "unissue c3 unlisted"), "0 to #1026");
    script_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_request_again_is_answered_and_not_applied),
        cmocka_unit_test(a_refusal_is_kept_as_well),
        cmocka_unit_test(the_same_nonce_is_the_same_session),
        cmocka_unit_test(sequences_may_arrive_in_any_order_within_the_window),
        cmocka_unit_test(a_long_result_is_kept_in_short),
        cmocka_unit_test(idle_sessions_are_evicted_and_a_lease_protects),
        cmocka_unit_test(a_token_admits_a_member_once),
        cmocka_unit_test(a_token_redeemed_again_with_its_key_answers_the_same),
        cmocka_unit_test(spent_tokens_give_way),
        cmocka_unit_test(a_token_ends_by_time_and_by_revocation),
        cmocka_unit_test(ids_are_never_given_twice),
        cmocka_unit_test(a_revoked_name_may_be_given_again),
        cmocka_unit_test(a_revocation_survives_a_restart_and_a_copy),
        cmocka_unit_test(an_unlisted_name_is_revoked_when_that_is_said),
        cmocka_unit_test(what_renews_a_revoked_certificate_is_refused),
        cmocka_unit_test(certificates_end_by_themselves_and_are_bounded),
        cmocka_unit_test(revoked_names_are_bounded),
    };
    return cmocka_run_group_tests_name("dcs_state_session", tests, NULL, NULL);
}
