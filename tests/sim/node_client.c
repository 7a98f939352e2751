/* The agent's requests: what proto/client does on its connection to the node of its own daemon, without
 * the connection. Numbered writes are sent again when the connection broke before the answer; a call
 * ends once, at the latest at its deadline, and says `outcome unknown` when nobody can know. */
#include "base/assert.h"
#include "base/mem.h"
#include "proto/mp.h"
#include "tests/sim/node_world.h"

enum { DEADLINE_MS = 5000, BACKOFF_MIN_MS = 20, BACKOFF_MAX_MS = 200 };

enum call_state { CALL_QUEUED, CALL_SENT, CALL_WAITING };
enum resend { RESEND_ALWAYS, RESEND_SESSION, RESEND_NEVER };

struct client_call {
    struct client_call *next;
    uint64_t id;
    enum call_state state;
    enum method m;
    enum resend resend;
    bool doubt, reads, opens; /* opens: this one is for the session */
    unsigned attempts;
    uint64_t session, seq, deadline_ms;
    client_cb *cb;
    void *arg;
    size_t n;
    uint8_t params[];
};

/* ---- the list ---- */

static struct client_call *find(struct sim_node *x, uint64_t id)
{
    struct client_call *c = x->client.calls;
    while (c != NULL && c->id != id)
        c = c->next;
    return c;
}

static void unlink_call(struct sim_node *x, struct client_call *c)
{
    struct client_call **at = &x->client.calls;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    if (x->client.calls_end == &c->next)
        x->client.calls_end = at;
}

static void finish(struct sim_node *x, struct client_call *c, enum err status, const char *text,
                   struct slice result)
{
    struct client_reply r = {.status = status, .result = result};
    unlink_call(x, c);
    if (status != ERR_OK)
        (void)err_set(&r.error, status, "%s: %s", method_table[c->m].name, text);
    if (c->opens)
        x->client.opening = false;
    if (c->cb != NULL)
        c->cb(c->arg, &r);
    mem_free(c);
}

static void give_up(struct sim_node *x, struct client_call *c, enum err status,
                    const char *text)
{
    bool in_doubt = c->doubt || (c->state == CALL_SENT && !c->reads);
    finish(x, c, in_doubt ? ERR_OUTCOME_UNKNOWN : status, text, slice_of(NULL, 0));
}

/* ---- sending ---- */

static void pump(struct sim_node *x);

struct asked {
    struct sim_node *x;
    uint64_t id;
    unsigned epoch;
};

struct replied {
    uint64_t id;
    unsigned epoch;
    enum err status;
    char text[160];
    size_t n;
    uint8_t bytes[];
};

static void answered(struct sim_node *x, struct client_call *c, const struct replied *r);

static void on_reply(struct sim *w, struct sim_node *x, void *arg)
{
    const struct replied *r = arg;
    struct client_call *c = find(x, r->id);
    (void)w;
    if (r->epoch != x->client.epoch || c == NULL || c->state != CALL_SENT)
        return; /* the connection it came on is gone */
    answered(x, c, r);
    pump(x);
}

static void reply_cb(void *arg, uint64_t tag, enum err status, const char *text,
                     struct slice result)
{
    struct asked *a = arg;
    struct sim_node *x = a->x;
    (void)tag;
    if (!x->ending) {
        struct replied *r = mem_alloc(sizeof *r + result.n);
        r->id = a->id;
        r->epoch = a->epoch;
        r->status = status;
        r->n = result.n;
        if (result.n > 0)
            memcpy(r->bytes, result.p, result.n);
        if (text != NULL)
            (void)strncpy(r->text, text, sizeof r->text - 1);
        sim_at(x->w, x, DAEMON, 20 + sim_random(x->w, 200), "reply", on_reply, r);
    }
    mem_free(a);
}

/* The encoded parameters, with session, seq and the time left behind them. */
static void final_params(struct sim_node *x, const struct client_call *c, struct buf *out)
{
    struct mp_reader r = {.rest = slice_of(c->params, c->n)};
    uint64_t now = clock_of(x);
    size_t n;
    bool session = c->resend == RESEND_SESSION;
    bool deadline = !c->opens;
    enum err rv = mp_read_map(&r, &n);
    ASSERT(rv == ERR_OK);
    mp_write_map(out, n + (session ? 2 : 0) + (deadline ? 1 : 0));
    buf_append_slice(out, r.rest);
    if (session) {
        mp_write_str(out, slice_str("session"));
        mp_write_u64(out, c->session);
        mp_write_str(out, slice_str("seq"));
        mp_write_u64(out, c->seq);
    }
    if (deadline) {
        mp_write_str(out, slice_str("deadline_ms"));
        mp_write_u64(out, MAX(c->deadline_ms, now + 1) - now);
    }
}

