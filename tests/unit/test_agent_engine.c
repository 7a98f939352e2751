/* The engine by itself, over ports that only take notes: what it asks of the store, and what it makes of answers
 * that are late, unknown or unreadable. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "agent/core/plan.h"
#include "agent/engine.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/str.h"

enum { CALLS = 64, TTL_MS = 5000, MARGIN_MS = 500 };

struct call {
    enum method method;
    client_cb *cb; /* NULL: answered */
    void *arg;
    struct lease_renew renew; /* METHOD_LEASE_RENEW */
    bool keys_only, local;    /* METHOD_KV_RANGE: the proof; this node's own store */
    bool member;              /* METHOD_KV_PUT: of the member record, not of the journal */
};

struct node {
    struct engine *g;
    uint64_t now_ms;
    struct fence_state fence;
    bool arming; /* an order to the fence is under way */
    struct view_pg pg;
    struct call calls[CALLS];
    size_t calls_n;
    enum plan_action ran; /* the newest action ordered */
    postgres_cb *ran_cb;
    void *ran_arg;
    bool configured, settings_only;
    char parameters[64];
};

static struct node node;

/* ---- ports ---- */

static uint64_t port_now(void *arg)
{
    return ((struct node *)arg)->now_ms;
}

static void port_call(void *arg, enum method m, const void *params, uint64_t deadline_ms,
                      client_cb *cb, void *cb_arg)
{
    struct node *x = arg;
    (void)deadline_ms;
    assert_true(x->calls_n < CALLS);
    struct call *c = &x->calls[x->calls_n++];
    *c = (struct call){.method = m, .cb = cb, .arg = cb_arg};
    if (m == METHOD_LEASE_RENEW)
        c->renew = *(const struct lease_renew *)params;
    if (m == METHOD_KV_PUT)
        c->member = slice_eq(((const struct put_req *)params)->key,
                             slice_str("/regent/demo/members/n1"));
    if (m == METHOD_KV_RANGE) {
        c->keys_only = ((const struct range_req *)params)->keys_only;
        c->local = ((const struct range_req *)params)->local;
    }
}

static void port_watch(void *arg, struct slice key, struct slice end, uint64_t start_revision)
{
    (void)arg;
    (void)key;
    (void)end;
    (void)start_revision;
}

static void port_observe(void *arg, struct view_pg *ret_pg)
{
    *ret_pg = ((struct node *)arg)->pg;
}

static void port_run(void *arg, const struct plan *p, const struct postgres_upstream *up,
                     uint64_t deadline_ms, postgres_cb *cb, void *cb_arg)
{
    struct node *x = arg;
    (void)up;
    (void)deadline_ms;
    x->ran = p->action;
    x->ran_cb = cb;
    x->ran_arg = cb_arg;
}

static void port_nothing(void *arg)
{
    (void)arg;
}

static void port_configure(void *arg, const struct postgres_dynamic *d)
{
    struct node *x = arg;
    x->configured = true;
    x->settings_only = d->settings_only;
    (void)snprintf(x->parameters, sizeof x->parameters, "%.*s", (int)d->parameters_json.n,
                   (const char *)d->parameters_json.p);
}

static void port_watch_closely(void *arg, bool on)
{
    (void)arg;
    (void)on;
}

static uint64_t port_catalogue(void *arg, struct slice *ret_json)
{
    (void)arg;
    (void)ret_json;
    return 0;
}

static void port_fence(void *arg, struct fence_state *ret_state)
{
    *ret_state = ((struct node *)arg)->fence;
}

static void port_arm(void *arg, uint64_t token, uint64_t deadline_ms)
{
    struct node *x = arg;
    x->fence.armed = true;
    x->fence.token = token;
    x->fence.deadline_ms = deadline_ms;
}

static void port_number(void *arg, uint64_t number)
{
    (void)arg;
    (void)number;
}

static void port_extend(void *arg, uint64_t deadline_ms)
{
    struct node *x = arg;
    x->fence.deadline_ms = MAX(x->fence.deadline_ms, deadline_ms);
}

static bool port_shorten(void *arg, uint64_t deadline_ms)
{
    struct node *x = arg;
    if (!x->arming)
        x->fence.deadline_ms = MIN(x->fence.deadline_ms, deadline_ms);
    return !x->arming;
}

