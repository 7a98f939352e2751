/* The store: leases that end and transactions with the comparisons of docs/ha-protocol.md. */
#include <stdio.h>

#include "base/assert.h"
#include "tests/sim/core_world.h"

bool store_lease_alive(const struct world *w, uint64_t lease)
{
    return lease != 0 && w->lease_end_ms[lease] > w->now_ms;
}

void store_tick(struct world *w)
{
    struct store *s = &w->store;
    if (s->has_leader && !store_lease_alive(w, s->leader_lease)) {
        world_log(w, NULL, "leader key of %s expires", s->leader.name);
        s->has_leader = false;
        s->revision++;
    }
    if (s->has_initialize && s->initialize_leased &&
        !store_lease_alive(w, s->initialize_lease)) {
        s->has_initialize = false;
        s->initialize_leased = false;
        s->revision++;
    }
    for (size_t i = 0; i < w->n; i++)
        if (s->member_lease[i] != 0 && !store_lease_alive(w, s->member_lease[i])) {
            s->member_lease[i] = 0;
            s->revision++;
        }
}

static bool leader_ours(const struct store *s, const struct node *x,
                        const struct pending_txn *t)
{
    return s->has_leader && strcmp(s->leader.name, x->name) == 0 &&
           s->leader_lease == t->lease && s->leader.token == t->plan.token;
}

static void put_sync(struct store *s, const struct sync_rec *r)
{
    s->sync_before = s->sync;
    s->sync = *r;
    s->has_sync = true;
    s->sync_rev = s->revision;
}

static void put_history(struct store *s, const struct history_entry *h)
{
    if (s->history_n == VIEW_HISTORY) {
        (void)memmove(&s->history[0], &s->history[1],
                      (VIEW_HISTORY - 1) * sizeof s->history[0]);
        s->history_n--;
    }
    s->history[s->history_n++] = *h;
}

static bool seals_unchanged(const struct world *w, const struct pending_txn *t)
{
    for (size_t c = 0; c < t->plan.counted_n; c++)
        for (size_t i = 0; i < w->n; i++)
            if (strcmp(w->node[i].name, t->counted[c]) == 0 &&
                w->store.seal_rev[i] != t->seal_rev[c])
                return false;
    return true;
}

static bool bootstrap_txn(struct world *w, struct node *x, const struct pending_txn *t)
{
    struct store *s = &w->store;
    bool ours = s->has_initialize && s->initialize_leased && s->initialize_lease == t->lease;
    if (t->plan.txn == TXN_BOOTSTRAP_BEGIN) {
        if (s->has_initialize)
            return false;
        s->has_initialize = true;
        s->initialize_leased = true;
        s->initialize_lease = t->lease;
        (void)memset(&s->initialize, 0, sizeof s->initialize);
        (void)memcpy(s->initialize.name, x->name, sizeof s->initialize.name);
        return true;
    }
    if (!ours)
        return false;
    if (t->plan.txn == TXN_BOOTSTRAP_ABORT) {
        s->has_initialize = false;
        return true;
    }
    s->initialize_leased = false;
    s->initialize.system_id = 77;
    s->has_leader = true;
    s->leader = t->plan.leader;
    s->leader_lease = t->lease;
    put_sync(s, &t->plan.sync);
    put_history(s, &t->plan.history);
    return true;
}

static bool leader_txn(struct world *w, struct node *x, const struct pending_txn *t)
{
    struct store *s = &w->store;
    const struct plan *p = &t->plan;
    if (!leader_ours(s, x, t) || s->sync_rev != t->sync_rev)
        return false;
    if (p->txn == TXN_SYNC) {
        put_sync(s, &p->sync);
    } else if (p->txn == TXN_LEADER_STATE) {
        s->leader = p->leader;
        if (p->has_history)
            put_history(s, &p->history);
    } else if (p->txn == TXN_RELEASE) {
        s->has_leader = false;
        if (p->restore_sync)
            put_sync(s, &p->sync);
    } else {
        struct node *to = world_node(w, p->target);
        size_t at = (size_t)(to - w->node);
        if (s->member_lease[at] == 0 ||
            strcmp(s->members[at].incarnation, p->leader.incarnation) != 0)
            return false;
        s->leader = p->leader;
        s->leader_lease = s->member_lease[at];
        put_sync(s, &p->sync);
        s->has_failover = false;
    }
    return true;
}

static bool acquire_txn(struct world *w, struct node *x, const struct pending_txn *t)
{
    struct store *s = &w->store;
    if (s->has_leader || s->sync_rev != t->sync_rev || !seals_unchanged(w, t))
        return false;
    s->has_leader = true;
    (void)memset(&s->leader, 0, sizeof s->leader);
    (void)memcpy(s->leader.name, x->name, sizeof s->leader.name);
    (void)memcpy(s->leader.incarnation, t->plan.sync.incarnation, sizeof s->leader.incarnation);
    (void)snprintf(s->leader.state, sizeof s->leader.state, "acquired");
    s->leader.token = t->plan.sync.token;
    (void)memcpy(s->leader.relieves, t->plan.leader.relieves, sizeof s->leader.relieves);
    s->leader_lease = t->lease;
    put_sync(s, &t->plan.sync);
    return true;
}

bool store_apply(struct world *w, struct node *x, const struct pending_txn *t)
{
    struct store *s = &w->store;
    const struct plan *p = &t->plan;
    bool ok = false;
    if (!store_lease_alive(w, t->lease))
        return false;
    s->revision++;
    switch (p->txn) {
    case TXN_BOOTSTRAP_BEGIN:
    case TXN_BOOTSTRAP_DONE:
    case TXN_BOOTSTRAP_ABORT:
        ok = bootstrap_txn(w, x, t);
        break;
    case TXN_ACQUIRE:
        ok = acquire_txn(w, x, t);
        break;
    case TXN_RELEASE:
    case TXN_HANDOVER:
    case TXN_LEADER_STATE:
    case TXN_SYNC:
        ok = leader_txn(w, x, t);
        break;
    case TXN_SEAL:
        ok = !s->has_leader && s->has_sync && s->sync.token == p->token;
        if (ok) {
            size_t at = (size_t)(x - w->node);
            s->seals[at] = p->seal;
            s->seal_rev[at] = s->revision;
        }
        break;
    case TXN_REQUEST:
    case TXN_CLEAR_REQUEST:
        UNREACHABLE(); /* nobody asks for anything here */
    case TXN_CLEAR_FAILOVER:
        ok = s->has_failover && s->failover_rev == t->failover_rev;
        if (ok)
            s->has_failover = false;
        break;
    case TXN_NONE:
    case TXN_COUNT:
        break;
    }
    world_log(w, x, "txn %s %s: %s", plan_txn_name(p->txn), ok ? "applied" : "refused",
              p->reason);
    return ok;
}
