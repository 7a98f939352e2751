/* The REST interface without HTTP: checks, bodies, metrics and counts from views. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

#include "agent/rest_journal.h"
#include "agent/rest_live.h"
#include "agent/rest_metrics.h"
#include "agent/rest_route.h"
#include "base/mem.h"
#include "base/str.h"

enum { NOW_MS = 100000 };

/* ---- two nodes as they see themselves ---- */

static const char cluster[] =
    "now_ms=100000\ndcs_ready=1\nconfig.ttl_ms=5000\nconfig.maximum_lag_on_failover=1048576\n"
    "has_leader=1\nleader.name=n1\nleader.incarnation=i1\nleader.token=3\nleader.state="
    "running\n"
    "leader_lease=11\nhas_sync=1\nsync.leader=n1\nsync.incarnation=i1\nsync.token=3\n"
    "sync.mode=on\nsync.v=i2\n"
    "members[n1].incarnation=i1\nmembers[n1].state=running\nmembers[n1].lsn=0/5000000\n"
    "members[n1].timeline=2\nmembers[n1].conn_host=h1\nmembers[n1].conn_port=5432\n"
    "members[n1].api_url=http://h1:8008/patroni\nmembers[n1].failover_priority=1\n"
    "members[n2].incarnation=i2\nmembers[n2].state=streaming\nmembers[n2].lsn=0/4FFFF00\n"
    "members[n2].replay_lsn=0/4000000\nmembers[n2].timeline=2\nmembers[n2].conn_host=h2\n"
    "members[n2].conn_port=5433\nmembers[n2].failover_priority=1\nmembers[n2].clonefrom=1\n"
    "members[n3].incarnation=i3\nmembers[n3].state=starting\nmembers[n3].failover_priority=1\n"
    "pg.data=ours\npg.proc=running\npg.accepts=1\npg.timeline=2\npg.system_id=77\n";
static const char as_primary[] = "self=n1\nlease=11\ndeadline_ms=103000\narmed=1\n"
                                 "pg.incarnation=i1\npg.lsn=0/5000000\n";
static const char as_standby[] =
    "self=n2\nlease=12\ndeadline_ms=103000\npg.incarnation=i2\npg.in_recovery=1\n"
    "pg.streaming=1\npg.lsn=0/4FFFF00\npg.replay_lsn=0/4000000\n";

static struct rest_facts *facts(const char *who, const char *changes)
{
    struct rest_facts *f = mem_alloc(sizeof *f);
    struct errmsg e = {0};
    f->known = true;
    f->wall_ms = 1795196429123;
    f->tags.failover_priority = 1;
    f->tags.sync_priority = 1;
    assert_int_equal(view_parse(cluster, &f->view, &e), ERR_OK);
    if (view_apply(who, &f->view, &e) != ERR_OK || view_apply(changes, &f->view, &e) != ERR_OK)
        fail_msg("%s", e.text);
    str_cut(f->scope, sizeof f->scope, "demo");
    str_cut(f->name, sizeof f->name, f->view.self);
    str_cut(f->pg_version, sizeof f->pg_version, "15.8");
    str_cut(f->rule, sizeof f->rule, "steady");
    f->pg.start_us = UINT64_C(1795196358941911);
    return f;
}

/* "/replica?lag=16MB&tag_clonefrom=true" */
static unsigned code_at(const struct rest_facts *f, const char *url, uint64_t now_ms)
{
    char text[200];
    struct rest_query q = {.has_lag = false};
    struct rest_reply reply;
    struct errmsg e;
    (void)snprintf(text, sizeof text, "%s", url);
    char *rest = strchr(text, '?');
    if (rest != NULL)
        *rest++ = '\0';
    for (char *p = rest != NULL ? strtok(rest, "&") : NULL; p != NULL; p = strtok(NULL, "&")) {
        char *value = strchr(p, '=');
        assert_non_null(value);
        *value = '\0';
        if (rest_query_add(&q, p, value + 1, &e) != ERR_OK)
            return 400;
    }
    const struct rest_route *r = rest_route_find(text);
    if (r == NULL)
        return 404;
    rest_answer(f, r, &q, now_ms, false, &reply);
    assert_null(reply.body);
    unsigned code = reply.code;
    rest_answer(f, r, &q, now_ms, true, &reply);
    assert_int_equal(reply.code, code);
    free(reply.body);
    return code;
}

static unsigned code(const struct rest_facts *f, const char *url)
{
    return code_at(f, url, NOW_MS);
}

struct row {
    const char *url;
    unsigned primary, sync, quorum, async;
};

static const struct row rows[] = {
    {"/", 200, 503, 503, 503},
    {"/primary", 200, 503, 503, 503},
    {"/read-write", 200, 503, 503, 503},
    {"/master", 200, 503, 503, 503},
    {"/leader", 200, 503, 503, 503},
    {"/standby-leader", 503, 503, 503, 503},
    {"/standby_leader", 503, 503, 503, 503},
    {"/replica", 503, 200, 200, 200},
    {"/read-only", 200, 200, 200, 200},
    {"/sync", 503, 200, 503, 503},
    {"/synchronous", 503, 200, 503, 503},
    {"/read-only-sync", 200, 200, 503, 503},
    {"/read-only-synchronous", 200, 200, 503, 503},
    {"/quorum", 503, 503, 200, 503},
    {"/read-only-quorum", 200, 503, 200, 503},
    {"/async", 503, 503, 503, 200},
    {"/asynchronous", 503, 503, 503, 200},
    {"/health", 200, 200, 200, 200},
    {"/liveness", 200, 200, 200, 200},
    {"/readiness?lag=16MB", 200, 200, 200, 200},
    {"/patroni", 200, 200, 200, 200},
    {"/cluster", 200, 200, 200, 200},
    {"/history", 200, 200, 200, 200},
    {"/config", 502, 502, 502, 502},
    {"/failsafe", 502, 502, 502, 502},
    {"/metrics", 200, 200, 200, 200},
    {"/openapi.json", 200, 200, 200, 200},
    {"/nothing", 404, 404, 404, 404},
    {"/primary/", 404, 404, 404, 404},
    {"", 404, 404, 404, 404},
};

