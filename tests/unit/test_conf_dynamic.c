#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "conf/dynamic.h"
#include "conf/yaml_json.h"
#include "proto/messages.h"

static void the_table_has_every_key_of_the_record(void **state)
{
    (void)state;
    assert_int_equal(dynamic_keys_n, msg_config_rec.n_fields);
    for (size_t i = 0; i < dynamic_keys_n; i++)
        assert_string_equal(dynamic_keys[i].name, msg_config_rec.fields[i].name);
}

static const char catalogue[] =
    "{\"work_mem\": [\"integer\", \"user\", \"kB\", \"64\", \"2147483647\", \"\"],"
    " \"max_connections\": [\"integer\", \"postmaster\", \"\", \"1\", \"262143\", \"\"],"
    " \"wal_writer_delay\": [\"integer\", \"sighup\", \"ms\", \"1\", \"10000\", \"\"],"
    " \"wal_buffers\": [\"integer\", \"postmaster\", \"8kB\", \"-1\", \"262143\", \"\"],"
    " \"seq_page_cost\": [\"real\", \"user\", \"\", \"0\", \"1.79769e+308\", \"\"],"
    " \"fsync\": [\"bool\", \"sighup\", \"\", \"\", \"\", \"\"],"
    " \"synchronous_commit\": [\"enum\", \"user\", \"\", \"\", \"\", "
    "\"local|remote_write|remote_apply|on|off\"],"
    " \"wal_level\": [\"enum\", \"postmaster\", \"\", \"\", \"\", \"minimal|replica|logical\"],"
    " \"block_size\": [\"integer\", \"internal\", \"\", \"8192\", \"8192\", \"\"],"
    " \"shared_preload_libraries\": [\"string\", \"postmaster\", \"\", \"\", \"\", \"\"],"
    " \"session_preload_libraries\": [\"string\", \"superuser\", \"\", \"\", \"\", \"\"],"
    " \"local_preload_libraries\": [\"string\", \"user\", \"\", \"\", \"\", \"\"],"
    " \"$libdir\": [\"libraries\", \"internal\", \"\", \"\", \"\", "
    "\"auto_explain|pg_stat_statements\"],"
    " \"search_path\": [\"string\", \"user\", \"\", \"\", \"\", \"\"]}";

