/* The worker's loop: one connection, one request at a time. It blocks in its operations on purpose;
 * that is what it is for. */
#include "agent/worker/worker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/worker/worker_ops.h"
#include "base/mem.h"

static const struct {
    const char *name;
    worker_op *run;
} ops[] = {
    {"probe", op_probe},     {"prepare", op_prepare}, {"write", op_write},
    {"seal", op_seal},       {"signal", op_signal},   {"tail", op_tail},
    {"initdb", op_initdb},   {"clone", op_clone},     {"rewind", op_rewind},
    {"lineage", op_lineage}, {"made", op_made},       {"bootstrap", op_bootstrap},
    {"restore", op_restore}, {"health", op_health},   {"adopt", op_adopt},
    {"wal", op_wal},
};

static void send_all(struct worker *w, struct slice s)
{
    while (s.n > 0 && !w->gone) {
        ssize_t n = send(w->fd, s.p, s.n, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = w->fd, .events = POLLOUT};
            (void)poll(&p, 1, -1);
            continue;
        }
        w->gone = n <= 0;
        s = slice_of(s.p + MAX(n, 0), s.n - (size_t)MAX(n, 0));
    }
}

void worker_reply(struct worker *w, const struct worker_reply *r)
{
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    msg_encode(&msg_worker_reply, r, &b);
    send_all(w, buf_slice(&b));
}

static void done(struct worker *w, struct worker_reply *r, enum err rv, const struct errmsg *e)
{
    (void)snprintf(r->kind, sizeof r->kind, "done");
    if (rv != ERR_OK) {
        (void)snprintf(r->error, sizeof r->error, "%s", err_name(rv));
        (void)snprintf(r->text, sizeof r->text, "%s", e->text);
    }
    worker_reply(w, r);
}

/* More bytes from the other end; waits for them when asked to. */
static void read_more(struct worker *w, bool wait)
{
    uint8_t *to = buf_reserve(&w->in, 65536);
    if (to == NULL) {
        w->gone = true; /* a frame over the bound: not our agent */
        return;
    }
    ssize_t n;
    do {
        n = recv(w->fd, to, 65536, wait ? 0 : MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN) {
        if (wait) {
            struct pollfd p = {.fd = w->fd, .events = POLLIN};
            (void)poll(&p, 1, -1);
        }
        return;
    }
    if (n <= 0)
        w->gone = true;
    else
        w->in.len += (size_t)n;
}

/* The first whole frame, left at the front of w->in; ERR_UNAVAILABLE: not there yet. */
static enum err next_frame(struct worker *w, struct worker_req *q, size_t *ret_size,
                           struct errmsg *e)
{
    enum err rv = mp_scan(buf_slice(&w->in), &worker_limits, ret_size);
    if (rv != ERR_OK)
        return rv == ERR_UNAVAILABLE ? rv : err_set(e, rv, "bad frame");
    return msg_decode(&msg_worker_req, slice_of(w->in.p, *ret_size), q, e);
}

void worker_listen(struct worker *w)
{
    struct worker_req q = {0};
    struct errmsg e = {0};
    size_t size = 0;
    read_more(w, false);
    for (;;) {
        enum err rv = next_frame(w, &q, &size, &e);
        if (rv == ERR_UNAVAILABLE)
            return;
        if (rv != ERR_OK) {
            w->gone = true;
            return;
        }
        buf_consume(&w->in, size);
        if (strcmp(q.op, "cancel") == 0) {
            w->cancelled = w->cancelled || q.id == w->id;
            continue;
        }
        struct worker_reply r = {.id = q.id};
        rv = err_set(&e, ERR_LIMIT, "busy with another request");
        done(w, &r, rv, &e);
    }
}

static void run(struct worker *w, const struct worker_req *q)
{
    struct worker_reply r = {.id = q->id};
    struct errmsg e = {0};
    enum err rv = ERR_UNSUPPORTED;
    w->id = q->id;
    w->cancelled = false;
    if (strcmp(q->op, "cancel") == 0)
        return; /* too late: it is done */
    (void)err_set(&e, rv, "no operation \"%s\"", q->op);
    for (size_t i = 0; i < ARRAY_LEN(ops); i++)
        if (strcmp(ops[i].name, q->op) == 0)
            rv = ops[i].run(w, q, &r, &e);
    done(w, &r, rv, &e);
}

static void serve(int fd)
{
    struct worker w = {.fd = fd, .in = {.max = 2 * WORKER_FRAME_MAX}};
    while (!w.gone) {
        struct worker_req q = {0};
        struct errmsg e = {0};
        size_t size = 0;
        enum err rv = next_frame(&w, &q, &size, &e);
        if (rv == ERR_UNAVAILABLE) {
            read_more(&w, true);
            continue;
        }
        if (rv != ERR_OK)
            break;
        /* The request borrows from its frame: that leaves the buffer, which fills on meanwhile. */
        struct buf rest = {.max = w.in.max};
        buf_append(&rest, w.in.p + size, w.in.len - size);
        struct buf frame = w.in;
        w.in = rest;
        run(&w, &q);
        buf_close(&frame);
    }
    buf_close(&w.in);
}

static bool is_listening(int fd)
{
    int on = 0;
    socklen_t n = sizeof on;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &n) == 0 && on != 0;
}

int worker_main(int fd)
{
    (void)signal(SIGPIPE, SIG_IGN);
    if (!is_listening(fd)) {
        serve(fd);
        return 0;
    }
    for (;;) {
        int c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (c < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (c < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = fd, .events = POLLIN};
            (void)poll(&p, 1, -1);
            continue;
        }
        if (c < 0)
            return 1;
        serve(c);
        (void)close(c);
    }
}
