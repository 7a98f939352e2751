/* The leader key is ours: get PostgreSQL up, make it writable, keep the synchronous set. */
#include "agent/core/rules.h"

#include <stdio.h>

#include "agent/core/candidate.h"
#include "agent/core/syncrep.h"
#include "base/assert.h"
#include "base/mutant.h"

enum { START_TRIES = 3 }; /* before somebody else should try */

bool is_state(const char *state, const char *wanted)
{
    return strcmp(state, wanted) == 0;
}

bool member_follows(const struct member_rec *m)
{
    return m->incarnation[0] != '\0' && !is_state(m->role, "primary") &&
           (is_state(m->state, "running") || is_state(m->state, "streaming") ||
            is_state(m->state, "in archive recovery"));
}

/* A standby leader publishes the timeline that it follows. */
bool token_unspent(const struct view *v)
{
    return v->leader.timeline == 0 || v->leader.standby;
}

/* The record that the key's own acquisition or hand-over replaced is known: with an outcome unknown in between it may
 * be the one of a loss before that. */
static bool knows_before(const struct view *v)
{
    return v->has_sync_before &&
           (v->sync_before.token + 1 == v->leader.token || MUTANT(restore_any_record));
}

bool plan_release(const struct view *v, struct plan *p)
{
    ASSERT(v->pg.proc == PG_PROC_STOPPED);
    p->txn = TXN_RELEASE;
    p->token = v->leader.token;
    bool promoted = v->leader.timeline != 0 && !MUTANT(restore_after_promotion);
    p->restore_sync = knows_before(v) && !promoted && view_is_record_leader(v) &&
                      v->sync.token == v->leader.token;
    if (p->restore_sync) {
        /* The old leader's sets are in force again with its V; the token never goes back. */
        p->sync = v->sync_before;
        p->sync.token = v->sync.token;
    }
    return true;
}

/* The key names us, but the data it was given for is not here. */
bool rule_leader_without_data(const struct view *v, struct plan *p)
{
    if (!view_leader_named(v) || (view_is_leader(v) && v->pg.data == PG_DATA_OURS))
        return false;
    (void)plan_say(p, "the leader key is ours, but the data it was given for is not here");
    if (v->pg.proc != PG_PROC_STOPPED) {
        p->action = ACTION_KILL;
        p->token = v->leader.token;
        return true;
    }
    return plan_release(v, p);
}

/* No transaction of ours leaves them apart: a restored or edited store. The record decides who may lead,
 * so a key that it does not know is given back, and nothing is made writable meanwhile. */
bool rule_record_disagrees(const struct view *v, struct plan *p)
{
    if (!view_leader_named(v) || (view_is_record_leader(v) && v->sync.token == v->leader.token))
        return false;
    (void)plan_say(
        p, "the leader key is ours with token %llu, the sync record says %s with token %llu",
        (unsigned long long)v->leader.token, v->sync.leader, (unsigned long long)v->sync.token);
    return v->pg.proc == PG_PROC_STOPPED ? plan_release(v, p) : plan_wait(p, UINT64_MAX);
}

const struct member_rec *other_eligible(const struct view *v)
{
    const struct member_rec *found = NULL;
    uint64_t sealable = 0;
    if (v->sync.unknown)
        return NULL;
    for (size_t i = 0; i < v->members_n; i++) {
        const struct member_rec *m = &v->members[i];
        bool counts = view_record_mode(v) == SYNC_OFF || view_in_v(v, m->incarnation);
        if (strcmp(m->name, v->self) == 0 || !counts || !member_follows(m) || member_sick(v, m))
            continue;
        sealable++;
        if (found == NULL && !m->nofailover)
            found = m;
    }
    return view_record_mode(v) == SYNC_OFF || sealable >= v->sync.q ? found : NULL;
}

uint64_t start_given_up_ms(const struct view *v)
{
    bool ours = v->busy.action == ACTION_START_PRIMARY && v->pg.proc == PG_PROC_STARTING &&
                view_is_leader(v) && v->leader.timeline != 0;
    if (!ours || v->config.pause || v->config.on_primary_crash == CRASH_RESTART ||
        other_eligible(v) == NULL)
        return UINT64_MAX;
    return v->busy.since_ms + v->config.primary_start_timeout_ms;
}

/* What the control file promised was an estimate. */
bool rule_leader_start_late(const struct view *v, struct plan *p)
{
    if (v->now_ms < start_given_up_ms(v))
        return false;
    p->action = ACTION_KILL;
    p->token = v->leader.token;
    return plan_say(
        p, "recovery has outlasted primary_start_timeout: killed, so that %s can take over",
        other_eligible(v)->name);
}

