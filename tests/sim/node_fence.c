/* The fence: holds the deadline on the node's clock and kills PostgreSQL before it, whatever has become
 * of the daemon. When it dies the kernel ends PostgreSQL with it; the daemon starts another one. */
#include "base/assert.h"
#include "base/mem.h"
#include "tests/sim/node_world.h"

/* What the daemon hears, a moment later. */
static void on_told(struct sim *w, struct sim_node *x, void *arg)
{
    (void)w;
    (void)arg;
    see_fence(x);
    daemon_wake(x);
}

void fence_told(struct sim_node *x)
{
    if (x->up[DAEMON])
        sim_at(x->w, x, DAEMON, 100 + sim_random(x->w, 2 * MS), "fence told", on_told, NULL);
}

/* ---- the deadline ---- */

static void watch_deadline(struct sim_node *x);

static void on_look(struct sim *w, struct sim_node *x, void *arg)
{
    struct fence_model *f = &x->fence;
    (void)arg;
    if (!f->armed)
        return;
    if (clock_of(x) + SIM_KILL_BUDGET_MS < f->deadline_ms) {
        watch_deadline(x);
        return;
    }
    if (w->mutation == MUTATION_FENCE_IDLE)
        return;
    f->armed = false; /* doomed until it is armed anew */
    if (x->pg.proc != PG_PROC_STOPPED) {
        sim_note(w, x, "the fence kills at the deadline");
        pg_kill(x, sim_between(w, 5 * MS, 140 * MS), false, true);
    }
    fence_told(x);
}

/* An extension moves the deadline; the look that was planned finds that out. */
static void watch_deadline(struct sim_node *x)
{
    uint64_t at =
        x->fence.deadline_ms - MIN(x->fence.deadline_ms, (uint64_t)SIM_KILL_BUDGET_MS);
    sim_at(x->w, x, FENCE, until_local(x, at), "deadline look", on_look, NULL);
}

/* ---- orders ---- */

struct arming {
    uint64_t token, deadline_ms;
    unsigned daemon; /* the life of who sent it */
};

static uint64_t held_until(const struct sim_node *x, uint64_t deadline_ms)
{
    return x->w->mutation == MUTATION_NO_DEADLINE ? deadline_ms + 600000 : deadline_ms;
}

static void on_arm(struct sim *w, struct sim_node *x, void *arg)
{
    const struct arming *a = arg;
    struct fence_model *f = &x->fence;
    if (a->daemon == x->life[DAEMON] && x->agent.arming > 0)
        x->agent.arming--;
    if (!f->armed && a->deadline_ms <= clock_of(x) + SIM_KILL_BUDGET_MS) {
        sim_note(w, x, "the fence refuses a deadline that is too near");
        return;
    }
    sim_note(w, x, "armed for token %llu", (unsigned long long)a->token);
    f->armed = true;
    f->token = a->token;
    f->deadline_ms = held_until(x, a->deadline_ms);
    watch_deadline(x);
    fence_told(x);
}

void sim_arm(void *arg, uint64_t token, uint64_t deadline_ms)
{
    struct sim_node *x = arg;
    struct arming a = {token, deadline_ms, x->life[DAEMON]};
    if (!x->up[FENCE])
        return;
    x->agent.arming++;
    sim_at(x->w, x, FENCE, 100 + sim_random(x->w, MS), "arm", on_arm, mem_dup(&a, sizeof a));
}

/* Shared memory: it takes no help of the fence. */
void sim_extend(void *arg, uint64_t deadline_ms)
{
    struct sim_node *x = arg;
    if (x->up[FENCE] && x->fence.armed)
        x->fence.deadline_ms = MAX(x->fence.deadline_ms, held_until(x, deadline_ms));
}

bool sim_shorten(void *arg, uint64_t deadline_ms)
{
    struct sim_node *x = arg;
    if (!x->up[FENCE] || x->agent.arming > 0)
        return false; /* the order under way has the longer one */
    if (x->w->mutation == MUTATION_NO_SHORTENING)
        return true;
    x->fence.deadline_ms = MIN(x->fence.deadline_ms, held_until(x, deadline_ms));
    if (x->fence.armed)
        watch_deadline(x); /* the look that was planned is too late */
    return true;
}

