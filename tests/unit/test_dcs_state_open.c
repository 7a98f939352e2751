#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/mem.h"
#include "base/str.h"
#include "tests/unit/dcs_state_script.h"

/* What state_open() and state_restore() refuse, and what others may read. */

static void exec(const char *path, const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    (void)sqlite3_close(db);
}

static void expect_text(const char *path, const char *sql, const char *want)
{
    sqlite3 *db;
    sqlite3_stmt *st;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    assert_int_equal(sqlite3_step(st), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(st, 0), want);
    (void)sqlite3_finalize(st);
    (void)sqlite3_close(db);
}

static void expect_refused(const char *path, const char *cluster, enum err want,
                           const char *word)
{
    struct state *s = NULL;
    struct errmsg e = {0};
    assert_int_equal(state_open(path, cluster, &s, &e), want);
    assert_null(s);
    if (strstr(e.text, word) == NULL || strstr(e.text, path) == NULL)
        fail_msg("\"%s\" does not name %s and %s", e.text, word, path);
}

/* A state with one key, closed. */
static struct script *closed_state(void)
{
    struct script *x = script_new();
    (void)script_run(x, "put a 1");
    (void)script_run(x, "commit");
    state_close(x->s);
    x->s = NULL;
    return x;
}

static void another_clusters_file_is_refused(void **t)
{
    (void)t;
    struct script *x = closed_state();
    expect_refused(x->path, "cluster-2", ERR_PRECONDITION, "cluster-1");
    expect_refused(x->path, "", ERR_INVALID, "cluster id");
    script_free(x);
}

static void what_is_no_state_database_is_refused(void **t)
{
    (void)t;
    struct script *x = closed_state();
    FILE *f = fopen(x->path, "w");
    assert_non_null(f);
    (void)fputs("This is not a database, but it is longer than its header would be, and so on.",
                f);
    (void)fputs("It goes on a little, so that SQLite reads a whole header of 100 bytes.", f);
    (void)fclose(f);
    expect_refused(x->path, "cluster-1", ERR_CORRUPT, "join it anew");
    (void)unlink(x->path);
    exec(x->path, "CREATE TABLE x(y)");
    expect_refused(x->path, "cluster-1", ERR_CORRUPT, "not a state database");
    script_free(x);
}

static void a_newer_schema_is_refused(void **t)
{
    (void)t;
    struct script *x = closed_state();
    exec(x->path, "PRAGMA user_version = 99");
    expect_refused(x->path, "cluster-1", ERR_UNSUPPORTED, "version 99");
    script_free(x);
}

static void a_damaged_page_is_refused(void **t)
{
    (void)t;
    struct script *x = closed_state();
    struct stat st;
    char noise[2048];
    memset(noise, 0x5a, sizeof noise);
    assert_int_equal(stat(x->path, &st), 0);
    for (long page = 1; page * 4096 < st.st_size; page++) {
        FILE *f = fopen(x->path, "r+");
        assert_non_null(f);
        char saved[2048];
        assert_int_equal(fseek(f, page * 4096, SEEK_SET), 0);
        assert_int_equal(fread(saved, 1, sizeof saved, f), sizeof saved);
        assert_int_equal(fseek(f, page * 4096, SEEK_SET), 0);
        assert_int_equal(fwrite(noise, 1, sizeof noise, f), sizeof noise);
        (void)fflush(f);
        expect_refused(x->path, "cluster-1", ERR_CORRUPT, "join it anew");
        assert_int_equal(fseek(f, page * 4096, SEEK_SET), 0);
        assert_int_equal(fwrite(saved, 1, sizeof saved, f), sizeof saved);
        (void)fclose(f);
    }
    struct errmsg e;
    assert_int_equal(state_open(x->path, "cluster-1", &x->s, &e), ERR_OK);
    script_free(x);
}

static void a_directory_that_is_not_there_is_named(void **t)
{
    (void)t;
    expect_refused("/nonexistent/regent/state.db", "c", ERR_NOT_FOUND, "No such file");
}

