#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "proto/client.h"
#include "proto/conn.h"
#include "proto_fixture.h"

/* ---- a server that does what the test says ---- */

enum how {
    ANSWER,
    SWALLOW,
    DROP,
    NO_LEADER,
    SESSION_GONE,
    NO_SPACE,
    IN_DOUBT,
    KEPT_REFUSAL,
    NO_RIGHT,
    GONE
};

enum { CONNS_MAX = 64, SEQS_MAX = 4096 };

struct server {
    uv_loop_t *loop;
    struct server_conn {
        struct server *s;
        struct conn *conn; /* NULL: free */
    } conns[CONNS_MAX];
    SSL_CTX *ctx;
    struct listener *listener;
    uint16_t port;
    const char *cluster_id;
    enum how how;      /* for kv.put, kv.range and session-less writes */
    unsigned how_left; /* so many requests; then ANSWER */
    bool mute;         /* not even hello */
    unsigned accepted, hellos, puts, ranges, applied, sessions, others;
    unsigned in_flight_max, in_flight;
    uint64_t session;
    bool seen[SEQS_MAX]; /* seqs of this session that were applied */
    uint64_t last_session, last_seq;
    uint64_t watch_start, watches, watch_cancelled;
    struct conn *watch_conn;
    uint64_t watch_id;
    uint64_t window, credit; /* asked for at first; granted since */
    bool saw_put, saw_watch, saw_cancel, saw_credit;
};

static void answer(struct conn *c, uint64_t msgid, const struct msg *m, const void *obj)
{
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    msg_encode(m, obj, &b);
    conn_reply(c, msgid, buf_slice(&b));
}

static enum how next_how(struct server *s)
{
    if (s->how == ANSWER || s->how_left == 0)
        return ANSWER;
    s->how_left--;
    return s->how;
}

static bool refuse(struct server *s, struct conn *c, uint64_t msgid)
{
    switch (next_how(s)) {
    case ANSWER:
        return false;
    case SWALLOW:
        return true;
    case DROP:
        conn_close(c);
        return true;
    case NO_LEADER:
        conn_reply_error(c, msgid, ERR_UNAVAILABLE, "no leader", NULL);
        return true;
    case SESSION_GONE:
        s->session = 0;
        conn_reply_error(c, msgid, ERR_PRECONDITION, "session is unknown", NULL);
        return true;
    case NO_SPACE:
        conn_reply_error(c, msgid, ERR_NO_SPACE, "full", NULL);
        return true;
    case IN_DOUBT:
        conn_reply_error(c, msgid, ERR_OUTCOME_UNKNOWN, "the leader changed", NULL);
        return true;
    case KEPT_REFUSAL:
        conn_reply_error(c, msgid, ERR_NOT_FOUND, "lease 7 does not exist", NULL);
        return true;
    case NO_RIGHT:
        conn_reply_error(c, msgid, ERR_DENIED, "this member was removed", NULL);
        return true;
    case GONE:
        conn_reply_gone(c, msgid, ERR_DENIED, "this member was removed");
        return true;
    }
    return true;
}

/* Applied when it arrives, whether answered or not: the worst case for a client. */
static void on_put(struct server *s, struct conn *c, uint64_t msgid, struct slice params)
{
    struct put_req put;
    struct op_result result = {.op = "put", .revision = 10};
    assert_int_equal(msg_decode(&msg_put_req, params, &put, NULL), ERR_OK);
    assert_true(put.deadline_ms > 0 && put.deadline_ms <= 60000);
    s->puts++;
    s->saw_put = true;
    s->last_session = put.session;
    s->last_seq = put.seq;
    bool current = put.session == s->session;
    if (s->how != NO_LEADER && s->how != SESSION_GONE && s->how != NO_SPACE &&
        (put.session == 0 || current)) {
        if (put.session == 0 || !s->seen[put.seq % SEQS_MAX])
            s->applied++;
        if (put.session != 0)
            s->seen[put.seq % SEQS_MAX] = true;
    }
    if (refuse(s, c, msgid))
        return;
    if (put.session != 0 && !current) {
        conn_reply_error(c, msgid, ERR_PRECONDITION, "session is unknown", NULL);
        return;
    }
    if (s->how != ANSWER && put.session != 0 && !s->seen[put.seq % SEQS_MAX]) {
        s->applied++;
        s->seen[put.seq % SEQS_MAX] = true;
    }
    answer(c, msgid, &msg_op_result, &result);
}

static void on_hello(struct server *s, struct conn *c, uint64_t msgid)
{
    struct hello_reply reply = {.version = PROTO_VERSION, .member_id = 1, .revision = 5};
    (void)snprintf(reply.cluster_id, sizeof reply.cluster_id, "%s", s->cluster_id);
    s->hellos++;
    if (!s->mute)
        answer(c, msgid, &msg_hello_reply, &reply);
}

