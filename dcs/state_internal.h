/* Private to dcs/state*.c: the object, the statements, the apply of one command.
 *
 *     state.c            open, close, marks, commit
 *     state_schema.c     tables, views, checks at the door
 *     state_sql.c/.def   statements, binding, the one fatal path
 *     state_batch.c      building an entry
 *     state_apply.c      reading an entry, sessions around commands, results
 *     state_kv.c         keys; state_txn.c: transactions
 *     state_pick.c       ranges sorted, or within bounds; state_count.c: counted in pieces
 *     state_event.c      history: watches, compaction; state_history.c: ranges of the past
 *     state_lease.c      lease arithmetic (pure); state_lease_cmd.c: its commands and queries
 *     state_session.c    sessions and kept results
 *     state_token.c      tokens; state_cert.c: certificates of clients; state_member.c: members
 *     state_rebirth.c    a state for a new cluster
 *     state_snapshot.c   copies; state_restore.c: put in its place
 *     state_checkpoint.c the WAL's worker; state_hash.c: content hash */
#ifndef REGENT_DCS_STATE_INTERNAL_H
#define REGENT_DCS_STATE_INTERNAL_H

#include <sqlite3.h>

#include "base/assert.h"
#include "dcs/list.h"
#include "dcs/state.h"
#include "dcs/state_lease.h"
#include "dcs/state_session.h"

enum { STATE_MAGIC = 0x53544154, STATE_SCHEMA_VERSION = 4, STATE_FIRST_VERSION = 1 };
enum { STATE_APPLICATION_ID = 0x52474e54 }; /* "RGNT" */

enum { WAL_PAGES_LONG = 16384 }; /* 64 MiB: the worker needs a gap, state_wal_long() */

/* Bounds that decide results: the same on every member, or members differ. */
enum {
    STATE_KEY_MAX = 4096,
    STATE_VALUE_MAX = 1536 * 1024,
    STATE_TXN_OPS_MAX = 128, /* compares, and operations of one list */
    /* transactions inside each other, the outermost counted */
    STATE_TXN_DEPTH_MAX = 4,
    STATE_TXN_TOTAL_MAX = 512,           /* compares, and operations, of all of them together */
    STATE_RANGE_BYTES_MAX = 1024 * 1024, /* pairs in the result of a write */
    STATE_RANGE_PAIRS_MAX = 4096, /* pairs in any result: a message is bounded in elements */
    STATE_DELETE_MAX = 32768,     /* keys that one request deletes: some 0.2 s of the loop */
    STATE_LEASE_KEYS_MAX = 8192,  /* attached to one lease: its end deletes them at once */
    STATE_TOKENS_MAX = 64,
    STATE_CERTS_MAX = 512,                  /* of clients, not expired and not revoked */
    STATE_REVOKED_MAX = 1024,               /* names */
    STATE_HISTORY_REVISIONS = 10000,        /* kept at least, within the bytes below */
    STATE_HISTORY_STEP = 256,               /* compaction looks at multiples of this */
    STATE_HISTORY_BYTES = 32 * 1024 * 1024, /* above it, down to three quarters of it */
    STATE_EVENT_OVERHEAD = 64,              /* counted for a row besides key and value */
};

/* What a row takes, in bytes of a batch of small puts: 0.06 us each (state_work()). ROW: read or compared. */
enum { WORK_COUNT = 1, WORK_DROP = 4, WORK_ROW = 10, WORK_DELETE = 100 };

enum sql {
#define STMT(name, text) SQL_##name,
#include "dcs/state_sql.def"
#undef STMT
    SQL_COUNT
};

/* The one row of `store`. */
struct state_marks {
    uint64_t applied;
    uint64_t logged;
    uint64_t revision;
    uint64_t compacted;   /* highest revision whose events are gone */
    uint64_t next_member; /* id the next member gets; never goes back */
    /* History rows have consecutive ids: [event_first, event_next). */
    uint64_t event_first;
    uint64_t event_next;
    uint64_t event_bytes;         /* of all rows ever written */
    uint64_t event_bytes_dropped; /* of those gone */
    /* Sums of rows (dcs/row_hash.h): of the history as the bytes; of keys and results; of the rest as
     * of the last commit. */
    uint64_t event_sum, event_sum_dropped, rows_sum, rest_sum;
    uint64_t version; /* of the cluster; only rises */
};

