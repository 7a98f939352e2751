/* The node: Raft core, state and requests joined into one thing that knows no socket, no file of its
 * own, no thread and no clock. Storage, transport and time come through `node_ops`: production wires
 * the log store, the peer links and libuv (dcs.c), the simulator its fakes. Everything on one thread.
 *
 * The owner feeds it (requests, frames, answers, completions) and calls node_pass() once per loop pass
 * and at the latest at node_deadline(). A pass is: time -> requests routed -> one entry -> log thread ->
 * peers -> COMMIT of the state, when it was due after the last pass -> replies -> own snapshot -> log
 * thread and peers once more.
 *
 * Every request ends in exactly one reply, at the latest at its deadline:
 *   ERR_OUTCOME_UNKNOWN  its entry was submitted (or it was forwarded) and the answer is lost
 *   any other error      certainly not applied */
#ifndef REGENT_DCS_NODE_H
#define REGENT_DCS_NODE_H

#include "dcs/latency.h"
#include "dcs/raft_core.h"
#include "dcs/state.h"
#include "dcs/watch.h"
#include "proto/messages.h"

enum {
    NODE_ENTRY_MAX = 256 * 1024, /* bytes of one entry, unless a single request is larger */
    NODE_REQUESTS_MAX = 65536,
    NODE_REQUEST_BYTES_MAX = 64 * 1024 * 1024,
    NODE_DEADLINE_MS = 5000, /* of a request that names none */
    NODE_DEADLINE_MAX_MS = 60000
};

/* Methods that members alone may call, numbered behind the public ones. */
enum { NODE_METHOD_PRESENT = METHOD_COUNT, NODE_METHOD_COUNT };

struct node;

/* Is this node to serve at all? */
enum node_out {
    NODE_IN,
    NODE_QUARANTINED, /* its state is not that of the others */
    NODE_REMOVED      /* it is no member any more */
};

struct node_ops {
    uint64_t (*now_ms)(void *arg); /* CLOCK_BOOTTIME */
    uint64_t (*wall_ms)(void *arg);
    uint64_t (*now_us)(void *arg); /* for latencies alone */

    /* Storage, one FIFO; completions by node_*_stored(). Flush: everything handed over so far may go. */
    void (*store_append)(void *arg, uint64_t first_index, const struct raft_entry_view *entries,
                         size_t n);
    void (*store_truncate)(void *arg, uint64_t from_index);
    void (*store_meta)(void *arg, uint64_t term, uint64_t voted_for);
    void (*store_snapshot)(void *arg, const struct raft_snapshot_info *info, uint64_t trim_to,
                           bool installed);
    void (*store_flush)(void *arg);

    /* Transport. A frame may be dropped. */
    void (*send_frame)(void *arg, uint64_t member, struct slice frame);
    /* One request to a member; false: there is no link, nothing was sent. After true one
     * node_answer(number), or node_link(down). */
    bool (*call)(void *arg, uint64_t member, uint32_t number, const char *method,
                 struct slice params);
    bool (*linked)(void *arg, uint64_t member);
    /* The version that is spoken with it: the lower of the two programs'; 0 without a link. */
    uint64_t (*version)(void *arg, uint64_t member);
    void (*flush)(void *arg);
    /* Keep links with these members (and nobody else that was named so before). */
    void (*membership)(void *arg, const struct raft_membership *m);

    /* Snapshots. Copies off the loop into the file of `info` and reports node_snapshot_copied(). */
    void (*snapshot_copy)(void *arg, struct state_copy *copy,
                          const struct raft_snapshot_info *info);
    /* state_copy_hash() off the loop, then node_hashed(). NULL: not offered. */
    void (*hash)(void *arg, struct state_copy *copy);
    /* Pulls the file from a member; reports node_snapshot_fetched(). */
    void (*snapshot_fetch)(void *arg, uint64_t from, const struct raft_snapshot_info *info);
    /* The name of the file of the snapshot at `index`. */
    void (*snapshot_path)(void *arg, uint64_t index, char *ret_path, size_t size);
    /* state_restore_run() off the loop, then node_restored(). */
    void (*restore)(void *arg, struct state_restoring *r);
    /* Snapshots below index are no longer needed. */
    void (*snapshot_sweep)(void *arg, uint64_t index);

