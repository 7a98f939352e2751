/* One MessagePack-RPC connection over a libuv stream, with TLS inside (or without, for local
 * sockets). Both sides of every connection, between peers too, use it.
 *
 * Bounded: a frame over CONN_FRAME_MAX, an unsound one, or more than `write_max` bytes waiting to be
 * sent closes the connection. Writes made in one loop pass are gathered and flushed together
 * (conn_flush, or by itself at the end of the pass). Callbacks run on the loop thread; `closed` runs
 * exactly once and is the last. The owner frees nothing: conn_close() does, after `closed`. */
#ifndef REGENT_PROTO_CONN_H
#define REGENT_PROTO_CONN_H

#include <openssl/ssl.h>
#include <uv.h>

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "proto/pki.h"

enum { CONN_FRAME_MAX = 2 * 1024 * 1024 + 4096, CONN_DEPTH_MAX = 16, CONN_ELEMENTS_MAX = 65536 };

struct conn;

struct conn_ops {
    /* Handshake done; id is NULL without a peer certificate (or without TLS). */
    void (*ready)(void *arg, const struct pki_identity *id);
    /* Slices are valid during the call. method and params: still encoded, validated. */
    void (*request)(void *arg, uint64_t msgid, struct slice method, struct slice params);
    void (*response)(void *arg, uint64_t msgid, enum err status, const struct errmsg *error, struct slice result);
    void (*notify)(void *arg, struct slice method, struct slice params);
    void (*closed)(void *arg, const struct errmsg *why);
};

/* Outgoing. host may be a name (resolved off the loop), an address, or "unix:/path". ctx NULL: no
 * TLS. server_name: checked against the certificate when not NULL. */
struct conn *conn_connect(uv_loop_t *loop, const char *host, uint16_t port, SSL_CTX *ctx, const struct conn_ops *ops,
                          void *arg);
/* From an accepted, or otherwise connected, socket; takes the descriptor. */
struct conn *conn_from_fd(uv_loop_t *loop, int fd, SSL_CTX *ctx, bool server, const struct conn_ops *ops, void *arg);
void conn_close(struct conn *c);
void conn_set_write_max(struct conn *c, size_t bytes);      /* default 64 MiB */
void conn_set_dead_after(struct conn *c, uint64_t idle_ms); /* TCP_USER_TIMEOUT, and closes when nothing was read so long; 0: off */
size_t conn_pending_bytes(const struct conn *c);
uint64_t conn_last_read_ms(const struct conn *c);           /* CLOCK_BOOTTIME */
uint32_t conn_peer_uid(const struct conn *c);               /* local sockets: SO_PEERCRED; else UINT32_MAX */
const char *conn_peer_text(const struct conn *c);           /* "10.0.0.2:41234" for logs */

/* params / result: one encoded MessagePack value each. */
void conn_request(struct conn *c, uint64_t msgid, const char *method, struct slice params);
void conn_notify(struct conn *c, const char *method, struct slice params);
void conn_reply(struct conn *c, uint64_t msgid, struct slice result);
void conn_reply_error(struct conn *c, uint64_t msgid, enum err code, const char *text, const char *leader);
void conn_flush(struct conn *c);

#endif
