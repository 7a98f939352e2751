/* This node's PostgreSQL as the engine sees it: an observation that is always at hand, and actions that
 * end in exactly one callback. Everything is asynchronous: SQL by libpq on the agent loop, files and
 * tools by the worker, processes by the fence. Nothing here decides. */
#ifndef REGENT_AGENT_POSTGRES_H
#define REGENT_AGENT_POSTGRES_H

#include <uv.h>

#include "agent/core/plan.h"
#include "agent/fence.h"
#include "agent/pg_limits.h"
#include "conf/config.h"

enum { POSTGRES_PATH_MAX = 512 };

struct postgres;
struct pg_seen;

struct postgres_options {
    const struct config *config; /* outlives it */
    struct fence *fence;
    /* Where the unix socket, the password file and PostgreSQL's log go: PostgreSQL's user must be able to
     * write there. NULL: the configuration's data_dir (rootless). */
    const char *run_dir;
    const char *log_path; /* of PostgreSQL; NULL: postgresql.log in run_dir */
};

struct postgres_ops {
    void (*changed)(void *arg); /* the observation changed in a way decide() may care about */
};

/* Where to connect and stream from; taken from leader and member records. */
struct postgres_upstream {
    char name[64]; /* REMOTE_SITE: the postgres has the rest from postgres_dynamic.site_json */
    char host[256];
    char port[64];
    bool read_write; /* several hosts and ports, with commas between: whoever takes writes */
};

typedef void postgres_cb(void *arg, enum err status, const struct errmsg *e);

enum err postgres_new(uv_loop_t *loop, const struct postgres_options *o,
                      const struct postgres_ops *ops, void *arg, struct postgres **ret_pg,
                      struct errmsg *e) MUST_CHECK;
void postgres_free(struct postgres *p);
/* From fence_ops.changed / lost. */
void postgres_fence_changed(struct postgres *p);

/* Copies the newest observation into the view (its .pg). */
void postgres_observe(struct postgres *p, struct view_pg *ret_pg);
/* The monitor's last look, for people: what decide() needs is in the view. Valid until the loop goes on. */
const struct pg_seen *postgres_seen(const struct postgres *p);
const char *postgres_version(const struct postgres *p); /* "15.8", "" unknown */
/* how often a changed configuration was reloaded */
uint64_t postgres_reloads(const struct postgres *p);
/* settings_rec.settings of the running server, borrowed until the loop goes on; another number for another answer,
 * 0: there is none yet. */
uint64_t postgres_catalogue(const struct postgres *p, struct slice *ret_json);

/* Dynamic configuration that shapes postgresql.conf; applied at the next start or reload. */
struct postgres_dynamic {
    /* What this node's store knew last, without a quorum: the settings alone, nothing of the members. Good for a start;
     * the files of a running server stay. */
    bool settings_only;
    /* config_rec.postgresql: JSON object {"parameters": {...}, "pg_hba": [...]} */
    struct slice parameters_json;
    uint64_t retry_interval_ms;
    bool use_slots;
    /* synchronous_mode_strict: a crashed backend ends PostgreSQL instead of restarting it in
     * place */
    bool strict;
    /* names of the other members: a physical slot each on the primary */
    char members[VIEW_MEMBERS][64];
    size_t members_n;
    /* of each: it streams from here also while this is a standby; it streams from elsewhere, or not at all */
    bool below[VIEW_MEMBERS], elsewhere[VIEW_MEMBERS];
    /* config_rec.slots and .ignore_slots */
    struct slice slots_json, ignore_json;
    struct slice site_json; /* config_rec.standby_cluster */
    /* Members whose slots a logical consumer must not get ahead of (17 and later): who may be promoted. */
    char ahead[VIEW_MEMBERS][64];
    size_t ahead_n;
    /* where the leader's PostgreSQL is, when it is somebody else's (name "": nowhere), and its token */
    struct postgres_upstream leader_at;
    uint64_t leader_token;
    /* a member not named for so long loses its slot, and the WAL it keeps; 0: 30 minutes */
    uint64_t slot_ttl_ms;
    /* of the leader, when it is somebody else, and the least of the running standbys */
    struct pg_limits leader, standbys;
};
/* Writes the configuration anew and has PostgreSQL read it; soon, beside other things. */
void postgres_reload(struct postgres *p);
void postgres_configure(struct postgres *p, const struct postgres_dynamic *d);

/* Runs the plan's action (ACTION_*). SET_SYNC ends when the new value is written and reloaded; its
 * confirmation goes on beside other actions and shows in view_pg.set_confirmed. upstream: for
 * FOLLOW, START_STANDBY, REWIND, CLONE (NULL = nobody). One at a time; the engine guarantees it.
 * `deadline_ms`: CLOCK_BOOTTIME, for STOP_FAST. */
void postgres_run(struct postgres *p, const struct plan *plan,
                  const struct postgres_upstream *upstream, uint64_t deadline_ms,
                  postgres_cb *cb, void *arg);
/* Gives up a long action (clone, rewind, start); its callback comes with ERR_CANCELLED. */
void postgres_cancel(struct postgres *p);
/* While a switchover waits for it: look at the receive LSN every 10 ms. */
void postgres_watch_closely(struct postgres *p, bool on);

#endif
