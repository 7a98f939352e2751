#include "tests/unit/dcs_state_script.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/mem.h"
#include "dcs/state_lease.h"

/* The lease rules of DESIGN.md §3; the clock is the `now` line. */

static void a_granted_lease_runs_from_its_apply(void **t)
{
    (void)t;
    SCRIPT({"grant 5000 7", "L1 ttl 5000 nonce 7 n 0"}, {"expired", "none"}, {"now 5999", ""},
           {"expired", "none"}, {"now 6000", ""}, {"expired", "L1 7 0"},
           {"grant 99 1", "invalid"}, {"grant 0 1", "invalid"});
}

static void a_renewal_moves_the_clock_by_what_it_did_not_wait(void **t)
{
    (void)t;
    SCRIPT({"grant 5000 7", "L1 ttl 5000 nonce 7 n 0"}, {"now 3000", ""},
           {"renew L1 7 1 held=600", "L1 ttl 5000 nonce 7 n 1"},
           {"leases", "L1 ttl 5000 nonce 7 n 1 left 4400 keys 0"}, {"now 7400", ""},
           {"expired", "L1 7 1"});
}

static void a_renewal_that_waited_longer_than_the_last_never_shortens(void **t)
{
    (void)t;
    SCRIPT({"grant 5000 7", "L1 ttl 5000 nonce 7 n 0"}, {"now 2000", ""},
           {"renew L1 7 1 held=100", "L1 ttl 5000 nonce 7 n 1"},
           {"renew L1 7 2 held=900", "L1 ttl 5000 nonce 7 n 2"},
           {"leases", "L1 ttl 5000 nonce 7 n 2 left 4900 keys 0"},
           {"renew L1 7 3 held=999999", "L1 ttl 5000 nonce 7 n 3"},
           {"leases", "L1 ttl 5000 nonce 7 n 3 left 4900 keys 0"});
}

static void a_renewal_sent_again_moves_nothing(void **t)
{
    (void)t;
    SCRIPT({"grant 5000 7", "L1 ttl 5000 nonce 7 n 0"},
           {"renew L1 7 2", "L1 ttl 5000 nonce 7 n 2"}, {"now 4000", ""},
           {"renew L1 7 2", "L1 ttl 5000 nonce 7 n 2"},
           {"renew L1 7 1 ttl=9000", "L1 ttl 5000 nonce 7 n 2"},
           {"leases", "L1 ttl 5000 nonce 7 n 2 left 2000 keys 0"});
}

static void a_higher_nonce_supersedes_and_counts_anew(void **t)
{
    (void)t;
    SCRIPT({"grant 5000 7", "L1 ttl 5000 nonce 7 n 0"},
           {"renew L1 7 50", "L1 ttl 5000 nonce 7 n 50"}, {"now 2000", ""},
           {"renew L1 8 1", "L1 ttl 5000 nonce 8 n 1"},
           {"leases", "L1 ttl 5000 nonce 8 n 1 left 5000 keys 0"}, {"now 3000", ""},
           {"renew L1 7 51", "L1 ttl 5000 nonce 8 n 1"},
           {"leases", "L1 ttl 5000 nonce 8 n 1 left 4000 keys 0"});
}

static void a_shorter_ttl_binds_at_once_a_longer_one_adds(void **t)
{
    (void)t;
    SCRIPT({"grant 10000 7", "L1 ttl 10000 nonce 7 n 0"},
           {"renew L1 7 1 ttl=2000 held=500", "L1 ttl 2000 nonce 7 n 1"},
           {"leases", "L1 ttl 2000 nonce 7 n 1 left 1500 keys 0"},
           {"renew L1 7 2 ttl=8000", "L1 ttl 8000 nonce 7 n 2"},
           {"leases", "L1 ttl 8000 nonce 7 n 2 left 8000 keys 0"},
           {"renew L1 7 3 ttl=5", "invalid"},
           {"leases", "L1 ttl 8000 nonce 7 n 2 left 8000 keys 0"}, {"now 5000", ""},
           {"renew L1 7 3 ttl=3000 held=4000", "L1 ttl 3000 nonce 7 n 3"},
           {"expired", "L1 7 3"});
}

static void expiry_is_void_when_the_counter_moved(void **t)
{
    (void)t;
    SCRIPT({"grant 5000 7", "L1 ttl 5000 nonce 7 n 0"},
           {"put a 1 lease=L1", "rev 1 | put a=1 @1"},
           {"renew L1 7 1", "L1 ttl 5000 nonce 7 n 1"},
           {"expire L1 7 0", "L1 ttl 5000 nonce 7 n 1"}, {"get a", "1 a=1"},
           {"renew L1 8 1", "L1 ttl 5000 nonce 8 n 1"},
           {"expire L1 7 1", "L1 ttl 5000 nonce 8 n 1"},
           {"expire L1 8 1", "L1 gone | del a was 1 @2"}, {"expire L1 8 1", "L1 gone"},
           {"renew L1 8 2", "L1 gone"}, {"leases", ""}, {"leases L1", "L1 gone"});
}