    /* node_leave() was called: a quarantine must outlive this process. NULL: not wanted. */
    void (*out)(void *arg, enum node_out why, const char *text);

    /* The process cannot go on. Must not return. */
    void (*fatal)(void *arg, const char *what);
};

/* What joining nodes are given. All empty: tokens are refused. The slices are the owner's. */
struct node_authority {
    const char *scope;
    struct slice ca_cert;
    struct slice ca_key; /* empty: this node does not have it (yet) */
    struct slice secrets;
};

struct node_options {
    uint64_t id;
    const char *name;
    const char *address; /* that others dial */
    const char *role;    /* asked for: voter | learner | witness */
    const char *cluster_id;
    uint64_t election_ms;
    uint64_t heartbeat_ms;
    uint64_t seed;
    size_t log_bytes_max;    /* 0: 16 MiB */
    uint64_t snapshot_every; /* 0: 65536 */
    struct state *state;     /* opened; stays the owner's */
    struct node_authority authority;
    const struct node_ops *ops;
    void *arg;
};

/* result is set when status is ERR_OK, text otherwise; both valid during the call. */
typedef void node_reply_cb(void *arg, uint64_t tag, enum err status, const char *text,
                           struct slice result);

struct node_caller {
    uint64_t peer; /* != 0: a member on behalf of its own client; not forwarded a second time */
    node_reply_cb *cb;
    void *arg;
    uint64_t tag;
};

enum err node_new(const struct node_options *o, struct node **ret_node, struct errmsg *e)
    MUST_CHECK;
void node_free(struct node *n); /* NULL is allowed; outstanding requests are answered first */
/* disk: as the log store found it. A snapshot newer than the state database is restored first. */
enum err node_start(struct node *n, const struct raft_core_disk *disk, struct errmsg *e)
    MUST_CHECK;
void node_set_authority(struct node *n, const struct node_authority *a);

/* The cluster's version: members whose programs do not know it are refused. */
uint64_t node_version(const struct node *n);

/* Is a client's certificate of this name and serial number refused? The second one changes when that may give
 * another answer than before. */
bool node_cert_revoked(const struct node *n, const char *name, uint64_t serial);
uint64_t node_revocations(const struct node *n);

/* What the other members said to this one, to be kept beyond this process. */
void node_hear(struct node *n, const struct raft_heard *said);
size_t node_heard_all(const struct node *n, struct raft_heard ret[static MEMBERS_MAX]);
/* What member `from` heard of this one: the node leaves when it does not know it any more. */
void node_recall(struct node *n, uint64_t from, struct slice params);

void node_pass(struct node *n);
/* How long the loop was busy with this turn, which node_pass() ended. */
void node_turn_took(struct node *n, uint64_t us);
uint64_t node_deadline(const struct node *n);

/* Any public method but hello, watch.*, ca.fetch and cert.renew; or NODE_METHOD_PRESENT. params are
 * copied. The reply may come before this returns. */
void node_request(struct node *n, unsigned method, struct slice params,
                  const struct node_caller *caller);
/* Another member asks whether `term` is still the newest: its answer, encoded. */
void node_confirm(struct node *n, struct slice params, struct buf *ret_reply);
void node_answer(struct node *n, uint32_t number, enum err status, const char *text,
                 struct slice result);
/* The link to a member came up or went down: calls without an answer are lost. */
void node_link(struct node *n, uint64_t member, bool up);
/* Answers everything that is under way: the node stops. */
void node_abandon(struct node *n);
/* ERR_INVALID: unsound; close that link. */
enum err node_frame(struct node *n, uint64_t from, struct slice frame, struct errmsg *e)
    MUST_CHECK;

