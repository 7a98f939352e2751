/* The HA policy: facts were gathered in the view, the first rule that applies decides, others execute.
 * docs/ha-protocol.md tells the rules in words. */
#include "agent/core/rules.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/assert.h"

struct rule {
    const char *name;
    rule_fn *fn;
};

static const struct rule rules[] = {
    /* Safety first: none of these waits for anything. */
    {"tilt", rule_tilt},
    {"data_unknown", rule_data_unknown},
    {"foreign_leader", rule_foreign_leader},
    {"writable_without_lease", rule_writable_without_lease},
    {"deadline_passed", rule_deadline_passed},
    {"processes_left", rule_processes_left},
    /* What has to end, or to become known, first. */
    {"restarting", rule_restarting},
    {"stop_anyway", rule_stop_anyway},
    {"dcs_not_ready", rule_dcs_not_ready},
    {"sick_kill", rule_sick_kill},
    {"leader_start_late", rule_leader_start_late},
    {"txn", rule_txn},
    {"request_cancel", rule_request_cancel},
    {"busy", rule_busy},
    {"other_system", rule_other_system},
    {"bootstrap", rule_bootstrap},
    {"no_record", rule_no_record},
    /* The leader key is ours. */
    {"site_renewed", rule_site_renewed},
    {"leader_without_data", rule_leader_without_data},
    {"record_disagrees", rule_record_disagrees},
    {"resume_arm", rule_resume_arm},
    /* What a person asked of this node. */
    {"request_begin", rule_request_begin},
    {"request_stop", rule_request_stop},
    {"request_clone", rule_request_clone},
    {"request_end", rule_request_end},
    {"request_hold", rule_request_hold},
    {"switch_handover", rule_switch_handover},
    {"sick_release", rule_sick_release},
    {"site_hand_over", rule_site_hand_over},
    {"leave", rule_leave},
    {"pause_release", rule_pause_release},
    {"site_promote", rule_site_promote},
    {"site_release", rule_site_release},
    {"promotion_refused", rule_promotion_refused},
    {"leader_crashed", rule_leader_crashed},
    {"site_replace", rule_site_replace},
    {"site_start", rule_site_start},
    {"site_demote", rule_site_demote},
    {"site_follow", rule_site_follow},
    {"site_publish", rule_site_publish},
    {"site_sync", rule_site_sync},
    {"site_leader", rule_site_leader},
    {"leader_start", rule_leader_start},
    {"leader_promote", rule_leader_promote},
    {"leader_publish", rule_leader_publish},
    {"pause_disarm", rule_pause_disarm},
    {"leader_roles", rule_leader_roles},
    {"switch_checkpoint", rule_switch_checkpoint},
    {"switch_stop", rule_switch_stop},
    {"leader_sync", rule_leader_sync},
    {"leader_checkpoint", rule_leader_checkpoint},
    {"sick_leader", rule_sick_leader},
    {"leader", rule_leader},
    {"disarmed_key", rule_disarmed_key},
    {"leave_standby", rule_leave_standby},
    {"pause", rule_pause},
    /* The leader key is somebody else's. */
    {"own_old_key", rule_own_old_key},
    {"leader_not_running", rule_leader_not_running},
    {"clone", rule_clone},
    {"follower_starting", rule_follower_starting},
    {"stopped_follower", rule_stopped_follower},
    {"follower_diverged", rule_follower_diverged},
    {"follower_blocked", rule_follower_blocked},
    {"follower_slots", rule_follower_slots},
    {"follow", rule_follow},
    {"sick_standby", rule_sick_standby},
    {"following", rule_following},
    /* There is no leader. */
    {"disarmed_holder", rule_disarmed_holder},
    {"record_leader", rule_record_leader},
    {"nothing_to_stand_with", rule_nothing_to_stand_with},
    {"start_lonely", rule_start_lonely},
    {"seal", rule_seal},
    {"publish_seal", rule_publish_seal},
    {"forced_failover", rule_forced_failover},
    {"election", rule_election},
};

bool plan_say(struct plan *p, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(p->reason, sizeof p->reason, fmt, ap);
    va_end(ap);
    return true;
}

bool plan_wait(struct plan *p, uint64_t at_ms)
{
    ASSERT(p->action == ACTION_NONE && p->txn == TXN_NONE);
    p->wake_ms = MIN(p->wake_ms, at_ms);
    return true;
}

/* Stopping what must not run is never put off. */
static bool may_back_off(enum plan_action a)
{
    return a != ACTION_NONE && a != ACTION_KILL && a != ACTION_STOP_IMMEDIATE;
}

uint64_t back_off_ms(uint64_t failures)
{
    return MIN(100ULL << MIN(failures, 7), 10000ULL);
}

/* An action that failed is tried again, later each time. What else the plan wants goes on. */
static void back_off(const struct view *v, struct plan *p)
{
    if (!v->busy.failed || v->busy.failed_action != (uint64_t)p->action ||
        !may_back_off(p->action))
        return;
    uint64_t again_ms = v->busy.failed_ms + back_off_ms(v->busy.failures);
    if (v->now_ms >= again_ms)
        return;
    char wanted[sizeof p->reason];
    (void)memcpy(wanted, p->reason, sizeof wanted);
    (void)plan_say(p, "%s failed %llu time(s) (%s), again in %llu ms; wanted because: %s",
                   plan_action_name(p->action), (unsigned long long)v->busy.failures,
                   v->busy.error, (unsigned long long)(again_ms - v->now_ms), wanted);
    p->action = ACTION_NONE;
    p->remove_old = false;
    p->wake_ms = MIN(p->wake_ms, again_ms);
}

/* The fence holds a deadline wherever PostgreSQL may take writes now or after the next step. */
static bool wants_arming(const struct view *v)
{
    if (v->config.pause && view_disarmed(v) && v->pg.proc == PG_PROC_RUNNING &&
        !v->pg.in_recovery)
        /* While it is not known what the record says next, the fence stays as it is. */
        return v->armed && !(v->dcs_ready && !v->txn_pending && !v->txn_unknown);
    bool bootstrapping =
        v->has_initialize && v->initialize_leased && strcmp(v->initialize.name, v->self) == 0;
    /* A standby leader takes no writes: nothing has to end at its deadline. */
    bool follows = (v->config.standby_cluster || v->leader.standby) && !v->sync.disarmed;
    return bootstrapping || (view_leader_named(v) && !follows) || view_writable(v);
}

void decide(const struct view *v, struct plan *ret_plan)
{
    struct plan *p = ret_plan;
    (void)memset(p, 0, sizeof *p);
    p->wake_ms = UINT64_MAX;
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
        if (!rules[i].fn(v, p))
            continue;
        p->rule = rules[i].name;
        break;
    }
    ASSERT(p->rule != NULL); /* the last rule of each part applies always */
    ASSERT(p->reason[0] != '\0');
    p->arm = wants_arming(v);
    p->withhold = relief_withholds(v);
    back_off(v, p);
    /* A writable PostgreSQL is looked at again when its time is over, whatever was decided. */
    if (view_writable(v) && v->deadline_ms > v->now_ms)
        p->wake_ms = MIN(p->wake_ms, v->deadline_ms);
}
