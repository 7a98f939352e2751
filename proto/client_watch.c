/* Watches: created on every connection anew, from the revision after the last one delivered. */
#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "proto/client_impl.h"

static void unlink_and_free(struct client_watch *w)
{
    *(w->prev != NULL ? &w->prev->next : &w->c->watches) = w->next;
    if (w->next != NULL)
        w->next->prev = w->prev;
    buf_close(&w->key);
    buf_close(&w->end);
    mem_free(w);
}

/* A dead watch goes as soon as neither its callback nor the answer to its creation needs it. */
static void maybe_free(struct client_watch *w)
{
    if (w->dead && !w->in_call && w->state != WATCH_CREATING)
        unlink_and_free(w);
}

static void grant(struct client_watch *w);

static void call_back(struct client_watch *w, enum err status, const struct watch_event *ev)
{
    ASSERT(!w->dead && !w->in_call);
    w->dead = status != ERR_OK;
    w->in_call = true;
    w->cb(w->arg, status, ev);
    w->in_call = false;
    if (w->window != 0)
        grant(w);
    maybe_free(w);
}

static void send_cancel(struct client *c, uint64_t id)
{
    struct watch_cancel cancel = {.watch = id};
    uint64_t msgid;
    if (!c->connected || c->closing)
        return;
    if (!client_take_slot(c, SLOT_IGNORE, NULL, &msgid))
        return; /* events for it are dropped, here and until the connection ends */
    buf_clear(&c->scratch);
    msg_encode(&msg_watch_cancel, &cancel, &c->scratch);
    conn_request(c->conn, msgid, method_table[METHOD_WATCH_CANCEL].name,
                 buf_slice(&c->scratch));
}

/* Half of the window is behind us: it is opened anew. */
static void grant(struct client_watch *w)
{
    struct client *c = w->c;
    struct watch_credit more = {.watch = w->id, .credit = w->window - w->left};
    uint64_t msgid;
    if (w->left > w->window / 2 || w->state != WATCH_ACTIVE || w->dead)
        return;
    if (!client_take_slot(c, SLOT_IGNORE, NULL, &msgid)) {
        client_wake_by(c, clock_boot_ms() + CLIENT_BACKOFF_MIN_MS);
        return;
    }
    w->left = w->window;
    buf_clear(&c->scratch);
    msg_encode(&msg_watch_credit, &more, &c->scratch);
    conn_request(c->conn, msgid, method_table[METHOD_WATCH_CREDIT].name,
                 buf_slice(&c->scratch));
}

static void create(struct client_watch *w)
{
    struct client *c = w->c;
    struct watch_req req = {.key = buf_slice(&w->key),
                            .end = buf_slice(&w->end),
                            .start_revision = w->from,
                            .prev_kv = w->prev_kv,
                            .no_put = w->no_put,
                            .no_delete = w->no_delete,
                            .progress_ms = w->progress_ms,
                            .credit = w->window};
    uint64_t msgid;
    w->left = w->window;
    if (!client_take_slot(c, SLOT_WATCH, w, &msgid)) {
        w->retry_at_ms = clock_boot_ms() + CLIENT_BACKOFF_MIN_MS;
        client_wake_by(c, w->retry_at_ms);
        return;
    }
    buf_clear(&c->scratch);
    msg_encode(&msg_watch_req, &req, &c->scratch);
    w->state = WATCH_CREATING;
    conn_request(c->conn, msgid, method_table[METHOD_WATCH_CREATE].name,
                 buf_slice(&c->scratch));
}

void client_watches_pump(struct client *c, uint64_t now_ms)
{
    if (!c->connected || c->closing || !conn_is_open(c->conn))
        return;
    for (struct client_watch *w = c->watches; w != NULL; w = w->next) {
        if (w->window != 0)
            grant(w);
        if (w->dead || w->state != WATCH_IDLE)
            continue;
        if (w->retry_at_ms > now_ms)
            client_wake_by(c, w->retry_at_ms);
        else
            create(w);
    }
}

