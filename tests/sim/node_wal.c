/* Streaming: a walreceiver at the standby, a walsender at the primary, a connection between them that may
 * be cut, be held open by nobody, or deliver late what was sent before the cut, as TCP does. */
#include "base/assert.h"
#include "base/mem.h"
#include "tests/sim/node_world.h"

enum { RETRY_MS = 100, CHECK_MS = 500, DEAD_MS = 5000, RESEND_MS = 40, UNFED_MS = 2000 };

struct wal_msg {
    uint64_t from, conn;
    bool again;   /* sent once more by its sender's kernel, if that lives */
    size_t at, n; /* records at .. at+n-1 */
    size_t tl_n;
    struct timeline tl[]; /* then the n records */
};

struct wal_answer {
    uint64_t from, conn;
    size_t at; /* everything below is flushed */
};

static size_t msg_size(size_t tl_n, size_t n)
{
    return sizeof(struct wal_msg) + tl_n * sizeof(struct timeline) + n * sizeof(uint32_t);
}

static uint32_t *msg_ids(struct wal_msg *m)
{
    return (uint32_t *)(void *)(m->tl + m->tl_n);
}

/* ---- data ---- */

/* By the numbers of timelines, as a walsender does it. */
bool wal_can_stream(const struct data *from, const struct data *to)
{
    for (size_t i = 0; i < from->tl_n; i++) {
        if (from->tl[i].id != data_timeline(to))
            continue;
        return to->n <= (i + 1 < from->tl_n ? from->tl[i + 1].start : from->n);
    }
    return false;
}

bool wal_is_prefix(const struct data *a, const struct data *of)
{
    return a->n <= of->n && memcmp(a->wal, of->wal, a->n * sizeof a->wal[0]) == 0;
}

static void take_timelines(struct data *to, const struct timeline *tl, size_t tl_n)
{
    to->tl_n = 0;
    for (size_t i = 0; i < tl_n && tl[i].start <= to->n; i++)
        to->tl[to->tl_n++] = tl[i];
}

/* ---- the two ends ---- */

static void on_check_receiver(struct sim *w, struct sim_node *x, void *arg);
static void on_check_sender(struct sim *w, struct sim_node *x, void *arg);

static void check_receiver_in(struct sim_node *x, uint64_t us)
{
    sim_at(x->w, x, POSTGRES, us, "receiver", on_check_receiver,
           mem_dup(&x->pg.conn, sizeof x->pg.conn));
}

static void check_sender_in(struct sim_node *x, size_t standby, uint64_t us)
{
    uint64_t a[2] = {x->pg.senders[standby].conn, standby};
    sim_at(x->w, x, POSTGRES, us, "sender", on_check_sender, mem_dup(a, sizeof a));
}

struct sim_node *wal_upstream(struct sim_node *x)
{
    return x->pg.upstream < 0 ? NULL : &x->w->node[x->pg.upstream];
}

static struct sim_node *sender_of(struct sim_node *x)
{
    for (size_t i = 0; i < x->w->n; i++)
        if (x->pg.conn != 0 && x->w->node[i].pg.senders[x->id - 1].conn == x->pg.conn)
            return &x->w->node[i];
    return NULL;
}

void wal_cut(struct sim_node *x)
{
    struct sim_node *up = sender_of(x);
    x->pg.conn = 0;
    x->pg.streaming = false;
    if (up != NULL)
        check_sender_in(up, x->id - 1, net_delay(x->w));
}

void wal_end_sender(struct sim_node *primary, size_t standby)
{
    struct walsender *s = &primary->pg.senders[standby];
    struct sim_node *x = &primary->w->node[standby];
    if (s->conn != 0 && x->pg.conn == s->conn && x->up[POSTGRES])
        check_receiver_in(x, net_delay(primary->w));
    *s = (struct walsender){0};
}

static bool reachable(const struct sim_node *a, const struct sim_node *b)
{
    return net_open(a->w, a, b) && net_open(a->w, b, a);
}