static void the_end_of_a_lease_deletes_its_keys_in_one_revision(void **t)
{
    (void)t;
    SCRIPT(
        {"grant 5000 7", "L1 ttl 5000 nonce 7 n 0"},
        {"grant 5000 8", "L2 ttl 5000 nonce 8 n 0"}, {"put a 1 lease=L1", "rev 1 | put a=1 @1"},
        {"put b 2 lease=L1", "rev 2 | put b=2 @2"}, {"put c 3 lease=L1", "rev 3 | put c=3 @3"},
        {"put b 4", "rev 4 | put b=4 was 2 @4"},
        {"put c 5 lease=L2", "rev 5 | put c=5 was 3 @5"},
        {"put d 6 lease=L1", "rev 6 | put d=6 @6"},
        {"leases L1", "L1 ttl 5000 nonce 7 n 0 left 5000 keys 2"},
        {"revoke L1", "L1 gone | del a was 1, del d was 6 @7"}, {"get \"\" *", "2 b=4,c=5"},
        {"revoke L1", "not_found"}, {"put a 1 lease=L1", "not_found"},
        {"revoke L2", "L2 gone | del c was 5 @8"}, {"grant 5000 9", "L3 ttl 5000 nonce 9 n 0"},
        {"revoke L3", "L3 gone"}, {"get \"\" *", "1 b=4"});
}

static void renewals_alone_are_never_committed(void **t)
{
    (void)t;
    SCRIPT({"grant 5000 7", "L1 ttl 5000 nonce 7 n 0"}, {"commit", ""},
           {"renew L1 7 1", "L1 ttl 5000 nonce 7 n 1"}, {"uncommitted", "no"}, {"commit", ""},
           {"applied", "2"}, {"now 2000", ""}, {"reopen", "at 1"},
           {"leases", "L1 ttl 5000 nonce 7 n 1 left 5000 keys 0"},
           {"renew L1 7 2", "L1 ttl 5000 nonce 7 n 2"}, {"put a 1", "rev 1 | put a=1 @1"},
           {"uncommitted", "yes"}, {"commit", ""}, {"uncommitted", "no"}, {"reopen", "at 4"},
           {"leases", "L1 ttl 5000 nonce 7 n 2 left 5000 keys 0"},
           {"renew L1 7 3 ttl=7000", "L1 ttl 7000 nonce 7 n 3"}, {"full", ""},
           {"reopen", "at 5"}, {"leases", "L1 ttl 7000 nonce 7 n 3 left 7000 keys 0"});
}

static void after_a_restart_every_lease_runs_a_whole_ttl(void **t)
{
    (void)t;
    SCRIPT({"grant 5000 7", "L1 ttl 5000 nonce 7 n 0"},
           {"renew L1 7 1 held=4000", "L1 ttl 5000 nonce 7 n 1"}, {"full", ""},
           {"now 90000", ""}, {"reopen", "at 2"},
           {"leases", "L1 ttl 5000 nonce 7 n 1 left 5000 keys 0"},
           {"renew L1 7 2 held=3000", "L1 ttl 5000 nonce 7 n 2"},
           {"leases", "L1 ttl 5000 nonce 7 n 2 left 5000 keys 0"});
}

/* A renewal and an expiry that saw it not, in every order with what else may come between: the lease
 * lives exactly when a renewal came before the expiry, whether the member restarted or not. */
static void every_order_of_renewals_and_expiry_gives_one_answer(void **t)
{
    (void)t;
    static const char *const events[] = {"renew L1 7 1", "renew L1 7 2", "renew L1 8 1",
                                         "expire L1 7 0", "put b 1"};
    enum { N = sizeof events / sizeof events[0], ORDERS = 120 };
    for (size_t order = 0; order < ORDERS; order++)
        for (size_t restart = 0; restart <= N; restart += 2) {
            struct script *x = script_new();
            size_t left[N] = {0, 1, 2, 3, 4}, code = order;
            bool renewed = false, alive = true;
            (void)script_run(x, "grant 5000 7");
            (void)script_run(x, "put a 1 lease=L1");
            for (size_t k = N; k > 0; k--) {
                size_t pick = code % k, event = left[pick];
                code /= k;
                memmove(&left[pick], &left[pick + 1], (N - pick - 1) * sizeof left[0]);
                (void)script_run(x, events[event]);
                alive = alive && (event != 3 || renewed);
                renewed = renewed || event < 3;
                if (k == restart)
                    (void)script_run(x, "reopen");
                else if (k % 2 == 0)
                    (void)script_run(x, "commit");
            }
            assert_string_equal(script_run(x, "get a"), alive ? "1 a=1" : "0");
            script_free(x);
        }
}

/* ---- the arithmetic alone ---- */

