/* state.db: the replicated state, in SQLite. One writer (the DCS loop); one transaction per loop pass
 * holds every change and the applied index. Deterministic: the same entries give the same rows on
 * every member; a local failure aborts the process, a logical failure is a replicated result.
 *
 * An entry is a batch: MessagePack [version, wall_ms, [command...]], command = [kind, map]; built
 * with state_batch_*, so that its layout is known here alone.
 *
 * Bounds: key 4096 bytes, value 1.5 MiB, 128 compares and 128 operations of a list of a transaction, 4096
 * leases, 1024 sessions with the results of their last 64 sequences, 64 members, 64 tokens, 512
 * certificates of clients. History for watches: the last 10,000 revisions within 32 MiB. The tables:
 * docs/FORMATS.md. */
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
    void (*result)(void *arg, uint64_t index, size_t i, enum err status, const char *error,
                   struct slice result);
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
    STATE_CMD_LEASE_RENEW, /* many in one entry; causes no commit of state.db by itself */
    STATE_CMD_LEASE_REVOKE,
    STATE_CMD_LEASE_EXPIRE, /* (id, nonce, n): void when the counter has moved on */
    STATE_CMD_TOKEN_CREATE, /* token_info {id, role, uses_left, expires_ms, token}; token holds the
                             * SHA-256 of the secret in 64 lower-case hex digits: no secret in the log */
    STATE_CMD_TOKEN_REVOKE,
    STATE_CMD_TOKEN_REDEEM, /* token_redeem {token: "ID:SHA256HEX", name, address, csr: SHA-256 of
                             * its key in hex}; takes one use, allots the member id, adds the member as
                             * "joining"; given again with the same key: answers the same. The result is a
                             * token_grant without scope, cert, ca and secrets: the server adds them */
    STATE_CMD_MEMBER_STATE, /* (id, state): joining -> active -> removed */
    STATE_CMD_COMPACT,      /* (revision) */
    STATE_CMD_MEMBER_INIT,  /* the first member's own row; only while there is none */
    /* (id, role): what it is to be in Raft; "voter", "learner", "witness" */
    STATE_CMD_MEMBER_ROLE,
    STATE_CMD_HASH, /* changes nothing; see state_take_mark() */
    /* cert_issue without csr; the result is a cert_info: the server signs */
    STATE_CMD_CERT_ISSUE,
    STATE_CMD_CERT_REVOKE, /* cert_ref */
    STATE_CMD_VERSION,     /* version_mark: the cluster's version, when that is higher */
};

/* Before SQLite is used in this process, when it is used by more than states, or by several threads. */
void state_init_library(void);
/* Opens or creates, checks integrity and that the file belongs to cluster_id (stored at creation).
 * Afterwards: state_db_applied() and state_logged() are the marks of the last commit; call
 * state_leases_restart() before anything is applied. Every other local failure later on (disk full,
 * I/O error, damage) logs one line and aborts. */
enum err state_open(const char *path, const char *cluster_id, struct state **ret_state,
                    struct errmsg *e) MUST_CHECK;
void state_close(struct state *s); /* NULL is allowed; drops what was not committed */
uint64_t state_db_applied(const struct state *s); /* as of the last apply, also uncommitted */
uint64_t state_logged(const struct state *s);
uint64_t state_revision(const struct state *s);
uint64_t state_compacted(const struct state *s);
/* Of the cluster, from 1 on: a leader writes nothing that a program of this version would not understand. */
uint64_t state_version(const struct state *s);

/* ---- building an entry (leader) ---- */
struct state_batch {
    struct buf body;
    size_t n;
    uint64_t version; /* of the cluster; 0: the first */
};
/* params: the encoded parameters of the method the command belongs to (put_req, txn_req, ...), already
 * decoded once by the caller and found sound. Returns the position of the command. */
size_t state_batch_add(struct state_batch *b, enum state_command cmd, struct slice params);
size_t state_batch_expire(struct state_batch *b, uint64_t lease, uint64_t nonce, uint64_t n);
size_t state_batch_member(struct state_batch *b, uint64_t id, const char *new_state);
size_t state_batch_member_role(struct state_batch *b, uint64_t id, const char *role);
size_t state_batch_compact(struct state_batch *b, uint64_t revision);
size_t state_batch_version(struct state_batch *b, uint64_t version);
/* Bootstrap: the first leader proposes its own row as the first command it ever writes, when
 * state_members() is empty. An entry, never a local write: a member that replays the log from its
 * start must come to the same rows and ids. */
