/* A world of Raft cores in virtual time: fake disks that lose what was not synced, a fake network that
 * loses, doubles, reorders and cuts, snapshots, and the invariants of Raft checked at every step. The
 * production core runs in it unchanged. Everything random comes from one seed.
 *
 * Used by raft_sim.c (seeded faults) and by tests/unit/test_dcs_raft_core.c (written schedules). */
#ifndef REGENT_TESTS_SIM_RAFT_WORLD_H
#define REGENT_TESTS_SIM_RAFT_WORLD_H

#include "base/rng.h"
#include "dcs/raft_core.h"

enum {
    WORLD_NODES_MAX = 12,
    WORLD_TRACE = 200,
    WORLD_LINE = 160,
    WORLD_TERMS_MAX = 4096,
    WORLD_INDEX_MAX = 16384,
    WORLD_FILES_MAX = 64
};

struct world_entry {
    uint64_t term;
    enum raft_entry_type type;
    uint8_t *data; /* owned */
    size_t n;
};

/* What one node's log.db holds. Entries first..last at entries[index - first]. */
struct world_disk {
    uint64_t term, vote;
    bool has_snapshot;
    struct raft_snapshot_info snapshot;
    uint64_t first;
    struct world_entry *entries;
    size_t n, cap;
};

/* The state machine: a chain of hashes over the commands applied. */
struct world_state {
    uint64_t index; /* last command or restored snapshot */
    uint64_t chain;
};

struct world_file {
    uint64_t index;
    uint64_t term;
    struct world_state state;
};

struct world_disk_op;

struct world_node {
    struct world *world;
    uint64_t id;
    bool up;
    bool removed;  /* an operator took it out for good */
    unsigned life; /* counts starts: events of an earlier life are void */
    bool starting;
    struct world_disk kept; /* a copy of its directory */
    struct world_state kept_state;
    uint64_t kept_logged;
    bool rolled_back;                 /* that copy was put back */
    bool out;                         /* and it was told so: it has stopped for good */
    bool linked[WORLD_NODES_MAX + 1]; /* this life's first frame from that member has come */
    struct raft_core *core;           /* NULL while down */
    uint64_t paused_until_ms;
    struct world_disk disk;               /* durable */
    struct world_disk log;                /* as asked for: what the running node believes */
    struct world_disk_op *ops, **ops_end; /* asked for, not durable */
    size_t batch;                         /* ops in the commit under way */
    uint64_t disk_slow_ms;                /* upper bound of a commit's time */
    bool disk_held;                       /* schedules: nothing completes until released */
    struct world_state state;
    struct world_state state_durable;
    uint64_t logged_durable;
    struct world_file files[WORLD_FILES_MAX];
    size_t n_files;
    uint64_t snapshot_timer_ms; /* 0: none being taken */
    struct raft_snapshot_info taking;
    struct world_state taking_state;
    struct raft_membership membership; /* last told */
    enum raft_core_state role;
    uint64_t role_term, role_leader;
    uint64_t checked; /* committed entries compared up to here */
    size_t restores, fetches, applies;
};

struct world_frame {
    struct world_frame *next;
    uint64_t at_ms, seq;
    uint64_t from, to;
    size_t n;
    uint8_t bytes[];
};

struct world_timer {
    uint64_t at_ms, seq;
    enum { WORLD_DISK_DONE, WORLD_SNAPSHOT_DONE, WORLD_FETCH_DONE, WORLD_RESTORE_DONE } what;
    uint64_t node;
    unsigned life;
    uint64_t source;                /* fetch */
    struct raft_snapshot_info info; /* fetch, restore */
    struct world_timer *next;
};

struct world_options {
    uint64_t seed;
    uint64_t election_ms, heartbeat_ms;
    uint64_t snapshot_every, trailing;
    size_t log_bytes_max, apply_bytes_max;
    uint64_t quiet_ms;
    size_t quiet_bytes;
    /* Faults, in thousandths. */
    unsigned loss, duplicate, reorder;
    uint64_t delay_ms; /* upper bound */
    uint64_t disk_ms;  /* upper bound of a commit */
    bool check_liveness;
};