static bool start_outlasted(const struct view *v)
{
    return v->busy.failed && v->busy.failed_action == ACTION_START_PRIMARY &&
           v->config.on_primary_crash != CRASH_RESTART &&
           v->busy.failed_ms >= v->busy.since_ms + v->config.primary_start_timeout_ms;
}

static bool start_fails(const struct view *v)
{
    if (start_outlasted(v))
        return true;
    return v->busy.failed && v->busy.failures >= START_TRIES &&
           (v->busy.failed_action == ACTION_START_PRIMARY ||
            v->busy.failed_action == ACTION_START_STANDBY ||
            v->busy.failed_action == ACTION_PROMOTE);
}

bool crash_gives_way(const struct view *v)
{
    /* Never give up when there is nobody else. */
    if (other_eligible(v) == NULL)
        return false;
    if (start_fails(v) || (v->config.sick_failover && v->pg.sick != SICK_NOT))
        return true;
    if (!v->pg.crashed && v->pg.clean)
        return false;
    switch (v->config.on_primary_crash) {
    case CRASH_RESTART:
        return false;
    case CRASH_FAILOVER:
        return true;
    case CRASH_AUTO:
        break;
    }
    /* A synchronous standby has everything and is ready; an asynchronous one has not. */
    return view_record_mode(v) != SYNC_OFF ||
           v->pg.recovery_ms > v->config.primary_start_timeout_ms;
}

/* With the key that is held now: what failed before it says nothing about it. */
static bool failed_with_key(const struct view *v)
{
    return start_fails(v) && v->busy.failed_ms >= v->leader_ms;
}

bool rule_leader_crashed(const struct view *v, struct plan *p)
{
    bool stopped = v->pg.proc == PG_PROC_STOPPED ||
                   (v->pg.proc == PG_PROC_DYING && MUTANT(release_before_last_backend));
    if (!view_is_leader(v) || !stopped || v->config.pause)
        return false;
    bool promoted = v->leader.timeline != 0;
    /* An acquisition that cannot be used: undone, so that another of the sealed may try. */
    if (!promoted && knows_before(v) && failed_with_key(v)) {
        (void)plan_say(p, "PostgreSQL does not start here (%s): the key is given back",
                       v->busy.error);
        return plan_release(v, p);
    }
    if (!promoted || !crash_gives_way(v))
        return false;
    (void)plan_say(p, "PostgreSQL is down and no process of it is left: %s can take over",
                   other_eligible(v)->name);
    return plan_release(v, p);
}

static bool wait_for_fence(struct plan *p)
{
    (void)plan_say(
        p, "waiting for the fence to hold our deadline before PostgreSQL may take writes");
    return plan_wait(p, UINT64_MAX);
}

/* One promotion a token: timelines are told apart by it. A key that PostgreSQL was primary with, found again
 * by a standby (the fence killed, and the renewal still came), is given back for a new one. */
static bool spent(const struct view *v)
{
    return !token_unspent(v) && !MUTANT(promote_twice);
}

/* In place, without a new timeline: only data that was the primary of this very record. */
bool rule_leader_start(const struct view *v, struct plan *p)
{
    if (!view_is_leader(v) || v->pg.proc != PG_PROC_STOPPED || paused_down(v))
        return false;
    p->token = v->leader.token;
    if (v->pg.standby_signal && spent(v)) {
        (void)plan_say(p, "the data is a standby's since the fence killed: acquired anew");
        return plan_release(v, p);
    }
    if (v->pg.standby_signal) {
        p->action = ACTION_START_STANDBY;
        return plan_say(p, "starting as a standby of nobody, to be promoted");
    }
    if (!v->armed || !view_lease_valid(v))
        return wait_for_fence(p);
    p->action = ACTION_START_PRIMARY;
    syncrep_first_set(v, &p->set);
    return plan_say(p, "starting in place with token %llu",
                    (unsigned long long)v->leader.token);
}

static bool cut_off(const struct view *v)
{
    return v->pg.upstream[0] == '\0' && !v->pg.walreceiver;
}

void lineage_settled(const struct view *v, struct lineage *ret)
{
    struct lineage own;
    lineage_parse(v->pg.lineage, &own);
    (void)memset(ret, 0, sizeof *ret);
    for (size_t i = 0; i < own.n; i++) {
        if (own.at[i].timeline > v->pg.timeline)
            continue;
        ret->at[ret->n] = own.at[i];
        if (own.at[i].timeline == 0) {
            /* An earlier promotion: by now its number is known, or it never happened. */
            if (lineage_token(&own, v->pg.timeline) != own.at[i].token)
                continue;
            ret->at[ret->n].timeline = v->pg.timeline;
        }
        ret->n++;
    }
}

