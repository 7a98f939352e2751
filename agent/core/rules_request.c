/* What a person asked of this very node's PostgreSQL: restart, reinitialize, reload, stop, start. The request
 * lives in a record, also while it is carried out, so that a daemon that dies meanwhile goes on with it. */
#include "agent/core/rules.h"

#include "agent/core/candidate.h"
#include "base/assert.h"

enum { STOP_LIMIT_MS = 60000, TRIES = 3 };

static bool is_kind(const struct view *v, const char *kind)
{
    return v->has_request && is_state(v->request.kind, kind);
}

static bool begun(const struct view *v)
{
    return v->request.state[0] != '\0';
}

bool request_wants_running(const struct view *v)
{
    return v->has_request && begun(v) && !is_state(v->request.kind, "stop");
}

static bool end(const struct view *v, struct plan *p, bool ok)
{
    p->txn = TXN_CLEAR_REQUEST;
    p->request = v->request;
    p->request_ok = ok;
    return true;
}

static bool refuse(const struct view *v, struct plan *p, const char *why)
{
    (void)plan_say(p, "%s", why);
    return end(v, p, false);
}

static bool leader_runs(const struct view *v)
{
    return v->has_leader && is_state(v->leader.state, "running");
}

/* A node that leads, or that may be the next to lead, is not disturbed. */
static bool quiet(const struct view *v)
{
    bool alone = v->config.pause && !is_kind(v, "reinitialize"); /* there is nothing to copy */
    return !v->stopping && (alone || leader_runs(v)) &&
           !(v->has_failover && view_leader_named(v));
}

/* Dotted numbers, as PostgreSQL's releases have them. */
static bool version_below(const char *have, const char *limit)
{
    for (;;) {
        uint64_t a = 0;
        uint64_t b = 0;
        for (; *have >= '0' && *have <= '9'; have++)
            a = a * 10 + (uint64_t)(*have - '0');
        for (; *limit >= '0' && *limit <= '9'; limit++)
            b = b * 10 + (uint64_t)(*limit - '0');
        if (a != b || *limit != '.')
            return a < b;
        limit++;
        have += *have == '.';
    }
}

static bool restart_conditions(const struct view *v)
{
    const struct request_rec *r = &v->request;
    const struct member_rec *self = view_member(v, v->self);
    bool primary = v->pg.proc == PG_PROC_RUNNING && !v->pg.in_recovery;
    if (r->role[0] != '\0' && is_state(r->role, "primary") != primary)
        return false;
    if (r->pg_version[0] != '\0' &&
        (self == NULL || !version_below(self->pg_version, r->pg_version)))
        return false;
    return !r->pending || v->pg.pending_restart;
}

/* NULL: it can be done. */
static const char *objection(const struct view *v)
{
    if (v->request_late)
        return "the time for it passed while it could not be done";
    if (v->request.at_ms != 0 && v->config.pause)
        return "nothing that is scheduled is done in a pause";
    if (is_kind(v, "restart")) {
        if (v->pg.proc == PG_PROC_STARTING)
            return "postgres is still starting";
        return restart_conditions(v) ? NULL : "restart conditions are not satisfied";
    }
    if (is_kind(v, "reinitialize") && view_leader_named(v))
        return "I am the leader, can not reinitialize";
    if (is_kind(v, "stop") && view_leader_named(v) && !v->config.pause)
        return "this node leads: switch over first, or pause";
    if (!is_kind(v, "stop") && !is_kind(v, "start") && !is_kind(v, "reload") &&
        !is_kind(v, "reinitialize"))
        return "it asks for something that this version does not know";
    return NULL;
}

static bool begin(const struct view *v, struct plan *p)
{
    p->txn = TXN_REQUEST;
    p->request = v->request;
    (void)memcpy(p->request.state, "under way", sizeof "under way");
    p->request.since_us = v->pg.proc == PG_PROC_STOPPED ? 0 : v->pg.start_us;
    (void)memcpy(p->request.incarnation, v->pg.incarnation, sizeof p->request.incarnation);
    /* The stop of a primary writes what is dirty while clients wait: have it done before. */
    bool primary = v->pg.proc == PG_PROC_RUNNING && !v->pg.in_recovery;
    if (primary && !is_kind(v, "start"))
        p->action = ACTION_CHECKPOINT;
    p->token = v->leader.token;
    return plan_say(p, "%s asked for", v->request.kind);
}

/* A forced reinitialize does not wait for the copy that is under way. */
bool rule_request_cancel(const struct view *v, struct plan *p)
{
    if (!is_kind(v, "reinitialize") || !v->request.force || begun(v) || !v->dcs_ready ||
        (v->busy.action != ACTION_CLONE && v->busy.action != ACTION_REWIND))
        return false;
    p->cancel = true;
    (void)plan_say(p, "reinitialize asked for: the copy under way is given up");
    return plan_wait(p, UINT64_MAX);
}

bool rule_request_begin(const struct view *v, struct plan *p)
{
    if (!v->has_request || begun(v) || !v->dcs_ready)
        return false;
    const char *why = objection(v);
    if (why != NULL)
        return refuse(v, p, why);
    if (!quiet(v) && !is_kind(v, "reload"))
        return false;
    if (!is_kind(v, "reload"))
        return begin(v, p);
    if (v->busy.done_action == ACTION_RELOAD && v->busy.done_ms >= v->request_ms) {
        (void)plan_say(p, "the configuration is written and PostgreSQL told to read it");
        return end(v, p, true);
    }
    if (v->pg.proc != PG_PROC_RUNNING)
        return refuse(v, p, "PostgreSQL does not run: it reads its configuration when it does");
    p->action = ACTION_RELOAD;
    return plan_say(p, "reload asked for");
}