static void port_remember(void *arg, uint64_t lease, uint64_t nonce)
{
    struct node *x = arg;
    x->fence.lease = lease;
    x->fence.nonce = nonce;
}

static void port_published(void *arg, const struct view *v, const struct plan *p)
{
    (void)arg;
    (void)v;
    (void)p;
}

static const struct engine_ports ports = {
    .now_ms = port_now,
    .wall_ms = port_now,
    .call = port_call,
    .watch = port_watch,
    .observe = port_observe,
    .run = port_run,
    .cancel = port_nothing,
    .configure = port_configure,
    .watch_closely = port_watch_closely,
    .catalogue = port_catalogue,
    .fence = port_fence,
    .arm = port_arm,
    .extend = port_extend,
    .shorten = port_shorten,
    .disarm = port_nothing,
    .confirm = port_number,
    .kill = port_nothing,
    .remember = port_remember,
    .wake_at = port_number,
    .published = port_published,
};

/* ---- a node ---- */

/* A daemon that has just begun; fence and PostgreSQL are as they were. */
static void begin(struct node *x)
{
    static struct config_rec boot;
    struct errmsg e;
    config_defaults(&boot);
    struct engine_options o = {.scope = "demo",
                               .name = "n1",
                               .conn_host = "h1",
                               .conn_port = 5432,
                               .api_url = "",
                               .pg_version = "",
                               .bootstrap = &boot,
                               .election_ms = 1000,
                               .kill_budget_ms = 200,
                               .failover_priority = 1,
                               .sync_priority = 1,
                               .ports = &ports,
                               .arg = x};
    x->calls_n = 0;
    assert_int_equal(engine_new(&o, &x->g, &e), ERR_OK);
    engine_connected(x->g, true);
}

static int setup(void **state)
{
    log_setup(LOG_FATAL, LOG_LOGFMT);
    node = (struct node){.now_ms = 100000};
    node.fence.connected = true;
    node.pg.data = PG_DATA_OURS;
    node.pg.proc = PG_PROC_STOPPED;
    str_cut(node.pg.incarnation, sizeof node.pg.incarnation, "i1");
    begin(&node);
    *state = &node;
    return 0;
}

static int teardown(void **state)
{
    engine_free(((struct node *)*state)->g);
    return 0;
}

/* The oldest call of that method without an answer. */
static struct call *pending(struct node *x, enum method m)
{
    for (size_t i = 0; i < x->calls_n; i++)
        if (x->calls[i].cb != NULL && x->calls[i].method == m)
            return &x->calls[i];
    return NULL;
}

static void answer(struct call *c, const struct msg *msg, const void *result)
{
    assert_non_null(c);
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    msg_encode(msg, result, &b);
    struct client_reply r = {.status = ERR_OK, .result = buf_slice(&b)};
    client_cb *cb = c->cb;
    c->cb = NULL;
    cb(c->arg, &r);
}

static void refuse(struct call *c, enum err status)
{
    assert_non_null(c);
    struct client_reply r = {.status = status};
    client_cb *cb = c->cb;
    c->cb = NULL;
    cb(c->arg, &r);
}

struct record {
    const char *name;
    const char *json;
    uint64_t mod;
    uint64_t lease;
};

static void answer_records(struct call *c, const struct record *records, size_t n,
                           uint64_t revision)
{
    struct msg_list l = {0};
    char key[MIRROR_KEY_MAX];
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(key, sizeof key, "/regent/demo/%s", records[i].name);
        struct kv kv = {.key = slice_str(key),
                        .value = slice_str(records[i].json),
                        .mod_revision = records[i].mod,
                        .lease = records[i].lease};
        msg_list_append(&l, &msg_kv, &kv);
    }
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    msg_list_end(&l, &b);
    struct range_reply r = {.revision = revision, .kvs = buf_slice(&b)};
    answer(c, &msg_range_reply, &r);
}

static void answer_range(struct node *x, const struct record *records, size_t n,
                         uint64_t revision)
{
    answer_records(pending(x, METHOD_KV_RANGE), records, n, revision);
}

/* Both ranges of a fill: before the journal and behind it. */
static void fill_two(struct node *x, const struct record *first, size_t first_n,
                     const struct record *rest, size_t rest_n, uint64_t revision)
{
    if (pending(x, METHOD_KV_RANGE)->local)
        answer_range(x, NULL, 0, revision); /* its own store knows nothing */
    answer_range(x, first, first_n, revision);
    answer_range(x, rest, rest_n, revision);
}

