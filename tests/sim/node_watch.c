/* The agent's connection as a whole: up, broken, up again; and the watch on it, resumed where it was. */
#include "base/assert.h"
#include "base/mem.h"
#include "tests/sim/node_world.h"

struct told {
    unsigned serial, epoch;
    bool last;
    size_t n;
    uint8_t bytes[];
};

static void create(struct sim_node *x);

static void on_event(struct sim *w, struct sim_node *x, void *arg)
{
    const struct told *t = arg;
    struct client_model *c = &x->client;
    struct watch_event ev;
    struct errmsg e;
    if (t->serial != c->watch_serial || t->epoch != c->epoch)
        return;
    if (msg_decode(&msg_watch_event, slice_of(t->bytes, t->n), &ev, &e) != ERR_OK) {
        sim_violation(w, "%s: a watch event cannot be read: %s", x->name, e.text);
        return;
    }
    if (t->last && ev.compacted != 0) {
        c->watching = false;
        engine_watch(x->engine, ERR_COMPACTED, NULL);
    } else if (t->last) {
        create(x); /* cut off for being slow: from where it was */
    } else {
        c->watch_from = ev.revision + 1;
        check_event(x, &ev);
        engine_watch(x->engine, ERR_OK, &ev);
    }
}

static bool send_event(void *arg, struct slice event, bool last)
{
    struct sim_node *x = arg;
    if (x->ending)
        return true;
    struct told *t = mem_alloc(sizeof *t + event.n);
    t->serial = x->client.watch_serial;
    t->epoch = x->client.epoch;
    t->last = last;
    t->n = event.n;
    memcpy(t->bytes, event.p, event.n);
    sim_at(x->w, x, DAEMON, 100, "event", on_event, t);
    if (last)
        x->client.watch = NULL;
    return true;
}

static void on_compacted(struct sim *w, struct sim_node *x, void *arg)
{
    (void)w;
    if (*(unsigned *)arg != x->client.watch_serial)
        return;
    x->client.watching = false;
    engine_watch(x->engine, ERR_COMPACTED, NULL);
}

static void create(struct sim_node *x)
{
    struct client_model *c = &x->client;
    struct watch_req r = {.key = buf_slice(&c->watch_key),
                          .end = buf_slice(&c->watch_end),
                          .start_revision = c->watch_from};
    struct buf reply CLEANUP(buf_close) = BUF_INIT;
    struct errmsg e;
    if (!c->watching || !c->connected)
        return;
    node_unwatch_all(x->node, x);
    enum err rv = node_watch(x->node, &r, send_event, x, &reply, &c->watch, &e);
    if (rv == ERR_OK)
        node_watch_start(x->node, c->watch);
    else
        sim_at(x->w, x, DAEMON, 100, "compacted", on_compacted,
               mem_dup(&c->watch_serial, sizeof c->watch_serial));
}

/* Requests are on their way by messages in production, too: nothing calls back at once. */
static void on_create(struct sim *w, struct sim_node *x, void *arg)
{
    (void)w;
    if (*(unsigned *)arg == x->client.watch_serial)
        create(x);
}

void sim_watch(void *arg, struct slice key, struct slice end, uint64_t start_revision)
{
    struct sim_node *x = arg;
    struct client_model *c = &x->client;
    buf_clear(&c->watch_key);
    buf_clear(&c->watch_end);
    buf_append_slice(&c->watch_key, key);
    buf_append_slice(&c->watch_end, end);
    c->watching = true;
    c->watch_from = start_revision;
    c->watch_serial++;
    sim_at(x->w, x, DAEMON, 100 + sim_random(x->w, 300), "watch", on_create,
           mem_dup(&c->watch_serial, sizeof c->watch_serial));
}

/* ---- the connection ---- */

static void on_connect(struct sim *w, struct sim_node *x, void *arg)
{
    (void)w;
    (void)arg;
    if (x->client.connected)
        return;
    x->client.connected = true;
    create(x);
    client_connected(x);
    engine_connected(x->engine, true);
}

void client_start(struct sim_node *x)
{
    struct client_model *c = &x->client;
    *c = (struct client_model){.nonce = rng_u64(&x->w->rng) >> 1, .epoch = c->epoch + 1};
    c->calls_end = &c->calls;
    sim_at(x->w, x, DAEMON, 1 * MS + sim_random(x->w, 20 * MS), "connect", on_connect, NULL);
}

void client_end(struct sim_node *x)
{
    client_forget(x);
    buf_close(&x->client.watch_key);
    buf_close(&x->client.watch_end);
}

void client_break(struct sim_node *x)
{
    if (!x->up[DAEMON] || !x->client.connected)
        return;
    sim_note(x->w, x, "the agent's connection breaks");
    x->client.connected = false;
    x->client.epoch++;
    node_unwatch_all(x->node, x);
    client_lost(x);
    engine_connected(x->engine, false);
    sim_at(x->w, x, DAEMON, 5 * MS + sim_random(x->w, 200 * MS), "connect", on_connect, NULL);
}
