/* The inside of struct node, for node*.c and token.c alone. */
#ifndef REGENT_DCS_NODE_PRIVATE_H
#define REGENT_DCS_NODE_PRIVATE_H

#include "dcs/calls.h"
#include "dcs/compare.h"
#include "dcs/list.h"
#include "dcs/member.h"
#include "dcs/node.h"
#include "dcs/raft_frame.h"
#include "dcs/read_index.h"
#include "dcs/renew.h"
#include "dcs/wire.h"

enum {
    NODE_MAGIC = 0x4e6f6465,
    /* between two commits of the state; and the entries of one, in bytes: */
    NODE_COMMIT_MS = 500,
    NODE_COMMIT_BYTES = 2 * 1024 * 1024,
    NODE_SLOW_MS = 1000, /* a request that took so long is in the log, at most one so often */
    NODE_SETTLE_MS = 2,  /* how often a WAL that settles is looked at */
    NODE_ROUTE_MS = 50,  /* how often requests that wait for a leader are looked at */
    NODE_RETRY_MS = 50,  /* before a refused forward is tried again */
    NODE_PLENTY_BYTES = 32 * 1024 * 1024,
    NODE_PLENTY_MS = 100,
    NODE_SETTLED_MS = 1000,     /* the same, when there is nothing left to change */
    NODE_COPY_AGAIN_MS = 10000, /* after a copy of the state failed for want of room */
    NODE_MEMBER_MS = 100,       /* how often the leader looks at the membership */
    NODE_ENTRY_COMMANDS_MAX = 8192,
    NODE_EXPIRE_MAX = 64,               /* leases in one entry */
    NODE_EXPIRE_KEYS_MAX = 32768,       /* and their keys, as of one request that deletes */
    NODE_RESULTS_MAX = 4 * 1024 * 1024, /* bytes that wait for the end of the pass */
    NODE_RESULTS_KEEP = 256 * 1024,     /* of their memory, beyond it */
    /* parameters of a write: they and what goes with them fit into an entry */
    NODE_WRITE_MAX = RAFT_FRAME_ENTRY_MAX - 8 * 1024,
    NODE_REPLAY_BYTES = 64 * 1024, /* of history in a piece, and */
    NODE_REPLAY_PIECES = 4,        /* in a pass */
    NODE_RANGE_MAX = 1024 * 1024 + 512 * 1024,
    /* of linearizable, and of local reads in a pass, as state_work() */
    NODE_READ_WORK_MAX = 256 * 1024,
    NODE_COUNT_KEYS = 32768 /* counted at a time */
};

enum request_phase {
    REQUEST_WAIT,      /* for a leader, or for its next try */
    REQUEST_BATCH,     /* leader: for the next entry */
    REQUEST_RENEW,     /* leader: gathered renewal */
    REQUEST_READ,      /* leader: for its round */
    REQUEST_LOCAL,     /* for its turn: read from this node's state */
    REQUEST_FLIGHT,    /* in an entry that is not applied yet */
    REQUEST_FORWARDED, /* at the leader */
    REQUEST_OP,        /* leader: a membership change or a transfer */
    REQUEST_DONE,      /* its result waits for the commit of the state */
    REQUEST_PHASES
};

struct request {
    struct list link; /* in the queue of its phase; REQUEST_RENEW: item.link instead */
    struct renew_item item;
    enum request_phase phase;
    unsigned method;
    bool submitted; /* REQUEST_OP: cannot be taken back */
    bool
        /* applied once, however often it is sent: (session, seq), a lease's counter */
        replayable;
    bool of_session; /* the store keeps its result */
    bool doubt;      /* it was sent before, and that may have been applied */
    uint32_t call;   /* REQUEST_FORWARDED: its number */
    uint64_t arrived_ms, deadline_ms, wait_since_ms, not_before_ms;
    uint64_t phase_since_ms, spent_ms[REQUEST_PHASES]; /* for the log, when it was slow */
    uint64_t ticket;                                   /* REQUEST_READ */
    struct state_count *count; /* REQUEST_READ, REQUEST_LOCAL: under way, or NULL */
    struct flight *flight;     /* REQUEST_FLIGHT, */
    size_t position;           /* and its command there */
    enum err status;           /* REQUEST_DONE */
    size_t result_at, result_n;
    struct node_caller caller;
    struct buf command; /* what is proposed when it is not params (token.c) */
    char *extra;        /* owned; the whole token, for the reply (token.c) */
    size_t n;
    uint8_t params[];
};

/* Where each method is answered. */
enum route { ROUTE_NONE, ROUTE_BATCH, ROUTE_RENEW, ROUTE_READ, ROUTE_OP };

