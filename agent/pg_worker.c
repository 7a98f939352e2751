#include "agent/pg_worker.h"

#include <unistd.h>

#include "base/assert.h"
#include "base/mem.h"

enum { PG_WORKER_MAGIC = 0x57524b52, QUEUE_MAX = 32, READ_MAX = 65536 };

struct call {
    struct call *next;
    uint64_t id;
    struct buf frame;
    uint64_t timeout_ms;
    bool dropped; /* cancelled before it was sent */
    pg_worker_cb *cb;
    void *arg;
};

/* One connection; outlives the worker object until libuv lets go of it. */
struct link {
    uv_pipe_t pipe;
    struct pg_worker *owner; /* NULL: closing */
    struct buf in;
    uint8_t piece[READ_MAX];
};

struct pg_worker {
    uint32_t magic;
    uv_loop_t *loop;
    struct fence *fence;
    pg_worker_progress *progress;
    void *arg;
    struct link *link;
    uv_timer_t timer;   /* deadline of the first call, or its failure to be told */
    struct call *first; /* under way when `sent` */
    size_t n;
    bool sent;
    uint64_t last_id;
};

static void pump(struct pg_worker *w);

struct pg_worker *pg_worker_new(uv_loop_t *loop, struct fence *fence,
                                pg_worker_progress *progress, void *arg)
{
    struct pg_worker *w = mem_alloc(sizeof *w);
    w->magic = PG_WORKER_MAGIC;
    w->loop = loop;
    w->fence = fence;
    w->progress = progress;
    w->arg = arg;
    int rv = uv_timer_init(loop, &w->timer);
    ASSERT(rv == 0);
    w->timer.data = w;
    return w;
}

static void link_closed(uv_handle_t *handle)
{
    struct link *l = handle->data;
    buf_close(&l->in);
    mem_free(l);
}

static void link_drop(struct pg_worker *w)
{
    if (w->link == NULL)
        return;
    w->link->owner = NULL;
    uv_close((uv_handle_t *)&w->link->pipe, link_closed);
    w->link = NULL;
}

static void call_free(struct call *c)
{
    /* Requests carry passwords. */
    if (c->frame.p != NULL)
        explicit_bzero(c->frame.p, c->frame.len);
    buf_close(&c->frame);
    mem_free(c);
}

static void timer_closed(uv_handle_t *handle)
{
    mem_free(handle->data);
}

void pg_worker_free(struct pg_worker *w)
{
    if (w == NULL)
        return;
    CHECK_MAGIC(w, PG_WORKER_MAGIC);
    link_drop(w);
    while (w->first != NULL) {
        struct call *c = w->first;
        w->first = c->next;
        call_free(c);
    }
    uv_close((uv_handle_t *)&w->timer, timer_closed);
}

static void finish(struct pg_worker *w, enum err status, const struct errmsg *e,
                   const struct worker_reply *reply)
{
    struct call *c = w->first;
    ASSERT(c != NULL);
    w->first = c->next;
    w->n--;
    w->sent = false;
    (void)uv_timer_stop(&w->timer);
    pg_worker_cb *cb = c->cb;
    void *arg = c->arg;
    call_free(c);
    pump(w); /* before the callback, which may free us */
    cb(arg, status, e, reply);
}

static void finish_failed(struct pg_worker *w, enum err code, const char *why)
{
    struct errmsg e = {0};
    static const struct worker_reply none;
    (void)err_set(&e, code, "%s", why);
    link_drop(w);
    finish(w, code, &e, &none);
}

static void on_reply(struct pg_worker *w, const struct worker_reply *r)
{
    if (w->first == NULL || !w->sent || r->id != w->first->id)
        return; /* of a call that was given up */
    if (strcmp(r->kind, "progress") == 0) {
        if (w->progress != NULL)
            w->progress(w->arg, r->percent, r->bytes);
        return;
    }
    struct errmsg e = {0};
    enum err status = r->error[0] == '\0' ? ERR_OK : err_from_name(slice_str(r->error));
    (void)err_set(&e, status, "%s", r->text);
    finish(w, status, &e, r);
}

/* Replies may free the worker or replace the link: look again each time. */
static void take_frames(struct link *l)
{
    while (l->owner != NULL) {
        struct worker_reply r;
        struct errmsg e = {0};
        size_t size = 0;
        enum err rv = mp_scan(buf_slice(&l->in), &worker_limits, &size);
        if (rv == ERR_UNAVAILABLE)
            return;
        if (rv == ERR_OK)
            rv = msg_decode(&msg_worker_reply, slice_of(l->in.p, size), &r, &e);
        if (rv != ERR_OK) {
            struct pg_worker *w = l->owner;
            link_drop(w);
            if (w->sent)
                finish_failed(w, ERR_INTERNAL, "the worker's answer is damaged");
            return;
        }
        buf_consume(&l->in, size);
        on_reply(l->owner, &r);
    }
}

