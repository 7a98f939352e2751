/* Permanent replication slots: what is to be done about them on this node, and which of them a promotion here would
 * lose or break. Pure; pg_slots_run.c looks and does.
 *
 * On the primary they are made as configured, and dropped when they leave the configuration. On a standby
 *   physical  they are made, and moved on with the leader's;
 *   logical   PostgreSQL 17 and later synchronizes them itself. Before that the state of the leader's slot is copied
 *             while PostgreSQL is down, and the copy is moved on behind the leader's. Such a copy is good when the
 *             catalog rows that it needs were never without protection: the leader keeps them for this standby (the
 *             catalog_xmin of our member slot there, by hot_standby_feedback), and at a moment when it did so already
 *             the leader's own slot still held every row from the copy's catalog_xmin on. */
#ifndef REGENT_AGENT_PG_SLOTS_H
#define REGENT_AGENT_PG_SLOTS_H

#include <libpq-fe.h>

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "conf/slots.h"

enum { SLOTS_SEEN_MAX = 64, SLOTS_STEPS_MAX = 64, SLOTS_NATIVE_MAJOR = 17 };

struct slot_seen {
    struct slot_def is;
    bool active, temporary;
    bool failover, synced;               /* 17 and later */
    bool lost;                           /* invalidated: good for nothing any more */
    uint64_t restart_lsn, confirmed_lsn; /* 0: none */
    uint32_t catalog_xmin;               /* 0: none */
};

/* One look at one server. */
struct slots_seen {
    struct slot_seen at[SLOTS_SEEN_MAX];
    size_t n;
    bool logical_wal;        /* wal_level */
    uint64_t replay_lsn;     /* in recovery */
    uint64_t oldest_wal_lsn; /* start of the oldest segment in pg_wal; 0: not asked */
};

extern const char slots_query[];       /* any server, by any role */
extern const char slots_local_query[]; /* and this, by a superuser */
enum err slots_seen_parse(const PGresult *slots, const PGresult *more, struct slots_seen *ret)
    MUST_CHECK;
const struct slot_seen *slots_find(const struct slots_seen *s, const char *name);

/* Slots that left the configuration; and, of a standby before 17, the leader's catalog_xmin at a moment when it kept
 * rows for us already: at the second look in a row that showed so, for one look reads slot after slot. */
struct slot_mark {
    char name[64];
    bool kept;
    uint32_t xmin; /* 0: not known yet */
};
struct slots_memory {
    struct slot_def retired[SLOTS_PERMANENT_MAX];
    size_t retired_n;
    uint64_t token; /* the leader that the marks are of */
    struct slot_mark mark[SLOTS_PERMANENT_MAX];
    size_t mark_n;
};
/* What `was` had and `now` has not. */
void slots_retire(struct slots_memory *m, const struct slot_config *was,
                  const struct slot_config *now);

struct slots_facts {
    const struct slot_config *config;
    unsigned major;
    bool primary;
    const struct slots_seen *here;
    const struct slots_seen *leader; /* standby: NULL when it does not answer */
    const char *why_not;             /* then why */
    const char *own_slot;            /* the slot of this member on the leader */
    uint64_t leader_token;
};

struct slot_step {
    enum { SLOT_CREATE, SLOT_ADVANCE, SLOT_DROP } kind;
    struct slot_def slot;
    uint64_t lsn;  /* ADVANCE */
    bool failover; /* CREATE */
};

struct slots_plan {
    struct slot_step step[SLOTS_STEPS_MAX];
    size_t step_n;
    char copy[SLOTS_PERMANENT_MAX][64]; /* names whose state is to be copied */
    size_t copy_n;
    char unsafe[200]; /* member_rec.slots */
};
void slots_judge(const struct slots_facts *f, struct slots_memory *m, struct slots_plan *ret);
/* The statement of a step. */
void slots_step_sql(const struct slot_step *s, struct buf *sql);
/* member_rec.slots: one more of them. What does not fit is left out. */
void slots_say(char *unsafe, size_t size, const char *name, const char *why);

#endif