static void on_request(struct sim *w, struct sim_node *x, void *arg)
{
    const struct asked *a = arg;
    struct client_call *c = find(x, a->id);
    (void)w;
    if (c == NULL || a->epoch != x->client.epoch)
        return;
    struct buf params CLEANUP(buf_close) = BUF_INIT;
    final_params(x, c, &params);
    struct node_caller caller = {.cb = reply_cb, .arg = mem_dup(a, sizeof *a)};
    node_request(x->node, c->m, buf_slice(&params), &caller);
    daemon_pass(x);
}

static void send_call(struct sim_node *x, struct client_call *c)
{
    struct asked a = {x, c->id, x->client.epoch};
    c->state = CALL_SENT;
    sim_at(x->w, x, DAEMON, 20 + sim_random(x->w, 200), "request", on_request,
           mem_dup(&a, sizeof a));
}

static struct client_call *begin(struct sim_node *x, enum method m, struct slice params,
                                 uint64_t deadline_ms);

static void open_session(struct sim_node *x)
{
    struct session_open o = {.nonce = x->client.nonce};
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    if (x->client.opening)
        return;
    x->client.opening = true;
    msg_encode(&msg_session_open, &o, &b);
    begin(x, METHOD_SESSION_OPEN, buf_slice(&b), DEADLINE_MS)->opens = true;
}

static void pump(struct sim_node *x)
{
    if (!x->client.connected)
        return;
    for (struct client_call *c = x->client.calls; c != NULL; c = c->next) {
        if (c->state != CALL_QUEUED)
            continue;
        if (c->resend == RESEND_SESSION && c->session == 0) {
            if (x->client.session == 0) {
                open_session(x); /* goes to the end of this list */
                continue;
            }
            c->session = x->client.session;
            c->seq = ++x->client.seq;
        }
        send_call(x, c);
    }
}

/* ---- answers ---- */

static void on_retry(struct sim *w, struct sim_node *x, void *arg)
{
    struct client_call *c = find(x, *(uint64_t *)arg);
    (void)w;
    if (c != NULL && c->state == CALL_WAITING) {
        c->state = CALL_QUEUED;
        pump(x);
    }
}

static void try_later(struct sim_node *x, struct client_call *c)
{
    uint64_t top = (uint64_t)BACKOFF_MIN_MS << MIN(c->attempts, 10U);
    top = MIN(top, (uint64_t)BACKOFF_MAX_MS);
    c->attempts++;
    c->state = CALL_WAITING;
    sim_at(x->w, x, DAEMON, sim_between(x->w, top * MS / 2, top * MS), "retry", on_retry,
           mem_dup(&c->id, sizeof c->id));
}

static void session_opened(struct sim_node *x, const struct replied *r)
{
    struct session_reply s;
    if (msg_decode(&msg_session_reply, slice_of(r->bytes, r->n), &s, NULL) == ERR_OK) {
        x->client.session = s.session;
        x->client.seq = 0;
    }
}

static void answered(struct sim_node *x, struct client_call *c, const struct replied *r)
{
    bool no_session = c->resend == RESEND_SESSION && r->status == ERR_PRECONDITION &&
                      strncmp(r->text, "session", 7) == 0;
    if (r->status == ERR_OK) {
        if (c->opens)
            session_opened(x, r);
        finish(x, c, ERR_OK, NULL, slice_of(r->bytes, r->n));
    } else if (r->status == ERR_UNAVAILABLE) {
        try_later(x, c);
    } else if (no_session) {
        x->client.session = 0;
        x->client.nonce = rng_u64(&x->w->rng) >> 1;
        c->session = 0;
        if (c->doubt)
            give_up(x, c, ERR_OUTCOME_UNKNOWN, r->text);
        else
            try_later(x, c);
    } else if (c->doubt && c->resend == RESEND_SESSION) {
        give_up(x, c, ERR_OUTCOME_UNKNOWN, r->text);
    } else {
        finish(x, c, r->status, r->text, slice_of(NULL, 0));
    }
}

static void on_deadline(struct sim *w, struct sim_node *x, void *arg)
{
    struct client_call *c = find(x, *(uint64_t *)arg);
    (void)w;
    if (c != NULL)
        give_up(x, c, c->state == CALL_SENT ? ERR_TIMEOUT : ERR_UNAVAILABLE,
                "no answer in time");
}

/* ---- calling ---- */

static bool has_field(enum method m, const char *name)
{
    const struct msg *t = method_table[m].params;
    for (size_t i = 0; i < t->n_fields; i++)
        if (strcmp(t->fields[i].name, name) == 0)
            return true;
    return false;
}

static enum resend resend_of(enum method m)
{
    if (has_field(m, "session"))
        return RESEND_SESSION;
    if (method_table[m].kind != METHOD_KIND_WRITE || m == METHOD_LEASE_RENEW ||
        m == METHOD_SESSION_OPEN)
        return RESEND_ALWAYS;
    return RESEND_NEVER;
}

