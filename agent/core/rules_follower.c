/* The leader key is somebody else's: become and stay its standby. */
#include "agent/core/rules.h"

#include "agent/core/candidate.h"
#include "base/assert.h"
#include "base/mutant.h"

bool plan_follow(const struct view *v, struct plan *p, enum plan_action a)
{
    struct lineage recorded;
    p->action = a;
    p->token = v->leader.token;
    p->timeline = v->leader.timeline;
    (void)memcpy(p->target, v->leader.name, sizeof p->target);
    lineage_recorded(v, v->leader.timeline, &recorded);
    lineage_print(&recorded, p->lineage, sizeof p->lineage);
    return true;
}

bool streams_from_leader(const struct view *v, const struct member_rec *m)
{
    for (size_t i = 0; m != NULL && i < VIEW_MEMBERS; i++) {
        if (!is_state(m->state, "streaming") || m->timeline != v->leader.timeline ||
            strcmp(m->name, v->self) == 0)
            return false;
        if (strcmp(m->upstream, v->leader.name) == 0)
            return true;
        m = view_member(v, m->upstream);
    }
    return false;
}

/* Tags that go round would have each of them wait for the other. */
static bool tags_go_round(const struct view *v)
{
    const struct member_rec *m = view_member(v, v->replicatefrom);
    for (size_t i = 0; m != NULL && i < VIEW_MEMBERS; i++) {
        if (strcmp(m->replicatefrom, v->self) == 0)
            return true;
        m = view_member(v, m->replicatefrom);
    }
    return m != NULL;
}

const char *follow_target(const struct view *v)
{
    const struct member_rec *m = view_member(v, v->replicatefrom);
    return streams_from_leader(v, m) && !tags_go_round(v) ? m->name : v->leader.name;
}

/* A key of our own from before a restart, on a lease that is no longer ours. */
bool rule_own_old_key(const struct view *v, struct plan *p)
{
    if (!v->has_leader || strcmp(v->leader.name, v->self) != 0)
        return false;
    (void)plan_say(
        p, "the leader key is of an earlier life of this node: waiting for its lease to end");
    return plan_wait(p, UINT64_MAX);
}

/* Acquired and not yet promoted, or stopping for a switchover: everybody stays as they are. */
bool rule_leader_not_running(const struct view *v, struct plan *p)
{
    if (!v->has_leader || (is_state(v->leader.state, "running") && v->leader.timeline != 0))
        return false;
    (void)plan_say(p, "waiting for %s (%s) to be writable", v->leader.name, v->leader.state);
    return plan_wait(p, UINT64_MAX);
}

/* What destroys data that the record counts on waits until the leader has taken it out. */
static bool leave_v_first(const struct view *v, struct plan *p)
{
    if ((!view_in_v(v, v->pg.incarnation) && !view_is_record_leader(v)) ||
        MUTANT(replace_counted_data))
        return false;
    (void)plan_say(p, "waiting for %s to take this data out of the sync record",
                   v->leader.name);
    return plan_wait(p, UINT64_MAX);
}

/* It streams from the leader, on its timeline: what it has is a beginning of what the leader has. */
bool clone_source(const struct view *v, const struct member_rec *m)
{
    return m->clonefrom && m->incarnation[0] != '\0' && strcmp(m->name, v->self) != 0 &&
           is_state(m->state, "streaming") && strcmp(m->upstream, v->leader.name) == 0 &&
           m->timeline == v->leader.timeline;
}

/* From a standby that is meant for it, unless that has just failed; else from the leader. */
bool plan_clone(const struct view *v, struct plan *p)
{
    bool from_leader = v->has_request && v->request.from_leader;
    bool failed = v->busy.failed && v->busy.failed_action == ACTION_CLONE;
    (void)plan_follow(v, p, ACTION_CLONE);
    for (size_t i = 0; i < v->members_n && !failed && !from_leader; i++)
        if (clone_source(v, &v->members[i])) {
            (void)memcpy(p->target, v->members[i].name, sizeof p->target);
            break;
        }
    return true;
}

