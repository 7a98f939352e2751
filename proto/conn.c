/* Life of a connection: deadlines and the end. */
#include "proto/conn.h"

#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "proto/conn_impl.h"

enum { GRACE_MS = 20 };

/* ---- closing ---- */

void conn_on_handle_closed(uv_handle_t *h)
{
    struct conn *c = h->data;
    CHECK_MAGIC(c, CONN_MAGIC);
    ASSERT(c->handles > 0);
    if (--c->handles > 0)
        return;
    c->ops->closed(c->arg, &c->why);
    conn_io_free(c);
    c->magic = 0;
    mem_free(c);
}

static void shut(struct conn *c)
{
    c->state = CONN_CLOSING;
    if (c->lookup != NULL) {
        c->lookup->c = NULL;
        (void)uv_cancel((uv_req_t *)&c->lookup->req);
        c->lookup = NULL;
    }
    uv_close((uv_handle_t *)&c->timer, conn_on_handle_closed);
    uv_close((uv_handle_t *)&c->flusher, conn_on_handle_closed);
    uv_close((uv_handle_t *)&c->later, conn_on_handle_closed);
    if (c->stream_state == STREAM_OPEN)
        uv_close(&c->u.handle, conn_on_handle_closed);
}

void conn_fail_with(struct conn *c, const struct errmsg *why)
{
    if (c->state == CONN_CLOSING)
        return;
    if (c->state != CONN_LINGER)
        c->why = *why;
    shut(c);
}

void conn_fail(struct conn *c, enum err code, const char *fmt, ...)
{
    struct errmsg why = {.code = code};
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(why.text, sizeof why.text, fmt, ap);
    va_end(ap);
    conn_fail_with(c, &why);
}

static void on_linger_over(uv_timer_t *t)
{
    struct conn *c = t->data;
    CHECK_MAGIC(c, CONN_MAGIC);
    conn_fail_with(c, &c->why);
}

void conn_linger(struct conn *c, const struct errmsg *why)
{
    ASSERT(c->state < CONN_LINGER);
    c->why = *why;
    c->state = CONN_LINGER;
    (void)uv_timer_start(&c->timer, on_linger_over, CONN_LINGER_MS, 0);
}

void conn_close(struct conn *c)
{
    CHECK_MAGIC(c, CONN_MAGIC);
    if (c->state == CONN_CLOSING)
        return;
    conn_io_close(c);
    conn_fail(c, ERR_CANCELLED, "closed here");
}

/* ---- deadlines ---- */

/* Keepalive finds a dead peer of a silent connection, TCP_USER_TIMEOUT one that does not acknowledge. */
void conn_socket_options(struct conn *c)
{
    uv_os_fd_t fd;
    if (c->stream_state != STREAM_OPEN || c->u.handle.type != UV_TCP ||
        uv_fileno(&c->u.handle, &fd) != 0)
        return;
    unsigned ms = (unsigned)MIN(c->dead_after_ms, (uint64_t)INT32_MAX);
    unsigned idle_s = ms == 0 ? 30 : MAX(ms / 3000, 1U);
    (void)uv_tcp_nodelay(&c->u.tcp, 1);
    (void)uv_tcp_keepalive(&c->u.tcp, 1, idle_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
}

static void watch_idle(struct conn *c)
{
    (void)uv_timer_stop(&c->timer);
    if (c->dead_after_ms == 0)
        return;
    uint64_t silent_ms = clock_boot_ms() - c->last_read_ms;
    uint64_t left_ms = silent_ms < c->dead_after_ms ? c->dead_after_ms - silent_ms : 0;
    (void)uv_timer_start(&c->timer, conn_on_timer, c->suspect ? GRACE_MS : left_ms, 0);
}

void conn_on_timer(uv_timer_t *t)
{
    struct conn *c = t->data;
    CHECK_MAGIC(c, CONN_MAGIC);
    bool idle = c->state == CONN_READY;
    if (idle && clock_boot_ms() - c->last_read_ms < c->dead_after_ms) {
        watch_idle(c);
        return;
    }
    if (!c->suspect) {
        /* Timers run before sockets: after a stall of this loop the answer may be waiting there. */
        c->suspect = true;
        (void)uv_timer_start(t, conn_on_timer, GRACE_MS, 0);
        return;
    }
    if (idle)
        conn_fail(c, ERR_UNAVAILABLE, "%s has been silent for %llu ms", c->peer,
                  (unsigned long long)c->dead_after_ms);
    else
        conn_fail(c, ERR_TIMEOUT, "no %s with %s within %d ms",
                  c->state == CONN_HANDSHAKE ? "TLS handshake" : "connection", c->peer,
                  CONN_OPEN_MS);
}

void conn_set_dead_after(struct conn *c, uint64_t idle_ms)
{
    CHECK_MAGIC(c, CONN_MAGIC);
    c->dead_after_ms = idle_ms;
    if (c->state >= CONN_LINGER)
        return;
    conn_socket_options(c);
    if (c->state == CONN_READY)
        watch_idle(c);
}

void conn_now_ready(struct conn *c, const struct pki_identity *id)
{
    c->state = CONN_READY;
    c->suspect = false;
    c->last_read_ms = clock_boot_ms();
    watch_idle(c);
    c->ops->ready(c->arg, id);
    conn_flush(c);
}

/* ---- what owners ask ---- */

void conn_set_write_max(struct conn *c, size_t bytes)
{
    CHECK_MAGIC(c, CONN_MAGIC);
    c->write_max = bytes;
}

void conn_set_frame_max(struct conn *c, size_t bytes)
{
    CHECK_MAGIC(c, CONN_MAGIC);
    ASSERT(bytes <= CONN_FRAME_MAX);
    c->frame_max = bytes;
}

bool conn_is_open(const struct conn *c)
{
    CHECK_MAGIC(c, CONN_MAGIC);
    return c->state < CONN_LINGER;
}

uint64_t conn_last_read_ms(const struct conn *c)
{
    CHECK_MAGIC(c, CONN_MAGIC);
    return c->last_read_ms;
}

uint32_t conn_peer_uid(const struct conn *c)
{
    CHECK_MAGIC(c, CONN_MAGIC);
    return c->uid;
}

const char *conn_peer_text(const struct conn *c)
{
    CHECK_MAGIC(c, CONN_MAGIC);
    return c->peer;
}

const struct pki_identity *conn_peer_expired(const struct conn *c)
{
    CHECK_MAGIC(c, CONN_MAGIC);
    return c->has_expired ? &c->expired : NULL;
}

const char *conn_error_leader(const struct conn *c)
{
    CHECK_MAGIC(c, CONN_MAGIC);
    return c->error_leader;
}

bool conn_error_gone(const struct conn *c)
{
    CHECK_MAGIC(c, CONN_MAGIC);
    return c->error_gone;
}
