#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "proto/conn.h"
#include "proto/mp.h"
#include "proto_fixture.h"

/* One end, and what has happened to it. A server end answers "echo" with its params, "fail" with an
 * error, "push" with a notification, and stays silent on everything else. */
struct end {
    struct conn *conn;
    bool ready, closed, has_id;
    struct pki_identity id;
    struct errmsg why;
    uint64_t answers, notified;
    bool enough; /* answers reached `want` */
    uint64_t want;
    enum err status;
    struct errmsg error;
    char leader[64];
    struct buf result;
    bool close_in_callback;
    size_t hold_at; /* 0: never; else it holds the connection when so much is unfinished */
    bool held;
    size_t unfinished;
    uint64_t turn, worked, turns_worked; /* of the loop: now, requests, and in how many turns */
    uint64_t worked_turn;
    bool all_worked;
};

enum { WORKS = 20 };

struct pair {
    uv_loop_t loop;
    struct listener *listener;
    SSL_CTX *server_ctx;
    struct end client, server;
    uint16_t port;
};

static struct certs certs, other;

static void on_ready(void *arg, const struct pki_identity *id)
{
    struct end *e = arg;
    assert_false(e->ready || e->closed);
    e->ready = true;
    e->has_id = id != NULL;
    if (id != NULL)
        e->id = *id;
}

/* A request that takes more than half of what a connection has in a turn. */
static void work(struct end *e)
{
    uint64_t until_ns = uv_hrtime() + (CONN_TURN_MS / 2 + 1) * 1000000ULL;
    while (uv_hrtime() < until_ns) {
    }
    e->turns_worked += e->worked == 0 || e->worked_turn != e->turn;
    e->worked_turn = e->turn;
    e->all_worked = ++e->worked == WORKS;
}

static void on_turn(uv_check_t *h)
{
    struct end *e = h->data;
    e->turn++;
}

static void on_request(void *arg, uint64_t msgid, struct slice method, struct slice params)
{
    struct end *e = arg;
    assert_false(e->closed);
    if (slice_eq(method, slice_str("echo")))
        conn_reply(e->conn, msgid, params);
    if (slice_eq(method, slice_str("fail")))
        conn_reply_error(e->conn, msgid, ERR_UNAVAILABLE, "no leader", "10.0.0.9:7400");
    if (slice_eq(method, slice_str("doubt")))
        conn_reply_error(e->conn, msgid, ERR_OUTCOME_UNKNOWN, NULL, NULL);
    if (slice_eq(method, slice_str("work")))
        work(e);
    if (slice_eq(method, slice_str("push")))
        conn_notify(e->conn, "event", params);
    if (e->close_in_callback)
        conn_close(e->conn);
}

static void on_response(void *arg, uint64_t msgid, enum err status, const struct errmsg *error,
                        struct slice result)
{
    struct end *e = arg;
    assert_false(e->closed);
    assert_int_equal(msgid, 1000 + e->answers);
    e->status = status;
    e->error = *error;
    (void)snprintf(e->leader, sizeof e->leader, "%s", conn_error_leader(e->conn));
    buf_clear(&e->result);
    buf_append_slice(&e->result, result);
    e->enough = ++e->answers >= e->want;
}

static void on_notify(void *arg, struct slice method, struct slice params)
{
    struct end *e = arg;
    assert_true(slice_eq(method, slice_str("event")));
    buf_clear(&e->result);
    buf_append_slice(&e->result, params);
    e->enough = ++e->notified >= e->want;
}

static void on_closed(void *arg, const struct errmsg *why)
{
    struct end *e = arg;
    assert_false(e->closed);
    e->closed = true;
    e->why = *why;
}

static void on_received(void *arg, size_t unfinished)
{
    struct end *e = arg;
    assert_false(e->held || e->closed);
    e->unfinished = unfinished;
    e->held = e->hold_at != 0 && unfinished >= e->hold_at;
    if (e->held)
        conn_hold(e->conn, true);
}

static const struct conn_ops ops = {.ready = on_ready,
                                    .request = on_request,
                                    .response = on_response,
                                    .notify = on_notify,
                                    .closed = on_closed,
                                    .received = on_received};