/* What this data has been through, and this promotion. A leader that it followed without getting anything
 * of its timeline is no part of it. */
static void note_promotion(const struct view *v, struct plan *p)
{
    struct lineage past;
    struct lineage next = {.n = 1};
    next.at[0].token = v->leader.token; /* timeline 0: PostgreSQL chooses the number */
    lineage_settled(v, &past);
    for (size_t i = 0; i < past.n && next.n < LINEAGE_MAX; i++)
        next.at[next.n++] = past.at[i];
    lineage_print(&next, p->lineage, sizeof p->lineage);
}

/* The administrator's command said no: undone, so that another may try. The key goes when no process is left, as
 * always. */
bool rule_promotion_refused(const struct view *v, struct plan *p)
{
    bool running = v->pg.proc == PG_PROC_RUNNING && v->pg.in_recovery;
    bool stopped = v->pg.proc == PG_PROC_STOPPED;
    if (!view_is_leader(v) || v->refused_token != v->leader.token || v->leader.timeline != 0 ||
        (!running && !stopped))
        return false;
    if (stopped) {
        (void)plan_say(p, "pre_promote refused the promotion: the key is given back");
        return plan_release(v, p);
    }
    p->action = ACTION_STOP_FAST;
    p->token = v->leader.token;
    p->limit_ms = v->config.ttl_ms;
    return plan_say(p, "pre_promote refused the promotion: stopping, to give the key back");
}

bool rule_leader_promote(const struct view *v, struct plan *p)
{
    if (!view_is_leader(v) || v->pg.proc != PG_PROC_RUNNING || !v->pg.in_recovery)
        return false;
    bool handed_over = v->leader.shutdown_lsn != 0;
    if (spent(v)) {
        p->action = ACTION_STOP_FAST;
        p->limit_ms = v->config.ttl_ms;
        return plan_say(
            p, "token %llu has been promoted with already: stopped, to be acquired anew",
            (unsigned long long)v->leader.token);
    }
    if (!handed_over && !cut_off(v) && !MUTANT(promote_connected)) {
        p->action = ACTION_SEAL;
        p->token = v->leader.token - 1;
        return plan_say(p, "still connected to %s: cut off before the promotion",
                        v->pg.upstream);
    }
    if (handed_over && v->pg.lsn < v->leader.shutdown_lsn) {
        (void)plan_say(p, "waiting for the last record of the old primary");
        return plan_wait(p, UINT64_MAX);
    }
    if ((!v->armed || !view_lease_valid(v)) && !MUTANT(promote_unarmed))
        return wait_for_fence(p);
    p->token = v->leader.token;
    if (v->pre_promote && v->permitted_token != v->leader.token) {
        p->action = ACTION_PRE_PROMOTE;
        return plan_say(p, "leader with token %llu: asking pre_promote",
                        (unsigned long long)v->leader.token);
    }
    p->action = ACTION_PROMOTE;
    syncrep_first_set(v, &p->set);
    note_promotion(v, p);
    return plan_say(p, "leader with token %llu, fence armed: promoting",
                    (unsigned long long)v->leader.token);
}

/* PostgreSQL's own history file says exactly where the timeline began; it is read a moment after the
 * promotion, when what was known then has been recorded already. */
bool switch_to_correct(const struct view *v, const struct history_entry *known)
{
    return v->pg.switch_lsn != 0 && known->switch_lsn != v->pg.switch_lsn;
}

/* Where the new timeline begins is recorded together with the fact that we run on it. */
static void plan_history(const struct view *v, struct plan *p)
{
    struct lineage own;
    lineage_parse(v->pg.lineage, &own);
    uint64_t token = lineage_token(&own, v->pg.timeline);
    const struct history_entry *known = history_of(v, v->pg.timeline);
    bool same = known != NULL && (token == 0 || token == known->token);
    if (same && !switch_to_correct(v, known))
        return;
    const struct history_entry *last = v->history_n > 0 ? &v->history[v->history_n - 1] : NULL;
    p->has_history = true;
    p->history.timeline = v->pg.timeline;
    p->history.token = token != 0 ? token : v->leader.token;
    (void)memcpy(p->history.name, v->self, sizeof p->history.name);
    (void)memcpy(p->history.incarnation, v->pg.incarnation, sizeof p->history.incarnation);
    p->history.parent = v->pg.parent != 0 || last == NULL ? v->pg.parent
                        : same                            ? known->parent
                                                          : last->timeline;
    /* After a hand-over the old timeline ends with the shutdown checkpoint: nobody sealed. */
    uint64_t end_lsn = v->leader.shutdown_lsn != 0 ? v->leader.shutdown_lsn : v->pg.sealed_lsn;
    p->history.switch_lsn = v->pg.switch_lsn != 0 ? v->pg.switch_lsn : end_lsn;
    (void)snprintf(p->history.reason, sizeof p->history.reason, "promoted with token %llu",
                   (unsigned long long)v->leader.token);
}

