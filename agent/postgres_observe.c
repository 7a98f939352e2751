/* The view of this PostgreSQL, put together from the fence, the data directory and the last look. */
#include <stdio.h>

#include "agent/postgres_private.h"
#include "base/assert.h"
#include "base/str.h"

bool postgres_is_foreign(const struct postgres *p)
{
    return p->probe_valid && strcmp(p->probe.data, "foreign") == 0;
}

static enum pg_proc proc_of(const struct postgres *p)
{
    const struct fence_state *f = &p->fence_seen;
    if (f->postmaster != 0) {
        if (p->stopping)
            return PG_PROC_STOPPING;
        return p->ever_seen ? PG_PROC_RUNNING : PG_PROC_STARTING;
    }
    /* A server that nobody of ours has started, on data that nobody of ours has made: not to be killed by us. */
    bool left = f->processes_left && !postgres_is_foreign(p);
    /* Without a fence to ask, nothing is proven. */
    return left || !f->connected ? PG_PROC_DYING : PG_PROC_STOPPED;
}

static void from_probe(const struct worker_reply *r, struct view_pg *v)
{
    v->system_id = r->system_id;
    memcpy(v->incarnation, r->incarnation, sizeof v->incarnation);
    memcpy(v->lineage, r->lineage, sizeof v->lineage);
    v->foreign = strcmp(r->data, "foreign") == 0;
    v->standby_signal = r->standby;
    v->in_recovery = r->standby;
    v->sealed_token = r->seal_token;
    v->sealed_lsn = r->seal_lsn;
    v->sealed_timeline = r->seal_timeline;
    (void)snprintf(v->trouble, sizeof v->trouble, "%s", r->trouble);
}

static enum pg_data data_of(const struct postgres *p)
{
    if (!p->probe_valid)
        return PG_DATA_UNKNOWN;
    if (strcmp(p->probe.data, "empty") == 0)
        return PG_DATA_EMPTY;
    return strcmp(p->probe.data, "ours") == 0 ? PG_DATA_OURS : PG_DATA_BROKEN;
}

static void stopped(const struct postgres *p, struct view_pg *v)
{
    const struct worker_reply *r = &p->probe;
    const struct fence_state *f = &p->fence_seen;
    v->crashed = f->exited && !f->requested && !f->fenced;
    if (!p->probe_valid || v->data != PG_DATA_OURS)
        return;
    bool standby = strstr(r->state, "recovery") != NULL;
    v->clean =
        strcmp(r->state, "shut down") == 0 || strcmp(r->state, "shut down in recovery") == 0;
    v->shutdown_lsn = r->shutdown_lsn;
    v->recovery_ms = r->recovery_ms;
    v->timeline = MAX(r->timeline, standby ? r->recovery_timeline : 0);
    v->lsn = standby ? MAX(r->recovery_lsn, r->checkpoint_lsn)
                     : MAX(r->shutdown_lsn, r->checkpoint_lsn);
    v->replay_lsn = v->lsn;
    v->stuck = p->stuck;
}

static void senders(const struct pg_seen *s, struct view_pg *v)
{
    v->senders_n = MIN(s->senders_n, (size_t)VIEW_WALSENDERS);
    for (size_t i = 0; i < v->senders_n; i++) {
        memcpy(v->senders[i].incarnation, s->senders[i].application_name,
               sizeof v->senders[i].incarnation);
        v->senders[i].streaming = s->senders[i].streaming;
        v->senders[i].flush_lsn = s->senders[i].flush_lsn;
    }
}

/* PostgreSQL pauses replay by itself (13: ends) where the primary was given higher limits. */
static bool replay_blocked(const struct postgres *p, const struct pg_seen *s)
{
    struct pg_limits own;
    return s->in_recovery && s->replay_paused && pg_limits_parse(s->limits, &own) == ERR_OK &&
           pg_limits_below(&own, &p->leader_limits);
}

static void running(const struct postgres *p, struct view_pg *v)
{
    const struct pg_seen *s = pg_monitor_seen(p->monitor);
    v->accepts = pg_monitor_accepts(p->monitor);
    if (!p->ever_seen || s->serial == 0)
        return;
    v->in_recovery = s->in_recovery;
    v->system_id = s->system_id;
    v->timeline = s->timeline;
    v->lsn = s->in_recovery ? MAX(s->receive_lsn, s->replay_lsn) : s->flush_lsn;
    v->replay_lsn = s->in_recovery ? s->replay_lsn : s->flush_lsn;
    v->walreceiver = s->walreceiver_pid != 0;
    v->streaming = s->streaming;
    v->stuck = p->stuck;
    v->timeline_unsure = !pg_monitor_knows_timeline(p->monitor);
    v->replay_blocked = replay_blocked(p, s);
    v->slots_wait = slots_wait(p);
    memcpy(v->slots, p->slots.unsafe, sizeof v->slots);
    v->start_us = s->start_us;
    v->pending_restart = s->pending_restart;
    memcpy(v->pending_reason, s->pending, sizeof v->pending_reason);
    memcpy(v->limits, s->limits, sizeof v->limits);
    v->checkpointed = !s->in_recovery && s->control_timeline == s->timeline;
    v->parent = s->parent;
    v->switch_lsn = s->switch_lsn;
    senders(s, v);
    if (!v->accepts)
        (void)snprintf(v->trouble, sizeof v->trouble, "%s", pg_monitor_error(p->monitor));
    else if (p->stuck)
        (void)snprintf(v->trouble, sizeof v->trouble, "%s", p->stuck_why);
}

static void synchronous(const struct postgres *p, struct view_pg *v)
{
    v->set = p->set;
    v->set_known = p->set_known;
    v->set_confirmed = p->set_known && postgres_running(p) && p->sync.step == SYNCCONF_DONE;
    v->old_n = p->old_n;
    memcpy(v->old, p->old, sizeof v->old);
}

void postgres_observe(struct postgres *p, struct view_pg *ret_pg)
{
    CHECK_MAGIC(p, POSTGRES_MAGIC);
    memset(ret_pg, 0, sizeof *ret_pg);
    ret_pg->proc = proc_of(p);
    ret_pg->starting_ms = ret_pg->proc == PG_PROC_STARTING ? p->starting_ms : 0;
    ret_pg->data = data_of(p);
    /* Identity stays what it was while a stopped one is being looked at again. */
    from_probe(&p->probe, ret_pg);
    ret_pg->rewind_failed = p->rewind_failed;
    memcpy(ret_pg->kept, p->kept, sizeof ret_pg->kept);
    ret_pg->roles_ready = p->roles_ready;
    ret_pg->copied = p->act.copied;
    ret_pg->copied_bytes = p->act.copied_bytes;
    if (p->follow.known) {
        memcpy(ret_pg->upstream, p->follow.name, sizeof ret_pg->upstream);
        ret_pg->follow_token = p->follow.token;
    }
    if (postgres_running(p))
        running(p, ret_pg);
    else
        stopped(p, ret_pg);
    synchronous(p, ret_pg);
    const struct health *health = pg_health_seen(p->health);
    ret_pg->sick = health->sick;
    ret_pg->failing_ms = health->failing_ms;
    memcpy(ret_pg->sick_why, health->why, sizeof ret_pg->sick_why);
    if (p->trouble[0] != '\0')
        (void)snprintf(ret_pg->trouble, sizeof ret_pg->trouble, "%s", p->trouble);
}

const struct pg_seen *postgres_seen(const struct postgres *p)
{
    CHECK_MAGIC(p, POSTGRES_MAGIC);
    return pg_monitor_seen(p->monitor);
}
