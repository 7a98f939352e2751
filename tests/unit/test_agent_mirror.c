/* The mirror of the HA records, and the transactions built from it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "agent/ha_txn.h"
#include "agent/mirror.h"
#include "base/str.h"

static void add(struct msg_list *l, const char *key, const char *value, uint64_t mod,
                uint64_t lease)
{
    struct kv kv = {
        .key = slice_str(key), .value = slice_str(value), .mod_revision = mod, .lease = lease};
    msg_list_append(l, &msg_kv, &kv);
}

static void fill(struct mirror *m, struct msg_list *l, uint64_t revision, enum err expect)
{
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    msg_list_end(l, &b);
    struct range_reply r = {.revision = revision, .kvs = buf_slice(&b)};
    struct errmsg e = {0};
    assert_int_equal(mirror_fill(m, &r, 100, &e), expect);
}

static void event(struct mirror *m, uint64_t revision, const char *type, const char *key,
                  const char *value, uint64_t now_ms)
{
    struct msg_list l = {0};
    struct event ev = {
        .kv = {.key = slice_str(key), .value = slice_str(value), .mod_revision = revision}};
    str_cut(ev.type, sizeof ev.type, type);
    msg_list_append(&l, &msg_event, &ev);
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    msg_list_end(&l, &b);
    struct watch_event we = {.revision = revision, .events = buf_slice(&b)};
    assert_int_equal(mirror_events(m, &we, now_ms, NULL), ERR_OK);
}

static struct mirror *filled(struct mirror *m)
{
    struct msg_list l = {0};
    assert_int_equal(mirror_init(m, "demo"), ERR_OK);
    add(&l, "/regent/demo/leader",
        "{\"name\":\"n1\",\"incarnation\":\"i1\",\"token\":4,\"state\":\"running\"}", 40, 11);
    add(&l, "/regent/demo/members/n2",
        "{\"name\":\"n2\",\"incarnation\":\"i2\",\"lease\":12,\"conn_host\":\"h2\",\"conn_"
        "port\":5432}",
        41, 12);
    add(&l, "/regent/demo/members/n1",
        "{\"name\":\"n1\",\"incarnation\":\"i1\",\"lease\":11,\"conn_host\":\"h1\",\"conn_"
        "port\":5432}",
        42, 11);
    add(&l, "/regent/demo/sync",
        "{\"leader\":\"n1\",\"incarnation\":\"i1\",\"token\":4,\"mode\":\"on\",\"v\":[\"i2\"],"
        "\"q\":1}",
        43, 0);
    add(&l, "/regent/demo/journal/1", "{}", 44, 0);
    add(&l, "/regent/other/leader", "{\"name\":\"x\"}", 45, 0);
    fill(m, &l, 50, ERR_OK);
    return m;
}

static void a_filled_mirror_makes_a_view(void **state)
{
    (void)state;
    struct mirror m;
    static struct view v;
    struct config_rec boot = {0};
    mirror_view(filled(&m), &boot, &v);
    assert_true(v.dcs_ready && v.has_leader && v.has_sync && !v.has_failover);
    assert_string_equal(v.leader.name, "n1");
    assert_int_equal(v.leader_lease, 11);
    assert_int_equal(v.sync_mod_revision, 43);
    assert_int_equal(v.sync.v_n, 1);
    assert_int_equal(v.members_n, 2);
    assert_string_equal(v.members[0].name, "n1"); /* sorted */
    assert_int_equal(v.config.ttl_ms, 5000);
    assert_int_equal(v.lost_ms, 0);
    mirror_close(&m);
}

static void events_move_it_on_and_old_ones_do_not(void **state)
{
    (void)state;
    struct mirror m;
    filled(&m);
    event(&m, 50, "delete", "/regent/demo/leader", "", 200); /* in the range already */
    assert_true(m.leader_meta.present);
    event(&m, 51, "delete", "/regent/demo/leader", "", 300);
    assert_false(m.leader_meta.present);
    assert_int_equal(m.leader_lost_ms, 300);
    event(&m, 52, "delete", "/regent/demo/members/n1", "", 400);
    assert_int_equal(m.members_n, 1);
    assert_int_equal(m.leader_lost_ms, 300);
    event(&m, 53, "put", "/regent/demo/seal/n2", "{\"name\":\"n2\",\"token\":4,\"lsn\":7}",
          500);
    assert_int_equal(m.seals_n, 1);
    assert_int_equal(m.seal_mods[0], 53);
    event(&m, 54, "put", "/regent/demo/leader", "{\"name\":\"n2\",\"token\":5}", 600);
    assert_int_equal(m.leader_lost_ms, 0);
    mirror_close(&m);
}

