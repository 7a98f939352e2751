/* What a good file means. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "conf/config.h"

#define LEAST                                                 \
    "scope: demo\nname: n1\ndcs: {listen: '10.0.0.1:7400'}\n" \
    "postgresql: {listen: '10.0.0.1:5432', data_dir: /srv/pg}\n"

static void good(const char *text, struct config *ret)
{
    struct buf report = {.max = 65536};
    if (config_parse("f.yml", slice_str(text), ret, &report) != ERR_OK)
        fail_msg("refused: %s", buf_cstr(&report));
    assert_int_equal(report.len, 0);
    buf_close(&report);
}

static void a_minimal_file_gets_the_documented_defaults(void **state)
{
    (void)state;
    struct config c;
    good(LEAST, &c);
    assert_string_equal(c.path, "f.yml");
    assert_string_equal(c.data_dir, "/var/lib/regent");
    assert_string_equal(c.dcs.connect_address, "10.0.0.1:7400");
    assert_string_equal(c.dcs.role, "voter");
    assert_string_equal(c.dcs.tls.key, "/var/lib/regent/pki/node.key");
    assert_int_equal(c.dcs.election_ms, 1000);
    assert_int_equal(c.dcs.heartbeat_ms, 100);
    assert_string_equal(c.restapi.listen, "");
    assert_string_equal(c.bootstrap.dcs_json, "{}");
    assert_string_equal(c.postgresql.connect_address, "10.0.0.1:5432");
    assert_string_equal(c.postgresql.bin_dir, "");
    assert_string_equal(c.postgresql.authentication.superuser.username, "postgres");
    assert_string_equal(c.postgresql.authentication.replication.password, "");
    assert_false(c.tags.nofailover);
    assert_int_equal(c.tags.failover_priority, 1);
    assert_string_equal(c.watchdog.mode, "automatic");
    assert_string_equal(c.log.format, "logfmt");
    config_close(&c);
    config_close(&c); /* harmless */
}

static void what_is_not_offered_may_stand_there_empty(void **state)
{
    (void)state;
    struct config c;
    good(LEAST "dcs: {initial_cluster: [], etcd: {listen: , tls: }}\n", &c);
    config_close(&c);
    good(LEAST "dcs: {initial_cluster: , etcd: }\n", &c);
    config_close(&c);
}

static void sections_of_methods_are_found_by_their_names(void **state)
{
    (void)state;
    struct config c;
    good("scope: demo\nname: n1\ndcs: {listen: '10.0.0.1:7400'}\n"
         "bootstrap: {pitr: {command: get it, speed: 7, recovery_conf: {restore_command: cp %f "
         "%p}},"
         " method: pitr}\n"
         "postgresql: {listen: '10.0.0.1:5432', data_dir: /srv/pg, tape: {command: tape, "
         "keep_data: true},"
         " create_replica_methods: [tape, basebackup]}\n",
         &c);
    assert_string_equal(c.bootstrap.custom->command, "get it");
    assert_string_equal(c.bootstrap.custom->params[0], "--speed=7");
    assert_string_equal(c.bootstrap.custom->recovery_conf[0].key, "restore_command");
    assert_string_equal(c.bootstrap.custom->recovery_conf[0].value, "cp %f %p");
    assert_false(c.bootstrap.custom->no_params);
    assert_true(c.postgresql.create[0]->keep_data);
    assert_string_equal(c.postgresql.create[0]->name, "tape");
    assert_string_equal(c.postgresql.create[1]->command, "");
    config_close(&c);
}

static void a_key_without_a_value_means_the_default(void **state)
{
    (void)state;
    struct config c;
    good(LEAST "log: {level: , format: json}\ntags:\nbootstrap: {dcs: , initdb: }\n", &c);
    assert_string_equal(c.log.level, "info");
    assert_string_equal(c.log.format, "json");
    assert_int_equal(c.bootstrap.n_initdb, 0);
    config_close(&c);
}

static void a_witness_needs_no_postgresql(void **state)
{
    (void)state;
    struct config c;
    good("{scope: s, name: w, dcs: {listen: '[fd00::1]:7400', role: witness}}", &c);
    assert_string_equal(c.postgresql.listen, "");
    assert_string_equal(c.dcs.connect_address, "[fd00::1]:7400");
    config_close(&c);
}

static void behind_a_wildcard_others_dial_the_connect_address(void **state)
{
    (void)state;
    struct config c;
    good("scope: s\nname: n\ndcs: {listen: '0.0.0.0:7400', connect_address: '10.0.0.1:7400'}\n"
         "postgresql: {listen: '[::]:5432', connect_address: '10.0.0.1:5432', data_dir: /pg}\n",
         &c);
    assert_string_equal(c.postgresql.connect_address, "10.0.0.1:5432");
    config_close(&c);
}