static void on_accepted(void *arg, int fd)
{
    struct pair *p = arg;
    assert_null(p->server.conn);
    p->server.conn = conn_from_fd(&p->loop, fd, p->server_ctx, true, &ops, &p->server);
}

static void pair_listen(struct pair *p, bool tls)
{
    *p = (struct pair){.port = 0};
    assert_int_equal(uv_loop_init(&p->loop), 0);
    p->listener = listener_new(&p->loop, &p->port, on_accepted, p);
    if (tls)
        assert_int_equal(pki_server_context(certs_path(&certs, "ca.pem"),
                                            certs_path(&certs, "n1.pem"),
                                            certs_path(&certs, "n1.key"), &p->server_ctx, NULL),
                         ERR_OK);
}

static void pair_dial(struct pair *p, const struct certs *c, const char *name)
{
    char cert[64], key[64];
    SSL_CTX *ctx = NULL;
    struct errmsg e = {.text = ""};
    (void)snprintf(cert, sizeof cert, "%s.pem", name != NULL ? name : "");
    (void)snprintf(key, sizeof key, "%s.key", name != NULL ? name : "");
    if (c != NULL &&
        pki_client_context(certs_path(c, "ca.pem"), name != NULL ? certs_path(c, cert) : NULL,
                           name != NULL ? certs_path(c, key) : NULL, &ctx, &e) != ERR_OK)
        fail_msg("%s", e.text);
    p->client.conn = conn_connect(&p->loop, "127.0.0.1", p->port, ctx, &ops, &p->client);
    SSL_CTX_free(ctx);
}

static void pair_open(struct pair *p, bool tls)
{
    pair_listen(p, tls);
    pair_dial(p, tls ? &certs : NULL, tls ? "n2" : NULL);
    assert_true(loop_until(&p->loop, &p->client.ready));
    assert_true(loop_until(&p->loop, &p->server.ready));
}

static void pair_close(struct pair *p)
{
    if (p->client.conn != NULL && !p->client.closed)
        conn_close(p->client.conn);
    if (p->server.conn != NULL && !p->server.closed)
        conn_close(p->server.conn);
    listener_close(p->listener);
    loop_end(&p->loop);
    assert_true(p->client.conn == NULL || p->client.closed);
    assert_true(p->server.conn == NULL || p->server.closed);
    SSL_CTX_free(p->server_ctx);
    buf_close(&p->client.result);
    buf_close(&p->server.result);
}

/* {"k": <n bytes>} */
static struct slice params(struct buf *b, size_t n)
{
    void *bytes CLEANUP(mem_cleanup) = mem_alloc(n);
    buf_clear(b);
    mp_write_map(b, 1);
    mp_write_str(b, slice_str("k"));
    mp_write_bin(b, slice_of(bytes, n));
    return buf_slice(b);
}

static int setup(void **state)
{
    (void)state;
    certs_setup(&certs);
    certs_setup(&other);
    certs_issue(&certs, "n1", 1, "first", false);
    certs_issue(&certs, "n2", 2, "node", false);
    certs_issue(&certs, "old", 3, "node", true);
    certs_issue(&other, "stranger", 1, "node", false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    certs_teardown(&certs);
    certs_teardown(&other);
    return 0;
}

/* ---- identity ---- */

static void both_ends_know_each_other_by_their_certificates(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p, true);
    assert_true(p.server.has_id && p.client.has_id);
    assert_string_equal(p.server.id.name, "n2");
    assert_int_equal(p.server.id.member_id, 2);
    assert_string_equal(p.client.id.name, "n1");
    assert_string_equal(p.client.id.kind, "first");
    assert_null(conn_peer_expired(p.server.conn));
    pair_close(&p);
}

static void a_client_without_certificate_is_ready_without_identity(void **state)
{
    (void)state;
    struct pair p;
    pair_listen(&p, true);
    pair_dial(&p, &certs, NULL);
    assert_true(loop_until(&p.loop, &p.server.ready));
    assert_false(p.server.has_id);
    assert_null(conn_peer_expired(p.server.conn));
    pair_close(&p);
}

