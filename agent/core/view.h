/* What a node knows when it decides: the DCS records at one revision, what it sees of its own
 * PostgreSQL, its lease, and the time. Fixed maxima, no pointers: a view can be copied, compared,
 * written as text (view_print) and read back (view_parse), so that tests, the journal, `explain` and
 * `what-if` share one notation.
 *
 * Pure: no I/O, clock, allocation or log in agent/core. */
#ifndef REGENT_AGENT_CORE_VIEW_H
#define REGENT_AGENT_CORE_VIEW_H

#include "base/base.h"
#include "base/err.h"
#include "proto/messages.h" /* the records: structs only */

enum { VIEW_MEMBERS = 64, VIEW_SETS = 4, VIEW_WALSENDERS = 64, VIEW_HISTORY = 32 };

/* Stands for the other site where a member's name stands elsewhere: pg.upstream, busy.target, plan.target. No member
 * can be called like that. */
#define REMOTE_SITE "@remote"

enum sync_mode { SYNC_OFF, SYNC_ON, SYNC_QUORUM };

/* Dynamic configuration as decide() needs it, with defaults filled in. */
struct view_config {
    uint64_t ttl_ms;
    enum sync_mode sync_mode;
    bool sync_strict;
    uint64_t sync_node_count;
    uint64_t maximum_lag_on_syncnode; /* bytes; 0: any */
    bool check_timeline;
    uint64_t maximum_lag_on_failover; /* bytes */
    uint64_t primary_start_timeout_ms;
    uint64_t retry_interval_ms; /* wal_retrieve_retry_interval of managed standbys: 100 */
    enum { CRASH_AUTO, CRASH_RESTART, CRASH_FAILOVER } on_primary_crash;
    bool sick_failover;        /* on_sick_node */
    uint64_t sick_interval_ms; /* sick_failover_interval */
    bool pause;
    bool use_pg_rewind;
    bool remove_on_rewind_failure, remove_on_diverged; /* remove_data_directory_on_... */
    bool standby_cluster; /* this cluster follows another site and takes no writes */
};

/* (k, S) of synchronous_standby_names: k acknowledgements out of the incarnations S. k 0: none. */
struct sync_set {
    uint64_t k;
    char s[SYNC_MAX][64];
    size_t s_n;
};

enum pg_data {
    PG_DATA_UNKNOWN, /* not looked at yet */
    PG_DATA_EMPTY,
    PG_DATA_OURS, /* a data directory; system_id says whose */
    /* unfinished clone or rewind, unreadable control file: text in `trouble` */
    PG_DATA_BROKEN
};

enum pg_proc {
    PG_PROC_STOPPED,  /* proven: no process of it is left */
    PG_PROC_STARTING, /* postmaster runs, no connection accepted yet */
    PG_PROC_RUNNING,
    PG_PROC_STOPPING,
    PG_PROC_DYING /* postmaster gone, processes left */
};

/* What makes a node unfit to lead, the worst last. From SICK_HUNG on nothing can be asked of PostgreSQL
 * any more. */
enum sick {
    SICK_NOT,
    SICK_ARCHIVE, /* WAL is not archived, and what is kept of it fills the disk */
    SICK_FULL,    /* no room for another WAL segment, or a write was refused */
    SICK_HUNG,    /* the postmaster or its backends do not answer, and live */
    SICK_STUCK    /* a write to the disk does not come back */
};

struct view_walsender {
    char incarnation[64]; /* application_name */
    char name[64];        /* member it belongs to; "" when unknown */
    bool streaming;
    uint64_t flush_lsn;
};