/* The data that was there when a person asked for another; not what has taken its place. */
bool is_ordered_away(const struct view *v)
{
    return v->has_request && is_state(v->request.kind, "reinitialize") &&
           is_state(v->request.state, "under way") && v->request.remove_data &&
           (v->pg.data == PG_DATA_BROKEN ||
            is_state(v->pg.incarnation, v->request.incarnation));
}

bool is_given_up(const struct view *v)
{
    return v->pg.rewind_failed ? v->config.remove_on_rewind_failure
                               : v->config.remove_on_diverged;
}

bool rule_clone(const struct view *v, struct plan *p)
{
    if (!v->has_leader || (v->pg.data != PG_DATA_EMPTY && v->pg.data != PG_DATA_BROKEN))
        return false;
    if (v->pg.proc != PG_PROC_STOPPED) {
        p->action = ACTION_STOP_IMMEDIATE;
        return plan_say(p, "PostgreSQL runs without its data (%s)", v->pg.trouble);
    }
    if (leave_v_first(v, p))
        return true;
    (void)plan_clone(v, p);
    /* What a rewind has left half done; of other broken data nothing is known. */
    bool given_up = v->pg.rewind_failed && is_given_up(v);
    p->remove_old = v->pg.data == PG_DATA_BROKEN && (given_up || is_ordered_away(v));
    return plan_say(p, "%s: cloning from %s",
                    v->pg.data == PG_DATA_EMPTY ? "the data directory is empty" : v->pg.trouble,
                    p->target);
}

/* A seal is lifted only for a leader newer than the loss it was made for. */
bool sealed_too_new(const struct view *v, struct plan *p)
{
    if (v->pg.sealed_token < v->leader.token || MUTANT(lift_newer_seal))
        return false;
    (void)plan_say(p, "sealed for token %llu, which is not older than the leader's: left alone",
                   (unsigned long long)v->pg.sealed_token);
    return plan_wait(p, UINT64_MAX);
}

/* What rule_busy has given up, or what an earlier daemon of this node started: not known towards whom. */
bool rule_follower_starting(const struct view *v, struct plan *p)
{
    if (!v->has_leader || v->pg.proc != PG_PROC_STARTING || !v->pg.standby_signal ||
        strcmp(v->pg.upstream, v->leader.name) == 0 || MUTANT(wait_for_an_old_leader))
        return false;
    uint64_t late_ms = v->pg.starting_ms + v->config.ttl_ms;
    if (v->now_ms < late_ms) {
        (void)plan_say(p, "waiting for PostgreSQL to become consistent");
        return plan_wait(p, late_ms);
    }
    p->action = ACTION_STOP_IMMEDIATE;
    return plan_say(p, "started towards %s and not consistent yet, while %s leads: stopping it",
                    v->pg.upstream[0] != '\0' ? v->pg.upstream : "nobody known",
                    v->leader.name);
}

bool rule_stopped_follower(const struct view *v, struct plan *p)
{
    if (!v->has_leader || v->pg.proc != PG_PROC_STOPPED)
        return false;
    enum candidate_follow how = candidate_follow(v);
    if (how == FOLLOW_AS_IS) {
        if (sealed_too_new(v, p))
            return true;
        (void)plan_say(p, "starting as a standby of %s%s%s", v->leader.name,
                       v->pg.kept[0] != '\0' ? "; " : "", v->pg.kept);
        return plan_follow(v, p, ACTION_START_STANDBY);
    }
    if (leave_v_first(v, p))
        return true;
    if (how == FOLLOW_REWIND) {
        (void)plan_say(p, "timeline %llu went its own way: rewinding to %s",
                       (unsigned long long)v->pg.timeline, v->leader.name);
        return plan_follow(v, p, ACTION_REWIND);
    }
    (void)plan_clone(v, p);
    p->remove_old = is_given_up(v);
    return plan_say(p, "this data cannot follow %s%s: %s", v->leader.name,
                    v->pg.rewind_failed ? " and the rewind failed" : "",
                    p->remove_old ? "deleting it, as configured, and cloning" : "cloning");
}