static void fill(struct node *x, const struct record *records, size_t n, uint64_t revision)
{
    fill_two(x, records, n, NULL, 0, revision);
}

static void tick_at(struct node *x, uint64_t now_ms)
{
    x->now_ms = now_ms;
    engine_tick(x->g);
}

static void lease_answer(struct call *c, uint64_t id, uint64_t nonce, uint64_t n)
{
    struct lease_state s = {.id = id, .ttl_ms = TTL_MS, .nonce = nonce, .n = n};
    answer(c, &msg_lease_state, &s);
}

/* ---- lease ---- */

/* Whether the renewal of a try before counted nobody can tell: the store answers one that it has seen like any
 * other. So none is like another, also not of another daemon. */
static void each_try_to_adopt_has_a_number_of_its_own(void **state)
{
    struct node *x = *state;
    x->fence.lease = 7;
    x->fence.nonce = 5;
    fill(x, NULL, 0, 9);
    tick_at(x, 100000);
    struct call *c = pending(x, METHOD_LEASE_RENEW);
    assert_non_null(c);
    assert_int_equal(c->renew.id, 7);
    assert_int_equal(c->renew.nonce, 6);
    assert_int_equal(x->fence.nonce, 6); /* before it is sent: this daemon may die here */
    refuse(c, ERR_OUTCOME_UNKNOWN);
    tick_at(x, 101000);
    c = pending(x, METHOD_LEASE_RENEW);
    assert_non_null(c);
    assert_int_equal(c->renew.nonce, 7);
    engine_free(x->g); /* killed without an answer */
    x->now_ms = 102000;
    begin(x);
    fill(x, NULL, 0, 9);
    tick_at(x, 102000);
    c = pending(x, METHOD_LEASE_RENEW);
    assert_non_null(c);
    assert_int_equal(c->renew.nonce, 8);
    x->now_ms = 103000;
    lease_answer(c, 7, 8, 1);
    tick_at(x, 103000);
    assert_int_equal(engine_view(x->g)->lease, 7);
    assert_int_equal(engine_view(x->g)->deadline_ms, 102000 + TTL_MS - MARGIN_MS);
}

/* The store has counted somebody else's renewal: the lease is not ours. */
static void a_lease_that_another_renews_is_not_adopted(void **state)
{
    struct node *x = *state;
    x->fence.lease = 7;
    x->fence.nonce = 5;
    fill(x, NULL, 0, 9);
    tick_at(x, 100000);
    lease_answer(pending(x, METHOD_LEASE_RENEW), 7, 9, 3);
    tick_at(x, 100100);
    assert_non_null(pending(x, METHOD_LEASE_GRANT));
}

/* ---- dynamic configuration ---- */

static void without_a_quorum_the_settings_are_what_this_node_knew_last(void **state)
{
    struct node *x = *state;
    const struct record before = {"config", "{\"ttl\":20,\"postgresql\":{\"parameters\":{}}}",
                                  3, 0};
    const struct record now = {"config", "{\"ttl\":30,\"postgresql\":{\"pg_hba\":[]}}", 8, 0};
    tick_at(x, 100000);
    assert_false(x->configured);
    assert_true(pending(x, METHOD_KV_RANGE)->local);
    answer_range(x, &before, 1, 7);
    tick_at(x, 100100);
    assert_true(x->configured && x->settings_only);
    assert_string_equal(x->parameters, "{\"parameters\":{}}");
    assert_int_equal(engine_view(x->g)->config.ttl_ms, 20000);
    assert_false(engine_view(x->g)->dcs_ready);
    fill(x, &now, 1, 9);
    tick_at(x, 100200);
    assert_false(x->settings_only);
    assert_string_equal(x->parameters, "{\"pg_hba\":[]}");
    assert_int_equal(engine_view(x->g)->config.ttl_ms, 30000);
}

/* Else it would take a standby cluster for one that may write, and PostgreSQL's settings for none. */
static void nothing_rests_on_a_configuration_that_cannot_be_read(void **state)
{
    struct node *x = *state;
    const struct record bad = {"config", "{\"ttl\":", 3, 0};
    fill(x, &bad, 1, 9);
    tick_at(x, 100100);
    assert_string_equal(engine_plan(x->g)->rule, "dcs_not_ready");
    assert_non_null(strstr(engine_plan(x->g)->reason, "the record `config` cannot be read"));
    assert_false(x->configured);
}