size_t state_batch_member_init(struct state_batch *b, const struct member *m);
size_t state_batch_bytes(const struct state_batch *b);
void state_batch_end(struct state_batch *b, uint64_t wall_ms,
                     struct buf *ret_entry); /* empties b */

/* ---- applying ---- */
/* now_ms: CLOCK_BOOTTIME, for the lease clocks of this member alone. Entries at or below the applied
 * index are skipped. Opens the transaction when none is open. */
void state_apply(struct state *s, uint64_t index, struct slice entry, uint64_t now_ms,
                 const struct state_ops *ops, void *arg);
/* What commands and reads took beyond their length: keys deleted, compared, read or counted, history dropped; as
 * bytes of small puts that take as long. Only rises; each member's own. */
uint64_t state_work(const struct state *s);
/* The entry just applied asks for the hash of the state at it: true once. */
bool state_take_mark(struct state *s);
/* Something applied waits for a commit. Renewals alone do not. */
bool state_uncommitted(const struct state *s);
/* Commits what was applied (nothing when only renewals came), with the counters of all leases and
 * logged = min(stored, commit). */
void state_commit(struct state *s, uint64_t logged);
/* A snapshot needs every counter in the file: commits also when only renewals came. */
void state_commit_full(struct state *s, uint64_t logged);

/* Behind a commit: so much waits to be moved from the WAL into the file that the WAL should begin anew. It
 * does with the first transaction that begins when the worker is at its end: until state_wal_settled()
 * nothing should be applied. */
bool state_wal_long(const struct state *s);
bool state_wal_settled(struct state *s);
/* Once a second. `state.db` alone, without its WAL, is to show all keys: when one came or went, or a client's
 * was changed, and nothing was committed for 2 s (or after 30 s), the worker moves the WAL into the file. What
 * the nodes of a cluster change every now and then below /regent/ is not worth those writes. */
void state_tidy(struct state *s, uint64_t now_ms);

/* ---- reading (applied state, also uncommitted) ---- */
/* How many keys a range has, found in pieces, between which entries may be applied. The owner frees it before the
 * state is closed. */
struct state_count;
bool state_count_wanted(const struct range_req *r); /* may it take one to answer this? */
struct state_count *state_count_new(struct state *s, const struct range_req *r);
/* Looks at so many keys more. true: done, and exact from here on, whatever is applied. A snapshot in the place of
 * the state begins it anew. */
bool state_count_some(struct state_count *c, uint64_t keys) MUST_CHECK;
void state_count_free(struct state_count *c); /* NULL is allowed */
/* counted: of this range, and done; NULL: all keys are counted here when the answer needs it. */
enum err state_range(struct state *s, const struct range_req *r,
                     const struct state_count *counted, size_t max_bytes, struct buf *ret_reply,
                     struct errmsg *e) MUST_CHECK;
enum err state_leases(struct state *s, const struct lease_ref *r, uint64_t now_ms,
                      struct buf *ret_reply, struct errmsg *e) MUST_CHECK;
enum err state_tokens(struct state *s, struct token_list *ret_list, struct errmsg *e)
    MUST_CHECK;
/* Of a token that is redeemed: does it exist, is `sha256` (64 hex digits) that of its secret, and has it not
 * expired by wall_ms? ERR_DENIED else. */
enum err state_token_check(struct state *s, const char *id, const char *sha256,
                           uint64_t wall_ms, struct errmsg *e) MUST_CHECK;
/* The reply of cert.list. */
void state_certs(struct state *s, struct buf *ret_reply);
/* Is a client's certificate of this name and serial number (0: not from this store) refused? */
bool state_cert_revoked(struct state *s, const char *name, uint64_t serial);
/* A number that changes when that may give another answer than before. */
uint64_t state_revocations(const struct state *s);
/* Registered members that are joining or active, by id: name, address, role wanted, state. At most
 * MEMBERS_MAX. Empty: the first one has not been written yet (state_batch_member_init). */
enum err state_members(struct state *s, struct member *ret_members, size_t max, size_t *ret_n)
    MUST_CHECK;
/* How many voters there shall be at most (PROTO_VOTERS_KEY): 3, 5 or 7. */
uint64_t state_voters_max(struct state *s);
/* One member, removed ones too; ERR_NOT_FOUND. */
enum err state_member(struct state *s, uint64_t id, struct member *ret_member) MUST_CHECK;
/* Events of [from_revision, ...] for a watch that resumes: calls ops->event/revision_done in order;
 * ERR_COMPACTED when from_revision is too old. Stops behind a whole revision once more than max_bytes were
 * told (0: no bound). *ret_next: where to go on; state_revision() + 1 when everything was told. */