static void each_path_answers_by_role(void **state)
{
    struct rest_facts *f[] = {facts(as_primary, ""), facts(as_standby, ""),
                              facts(as_standby, "sync.mode=quorum\n"),
                              facts(as_standby, "sync.v=i3\n")};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const unsigned wanted[] = {rows[i].primary, rows[i].sync, rows[i].quorum,
                                   rows[i].async};
        for (size_t k = 0; k < ARRAY_LEN(f); k++)
            if (code(f[k], rows[i].url) != wanted[k])
                fail_msg("%s as %zu: %u, not %u", rows[i].url, k, code(f[k], rows[i].url),
                         wanted[k]);
    }
    for (size_t k = 0; k < ARRAY_LEN(f); k++)
        mem_free(f[k]);
}

static const char as_standby_leader[] =
    "self=n1\nlease=11\ndeadline_ms=103000\npg.incarnation=i1\npg.in_recovery=1\n"
    "pg.lsn=0/5000000\nsync.mode=off\nsync.v=\nconfig.standby_cluster=1\nleader.standby=1\n"
    "leader.timeline=2\n";

static void a_standby_leader_leads_and_is_no_primary(void **state)
{
    static const struct {
        const char *url;
        unsigned code;
    } wanted[] = {{"/primary", 503},        {"/", 503},
                  {"/leader", 200},         {"/standby-leader", 200},
                  {"/standby_leader", 200}, {"/read-only", 200},
                  {"/read-only-sync", 200}, {"/replica", 503},
                  {"/async", 503},          {"/health", 200},
                  {"/readiness", 200}};
    struct rest_facts *f = facts(as_standby_leader, "");
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++)
        if (code(f, wanted[i].url) != wanted[i].code)
            fail_msg("%s: %u", wanted[i].url, code(f, wanted[i].url));
    assert_string_equal(rest_role(f, NOW_MS), "standby_leader");
    assert_int_equal(code_at(f, "/standby-leader", 103000), 503);
    mem_free(f);
    f = facts(as_standby,
              "config.standby_cluster=1\nleader.standby=1\nsync.mode=off\nsync.v=\n");
    assert_int_equal(code(f, "/standby-leader"), 503);
    assert_int_equal(code(f, "/replica"), 200);
    mem_free(f);
}

static void a_lease_that_runs_out_ends_primary_and_leader(void **state)
{
    struct rest_facts *f = facts(as_primary, "");
    (void)state;
    assert_int_equal(code_at(f, "/primary", 102999), 200);
    assert_int_equal(code_at(f, "/primary", 103000), 503);
    assert_int_equal(code_at(f, "/leader", 103000), 503);
    assert_int_equal(code_at(f, "/read-only", 103000), 503);
    assert_int_equal(code_at(f, "/readiness", 103000), 503);
    mem_free(f);
    f = facts(as_primary, "pg.accepts=0\n");
    assert_int_equal(code(f, "/primary"), 503);
    assert_int_equal(code(f, "/leader"), 200);
    assert_int_equal(code(f, "/health"), 503);
    mem_free(f);
    f = facts(as_primary, "pg.in_recovery=1\n");
    assert_int_equal(code(f, "/primary"), 503);
    assert_int_equal(code(f, "/replica"), 503);
    mem_free(f);
}

static void a_loop_that_stands_still_shows(void **state)
{
    struct rest_facts *f = facts(as_standby, "");
    (void)state;
    assert_false(rest_stale(f, 104999));
    assert_true(rest_stale(f, 105000));
    assert_int_equal(code_at(f, "/sync", 105000), 503);
    assert_int_equal(code_at(f, "/replica", 105000), 200);
    assert_int_equal(code_at(f, "/liveness", 109999), 200);
    assert_int_equal(code_at(f, "/replica", 110000), 503);
    assert_int_equal(code_at(f, "/liveness", 110000), 503);
    f->view.config.pause = true;
    assert_int_equal(code_at(f, "/liveness", 110000), 200);
    mem_free(f);
    f = facts(as_primary, "");
    assert_int_equal(code_at(f, "/liveness", 105000), 503);
    mem_free(f);
}

static void a_node_that_is_out_of_the_dcs_serves_nothing(void **state)
{
    static const char *const reasons[] = {"quarantined", "removed"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++) {
        struct rest_facts *f = facts(as_standby, "");
        f->has_dcs = true;
        assert_int_equal(code(f, "/replica"), 200);
        str_cut(f->dcs.trouble, sizeof f->dcs.trouble, reasons[i]);
        assert_int_equal(code(f, "/replica"), 503);
        assert_int_equal(code(f, "/health"), 503);
        assert_int_equal(code(f, "/liveness"), 503);
        assert_int_equal(code(f, "/readiness"), 503);
        mem_free(f);
    }
}