/* A synchronous standby leaves the set first, so that no commit waits for its return. */
static bool leaves_v(const struct view *v, struct plan *p)
{
    uint64_t until_ms = v->request_ms + 2 * v->config.ttl_ms;
    if (!view_in_v(v, v->pg.incarnation) || v->config.pause || v->now_ms >= until_ms)
        return false;
    (void)plan_say(p, "waiting for %s to take this data out of the sync record",
                   v->leader.name);
    return plan_wait(p, until_ms);
}

static bool stop(const struct view *v, struct plan *p)
{
    if (v->pg.proc == PG_PROC_STOPPING) {
        (void)plan_say(p, "%s: waiting for PostgreSQL to stop", v->request.kind);
        return plan_wait(p, UINT64_MAX);
    }
    if (leaves_v(v, p))
        return true;
    p->action = ACTION_STOP_FAST;
    p->token = v->leader.token;
    p->limit_ms = v->request.timeout_ms != 0 ? v->request.timeout_ms : STOP_LIMIT_MS;
    return plan_say(p, "%s: stopping PostgreSQL", v->request.kind);
}

bool rule_request_stop(const struct view *v, struct plan *p)
{
    if (!v->has_request || !begun(v) || !quiet(v) || v->pg.proc == PG_PROC_STOPPED ||
        is_kind(v, "start"))
        return false;
    bool same = is_kind(v, "stop") ||
                (v->request.since_us != 0 && v->pg.start_us == v->request.since_us);
    if (is_kind(v, "reinitialize"))
        same =
            v->pg.data != PG_DATA_OURS || is_state(v->pg.incarnation, v->request.incarnation);
    if (is_kind(v, "reinitialize") && view_leader_named(v))
        return refuse(v, p, "I am the leader, can not reinitialize");
    return same && stop(v, p);
}

/* Stopped and to be cloned: the record has to let go of the data first. */
bool rule_request_clone(const struct view *v, struct plan *p)
{
    if (!is_kind(v, "reinitialize") || !begun(v) || v->pg.proc != PG_PROC_STOPPED ||
        v->pg.data != PG_DATA_OURS || !is_state(v->pg.incarnation, v->request.incarnation))
        return false;
    if (!v->has_leader || is_state(v->leader.name, v->self) ||
        !is_state(v->leader.state, "running") || v->leader.timeline == 0)
        return false;
    if (view_in_v(v, v->pg.incarnation) || view_is_record_leader(v)) {
        (void)plan_say(p, "waiting for %s to take this data out of the sync record",
                       v->leader.name);
        return plan_wait(p, UINT64_MAX);
    }
    (void)plan_clone(v, p);
    p->remove_old = is_ordered_away(v);
    return plan_say(p, "reinitialize: %scloning from %s",
                    p->remove_old ? "deleting the old data and " : "", p->target);
}

/* A leader that dies is the leader until its lease has run out, and the next one has to become ready: a copy has failed
 * when it went on failing for longer than that, from one and the same. */
static bool clone_fails(const struct view *v)
{
    uint64_t lasts_ms = 0;
    uint64_t limit_ms = 2 * v->config.ttl_ms;
    for (uint64_t i = 1; i < v->busy.failures && lasts_ms < limit_ms; i++)
        lasts_ms += back_off_ms(i);
    return leader_runs(v) && lasts_ms >= limit_ms &&
           v->busy.failed_ms >= v->leader_ms + limit_ms;
}

static bool fails(const struct view *v)
{
    if (!v->busy.failed || v->busy.failures < TRIES || v->busy.failed_ms < v->request_ms)
        return false;
    return v->busy.failed_action == ACTION_START_PRIMARY ||
           v->busy.failed_action == ACTION_START_STANDBY ||
           (v->busy.failed_action == ACTION_CLONE && clone_fails(v));
}

bool rule_request_end(const struct view *v, struct plan *p)
{
    if (!v->has_request || !begun(v))
        return false;
    if (is_kind(v, "stop")) /* it holds until somebody asks for a start */
        return false;
    if (fails(v))
        return refuse(v, p, v->busy.error[0] != '\0' ? v->busy.error : "it does not start");
    bool runs = v->pg.proc == PG_PROC_RUNNING && v->pg.accepts;
    bool other = v->pg.start_us != v->request.since_us;
    if (is_kind(v, "reinitialize"))
        other = !is_state(v->pg.incarnation, v->request.incarnation);
    if (!runs || (!other && !is_kind(v, "start")))
        return false;
    (void)plan_say(p, "%s done", v->request.kind);
    return end(v, p, true);
}

/* Stopped by order: it stays so. */
bool rule_request_hold(const struct view *v, struct plan *p)
{
    if (!is_kind(v, "stop") || !begun(v) || v->pg.proc != PG_PROC_STOPPED || v->stopping ||
        view_leader_named(v))
        return false;
    (void)plan_say(p, "stopped by order; `regentctl start %s` ends that", v->self);
    return plan_wait(p, UINT64_MAX);
}