static void on_request(void *arg, uint64_t msgid, struct slice method, struct slice params)
{
    struct server_conn *sc = arg;
    struct server *s = sc->s;
    struct conn *c = sc->conn;
    enum method m = method_find(method);
    if (m == METHOD_HELLO) {
        on_hello(s, c, msgid);
    } else if (m == METHOD_SESSION_OPEN) {
        struct session_open open;
        assert_int_equal(msg_decode(&msg_session_open, params, &open, NULL), ERR_OK);
        if (s->session != open.nonce)
            memset(s->seen, 0, sizeof s->seen), s->sessions++;
        s->session = open.nonce;
        struct session_reply reply = {.session = s->session, .revision = 5};
        answer(c, msgid, &msg_session_reply, &reply);
    } else if (m == METHOD_KV_PUT) {
        on_put(s, c, msgid, params);
    } else if (m == METHOD_KV_RANGE) {
        struct range_reply reply = {.revision = 10, .count = 3};
        s->ranges++;
        if (!refuse(s, c, msgid))
            answer(c, msgid, &msg_range_reply, &reply);
    } else if (m == METHOD_WATCH_CREATE) {
        struct watch_req req;
        assert_int_equal(msg_decode(&msg_watch_req, params, &req, NULL), ERR_OK);
        struct watch_reply reply = {.watch = s->watch_id = 100 + ++s->watches, .revision = 20};
        s->watch_start = req.start_revision;
        s->watch_conn = c;
        s->saw_watch = true;
        s->window = req.credit;
        if (s->how == GONE && refuse(s, c, msgid))
            return;
        answer(c, msgid, &msg_watch_reply, &reply);
    } else if (m == METHOD_WATCH_CREDIT) {
        struct watch_credit more;
        assert_int_equal(msg_decode(&msg_watch_credit, params, &more, NULL), ERR_OK);
        assert_int_equal(more.watch, s->watch_id);
        s->credit += more.credit;
        s->saw_credit = true;
        conn_reply(c, msgid, slice_of(NULL, 0));
    } else if (m == METHOD_WATCH_CANCEL) {
        s->saw_cancel = true;
        s->watch_cancelled++;
        conn_reply(c, msgid, slice_of(NULL, 0));
    } else {
        s->others++;
        if (!refuse(s, c, msgid))
            conn_reply(c, msgid, slice_of(NULL, 0));
    }
}

static void on_ready(void *arg, const struct pki_identity *id)
{
    (void)arg, (void)id;
}

static void on_closed(void *arg, const struct errmsg *why)
{
    struct server_conn *sc = arg;
    (void)why;
    if (sc->s->watch_conn == sc->conn)
        sc->s->watch_conn = NULL;
    sc->conn = NULL;
}

static const struct conn_ops ops = {
    .ready = on_ready, .request = on_request, .closed = on_closed};

static void server_take(void *arg, int fd)
{
    struct server *s = arg;
    for (size_t i = 0; i < CONNS_MAX; i++) {
        if (s->conns[i].conn != NULL)
            continue;
        s->accepted++;
        s->conns[i].s = s;
        s->conns[i].conn = conn_from_fd(s->loop, fd, s->ctx, true, &ops, &s->conns[i]);
        return;
    }
    (void)close(fd);
}

static int server_connect(void *arg)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        return -1;
    server_take(arg, fds[0]);
    return fds[1];
}

static void server_break(struct server *s)
{
    for (size_t i = 0; i < CONNS_MAX; i++)
        if (s->conns[i].conn != NULL)
            conn_close(s->conns[i].conn);
}

static void push(struct server *s, uint64_t revision, uint64_t compacted)
{
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    struct watch_event ev = {
        .watch = s->watch_id, .revision = revision, .compacted = compacted};
    msg_encode(&msg_watch_event, &ev, &b);
    conn_notify(s->watch_conn, "watch.event", buf_slice(&b));
}

/* ---- a client beside it ---- */

struct world {
    uv_loop_t loop;
    struct server server;
    struct client *client;
    bool connected, closed;
};

struct call {
    bool done;
    enum err status;
    struct errmsg error;
};

static void on_state(void *arg, bool connected, const struct hello_reply *hello)
{
    struct world *w = arg;
    assert_int_equal(connected, hello != NULL);
    w->connected = connected;
}

static void on_reply(void *arg, const struct client_reply *reply)
{
    struct call *call = arg;
    assert_false(call->done);
    call->done = true;
    call->status = reply->status;
    call->error = reply->error;
}

static void world_open(struct world *w, const struct client_options *o)
{
    struct client_options def = {.connect_fd = server_connect, .connect_arg = &w->server};
    *w = (struct world){.connected = false};
    assert_int_equal(uv_loop_init(&w->loop), 0);
    w->server.loop = &w->loop;
    w->server.cluster_id = CERT_CLUSTER;
    if (o != NULL)
        def.no_session = o->no_session, def.cluster_id = o->cluster_id;
    assert_int_equal(client_new(&w->loop, &def, &w->client, NULL), ERR_OK);
    client_on_state(w->client, on_state, w);
}

static void on_client_closed(void *arg)
{
    ((struct world *)arg)->closed = true;
}

static void world_close(struct world *w)
{
    client_close(w->client, on_client_closed, w);
    assert_true(loop_until(&w->loop, &w->closed));
    server_break(&w->server);
    loop_end(&w->loop);
}

/* Deadlines: 0 for what is to be answered, however slow the machine; SOON_MS for what is to run into it, with
 * time for all that has to come before. */
enum { PATIENCE_MS = 60000, SOON_MS = 3000 };

