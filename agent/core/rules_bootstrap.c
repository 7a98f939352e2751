/* A cluster that does not exist yet: one node makes it, the others wait and clone. */
#include "agent/core/rules.h"

static bool wait_for_others(struct plan *p, const char *why)
{
    (void)plan_say(p, "the cluster is not initialized; %s", why);
    return plan_wait(p, UINT64_MAX);
}

enum { INITDB_AGAIN_MS = 10000 };

static bool initdb_failed_lately(const struct view *v)
{
    return v->busy.failed &&
           (v->busy.failed_action == ACTION_INITDB || v->busy.failed_action == ACTION_CLONE) &&
           v->now_ms < v->busy.failed_ms + INITDB_AGAIN_MS;
}

/* The race is ours: make the data, then everything else in one transaction. */
static bool go_on(const struct view *v, struct plan *p)
{
    if (initdb_failed_lately(v)) {
        p->txn = TXN_BOOTSTRAP_ABORT;
        return plan_say(p, "%s failed (%s): others may try",
                        plan_action_name((enum plan_action)v->busy.failed_action),
                        v->busy.error);
    }
    if (v->pg.data == PG_DATA_EMPTY && v->pg.proc == PG_PROC_STOPPED &&
        v->config.standby_cluster) {
        p->action = ACTION_CLONE;
        (void)memcpy(p->target, REMOTE_SITE, sizeof REMOTE_SITE);
        return plan_say(p, "this node makes the standby cluster: cloning from the other site");
    }
    if (v->pg.data == PG_DATA_EMPTY && v->pg.proc == PG_PROC_STOPPED) {
        p->action = ACTION_INITDB;
        (void)memcpy(p->lineage, "1:1", 4);
        return plan_say(p, "this node makes the new cluster");
    }
    if (v->pg.data == PG_DATA_BROKEN && v->adopt && v->pg.proc == PG_PROC_STOPPED) {
        p->action = ACTION_INITDB;
        return plan_say(p, "this node makes the new cluster of the data that is here");
    }
    if (v->pg.data != PG_DATA_OURS || v->pg.proc != PG_PROC_STOPPED ||
        v->pg.incarnation[0] == '\0') {
        p->txn = TXN_BOOTSTRAP_ABORT;
        return plan_say(p, "the data directory cannot be used: %s", v->pg.trouble);
    }
    if (!v->armed || !view_lease_valid(v)) {
        (void)plan_say(p, "waiting for the fence to hold our deadline");
        return plan_wait(p, UINT64_MAX);
    }
    /* Token 1 is of a cluster that is new: a copy has had its first steps elsewhere. */
    uint64_t token = v->config.standby_cluster ? 2 : 1;
    p->txn = TXN_BOOTSTRAP_DONE;
    p->token = token;
    (void)memcpy(p->sync.leader, v->self, sizeof p->sync.leader);
    (void)memcpy(p->sync.incarnation, v->pg.incarnation, sizeof p->sync.incarnation);
    p->sync.token = token;
    p->sync.q = 1;
    const char *mode = v->config.sync_mode == SYNC_ON       ? "on"
                       : v->config.sync_mode == SYNC_QUORUM ? "quorum"
                                                            : "off";
    (void)memcpy(p->sync.mode, mode, strlen(mode) + 1);
    (void)memcpy(p->leader.name, v->self, sizeof p->leader.name);
    (void)memcpy(p->leader.incarnation, v->pg.incarnation, sizeof p->leader.incarnation);
    p->leader.token = token;
    (void)memcpy(p->leader.state, "acquired", sizeof "acquired");
    p->has_history = true;
    p->history.timeline = v->pg.timeline;
    p->history.token = 1; /* in a standby cluster nobody's */
    p->history.remote = v->config.standby_cluster;
    p->history.until = v->config.standby_cluster ? token : 0;
    (void)memcpy(p->history.name, v->self, sizeof p->history.name);
    (void)memcpy(p->history.incarnation, v->pg.incarnation, sizeof p->history.incarnation);
    (void)memcpy(p->history.reason, "bootstrap", sizeof "bootstrap");
    return plan_say(p, "the new cluster is ready: system identifier %llu",
                    (unsigned long long)v->pg.system_id);
}

static bool begin(const struct view *v, struct plan *p)
{
    if (!v->can_bootstrap)
        return wait_for_others(p, "this node may not do it");
    if (v->stopping || v->config.pause)
        return wait_for_others(p, "this node stops or is paused");
    if (v->lease == 0)
        return wait_for_others(p, "this node has no lease yet");
    if (v->pg.proc != PG_PROC_STOPPED)
        return wait_for_others(p, "and PostgreSQL runs here without one");
    bool standby = v->pg.standby_signal && !v->config.standby_cluster;
    if (v->pg.data == PG_DATA_OURS && (standby || v->pg.incarnation[0] == '\0'))
        return wait_for_others(
            p, "the data of a standby is not made a primary without being told");
    if (v->pg.data == PG_DATA_BROKEN && !v->adopt)
        return wait_for_others(p, "and the data directory of this node is broken");
    if (initdb_failed_lately(v)) {
        (void)plan_say(p, "the cluster is not initialized; %s failed here (%s): others first",
                       plan_action_name((enum plan_action)v->busy.failed_action),
                       v->busy.error);
        return plan_wait(p, v->busy.failed_ms + INITDB_AGAIN_MS);
    }
    p->txn = TXN_BOOTSTRAP_BEGIN;
    return plan_say(p, "the cluster is not initialized: this node tries to be the first");
}

bool rule_bootstrap(const struct view *v, struct plan *p)
{
    /* A record of a leader outlives an `initialize` that somebody deleted: that is no new cluster. */
    if (v->has_leader || v->has_sync)
        return false;
    if (!v->has_initialize)
        return begin(v, p);
    if (!v->initialize_leased)
        return false;
    if (strcmp(v->initialize.name, v->self) == 0)
        return go_on(v, p);
    (void)plan_say(p, "%s is making the new cluster", v->initialize.name);
    return plan_wait(p, UINT64_MAX);
}