/* One entry of ours on its way. */
struct flight {
    struct list link;
    bool submitted;
    uint64_t index, term; /* once submitted, */
    uint64_t submitted_us;
    bool expires;     /* it proposes lease expiries */
    struct buf entry; /* until submitted */
    size_t n, cap;
    struct request **at; /* by position; NULL: nobody waits */
};

enum { CALL_FORWARD = 1, CALL_CONFIRM, CALL_COMPARE, CALL_RECALL };

/* Entries whose arrival is remembered, by index modulo this: more than ever wait for their commit. */
enum { NODE_RECEIVED = 1024 };
struct node_received {
    uint64_t index, at_ms;
};

/* Hashes of the state that are remembered, by index modulo this: the entries of COMPARE_SETTLE_MS. */
enum { NODE_NOTED = 4096 };
struct node_noted {
    uint64_t index, hash;
};

/* The leader's: a comparison of members' states (node_compare.c). */
struct node_comparison {
    uint64_t next_ms; /* something is to be done */
    uint64_t index;   /* 0: none under way */
    bool asked;
    size_t open; /* answers that are missing */
    size_t n;
    struct compare_vote votes[MEMBERS_MAX]; /* the first one is this node's */
    uint64_t agreed_index, agreed_hash;
    bool split; /* members differ, and no majority agrees */
    uint64_t quarantined[MEMBERS_MAX];
    size_t n_quarantined;
};

struct node {
    uint32_t magic;
    struct node_options o;
    char name[64], address[128], role[16], cluster_id[40], scope[64];
    const struct node_ops *ops;
    void *arg;
    struct raft_core *raft;
    struct state *state;
    struct watch_hub hub;
    struct calls calls;
    uint64_t now; /* of the pass or the call at hand */

    /* Requests by phase. */
    struct list waiting, batch, reads, locals, flying, forwarded, ops_list, done;
    struct renew renew;
    size_t n_requests, request_bytes;
    uint64_t scan_ms;  /* next look at deadlines: the earliest, or earlier */
    uint64_t route_ms; /* next look at the waiting ones */
    void *scratch;     /* room for any decoded parameters */

    /* Entries of ours, oldest first; the last one may be not submitted yet (Raft's bound was hit). */
    struct list flights;
    struct flight *applying;
    struct state_batch building; /* empty between uses; keeps its memory */
    struct buf results;

    struct read_index read;
    uint64_t read_floor; /* commit index when the newest round started */

    bool admitted; /* false: empty and not accepted yet; takes no part in Raft */
    struct node_received received[NODE_RECEIVED];
    uint64_t leading_term; /* 0: not leader */
    uint64_t known_leader, known_term;
    uint64_t leaderless_ms; /* since when, as long as there is no leader */
    uint64_t commit_ms; /* when the state is to be committed, if it has anything to commit */
    size_t uncommitted_bytes;
    bool commit_due; /* at the next pass, behind the replies of this one */
    bool settling;   /* nothing is applied while the WAL of the state comes to an end */
    bool running;    /* started: nothing may hold up the loop any more */
    bool copying;
    uint64_t copy_ms; /* not before: the last one failed */
    bool disk_full;
    uint64_t plenty_until_ms; /* the quota is far away */

    /* Members (node_member.c). */
    uint64_t member_ms;    /* next look */
    uint64_t member_index; /* entry of the last command about members, 0: none under way */
    uint64_t even_since_ms;
    uint64_t presented[MEMBERS_MAX];
    size_t n_presented;
    struct request *removal, *transfer;
    uint64_t removal_id, transfer_since_ms;
    bool removal_marked;
    struct request *role_op; /* promote, demote: waits for its entry */
    uint64_t fsync_us;
    /* On the leader from an entry's submission until it is committed here; of each entry that is applied; of
     * each round for reads, on the leader; of each commit of the state; of each turn of the loop. */
    struct latency fsync, commit, apply, round, state_commit, loop;
    uint64_t round_us;         /* when the newest round began, 0: it is confirmed */
    uint64_t hash_index, hash; /* newest mark, and its hash once hash_ready */
    bool hash_ready, hashing;

    struct node_noted noted[NODE_NOTED];
    struct node_comparison compare;
    enum node_out out;
    uint64_t out_since_ms;
    char out_text[400];
    /* when a slow request was in the log last; those since; all of them */
    uint64_t slow_ms, slow_unsaid, slow_total;
    uint64_t leader_changes;
};

/* node_request.c */
struct request *request_new(struct node *n, unsigned method, struct slice params,
                            const struct node_caller *caller);
void request_reply(struct node *n, struct request *r, enum err status, const char *text,
                   struct slice result); /* frees r */
