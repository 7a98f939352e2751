/* The bodies of REST's unsafe verbs: what they mean, and the codes and texts of what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>

#include "agent/rest_access.h"
#include "agent/rest_order.h"
#include "base/mem.h"
#include "base/str.h"

#define WALL_MS UINT64_C(1795196429123) /* 2026-11-20 */

static const char cluster[] =
    "now_ms=100000\ndcs_ready=1\nself=n1\nconfig.ttl_ms=5000\nhas_leader=1\nleader.name=n1\n"
    "leader.incarnation=i1\nleader.token=3\nleader.state=running\nhas_sync=1\n"
    "sync.leader=n1\nsync.token=3\nsync.mode=on\nsync.v=i2\nmembers[n1].incarnation=i1\n"
    "members[n2].incarnation=i2\nmembers[n3].incarnation=i3\npg.data=ours\npg.proc=running\n"
    "pg.accepts=1\n";

struct row {
    enum rest_verb_kind kind;
    const char *body, *changes;
    unsigned code; /* 0: to be carried out */
    const char *text;
};

#define PAST "2020-01-01T00:00:00+00:00"
#define LATER "2027-01-01T00:00:00+00:00"
#define UNPARSABLE                                                                          \
    "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO " \
    "8601"

static const struct row rows[] = {
    {VERB_SWITCHOVER, "{\"leader\":\"n1\"}", "", 0, NULL},
    {VERB_SWITCHOVER, "{\"leader\":\"n1\",\"candidate\":\"n2\"}", "", 0, NULL},
    {VERB_SWITCHOVER, "{\"leader\":\"n1\",\"member\":\"n2\"}", "", 0, NULL},
    {VERB_SWITCHOVER, "{\"leader\":\"n1\",\"scheduled_at\":\"" LATER "\"}", "", 0, NULL},
    {VERB_SWITCHOVER, "", "", 411, "Length Required"},
    {VERB_SWITCHOVER, "{", "", 400, NULL},
    {VERB_SWITCHOVER, "[]", "", 400, "The body is not a JSON object"},
    {VERB_SWITCHOVER, "{\"leader\":1}", "", 400,
     "leader, candidate and scheduled_at are texts"},
    {VERB_SWITCHOVER, "{\"candidate\":\"n2\"}", "", 400,
     "Switchover could be performed only from a specific leader"},
    {VERB_SWITCHOVER, "{\"leader\":\"n2\"}", "", 412, "leader name does not match"},
    {VERB_SWITCHOVER, "{\"leader\":\"n1\",\"candidate\":\"n9\"}", "", 412,
     "candidate does not exists"},
    {VERB_SWITCHOVER, "{\"leader\":\"n1\",\"candidate\":\"n3\"}", "", 412,
     "candidate name does not match with sync_standby"},
    {VERB_SWITCHOVER, "{\"leader\":\"n1\",\"candidate\":\"n3\"}", "sync.mode=off", 0, NULL},
    {VERB_SWITCHOVER, "{\"leader\":\"n1\"}", "sync.v=", 412,
     "switchover is not possible: can not find sync_standby"},
    {VERB_SWITCHOVER, "{\"leader\":\"n1\"}", "-members[n2]\n-members[n3]", 412,
     "switchover is not possible: cluster does not have members except leader"},
    {VERB_SWITCHOVER, "{\"leader\":\"n1\",\"candidate\":\"n2\"}", "members[n2].nofailover=1",
     412, "switchover is not possible: no good candidates have been found"},
    {VERB_SWITCHOVER, "{\"leader\":\"n1\",\"scheduled_at\":\"" PAST "\"}", "", 422,
     "Cannot schedule switchover in the past"},
    {VERB_SWITCHOVER, "{\"leader\":\"n1\",\"scheduled_at\":\"2027-01-01T00:00:00\"}", "", 400,
     "Timezone information is mandatory for the scheduled switchover"},
    {VERB_SWITCHOVER, "{\"leader\":\"n1\",\"scheduled_at\":\"soon\"}", "", 422, UNPARSABLE},
    {VERB_SWITCHOVER, "{\"leader\":\"n1\",\"scheduled_at\":\"" LATER "\"}", "config.pause=1",
     400, "Can't schedule switchover in the paused state"},
    {VERB_SWITCHOVER, "{\"leader\":\"n1\"}", "config.pause=1", 400,
     "Switchover is possible only to a specific candidate in a paused state"},
    {VERB_FAILOVER, "{\"candidate\":\"n3\"}", "", 0, NULL},
    {VERB_FAILOVER, "{\"candidate\":\"n3\"}", "has_leader=0", 0, NULL},
    {VERB_FAILOVER, "{}", "", 400, "Failover could be performed only to a specific candidate"},
    {VERB_FAILOVER, "{\"candidate\":\"n3\",\"scheduled_at\":\"" LATER "\"}", "", 400,
     "Failover can't be scheduled"},
    {VERB_FAILOVER, "{\"candidate\":\"n9\"}", "", 412, "candidate does not exists"},
    {VERB_FAILOVER, "{\"candidate\":\"n3\",\"leader\":\"n1\"}", "", 412,
     "candidate name does not match with sync_standby"},
    {VERB_RESTART, "", "", 0, NULL},
    {VERB_RESTART, "{}", "", 0, NULL},
    {VERB_RESTART, "{\"role\":\"primary\",\"postgres_version\":\"15.9\",\"timeout\":60}", "", 0,
     NULL},
    {VERB_RESTART, "{\"timeout\":\"5min\"}", "", 0, NULL},
    {VERB_RESTART, "{\"restart_pending\":false}", "", 0, NULL},
    {VERB_RESTART, "{\"role\":\"king\"}", "", 400,
     "PostgreSQL role should be either primary, standby_leader, or replica"},
    {VERB_RESTART, "{\"postgres_version\":\"new\"}", "", 400,
     "PostgreSQL version should be in the first.major.minor format"},
    {VERB_RESTART, "{\"timeout\":0}", "", 400,
     "Timeout should be a positive number of seconds"},
    {VERB_RESTART, "{\"timeout\":-1}", "", 400,
     "Timeout should be a positive number of seconds"},
    {VERB_RESTART, "{\"wish\":1}", "", 400, "Unknown filter for the restart parameters: wish"},
    {VERB_RESTART, "{\"schedule\":\"" PAST "\"}", "", 422,
     "Cannot schedule restart in the past"},
    {VERB_RESTART, "{\"schedule\":\"" LATER "\"}", "config.pause=1", 500,
     "Can't schedule restart in the paused state"},
    {VERB_RESTART, "{}", "pg.proc=starting", 503, "postgres is still starting"},
    {VERB_REINITIALIZE, "", "", 503, "I am the leader, can not reinitialize"},
    {VERB_REINITIALIZE, "{\"force\":true}", "self=n2", 0, NULL},
    {VERB_REINITIALIZE, "", "self=n2\nhas_leader=0", 503,
     "Cluster has no leader, can not reinitialize"},
    {VERB_CONFIG_PATCH, "{\"ttl\":10}", "", 0, NULL},
    {VERB_CONFIG_PATCH, "", "", 411, "Length Required"},
    {VERB_CONFIG_PATCH, "7", "", 400, "The body is not a JSON object"},
    {VERB_CONFIG_PATCH, "{\"ttl\":1,\"ttl\":2}", "", 400, NULL},
    {VERB_CONFIG_PUT, "{\"ttl\":10}", "", 0, NULL},
    {VERB_RELOAD, "", "", 0, NULL},
    {VERB_RESTART_DELETE, "", "", 0, NULL},
    {VERB_SWITCHOVER_DELETE, "what", "", 0, NULL},
};