static void put(struct world *w, struct call *call, uint64_t deadline_ms)
{
    struct put_req req = {.key = slice_str("k"), .value = slice_str("v")};
    *call = (struct call){.done = false};
    client_call(w->client, METHOD_KV_PUT, &req, deadline_ms != 0 ? deadline_ms : PATIENCE_MS,
                on_reply, call);
}

static void range(struct world *w, struct call *call, uint64_t deadline_ms)
{
    struct range_req req = {.key = slice_str("k")};
    *call = (struct call){.done = false};
    client_call(w->client, METHOD_KV_RANGE, &req, deadline_ms != 0 ? deadline_ms : PATIENCE_MS,
                on_reply, call);
}

static void finish(struct world *w, struct call *call, enum err want)
{
    assert_true(loop_until(&w->loop, &call->done));
    if (call->status != want)
        fail_msg("%s instead of %s: %s", err_name(call->status), err_name(want),
                 call->error.text);
}

/* ---- writes ---- */

static void writes_are_numbered_in_one_session_opened_when_needed(void **state)
{
    (void)state;
    struct world w;
    struct call a, b;
    world_open(&w, NULL);
    assert_true(loop_until(&w.loop, &w.connected));
    range(&w, &a, 0);
    finish(&w, &a, ERR_OK);
    assert_int_equal(w.server.sessions, 0);
    put(&w, &a, 0);
    put(&w, &b, 0);
    finish(&w, &a, ERR_OK);
    finish(&w, &b, ERR_OK);
    assert_int_equal(w.server.sessions, 1);
    assert_int_equal(w.server.last_seq, 2);
    assert_true(w.server.last_session == w.server.session);
    world_close(&w);
}

static void a_write_without_answer_is_sent_again_and_applied_once(void **state)
{
    (void)state;
    struct world w;
    struct call a;
    world_open(&w, NULL);
    w.server.how = DROP;
    w.server.how_left = 3;
    put(&w, &a, 0);
    finish(&w, &a, ERR_OK);
    assert_int_equal(w.server.puts, 4);
    assert_int_equal(w.server.last_seq, 1);
    assert_int_equal(w.server.applied, 1);
    assert_int_equal(w.server.hellos, 4);
    world_close(&w);
}

static void a_write_without_session_is_never_sent_again(void **state)
{
    (void)state;
    struct world w;
    struct call a;
    world_open(&w, &(struct client_options){.no_session = true});
    w.server.how = DROP;
    w.server.how_left = 1;
    put(&w, &a, 0);
    finish(&w, &a, ERR_OUTCOME_UNKNOWN);
    assert_int_equal(w.server.puts, 1);
    assert_int_equal(w.server.last_session, 0);
    put(&w, &a, 0);
    finish(&w, &a, ERR_OK);
    world_close(&w);
}

static void no_answer_before_the_deadline_leaves_a_write_unknown_and_a_read_undone(void **state)
{
    (void)state;
    struct world w;
    struct call a, b;
    world_open(&w, NULL);
    put(&w, &a, 0);
    finish(&w, &a, ERR_OK);
    w.server.how = SWALLOW;
    w.server.how_left = 1000;
    put(&w, &a, SOON_MS);
    range(&w, &b, SOON_MS);
    finish(&w, &a, ERR_OUTCOME_UNKNOWN);
    finish(&w, &b, ERR_TIMEOUT);
    assert_non_null(strstr(a.error.text, "may have been applied"));
    world_close(&w);
}

static void without_a_leader_requests_are_tried_again_until_there_is_one(void **state)
{
    (void)state;
    struct world w;
    struct call a, b;
    world_open(&w, NULL);
    w.server.how = NO_LEADER;
    w.server.how_left = 6;
    put(&w, &a, 0);
    range(&w, &b, 0);
    finish(&w, &a, ERR_OK);
    finish(&w, &b, ERR_OK);
    assert_int_equal(w.server.puts + w.server.ranges, 8);
    assert_int_equal(w.server.applied, 1);
    assert_int_equal(w.server.hellos, 1);
    world_close(&w);
}

static void without_a_leader_until_the_deadline_nothing_was_applied(void **state)
{
    (void)state;
    struct world w;
    struct call a;
    world_open(&w, NULL);
    w.server.how = NO_LEADER;
    w.server.how_left = 1000;
    put(&w, &a, SOON_MS);
    finish(&w, &a, ERR_UNAVAILABLE);
    assert_non_null(strstr(a.error.text, "no leader"));
    world_close(&w);
}

/* Sent, and the connection lost; then the next `times` sendings are met so. */
static void put_in_doubt(struct world *w, struct call *a, uint64_t deadline_ms, enum how then,
                         unsigned times)
{
    w->server.how = DROP;
    w->server.how_left = 1;
    put(w, a, deadline_ms);
    assert_true(loop_until(&w->loop, &w->server.saw_put));
    w->server.how = then;
    w->server.how_left = times;
}

/* The first sending may still take effect. */
static void a_refusal_of_the_second_sending_does_not_hide_the_doubt_about_the_first(
    void **state)
{
    (void)state;
    struct world w;
    struct call a;
    world_open(&w, NULL);
    put_in_doubt(&w, &a, SOON_MS, NO_SPACE, 1000);
    finish(&w, &a, ERR_OUTCOME_UNKNOWN);
    assert_true(w.server.puts > 2); /* tried again until the deadline */
    assert_non_null(strstr(a.error.text, "full"));
    put(&w, &a, 0);
    finish(&w, &a, ERR_NO_SPACE); /* sent once, refused: certain */
    world_close(&w);
}