static void lists_options_and_settings_keep_their_order(void **state)
{
    (void)state;
    struct config c;
    good("scope: s\nname: n\ndcs:\n  listen: a:1\n  join: ['b:1', 'c:1']\n"
         "bootstrap:\n  initdb:\n  - encoding: UTF8\n  - data-checksums\n"
         "postgresql:\n  listen: a:2\n  data_dir: /pg\n"
         "  parameters: {work_mem: 8MB, shared_buffers: 1024, 'pg_stat_statements.max': 10}\n"
         "  pg_hba:\n  - host all all 10.0.0.0/8 scram-sha-256\n",
         &c);
    assert_int_equal(c.dcs.n_join, 2);
    assert_string_equal(c.dcs.join[1], "c:1");
    assert_int_equal(c.bootstrap.n_initdb, 2);
    assert_string_equal(c.bootstrap.initdb[0], "--encoding=UTF8");
    assert_string_equal(c.bootstrap.initdb[1], "--data-checksums");
    assert_int_equal(c.postgresql.n_parameters, 3);
    assert_string_equal(c.postgresql.parameters[0].key, "work_mem");
    assert_string_equal(c.postgresql.parameters[1].value, "1024");
    assert_string_equal(c.postgresql.parameters[2].key, "pg_stat_statements.max");
    assert_int_equal(c.postgresql.n_pg_hba, 1);
    config_close(&c);
}

static void numbers_and_booleans_are_told_from_texts_by_their_quotes(void **state)
{
    (void)state;
    struct config c;
    good(LEAST "bootstrap:\n  dcs:\n    ttl: 5\n    pause: on\n    word: 'on'\n    n: '5'\n"
               "    nothing: ~\n    real: 1.5\n    list: [1, a]\n"
               "    postgresql: {parameters: {a: -1, b: yes}}\n",
         &c);
    assert_string_equal(
        c.bootstrap.dcs_json,
        "{\"ttl\":5,\"pause\":true,\"word\":\"on\",\"n\":\"5\",\"nothing\":null,"
        "\"real\":\"1.5\",\"list\":[1,\"a\"],"
        "\"postgresql\":{\"parameters\":{\"a\":-1,\"b\":true}}}");
    config_close(&c);
}

static void every_spelling_of_a_boolean_is_known(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool value;
    } rows[] = {{"true", true},   {"Yes", true}, {"ON", true},   {"1", true},
                {"false", false}, {"no", false}, {"off", false}, {"0", false}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[512];
        struct config c;
        (void)snprintf(text, sizeof text, LEAST "tags: {nosync: %s}\n", rows[i].text);
        good(text, &c);
        assert_int_equal(c.tags.nosync, rows[i].value);
        config_close(&c);
    }
}

static void a_file_is_found_by_option_then_environment_then_default(void **state)
{
    (void)state;
    assert_string_equal(config_path(NULL), "/etc/regent/regent.yml");
    (void)setenv("REGENT_CONFIG", "/tmp/env.yml", 1);
    assert_string_equal(config_path(NULL), "/tmp/env.yml");
    assert_string_equal(config_path("/tmp/option.yml"), "/tmp/option.yml");
    (void)unsetenv("REGENT_CONFIG");
}

static void a_file_is_loaded_from_disk(void **state)
{
    (void)state;
    char path[] = "/tmp/test_conf_load.XXXXXX";
    int fd = mkstemp(path);
    struct config c;
    struct buf report = {.max = 65536};
    assert_true(fd >= 0);
    assert_int_equal(write(fd, LEAST, sizeof LEAST - 1), sizeof LEAST - 1);
    (void)close(fd);
    assert_int_equal(config_load(path, &c, &report), ERR_OK);
    assert_string_equal(c.path, path);
    assert_string_equal(c.scope, "demo");
    config_close(&c);
    (void)unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_minimal_file_gets_the_documented_defaults),
        cmocka_unit_test(what_is_not_offered_may_stand_there_empty),
        cmocka_unit_test(sections_of_methods_are_found_by_their_names),
        cmocka_unit_test(a_key_without_a_value_means_the_default),
        cmocka_unit_test(a_witness_needs_no_postgresql),
        cmocka_unit_test(behind_a_wildcard_others_dial_the_connect_address),
        cmocka_unit_test(lists_options_and_settings_keep_their_order),
        cmocka_unit_test(numbers_and_booleans_are_told_from_texts_by_their_quotes),
        cmocka_unit_test(every_spelling_of_a_boolean_is_known),
        cmocka_unit_test(a_file_is_found_by_option_then_environment_then_default),
        cmocka_unit_test(a_file_is_loaded_from_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