/* True: this end has heard nothing for so long that it gives up. */
static bool lost(struct sim *w, uint64_t *since_us, bool good, bool ended)
{
    if (ended)
        return true;
    if (good)
        *since_us = 0;
    else if (*since_us == 0)
        *since_us = w->now_us;
    return *since_us != 0 && w->now_us - *since_us >= DEAD_MS * MS;
}

static void on_check_receiver(struct sim *w, struct sim_node *x, void *arg)
{
    uint64_t conn = *(uint64_t *)arg;
    if (conn == 0 || x->pg.conn != conn)
        return;
    struct sim_node *up = sender_of(x);
    struct sim_node *named = wal_upstream(x);
    bool there = up != NULL && !up->machine_down;
    bool open = named == NULL || reachable(x, named);
    bool good = there && open && domain_runs(up, POSTGRES);
    if (lost(w, &x->pg.bad_since_us, good,
             !there && open && (named == NULL || !named->machine_down))) {
        wal_cut(x);
        wal_wake(x);
    } else {
        check_receiver_in(x, CHECK_MS * MS);
    }
}

static void on_check_sender(struct sim *w, struct sim_node *x, void *arg)
{
    const uint64_t *a = arg;
    struct walsender *s = &x->pg.senders[a[1]];
    struct sim_node *standby = &w->node[a[1]];
    if (a[0] == 0 || s->conn != a[0])
        return;
    bool there = standby->pg.conn == s->conn;
    bool open = reachable(x, standby);
    bool good = there && open && domain_runs(standby, POSTGRES);
    if (lost(w, &s->bad_since_us, good, !there && open && !standby->machine_down))
        wal_end_sender(x, a[1]);
    else
        check_sender_in(x, a[1], CHECK_MS * MS);
}

/* ---- beginning ---- */

static void on_attempt(struct sim *w, struct sim_node *x, void *arg);

static void attempt_in(struct sim_node *x, uint64_t us)
{
    x->pg.retrying = true;
    sim_at(x->w, x, POSTGRES, us, "attempt", on_attempt, NULL);
}

void wal_wake(struct sim_node *x)
{
    if (domain_runs(x, POSTGRES) && x->pg.in_recovery && !x->pg.retrying && x->pg.conn == 0 &&
        x->pg.upstream >= 0 && !x->pg.held && !x->pg.local && !x->pg.stopping &&
        (x->pg.accepts || x->pg.waiting))
        attempt_in(x, sim_between(x->w, 1 * MS, RETRY_MS * MS));
}

static void connect_to(struct sim_node *x, struct sim_node *up)
{
    struct sim *w = x->w;
    struct walsender *s = &up->pg.senders[x->id - 1];
    x->pg.conn = ++w->conns;
    x->pg.streaming = true;
    x->pg.bad_since_us = x->pg.unfed_us = 0;
    *s = (struct walsender){.conn = x->pg.conn,
                            .set = up->data.set,
                            .sent = x->data.n,
                            .flushed = x->data.n,
                            .streaming = true};
    take_timelines(&x->data, up->data.tl, up->data.tl_n);
    sim_note(w, x, "streams from %s at %zu", up->name, x->data.n);
    check_receiver_in(x, CHECK_MS * MS);
    check_sender_in(up, x->id - 1, CHECK_MS * MS);
    wal_send(up);
    pg_release(up, s);
}

static void on_attempt(struct sim *w, struct sim_node *x, void *arg)
{
    struct sim_node *up = wal_upstream(x);
    (void)arg;
    x->pg.retrying = false;
    if (up == NULL || x->pg.conn != 0 || x->pg.held || x->pg.stopping || !x->pg.in_recovery)
        return;
    bool answers = up != x && reachable(x, up) && domain_runs(up, POSTGRES) &&
                   pg_writable(up) && up->pg.senders[x->id - 1].conn == 0;
    if (!answers) {
        attempt_in(x, RETRY_MS * MS);
        return;
    }
    if (!wal_can_stream(&up->data, &x->data)) {
        if (x->pg.unfed_us == 0)
            x->pg.unfed_us = w->now_us;
        if (w->now_us - x->pg.unfed_us > UNFED_MS * MS)
            x->data.stuck = true;
        attempt_in(x, RETRY_MS * MS);
        return;
    }
    if (!wal_is_prefix(&x->data, &up->data)) {
        sim_violation(w, "%s streams from %s, but its log is not the past of that one", x->name,
                      up->name);
        return;
    }
    connect_to(x, up);
}