static void an_expired_client_is_ready_without_identity_and_named_as_expired(void **state)
{
    (void)state;
    struct pair p;
    pair_listen(&p, true);
    pair_dial(&p, &certs, "old");
    assert_true(loop_until(&p.loop, &p.server.ready));
    assert_false(p.server.has_id);
    assert_non_null(conn_peer_expired(p.server.conn));
    assert_string_equal(conn_peer_expired(p.server.conn)->name, "old");
    pair_close(&p);
}

static void a_server_of_another_ca_is_refused_with_a_remedy(void **state)
{
    (void)state;
    struct pair p;
    pair_listen(&p, true);
    pair_dial(&p, &other, "stranger");
    assert_true(loop_until(&p.loop, &p.client.closed));
    assert_int_equal(p.client.why.code, ERR_UNAUTHENTICATED);
    assert_non_null(strstr(p.client.why.text, "another cluster's CA"));
    assert_true(loop_until(&p.loop, &p.server.closed));
    assert_false(p.server.ready);
    pair_close(&p);
}

/* The client trusts the server, but shows a certificate the server's CA has not signed. */
static void a_client_of_another_ca_learns_why_it_was_refused(void **state)
{
    (void)state;
    struct pair p;
    SSL_CTX *ctx = NULL;
    pair_listen(&p, true);
    assert_int_equal(pki_client_context(certs_path(&other, "ca.pem"),
                                        certs_path(&other, "stranger.pem"),
                                        certs_path(&other, "stranger.key"), &ctx, NULL),
                     ERR_OK);
    assert_int_equal(SSL_CTX_load_verify_locations(ctx, certs_path(&certs, "ca.pem"), NULL), 1);
    p.client.conn = conn_connect(&p.loop, "127.0.0.1", p.port, ctx, &ops, &p.client);
    SSL_CTX_free(ctx);
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    conn_request(p.client.conn, 1000, "echo", params(&b, 10));
    assert_true(loop_until(&p.loop, &p.client.closed));
    assert_int_equal(p.client.why.code, ERR_UNAUTHENTICATED);
    assert_non_null(strstr(p.client.why.text, "it refused our certificate"));
    assert_true(loop_until(&p.loop, &p.server.closed));
    assert_int_equal(p.server.why.code, ERR_UNAUTHENTICATED);
    assert_non_null(strstr(p.server.why.text, "another cluster's CA"));
    assert_int_equal(p.client.answers, 0);
    pair_close(&p);
}

static void a_server_with_an_expired_certificate_is_refused(void **state)
{
    (void)state;
    struct pair p;
    pair_listen(&p, false);
    assert_int_equal(pki_server_context(certs_path(&certs, "ca.pem"),
                                        certs_path(&certs, "old.pem"),
                                        certs_path(&certs, "old.key"), &p.server_ctx, NULL),
                     ERR_OK);
    pair_dial(&p, &certs, "n2");
    assert_true(loop_until(&p.loop, &p.client.closed));
    assert_int_equal(p.client.why.code, ERR_UNAUTHENTICATED);
    assert_non_null(strstr(p.client.why.text, "expired; renew it"));
    pair_close(&p);
}

static void a_joining_node_trusts_the_fingerprint_only(void **state)
{
    (void)state;
    const struct certs *const cas[] = {&certs, &other};
    for (size_t i = 0; i < 2; i++) {
        struct pair p;
        SSL_CTX *ctx = NULL;
        char fingerprint[PKI_FINGERPRINT_LEN + 1];
        pair_listen(&p, true);
        assert_int_equal(pki_fingerprint(buf_slice(&cas[i]->ca), fingerprint, NULL), ERR_OK);
        assert_int_equal(pki_join_context(fingerprint, &ctx, NULL), ERR_OK);
        p.client.conn = conn_connect(&p.loop, "127.0.0.1", p.port, ctx, &ops, &p.client);
        SSL_CTX_free(ctx);
        assert_true(loop_until(&p.loop, i == 0 ? &p.client.ready : &p.client.closed));
        assert_int_equal(p.client.ready, i == 0);
        pair_close(&p);
    }
}

static void plain_bytes_on_a_tls_port_are_refused(void **state)
{
    (void)state;
    struct pair p;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    pair_listen(&p, true);
    pair_dial(&p, NULL, NULL);
    conn_request(p.client.conn, 1000, "echo", params(&b, 100));
    assert_true(loop_until(&p.loop, &p.server.closed));
    assert_false(p.server.ready);
    pair_close(&p);
}