struct checkpointer;

struct state {
    uint32_t magic;
    sqlite3 *db;
    sqlite3_stmt *stmt[SQL_COUNT];
    char *path;
    char cluster_id[40];
    struct state_marks m;  /* as of the last apply */
    uint64_t disk_applied; /* as of the last commit */
    bool in_txn;
    bool restoring;       /* a file is put in its place beside the loop: nothing is applied */
    bool marked;          /* the entry applied last asks for a hash */
    uint64_t small_sum;   /* rows of tokens, certificates and members, added up */
    uint64_t revocations; /* raised when more is revoked */
    uint64_t work;        /* state_work() */
    int wal_woken_pages;  /* length of the WAL when the checkpointer was woken last */
    int wal_pages;        /* behind the last commit */
    /* a key came or went, or a client's was changed, since the WAL was moved last */
    bool news;
    uint64_t commits, news_since_ms, quiet_since_ms, quiet_commits; /* state_tidy() */
    int wal_long_pages; /* from which on it should begin anew */
    struct lease_table leases;
    struct session_table *sessions;
    struct list counts; /* under way: state_count.c */
    struct buf value;   /* value of the row last looked up */
    struct buf keys;    /* keys a delete has gathered */
    struct buf result;  /* of the command being applied */
    struct buf brief;   /* its short form, when the result is too long to be kept */
    struct checkpointer *checkpointer;
};

/* One command of an entry while it is applied. */
struct apply {
    struct state *s;
    uint64_t index;
    size_t i;         /* position in the entry */
    uint64_t wall_ms; /* of the leader when it proposed the entry */
    uint64_t now_ms;  /* of this member's CLOCK_BOOTTIME: lease expiries only */
    const struct state_ops *ops;
    void *arg;
    uint64_t revision; /* made by this command; 0: nothing changed so far */
    struct errmsg error;
};

/* ---- state_snapshot.c ---- */
/* Copies all pages, in one transaction of each side. synced: the file that grows, each step of which is made
 * durable before the next one. Hundreds of MiB flushed at once would be in the way of every fsync of the log. */
enum err state_copy_pages(sqlite3 *from, sqlite3 *to, const char *path, const char *synced,
                          struct errmsg *e) MUST_CHECK;

/* ---- state_sql.c ---- */
/* A local failure: SQLite said no to something that every other member does. Ends the process. */
NORETURN void state_fatal(struct state *s, const char *doing);
NORETURN void state_fatal_text(const char *text);
enum err state_sqlite_err(int rc); /* the one translator */
enum err state_prepare_all(struct state *s, struct errmsg *e) MUST_CHECK;
void state_finalize_all(struct state *s);
sqlite3_stmt *sql_get(struct state *s, enum sql which);
void sql_bind_u64(struct state *s, enum sql which, int column, uint64_t v);
void sql_bind_blob(struct state *s, enum sql which, int column, struct slice v);
void sql_bind_text(struct state *s, enum sql which, int column, const char *v); /* NULL: NULL */
/* True: a row. False: done, and reset. */
bool sql_row(struct state *s, enum sql which);
void sql_done(struct state *s, enum sql which);  /* resets before the last row */
void sql_write(struct state *s, enum sql which); /* opens the transaction, runs, resets */
uint64_t sql_u64(struct state *s, enum sql which, int column);
struct slice sql_blob(struct state *s, enum sql which, int column);
const char *sql_text(struct state *s, enum sql which, int column); /* "" when NULL */
uint64_t sql_one_u64(struct state *s, enum sql which); /* the number of the only row */
void state_begin(struct state *s);
void state_rollback(struct state *s);

/* ---- state_schema.c ---- */
enum err state_schema_open(sqlite3 *db, const char *path, const char *cluster_id,
                           struct errmsg *e) MUST_CHECK;
