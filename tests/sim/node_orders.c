/* Operators: what they ask for, as regentctl writes it (read, compare, replace), and whether what was
 * answered as done was done. Each asks at some node, and the answer may never come. */
#include <stdio.h>

#include "base/assert.h"
#include "base/mem.h"
#include "proto/msg.h"
#include "tests/sim/node_world.h"

static void nobody_asks(void *arg, uint64_t tag, enum err status, const char *text,
                        struct slice result)
{
    (void)arg;
    (void)tag;
    (void)status;
    (void)text;
    (void)result;
}

/* Replaces the record when it is still at `mod`; 0: when there is none. */
static void replace(struct sim_node *at, const char *name, uint64_t mod, const struct msg *m,
                    const void *record)
{
    char key[96];
    struct msg_list compare = {0};
    struct msg_list then = {0};
    struct buf json CLEANUP(buf_close) = BUF_INIT;
    struct buf params CLEANUP(buf_close) = BUF_INIT;
    struct buf compares CLEANUP(buf_close) = BUF_INIT;
    struct buf ops CLEANUP(buf_close) = BUF_INIT;
    if (!domain_runs(at, DAEMON))
        return;
    (void)snprintf(key, sizeof key, "/regent/sim/%s", name);
    msg_to_json(m, record, &json);
    struct compare c = {.key = slice_str(key), .target = "mod", .op = "=", .number = mod};
    struct txn_op op = {.op = "put", .key = slice_str(key), .value = buf_slice(&json)};
    msg_list_append(&compare, &msg_compare, &c);
    msg_list_append(&then, &msg_txn_op, &op);
    msg_list_end(&compare, &compares);
    msg_list_end(&then, &ops);
    struct txn_req r = {.compare = buf_slice(&compares), .then = buf_slice(&ops)};
    msg_encode(&msg_txn_req, &r, &params);
    struct node_caller caller = {.cb = nobody_asks};
    node_request(at->node, METHOD_KV_TXN, buf_slice(&params), &caller);
    daemon_pass(at);
}

static const struct mirror *mirror_at(const struct sim_node *x)
{
    return domain_runs(x, DAEMON) ? engine_mirror(x->engine) : NULL;
}

static void new_id(struct sim *w, char ret[static 40])
{
    (void)snprintf(ret, 40, "o%llu", (unsigned long long)++w->orders);
}

/* A wall-clock time a little ahead, now and then. */
static uint64_t some_time(struct sim *w)
{
    return sim_chance(w, 200) ? sim_wall_ms(w) + sim_between(w, 500, 6000) : 0;
}

/* ---- the dynamic configuration ---- */

void order_mode(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    static const char *const modes[] = {"off", "on", "quorum"};
    const struct mirror *m = mirror_at(x);
    (void)for_us;
    if (m == NULL || !m->config_meta.present)
        return;
    struct config_rec c = m->config;
    (void)snprintf(c.synchronous_mode, sizeof c.synchronous_mode, "%s",
                   modes[sim_random(w, ARRAY_LEN(modes))]);
    c.synchronous_mode_strict = sim_chance(w, 300);
    sim_note(w, x, "synchronous_mode: %s%s", c.synchronous_mode,
             c.synchronous_mode_strict ? ", strict" : "");
    replace(x, "config", m->config_meta.mod_revision, &msg_config_rec, &c);
}

static void set_ttl(struct sim_node *x, uint64_t ttl_s)
{
    struct sim *w = x->w;
    const struct mirror *m = mirror_at(x);
    if (m == NULL || !m->config_meta.present || m->config.ttl == ttl_s)
        return;
    struct config_rec c = m->config;
    c.ttl = c.loop_wait = ttl_s;
    w->longest_ttl_s = MAX(w->longest_ttl_s, ttl_s);
    sim_note(w, x, "ttl: %llu", (unsigned long long)ttl_s);
    replace(x, "config", m->config_meta.mod_revision, &msg_config_rec, &c);
}

/* Much longer and back: what was told of the longer time must not outlive the shorter. */
void order_ttl(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    const struct mirror *m = mirror_at(x);
    (void)for_us;
    if (m != NULL)
        set_ttl(x, m->config.ttl > w->config.ttl || sim_chance(w, 300) ? sim_between(w, 5, 7)
                                                                       : sim_between(w, 8, 16));
}

static void set_pause(struct sim_node *x, bool on)
{
    const struct mirror *m = mirror_at(x);
    if (m == NULL || !m->config_meta.present || m->config.pause == on)
        return;
    struct config_rec c = m->config;
    c.pause = on;
    sim_note(x->w, x, "%s is asked for", on ? "a pause" : "a resume");
    replace(x, "config", m->config_meta.mod_revision, &msg_config_rec, &c);
}

/* resume --force: only of a holder whose machine is down, which is what the operator vouches for. */
static void take_flag_back(struct sim_node *x)
{
    const struct mirror *m = mirror_at(x);
    if (m == NULL || !m->sync_meta.present || !m->sync.disarmed)
        return;
    const struct sim_node *holder = sim_node_named(x->w, m->sync.leader);
    if (holder == NULL || !holder->machine_down)
        return;
    struct sync_rec s = m->sync;
    s.disarmed = false;
    sim_note(x->w, x, "resume --force, for %s is down", holder->name);
    replace(x, "sync", m->sync_meta.mod_revision, &msg_sync_rec, &s);
}

static void on_resume(struct sim *w, struct sim_node *none, void *arg)
{
    struct sim_node *x = &w->node[sim_random(w, w->n)];
    (void)none;
    (void)arg;
    set_pause(x, false);
    if (sim_chance(w, 500))
        take_flag_back(x);
}