static const struct record of_leader[] = {
    {"config", "{\"ttl\":5}", 3, 0},
    {"initialize", "{\"name\":\"n1\",\"system_id\":77}", 3, 0},
};

/* A new daemon on a node that leads: the fence holds the lease of the one before. */
static void lead_before(struct node *x, uint64_t deadline_ms)
{
    static const struct record rest[] = {
        {"leader",
         "{\"name\":\"n1\",\"incarnation\":\"i1\",\"token\":4,\"state\":\"running\","
         "\"timeline\":2}",
         40, 11},
        {"sync",
         "{\"leader\":\"n1\",\"incarnation\":\"i1\",\"token\":4,\"mode\":\"off\",\"v\":[],"
         "\"q\":1}",
         43, 0},
    };
    x->pg.proc = PG_PROC_RUNNING;
    x->pg.accepts = x->pg.set_known = x->pg.roles_ready = x->pg.checkpointed = true;
    x->pg.system_id = 77;
    x->pg.timeline = 2;
    fill_two(x, of_leader, ARRAY_LEN(of_leader), rest, ARRAY_LEN(rest), 50);
    x->fence = (struct fence_state){.connected = true,
                                    .armed = true,
                                    .token = 4,
                                    .lease = 11,
                                    .nonce = 1,
                                    .deadline_ms = deadline_ms};
}

static struct call *renewal_for(struct node *x, uint64_t ttl_ms)
{
    struct call *c = pending(x, METHOD_LEASE_RENEW);
    assert_non_null(c);
    assert_int_equal(c->renew.ttl_ms, ttl_ms);
    return c;
}

/* A shorter TTL binds as soon as the store has it: a daemon that dies then must not leave a fence behind that holds
 * the longer time. */
static void the_fence_holds_a_shorter_ttl_before_the_store_has_it(void **state)
{
    enum { LONG_MS = 20000, LATE_MS = 100000 + LONG_MS - 1000 };
    struct node *x = *state;
    struct call *c;
    lead_before(x, LATE_MS);
    x->arming = true;
    tick_at(x, 100000);
    assert_null(pending(x, METHOD_LEASE_RENEW));
    x->arming = false;
    tick_at(x, 100100);
    c = renewal_for(x, TTL_MS);
    assert_int_equal(x->fence.deadline_ms, 100100 + TTL_MS - MARGIN_MS);
    struct lease_state s = {.id = 11, .ttl_ms = LONG_MS, .nonce = 2, .n = 1};
    answer(c, &msg_lease_state, &s); /* the store had the longer one all the same */
    x->arming = true;
    tick_at(x, 106000);
    c = renewal_for(x, LONG_MS);
    s.n = 2;
    answer(c, &msg_lease_state, &s);
    tick_at(x, 106100);
    assert_int_equal(x->fence.deadline_ms, 106000 + LONG_MS - LONG_MS / 10);
    x->arming = false;
    tick_at(x, 112000);
    (void)renewal_for(x, TTL_MS);
    assert_int_equal(x->fence.deadline_ms, 112000 + TTL_MS - MARGIN_MS);
}

/* Whose it is nobody can tell. PostgreSQL goes on until the deadline that the fence has, and no renewal moves that. */
static void for_a_leader_key_that_cannot_be_read_no_deadline_is_moved(void **state)
{
    struct node *x = *state;
    static const struct record bad[] = {{"leader", "{\"name\":", 45, 12}};
    lead_before(x, 100000 + TTL_MS - MARGIN_MS);
    tick_at(x, 100000);
    lease_answer(pending(x, METHOD_LEASE_RENEW), 11, 2, 1);
    tick_at(x, 102000);
    lease_answer(pending(x, METHOD_LEASE_RENEW), 11, 2, 2);
    tick_at(x, 102010);
    assert_int_equal(x->fence.deadline_ms, 102000 + TTL_MS - MARGIN_MS);
    engine_watch(x->g, ERR_COMPACTED, NULL);
    fill_two(x, of_leader, ARRAY_LEN(of_leader), bad, ARRAY_LEN(bad), 51);
    tick_at(x, 104000);
    assert_string_equal(engine_plan(x->g)->rule, "dcs_not_ready");
    lease_answer(pending(x, METHOD_LEASE_RENEW), 11, 2, 3);
    tick_at(x, 104010);
    assert_true(engine_view(x->g)->deadline_ms > x->fence.deadline_ms);
    assert_int_equal(x->fence.deadline_ms, 102000 + TTL_MS - MARGIN_MS);
}

