/* Consensus: libraft's core driven by raft_step(), with the log cache and every trap of the library
 * handled here and nowhere else. No I/O, no clock, no thread: time comes in, work goes out through
 * `ops`, completions come back by raft_core_*_stored(). So the same code runs in production and in
 * the simulator. Everything on the DCS loop thread.
 *
 * Storage is one FIFO: the order of store_* calls is the order on disk; completions come back in
 * that order. Messages that depend on a term, a vote or entries are not sent before these are
 * stored. The owner must end the process when storing fails: there is no error path. */
#ifndef REGENT_DCS_RAFT_CORE_H
#define REGENT_DCS_RAFT_CORE_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

/* Callbacks must not call back into the core: they note and wake. */
enum { RAFT_CORE_MEMBERS_MAX = 64 };

enum raft_entry_type { RAFT_ENTRY_COMMAND = 1, RAFT_ENTRY_BARRIER = 2, RAFT_ENTRY_CHANGE = 3 };
enum raft_role { RAFT_ROLE_VOTER = 1, RAFT_ROLE_LEARNER = 2, RAFT_ROLE_SPARE = 3 };
enum raft_core_state { RAFT_CORE_FOLLOWER, RAFT_CORE_CANDIDATE, RAFT_CORE_LEADER };

struct raft_entry_view {
    uint64_t term;
    enum raft_entry_type type;
    struct slice data; /* valid until the store call's completion */
};

struct raft_server {
    uint64_t id;
    enum raft_role role;
    char address[128];
};

struct raft_membership {
    uint64_t index; /* of the entry it comes from */
    struct raft_server servers[RAFT_CORE_MEMBERS_MAX];
    size_t n;
};

/* Names one snapshot; the data is a file `snapshot-<index>.db` of the owner's. */
struct raft_snapshot_info {
    uint64_t index;
    uint64_t term;
    struct raft_membership membership; /* committed as of index */
    uint64_t size;                     /* bytes of the file */
    uint8_t sha256[32];
};

struct raft_core_ops {
    void (*store_append)(void *arg, uint64_t first_index, const struct raft_entry_view *entries,
                         size_t n);
    void (*store_truncate)(void *arg, uint64_t from_index); /* drops from_index and later */
    void (*store_meta)(void *arg, uint64_t term, uint64_t voted_for);
    /* Records a snapshot whose file is complete; the log up to `trim_to` may go. installed: the whole
     * log goes, the state database is replaced by the file (restore, below) afterwards. */
    void (*store_snapshot)(void *arg, const struct raft_snapshot_info *info, uint64_t trim_to,
                           bool installed);
    /* One encoded frame (<= 2 MiB) to a member; may be dropped. */
    void (*send)(void *arg, uint64_t member_id, struct slice frame);
    /* A committed command, in order, each index once per run; the owner skips what its state has. Returns
     * what it took beyond its length: the bytes of small commands that take as long. */
    size_t (*apply)(void *arg, uint64_t index, uint64_t term, struct slice data);
    /* A committed (or, after restore, current) membership. */
    void (*membership)(void *arg, const struct raft_membership *m);
    /* State, term or leader changed. leader_id 0: none known. */
    void (*role)(void *arg, enum raft_core_state state, uint64_t term, uint64_t leader_id);
    /* Follower: begin to move file `info` from leader `from` to here in pieces (the owner's transport);
     * then call raft_core_snapshot_received() or _failed(). */
    void (*snapshot_fetch)(void *arg, uint64_t from, const struct raft_snapshot_info *info);
    /* Replace the state database by the file of `info` (already stored by store_snapshot). Called at start
     * too, for a crash may have come between. False: it is done, or the state is at or above info->index
     * already. True: it goes on beside the loop, raft_core_snapshot_restored() will be called. Until then
     * nothing is applied; the member votes and stores entries all the same, for the snapshot is durable. */
    bool (*snapshot_restore)(void *arg, const struct raft_snapshot_info *info);
};

struct raft_core_options {
    uint64_t id;
    uint64_t election_ms;
    uint64_t heartbeat_ms;
    uint64_t seed;
    /* retained log, 16 MiB, up to four times that with a large state; also triggers
     * snapshots */
    size_t log_bytes_max;
    uint64_t snapshot_every; /* entries */
    uint64_t trailing;       /* entries kept behind a snapshot, >= snapshot_every */
    /* In a turn, 0: 512 KiB. The entry that reaches it is the turn's last one; what is left is applied in
     * the turns to come, and the next tick is due at once. */
    size_t apply_bytes_max;
    /* A log that grows slowly is cut to so many bytes (or a quarter of a large state) when its last snapshot is
     * that old. 0: never. */
    uint64_t quiet_ms;
    size_t quiet_bytes;
    const struct raft_core_ops *ops;
    void *arg;
};

/* What the log store found at start. entries[i] has index first_index + i. */
struct raft_core_disk {
    uint64_t term;
    uint64_t voted_for;
    bool has_snapshot;
    struct raft_snapshot_info snapshot;
    uint64_t first_index;
    const struct raft_entry_view *entries; /* copied */
    size_t n;
};

struct raft_core;

enum err raft_core_new(const struct raft_core_options *o, struct raft_core **ret_core,
                       struct errmsg *e) MUST_CHECK;
void raft_core_free(struct raft_core *c); /* NULL is allowed */
/* The entry a first node writes at index 1 before it starts. */
void raft_core_bootstrap_entry(const struct raft_membership *m, struct buf *ret_data);
enum err raft_core_start(struct raft_core *c, const struct raft_core_disk *disk,
                         uint64_t now_ms, struct errmsg *e) MUST_CHECK;

