/* Bytes between the socket, TLS and the buffers. TLS works on memory: what the socket gave goes into
 * from_net, what it shall get comes out of to_net. */
#include <openssl/err.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "proto/conn_impl.h"
#include "proto/ossl.h"

enum {
    ENCRYPT_BYTES = 64 * 1024, /* ahead of a slow socket; TLS keeps as much for it */
    KEEP_BYTES = 80 * 1024     /* a larger buffer gives back what it does not need */
};

/* ---- writing ---- */

size_t conn_pending_bytes(const struct conn *c)
{
    CHECK_MAGIC(c, CONN_MAGIC);
    return c->out.len - c->out_pos + c->wire.len;
}

size_t conn_memory_bytes(const struct conn *c)
{
    CHECK_MAGIC(c, CONN_MAGIC);
    return c->in.cap + c->out.cap + c->wire.cap;
}

/* Moves what is next into wire; false when nothing waits. */
static bool fill_wire(struct conn *c)
{
    size_t n = c->state == CONN_READY ? MIN(c->out.len - c->out_pos, (size_t)ENCRYPT_BYTES) : 0;
    ASSERT(c->wire.len == 0);
    if (c->ssl == NULL) {
        if (n > 0)
            buf_append(&c->wire, c->out.p + c->out_pos, n);
    } else {
        size_t taken = 0;
        if (n > 0 &&
            (SSL_write_ex(c->ssl, c->out.p + c->out_pos, n, &taken) != 1 || taken != n)) {
            struct errmsg e;
            (void)ossl_tls_error(&e, c->ssl, c->peer);
            conn_fail_with(c, &e);
            return false;
        }
        size_t sealed = BIO_ctrl_pending(c->to_net);
        if (sealed > 0 && BIO_read(c->to_net, buf_reserve(&c->wire, sealed), (int)sealed) > 0)
            c->wire.len = sealed;
    }
    c->out_pos += n;
    if (c->out_pos == c->out.len) {
        buf_clear(&c->out);
        c->out_pos = 0;
    } else if (c->out_pos > c->out.len / 2) {
        buf_consume(&c->out, c->out_pos); /* each byte is moved less than once on the average */
        c->out_pos = 0;
    }
    buf_trim(&c->out, KEEP_BYTES);
    return c->wire.len > 0;
}

static void send_wire(struct conn *c);

static void on_written(uv_write_t *req, int status)
{
    struct conn *c = req->data;
    CHECK_MAGIC(c, CONN_MAGIC);
    c->writing = false;
    buf_clear(&c->wire);
    if (c->state == CONN_CLOSING)
        return;
    if (status < 0)
        conn_fail(c, ERR_UNAVAILABLE, "cannot send to %s: %s", c->peer, uv_strerror(status));
    else
        send_wire(c);
}

/* As much as the socket takes at once; the rest by libuv, which calls on_written. */
static void send_wire(struct conn *c)
{
    while (!c->writing && c->state < CONN_LINGER && fill_wire(c)) {
        uv_buf_t b = uv_buf_init((char *)c->wire.p, (unsigned)c->wire.len);
        int n = uv_try_write(&c->u.stream, &b, 1);
        if (n == UV_EAGAIN)
            n = 0;
        if (n == (int)c->wire.len) {
            buf_clear(&c->wire);
            continue;
        }
        if (n >= 0) {
            b = uv_buf_init((char *)c->wire.p + n, (unsigned)(c->wire.len - (size_t)n));
            c->write_req.data = c;
            n = uv_write(&c->write_req, &c->u.stream, &b, 1, on_written);
            c->writing = n == 0;
        }
        if (n < 0)
            conn_fail(c, ERR_UNAVAILABLE, "cannot send to %s: %s", c->peer, uv_strerror(n));
    }
    if (!c->writing)
        buf_trim(&c->wire, KEEP_BYTES);
}

void conn_flush(struct conn *c)
{
    CHECK_MAGIC(c, CONN_MAGIC);
    if (c->state == CONN_CLOSING)
        return;
    (void)uv_prepare_stop(&c->flusher);
    if (c->state == CONN_READY)
        send_wire(c);
}