/* Is it a state of that cluster? NULL: of any. And every page and row of it, which takes seconds when the
 * state is large. */
enum err state_schema_check(sqlite3 *db, const char *path, const char *cluster_id,
                            struct errmsg *e) MUST_CHECK;
enum err state_schema_check_whole(sqlite3 *db, const char *path, struct errmsg *e) MUST_CHECK;
enum err state_exec(sqlite3 *db, const char *path, const char *sql, struct errmsg *e)
    MUST_CHECK;
/* The cluster goes from one version to another: its layout, in the transaction that is open. */
enum err state_schema_raise(sqlite3 *db, const char *path, uint64_t from, uint64_t to,
                            struct errmsg *e) MUST_CHECK;
void state_load(struct state *s); /* marks, leases, sessions from the tables */
/* From a row of `store`: the columns in the order of struct state_marks. */
void marks_read(sqlite3_stmt *st, struct state_marks *ret_marks);
#define STATE_REPLACE_REMEDY                                                               \
    "to replace this node's copy: stop it, `regentctl member remove` it on another node, " \
    "move "                                                                                \
    "its data_dir aside and join it anew"

/* ---- state_apply.c ---- */
/* ERR_INVALID: the entry is damaged; what it did so far is in the open transaction. */
enum err state_apply_entry(struct state *s, uint64_t index, struct slice entry, uint64_t now_ms,
                           const struct state_ops *ops, void *arg, struct errmsg *e) MUST_CHECK;
/* The revision of this command; the first call makes it. */
uint64_t apply_revision(struct apply *a);
uint64_t apply_revision_now(const struct apply *a); /* the store's, this command included */
uint64_t apply_new_id(const struct apply *a);       /* from the Raft index: never given twice */
void apply_result(struct apply *a, const struct msg *m, const void *result);

/* ---- commands: a logical outcome, error text in a->error, result by apply_result() ---- */
enum err cmd_session_open(struct apply *a, const void *req) MUST_CHECK;
enum err cmd_put(struct apply *a, const void *req) MUST_CHECK;
enum err cmd_delete(struct apply *a, const void *req) MUST_CHECK;
enum err cmd_txn(struct apply *a, const void *req) MUST_CHECK;
enum err cmd_lease_grant(struct apply *a, const void *req) MUST_CHECK;
enum err cmd_lease_renew(struct apply *a, const void *req) MUST_CHECK;
enum err cmd_lease_revoke(struct apply *a, const void *req) MUST_CHECK;
enum err cmd_lease_expire(struct apply *a, const void *req) MUST_CHECK;
enum err cmd_token_create(struct apply *a, const void *req) MUST_CHECK;
enum err cmd_token_revoke(struct apply *a, const void *req) MUST_CHECK;
enum err cmd_token_redeem(struct apply *a, const void *req) MUST_CHECK;
enum err cmd_cert_issue(struct apply *a, const void *req) MUST_CHECK;
enum err cmd_cert_revoke(struct apply *a, const void *req) MUST_CHECK;
enum err cmd_member_state(struct apply *a, const void *req) MUST_CHECK;
enum err cmd_member_init(struct apply *a, const void *req) MUST_CHECK;
enum err cmd_hash(struct apply *a, const void *req) MUST_CHECK;
enum err cmd_member_role(struct apply *a, const void *req) MUST_CHECK;
enum err cmd_compact(struct apply *a, const void *req) MUST_CHECK;
enum err cmd_version(struct apply *a, const void *req) MUST_CHECK;

/* ---- state_kv.c ---- */
/* What a result may still take, shared by all operations of a transaction: it has to fit into a
 * message. The first pair of a result always does. */
