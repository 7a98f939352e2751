/* PostgreSQL as far as the protocol can tell: WAL as a list of commits, walsenders that go by the set
 * they read last, commits that wait. It knows nothing of tokens and leases, and keeps none of its
 * promises to anybody but its clients. */
#include "base/assert.h"
#include "base/mem.h"
#include "tests/sim/node_world.h"

enum { WRITE_US = 30000 };

uint64_t pg_lsn(size_t n)
{
    return SIM_LSN * (uint64_t)n;
}

uint64_t data_timeline(const struct data *d)
{
    return d->tl_n == 0 ? 0 : d->tl[d->tl_n - 1].id;
}

uint64_t timeline_at(const struct data *d, size_t n)
{
    size_t i = d->tl_n;
    while (i > 1 && d->tl[i - 1].start >= n)
        i--;
    return i == 0 ? 0 : d->tl[i - 1].id;
}

void data_append(struct data *d, uint32_t id)
{
    if (d->n == d->cap) {
        d->cap = MAX(d->cap * 2, (size_t)1024);
        d->wal = mem_resize(d->wal, d->cap * sizeof *d->wal);
    }
    d->wal[d->n++] = id;
}

bool pg_writable(const struct sim_node *x)
{
    return x->up[POSTGRES] && !x->pg.in_recovery && x->pg.accepts;
}

/* While it replays what it found on its disk, nobody knows how much that is. */
size_t pg_has(const struct sim_node *x)
{
    return x->pg.local ? x->pg.replayed : x->data.n;
}

/* ---- life ---- */

/* A standby lets people in as soon as it is consistent, and asks for a walreceiver only when nothing on its
 * own disk is left to be replayed. */
static void on_replay(struct sim *w, struct sim_node *x, void *arg)
{
    (void)arg;
    if (!x->pg.in_recovery)
        return;
    x->pg.replayed += x->pg.replayed < x->data.n && !x->pg.held;
    x->pg.local = x->pg.replayed < x->data.n;
    if (x->pg.local)
        sim_at(w, x, POSTGRES, x->pg.replay_us, "replay", on_replay, NULL);
    else
        wal_wake(x);
}

static void on_accepts(struct sim *w, struct sim_node *x, void *arg)
{
    bool primary = !x->pg.in_recovery;
    (void)arg;
    if (x->pg.proc != PG_PROC_STARTING)
        return; /* killed or stopped meanwhile */
    x->pg.waiting = !primary && x->data.n < x->data.consistent_n;
    if (x->pg.waiting) {
        x->pg.local = false; /* what is missing comes by the network */
        x->pg.replayed = x->data.n;
        wal_wake(x);
        return;
    }
    x->pg.proc = PG_PROC_RUNNING;
    x->pg.accepts = true;
    sim_note(w, x, "PostgreSQL runs as %s", primary ? "primary" : "standby");
    if (primary)
        pg_become_primary(x, x->pg.token);
    else
        on_replay(w, x, NULL);
    see_soon(x, sim_random(w, 20 * MS));
}

void pg_look_consistent(struct sim_node *x)
{
    if (x->pg.waiting && x->data.n >= x->data.consistent_n)
        on_accepts(x->w, x, NULL);
}

void pg_loaded(struct sim_node *x)
{
    x->pg.shown = x->data.upstream;
    x->pg.shown_token = x->data.follow_token;
}

void pg_start(struct sim_node *x, bool primary, uint64_t token)
{
    struct sim *w = x->w;
    ASSERT(!x->up[POSTGRES] && x->pg.proc == PG_PROC_STOPPED && x->data.state == PG_DATA_OURS);
    uint64_t starts = x->pg.starts + 1;
    domain_begin(x, POSTGRES);
    x->pg = (struct pg){.proc = PG_PROC_STARTING,
                        .in_recovery = !primary,
                        .token = token,
                        .starts = starts,
                        .local = !primary,
                        .replayed = MIN(x->data.recovery_n, x->data.n),
                        .upstream = x->data.upstream};
    pg_loaded(x);
    x->pg.replay_us =
        sim_chance(w, 300) ? sim_between(w, 20 * MS, 600 * MS) : sim_between(w, 50, MS);
    uint64_t recovery_us = x->data.clean ? 0 : sim_between(w, 20 * MS, 600 * MS);
    x->data.clean = false;
    sim_at(w, x, POSTGRES, sim_between(w, 20 * MS, 120 * MS) + recovery_us, "accepts",
           on_accepts, NULL);
}

static void forget_connections(struct sim_node *x)
{
    wal_cut(x);
    for (size_t i = 0; i < x->w->n; i++)
        wal_end_sender(x, i);
}

