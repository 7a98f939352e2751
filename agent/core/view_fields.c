#include "agent/core/view_fields.h"

#include "agent/core/plan.h"

#define F_U64(f) {.name = #f, .type = V_U64, .offset = offsetof(self_t, f)},
#define F_I64(f) {.name = #f, .type = V_I64, .offset = offsetof(self_t, f)},
#define F_BOOL(f) {.name = #f, .type = V_BOOL, .offset = offsetof(self_t, f)},
#define F_TEXT(f)                   \
    {.name = #f,                    \
     .type = V_TEXT,                \
     .offset = offsetof(self_t, f), \
     .size = sizeof(((self_t *)0)->f)},
#define F_ENUM(f, texts)               \
    {.name = #f,                       \
     .type = V_ENUM,                   \
     .offset = offsetof(self_t, f),    \
     .size = sizeof(((self_t *)0)->f), \
     .names = (texts)},
#define F_NAMES(f)                       \
    {.name = #f,                         \
     .type = V_NAMES,                    \
     .offset = offsetof(self_t, f),      \
     .max = ARRAY_LEN(((self_t *)0)->f), \
     .count_offset = offsetof(self_t, f##_n)},
#define F_U64S(f)                   \
    {.name = #f,                    \
     .type = V_U64S,                \
     .offset = offsetof(self_t, f), \
     .max = ARRAY_LEN(((self_t *)0)->f)},
#define F_SUB(f, m) \
    {.name = #f, .type = V_SUB, .offset = offsetof(self_t, f), .sub = fields_##m},
#define F_LIST(f, m, by_name)                 \
    {.name = #f,                              \
     .type = V_LIST,                          \
     .offset = offsetof(self_t, f),           \
     .size = sizeof(((self_t *)0)->f[0]),     \
     .max = ARRAY_LEN(((self_t *)0)->f),      \
     .count_offset = offsetof(self_t, f##_n), \
     .sub = fields_##m,                       \
     .keyed = (by_name)},
#define F_BEGIN(m)                                      \
    UNUSED static const struct vfield *fields_##m(void) \
    {                                                   \
        typedef struct m self_t;                        \
        static const struct vfield table[] = {
#define F_END         \
    {                 \
        .type = V_END \
    }                 \
    }                 \
    ;                 \
    return table;     \
    }

/* The records, from their own description. */
#define MSG(m) F_BEGIN(m)
#define END(m) F_END
#define U64(f) F_U64(f)
#define I64(f) F_I64(f)
#define BOOL(f) F_BOOL(f)
#define TEXT(f, n) F_TEXT(f)
#define NAMES(f, n) F_NAMES(f)
#define BYTES(f)
#define RAW(f)
#define SUB(f, m)
#define LIST(f, m, n)
#define MANY(f, m)
/* history_rec and journal_rec leave self_t without a use; they are no part of a view. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-local-typedefs"
#include "proto/records.def"
#pragma GCC diagnostic pop

static const char *const mode_names[] = {"off", "on", "quorum", NULL};
static const char *const crash_names[] = {"auto", "restart", "failover", NULL};
static const char *const sick_names[] = {"no", "archive", "full", "hung", "stuck", NULL};
static const char *const data_names[] = {"unknown", "empty", "ours", "broken", NULL};
static const char *const proc_names[] = {"stopped",  "starting", "running",
                                         "stopping", "dying",    NULL};
static const char *const action_names[] = {
    "none",    "initdb",     "start_primary", "start_standby",  "follow",      "seal",
    "promote", "checkpoint", "stop_fast",     "stop_immediate", "kill",        "rewind",
    "clone",   "set_sync",   "ensure_roles",  "reload",         "pre_promote", NULL};
_Static_assert(ARRAY_LEN(action_names) == ACTION_COUNT + 1, "one name per action");

/* clang-format off */
F_BEGIN(view_config)
    F_U64(ttl_ms) F_ENUM(sync_mode, mode_names) F_BOOL(sync_strict) F_U64(sync_node_count)
    F_U64(maximum_lag_on_syncnode) F_BOOL(check_timeline)
    F_U64(maximum_lag_on_failover) F_U64(primary_start_timeout_ms) F_U64(retry_interval_ms)
    F_ENUM(on_primary_crash, crash_names) F_BOOL(sick_failover) F_U64(sick_interval_ms) F_BOOL(pause) F_BOOL(use_pg_rewind)
    F_BOOL(remove_on_rewind_failure) F_BOOL(remove_on_diverged) F_BOOL(standby_cluster)
F_END

F_BEGIN(sync_set)
    F_U64(k) F_NAMES(s)
F_END

F_BEGIN(view_walsender)
    F_TEXT(incarnation) F_TEXT(name) F_BOOL(streaming) F_U64(flush_lsn)
F_END

F_BEGIN(view_pg)
    F_ENUM(data, data_names) F_ENUM(proc, proc_names) F_U64(system_id) F_TEXT(incarnation)
    F_BOOL(foreign) F_BOOL(standby_signal) F_BOOL(in_recovery) F_BOOL(accepts) F_BOOL(crashed) F_BOOL(clean)
    F_U64(timeline) F_U64(lsn) F_U64(replay_lsn) F_U64(shutdown_lsn) F_U64(recovery_ms)
    F_TEXT(upstream) F_BOOL(walreceiver) F_BOOL(streaming) F_BOOL(stuck) F_BOOL(rewind_failed)
    F_TEXT(kept) F_U64(copied) F_U64(copied_bytes)
    F_U64(starting_ms)
    F_TEXT(lineage) F_U64(follow_token)
    F_U64(sealed_token) F_U64(sealed_lsn) F_U64(sealed_timeline)
    F_BOOL(replay_blocked) F_BOOL(timeline_unsure) F_BOOL(slots_wait) F_TEXT(slots) F_BOOL(pending_restart)
    F_TEXT(pending_reason) F_TEXT(limits) F_BOOL(roles_ready) F_BOOL(checkpointed) F_U64(start_us) F_U64(parent)
    F_U64(switch_lsn)
    F_SUB(set, sync_set) F_BOOL(set_known) F_BOOL(set_confirmed) F_LIST(old, sync_set, false)
    F_LIST(senders, view_walsender, false) F_ENUM(sick, sick_names) F_U64(failing_ms)
    F_TEXT(sick_why) F_TEXT(trouble)
F_END

F_BEGIN(view_busy)
    F_ENUM(action, action_names) F_U64(since_ms) F_TEXT(target) F_BOOL(failed) F_U64(failures)
    F_ENUM(failed_action, action_names) F_U64(failed_ms) F_TEXT(error)
    F_ENUM(done_action, action_names) F_U64(done_ms)
F_END

F_BEGIN(view)
    F_U64(now_ms) F_TEXT(self) F_BOOL(dcs_ready) F_U64(dcs_lost_ms) F_BOOL(dcs_gone) F_TEXT(unreadable) F_U64(revision) F_U64(lost_ms)
    F_BOOL(txn_pending) F_BOOL(txn_unknown) F_SUB(config, view_config)
    F_BOOL(has_initialize) F_SUB(initialize, initialize_rec) F_BOOL(initialize_leased)
    F_BOOL(has_leader) F_SUB(leader, leader_rec) F_U64(leader_lease) F_U64(leader_ms)
    F_TEXT(sick_leader) F_U64(leader_lsn)
    F_BOOL(has_sync) F_SUB(sync, sync_rec) F_U64(sync_mod_revision)
    F_LIST(members, member_rec, true)
    F_LIST(seals, seal_rec, true) F_U64S(seal_mod_revisions)
    F_BOOL(has_failover) F_SUB(failover, failover_rec) F_U64(failover_mod_revision) F_BOOL(failover_late)
    F_U64(failover_ms)
    F_BOOL(has_request) F_BOOL(request_late) F_SUB(request, request_rec) F_U64(request_ms)
    F_LIST(history, history_entry, false)
    F_BOOL(has_sync_before) F_SUB(sync_before, sync_rec)
    F_U64(lease) F_U64(deadline_ms) F_BOOL(armed) F_BOOL(tilt) F_BOOL(nofailover) F_BOOL(nosync) F_BOOL(nostream) F_TEXT(replicatefrom)
    F_BOOL(stopping) F_BOOL(restarting) F_BOOL(can_bootstrap)
    F_BOOL(adopt) F_BOOL(pre_promote) F_U64(permitted_token) F_U64(refused_token)
    F_SUB(pg, view_pg) F_SUB(busy, view_busy)
F_END
    /* clang-format on */

    const struct vfield *view_fields(void)
{
    return fields_view();
}