static void on_disarm(struct sim *w, struct sim_node *x, void *arg)
{
    (void)arg;
    sim_note(w, x, "disarmed");
    check_disarm(x);
    x->fence.armed = false;
    fence_told(x);
}

void sim_disarm(void *arg)
{
    struct sim_node *x = arg;
    if (x->up[FENCE])
        sim_at(x->w, x, FENCE, 100 + sim_random(x->w, MS), "disarm", on_disarm, NULL);
}

/* The clocks of a node agree here: nothing is ever in doubt. */
void sim_confirm(void *arg, uint64_t challenge)
{
    (void)arg;
    (void)challenge;
}

static void on_kill(struct sim *w, struct sim_node *x, void *arg)
{
    (void)arg;
    check_kill(x);
    if (x->pg.proc != PG_PROC_STOPPED)
        pg_kill(x, sim_between(w, 1 * MS, 40 * MS), true, false);
}

void sim_kill(void *arg)
{
    struct sim_node *x = arg;
    if (x->up[FENCE])
        sim_at(x->w, x, FENCE, 100 + sim_random(x->w, MS), "kill", on_kill, NULL);
}

void sim_remember(void *arg, uint64_t lease, uint64_t nonce)
{
    struct sim_node *x = arg;
    x->agent.remembers = true;
    x->agent.lease = lease;
    x->agent.nonce = nonce;
    sim_recall(x);
}

void sim_recall(struct sim_node *x)
{
    if (!x->up[FENCE] || !x->agent.fence_connected || !x->agent.remembers)
        return;
    x->fence.lease = x->agent.lease;
    x->fence.nonce = x->agent.nonce;
}

/* ---- what the daemon sees ---- */

void sim_fence(void *arg, struct fence_state *ret)
{
    struct sim_node *x = arg;
    const struct fence_model *f = &x->fence;
    bool connected = x->up[FENCE] && x->agent.fence_connected;
    *ret = (struct fence_state){.connected = connected,
                                .adopted = true,
                                .heartbeat_ms = clock_of(x),
                                .kill_budget_ms = SIM_KILL_BUDGET_MS};
    bool left = x->pg.proc != PG_PROC_STOPPED;
    ret->processes_left = left;
    if (!connected)
        return;
    bool postmaster = left && x->pg.proc != PG_PROC_DYING;
    ret->postmaster = postmaster ? 1000 + x->pg.starts : 0;
    ret->exited = !postmaster && x->pg.starts > 0;
    ret->requested = !x->pg.crashed;
    ret->fenced = x->pg.fenced;
    ret->armed = f->armed;
    ret->token = f->token;
    ret->deadline_ms = f->deadline_ms;
    ret->lease = f->lease;
    ret->nonce = f->nonce;
    ret->starts = x->pg.starts;
}

/* ---- life ---- */

void fence_start(struct sim_node *x)
{
    domain_begin(x, FENCE);
    x->fence = (struct fence_model){.alive = true};
    x->agent.arming = 0;
}

static void on_respawn(struct sim *w, struct sim_node *x, void *arg)
{
    (void)arg;
    if (x->up[FENCE])
        return;
    sim_note(w, x, "another fence");
    fence_start(x);
    x->agent.fence_connected = true;
    sim_recall(x);
    fence_told(x);
}

void fence_die(struct sim_node *x)
{
    if (!x->up[FENCE])
        return;
    sim_note(x->w, x, "the fence dies");
    domain_end(x, FENCE);
    x->fence = (struct fence_model){0};
    if (x->pg.proc != PG_PROC_STOPPED)
        pg_kill(x, sim_between(x->w, 2 * MS, 45 * MS), false, true);
    fence_told(x);
    if (x->up[DAEMON])
        sim_at(x->w, x, DAEMON, 100 * MS + sim_random(x->w, 300 * MS), "respawn", on_respawn,
               NULL);
}