/* Its own record goes with its lease: how far the others may be behind is judged by what it said before. */
static void it_is_known_how_far_the_lost_leader_was(void **state)
{
    static const char *const says[] = {"\"lsn\":900", "\"lsn\":800"};
    static struct view v;
    struct config_rec boot = {0};
    struct mirror m;
    char json[80];
    (void)state;
    filled(&m);
    for (size_t i = 0; i < ARRAY_LEN(says); i++) {
        (void)snprintf(json, sizeof json, "{\"name\":\"n1\",\"incarnation\":\"i1\",%s}",
                       says[i]);
        event(&m, 51 + i, "put", "/regent/demo/members/n1", json, 300);
    }
    event(&m, 53, "delete", "/regent/demo/members/n1", "", 400);
    event(&m, 54, "delete", "/regent/demo/leader", "", 400);
    mirror_view(&m, &boot, &v);
    assert_int_equal(v.leader_lsn, 900);
    event(&m, 55, "put", "/regent/demo/leader",
          "{\"name\":\"n2\",\"incarnation\":\"i2\",\"token\":5}", 600);
    event(&m, 56, "put", "/regent/demo/sync",
          "{\"leader\":\"n2\",\"incarnation\":\"i2\",\"token\":5,\"mode\":\"off\"}", 600);
    mirror_view(&m, &boot, &v);
    assert_int_equal(v.leader_lsn, 0);
    mirror_close(&m);
}

static void a_damaged_record_counts_as_unchanged(void **state)
{
    (void)state;
    struct mirror m;
    struct msg_list l = {0};
    assert_int_equal(mirror_init(&m, "demo"), ERR_OK);
    add(&l, "/regent/demo/sync", "not json", 3, 0);
    add(&l, "/regent/demo/members/n1", "{\"name\":\"other\"}", 3, 0);
    add(&l, "/regent/demo/leader", "{\"name\":\"n1\"}", 4, 0);
    fill(&m, &l, 5, ERR_CORRUPT);
    assert_true(m.leader_meta.present);
    assert_false(m.sync_meta.present);
    assert_int_equal(m.members_n, 0);
    mirror_close(&m);
}

/* Absent is not what it is: nothing is decided on the rest. */
static void a_record_that_a_fill_cannot_read_makes_the_rest_unusable(void **state)
{
    (void)state;
    static const char *const names[] = {"initialize", "leader", "sync", "config", "history"};
    static struct view v;
    struct config_rec boot = {0};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct mirror m;
        struct msg_list l = {0};
        char key[64];
        (void)snprintf(key, sizeof key, "/regent/demo/%s", names[i]);
        assert_int_equal(mirror_init(&m, "demo"), ERR_OK);
        add(&l, key, "not json", 3, 11);
        fill(&m, &l, 5, ERR_CORRUPT);
        mirror_view(&m, &boot, &v);
        assert_false(v.dcs_ready);
        assert_string_equal(v.unreadable, names[i]);
        assert_int_equal(v.has_leader, strcmp(names[i], "leader") == 0); /* not ours */
        event(&m, 6, "put", key, "{}", 500);
        mirror_view(&m, &boot, &v);
        assert_true(v.dcs_ready);
        mirror_close(&m);
    }
}

