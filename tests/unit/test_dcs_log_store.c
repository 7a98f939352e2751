/* log.db on a real file system: what was stored is found again, and whatever was damaged is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/rng.h"
#include "dcs/log_store_internal.h"

/* ---- a store in a directory of its own, with a loop ---- */

struct fixture {
    char dir[64];
    uv_loop_t loop;
    struct log_store *store;
    struct raft_core_disk disk;
    struct errmsg e;
    size_t appended, truncated, meta, snapshots;
    uint64_t last;
};

static void on_appended(void *arg, uint64_t last)
{
    struct fixture *f = arg;
    f->appended++;
    f->last = last;
}

static void on_truncated(void *arg)
{
    ((struct fixture *)arg)->truncated++;
}

static void on_meta(void *arg)
{
    ((struct fixture *)arg)->meta++;
}

static void on_snapshot(void *arg)
{
    ((struct fixture *)arg)->snapshots++;
}

static void on_fatal(void *arg, const char *what)
{
    (void)arg;
    (void)fprintf(stderr, "%s\n", what);
    _exit(70);
}

static const struct log_store_ops OPS = {.appended = on_appended,
                                         .truncated = on_truncated,
                                         .meta = on_meta,
                                         .snapshot = on_snapshot,
                                         .fatal = on_fatal};

static void make_dir(struct fixture *f)
{
    (void)snprintf(f->dir, sizeof f->dir, "/tmp/test_log_store.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
}

static enum err try_open(struct fixture *f, uint64_t logged)
{
    enum err err = log_store_open(f->dir, &f->store, &f->disk, &f->e);
    if (err != ERR_OK)
        return err;
    err = log_store_check_logged(&f->disk, logged, &f->e);
    if (err != ERR_OK)
        log_store_close(TAKE(f->store));
    return err;
}

static void must_open(struct fixture *f)
{
    if (try_open(f, 0) != ERR_OK)
        fail_msg("%s", f->e.text);
}

static void start(struct fixture *f)
{
    must_open(f);
    log_store_loaded(f->store);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(log_store_start(f->store, &f->loop, &OPS, f, &f->e), ERR_OK);
}

static void wait_for(struct fixture *f, const size_t *counter, size_t n)
{
    log_store_flush(f->store);
    while (*counter < n)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
}

static void stop(struct fixture *f)
{
    log_store_close(TAKE(f->store));
    assert_int_equal(uv_run(&f->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&f->loop), 0);
}

static void path_of(const struct fixture *f, const char *name, char ret[static 128])
{
    (void)snprintf(ret, 128, "%s/%s", f->dir, name);
}

static void remove_dir(struct fixture *f)
{
    static const char *const names[] = {"log.db", "log.db-wal", "log.db-shm", "ballast",
                                        "snapshot-40.db"};
    char path[128];
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        path_of(f, names[i], path);
        (void)unlink(path);
    }
    assert_int_equal(rmdir(f->dir), 0);
}

static struct raft_membership one_member(void)
{
    return (struct raft_membership){
        .index = 1, .n = 1, .servers = {{.id = 1, .role = RAFT_ROLE_VOTER, .address = "a:1"}}};
}

static void bootstrap(struct fixture *f)
{
    struct raft_membership m = one_member();
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    raft_core_bootstrap_entry(&m, &b);
    must_open(f);
    assert_int_equal(log_store_bootstrap(f->store, buf_slice(&b), &f->e), ERR_OK);
    assert_int_equal(log_store_bootstrap(f->store, buf_slice(&b), &f->e), ERR_EXISTS);
    log_store_close(TAKE(f->store));
}

/* Entries first..last of term 2, "entry N". */
static char texts[256][32];

static void append(struct fixture *f, uint64_t first, uint64_t last)
{
    struct raft_entry_view v[256];
    for (uint64_t i = first; i <= last; i++) {
        int n = snprintf(texts[i], sizeof texts[i], "entry %llu", (unsigned long long)i);
        v[i - first] = (struct raft_entry_view){
            .term = 2, .type = RAFT_ENTRY_COMMAND, .data = slice_of(texts[i], (size_t)n)};
    }
    log_store_append(f->store, first, v, (size_t)(last - first + 1));
}