static bool runs_as_primary(const struct view *v)
{
    return view_is_leader(v) && v->pg.proc == PG_PROC_RUNNING && !v->pg.in_recovery;
}

bool rule_leader_publish(const struct view *v, struct plan *p)
{
    if (!runs_as_primary(v) || v->pg.timeline == 0)
        return false;
    /* A new cluster is shown when it can be cloned: the roles first. */
    if (v->leader.token == 1 && v->leader.timeline == 0 && !v->pg.roles_ready)
        return false;
    bool wanted_down = v->has_failover || v->stopping || relief_by_switchover(v);
    bool right = v->leader.timeline == v->pg.timeline &&
                 (is_state(v->leader.state, "running") ||
                  (wanted_down && is_state(v->leader.state, "stopping")));
    const struct history_entry *known = history_of(v, v->pg.timeline);
    bool exact = known == NULL || !switch_to_correct(v, known);
    if (right && (exact || wanted_down))
        return false;
    p->txn = TXN_LEADER_STATE;
    p->token = v->leader.token;
    p->leader = v->leader;
    p->leader.timeline = v->pg.timeline;
    p->leader.shutdown_lsn = 0;
    (void)memcpy(p->leader.state, "running", sizeof "running");
    plan_history(v, p);
    return plan_say(p, "running on timeline %llu", (unsigned long long)v->pg.timeline);
}

bool rule_leader_roles(const struct view *v, struct plan *p)
{
    if (!runs_as_primary(v) || !v->pg.accepts || v->pg.roles_ready)
        return false;
    /* After a promotion they are there already, most likely: the synchronous set comes first. */
    struct plan step = *p;
    bool wait = false;
    if (v->leader.timeline != 0 && syncrep_step(v, &step, &wait))
        return false;
    p->action = ACTION_ENSURE_ROLES;
    p->first = v->leader.token == 1 && v->leader.timeline == 0;
    p->token = v->leader.token;
    return plan_say(
        p, "making sure of the roles for replication and rewind, and of their passwords");
}

/* A set that nobody confirms may be waiting for those who are to be rewound, and they wait for the checkpoint. */
static bool checkpoint_first(const struct view *v, const struct plan *p)
{
    return p->action == ACTION_SET_SYNC && !v->pg.checkpointed && v->busy.failed &&
           v->busy.failed_action == ACTION_SET_SYNC;
}

bool rule_leader_sync(const struct view *v, struct plan *p)
{
    if (!runs_as_primary(v) || !v->pg.accepts)
        return false;
    struct plan before = *p;
    bool wait = false;
    if (syncrep_step(v, p, &wait) && !checkpoint_first(v, p))
        return true;
    *p = before;
    return false;
}

/* Soon after a promotion: pg_rewind of the others reads the control file's timeline. What PostgreSQL shows
 * may be older than the checkpoint that has just been done. */
bool rule_leader_checkpoint(const struct view *v, struct plan *p)
{
    if (!runs_as_primary(v) || !v->pg.accepts || v->pg.checkpointed)
        return false;
    enum { SHOWN_MS = 1000 };
    if (v->busy.done_action == ACTION_CHECKPOINT && v->now_ms < v->busy.done_ms + SHOWN_MS) {
        (void)plan_say(p, "leader with token %llu: the first checkpoint is to show",
                       (unsigned long long)v->leader.token);
        return plan_wait(p, v->busy.done_ms + SHOWN_MS);
    }
    p->action = ACTION_CHECKPOINT;
    p->token = v->leader.token;
    return plan_say(p, "first checkpoint after the promotion");
}

bool rule_leader(const struct view *v, struct plan *p)
{
    if (!view_leader_named(v))
        return false;
    bool wait = false;
    if (!runs_as_primary(v))
        (void)plan_say(p, "leader: waiting for PostgreSQL to start or stop");
    else if (!v->pg.accepts)
        (void)plan_say(p, "leader: waiting for PostgreSQL to accept connections");
    else if (syncrep_step(v, p, &wait) || !wait)
        (void)plan_say(p, "leader with token %llu, nothing to do",
                       (unsigned long long)v->leader.token);
    p->txn = TXN_NONE;
    p->action = ACTION_NONE;
    return plan_wait(p, UINT64_MAX);
}