/* Time. Call raft_core_tick() at the latest at raft_core_deadline(). */
uint64_t raft_core_deadline(const struct raft_core *c);
void raft_core_tick(struct raft_core *c, uint64_t now_ms);

/* A frame from an authenticated member. ERR_INVALID: unsound, the link should be closed. */
enum err raft_core_receive(struct raft_core *c, uint64_t from, struct slice frame,
                           uint64_t now_ms, struct errmsg *e) MUST_CHECK;

/* Leader: one command entry; *ret_index is where it will stand if it commits (in term raft_core_term).
 * ERR_UNAVAILABLE: not leader; ERR_LIMIT: too many entries or bytes in flight. */
enum err raft_core_submit(struct raft_core *c, struct slice data, uint64_t now_ms,
                          uint64_t *ret_index) MUST_CHECK;
/* Leader: one membership change at a time, of exactly one member; the others may come in any order.
 * ERR_PRECONDITION: one is under way; a new voter has not caught up as a learner; the leader itself would
 * stop to be a voter. ERR_UNAVAILABLE: not leader, or not yet sure of what is committed. */
enum err raft_core_change(struct raft_core *c, const struct raft_membership *m, uint64_t now_ms,
                          uint64_t *ret_index, struct errmsg *e) MUST_CHECK;
/* Leader: what followers that answer have not been told yet (entries at once, what is committed with the
 * entries behind it or 3 ms later) does not wait for the next heartbeat. Call it at the end of a pass, and
 * at the latest at the deadline (UINT64_MAX: none). */
void raft_core_hurry(struct raft_core *c, uint64_t now_ms);
uint64_t raft_core_hurry_deadline(const struct raft_core *c);
/* A turn of the owner's loop is over, with all events and ticks of it: entries may be applied again. */
void raft_core_turn(struct raft_core *c);
enum err raft_core_transfer(struct raft_core *c, uint64_t to, uint64_t now_ms)
    MUST_CHECK; /* 0: best voter */

/* Completions of store_*, one call each, in order. */
void raft_core_append_stored(struct raft_core *c, uint64_t last_index, uint64_t now_ms);
void raft_core_truncate_stored(struct raft_core *c);
void raft_core_meta_stored(struct raft_core *c, uint64_t now_ms);
void raft_core_snapshot_stored(struct raft_core *c, uint64_t now_ms);

/* Snapshots. The owner asks after its state commit whether one is due, copies its state off the loop
 * and reports the finished file. Never due while `state_index` > applied (replay). */
bool raft_core_snapshot_due(const struct raft_core *c, uint64_t state_index);
void raft_core_snapshot_begin(
    struct raft_core *c, struct raft_snapshot_info *ret_info); /* index, term, membership */
void raft_core_snapshot_taken(struct raft_core *c, const struct raft_snapshot_info *info,
                              uint64_t now_ms);
void raft_core_snapshot_abandoned(struct raft_core *c);
void raft_core_snapshot_received(struct raft_core *c, const struct raft_snapshot_info *info,
                                 uint64_t now_ms);
void raft_core_snapshot_failed(struct raft_core *c, uint64_t now_ms);
void raft_core_snapshot_restored(struct raft_core *c, uint64_t now_ms);

/* What a member said to this one in the newest term heard of it, which it must know after every restart:
 * the entries it acknowledged, whether it voted for this one. It is to be told so first on a new link. */
struct raft_heard {
    uint64_t id;
    uint64_t term;
    uint64_t index; /* 0: none */
    bool voted;
};
/* False: nothing was heard yet. */
bool raft_core_heard(const struct raft_core *c, uint64_t id, struct raft_heard *ret);
size_t raft_core_heard_all(const struct raft_core *c,
                           struct raft_heard ret[static RAFT_CORE_MEMBERS_MAX]);
/* From an earlier life of this process. */
void raft_core_hear(struct raft_core *c, const struct raft_heard *said);
/* What member `from` heard of this one. ERR_CORRUPT: it is not known here any more; this member may neither
 * vote nor acknowledge. */
enum err raft_core_recall(const struct raft_core *c, uint64_t from, const struct raft_heard *h,
                          struct errmsg *e) MUST_CHECK;

/* Nothing is applied until it is taken back; all else goes on. Allowed in a callback. */
void raft_core_pause_apply(struct raft_core *c, bool pause);

/* Facts. */
enum raft_core_state raft_core_state(const struct raft_core *c);
uint64_t raft_core_term(const struct raft_core *c);
uint64_t raft_core_leader(const struct raft_core *c);
/* Newest recorded by store_snapshot and stored; 0: none. Files of this index and newer must be kept. */
uint64_t raft_core_snapshot_index(const struct raft_core *c);
uint64_t raft_core_last_index(const struct raft_core *c);
uint64_t raft_core_stored_index(const struct raft_core *c); /* durable here */
uint64_t raft_core_commit_index(const struct raft_core *c);
uint64_t raft_core_applied_index(const struct raft_core *c);
uint64_t raft_core_term_start(
    const struct raft_core *
        /* leader: index of the first entry of its own term (a barrier it writes by itself at
         * election) */
        c);
uint64_t raft_core_match_index(const struct raft_core *c, uint64_t member_id); /* leader */
bool raft_core_recently_heard(const struct raft_core *c, uint64_t member_id,
                              uint64_t now_ms); /* leader */
size_t raft_core_log_bytes(const struct raft_core *c);
const struct raft_membership *raft_core_membership(
    const struct raft_core *c); /* newest, also uncommitted */
bool raft_core_change_pending(const struct raft_core *c);

#endif
