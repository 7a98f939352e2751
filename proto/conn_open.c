/* How a connection begins: by a name, an address, a path, or from a socket that is there. */
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/conn_impl.h"

enum { WRITE_MAX_DEFAULT = 64 * 1024 * 1024 };

static struct conn *conn_new(uv_loop_t *loop, SSL_CTX *ctx, bool server,
                             const struct conn_ops *ops, void *arg)
{
    struct conn *c = mem_alloc(sizeof *c);
    c->magic = CONN_MAGIC;
    c->loop = loop;
    c->server = server;
    c->ops = ops;
    c->arg = arg;
    c->uid = UINT32_MAX;
    c->write_max = WRITE_MAX_DEFAULT;
    c->frame_max = CONN_FRAME_MAX;
    if (ctx != NULL && SSL_CTX_up_ref(ctx) == 1)
        c->ctx = ctx;
    ASSERT(c->ctx == ctx); /* never without TLS by accident */
    ASSERT(ops->ready != NULL && ops->closed != NULL);
    (void)uv_timer_init(loop, &c->timer);
    (void)uv_prepare_init(loop, &c->flusher);
    (void)uv_idle_init(loop, &c->later);
    c->timer.data = c;
    c->flusher.data = c;
    c->later.data = c;
    c->handles = 3;
    (void)uv_timer_start(&c->timer, conn_on_timer, CONN_OPEN_MS, 0);
    return c;
}

static int stream_init(struct conn *c, bool local)
{
    int rc = local ? uv_pipe_init(c->loop, &c->u.pipe, 0) : uv_tcp_init(c->loop, &c->u.tcp);
    if (rc != 0)
        return rc;
    c->u.handle.data = c;
    c->stream_state = STREAM_OPEN;
    c->handles++;
    return 0;
}

static void connected(struct conn *c)
{
    conn_socket_options(c);
    conn_io_open(c);
}

static void connect_next(struct conn *c);

/* libuv cannot connect a handle twice: after a refused address the next one gets a fresh handle. */
static void on_recycled(uv_handle_t *h)
{
    struct conn *c = h->data;
    CHECK_MAGIC(c, CONN_MAGIC);
    c->stream_state = STREAM_NONE;
    if (c->state == CONN_CLOSING) {
        conn_on_handle_closed(h);
        return;
    }
    c->handles--;
    connect_next(c);
}

static void connect_failed(struct conn *c, int status)
{
    if (c->next_addr < c->n_addrs && c->stream_state == STREAM_OPEN) {
        c->stream_state = STREAM_RECYCLING;
        uv_close(&c->u.handle, on_recycled);
        return;
    }
    conn_fail(c, ERR_UNAVAILABLE, "cannot connect to %s: %s", c->peer, uv_strerror(status));
}

static void on_connected(uv_connect_t *req, int status)
{
    struct conn *c = req->data;
    CHECK_MAGIC(c, CONN_MAGIC);
    if (c->state == CONN_CLOSING || c->stream_state == STREAM_RECYCLING)
        return;
    if (status < 0)
        connect_failed(c, status);
    else
        connected(c);
}

static void connect_next(struct conn *c)
{
    ASSERT(c->next_addr < c->n_addrs);
    const struct sockaddr *addr = (const struct sockaddr *)&c->addrs[c->next_addr++];
    int rc = stream_init(c, false);
    c->connect_req.data = c;
    if (rc == 0)
        rc = uv_tcp_connect(&c->connect_req, &c->u.tcp, addr, on_connected);
    if (rc != 0)
        connect_failed(c, rc);
}

static void on_looked_up(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    struct conn_lookup *lookup = container_of(req, struct conn_lookup, req);
    struct conn *c = lookup->c;
    if (c != NULL) {
        CHECK_MAGIC(c, CONN_MAGIC);
        c->lookup = NULL;
        for (struct addrinfo *a = list; a != NULL && c->n_addrs < CONN_ADDRS_MAX;
             a = a->ai_next)
            if (a->ai_addrlen <= sizeof c->addrs[0])
                memcpy(&c->addrs[c->n_addrs++], a->ai_addr, a->ai_addrlen);
        if (status < 0 || c->n_addrs == 0)
            conn_fail(c, ERR_UNAVAILABLE, "cannot resolve %s: %s", c->peer,
                      status < 0 ? uv_strerror(status) : "no address");
        else
            connect_next(c);
    }
    uv_freeaddrinfo(list);
    mem_free(lookup);
}

