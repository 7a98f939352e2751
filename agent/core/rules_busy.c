/* What has to end, or to become known, first. */
#include <stdio.h>

#include "agent/core/rules.h"
#include "agent/core/syncrep.h"

/* systemd restarts only the daemon: PostgreSQL runs on for adoption. */
bool rule_restarting(const struct view *v, struct plan *p)
{
    if (!v->restarting)
        return false;
    (void)plan_say(p, "about to be restarted: PostgreSQL is left for adoption");
    return plan_wait(p, UINT64_MAX);
}

static const char *not_ready(const struct view *v, char *ret, size_t size)
{
    if (v->unreadable[0] == '\0')
        return "the DCS does not answer";
    (void)snprintf(ret, size,
                   "the record `%s` cannot be read, put it right with `regentctl dcs put`",
                   v->unreadable);
    return ret;
}

/* A daemon that was told to end does so without a DCS too. Records that are just being read again are no reason: after
 * each transaction that failed they are, and a leader that hands over would leave its key to run out. */
bool rule_stop_anyway(const struct view *v, struct plan *p)
{
    if (!v->stopping || !v->dcs_gone || v->busy.action != ACTION_NONE)
        return false;
    if (v->pg.proc == PG_PROC_STOPPED) {
        (void)plan_say(p, "PostgreSQL is stopped: the daemon may leave");
        return plan_wait(p, UINT64_MAX);
    }
    char text[120];
    p->action = ACTION_STOP_FAST;
    p->limit_ms = v->config.ttl_ms;
    return plan_say(p, "the daemon was told to end, and %s", not_ready(v, text, sizeof text));
}

/* When may a stopped node help readers as a lonely standby? At once when this daemon has known the records:
 * its lease is over, and the way back as the record's leader is a promotion, which is faster than a start
 * in place. After a cold start everybody is without a store for a moment: there the start in place, without
 * a new timeline, is worth two TTLs of patience. */
static uint64_t lonely_ms(const struct view *v)
{
    return v->has_sync ? MAX(v->dcs_lost_ms, v->deadline_ms)
                       : v->dcs_lost_ms + 2 * v->config.ttl_ms;
}

static bool stopped_by_order(const struct view *v)
{
    return v->has_request && v->request.state[0] != '\0' && is_state(v->request.kind, "stop");
}

/* Without the DCS nothing changes hands: a standby goes on as it is, a primary until its deadline. */
bool rule_dcs_not_ready(const struct view *v, struct plan *p)
{
    char text[120];
    if (v->dcs_ready)
        return false;
    const char *why = not_ready(v, text, sizeof text);
    if (view_writable(v)) {
        (void)plan_say(p, "%s: writable until the deadline of the lease", why);
        return plan_wait(p, v->deadline_ms > v->now_ms ? v->deadline_ms : UINT64_MAX);
    }
    bool startable = v->pg.data == PG_DATA_OURS && v->pg.proc == PG_PROC_STOPPED &&
                     v->busy.action == ACTION_NONE && v->dcs_lost_ms != 0 && !v->config.pause &&
                     !v->stopping && !stopped_by_order(v);
    if (startable && v->now_ms >= lonely_ms(v)) {
        p->action = ACTION_START_STANDBY;
        return plan_say(p, "%s: read-only until then", why);
    }
    (void)plan_say(p, "%s: nothing is changed", why);
    return plan_wait(p, startable ? lonely_ms(v) : UINT64_MAX);
}

/* One HA transaction at a time; an unknown outcome is looked up, never assumed. */
bool rule_txn(const struct view *v, struct plan *p)
{
    if (!v->txn_pending && !v->txn_unknown)
        return false;
    (void)plan_say(p, v->txn_unknown
                          ? "the outcome of the last transaction is unknown: reading again"
                          : "waiting for the transaction under way");
    return plan_wait(p, UINT64_MAX);
}

