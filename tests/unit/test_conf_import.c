/* A patroni.yml as a configuration of ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "conf/config.h"
#include "conf/dynamic.h"
#include "conf/import.h"

static const char whole[] =
    "scope: batman\n"
    "namespace: /service/\n"
    "name: pg1\n"
    "log: {level: WARNING, dir: /var/log/patroni}\n"
    "restapi: {listen: 0.0.0.0:8008, connect_address: 10.0.0.1:8008}\n"
    "etcd3: {hosts: 10.0.0.9:2379}\n"
    "bootstrap:\n"
    "  dcs:\n"
    "    ttl: 30\n"
    "    loop_wait: 10\n"
    "    synchronous_mode: true\n"
    "    postgresql: {use_pg_rewind: true, parameters: {pg_stat_statements.max: 200}, x: 1}\n"
    "  initdb: [encoding: UTF8, data-checksums]\n"
    "  users: {admin: {password: x}}\n"
    "postgresql:\n"
    "  listen: 0.0.0.0:5432\n"
    "  connect_address: 10.0.0.1:5432\n"
    "  data_dir: /var/lib/postgresql/15/main\n"
    "  authentication: {superuser: {username: postgres, password: \"a: 'b' #\"}}\n"
    "  parameters: {shared_buffers: 1GB}\n"
    "watchdog: {mode: off, safety_margin: 5}\n"
    "tags: {nofailover: true}\n";

static enum err import(const char *text, const char *listen, struct buf *yaml, struct buf *left)
{
    struct import_options o = {
        .source = "p.yml", .dcs_listen = listen, .data_dir = "/var/lib/regent"};
    return import_patroni(slice_str(text), &o, yaml, left);
}

static void what_both_know_comes_along(void **state)
{
    (void)state;
    struct config c;
    struct buf yaml CLEANUP(buf_close) = BUF_INIT;
    struct buf left CLEANUP(buf_close) = BUF_INIT;
    assert_int_equal(import(whole, NULL, &yaml, &left), ERR_OK);
    assert_int_equal(config_parse("x", buf_slice(&yaml), &c, &left), ERR_OK);
    assert_string_equal(c.scope, "batman");
    assert_string_equal(c.dcs.listen, "10.0.0.1:7400");
    assert_string_equal(c.log.level, "warn");
    assert_string_equal(c.watchdog.mode, "off");
    assert_string_equal(c.postgresql.authentication.superuser.password, "a: 'b' #");
    assert_string_equal(c.postgresql.parameters[0].value, "1GB");
    assert_int_equal(c.bootstrap.n_initdb, 2);
    assert_true(c.tags.nofailover);
    assert_non_null(strstr(c.bootstrap.dcs_json, "\"pg_stat_statements.max\""));
    config_close(&c);
}

static void what_has_no_counterpart_is_told_and_left_out(void **state)
{
    (void)state;
    static const char *const told[] = {"namespace: ",
                                       "log.dir: ",
                                       "etcd3: ",
                                       "bootstrap.users: ",
                                       "watchdog.safety_margin: ",
                                       "bootstrap.dcs.ttl: never carried over",
                                       "bootstrap.dcs.postgresql.x: no counterpart"};
    struct buf yaml CLEANUP(buf_close) = BUF_INIT;
    struct buf left CLEANUP(buf_close) = BUF_INIT;
    assert_int_equal(import(whole, "10.9.9.9:7401", &yaml, &left), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(told); i++)
        assert_non_null(strstr(buf_cstr(&left), told[i]));
    assert_null(strstr(buf_cstr(&yaml), "ttl"));
    assert_null(strstr(buf_cstr(&yaml), "etcd"));
    assert_non_null(strstr(buf_cstr(&yaml), "10.9.9.9:7401"));
}

/* Every key that Patroni 4.1 has, as its documentation lists them. */
static const char all_of_patroni[] =
    "scope: s\nname: n\nnamespace: /x/\nthread_pool_size: 5\nthread_stack_size: 512kB\n"
    "log: {type: json, level: INFO, traceback_level: ERROR, format: '%(message)s', dateformat: "
    "x, "
    "static_fields: {a: b}, max_queue_size: 9, dir: /x, mode: 0644, file_num: 4, file_size: 9, "
    "loggers: {a: INFO}, deduplicate_heartbeat_logs: true}\n"
    "restapi: {listen: '0.0.0.0:8008', connect_address: '10.0.0.1:8008', authentication: "
    "{username: u, password: p}, certfile: /c, keyfile: /k, keyfile_password: x, cafile: /ca, "
    "ciphers: x, verify_client: none, allowlist: [127.0.0.1], allowlist_include_members: true, "
    "http_extra_headers: {a: b}, https_extra_headers: {a: b}, request_queue_size: 5, "
    "thread_pool_size: 5, server_tokens: original}\n"
    "ctl: {authentication: {username: u}, insecure: true, cacert: /c}\n"
    "etcd: {host: h}\netcd3: {host: h}\nconsul: {host: h}\nzookeeper: {hosts: [h]}\n"
    "exhibitor: {port: 1}\nkubernetes: {labels: {a: b}}\nraft: {self_addr: x}\n"
    "citus: {group: 0, database: x}\n"
    "bootstrap:\n"
    "  dcs: {ttl: 30, loop_wait: 10, retry_timeout: 10, maximum_lag_on_failover: 1048576, "
    "maximum_lag_on_syncnode: -1, max_timelines_history: 0, master_start_timeout: 60, "
    "primary_stop_timeout: 0, master_stop_timeout: 0, primary_race_backoff: 0, "
    "synchronous_mode: on, synchronous_mode_strict: false, synchronous_node_count: 1, "
    "failsafe_mode: true, check_timeline: true, pause: false, member_slots_ttl: 1800, "
    "slots: {a: {type: physical}}, ignore_slots: [{name: b}], standby_cluster: {host: h}, "
    "postgresql: {use_pg_rewind: false, use_slots: true, parameters: {work_mem: 8MB}, "
    "remove_data_directory_on_diverged_timelines: true, "
    "recovery_conf: {restore_command: x, recovery_target: immediate}, pg_hba: [local all all "
    "peer], pg_ident: [m a b], parameters_primary: {a: 1}, parameters_replica: {a: 1}, "
    "parameters_standby_leader: {a: 1}, pg_hba_primary: [x], pg_hba_replica: [x], "
    "pg_ident_primary: [x], create_replica_methods: [basebackup], callbacks: {on_start: x}, "
    "pg_ctl_timeout: 60}}\n"
    "  initdb: [data-checksums]\n  pg_hba: [x]\n  users: {a: {password: b}}\n"
    "  post_bootstrap: /x\n"
    "postgresql: {listen: '0.0.0.0:5432', connect_address: '10.0.0.1:5432', proxy_address: "
    "'10.0.0.1:6432', data_dir: /d, config_dir: /e, bin_dir: /b, bin_name: {pg_ctl: x}, "
    "pgpass: "
    "/p, authentication: {superuser: {username: a, password: b, sslmode: require, sslkey: /k}, "
    "replication: {username: a, password: b, sslmode: require}, rewind: {username: a, "
    "password: b, sslcert: /c, channel_binding: x}}, use_unix_socket: true, "
    "use_unix_socket_repl: true, parameters: {a.b: 1}, custom_conf: /c, recovery_conf: "
    "{recovery_end_command: y}, callbacks: {on_reload: a, on_restart: a, on_role_change: a, "
    "on_start: a, on_stop: a}, create_replica_methods: [m, basebackup], m: {command: x}, "
    "basebackup: [verbose], pg_ctl_timeout: 60, use_pg_rewind: true, rewind: [debug], "
    "remove_data_directory_on_rewind_failure: true, "
    "remove_data_directory_on_diverged_timelines: false, pre_promote: x, before_stop: y, "
    "database: d, pg_hba: [local all all peer], pg_ident: [m a b]}\n"
    "watchdog: {mode: required, device: /dev/watchdog, safety_margin: 5, driver: x}\n"
    "tags: {nofailover: false, noloadbalance: true, clonefrom: true, nosync: false, nostream: "
    "false, replicatefrom: n2, failover_priority: 2, own: 1}\n";