static struct client_call *begin(struct sim_node *x, enum method m, struct slice params,
                                 uint64_t deadline_ms)
{
    struct client_call *c = mem_alloc(sizeof *c + params.n);
    c->id = ++x->client.next_id;
    c->m = m;
    c->resend = resend_of(m);
    c->reads = method_table[m].kind == METHOD_KIND_READ;
    c->n = params.n;
    memcpy(c->params, params.p, params.n);
    c->deadline_ms = clock_of(x) + (deadline_ms != 0 ? deadline_ms : (uint64_t)DEADLINE_MS);
    *x->client.calls_end = c;
    x->client.calls_end = &c->next;
    sim_at(x->w, x, DAEMON, until_local(x, c->deadline_ms), "deadline", on_deadline,
           mem_dup(&c->id, sizeof c->id));
    return c;
}

/* The mutation: transactions without the comparison of the sync record. */
static void drop_sync_guard(struct txn_req *t, struct buf *out)
{
    struct msg_list kept = {0};
    struct msg_iter it;
    struct compare c;
    if (msg_iter_init(&it, t->compare) != ERR_OK)
        return;
    while (msg_iter_next(&it, &msg_compare, &c, NULL) == ERR_OK)
        if (!slice_eq(c.key, slice_str("/regent/sim/sync")))
            msg_list_append(&kept, &msg_compare, &c);
    msg_list_end(&kept, out);
    t->compare = buf_slice(out);
}

/* ---- a transaction that is late ---- */

struct late {
    client_cb *cb;
    void *arg;
};

/* A change of the sync record after which somebody may be promoted. */
static bool names_standbys(const struct txn_req *t)
{
    struct msg_iter it;
    struct txn_op op;
    bool found = false;
    if (msg_iter_init(&it, t->then) != ERR_OK)
        return false;
    while (msg_iter_next(&it, &msg_txn_op, &op, NULL) == ERR_OK) {
        struct sync_rec r;
        struct msg_arena mem = MSG_ARENA_INIT;
        if (slice_eq(op.key, slice_str("/regent/sim/sync")) &&
            msg_from_json(&msg_sync_rec, op.value, &r, &mem, NULL) == ERR_OK)
            found = found || r.v_n > 0;
        msg_arena_close(&mem);
    }
    return found;
}

static void on_doubt(struct sim *w, struct sim_node *x, void *arg)
{
    const struct late *l = arg;
    struct client_reply r = {.status = ERR_OUTCOME_UNKNOWN};
    (void)w;
    (void)x;
    (void)err_set(&r.error, r.status, "kv.txn: no answer in time");
    l->cb(l->arg, &r);
}

static void on_late(struct sim *w, struct sim_node *x, void *arg)
{
    struct buf *b = arg;
    sim_note(w, x, "its late transaction arrives");
    begin(x, METHOD_KV_TXN, buf_slice(b), 0);
    buf_close(b);
    pump(x);
}

/* Its sender hears that nobody knows, and goes on. */
static void be_late(struct sim_node *x, struct buf *params, uint64_t in_us,
                    const struct late *l)
{
    sim_at(x->w, x, DAEMON, MIN(in_us / 2, 200 * MS), "doubt", on_doubt, mem_dup(l, sizeof *l));
    sim_at(x->w, x, DAEMON, in_us, "late", on_late, mem_dup(params, sizeof *params));
    *params = (struct buf)BUF_INIT;
}

void sim_call(void *arg, enum method m, const void *params, uint64_t deadline_ms, client_cb *cb,
              void *cb_arg)
{
    struct sim_node *x = arg;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    struct buf kept CLEANUP(buf_close) = BUF_INIT;
    if (m == METHOD_KV_TXN && x->w->mutation == MUTATION_NO_SYNC_GUARD) {
        struct txn_req t = *(const struct txn_req *)params;
        drop_sync_guard(&t, &kept);
        msg_encode(&msg_txn_req, &t, &b);
    } else {
        msg_encode(method_table[m].params, params, &b);
    }
    uint64_t late_us = m == METHOD_KV_TXN && names_standbys(params) ? faults_late(x->w) : 0;
    if (late_us != 0) {
        be_late(x, &b, late_us, &(struct late){cb, cb_arg});
        return;
    }
    struct client_call *c = begin(x, m, buf_slice(&b), deadline_ms);
    c->cb = cb;
    c->arg = cb_arg;
    pump(x);
}

/* ---- the connection comes and goes (node_watch.c) ---- */

void client_connected(struct sim_node *x)
{
    pump(x);
}

void client_lost(struct sim_node *x)
{
    for (struct client_call *c = x->client.calls, *next; c != NULL; c = next) {
        next = c->next;
        if (c->state != CALL_SENT)
            continue;
        if (c->resend == RESEND_NEVER) {
            give_up(x, c, ERR_OUTCOME_UNKNOWN, "the connection broke before the answer");
            next = x->client.calls; /* the callback may have called */
            continue;
        }
        c->doubt = !c->reads;
        c->state = CALL_QUEUED;
    }
}

void client_forget(struct sim_node *x)
{
    while (x->client.calls != NULL) {
        struct client_call *c = x->client.calls;
        x->client.calls = c->next;
        mem_free(c);
    }
}
