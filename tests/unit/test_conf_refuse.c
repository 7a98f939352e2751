/* What a bad file is told: every error, with its line, and what to do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "conf/config.h"

/* Five good lines; what a row adds starts in line 6. */
#define LEAST                                                    \
    "scope: demo\n"                                              \
    "name: n1\n"                                                 \
    "dcs: {listen: '10.0.0.1:7400'}\n"                           \
    "postgresql: {listen: '10.0.0.1:5432', data_dir: /srv/pg}\n" \
    "# here\n"

static void refused(const char *text, const char *want)
{
    struct config c;
    struct config empty = {0};
    struct buf report = {.max = 65536};
    if (config_parse("f.yml", slice_str(text), &c, &report) != ERR_INVALID)
        fail_msg("accepted: %s", text);
    assert_string_equal(buf_cstr(&report), want);
    assert_memory_equal(&c, &empty, sizeof c);
    buf_close(&report);
}

static void each_mistake_is_told_with_its_line_and_remedy(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"tags: {nofailove: true}", "f.yml:6: unknown key \"tags.nofailove\"; the nearest "
                                    "known one is \"tags.nofailover\"\n"},
        {"\ndsc: {}", "f.yml:7: unknown key \"dsc\"; the nearest known one is \"dcs\"\n"},
        {"restapy: {listen: 'a:1'}",
         "f.yml:6: unknown key \"restapy\"; the nearest known one is \"restapi\"\n"},
        {"etcd3: {hosts: x}",
         "f.yml:6: unknown key \"etcd3\"; the nearest known one is \"dcs\"\n"},
        {"dcs: {etcd: {listen: '10.0.0.1:2379'}}", "f.yml:6: dcs.etcd is not offered: there is "
                                                   "no etcd API: clients speak the protocol of "
                                                   "docs/PROTOCOL.md on dcs.listen\n"},
        {"dcs: {initial_cluster: ['n1=10.0.0.1:7400']}",
         "f.yml:6: dcs.initial_cluster is not offered: a cluster is founded by `regentctl "
         "init` "
         "on its first node, and the others are added by `regentctl join`, which makes their "
         "certificates\n"},
        {"bootstrap: {method: tape}",
         "f.yml: bootstrap.tape is missing: the section of the method "
         "\"tape\", with its command\n"},
        {"bootstrap: {method: tape, tape: {from: 1}}",
         "f.yml:6: bootstrap.tape.command is missing (what makes the data)\n"},
        {"bootstrap: {method: tape, tape: {command: x, no_params: 7}}",
         "f.yml:6: tape.no_params: true or false is expected\n"},
        {"bootstrap: {tape: {command: x}}", "f.yml:6: unknown key \"bootstrap.tape\"; the "
                                            "nearest known one is \"bootstrap.dcs\"\n"},
        {"bootstrap: {post_init: a, post_bootstrap: b}",
         "f.yml: bootstrap.post_bootstrap and bootstrap.post_init are two names of one "
         "command: "
         "leave one out\n"},
        {"scope: again", "f.yml:6: scope stands twice\n"},
        {"tags: true", "f.yml:6: tags: expected a map (key: value)\n"},
        {"tags: {nosync: perhaps}",
         "f.yml:6: tags.nosync: \"perhaps\" is neither true nor false\n"},
        {"tags: {failover_priority: high}",
         "f.yml:6: tags.failover_priority: \"high\" is not a number\n"},
        {"tags: {failover_priority: [1]}",
         "f.yml:6: tags.failover_priority: expected one value\n"},
        {"data_dir: {a: b}", "f.yml:6: data_dir: expected one value\n"},
        {"data_dir: relative", "f.yml: data_dir: \"relative\" is not an absolute path\n"},
        {"data_dir: /srv/pg",
         "f.yml: postgresql.data_dir is the same as data_dir: \"/srv/pg\"; "
         "choose a directory of its own\n"},
        {"vip: {address: 10.0.0.1, interface: eth0}",
         "f.yml: vip.address: \"10.0.0.1\" is not an address with bits; write for example "
         "10.0.0.100/24 or fd00::100/64\n"},
        {"vip: {address: '10.0.0.1/24, fd00::1/64'}",
         "f.yml: vip.interface is missing (only a hook does without)\n"},
        {"vip: {interface: eth0}", "f.yml: vip.interface without vip.address\n"},
        {"templates: {haproxy: {targt: /x}}",
         "f.yml: templates.haproxy.targt: unknown key; there are template, target, check, "
         "reload, mode, set\n"},
        {"templates: {haproxy: {target: x}}",
         "f.yml: templates.haproxy.target: the absolute path of the file to keep is needed\n"},
        {"templates: {a: {target: /x}}",
         "f.yml: templates.a.template: \"a\" is neither haproxy, pgbouncer, keepalived nor an "
         "absolute path\n"},
        {"templates: {haproxy: {target: /x, mode: rw}}",
         "f.yml: templates.haproxy.mode: \"rw\" is no file mode; write for example 0644\n"},
        {"templates: {haproxy: {target: /x, set: {a: [1]}}}",
         "f.yml: templates.haproxy.set.a: expected one value\n"},
        {"log: {level: loud}",
         "f.yml:6: log.level: \"loud\" is none of debug|info|warn|error\n"},
        {"log: {level: ''}", "f.yml:6: log.level: \"\" is none of debug|info|warn|error\n"},
        {"log: {level: inf}", "f.yml:6: log.level: \"inf\" is none of debug|info|warn|error\n"},
        {"restapi: {listen: 10.0.0.1}",
         "f.yml:6: restapi.listen: \"10.0.0.1\" is not host:port; write for example "
         "10.0.0.1:7400 or [fd00::1]:7400\n"},
        {"restapi: {listen: '10.0.0.1:70000'}",
         "f.yml:6: restapi.listen: \"10.0.0.1:70000\" is not host:port; write for example "
         "10.0.0.1:7400 or [fd00::1]:7400\n"},
        {"restapi: {listen: '0.0.0.0:8008'}",
         "f.yml: restapi.connect_address is missing: listen is \"0.0.0.0:8008\", which others "
         "cannot dial; name the address that they can\n"},
        {"restapi: {listen: '10.0.0.1:7400'}",
         "f.yml: dcs.listen and restapi.listen are the same: \"10.0.0.1:7400\"\n"},
        {"restapi: {certfile: /c.pem}",
         "f.yml: restapi.certfile and restapi.keyfile belong together\n"},
        {"restapi: {allowlist: 10.0.0.1}",
         "f.yml:6: restapi.allowlist: expected a list (- item)\n"},
        {"restapi: {allowlist: [[a]]}", "f.yml:6: restapi.allowlist: every item is one text\n"},
        {"bootstrap: {initdb: [[a]]}",
         "f.yml:6: bootstrap.initdb: an option is `name` or `name: value`\n"},
        {"bootstrap: {initdb: [{a: [b]}]}",
         "f.yml:6: bootstrap.initdb: an option is `name` or `name: value`\n"},
        {"bootstrap: {dcs: 5}", "f.yml:6: bootstrap.dcs: expected a map (name: value)\n"},
        {"bootstrap: {dcs: {ttl: 5, ttl: 6}}", "f.yml:6: ttl stands twice\n"},
        {"bootstrap: {dcs: {? [a] : b}}", "f.yml:6: a key must be one text\n"},
        {"? [a]\n: b", "f.yml:6: a key must be one short text\n"},
        {"---\nscope: other",
         "f.yml:7: a second document (---): everything belongs into the first\n"},
        {"tags: \"a\\0b\"", "f.yml:6: tags: expected a map (key: value)\n"},
        {"data_dir: \"/a\\0b\"", "f.yml:6: data_dir: expected one value\n"},
        {"data_dir: \"a\\nb\"", "f.yml: data_dir: \"a?b\" is not an absolute path\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[1024];
        (void)snprintf(text, sizeof text, LEAST "%s\n", rows[i].text);
        refused(text, rows[i].want);
    }
}