static void what_postgresql_would_refuse_is_refused(void **state)
{
    static const struct {
        const char *name, *value;
        const char *complaint; /* NULL: accepted */
    } rows[] = {
        {"work_mem", "4MB", NULL},
        {"WORK_MEM", "65536", NULL},
        {"work_mem", "1.5GB", NULL},
        {"work_mem", "4 MB", NULL},
        {"work_mem", "4mb", "valid units are B, kB, MB, GB and TB"},
        {"work_mem", "4s", "valid units are"},
        {"work_mem", "4X", "valid units are"},
        {"work_mem", "1kB", "outside 64 .. 2147483647 in units of kB"},
        {"work_mem", "much", "not a number"},
        {"work_mem", "", "not a number"},
        {"work_mem", "nan", "not a number"},
        {"wal_buffers", "16MB", NULL},
        {"wal_buffers", "-1", NULL},
        {"wal_buffers", "4GB", "outside"},
        {"wal_writer_delay", "1s", NULL},
        {"wal_writer_delay", "1min", "outside 1 .. 10000"},
        {"wal_writer_delay", "200us", "outside"},
        {"max_connections", "100", NULL},
        {"max_connections", "0", "outside 1 .. 262143"},
        {"max_connections", "100kB", "without a unit"},
        {"seq_page_cost", "1.5", NULL},
        {"seq_page_cost", "-1", "outside"},
        {"fsync", "off", NULL},
        {"fsync", "tru", NULL},
        {"fsync", "maybe", "neither on nor off"},
        {"synchronous_commit", "remote_apply", NULL},
        {"synchronous_commit", "true", NULL},
        {"synchronous_commit", "remote", "none of local|remote_write|remote_apply|on|off"},
        {"wal_level", "archive", "none of minimal|replica|logical"},
        {"block_size", "8192", "does not let anybody set it"},
        {"search_path", "anything, goes", NULL},
        {"wrok_mem", "1",
         "has no parameter \"wrok_mem\"; the nearest known one is \"work_mem\""},
        {"pg_stat_statements.max", "anything", NULL},
        {"shared_preload_libraries", "", NULL},
        {"shared_preload_libraries", "pg_stat_statements, \"auto_explain\"", NULL},
        {"Session_Preload_Libraries", "$libdir/auto_explain.so", NULL},
        {"session_preload_libraries", "/opt/x/own", NULL},
        {"local_preload_libraries", "auto_explain,pg_stat_statement",
         "no library \"pg_stat_statement\""},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct errmsg e = {0};
        enum err rv =
            settings_check_value(slice_str(catalogue), rows[i].name, rows[i].value, &e);
        if ((rv == ERR_OK) != (rows[i].complaint == NULL) ||
            (rv != ERR_OK && strstr(e.text, rows[i].complaint) == NULL))
            fail_msg("%s = %s: %s", rows[i].name, rows[i].value, e.text);
    }
    assert_int_equal(settings_check_value(slice_str(""), "wrok_mem", "x", NULL), ERR_OK);
    assert_true(settings_needs_restart(slice_str(catalogue), "Max_Connections"));
    assert_false(settings_needs_restart(slice_str(catalogue), "work_mem"));
    assert_false(settings_needs_restart(slice_str(catalogue), "x.y"));
}

static const struct hba_roles roles = {
    .superuser = "postgres", .replication = "replicator", .rewind = "rewind"};

