/* Lease and fence: granting, renewing, adopting; arming, extending, disarming. */
#include <inttypes.h>

#include "agent/engine_internal.h"
#include "base/log.h"
#include "base/mutant.h"

enum { LEASE_RETRY_MS = 200 };

static void lease_lost(struct engine *g, const char *why)
{
    log_event(LOG_WARN, "lease_gone", KV(KV_U64("lease", g->keeper.id)), "%s", why);
    keeper_gone(&g->keeper);
    g->member_known = false;
    g->lease_retry_ms = 0;
}

static void take_lease(struct engine *g, const struct lease_state *s, uint64_t nonce,
                       uint64_t submitted_ms)
{
    uint64_t ttl_ms = s->ttl_ms != 0 ? s->ttl_ms : g->view.config.ttl_ms;
    keeper_granted(&g->keeper, s->id, nonce, s->n, ttl_ms, submitted_ms);
    g->contact_ms = MAX(g->contact_ms, submitted_ms);
    g->member_known = false;
    g->lease_settled = true;
    g->o.ports->remember(g->o.arg, s->id, nonce);
    log_event(LOG_INFO, "lease",
              KV(KV_U64("lease", s->id), KV_U64("ttl_ms", ttl_ms), KV_U64("nonce", nonce)),
              "lease held");
}

static void on_grant(void *arg, const struct client_reply *reply)
{
    struct engine *g = arg;
    CHECK_MAGIC(g, ENGINE_MAGIC);
    struct lease_state s;
    struct errmsg e;
    g->lease_asked = false;
    if (reply->status != ERR_OK ||
        msg_decode(&msg_lease_state, reply->result, &s, &e) != ERR_OK || s.gone || s.id == 0)
        /* one granted all the same runs out by itself */
        g->lease_retry_ms = engine_now(g) + LEASE_RETRY_MS;
    else
        take_lease(g, &s, s.nonce, g->lease_asked_ms);
    engine_wake(g);
}

/* The first renewal of a daemon that finds the lease of the one before it: a higher nonce supersedes it. */
static void on_adopt(void *arg, const struct client_reply *reply)
{
    struct engine *g = arg;
    CHECK_MAGIC(g, ENGINE_MAGIC);
    struct lease_state s;
    struct errmsg e;
    g->lease_asked = false;
    if (reply->status != ERR_OK) {
        g->lease_retry_ms = engine_now(g) + LEASE_RETRY_MS; /* nothing known: ask again */
        g->adopt_tried = false;
    } else if (msg_decode(&msg_lease_state, reply->result, &s, &e) != ERR_OK || s.gone ||
               s.nonce != g->adopt_nonce) {
        log_event(LOG_INFO, "lease_gone", KV(KV_U64("lease", g->fence.lease)),
                  "the lease of the daemon before has run out");
        g->lease_retry_ms = 0;
        g->lease_settled = true;
    } else {
        take_lease(g, &s, s.nonce, g->lease_asked_ms);
    }
    engine_wake(g);
}

/* The fence holds no more than this, and nothing in this tick knows of more. */
static bool shorten(struct engine *g, uint64_t deadline_ms)
{
    if (!g->o.ports->shorten(g->o.arg, deadline_ms))
        return false;
    g->fence.deadline_ms = MIN(g->fence.deadline_ms, deadline_ms);
    g->view.deadline_ms = MIN(g->view.deadline_ms, deadline_ms);
    return true;
}

/* The store answers a renewal that it has seen like any other, and the deadline counts from this try: so no try has
 * the nonce of another, also not of a daemon that died before its answer. */
static void adopt(struct engine *g, uint64_t ttl_ms)
{
    /* It may be shorter than that of the daemon before. */
    if (!shorten(g, keeper_deadline(g->lease_asked_ms, ttl_ms)))
        return;
    g->lease_asked = true;
    g->adopt_tried = true;
    g->adopt_nonce = g->fence.nonce + 1;
    struct lease_renew r = {
        .id = g->fence.lease, .nonce = g->adopt_nonce, .n = 1, .ttl_ms = ttl_ms};
    if (!MUTANT(adoption_resent))
        g->o.ports->remember(g->o.arg, r.id, r.nonce);
    g->o.ports->call(g->o.arg, METHOD_LEASE_RENEW, &r, ttl_ms, on_adopt, g);
}

static void ask_lease(struct engine *g, uint64_t now_ms)
{
    g->lease_asked_ms = now_ms;
    uint64_t ttl_ms = g->view.config.ttl_ms;
    if (!g->adopt_tried && g->fence.connected && g->fence.lease != 0) {
        adopt(g, ttl_ms);
        return;
    }
    g->lease_asked = true;
    g->adopt_tried = true;
    struct lease_grant r = {.ttl_ms = ttl_ms, .nonce = 1};
    g->o.ports->call(g->o.arg, METHOD_LEASE_GRANT, &r, ttl_ms, on_grant, g);
}

/* The fence saw the clocks disagree: a renewal begun after that and acknowledged clears it. */
static void confirm_fence(struct engine *g, uint64_t acked_n)
{
    if (g->challenge_n == 0 || acked_n < g->challenge_n)
        return;
    g->challenge_n = 0;
    if (!view_leader_named(&g->view))
        return;
    g->o.ports->extend(g->o.arg, g->keeper.deadline_ms);
    g->o.ports->confirm(g->o.arg, g->challenge);
}

