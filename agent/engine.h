/* The engine: observe -> decide -> execute, once per wake-up. It owns the mirror, the lease keeper and
 * the plan in force; it does nothing by itself but through `ports`, which in production are the DCS
 * client, PostgreSQL and the fence, and in the simulator their models.
 *
 * Callbacks record facts and call engine_wake(); one tick acts. Loop thread of the agent. */
#ifndef REGENT_AGENT_ENGINE_H
#define REGENT_AGENT_ENGINE_H

#include "agent/fence.h"
#include "agent/lease_keeper.h"
#include "agent/mirror.h"
#include "agent/postgres.h"
#include "proto/client.h"

struct engine;

/* Every call that takes a client_cb ends in exactly one callback. */
struct engine_ports {
    uint64_t (*now_ms)(void *arg);
    uint64_t (*wall_ms)(void *arg);
    /* One DCS request (enum method), as client_call(). */
    void (*call)(void *arg, enum method m, const void *params, uint64_t deadline_ms,
                 client_cb *cb, void *cb_arg);
    /* A watch on the prefix from a revision on; replaces the one before. Events go to engine_watch(). */
    void (*watch)(void *arg, struct slice key, struct slice end, uint64_t start_revision);
    /* PostgreSQL */
    void (*observe)(void *arg, struct view_pg *ret_pg);
    void (*run)(void *arg, const struct plan *p, const struct postgres_upstream *up,
                uint64_t deadline_ms, postgres_cb *cb, void *cb_arg);
    void (*cancel)(void *arg);
    void (*configure)(void *arg, const struct postgres_dynamic *d);
    void (*watch_closely)(void *arg, bool on);
    /* postgres_catalogue() */
    uint64_t (*catalogue)(void *arg, struct slice *ret_json);
    /* fence */
    void (*fence)(void *arg, struct fence_state *ret_state);
    void (*arm)(void *arg, uint64_t token, uint64_t deadline_ms);
    void (*extend)(void *arg, uint64_t deadline_ms);
    /* fence_shorten() */
    bool (*shorten)(void *arg, uint64_t deadline_ms);
    void (*disarm)(void *arg);
    /* the lease was renewed since the fence asked */
    void (*confirm)(void *arg, uint64_t challenge);
    void (*kill)(void *arg);
    void (*remember)(void *arg, uint64_t lease, uint64_t nonce);
    /* Look again at `at_ms`; replaces the time before. */
    void (*wake_at)(void *arg, uint64_t at_ms);
    /* A new view and plan are in force (REST takes a copy). A witness has no plan: its rule is NULL. */
    void (*published)(void *arg, const struct view *v, const struct plan *p);
};

struct engine_options {
    const char *scope;
    const char *name;
    const char *conn_host; /* where others reach PostgreSQL */
    uint16_t conn_port;
    const char *api_url;
    const char *pg_version;             /* may be "" */
    const struct config_rec *bootstrap; /* first dynamic configuration; outlives the engine */
    uint64_t election_ms;
    uint64_t kill_budget_ms;
    bool adopt;       /* data that is there already becomes the new cluster's */
    bool pre_promote; /* the configuration has such a command */
    bool nofailover, nosync, noloadbalance, clonefrom, nostream;
    const char *replicatefrom; /* "" nobody; NULL as "" */
    int64_t failover_priority, sync_priority;
    bool witness; /* no PostgreSQL on this node: holds no lease, decides nothing */
    /* decisions are not written down: simulations, of which that would be the half */
    bool no_journal;
    const struct engine_ports *ports;
    void *arg;
};

enum err engine_new(const struct engine_options *o, struct engine **ret_engine,
                    struct errmsg *e) MUST_CHECK;
void engine_free(struct engine *g);

void engine_connected(struct engine *g, bool connected); /* the DCS connection came or went */
void engine_watch(struct engine *g, enum err status, const struct watch_event *ev);
/* something changed: tick soon (coalesced through wake_at(now)) */
void engine_wake(struct engine *g);
/* from the timer, at or after the time given to wake_at */
void engine_tick(struct engine *g);
void engine_late(struct engine *g); /* the loop was late by more than a quarter of the TTL */
/* SIGTERM: hand over first; engine_stopped() tells when */
void engine_stop(struct engine *g);
/* about to be restarted: leave everything for adoption */
void engine_restart(struct engine *g);
bool engine_stopped(const struct engine *g);
/* Paused, and no deadline is held: a daemon that ends leaves PostgreSQL as it is. */
bool engine_leaves_postgres(const struct engine *g);
void engine_set_pre_promote(struct engine *g, bool on);
/* Keys of the file that wait for a new start of this daemon, for the member record. */
void engine_set_file_waits(struct engine *g, const char *keys);
void engine_set_pg_version(struct engine *g, const char *version);
const struct view *engine_view(const struct engine *g);
const struct plan *engine_plan(const struct engine *g);
const struct mirror *engine_mirror(const struct engine *g);

#endif
