/* Watches the local PostgreSQL over one connection on its unix socket: four times a second, at every
 * poke, and more often when asked to. Reports what it saw; decides nothing.
 *
 * Every answer has a deadline of ours: a server that hangs is one that does not accept. */
#ifndef REGENT_AGENT_PG_MONITOR_H
#define REGENT_AGENT_PG_MONITOR_H

#include "agent/core/view.h"
#include "agent/pg_sql.h"

enum { PG_SYNC_NAMES_MAX = 2048, PG_SENDERS_MAX = 64, PG_SLOTS_MAX = 32 };

struct pg_sender {
    char application_name[64];
    bool streaming;
    uint64_t flush_lsn; /* 0: has not reported yet */
    uint64_t pid;
    /* for people, as pg_stat_replication has them */
    char usename[64];
    char client_addr[64]; /* "" over a unix socket */
    char state[16];
    char sync_state[16];
    uint64_t sync_priority;
};

struct pg_slot {
    char name[64];
    bool active;
    uint64_t retained_bytes; /* WAL that is kept for it */
    char wal_status[16];     /* reserved, extended, unreserved, lost */
};

/* One look. */
struct pg_seen {
    uint64_t serial; /* 0: never; raised with each look */
    uint64_t at_ms;  /* CLOCK_BOOTTIME when it was asked for */
    bool in_recovery;
    uint64_t flush_lsn;   /* primary */
    uint64_t receive_lsn; /* standby: received and flushed; 0 none */
    uint64_t replay_lsn;
    uint64_t timeline;         /* the newest this data is known to be on */
    uint64_t control_timeline; /* of the latest checkpoint */
    uint64_t system_id;
    char sync_names[PG_SYNC_NAMES_MAX];
    char conninfo[1200]; /* primary_conninfo */
    char upstream[64];   /* regent.upstream */
    uint64_t follow_token;
    uint64_t walreceiver_pid; /* 0: no such process */
    bool streaming;
    uint64_t received_timeline;
    char startup_wait[48]; /* what the startup process waits for */
    struct pg_sender senders[PG_SENDERS_MAX];
    size_t senders_n;
    /* primary: from the history file of `timeline` */
    uint64_t parent;
    uint64_t switch_lsn;
    /* for people */
    bool pending_restart; /* some setting waits for a restart; looked at now and then */
    char pending[600];    /* which, as member_rec.pending_reason; "": too many to be told */
    char limits[64];      /* member_rec.limits; looked at now and then */
    struct pg_slot slots[PG_SLOTS_MAX]; /* looked at as often */
    size_t slots_n;
    char unarchived[40]; /* WAL file that the archive refused last; "" the last one was taken */
    uint64_t start_us;   /* when the postmaster started, since 1970 */
    uint64_t replayed_us;    /* standby: commit time of the last transaction replayed; 0 none */
    bool replay_paused;      /* standby */
    uint64_t latest_end_lsn; /* standby: how far the primary was, as it last said; 0 none */
};

struct pg_monitor;

/* door: just to be asked in; without a password, which costs both sides more than all the rest. */
enum pg_monitor_kind { PG_MONITOR_LOOK, PG_MONITOR_IDENTIFY, PG_MONITOR_DOOR };
typedef void pg_monitor_target(void *arg, struct pg_sql_target *ret, enum pg_monitor_kind kind);
typedef void pg_monitor_cb(void *arg); /* a new look, or the connection was lost */

struct pg_monitor *pg_monitor_new(uv_loop_t *loop, pg_monitor_target *target, pg_monitor_cb *cb,
                                  void *arg);
void pg_monitor_free(struct pg_monitor *m);
/* on: there is a postmaster. eager: it is being started, try often. */
void pg_monitor_run(struct pg_monitor *m, bool on, bool eager);
void pg_monitor_poke(struct pg_monitor *m); /* look as soon as can be */
void pg_monitor_closely(struct pg_monitor *m, bool on);
bool pg_monitor_accepts(const struct pg_monitor *m); /* connected, and the last look answered */
const struct pg_seen *pg_monitor_seen(const struct pg_monitor *m);
/* seen.timeline is that of seen.replay_lsn, and not of the control file, which is older. */
bool pg_monitor_knows_timeline(const struct pg_monitor *m);
/* It answered once and lives, but its postmaster lets nobody in, or its backends do not answer: in words. NULL: it
 * answers, if only to say no. */
const char *pg_monitor_hung(const struct pg_monitor *m);
const char *pg_monitor_error(const struct pg_monitor *m); /* why it does not accept; "" */

/* The answer of one look; ERR_INVALID when it is not what it should be. Keeps what ret knew of
 * timelines. settings: of the long query, else NULL. Pure. */
enum err pg_seen_parse(const PGresult *facts, const PGresult *senders, const PGresult *settings,
                       struct pg_seen *ret) MUST_CHECK;
/* The slots, as the long query has them in one text. Pure. */
void pg_slots_parse(const char *text, struct pg_seen *ret);
/* Last line of a history file: where this timeline left its parent. Pure. */
enum err pg_history_last(const char *text, uint64_t *ret_parent, uint64_t *ret_switch_lsn)
    MUST_CHECK;

/* The long one looks at all settings, too, which costs more than all the rest. */
extern const char pg_seen_query[], pg_seen_long_query[];

#endif