/* ---- messages ---- */

static void requests_errors_and_notifications_arrive(void **state)
{
    (void)state;
    for (int tls = 0; tls < 2; tls++) {
        struct pair p;
        struct buf b CLEANUP(buf_close) = BUF_INIT;
        pair_open(&p, tls == 1);
        p.client.want = 1;
        conn_request(p.client.conn, 1000, "echo", params(&b, 10));
        assert_true(loop_until(&p.loop, &p.client.enough));
        assert_int_equal(p.client.status, ERR_OK);
        assert_true(slice_eq(buf_slice(&p.client.result), buf_slice(&b)));
        p.client.want = 2, p.client.enough = false;
        conn_request(p.client.conn, 1001, "fail", params(&b, 10));
        assert_true(loop_until(&p.loop, &p.client.enough));
        assert_int_equal(p.client.status, ERR_UNAVAILABLE);
        assert_string_equal(p.client.error.text, "no leader");
        assert_string_equal(p.client.leader, "10.0.0.9:7400");
        p.client.want = 3, p.client.enough = false;
        conn_request(p.client.conn, 1002, "doubt", params(&b, 10));
        assert_true(loop_until(&p.loop, &p.client.enough));
        assert_int_equal(p.client.status, ERR_OUTCOME_UNKNOWN);
        assert_string_equal(p.client.leader, "");
        p.client.want = 1, p.client.enough = false;
        conn_request(p.client.conn, 1003, "push", params(&b, 10));
        assert_true(loop_until(&p.loop, &p.client.enough));
        assert_int_equal(p.client.notified, 1);
        pair_close(&p);
    }
}

static void frames_of_every_size_arrive_in_order(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 100, 16000, 16384, 65536, 70000, 300000, 2000000, 5};
    for (int tls = 0; tls < 2; tls++) {
        struct pair p;
        struct buf b CLEANUP(buf_close) = BUF_INIT;
        pair_open(&p, tls == 1);
        p.client.want = 3 * ARRAY_LEN(sizes);
        for (size_t i = 0; i < p.client.want; i++)
            conn_request(p.client.conn, 1000 + i, "echo",
                         params(&b, sizes[i % ARRAY_LEN(sizes)]));
        assert_true(loop_until(&p.loop, &p.client.enough));
        assert_true(slice_eq(buf_slice(&p.client.result), buf_slice(&b)));
        assert_int_equal(conn_pending_bytes(p.client.conn), 0);
        pair_close(&p);
    }
}

static void an_oversized_frame_closes_the_connection(void **state)
{
    (void)state;
    struct pair p;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    pair_open(&p, true);
    conn_request(p.client.conn, 1000, "echo", params(&b, CONN_FRAME_MAX));
    assert_true(loop_until(&p.loop, &p.server.closed));
    assert_int_equal(p.server.why.code, ERR_LIMIT);
    assert_true(loop_until(&p.loop, &p.client.closed));
    pair_close(&p);
}

static void a_bound_of_ones_own_closes_the_connection(void **state)
{
    (void)state;
    struct pair p;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    pair_open(&p, true);
    conn_set_frame_max(p.server.conn, 65536);
    p.client.want = 1;
    conn_request(p.client.conn, 1000, "echo", params(&b, 65000));
    assert_true(loop_until(&p.loop, &p.client.enough));
    conn_request(p.client.conn, 1001, "echo", params(&b, 66000));
    assert_true(loop_until(&p.loop, &p.server.closed));
    assert_int_equal(p.server.why.code, ERR_LIMIT);
    pair_close(&p);
}

static void a_held_connection_is_not_read_until_it_is_let_go(void **state)
{
    (void)state;
    enum { SIZE = 1536 * 1024, AT = 100000 };
    for (int tls = 0; tls < 2; tls++) {
        struct pair p;
        struct buf b CLEANUP(buf_close) = BUF_INIT;
        pair_open(&p, tls == 1);
        p.server.hold_at = AT;
        p.client.want = 1;
        conn_request(p.client.conn, 1000, "echo", params(&b, SIZE));
        assert_true(loop_until(&p.loop, &p.server.held));
        /* a read gives 64 KiB, and nothing comes in behind it */
        for (int i = 0; i < 100; i++)
            (void)uv_run(&p.loop, UV_RUN_NOWAIT);
        assert_in_range(p.server.unfinished, AT, AT + 2 * 65536);
        assert_int_equal(p.client.answers, 0);
        p.server.hold_at = 0;
        p.server.held = false;
        conn_hold(p.server.conn, false);
        assert_true(loop_until(&p.loop, &p.client.enough));
        assert_int_equal(p.server.unfinished, 0);
        pair_close(&p);
    }
}