static void a_write_in_doubt_is_sent_again_until_it_has_its_result(void **state)
{
    (void)state;
    static const enum how passing[] = {NO_LEADER, NO_SPACE, IN_DOUBT};
    for (size_t i = 0; i < ARRAY_LEN(passing); i++) {
        struct world w;
        struct call a;
        world_open(&w, NULL);
        put_in_doubt(&w, &a, 0, passing[i], 5);
        finish(&w, &a, ERR_OK);
        assert_int_equal(w.server.puts, 7);
        assert_int_equal(w.server.applied, 1);
        assert_int_equal(w.server.last_seq, 1);
        world_close(&w);
    }
}

/* The server has lost sight of it (its leader is gone): asking again is safe, and tells. */
static void an_answer_that_the_outcome_is_unknown_is_not_the_last_word_on_a_session_write(
    void **state)
{
    (void)state;
    struct world w;
    struct call a;
    const struct client_options plain = {.no_session = true};
    world_open(&w, NULL);
    w.server.how = IN_DOUBT;
    w.server.how_left = 5;
    put(&w, &a, 0);
    finish(&w, &a, ERR_OK);
    assert_int_equal(w.server.puts, 6);
    assert_int_equal(w.server.applied, 1);
    w.server.how_left = 1000;
    put(&w, &a, SOON_MS);
    finish(&w, &a, ERR_OUTCOME_UNKNOWN);
    world_close(&w);
    world_open(&w, &plain);
    w.server.how = IN_DOUBT;
    w.server.how_left = 5;
    put(&w, &a, 0);
    finish(&w, &a, ERR_OUTCOME_UNKNOWN);
    assert_int_equal(w.server.puts, 1); /* without a session it would be applied twice */
    world_close(&w);
}

static void a_refusal_that_the_store_keeps_is_the_result_of_a_write_in_doubt(void **state)
{
    (void)state;
    struct world w;
    struct call a;
    world_open(&w, NULL);
    put_in_doubt(&w, &a, 0, KEPT_REFUSAL, 1);
    finish(&w, &a, ERR_NOT_FOUND);
    assert_non_null(strstr(a.error.text, "lease 7"));
    world_close(&w);
}

static void a_refusal_for_good_leaves_a_write_in_doubt_unknown_at_once(void **state)
{
    (void)state;
    struct world w;
    struct call a;
    world_open(&w, NULL);
    put_in_doubt(&w, &a, 0, NO_RIGHT, 1000);
    finish(&w, &a, ERR_OUTCOME_UNKNOWN);
    assert_int_equal(w.server.puts, 2);
    world_close(&w);
}

static void an_unknown_session_is_replaced(void **state)
{
    (void)state;
    struct world w;
    struct call a, many[10];
    world_open(&w, NULL);
    put(&w, &a, 0);
    finish(&w, &a, ERR_OK);
    w.server.how = SESSION_GONE;
    w.server.how_left = 1;
    for (size_t i = 0; i < ARRAY_LEN(many); i++)
        put(&w, &many[i], 0);
    for (size_t i = 0; i < ARRAY_LEN(many); i++)
        finish(&w, &many[i], ERR_OK);
    assert_int_equal(w.server.sessions, 2);
    world_close(&w);
}

static void an_unknown_session_leaves_a_write_sent_before_in_doubt(void **state)
{
    (void)state;
    struct world w;
    struct call a;
    world_open(&w, NULL);
    w.server.how = DROP;
    w.server.how_left = 1;
    put(&w, &a, 0);
    assert_true(loop_until(&w.loop, &w.server.saw_put));
    w.server.session = 0;
    finish(&w, &a, ERR_OUTCOME_UNKNOWN);
    put(&w, &a, 0);
    finish(&w, &a, ERR_OK);
    assert_int_equal(w.server.sessions, 2);
    world_close(&w);
}

static void at_most_32_writes_are_under_way_and_all_of_many_arrive(void **state)
{
    (void)state;
    struct world w;
    static struct call calls[1000];
    world_open(&w, NULL);
    w.server.how = SWALLOW;
    w.server.how_left = 1000;
    for (size_t i = 0; i < ARRAY_LEN(calls); i++)
        put(&w, &calls[i], 0);
    assert_true(loop_until(&w.loop, &w.server.saw_put));
    for (int i = 0; i < 20; i++)
        (void)uv_run(&w.loop, UV_RUN_NOWAIT);
    assert_int_equal(w.server.puts, 32);
    w.server.how = ANSWER;
    server_break(&w.server);
    for (size_t i = 0; i < ARRAY_LEN(calls); i++)
        finish(&w, &calls[i], ERR_OK);
    assert_int_equal(w.server.applied, 1000);
    assert_int_equal(w.server.puts, 1032);
    world_close(&w);
}

static void more_reads_than_slots_all_end(void **state)
{
    (void)state;
    struct world w;
    static struct call calls[2000];
    world_open(&w, NULL);
    for (size_t i = 0; i < ARRAY_LEN(calls); i++)
        range(&w, &calls[i], 0);
    for (size_t i = 0; i < ARRAY_LEN(calls); i++)
        finish(&w, &calls[i], ERR_OK);
    assert_int_equal(w.server.ranges, 2000);
    world_close(&w);
}

