/* The leader key is ours, and the cluster is a standby of another site: PostgreSQL follows that site and takes no
 * writes, whoever holds the key. docs/standby-cluster.md. */
#include "agent/core/rules.h"

#include "base/assert.h"

static bool leads(const struct view *v)
{
    return view_is_leader(v) && v->config.standby_cluster;
}

static bool runs_as_standby(const struct view *v)
{
    return v->pg.proc == PG_PROC_RUNNING && v->pg.in_recovery;
}

/* ACTION_START_STANDBY, FOLLOW, REWIND or CLONE towards the other site. Its timelines are no promotions of ours, so
 * that nothing is added to the lineage. */
static bool plan_site(const struct view *v, struct plan *p, enum plan_action a)
{
    struct lineage own;
    p->action = a;
    p->token = v->leader.token;
    (void)memcpy(p->target, REMOTE_SITE, sizeof REMOTE_SITE);
    if (a == ACTION_REWIND || a == ACTION_CLONE)
        return true;
    lineage_settled(v, &own);
    lineage_print(&own, p->lineage, sizeof p->lineage);
    return true;
}

/* Its data was replaced by a copy of the other site's: key and record name the new data. Only the daemon that has
 * ordered the copy knows that it is one. */
bool rule_site_renewed(const struct view *v, struct plan *p)
{
    bool copied = v->busy.done_action == ACTION_REWIND || v->busy.done_action == ACTION_CLONE;
    bool recorded = strcmp(v->sync.leader, v->self) == 0 && v->sync.token == v->leader.token &&
                    view_record_mode(v) == SYNC_OFF &&
                    strcmp(v->sync.incarnation, v->leader.incarnation) == 0;
    if (!view_leader_named(v) || !v->config.standby_cluster || !copied || !recorded ||
        !token_unspent(v) || v->pg.data != PG_DATA_OURS || !v->pg.standby_signal ||
        v->pg.proc != PG_PROC_STOPPED || v->pg.incarnation[0] == '\0' || view_is_leader(v))
        return false;
    p->txn = TXN_LEADER_STATE;
    p->token = v->leader.token;
    p->leader = v->leader;
    (void)memcpy(p->leader.incarnation, v->pg.incarnation, sizeof p->leader.incarnation);
    p->leader.timeline = 0;
    p->leader.standby = false;
    (void)memcpy(p->leader.state, "acquired", sizeof "acquired");
    p->has_sync = true;
    p->sync = v->sync;
    (void)memcpy(p->sync.incarnation, v->pg.incarnation, sizeof p->sync.incarnation);
    return plan_say(p, "this data is a new copy of the other site's: it leads from here on");
}

/* The administrator has taken standby_cluster away. The key was never promoted with: the ordinary way to a primary
 * begins as after an acquisition. */
bool rule_site_promote(const struct view *v, struct plan *p)
{
    if (!view_is_leader(v) || v->config.standby_cluster || !v->leader.standby)
        return false;
    if (v->config.pause) {
        (void)plan_say(p, "no standby cluster any more: promoted when the pause ends");
        return plan_wait(p, UINT64_MAX);
    }
    p->txn = TXN_LEADER_STATE;
    p->token = v->leader.token;
    p->leader = v->leader;
    p->leader.timeline = 0;
    p->leader.standby = false;
    (void)memcpy(p->leader.state, "acquired", sizeof "acquired");
    return plan_say(p, "no standby cluster any more: this node is to be promoted");
}

/* A key that was promoted with is given back: what follows the other site leads with a token of its own. */
bool rule_site_release(const struct view *v, struct plan *p)
{
    if (!leads(v) || v->pg.proc != PG_PROC_STOPPED || token_unspent(v))
        return false;
    (void)plan_say(p, "the primary is stopped, for this is a standby cluster: the key is "
                      "acquired anew to follow the other site");
    return plan_release(v, p);
}

/* From a primary to a standby of the other site: a clean stop, after which that site can have everything. */
bool rule_site_demote(const struct view *v, struct plan *p)
{
    if (!leads(v) || v->pg.proc != PG_PROC_RUNNING || v->pg.in_recovery || v->config.pause)
        return false;
    p->token = v->leader.token;
    if (is_state(v->leader.state, "running")) {
        p->txn = TXN_LEADER_STATE;
        p->action = ACTION_CHECKPOINT;
        p->leader = v->leader;
        (void)memcpy(p->leader.state, "stopping", sizeof "stopping");
        return plan_say(p, "this is a standby cluster now: checkpoint first");
    }
    p->action = ACTION_STOP_FAST;
    p->limit_ms = v->config.ttl_ms;
    return plan_say(p, "this is a standby cluster now: stopping the primary");
}

bool rule_site_start(const struct view *v, struct plan *p)
{
    if (!leads(v) || v->pg.proc != PG_PROC_STOPPED || paused_down(v))
        return false;
    if (sealed_too_new(v, p))
        return true;
    (void)plan_say(p, "starting as a standby of the other site%s%s",
                   v->pg.kept[0] != '\0' ? "; " : "", v->pg.kept);
    return plan_site(v, p, ACTION_START_STANDBY);
}