static void every_key_of_patroni_comes_along_or_is_told_with_its_reason(void **state)
{
    static const char *const told[] = {
        "log.format: ",
        "restapi.keyfile_password: ",
        "bootstrap.dcs.failsafe_mode: not needed",
        "bootstrap.dcs.postgresql.parameters_primary: nothing is set by role",
        "bootstrap.dcs.postgresql.callbacks: a node's own here: write it into the files",
        "postgresql.authentication.rewind.sslcert: ",
        "bootstrap.dcs.postgresql.recovery_conf: ",
        "tags.own: ",
    };
    static const char *const dynamic[] = {
        /* what all nodes have said goes before what this one says */
        "\"use_pg_rewind\":false",
        "\"remove_data_directory_on_diverged_timelines\":true",
        "\"remove_data_directory_on_rewind_failure\":true",
        "\"primary_start_timeout\":60",
        "\"maximum_lag_on_syncnode\":0",
        "\"restore_command\":\"x\""};
    struct config c;
    struct buf yaml CLEANUP(buf_close) = BUF_INIT;
    struct buf left CLEANUP(buf_close) = BUF_INIT;
    struct buf none CLEANUP(buf_close) = BUF_INIT;
    struct buf normal CLEANUP(buf_close) = BUF_INIT;
    (void)state;
    enum err rv = import(all_of_patroni, NULL, &yaml, &left);
    if (rv != ERR_OK || strstr(buf_cstr(&left), "no counterpart") != NULL)
        fail_msg("%s", buf_cstr(&left));
    for (size_t i = 0; i < ARRAY_LEN(told); i++)
        if (strstr(buf_cstr(&left), told[i]) == NULL)
            fail_msg("no %s in %s", told[i], buf_cstr(&left));
    assert_int_equal(config_parse("x", buf_slice(&yaml), &c, &none), ERR_OK);
    assert_string_equal(c.log.format, "json");
    assert_int_equal(dynamic_check(slice_str(c.bootstrap.dcs_json), &normal, NULL), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(dynamic); i++)
        if (strstr(buf_cstr(&normal), dynamic[i]) == NULL)
            fail_msg("no %s in %s", dynamic[i], buf_cstr(&normal));
    config_close(&c);
}

static void what_is_missing_is_told_with_the_result(void **state)
{
    (void)state;
    struct buf yaml CLEANUP(buf_close) = BUF_INIT;
    struct buf left CLEANUP(buf_close) = BUF_INIT;
    assert_int_equal(import("scope: s\nname: n\n", NULL, &yaml, &left), ERR_INVALID);
    assert_non_null(strstr(buf_cstr(&left), "dcs.listen"));
    assert_non_null(strstr(buf_cstr(&yaml), "scope: \"s\""));
}

static void what_is_no_map_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "[1, 2]", "a: [", "- x", "a: &x {b: *x}"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct buf yaml CLEANUP(buf_close) = BUF_INIT;
        struct buf left CLEANUP(buf_close) = BUF_INIT;
        assert_int_equal(import(texts[i], NULL, &yaml, &left), ERR_INVALID);
        assert_true(left.len > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_both_know_comes_along),
        cmocka_unit_test(what_has_no_counterpart_is_told_and_left_out),
        cmocka_unit_test(every_key_of_patroni_comes_along_or_is_told_with_its_reason),
        cmocka_unit_test(what_is_missing_is_told_with_the_result),
        cmocka_unit_test(what_is_no_map_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