static void write_snapshot_file(const struct fixture *f, size_t size)
{
    char path[128];
    path_of(f, "snapshot-40.db", path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    assert_int_equal(close(fd), 0);
}

static struct raft_snapshot_info snapshot_40(void)
{
    return (struct raft_snapshot_info){
        .index = 40, .term = 2, .size = 1000, .membership = one_member(), .sha256 = {9, 8, 7}};
}

/* Bootstrap, term 2, entries 2..n. */
static void fill(struct fixture *f, uint64_t n)
{
    make_dir(f);
    bootstrap(f);
    start(f);
    log_store_meta(f->store, 2, 1);
    append(f, 2, n);
    wait_for(f, &f->appended, 1);
}

/* ---- tests ---- */

static void what_was_stored_is_found_again(void **state)
{
    (void)state;
    struct fixture f = {0};
    fill(&f, 100);
    log_store_truncate(f.store, 91);
    append(&f, 91, 95);
    wait_for(&f, &f.appended, 2);
    assert_int_equal(f.meta, 1);
    assert_int_equal(f.truncated, 1);
    assert_int_equal(f.last, 95);
    struct latency all;
    log_store_fsync(f.store, &all);
    assert_true(all.n > 0 && all.sum_us > 0);
    assert_true(log_store_fsync_us_p99(f.store) > 0);
    stop(&f);
    must_open(&f);
    assert_int_equal(f.disk.term, 2);
    assert_int_equal(f.disk.voted_for, 1);
    assert_int_equal(f.disk.first_index, 1);
    assert_int_equal(f.disk.n, 95);
    assert_int_equal(f.disk.entries[0].type, RAFT_ENTRY_CHANGE);
    assert_true(slice_eq(f.disk.entries[93].data, slice_str("entry 94")));
    log_store_close(f.store);
    remove_dir(&f);
}

static void a_snapshot_trims_and_an_installed_one_clears(void **state)
{
    (void)state;
    struct fixture f = {0};
    fill(&f, 100);
    struct raft_snapshot_info s = snapshot_40();
    write_snapshot_file(&f, 1000);
    log_store_snapshot(f.store, &s, 30, false);
    wait_for(&f, &f.snapshots, 1);
    stop(&f);
    must_open(&f);
    assert_true(f.disk.has_snapshot);
    assert_int_equal(f.disk.snapshot.index, 40);
    assert_int_equal(f.disk.snapshot.sha256[1], 8);
    assert_int_equal(f.disk.snapshot.membership.n, 1);
    assert_int_equal(f.disk.first_index, 31);
    assert_int_equal(f.disk.n, 70);
    log_store_close(f.store);
    start(&f);
    log_store_snapshot(f.store, &s, 40, true);
    wait_for(&f, &f.snapshots, 2);
    stop(&f);
    must_open(&f);
    assert_int_equal(f.disk.first_index, 41);
    assert_int_equal(f.disk.n, 0);
    log_store_close(f.store);
    remove_dir(&f);
}

static void the_prefix_goes_256_rows_a_commit(void **state)
{
    (void)state;
    struct fixture f = {0};
    make_dir(&f);
    bootstrap(&f);
    start(&f);
    log_store_meta(f.store, 2, 1);
    for (uint64_t i = 2; i <= 1000; i++) {
        struct raft_entry_view v = {
            .term = 2, .type = RAFT_ENTRY_COMMAND, .data = slice_str("x")};
        log_store_append(f.store, i, &v, 1);
    }
    wait_for(&f, &f.appended, 999);
    struct raft_snapshot_info s = snapshot_40();
    s.index = 900;
    log_store_snapshot(f.store, &s, 800, false);
    wait_for(&f, &f.snapshots, 1);
    for (uint64_t k = 1; k <= 4; k++) {
        assert_int_equal(f.store->first_row, k < 4 ? 256 * k + 1 : 801);
        log_store_meta(f.store, 2, 1);
        wait_for(&f, &f.meta, 1 + k);
    }
    stop(&f);
    remove_dir(&f);
}

static void a_log_that_forgot_acknowledged_entries_is_refused(void **state)
{
    (void)state;
    struct fixture f = {0};
    fill(&f, 50);
    stop(&f);
    assert_int_equal(try_open(&f, 50), ERR_OK);
    log_store_close(f.store);
    assert_int_equal(try_open(&f, 51), ERR_CORRUPT);
    assert_string_equal(
        f.e.text,
        "log.db ends at entry 50 but entry 51 was acknowledged by this node: the disk lost "
        "writes. "
        "Remove the node (`regentctl member remove NAME`) and join it again with an empty data "
        "directory");
    remove_dir(&f);
}

static void a_missing_log_is_refused_when_the_state_remembers(void **state)
{
    (void)state;
    struct fixture f = {0};
    make_dir(&f);
    assert_int_equal(try_open(&f, 3), ERR_CORRUPT);
    remove_dir(&f);
}

static void a_second_opener_is_locked_out(void **state)
{
    (void)state;
    struct fixture f = {0};
    fill(&f, 10);
    struct fixture g = f;
    assert_int_equal(try_open(&g, 0), ERR_UNAVAILABLE);
    assert_non_null(strstr(g.e.text, "in use by another process"));
    stop(&f);
    remove_dir(&f);
}

static void edit(struct fixture *f, const char *sql, enum err want, const char *words)
{
    char path[128];
    sqlite3 *db;
    path_of(f, "log.db", path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    char *before = mem_printf("%s.copy", path);
    char *copy = mem_printf("VACUUM INTO '%s'", before);
    assert_int_equal(sqlite3_exec(db, copy, NULL, NULL, NULL), SQLITE_OK);
    char *error = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &error) != SQLITE_OK)
        fail_msg("%s: %s", sql, error);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    enum err r = try_open(f, 0);
    if (r != want || strstr(f->e.text, words) == NULL)
        fail_msg("%s: %s: %s", sql, err_name(r), f->e.text);
    char wal[160];
    (void)snprintf(wal, sizeof wal, "%s-wal", path);
    (void)unlink(wal);
    assert_int_equal(rename(before, path), 0);
    mem_free(copy);
    mem_free(before);
}