static void without_a_quorum_only_what_needs_none_is_answered(void **state)
{
    struct rest_facts *f = facts(as_standby, "dcs_ready=0\ndcs_lost_ms=90000\n");
    (void)state;
    assert_true(rest_stale(f, NOW_MS));
    assert_int_equal(code(f, "/replica"), 200);
    assert_int_equal(code(f, "/sync"), 503);
    assert_int_equal(code(f, "/async"), 503);
    assert_int_equal(code(f, "/cluster"), 200);
    assert_int_equal(code(f, "/readiness?lag=1GB"), 503);
    f->pg.latest_end_lsn = 0x5000000;
    assert_int_equal(code(f, "/readiness?lag=1GB"), 200);
    assert_int_equal(rest_dcs_seen_s(f), 1795196419);
    mem_free(f);
}

static void nothing_is_known_before_the_first_view(void **state)
{
    struct rest_facts *f = mem_alloc(sizeof *f);
    (void)state;
    for (size_t i = 0; i < rest_routes_n; i++) {
        unsigned got = code(f, rest_routes[i].path);
        bool always = rest_routes[i].kind == ROUTE_METRICS ||
                      rest_routes[i].kind == ROUTE_OPENAPI ||
                      rest_routes[i].kind == ROUTE_EVENTS;
        assert_true(always ? got == 200 : got >= 500);
    }
    mem_free(f);
}

static void put_decision(struct msg_list *list, const char *key, const char *json)
{
    struct kv kv = {.key = slice_str(key), .value = slice_str(json)};
    msg_list_append(list, &msg_kv, &kv);
}

static void the_journal_is_told_in_the_order_it_was_read(void **state)
{
    struct buf kvs CLEANUP(buf_close) = BUF_INIT;
    struct msg_list list = {0};
    (void)state;
    put_decision(
        &list, "/regent/demo/journal/0002-n1",
        "{\"at_ms\": 1795196429123, \"node\": \"n1\", \"rule\": \"promote\", \"reason\": "
        "\"it is \\\"best\\\"\", \"action\": \"promote\", \"txn\": \"none\", \"token\": 3, "
        "\"view\": \"x=1\"}");
    put_decision(&list, "/regent/demo/journal/0001-n2", "of a newer version");
    put_decision(&list, "/regent/demo/journal/0000-n2",
                 "{\"node\": \"n2\", \"rule\": \"seal\"}");
    msg_list_end(&list, &kvs);
    char *text = rest_journal_body(buf_slice(&kvs));
    assert_string_equal(
        text,
        "[{\"id\":\"0002-n1\",\"time\":\"2026-11-20T17:40:29.123Z\",\"node\":\"n1\","
        "\"rule\":\"promote\",\"reason\":\"it is \\\"best\\\"\",\"action\":\"promote\","
        "\"writes\":\"none\",\"token\":3},"
        "{\"id\":\"0000-n2\",\"time\":\"1970-01-01T00:00:00.000Z\",\"node\":\"n2\","
        "\"rule\":\"seal\",\"reason\":\"\",\"action\":\"\",\"writes\":\"\",\"token\":0}]");
    free(text);
    assert_null(rest_journal_body(slice_str("no list")));
}

static void the_journal_has_a_bounded_number_of_lines(void **state)
{
    static const char *const bad[] = {"0", "101", "-1", "x", "", "99999999999999999999"};
    struct rest_query q = {0};
    struct errmsg e;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct rest_query other = {0};
        assert_int_equal(rest_query_add(&other, "limit", bad[i], &e), ERR_INVALID);
    }
    assert_int_equal(rest_query_add(&q, "limit", "100", &e), ERR_OK);
    assert_int_equal(q.limit, 100);
}

static void lag_is_in_bytes_or_units(void **state)
{
    /* 0x5000000 - 0x4000000 is 16 MB; received is 0x100 behind */
    static const struct {
        const char *url;
        unsigned code;
    } cases[] = {{"/replica?lag=16777216", 200},
                 {"/replica?lag=16777215", 503},
                 {"/replica?lag=16384kB", 200},
                 {"/replica?lag=16MB", 200},
                 {"/replica?lag=15.9MB", 503},
                 {"/replica?lag=1 GB", 200},
                 {"/replica?lag=9999999999TB", 200},
                 {"/replica?lag=0", 503},
                 {"/replica?lag=16MB&lag=0", 200},
                 {"/replica?lag=", 400},
                 {"/replica?lag=-1", 400},
                 {"/replica?lag=10mb", 400},
                 {"/replica?lag=1e9", 400},
                 {"/replica?lag=0x10", 400},
                 {"/replica?lag=.", 400},
                 {"/replica?lag=1.2.3", 400},
                 {"/async?lag=16MB", 503},
                 {"/sync?lag=16MB", 200},
                 {"/sync?lag=1MB", 503},
                 {"/read-only?lag=1MB", 503},
                 {"/readiness", 503},
                 {"/readiness?lag=16MB", 200},
                 {"/readiness?mode=apply&lag=1MB", 503},
                 {"/readiness?mode=write", 200},
                 {"/readiness?mode=write&lag=256", 200},
                 {"/readiness?mode=write&lag=255B", 503},
                 {"/replica?replication_state=streaming", 200},
                 {"/replica?replication_state=stopped", 503},
                 {"/replica?unknown=1", 200}};
    struct rest_facts *f = facts(as_standby, "");
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (code(f, cases[i].url) != cases[i].code)
            fail_msg("%s: %u", cases[i].url, code(f, cases[i].url));
    f->pg.latest_end_lsn = 0x6000000; /* newer than the record */
    assert_int_equal(code(f, "/replica?lag=16MB"), 503);
    f->view.pg.streaming = false;
    assert_int_equal(code(f, "/replica?replication_state=streaming"), 503);
    assert_int_equal(code(f, "/readiness?mode=write"), 503);
    mem_free(f);
}