void node_append_stored(struct node *n, uint64_t last_index);
void node_truncate_stored(struct node *n);
void node_meta_stored(struct node *n);
void node_snapshot_stored(struct node *n);
void node_snapshot_copied(struct node *n, const struct raft_snapshot_info *info, bool ok);
void node_restored(struct node *n, struct state_restoring *r, enum err status,
                   const char *text);
void node_snapshot_fetched(struct node *n, const struct raft_snapshot_info *info, bool ok);

/* Watches of one receiver `arg`. reply (encoded) goes out before the first event: the receiver's `send`
 * is not called for it before node_watch_start(). */
enum err node_watch(struct node *n, const struct watch_req *req, watch_send *send, void *arg,
                    struct buf *ret_reply, struct watch **ret_watch, struct errmsg *e)
    MUST_CHECK;
/* Sends what history has, at once and in the passes to come; w may be gone after. */
void node_watch_start(struct node *n, struct watch *w);
/* A watch with a window may send so much more. ERR_NOT_FOUND: no such watch of that receiver (it may have
 * ended); ERR_PRECONDITION: it has no window. Events may go out before this returns. */
enum err node_watch_credit(struct node *n, const struct watch_credit *c, const void *arg,
                           struct errmsg *e) MUST_CHECK;
bool node_unwatch(struct node *n, uint64_t id, void *arg);
void node_unwatch_all(struct node *n, void *arg);
void node_watch_progress(struct node *n, uint64_t elapsed_ms); /* call it about once a second */

/* This empty node may take part: the leader has accepted it under its id. */
void node_admit(struct node *n);
/* What this node's disk says: while it is full, a leader takes no writes but those of HA keys. */
void node_set_disk_full(struct node *n, bool full);
/* Gives leadership away, when it is here and there is somebody to take it; true: wait for it. */
bool node_step_aside(struct node *n);

/* The state as of now, committed and pinned, for state_copy_run() on any thread. *ret_info: index, term and
 * revision of it. */
enum err node_copy(struct node *n, struct state_copy **ret_copy, struct snapshot_info *ret_info,
                   struct errmsg *e) MUST_CHECK;

/* For good: it answers no request and is silent in Raft. text: the reason and the remedy. */
void node_leave(struct node *n, enum node_out why, const char *text);
bool node_is_out(const struct node *n);
/* Another member asks for the hash of the state at an index (node_compare.c): the answer, encoded. */
void node_compare(struct node *n, struct slice params, struct buf *ret_reply);

/* The hash of the state at a mark. ERR_NOT_FOUND: none of that index; ERR_UNAVAILABLE: not ready. */
enum err node_hash(const struct node *n, uint64_t index, struct hash_reply *ret_reply,
                   struct errmsg *e) MUST_CHECK;
void node_hashed(struct node *n, enum err status, const char *text, uint64_t hash);

/* Facts. */
bool node_is_leader(const struct node *n);
uint64_t node_leader(const struct node *n);
uint64_t node_term(const struct node *n);
uint64_t node_last_index(const struct node *n);
uint64_t node_revision(const struct node *n);
uint64_t node_applied(const struct node *n);
/* Does the newest membership name this node? */
bool node_takes_part(const struct node *n);
bool node_is_voter(const struct node *n, uint64_t id);
void node_status(struct node *n, struct status_reply *ret_status);
/* For the status: the 99th percentile of the last ones, and all of them. */
void node_set_fsync(struct node *n, uint64_t p99_us, const struct latency *all);
/* The registered member of that id. ERR_NOT_FOUND: none known here. */
enum err node_member(struct node *n, uint64_t id, struct member *ret_member) MUST_CHECK;
size_t node_members(struct node *n, struct member *ret_members, size_t max);

#endif