static void an_edit_says_what_is_wrong_with_it(void **state)
{
    static const char before[] = "{\"ttl\": 5, \"postgresql\": {\"parameters\": {\"port\": 1, "
                                 "\"max_connections\": 10}}}";
    static const struct {
        const char *json;
        const char *complaint;
    } rows[] = {
        {"{}", NULL},
        {"{\"postgresql\": {\"parameters\": {\"work_mem\": \"8MB\", \"fsync\": true}}}", NULL},
        /* what is stored already stays as it is */
        {"{\"postgresql\": {\"parameters\": {\"port\": 1, \"max_connections\": 10}}}", NULL},
        {"{\"postgresql\": {\"parameters\": {\"port\": 2}}}", "Regent sets it by itself"},
        {"{\"postgresql\": {\"parameters\": {\"max_connections\": 11}}}", "is less than 25"},
        {"{\"postgresql\": {\"parameters\": {\"superuser_reserved_connections\": 0}}}",
         "is less than 3"},
        {"{\"postgresql\": {\"parameters\": {\"unix_socket_permissions\": \"0700\"}}}",
         "keeps the agent out"},
        {"{\"postgresql\": {\"parameters\": {\"wal_level\": \"minimal\"}}}", "no standby"},
        {"{\"postgresql\": {\"parameters\": {\"work_mem\": \"8XB\"}}}", "valid units"},
        {"{\"postgresql\": {\"parameters\": {\"work_mem\": {}}}}", "one value is expected"},
        {"{\"postgresql\": {\"parameters\": {\"work_mem\": \"1\\nfsync=off\"}}}", "line break"},
        {"{\"postgresql\": {\"parameters\": {\"a b\": 1}}}", "is called \"a b\""},
        {"{\"postgresql\": {\"parameters\": []}}", "parameters: a map"},
        {"{\"postgresql\": {\"parametres\": {}}}", "\"postgresql.parameters\""},
        {"{\"postgresql\": {\"pg_hba\": [\"host all all 10.0.0.0/8 scram\"]}}",
         "no authentication method"},
        {"{\"postgresql\": {\"pg_hba\": [1]}}", "every line is one text"},
        {"{\"postgresql\": {\"pg_hba\": [\"host all all all md5\", \"local all postgres "
         "reject\"]}}",
         "would lock the agent out"},
        {"{\"postgresql\": {\"pg_hba\": [\"host all all all reject\"]}}", NULL},
        {"{\"postgresql\": {\"parameters\": {\"shared_preload_libraries\": \"auto_explan\"}}}",
         "no library \"auto_explan\""},
        {"{\"postgresql\": {\"pg_ident\": [\"a b\"]}}", "map-name"},
        {"{\"tttl\": 5}", "nearest known one is \"ttl\""},
        {"{\"ttl\": 1}", "outside 2..3600"},
        {"{\"ttl\": \"7\"}", NULL},
        {"{\"ttl\": \"x\"}", "a number of 0 or more"},
        {"{\"pause\": 1}", "true or false"},
        {"{\"synchronous_mode\": \"maybe\"}", "none of off|on|quorum"},
        {"{\"synchronous_mode\": true}", NULL},
        {"{\"synchronous_node_count\": 0}", "outside 1..16"},
        {"[]", "not a JSON object"},
        {"{", "not a JSON object"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct errmsg e = {0};
        struct buf json CLEANUP(buf_close) = BUF_INIT;
        const struct dynamic_edit edit = {
            .before = slice_str(before), .catalogue = slice_str(catalogue), .roles = roles};
        enum err rv = dynamic_check_edit(slice_str(rows[i].json), &edit, &json, &e);
        if ((rv == ERR_OK) != (rows[i].complaint == NULL) ||
            (rv != ERR_OK && strstr(e.text, rows[i].complaint) == NULL))
            fail_msg("%s: %s", rows[i].json, e.text);
        assert_true((rv == ERR_OK) == (json.len > 0));
    }
}

static void the_normal_form_is_complete_and_ours(void **state)
{
    struct buf json CLEANUP(buf_close) = BUF_INIT;
    struct buf again CLEANUP(buf_close) = BUF_INIT;
    (void)state;
    assert_int_equal(
        dynamic_check(
            slice_str(
                "{\"ttl\": null, \"maximum_lag_on_syncnode\": -1, \"postgresql\": "
                "{\"use_slots\": false, \"remove_data_directory_on_rewind_failure\": true, "
                "\"parameters\": {\"a\": null, \"b\": 0.1}}}"),
            &json, NULL),
        ERR_OK);
    const char *text = buf_cstr(&json);
    static const char *const parts[] = {"\"ttl\":5",
                                        "\"use_slots\":false",
                                        "\"use_pg_rewind\":true",
                                        "\"maximum_lag_on_syncnode\":0",
                                        "\"remove_data_directory_on_rewind_failure\":true",
                                        "\"on_primary_crash\":\"auto\"",
                                        "\"postgresql\":{\"parameters\":{\"b\":0.1}}"};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (strstr(text, parts[i]) == NULL)
            fail_msg("no %s in %s", parts[i], text);
    assert_int_equal(dynamic_check(buf_slice(&json), &again, NULL), ERR_OK);
    assert_string_equal(buf_cstr(&again), text);
}

static void lines_that_keep_postgresql_from_starting_are_refused(void **state)
{
    static const struct {
        const char *line;
        const char *complaint;
    } rows[] = {
        {"", NULL},
        {"# host all", NULL},
        {"local all all peer map=m", NULL},
        {"host all all 10.0.0.0/8 scram-sha-256", NULL},
        {"host all all 10.0.0.0 255.0.0.0 md5", NULL},
        {"host all,other +group ::1/128 md5 # said", NULL},
        {"host \"a b\" \"#x\" samenet trust", NULL},
        {"hostssl all all .example.org cert clientcert=verify-full", NULL},
        {"host replication all all reject", NULL},
        {"hots all all all trust", "begins with local, host"},
        {"host all all", "at least 5 fields"},
        {"local all all", "at least 4 fields"},
        {"host all all 10.0.0.0/33 md5", "is no network"},
        {"host all all 10.0.0/8 md5", "is no network"},
        {"host all all 10.0.0.1 md5", "write 10.0.0.1/32"},
        {"host all all 10.0.0 md5", "is no address"},
        {"host all all fe80:::1 md5", "is no address"},
        {"host all all 10.0.0.0 255.0.0.0", "needs 6 fields"},
        {"host all all all peer", "peer goes with local"},
        {"host all all all cert", "cert goes with hostssl"},
        {"host all all all scram", "no authentication method"},
        {"local all all md5 option", "not name=value"},
        /* as pg_hba_file_rules of PostgreSQL 15 judges them */
        {"local all all gss", "no local lines"},
        {"host all all all gss include_realm=0 krb_realm=X", NULL},
        {"host all all all ldap", "ldap needs"},
        {"host all all all ldap ldapserver=x", "ldap needs"},
        {"host all all all ldap ldapserver=x ldapprefix=a", NULL},
        {"host all all all ldap ldapserver=x ldapprefix=a ldapport=zero", "is no port"},
        {"host all all all ldap ldapurl=\"ldap://h/dc=x\"", NULL},
        {"host all all all radius", "radius needs radiusservers"},
        {"host all all all radius radiusservers=10.0.0.1", "radius needs radiussecrets"},
        {"host all all all radius radiusservers=10.0.0.1 radiussecrets=x", NULL},
        {"host all all all pam pamservice=x", NULL},
        {"host all all all bsd", "has no bsd"},
        {"host all all all ident map=m", NULL},
        {"local all all md5 map=m", "map is no option of md5"},
        {"local all all md5 nonsense=1", "there is no option"},
        {"hostssl all all all md5 clientcert=verify-ca", NULL},
        {"hostssl all all all md5 clientcert=maybe", "verify-ca or verify-full"},
        {"host all all all md5 clientcert=verify-ca", "goes with hostssl lines only"},
        {"hostssl all all all cert map=m clientname=DN", NULL},
        {"local all \"all md5", "a quote is not closed"},
        {"local all all peer\nhost all all all trust", "line break"},
        {"local all all peer \\", "ends in a backslash"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct errmsg e = {0};
        enum err rv = hba_check(rows[i].line, &e);
        if ((rv == ERR_OK) != (rows[i].complaint == NULL) ||
            (rv != ERR_OK && strstr(e.text, rows[i].complaint) == NULL))
            fail_msg("%s: %s", rows[i].line, e.text);
    }
    assert_int_equal(ident_check("m /^(.*)@x$ \\1", NULL), ERR_OK);
    assert_int_equal(ident_check("# m a", NULL), ERR_OK);
    assert_int_equal(ident_check("m a", NULL), ERR_INVALID);
}

static void lines_that_mean_to_lock_the_cluster_out_are_refused(void **state)
{
    static const struct {
        const char *line;
        const char *whom; /* NULL: fine */
    } rows[] = {
        {"local all postgres reject", "the agent"},
        {"local postgres joe,\"postgres\" reject", "the agent"},
        {"local all all reject", NULL}, /* whoever is left */
        {"local all postgresql reject", NULL},
        {"local all postgres peer", NULL}, /* behind the agent's own: without effect */
        {"host all postgres 0.0.0.0/0 reject", NULL},
        {"host replication all 0.0.0.0/0 reject", "replication"},
        {"host all,replication replicator 10.0.0.0 255.0.0.0 reject", "replication"},
        {"hostnossl replication \"replicator\" all reject", "replication"},
        {"host replication joe all reject", NULL},
        {"host all replicator all reject", NULL}, /* all is not replication */
        {"host postgres rewind all reject", "pg_rewind"},
        {"host all all all reject", NULL},
        {"# local all postgres reject", NULL},
        {"", NULL},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct errmsg e = {0};
        char text[64];
        enum err rv = hba_check_roles(rows[i].line, &roles, &e);
        (void)snprintf(text, sizeof text, "would lock %s out",
                       rows[i].whom != NULL ? rows[i].whom : "?");
        if (rv != (rows[i].whom != NULL ? ERR_PRECONDITION : ERR_OK) ||
            (rv != ERR_OK && strstr(e.text, text) == NULL))
            fail_msg("%s: %s", rows[i].line, e.text);
    }
}

static void a_patch_is_merged(void **state)
{
    static const struct {
        const char *before, *patch, *after; /* NULL: refused */
    } rows[] = {
        {"{\"a\":1}", "{\"b\":{\"c\":2}}", "{\"a\":1,\"b\":{\"c\":2}}"},
        {"{\"a\":1,\"b\":{\"c\":2,\"d\":3}}", "{\"a\":null,\"b\":{\"c\":null,\"e\":4}}",
         "{\"b\":{\"d\":3,\"e\":4}}"},
        {"{\"a\":{\"b\":1}}", "{\"a\":[1]}", "{\"a\":[1]}"},
        {"{\"a\":1}", "{}", "{\"a\":1}"},
        {"{\"a\":1}", "[]", NULL},
        {"{\"a\":1}", "{", NULL},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct errmsg e = {0};
        struct buf out = BUF_INIT;
        enum err rv =
            dynamic_merge(slice_str(rows[i].before), slice_str(rows[i].patch), &out, &e);
        assert_int_equal(rv, rows[i].after != NULL ? ERR_OK : ERR_INVALID);
        if (rows[i].after != NULL)
            assert_string_equal(buf_cstr(&out), rows[i].after);
        buf_close(&out);
    }
}

static void yaml_becomes_json_and_json_yaml(void **state)
{
    static const struct {
        const char *yaml, *json; /* json NULL: refused */
    } rows[] = {
        {"ttl: 5\n", "{\"ttl\": 5}"},
        {"a: {b: [1, x], c: 'on'}\n", "{\"a\": {\"b\": [1, \"x\"], \"c\": \"on\"}}"},
        {"{}", "{}"},
        {"", NULL},
        {"# nothing\n", NULL},
        {"- 1\n", NULL},
        {"a: [1\n", NULL},
        {"a: 1\n---\nb: 2\n", NULL},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf json = BUF_INIT;
        struct buf report = {.max = 4096};
        struct buf yaml = BUF_INIT;
        struct buf again = BUF_INIT;
        enum err rv = yaml_to_json("f", slice_str(rows[i].yaml), &json, &report);
        assert_int_equal(rv, rows[i].json != NULL ? ERR_OK : ERR_INVALID);
        assert_int_equal(report.len > 0, rv != ERR_OK);
        if (rv == ERR_OK) {
            assert_string_equal(buf_cstr(&json), rows[i].json);
            yaml_of_json(buf_slice(&json), &yaml);
            assert_int_equal(yaml_to_json("f", buf_slice(&yaml), &again, &report), ERR_OK);
            assert_string_equal(buf_cstr(&again), rows[i].json);
        }
        buf_close(&json);
        buf_close(&report);
        buf_close(&yaml);
        buf_close(&again);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_has_every_key_of_the_record),
        cmocka_unit_test(what_postgresql_would_refuse_is_refused),
        cmocka_unit_test(an_edit_says_what_is_wrong_with_it),
        cmocka_unit_test(the_normal_form_is_complete_and_ours),
        cmocka_unit_test(lines_that_mean_to_lock_the_cluster_out_are_refused),
        cmocka_unit_test(a_patch_is_merged),
        cmocka_unit_test(yaml_becomes_json_and_json_yaml),
        cmocka_unit_test(lines_that_keep_postgresql_from_starting_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
