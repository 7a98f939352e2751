/* Inside of postgres*.c and pg_act_*.c: the object, and one action at a time as a chain of callbacks.
 *
 * An action ends by action_end(), once. Callbacks of its SQL connection stop when it ends; a worker
 * call always answers, so it is waited for. */
#ifndef REGENT_AGENT_POSTGRES_PRIVATE_H
#define REGENT_AGENT_POSTGRES_PRIVATE_H

#include "agent/pg_health.h"
#include "agent/pg_monitor.h"
#include "agent/pg_render.h"
#include "agent/pg_slots.h"
#include "agent/pg_syncconf.h"
#include "agent/pg_worker.h"
#include "agent/postgres.h"
#include "conf/site.h"

enum {
    POSTGRES_MAGIC = 0x50475251,
    PG_SQL_MS = 5000, /* a statement of an action */
    PG_CONNECT_MS = 2000,
    PG_WORKER_MS = 20000, /* a worker's small operation */
    PG_POLL_MS = 10,
};

struct postgres;
/* What follows a worker's good answer; a bad one, or a cancel, has ended the action already. */
typedef void action_step(struct postgres *p, const struct worker_reply *r);

struct action {
    bool active;
    bool cancelled;
    bool in_worker; /* a worker call is under way */
    bool writing;   /* it is action_write()'s */
    bool unsealed;
    action_step *then;
    /* a worker's bad answer goes here instead of ending the action; NULL after it */
    void (*otherwise)(struct postgres *p, enum err status, const struct errmsg *e);
    struct plan plan;
    bool has_upstream;
    struct postgres_upstream upstream;
    uint64_t deadline_ms;
    uint64_t began_ms;
    postgres_cb *cb;
    void *arg;
    struct hook *hook; /* a command of the administrator runs */
    unsigned step;     /* meaning is the action's */
    uint64_t since_ms;
    uint64_t pid; /* SEAL: walreceiver signalled last */
    bool used_up; /* SEAL: no WAL of before the start is left on the disk */
    uint64_t lsn;
    uint64_t timeline;
    uint64_t copied;       /* CLONE, REWIND: percent */
    uint64_t copied_bytes; /* by a program of the administrator: what is there by now */
};

/* Whom it follows, as it stands in postgresql.conf. */
struct follow {
    bool known; /* false after adoption until PostgreSQL has shown it */
    char name[64];
    uint64_t token;
    char conninfo[1200];
};

/* Permanent slots: a look, what follows from it, and then one step after the other. */
struct slots {
    struct slot_config config;
    struct buf slots_json, ignore_json; /* what `config` was read from */
    struct slots_memory memory;
    struct slots_plan plan;
    struct slots_seen here, leader;
    struct postgres_upstream leader_at;
    uint64_t leader_token;
    struct pg_sql *local, *remote;
    char database[64];                  /* that `local` is connected to */
    struct postgres_upstream remote_to; /* that `remote` is */
    bool busy;
    bool logical; /* slots_logical() as postgresql.conf has it */
    size_t at;    /* step */
    uint64_t next_ms;
    struct buf copies;     /* worker_req.slots, for the next start as a standby; empty: none */
    uint64_t copies_token; /* of the leader they are from */
    uint64_t again_ms;     /* no restart for copies before that */
    char unsafe[200];
};

struct postgres {
    uint32_t magic;
    uv_loop_t *loop;
    const struct config *config;
    struct fence *fence;
    struct postgres_ops ops;
    void *arg;
    struct pg_worker *worker;
    struct pg_monitor *monitor;
    struct pg_health *health;
    uv_timer_t timer;   /* the action's */
    uv_timer_t house;   /* housekeeping */
    struct pg_sql *sql; /* the action's */
    /* for a promotion that may be near: SEAL's, or made while a primary stops */
    struct pg_sql *spare;
    struct pg_sql *house_sql; /* housekeeping: slots, reload */
    struct pg_sql *remote;    /* to the upstream: is this data an ancestor of its? */
    struct action act;

