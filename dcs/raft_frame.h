/* Raft's messages as frames: [version, type, fields, entries], big-endian, every length checked
 * against what is there before anything is allocated. One frame is at most RAFT_FRAME_MAX bytes.
 *
 * A decoded frame is sound in itself: terms and indexes fit SQLite's integers, terms of entries do
 * not fall, memberships obey raft_membership_check(). Whether it fits this node's log is for the
 * core to find out. */
#ifndef REGENT_DCS_RAFT_FRAME_H
#define REGENT_DCS_RAFT_FRAME_H

#include "dcs/raft_core.h"

enum {
    RAFT_FRAME_MAX = 2 * 1024 * 1024,
    RAFT_FRAME_SOFT_MAX = 1024 * 1024,          /* where the sender starts a new one */
    RAFT_FRAME_ENTRY_MAX = RAFT_FRAME_MAX - 64, /* data of one entry */
    RAFT_FRAME_ENTRIES_MAX = 4096,
    RAFT_FRAME_ENTRY_OVERHEAD = 13
};

enum raft_frame_type {
    RAFT_FRAME_APPEND = 1,
    RAFT_FRAME_APPEND_RESULT,
    RAFT_FRAME_VOTE,
    RAFT_FRAME_VOTE_RESULT,
    RAFT_FRAME_INSTALL,
    RAFT_FRAME_TIMEOUT_NOW
};

struct raft_frame {
    enum raft_frame_type type;
    uint64_t term;
    union {
        struct {
            uint64_t prev_index, prev_term, commit;
            struct raft_entry_view
                *entries; /* owned after decoding; data points into the frame */
            size_t n;
        } append;
        struct {
            uint64_t rejected, last_index;
        } append_result;
        struct {
            uint64_t last_index, last_term;
            bool disrupt_leader, pre_vote;
        } vote;
        struct {
            bool granted, pre_vote;
        } vote_result;
        struct raft_snapshot_info install;
        struct {
            uint64_t last_index, last_term;
        } timeout_now;
    };
};

/* Appends the bytes to ret. The caller keeps to the limits above. */
void raft_frame_encode(const struct raft_frame *f, struct buf *ret);
/* ERR_INVALID: unsound bytes; *ret_frame is then empty. Close it afterwards in both cases. */
enum err raft_frame_decode(struct slice bytes, struct raft_frame *ret_frame, struct errmsg *e)
    MUST_CHECK;
void raft_frame_close(struct raft_frame *f);

#endif