/* One that asks for much does not hold up the others, and all that it has asked for is heard, also when it is
 * gone by then. */
static void requests_that_take_long_are_spread_over_turns(void **state)
{
    (void)state;
    for (int tls = 0; tls < 2; tls++) {
        struct pair p;
        struct buf b CLEANUP(buf_close) = BUF_INIT;
        uv_check_t check;
        pair_open(&p, tls == 1);
        (void)uv_check_init(&p.loop, &check);
        check.data = &p.server;
        (void)uv_check_start(&check, on_turn);
        for (int i = 0; i < WORKS; i++)
            conn_request(p.client.conn, 1000, "work", params(&b, 10));
        conn_close(p.client.conn);
        assert_true(loop_until(&p.loop, &p.server.all_worked));
        assert_true(p.server.turns_worked >= WORKS / 2);
        assert_true(loop_until(&p.loop, &p.server.closed));
        uv_close((uv_handle_t *)&check, NULL);
        pair_close(&p);
    }
}

static void a_result_too_long_for_a_frame_becomes_an_error(void **state)
{
    (void)state;
    struct pair p;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    pair_open(&p, true);
    p.client.want = 1;
    conn_reply(p.server.conn, 1000, params(&b, CONN_FRAME_MAX));
    assert_true(loop_until(&p.loop, &p.client.enough));
    assert_int_equal(p.client.status, ERR_LIMIT);

    buf_clear(&b);
    mp_write_array(&b, CONN_ELEMENTS_MAX);
    for (int i = 0; i < CONN_ELEMENTS_MAX; i++)
        mp_write_nil(&b);
    p.client.want = 2, p.client.enough = false;
    conn_reply(p.server.conn, 1001, buf_slice(&b));
    assert_true(loop_until(&p.loop, &p.client.enough));
    assert_int_equal(p.client.status, ERR_LIMIT);
    pair_close(&p);
}

/* A raw socket against a plain server end: what is no message closes it, a half message waits. */
static void hostile_frames_close_the_connection(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        enum err want; /* ERR_OK: stays open until our end closes */
    } rows[] = {
        {"GET / HTTP/1.1\r\n\r\n", 18, ERR_INVALID},
        {"\xc1", 1, ERR_INVALID},
        {"\x94\x00\x01\xa1x\x90", 6, ERR_INVALID},     /* params without a map */
        {"\x94\x00\x01\xa1x\x91\x90", 7, ERR_INVALID}, /* params an array in an array */
        {"\x94\x00\xff\xa1x\x91\x80", 7, ERR_INVALID}, /* a negative msgid */
        {"\x93\x00\x01\xa1x", 5, ERR_INVALID},         /* a request of three */
        {"\x94\x03\x01\xa1x\x91\x80", 7, ERR_INVALID}, /* type 3 */
        {"\x94\x01\x01\x05\xc0", 5, ERR_INVALID},      /* an error that is a number */
        {"\x94\x01\x01\x94\x00\xa2ok\xa0\x80\xc0", 11, ERR_INVALID}, /* an error that is none */
        {"\xdd\xff\xff\xff\xff", 5, ERR_LIMIT},
        {"\x94\x00\x01", 3, ERR_UNAVAILABLE}, /* cut: ends with the connection */
        {"", 0, ERR_UNAVAILABLE},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uv_loop_t loop;
        struct end server = {.conn = NULL};
        int fds[2];
        assert_int_equal(uv_loop_init(&loop), 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        server.conn = conn_from_fd(&loop, fds[0], NULL, true, &ops, &server);
        assert_int_equal(conn_peer_uid(server.conn), getuid());
        assert_int_equal(write(fds[1], rows[i].bytes, rows[i].n), rows[i].n);
        assert_int_equal(shutdown(fds[1], SHUT_WR), 0);
        assert_true(loop_until(&loop, &server.closed));
        assert_int_equal(server.why.code, rows[i].want);
        (void)close(fds[1]);
        loop_end(&loop);
    }
}