struct kv_room {
    size_t bytes;
    size_t pairs; /* STATE_RANGE_PAIRS_MAX: none was taken yet */
};
bool kv_room_take(struct kv_room *room, struct slice key, struct slice value);
struct kv_range {
    struct slice key;
    struct slice end; /* as in range_req */
    uint64_t limit;   /* 0: none */
    bool keys_only;
    bool count_only;
    const struct state_count *counted; /* NULL: it is counted when that is needed */
};
struct kv_page {
    struct msg_list kvs;
    uint64_t count;
    bool more;
};
/* The row at hand of a statement that reads kv, or keys of the past; borrowed from it. */
struct kv kv_row(struct state *s, enum sql which);
/* The range's end as a key; room is where it may be put together. */
struct slice kv_range_end(struct slice key, struct slice end,
                          uint8_t room[static STATE_KEY_MAX + 1]);
uint64_t kv_count(struct state *s, struct slice key, struct slice end);
/* The same, but looks at no more than `most` keys, and gives no more. */
uint64_t kv_count_upto(struct state *s, struct slice key, struct slice end, uint64_t most);
/* Does it hold for each key there is? *ret_n: how many there are. */
bool kv_all(struct state *s, struct slice key, struct slice end,
            bool (*holds)(const void *arg, const struct kv *kv), const void *arg,
            uint64_t *ret_n);
/* The pair as it stands; ret_kv->value is borrowed from s->value until the next call. */
bool kv_find(struct state *s, struct slice key, struct kv *ret_kv);
/* The same; *ret_event is the history row of its last put, 0 without one. */
bool kv_find_row(struct state *s, struct slice key, struct kv *ret_kv, uint64_t *ret_event);
void kv_read_page(struct state *s, const struct kv_range *r, struct kv_room *room,
                  struct kv_page *ret_page);
enum err kv_check_key(struct slice key, struct errmsg *e) MUST_CHECK;
/* What a put makes of a key. */
struct kv_change {
    struct slice key, value;
    uint64_t lease;
    bool keep_value, keep_lease; /* those of the key that is there */
};
/* runs: of a transaction, it stands in a list that does. Else neither key nor lease need to be there. */
enum err kv_check_put(struct state *s, const struct kv_change *c, bool runs, struct errmsg *e)
    MUST_CHECK;
enum err kv_check_range(struct slice key, struct slice end, struct errmsg *e) MUST_CHECK;
/* *total: keys that the request deletes so far, raised by those of the range. */
enum err kv_check_delete(struct state *s, struct slice key, struct slice end, uint64_t *total,
                         struct errmsg *e) MUST_CHECK;
/* Previous pairs, when they are wanted (not NULL), as far as there is room. */
struct kv_prev {
    struct msg_list kvs;
    struct kv_room *room;
    bool more; /* some were left out */
};
/* Checked before. prev gets the previous pair, if there was one. Nothing is left to keep of a key that the
 * same transaction has deleted: it becomes an empty one without a lease. */
void kv_put(struct apply *a, const struct kv_change *c, struct kv_prev *prev);
uint64_t kv_delete_range(struct apply *a, struct slice key, struct slice end,
                         struct kv_prev *prev);
void kv_delete_of_lease(struct apply *a, uint64_t lease);

/* ---- state_event.c ---- */
/* prev_event: the history row that made prev. The new row is event_next before the call. */
void event_add(struct apply *a, bool deleted, const struct kv *kv, const struct kv *prev,
               uint64_t prev_event);
void history_trim(struct state *s); /* after each revision */
/* The row from which on revisions are above `revision`; event_next: none. */
uint64_t history_above(struct state *s, uint64_t revision);

/* ---- state_history.c ---- */
/* A page of the range as it was at `revision`. ERR_COMPACTED; ERR_INVALID: in the future. counted: as it is
 * now; NULL: that is counted here. */
enum err history_read_page(struct state *s, const struct range_req *r,
                           const struct state_count *counted, struct kv_room *room,
                           struct kv_page *ret_page, struct errmsg *e) MUST_CHECK;

/* ---- state_pick.c ---- */
/* Is another order or a bound asked for? */
bool pick_wanted(const struct range_req *r);
/* The statement for such a range of the past (which has or had so many keys), its bounds bound. */
enum err pick_past(struct state *s, const struct range_req *r, uint64_t keys,
                   enum sql *ret_which, struct errmsg *e) MUST_CHECK;