static void the_table_finds_and_removes_by_id(void **t)
{
    (void)t;
    struct lease_table table = {0};
    for (uint64_t id = 10; id <= 1000; id += 10)
        (void)lease_add(&table, &(struct lease){.id = id, .ttl_ms = 100 + id}, 0);
    assert_null(lease_find(&table, 5));
    assert_null(lease_find(&table, 1001));
    for (uint64_t id = 10; id <= 1000; id += 20)
        lease_remove(&table, id);
    for (uint64_t id = 10; id <= 1000; id += 10)
        assert_true((lease_find(&table, id) == NULL) == (id % 20 == 10));
    assert_int_equal(lease_next_expiry(&table), UINT64_MAX);
    lease_table_restart(&table, 50);
    assert_int_equal(lease_next_expiry(&table), 50 + 100 + 20);
    lease_table_close(&table);
}

static void removing_a_dirty_lease_keeps_the_count(void **t)
{
    (void)t;
    struct lease_table table = {0};
    struct lease *l = lease_add(&table, &(struct lease){.id = 1, .ttl_ms = 1000}, 0);
    struct lease renewal = {.n = 1};
    assert_true(lease_renew(&table, l, &renewal, 0, 10));
    assert_false(lease_renew(&table, l, &renewal, 0, 20));
    assert_int_equal(l->expiry_ms, 1010);
    assert_int_equal(table.n_dirty, 1);
    lease_remove(&table, 1);
    assert_int_equal(table.n_dirty, 0);
    lease_table_close(&table);
}

static size_t puts_refused;

static void count_refused(void *arg, uint64_t index, size_t i, enum err status,
                          const char *error, struct slice result)
{
    (void)arg;
    (void)index;
    (void)i;
    (void)result;
    if (status != ERR_OK) {
        assert_int_equal(status, ERR_LIMIT);
        assert_non_null(strstr(error, "8192 keys"));
        puts_refused++;
    }
}

/* 8200 keys for one lease, in one entry. */
static void a_lease_takes_no_more_keys_than_its_end_can_delete(void **t)
{
    (void)t;
    static const struct state_ops ops = {.result = count_refused};
    struct script *x = script_new();
    struct state_batch b = {0};
    struct buf entry = BUF_INIT, params = BUF_INIT;
    (void)script_run(x, "grant 5000 1");
    for (unsigned i = 0; i < 8200; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "k%05u", i);
        struct put_req r = {.key = slice_str(key), .lease = x->leases[1]};
        buf_clear(&params);
        msg_encode(&msg_put_req, &r, &params);
        (void)state_batch_add(&b, STATE_CMD_PUT, buf_slice(&params));
    }
    state_batch_end(&b, 1, &entry);
    puts_refused = 0;
    state_apply(x->s, ++x->index, buf_slice(&entry), x->now_ms, &ops, NULL);
    assert_int_equal(puts_refused, 8);
    (void)script_run(x, "del k00001");
    (void)script_run(x, "put k00002 v"); /* without the lease now */
    assert_string_not_equal(script_run(x, "put one v lease=L1"), "limit");
    assert_string_not_equal(script_run(x, "put two v lease=L1"), "limit");
    assert_string_equal(script_run(x, "put three v lease=L1"), "limit");
    state_commit_full(x->s, x->index);
    state_close(x->s);
    struct errmsg e;
    assert_int_equal(state_open(x->path, "cluster-1", &x->s, &e), ERR_OK);
    assert_string_equal(script_run(x, "put three v lease=L1"), "limit");
    buf_close(&entry);
    buf_close(&params);
    buf_close(&b.body);
    script_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_granted_lease_runs_from_its_apply),
        cmocka_unit_test(a_renewal_moves_the_clock_by_what_it_did_not_wait),
        cmocka_unit_test(a_renewal_that_waited_longer_than_the_last_never_shortens),
        cmocka_unit_test(a_renewal_sent_again_moves_nothing),
        cmocka_unit_test(a_higher_nonce_supersedes_and_counts_anew),
        cmocka_unit_test(a_shorter_ttl_binds_at_once_a_longer_one_adds),
        cmocka_unit_test(expiry_is_void_when_the_counter_moved),
        cmocka_unit_test(the_end_of_a_lease_deletes_its_keys_in_one_revision),
        cmocka_unit_test(a_lease_takes_no_more_keys_than_its_end_can_delete),
        cmocka_unit_test(renewals_alone_are_never_committed),
        cmocka_unit_test(after_a_restart_every_lease_runs_a_whole_ttl),
        cmocka_unit_test(every_order_of_renewals_and_expiry_gives_one_answer),
        cmocka_unit_test(the_table_finds_and_removes_by_id),
        cmocka_unit_test(removing_a_dirty_lease_keeps_the_count),
    };
    return cmocka_run_group_tests_name("dcs_state_lease", tests, NULL, NULL);
}