static void tags_are_this_nodes(void **state)
{
    struct rest_facts *f = facts(as_standby, "");
    (void)state;
    f->tags.clonefrom = true;
    f->tags.failover_priority = 7;
    assert_int_equal(code(f, "/replica?tag_clonefrom=true"), 200);
    assert_int_equal(code(f, "/replica?tag_clonefrom=false"), 503);
    assert_int_equal(code(f, "/replica?tag_nosync=false"), 503); /* off is not there */
    assert_int_equal(code(f, "/replica?tag_dc=east"), 503);
    assert_int_equal(code(f, "/health?tag_failover_priority=7"), 200);
    assert_int_equal(code(f, "/health?tag_sync_priority=1"), 503); /* not set is not there */
    assert_int_equal(code(f, "/sync?tag_clonefrom=true&tag_failover_priority=8"), 503);
    struct rest_query q = {.tags_n = REST_TAGS_MAX};
    struct errmsg e;
    assert_int_equal(rest_query_add(&q, "tag_x", "y", &e), ERR_LIMIT);
    f->tags.noloadbalance = true;
    assert_int_equal(code(f, "/replica"), 503);
    assert_int_equal(code(f, "/health"), 200);
    mem_free(f);
    f = facts(as_primary, "");
    assert_int_equal(code(f, "/primary?tag_dc=east"), 200); /* of no account there */
    assert_int_equal(code(f, "/read-only?tag_dc=east"), 503);
    mem_free(f);
}

/* ---- bodies ---- */

static void is_body(char *body, const char *wanted)
{
    assert_string_equal(body, wanted);
    free(body);
}

static void the_status_of_a_primary_is_patronis(void **state)
{
    struct rest_facts *f = facts(as_primary, "");
    (void)state;
    f->pg.senders_n = 2;
    f->pg.senders[0] = (struct pg_sender){.application_name = "i2",
                                          .usename = "repl",
                                          .client_addr = "127.0.0.1",
                                          .state = "streaming",
                                          .sync_state = "sync",
                                          .sync_priority = 1};
    f->pg.senders[1] = (struct pg_sender){
        .application_name = "other", .usename = "x", .state = "catchup", .sync_state = "async"};
    is_body(rest_status_body(f, NOW_MS),
            "{\"state\":\"running\","
            "\"postmaster_start_time\":\"2026-11-20 17:39:18.941911+00:00\","
            "\"role\":\"primary\",\"server_version\":150008,\"xlog\":{\"location\":83886080},"
            "\"timeline\":2,\"replication\":[{\"usename\":\"repl\",\"application_name\":\"n2\","
            "\"client_addr\":\"127.0.0.1\",\"state\":\"streaming\",\"sync_state\":\"sync\","
            "\"sync_priority\":1},{\"usename\":\"x\",\"application_name\":\"other\","
            "\"client_addr\":null,\"state\":\"catchup\",\"sync_state\":\"async\","
            "\"sync_priority\":0}],\"dcs_last_seen\":1795196429,"
            "\"database_system_identifier\":\"77\",\"patroni\":{\"version\":\"4.1.4\","
            "\"scope\":\"demo\",\"name\":\"n1\"},\"regent\":{\"version\":\"" REGENT_VERSION
            "\",\"rule\":\"steady\",\"dcs_ready\":true,\"armed\":true}}");
    mem_free(f);
}

/* What a load balancer reads at the root, and the page at /events. */
static void the_root_is_the_status(void **state)
{
    struct rest_query q = {0};
    struct rest_reply reply;
    (void)state;
    for (int standby = 0; standby < 2; standby++) {
        struct rest_facts *f = facts(standby ? as_standby : as_primary, "");
        rest_answer(f, rest_route_find("/"), &q, NOW_MS, true, &reply);
        assert_int_equal(reply.code, standby ? 503 : 200);
        char *status = rest_status_body(f, NOW_MS);
        assert_string_equal(reply.body, status);
        free(status);
        free(reply.body);
        mem_free(f);
    }
}

