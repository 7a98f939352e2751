/* Shared by the raft_core_*.c files alone.
 *
 *   raft_core.c           life, time, requests, facts
 *   raft_core_start.c     what the disk holds
 *   raft_core_step.c      one event through the library, and all that follows from it
 *   raft_core_receive.c   frames to messages
 *   raft_core_send.c      messages to frames, held while a term or vote is not stored
 *   raft_core_store.c     the FIFO of storage operations and their completions
 *   raft_core_snapshot.c  taking, fetching, installing
 *   raft_core_recall.c    what members said, for those that forgot it
 *
 * An event enters by core_event(), which steps the library, hands out what it asks for in the order
 * term and vote, truncation, entries, snapshot, messages, and then applies what became committed.
 * Callbacks must not call back into the core. */
#ifndef REGENT_DCS_RAFT_CORE_INTERNAL_H
#define REGENT_DCS_RAFT_CORE_INTERNAL_H

#include "base/assert.h"
#include "dcs/raft_core.h"
#include "dcs/raft_frame.h"
#include "dcs/raft_lib.h"
#include "dcs/raft_log.h"
#include "dcs/raft_membership.h"

enum {
    CORE_INFLIGHT_ENTRIES_MAX = 1024, /* uncommitted, at the leader */
    CORE_INFLIGHT_BYTES_MAX = 8 * 1024 * 1024,
    CORE_PEER_INFLIGHT_ENTRIES = 512, /* unacknowledged, per follower */
    CORE_PROMOTE_LAG_MAX = 1024,      /* entries, of a learner that becomes a voter */
    CORE_LOG_SHARE_MAX = 4,           /* times log_bytes_max, with a large state */
    CORE_HELD_BYTES_MAX = 16 * 1024 * 1024,
    CORE_OWN_TERMS = 64,
    CORE_APPLY_BYTES_MAX = 512 * 1024 /* some 50 ms of small puts */
};

/* What this member has said in a term: at its start, all that it may have said in earlier lives. */
struct core_own {
    uint64_t term, vote;
    uint64_t index; /* acknowledged */
};

enum core_op_type { CORE_OP_APPEND, CORE_OP_TRUNCATE, CORE_OP_META, CORE_OP_SNAPSHOT };

/* One store_* call that has not completed. */
struct core_op {
    struct core_op *next;
    enum core_op_type type;
    uint64_t asked_index; /* append: last index as it was asked for */
    uint64_t valid_index; /* append: what of it is still part of the log; 0: nothing */
    bool installed;       /* snapshot */
    uint64_t trim_to;     /* snapshot */
    struct raft_snapshot_info *info; /* snapshot; owned */
    struct raft_log_entry **entries; /* append; owned references */
    struct raft_entry_view *views;   /* append; owned */
    size_t n;
};

/* A frame that waits until the meta write number `meta` is stored. */
struct core_held_frame {
    struct core_held_frame *next;
    uint64_t to;
    uint64_t meta;
    size_t n;
    uint8_t bytes[];
};

/* An InstallSnapshot of a leader. */
struct core_install {
    bool set;
    uint64_t from;
    uint64_t term;
    struct raft_snapshot_info info;
};

struct core_peer {
    uint64_t id;
    uint64_t heard_ms;
    /* As last said to it, whether it arrived or not. */
    uint64_t sent_index;
    uint64_t sent_commit;
    /* when it is told what is committed, unless entries go there first; 0: no need */
    uint64_t tell_ms;
    uint64_t install_index; /* newest snapshot sent: it is busy until it acknowledges that */
};

#define CORE_MAGIC 0x52434f52U

struct raft_core {
    uint32_t magic;
    struct raft_core_options o;
    struct raft raft;
    struct raft_log log;
    bool started;
    bool in_callback; /* a callback of the owner runs */
    bool paused;      /* by the owner: nothing is applied */
    uint64_t now_ms;
    uint64_t ticked_ms;
    uint64_t leader_heard_ms;
    uint64_t applied;
    size_t turn_bytes;   /* applied in this turn */
    uint64_t term_start; /* leader: its barrier; 0 otherwise */
    bool was_leader;
    bool stale_request; /* the frame in hand is of an older term */

    struct raft_membership membership; /* newest, also uncommitted */
    struct raft_membership committed;  /* as of applied */

