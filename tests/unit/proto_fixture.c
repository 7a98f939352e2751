#include "proto_fixture.h"

#include <netinet/in.h>
#include <openssl/pem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"

/* ---- certificates ---- */

const char *certs_path(const struct certs *c, const char *name)
{
    static char ring[8][160];
    static unsigned next;
    char *to = ring[next++ % ARRAY_LEN(ring)];
    (void)snprintf(to, sizeof ring[0], "%s/%s", c->dir, name);
    return to;
}

void certs_setup(struct certs *c)
{
    *c = (struct certs){.dir = "/tmp/regent-test-XXXXXX"};
    assert_non_null(mkdtemp(c->dir));
    assert_int_equal(pki_ca_new(CERT_CLUSTER, &c->ca, &c->ca_key, NULL), ERR_OK);
    assert_int_equal(
        pki_write_file(certs_path(c, "ca.pem"), buf_slice(&c->ca), 0644, false, NULL), ERR_OK);
}

void certs_teardown(struct certs *c)
{
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", c->dir);
    assert_int_equal(system(command), 0);
    buf_close(&c->ca);
    buf_close(&c->ca_key);
}

/* Moves the last day into the past and signs again. */
static void age(const struct certs *c, struct buf *cert)
{
    BIO *in = BIO_new_mem_buf(cert->p, (int)cert->len),
        *key_in = BIO_new_mem_buf(c->ca_key.p, (int)c->ca_key.len);
    BIO *out = BIO_new(BIO_s_mem());
    X509 *x = PEM_read_bio_X509(in, NULL, NULL, NULL);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(key_in, NULL, NULL, NULL);
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(x), -60));
    assert_int_not_equal(X509_sign(x, key, EVP_sha256()), 0);
    assert_int_equal(PEM_write_bio_X509(out, x), 1);
    char *p;
    long n = BIO_get_mem_data(out, &p);
    buf_clear(cert);
    buf_append(cert, p, (size_t)n);
    X509_free(x);
    EVP_PKEY_free(key);
    BIO_free(in);
    BIO_free(key_in);
    BIO_free(out);
}

void certs_issue(const struct certs *c, const char *name, uint64_t member_id, const char *kind,
                 bool expired)
{
    struct buf csr CLEANUP(buf_close) = BUF_INIT, key CLEANUP(buf_close) = BUF_INIT,
                   cert CLEANUP(buf_close) = BUF_INIT;
    struct pki_identity id = {.cluster_id = CERT_CLUSTER, .member_id = member_id};
    static const char *const hosts[] = {"127.0.0.1", "::1", "localhost"};
    char file[80];
    (void)snprintf(id.name, sizeof id.name, "%s", name);
    (void)snprintf(id.kind, sizeof id.kind, "%s", kind);
    assert_int_equal(pki_csr_new(name, &csr, &key, NULL), ERR_OK);
    assert_int_equal(pki_sign(buf_slice(&c->ca), buf_slice(&c->ca_key), buf_slice(&csr), &id,
                              hosts, 3, &cert, NULL),
                     ERR_OK);
    if (expired)
        age(c, &cert);
    (void)snprintf(file, sizeof file, "%s.pem", name);
    assert_int_equal(pki_write_file(certs_path(c, file), buf_slice(&cert), 0644, false, NULL),
                     ERR_OK);
    (void)snprintf(file, sizeof file, "%s.key", name);
    assert_int_equal(pki_write_file(certs_path(c, file), buf_slice(&key), 0600, false, NULL),
                     ERR_OK);
}

/* ---- loop ---- */

/* A tick, because a flag may be set by a timer just before the loop sleeps. */
static void on_tick(uv_timer_t *t)
{
    ++*(unsigned *)t->data;
}

static void on_timer_closed(uv_handle_t *h)
{
    mem_free(h);
}

bool loop_until(uv_loop_t *loop, const bool *flag)
{
    enum { TICK_MS = 10, TICKS_MAX = 12000 };
    unsigned ticks = 0;
    uv_timer_t *t = mem_alloc(sizeof *t);
    (void)uv_timer_init(loop, t);
    t->data = &ticks;
    uv_update_time(loop);
    (void)uv_timer_start(t, on_tick, TICK_MS, TICK_MS);
    while (!*flag && ticks < TICKS_MAX)
        (void)uv_run(loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)t, on_timer_closed);
    (void)uv_run(loop, UV_RUN_NOWAIT);
    return *flag;
}

void loop_end(uv_loop_t *loop)
{
    (void)uv_run(loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(loop), 0);
}

/* ---- listener ---- */

struct listener {
    uv_poll_t poll;
    int fd;
    void (*on_fd)(void *, int);
    void *arg;
};

static void on_acceptable(uv_poll_t *p, int status, int events)
{
    struct listener *l = p->data;
    (void)status, (void)events;
    int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        l->on_fd(l->arg, fd);
}

struct listener *listener_new(uv_loop_t *loop, uint16_t *io_port,
                              void (*on_fd)(void *arg, int fd), void *arg)
{
    struct listener *l = mem_alloc(sizeof *l);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(*io_port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int on = 1;
    l->on_fd = on_fd;
    l->arg = arg;
    l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(l->fd >= 0);
    assert_int_equal(setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    assert_int_equal(bind(l->fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(l->fd, 64), 0);
    assert_int_equal(getsockname(l->fd, (struct sockaddr *)&a, &n), 0);
    *io_port = ntohs(a.sin_port);
    assert_int_equal(uv_poll_init(loop, &l->poll, l->fd), 0);
    l->poll.data = l;
    assert_int_equal(uv_poll_start(&l->poll, UV_READABLE, on_acceptable), 0);
    return l;
}

static void on_listener_closed(uv_handle_t *h)
{
    struct listener *l = h->data;
    (void)close(l->fd);
    mem_free(l);
}

void listener_close(struct listener *l)
{
    uv_close((uv_handle_t *)&l->poll, on_listener_closed);
}
