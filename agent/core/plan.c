#include "agent/core/plan.h"

#include "base/assert.h"

const char *plan_action_name(enum plan_action a)
{
    static const char *const names[ACTION_COUNT] = {
        [ACTION_NONE] = "none",
        [ACTION_INITDB] = "initdb",
        [ACTION_START_PRIMARY] = "start_primary",
        [ACTION_START_STANDBY] = "start_standby",
        [ACTION_FOLLOW] = "follow",
        [ACTION_SEAL] = "seal",
        [ACTION_PROMOTE] = "promote",
        [ACTION_CHECKPOINT] = "checkpoint",
        [ACTION_STOP_FAST] = "stop_fast",
        [ACTION_STOP_IMMEDIATE] = "stop_immediate",
        [ACTION_KILL] = "kill",
        [ACTION_REWIND] = "rewind",
        [ACTION_CLONE] = "clone",
        [ACTION_SET_SYNC] = "set_sync",
        [ACTION_ENSURE_ROLES] = "ensure_roles",
        [ACTION_RELOAD] = "reload",
        [ACTION_PRE_PROMOTE] = "pre_promote",
    };
    ASSERT(a < ACTION_COUNT && names[a] != NULL);
    return names[a];
}

const char *plan_txn_name(enum plan_txn t)
{
    static const char *const names[TXN_COUNT] = {
        [TXN_NONE] = "none",
        [TXN_BOOTSTRAP_BEGIN] = "bootstrap_begin",
        [TXN_BOOTSTRAP_DONE] = "bootstrap_done",
        [TXN_BOOTSTRAP_ABORT] = "bootstrap_abort",
        [TXN_ACQUIRE] = "acquire",
        [TXN_RELEASE] = "release",
        [TXN_HANDOVER] = "handover",
        [TXN_LEADER_STATE] = "leader_state",
        [TXN_SYNC] = "sync",
        [TXN_SEAL] = "seal",
        [TXN_REQUEST] = "request",
        [TXN_CLEAR_REQUEST] = "clear_request",
        [TXN_CLEAR_FAILOVER] = "clear_failover",
    };
    ASSERT(t < TXN_COUNT && names[t] != NULL);
    return names[t];
}

bool plan_action_destructive(enum plan_action a)
{
    ASSERT(a < ACTION_COUNT);
    /* FOLLOW because it lifts a seal; the hook because it moves what belongs to the primary. */
    return a == ACTION_START_PRIMARY || a == ACTION_FOLLOW || a == ACTION_PROMOTE ||
           a == ACTION_REWIND || a == ACTION_CLONE || a == ACTION_PRE_PROMOTE;
}