static void every_altered_column_is_refused(void **state)
{
    (void)state;
    struct fixture f = {0};
    fill(&f, 100);
    struct raft_snapshot_info s = snapshot_40();
    write_snapshot_file(&f, 1000);
    log_store_snapshot(f.store, &s, 30, false);
    wait_for(&f, &f.snapshots, 1);
    stop(&f);
    edit(&f, "UPDATE log SET term = 3 WHERE idx = 50", ERR_CORRUPT, "entry 50 is damaged");
    edit(&f, "UPDATE log SET type = 2 WHERE idx = 50", ERR_CORRUPT, "entry 50 is damaged");
    edit(&f, "UPDATE log SET data = 'entry 51' WHERE idx = 50", ERR_CORRUPT,
         "entry 50 is damaged");
    edit(&f, "UPDATE log SET crc = crc + 1 WHERE idx = 50", ERR_CORRUPT, "entry 50 is damaged");
    edit(&f, "DELETE FROM log WHERE idx BETWEEN 50 AND 52", ERR_CORRUPT,
         "entries 50 to 52 are missing");
    edit(&f, "DELETE FROM log WHERE idx < 45", ERR_CORRUPT, "does not meet its snapshot");
    edit(&f, "DELETE FROM log WHERE idx > 35", ERR_CORRUPT, "does not meet its snapshot");
    edit(&f, "DELETE FROM snapshot", ERR_CORRUPT, "there is no snapshot");
    edit(&f, "UPDATE snapshot SET idx = 39", ERR_CORRUPT, "the snapshot is damaged");
    edit(&f, "UPDATE snapshot SET sha256 = zeroblob(32)", ERR_CORRUPT,
         "the snapshot is damaged");
    edit(&f, "UPDATE meta SET term = 3", ERR_CORRUPT, "term and vote are damaged");
    edit(&f, "UPDATE meta SET vote = 3", ERR_CORRUPT, "term and vote are damaged");
    edit(&f, "DELETE FROM meta", ERR_CORRUPT, "term and vote are missing");
    edit(&f, "PRAGMA user_version = 2", ERR_UNSUPPORTED, "version 2");
    edit(&f, "PRAGMA application_id = 7", ERR_CORRUPT, "no log of regent");
    must_open(&f);
    log_store_close(f.store);
    remove_dir(&f);
}