static void closing_inside_a_callback_ends_all_callbacks(void **state)
{
    (void)state;
    struct pair p;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    pair_open(&p, true);
    p.server.close_in_callback = true;
    for (uint64_t i = 0; i < 5; i++)
        conn_request(p.client.conn, 1000 + i, "echo", params(&b, 10));
    assert_true(loop_until(&p.loop, &p.client.closed));
    assert_int_equal(p.client.answers, 1); /* answered before the end, and flushed by it */
    assert_int_equal(p.client.why.code, ERR_UNAVAILABLE);
    pair_close(&p);
}

/* ---- deadlines and bounds ---- */

static void a_peer_that_reads_nothing_is_bounded_in_bytes(void **state)
{
    (void)state;
    uv_loop_t loop;
    struct end end = {.conn = NULL};
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    int fds[2];
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    end.conn = conn_from_fd(&loop, fds[0], NULL, false, &ops, &end);
    conn_set_write_max(end.conn, 4 * 1024 * 1024);
    assert_true(loop_until(&loop, &end.ready));
    for (int i = 0; i < 100 && conn_is_open(end.conn); i++) {
        conn_request(end.conn, 1, "echo", params(&b, 100000));
        conn_flush(end.conn);
        assert_true(conn_pending_bytes(end.conn) <= 4 * 1024 * 1024 + 100100);
    }
    assert_true(loop_until(&loop, &end.closed));
    assert_int_equal(end.why.code, ERR_LIMIT);
    (void)close(fds[1]);
    loop_end(&loop);
}

static void a_silent_peer_is_given_up(void **state)
{
    (void)state;
    struct pair p;
    /* silence counts from the last byte, which comes after this */
    uint64_t begin_ms = clock_boot_ms();
    pair_open(&p, true);
    conn_set_dead_after(p.client.conn, 100);
    assert_true(loop_until(&p.loop, &p.client.closed));
    assert_int_equal(p.client.why.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(p.client.why.text, "silent"));
    assert_true(clock_boot_ms() - begin_ms >= 100);
    pair_close(&p);
}

static void ignore_fd(void *arg, int fd)
{
    *(int *)arg = fd;
}

/* Accepts, and says nothing: the kernel's handshake is done, TLS's never. */
static void a_peer_that_never_shakes_hands_is_given_up(void **state)
{
    (void)state;
    uv_loop_t loop;
    struct end end = {.conn = NULL};
    int fd = -1;
    uint16_t port = 0;
    SSL_CTX *ctx = NULL;
    assert_int_equal(uv_loop_init(&loop), 0);
    struct listener *l = listener_new(&loop, &port, ignore_fd, &fd);
    assert_int_equal(pki_client_context(certs_path(&certs, "ca.pem"), NULL, NULL, &ctx, NULL),
                     ERR_OK);
    end.conn = conn_connect(&loop, "127.0.0.1", port, ctx, &ops, &end);
    SSL_CTX_free(ctx);
    assert_true(loop_until(&loop, &end.closed));
    assert_int_equal(end.why.code, ERR_TIMEOUT);
    assert_non_null(strstr(end.why.text, "no TLS handshake"));
    (void)close(fd);
    listener_close(l);
    loop_end(&loop);
}

static void a_refused_address_and_a_name_with_several_work_out(void **state)
{
    (void)state;
    struct pair p;
    pair_listen(&p, false);
    /* localhost is ::1 and 127.0.0.1; only the second listens. */
    p.client.conn = conn_connect(&p.loop, "localhost", p.port, NULL, &ops, &p.client);
    assert_true(loop_until(&p.loop, &p.client.ready));
    assert_true(loop_until(&p.loop, &p.server.ready));
    pair_close(&p);

    static const char *const hosts[] = {"127.0.0.1", "::1", "no.such.host.invalid",
                                        "unix:/nowhere/at/all"};
    for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
        uv_loop_t loop;
        struct end end = {.conn = NULL};
        assert_int_equal(uv_loop_init(&loop), 0);
        end.conn = conn_connect(&loop, hosts[i], 1, NULL, &ops, &end);
        assert_false(end.closed);
        assert_true(loop_until(&loop, &end.closed));
        assert_int_equal(end.why.code, ERR_UNAVAILABLE);
        loop_end(&loop);
    }
}