static void a_configuration_that_was_known_stays_until_the_new_one_can_be_read(void **state)
{
    (void)state;
    static struct view v;
    struct mirror m;
    struct config_rec boot = {0};
    filled(&m);
    event(&m, 53, "put", "/regent/demo/config",
          "{\"ttl\":7,\"standby_cluster\":{\"host\":\"h\"}}", 200);
    struct msg_list l = {0};
    add(&l, "/regent/demo/config", "{\"ttl\":", 54, 0);
    fill(&m, &l, 60, ERR_CORRUPT);
    mirror_view(&m, &boot, &v);
    assert_true(v.dcs_ready && v.config.standby_cluster);
    assert_int_equal(v.config.ttl_ms, 7000);
    struct msg_list none = {0};
    fill(&m, &none, 61, ERR_OK);
    assert_false(m.config_meta.present);
    mirror_close(&m);
}

/* Comparisons and operations of a transaction as text: "key target op number|op key @lease". */
static const char *shape(const struct txn_req *r)
{
    static char out[2048];
    size_t n = 0;
    struct msg_iter it;
    struct compare c;
    struct txn_op op;
    out[0] = '\0';
    assert_int_equal(msg_iter_init(&it, r->compare), ERR_OK);
    while (msg_iter_next(&it, &msg_compare, &c, NULL) == ERR_OK)
        n += (size_t)snprintf(out + n, sizeof out - n, "%.*s%s%s%llu ", (int)(c.key.n - 13),
                              (const char *)c.key.p + 13,
                              strcmp(c.target, "mod") == 0 ? "" : c.target, c.op,
                              (unsigned long long)c.number);
    assert_int_equal(msg_iter_init(&it, r->then), ERR_OK);
    while (msg_iter_next(&it, &msg_txn_op, &op, NULL) == ERR_OK)
        n += (size_t)snprintf(out + n, sizeof out - n, "| %s %.*s@%llu ", op.op,
                              (int)(op.key.n - 13), (const char *)op.key.p + 13,
                              (unsigned long long)op.lease);
    return out;
}

static void put_seal(struct mirror *m, uint64_t revision, const char *name, uint64_t token,
                     uint64_t lsn)
{
    char key[64];
    char json[128];
    (void)snprintf(key, sizeof key, "/regent/demo/seal/%s", name);
    (void)snprintf(json, sizeof json, "{\"name\":\"%s\",\"token\":%llu,\"lsn\":%llu}", name,
                   (unsigned long long)token, (unsigned long long)lsn);
    event(m, revision, "put", key, json, 500);
}

static bool has_seal(const struct mirror *m, const char *name)
{
    for (size_t i = 0; i < m->seals_n; i++)
        if (strcmp(m->seals[i].name, name) == 0)
            return true;
    return false;
}

/* Seals of nodes that were replaced long ago stay until the next acquisition. */
static void an_old_seal_makes_room_for_a_newer_one(void **state)
{
    (void)state;
    struct mirror m;
    char name[16];
    filled(&m);
    str_cut(m.self, sizeof m.self, "zz");
    for (uint64_t i = 0; i < VIEW_MEMBERS; i++) {
        (void)snprintf(name, sizeof name, "a%02llu", (unsigned long long)i);
        put_seal(&m, 60 + i, name, i == 5 ? 2 : 3, 100 + i);
    }
    put_seal(&m, 200, "b1", 4, 7);
    assert_true(has_seal(&m, "b1"));
    assert_false(has_seal(&m, "a05"));
    for (uint64_t i = 0; i < VIEW_MEMBERS - 1; i++) {
        (void)snprintf(name, sizeof name, "c%02llu", (unsigned long long)i);
        put_seal(&m, 201 + i, name, 4, 100 + i);
    }
    assert_int_equal(m.seals_n, VIEW_MEMBERS);
    put_seal(&m, 300, "zz", 4, 50); /* its own: instead of the least advanced */
    assert_true(has_seal(&m, "zz"));
    assert_false(has_seal(&m, "b1"));
    for (size_t i = 1; i < m.seals_n; i++)
        assert_true(strcmp(m.seals[i - 1].name, m.seals[i].name) < 0);
    mirror_close(&m);
}

