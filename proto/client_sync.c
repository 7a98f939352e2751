/* The blocking client: the asynchronous one on a loop of its own. */
#include "base/assert.h"
#include "base/mem.h"
#include "proto/client_impl.h"

/* Every callback that ends a wait calls uv_stop(): a timer that is due runs before the loop polls, and
 * the poll would then sleep on what has happened already. */
struct client_sync {
    uv_loop_t loop;
    struct client *client;
    uv_timer_t deadline;
    bool late;
    bool connected, closed;
    struct hello_reply hello;
    struct buf result; /* of the last call: its borrowed fields point here */
    bool done;
    enum err status;
    struct errmsg error;
};

static void on_deadline(uv_timer_t *t)
{
    struct client_sync *s = t->data;
    s->late = true;
    uv_stop(&s->loop);
}

static void arm(struct client_sync *s, uint64_t ms)
{
    s->late = false;
    uv_update_time(&s->loop);
    if (ms != 0)
        (void)uv_timer_start(&s->deadline, on_deadline, ms, 0);
    else
        (void)uv_timer_stop(&s->deadline);
}

static void on_state(void *arg, bool connected, const struct hello_reply *hello)
{
    struct client_sync *s = arg;
    s->connected = connected;
    if (connected)
        s->hello = *hello;
    uv_stop(&s->loop);
}

/* Trying again cannot help when every endpoint was tried and the last refused us for who we are. */
static bool hopeless(const struct client_sync *s)
{
    const struct client *c = s->client;
    return c->failures >= MAX(c->n_endpoints, (size_t)1) &&
           (c->last_why.code == ERR_UNAUTHENTICATED || c->last_why.code == ERR_DENIED);
}

enum err client_sync_open(const struct client_options *o, uint64_t deadline_ms,
                          struct client_sync **ret_client, struct errmsg *e)
{
    struct client_sync *s = mem_alloc(sizeof *s);
    if (uv_loop_init(&s->loop) != 0) {
        mem_free(s);
        return err_set(e, ERR_IO, "cannot make an event loop: too many open files?");
    }
    (void)uv_timer_init(&s->loop, &s->deadline);
    s->deadline.data = s;
    enum err rc = client_new(&s->loop, o, &s->client, e);
    if (rc != ERR_OK) {
        client_sync_close(s);
        return rc;
    }
    client_on_state(s->client, on_state, s);
    arm(s, deadline_ms != 0 ? deadline_ms : CLIENT_DEADLINE_MS);
    while (!s->connected && !s->late && !hopeless(s))
        (void)uv_run(&s->loop, UV_RUN_ONCE);
    if (!s->connected) {
        const struct errmsg *why = &s->client->last_why;
        rc = why->code != ERR_OK
                 ? err_set(e, why->code, "%s", why->text)
                 : err_set(e, ERR_UNAVAILABLE, "no node of the cluster answered in time");
        client_sync_close(s);
        return rc;
    }
    arm(s, 0);
    *ret_client = s;
    return ERR_OK;
}

static void on_closed(void *arg)
{
    struct client_sync *s = arg;
    s->closed = true;
    uv_stop(&s->loop);
}

void client_sync_close(struct client_sync *s)
{
    if (s == NULL)
        return;
    if (s->client != NULL) {
        client_close(s->client, on_closed, s);
        while (!s->closed)
            (void)uv_run(&s->loop, UV_RUN_ONCE);
    }
    uv_close((uv_handle_t *)&s->deadline, NULL);
    (void)uv_run(&s->loop, UV_RUN_DEFAULT);
    int rc = uv_loop_close(&s->loop);
    ASSERT(rc == 0);
    buf_close(&s->result);
    mem_free(s);
}

const struct hello_reply *client_sync_hello(const struct client_sync *s)
{
    return &s->hello;
}

static void on_reply(void *arg, const struct client_reply *reply)
{
    struct client_sync *s = arg;
    s->done = true;
    s->status = reply->status;
    s->error = reply->error;
    buf_clear(&s->result);
    buf_append_slice(&s->result, reply->result);
    uv_stop(&s->loop);
}

enum err client_sync_call(struct client_sync *s, enum method m, const void *params,
                          uint64_t deadline_ms, void *ret_result, struct errmsg *e)
{
    s->done = false;
    uv_update_time(&s->loop);
    client_call(s->client, m, params, deadline_ms, on_reply, s);
    while (!s->done) /* the call ends at its deadline */
        (void)uv_run(&s->loop, UV_RUN_ONCE);
    if (s->status != ERR_OK)
        return err_set(e, s->status, "%s", s->error.text);
    return ret_result == NULL
               ? ERR_OK
               : msg_decode(method_table[m].result, buf_slice(&s->result), ret_result, e);
}

struct sync_watch {
    uv_loop_t *loop;
    client_watch_cb *cb;
    void *arg;
    bool ended;
    enum err status;
};

static void on_watch(void *arg, enum err status, const struct watch_event *ev)
{
    struct sync_watch *w = arg;
    w->ended = status != ERR_OK;
    w->status = status;
    w->cb(w->arg, status, ev);
    uv_stop(w->loop); /* *stop may be set now */
}

enum err client_sync_watch(struct client_sync *s, const struct watch_req *req,
                           client_watch_cb *cb, void *arg, const bool *stop,
                           uint64_t deadline_ms, struct errmsg *e)
{
    struct sync_watch w = {.loop = &s->loop, .cb = cb, .arg = arg};
    struct client_watch *watch = client_watch(s->client, req, on_watch, &w);
    arm(s, deadline_ms);
    while (!w.ended && !*stop && !s->late)
        (void)uv_run(&s->loop, UV_RUN_ONCE);
    arm(s, 0);
    if (w.ended)
        return err_set(e, w.status, "the watch ended: %s", err_text(w.status));
    client_unwatch(watch);
    return *stop ? ERR_OK : err_set(e, ERR_TIMEOUT, "the watch reached its deadline");
}