enum err state_replay_some(struct state *s, uint64_t from_revision, size_t max_bytes,
                           const struct state_ops *ops, void *arg, uint64_t *ret_next)
    MUST_CHECK;
size_t state_db_bytes(struct state *s);
/* For tests: of the content with what is not committed yet. Reads everything. */
uint64_t state_hash(struct state *s);
uint64_t state_quota_bytes(void); /* without what is reserved */
/* Is this transaction's cost bounded: do its ranges, in all its lists, look at no more than 32,768 keys? ERR_LIMIT.
 * Asked by the leader before it proposes it; what is in the log is applied, whatever it costs. */
enum err state_txn_admit(struct state *s, const struct txn_req *t, struct errmsg *e) MUST_CHECK;
/* Has the store a result of this sequence? */
bool state_has_result(struct state *s, uint64_t session, uint64_t seq);
/* Would this batch fit the quota? HA keys (/regent/) have reserved headroom. */
enum err state_admit(struct state *s, size_t bytes, bool reserved, struct errmsg *e) MUST_CHECK;

/* ---- leases on this member's clock (DESIGN.md lease rules 2 and 3) ---- */
/* Every lease's expiry becomes now + TTL: after a start or a restored snapshot. */
void state_leases_restart(struct state *s, uint64_t now_ms);
uint64_t state_next_expiry(const struct state *s); /* UINT64_MAX: none */
/* Leases whose expiry has passed: up to max. keys: that go with it. */
struct state_expired {
    uint64_t id, nonce, n, keys;
};
size_t state_expired(const struct state *s, uint64_t now_ms, struct state_expired *ret,
                     size_t max);

/* ---- snapshots ---- */
/* Pins the present state (call right after state_commit_full) and copies it to `path` when run; run() may
 * be called on any thread, once. */
struct state_copy;
enum err state_copy_begin(struct state *s, struct state_copy **ret_copy, struct errmsg *e)
    MUST_CHECK;
enum err state_copy_run(struct state_copy *c, const char *path, struct errmsg *e)
    MUST_CHECK; /* frees c; fsyncs */
/* The hash of the replicated content in it, equal on all members at one index; any thread. Frees c. */
enum err state_copy_hash(struct state_copy *c, uint64_t *ret_hash, struct errmsg *e) MUST_CHECK;
/* One SELECT on it, with the views of docs/FORMATS.md; any thread. Frees c. ERR_DENIED: more than
 * reading; ERR_TIMEOUT; ERR_INVALID: SQLite's own words. */
enum err state_copy_query(struct state_copy *c, const struct sql_req *q, struct buf *ret_reply,
                          struct errmsg *e) MUST_CHECK;
void state_copy_cancel(struct state_copy *c); /* instead of run; NULL is allowed */
/* SHA-256 and length of a file; any thread. */
enum err state_file_digest(const char *path, uint8_t ret_sha256[static 32], uint64_t *ret_size,
                           struct errmsg *e) MUST_CHECK;
/* A copy of a state: is it sound, every page and row of it? On any thread. */
enum err state_file_check(const char *path, struct errmsg *e) MUST_CHECK;
/* Replaces everything by the file's content, atomically; applied and logged become `index`. Pages and
 * rows are not looked at one by one: the file was made here, or has passed state_file_check(). On an
 * error (a damaged header, another cluster's, no space) the state is as at the last commit: the owner
 * should end the process. At start: call it when the log store has a snapshot and state_db_applied() is
 * below the entry before the log's first one (a crash came between recording the snapshot and this). */
enum err state_restore(struct state *s, const char *path, uint64_t index, uint64_t now_ms,
                       struct errmsg *e) MUST_CHECK;
/* The same in three steps, so that the loop goes on meanwhile. begin(): everything applied is committed, renewals too;
 * until end() nothing may be applied, and whoever reads sees the old state. run() on any thread, once; the
 * file becomes the state in one transaction. end() on the loop, whatever run() gave; frees. A run that failed
 * leaves the old state. state_close() without end() is allowed when run() has returned. */
struct state_restoring;
enum err state_restore_begin(struct state *s, const char *path, uint64_t index,
                             struct state_restoring **ret, struct errmsg *e) MUST_CHECK;
enum err state_restore_run(struct state_restoring *r, struct errmsg *e) MUST_CHECK;
void state_restore_end(struct state *s, struct state_restoring *r, uint64_t now_ms);
void state_restore_cancel(struct state_restoring *r); /* instead of end; NULL is allowed */
bool state_is_restoring(const struct state *s);       /* between begin() and end() */
#endif