static void requests_without_session_are_not_repeated_but_renewals_are(void **state)
{
    (void)state;
    struct world w;
    struct call a;
    struct member_ref ref = {.name = "n2"};
    struct lease_renew renew = {.id = 1, .nonce = 2, .n = 3};
    world_open(&w, NULL);
    w.server.how = DROP;
    w.server.how_left = 1;
    a = (struct call){.done = false};
    client_call(w.client, METHOD_MEMBER_REMOVE, &ref, 0, on_reply, &a);
    finish(&w, &a, ERR_OUTCOME_UNKNOWN);
    assert_int_equal(w.server.others, 1);
    w.server.how_left = 1;
    a = (struct call){.done = false};
    client_call(w.client, METHOD_LEASE_RENEW, &renew, 0, on_reply, &a);
    finish(&w, &a, ERR_OK);
    assert_int_equal(w.server.others, 3);
    world_close(&w);
}

static void closing_ends_every_call_and_says_what_is_certain(void **state)
{
    (void)state;
    struct world w;
    struct call sent, read, never;
    world_open(&w, NULL);
    w.server.how = SWALLOW;
    w.server.how_left = 1000;
    put(&w, &sent, 0);
    range(&w, &read, 0);
    assert_true(loop_until(&w.loop, &w.server.saw_put));
    put(&w, &never, 0);
    struct put_req big = {.key = slice_str("k"),
                          .value = slice_of(mem_alloc(3000000), 3000000)};
    struct call too_long = {.done = false};
    client_call(w.client, METHOD_KV_PUT, &big, 0, on_reply, &too_long);
    assert_false(too_long.done); /* never from inside client_call() */
    mem_free((void *)(uintptr_t)big.value.p);
    finish(&w, &too_long, ERR_LIMIT);
    world_close(&w);
    assert_int_equal(sent.status, ERR_OUTCOME_UNKNOWN);
    assert_int_equal(read.status, ERR_CANCELLED);
    assert_true(never.done);
}

/* ---- watches ---- */

struct watched {
    uint64_t revisions[10];
    size_t n, want;
    bool enough, ended;
    enum err status;
    struct client_watch *unwatch;
};

static void on_watch(void *arg, enum err status, const struct watch_event *ev)
{
    struct watched *seen = arg;
    assert_false(seen->ended);
    if (status != ERR_OK) {
        seen->ended = true;
        seen->status = status;
        return;
    }
    seen->revisions[seen->n++] = ev->revision;
    seen->enough = seen->n >= seen->want;
    if (seen->enough && seen->unwatch != NULL)
        client_unwatch(seen->unwatch);
}

static void a_watch_goes_on_after_the_last_revision_delivered(void **state)
{
    (void)state;
    struct world w;
    struct watched seen = {.want = 2};
    struct watch_req req = {.key = slice_str("k")};
    world_open(&w, NULL);
    (void)client_watch(w.client, &req, on_watch, &seen);
    assert_true(loop_until(&w.loop, &w.server.saw_watch));
    assert_int_equal(w.server.watch_start, 0);
    push(&w.server, 21, 0);
    push(&w.server, 25, 0);
    assert_true(loop_until(&w.loop, &seen.enough));

    w.server.saw_watch = false;
    server_break(&w.server);
    assert_true(loop_until(&w.loop, &w.server.saw_watch));
    assert_int_equal(w.server.watch_start, 26);
    seen.want = 3, seen.enough = false;
    push(&w.server, 25, 0); /* known already */
    push(&w.server, 26, 0);
    assert_true(loop_until(&w.loop, &seen.enough));
    assert_int_equal(seen.n, 3);
    assert_int_equal(seen.revisions[2], 26);

    push(&w.server, 0, 40);
    assert_true(loop_until(&w.loop, &seen.ended));
    assert_int_equal(seen.status, ERR_COMPACTED);
    world_close(&w);
}

static void a_watch_cut_off_for_being_slow_resumes(void **state)
{
    (void)state;
    struct world w;
    struct watched seen = {.want = 1};
    struct watch_req req = {.key = slice_str("k")};
    world_open(&w, NULL);
    (void)client_watch(w.client, &req, on_watch, &seen);
    assert_true(loop_until(&w.loop, &w.server.saw_watch));
    push(&w.server, 21, 0);
    assert_true(loop_until(&w.loop, &seen.enough));
    w.server.saw_watch = false;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    struct watch_event ev = {.watch = w.server.watch_id, .revision = 30, .cancelled = true};
    msg_encode(&msg_watch_event, &ev, &b);
    conn_notify(w.server.watch_conn, "watch.event", buf_slice(&b));
    assert_true(loop_until(&w.loop, &w.server.saw_watch));
    assert_int_equal(w.server.watch_start, 22);
    assert_false(seen.ended);
    world_close(&w);
}

static void notify_used(struct server *s, uint64_t revision, uint64_t used)
{
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    struct watch_event ev = {.watch = s->watch_id, .revision = revision, .used = used};
    msg_encode(&msg_watch_event, &ev, &b);
    conn_notify(s->watch_conn, "watch.event", buf_slice(&b));
}