bool rule_follower_diverged(const struct view *v, struct plan *p)
{
    if (!v->has_leader || v->pg.proc != PG_PROC_RUNNING || !v->pg.in_recovery)
        return false;
    bool sure = v->pg.stuck || !v->pg.timeline_unsure;
    if (!sure || candidate_follow(v) == FOLLOW_AS_IS)
        return false;
    p->action = ACTION_STOP_FAST;
    p->limit_ms = v->config.ttl_ms;
    return plan_say(p, "this standby cannot follow %s as it is: stopping it first",
                    v->leader.name);
}

/* The primary was given more of what a standby must have as much of: replay stands still, and with it what
 * a failover could use, until PostgreSQL is started with more. */
bool rule_follower_blocked(const struct view *v, struct plan *p)
{
    if (!v->has_leader || v->pg.proc != PG_PROC_RUNNING || !v->pg.in_recovery ||
        !v->pg.replay_blocked)
        return false;
    p->action = ACTION_STOP_FAST;
    p->limit_ms = v->config.ttl_ms;
    return plan_say(p, "replay waits for settings as high as those of %s: restarting",
                    v->leader.name);
}

/* Copies of the leader's logical slots can be laid down only while PostgreSQL is stopped. One standby after the other,
 * and only while every one streams: a commit that waits for this one then waits for another. */
bool rule_follower_slots(const struct view *v, struct plan *p)
{
    const struct member_rec *self = view_member(v, v->self);
    if (!v->has_leader || v->pg.proc != PG_PROC_RUNNING || !v->pg.in_recovery ||
        !v->pg.slots_wait || !v->pg.streaming || self == NULL || !self->slots_wait)
        return false;
    for (size_t i = 0; i < v->members_n; i++) {
        const struct member_rec *m = &v->members[i];
        bool other = strcmp(m->name, v->leader.name) != 0 && strcmp(m->name, v->self) != 0;
        bool first = m->slots_wait && strcmp(m->name, v->self) < 0;
        if (other && (first || !is_state(m->state, "streaming")))
            return false;
    }
    p->action = ACTION_STOP_FAST;
    p->limit_ms = v->config.ttl_ms;
    return plan_say(p, "logical slots of %s are to be copied: restarting", v->leader.name);
}

bool follow_due(const struct view *v)
{
    const struct view_pg *pg = &v->pg;
    if (!v->has_leader || pg->proc != PG_PROC_RUNNING || !pg->in_recovery)
        return false;
    bool elsewhere = strcmp(pg->upstream, follow_target(v)) != 0;
    bool older = pg->follow_token != 0 && pg->follow_token != v->leader.token;
    return elsewhere || older || pg->sealed_token != 0;
}

bool rule_follow(const struct view *v, struct plan *p)
{
    if (!follow_due(v))
        return false;
    if (sealed_too_new(v, p))
        return true;
    const char *target = follow_target(v);
    bool direct = strcmp(target, v->leader.name) == 0;
    (void)plan_say(p, "%s leads with token %llu: following%s%s", v->leader.name,
                   (unsigned long long)v->leader.token, direct ? "" : " by way of ",
                   direct ? "" : target);
    (void)plan_follow(v, p, ACTION_FOLLOW);
    (void)memcpy(p->target, target, sizeof p->target);
    return true;
}

bool rule_following(const struct view *v, struct plan *p)
{
    if (!v->has_leader)
        return false;
    if (v->pg.proc != PG_PROC_RUNNING)
        (void)plan_say(p, "waiting for PostgreSQL to start or stop");
    else
        (void)plan_say(p, "following %s%s", v->pg.upstream,
                       v->nostream       ? " by the archive"
                       : v->pg.streaming ? ""
                                         : ", not streaming yet");
    return plan_wait(p, UINT64_MAX);
}
