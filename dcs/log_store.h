/* log.db: Raft's log, term, vote and snapshot record, in SQLite, written by one worker thread in
 * group commits: everything handed over while a commit runs becomes one transaction, one fsync.
 *
 * Fail-stop: an I/O error, a full disk behind the ballast, or damage ends the process through
 * `fatal`. Completions are counted on the loop thread through a uv_async handle, in order. */
#ifndef REGENT_DCS_LOG_STORE_H
#define REGENT_DCS_LOG_STORE_H

#include <uv.h>

#include "dcs/latency.h"
#include "dcs/raft_core.h"

struct log_store;

struct log_store_ops {
    void (*appended)(void *arg, uint64_t last_index);
    void (*truncated)(void *arg);
    void (*meta)(void *arg);
    void (*snapshot)(void *arg);
    /* The disk is nearly full, or has room again. Told when it changes; NULL is allowed. */
    void (*disk_full)(void *arg, bool full);
    void (*fatal)(void *arg, const char *what); /* worker thread; must not return */
};

/* Opens or creates; verifies every row's CRC, no gaps, snapshot continuity. On success ret_disk's entries
 * live until log_store_loaded(). */
enum err log_store_open(const char *dir, struct log_store **ret_store,
                        struct raft_core_disk *ret_disk, struct errmsg *e) MUST_CHECK;
/* That the log does not end below `logged`, the mark of state.db. */
enum err log_store_check_logged(const struct raft_core_disk *disk, uint64_t logged,
                                struct errmsg *e) MUST_CHECK;
void log_store_loaded(struct log_store *s);
/* First node only, before log_store_start(): writes term 1 and the bootstrap entry; refused when anything
 * is there. To load what it wrote, close the store and open it again. */
enum err log_store_bootstrap(struct log_store *s, struct slice entry, struct errmsg *e)
    MUST_CHECK;
/* The same for a log that begins behind a snapshot, in the term of it: a new cluster with an old state. */
enum err log_store_reborn(struct log_store *s, struct raft_snapshot_info *info,
                          struct errmsg *e) MUST_CHECK;
enum err log_store_start(struct log_store *s, uv_loop_t *loop, const struct log_store_ops *ops,
                         void *arg, struct errmsg *e) MUST_CHECK;
/* Same meaning as the raft_core ops; gathered until log_store_flush() at the end of the loop pass. */
void log_store_append(struct log_store *s, uint64_t first_index,
                      const struct raft_entry_view *entries, size_t n);
void log_store_truncate(struct log_store *s, uint64_t from_index);
void log_store_meta(struct log_store *s, uint64_t term, uint64_t voted_for);
void log_store_snapshot(struct log_store *s, const struct raft_snapshot_info *info,
                        uint64_t trim_to, bool installed);
void log_store_flush(struct log_store *s);
uint64_t log_store_fsync_us_p99(struct log_store *s); /* of the last 1024 commits */
void log_store_fsync(struct log_store *s, struct latency *ret_latency); /* of all */
/* The disk is nearly full, or the ballast is gone: only what keeps the cluster alive should still be
 * written. Ends by itself when there is room. */
bool log_store_disk_full(struct log_store *s);
/* Has the worker look at the disk; it does so after commits, too. */
void log_store_look(struct log_store *s);
/* Before anything in the directory is opened: gives up the ballast when without it nothing can be. */
void log_store_make_room(const char *dir);
/* Is there room for a file of that size, and enough behind it for the log and the state to go on? */
bool log_store_room_for(const char *dir, uint64_t bytes);
/* Waits for the worker, closes the database. The uv handle is closed asynchronously: run the loop once
 * more. Completions not yet delivered are dropped. The worker reads the core's entries until then: free
 * the core afterwards. */
void log_store_close(struct log_store *s);

#endif