static void a_window_is_opened_again_when_half_of_it_was_delivered(void **state)
{
    (void)state;
    struct world w;
    struct watched seen = {.want = 1};
    struct watch_req req = {.key = slice_str("k"), .credit = 1000};
    world_open(&w, NULL);
    (void)client_watch(w.client, &req, on_watch, &seen);
    assert_true(loop_until(&w.loop, &w.server.saw_watch));
    assert_int_equal(w.server.window, 1000);
    notify_used(&w.server, 21, 499);
    assert_true(loop_until(&w.loop, &seen.enough));
    assert_false(w.server.saw_credit);
    notify_used(&w.server, 22, 1); /* two on their way when it is granted */
    notify_used(&w.server, 23, 300);
    assert_true(loop_until(&w.loop, &w.server.saw_credit));
    assert_int_equal(w.server.credit, 500);
    w.server.saw_credit = false;
    notify_used(&w.server, 24, 700); /* never more than is left: 1000 - 300 */
    assert_true(loop_until(&w.loop, &w.server.saw_credit));
    assert_int_equal(w.server.credit, 1500);
    w.server.saw_watch = w.server.saw_credit = false;
    conn_close(w.server.watch_conn);
    assert_true(loop_until(&w.loop, &w.server.saw_watch)); /* a window of its own */
    assert_int_equal(w.server.window, 1000);
    world_close(&w);
}

/* Nothing was delivered, but what comes after the reply's revision belongs to the watch. */
static void a_watch_from_now_on_resumes_where_it_began(void **state)
{
    (void)state;
    struct world w;
    struct watched seen = {.want = 1};
    struct watch_req req = {.key = slice_str("k")};
    world_open(&w, NULL);
    (void)client_watch(w.client, &req, on_watch, &seen);
    assert_true(loop_until(&w.loop, &w.server.saw_watch));
    struct call a;
    range(&w, &a, 0);
    finish(&w, &a, ERR_OK); /* the reply to the watch came before it */
    w.server.saw_watch = false;
    server_break(&w.server);
    assert_true(loop_until(&w.loop, &w.server.saw_watch));
    assert_int_equal(w.server.watch_start, 21);
    world_close(&w);
    assert_int_equal(seen.status, ERR_CANCELLED);
}

static void unwatch_works_inside_the_callback_and_before_the_reply(void **state)
{
    (void)state;
    struct world w;
    struct watched seen = {.want = 1};
    struct watch_req req = {.key = slice_str("k")};
    world_open(&w, NULL);
    assert_true(loop_until(&w.loop, &w.connected));
    client_unwatch(client_watch(w.client, &req, on_watch, &seen));
    assert_true(loop_until(&w.loop, &w.server.saw_cancel));
    w.server.saw_cancel = w.server.saw_watch = false;
    seen.unwatch = client_watch(w.client, &req, on_watch, &seen);
    assert_true(loop_until(&w.loop, &w.server.saw_watch));
    push(&w.server, 30, 0);
    push(&w.server, 31, 0);
    assert_true(loop_until(&w.loop, &w.server.saw_cancel));
    assert_int_equal(seen.n, 1);
    world_close(&w);
    assert_false(seen.ended);
}

/* ---- endpoints, over TLS ---- */

static struct certs certs;

static void server_listen(struct server *s, uv_loop_t *loop)
{
    *s = (struct server){.loop = loop, .cluster_id = CERT_CLUSTER};
    assert_int_equal(pki_server_context(certs_path(&certs, "ca.pem"),
                                        certs_path(&certs, "n1.pem"),
                                        certs_path(&certs, "n1.key"), &s->ctx, NULL),
                     ERR_OK);
    s->listener = listener_new(loop, &s->port, server_take, s);
}

static void server_stop(struct server *s)
{
    server_break(s);
    listener_close(s->listener);
    SSL_CTX_free(TAKE(s->ctx));
}

struct two {
    struct world w;
    struct server b;
    char text[3][32];
};

/* A dead port first, then two servers. */
static void two_open(struct two *t)
{
    struct world *w = &t->w;
    *w = (struct world){.connected = false};
    assert_int_equal(uv_loop_init(&w->loop), 0);
    server_listen(&w->server, &w->loop);
    server_listen(&t->b, &w->loop);
    (void)snprintf(t->text[0], sizeof t->text[0], "127.0.0.1:1");
    (void)snprintf(t->text[1], sizeof t->text[1], "127.0.0.1:%u", w->server.port);
    (void)snprintf(t->text[2], sizeof t->text[2], "localhost:%u", t->b.port);
    struct client_options o = {.endpoints = {t->text[0], t->text[1], t->text[2]},
                               .n_endpoints = 3,
                               .ca_file = certs_path(&certs, "ca.pem"),
                               .cert_file = certs_path(&certs, "n2.pem"),
                               .key_file = certs_path(&certs, "n2.key"),
                               .cluster_id = CERT_CLUSTER};
    assert_int_equal(client_new(&w->loop, &o, &w->client, NULL), ERR_OK);
    client_on_state(w->client, on_state, w);
}

static void two_close(struct two *t)
{
    client_close(t->w.client, on_client_closed, &t->w);
    assert_true(loop_until(&t->w.loop, &t->w.closed));
    server_stop(&t->w.server);
    server_stop(&t->b);
    loop_end(&t->w.loop);
}

