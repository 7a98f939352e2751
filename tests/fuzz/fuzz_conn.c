/* Bytes of a peer, in pieces whose lengths the input chooses, into a connection without TLS. It must
 * end in `closed` exactly once, and hand on only what is MessagePack-RPC. */
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "proto/conn.h"
#include "proto/messages.h"
#include "proto/mp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct peer {
    struct conn *conn;
    bool ready;
    unsigned closed;
};

static void check_map(struct slice params)
{
    struct mp_reader r = {.rest = params};
    size_t n;
    enum err rc = mp_read_map(&r, &n);
    ASSERT(rc == ERR_OK);
}

static void on_ready(void *arg, const struct pki_identity *id)
{
    struct peer *p = arg;
    ASSERT(id == NULL && !p->ready);
    p->ready = true;
}

static void on_request(void *arg, uint64_t msgid, struct slice method, struct slice params)
{
    struct peer *p = arg;
    ASSERT(p->ready && p->closed == 0);
    check_map(params);
    if (method_find(method) == METHOD_COUNT)
        conn_reply_error(p->conn, msgid, ERR_UNSUPPORTED, "no such method", NULL);
    else
        conn_reply(p->conn, msgid, params);
    if (method.n == 1)
        conn_close(p->conn);
}

static void on_response(void *arg, uint64_t msgid, enum err status, const struct errmsg *error,
                        struct slice result)
{
    struct peer *p = arg;
    (void)msgid;
    ASSERT(p->ready && p->closed == 0);
    ASSERT(status == error->code && result.n > 0);
}

static void on_notify(void *arg, struct slice method, struct slice params)
{
    struct peer *p = arg;
    (void)method;
    ASSERT(p->ready && p->closed == 0);
    check_map(params);
}

static void on_closed(void *arg, const struct errmsg *why)
{
    struct peer *p = arg;
    ASSERT(why->code != ERR_OK);
    p->closed++;
}

static const struct conn_ops ops = {.ready = on_ready,
                                    .request = on_request,
                                    .response = on_response,
                                    .notify = on_notify,
                                    .closed = on_closed};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uv_loop_t loop;
    struct peer p = {.ready = false};
    int fds[2];
    if (size == 0 || size > 65536)
        return 0;
    (void)signal(SIGPIPE, SIG_IGN); /* as every program with a conn does */
    int rc = uv_loop_init(&loop);
    ASSERT(rc == 0);
    rc = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds);
    ASSERT(rc == 0);
    p.conn = conn_from_fd(&loop, fds[0], NULL, true, &ops, &p);
    conn_set_write_max(p.conn, 1 << 20);
    size_t piece = data[0] == 0 ? size : data[0];
    for (size_t at = 1; at < size && p.closed == 0; at += piece) {
        ssize_t n = send(fds[1], data + at, MIN(piece, size - at), MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)n; /* a peer whose end is closed already, or full */
        (void)uv_run(&loop, UV_RUN_NOWAIT);
    }
    (void)close(fds[1]);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    ASSERT(p.closed == 1);
    rc = uv_loop_close(&loop);
    ASSERT(rc == 0);
    return 0;
}
