/* Shared by the log_store*.c files (and their tests) alone.
 *
 *   log_store.c         life, the loop's side: gathering, handing over, completions
 *   log_store_load.c    schema, what is found at start, bootstrap
 *   log_store_worker.c  the worker: group commits, trimming, checkpoints
 *   log_store_ballast.c room kept for the day the disk is full
 *
 * The connection belongs to one thread at a time: to the opener until log_store_start(), then to the
 * worker until it is joined. */
#ifndef REGENT_DCS_LOG_STORE_INTERNAL_H
#define REGENT_DCS_LOG_STORE_INTERNAL_H

#include <pthread.h>
#include <sqlite3.h>

#include "base/assert.h"
#include "dcs/log_store.h"

enum {
    LOG_STORE_TRIM_ROWS = 256,          /* per commit */
    LOG_STORE_CHECKPOINT_FRAMES = 2000, /* in a pause: 4 MiB */
    LOG_STORE_PAUSE_MS = 50,            /* nothing came for so long */
    LOG_STORE_CHECKPOINT_HARD = 4000,   /* under load: 4 to 8 MiB */
    LOG_STORE_BALLAST_BYTES = 8 * 1024 * 1024,
    /* Free bytes, in this order: the ballast is given up; the disk counts as full; as not full again. */
    LOG_STORE_DIRE_BYTES = 1024 * 1024,
    LOG_STORE_LOW_BYTES = 2 * LOG_STORE_BALLAST_BYTES,
    LOG_STORE_PLENTY_BYTES = 4 * LOG_STORE_BALLAST_BYTES,
    LOG_STORE_LOOK_MS = 100, /* at most so often under load */
    LOG_STORE_TIMES = 1024,
    LOG_STORE_PATH_MAX = 4096
};

enum log_op_type { LOG_OP_APPEND, LOG_OP_TRUNCATE, LOG_OP_META, LOG_OP_SNAPSHOT };

struct log_op {
    struct log_op *next;
    enum log_op_type type;
    uint64_t index;                  /* append: first; truncate: from */
    struct raft_entry_view *entries; /* append; owned, their data is the caller's */
    size_t n;
    uint64_t term, voted_for;        /* meta */
    struct raft_snapshot_info *info; /* snapshot; owned */
    uint64_t trim_to;
    bool installed;
};

struct log_queue {
    struct log_op *first, **end; /* end NULL: never used */
};

enum log_stmt {
    LOG_STMT_BEGIN,
    LOG_STMT_COMMIT,
    LOG_STMT_INSERT,
    LOG_STMT_TRUNCATE,
    LOG_STMT_TRIM,
    LOG_STMT_CLEAR,
    LOG_STMT_META,
    LOG_STMT_SNAPSHOT,
    LOG_STMT_COUNT
};

#define LOG_STORE_MAGIC 0x4c4f4753U

struct log_store {
    uint32_t magic;
    char dir[LOG_STORE_PATH_MAX];
    sqlite3 *db;
    sqlite3_stmt *stmt[LOG_STMT_COUNT];
    struct raft_entry_view *loaded; /* owned until log_store_loaded() */
    size_t n_loaded;
    bool empty; /* nothing was found at start */

    /* Loop. */
    const struct log_store_ops *ops;
    void *arg;
    uv_async_t async;
    struct log_queue gathered;
    bool started;
    bool told_full; /* as the owner was told */

    /* Between the two, under the mutex. */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct log_queue todo;
    struct log_queue done;
    bool stop;
    bool disk_full;
    bool look; /* the worker shall look at the disk */
    uint32_t commit_us[LOG_STORE_TIMES];
    size_t n_commits;
    struct latency commits;

    /* Worker. */
    pthread_t thread;
    uint64_t first_row; /* 0: none */
    uint64_t trim_to;
    int wal_frames;
    int checkpoint_hard; /* frames; this store's own */
    bool meta_in_wal;    /* term and vote are only in the WAL */
    uint64_t looked_ms;
};

void log_queue_push(struct log_queue *q, struct log_op *op);
struct log_op *log_queue_take(struct log_queue *q); /* the whole chain */
void log_op_free(struct log_op *op);

/* log_store_load.c */
enum err log_store_open_db(struct log_store *s, struct errmsg *e) MUST_CHECK;
enum err log_store_load(struct log_store *s, struct raft_core_disk *ret_disk, struct errmsg *e)
    MUST_CHECK;
uint32_t log_store_entry_crc(uint64_t index, const struct raft_entry_view *entry);
uint32_t log_store_meta_crc(uint64_t term, uint64_t voted_for);
uint32_t log_store_snapshot_crc(const struct raft_snapshot_info *info, struct slice membership);

/* log_store_worker.c */
void *log_store_worker(void *arg);
int log_store_commit(struct log_store *s, const struct log_op *chain); /* an SQLite code */
enum err log_store_prepare(struct log_store *s, struct errmsg *e) MUST_CHECK;

/* log_store_ballast.c */
/* Makes the file when it is missing and the disk has plenty of room. True when it is there. */
bool log_store_ballast_make(const char *dir);
bool log_store_ballast_release(const char *dir); /* true: there was one */
/* Is the disk full, given that it was? Gives up the ballast, or makes it anew. */
bool log_store_judge_disk(const char *dir, bool was_full);

#endif
