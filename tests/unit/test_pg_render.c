#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "agent/pg_render.h"

static struct config config;
static struct pg_settings dynamic;

static struct pg_render render(void)
{
    config = (struct config){.scope = (char *)"de'mo"};
    config.postgresql.listen = (char *)"127.0.0.1:5433";
    config.postgresql.authentication.superuser =
        (struct conf_user){(char *)"postgres", (char *)"s"};
    config.postgresql.authentication.replication =
        (struct conf_user){(char *)"repl", (char *)"p:w\\d"};
    config.postgresql.authentication.rewind = (struct conf_user){(char *)"rewind", (char *)"x"};
    return (struct pg_render){.config = &config,
                              .dynamic = &dynamic,
                              .socket_dir = "/run/x",
                              .conninfo = "",
                              .slot = "regent_n1",
                              .upstream = "",
                              .retry_interval_ms = 100};
}

static void expect_conf(const struct pg_render *r, const char *part, bool wanted)
{
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    struct errmsg e = {0};
    assert_int_equal(pg_render_conf(r, &b, &e), ERR_OK);
    bool found = strstr(buf_cstr(&b), part) != NULL;
    if (found != wanted)
        fail_msg("%s: \"%s\" in\n%s", wanted ? "missing" : "unexpected", part, buf_cstr(&b));
}

static void the_agents_settings_come_last_and_cannot_be_overruled(void **state)
{
    struct pg_render r = render();
    (void)state;
    assert_int_equal(
        pg_settings_parse(slice_str("{\"parameters\": {\"Primary_Conninfo\": \"host=evil\", "
                                    "\"synchronous_standby_names\": \"*\", \"port\": 1, "
                                    "\"wal_level\": \"minimal\", \"fsync\": true}}"),
                          &dynamic, NULL),
        ERR_OK);
    expect_conf(&r, "evil", false);
    expect_conf(&r, "'*'", false);
    expect_conf(&r, "minimal'", false);
    expect_conf(&r, "\nport = '5433'\n", true);
    expect_conf(&r, "\nfsync = 'on'\n", true);
    expect_conf(&r, "\nwal_log_hints = 'on'\n", true);
    expect_conf(&r, "\nprimary_conninfo = ''\n", true);
    expect_conf(&r, "\nprimary_slot_name = ''\n", true);
    expect_conf(&r, "sync_replication_slots", false);
    r.logical_slots = true;
    expect_conf(&r, "\nhot_standby_feedback = 'on'\n", true);
    expect_conf(&r, "sync_replication_slots", false);
    r.native_slots = true;
    r.ahead = "regent_n2, regent_n3";
    expect_conf(&r, "\nsync_replication_slots = 'on'\n", true);
    expect_conf(&r, "\nsynchronized_standby_slots = 'regent_n2, regent_n3'\n", true);
    expect_conf(&r, "\ncluster_name = 'de''mo'\n", true);
    expect_conf(&r, "\nwal_retrieve_retry_interval = '100ms'\n", true);
    pg_settings_close(&dynamic);
}

static void local_settings_follow_dynamic_ones(void **state)
{
    struct pg_render r = render();
    (void)state;
    assert_int_equal(
        pg_settings_parse(
            slice_str("{\"parameters\": {\"work_mem\": \"1MB\", \"x.y\": 2.5, \"z\": null}}"),
            &dynamic, NULL),
        ERR_OK);
    config.postgresql.parameters[0] = (struct conf_pair){(char *)"work_mem", (char *)"2MB"};
    config.postgresql.n_parameters = 1;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    assert_int_equal(pg_render_conf(&r, &b, NULL), ERR_OK);
    const char *text = buf_cstr(&b);
    assert_true(strstr(text, "work_mem = '1MB'") < strstr(text, "work_mem = '2MB'"));
    assert_non_null(strstr(text, "x.y = '2.5'"));
    pg_settings_close(&dynamic);
}

static void a_value_that_cannot_be_written_is_named(void **state)
{
    struct pg_render r = render();
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    struct errmsg e = {0};
    (void)state;
    config.postgresql.parameters[0] =
        (struct conf_pair){(char *)"work_mem", (char *)"1\nfsync=off"};
    config.postgresql.n_parameters = 1;
    assert_int_equal(pg_render_conf(&r, &b, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "work_mem"));
}

