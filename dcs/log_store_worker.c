/* The worker: everything that waits becomes one transaction. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"
#include "dcs/log_store_internal.h"
#include "dcs/raft_membership.h"

static const char SQL_SNAPSHOT[] = "INSERT OR REPLACE INTO snapshot(id, idx, term, "
                                   "membership_idx, membership, size, sha256, crc) "
                                   "VALUES(1, ?1, ?2, ?3, ?4, ?5, ?6, ?7)";

static const char *const SQL[LOG_STMT_COUNT] = {
    [LOG_STMT_BEGIN] = "BEGIN IMMEDIATE",
    [LOG_STMT_COMMIT] = "COMMIT",
    [LOG_STMT_INSERT] =
        "INSERT INTO log(idx, term, type, data, crc) VALUES(?1, ?2, ?3, ?4, ?5)",
    [LOG_STMT_TRUNCATE] = "DELETE FROM log WHERE idx >= ?1",
    [LOG_STMT_TRIM] = "DELETE FROM log WHERE idx <= ?1",
    [LOG_STMT_CLEAR] = "DELETE FROM log",
    [LOG_STMT_META] = "INSERT OR REPLACE INTO meta(id, term, vote, crc) VALUES(1, ?1, ?2, ?3)",
    [LOG_STMT_SNAPSHOT] = SQL_SNAPSHOT,
};

static int on_wal(void *arg, sqlite3 *db, const char *name, int frames)
{
    (void)db;
    (void)name;
    ((struct log_store *)arg)->wal_frames = frames;
    return SQLITE_OK;
}

enum err log_store_prepare(struct log_store *s, struct errmsg *e)
{
    for (int i = 0; i < LOG_STMT_COUNT; i++) {
        if (sqlite3_prepare_v3(s->db, SQL[i], -1, SQLITE_PREPARE_PERSISTENT, &s->stmt[i],
                               NULL) != SQLITE_OK)
            return err_set(e, ERR_CORRUPT, "log.db: %s: %s", SQL[i], sqlite3_errmsg(s->db));
    }
    (void)sqlite3_wal_hook(s->db, on_wal, s);
    return ERR_OK;
}

/* ---- one transaction ---- */

static int run(struct log_store *s, enum log_stmt which)
{
    int r = sqlite3_step(s->stmt[which]);
    int r2 = sqlite3_reset(s->stmt[which]);
    return r == SQLITE_DONE ? SQLITE_OK : r2 != SQLITE_OK ? r2 : SQLITE_ERROR;
}

static void bind_number(struct log_store *s, enum log_stmt which, int at, uint64_t v)
{
    ASSERT(v <= INT64_MAX);
    int r = sqlite3_bind_int64(s->stmt[which], at, (sqlite3_int64)v);
    ASSERT(r == SQLITE_OK);
}

/* An empty slice would bind NULL. */
static void bind_blob(struct log_store *s, enum log_stmt which, int at, struct slice v)
{
    int r = v.n == 0 ? sqlite3_bind_zeroblob(s->stmt[which], at, 0)
                     : sqlite3_bind_blob64(s->stmt[which], at, v.p, v.n, SQLITE_STATIC);
    ASSERT(r == SQLITE_OK);
}

static int write_append(struct log_store *s, const struct log_op *op)
{
    int r = SQLITE_OK;
    for (size_t i = 0; i < op->n && r == SQLITE_OK; i++) {
        const struct raft_entry_view *v = &op->entries[i];
        bind_number(s, LOG_STMT_INSERT, 1, op->index + i);
        bind_number(s, LOG_STMT_INSERT, 2, v->term);
        bind_number(s, LOG_STMT_INSERT, 3, (uint64_t)v->type);
        bind_blob(s, LOG_STMT_INSERT, 4, v->data);
        bind_number(s, LOG_STMT_INSERT, 5, log_store_entry_crc(op->index + i, v));
        r = run(s, LOG_STMT_INSERT);
    }
    if (s->first_row == 0)
        s->first_row = op->index;
    return r;
}

static int write_truncate(struct log_store *s, const struct log_op *op)
{
    bind_number(s, LOG_STMT_TRUNCATE, 1, op->index);
    if (s->first_row >= op->index)
        s->first_row = 0;
    return run(s, LOG_STMT_TRUNCATE);
}