static void every_transaction_compares_what_it_rests_on(void **state)
{
    (void)state;
    struct mirror m;
    static struct view v;
    static struct plan p;
    struct config_rec boot = {0};
    static const struct postgres_upstream self = {.name = "n1", .host = "h1", .port = "5432"};
    filled(&m);
    event(&m, 53, "put", "/regent/demo/seal/n2", "{\"name\":\"n2\",\"token\":4,\"lsn\":7}",
          500);
    event(&m, 54, "put", "/regent/demo/failover", "{\"kind\":\"switchover\",\"id\":\"r1\"}",
          500);
    put_seal(&m, 55, "n9", 3, 7); /* of a loss before: it goes with the next acquisition */
    mirror_view(&m, &boot, &v);
    str_cut(v.self, sizeof v.self, "n1");
    v.lease = 11;
    static const struct {
        enum plan_txn txn;
        const char *shape;
    } rows[] = {
        {TXN_RELEASE, "leader=40 sync=43 | delete leader@0 "},
        {TXN_SYNC, "leader=40 sync=43 | put sync@0 "},
        {TXN_ACQUIRE, "leader=0 sync=43 seal/n2=53 | put leader@11 | put sync@0 | delete "
                      "seal/n9@0 "},
        {TXN_SEAL, "leader=0 sync=43 | put seal/n1@0 "},
        {TXN_HANDOVER, "leader=40 sync=43 members/n2=41 | put leader@12 | put sync@0 | delete "
                       "failover@0 | put status@0 "},
        {TXN_LEADER_STATE, "leader=40 sync=43 | put leader@11 "},
        {TXN_CLEAR_FAILOVER, "failover=54 | delete failover@0 | put status@0 "},
        {TXN_BOOTSTRAP_BEGIN, "initialize=0 | put initialize@11 "},
        {TXN_BOOTSTRAP_DONE, "initialize=0 leader=0 sync=0 | put initialize@0 | put leader@11 "
                             "| put sync@0 | put history@0 | put config@0 "},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct ha_txn t;
        p = (struct plan){.rule = "test", .txn = rows[i].txn, .counted = {0}, .counted_n = 1};
        str_cut(p.target, sizeof p.target, "n2");
        assert_int_equal(ha_txn_build(&m, &v, &p, &self, 1, &boot, &t, NULL), ERR_OK);
        assert_string_equal(shape(&t.req), rows[i].shape);
        ha_txn_close(&t);
    }
    mirror_close(&m);
}

/* The most there can be of seals that are counted; the store takes 128 comparisons a transaction. */
static void an_acquisition_compares_every_seal_there_can_be(void **state)
{
    (void)state;
    struct mirror m;
    static struct view v;
    static struct plan p;
    struct config_rec boot = {0};
    static const struct postgres_upstream self = {.name = "n1", .host = "h1", .port = "5432"};
    struct ha_txn t;
    filled(&m);
    p = (struct plan){.rule = "test", .txn = TXN_ACQUIRE};
    for (size_t i = 0; i < VIEW_MEMBERS; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "a%02zu", i);
        put_seal(&m, 60 + i, name, 4, 7);
        p.counted[p.counted_n++] = i;
    }
    mirror_view(&m, &boot, &v);
    str_cut(v.self, sizeof v.self, "n1");
    v.lease = 11;
    assert_int_equal(ha_txn_build(&m, &v, &p, &self, 1, &boot, &t, NULL), ERR_OK);
    size_t seals = 0;
    for (const char *c = shape(&t.req); (c = strstr(c, "seal/a")) != NULL; c++)
        seals++;
    assert_int_equal(seals, VIEW_MEMBERS);
    ha_txn_close(&t);
    mirror_close(&m);
}

/* The leader record that a transaction puts. */
static struct leader_rec leader_put_by(const struct txn_req *r)
{
    struct msg_iter it;
    struct txn_op op;
    struct leader_rec l = {0};
    assert_int_equal(msg_iter_init(&it, r->then), ERR_OK);
    while (msg_iter_next(&it, &msg_txn_op, &op, NULL) == ERR_OK)
        if (slice_eq(op.key, slice_str("/regent/demo/leader")))
            assert_int_equal(msg_from_json(&msg_leader_rec, op.value, &l, NULL, NULL), ERR_OK);
    return l;
}

/* The member record goes with the lease that ended, and the key may be taken with the next one before there
 * is another. */