static void dynamic_settings_that_are_no_settings_are_refused(void **state)
{
    static const char *const bad[] = {"{\"parameters\": []}",
                                      "{\"parameters\": {\"a b\": 1}}",
                                      "{\"parameters\": {\"a\": {}}}",
                                      "{\"pg_hba\": {}}",
                                      "{\"pg_hba\": [1]}",
                                      "[]",
                                      "{",
                                      "{\"parameters\": {\"a\": 1, \"a\": 2}}"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct errmsg e = {0};
        assert_int_equal(pg_settings_parse(slice_str(bad[i]), &dynamic, &e), ERR_INVALID);
        assert_int_equal(dynamic.n_pairs, 0);
        assert_int_not_equal(e.text[0], 0);
    }
    assert_int_equal(pg_settings_parse(slice_str(""), &dynamic, NULL), ERR_OK);
}

static void the_agents_hba_lines_come_first(void **state)
{
    struct pg_render r = render();
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    (void)state;
    config.postgresql.pg_hba[0] = (char *)"host all all 10.0.0.0/8 scram-sha-256";
    config.postgresql.n_pg_hba = 1;
    assert_int_equal(pg_render_hba(&r, &b, NULL), ERR_OK);
    const char *text = buf_cstr(&b);
    const char *mine = strstr(text, "host replication \"repl\" all scram-sha-256\n");
    assert_non_null(mine);
    assert_true(mine < strstr(text, "10.0.0.0/8"));
    assert_null(strstr(text, "samenet"));
    r.closed = true;
    buf_clear(&b);
    assert_int_equal(pg_render_hba(&r, &b, NULL), ERR_OK);
    assert_null(strstr(buf_cstr(&b), "10.0.0.0/8"));
}

static void an_hba_line_stays_one_line(void **state)
{
    struct pg_render r = render();
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    (void)state;
    config.postgresql.n_pg_hba = 1;
    config.postgresql.pg_hba[0] = (char *)"local all all peer\nhost all all all trust";
    assert_int_equal(pg_render_hba(&r, &b, NULL), ERR_INVALID);
    config.postgresql.pg_hba[0] = (char *)"local all all peer \\";
    assert_int_equal(pg_render_hba(&r, &b, NULL), ERR_INVALID);
}

static void the_connection_string_has_no_password(void **state)
{
    struct pg_render r = render();
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    struct buf pass CLEANUP(buf_close) = BUF_INIT;
    (void)state;
    (void)r;
    struct postgres_upstream to = {.host = "10.0.0.2", .port = "5432"};
    pg_render_conninfo(&config, &to, "1b4e28ba", "/x/pgpass", &b);
    assert_non_null(strstr(buf_cstr(&b),
                           "host='10.0.0.2' port='5432' user='repl' passfile='/x/pgpass' "
                           "application_name='1b4e28ba'"));
    assert_null(strstr(buf_cstr(&b), "p:w"));
    pg_render_passfile(&config, &pass);
    assert_string_equal(buf_cstr(&pass),
                        "*:*:replication:repl:p\\:w\\\\d\n*:*:postgres:repl:p\\:w\\\\d\n"
                        "*:*:postgres:rewind:x\n");
}

static void a_socket_always_fits(void **state)
{
    char dir[PG_PATH_MAX];
    char deep[300];
    (void)state;
    pg_socket_dir("/var/lib/regent", dir);
    assert_string_equal(dir, "/var/lib/regent");
    memset(deep, 'd', sizeof deep);
    deep[0] = '/';
    deep[sizeof deep - 1] = '\0';
    pg_socket_dir(deep, dir);
    assert_true(strlen(dir) < 60);
    pg_socket_dir("/data,dir", dir);
    assert_null(strchr(dir, ','));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_agents_settings_come_last_and_cannot_be_overruled),
        cmocka_unit_test(local_settings_follow_dynamic_ones),
        cmocka_unit_test(a_value_that_cannot_be_written_is_named),
        cmocka_unit_test(dynamic_settings_that_are_no_settings_are_refused),
        cmocka_unit_test(the_agents_hba_lines_come_first),
        cmocka_unit_test(an_hba_line_stays_one_line),
        cmocka_unit_test(the_connection_string_has_no_password),
        cmocka_unit_test(a_socket_always_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
