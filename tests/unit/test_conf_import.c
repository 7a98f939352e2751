/* A patroni.yml as a configuration of ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "conf/config.h"
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
        cmocka_unit_test(what_is_missing_is_told_with_the_result),
        cmocka_unit_test(what_is_no_map_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