/* ---- reading ---- */

/* The peer hears why, by an alert; a server then waits a little for the peer's end, because closing
 * a socket with unread bytes resets it and the alert is lost. */
static void tls_failed(struct conn *c)
{
    struct errmsg e;
    (void)ossl_tls_error(&e, c->ssl, c->peer);
    if (!c->writing && BIO_ctrl_pending(c->to_net) > 0 && fill_wire(c)) {
        uv_buf_t b = uv_buf_init((char *)c->wire.p, (unsigned)c->wire.len);
        (void)uv_try_write(&c->u.stream, &b, 1);
        buf_clear(&c->wire);
    }
    if (c->server)
        conn_linger(c, &e);
    else
        conn_fail_with(c, &e);
}

static void handshake_done(struct conn *c)
{
    X509 *cert = SSL_get0_peer_certificate(c->ssl);
    struct pki_identity id;
    struct errmsg e;
    if (cert == NULL) {
        conn_now_ready(c, NULL);
        return;
    }
    if (pki_identity_of(cert, &id, &e) != ERR_OK) {
        conn_fail(c, e.code, "%s: %s", c->peer, e.text);
        return;
    }
    if (SSL_get_verify_result(c->ssl) == X509_V_OK) {
        conn_now_ready(c, &id);
        return;
    }
    /* Only pki_server_context() lets one pass that is not sound, and only for this. */
    ASSERT(c->server && SSL_get_verify_result(c->ssl) == X509_V_ERR_CERT_HAS_EXPIRED);
    c->expired = id;
    c->has_expired = true;
    conn_now_ready(c, NULL);
}

static void handshake(struct conn *c)
{
    ERR_clear_error();
    int rc = SSL_do_handshake(c->ssl);
    if (rc != 1 && SSL_get_error(c->ssl, rc) != SSL_ERROR_WANT_READ) {
        tls_failed(c);
        return;
    }
    send_wire(c);
    if (rc == 1 && c->state == CONN_HANDSHAKE)
        handshake_done(c);
}

static void closed_by_peer(struct conn *c)
{
    if (c->put_off)
        (void)err_set(&c->end, ERR_UNAVAILABLE, "%s closed the connection", c->peer);
    else
        conn_fail(c, ERR_UNAVAILABLE, "%s closed the connection", c->peer);
}

/* Decrypts all that is there into c->in. */
static void decrypt(struct conn *c)
{
    size_t n = 0;
    ERR_clear_error();
    for (;;) {
        uint8_t *to = buf_reserve(&c->in, SSL3_RT_MAX_PLAIN_LENGTH);
        int rc = SSL_read_ex(c->ssl, to, SSL3_RT_MAX_PLAIN_LENGTH, &n);
        if (rc != 1) {
            rc = SSL_get_error(c->ssl, rc);
            /* Frames that came before the end are still heard. */
            conn_frames_parse(c);
            if (rc == SSL_ERROR_ZERO_RETURN)
                closed_by_peer(c);
            else if (rc != SSL_ERROR_WANT_READ && c->state == CONN_READY)
                tls_failed(c);
            return;
        }
        c->in.len += n;
    }
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *ret)
{
    struct conn *c = h->data;
    (void)suggested;
    CHECK_MAGIC(c, CONN_MAGIC);
    void *to = c->ssl != NULL ? (void *)c->raw : buf_reserve(&c->in, CONN_READ_BYTES);
    *ret = uv_buf_init(to, CONN_READ_BYTES);
}