/* What this node sees of its PostgreSQL. */
struct view_pg {
    enum pg_data data;
    enum pg_proc proc;
    uint64_t system_id;
    char incarnation[40];
    bool foreign;        /* BROKEN: sound, but nobody of ours has made it */
    bool standby_signal; /* would start as a standby */
    /* running: pg_is_in_recovery(); until it has been asked: standby_signal */
    bool in_recovery;
    bool accepts; /* running: a connection answered lately */
    bool crashed; /* stopped: exited without being asked */
    bool clean;   /* stopped: control file says "shut down" (in recovery) */
    uint64_t timeline;
    /* primary: flushed; standby: max(received and flushed, replayed); stopped: from the control
     * file (a standby's: min recovery end) */
    uint64_t lsn;
    uint64_t replay_lsn;
    uint64_t shutdown_lsn; /* stopped clean: end of the shutdown checkpoint record, else 0 */
    uint64_t recovery_ms;  /* stopped crashed: estimated time of recovery */
    char upstream[64];     /* member its primary_conninfo points at, or REMOTE_SITE; "" none */
    bool walreceiver;      /* a walreceiver process exists */
    bool streaming;        /* and streams */
    /* follows, but cannot: timeline diverged or WAL missing. Stays until a rewind or clone,
     * also while stopped */
    bool stuck;
    /* proc STARTING: since when, by the clock of now_ms, as far as this daemon knows; else 0 */
    uint64_t starting_ms;
    /* the last rewind of this data failed (not: its source was not ready) */
    bool rewind_failed;
    char kept[240];        /* what the rewind or clone just done put aside, in words */
    uint64_t copied;       /* percent, of the one under way; 0: not known. For people. */
    uint64_t copied_bytes; /* or, by a program of the administrator, bytes; 0: not known */
    /* Which promotions this data went through, "timeline:token" pairs, newest first, written durably by
     * the action that was given it as plan.lineage, before it acts. Timeline 0 stands for the one that
     * a promotion will choose. "": not known, then timelines are told apart by their numbers alone. */
    char lineage[160];
    /* leader token it was last pointed at (FOLLOW, START_STANDBY); 0 = unknown */
    uint64_t follow_token;
    uint64_t sealed_token; /* of the last loss it is sealed for; 0 = not sealed. Durable. */
    uint64_t sealed_lsn;
    uint64_t sealed_timeline;
    /* primary */
    /* standby: replay stands still until PostgreSQL is restarted with one of the max_* settings as high as
     * the primary's */
    bool replay_blocked;
    /* running standby: timeline may be older than that of lsn, nobody has said it yet */
    bool timeline_unsure;
    /* standby: copies of logical slots wait for a restart of PostgreSQL */
    bool slots_wait;
    char slots[200];          /* as in the member record */
    bool pending_restart;     /* some setting waits for a restart; for people */
    char pending_reason[600]; /* as in the member record */
    char limits[64];          /* as in the member record */
    bool roles_ready;         /* replication and rewind roles exist */
    bool checkpointed;        /* a checkpoint has been done since promotion */
    uint64_t start_us;        /* running: when the postmaster started, by its own clock */
    /* running: the timeline before `timeline`, 0: none, or not known */
    uint64_t parent;
    /* and where `timeline` left it (both from PostgreSQL's history file) */
    uint64_t switch_lsn;
    /* ACTION_SET_SYNC moves `set` to `old` and shows the new one here before it writes a byte; the
     * confirmation drops all of `old` at once. With no room left the oldest may be dropped: only a
     * confirmed set lets the record grow. ACTION_SET_SYNC makes a set known again. */
    struct sync_set set; /* as configured now (stopped: as it will start) */
    bool set_known;      /* the sets in force are known at all (false after adoption) */
    bool set_confirmed;  /* DESIGN.md §4 (a) and (b) hold for `set` */
    struct sync_set old[VIEW_SETS]; /* further sets that may still be in force */
    size_t old_n;
    struct view_walsender senders[VIEW_WALSENDERS];
    size_t senders_n;
    /* The worst there was in the last half minute, and in words. */
    enum sick sick;
    /* since when there has been something of it without a break; 0: not now */
    uint64_t failing_ms;
    char sick_why[120];
    char trouble[160];
};

/* An action under way in the executor (single-flight); see plan.h. */
struct view_busy {
    uint64_t action;   /* enum plan_action; 0 = none */
    uint64_t since_ms; /* when it began; with `failed` the one that failed */
    char target[64];
    bool failed; /* the last action ended with an error; `failures` in a row */
    uint64_t failures;
    uint64_t failed_action;
    uint64_t failed_ms;
    char error[160];
    uint64_t done_action; /* the last action that ended well, and when */
    uint64_t done_ms;
};

