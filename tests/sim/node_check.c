/* What must never be, and what must come to be in the end. */
#include <stdio.h>

#include "agent/core/plan.h"
#include "base/assert.h"
#include "base/mem.h"
#include "tests/sim/node_world.h"

/* ---- plans ---- */

void check_plan(struct sim_node *x, const struct view *v)
{
    static struct plan p;
    struct errmsg e;
    decide(v, &p);
    if (plan_check(v, &p, &e) != ERR_OK)
        sim_violation(x->w, "%s: plan_check: %s", x->name, e.text);
}

/* ---- the store ---- */

static void leader_put(struct sim *w, const struct leader_rec *l, uint64_t revision)
{
    bool same = w->key_there && strcmp(w->key_name, l->name) == 0 && w->key_token == l->token;
    if (!same && l->token <= w->key_token)
        sim_violation(w, "revision %llu: leader %s with token %llu after token %llu",
                      (unsigned long long)revision, l->name, (unsigned long long)l->token,
                      (unsigned long long)w->key_token);
    if (!same)
        sim_note(w, NULL, "revision %llu: leader key to %s, token %llu, %s",
                 (unsigned long long)revision, l->name, (unsigned long long)l->token,
                 l->shutdown_lsn != 0 ? "handed over" : "acquired");
    if (!same && l->token < SIM_TOKENS)
        check_relieved(w, l->token, strcmp(w->key_name, l->name) != 0);
    if (l->conn_port == 0)
        sim_violation(w, "revision %llu: leader %s says not where it is",
                      (unsigned long long)revision, l->name);
    if (l->token >= SIM_TOKENS) {
        sim_violation(w, "%u leaders: the key never comes to rest", SIM_TOKENS);
        return;
    }
    if (!same && revision == w->forced_revision && l->shutdown_lsn == 0)
        w->lossy_token[l->token] = true; /* an operator has said so */
    w->clean_token[l->token] = w->clean_token[l->token] || l->shutdown_lsn != 0;
    w->key_there = true;
    w->key_token = l->token;
    (void)snprintf(w->key_name, sizeof w->key_name, "%s", l->name);
}

static void sync_put(struct sim *w, const struct sync_rec *s, uint64_t revision)
{
    if (s->token < w->sync_token)
        sim_violation(w, "revision %llu: the token of the sync record goes back to %llu",
                      (unsigned long long)revision, (unsigned long long)s->token);
    if (s->token >= SIM_TOKENS)
        return; /* leader_put() has said it */
    bool off = strcmp(s->mode, "off") == 0;
    if (s->token > w->sync_token && off)
        w->lossy_token[s->token] = true;
    sim_note(w, NULL, "revision %llu: sync token %llu, %s, V of %zu, q %llu",
             (unsigned long long)revision, (unsigned long long)s->token, s->mode, s->v_n,
             (unsigned long long)s->q);
    w->sync_token = s->token;
    w->record_disarmed = s->disarmed;
    (void)snprintf(w->record_leader, sizeof w->record_leader, "%s", s->leader);
    (void)snprintf(w->record_mode, sizeof w->record_mode, "%s", s->mode);
}

static void one_event(struct sim *w, const struct event *ev, uint64_t revision)
{
    bool deleted = strcmp(ev->type, "delete") == 0;
    struct errmsg e;
    if (slice_eq(ev->kv.key, slice_str("/regent/sim/leader"))) {
        struct leader_rec l;
        if (deleted) {
            w->key_there = false;
            check_key_gone(w);
            sim_note(w, NULL, "revision %llu: leader key gone", (unsigned long long)revision);
        } else if (msg_from_json(&msg_leader_rec, ev->kv.value, &l, NULL, &e) == ERR_OK) {
            leader_put(w, &l, revision);
        }
    } else if (slice_eq(ev->kv.key, slice_str("/regent/sim/sync")) && !deleted) {
        struct sync_rec s;
        if (msg_from_json(&msg_sync_rec, ev->kv.value, &s, NULL, &e) == ERR_OK)
            sync_put(w, &s, revision);
    }
}