/* What is whole was called back for. */
static void parsed(struct conn *c)
{
    buf_trim(&c->in, KEEP_BYTES);
    if (c->state == CONN_READY && !c->put_off && c->ops->received != NULL)
        c->ops->received(c->arg, c->in.len);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    struct conn *c = s->data;
    CHECK_MAGIC(c, CONN_MAGIC);
    if (c->state == CONN_CLOSING || (n >= 0 && c->state == CONN_LINGER) || n == 0)
        return;
    if (n < 0) {
        conn_fail(c, ERR_UNAVAILABLE, "%s: %s", c->peer,
                  n == UV_EOF ? "closed the connection" : uv_strerror((int)n));
        return;
    }
    c->last_read_ms = clock_boot_ms();
    c->suspect = false;
    if (c->ssl == NULL) {
        c->in.len += (size_t)n;
        conn_frames_parse(c);
    } else {
        (void)BIO_write(c->from_net, b->base, (int)n); /* memory: takes all */
        if (c->state == CONN_HANDSHAKE)
            handshake(c);
        if (c->state == CONN_READY)
            decrypt(c);
        if (c->state == CONN_READY && BIO_ctrl_pending(c->to_net) > 0)
            send_wire(c); /* TLS has something of its own to say */
    }
    parsed(c);
}

static void read_or_not(struct conn *c)
{
    if (c->state != CONN_READY)
        return;
    int rc = c->held || c->put_off ? uv_read_stop(&c->u.stream)
                                   : uv_read_start(&c->u.stream, on_alloc, on_read);
    if (rc != 0 && rc != UV_EALREADY)
        conn_fail(c, ERR_IO, "cannot read from %s: %s", c->peer, uv_strerror(rc));
}

void conn_hold(struct conn *c, bool hold)
{
    CHECK_MAGIC(c, CONN_MAGIC);
    c->held = hold;
    read_or_not(c);
}

static void on_later(uv_idle_t *h)
{
    struct conn *c = h->data;
    CHECK_MAGIC(c, CONN_MAGIC);
    (void)uv_idle_stop(h);
    c->put_off = false;
    c->last_read_ms = clock_boot_ms();
    conn_frames_parse(c);
    if (!c->put_off && c->end.code != ERR_OK)
        conn_fail_with(c, &c->end);
    parsed(c);
    read_or_not(c);
}

void conn_put_off(struct conn *c)
{
    c->put_off = true;
    (void)uv_idle_start(&c->later, on_later);
    read_or_not(c);
}

/* ---- life ---- */

static bool tls_new(struct conn *c)
{
    c->ssl = SSL_new(c->ctx);
    c->from_net = BIO_new(BIO_s_mem());
    c->to_net = BIO_new(BIO_s_mem());
    if (c->ssl == NULL || c->from_net == NULL || c->to_net == NULL) {
        BIO_free(c->from_net);
        BIO_free(c->to_net);
        SSL_free(TAKE(c->ssl));
        return false;
    }
    SSL_set_bio(c->ssl, c->from_net, c->to_net);
    if (c->server)
        SSL_set_accept_state(c->ssl);
    else
        SSL_set_connect_state(c->ssl);
    c->raw = mem_alloc(CONN_READ_BYTES);
    return true;
}

void conn_io_open(struct conn *c)
{
    mp_scanner_init(&c->scan);
    c->last_read_ms = clock_boot_ms();
    if (c->ctx != NULL && !tls_new(c)) {
        conn_fail(c, ERR_INTERNAL, "cannot begin TLS with %s", c->peer);
        return;
    }
    int rc = uv_read_start(&c->u.stream, on_alloc, on_read);
    if (rc != 0) {
        conn_fail(c, ERR_IO, "cannot read from %s: %s", c->peer, uv_strerror(rc));
        return;
    }
    if (c->ssl == NULL) {
        conn_now_ready(c, NULL);
        return;
    }
    c->state = CONN_HANDSHAKE;
    if (!c->server)
        handshake(c);
}

void conn_io_close(struct conn *c)
{
    if (c->state != CONN_READY || c->writing)
        return;
    send_wire(c);
    if (c->ssl == NULL || c->writing || c->state != CONN_READY)
        return;
    ERR_clear_error();
    (void)SSL_shutdown(c->ssl);
    send_wire(c);
}

void conn_io_free(struct conn *c)
{
    SSL_free(c->ssl); /* and its BIOs */
    SSL_CTX_free(c->ctx);
    mem_free(c->raw);
    buf_close(&c->in);
    buf_close(&c->out);
    buf_close(&c->wire);
}
