/* One failover after another: as soon as somebody leads and is acknowledged, it is struck, while those before it
 * are still rewound, cloned, sealed or on their way back. What a seed of the other scenarios meets once or twice
 * comes here twenty times. */
#include "tests/sim/node_world.h"

enum { LOOK_MS = 40, FRESH_MS = 100, LONG_MS = 2000 };

/* Somebody could take over: mostly it is waited for. */
static bool has_heir(const struct sim *w, const struct sim_node *x)
{
    const struct view *v = engine_view(x->engine);
    if (view_record_mode(v) != SYNC_OFF)
        return v->sync.v_n > 0;
    for (size_t i = 0; i < w->n; i++)
        if (x->pg.senders[i].conn != 0 && x->pg.senders[i].flushed + 3 > x->data.n)
            return true;
    return false;
}

static void strike(struct sim *w, struct sim_node *x)
{
    uint64_t how = sim_random(w, 100);
    if (how < 50)
        fault_postmaster(w, x, 0);
    else if (how < 85)
        order_switchover(w, x, 0);
    else if (how < 95)
        fault_fence(w, x, 0);
    else if (how < 98)
        fault_machine(w, x, faults_left(w, sim_between(w, 300 * MS, 3 * SEC)));
    else
        fault_daemon(w, x, faults_left(w, sim_between(w, 50 * MS, 6 * SEC)));
}

static void on_rush(struct sim *w, struct sim_node *none, void *arg)
{
    (void)none;
    (void)arg;
    struct sim_node *x = faults_primary(w);
    if (w->now_us >= w->quiet_us)
        return;
    bool leads = x != NULL && x->up[DAEMON] && w->now_us - w->last_ack_us < FRESH_MS * MS;
    bool again =
        leads && (x->pg.token != w->struck_token || w->now_us > w->struck_us + LONG_MS * MS);
    if (again && (has_heir(w, x) || sim_chance(w, 20))) {
        w->struck_token = x->pg.token;
        w->struck_us = w->now_us;
        if (faults_next(w))
            strike(w, x);
    }
    sim_at(w, NULL, WORLD, sim_random(w, 2 * LOOK_MS * MS), "rush", on_rush, NULL);
}

void rush_begin(struct sim *w)
{
    sim_at(w, NULL, WORLD, 6 * SEC, "rush", on_rush, NULL);
}
