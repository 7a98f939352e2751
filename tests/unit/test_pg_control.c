#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "agent/pg_monitor.h"
#include "agent/worker/worker_control.h"

static const char sample[] = "pg_control version number:            1300\n"
                             "Catalog version number:               202209061\n"
                             "Database system identifier:           7574939209371023471\n"
                             "Database cluster state:               shut down in recovery\n"
                             "pg_control last modified:             Fri Nov 20 23:29:04 2026\n"
                             "Latest checkpoint location:           0/3000060\n"
                             "Latest checkpoint's REDO location:    0/3000028\n"
                             "Latest checkpoint's REDO WAL file:    000000010000000000000003\n"
                             "Latest checkpoint's TimeLineID:       2\n"
                             "Latest checkpoint's PrevTimeLineID:   1\n"
                             "Minimum recovery ending location:     1/3000148\n"
                             "Min recovery ending loc's timeline:   3\n"
                             "Bytes per WAL segment:                16777216\n"
                             "max_connections setting:              100\n"
                             "max_worker_processes setting:         8\n"
                             "max_wal_senders setting:              10\n"
                             "max_prepared_xacts setting:           0\n"
                             "max_locks_per_xact setting:           64\n";

static void controldata_is_read(void **state)
{
    struct control_data c;
    (void)state;
    assert_int_equal(control_parse(sample, &c, NULL), ERR_OK);
    assert_true(c.system_id == 7574939209371023471U);
    assert_string_equal(c.state, "shut down in recovery");
    assert_true(c.checkpoint_lsn == 0x3000060 && c.redo_lsn == 0x3000028);
    assert_true(c.timeline == 2 && c.recovery_timeline == 3 && c.recovery_lsn == 0x103000148);
    assert_true(c.segment_bytes == 16777216);
    assert_string_equal(c.limits, "100/8/10/0/64");
}

/* Each line matters: without it, or with another value, nothing is believed. */
static void damaged_controldata_is_refused(void **state)
{
    static const char *const lines[] = {"Database system identifier:",
                                        "Database cluster state:",
                                        "Latest checkpoint location:",
                                        "Latest checkpoint's REDO location:",
                                        "Latest checkpoint's TimeLineID:",
                                        "Minimum recovery ending location:",
                                        "Min recovery ending loc's timeline:",
                                        "Bytes per WAL segment:",
                                        "max_connections setting:",
                                        "max_locks_per_xact setting:"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        char text[sizeof sample];
        struct control_data c;
        struct errmsg e = {0};
        memcpy(text, sample, sizeof text);
        strstr(text, lines[i])[0] = 'X';
        assert_int_equal(control_parse(text, &c, &e), ERR_CORRUPT);
        assert_int_not_equal(e.text[0], 0);
    }
    char odd[sizeof sample];
    struct control_data c;
    memcpy(odd, sample, sizeof odd);
    strstr(odd, "16777216")[0] = '3';
    assert_int_equal(control_parse(odd, &c, NULL), ERR_CORRUPT);
}

static void the_end_of_a_record_counts_the_headers_it_crosses(void **state)
{
    static const struct {
        uint64_t lsn;
        uint64_t end;
    } rows[] = {
        {0x3000028, 0x30000a0}, /* 114 bytes, aligned to 120 */
        {0x3000000 + 8192 - 8,
         0x3000000 + 8192 + 24 + 112},              /* 8 here, 106 behind the page's header */
        {0x3000000 - 16, 0x3000000 + 40 + 104},     /* the same at a segment's end */
        {0x3000000 + 8192 - 120, 0x3000000 + 8192}, /* exactly to the end of the page */
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t end = 0;
        assert_int_equal(
            control_record_end(
                "rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: "
                "0/03000028, prev 0/02000100, desc: CHECKPOINT_SHUTDOWN redo ...",
                rows[i].lsn, 16777216, &end, NULL),
            ERR_OK);
        assert_true(end == rows[i].end);
    }
    uint64_t end = 0;
    assert_int_equal(control_record_end("pg_waldump: error", 0, 16777216, &end, NULL),
                     ERR_CORRUPT);
    assert_int_equal(control_record_end("len (rec/tot): 1/ x", 0, 16777216, &end, NULL),
                     ERR_CORRUPT);
}