    struct fence_state fence_seen;
    char socket_dir[PG_PATH_MAX], passfile[PG_PATH_MAX], log_path[PG_PATH_MAX], port[8];
    struct pg_settings settings;
    struct site site; /* of a standby cluster */
    struct buf site_json;
    bool site_checked;        /* the site that is followed has our history */
    struct buf settings_json; /* what `settings` was read from */
    struct pg_limits leader_limits, standby_limits;
    uint64_t retry_interval_ms;
    bool strict, use_slots;
    bool closed; /* strict: clients are let in when the set is confirmed */
    struct slots slots;
    char ahead[VIEW_MEMBERS][64];
    size_t ahead_n;
    char members[VIEW_MEMBERS][64];
    bool below[VIEW_MEMBERS], elsewhere[VIEW_MEMBERS]; /* of postgres_dynamic */
    size_t members_n;
    /* Named before, and not now: a node that is down wants its WAL when it returns. */
    struct {
        char name[64];
        uint64_t since_ms;
    } absent[2 * VIEW_MEMBERS];
    size_t absent_n;
    uint64_t slot_ttl_ms;
    uint64_t born_ms;  /* what was before that is not known */
    uint64_t slots_ms; /* when slots are looked at next */
    bool conf_dirty;   /* to be written and reloaded */
    bool house_busy;
    struct buf catalogue; /* settings_rec.settings of this postmaster; empty: not asked yet */
    uint64_t catalogue_serial;
    bool configured;   /* once at least */
    bool conf_changed; /* what is to be reloaded is a change that somebody made */
    uint64_t reloads;  /* of such changes */
    bool closely;
    unsigned open_timers;

    bool probe_valid, probing, probe_again;
    bool probe_lost; /* the last one, with its worker */
    uint64_t probe_retry_ms;
    struct worker_reply probe;
    struct follow follow;
    bool stopping; /* asked to end */
    bool rewind_failed;
    char kept[240]; /* view_pg.kept */
    bool roles_ready;
    bool ever_seen;       /* this postmaster has answered */
    uint64_t starting_ms; /* when it was first seen */
    /* stuck detection */
    bool stuck;
    char stuck_why[160];
    uint64_t stuck_token; /* of the leader it was found with */
    bool rewound;         /* and has not streamed since */
    uint64_t unfed_ms;    /* since when it should stream and does not; 0 */
    bool checking;
    char trouble[160]; /* of our own making */
    /* synchronous replication */
    struct sync_set set;
    bool set_known;
    struct sync_set old[VIEW_SETS];
    size_t old_n;
    struct syncconf sync;
    struct pg_sql *sync_sql;   /* fresh connections, marks */
    struct pg_sql *sync_probe; /* the commit that must be seen waiting */
    uv_timer_t sync_timer;
    bool sync_busy;    /* a step is under way */
    bool sync_writing; /* a write is in the worker: it always answers */
    bool sync_stale;   /* and it is of a set that has changed since */
    bool sync_written; /* `set` is in the file, and reloaded */
    bool sync_waits;   /* commits are known to wait: the flag is set */
    bool sync_adopt;   /* `set` is to be read from what PostgreSQL shows */
    bool
        /* SET_SYNC was ordered: confirm although the sets in force are not known */
        sync_wanted;
    bool sync_probing;      /* a probe is under way */
    bool sync_passed;       /* a probe came back */
    uint64_t sync_serial;   /* looks up to this one are too old */
    uint64_t sync_since_ms; /* the value was reloaded */
    struct view_pg told;    /* as last told by ops.changed */
};

/* postgres.c */
void postgres_local_target(struct postgres *p, struct pg_sql_target *t,
                           enum pg_monitor_kind kind);
void postgres_told(struct postgres *p); /* something may have changed: tells when it did */
bool postgres_running(const struct postgres *p); /* there is a postmaster */
/* sound data that nobody of ours has made */
bool postgres_is_foreign(const struct postgres *p);
void postgres_probe(struct postgres *p);
void postgres_req(const struct postgres *p, struct worker_req *q, const char *op);

/* postgres_action.c */
void action_end(struct postgres *p, enum err status, const struct errmsg *e);
/* PROMOTE, START_PRIMARY: the fence still holds the deadline of the very leadership the action was ordered
 * for, and there is time left. Else the action fails here: between order and execution another node may
 * have led. */
bool action_may_lead(struct postgres *p);
void action_fail(struct postgres *p, enum err status, const char *fmt, ...) PRINTF(3, 4);
void action_worker(struct postgres *p, const struct worker_req *q, uint64_t timeout_ms,
                   action_step *then);
void action_in(struct postgres *p, uint64_t ms, uv_timer_cb cb);
/* Writes postgresql.conf, pg_hba.conf, pgpass (and, with names, the synchronous names). */
void action_write(struct postgres *p, const char *op, const char *sync_names,
                  action_step *then);