/* ---- the member record ---- */

static bool told_of_itself(const struct node *x)
{
    for (size_t i = 0; i < x->calls_n; i++)
        if (x->calls[i].member)
            return true;
    return false;
}

static void one_member_too_many_keeps_to_itself(void **state)
{
    struct node *x = *state;
    static char names[VIEW_MEMBERS][16];
    static char json[VIEW_MEMBERS][32];
    struct record members[VIEW_MEMBERS];
    for (size_t i = 0; i < VIEW_MEMBERS; i++) {
        (void)snprintf(names[i], sizeof names[i], "members/a%02zu", i);
        (void)snprintf(json[i], sizeof json[i], "{\"name\":\"a%02zu\"}", i);
        members[i] = (struct record){names[i], json[i], 3, 20 + i};
    }
    fill(x, members, VIEW_MEMBERS, 9);
    tick_at(x, 100000);
    lease_answer(pending(x, METHOD_LEASE_GRANT), 11, 1, 0);
    tick_at(x, 100100);
    assert_false(told_of_itself(x));
    engine_watch(x->g, ERR_COMPACTED, NULL);
    fill(x, members, VIEW_MEMBERS - 1, 10);
    tick_at(x, 100200);
    assert_true(told_of_itself(x));
}

/* ---- an end by order ---- */

static const struct record of_leader_rest[] = {
    {"leader",
     "{\"name\":\"n1\",\"incarnation\":\"i1\",\"token\":4,\"state\":\"stopping\","
     "\"timeline\":"
     "2}",
     40, 11},
    {"members/n2",
     "{\"name\":\"n2\",\"incarnation\":\"i2\",\"lease\":12,\"state\":\"streaming\","
     "\"role\":"
     "\"replica\","
     "\"timeline\":2,\"lsn\":16777216,\"upstream\":\"n1\",\"conn_host\":\"h2\",\"conn_"
     "port\":"
     "5432}",
     41, 12},
    {"sync",
     "{\"leader\":\"n1\",\"incarnation\":\"i1\",\"token\":4,\"mode\":\"off\",\"v\":[],"
     "\"q\":1}",
     43, 0},
};

static void fill_as_leader(struct node *x, uint64_t revision)
{
    fill_two(x, of_leader, ARRAY_LEN(of_leader), of_leader_rest, ARRAY_LEN(of_leader_rest),
             revision);
}

/* Lease 11 with the leader key on it; PostgreSQL has been stopped cleanly. */
static void lead_stopped(struct node *x)
{
    fill_as_leader(x, 50);
    tick_at(x, 100000);
    lease_answer(pending(x, METHOD_LEASE_GRANT), 11, 1, 0);
    x->pg.system_id = 77;
    x->pg.clean = true;
    x->pg.timeline = 2;
    x->pg.lsn = x->pg.shutdown_lsn = 16777216;
}

/* A transaction that failed has the records read again; for those milliseconds the key is not given up. */
static void a_handover_that_failed_is_tried_again(void **state)
{
    struct node *x = *state;
    lead_stopped(x);
    engine_stop(x->g);
    tick_at(x, 100100);
    assert_string_equal(engine_plan(x->g)->rule, "switch_handover");
    assert_int_equal(engine_plan(x->g)->txn, TXN_HANDOVER);
    struct txn_reply changed = {.succeeded = false};
    answer(pending(x, METHOD_KV_TXN), &msg_txn_reply, &changed);
    tick_at(x, 100110);
    assert_null(pending(x, METHOD_LEASE_REVOKE));
    fill_as_leader(x, 51);
    tick_at(x, 100120);
    assert_int_equal(engine_plan(x->g)->txn, TXN_HANDOVER);
}

