/* The node's doors: port 7400 (mutual TLS; IPv4 and IPv6), DATA_DIR/regent.sock and in-process
 * connections. A session is one connection: who is there, what it may do, what it has under way.
 *
 * Without a certificate only the OPEN methods are allowed; the local socket is for root and the
 * daemon's own user; a certificate that was revoked, or is a removed member's, is refused. A new stranger
 * pushes the oldest one out: a crowd of them keeps nobody else away. Every bound closes the door with words, none
 * of them lets memory grow. Loop thread. */
#ifndef REGENT_DCS_SERVER_H
#define REGENT_DCS_SERVER_H

#include <openssl/ssl.h>
#include <uv.h>

#include "dcs/access.h"
#include "dcs/gate.h"
#include "dcs/intake.h"
#include "dcs/list.h"
#include "dcs/node.h"
#include "proto/conn.h"

enum {
    SERVER_LISTENERS_MAX = 8,
    SERVER_SESSIONS_MAX = 2048,
    SERVER_STRANGERS_MAX = 128, /* connections without a certificate, or not that far yet */
    SERVER_FDS_RESERVED = 128,  /* descriptors that are not for connections */
    SERVER_IN_FLIGHT_MAX = 256,
    SERVER_SESSION_BYTES_MAX = 8 * 1024 * 1024,
    SERVER_PEER_IN_FLIGHT_MAX = 32768,
    SERVER_PEER_BYTES_MAX = 64 * 1024 * 1024,
    SERVER_WATCH_PENDING_MAX = 8 * 1024 * 1024, /* a slower watcher is cut off */
    SERVER_WRITE_MAX = 16 * 1024 * 1024,        /* of answers that a client does not read */
    SERVER_UNREAD_MAX = 128 * 1024 * 1024,      /* memory of all clients together for that; */
    SERVER_UNREAD_FREE = 64 * 1024,             /* what each may have whatever the others do */
    SERVER_STRANGER_FRAME_MAX = 64 * 1024,
    SERVER_STRANGER_WRITE_MAX = 256 * 1024, /* of answers, until a certificate was shown */
    SERVER_PEER_WRITE_MAX = 128 * 1024 * 1024,
    SERVER_STRANGER_MS = 30000, /* silence of a connection without a certificate */
    SERVER_PEER_DEAD_MS = 2000
};

#define SERVER_REVOKED                                                                  \
    "this certificate was revoked; an administrator makes another one with `regentctl " \
    "cert create`"
#define SERVER_REMOVED                                                                    \
    "this member was removed from the cluster; to use the node again, stop it, move its " \
    "data_dir aside and join it anew with a token"

struct server;

/* What the server needs of the rest of the node. */
struct server_ops {
    /* A member's own link has come in. */
    void (*dialed)(void *arg, uint64_t member);
    /* Signs for cert.renew of a member; ERR_UNAVAILABLE when this node has no CA key. */
    enum err (*sign)(void *arg, const struct pki_identity *id, struct slice csr,
                     struct buf *ret_cert, struct errmsg *e);
    /* CA certificate and key for another voter. */
    enum err (*authority)(void *arg, struct ca_reply *ret_reply, struct errmsg *e);
    /* Answers sql.query by `done`, later, exactly once. */
    void (*sql_query)(void *arg, const struct sql_req *q, node_reply_cb *done, void *done_arg);
    /* A copy of the state for a client, and its pieces (backup.h). */
    void (*snapshot_save)(void *arg, node_reply_cb *done, void *done_arg);
    void (*snapshot_piece)(void *arg, const struct snapshot_piece *p, node_reply_cb *done,
                           void *done_arg);
    /* Answers snapshot.read by `done`, later, exactly once. */
    void (*snapshot_read)(void *arg, uint64_t index, uint64_t offset, node_reply_cb *done,
                          void *done_arg, uint64_t tag);
};

struct server_options {
    uv_loop_t *loop;
    SSL_CTX *ctx; /* borrowed */
    struct node *node;
    uint64_t member_id;
    const char *name;
    const char *cluster_id;
    const struct server_ops *ops;
    void *arg;
};

struct session {
    uint32_t magic;
    struct list link;
    struct list dirty; /* has something to flush */
    struct server *server;
    struct conn *conn; /* NULL: closed; only answers under way hold the session */
    bool ready, said_hello;
    bool pushed_out; /* is being closed to make room for a newer one */
    bool local;      /* by the local socket, or from this process */
    bool has_id;
    struct pki_identity id; /* of its certificate */
    enum access access;
    const char *refused;  /* by what this member has applied; NULL: not */
    uint64_t revocations; /* node_revocations() when that was looked up */
    bool peer;            /* a member, as a member */
    size_t in_flight, bytes;
    /* bytes of errors and the like since no more than SERVER_UNREAD_FREE waited */
    size_t squeezed_in;
    struct intake_ticket intake;
};

struct server {
    struct server_options o;
    struct list sessions, dirty;
    struct gate gate;
    struct intake intake;
    /* at least so much waits for clients: counted up, and anew when it seems too much */
    size_t unread;
    uint64_t turned_away_ms; /* when it was last in the log */
    size_t n_sessions, sessions_max;
    bool closing;
    size_t n_listeners;
    struct listener {
        uv_poll_t poll;
        int fd;
        bool local;
        struct server *server;
    } listeners[SERVER_LISTENERS_MAX];
    uint64_t
        checked_applied; /* members were last compared with sessions at this applied index */
};

/* Descriptors that listen already, bound before anything on disk is touched. */
enum err server_bind(const char *listen, int ret_fds[static SERVER_LISTENERS_MAX],
                     size_t *ret_n, struct errmsg *e) MUST_CHECK;
enum err server_bind_local(const char *path, int *ret_fd, struct errmsg *e) MUST_CHECK;

/* Takes the descriptors; the one at `local` (if < n) is the local socket. */
void server_start(struct server *s, const struct server_options *o, const int *fds, size_t n,
                  size_t local);
/* A connected socket from this process, with the rights of the local one; takes it. */
void server_adopt(struct server *s, int fd);
void server_flush(struct server *s);
/* Closes connections of members that have been removed, of clients whose certificates were revoked, and of those that hold others up. About once
 * a second. */
void server_look(struct server *s);
void server_close(struct server *s); /* the owner's loop runs on until every handle is closed */

/* ---- dispatch.c ---- */
void dispatch_request(struct session *x, uint64_t msgid, struct slice method,
                      struct slice params);
void dispatch_notify(struct session *x, struct slice method, struct slice params);
/* ---- for dispatch.c ---- */
void session_reply(struct session *x, uint64_t msgid, struct slice result);
void session_error(struct session *x, uint64_t msgid, enum err code, const char *text);
/* Counts a request of n bytes in; false: over the bound, and answered. */
struct ticket {
    struct session *session;
    bool read; /* may be refused when its answer is ready */
    uint64_t msgid;
    size_t n;
};
struct ticket *session_begin(struct session *x, uint64_t msgid, size_t n);
void session_done(void *ticket, uint64_t tag, enum err status, const char *text,
                  struct slice result);
bool session_watch_send(void *session, struct slice event, bool must);

#endif