static void closing_works_in_every_state(void **state)
{
    (void)state;
    for (int steps = 0; steps < 12; steps++) {
        struct pair p;
        pair_listen(&p, true);
        pair_dial(&p, &certs, "n2");
        for (int i = 0; i < steps; i++)
            (void)uv_run(&p.loop, UV_RUN_NOWAIT);
        conn_close(p.client.conn);
        conn_close(p.client.conn);
        conn_flush(p.client.conn);
        conn_request(p.client.conn, 1, "echo", slice_of(NULL, 0));
        pair_close(&p);
        uv_loop_t loop;
        struct end end = {.conn = NULL};
        assert_int_equal(uv_loop_init(&loop), 0);
        end.conn = conn_connect(&loop, "localhost", 1, NULL, &ops, &end);
        for (int i = 0; i < steps && !end.closed; i++)
            (void)uv_run(&loop, UV_RUN_NOWAIT);
        if (!end.closed)
            conn_close(end.conn);
        loop_end(&loop);
        assert_true(end.closed);
    }
}

/* Not a benchmark: prints the rate, and only fails when it is absurd. */
static void many_small_requests_pass_quickly(void **state)
{
    (void)state;
    enum { N = 20000, WINDOW = 200, PATIENCE_S = 300 };
    struct pair p;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    pair_open(&p, true);
    struct slice s = params(&b, 50);
    uint64_t begin_us = clock_boot_us();
    for (uint64_t sent = 0; p.client.answers < N && !p.client.closed;) {
        while (sent < N && sent - p.client.answers < WINDOW)
            conn_request(p.client.conn, 1000 + sent++, "echo", s);
        (void)uv_run(&p.loop, UV_RUN_ONCE);
        if (clock_boot_us() - begin_us > PATIENCE_S * 1000000ULL)
            break;
    }
    uint64_t us = clock_boot_us() - begin_us;
    assert_int_equal(p.client.answers, N);
    print_message("%llu requests a second over TLS, both ends in this thread\n",
                  (unsigned long long)(N * 1000000ULL / us));
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ends_know_each_other_by_their_certificates),
        cmocka_unit_test(a_client_without_certificate_is_ready_without_identity),
        cmocka_unit_test(an_expired_client_is_ready_without_identity_and_named_as_expired),
        cmocka_unit_test(a_server_of_another_ca_is_refused_with_a_remedy),
        cmocka_unit_test(a_client_of_another_ca_learns_why_it_was_refused),
        cmocka_unit_test(a_server_with_an_expired_certificate_is_refused),
        cmocka_unit_test(a_joining_node_trusts_the_fingerprint_only),
        cmocka_unit_test(plain_bytes_on_a_tls_port_are_refused),
        cmocka_unit_test(requests_errors_and_notifications_arrive),
        cmocka_unit_test(frames_of_every_size_arrive_in_order),
        cmocka_unit_test(an_oversized_frame_closes_the_connection),
        cmocka_unit_test(a_bound_of_ones_own_closes_the_connection),
        cmocka_unit_test(a_held_connection_is_not_read_until_it_is_let_go),
        cmocka_unit_test(requests_that_take_long_are_spread_over_turns),
        cmocka_unit_test(a_result_too_long_for_a_frame_becomes_an_error),
        cmocka_unit_test(hostile_frames_close_the_connection),
        cmocka_unit_test(closing_inside_a_callback_ends_all_callbacks),
        cmocka_unit_test(a_peer_that_reads_nothing_is_bounded_in_bytes),
        cmocka_unit_test(a_silent_peer_is_given_up),
        cmocka_unit_test(a_peer_that_never_shakes_hands_is_given_up),
        cmocka_unit_test(a_refused_address_and_a_name_with_several_work_out),
        cmocka_unit_test(closing_works_in_every_state),
        cmocka_unit_test(many_small_requests_pass_quickly),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