    /* Storage: term and vote as last handed over; the FIFO of what is under way. */
    uint64_t meta_term;
    uint64_t meta_vote;
    uint64_t meta_asked;
    uint64_t meta_stored;
    struct core_op *ops, **ops_end;

    struct core_held_frame *held, **held_end;
    size_t held_bytes;
    struct buf frame; /* scratch */

    /* Snapshots. At most one of taking, fetching, installing, restoring. */
    bool has_snapshot;
    struct raft_snapshot_info snapshot; /* newest stored */
    bool taking;
    uint64_t taking_index;
    bool taking_quiet;    /* in a slow time: little of the log stays */
    uint64_t snapshot_ms; /* when one was taken or installed, or the start */
    struct core_install fetching;
    struct core_install waiting; /* arrived while another one was under way */
    bool installing;
    /* `snapshot` is stored, the state does not have it yet: nothing is applied */
    bool restoring;
    const struct raft_snapshot_info *delivering; /* while the library is handed the message */

    /* As last told to the owner. */
    enum raft_core_state told_state;
    uint64_t told_term;
    uint64_t told_leader;

    struct core_peer peers[RAFT_CORE_MEMBERS_MAX];
    size_t n_peers;

    struct raft_heard heard[RAFT_CORE_MEMBERS_MAX];
    size_t n_heard;
    struct core_own own[CORE_OWN_TERMS]; /* by term, the newest last */
    size_t n_own;
};

/* raft_core_step.c */
void core_clock(struct raft_core *c, uint64_t now_ms); /* never runs backwards */
/* Steps, stores, sends, applies, tells. The library's return value: not 0 only for a refused submit or
 * transfer and for a message that contradicts a committed entry. */
int core_event(struct raft_core *c, struct raft_event *event) MUST_CHECK;
void core_event_ok(struct raft_core *c, struct raft_event *event); /* must not fail */
/* Applies what may be applied, as far as is good in a turn, and tells what follows from it. */
void core_go_on(struct raft_core *c);
bool core_behind(const struct raft_core *c); /* there is more to apply */
void core_raise_term(struct raft_core *c);   /* for a sole voter, before it elects itself */
void core_confirm_change(
    struct raft_core *c); /* the uncommitted change is known to be committed */
int core_submit(struct raft_core *c, enum raft_entry_type type, struct slice data) MUST_CHECK;

/* raft_core_send.c */
/* The transfer of that snapshot failed: the leader begins one anew. Its heartbeats do not bring it to that once it
 * has a newer snapshot, they are anchored there: the library would wait for 30 s. */
void core_send_rejection(struct raft_core *c, uint64_t to, uint64_t snapshot);
void core_send(struct raft_core *c, const struct raft_message *m);
void core_release_held(struct raft_core *c);
void core_free_held(struct raft_core *c);

/* raft_core_recall.c */
void core_hear_frame(struct raft_core *c, uint64_t from, const struct raft_frame *f);
void core_own_term(struct raft_core *c, uint64_t term, uint64_t vote, uint64_t index);

/* raft_core_store.c */
void core_store_meta(struct raft_core *c);
void core_store_entries(struct raft_core *c, uint64_t first, const struct raft_entry *entries,
                        size_t n);
void core_store_snapshot(struct raft_core *c, const struct raft_snapshot_info *info,
                         uint64_t trim_to, bool installed);
void core_free_ops(struct raft_core *c);

/* raft_core_snapshot.c */
void core_install_arrived(struct raft_core *c, const struct core_install *i);
void core_install_begin(struct raft_core *c, struct raft_update *u);
void core_snapshot_done(struct raft_core *c, struct core_op *op);
void core_restore(struct raft_core *c); /* the state gets c->snapshot, now or later */
bool core_fetches_from(const struct raft_core *c, uint64_t leader);

/* A copy in the library's memory, which takes it over. */
void core_lib_configuration(const struct raft_membership *m, struct raft_configuration *ret);
void core_membership_of(const struct raft_configuration *conf, uint64_t index,
                        struct raft_membership *ret);

/* Around every callback of the owner. */
#define CORE_CALL(c, op, ...)                    \
    do {                                         \
        ASSERT(!(c)->in_callback);               \
        (c)->in_callback = true;                 \
        (c)->o.ops->op((c)->o.arg, __VA_ARGS__); \
        (c)->in_callback = false;                \
    } while (0)

static inline uint64_t core_last_index(const struct raft_core *c)
{
    return c->log.last;
}

#endif