static void a_dead_endpoint_is_passed_over_and_a_dying_one_left(void **state)
{
    (void)state;
    struct two t;
    struct call a;
    two_open(&t);
    put(&t.w, &a, 0);
    finish(&t.w, &a, ERR_OK);
    assert_int_equal(t.w.server.applied, 1);
    t.w.server.how = SWALLOW;
    t.w.server.how_left = 1;
    t.b.session = t.w.server.session; /* one cluster: the session is known everywhere */
    put(&t.w, &a, 0);
    t.w.server.saw_put = false;
    assert_true(loop_until(&t.w.loop, &t.w.server.saw_put));
    server_break(&t.w.server);
    finish(&t.w, &a, ERR_OK);
    assert_int_equal(t.b.last_seq, 2);
    assert_true(t.b.last_session == t.w.server.last_session);
    two_close(&t);
}

static void a_node_that_serves_nobody_any_more_is_left_for_another(void **state)
{
    (void)state;
    struct two t;
    struct call a, b;
    struct watched seen = {.want = 1};
    struct watch_req req = {.key = slice_str("k")};
    two_open(&t);
    put(&t.w, &a, 0);
    finish(&t.w, &a, ERR_OK);
    assert_int_equal(t.w.server.puts, 1);
    t.w.server.how = GONE;
    t.w.server.how_left = UINT_MAX;
    t.b.session = t.w.server.session;
    put(&t.w, &a, 0);
    range(&t.w, &b, 0);
    struct client_watch *watch = client_watch(t.w.client, &req, on_watch, &seen);
    finish(&t.w, &a, ERR_OK);
    finish(&t.w, &b, ERR_OK);
    assert_true(loop_until(&t.w.loop, &t.b.saw_watch));
    assert_true(t.b.last_seq == 2 && t.b.applied == 1 && t.b.ranges == 1);
    client_unwatch(watch);
    two_close(&t);
    assert_false(seen.ended);
}

/* Where there is no other one, what it says is the answer. */
static void the_only_node_that_is_gone_is_believed(void **state)
{
    (void)state;
    struct world w;
    struct call a;
    world_open(&w, NULL);
    w.server.how = GONE;
    w.server.how_left = 1;
    put(&w, &a, 0);
    finish(&w, &a, ERR_DENIED);
    world_close(&w);
}

static void a_server_that_hangs_is_left_in_time_for_an_answer(void **state)
{
    (void)state;
    struct two t;
    struct call a;
    two_open(&t);
    t.w.server.how = SWALLOW;
    t.w.server.how_left = 1000;
    range(&t.w, &a, 15000); /* after a third of that it tries the other one */
    finish(&t.w, &a, ERR_OK);
    assert_true(t.b.ranges > 0);
    two_close(&t);
}

static void a_server_that_never_says_hello_is_left(void **state)
{
    (void)state;
    struct two t;
    struct call a;
    two_open(&t);
    t.w.server.mute = true;
    range(&t.w, &a, 0);
    finish(&t.w, &a, ERR_OK);
    assert_true(t.b.ranges > 0);
    two_close(&t);
}

static void another_cluster_is_not_spoken_to(void **state)
{
    (void)state;
    struct world w;
    struct call a;
    world_open(&w, &(struct client_options){.cluster_id = "elsewhere"});
    put(&w, &a, SOON_MS);
    finish(&w, &a, ERR_UNAVAILABLE);
    assert_non_null(strstr(a.error.text, "belongs to cluster " CERT_CLUSTER));
    assert_int_equal(w.server.puts, 0);
    world_close(&w);
}