enum err pick_read_page(struct state *s, const struct range_req *r, struct kv_room *room,
                        struct kv_page *ret_page, struct errmsg *e) MUST_CHECK;

/* ---- state_count.c ---- */
/* state_count_some() has said that it is done */
uint64_t count_total(const struct state_count *c);
void counts_note(struct state *s, struct slice key, bool added); /* a key came or went */
void counts_restart(struct state *s);                            /* the state was replaced */

/* ---- state_session.c ---- */
/* Does this request run? ERR_NOT_FOUND: yes. ERR_OK: no, *ret_status, a->error and s->result are
 * what it gave the first time. Else refused. */
enum err session_enter(struct apply *a, uint64_t session, uint64_t seq, enum err *ret_status)
    MUST_CHECK;
void session_keep(struct apply *a, uint64_t session, uint64_t seq, enum err status);

/* ---- state_member.c ---- */
size_t member_list(struct state *s, struct member *ret_members, size_t max);
enum err member_check(const struct member *m, struct errmsg *e) MUST_CHECK;
enum err member_check_free(struct state *s, const char *name, const char *address,
                           struct errmsg *e) MUST_CHECK;
/* Allots m->id. token, key: what it was redeemed with. */
void member_add(struct apply *a, struct member *m, const char *token, const char *key);
/* The member that this token with this key has made, and that was not removed since. */
bool member_of_key(struct state *s, const char *token, const char *key,
                   struct member *ret_member);

/* ---- state_query_text.c ---- */
void query_text_functions(sqlite3 *db); /* before the views that use them */

/* ---- state_query.c ---- */
/* Leaves its authorizer on the connection: for nothing else afterwards. */
enum err query_database(sqlite3 *db, const struct sql_req *q, struct buf *ret_reply,
                        struct errmsg *e) MUST_CHECK;

/* ---- state_hash.c ---- */
/* Reads the row of `store`, which must be as it was written. */
enum err hash_check_marks(sqlite3 *db, const char *path, char ret_cluster[static 40],
                          struct state_marks *ret_marks, struct errmsg *e) MUST_CHECK;
/* The same, and all rows of what is committed. Any thread. */
enum err hash_check(sqlite3 *db, const char *path, uint64_t *ret_hash, struct errmsg *e)
    MUST_CHECK;
/* After the tables of a file were changed by hand: seals the row of `store` anew. add: its rows, too,
 * were changed, and are added up. */
enum err hash_reseal(sqlite3 *db, const char *path, bool add, struct errmsg *e) MUST_CHECK;
/* The seal of the marks as they are; brings rest_sum up to date. */
uint64_t hash_seal(struct state *s);
uint64_t hash_kv(const struct kv *kv, uint64_t event);
uint64_t hash_event(uint64_t id, bool deleted, const struct kv *kv, uint64_t prev,
                    uint64_t bytes);
struct kept_result {
    uint64_t seq;
    const char *error, *message; /* "": none */
    struct slice body;
};
uint64_t hash_result(uint64_t session, uint64_t slot, const struct kept_result *r);
/* Adds up tokens, certificates and members. */
void hash_small(struct state *s);
/* Runs a statement that changes them. */
void small_write(struct state *s, enum sql which);
#define HASH_TOKENS "SELECT id, role, uses_left, expires_ms, secret_sha256 FROM token"
#define HASH_CERTS "SELECT serial, name, role, issued_ms, expires_ms FROM cert"
#define HASH_REVOKED "SELECT name, serial, at_ms FROM revoked"
#define HASH_MEMBERS "SELECT id, name, address, role, state, token, key_sha256 FROM member"

/* ---- state_checkpoint.c ---- */
struct checkpointer *checkpointer_new(const char *path);
void checkpointer_wake(struct checkpointer *c); /* starts the thread when there is none yet */
/* All that it was woken for is done. *ret_whole: the last round left nothing in the WAL. */
bool checkpointer_idle(struct checkpointer *c, bool *ret_whole);
void checkpointer_free(struct checkpointer *c); /* waits for it; NULL is allowed */

#endif
