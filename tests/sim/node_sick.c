/* Disks and servers that fall ill: the signs are the model's, their judgement is production code
 * (agent/pg_health.h), and so is what is done about them. With on_sick_node: failover a healthy member takes
 * over; what must never be is that two of them throw the key at each other. */
#include <stdio.h>

#include "base/mem.h"
#include "tests/sim/node_world.h"

enum { STEP_MS = 500 };

/* Short, so that a hand-over for sickness is seen twice in one seed. */
void sick_config(struct sim *w)
{
    struct config_rec *c = &w->config;
    const char *what = sim_chance(w, 900) ? "failover" : "report";
    (void)snprintf(c->on_sick_node, sizeof c->on_sick_node, "%s", what);
    w->promised_sick_s = sim_between(w, 12, 30);
    c->sick_failover_interval = w->mutation == MUTATION_NO_DAMPING ? 1 : w->promised_sick_s;
}

/* ---- illness ---- */

bool sick_is(const struct sim_node *x, enum sick what)
{
    return x->ill == what && x->ill_until_us > x->w->now_us;
}

uint64_t sick_wait_us(const struct sim_node *x)
{
    return sick_is(x, SICK_STUCK) ? x->ill_until_us - x->w->now_us : 0;
}

void fault_illness(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    static const enum sick what[] = {SICK_ARCHIVE, SICK_FULL, SICK_HUNG, SICK_STUCK};
    if (x->ill_until_us > w->now_us || x->machine_down)
        return;
    x->ill = what[sim_random(w, ARRAY_LEN(what))];
    x->ill_since_us = w->now_us;
    x->ill_until_us = w->now_us + for_us;
    sim_note(w, x, "falls ill for %.1f s: %s", (double)for_us / 1e6, sick_name(x->ill));
    if (x->ill >= SICK_HUNG)
        domain_pause(x, POSTGRES, for_us);
}

void sick_heal(struct sim_node *x)
{
    x->ill_until_us = 0;
}

/* ---- the signs, as the agent comes by them ---- */

static bool lasts(const struct sim_node *x, enum sick what, uint64_t ms)
{
    return sick_is(x, what) && x->w->now_us >= x->ill_since_us + ms * MS;
}

/* A server that has been killed for it, and started again, answers. */
static bool hangs(const struct sim_node *x)
{
    return x->agent.postmaster != 0 && x->paused_until_us[POSTGRES] > x->w->now_us &&
           lasts(x, SICK_HUNG, HEALTH_LATE_MS);
}

static void on_health(struct sim *w, struct sim_node *x, void *arg)
{
    struct health *h = &x->agent.health;
    char why[sizeof h->why];
    bool full = sick_is(x, SICK_FULL);
    struct health_signs s = {
        .late = lasts(x, SICK_STUCK, HEALTH_LATE_MS + HEALTH_EVERY_MS / 2),
        .written = full ? ERR_NO_SPACE : ERR_OK,
        .room_known = true,
        .data_free = full ? 0 : (uint64_t)10 << 30,
        .wal_free = full                       ? 0
                    : sick_is(x, SICK_ARCHIVE) ? (uint64_t)1 << 30
                                               : (uint64_t)50 << 30,
        .wal_size = (uint64_t)100 << 30,
        .hung = hangs(x) ? "the backends do not answer" : NULL,
        .unarchived = sick_is(x, SICK_ARCHIVE) ? "000000010000000000000001" : "",
    };
    (void)arg;
    enum sick now = health_judge(&s, "/data", why, sizeof why);
    health_note(h, now, why, clock_of(x));
    see_told(x);
    sim_at(w, x, DAEMON, STEP_MS * MS, "health", on_health, NULL);
}

void sick_start(struct sim_node *x)
{
    if (x->w->scenario == SCENARIO_SICK)
        sim_at(x->w, x, DAEMON, sim_random(x->w, STEP_MS * MS), "health", on_health, NULL);
}

/* ---- what must never be ---- */

/* A leader that has relieved a sick one stays at least sick_failover_interval, by a clock that may be a
 * twentieth fast. A failure or an operator may move the key before, but that is no relief. */
void check_relief(struct sim_node *x, const struct view *v, const struct plan *p)
{
    struct sim *w = x->w;
    uint64_t token = v->leader.token;
    if ((!p->relief && !p->withhold) || token >= SIM_TOKENS || token != w->key_token)
        return;
    uint64_t since_us = w->relieved_us[token];
    uint64_t least_us = w->promised_sick_s * SEC / 106 * 100;
    if (p->relief)
        w->relief_token = token;
    if (since_us != 0 && w->now_us < since_us + least_us)
        sim_violation(w,
                      "%s, sick, wants to be relieved %.1f s after it relieved another: "
                      "sick_failover_interval is %llu s",
                      x->name, (double)(w->now_us - since_us) / 1e6,
                      (unsigned long long)w->promised_sick_s);
}

/* Who cannot talk lost the key for another reason, whatever it wanted. */
void check_key_gone(struct sim *w)
{
    const struct sim_node *x = sim_node_named(w, w->key_name);
    bool talks = x != NULL && domain_runs(x, DAEMON);
    for (size_t i = 0; talks && i < w->n; i++)
        talks = net_open(w, x, &w->node[i]) && net_open(w, &w->node[i], x);
    w->relief_token = talks ? w->relief_token : 0;
}

void check_relieved(struct sim *w, uint64_t token, bool other)
{
    if (w->relief_token == 0 || w->relief_token != w->key_token || !other)
        return;
    w->relieved_us[token] = w->now_us;
    w->reliefs++;
    sim_note(w, NULL, "token %llu relieves a sick leader", (unsigned long long)token);
}