static void the_file_is_private(void **t)
{
    (void)t;
    struct script *x = script_new();
    struct stat st;
    assert_int_equal(stat(x->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_string_equal(script_run(x, "copy"), "at 0");
    char copy[128];
    assert_int_equal(str_format(copy, sizeof copy, "%s/copy.db", x->dir), ERR_OK);
    assert_int_equal(stat(copy, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    script_free(x);
}

static void plain_sqlite_reads_a_copy(void **t)
{
    (void)t;
    struct script *x = script_new();
    char copy[128];
    assert_int_equal(str_format(copy, sizeof copy, "%s/copy.db", x->dir), ERR_OK);
    (void)script_run(x, "put /regent/demo/leader {\"name\":\"n1\"}");
    (void)script_run(x, "grant 5000 1");
    (void)script_run(x, "put b 2 lease=L1");
    (void)script_run(x, "del b");
    (void)script_run(x, "init n1 h:1");
    (void)script_run(x, "copy");
    expect_text(copy, "SELECT key || ' ' || value FROM kv",
                "/regent/demo/leader {\"name\":\"n1\"}");
    expect_text(copy, "SELECT value FROM keys WHERE key = '/regent/demo/leader'",
                "{\"name\":\"n1\"}");
    expect_text(copy, "SELECT group_concat(type || ' ' || key, ',') FROM changes",
                "put /regent/demo/leader,put b,delete b");
    expect_text(copy, "SELECT ttl_ms || ' ' || keys FROM leases", "5000 0");
    expect_text(copy, "SELECT name || ' ' || state FROM members", "n1 active");
    expect_text(copy, "SELECT revision || ' ' || raft_index FROM revision", "3 5");
    expect_text(copy, "SELECT group_concat(name || '=' || value) FROM snapshot_header",
                "applied=5,format=1,revision=3");
    expect_text(copy, "PRAGMA journal_mode", "delete");
    script_free(x);
}

static void a_restore_refuses_a_foreign_or_damaged_file_and_keeps_the_state(void **t)
{
    (void)t;
    struct script *x = script_new();
    struct errmsg e = {0};
    char copy[128];
    assert_int_equal(str_format(copy, sizeof copy, "%s/copy.db", x->dir), ERR_OK);
    (void)script_run(x, "put a 1");
    (void)script_run(x, "copy");
    exec(copy, "UPDATE store SET cluster_id = 'other'");
    assert_int_equal(state_restore(x->s, copy, 5, 1000, &e), ERR_PRECONDITION);
    assert_int_equal(truncate(copy, 8192), 0);
    assert_int_equal(state_restore(x->s, copy, 5, 1000, &e), ERR_CORRUPT);
    (void)unlink(copy);
    assert_int_equal(state_restore(x->s, copy, 5, 1000, &e), ERR_IO);
    assert_string_equal(script_run(x, "get a"), "1 a=1");
    assert_string_equal(script_run(x, "put b 1"), "rev 2 | put b=1 @2");
    script_free(x);
}

static void a_copy_is_of_its_moment_while_the_state_goes_on(void **t)
{
    (void)t;
    struct script *x = script_new();
    struct state_copy *c;
    struct errmsg e;
    char copy[128];
    uint8_t digest[32];
    uint64_t size = 0;
    struct stat st;
    assert_int_equal(str_format(copy, sizeof copy, "%s/copy.db", x->dir), ERR_OK);
    (void)script_run(x, "put a 1");
    (void)script_run(x, "full");
    assert_int_equal(state_copy_begin(x->s, &c, &e), ERR_OK);
    (void)script_run(x, "put a 2");
    (void)script_run(x, "put b 1");
    (void)script_run(x, "commit");
    assert_int_equal(state_copy_run(c, copy, &e), ERR_OK);
    expect_text(copy, "SELECT group_concat(key || value) FROM kv", "a1");
    assert_int_equal(state_file_digest(copy, digest, &size, &e), ERR_OK);
    assert_int_equal(stat(copy, &st), 0);
    assert_int_equal(size, st.st_size);
    state_commit_full(x->s, 9);
    assert_int_equal(state_copy_begin(x->s, &c, &e), ERR_OK);
    state_copy_cancel(c);
    state_copy_cancel(NULL);
    script_free(x);
}

static void the_quota_keeps_room_for_reserved_keys(void **t)
{
    (void)t;
    struct script *x = script_new();
    struct errmsg e = {0};
    size_t mib = 1024 * 1024;
    assert_int_equal(state_admit(x->s, 100 * mib, false, &e), ERR_OK);
    assert_int_equal(state_admit(x->s, 130 * mib, false, &e), ERR_NO_SPACE);
    assert_int_equal(state_admit(x->s, 130 * mib, true, &e), ERR_OK);
    assert_int_equal(state_admit(x->s, 145 * mib, true, &e), ERR_NO_SPACE);
    script_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_clusters_file_is_refused),
        cmocka_unit_test(what_is_no_state_database_is_refused),
        cmocka_unit_test(a_newer_schema_is_refused),
        cmocka_unit_test(a_damaged_page_is_refused),
        cmocka_unit_test(a_directory_that_is_not_there_is_named),
        cmocka_unit_test(the_file_is_private),
        cmocka_unit_test(plain_sqlite_reads_a_copy),
        cmocka_unit_test(a_restore_refuses_a_foreign_or_damaged_file_and_keeps_the_state),
        cmocka_unit_test(a_copy_is_of_its_moment_while_the_state_goes_on),
        cmocka_unit_test(the_quota_keeps_room_for_reserved_keys),
    };
    return cmocka_run_group_tests_name("dcs_state_open", tests, NULL, NULL);
}