static void a_missing_or_short_snapshot_file_is_refused(void **state)
{
    (void)state;
    struct fixture f = {0};
    fill(&f, 100);
    struct raft_snapshot_info s = snapshot_40();
    log_store_snapshot(f.store, &s, 30, false);
    wait_for(&f, &f.snapshots, 1);
    stop(&f);
    assert_int_equal(try_open(&f, 0), ERR_CORRUPT);
    assert_non_null(strstr(f.e.text, "snapshot-40.db is missing"));
    write_snapshot_file(&f, 999);
    assert_int_equal(try_open(&f, 0), ERR_CORRUPT);
    write_snapshot_file(&f, 1000);
    must_open(&f);
    log_store_close(f.store);
    remove_dir(&f);
}

/* ---- damage to the file itself ---- */

static uint8_t *read_file(const char *path, size_t *ret_n)
{
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    uint8_t *p = mem_alloc(1 << 20);
    *ret_n = fread(p, 1, 1 << 20, in);
    (void)fclose(in);
    return p;
}

static void write_file(const char *path, const uint8_t *p, size_t n)
{
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(p, 1, n, out), n);
    assert_int_equal(fclose(out), 0);
}

/* Opens; what is found must be all that was written, or it is refused. */
static bool found_or_refused(struct fixture *f, uint64_t n, size_t at)
{
    enum err r = try_open(f, n);
    if (r != ERR_OK)
        return false;
    bool whole = f->disk.n == n && f->disk.term == 2 && f->disk.voted_for == 1 &&
                 f->disk.first_index == 1;
    for (uint64_t i = 2; whole && i <= n; i++) {
        char text[32];
        int len = snprintf(text, sizeof text, "entry %llu", (unsigned long long)i);
        whole = slice_eq(f->disk.entries[i - 1].data, slice_of(text, (size_t)len)) &&
                f->disk.entries[i - 1].term == 2;
    }
    log_store_close(f->store);
    if (!whole)
        fail_msg("damage at byte %zu gave another log", at);
    return true;
}

static void no_damaged_byte_gives_another_log(void **state)
{
    (void)state;
    struct fixture f = {0};
    fill(&f, 60);
    stop(&f);
    char path[128];
    size_t n;
    path_of(&f, "log.db", path);
    uint8_t *bytes = read_file(path, &n);
    struct rng r;
    rng_seed(&r, 7);
    size_t refused = 0;
    for (size_t at = 0; at < n; at += 1 + (size_t)rng_below(&r, 16)) {
        uint8_t was = bytes[at];
        bytes[at] ^= (uint8_t)(1U << rng_below(&r, 8));
        write_file(path, bytes, n);
        bytes[at] = was;
        refused += !found_or_refused(&f, 60, at);
    }
    assert_true(refused > 0);
    mem_free(bytes);
    remove_dir(&f);
}

static void a_shortened_file_is_refused(void **state)
{
    (void)state;
    struct fixture f = {0};
    fill(&f, 250);
    stop(&f);
    char path[128];
    size_t n;
    path_of(&f, "log.db", path);
    uint8_t *bytes = read_file(path, &n);
    assert_true(n > 2048 * 4);
    for (size_t cut = 1; cut < n; cut += 1000) {
        write_file(path, bytes, n - cut);
        assert_int_not_equal(try_open(&f, 250), ERR_OK);
    }
    write_file(path, bytes, n);
    must_open(&f);
    log_store_close(f.store);
    mem_free(bytes);
    remove_dir(&f);
}

