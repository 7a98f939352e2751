/* Snapshot files `snapshot-<index>.db` of the data directory: made from a copy of the state, read out
 * in pieces for other members, pulled from a member into a temporary file that is checked (size,
 * SHA-256, every page and row), synced and renamed. All file work is done by workers; callbacks come on the loop thread. */
#ifndef REGENT_DCS_SNAPSHOT_FILES_H
#define REGENT_DCS_SNAPSHOT_FILES_H

#include <uv.h>

#include "dcs/node.h"

struct snapshot_files_ops {
    void (*copied)(void *arg, const struct raft_snapshot_info *info, bool ok);
    void (*fetched)(void *arg, const struct raft_snapshot_info *info, bool ok);
    void (*restored)(void *arg, struct state_restoring *r, enum err status, const char *text);
    /* Sends snapshot.read to a member; false: no link. The answer comes by snapshot_files_answer(). */
    bool (*call)(void *arg, uint64_t member, uint32_t number, struct slice params);
    void (*fatal)(void *arg, const char *what); /* must not return */
};

struct snapshot_fetch;

struct snapshot_files {
    uv_loop_t *loop;
    char dir[3072];
    const struct snapshot_files_ops *ops;
    void *arg;
    struct snapshot_fetch *fetch; /* NULL: none under way */
    uint32_t calls;               /* of snapshot.read, for numbers */
    size_t working;               /* jobs at the workers */
    bool ask_pending;             /* the next piece is to be asked for, once there is a link */
    bool closing;
};

/* loop, dir, ops and arg are set; removes what a killed process left: temporary files and all
 * snapshots but the one at `keep` (0: none). */
void snapshot_files_start(struct snapshot_files *s, uint64_t keep);
void snapshot_files_path(const struct snapshot_files *s, uint64_t index, char *ret_path,
                         size_t size);
void snapshot_files_sweep(struct snapshot_files *s, uint64_t below);
/* Fills size and sha256 of a copy of info; bytes: what it will have, about. */
void snapshot_files_copy(struct snapshot_files *s, struct state_copy *copy, uint64_t bytes,
                         const struct raft_snapshot_info *info);
/* Runs it; `restored` takes it back. */
void snapshot_files_restore(struct snapshot_files *s, struct state_restoring *r);
/* A newer fetch replaces one under way; that one is not reported any more. */
void snapshot_files_fetch(struct snapshot_files *s, uint64_t from,
                          const struct raft_snapshot_info *info);
/* Once per pass: a fetch begins outside of Raft's own callbacks, and goes on after a broken link. */
void snapshot_files_go(struct snapshot_files *s);
bool snapshot_files_answer(struct snapshot_files *s, uint32_t number, enum err status,
                           struct slice result);
void snapshot_files_link_down(struct snapshot_files *s, uint64_t member);
void snapshot_files_read(struct snapshot_files *s, uint64_t index, uint64_t offset,
                         node_reply_cb *done, void *done_arg, uint64_t tag);
/* No callback after it; jobs at workers still end on the loop. */
void snapshot_files_close(struct snapshot_files *s);

#endif