static void gone(struct sim_node *x)
{
    bool was_primary = !x->pg.in_recovery;
    struct data *d = &x->data;
    d->recovery_n = d->n;
    if (!was_primary &&
        !d->clean) /* what was received and not replayed, or not noted, is there all the same */
        d->recovery_n -= sim_random(x->w, MIN(d->n, (size_t)20) + 1);
    forget_connections(x);
    if (x->up[POSTGRES])
        domain_end(x, POSTGRES);
    x->pg.proc = PG_PROC_STOPPED;
    x->pg.accepts = x->pg.stopping = false;
    x->pg.waiters_n = 0;
    x->pg.unfenced = false;
    sim_note(x->w, x, "PostgreSQL is gone%s", was_primary ? " (primary)" : "");
    fence_told(x);
}

void pg_gone(struct sim_node *x)
{
    if (x->pg.proc == PG_PROC_STOPPED)
        return;
    x->pg.crashed = true;
    gone(x);
}

static void on_dead(struct sim *w, struct sim_node *none, void *arg)
{
    const uint64_t *who = arg; /* node, its life */
    struct sim_node *x = &w->node[who[0]];
    (void)none;
    if (x->pg.proc == PG_PROC_DYING && x->life[POSTGRES] == who[1])
        gone(x);
}

/* Until the end backends may finish what they do; then nothing of it is left. */
void pg_kill(struct sim_node *x, uint64_t for_us, bool requested, bool fenced)
{
    struct sim *w = x->w;
    if (x->pg.proc == PG_PROC_STOPPED || x->pg.proc == PG_PROC_DYING)
        return;
    w->kills++;
    x->pg.crashed = !requested && !fenced;
    x->pg.fenced = fenced;
    x->pg.proc = PG_PROC_DYING;
    uint64_t who[2] = {x->id - 1, x->life[POSTGRES]};
    uint64_t in_us = MAX(for_us, sick_wait_us(x));
    if (in_us > for_us) /* state D: it dies before it can do anything more */
        domain_pause(x, POSTGRES, in_us + 1);
    sim_at(w, NULL, WORLD, in_us, "dead", on_dead, mem_dup(who, sizeof who));
    fence_told(x);
}

/* ---- a fast stop ---- */

static bool drained(const struct sim_node *x)
{
    for (size_t i = 0; i < x->w->n; i++)
        if (x->pg.senders[i].conn != 0 && x->pg.senders[i].flushed < x->data.n)
            return false;
    return true;
}

static void on_stopping(struct sim *w, struct sim_node *x, void *arg)
{
    (void)arg;
    if (!x->pg.in_recovery && !drained(x)) { /* waits for its walsenders */
        wal_send(x);
        sim_at(w, x, POSTGRES, 2 * MS, "stopping", on_stopping, NULL);
        return;
    }
    x->data.clean = true;
    x->pg.crashed = x->pg.fenced = false;
    gone(x);
}

static void on_shutdown(struct sim *w, struct sim_node *x, void *arg)
{
    (void)arg;
    if (!x->pg.in_recovery) {
        data_append(&x->data, 0);
        x->data.shutdown_n = x->data.n;
        x->data.control_timeline = data_timeline(&x->data);
        x->data.checkpoint_n = x->data.n;
        x->data.clean = true;
        wal_send(x);
    }
    sim_at(w, x, POSTGRES, sim_between(w, 1 * MS, 10 * MS), "stopping", on_stopping, NULL);
}

void pg_stop_fast(struct sim_node *x)
{
    if (x->pg.proc != PG_PROC_RUNNING && x->pg.proc != PG_PROC_STARTING)
        return;
    x->pg.proc = PG_PROC_STOPPING;
    x->pg.accepts = false;
    x->pg.stopping = true;
    x->pg.waiters_n = 0; /* sessions end; nobody hears of their commits */
    wal_cut(x);
    sim_at(x->w, x, POSTGRES, sim_between(x->w, 5 * MS, 60 * MS), "shutdown", on_shutdown,
           NULL);
}

/* ---- commits ---- */

static void ack_all(struct sim_node *x, size_t n)
{
    size_t i = 0;
    for (; i < x->pg.waiters_n && x->pg.waiters[i].n <= n; i++)
        check_ack(x, x->pg.waiters[i].id);
    x->pg.waiters_n -= i;
    memmove(x->pg.waiters, x->pg.waiters + i, x->pg.waiters_n * sizeof x->pg.waiters[0]);
}

static size_t priority(const struct walsender *s, const char *incarnation)
{
    for (size_t i = 0; i < s->set.s_n; i++)
        if (strcmp(s->set.s[i], incarnation) == 0)
            return i + 1;
    return 0;
}

static void insert(size_t *a, size_t *n, size_t v, bool ascending)
{
    size_t i = (*n)++;
    for (; i > 0 && (ascending ? a[i - 1] > v : a[i - 1] < v); i--)
        a[i] = a[i - 1];
    a[i] = v;
}

/* SyncRepReleaseWaiters() of PostgreSQL 15: the walsender that got an answer goes by its own set, and by
 * the priority that every other one has given itself. */