static void look_up(struct conn *c, const char *host, uint16_t port)
{
    char service[8];
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    (void)snprintf(service, sizeof service, "%u", port);
    c->lookup = mem_alloc(sizeof *c->lookup);
    c->lookup->c = c;
    int rc = uv_getaddrinfo(c->loop, &c->lookup->req, on_looked_up, host, service, &hints);
    if (rc == 0)
        return;
    mem_free(TAKE(c->lookup));
    conn_fail(c, ERR_UNAVAILABLE, "cannot resolve %s: %s", c->peer, uv_strerror(rc));
}

static void connect_local(struct conn *c, const char *path)
{
    if (strlen(path) >= sizeof((struct sockaddr_un *)NULL)->sun_path) {
        conn_fail(c, ERR_INVALID, "the path of a socket may not be that long: %s", path);
        return;
    }
    int rc = stream_init(c, true);
    if (rc != 0) {
        conn_fail(c, ERR_IO, "cannot open a socket: %s", uv_strerror(rc));
        return;
    }
    c->connect_req.data = c;
    uv_pipe_connect(&c->connect_req, &c->u.pipe, path, on_connected);
}

struct conn *conn_connect(uv_loop_t *loop, const char *host, uint16_t port, SSL_CTX *ctx,
                          const struct conn_ops *ops, void *arg)
{
    struct conn *c = conn_new(loop, ctx, false, ops, arg);
    struct sockaddr_storage *a = &c->addrs[0];
    if (str_starts(host, "unix:")) {
        (void)snprintf(c->peer, sizeof c->peer, "%s", host);
        connect_local(c, host + strlen("unix:"));
        return c;
    }
    (void)snprintf(c->peer, sizeof c->peer, strchr(host, ':') != NULL ? "[%s]:%u" : "%s:%u",
                   host, port);
    if (uv_ip4_addr(host, port, (struct sockaddr_in *)a) == 0 ||
        uv_ip6_addr(host, port, (struct sockaddr_in6 *)a) == 0) {
        c->n_addrs = 1;
        connect_next(c);
    } else {
        look_up(c, host, port);
    }
    return c;
}

/* ---- a socket that is connected already ---- */

static void describe_peer(struct conn *c, int fd, int family)
{
    struct sockaddr_storage a = {.ss_family = AF_UNSPEC};
    socklen_t n = sizeof a;
    char host[INET6_ADDRSTRLEN] = "?";
    struct ucred cred;
    socklen_t cred_n = sizeof cred;
    if (family == AF_UNIX) {
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &cred_n) == 0)
            c->uid = cred.uid;
        (void)snprintf(c->peer, sizeof c->peer, "local user %u", c->uid);
        return;
    }
    if (getpeername(fd, (struct sockaddr *)&a, &n) != 0)
        a.ss_family = AF_UNSPEC;
    if (a.ss_family == AF_INET6) {
        (void)uv_ip6_name((struct sockaddr_in6 *)&a, host, sizeof host);
        (void)snprintf(c->peer, sizeof c->peer, "[%s]:%u", host,
                       ntohs(((struct sockaddr_in6 *)&a)->sin6_port));
    } else if (a.ss_family == AF_INET) {
        (void)uv_ip4_name((struct sockaddr_in *)&a, host, sizeof host);
        (void)snprintf(c->peer, sizeof c->peer, "%s:%u", host,
                       ntohs(((struct sockaddr_in *)&a)->sin_port));
    } else {
        (void)snprintf(c->peer, sizeof c->peer, "a vanished peer");
    }
}

/* `ready` never runs from inside conn_from_fd(). */
static void on_first_pass(uv_timer_t *t)
{
    struct conn *c = t->data;
    CHECK_MAGIC(c, CONN_MAGIC);
    (void)uv_timer_start(&c->timer, conn_on_timer, CONN_OPEN_MS, 0);
    connected(c);
}

struct conn *conn_from_fd(uv_loop_t *loop, int fd, SSL_CTX *ctx, bool server,
                          const struct conn_ops *ops, void *arg)
{
    struct conn *c = conn_new(loop, ctx, server, ops, arg);
    struct sockaddr_storage a = {.ss_family = AF_UNSPEC};
    socklen_t n = sizeof a;
    int rc = getsockname(fd, (struct sockaddr *)&a, &n) == 0 ? 0 : UV_ENOTSOCK;
    bool local = a.ss_family == AF_UNIX;
    if (rc == 0)
        describe_peer(c, fd, a.ss_family);
    if (rc == 0)
        rc = stream_init(c, local);
    if (rc == 0)
        rc = local ? uv_pipe_open(&c->u.pipe, fd) : uv_tcp_open(&c->u.tcp, fd);
    if (rc != 0) {
        if (fd >= 0)
            (void)close(fd);
        conn_fail(c, ERR_IO, "cannot use a socket: %s", uv_strerror(rc));
        return c;
    }
    (void)uv_timer_start(&c->timer, on_first_pass, 0, 0);
    return c;
}