static int write_meta(struct log_store *s, const struct log_op *op)
{
    bind_number(s, LOG_STMT_META, 1, op->term);
    bind_number(s, LOG_STMT_META, 2, op->voted_for);
    bind_number(s, LOG_STMT_META, 3, log_store_meta_crc(op->term, op->voted_for));
    s->meta_in_wal = true;
    return run(s, LOG_STMT_META);
}

static int write_snapshot(struct log_store *s, const struct log_op *op)
{
    const struct raft_snapshot_info *info = op->info;
    struct buf membership = BUF_INIT;
    raft_membership_encode(&info->membership, &membership);
    bind_number(s, LOG_STMT_SNAPSHOT, 1, info->index);
    bind_number(s, LOG_STMT_SNAPSHOT, 2, info->term);
    bind_number(s, LOG_STMT_SNAPSHOT, 3, info->membership.index);
    bind_blob(s, LOG_STMT_SNAPSHOT, 4, buf_slice(&membership));
    bind_number(s, LOG_STMT_SNAPSHOT, 5, info->size);
    bind_blob(s, LOG_STMT_SNAPSHOT, 6, slice_of(info->sha256, sizeof info->sha256));
    bind_number(s, LOG_STMT_SNAPSHOT, 7, log_store_snapshot_crc(info, buf_slice(&membership)));
    int r = run(s, LOG_STMT_SNAPSHOT);
    buf_close(&membership);
    if (!op->installed) {
        s->trim_to = MAX(s->trim_to, op->trim_to);
        return r;
    }
    s->first_row = 0;
    s->trim_to = 0;
    return r != SQLITE_OK ? r : run(s, LOG_STMT_CLEAR);
}

static int write_op(struct log_store *s, const struct log_op *op)
{
    switch (op->type) {
    case LOG_OP_APPEND:
        return write_append(s, op);
    case LOG_OP_TRUNCATE:
        return write_truncate(s, op);
    case LOG_OP_META:
        return write_meta(s, op);
    case LOG_OP_SNAPSHOT:
        return write_snapshot(s, op);
    }
    UNREACHABLE();
}

/* A little of the prefix at a time: no commit waits for a whole snapshot's worth of deletes. */
static int trim(struct log_store *s)
{
    if (s->first_row == 0 || s->first_row > s->trim_to)
        return SQLITE_OK;
    uint64_t to = MIN(s->trim_to, s->first_row + LOG_STORE_TRIM_ROWS - 1);
    bind_number(s, LOG_STMT_TRIM, 1, to);
    s->first_row = to + 1;
    return run(s, LOG_STMT_TRIM);
}

int log_store_commit(struct log_store *s, const struct log_op *chain)
{
    uint64_t first_row = s->first_row;
    uint64_t trim_to = s->trim_to;
    int r = run(s, LOG_STMT_BEGIN);
    for (const struct log_op *op = chain; op != NULL && r == SQLITE_OK; op = op->next)
        r = write_op(s, op);
    if (r == SQLITE_OK)
        r = trim(s);
    if (r == SQLITE_OK)
        r = run(s, LOG_STMT_COMMIT);
    if (r != SQLITE_OK) {
        s->first_row = first_row;
        s->trim_to = trim_to;
    }
    return r;
}

/* ---- the thread ---- */

static NORETURN void fatal(struct log_store *s, const char *doing, int code)
{
    char text[512];
    (void)snprintf(text, sizeof text, "log.db: %s: %s (%d): %s", doing, sqlite3_errstr(code),
                   sqlite3_extended_errcode(s->db), sqlite3_errmsg(s->db));
    s->ops->fatal(s->arg, text);
    abort();
}

static void note_time(struct log_store *s, uint64_t us)
{
    s->commit_us[s->n_commits++ % LOG_STORE_TIMES] = (uint32_t)MIN(us, (uint64_t)UINT32_MAX);
    latency_add(&s->commits, us);
}