void pg_release(struct sim_node *x, const struct walsender *by)
{
    struct sim *w = x->w;
    size_t order[SIM_NODES]; /* priority * SIM_NODES + index */
    size_t flushed[SIM_NODES];
    size_t n = 0;
    size_t k = by->set.k;
    if (by->conn == 0 || k == 0 || !x->pg.defined ||
        priority(by, w->node[by - x->pg.senders].data.incarnation) == 0)
        return;
    for (size_t i = 0; i < w->n; i++) {
        const struct walsender *s = &x->pg.senders[i];
        size_t p = s->conn == 0 ? 0 : priority(s, w->node[i].data.incarnation);
        if (s->conn != 0 && s->streaming && s->flushed > 0 && p > 0)
            insert(order, &n, p * SIM_NODES + i, true);
    }
    if (n < k)
        return;
    bool first = k == by->set.s_n;
    size_t m = 0;
    for (size_t i = 0; i < (first ? k : n); i++)
        insert(flushed, &m, x->pg.senders[order[i] % SIM_NODES].flushed, false);
    ack_all(x, flushed[k - 1]);
}

static void commit(struct sim_node *x)
{
    struct sim *w = x->w;
    uint32_t id = w->next_id++;
    if (id >= w->acks_cap) {
        size_t cap = MAX(w->acks_cap * 2, (size_t)4096);
        w->acks = mem_resize(w->acks, cap * sizeof *w->acks);
        memset(w->acks + w->acks_cap, 0, (cap - w->acks_cap) * sizeof *w->acks);
        w->acks_cap = cap;
    }
    data_append(&x->data, id);
    wal_send(x);
    if (!x->pg.defined)
        check_ack(x, id);
    else if (x->pg.waiters_n < WAITERS_MAX)
        x->pg.waiters[x->pg.waiters_n++] = (struct waiter){x->data.n, id};
}

/* A writer for every PostgreSQL that lets it in: what a client does that has not heard of the failover. */
static void on_write(struct sim *w, struct sim_node *none, void *arg)
{
    (void)none;
    (void)arg;
    for (size_t i = 0; i < w->n; i++) {
        struct sim_node *x = &w->node[i];
        if (pg_writable(x) && x->paused_until_us[POSTGRES] <= w->now_us &&
            !sick_is(x, SICK_FULL))
            commit(x);
    }
    sim_at(w, NULL, WORLD, WRITE_US / 2 + sim_random(w, WRITE_US), "write", on_write, NULL);
}

void pg_client(struct sim *w)
{
    w->next_id = 1;
    sim_at(w, NULL, WORLD, 0, "write", on_write, NULL);
}

/* ---- the set ---- */

struct reload {
    uint64_t serial;
    size_t sender;
    uint64_t conn;
    struct sync_set set;
};

static void on_sender_reload(struct sim *w, struct sim_node *x, void *arg)
{
    const struct reload *r = arg;
    struct walsender *s = &x->pg.senders[r->sender];
    (void)w;
    if (s->conn != r->conn || r->serial != x->pg.reloads)
        return; /* gone, or a newer one overtakes this */
    s->set = r->set;
    pg_release(x, s);
}

/* The checkpointer sets the flag in its own time. */
static void on_flag(struct sim *w, struct sim_node *x, void *arg)
{
    const struct reload *r = arg;
    (void)w;
    if (r->serial != x->pg.reloads)
        return;
    x->pg.defined = r->set.k > 0;
    if (!x->pg.defined)
        ack_all(x, x->data.n);
}

static uint64_t lag(struct sim *w)
{
    return sim_chance(w, w->late_reload) ? sim_random(w, 3 * SEC) : sim_random(w, 10 * MS);
}

void pg_reload_set(struct sim_node *x)
{
    struct sim *w = x->w;
    struct reload r = {.serial = ++x->pg.reloads, .set = x->data.set};
    for (size_t i = 0; i < w->n; i++) {
        r.sender = i;
        r.conn = x->pg.senders[i].conn;
        if (r.conn != 0)
            sim_at(w, x, POSTGRES, lag(w), "walsender reload", on_sender_reload,
                   mem_dup(&r, sizeof r));
    }
    sim_at(w, x, POSTGRES, lag(w), "flag", on_flag, mem_dup(&r, sizeof r));
}

/* Before the first write everybody has the set: the startup process ends recovery after it was read. */
void pg_become_primary(struct sim_node *x, uint64_t token)
{
    x->pg.in_recovery = x->pg.local = false;
    x->pg.token = token;
    x->pg.defined = x->data.set.k > 0;
    x->pg.reloads++;
    x->pg.upstream = -1;
    x->data.standby_signal = false;
    x->pg.unfenced = x->pg.unfenced || x->paused_until_us[FENCE] > x->w->now_us ||
                     x->doubt_until_us > x->w->now_us;
    check_primary(x);
}
