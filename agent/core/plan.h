/* What a node does next: at most one DCS transaction, one PostgreSQL action, and when to look again. */
#ifndef REGENT_AGENT_CORE_PLAN_H
#define REGENT_AGENT_CORE_PLAN_H

#include "agent/core/view.h"

/* PostgreSQL actions. The executor runs one at a time and reports through view.busy and view.pg. Those
 * marked (!) are destructive: the executor makes a linearizable read first and drops the action when
 * the leader token differs from plan.token (or the leader key appeared / went). */
enum plan_action {
    ACTION_NONE,
    /* empty directory, or data that is to be adopted -> new cluster, incarnation written */
    ACTION_INITDB,
    ACTION_START_PRIMARY, /* (!) start without standby.signal; fence must be armed */
    ACTION_START_STANDBY, /* following plan.target ("" = nobody, sealed or lonely, read-only) */
    /* running: point primary_conninfo at plan.target and reload; lifts a seal (!) when the
     * leader's token is newer than it */
    ACTION_FOLLOW,
    /* DESIGN.md §4: cut off from the old primary, durable, for plan.token */
    ACTION_SEAL,
    ACTION_PROMOTE, /* (!) */
    ACTION_CHECKPOINT,
    ACTION_STOP_FAST, /* with a time limit, then immediate */
    ACTION_STOP_IMMEDIATE,
    ACTION_KILL, /* by the fence, at once, every process */
    ACTION_REWIND, /* (!) stopped: pg_rewind to plan.target, new incarnation; waits until the source's
                             control file shows plan.timeline, for pg_rewind believes it */
    /* (!) stopped: old data moved aside, pg_basebackup from plan.target, new incarnation */
    ACTION_CLONE,
    /* ALTER SYSTEM-free: write synchronous_standby_names = plan.set, reload, begin to confirm
     * it */
    ACTION_SET_SYNC,
    ACTION_ENSURE_ROLES, /* primary: replication and rewind roles */
    ACTION_RELOAD,       /* write the configuration, tell PostgreSQL to read it */
    /* (!) the administrator's command that may refuse the promotion with plan.token */
    ACTION_PRE_PROMOTE,
    ACTION_COUNT
};

/* DCS transactions. The executor builds each from the plan and adds the comparisons named. */
enum plan_txn {
    TXN_NONE,
    TXN_BOOTSTRAP_BEGIN, /* initialize absent -> initialize{name} on our lease */
    /* initialize is ours -> initialize{system_id} for good, leader, sync, history, config */
    TXN_BOOTSTRAP_DONE,
    TXN_BOOTSTRAP_ABORT,
    /* leader absent, sync unchanged, seals counted unchanged -> leader{token = sync.token+1},
     * sync = plan.sync */
    TXN_ACQUIRE,
    /* leader is ours (token) -> leader deleted; plan.sync restored when plan.restore_sync */
    TXN_RELEASE,
    /* leader is ours -> leader{plan.target, token+1} on its lease, sync = plan.sync, failover
     * request cleared */
    TXN_HANDOVER,
    /* leader is ours -> leader with plan.leader (state, timeline) ; after promotion also the
     * history entry plan.history; plan.sync when plan.has_sync */
    TXN_LEADER_STATE,
    TXN_SYNC,           /* leader is ours, sync unchanged -> sync = plan.sync */
    TXN_SEAL,           /* leader absent, sync.token = plan.token -> seal/<self> = plan.seal */
    TXN_REQUEST,        /* request/<self> unchanged -> plan.request */
    TXN_CLEAR_REQUEST,  /* request/<self> unchanged -> deleted, plan.reason to result/<self> */
    TXN_CLEAR_FAILOVER, /* failover unchanged -> deleted, plan.reason to status */
    TXN_COUNT
};

/* A plan with both a transaction and an action: the action does not depend on the outcome. */
struct plan {
    const char *rule; /* name of the rule; static */
    char reason[300]; /* in words, for people */
    enum plan_action action;
    enum plan_txn txn;
    bool arm;    /* the fence must hold our deadline now; false: it may be disarmed once
                           PostgreSQL is stopped or a standby. A new lease is a new arming: what was
                           ordered under the old one must never live on its deadline */
    bool cancel; /* give up the action under way (postgres_cancel) */
    bool relief; /* done because this node is sick */
    /* The lease is not renewed: what is left of a sick PostgreSQL cannot be ended, so that the key cannot
     * be given back. It runs out instead. */
    bool withhold;
    uint64_t limit_ms; /* STOP_FAST: time for it, then immediate; 0: the executor's */
    uint64_t timeline; /* FOLLOW, REWIND, CLONE, START_STANDBY: the leader's */
    /* to be noted durably before the action: view_pg.lineage; "" = leave it */
    char lineage[160];
    /* member (or REMOTE_SITE) to follow, clone from, rewind to; member to hand over to */
    char target[64];
    uint64_t token; /* leader token (or loss's token) the plan was made for */
    struct sync_rec sync;
    struct seal_rec seal;
    /* LEADER_STATE, HANDOVER: as it will be. STOP_FAST: incarnation of the standby that must get the last
     * record; who else does not take it is waited for a moment only. "": everybody, until limit_ms */
    struct leader_rec leader;
    struct history_entry history;
    struct request_rec request; /* TXN_REQUEST */
    bool request_ok;            /* TXN_CLEAR_REQUEST */
    bool has_sync;              /* LEADER_STATE: `sync` is written with it */
    bool has_history;
    /* CLONE: by the operator's policy the old data is deleted, not moved aside */
    bool remove_old;
    bool first; /* ENSURE_ROLES: of a new cluster that nobody has been shown yet */
    /* SET_SYNC; PROMOTE, START_PRIMARY: what must be set before the first write */
    struct sync_set set;
    /* TXN_ACQUIRE: seals counted: index into view.seals */
    size_t counted[VIEW_MEMBERS];
    size_t counted_n;
    bool forced; /* TXN_ACQUIRE: by an operator's order, which it compares and ends */
    bool restore_sync;
    /* look again at this time at the latest; UINT64_MAX: only on an event */
    uint64_t wake_ms;
};

const char *plan_action_name(enum plan_action a);
const char *plan_txn_name(enum plan_txn t);
bool plan_action_destructive(enum plan_action a);

/* The whole HA policy. First matching rule wins; always fills rule and reason. */
void decide(const struct view *v, struct plan *ret_plan);

/* Safety invariants of DESIGN.md as a predicate on any (view, plan), independent of the rules. ERR_OK, or
 * ERR_INTERNAL with the invariant broken in words. Runs in production before every plan (a plan that
 * breaks one is not executed), in unit, exhaustive and simulation tests. */
enum err plan_check(const struct view *v, const struct plan *p, struct errmsg *e) MUST_CHECK;

#endif
