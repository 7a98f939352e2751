/* This node's machine or PostgreSQL is sick (enum sick). That is always said; with on_sick_node: failover a
 * healthy member also takes over. A PostgreSQL that answers hands over like in a switchover (rules_switch.c
 * asks relief_by_switchover); one that does not is killed, and the key given back or left to run out. */
#include "agent/core/rules.h"

#include <stdio.h>

#include "agent/core/candidate.h"
#include "base/assert.h"
#include "base/mutant.h"

const char *sick_name(enum sick s)
{
    static const char *const names[] = {
        [SICK_NOT] = "",      [SICK_ARCHIVE] = "archive", [SICK_FULL] = "full",
        [SICK_HUNG] = "hung", [SICK_STUCK] = "stuck",
    };
    ASSERT(s < ARRAY_LEN(names));
    return names[s];
}

bool member_sick(const struct view *v, const struct member_rec *m)
{
    return v->config.sick_failover && m->sick[0] != '\0';
}

bool sick_leaves_sync(const struct view *v)
{
    return v->config.sick_failover && v->pg.sick >= SICK_HUNG && v->pg.failing_ms != 0 &&
           v->now_ms >= v->pg.failing_ms + v->config.ttl_ms;
}

/* A healthy member that could take over now, and lose no more than is permitted. */
static const struct member_rec *successor(const struct view *v)
{
    const struct member_rec *first = other_eligible(v);
    if (first == NULL || view_record_mode(v) != SYNC_OFF)
        return first;
    for (size_t i = 0; i < v->members_n; i++) {
        const struct member_rec *m = &v->members[i];
        if (strcmp(m->name, v->self) != 0 && member_follows(m) && !m->nofailover &&
            !member_sick(v, m) && m->lsn + v->config.maximum_lag_on_failover >= v->pg.lsn)
            return m;
    }
    return NULL;
}

/* The bound on flapping: a leader that relieved a sick one stays at least so long. */
static uint64_t held_until_ms(const struct view *v)
{
    return v->leader.relieves[0] != '\0' && !MUTANT(relieve_at_once)
               ? v->leader_ms + v->config.sick_interval_ms
               : 0;
}

/* What passes within a TTL is no reason; a PostgreSQL that is down already waits for nothing. */
static uint64_t patient_until_ms(const struct view *v)
{
    if (v->pg.proc != PG_PROC_RUNNING || is_state(v->leader.state, "stopping"))
        return 0;
    return v->pg.failing_ms != 0 ? v->pg.failing_ms + v->config.ttl_ms : UINT64_MAX;
}

bool relief_due(const struct view *v)
{
    return v->config.sick_failover && v->pg.sick != SICK_NOT && !v->config.pause &&
           !view_disarmed(v) && view_is_leader(v) && v->leader.timeline != 0 &&
           v->now_ms >= held_until_ms(v) && v->now_ms >= patient_until_ms(v) &&
           successor(v) != NULL;
}

bool relief_by_switchover(const struct view *v)
{
    struct plan unused = {.wake_ms = UINT64_MAX};
    bool passes;
    return v->pg.sick < SICK_HUNG && relief_due(v) &&
           candidate_switchover(v, "", &unused, &passes) != NULL;
}

bool relief_withholds(const struct view *v)
{
    bool unknown = v->pg.proc == PG_PROC_STOPPED && v->pg.data == PG_DATA_UNKNOWN;
    return (v->pg.proc == PG_PROC_DYING || unknown) && relief_due(v);
}

/* Nothing can be asked of it: the shortest way. What is acknowledged is where the rules of an election
 * look for it. */
bool rule_sick_kill(const struct view *v, struct plan *p)
{
    bool runs = v->pg.proc != PG_PROC_STOPPED && v->pg.proc != PG_PROC_DYING;
    if (!runs || v->pg.sick < SICK_HUNG || !view_writable(v) || !relief_due(v))
        return false;
    p->action = ACTION_KILL;
    p->token = v->leader.token;
    p->relief = true;
    return plan_say(p, "%s: killed, so that %s can take over", v->pg.sick_why,
                    successor(v)->name);
}

/* Down, and not to be started here again. A clean one is handed over (rule_switch_handover), unless nobody
 * has its last record. */
bool rule_sick_release(const struct view *v, struct plan *p)
{
    if (v->pg.proc != PG_PROC_STOPPED || !relief_due(v))
        return false;
    (void)plan_say(p, "%s, and PostgreSQL is down: %s can take over", v->pg.sick_why,
                   successor(v)->name);
    p->relief = true;
    return plan_release(v, p);
}

/* What is done about it, and what it waits for. */
static void say_sick(const struct view *v, struct plan *p, const char *as)
{
    uint64_t held_ms = held_until_ms(v);
    const char *then = "; on_sick_node: report";
    if (view_is_leader(v) && v->config.sick_failover) {
        then = successor(v) == NULL    ? "; no healthy member can take over"
               : v->now_ms < held_ms   ? "; the last hand-over for such a reason was lately"
               : v->pg.failing_ms == 0 ? "; it has passed"
               : relief_due(v)         ? "; nobody streams well enough to take over"
                                       : "; if it lasts, another takes over";
        uint64_t due_ms = MAX(held_ms, patient_until_ms(v));
        if (due_ms > v->now_ms)
            p->wake_ms = MIN(p->wake_ms, due_ms);
    } else if (v->config.sick_failover) {
        then = "; not chosen before others";
    }
    (void)plan_say(p, "%s, sick: %s%s", as, v->pg.sick_why, then);
}

bool rule_sick_leader(const struct view *v, struct plan *p)
{
    if (!view_is_leader(v) || v->pg.sick == SICK_NOT || v->pg.proc != PG_PROC_RUNNING ||
        v->pg.in_recovery)
        return false;
    say_sick(v, p, "leader");
    return true;
}

bool rule_sick_standby(const struct view *v, struct plan *p)
{
    if (!v->has_leader || v->pg.sick == SICK_NOT || v->pg.proc != PG_PROC_RUNNING)
        return false;
    char as[80];
    (void)snprintf(as, sizeof as, "following %s", v->leader.name);
    say_sick(v, p, as);
    return true;
}