static void options_that_cannot_work_are_refused_with_words(void **state)
{
    (void)state;
    static const struct client_options bad[] = {
        {.n_endpoints = 0},
        {.endpoints = {"nowhere"}, .n_endpoints = 1, .ca_file = "x"},
        {.endpoints = {"127.0.0.1:1"}, .n_endpoints = 1},
        {.endpoints = {"127.0.0.1:1"}, .n_endpoints = 1, .ca_file = "/nowhere"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct errmsg e = {.text = ""};
        struct client *c = NULL;
        assert_int_not_equal(client_new(uv_default_loop(), &bad[i], &c, &e), ERR_OK);
        assert_null(c);
        assert_true(strlen(e.text) > 10);
    }
}

/* ---- blocking ---- */

struct sync_server {
    uv_thread_t thread;
    uv_loop_t loop;
    struct server s;
    uv_async_t stop;
    uv_sem_t ready;
};

static void on_stop(uv_async_t *a)
{
    struct sync_server *t = a->data;
    server_stop(&t->s);
    uv_close((uv_handle_t *)a, NULL);
}

static void run_server(void *arg)
{
    struct sync_server *t = arg;
    uv_sem_post(&t->ready);
    (void)uv_run(&t->loop, UV_RUN_DEFAULT);
}

static void stop_watching(void *arg, enum err status, const struct watch_event *ev)
{
    (void)status, (void)ev;
    *(bool *)arg = true;
}

static void the_blocking_client_calls_watches_and_gives_up_in_time(void **state)
{
    (void)state;
    struct sync_server t;
    char endpoint[32];
    struct errmsg e = {.text = ""};
    struct client_sync *c = NULL;
    assert_int_equal(uv_loop_init(&t.loop), 0);
    server_listen(&t.s, &t.loop);
    assert_int_equal(uv_async_init(&t.loop, &t.stop, on_stop), 0);
    t.stop.data = &t;
    assert_int_equal(uv_sem_init(&t.ready, 0), 0);
    assert_int_equal(uv_thread_create(&t.thread, run_server, &t), 0);
    uv_sem_wait(&t.ready);
    (void)snprintf(endpoint, sizeof endpoint, "127.0.0.1:%u", t.s.port);
    struct client_options o = {.endpoints = {endpoint},
                               .n_endpoints = 1,
                               .ca_file = certs_path(&certs, "ca.pem"),
                               .cert_file = certs_path(&certs, "n2.pem"),
                               .key_file = certs_path(&certs, "n2.key")};
    assert_int_equal(client_sync_open(&o, PATIENCE_MS, &c, &e), ERR_OK);
    assert_string_equal(client_sync_hello(c)->cluster_id, CERT_CLUSTER);
    struct range_req req = {.key = slice_str("k")};
    struct range_reply reply;
    assert_int_equal(client_sync_call(c, METHOD_KV_RANGE, &req, PATIENCE_MS, &reply, &e),
                     ERR_OK);
    assert_int_equal(reply.count, 3);
    struct put_req big = {.key = slice_str("k"),
                          .value = slice_of(mem_alloc(3000000), 3000000)};
    assert_int_equal(client_sync_call(c, METHOD_KV_PUT, &big, 0, NULL, &e), ERR_LIMIT);
    mem_free((void *)(uintptr_t)big.value.p);
    bool stop = false;
    struct watch_req watch = {.key = slice_str("k")};
    assert_int_equal(client_sync_watch(c, &watch, stop_watching, &stop, &stop, 50, &e),
                     ERR_TIMEOUT);
    client_sync_close(c);

    uv_async_send(&t.stop);
    assert_int_equal(uv_thread_join(&t.thread), 0);
    assert_int_equal(uv_loop_close(&t.loop), 0);
    uv_sem_destroy(&t.ready);
    assert_int_equal(client_sync_open(&o, SOON_MS, &c, &e), ERR_UNAVAILABLE);
    assert_non_null(strstr(e.text, "cannot connect to"));
    client_sync_close(NULL);
}

static int setup(void **state)
{
    (void)state;
    certs_setup(&certs);
    certs_issue(&certs, "n1", 1, "first", false);
    certs_issue(&certs, "n2", 2, "client", false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    certs_teardown(&certs);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_are_numbered_in_one_session_opened_when_needed),
        cmocka_unit_test(a_write_without_answer_is_sent_again_and_applied_once),
        cmocka_unit_test(a_write_without_session_is_never_sent_again),
        cmocka_unit_test(
            no_answer_before_the_deadline_leaves_a_write_unknown_and_a_read_undone),
        cmocka_unit_test(without_a_leader_requests_are_tried_again_until_there_is_one),
        cmocka_unit_test(without_a_leader_until_the_deadline_nothing_was_applied),
        cmocka_unit_test(
            a_refusal_of_the_second_sending_does_not_hide_the_doubt_about_the_first),
        cmocka_unit_test(a_write_in_doubt_is_sent_again_until_it_has_its_result),
        cmocka_unit_test(
            an_answer_that_the_outcome_is_unknown_is_not_the_last_word_on_a_session_write),
        cmocka_unit_test(a_refusal_that_the_store_keeps_is_the_result_of_a_write_in_doubt),
        cmocka_unit_test(a_refusal_for_good_leaves_a_write_in_doubt_unknown_at_once),
        cmocka_unit_test(an_unknown_session_is_replaced),
        cmocka_unit_test(an_unknown_session_leaves_a_write_sent_before_in_doubt),
        cmocka_unit_test(at_most_32_writes_are_under_way_and_all_of_many_arrive),
        cmocka_unit_test(more_reads_than_slots_all_end),
        cmocka_unit_test(requests_without_session_are_not_repeated_but_renewals_are),
        cmocka_unit_test(closing_ends_every_call_and_says_what_is_certain),
        cmocka_unit_test(a_watch_goes_on_after_the_last_revision_delivered),
        cmocka_unit_test(a_watch_cut_off_for_being_slow_resumes),
        cmocka_unit_test(a_window_is_opened_again_when_half_of_it_was_delivered),
        cmocka_unit_test(a_watch_from_now_on_resumes_where_it_began),
        cmocka_unit_test(unwatch_works_inside_the_callback_and_before_the_reply),
        cmocka_unit_test(a_dead_endpoint_is_passed_over_and_a_dying_one_left),
        cmocka_unit_test(a_node_that_serves_nobody_any_more_is_left_for_another),
        cmocka_unit_test(the_only_node_that_is_gone_is_believed),
        cmocka_unit_test(a_server_that_hangs_is_left_in_time_for_an_answer),
        cmocka_unit_test(a_server_that_never_says_hello_is_left),
        cmocka_unit_test(another_cluster_is_not_spoken_to),
        cmocka_unit_test(options_that_cannot_work_are_refused_with_words),
        cmocka_unit_test(the_blocking_client_calls_watches_and_gives_up_in_time),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
