/* Private to proto/: the inside of a connection, shared by
 *   conn_open.c   resolve, connect, accept
 *   conn.c        deadlines and the end
 *   conn_io.c     bytes: socket <-> TLS <-> buffers
 *   conn_frame.c  frames: buffers <-> callbacks */
#ifndef REGENT_PROTO_CONN_IMPL_H
#define REGENT_PROTO_CONN_IMPL_H

#include <netinet/in.h>

#include "proto/conn.h"
#include "proto/mp.h"

enum conn_state {
    CONN_OPENING, /* resolving, connecting, or waiting for the first loop pass */
    CONN_HANDSHAKE,
    CONN_READY,
    /* over; only the peer's own end is awaited, so that our alert is not lost to a reset */
    CONN_LINGER,
    CONN_CLOSING /* handles are being closed; nothing is called but `closed` */
};

enum conn_stream { STREAM_NONE, STREAM_OPEN, STREAM_RECYCLING };

enum {
    CONN_MAGIC = 0x636f6e6e,
    CONN_ADDRS_MAX = 8,
    CONN_READ_BYTES = 64 * 1024,
    CONN_LINGER_MS = 500
};

/* The look-up outlives a connection that is closed meanwhile: then `c` is NULL. */
struct conn_lookup {
    uv_getaddrinfo_t req;
    struct conn *c;
};

struct conn {
    uint32_t magic;
    enum conn_state state;
    enum conn_stream stream_state;
    unsigned handles; /* open or closing ones; the last to close ends the connection */
    bool server;
    uv_loop_t *loop;
    const struct conn_ops *ops;
    void *arg;
    struct errmsg why; /* first failure */

    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } u;
    uv_timer_t timer;     /* until READY: the deadline to open; then: dead_after */
    uv_prepare_t flusher; /* active while something waits to be flushed */
    uv_idle_t later;      /* active while frames are left to the next turn */

    /* connecting */
    struct conn_lookup *lookup;
    uv_connect_t connect_req;
    struct sockaddr_storage addrs[CONN_ADDRS_MAX];
    size_t n_addrs, next_addr;

    /* TLS; NULL without */
    SSL_CTX *ctx;
    SSL *ssl;
    BIO *from_net, *to_net; /* owned by ssl */

    /* reading */
    uint8_t *raw;           /* TLS: what the socket gave */
    struct buf in;          /* plain bytes from the start of an unfinished frame */
    struct mp_scanner scan; /* of that frame */
    size_t frame_max;
    bool put_off;      /* frames are left to the next turn: nothing is read */
    bool held;         /* nothing is to be read, says the owner */
    struct errmsg end; /* what came behind those frames */

    /* writing: out[out_pos..] waits, wire[..] is being sent */
    struct buf out;
    size_t out_pos;
    struct buf wire;
    bool writing; /* wire belongs to write_req */
    uv_write_t write_req;
    size_t write_max;

    uint64_t last_read_ms;
    uint64_t dead_after_ms;
    /* the timer fired once; the socket gets one more look, the loop may have been late */
    bool suspect;

    struct pki_identity expired;
    bool has_expired;
    uint32_t uid;
    char peer[160];
    char error_leader[128];
    bool error_gone;
};

/* conn.c */
void conn_on_handle_closed(uv_handle_t *h);
void conn_on_timer(uv_timer_t *t);
void conn_socket_options(struct conn *c);
void conn_fail(struct conn *c, enum err code, const char *fmt, ...) PRINTF(3, 4);
void conn_fail_with(struct conn *c, const struct errmsg *why);
void conn_linger(
    struct conn *c,
    const struct errmsg *why); /* conn_fail_with() after CONN_LINGER_MS or the peer's end */
void conn_now_ready(struct conn *c, const struct pki_identity *id);

/* conn_io.c */
void conn_io_open(
    struct conn *c); /* the socket is connected: TLS handshake, or ready at once */
void conn_io_close(struct conn *c); /* says goodbye as far as the socket takes it now */
void conn_io_free(struct conn *c);

void conn_put_off(struct conn *c); /* the rest of c->in is parsed in the next turn */

/* conn_frame.c */
/* calls back for every whole frame in c->in, or puts off */
void conn_frames_parse(struct conn *c);

#endif