static struct rest_facts *facts(const char *changes)
{
    struct rest_facts *f = mem_alloc(sizeof *f);
    struct errmsg e = {0};
    f->known = true;
    if (view_parse(cluster, &f->view, &e) != ERR_OK ||
        view_apply(changes, &f->view, &e) != ERR_OK)
        fail_msg("%s", e.text);
    return f;
}

static void every_body_has_its_code_and_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct row *r = &rows[i];
        struct rest_facts *f = facts(r->changes);
        struct rest_order o;
        struct rest_reply reply = {0};
        bool good = rest_order_parse(r->kind, slice_str(r->body), f, WALL_MS, &o, &reply);
        if (good != (r->code == 0) || reply.code != r->code)
            fail_msg("%s: %u %s", r->body, reply.code, reply.body != NULL ? reply.body : "");
        if (!good && r->text != NULL)
            assert_string_equal(reply.body, r->text);
        free(reply.body);
        rest_order_close(&o);
        mem_free(f);
    }
}

static void a_body_becomes_a_request(void **state)
{
    (void)state;
    struct rest_facts *f = facts("");
    struct rest_order o;
    struct rest_reply reply;
    assert_true(rest_order_parse(
        VERB_RESTART,
        slice_str("{\"role\":\"replica\",\"postgres_version\":\"15.9\",\"timeout\":\"2min\","
                  "\"restart_pending\":null,\"schedule\":\"" LATER "\"}"),
        f, WALL_MS, &o, &reply));
    assert_string_equal(o.request.kind, "restart");
    assert_string_equal(o.request.role, "replica");
    assert_string_equal(o.request.pg_version, "15.9");
    assert_int_equal(o.request.timeout_ms, 120000);
    assert_true(o.request.pending && o.request.at_ms > WALL_MS);
    assert_true(rest_order_parse(VERB_FAILOVER, slice_str("{\"candidate\":\"n3\"}"), f, WALL_MS,
                                 &o, &reply));
    assert_string_equal(o.failover.kind, "failover");
    assert_true(o.failover.force);
    /* With a leader it is a switchover, as in Patroni: it must not lose anything. */
    assert_true(rest_order_parse(VERB_FAILOVER,
                                 slice_str("{\"leader\":\"n1\",\"candidate\":\"n2\"}"), f,
                                 WALL_MS, &o, &reply));
    assert_string_equal(o.failover.kind, "switchover");
    assert_false(o.failover.force);
    mem_free(f);
    f = facts("self=n2");
    assert_true(rest_order_parse(VERB_REINITIALIZE, slice_str("{\"from_leader\":true}"), f,
                                 WALL_MS, &o, &reply));
    assert_string_equal(o.request.kind, "reinitialize");
    assert_true(o.request.from_leader);
    assert_false(o.request.remove_data || o.request.force);
    assert_true(rest_order_parse(VERB_REINITIALIZE,
                                 slice_str("{\"remove-data\":true,\"from-leader\":\"no\"}"), f,
                                 WALL_MS, &o, &reply));
    assert_true(o.request.remove_data);
    assert_false(o.request.from_leader || o.request.force);
    mem_free(f);
}