static void an_event_of_the_page_has_all_that_it_shows(void **state)
{
    struct rest_facts *f = facts(as_primary, "members[n3].upstream=n2\n");
    (void)state;
    f->has_dcs = true;
    f->dcs = (struct status_reply){.leader = "n2",
                                   .state = "follower",
                                   .term = 4,
                                   .voters = 3,
                                   .quorum = 2,
                                   .reachable_voters = 3,
                                   .fsync_us_p99 = 1500};
    f->vip_up = true;
    f->changes = "password";
    f->pg.slots_n = 1;
    f->pg.slots[0].active = true;
    f->pg.slots[0].retained_bytes = 4096;
    str_cut(f->pg.slots[0].name, sizeof f->pg.slots[0].name, "regent_n2");
    str_cut(f->pg.slots[0].wal_status, sizeof f->pg.slots[0].wal_status, "reserved");
    f->host.has_certificate = true;
    f->host.certificate_s = 86400;
    f->host.state = (struct host_disk){
        .known = true, .free_bytes = 1000, .total_bytes = 4000, .full_in_s = 60};
    f->past.decisions_n = 1;
    f->past.decisions[0].wall_ms = 1795196429000;
    str_cut(f->past.decisions[0].rule, sizeof f->past.decisions[0].rule, "leader");
    str_cut(f->past.decisions[0].reason, sizeof f->past.decisions[0].reason, "cut: \xc3");
    is_body(rest_live_text(f, NOW_MS + 500, true),
            "{\"scope\":\"demo\",\"self\":\"n1\",\"version\":\"" REGENT_VERSION "\","
            "\"wall_ms\":1795196429623,\"stale\":false,\"role\":\"primary\","
            "\"state\":\"running\",\"lease_ms\":2500,\"is_leader\":true,"
            "\"changes\":\"password\",\"vip_up\":true,\"leader\":\"n1\","
            "\"leader_state\":\"running\",\"token\":3,\"sync_mode\":\"off\","
            "\"ttl_ms\":5000,\"pause\":false,\"members\":[{\"name\":\"n1\","
            "\"role\":\"leader\",\"state\":\"running\",\"timeline\":2,"
            "\"lsn\":\"0/5000000\",\"lag\":0,\"host\":\"h1\",\"port\":5432,"
            "\"url\":\"http://h1:8008/patroni\",\"upstream\":\"\","
            "\"pending_restart\":false,\"sick\":\"\",\"copied\":0,\"copied_bytes\":0,\"copy_"
            "since_ms\":0},{\"name\":\"n2\","
            "\"role\":\"sync standby\",\"state\":\"streaming\",\"timeline\":2,"
            "\"lsn\":\"0/4FFFF00\",\"lag\":256,\"host\":\"h2\",\"port\":5433,\"url\":\"\","
            "\"upstream\":\"\",\"pending_restart\":false,\"sick\":\"\",\"copied\":0,\"copied_"
            "bytes\":0,\"copy_since_ms\":0},{\"name\":\"n3\","
            "\"role\":\"replica\",\"state\":\"starting\",\"timeline\":0,\"lsn\":\"0/0\","
            "\"lag\":83886080,\"host\":\"\",\"port\":0,\"url\":\"\",\"upstream\":\"n2\","
            "\"pending_restart\":false,\"sick\":\"\",\"copied\":0,\"copied_bytes\":0,\"copy_"
            "since_ms\":0}],\"dcs\":{\"leader\":\"n2\","
            "\"state\":\"follower\",\"term\":4,\"voters\":3,\"quorum\":2,"
            "\"reachable\":3,\"fsync_us\":1500},\"slots\":[{\"name\":\"regent_n2\","
            "\"active\":true,\"bytes\":4096,\"status\":\"reserved\"}],"
            "\"disks\":[{\"name\":\"data_dir\",\"free\":1000,\"total\":4000,"
            "\"full_in_s\":60}],\"certificate_s\":86400,"
            "\"decisions\":[{\"at_ms\":1795196429000,\"rule\":\"leader\","
            "\"reason\":\"cut: \"}],\"lag\":{\"every_ms\":2000,\"members\":{}}}");
    mem_free(f);
}

static void the_status_of_a_standby_is_patronis(void **state)
{
    struct rest_facts *f =
        facts(as_standby, "config.pause=1\nhas_leader=0\nsync.mode=quorum\n");
    (void)state;
    f->tags.nofailover = true;
    f->pg.replayed_us = UINT64_C(1795196358941911);
    is_body(rest_status_body(f, NOW_MS),
            "{\"state\":\"running\","
            "\"postmaster_start_time\":\"2026-11-20 17:39:18.941911+00:00\","
            "\"role\":\"replica\",\"server_version\":150008,\"quorum_standby\":true,"
            "\"xlog\":{\"received_location\":83885824,\"replayed_location\":67108864,"
            "\"replayed_timestamp\":\"2026-11-20 17:39:18.941911+00:00\",\"paused\":false},"
            "\"replication_state\":\"streaming\",\"timeline\":2,\"pause\":true,"
            "\"cluster_unlocked\":true,\"dcs_last_seen\":1795196429,"
            "\"tags\":{\"nofailover\":true},\"database_system_identifier\":\"77\","
            "\"patroni\":{\"version\":\"4.1.4\",\"scope\":\"demo\",\"name\":\"n2\"},"
            "\"regent\":{\"version\":\"" REGENT_VERSION
            "\",\"rule\":\"steady\",\"dcs_ready\":true,\"armed\":false}}");
    mem_free(f);
}

static void the_state_is_in_patronis_words(void **state)
{
    static const struct {
        const char *change, *text;
        int number;
    } cases[] = {{"", "running", 5},
                 {"pg.accepts=0\n", "unknown", -1},
                 {"pg.proc=starting\n", "starting", 6},
                 {"pg.proc=stopping\n", "stopping", 11},
                 {"pg.proc=dying\n", "stopping", 11},
                 {"pg.proc=stopped\n", "stopped", 12},
                 {"pg.proc=stopped\npg.crashed=1\n", "crashed", 14},
                 {"pg.proc=stopped\nbusy.failed=1\nbusy.failed_action=3\n", "start failed", 8},
                 {"pg.proc=stopped\nbusy.action=1\n", "initializing new cluster", 0},
                 {"pg.proc=stopped\nbusy.action=12\n", "creating replica", 4}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct rest_facts *f = facts(as_standby, cases[i].change);
        int number = -2;
        assert_string_equal(rest_state(f, NOW_MS, &number), cases[i].text);
        assert_int_equal(number, cases[i].number);
        char *body = rest_status_body(f, NOW_MS);
        assert_true((strstr(body, "\"xlog\"") != NULL) == (number == 5));
        free(body);
        mem_free(f);
    }
}

