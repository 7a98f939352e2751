/* What decide() lives in, abstract: a linearizable store with leases, PostgreSQLs whose WAL is a list of
 * commits, a fence per node. Everything follows from a seed. */
#ifndef REGENT_TESTS_SIM_CORE_WORLD_H
#define REGENT_TESTS_SIM_CORE_WORLD_H

#include "agent/core/plan.h"
#include "base/rng.h"

enum { NODES = 5, WAL_MAX = 6000, TIMELINES = 64, FORCE = 8, TICK_MS = 10 };
enum { TTL_MS = 2000, MARGIN_MS = 200 };

/* ---- the store: records as the newest transaction left them ---- */
struct store {
    uint64_t revision;
    bool has_initialize, initialize_leased, has_leader, has_sync, has_failover;
    uint64_t initialize_lease;
    struct initialize_rec initialize;
    struct leader_rec leader;
    uint64_t leader_lease;
    struct sync_rec sync, sync_before;
    uint64_t sync_rev, failover_rev;
    struct member_rec members[NODES];
    uint64_t member_lease[NODES]; /* 0: no record */
    struct seal_rec seals[NODES];
    uint64_t seal_rev[NODES]; /* 0: no record */
    struct failover_rec failover;
    struct history_entry history[VIEW_HISTORY];
    size_t history_n;
    bool pause;
};

/* ---- a data directory and its PostgreSQL ---- */
struct timeline {
    uint64_t id, token; /* token: the truth, which PostgreSQL does not know */
    size_t start;       /* index of its first record */
};
struct data {
    enum pg_data state;
    char incarnation[40], lineage[160];
    bool standby_signal, clean;
    uint32_t wal[WAL_MAX]; /* ids of commits and checkpoints */
    size_t n;
    struct timeline tl[TIMELINES];
    size_t tl_n;
    uint64_t follow_token, sealed_token, sealed_timeline;
    size_t sealed_n, shutdown_n;
};
struct postgres {
    enum pg_proc proc;
    bool in_recovery, crashed, stuck, streaming, roles, checkpointed;
    int upstream;        /* -1: none */
    uint64_t token;      /* of the last promotion or start as primary: for the checks */
    size_t acked_n;      /* records below are released, or were never anybody's */
    struct sync_set set; /* as the agent sees it */
    bool set_known, confirmed;
    struct sync_set old[VIEW_SETS];
    size_t old_n;
    struct { /* the truth: sets that some walsender still goes by */
        struct sync_set set;
        uint64_t until_ms;
    } force[FORCE];
    size_t force_n;
    bool
        /* every walsender took the newest set; then confirm_n is the LSN to be flushed */
        taken;
    size_t confirm_n;
};

struct pending_txn {
    bool active, applied, ok;
    struct plan plan;
    uint64_t sync_rev, failover_rev, seal_rev[VIEW_MEMBERS];
    char counted[VIEW_MEMBERS][64];
    uint64_t apply_ms, reply_ms, lease;
};

struct node {
    char name[64];
    struct data data;
    struct postgres pg;
    /* the machine */
    bool isolated;
    enum sick sick;
    uint64_t failing_ms; /* since when */
    /* fence */
    bool armed, fence_frozen;
    bool disarmed; /* in a pause: it guards nothing */
    uint64_t fence_deadline_ms;
    /* agent */
    bool alive, paused, stopping, was_paused;
    uint64_t back_ms; /* the agent process starts again */
    uint64_t lease, deadline_ms, renew_ms;
    struct store mirror;
    uint64_t mirror_ms, lost_ms, dcs_lost_ms;
    uint64_t leader_token, leader_ms; /* the newest in the mirror, and since when */
    bool withhold;
    bool mirrored, txn_unknown;
    struct view_busy busy;
    struct plan doing;
    uint64_t done_at_ms;
    struct pending_txn txn;
    bool has_sync_before;
    struct sync_rec sync_before;
    uint64_t handover_token, permitted_token, refused_token;
    uint64_t publish_ms;
};

struct world {
    struct rng rng;
    uint64_t now_ms;
    size_t n;
    struct store store;
    uint64_t lease_end_ms[4096]; /* by lease id; 0: gone */
    uint64_t lease_next;
    struct view_config config;
    struct node node[NODES];
    uint32_t next_id;
    uint32_t incarnation_next;
    /* what was promised to clients */
    uint8_t acked[200000];
    size_t acked_count;
    uint64_t acked_token; /* highest that acknowledged */
    bool hooks;           /* every node has a pre_promote, which says no at times */
    bool lossless;        /* synchronous from the first write on */
    bool trace;
    char violation[300];
    char last_rule[NODES][48];
};

void world_init(struct world *w, uint64_t seed, size_t n);
bool world_chance(struct world *w, uint64_t permille);
void world_violation(struct world *w, const char *fmt, ...) PRINTF(2, 3);
void world_log(struct world *w, const struct node *x, const char *fmt, ...) PRINTF(3, 4);
bool world_linked(const struct world *w, const struct node *a, const struct node *b);
struct node *world_node(struct world *w, const char *name);

/* core_world_store.c */
bool store_lease_alive(const struct world *w, uint64_t lease);
void store_tick(struct world *w); /* expiry */
bool store_apply(struct world *w, struct node *x, const struct pending_txn *t);

/* core_world_pg.c */
bool pg_writable(const struct node *x);
void pg_tick(
    struct world *w); /* clients write, standbys stream, commits are released, sets confirmed */
void pg_kill(struct world *w, struct node *x);
void pg_effect(struct world *w, struct node *x,
               const struct plan *p); /* of an action that ends well */
uint64_t pg_lsn(size_t n);
uint64_t data_timeline(const struct data *d);

/* core_world_agent.c */
void agent_tick(struct world *w, struct node *x);
void agent_start(struct world *w, struct node *x, bool adopt);

#endif