/* A copy of a node that no longer leads may be finished in vain: start over from the new one. */
static bool obsolete_copy(const struct view *v)
{
    if (v->busy.action != ACTION_CLONE && v->busy.action != ACTION_REWIND)
        return false;
    if (!v->has_leader || strcmp(v->leader.state, "running") != 0 ||
        strcmp(v->leader.name, v->busy.target) == 0 || view_leader_named(v))
        return false;
    const struct member_rec *m = view_member(v, v->busy.target);
    return v->busy.action != ACTION_CLONE || m == NULL || !clone_source(v, m);
}

/* A standby lets nobody in before it is consistent, and may need WAL for that which only the leader of now
 * still has. It is left a TTL to get there: the fence has had its order, so that nothing is under way. */
static bool obsolete_start(const struct view *v, uint64_t *ret_at_ms)
{
    if (v->busy.action != ACTION_START_STANDBY || v->pg.proc != PG_PROC_STARTING ||
        v->config.pause || !v->has_leader || !is_state(v->leader.state, "running") ||
        strcmp(v->leader.name, v->self) == 0 || strcmp(v->leader.name, v->busy.target) == 0)
        return false;
    *ret_at_ms = v->pg.starting_ms + v->config.ttl_ms;
    return true;
}

/* Somebody leads: who was to be compared does not matter any more. */
static bool obsolete_seal(const struct view *v)
{
    return v->busy.action == ACTION_SEAL && v->has_leader && !view_leader_named(v);
}

/* Only the record: the action under way is not touched. */
static bool sync_beside(const struct view *v, struct plan *p)
{
    if (v->busy.action != ACTION_CHECKPOINT || !view_is_leader(v) || view_other_system(v) ||
        !view_is_record_leader(v) || v->sync.token != v->leader.token ||
        v->pg.proc != PG_PROC_RUNNING || v->pg.in_recovery ||
        strcmp(v->leader.state, "running") != 0)
        return false;
    struct plan before = *p;
    bool wait = false;
    if (syncrep_step(v, p, &wait) && p->txn == TXN_SYNC)
        return true;
    *p = before;
    return false;
}

/* Actions are single-flight. A leader that checkpoints still takes a standby out of the record: that is
 * safe under every set and does not wait. */
bool rule_busy(const struct view *v, struct plan *p)
{
    if (v->busy.action == ACTION_NONE)
        return false;
    if (sync_beside(v, p))
        return true;
    const char *name = v->busy.action < ACTION_COUNT
                           ? plan_action_name((enum plan_action)v->busy.action)
                           : "unknown";
    uint64_t late_ms = start_given_up_ms(v);
    if (obsolete_copy(v) || (obsolete_start(v, &late_ms) && v->now_ms >= late_ms)) {
        p->cancel = true;
        (void)plan_say(p, "%s from %s given up: %s leads now", name,
                       v->busy.target[0] != '\0' ? v->busy.target : "nobody", v->leader.name);
        return plan_wait(p, UINT64_MAX);
    }
    if (obsolete_seal(v)) {
        p->cancel = true;
        (void)plan_say(p, "%s given up: %s leads now", name, v->leader.name);
        return plan_wait(p, UINT64_MAX);
    }
    bool told = v->busy.action == ACTION_SEAL && v->pg.trouble[0] != '\0';
    (void)plan_say(p, "waiting for %s to end%s%s", name, told ? ": " : "",
                   told ? v->pg.trouble : "");
    return plan_wait(p, late_ms);
}

/* Also when the data is no node's of ours: what somebody put there is not moved aside for a clone. */
bool rule_other_system(const struct view *v, struct plan *p)
{
    if (!view_other_system(v))
        return false;
    (void)plan_say(
        p,
        "the data directory belongs to another cluster (system identifier %llu, here %llu): "
        "nothing is touched; move it away to let this node be cloned",
        (unsigned long long)v->pg.system_id, (unsigned long long)v->initialize.system_id);
    return plan_wait(p, UINT64_MAX);
}