/* A crash in the middle: the WAL with a torn end holds a prefix of the commits, whole ones. */
static void a_torn_wal_gives_a_prefix_of_the_commits(void **state)
{
    (void)state;
    struct fixture f = {0};
    make_dir(&f);
    bootstrap(&f);
    start(&f);
    log_store_meta(f.store, 2, 1);
    append(&f, 2, 10);
    wait_for(&f, &f.appended, 1);
    append(&f, 11, 20);
    wait_for(&f, &f.appended, 2);
    char db[128];
    char wal[128];
    size_t n_db;
    size_t n_wal;
    path_of(&f, "log.db", db);
    path_of(&f, "log.db-wal", wal);
    uint8_t *db_bytes = read_file(db, &n_db);
    uint8_t *wal_bytes = read_file(wal, &n_wal);
    stop(&f);
    for (size_t cut = 0; cut <= n_wal; cut += 500) {
        write_file(db, db_bytes, n_db);
        write_file(wal, wal_bytes, n_wal - cut);
        enum err r = try_open(&f, 0);
        if (r != ERR_OK)
            continue; /* the page cache of a checkpointed file and a cut WAL need not agree */
        assert_true(f.disk.n == 0 || f.disk.n == 1 || f.disk.n == 10 || f.disk.n == 20);
        log_store_close(f.store);
    }
    mem_free(db_bytes);
    mem_free(wal_bytes);
    remove_dir(&f);
}

/* ---- a full disk ---- */

static void fill_disk(struct fixture *f)
{
    char path[128];
    path_of(f, "filler", path);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    static const uint8_t zeros[4096];
    while (write(fd, zeros, sizeof zeros) > 0)
        ;
    (void)close(fd);
}

static void the_ballast_carries_the_log_over_a_full_disk(void **state)
{
    (void)state;
    struct fixture f = {0};
    make_dir(&f);
    if (mount("tmpfs", f.dir, "tmpfs", 0, "size=40m") != 0) {
        assert_int_equal(rmdir(f.dir), 0);
        skip();
    }
    bootstrap(&f);
    start(&f);
    assert_false(log_store_disk_full(f.store));
    log_store_meta(f.store, 2, 1);
    append(&f, 2, 10);
    wait_for(&f, &f.appended, 1);
    fill_disk(&f);
    uint64_t next = 11;
    while (!log_store_disk_full(f.store)) {
        append(&f, next, next);
        wait_for(&f, &f.appended, f.appended + 1);
        assert_true(++next < 250);
    }
    append(&f, next, next); /* goes on */
    wait_for(&f, &f.appended, f.appended + 1);
    stop(&f);
    must_open(&f);
    assert_int_equal(f.disk.n, next);
    log_store_close(f.store);
    assert_int_equal(umount(f.dir), 0);
    assert_int_equal(rmdir(f.dir), 0);
}

static void a_write_error_ends_the_process(void **state)
{
    (void)state;
    struct fixture f = {0};
    make_dir(&f);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (freopen("/dev/null", "w", stderr) == NULL)
            _exit(1);
        bootstrap(&f);
        start(&f);
        /* Two rows of one index: any failed statement is as good as an I/O error. */
        append(&f, 2, 2);
        append(&f, 2, 2);
        wait_for(&f, &f.appended, 2);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 70);
    remove_dir(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_stored_is_found_again),
        cmocka_unit_test(a_snapshot_trims_and_an_installed_one_clears),
        cmocka_unit_test(the_prefix_goes_256_rows_a_commit),
        cmocka_unit_test(a_log_that_forgot_acknowledged_entries_is_refused),
        cmocka_unit_test(a_missing_log_is_refused_when_the_state_remembers),
        cmocka_unit_test(a_second_opener_is_locked_out),
        cmocka_unit_test(every_altered_column_is_refused),
        cmocka_unit_test(a_missing_or_short_snapshot_file_is_refused),
        cmocka_unit_test(no_damaged_byte_gives_another_log),
        cmocka_unit_test(a_shortened_file_is_refused),
        cmocka_unit_test(a_torn_wal_gives_a_prefix_of_the_commits),
        cmocka_unit_test(the_ballast_carries_the_log_over_a_full_disk),
        cmocka_unit_test(a_write_error_ends_the_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