struct world {
    struct world_options o;
    struct rng rng;
    uint64_t now_ms;
    uint64_t seq;
    struct world_node nodes[WORLD_NODES_MAX + 1]; /* by id */
    uint64_t n_nodes;
    bool cut[WORLD_NODES_MAX + 1][WORLD_NODES_MAX + 1]; /* from, to */
    struct world_frame *frames;                         /* by time */
    struct world_timer *timers;                         /* by time */
    /* What is known to be committed. */
    struct {
        uint64_t term;
        uint64_t in_term; /* of the member that first knew it to be committed */
        uint64_t hash;    /* of the entry; 0: not seen applied */
        uint64_t chain;   /* state behind it, when it was a command */
        bool command;
    } model[WORLD_INDEX_MAX];
    uint64_t model_last;
    uint64_t leader_of[WORLD_TERMS_MAX];
    uint64_t vote_of[WORLD_TERMS_MAX][WORLD_NODES_MAX + 1];
    /* The trace. */
    char trace[WORLD_TRACE][WORLD_LINE];
    uint64_t n_events;
    uint64_t hash;
    uint64_t fetch_ms;                 /* least time of a transfer */
    uint64_t restore_ms;               /* upper bound of what it takes to become the state */
    bool restore_beside;               /* always as long, and beside the loop */
    uint64_t snapshot_bytes;           /* size of each copy of the state */
    uint64_t sent[8];                  /* by frame type */
    struct raft_membership membership; /* newest that is committed */
    bool (*drop)(struct world *w, uint64_t from, uint64_t to,
                 struct slice frame); /* schedules: NULL or */
};

struct world *world_new(const struct world_options *o, uint64_t voters);
void world_free(struct world *w);
void world_options_default(struct world_options *o);

/* ---- running ---- */
bool world_step(struct world *w,
                uint64_t until_ms); /* one event; false when none is left before until */
void world_run(struct world *w, uint64_t ms);
/* Runs until cond(w, arg), at most ms. */
bool world_until(struct world *w, bool (*cond)(struct world *w, void *arg), void *arg,
                 uint64_t ms);
struct world_node *world_leader(struct world *w); /* newest; NULL: none */

/* ---- nodes ---- */
void world_start(struct world *w, uint64_t id);
void world_stop(struct world *w, uint64_t id, bool lose_unsynced);
uint64_t world_join(struct world *w);                  /* a new empty node, running; its id */
void world_disk_release(struct world *w, uint64_t id); /* lets held commits complete */
enum err world_submit(struct world *w, uint64_t id, struct slice data, uint64_t *ret_index);
enum err world_change(struct world *w, uint64_t id, uint64_t member, enum raft_role role,
                      bool remove);
void world_transfer(struct world *w, uint64_t id, uint64_t to); /* 0: best; may be refused */
void world_cut(struct world *w, uint64_t a, uint64_t b, bool cut);
void world_isolate(struct world *w, uint64_t id, bool cut);
void world_heal(struct world *w);
bool world_member(struct world *w, uint64_t id); /* in the leader's membership */

/* ---- judging ---- */
void world_note(struct world *w, const char *fmt, ...) PRINTF(2, 3);
NORETURN void world_violation(struct world *w, const char *fmt, ...) PRINTF(2, 3);
void world_note_frame(struct world *w, const struct world_frame *f);
void world_print_trace(struct world *w);

/* raft_world_disk.c, raft_world_check.c, for raft_world.c alone */
extern const struct raft_core_ops world_ops;
void world_disk_done(struct world *w, struct world_node *n);
void world_disk_crash(struct world *w, struct world_node *n, bool lose);
void world_disk_view(struct world_node *n, struct raft_core_disk *ret,
                     struct raft_entry_view **ret_entries);
void world_disk_free(struct world_disk *d);
void world_disk_bootstrap(struct world_disk *d, const struct raft_membership *m);
struct world_timer *world_timer_add(struct world *w, uint64_t at_ms, int what,
                                    struct world_node *n);
void world_state_commit(struct world *w, struct world_node *n);
void world_snapshot_poll(struct world *w, struct world_node *n);
void world_snapshot_file_done(struct world *w, struct world_node *n);
void world_fetch_done(struct world *w, struct world_node *n, const struct world_timer *t);
/* A copy of the directory of a node; put back while it is down. */
void world_disk_keep(struct world_node *n);
void world_disk_roll_back(struct world_node *n);
/* The state of that snapshot's file; false: there is none. */
bool world_file_state(struct world_node *n, const struct raft_snapshot_info *info,
                      struct world_state *ret);
void world_restore(struct world_node *n, const struct raft_snapshot_info *info);
void world_check_role(struct world_node *n, enum raft_core_state state, uint64_t term);
void world_check_apply(struct world_node *n, uint64_t index, uint64_t term, struct slice data);
void world_check_vote(struct world *w, uint64_t from, uint64_t to, struct slice frame);
void world_check_commit(struct world_node *n);
uint64_t world_hash(uint64_t h, const void *p, size_t n);
uint64_t world_random(struct world *w, uint64_t n);

#endif