/* Only what the plan says about lineage and seal. */
void action_note(struct postgres *p, action_step *then);
/* Writes them, and tells the postmaster by signal: needs no connection. It takes the reload in its own time. */
void action_reload(struct postgres *p, const char *sync_names, action_step *then);
/* The action's connection and the spare one change places. */
void action_swap(struct postgres *p);
/* A fresh connection of the action's own. */
void action_connect(struct postgres *p, pg_sql_cb *cb);
/* What the files are rendered from; t is what r borrows besides. */
struct render_texts {
    char slot[64];
    char ahead[VIEW_MEMBERS * 66];
};
void postgres_render(const struct postgres *p, struct pg_render *r, struct render_texts *t);
enum err postgres_files(struct postgres *p, const char *sync_names, struct msg_list *ret,
                        struct errmsg *e) MUST_CHECK;

/* pg_hook.c: a command of the administrator, as a step of the action; `then` comes once, unless the action ends
 * before: then the command is killed. limit_ms: COMMAND_NO_LIMIT, or how long it may take. "" ends well at once. */
typedef void hook_step(struct postgres *p, enum err status, const struct errmsg *e);
void hook_run(struct postgres *p, const char *name, const char *shell, const char *const *env,
              uint64_t limit_ms, hook_step *then);
void hook_forget(struct hook *h); /* NULL is allowed */

/* pg_act_*.c: one entry per action */
void act_start(struct postgres *p); /* START_PRIMARY, START_STANDBY */
void act_stop(struct postgres *p);  /* STOP_FAST, STOP_IMMEDIATE, KILL */
void act_copy(struct postgres *p);  /* INITDB, CLONE, REWIND */
void act_promote(struct postgres *p);
void act_pre_promote(struct postgres *p);
void act_checkpoint(struct postgres *p);
void act_seal(struct postgres *p);
void act_follow(struct postgres *p);
void act_roles(struct postgres *p);
void act_sync(struct postgres *p);
/* A look arrived, or the fence told something: for actions that wait for it. */
void act_start_look(struct postgres *p);
void act_stop_look(struct postgres *p);
void act_promote_look(struct postgres *p);
void act_follow_look(struct postgres *p);

/* pg_sync.c: the set in force, and its confirmation */
void sync_set_names(struct postgres *p, const struct sync_set *set); /* moves set to old */
void sync_fresh(struct postgres *p,
                const struct sync_set *set); /* a postmaster starts with it */
void sync_adopted(struct postgres *p);
void sync_look(struct postgres *p); /* a look arrived */
void sync_stop(struct postgres *p); /* no postmaster */
/* it needs a second connection, or nothing is acknowledged */
bool sync_probes(const struct postgres *p);
void sync_step(struct postgres *p); /* pg_sync_step.c: does what is due next */
enum err sync_text(const struct sync_set *set, char *ret, size_t size) MUST_CHECK;

/* pg_house.c: slots, reload after a change of configuration */
void house_members(struct postgres *p, const struct postgres_dynamic *d);
void house_look(struct postgres *p);
/* pg_slots_run.c */
void slots_configure(struct postgres *p, const struct postgres_dynamic *d);
void slots_look(struct postgres *p);
void slots_pause(struct postgres *p); /* closes its connection here, if nothing is under way */
void slots_stop(struct postgres *p);  /* no postmaster */
/* There are permanent logical slots, or such that have to be dropped: a synchronized one only PostgreSQL can. */
bool slots_logical(const struct postgres *p);
/* PostgreSQL synchronizes them itself. */
bool slots_native(const struct postgres *p);
/* What is to be laid into the data directory before it is started as a standby; it is then forgotten. */
struct slice slots_copies(struct postgres *p);
void slots_copied(struct postgres *p);
bool slots_wait(const struct postgres *p); /* a restart would bring copies */

/* pg_site.c: the other site of a standby cluster */
/* NULL: it is not what is followed */
const struct site *site_followed(const struct postgres *p);
void site_upstream(const struct postgres *p, struct postgres_upstream *ret);
void site_configure(struct postgres *p, struct slice json);
/* Whom to follow from here on; NULL: nobody. False: it does not fit, and all is as it was. */
bool follow_set(struct postgres *p, const struct postgres_upstream *to, uint64_t token);
/* How the action's copy is made, in their order; none: by pg_basebackup. */
size_t copy_methods(const struct postgres *p, const struct conf_method *ret[CONF_METHODS_MAX]);

/* pg_stuck.c */
void stuck_look(struct postgres *p);
void stuck_found(struct postgres *p, const char *why);
void stuck_forget(struct postgres *p);
void stuck_stop(struct postgres *p); /* no postmaster: what was found stays */
/* A rewind or clone has been done. A rewind that does not help is not tried again. */
void stuck_copied(struct postgres *p, bool rewound);

#endif