/* An operator's order that is open, or the answer to one. */
static void order_event(struct sim *w, const struct event *ev, uint64_t revision)
{
    bool deleted = strcmp(ev->type, "delete") == 0;
    struct result_rec r;
    char key[40];
    struct errmsg e;
    bool failover = slice_eq(ev->kv.key, slice_str("/regent/sim/failover"));
    if (failover && deleted && w->asked.force)
        w->forced_revision = revision;
    if (failover && (deleted || msg_from_json(&msg_failover_rec, ev->kv.value, &w->asked, NULL,
                                              &e) != ERR_OK))
        w->asked = (struct failover_rec){0};
    for (size_t i = 0; i < w->n && !deleted; i++) {
        (void)snprintf(key, sizeof key, "/regent/sim/result/%s", w->node[i].name);
        if (slice_eq(ev->kv.key, slice_str(key)) &&
            msg_from_json(&msg_result_rec, ev->kv.value, &r, NULL, &e) == ERR_OK)
            order_answered(&w->node[i], &r);
    }
}

/* Every node tells the same history. */
void check_event(struct sim_node *x, const struct watch_event *ev)
{
    struct sim *w = x->w;
    uint64_t r = ev->revision;
    uint64_t h = sim_hash(0xcbf29ce484222325, ev->events.p, ev->events.n);
    ASSERT(r < ARRAY_LEN(w->revision_hash));
    if (w->revision_hash[r] != 0 && w->revision_hash[r] != h)
        sim_violation(w, "%s has another revision %llu than the others", x->name,
                      (unsigned long long)r);
    w->revision_hash[r] = h;
    if (r <= w->revision_max)
        return;
    w->revision_max = r;
    struct msg_iter it;
    struct event one;
    if (msg_iter_init(&it, ev->events) != ERR_OK)
        return;
    while (msg_iter_next(&it, &msg_event, &one, NULL) == ERR_OK) {
        order_event(w, &one, r);
        one_event(w, &one, r);
    }
}

/* Equal at the same applied index, whatever each went through. */
void check_states(struct sim *w)
{
    for (size_t i = 0; i < w->n; i++) {
        struct sim_node *x = &w->node[i];
        x->hash_applied = 0;
        if (!x->up[DAEMON])
            continue;
        x->hash_applied = state_db_applied(x->state);
        x->hash = state_hash(x->state);
        for (size_t j = 0; j < i; j++)
            if (w->node[j].hash_applied == x->hash_applied && w->node[j].hash != x->hash)
                sim_violation(w, "the states of %s and %s differ at index %llu",
                              w->node[j].name, x->name, (unsigned long long)x->hash_applied);
    }
}

/* ---- PostgreSQL ---- */

/* Commits that are missing here although somebody was told they are safe. */
static void check_complete(struct sim_node *x, bool lossy)
{
    struct sim *w = x->w;
    uint8_t *have = mem_alloc(w->next_id + 1);
    uint64_t lost = 0;
    for (size_t i = 0; i < x->data.n; i++)
        have[x->data.wal[i]] = 1;
    for (uint32_t id = 1; id < w->next_id; id++) {
        struct ack *a = &w->acks[id];
        if (!a->acked || a->forgiven || have[id])
            continue;
        if (!lossy) {
            sim_violation(
                w,
                "commit %u, acknowledged at %.3f with token %llu, is lost: %s, primary with "
                "token %llu, has not got it",
                id, (double)a->at_us / 1e3, (unsigned long long)a->token, x->name,
                (unsigned long long)x->pg.token);
            break;
        }
        a->forgiven = true;
        lost++;
    }
    if (lost > 0)
        sim_note(w, x, "%llu commits are lost, asynchronous", (unsigned long long)lost);
    w->lost += lost;
    mem_free(have);
}

void check_primary(struct sim_node *x)
{
    struct sim *w = x->w;
    uint64_t token = x->pg.token;
    sim_note(w, x, "writable with token %llu", (unsigned long long)token);
    if (w->relief_token == token)
        /* it goes on: who takes the key from it later does so for another reason */
        w->relief_token = 0;
    if (x->pg.unfenced && token < w->primary_token)
        return; /* it stood still with its fence: what it acknowledges is looked at */
    if (token < w->primary_token || (token == w->primary_token && w->primary != x))
        sim_violation(w, "%s becomes writable with token %llu after token %llu was", x->name,
                      (unsigned long long)token, (unsigned long long)w->primary_token);
    w->promotions += token != w->primary_token;
    w->primary_token = token;
    w->primary = x;
    for (size_t i = 0; i < w->n; i++) {
        struct sim_node *y = &w->node[i];
        /* waits for its disk */
        bool killed = y->pg.proc == PG_PROC_DYING && sick_wait_us(y) > 0;
        if (y != x && pg_writable(y) && !y->pg.unfenced && !killed)
            sim_violation(w, "%s becomes writable while %s is", x->name, y->name);
    }
    check_complete(x, w->lossy_token[token] && !w->clean_token[token]);
}