static void a_segment_is_known_by_its_name(void **state)
{
    uint64_t timeline = 0;
    uint64_t end = 0;
    (void)state;
    assert_int_equal(control_segment_end("0000000A00000001000000FF", 16777216, &timeline, &end),
                     ERR_OK);
    assert_true(timeline == 10 && end == 0x200000000);
    assert_int_equal(control_segment_end("0000000A.history", 16777216, &timeline, &end),
                     ERR_INVALID);
    assert_int_equal(
        control_segment_end("0000000A00000001000000FF.partial", 16777216, &timeline, &end),
        ERR_INVALID);
}

static void the_last_line_of_a_history_says_where_it_began(void **state)
{
    uint64_t parent = 0;
    uint64_t lsn = 0;
    (void)state;
    assert_int_equal(
        pg_history_last("1\t0/3000148\tno recovery target specified\n\n2\t1/5\tx\n", &parent,
                        &lsn),
        ERR_OK);
    assert_true(parent == 2 && lsn == 0x100000005);
    assert_int_equal(pg_history_last("", &parent, &lsn), ERR_INVALID);
    assert_int_equal(pg_history_last("nonsense\n", &parent, &lsn), ERR_INVALID);
}

/* ---- the monitor's answer ------------------------------------------------------------------ */

static const char *const standby[] = {"t",
                                      NULL,
                                      "0/5000000",
                                      "0/4000000",
                                      NULL,
                                      "1",
                                      "7574939209371023471",
                                      "",
                                      "host='h' ",
                                      "n1",
                                      "7",
                                      "4711",
                                      "t",
                                      "2",
                                      "Activity:RecoveryWalStream",
                                      "1700000000000001",
                                      "1700000000000002",
                                      "t",
                                      "0/6000000"};
static const char *const primary[] = {"f",
                                      "0/5000000",
                                      NULL,
                                      NULL,
                                      "000000030000000000000005",
                                      "3",
                                      "-1",
                                      "FIRST 1 (\"a\")",
                                      "",
                                      NULL,
                                      NULL,
                                      NULL,
                                      "f",
                                      NULL,
                                      NULL,
                                      "1700000000000001",
                                      NULL,
                                      "f",
                                      NULL};

static PGresult *row(const char *const *values, int n)
{
    PGresult *r = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    PGresAttDesc columns[20] = {{.name = NULL}};
    char name[] = "c";
    for (int i = 0; i < n; i++)
        columns[i].name = name;
    assert_true(PQsetResultAttrs(r, n, columns));
    for (int i = 0; values != NULL && i < n; i++)
        assert_true(PQsetvalue(r, 0, i, (char *)values[i],
                               values[i] != NULL ? (int)strlen(values[i]) : -1));
    return r;
}

static enum err parse_with(const char *const *facts, const char *const *sender,
                           const PGresult *settings, struct pg_seen *ret)
{
    PGresult *f = row(facts, 19);
    PGresult *s = row(sender, 9);
    enum err rv = pg_seen_parse(f, s, settings, ret);
    PQclear(f);
    PQclear(s);
    return rv;
}

static enum err parse(const char *const *facts, const char *const *sender, struct pg_seen *ret)
{
    return parse_with(facts, sender, NULL, ret);
}

static void a_standbys_answer_is_read(void **state)
{
    struct pg_seen s = {0};
    (void)state;
    assert_int_equal(parse(standby, NULL, &s), ERR_OK);
    assert_true(s.in_recovery && s.streaming && s.walreceiver_pid == 4711);
    assert_true(s.receive_lsn == 0x5000000 && s.replay_lsn == 0x4000000 && s.timeline == 2);
    assert_true(s.follow_token == 7);
    assert_true(s.start_us == 1700000000000001 && s.replayed_us == 1700000000000002 &&
                s.replay_paused && s.latest_end_lsn == 0x6000000);
    assert_string_equal(s.upstream, "n1");
    /* The timeline it has reached is not forgotten when the walreceiver ends. */
    const char *later[19];
    memcpy(later, standby, sizeof later);
    later[11] = later[13] = NULL;
    later[12] = "f";
    assert_int_equal(parse(later, NULL, &s), ERR_OK);
    assert_true(s.timeline == 2 && s.walreceiver_pid == 0 && !s.streaming);
}

