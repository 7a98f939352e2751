/* REGENT_A_B overrides the key a.b. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "conf/config.h"
#include "conf/keys.h"

#define LEAST                                                                   \
    "scope: demo\nname: n1\ndcs: {listen: 'a:1', join: ['x:1', 'y:1']}\n"       \
    "postgresql: {listen: 'a:2', data_dir: /pg, parameters: {work_mem: 4MB}}\n" \
    "bootstrap: {dcs: {ttl: 5}, initdb: [a]}\nlog: {level: warn}\n"

struct row {
    const char *name, *value, *want; /* want NULL: it is good */
};

static enum err with(const struct row *r, struct config *ret, struct buf *report)
{
    (void)setenv(r->name, r->value, 1);
    enum err rv = config_parse("f.yml", slice_str(LEAST), ret, report);
    (void)unsetenv(r->name);
    return rv;
}

static void one_value_wins_over_the_file(void **state)
{
    (void)state;
    struct config c;
    struct buf report = {.max = 65536};
    assert_int_equal(with(&(struct row){"REGENT_LOG_LEVEL", "debug", NULL}, &c, &report),
                     ERR_OK);
    assert_string_equal(c.log.level, "debug");
    config_close(&c);
    assert_int_equal(with(&(struct row){"REGENT_DATA_DIR", "/srv/regent", NULL}, &c, &report),
                     ERR_OK);
    assert_string_equal(c.data_dir, "/srv/regent");
    assert_string_equal(c.dcs.tls.ca, "/srv/regent/pki/ca.crt");
    config_close(&c);
    assert_int_equal(with(&(struct row){"REGENT_TAGS_NOSYNC", "yes", NULL}, &c, &report),
                     ERR_OK);
    assert_true(c.tags.nosync);
    config_close(&c);
    const struct row password = {"REGENT_POSTGRESQL_AUTHENTICATION_SUPERUSER_PASSWORD",
                                 "a: b #", NULL};
    assert_int_equal(with(&password, &c, &report), ERR_OK);
    assert_string_equal(c.postgresql.authentication.superuser.password, "a: b #");
    config_close(&c);
    buf_close(&report);
}

static void without_a_file_the_environment_alone_will_do(void **state)
{
    (void)state;
    static const char *const set[][2] = {{"REGENT_SCOPE", "demo"},
                                         {"REGENT_NAME", "n1"},
                                         {"REGENT_POSTGRESQL_LISTEN", "10.0.0.1:5432"},
                                         {"REGENT_POSTGRESQL_DATA_DIR", "/pg"},
                                         {"REGENT_DCS_LISTEN", "10.0.0.1:7400"}};
    struct config c;
    struct buf report = {.max = 65536};
    for (size_t i = 0; i < ARRAY_LEN(set); i++) {
        assert_int_equal(config_load("/nonexistent/regent.yml", &c, &report), ERR_INVALID);
        (void)setenv(set[i][0], set[i][1], 1);
    }
    assert_int_equal(config_load("/nonexistent/regent.yml", &c, &report), ERR_OK);
    assert_string_equal(c.scope, "demo");
    assert_string_equal(c.dcs.listen, "10.0.0.1:7400");
    config_close(&c);
    for (size_t i = 0; i < ARRAY_LEN(set); i++)
        (void)unsetenv(set[i][0]);
    buf_close(&report);
}

static void lists_and_maps_replace_those_of_the_file(void **state)
{
    (void)state;
    struct config c;
    struct buf report = {.max = 65536};
    assert_int_equal(with(&(struct row){"REGENT_DCS_JOIN", "['z:9']", NULL}, &c, &report),
                     ERR_OK);
    assert_int_equal(c.dcs.n_join, 1);
    assert_string_equal(c.dcs.join[0], "z:9");
    config_close(&c);
    const struct row map = {"REGENT_POSTGRESQL_PARAMETERS", "{shared_buffers: 1GB}", NULL};
    assert_int_equal(with(&map, &c, &report), ERR_OK);
    assert_int_equal(c.postgresql.n_parameters, 1);
    assert_string_equal(c.postgresql.parameters[0].key, "shared_buffers");
    config_close(&c);
    const struct row json = {"REGENT_BOOTSTRAP_DCS", "{ttl: 9}", NULL};
    assert_int_equal(with(&json, &c, &report), ERR_OK);
    assert_string_equal(c.bootstrap.dcs_json, "{\"ttl\":9}");
    config_close(&c);
    assert_int_equal(with(&(struct row){"REGENT_BOOTSTRAP_INITDB", "", NULL}, &c, &report),
                     ERR_OK);
    assert_int_equal(c.bootstrap.n_initdb, 0);
    config_close(&c);
    buf_close(&report);
}

static void a_bad_value_is_told_by_the_variable_s_name(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"REGENT_LOG_LEVEL", "loud",
         "REGENT_LOG_LEVEL: log.level: \"loud\" is none of debug|info|warn|error\n"},
        {"REGENT_TAGS_NOSYNC", "7",
         "REGENT_TAGS_NOSYNC: tags.nosync: \"7\" is neither true nor false\n"},
        {"REGENT_DCS_LISTEN", "a",
         "REGENT_DCS_LISTEN: dcs.listen: \"a\" is not host:port; write for "
         "example 10.0.0.1:7400 or [fd00::1]:7400\n"},
        {"REGENT_DCS_JOIN", "z:9", "REGENT_DCS_JOIN: dcs.join: expected a list (- item)\n"},
        {"REGENT_DCS_JOIN", "[",
         "REGENT_DCS_JOIN: not valid YAML: did not find expected node content\n"},
        {"REGENT_SCOPE", "", "f.yml: scope is missing (name of the cluster)\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct config c;
        struct buf report = {.max = 65536};
        assert_int_equal(with(&rows[i], &c, &report), ERR_INVALID);
        assert_string_equal(buf_cstr(&report), rows[i].want);
        buf_close(&report);
    }
}

static void no_two_keys_share_a_variable(void **state)
{
    (void)state;
    for (size_t i = 0; i < conf_keys_n; i++) {
        for (size_t j = 0; j < i; j++) {
            const char *a = conf_keys[i].path;
            const char *b = conf_keys[j].path;
            while (*a != '\0' &&
                   (*a == *b || (strchr("._", *a) && strchr("._", *b) && *b != '\0'))) {
                a++;
                b++;
            }
            assert_false(*a == '\0' && *b == '\0');
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_value_wins_over_the_file),
        cmocka_unit_test(without_a_file_the_environment_alone_will_do),
        cmocka_unit_test(lists_and_maps_replace_those_of_the_file),
        cmocka_unit_test(a_bad_value_is_told_by_the_variable_s_name),
        cmocka_unit_test(no_two_keys_share_a_variable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