static void look(struct log_store *s)
{
    s->looked_ms = clock_boot_ms();
    (void)pthread_mutex_lock(&s->mutex);
    bool was_full = s->disk_full;
    s->look = false;
    (void)pthread_mutex_unlock(&s->mutex);
    bool full = log_store_judge_disk(s->dir, was_full);
    (void)pthread_mutex_lock(&s->mutex);
    s->disk_full = full;
    (void)pthread_mutex_unlock(&s->mutex);
    if (full != was_full)
        (void)uv_async_send(&s->async);
}

/* A full disk is met once, with the ballast; every other error ends the process here. */
static void commit_or_die(struct log_store *s, const struct log_op *chain)
{
    uint64_t began_us = clock_boot_us();
    int r = log_store_commit(s, chain);
    if ((r & 0xff) == SQLITE_FULL) {
        if (sqlite3_get_autocommit(s->db) == 0)
            (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
        bool room = log_store_ballast_release(s->dir);
        (void)pthread_mutex_lock(&s->mutex);
        s->disk_full = true;
        (void)pthread_mutex_unlock(&s->mutex);
        if (room)
            r = log_store_commit(s, chain);
    }
    if (r != SQLITE_OK)
        fatal(s,
              (r & 0xff) == SQLITE_FULL ? "the disk is full, the ballast is used up"
                                        : "writing",
              r);
    (void)pthread_mutex_lock(&s->mutex);
    note_time(s, clock_boot_us() - began_us);
    (void)pthread_mutex_unlock(&s->mutex);
}

static void checkpoint(struct log_store *s)
{
    int r = sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    /* A checkpoint that finds no room leaves everything in the WAL: nothing is lost. */
    if (r != SQLITE_OK && (r & 0xff) != SQLITE_BUSY && (r & 0xff) != SQLITE_FULL)
        fatal(s, "checkpoint", r);
    s->wal_frames = 0;
    s->meta_in_wal = false;
}

/* With the mutex. True: nothing came for LOG_STORE_PAUSE_MS. */
static bool wait_pause(struct log_store *s)
{
    struct timespec at;
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_nsec += LOG_STORE_PAUSE_MS * 1000000L;
    at.tv_sec += at.tv_nsec / 1000000000L;
    at.tv_nsec %= 1000000000L;
    return pthread_cond_timedwait(&s->wake, &s->mutex, &at) == ETIMEDOUT;
}

/* Waits for work; checkpoints in a pause: between two puts of a client that sends one after the other there
 * is none. Term and vote go into the database proper at once: a damaged WAL is cut off without a word, and a
 * forgotten vote could be given twice. */
static struct log_op *next_chain(struct log_store *s)
{
    bool pause = false;
    (void)pthread_mutex_lock(&s->mutex);
    while (s->todo.first == NULL && !s->stop) {
        bool wanted = s->wal_frames >= LOG_STORE_CHECKPOINT_FRAMES;
        bool due = s->meta_in_wal || (wanted && pause);
        if (due || s->look) {
            (void)pthread_mutex_unlock(&s->mutex);
            if (due)
                checkpoint(s);
            look(s);
            (void)pthread_mutex_lock(&s->mutex);
        } else if (wanted) {
            pause = wait_pause(s);
        } else {
            (void)pthread_cond_wait(&s->wake, &s->mutex);
        }
    }
    struct log_op *chain = log_queue_take(&s->todo);
    (void)pthread_mutex_unlock(&s->mutex);
    return chain;
}

void *log_store_worker(void *arg)
{
    struct log_store *s = arg;
    CHECK_MAGIC(s, LOG_STORE_MAGIC);
    thread_prompt(); /* what is acknowledged waits for it */
    for (struct log_op *chain; (chain = next_chain(s)) != NULL;) {
        commit_or_die(s, chain);
        (void)pthread_mutex_lock(&s->mutex);
        while (chain != NULL) {
            struct log_op *next = chain->next;
            log_queue_push(&s->done, chain);
            chain = next;
        }
        (void)pthread_mutex_unlock(&s->mutex);
        (void)uv_async_send(&s->async);
        if (s->wal_frames >= s->checkpoint_hard)
            checkpoint(s);
        if (clock_boot_ms() >= s->looked_ms + LOG_STORE_LOOK_MS)
            look(s);
    }
    return NULL;
}