/* Nobody to hand over to: the daemon ends, and its lease with it. */
static void without_a_quorum_the_end_is_not_put_off(void **state)
{
    struct node *x = *state;
    lead_stopped(x);
    engine_stop(x->g);
    tick_at(x, 100100);
    refuse(pending(x, METHOD_KV_TXN), ERR_OUTCOME_UNKNOWN);
    tick_at(x, 100000 + TTL_MS - 1);
    assert_null(pending(x, METHOD_LEASE_REVOKE));
    tick_at(x, 100000 + TTL_MS);
    assert_string_equal(engine_plan(x->g)->rule, "stop_anyway");
    assert_non_null(pending(x, METHOD_LEASE_REVOKE));
}

/* ---- the proof before what cannot be undone ---- */

static const struct record of_winner[] = {
    {"leader", "{\"name\":\"n1\",\"incarnation\":\"i1\",\"token\":5,\"state\":\"acquired\"}",
     40, 11},
    {"sync",
     "{\"leader\":\"n1\",\"incarnation\":\"i1\",\"token\":5,\"mode\":\"off\",\"v\":[],"
     "\"q\":1}",
     43, 0},
};

static struct call *pending_proof(struct node *x)
{
    for (size_t i = 0; i < x->calls_n; i++)
        if (x->calls[i].cb != NULL && x->calls[i].keys_only)
            return &x->calls[i];
    return NULL;
}

static void win(struct node *x)
{
    x->pg.proc = PG_PROC_RUNNING;
    x->pg.in_recovery = x->pg.standby_signal = x->pg.accepts = true;
    x->pg.system_id = 77;
    fill_two(x, of_leader, ARRAY_LEN(of_leader), of_winner, ARRAY_LEN(of_winner), 50);
    tick_at(x, 100000);
    lease_answer(pending(x, METHOD_LEASE_GRANT), 11, 1, 0);
    tick_at(x, 100010);
    tick_at(x, 100020);
    assert_int_equal(engine_plan(x->g)->action, ACTION_PROMOTE);
}

static void a_promotion_waits_for_its_proof(void **state)
{
    struct node *x = *state;
    win(x);
    assert_int_equal(x->ran, ACTION_NONE);
    answer_records(pending_proof(x), of_winner, ARRAY_LEN(of_winner), 51);
    tick_at(x, 100030);
    assert_int_equal(x->ran, ACTION_PROMOTE);
}

/* The loop stood still: what was read before tells of a world that may be gone. Neither does the late answer count for
 * the read that is asked for after it. */
static void what_was_read_before_a_pause_proves_nothing(void **state)
{
    struct node *x = *state;
    win(x);
    struct call *before = pending_proof(x);
    assert_non_null(before);
    struct call asked = *before;
    engine_late(x->g);
    tick_at(x, 102000);
    tick_at(x, 102010);
    before->cb = NULL;
    struct call *after = pending_proof(x);
    assert_non_null(after);
    answer_records(&asked, of_winner, ARRAY_LEN(of_winner), 50);
    tick_at(x, 102020);
    assert_int_equal(x->ran, ACTION_NONE);
    answer_records(after, of_winner, ARRAY_LEN(of_winner), 52);
    tick_at(x, 102030);
    assert_int_equal(x->ran, ACTION_PROMOTE);
}

/* The answer came, and then the loop stood still. */
static void a_proof_does_not_outlive_a_pause(void **state)
{
    struct node *x = *state;
    win(x);
    answer_records(pending_proof(x), of_winner, ARRAY_LEN(of_winner), 51);
    engine_late(x->g);
    tick_at(x, 102000);
    tick_at(x, 102010);
    assert_int_equal(x->ran, ACTION_NONE);
    assert_non_null(pending_proof(x));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(each_try_to_adopt_has_a_number_of_its_own),
        TEST(a_lease_that_another_renews_is_not_adopted),
        TEST(the_fence_holds_a_shorter_ttl_before_the_store_has_it),
        TEST(without_a_quorum_the_settings_are_what_this_node_knew_last),
        TEST(nothing_rests_on_a_configuration_that_cannot_be_read),
        TEST(for_a_leader_key_that_cannot_be_read_no_deadline_is_moved),
        TEST(one_member_too_many_keeps_to_itself),
        TEST(a_handover_that_failed_is_tried_again),
        TEST(without_a_quorum_the_end_is_not_put_off),
        TEST(a_promotion_waits_for_its_proof),
        TEST(what_was_read_before_a_pause_proves_nothing),
        TEST(a_proof_does_not_outlive_a_pause),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