bool rule_site_follow(const struct view *v, struct plan *p)
{
    bool there = strcmp(v->pg.upstream, REMOTE_SITE) == 0 &&
                 v->pg.follow_token == v->leader.token && v->pg.sealed_token == 0;
    if (!leads(v) || !runs_as_standby(v) || there)
        return false;
    if (sealed_too_new(v, p))
        return true;
    (void)plan_say(p, "leader with token %llu: following the other site",
                   (unsigned long long)v->leader.token);
    return plan_site(v, p, ACTION_FOLLOW);
}

/* The timeline that is followed, with where it began; and that this token follows on it, so that it is never taken for
 * the maker of a timeline. False: it is recorded like that. */
static bool history_due(const struct view *v, struct history_entry *ret)
{
    struct lineage own;
    lineage_parse(v->pg.lineage, &own);
    uint64_t token = lineage_token(&own, v->pg.timeline);
    const struct history_entry *known = history_of(v, v->pg.timeline);
    if (known != NULL && (token == 0 || token == known->token)) {
        *ret = *known;
        ret->until = MAX(known->until, v->leader.token);
        if (switch_to_correct(v, known))
            ret->switch_lsn = v->pg.switch_lsn;
        return ret->until != known->until || ret->switch_lsn != known->switch_lsn;
    }
    *ret = (struct history_entry){.timeline = v->pg.timeline,
                                  .token = v->leader.token,
                                  .switch_lsn = v->pg.switch_lsn,
                                  .parent = v->pg.parent,
                                  .remote = true,
                                  .until = v->leader.token,
                                  .reason = "made by the other site"};
    (void)memcpy(ret->name, v->self, sizeof ret->name);
    (void)memcpy(ret->incarnation, v->pg.incarnation, sizeof ret->incarnation);
    return true;
}

/* Whether it streams or not: what there is can be read here, and followed from here. */
bool rule_site_publish(const struct view *v, struct plan *p)
{
    if (!leads(v) || !runs_as_standby(v) || !v->pg.accepts || v->pg.timeline == 0)
        return false;
    struct history_entry entry;
    bool due = history_due(v, &entry);
    if (v->leader.standby && v->leader.timeline == v->pg.timeline &&
        is_state(v->leader.state, "running") && !due)
        return false;
    p->txn = TXN_LEADER_STATE;
    p->token = v->leader.token;
    p->leader = v->leader;
    p->leader.timeline = v->pg.timeline;
    p->leader.shutdown_lsn = 0;
    p->leader.standby = true;
    (void)memcpy(p->leader.state, "running", sizeof "running");
    p->has_history = due;
    if (due)
        p->history = entry;
    return plan_say(p, "standby leader on timeline %llu", (unsigned long long)v->pg.timeline);
}

/* Nothing is acknowledged here, so nothing is promised: whoever has most may lead, and the data may be replaced. */
bool rule_site_sync(const struct view *v, struct plan *p)
{
    if (!leads(v) || !runs_as_standby(v) ||
        (view_record_mode(v) == SYNC_OFF && v->sync.v_n == 0))
        return false;
    p->txn = TXN_SYNC;
    p->token = v->leader.token;
    p->sync = v->sync;
    (void)memset(p->sync.mode, 0, sizeof p->sync.mode);
    (void)memcpy(p->sync.mode, "off", sizeof "off");
    (void)memset(p->sync.v, 0, sizeof p->sync.v);
    p->sync.v_n = 0;
    p->sync.q = 1;
    return plan_say(p, "no synchronous replication in a standby cluster");
}

/* The other site went another way, or no longer has what is needed next. Its word is the administrator's: this data
 * gives way, and the others of this cluster follow. */
bool rule_site_replace(const struct view *v, struct plan *p)
{
    if (!leads(v) || !v->pg.stuck || v->config.pause || !token_unspent(v) ||
        view_record_mode(v) != SYNC_OFF || v->sync.v_n != 0)
        return false;
    if (v->pg.proc == PG_PROC_STOPPED) {
        bool rewind = v->config.use_pg_rewind && !v->pg.rewind_failed;
        p->remove_old = !rewind && is_given_up(v);
        (void)plan_say(p, "this data cannot follow the other site%s: %s",
                       v->pg.rewind_failed ? " and the rewind failed" : "",
                       rewind          ? "rewinding"
                       : p->remove_old ? "deleting it, as configured, and cloning"
                                       : "cloning");
        return plan_site(v, p, rewind ? ACTION_REWIND : ACTION_CLONE);
    }
    if (!runs_as_standby(v))
        return false;
    p->action = ACTION_STOP_FAST;
    p->token = v->leader.token;
    p->limit_ms = v->config.ttl_ms;
    return plan_say(p, "this data cannot follow the other site (%s): stopping it first",
                    v->pg.trouble);
}

bool rule_site_leader(const struct view *v, struct plan *p)
{
    if (!leads(v) || !runs_as_standby(v))
        return false;
    (void)plan_say(p, "standby leader with token %llu: %s", (unsigned long long)v->leader.token,
                   v->pg.streaming ? "streaming from the other site"
                                   : "the other site is not streamed from");
    return plan_wait(p, UINT64_MAX);
}