void request_fail(struct node *n, struct request *r, enum err status, const char *text);
void request_wait(struct node *n, struct request *r, uint64_t delay_ms);
/* It was sent and its answer is lost: sent again when that is safe, else the outcome is unknown. */
void request_lost(struct node *n, struct request *r, const char *text);
void request_set_phase(struct node *n, struct request *r, enum request_phase phase);
/* How many slow requests the log has not told of: when no other line does. */
void requests_tell_slow(struct node *n);

/* node_route.c */
void requests_route(struct node *n);
void requests_expire(struct node *n);
void requests_lost_leadership(struct node *n);
void requests_abandon(struct node *n, const char *why);
uint64_t requests_deadline(const struct node *n);
enum err request_check(struct node *n, unsigned method, struct slice params,
                       uint64_t *ret_deadline_ms, struct errmsg *e) MUST_CHECK;
const char *request_method_name(unsigned method);
enum route request_route(unsigned method);
bool request_is_read(unsigned method);

/* node_write.c */
void write_submit(struct node *n);
uint64_t write_deadline(const struct node *n);
void write_apply(struct node *n, uint64_t index, uint64_t term, struct slice data);
void write_deliver(struct node *n);
void write_lost_leadership(struct node *n);
void write_free(struct node *n);
void write_renew(struct node *n, struct request *r);
/* An entry with one command about a member; *ret_index 0: try again later. */
void write_member_state(struct node *n, uint64_t id, const char *new_state,
                        uint64_t *ret_index);
void write_member_role(struct node *n, uint64_t id, const char *role, uint64_t *ret_index);
void write_member_init(struct node *n, const struct member *m, uint64_t *ret_index);
void write_version(struct node *n, uint64_t version, uint64_t *ret_index);

extern const struct state_ops node_state_ops;

/* node_read.c */
void read_add(struct node *n, struct request *r);
void read_start(struct node *n);
void read_serve(struct node *n);
void read_answer(struct node *n, uint64_t from, enum err status, struct slice result);
/* Answered from this node's state; *ret_wide: it may look at many keys. n->scratch holds the parameters. */
bool read_is_local(const struct node *n, unsigned method, bool *ret_wide);
void read_at_once(struct node *n, unsigned method, struct slice params,
                  const struct node_caller *caller);
uint64_t read_deadline(const struct node *n);
void watches_catch_up(struct node *n);

/* node_facts.c */
/* The state with what renewals changed alone. */
void node_commit_full(struct node *n);
/* The state is at `index`, which carries a mark: its hash is taken beside the loop. */
void node_hash_begin(struct node *n, uint64_t index);
const struct raft_server *member_server(const struct raft_membership *m,
                                        uint64_t id); /* NULL: absent */
void member_list_encode(struct node *n, struct buf *ret_reply);
/* The lower of this program's version and a member's; 0: no link to it. */
uint64_t node_program_version(const struct node *n, uint64_t id);

/* node_compare.c */
void compare_note(struct node *n, uint64_t index); /* the state is at that entry */
void compare_forget(struct node *n);               /* the state was replaced */
void compare_drive(struct node *n);
uint64_t compare_deadline(const struct node *n);
void compare_answer(struct node *n, uint64_t from, uint64_t index, enum err status,
                    struct slice result);
bool compare_quarantined(const struct node *n, uint64_t id);
/* Out of service, and no longer handing leadership over. */
bool node_silent(const struct node *n);
/* ERR_OK: in service. Else what to answer. */
enum err node_out(const struct node *n, struct errmsg *e) MUST_CHECK;

#define NODE_REPLACE                                                                  \
    "stop this node, `regentctl member remove %s` on another one, move its data_dir " \
    "aside and join it anew"

/* node_recall.c */
void recall_tell(struct node *n, uint64_t member); /* the link to it is up */

/* node_role.c */
void role_request(struct node *n, struct request *r);
void role_go_on(struct node *n);
void role_lost_leadership(struct node *n);

/* node_member.c */
void member_look(struct node *n, const struct member *all, size_t k,
                 struct member_cluster *ret_view);
void member_drive(struct node *n);
void member_op(struct node *n, struct request *r);
void member_op_forget(struct node *n, const struct request *r);
void member_lost_leadership(struct node *n);
uint64_t member_deadline(const struct node *n);

/* token.c, tokens and certificates: what the leader proposes for a request, and the reply it makes of the
 * result. */
/* false: it was answered, or waits */
bool token_prepare(struct node *n, struct request *r) MUST_CHECK;
enum err token_finish(struct node *n, const struct request *r, struct slice result,
                      struct buf *ret_result, struct errmsg *e) MUST_CHECK;
bool token_handles(unsigned method);

#endif