static void what_is_required_is_asked_for_by_name_and_meaning(void **state)
{
    (void)state;
    static const char want[] =
        "f.yml: scope is missing (name of the cluster)\n"
        "f.yml: name is missing (name of this node, unique in the cluster)\n"
        "f.yml: dcs.listen is missing (peers and clients, mutual TLS)\n"
        "f.yml: postgresql.listen is missing (host:port PostgreSQL listens on); only a witness "
        "has none\n"
        "f.yml: postgresql.data_dir is missing (where PostgreSQL's data lives); only a witness "
        "has none\n";
    refused("", want);
    refused("# nothing\n", want);
    refused("scope: ''\nname:\ndcs:\n", want);
}

/* Each is good, the two together are not: a refusal for safety. */
static void what_contradicts_itself_is_refused(void **state)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"tags: {nostream: true, replicatefrom: n2}",
         "f.yml: tags.nostream contradicts tags.replicatefrom: the one streams from nobody, "
         "the other from a member; leave one of them out\n"},
        {"tags: {nostream: true, clonefrom: true}",
         "f.yml: tags.nostream contradicts tags.clonefrom: only one that streams is cloned "
         "from; leave one of them out\n"},
        {"tags: {nostream: true, sync_priority: 2}",
         "f.yml: tags.nostream contradicts tags.sync_priority: one that does not stream "
         "confirms nothing; leave one of them out\n"},
        {"tags: {replicatefrom: n2, sync_priority: 2}",
         "f.yml: tags.replicatefrom contradicts tags.sync_priority: a synchronous standby "
         "streams from the leader; leave one of them out\n"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[512];
        struct config c;
        struct buf report = {.max = 65536};
        (void)snprintf(text, sizeof text, LEAST "%s\n", rows[i].text);
        assert_int_equal(config_parse("f.yml", slice_str(text), &c, &report), ERR_PRECONDITION);
        assert_string_equal(buf_cstr(&report), rows[i].want);
        buf_close(&report);
    }
}