static void alloc_cb(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    struct link *l = handle->data;
    (void)suggested;
    *ret = uv_buf_init((char *)l->piece, READ_MAX);
}

static void read_cb(uv_stream_t *stream, ssize_t n, const uv_buf_t *b)
{
    struct link *l = stream->data;
    if (l->owner == NULL)
        return;
    if (n < 0) {
        struct pg_worker *w = l->owner;
        link_drop(w);
        if (w->sent)
            finish_failed(w, ERR_UNAVAILABLE, "the worker died");
        return;
    }
    buf_append(&l->in, b->base, (size_t)n);
    take_frames(l);
}

static bool link_open(struct pg_worker *w)
{
    int fd = fence_worker_connect(w->fence);
    if (fd < 0)
        return false;
    struct link *l = mem_alloc(sizeof *l);
    l->owner = w;
    l->in.max = (size_t)2 * WORKER_FRAME_MAX;
    l->pipe.data = l;
    w->link = l;
    int rv = uv_pipe_init(w->loop, &l->pipe, 0);
    ASSERT(rv == 0);
    if (uv_pipe_open(&l->pipe, fd) != 0) {
        (void)close(fd);
        link_drop(w);
        return false;
    }
    if (uv_read_start((uv_stream_t *)&l->pipe, alloc_cb, read_cb) != 0) {
        link_drop(w);
        return false;
    }
    return true;
}

struct write {
    uv_write_t req;
    struct buf data;
};

static void write_cb(uv_write_t *req, int status)
{
    struct write *x = container_of(req, struct write, req);
    (void)status; /* the reader sees the end */
    if (x->data.p != NULL)
        explicit_bzero(x->data.p, x->data.len);
    buf_close(&x->data);
    mem_free(x);
}

static void send_frame(struct pg_worker *w, struct slice frame)
{
    struct write *x = mem_alloc(sizeof *x);
    buf_append_slice(&x->data, frame);
    uv_buf_t b = uv_buf_init((char *)x->data.p, (unsigned)x->data.len);
    if (uv_write(&x->req, (uv_stream_t *)&w->link->pipe, &b, 1, write_cb) != 0)
        write_cb(&x->req, -1);
}

static void timer_cb(uv_timer_t *timer)
{
    struct pg_worker *w = timer->data;
    static const struct errmsg cancelled = {.code = ERR_CANCELLED, .text = "given up"};
    static const struct worker_reply none;
    CHECK_MAGIC(w, PG_WORKER_MAGIC);
    if (w->first == NULL)
        return;
    if (!w->sent && w->first->dropped)
        finish(w, ERR_CANCELLED, &cancelled, &none);
    else if (w->sent)
        finish_failed(w, ERR_TIMEOUT, "no answer from the worker in time: is the disk stuck?");
    else
        finish_failed(w, ERR_UNAVAILABLE, "no worker: the fence is not there");
}

static void pump(struct pg_worker *w)
{
    if (w->first == NULL || w->sent)
        return;
    if (w->first->dropped || (w->link == NULL && !link_open(w))) {
        (void)uv_timer_start(&w->timer, timer_cb, 0, 0);
        return;
    }
    w->sent = true;
    if (w->first->timeout_ms != 0)
        (void)uv_timer_start(&w->timer, timer_cb, w->first->timeout_ms, 0);
    send_frame(w, buf_slice(&w->first->frame));
}

void pg_worker_send(struct pg_worker *w, const struct worker_req *q, uint64_t timeout_ms,
                    pg_worker_cb *cb, void *arg)
{
    CHECK_MAGIC(w, PG_WORKER_MAGIC);
    ASSERT(w->n < QUEUE_MAX);
    struct call *c = mem_alloc(sizeof *c);
    struct worker_req copy = *q;
    copy.id = c->id = ++w->last_id;
    msg_encode(&msg_worker_req, &copy, &c->frame);
    ASSERT(c->frame.len <= WORKER_FRAME_MAX);
    c->timeout_ms = timeout_ms;
    c->cb = cb;
    c->arg = arg;
    struct call **at = &w->first;
    while (*at != NULL)
        at = &(*at)->next;
    *at = c;
    w->n++;
    pump(w);
}

void pg_worker_cancel(struct pg_worker *w, void *arg)
{
    CHECK_MAGIC(w, PG_WORKER_MAGIC);
    struct call *c = w->first;
    while (c != NULL && c->arg != arg)
        c = c->next;
    if (c == NULL)
        return;
    if (c != w->first || !w->sent) {
        c->dropped = true;
        return;
    }
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    struct worker_req q = {.id = c->id};
    memcpy(q.op, "cancel", sizeof "cancel");
    msg_encode(&msg_worker_req, &q, &b);
    if (w->link != NULL)
        send_frame(w, buf_slice(&b));
}