void client_watch_answered(struct client_watch *w, const struct errmsg *error,
                           struct slice result)
{
    struct client *c = w->c;
    struct watch_reply reply;
    struct errmsg e = *error;
    w->state = WATCH_IDLE;
    if (e.code == ERR_OK && msg_decode(&msg_watch_reply, result, &reply, &e) == ERR_OK) {
        w->state = WATCH_ACTIVE;
        w->id = reply.watch;
        if (w->from == 0)
            w->from = reply.revision + 1;
    }
    if (w->dead) {
        if (w->state == WATCH_ACTIVE)
            send_cancel(c, w->id);
        w->state = WATCH_IDLE;
        maybe_free(w);
    } else if (e.code == ERR_UNAVAILABLE || e.code == ERR_LIMIT || e.code == ERR_TIMEOUT) {
        w->retry_at_ms = clock_boot_ms() + client_backoff_ms(c, 2);
        client_wake_by(c, w->retry_at_ms);
    } else if (e.code != ERR_OK) {
        call_back(w, e.code, NULL);
    }
    client_pump(c);
}

void client_watch_event(struct client *c, struct slice params)
{
    struct watch_event ev;
    struct client_watch *w = c->watches;
    if (msg_decode(&msg_watch_event, params, &ev, NULL) != ERR_OK) {
        conn_close(c->conn); /* resumed on the next connection, without a gap */
        return;
    }
    while (w != NULL && (w->state != WATCH_ACTIVE || w->id != ev.watch || w->dead))
        w = w->next;
    if (w == NULL)
        return;
    w->left -= MIN(w->left, ev.used);
    if (ev.compacted != 0) {
        w->state = WATCH_IDLE;
        call_back(w, ERR_COMPACTED, NULL);
        return;
    }
    if (ev.cancelled) { /* we were too slow: nothing is lost, history has the rest */
        w->state = WATCH_IDLE;
        w->retry_at_ms = clock_boot_ms() + client_backoff_ms(c, 0);
        client_wake_by(c, w->retry_at_ms);
        return;
    }
    if (ev.revision < w->from)
        return;
    w->from = ev.more ? ev.revision : ev.revision + 1;
    call_back(w, ERR_OK, &ev);
}

void client_watches_lost(struct client *c)
{
    for (struct client_watch *w = c->watches, *next; w != NULL; w = next) {
        next = w->next;
        w->state = WATCH_IDLE;
        w->retry_at_ms = 0;
        maybe_free(w);
    }
}

/* Ends all of them; a callback may end others, so it begins from the front each time. */
void client_watches_close(struct client *c)
{
    client_watches_lost(c);
    struct client_watch *w = c->watches;
    while (w != NULL) {
        if (w->dead) { /* in its callback, which frees it */
            w = w->next;
            continue;
        }
        call_back(w, ERR_CANCELLED, NULL);
        w = c->watches;
    }
}

struct client_watch *client_watch(struct client *c, const struct watch_req *req,
                                  client_watch_cb *cb, void *arg)
{
    CHECK_MAGIC(c, CLIENT_MAGIC);
    ASSERT(!c->closing && cb != NULL);
    struct client_watch *w = mem_alloc(sizeof *w);
    w->c = c;
    w->cb = cb;
    w->arg = arg;
    w->from = req->start_revision;
    w->prev_kv = req->prev_kv;
    w->no_put = req->no_put;
    w->no_delete = req->no_delete;
    w->progress_ms = req->progress_ms;
    w->window = req->credit;
    buf_append_slice(&w->key, req->key);
    buf_append_slice(&w->end, req->end);
    w->next = c->watches;
    if (w->next != NULL)
        w->next->prev = w;
    c->watches = w;
    if (c->connected)
        create(w);
    return w;
}

void client_unwatch(struct client_watch *w)
{
    ASSERT(w != NULL && !w->dead);
    w->dead = true;
    if (w->state == WATCH_ACTIVE) {
        send_cancel(w->c, w->id);
        w->state = WATCH_IDLE;
    }
    maybe_free(w);
}