static void a_leader_says_where_it_is_also_without_a_member_record(void **state)
{
    (void)state;
    static const enum plan_txn txns[] = {TXN_ACQUIRE, TXN_LEADER_STATE, TXN_BOOTSTRAP_DONE};
    static const struct postgres_upstream self = {.name = "n1", .host = "h9", .port = "5439"};
    static struct view v;
    static struct plan p;
    struct mirror m;
    struct config_rec boot = {0};
    filled(&m);
    event(&m, 53, "delete", "/regent/demo/members/n1", "", 500);
    mirror_view(&m, &boot, &v);
    str_cut(v.self, sizeof v.self, "n1");
    assert_null(view_member(&v, "n1"));
    for (size_t i = 0; i < ARRAY_LEN(txns); i++) {
        struct ha_txn t;
        p = (struct plan){.rule = "test", .txn = txns[i]};
        assert_int_equal(ha_txn_build(&m, &v, &p, &self, 1, &boot, &t, NULL), ERR_OK);
        struct leader_rec l = leader_put_by(&t.req);
        assert_string_equal(l.conn_host, "h9");
        assert_int_equal(l.conn_port, 5439);
        ha_txn_close(&t);
    }
    mirror_close(&m);
}

static void dynamic_configuration_is_checked_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        const char *complaint; /* NULL: accepted */
    } rows[] = {
        {"{}", NULL},
        {"{\"ttl\":30,\"synchronous_mode\":\"on\",\"use_slots\":false}", NULL},
        {"{\"synchronous_mode\":true}", NULL},
        {"{\"tttl\":30}", "nearest known one is \"ttl\""},
        {"{\"ttl\":1}", "ttl"},
        {"{\"ttl\":\"x\"}", "ttl"},
        {"{\"synchronous_mode\":\"maybe\"}", "synchronous_mode"},
        {"[]", "not a JSON object"},
        {"{", "not a JSON object"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct msg_arena arena = MSG_ARENA_INIT;
        struct config_rec c;
        struct errmsg e = {0};
        enum err rv = config_from_json(slice_str(rows[i].json), &c, &arena, &e);
        assert_int_equal(rv == ERR_OK, rows[i].complaint == NULL);
        if (rv != ERR_OK)
            assert_non_null(strstr(e.text, rows[i].complaint));
        else
            assert_true(c.use_pg_rewind && c.ttl >= 5);
        msg_arena_close(&arena);
    }
}

/* primary_start_timeout 0: fail over at once when somebody can take over, as in Patroni. */
static void a_zero_that_is_meant_stays_one(void **state)
{
    (void)state;
    struct msg_arena arena = MSG_ARENA_INIT;
    struct config_rec c;
    struct view_config v;
    assert_int_equal(config_from_json(slice_str("{\"primary_start_timeout\": 0, "
                                                "\"maximum_lag_on_failover\": 0}"),
                                      &c, &arena, NULL),
                     ERR_OK);
    config_view(&c, &v);
    assert_int_equal(v.primary_start_timeout_ms, 0);
    assert_int_equal(v.maximum_lag_on_failover, 0);
    msg_arena_close(&arena);
    c = (struct config_rec){0};
    config_view(&c, &v);
    assert_int_equal(v.primary_start_timeout_ms, 300000);
    assert_int_equal(v.maximum_lag_on_failover, 1048576);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_zero_that_is_meant_stays_one),
        cmocka_unit_test(a_filled_mirror_makes_a_view),
        cmocka_unit_test(events_move_it_on_and_old_ones_do_not),
        cmocka_unit_test(it_is_known_how_far_the_lost_leader_was),
        cmocka_unit_test(a_damaged_record_counts_as_unchanged),
        cmocka_unit_test(a_record_that_a_fill_cannot_read_makes_the_rest_unusable),
        cmocka_unit_test(a_configuration_that_was_known_stays_until_the_new_one_can_be_read),
        cmocka_unit_test(an_old_seal_makes_room_for_a_newer_one),
        cmocka_unit_test(every_transaction_compares_what_it_rests_on),
        cmocka_unit_test(an_acquisition_compares_every_seal_there_can_be),
        cmocka_unit_test(a_leader_says_where_it_is_also_without_a_member_record),
        cmocka_unit_test(dynamic_configuration_is_checked_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