/* Was anything acquired after `token` under a record that promises nothing? */
static bool lossy_since(const struct sim *w, uint64_t token)
{
    for (uint64_t t = token + 1; t <= w->sync_token; t++)
        if (w->lossy_token[t])
            return true;
    return false;
}

static bool has_commit(const struct sim_node *x, uint32_t id)
{
    for (size_t i = x->data.n; i > 0; i--)
        if (x->data.wal[i - 1] == id)
            return true;
    return false;
}

/* While the fences run only the newest primary acknowledges. One whose machine stood still with its fence
 * may go on for a moment: then what it acknowledges must be safe with the newest one. */
void check_ack(struct sim_node *x, uint32_t id)
{
    struct sim *w = x->w;
    struct ack *a = &w->acks[id];
    *a = (struct ack){.at_us = w->now_us, .token = x->pg.token, .acked = true};
    if (x->pg.token < w->primary_token) {
        a->forgiven = x->pg.unfenced && lossy_since(w, x->pg.token);
        if (!a->forgiven && !(x->pg.unfenced && has_commit(w->primary, id)))
            sim_violation(
                w, "%s acknowledges commit %u with token %llu after token %llu was writable",
                x->name, id, (unsigned long long)x->pg.token,
                (unsigned long long)w->primary_token);
        return;
    }
    w->acked++;
    if (w->now_us - w->last_ack_us > w->gap_us && w->last_ack_us != 0) {
        w->gap_us = w->now_us - w->last_ack_us;
        w->gap_from_us = w->last_ack_us;
    }
    w->last_ack_us = w->now_us;
}

/* The record says that nobody else may lead before a fence lets go of a primary. */
void check_disarm(struct sim_node *x)
{
    const struct sim *w = x->w;
    bool recorded = w->record_disarmed && strcmp(w->record_leader, x->name) == 0;
    if (pg_writable(x) && !recorded && !(w->key_there && strcmp(w->key_name, x->name) != 0))
        sim_violation(x->w,
                      "the fence of %s lets go of a primary, and the record forbids nobody",
                      x->name);
}

/* Paused, and let go of: its life hangs on nothing any more but on somebody else's key. */
void check_kill(struct sim_node *x)
{
    const struct sim *w = x->w;
    bool let_go = !x->fence.armed && w->record_disarmed &&
                  strcmp(w->record_leader, x->name) == 0 && pg_writable(x) &&
                  x->pg.proc != PG_PROC_DYING;
    if (let_go && !(w->key_there && strcmp(w->key_name, x->name) != 0))
        sim_violation(x->w, "%s is paused, and its agent has PostgreSQL killed", x->name);
}

/* ---- in the end ---- */

static const struct sim_node *sole_primary(const struct sim *w, const char **ret_why)
{
    const struct sim_node *leader = NULL;
    for (size_t i = 0; i < w->n; i++) {
        const struct sim_node *x = &w->node[i];
        if (!pg_writable(x))
            continue;
        *ret_why = "two are writable";
        if (leader != NULL)
            return NULL;
        leader = x;
    }
    *ret_why = "nobody is writable";
    return leader;
}

bool check_settled(const struct sim *w, const char **ret_why)
{
    const struct sim_node *leader = sole_primary(w, ret_why);
    if (leader == NULL)
        return false;
    const struct view *v = engine_view(leader->engine);
    *ret_why = "the leader record is not that of a running primary";
    if (!v->has_leader || strcmp(v->leader.state, "running") != 0 ||
        strcmp(v->leader.name, leader->name) != 0)
        return false;
    *ret_why = "a standby does not stream";
    for (size_t i = 0; i < w->n; i++)
        if (&w->node[i] != leader && !w->node[i].pg.streaming)
            return false;
    *ret_why = "nothing is acknowledged";
    if (w->now_us - w->last_ack_us > 300 * MS)
        return false;
    *ret_why = "an order is open";
    if (orders_open(w))
        return false;
    *ret_why = "the sync record names nobody";
    return v->config.sync_mode == SYNC_OFF || v->sync.v_n > 0;
}

void check_end(struct sim *w)
{
    const char *why;
    const struct sim_node *leader = sole_primary(w, &why);
    check_states(w);
    if (!w->settled || leader == NULL) {
        (void)check_settled(w, &why);
        sim_violation(w, "not settled %.1f s after the last fault: %s",
                      (double)(w->now_us - w->quiet_us) / 1e6, why);
        return;
    }
    check_complete(&w->node[leader->id - 1], false);
}