static void the_cluster_is_patronis(void **state)
{
    struct rest_facts *f = facts(as_standby, "");
    (void)state;
    is_body(rest_cluster_body(f, NOW_MS),
            "{\"members\":[{\"name\":\"n1\",\"role\":\"leader\",\"state\":\"running\","
            "\"api_url\":\"http://h1:8008/patroni\",\"host\":\"h1\",\"port\":5432,"
            "\"timeline\":2},{\"name\":\"n2\",\"role\":\"sync_standby\","
            "\"state\":\"streaming\",\"api_url\":\"\",\"host\":\"h2\",\"port\":5433,"
            "\"timeline\":2,\"tags\":{\"clonefrom\":true},\"receive_lag\":256,"
            "\"receive_lsn\":\"0/4FFFF00\",\"replay_lag\":16777216,"
            "\"replay_lsn\":\"0/4000000\",\"lag\":16777216,\"lsn\":\"0/4FFFF00\"},"
            "{\"name\":\"n3\",\"role\":\"replica\",\"state\":\"starting\",\"api_url\":\"\","
            "\"host\":\"\",\"port\":0,\"receive_lag\":\"unknown\",\"receive_lsn\":\"unknown\","
            "\"replay_lag\":\"unknown\",\"replay_lsn\":\"unknown\",\"lag\":\"unknown\","
            "\"lsn\":\"unknown\"}],\"scope\":\"demo\"}");
    mem_free(f);
}

static size_t count(char *body, const char *what)
{
    size_t n = 0;
    for (const char *c = body; (c = strstr(c, what)) != NULL; c++)
        n++;
    free(body);
    return n;
}

static void the_cluster_has_as_many_members_as_there_can_be(void **state)
{
    (void)state;
    struct rest_facts *f = facts(as_primary, "");
    for (struct view *v = &f->view; v->members_n < VIEW_MEMBERS; v->members_n++) {
        struct member_rec *m = &v->members[v->members_n];
        *m = v->members[1];
        (void)snprintf(m->name, sizeof m->name, "n%zu", 1 + v->members_n);
        (void)snprintf(m->incarnation, sizeof m->incarnation, "i%zu", 1 + v->members_n);
    }
    for (uint64_t i = 0; i < PAST_SAMPLES; i++) {
        f->view.now_ms += PAST_EVERY_MS;
        past_note(&f->past, &f->view, 0x5000000, 0, "leader", "");
    }
    assert_int_equal(count(rest_cluster_body(f, NOW_MS), "\"name\""), VIEW_MEMBERS);
    assert_true(count(rest_live_text(f, f->view.now_ms, true), "\"n64\"") > 0);
    assert_true(count(rest_metrics_body(f, NOW_MS), "n64") > 0);
    mem_free(f);
}

static void history_and_config_are_patronis(void **state)
{
    struct rest_facts *f = facts(as_standby, "");
    (void)state;
    is_body(rest_history_body(f, NOW_MS), "[]");
    f->view.history_n = 2;
    f->view.history[0] = (struct history_entry){.timeline = 1};
    f->view.history[1] = (struct history_entry){.timeline = 2,
                                                .parent = 1,
                                                .switch_lsn = 67109256,
                                                .at_ms = UINT64_C(1795196440862),
                                                .reason = "promoted",
                                                .name = "n1"};
    is_body(rest_history_body(f, NOW_MS), "[[1,67109256,\"promoted\","
                                          "\"2026-11-20T17:40:40.862000+00:00\",\"n1\"]]");
    assert_null(rest_config_body(f, NOW_MS));
    f->config_json = mem_strdup("{\"ttl\": 5, \"postgresql\": {\"parameters\": {}}}");
    is_body(rest_config_body(f, NOW_MS), "{\"ttl\":5,\"postgresql\":{\"parameters\":{}}}");
    assert_int_equal(code(f, "/config"), 200);
    mem_free(f->config_json);
    mem_free(f);
}

static void every_path_is_described(void **state)
{
    char *text = rest_openapi_body();
    json_t *root = json_loads(text, 0, NULL);
    json_t *paths = json_object_get(root, "paths");
    (void)state;
    assert_non_null(paths);
    for (size_t i = 0; i < rest_routes_n; i++) {
        json_t *p = json_object_get(paths, rest_routes[i].path);
        assert_non_null(json_object_get(json_object_get(p, "get"), "responses"));
        assert_non_null(json_object_get(p, "head"));
        assert_non_null(json_object_get(p, "options"));
    }
    assert_non_null(json_object_get(json_object_get(paths, "/config"), "patch"));
    assert_non_null(json_object_get(json_object_get(paths, "/switchover"), "delete"));
    json_decref(root);
    free(text);
}

/* ---- metrics ---- */

static void has(const char *text, const char *line)
{
    if (strstr(text, line) == NULL)
        fail_msg("no \"%s\" in\n%s", line, text);
}