void order_pause(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    set_pause(x, true);
    sim_at(w, NULL, WORLD, for_us, "resume", on_resume, NULL);
}

/* ---- another leader ---- */

void order_switchover(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    const struct mirror *m = mirror_at(x);
    struct failover_rec f = {.kind = "switchover"};
    (void)for_us;
    if (m == NULL || m->failover_meta.present)
        return;
    if (sim_chance(w, 500))
        (void)snprintf(f.candidate, sizeof f.candidate, "%s",
                       w->node[sim_random(w, w->n)].name);
    if (sim_chance(w, 500))
        (void)snprintf(f.leader, sizeof f.leader, "%s", m->leader.name);
    f.at_ms = some_time(w);
    new_id(w, f.id);
    sim_note(w, x, "switchover is asked for, to \"%s\"%s", f.candidate,
             f.at_ms != 0 ? ", later" : "");
    replace(x, "failover", 0, &msg_failover_rec, &f);
}

/* Forced, commits may be lost: it is for those who know that there is no better one. */
void order_failover(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    const struct mirror *m = mirror_at(x);
    struct failover_rec f = {.kind = "failover", .force = sim_chance(w, 300)};
    (void)for_us;
    if (m == NULL || m->failover_meta.present)
        return;
    (void)snprintf(f.candidate, sizeof f.candidate, "%s", w->node[sim_random(w, w->n)].name);
    new_id(w, f.id);
    sim_note(w, x, "failover is asked for, to %s%s", f.candidate, f.force ? ", forced" : "");
    replace(x, "failover", 0, &msg_failover_rec, &f);
}

/* ---- one node's PostgreSQL ---- */

static void ask(struct sim_node *x, uint64_t mod, struct request_rec *r)
{
    char name[32];
    struct order *o = &x->order;
    (void)snprintf(name, sizeof name, "request/%s", x->name);
    new_id(x->w, r->id);
    *o = (struct order){.starts = x->pg.starts};
    memcpy(o->id, r->id, sizeof o->id);
    memcpy(o->kind, r->kind, sizeof o->kind);
    memcpy(o->incarnation, x->data.incarnation, sizeof o->incarnation);
    sim_note(x->w, x, "%s is asked for%s", r->kind, r->at_ms != 0 ? ", later" : "");
    replace(x, name, mod, &msg_request_rec, r);
}

static void start_again(struct sim_node *x)
{
    const struct mirror *m = mirror_at(x);
    struct request_rec r = {.kind = "start"};
    if (m != NULL && m->request_meta.present && strcmp(m->request.kind, "stop") == 0)
        ask(x, m->request_meta.mod_revision, &r);
}

static void on_start_again(struct sim *w, struct sim_node *none, void *arg)
{
    (void)none;
    start_again(&w->node[*(uint64_t *)arg - 1]);
}

void order_request(struct sim *w, struct sim_node *x, uint64_t for_us)
{
    static const char *const kinds[] = {"restart",      "restart", "reinitialize",
                                        "reinitialize", "reload",  "stop"};
    const struct mirror *m = mirror_at(x);
    struct request_rec r = {0};
    if (m == NULL || m->request_meta.present)
        return;
    (void)snprintf(r.kind, sizeof r.kind, "%s", kinds[sim_random(w, ARRAY_LEN(kinds))]);
    bool stop = strcmp(r.kind, "stop") == 0;
    if (strcmp(r.kind, "restart") == 0) {
        r.at_ms = some_time(w);
        if (sim_chance(w, 200))
            (void)snprintf(r.role, sizeof r.role, "%s",
                           sim_chance(w, 500) ? "primary" : "replica");
    }
    bool anew = strcmp(r.kind, "reinitialize") == 0;
    r.force = anew && sim_chance(w, 300);
    r.remove_data = anew && sim_chance(w, 300);
    ask(x, 0, &r);
    if (stop)
        sim_at(w, NULL, WORLD, for_us, "start again", on_start_again,
               mem_dup(&x->id, sizeof x->id));
}

/* What was answered as done was done. */
void order_answered(struct sim_node *x, const struct result_rec *r)
{
    struct sim *w = x->w;
    const struct order *o = &x->order;
    if (strcmp(o->id, r->id) != 0)
        return; /* of an order that another has replaced */
    sim_note(w, x, "%s: %s, %s", o->kind, r->ok ? "ok" : "refused", r->text);
    if (!r->ok)
        return;
    if (strcmp(o->kind, "restart") == 0 && x->pg.starts == o->starts)
        sim_violation(w, "%s was restarted, it says, and runs as before", x->name);
    if (strcmp(o->kind, "reinitialize") == 0 &&
        strcmp(x->data.incarnation, o->incarnation) == 0)
        sim_violation(w, "%s was reinitialized, it says, and has the data of before", x->name);
}

/* ---- at the end of the day ---- */

void orders_end(struct sim *w)
{
    for (size_t i = 0; i < w->n; i++) {
        set_pause(&w->node[i], false);
        set_ttl(&w->node[i], w->config.ttl);
        start_again(&w->node[i]);
    }
}

bool orders_open(const struct sim *w)
{
    for (size_t i = 0; i < w->n; i++) {
        const struct mirror *m = mirror_at(&w->node[i]);
        if (m == NULL || m->request_meta.present || m->failover_meta.present ||
            m->config.pause || m->sync.disarmed || m->config.ttl != w->config.ttl)
            return true;
    }
    return false;
}