static void all_errors_of_a_file_come_at_once(void **state)
{
    (void)state;
    refused(
        "scope: a b\n"
        "nam: n1\n"
        "dcs:\n"
        "  listen: nowhere\n"
        "  election_ms: soon\n"
        "  heartbeat_ms: 300\n"
        "postgresql:\n"
        "  listen: '10.0.0.1:5432'\n"
        "  data_dir: pg\n"
        "  parameters: [a]\n"
        "log: {format: xml}\n",
        "f.yml:2: unknown key \"nam\"; the nearest known one is \"name\"\n"
        "f.yml:4: dcs.listen: \"nowhere\" is not host:port; write for example 10.0.0.1:7400 "
        "or [fd00::1]:7400\n"
        "f.yml:5: dcs.election_ms: \"soon\" is not a number of 0 or more\n"
        "f.yml:10: postgresql.parameters: expected a map (name: value)\n"
        "f.yml:11: log.format: \"xml\" is none of logfmt|json\n"
        "f.yml: name is missing (name of this node, unique in the cluster)\n"
        "f.yml: scope: \"a b\" may hold letters, digits, and _ - . only\n"
        "f.yml: postgresql.data_dir: \"pg\" is not an absolute path\n"
        "f.yml: dcs.election_ms (1000) must be at least five times dcs.heartbeat_ms (300)\n");
}

static void timing_that_cannot_work_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"heartbeat_ms: 0", "f.yml: dcs.election_ms (1000) must be at least five times "
                            "dcs.heartbeat_ms (0)\n"},
        {"heartbeat_ms: 201", "f.yml: dcs.election_ms (1000) must be at least five times "
                              "dcs.heartbeat_ms (201)\n"},
        {"election_ms: 60001", "f.yml:3: dcs.election_ms: 60001 is more than 60000\n"},
        {"heartbeat_ms: -1",
         "f.yml:3: dcs.heartbeat_ms: \"-1\" is not a number of 0 or more\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[1024];
        (void)snprintf(text, sizeof text,
                       "scope: s\nname: n\ndcs: {listen: 'a:1', role: witness, %s}\n",
                       rows[i].text);
        refused(text, rows[i].want);
    }
}

static void broken_yaml_is_told_with_the_line_where_it_breaks(void **state)
{
    (void)state;
    refused("scope: demo\nname: [n1\ndcs: x\n",
            "f.yml:3: not valid YAML: did not find expected ',' or ']'\n");
    refused("scope: demo\n\tname: n1\n",
            "f.yml:2: not valid YAML: found a tab character that violates indentation\n");
    refused("- a\n- b\n",
            "f.yml:1: the file: expected a map (key: value)\n"
            "f.yml: scope is missing (name of the cluster)\n"
            "f.yml: name is missing (name of this node, unique in the cluster)\n"
            "f.yml: dcs.listen is missing (peers and clients, mutual TLS)\n"
            "f.yml: postgresql.listen is missing (host:port PostgreSQL listens on); only a "
            "witness has none\n"
            "f.yml: postgresql.data_dir is missing (where PostgreSQL's data lives); only a "
            "witness has none\n");
}

