/* One MessagePack-RPC connection over a libuv stream, with TLS inside (or without, for local
 * sockets). Both sides of every connection, between peers too, use it.
 *
 * Bounded: a frame over CONN_FRAME_MAX, an unsound one, or more than `write_max` bytes waiting to be
 * sent closes the connection. When the owner's callbacks for its frames have taken CONN_TURN_MS, the rest of them
 * is left to the loop's next turn, and nothing is read meanwhile. Writes made in one loop pass are gathered and flushed together
 * (conn_flush, or by itself at the end of the pass); what is written before `ready` waits for it.
 *
 * Life: conn_connect() and conn_from_fd() always give a connection; what goes wrong shows in
 * `closed`. All callbacks run on the loop thread and never from inside a conn_ function. `closed`
 * runs exactly once, after conn_close() or a failure, and is the last; the connection frees itself
 * behind it. Until then every function may be called (after the end they do nothing), and conn_close()
 * any number of times; `arg` has to live until `closed`. No other callback follows conn_close().
 *
 * The program ignores SIGPIPE: a peer that goes away while it is written to is an error of the
 * connection. */
#ifndef REGENT_PROTO_CONN_H
#define REGENT_PROTO_CONN_H

#include <openssl/ssl.h>
#include <uv.h>

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "proto/pki.h"

enum {
    CONN_FRAME_MAX = 2 * 1024 * 1024 + 4096,
    CONN_DEPTH_MAX = 16,
    CONN_ELEMENTS_MAX = 65536,
    CONN_TURN_MS = 5, /* for the frames of one connection in a turn of the loop */
    CONN_OPEN_MS = 5000
};

struct conn;

struct conn_ops {
    /* Handshake done; id is NULL without a peer certificate (or without TLS), or with an expired one. */
    void (*ready)(void *arg, const struct pki_identity *id);
    /* Slices are valid during the call. method and params: still encoded, validated. */
    void (*request)(void *arg, uint64_t msgid, struct slice method, struct slice params);
    void (*response)(void *arg, uint64_t msgid, enum err status, const struct errmsg *error,
                     struct slice result);
    void (*notify)(void *arg, struct slice method, struct slice params);
    void (*closed)(void *arg, const struct errmsg *why);
    /* Bytes have come, and what was whole among them was called back for. unfinished: what is kept of the
     * frame that is not. NULL: not wanted. */
    void (*received)(void *arg, size_t unfinished);
};

/* Outgoing. host may be a name (resolved off the loop, its addresses tried in turn), an address, or
 * "unix:/path". ctx NULL: no TLS; else it is referenced, not taken. Ready within CONN_OPEN_MS of the
 * call, or closed. */
struct conn *conn_connect(uv_loop_t *loop, const char *host, uint16_t port, SSL_CTX *ctx,
                          const struct conn_ops *ops, void *arg);
/* From an accepted, or otherwise connected, socket; takes the descriptor. */
struct conn *conn_from_fd(uv_loop_t *loop, int fd, SSL_CTX *ctx, bool server,
                          const struct conn_ops *ops, void *arg);
void conn_close(struct conn *c);
void conn_set_write_max(struct conn *c, size_t bytes); /* default 64 MiB */
void conn_set_frame_max(struct conn *c, size_t bytes); /* default and most: CONN_FRAME_MAX */
void conn_hold(struct conn *c, bool hold); /* nothing is read until it is let go again */
void conn_set_dead_after(
    struct conn *c,
    uint64_t idle_ms); /* TCP_USER_TIMEOUT, and closes when nothing was read so long; 0: off */
bool conn_is_open(const struct conn *c); /* not closing or failed: what is written may arrive */
size_t conn_pending_bytes(const struct conn *c);
/* of its buffers, pending or not; TLS has more */
size_t conn_memory_bytes(const struct conn *c);
uint64_t conn_last_read_ms(const struct conn *c); /* CLOCK_BOOTTIME */
uint32_t conn_peer_uid(const struct conn *c); /* local sockets: SO_PEERCRED; else UINT32_MAX */
const char *conn_peer_text(const struct conn *c); /* "10.0.0.2:41234" for logs */

/* Who it would be: a client whose certificate is this CA's but expired. `ready` got NULL, and all it
 * may do is cert.renew. NULL for everybody else. */
const struct pki_identity *conn_peer_expired(const struct conn *c);
/* During `response`: the address in the error's details.leader, "" when there is none. */
const char *conn_error_leader(const struct conn *c);
bool conn_error_gone(const struct conn *c); /* the same of details.gone */

/* params / result: one encoded MessagePack value each. */
void conn_request(struct conn *c, uint64_t msgid, const char *method, struct slice params);
void conn_notify(struct conn *c, const char *method, struct slice params);
/* A result that does not fit into a frame becomes ERR_LIMIT. */
void conn_reply(struct conn *c, uint64_t msgid, struct slice result);
/* details.outcome is "unknown" for ERR_OUTCOME_UNKNOWN and "none" for all others; a response whose
 * details say "unknown" arrives as ERR_OUTCOME_UNKNOWN. leader: NULL or the address to try. */
void conn_reply_error(struct conn *c, uint64_t msgid, enum err code, const char *text,
                      const char *leader);
/* The same from a node that serves nobody any more: details.gone. */
void conn_reply_gone(struct conn *c, uint64_t msgid, enum err code, const char *text);
void conn_flush(struct conn *c);

#endif
