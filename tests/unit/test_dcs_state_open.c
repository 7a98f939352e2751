#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "dcs/state_internal.h"
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

static void reseal(const char *path)
{
    sqlite3 *db;
    struct errmsg e;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(hash_reseal(db, path, true, &e), ERR_OK);
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

static void a_cluster_of_a_newer_version_is_refused(void **t)
{
    (void)t;
    struct script *x = closed_state();
    exec(x->path, "UPDATE store SET version = 7");
    reseal(x->path);
    expect_refused(x->path, "cluster-1", ERR_UNSUPPORTED, "at version 7");
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
    /* The second one only helps to give pages back; what it says is checked when it is used. */
    for (long page = 2; page * 4096 < st.st_size; page++) {
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

/* Something of everything, committed and moved from the WAL into the file. */
static struct script *rich_closed_state(void)
{
    static const char *const lines[] = {
        "init n1 h:1",
        "session 7",
        "grant 5000 1",
        "put b 2 lease=L1 s=S1/1",
        "put a some-value-to-find s=S1/2",
        "put a some-value-to-find-2 s=S1/3",
        "del c s=S1/4",
        "token 0123456789abcdef voter 1 99999999 secret",
        "renew L1 1 5",
        "compact 1",
        "full",
    };
    struct script *x = script_new();
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        (void)script_run(x, lines[i]);
    state_close(x->s);
    x->s = NULL;
    return x;
}

static void flip(const char *path, long at, unsigned bit)
{
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    int c = fgetc(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_int_equal(fputc(c ^ (1 << bit), f), c ^ (1 << bit));
    assert_int_equal(fclose(f), 0);
}

/* Where `text` begins in the file, from `from` on; -1: nowhere. */
static long find(const char *path, const char *text, long from)
{
    static char all[1024 * 1024];
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = fread(all, 1, sizeof all, f);
    (void)fclose(f);
    const char *p =
        (size_t)from < n ? memmem(all + from, n - (size_t)from, text, strlen(text)) : NULL;
    return p == NULL ? -1 : (long)(p - all);
}

static void a_flipped_bit_in_a_value_is_refused(void **t)
{
    (void)t;
    struct script *x = rich_closed_state();
    int refused = 0, places = 0;
    for (long at = find(x->path, "some-value-to-find", 0); at >= 0;
         at = find(x->path, "some-value-to-find", at + 1)) {
        struct state *s = NULL;
        struct errmsg e = {.text = ""};
        places++;
        flip(x->path, at + 3, 2);
        enum err rc = state_open(x->path, "cluster-1", &s, &e);
        if (rc != ERR_OK) {
            assert_int_equal(rc, ERR_CORRUPT);
            assert_non_null(strstr(e.text, "join it anew"));
            refused++;
        }
        state_close(s); /* what a row left behind when it moved says nothing to anybody */
        flip(x->path, at + 3, 2);
    }
    assert_true(places >= 3 && refused >= 3); /* kv, and two rows of the history */
    struct errmsg e;
    assert_int_equal(state_open(x->path, "cluster-1", &x->s, &e), ERR_OK);
    script_free(x);
}

/* Anywhere at all: refused, or in a byte that means nothing. */
static void a_flipped_bit_changes_nothing_unseen(void **t)
{
    (void)t;
    struct script *x = rich_closed_state();
    struct rng rng;
    struct stat st;
    struct errmsg e;
    size_t refused = 0;
    assert_int_equal(state_open(x->path, "cluster-1", &x->s, &e), ERR_OK);
    uint64_t whole = state_hash(x->s);
    char *members = mem_strdup(script_run(x, "members"));
    state_close(TAKE(x->s));
    assert_int_equal(stat(x->path, &st), 0);
    rng_seed(&rng, 5);
    for (int i = 0; i < 500; i++) {
        long at = (long)rng_below(&rng, (uint64_t)st.st_size);
        unsigned bit = (unsigned)rng_below(&rng, 8);
        flip(x->path, at, bit);
        if (state_open(x->path, "cluster-1", &x->s, &e) == ERR_OK) {
            if (state_hash(x->s) != whole || strcmp(script_run(x, "members"), members) != 0)
                fail_msg("bit %u of byte %ld", bit, at);
            state_close(TAKE(x->s));
            assert_int_equal(stat(x->path, &st), 0);
        } else {
            refused++;
        }
        flip(x->path, at, bit);
    }
    assert_true(refused > 5); /* most of a small file is free space */
    mem_free(members);
    script_free(x);
}

static void a_row_that_is_gone_or_old_is_refused(void **t)
{
    (void)t;
    static const char *const damage[] = {
        "DELETE FROM kv WHERE key = CAST('a' AS BLOB)",
        "DELETE FROM event WHERE id = (SELECT max(id) FROM event)",
        "UPDATE event SET sum = sum + 1 WHERE id = (SELECT max(id) FROM event)",
        "DELETE FROM result WHERE seq = 2",
        "UPDATE lease SET n = 4",
        "UPDATE session SET last_seq = 2",
        "UPDATE token SET uses_left = 2",
        "UPDATE member SET state = 'removed'",
        "UPDATE store SET applied = applied - 1",
        "UPDATE store SET logged = 0",
    };
    for (size_t i = 0; i < ARRAY_LEN(damage); i++) {
        struct script *x = rich_closed_state();
        exec(x->path, damage[i]);
        expect_refused(x->path, "cluster-1", ERR_CORRUPT, "join it anew");
        script_free(x);
    }
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
    assert_int_equal(state_restore(x->s, copy, 5, 1000, &e), ERR_CORRUPT);
    reseal(copy);
    assert_int_equal(state_restore(x->s, copy, 5, 1000, &e), ERR_PRECONDITION);
    assert_int_equal(truncate(copy, 8192), 0);
    assert_int_equal(state_restore(x->s, copy, 5, 1000, &e), ERR_CORRUPT);
    (void)unlink(copy);
    assert_int_equal(state_restore(x->s, copy, 5, 1000, &e), ERR_IO);
    assert_string_equal(script_run(x, "get a"), "1 a=1");
    assert_string_equal(script_run(x, "put b 1"), "rev 2 | put b=1 @2");
    script_free(x);
}

/* In pieces, with the loop going on: one state or the other is seen, by its own connection, by others, and
 * after a crash at any moment. */
static void a_restore_in_steps_is_seen_when_it_ends(void **t)
{
    (void)t;
    struct script *x = script_new();
    struct state_restoring *r;
    struct errmsg e = {0};
    char copy[128];
    assert_int_equal(str_format(copy, sizeof copy, "%s/copy.db", x->dir), ERR_OK);
    (void)script_run(x, "put a 1");
    (void)script_run(x, "copy");
    (void)script_run(x, "put a 2");
    (void)script_run(x, "commit");
    assert_int_equal(state_restore_begin(x->s, copy, 5, &r, &e), ERR_OK);
    expect_text(x->path, "SELECT CAST(value AS TEXT) FROM kv", "2");
    assert_int_equal(state_restore_run(r, &e), ERR_OK);
    assert_string_equal(script_run(x, "get a"), "1 a=2");
    assert_int_equal(state_db_applied(x->s), 2);
    expect_text(x->path, "SELECT CAST(value AS TEXT) FROM kv", "1");
    state_restore_end(x->s, r, 1000);
    assert_string_equal(script_run(x, "get a"), "1 a=1");
    assert_int_equal(state_db_applied(x->s), 5);
    assert_int_equal(state_logged(x->s), 5);
    assert_string_equal(script_run(x, "index 6"), "");
    assert_string_equal(script_run(x, "put b 1"), "rev 2 | put b=1 @2");
    script_free(x);
}

static void a_restore_that_failed_or_was_cut_off_leaves_the_old_state_or_the_new_one(void **t)
{
    (void)t;
    struct script *x = script_new();
    struct state_restoring *r;
    struct errmsg e = {0};
    char copy[128];
    assert_int_equal(str_format(copy, sizeof copy, "%s/copy.db", x->dir), ERR_OK);
    (void)script_run(x, "put a 1");
    (void)script_run(x, "copy");
    (void)script_run(x, "put a 2");
    (void)script_run(x, "commit");
    assert_int_equal(state_restore_begin(x->s, "/nonexistent/x.db", 5, &r, &e), ERR_OK);
    assert_int_equal(state_restore_run(r, &e), ERR_IO);
    state_restore_end(x->s, r, 1000);
    assert_string_equal(script_run(x, "get a"), "1 a=2");
    assert_string_equal(script_run(x, "put b 1"), "rev 3 | put b=1 @3");
    (void)script_run(x, "commit");

    /* The process ends behind run(). */
    assert_int_equal(state_restore_begin(x->s, copy, 5, &r, &e), ERR_OK);
    assert_int_equal(state_restore_run(r, &e), ERR_OK);
    state_restore_cancel(r);
    state_restore_cancel(NULL);
    state_close(TAKE(x->s));
    assert_int_equal(state_open(x->path, "cluster-1", &x->s, &e), ERR_OK);
    assert_int_equal(state_db_applied(x->s), 1);
    assert_int_equal(state_logged(x->s), 0);
    assert_string_equal(script_run(x, "get a"), "1 a=1");
    script_free(x);
}

/* What a restore does not look at: it was looked at when the file came. */
static void a_copy_that_came_is_checked_row_by_row(void **t)
{
    (void)t;
    struct script *x = script_new();
    struct errmsg e = {0};
    char copy[128];
    assert_int_equal(str_format(copy, sizeof copy, "%s/copy.db", x->dir), ERR_OK);
    (void)script_run(x, "put a 1");
    (void)script_run(x, "copy");
    assert_int_equal(state_file_check(copy, &e), ERR_OK);
    exec(copy, "UPDATE kv SET value = CAST('2' AS BLOB)");
    assert_int_equal(state_file_check(copy, &e), ERR_CORRUPT);
    (void)unlink(copy);
    assert_int_equal(state_file_check(copy, &e), ERR_IO);
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

static off_t bytes_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

/* An entry that puts so many bytes. */
static void large_entry(size_t value, struct buf *ret_entry)
{
    struct buf params = BUF_INIT;
    struct state_batch batch = {0};
    uint8_t *bytes = mem_alloc(value);
    struct put_req put = {.key = slice_str("a"), .value = slice_of(bytes, value)};
    msg_encode(&msg_put_req, &put, &params);
    (void)state_batch_add(&batch, STATE_CMD_PUT, buf_slice(&params));
    state_batch_end(&batch, 1, ret_entry);
    mem_free(bytes);
    buf_close(&params);
    buf_close(&batch.body);
}

/* After a crash the WAL may hold much: to move it is the worker's task, not that of a start. */
static void opening_writes_nothing(void **t)
{
    enum { VALUE = 1000 * 1000, TIMES = 8 };
    (void)t;
    struct script *x = script_new();
    struct buf entry = BUF_INIT;
    char wal[140];
    struct state *again = NULL;
    struct errmsg e = {0};
    assert_int_equal(str_format(wal, sizeof wal, "%s-wal", x->path), ERR_OK);
    large_entry(VALUE, &entry);
    for (uint64_t i = 1; i <= TIMES; i++) {
        state_apply(x->s, i, buf_slice(&entry), 1, NULL, NULL);
        state_commit(x->s, i);
    }
    off_t file = bytes_of(x->path), log = bytes_of(wal);
    assert_true(log > file + VALUE);
    assert_int_equal(state_open(x->path, "cluster-1", &again, &e), ERR_OK);
    assert_int_equal(state_db_applied(again), TIMES);
    state_close(again);
    assert_int_equal(bytes_of(x->path), file);
    assert_int_equal(bytes_of(wal), log);
    buf_close(&entry);
    script_free(x);
}

/* ---- a disk without room for what is in the WAL ---- */

static sqlite3_vfs *disk;
static const sqlite3_io_methods *disk_methods;
static sqlite3_io_methods full_disk_methods;
static atomic_bool disk_is_full;

static int write_or_full(sqlite3_file *f, const void *data, int n, sqlite3_int64 at)
{
    return atomic_load(&disk_is_full) ? SQLITE_FULL : disk_methods->xWrite(f, data, n, at);
}

static int open_on_disk(sqlite3_vfs *v, sqlite3_filename name, sqlite3_file *f, int flags,
                        int *ret_flags)
{
    (void)v;
    int rc = disk->xOpen(disk, name, f, flags, ret_flags);
    if (rc == SQLITE_OK && (flags & SQLITE_OPEN_MAIN_DB) != 0) {
        disk_methods = f->pMethods;
        full_disk_methods = *disk_methods;
        full_disk_methods.xWrite = write_or_full;
        f->pMethods = &full_disk_methods;
    }
    return rc;
}

/* The checkpointer has done what it was woken for; whether nothing was left in the WAL. */
static bool checkpoint_ends(struct checkpointer *c)
{
    enum { PATIENCE_MS = 60000 };
    bool whole;
    for (size_t ms = 0; !checkpointer_idle(c, &whole); ms++) {
        assert_true(ms < PATIENCE_MS);
        (void)usleep(1000); /* it tells nobody */
    }
    return whole;
}

static bool moves_all(struct checkpointer *c)
{
    checkpointer_wake(c);
    return checkpoint_ends(c);
}

static void a_checkpoint_that_finds_no_room_is_made_later(void **t)
{
    (void)t;
    disk = sqlite3_vfs_find(NULL);
    sqlite3_vfs full_disk = *disk;
    full_disk.zName = "full";
    full_disk.xOpen = open_on_disk;
    assert_int_equal(sqlite3_vfs_register(&full_disk, 1), SQLITE_OK);
    struct script *x = script_new();
    (void)script_run(x, "put a 1");
    (void)script_run(x, "commit");
    struct checkpointer *c = checkpointer_new(x->path);
    atomic_store(&disk_is_full, true);
    assert_false(moves_all(c));
    atomic_store(&disk_is_full, false);
    assert_true(moves_all(c));
    checkpointer_free(c);
    script_free(x);
    assert_int_equal(sqlite3_vfs_unregister(&full_disk), SQLITE_OK);
    assert_int_equal(sqlite3_vfs_register(disk, 1), SQLITE_OK);
}

/* With nothing applied for the moment that the worker needs, the WAL begins anew. */
static void a_long_wal_begins_anew(void **t)
{
    enum { VALUE = 1400 * 1000, TIMES = 60, PATIENCE_MS = 60000 };
    (void)t;
    struct script *x = script_new();
    struct buf entry = BUF_INIT;
    char wal[140];
    size_t settled = 0;
    assert_int_equal(str_format(wal, sizeof wal, "%s-wal", x->path), ERR_OK);
    large_entry(VALUE, &entry);
    for (uint64_t i = 1; i <= TIMES; i++) {
        state_apply(x->s, i, buf_slice(&entry), 1, NULL, NULL);
        state_commit(x->s, i);
        if (!state_wal_long(x->s))
            continue;
        settled++;
        for (size_t ms = 0; !state_wal_settled(x->s); ms++) {
            assert_true(ms < PATIENCE_MS);
            (void)usleep(1000);
        }
        assert_false(state_wal_long(x->s));
    }
    assert_true(settled > 0);
    assert_true(bytes_of(wal) < 80 * 1024 * 1024);
    buf_close(&entry);
    script_free(x);
}

/* ---- a checkpoint that is stopped between its look at the WAL and its work ---- */

static struct {
    sqlite3_vfs vfs, *real;
    sqlite3_io_methods methods;
    const sqlite3_io_methods *real_methods;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t loop;
    bool armed, held; /* under lock */
} stop = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void stop_set(bool *flag, bool value)
{
    (void)pthread_mutex_lock(&stop.lock);
    *flag = value;
    (void)pthread_cond_broadcast(&stop.changed);
    (void)pthread_mutex_unlock(&stop.lock);
}

static void stop_wait(const bool *flag, bool value)
{
    (void)pthread_mutex_lock(&stop.lock);
    while (*flag != value)
        (void)pthread_cond_wait(&stop.changed, &stop.lock);
    (void)pthread_mutex_unlock(&stop.lock);
}

/* SQLite calls this with NULL where a checkpoint has found the WAL changed, before it does anything. */
static int stop_unfetch(sqlite3_file *f, sqlite3_int64 at, void *p)
{
    bool now = false;
    (void)pthread_mutex_lock(&stop.lock);
    if (p == NULL && stop.armed && pthread_equal(pthread_self(), stop.loop) == 0) {
        stop.armed = false;
        now = true;
    }
    (void)pthread_mutex_unlock(&stop.lock);
    if (now) {
        stop_set(&stop.held, true);
        stop_wait(&stop.held, false);
    }
    return stop.real_methods->xUnfetch(f, at, p);
}

static int stop_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out)
{
    (void)vfs;
    int rc = stop.real->xOpen(stop.real, name, f, flags, out);
    if (rc != SQLITE_OK || f->pMethods == NULL || (flags & SQLITE_OPEN_MAIN_DB) == 0)
        return rc;
    (void)pthread_mutex_lock(&stop.lock);
    if (stop.real_methods == NULL) {
        stop.real_methods = f->pMethods;
        stop.methods = *f->pMethods;
        stop.methods.xUnfetch = stop_unfetch;
    }
    if (f->pMethods == stop.real_methods)
        f->pMethods = &stop.methods;
    (void)pthread_mutex_unlock(&stop.lock);
    return rc;
}

static void stop_begin(void)
{
    stop.real = sqlite3_vfs_find(NULL);
    stop.vfs = *stop.real;
    stop.vfs.zName = "stop";
    stop.vfs.xOpen = stop_open;
    stop.loop = pthread_self();
    assert_int_equal(sqlite3_vfs_register(&stop.vfs, 1), SQLITE_OK);
}

static void stop_end(void)
{
    assert_int_equal(sqlite3_vfs_register(stop.real, 1), SQLITE_OK);
    assert_int_equal(sqlite3_vfs_unregister(&stop.vfs), SQLITE_OK);
}

static void put_and_commit(struct script *x, unsigned n)
{
    char line[32];
    for (unsigned i = 0; i < n; i++) {
        (void)snprintf(line, sizeof line, "put k%u %u", i, i);
        (void)script_run(x, line);
        (void)script_run(x, "commit");
    }
}

/* The WAL is all in the file when the worker looks, and begins anew behind its back. */
static void a_checkpoint_that_is_overtaken_loses_no_commit(void **t)
{
    (void)t;
    stop_begin();
    struct script *x = script_new();
    struct errmsg e;
    put_and_commit(x, 5);
    checkpointer_wake(x->s->checkpointer);
    (void)checkpoint_ends(x->s->checkpointer);
    put_and_commit(x, 50);
    exec(x->path, "PRAGMA wal_checkpoint");
    stop_set(&stop.armed, true);
    checkpointer_wake(x->s->checkpointer);
    stop_wait(&stop.held, true);
    put_and_commit(x, 1);
    stop_set(&stop.held, false);
    (void)checkpoint_ends(x->s->checkpointer);
    (void)script_run(x, "put z 1");
    (void)script_run(x, "commit");
    state_close(TAKE(x->s)); /* moves what SQLite takes for not moved, and removes the WAL */
    expect_text(x->path, "SELECT value FROM keys WHERE key = 'z'", "1");
    assert_int_equal(state_open(x->path, "cluster-1", &x->s, &e), ERR_OK);
    script_free(x);
    stop_end();
}

static void a_file_shrinks_when_its_keys_are_gone(void **t)
{
    (void)t;
    static const uint8_t value[4000];
    struct script *x = script_new();
    struct state_batch b = {0};
    struct buf entry = BUF_INIT, params = BUF_INIT;
    for (unsigned i = 0; i < 2000; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "k%04u", i);
        struct put_req r = {.key = slice_str(key), .value = slice_of(value, sizeof value)};
        buf_clear(&params);
        msg_encode(&msg_put_req, &r, &params);
        (void)state_batch_add(&b, STATE_CMD_PUT, buf_slice(&params));
    }
    state_batch_end(&b, 1, &entry);
    state_apply(x->s, ++x->index, buf_slice(&entry), x->now_ms, NULL, NULL);
    buf_close(&b.body);
    buf_close(&entry);
    buf_close(&params);
    (void)script_run(x, "commit");
    size_t full = state_db_bytes(x->s);
    (void)script_run(x, "del k l");
    (void)script_run(x, "compact 2001");
    (void)script_run(x, "commit");
    assert_true(state_db_bytes(x->s) < full / 10);
    for (int i = 0; i < 100; i++) {
        (void)script_run(x, "put a 1");
        (void)script_run(x, "commit");
    }
    state_close(TAKE(x->s));
    struct stat st;
    struct errmsg e;
    assert_int_equal(stat(x->path, &st), 0);
    assert_true((size_t)st.st_size < full / 2);
    assert_int_equal(state_open(x->path, "cluster-1", &x->s, &e), ERR_OK);
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
        cmocka_unit_test(a_cluster_of_a_newer_version_is_refused),
        cmocka_unit_test(a_damaged_page_is_refused),
        cmocka_unit_test(a_flipped_bit_in_a_value_is_refused),
        cmocka_unit_test(a_flipped_bit_changes_nothing_unseen),
        cmocka_unit_test(a_row_that_is_gone_or_old_is_refused),
        cmocka_unit_test(a_directory_that_is_not_there_is_named),
        cmocka_unit_test(the_file_is_private),
        cmocka_unit_test(plain_sqlite_reads_a_copy),
        cmocka_unit_test(a_restore_refuses_a_foreign_or_damaged_file_and_keeps_the_state),
        cmocka_unit_test(a_restore_in_steps_is_seen_when_it_ends),
        cmocka_unit_test(
            a_restore_that_failed_or_was_cut_off_leaves_the_old_state_or_the_new_one),
        cmocka_unit_test(a_copy_that_came_is_checked_row_by_row),
        cmocka_unit_test(a_copy_is_of_its_moment_while_the_state_goes_on),
        cmocka_unit_test(opening_writes_nothing),
        cmocka_unit_test(a_checkpoint_that_finds_no_room_is_made_later),
        cmocka_unit_test(a_long_wal_begins_anew),
        cmocka_unit_test(a_checkpoint_that_is_overtaken_loses_no_commit),
        cmocka_unit_test(a_file_shrinks_when_its_keys_are_gone),
        cmocka_unit_test(the_quota_keeps_room_for_reserved_keys),
    };
    return cmocka_run_group_tests_name("dcs_state_open", tests, NULL, NULL);
}