static void too_many_items_are_refused_and_leak_nothing(void **state)
{
    (void)state;
    char text[4096] = LEAST "restapi: {allowlist: [a";
    size_t n = strlen(text);
    for (size_t i = 1; i <= CONF_LIST_MAX; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, ", a");
    (void)snprintf(text + n, sizeof text - n, "]}\n");
    refused(text, "f.yml:6: restapi.allowlist: more than 64 items\n");
}

/* Ten aliases of ten aliases of ...: a few hundred bytes that name 10^8 values. */
static void aliases_of_aliases_end_at_a_bound(void **state)
{
    (void)state;
    char text[4096] = LEAST "bootstrap:\n  dcs:\n    a0: &a0 [x]\n";
    for (int i = 1; i < 9; i++) {
        size_t n = strlen(text);
        n += (size_t)snprintf(text + n, sizeof text - n, "    a%d: &a%d [", i, i);
        for (int j = 0; j < 10; j++)
            n +=
                (size_t)snprintf(text + n, sizeof text - n, "%s*a%d", j > 0 ? ", " : "", i - 1);
        (void)snprintf(text + n, sizeof text - n, "]\n");
    }
    refused(text, "f.yml: more than 10000 values; are there aliases of aliases?\n");
}

static void deep_nesting_ends_at_a_bound(void **state)
{
    (void)state;
    char text[4096] = LEAST "bootstrap:\n  dcs: {a: ";
    size_t n = strlen(text);
    for (int i = 0; i < 40; i++)
        text[n++] = '[';
    for (int i = 0; i < 40; i++)
        text[n++] = ']';
    (void)snprintf(text + n, sizeof text - n, "}\n");
    refused(text, "f.yml:7: nested deeper than 16 levels\n");
}

static void a_hundred_findings_are_enough(void **state)
{
    (void)state;
    static char text[65536] = LEAST;
    size_t n = strlen(text);
    struct config c;
    struct buf report = {.max = 65536};
    for (int i = 0; i < 150; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "wrong%d: 1\n", i);
    assert_int_equal(config_parse("f.yml", slice_str(text), &c, &report), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&report), "f.yml: and 50 more\n"));
    buf_close(&report);
}

static void a_file_that_cannot_be_read_is_told_with_the_remedy(void **state)
{
    (void)state;
    struct config c;
    struct buf report = {.max = 65536};
    assert_int_equal(config_load("/nowhere/regent.yml", &c, &report), ERR_INVALID);
    assert_string_equal(
        buf_cstr(&report),
        "/nowhere/regent.yml: cannot read the configuration file: No such file or "
        "directory; name one with -c FILE or REGENT_CONFIG, or make one with "
        "`regentctl init`\n");
    buf_clear(&report);
    assert_int_equal(config_load("/", &c, &report), ERR_INVALID);
    assert_string_equal(buf_cstr(&report),
                        "/: cannot read the configuration file: Is a directory; "
                        "check its owner and mode\n");
    buf_clear(&report);
    assert_int_equal(config_load("/dev/zero", &c, &report), ERR_INVALID);
    assert_string_equal(buf_cstr(&report),
                        "/dev/zero: more than 1048576 bytes: this is no configuration file\n");
    buf_close(&report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_mistake_is_told_with_its_line_and_remedy),
        cmocka_unit_test(what_is_required_is_asked_for_by_name_and_meaning),
        cmocka_unit_test(what_contradicts_itself_is_refused),
        cmocka_unit_test(all_errors_of_a_file_come_at_once),
        cmocka_unit_test(timing_that_cannot_work_is_refused),
        cmocka_unit_test(broken_yaml_is_told_with_the_line_where_it_breaks),
        cmocka_unit_test(too_many_items_are_refused_and_leak_nothing),
        cmocka_unit_test(aliases_of_aliases_end_at_a_bound),
        cmocka_unit_test(deep_nesting_ends_at_a_bound),
        cmocka_unit_test(a_hundred_findings_are_enough),
        cmocka_unit_test(a_file_that_cannot_be_read_is_told_with_the_remedy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