static void metrics_tell_what_the_view_has(void **state)
{
    struct rest_facts *f = facts(as_primary, "");
    (void)state;
    str_cut(f->scope, sizeof f->scope, "a\"b\\");
    f->has_dcs = true;
    f->dcs = (struct status_reply){.leader_id = 1,
                                   .db_bytes = 4096,
                                   .fsync_us_p99 = 1500,
                                   .latencies_n = 1,
                                   .latencies = {{.name = "fsync",
                                                  .count = 4,
                                                  .sum_us = 9000,
                                                  .buckets_n = 2,
                                                  .buckets = {{125, 1}, {250, 2}}}}};
    char *m = rest_metrics_body(f, NOW_MS);
    has(m, "\n# TYPE patroni_primary gauge\npatroni_primary{scope=\"a\\\"b\\\\\",name=\"n1\"} "
           "1\n");
    has(m, "patroni_version{scope=\"a\\\"b\\\\\",name=\"n1\"} 040104\n");
    has(m, "name=\"n1\"} 83886080\n");
    has(m, "name=\"n1\"} 1795196358.941911\n");
    has(m, "regent_lease_remaining_seconds{scope=\"a\\\"b\\\\\",name=\"n1\"} 3.000000\n");
    has(m, "etcd_mvcc_db_total_size_in_bytes{scope=\"a\\\"b\\\\\",name=\"n1\"} 4096\n");
    has(m, "etcd_mvcc_db_total_size_in_use_in_bytes{scope=\"a\\\"b\\\\\",name=\"n1\"} 4096\n");
    has(m, "regent_raft_fsync_p99_seconds{scope=\"a\\\"b\\\\\",name=\"n1\"} 0.001500\n");
    has(m, "name=\"n1\",member=\"n2\"} 256\n");
    has(m, "\n# TYPE etcd_disk_wal_fsync_duration_seconds histogram\n");
    has(m, "name=\"n1\",le=\"0.00025\"} 3\n");
    has(m, "name=\"n1\",le=\"+Inf\"} 4\n");
    has(m, "etcd_disk_wal_fsync_duration_seconds_sum{scope=\"a\\\"b\\\\\",name=\"n1\"} "
           "0.009000\n");
    free(m);
    f->known = f->has_dcs = false;
    m = rest_metrics_body(f, NOW_MS);
    assert_null(strstr(m, "patroni_"));
    has(m, "regent_failovers_total{");
    free(m);
    mem_free(f);
}