static void merged(const char *now, const char *given, bool patch, const char *part,
                   const char *refused)
{
    struct errmsg e = {0};
    char *text = NULL;
    const struct dynamic_edit edit = {.before = slice_str(now)};
    enum err rv = rest_config_merge(&edit, given, patch, &text, &e);
    assert_int_equal(rv == ERR_OK, refused == NULL);
    if (refused != NULL && strstr(e.text, refused) == NULL)
        fail_msg("%s", e.text);
    if (refused == NULL && strstr(text, part) == NULL)
        fail_msg("%s has not %s", text, part);
    free(text);
}

static void a_configuration_is_merged_and_checked(void **state)
{
    (void)state;
    static const char now[] = "{\"ttl\":5,\"synchronous_mode\":\"on\",\"postgresql\":{"
                              "\"parameters\":{\"a\":1,\"b\":2}}}";
    merged(now, "{\"ttl\":10}", true, "\"ttl\":10", NULL);
    merged(now, "{\"pause\":true}", true, "\"pause\":true", NULL);
    merged(now, "{\"synchronous_mode\":null}", true, "\"synchronous_mode\":\"off\"", NULL);
    merged(now, "{\"postgresql\":{\"parameters\":{\"a\":null,\"c\":3}}}", true,
           "{\"b\":2,\"c\":3}", NULL);
    merged(now, "{\"ttl\":20}", false, "\"synchronous_mode\":\"off\"", NULL);
    merged(now, "{\"ttl\":1}", true, NULL, "ttl: 1 is outside");
    merged(now, "{\"tll\":10}", true, NULL, "the nearest known one is \"ttl\"");
    merged(now, "{\"ttl\":\"abc\"}", true, NULL, "ttl");
}