static void on_renew(void *arg, const struct client_reply *reply)
{
    struct engine *g = arg;
    CHECK_MAGIC(g, ENGINE_MAGIC);
    struct lease_state s;
    struct errmsg e;
    if (reply->status != ERR_OK ||
        msg_decode(&msg_lease_state, reply->result, &s, &e) != ERR_OK)
        return; /* the next renewal is due soon anyway */
    if (s.id != g->keeper.id && !s.gone)
        return; /* of a lease before this one */
    if (s.gone || s.nonce != g->keeper.nonce) {
        if (s.id == g->keeper.id)
            lease_lost(g, s.gone ? "the lease has run out"
                                 : "another daemon of this node has taken the lease over");
    } else {
        const struct keeper_submission *sub = &g->keeper.out[s.n % KEEPER_OUTSTANDING];
        if (sub->n == s.n)
            g->contact_ms = MAX(g->contact_ms, sub->at_ms);
        keeper_acked(&g->keeper, s.n);
        keeper_align(&g->keeper, engine_now(g));
        g->position_due = true;
        confirm_fence(g, s.n);
        if (g->fence.armed && view_leader_named(&g->view))
            g->o.ports->extend(g->o.arg, g->keeper.deadline_ms);
    }
    engine_wake(g);
}

/* The fence tells of the lease to adopt. After a TTL without it there is none any more. */
static bool may_ask(const struct engine *g, uint64_t now_ms)
{
    bool told =
        g->adopt_tried || g->fence.connected || now_ms >= g->born_ms + g->view.config.ttl_ms;
    return told && !g->lease_asked && g->mirror.complete && now_ms >= g->lease_retry_ms;
}

/* A shorter one binds as soon as the store has it: the fence holds it before, or PostgreSQL would outlive the lease. */
static uint64_t ttl_to_ask(struct engine *g, uint64_t now_ms)
{
    uint64_t ttl_ms = g->view.config.ttl_ms;
    if (ttl_ms < g->keeper.ttl_ms && !MUTANT(fence_keeps_longer_ttl) &&
        !shorten(g, keeper_deadline(now_ms, ttl_ms)))
        return g->keeper.ttl_ms;
    return ttl_ms;
}

void engine_lease_step(struct engine *g)
{
    uint64_t now_ms = engine_now(g);
    if (!g->connected || g->stopped || g->revoking)
        return;
    if (g->keeper.id == 0) {
        if (may_ask(g, now_ms))
            ask_lease(g, now_ms);
        return;
    }
    if (g->planned && g->plan.withhold)
        return;
    bool urgent = g->fence.challenge != g->challenge;
    if (!urgent && !keeper_due(&g->keeper, now_ms))
        return;
    uint64_t n = keeper_submit(&g->keeper, ttl_to_ask(g, now_ms), now_ms);
    struct lease_renew r = {.id = g->keeper.id,
                            .nonce = g->keeper.nonce,
                            .n = n,
                            .ttl_ms = g->keeper.ttl_ms,
                            .urgent = urgent};
    if (urgent) {
        g->challenge = g->fence.challenge;
        g->challenge_n = n;
    }
    g->o.ports->call(g->o.arg, METHOD_LEASE_RENEW, &r, g->keeper.ttl_ms, on_renew, g);
}

/* What the deadline is held for: the token of the key that is there, else the one a bootstrap will give. */
uint64_t engine_arm_token(const struct view *v)
{
    return v->has_leader ? v->leader.token : v->sync.token + 1;
}

/* The plan says whether the fence must hold our deadline; it lets go only of a PostgreSQL that cannot
 * take writes, also not in a moment. */
void engine_fence_step(struct engine *g)
{
    const struct view *v = &g->view;
    if (v->pg.proc == PG_PROC_STOPPED && g->busy.action == ACTION_NONE)
        g->may_write = false;
    bool ours = !v->has_leader || view_leader_named(v);
    if (g->plan.arm && ours && view_lease_valid(v)) {
        if (!g->fence.armed || g->fence.token != engine_arm_token(v))
            g->o.ports->arm(g->o.arg, engine_arm_token(v), v->deadline_ms);
        else
            g->o.ports->extend(g->o.arg, v->deadline_ms);
        return;
    }
    /* That the plan lets go of a primary has been recorded before: rules_pause.c. */
    bool recorded = view_disarmed(v) && v->config.pause && view_is_leader(v) && !v->tilt;
    bool harmless =
        v->pg.proc == PG_PROC_STOPPED || (v->pg.in_recovery && !g->may_write) || recorded;
    if (g->fence.armed && !g->plan.arm && v->dcs_ready && harmless &&
        g->busy.action == ACTION_NONE)
        g->o.ports->disarm(g->o.arg);
}

static void on_revoke(void *arg, const struct client_reply *reply)
{
    struct engine *g = arg;
    CHECK_MAGIC(g, ENGINE_MAGIC);
    (void)reply; /* a lease that could not be revoked runs out */
    g->revoking = false;
    g->stopped = true;
    keeper_gone(&g->keeper);
    g->o.ports->remember(g->o.arg, 0, 0);
    engine_wake(g);
}

void engine_revoke(struct engine *g)
{
    if (g->keeper.id == 0) {
        g->stopped = true;
        return;
    }
    g->revoking = true;
    struct lease_revoke r = {.id = g->keeper.id};
    g->o.ports->call(g->o.arg, METHOD_LEASE_REVOKE, &r, 1000, on_revoke, g);
}