/* A view from before the daemon stood still: what it says of the leader ends with the lease, which the fence enforces. */
static void a_view_that_outlives_its_lease_names_no_leader(void **state)
{
    enum { KILLS_MS = 102800, ENDS_MS = 103000 };
    static const struct {
        uint64_t now_ms;
        const char *change;
        unsigned primary, leader, health;
        const char *role, *state;
        bool stale;
        const char *in_cluster, *in_metrics;
    } cases[] = {
        {KILLS_MS - 1, "", 200, 200, 200, "primary", "running", false, "\"role\":\"leader\"",
         "patroni_primary{scope=\"demo\",name=\"n1\"} 1\n"},
        {KILLS_MS, "", 503, 200, 503, "demoted", "unknown", true, "\"role\":\"replica\"",
         "patroni_primary{scope=\"demo\",name=\"n1\"} 0\n"},
        {ENDS_MS, "", 503, 503, 503, "demoted", "unknown", true, "\"role\":\"replica\"",
         "patroni_postgres_running{scope=\"demo\",name=\"n1\"} 0\n"},
        {ENDS_MS, "leader.standby=1\npg.in_recovery=1\nconfig.standby_cluster=1\n", 503, 503,
         503, "replica", "unknown", true, "\"role\":\"replica\"",
         "patroni_standby_leader{scope=\"demo\",name=\"n1\"} 0\n"},
        {ENDS_MS + 60000, "", 503, 503, 503, "demoted", "unknown", true, "\"role\":\"replica\"",
         "regent_is_leader{scope=\"demo\",name=\"n1\"} 0\n"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct rest_facts *f = facts(as_primary, cases[i].change);
        uint64_t now_ms = cases[i].now_ms;
        bool led = !cases[i].stale;
        int number;
        f->fence_deadline_ms = ENDS_MS;
        f->fence_kills_ms = KILLS_MS;
        assert_int_equal(code_at(f, "/primary", now_ms), cases[i].primary);
        assert_int_equal(code_at(f, "/read-write", now_ms), cases[i].primary);
        assert_int_equal(code_at(f, "/read-only", now_ms), cases[i].primary);
        assert_int_equal(code_at(f, "/standby-leader", now_ms), 503);
        assert_int_equal(code_at(f, "/replica", now_ms), 503);
        assert_int_equal(code_at(f, "/leader", now_ms), cases[i].leader);
        assert_int_equal(code_at(f, "/health", now_ms), cases[i].health);
        assert_string_equal(rest_role(f, now_ms), cases[i].role);
        assert_string_equal(rest_state(f, now_ms, &number), cases[i].state);
        assert_int_equal(rest_stale(f, now_ms), cases[i].stale);
        char *texts[] = {rest_cluster_body(f, now_ms), rest_metrics_body(f, now_ms),
                         rest_status_body(f, now_ms), rest_live_text(f, now_ms, false)};
        has(texts[0], cases[i].in_cluster);
        has(texts[1], cases[i].in_metrics);
        assert_true((strstr(texts[2], "\"xlog\"") != NULL) == led);
        has(texts[3], led ? "\"leader\":\"n1\"" : "\"leader\":null");
        for (size_t k = 0; k < ARRAY_LEN(texts); k++)
            free(texts[k]);
        mem_free(f);
    }
}

/* In a pause the fence is disarmed: PostgreSQL runs on, and is what it is. */
static void without_an_armed_fence_a_primary_stays_what_it_is(void **state)
{
    struct rest_facts *f = facts(as_primary, "armed=0\nconfig.pause=1\n");
    (void)state;
    assert_int_equal(code_at(f, "/primary", 103000), 503);
    assert_int_equal(code_at(f, "/health", 103000), 200);
    assert_string_equal(rest_role(f, 103000), "primary");
    assert_false(rest_stale(f, 103000));
    mem_free(f);
}

static void see(struct rest_counts *c, struct view *v, uint64_t now_ms, const char *changes)
{
    struct errmsg e;
    assert_int_equal(view_apply(changes, v, &e), ERR_OK);
    v->now_ms = now_ms;
    count_view(c, v, "gone");
}

static void changes_of_leadership_are_counted_and_timed(void **state)
{
    struct rest_facts *f = facts(as_primary, "");
    struct rest_counts c = {.token = 0};
    (void)state;
    see(&c, &f->view, 100000, "");
    assert_true(c.led && c.failovers[COUNT_FAILOVER] == 0);
    see(&c, &f->view, 101000, "has_leader=0\n");
    assert_true(!c.led && c.demotions[0].n == 1);
    assert_string_equal(c.demotions[0].rule, "gone");
    see(&c, &f->view, 102000, "dcs_ready=0\n");
    see(&c, &f->view, 103000,
        "dcs_ready=1\nhas_leader=1\nleader.name=n2\nleader.token=4\nleader.state=acquired\n"
        "leader.incarnation=i2\n");
    assert_true(c.failovers[COUNT_FAILOVER] == 1 && c.outage[COUNT_FAILOVER].n == 0);
    see(&c, &f->view, 103400, "leader.state=running\n");
    assert_true(c.outage[COUNT_FAILOVER].n == 1 && c.outage[COUNT_FAILOVER].sum_ms == 2400);
    assert_true(c.outage[COUNT_FAILOVER].in[6] == 1);
    see(&c, &f->view, 105000, "leader.state=stopping\n");
    see(&c, &f->view, 105100,
        "leader.name=n3\nleader.token=5\nleader.state=acquired\nleader.shutdown_lsn=0/1\n");
    see(&c, &f->view, 105200, "leader.state=running\n");
    assert_true(c.failovers[COUNT_SWITCHOVER] == 1 && c.outage[COUNT_SWITCHOVER].sum_ms == 200);
    see(&c, &f->view, 106000, "leader.token=6\n");
    assert_true(c.failovers[COUNT_RESTART] == 1 && c.outage[COUNT_RESTART].n == 0);
    mem_free(f);
}

static void demotions_without_a_place_are_others(void **state)
{
    struct rest_facts *f = facts(as_primary, "");
    struct rest_counts c = {.token = 0};
    char rule[8];
    (void)state;
    for (int i = 0; i < 10; i++) {
        (void)snprintf(rule, sizeof rule, "r%d", i);
        f->view.has_leader = true;
        count_view(&c, &f->view, rule);
        f->view.has_leader = false;
        count_view(&c, &f->view, rule);
    }
    assert_string_equal(c.demotions[COUNT_RULES - 2].rule, "r6");
    assert_string_equal(c.demotions[COUNT_RULES - 1].rule, "other");
    assert_true(c.demotions[COUNT_RULES - 1].n == 3);
    mem_free(f);
}

static void what_waits_for_a_restart_comes_with_its_reason(void **state)
{
    static const char waits[] =
        "pg.pending_restart=1\n"
        "pg.pending_reason={\"fsync\": {\"old_value\": \"on\"\\2c \"new_value\": \"off\"}}\n"
        "members[n2].pending_restart=1\nmembers[n2].pending_reason=no JSON\n";
    struct rest_facts *f = facts(as_primary, waits);
    char *body = rest_status_body(f, NOW_MS);
    (void)state;
    assert_non_null(strstr(body, "\"pending_restart\":true"));
    assert_non_null(strstr(body, "\"pending_restart_reason\":{\"fsync\":{\"old_value\":\"on\","
                                 "\"new_value\":\"off\"}}"));
    free(body);
    body = rest_cluster_body(f, NOW_MS);
    assert_non_null(strstr(body, "\"pending_restart\":true"));
    assert_null(strstr(body, "pending_restart_reason"));
    free(body);
    mem_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_path_answers_by_role),
        cmocka_unit_test(a_standby_leader_leads_and_is_no_primary),
        cmocka_unit_test(a_lease_that_runs_out_ends_primary_and_leader),
        cmocka_unit_test(a_view_that_outlives_its_lease_names_no_leader),
        cmocka_unit_test(without_an_armed_fence_a_primary_stays_what_it_is),
        cmocka_unit_test(a_loop_that_stands_still_shows),
        cmocka_unit_test(a_node_that_is_out_of_the_dcs_serves_nothing),
        cmocka_unit_test(without_a_quorum_only_what_needs_none_is_answered),
        cmocka_unit_test(nothing_is_known_before_the_first_view),
        cmocka_unit_test(the_journal_is_told_in_the_order_it_was_read),
        cmocka_unit_test(the_journal_has_a_bounded_number_of_lines),
        cmocka_unit_test(lag_is_in_bytes_or_units),
        cmocka_unit_test(tags_are_this_nodes),
        cmocka_unit_test(the_status_of_a_primary_is_patronis),
        cmocka_unit_test(the_status_of_a_standby_is_patronis),
        cmocka_unit_test(the_root_is_the_status),
        cmocka_unit_test(an_event_of_the_page_has_all_that_it_shows),
        cmocka_unit_test(the_state_is_in_patronis_words),
        cmocka_unit_test(the_cluster_is_patronis),
        cmocka_unit_test(the_cluster_has_as_many_members_as_there_can_be),
        cmocka_unit_test(history_and_config_are_patronis),
        cmocka_unit_test(every_path_is_described),
        cmocka_unit_test(metrics_tell_what_the_view_has),
        cmocka_unit_test(changes_of_leadership_are_counted_and_timed),
        cmocka_unit_test(demotions_without_a_place_are_others),
        cmocka_unit_test(what_waits_for_a_restart_comes_with_its_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