struct view {
    uint64_t now_ms; /* CLOCK_BOOTTIME */
    char self[64];
    /* DCS */
    bool dcs_ready;       /* the mirror below is complete and its watch is live */
    uint64_t dcs_lost_ms; /* since when it is not; 0: it is */
    char unreadable[16];  /* a record that keeps it so: it cannot be read; "" none */
    /* for a TTL no quorum has answered, or the records could not be had */
    bool dcs_gone;
    uint64_t revision;
    /* when this node first saw the leader key absent (dcs_ready); 0: present */
    uint64_t lost_ms;
    bool txn_pending; /* an HA transaction of ours is under way */
    bool txn_unknown; /* the last one has an unknown outcome: read again before acting */
    struct view_config config;
    bool has_initialize, has_leader, has_sync;
    bool has_failover;    /* asked for, and its time has come */
    bool failover_late;   /* long ago */
    uint64_t failover_ms; /* since when it is known here that its time has come */
    struct initialize_rec initialize;
    bool initialize_leased; /* bootstrap under way (not final) */
    struct leader_rec leader;
    uint64_t leader_lease; /* lease the leader key hangs on */
    uint64_t leader_ms;    /* when this node first saw this token in the key */
    /* incarnation of the last leader that was seen to be sick; "" none */
    char sick_leader[40];
    /* the furthest that the record's leader said of itself, also when its own record is gone; 0: not known */
    uint64_t leader_lsn;
    struct sync_rec sync;
    uint64_t sync_mod_revision;
    struct member_rec members[VIEW_MEMBERS]; /* sorted by name; those with a live agent */
    size_t members_n;
    struct seal_rec seals[VIEW_MEMBERS];
    uint64_t seal_mod_revisions[VIEW_MEMBERS];
    size_t seals_n;
    struct failover_rec failover;
    uint64_t failover_mod_revision;
    /* of this node, and its time has come; since when that is known here */
    bool has_request, request_late;
    struct request_rec request;
    uint64_t request_ms;
    struct history_entry history[VIEW_HISTORY]; /* newest last */
    size_t history_n;
    /* The record that our own TXN_ACQUIRE, or the hand-over to us, replaced. The engine keeps it until PROMOTE or
     * START_PRIMARY is requested (then never again) and forgets it when it restarts. */
    bool has_sync_before;
    struct sync_rec sync_before;
    /* this node */
    uint64_t lease;       /* id of our lease; 0 none */
    uint64_t deadline_ms; /* until when we may act as leader; 0 none */
    bool armed;           /* the fence has acknowledged and holds the deadline */
    bool tilt;            /* the loop was late: look one pass, do not act */
    bool nofailover, nosync, nostream;
    char replicatefrom[64]; /* tag; "" none */
    bool stopping;          /* SIGTERM: hand over, then stop PostgreSQL and leave */
    bool restarting;        /* about to be restarted: leave PostgreSQL for adoption */
    bool can_bootstrap;     /* configuration permits initdb on this node */
    /* what lies in the data directory is somebody's sound primary, and the configuration gives it to the new cluster;
     * pg.data is BROKEN: it is no member's */
    bool adopt;
    /* postgresql.pre_promote is set; the leader token for which it has let this node be promoted, and the one
     * for which it has not. 0: none since this daemon runs. */
    bool pre_promote;
    uint64_t permitted_token, refused_token;
    struct view_pg pg;
    struct view_busy busy;
};

/* ---- helpers, all pure ---- */
/* of the sync record */
enum sync_mode view_record_mode(const struct view *v);
/* NULL: no live agent */
const struct member_rec *view_member(const struct view *v, const char *name);
const struct member_rec *view_member_of(const struct view *v, const char *incarnation);
const struct seal_rec *view_seal_of(const struct view *v, const char *incarnation,
                                    uint64_t token);
bool view_is_leader(const struct view *v); /* key names our name, incarnation and lease */
/* key names our name and lease, whatever our data is */
bool view_leader_named(const struct view *v);
bool view_is_record_leader(const struct view *v); /* sync names our incarnation */
/* The data directory holds another cluster's data. */
bool view_other_system(const struct view *v);
/* A request under way takes PostgreSQL down: no commit should wait for it. */
bool view_request_leaves(const struct view *v);
bool view_in_v(const struct view *v, const char *incarnation);
bool names_have(const char names[][64], size_t n, const char *name);
bool view_lease_valid(const struct view *v); /* now < deadline */
/* PostgreSQL runs (or may) and is not in recovery */
bool view_writable(const struct view *v);
/* Paused: the record says that no deadline is held for this very data, so that nobody else may lead. It
 * ends when the flag is taken back, or when another leads all the same. */
bool view_disarmed(const struct view *v);
/* A new daemon that has not reached the DCS yet, under a fence without a deadline: it cannot know whether
 * PostgreSQL was left like that by a pause. */
bool view_nothing_known(const struct view *v);

/* "archive", "full", "hung", "stuck"; "" for SICK_NOT */
const char *sick_name(enum sick s);
/* Commits do not wait for a standby that cannot write or answer. */
bool sick_leaves_sync(const struct view *v);

/* ---- view_config.c ---- */
/* Fills in every default of a dynamic configuration. */
void config_defaults(struct config_rec *c);
/* What a config_rec means to decide(). */
void config_view(const struct config_rec *c, struct view_config *ret_config);

/* One view as text: `key=value` lines, only what differs from zero; the notation of tests, journal and
 * `explain`. Numbers are decimal, LSNs X/X, lists a,b; control characters, `\` and `,` in names are
 * written \HH. Elements are members[n2].lsn=0/10, pg.senders[0].streaming=1. Empty lines and # are
 * skipped. Returns ERR_LIMIT when ret is too small. */
enum err view_print(const struct view *v, char *ret, size_t size) MUST_CHECK;
enum err view_parse(const char *text, struct view *ret_view, struct errmsg *e) MUST_CHECK;
/* The same lines as changes to a view that exists; `-members[n2]` takes an element out. On an error
 * *view is half changed. */
enum err view_apply(const char *text, struct view *view, struct errmsg *e) MUST_CHECK;

#endif