static void addresses_are_matched_by_network(void **state)
{
    (void)state;
    static const struct {
        const char *allowed, *from;
        bool admitted;
    } tries[] = {
        {"10.0.0.0/8", "10.9.8.7", true},
        {"10.0.0.0/8", "11.0.0.1", false},
        {"192.168.1.130/25", "192.168.1.200", true},
        {"192.168.1.130/25", "192.168.1.1", false},
        {"127.0.0.1", "127.0.0.1", true},
        {"127.0.0.1", "127.0.0.2", false},
        {"10.0.0.0/8", "::ffff:10.1.1.1", true},
        {"2001:db8::/33", "2001:db8:7fff::1", true},
        {"2001:db8::/33", "2001:db8:8000::1", false},
        {"0.0.0.0/0", "8.8.8.8", true},
        {"0.0.0.0/0", "::1", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(tries); i++) {
        struct config c = {.restapi = {.n_allowlist = 1}};
        char empty[] = "";
        char *allowed = strdup(tries[i].allowed);
        struct sockaddr_in6 six = {.sin6_family = AF_INET6};
        struct sockaddr_in four = {.sin_family = AF_INET};
        struct rest_access a;
        struct errmsg e;
        c.restapi.allowlist[0] = allowed;
        c.restapi.verify_client = empty;
        assert_int_equal(rest_access_init(&a, &c, &e), ERR_OK);
        bool v4 = inet_pton(AF_INET, tries[i].from, &four.sin_addr) == 1;
        assert_true(v4 || inet_pton(AF_INET6, tries[i].from, &six.sin6_addr) == 1);
        const struct sockaddr *from =
            v4 ? (const struct sockaddr *)&four : (const struct sockaddr *)&six;
        if (rest_access_from(&a, from) != tries[i].admitted)
            fail_msg("%s from %s", tries[i].allowed, tries[i].from);
        c.restapi.allowlist[0] = empty;
        assert_int_equal(rest_access_init(&a, &c, &e), ERR_INVALID);
        free(allowed);
    }
}

static void only_our_own_page_may_change_something(void **state)
{
    static const struct {
        const char *origin, *host;
        bool ours;
    } tries[] = {{NULL, "n1:8008", true}, /* no browser */
                 {"http://n1:8008", "n1:8008", true},
                 {"https://N1:8008", "n1:8008", true},
                 {"http://[::1]:8008", "[::1]:8008", true},
                 {"http://n1:8009", "n1:8008", false},
                 {"http://n1", "n1:8008", false},
                 {"http://n1:8008.evil.example", "n1:8008", false},
                 {"https://evil.example", "n1:8008", false},
                 {"null", "n1:8008", false},
                 {"", "n1:8008", false},
                 {"http://n1:8008", NULL, false}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(tries); i++)
        if (rest_access_own_page(tries[i].origin, tries[i].host) != tries[i].ours)
            fail_msg("%s at %s", tries[i].origin, tries[i].host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_body_has_its_code_and_text),
        cmocka_unit_test(a_body_becomes_a_request),
        cmocka_unit_test(a_configuration_is_merged_and_checked),
        cmocka_unit_test(addresses_are_matched_by_network),
        cmocka_unit_test(only_our_own_page_may_change_something),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