/* ---- records and answers ---- */

static void on_answer(struct sim *w, struct sim_node *x, void *arg)
{
    struct wal_answer *m = arg;
    struct walsender *s = &x->pg.senders[m->from];
    if (s->conn != m->conn)
        return;
    if (!net_open(w, &w->node[m->from], x)) {
        sim_at(w, x, POSTGRES, RESEND_MS * MS, "wal answer", on_answer, mem_dup(m, sizeof *m));
        return;
    }
    s->flushed = MAX(s->flushed, m->at);
    pg_release(x, s);
}

static void flushed(struct sim_node *x, struct sim_node *up)
{
    struct sim *w = x->w;
    struct wal_answer m = {.from = x->id - 1, .conn = x->pg.conn, .at = x->data.n};
    sim_at(w, up, POSTGRES, sim_between(w, 100, MS) + net_delay(w), "wal answer", on_answer,
           mem_dup(&m, sizeof m));
}

static void on_wal(struct sim *w, struct sim_node *x, void *arg)
{
    struct wal_msg *m = arg;
    struct sim_node *up = &w->node[m->from];
    if (x->pg.conn != m->conn)
        return;
    if (up->machine_down && (m->again || m->at > x->data.n))
        return;
    bool open = net_open(w, up, x);
    if (!open || m->at > x->data.n) { /* TCP: later, and in order */
        uint64_t in = open ? 1 : RESEND_MS;
        m->again = !open;
        sim_at(w, x, POSTGRES, in * MS, "wal", on_wal, mem_dup(m, msg_size(m->tl_n, m->n)));
        return;
    }
    for (size_t i = x->data.n - m->at; i < m->n; i++)
        data_append(&x->data, msg_ids(m)[i]);
    take_timelines(&x->data, m->tl, m->tl_n);
    if (!x->pg.held)
        x->pg.replayed = x->data.n;
    pg_look_consistent(x);
    flushed(x, up);
}

static void send_to(struct sim_node *x, size_t standby)
{
    struct sim *w = x->w;
    struct walsender *s = &x->pg.senders[standby];
    struct sim_node *to = &w->node[standby];
    size_t n = x->data.n - s->sent;
    if (s->conn == 0 || n == 0 || !to->up[POSTGRES])
        return;
    struct wal_msg *m = mem_alloc(msg_size(x->data.tl_n, n));
    m->from = x->id - 1;
    m->conn = s->conn;
    m->at = s->sent;
    m->n = n;
    m->tl_n = x->data.tl_n;
    memcpy(m->tl, x->data.tl, m->tl_n * sizeof m->tl[0]);
    memcpy(msg_ids(m), x->data.wal + s->sent, n * sizeof(uint32_t));
    s->sent = x->data.n;
    uint64_t at = MAX(w->now_us + net_delay(w), x->wal_busy_us[standby] + 1);
    x->wal_busy_us[standby] = at;
    sim_at(w, to, POSTGRES, at - w->now_us, "wal", on_wal, m);
}

static void on_send(struct sim *w, struct sim_node *x, void *arg)
{
    (void)arg;
    x->pg.wal_due = 0;
    for (size_t i = 0; i < w->n; i++)
        send_to(x, i);
}

void wal_send(struct sim_node *primary)
{
    if (primary->pg.wal_due != 0)
        return;
    primary->pg.wal_due = 1;
    sim_at(primary->w, primary, POSTGRES, sim_between(primary->w, 50, 300), "send", on_send,
           NULL);
}