static void a_primarys_answer_is_read(void **state)
{
    static const char *const sender[] = {"a",   "t",         "0/4FFFFFF", "99", "repl",
                                         "::1", "streaming", "sync",      "1"};
    struct pg_seen s = {.timeline = 2, .parent = 1};
    (void)state;
    assert_int_equal(parse(primary, sender, &s), ERR_OK);
    assert_true(!s.in_recovery && s.timeline == 3 && s.parent == 0 && s.flush_lsn == 0x5000000);
    assert_true(s.system_id == UINT64_MAX && s.senders_n == 1 &&
                s.senders[0].flush_lsn == 0x4ffffff && s.senders[0].sync_priority == 1);
    assert_string_equal(s.senders[0].usename, "repl");
    assert_string_equal(s.senders[0].client_addr, "::1");
    assert_string_equal(s.senders[0].state, "streaming");
    assert_string_equal(s.senders[0].sync_state, "sync");
}

static void a_pending_restart_is_known_until_the_next_long_look(void **state)
{
    static const char reason[] = "{\"fsync\": {\"old_value\": \"on\", \"new_value\": \"off\"}}";
    static const char *const yes[] = {"t", reason, "100/8/10/0/64"};
    static const char *const none[] = {"f", "{}", "100/8/10/0/64"};
    struct pg_seen s = {0};
    (void)state;
    PGresult *r = row(yes, 3);
    assert_int_equal(parse_with(primary, NULL, r, &s), ERR_OK);
    assert_true(s.pending_restart);
    assert_string_equal(s.pending, reason);
    assert_string_equal(s.limits, "100/8/10/0/64");
    PQclear(r);
    assert_int_equal(parse(primary, NULL, &s), ERR_OK);
    assert_true(s.pending_restart);
    r = row(none, 3);
    assert_int_equal(parse_with(primary, NULL, r, &s), ERR_OK);
    assert_false(s.pending_restart);
    PQclear(r);
    r = row(NULL, 3);
    assert_int_equal(parse_with(primary, NULL, r, &s), ERR_INVALID);
    PQclear(r);
}

static void an_answer_that_is_not_sound_changes_nothing(void **state)
{
    static const struct {
        int column;
        const char *value;
    } bad[] = {
        {0, "maybe"}, {0, NULL}, {1, "x"}, {4, "short"}, {4, "00000003000000000000000G5"},
        {5, "-1"},    {6, ""},   {6, "0"}, {11, "x"},    {12, NULL}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        const char *values[19];
        struct pg_seen s = {.serial = 5, .timeline = 9};
        memcpy(values, primary, sizeof values);
        values[bad[i].column] = bad[i].value;
        assert_int_equal(parse(values, NULL, &s), ERR_INVALID);
        assert_true(s.serial == 5 && s.timeline == 9 && s.flush_lsn == 0);
    }
    char name[80];
    memset(name, 'a', sizeof name);
    name[79] = '\0';
    const char *sender[] = {name, "t", NULL, "1", NULL, NULL, NULL, NULL, NULL};
    struct pg_seen s = {0};
    assert_int_equal(parse(primary, sender, &s), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(controldata_is_read),
        cmocka_unit_test(damaged_controldata_is_refused),
        cmocka_unit_test(the_end_of_a_record_counts_the_headers_it_crosses),
        cmocka_unit_test(a_segment_is_known_by_its_name),
        cmocka_unit_test(the_last_line_of_a_history_says_where_it_began),
        cmocka_unit_test(a_standbys_answer_is_read),
        cmocka_unit_test(a_primarys_answer_is_read),
        cmocka_unit_test(a_pending_restart_is_known_until_the_next_long_look),
        cmocka_unit_test(an_answer_that_is_not_sound_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
