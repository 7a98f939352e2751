/* state.db: the replicated state, in SQLite. One writer (the DCS loop); one transaction per loop pass
 * holds every change and the applied index. Deterministic: the same entries give the same rows on
 * every member; a local failure aborts the process, a logical failure is a replicated result.
 *
 * An entry is a batch: MessagePack [version, wall_ms, [command...]], command = [kind, payload...];
 * built with state_batch_*, so that its layout is known here alone. */
#ifndef REGENT_DCS_STATE_H
#define REGENT_DCS_STATE_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "proto/messages.h"

struct state;

/* Called while an entry is applied, on the loop thread. */
struct state_ops {
    /* Result of the i-th command of the entry: an encoded result of its method, or an error. */
    void (*result)(void *arg, uint64_t index, size_t i, enum err status, const char *error, struct slice result);
    /* One changed key, in order; kv.mod_revision is the revision. prev.mod_revision 0: none. */
    void (*event)(void *arg, bool deleted, const struct kv *kv, const struct kv *prev);
    void (*revision_done)(void *arg, uint64_t revision); /* all events of it were reported */
};

enum state_command {
    STATE_CMD_SESSION_OPEN = 1,
    STATE_CMD_PUT,
    STATE_CMD_DELETE,
    STATE_CMD_TXN,
    STATE_CMD_LEASE_GRANT,
    STATE_CMD_LEASE_RENEW,  /* many in one entry; causes no commit of state.db by itself */
    STATE_CMD_LEASE_REVOKE,
    STATE_CMD_LEASE_EXPIRE, /* (id, nonce, n): void when the counter has moved on */
    STATE_CMD_TOKEN_CREATE,
    STATE_CMD_TOKEN_REVOKE,
    STATE_CMD_TOKEN_REDEEM, /* takes one use, allots the member id, adds the member as "joining" */
    STATE_CMD_MEMBER_STATE, /* (id, state): joining -> active -> removed */
    STATE_CMD_COMPACT,      /* (revision) */
    STATE_CMD_MEMBER_INIT   /* the first member's own row; only while there is none */
};

/* Opens, migrates, checks integrity; *ret_applied / *ret_logged: marks of the last commit. scope/cluster
 * id are stored at creation and compared afterwards. */
enum err state_open(const char *path, const char *cluster_id, struct state **ret_state, struct errmsg *e) MUST_CHECK;
void state_close(struct state *s);
uint64_t state_db_applied(const struct state *s); /* as of the last apply, also uncommitted */
uint64_t state_logged(const struct state *s);
uint64_t state_revision(const struct state *s);
uint64_t state_compacted(const struct state *s);

/* ---- building an entry (leader) ---- */
struct state_batch {
    struct buf body;
    size_t n;
};
/* params: the encoded parameters of the method the command belongs to (put_req, txn_req, ...), already
 * decoded once by the caller and found sound. Returns the position of the command. */
size_t state_batch_add(struct state_batch *b, enum state_command cmd, struct slice params);
size_t state_batch_expire(struct state_batch *b, uint64_t lease, uint64_t nonce, uint64_t n);
size_t state_batch_member(struct state_batch *b, uint64_t id, const char *new_state);
size_t state_batch_compact(struct state_batch *b, uint64_t revision);
/* Bootstrap: the first leader proposes its own row as the first command it ever writes, when
 * state_members() is empty. An entry, never a local write: a member that replays the log from its
 * start must come to the same rows and ids. */
size_t state_batch_member_init(struct state_batch *b, const struct member *m);
size_t state_batch_bytes(const struct state_batch *b);
void state_batch_end(struct state_batch *b, uint64_t wall_ms, struct buf *ret_entry); /* empties b */

/* ---- applying ---- */
/* now_ms: CLOCK_BOOTTIME, for the lease clocks of this member alone. Entries at or below the applied
 * index are skipped. Opens the transaction when none is open. */
void state_apply(struct state *s, uint64_t index, struct slice entry, uint64_t now_ms, const struct state_ops *ops,
                 void *arg);
/* Commits what the pass applied (nothing when only renewals came), with the counters of all leases and
 * logged = min(stored, commit). */
void state_commit(struct state *s, uint64_t logged);
/* A snapshot needs every counter in the file: commits also when only renewals came. */
void state_commit_full(struct state *s, uint64_t logged);

/* ---- reading (applied state, also uncommitted) ---- */
enum err state_range(struct state *s, const struct range_req *r, size_t max_bytes, struct buf *ret_reply,
                     struct errmsg *e) MUST_CHECK;
enum err state_leases(struct state *s, const struct lease_ref *r, uint64_t now_ms, struct buf *ret_reply,
                      struct errmsg *e) MUST_CHECK;
enum err state_tokens(struct state *s, struct token_list *ret_list, struct errmsg *e) MUST_CHECK;
/* Registered members (table members): name, address, role wanted, state. */
enum err state_members(struct state *s, struct member *ret_members, size_t max, size_t *ret_n) MUST_CHECK;
/* Events of [from_revision, ...] for a watch that resumes: calls ops->event/revision_done in order;
 * ERR_COMPACTED when from_revision is too old. */
enum err state_replay(struct state *s, uint64_t from_revision, const struct state_ops *ops, void *arg) MUST_CHECK;
size_t state_db_bytes(struct state *s);
/* Would this batch fit the quota? HA keys (/regent/) have reserved headroom. */
enum err state_admit(struct state *s, size_t bytes, bool reserved, struct errmsg *e) MUST_CHECK;

/* ---- leases on this member's clock (DESIGN.md lease rules 2 and 3) ---- */
/* Every lease's expiry becomes now + TTL: after a start or a restored snapshot. */
void state_leases_restart(struct state *s, uint64_t now_ms);
uint64_t state_next_expiry(const struct state *s); /* UINT64_MAX: none */
/* Leases whose expiry has passed: up to max (id, nonce, n). */
struct state_expired {
    uint64_t id, nonce, n;
};
size_t state_expired(const struct state *s, uint64_t now_ms, struct state_expired *ret, size_t max);

/* ---- snapshots ---- */
/* Pins the present state (call right after state_commit_full) and copies it to `path` when run; run() may
 * be called on any thread, once. */
struct state_copy;
enum err state_copy_begin(struct state *s, struct state_copy **ret_copy, struct errmsg *e) MUST_CHECK;
enum err state_copy_run(struct state_copy *c, const char *path, struct errmsg *e) MUST_CHECK; /* frees c; fsyncs */
/* Replaces everything by the file's content. */
enum err state_restore(struct state *s, const char *path, uint64_t index, uint64_t now_ms, struct errmsg *e) MUST_CHECK;
#endif
