/* Client of the DCS: asynchronous on a libuv loop, and blocking for the CLI.
 *
 * The asynchronous client keeps one connection at a time, reconnects by itself (quickly, with
 * jitter, to the next endpoint), opens a session, numbers its writes (session, seq) and re-sends
 * those without an answer after a reconnect: the server applies each once. Every call ends in
 * exactly one callback, at the latest at its deadline:
 *   ERR_OK               result is set
 *   ERR_OUTCOME_UNKNOWN  sent, no answer in time
 *   anything else        certainly not applied
 * With several endpoints a node that was removed or quarantined is left for the next one.
 * Watches are re-created from the next revision after a reconnect, and when the server cut one off for
 * being slow; a gap shows as ERR_COMPACTED and ends the watch. One with watch_req.credit has a window of that
 * size: the client grants more as its callback returns, so that a slow one holds up the server and nothing
 * else. Owner: whoever called client_new. Thread: the loop's. */
#ifndef REGENT_PROTO_CLIENT_H
#define REGENT_PROTO_CLIENT_H

#include <uv.h>

#include "base/base.h"
#include "base/err.h"
#include "proto/messages.h"

struct client;

enum { CLIENT_ENDPOINTS_MAX = 16, CLIENT_DEADLINE_MS = 5000 };

struct client_options {
    const char *endpoints[CLIENT_ENDPOINTS_MAX]; /* "host:port", or "unix:/path" */
    size_t n_endpoints;
    const char *ca_file; /* NULL with unix: and fd */
    /* Before there is a certificate (token.redeem): the server is known by its CA, the client not at all. */
    const char *ca_fingerprint;
    const char *cert_file;
    const char *key_file;
    const char *cluster_id; /* NULL: any */
    const char *name;       /* told in hello; NULL: "client" */
    int (*connect_fd)(
        void *); /* when set: gives a connected stream socket (dcs_connect), no TLS */
    void *connect_arg;
    bool no_session; /* writes are sent with session 0 and never re-sent */
};

struct client_reply {
    enum err status;
    struct errmsg error; /* text when status != ERR_OK */
    struct slice
        result; /* encoded; valid during the callback; decode with method_table[m].result */
};

typedef void client_cb(void *arg, const struct client_reply *reply);
/* status ERR_OK: ev is set; anything else: the watch has ended (ERR_COMPACTED; ERR_CANCELLED: client_close). */
typedef void client_watch_cb(void *arg, enum err status, const struct watch_event *ev);
typedef void client_state_cb(void *arg, bool connected, const struct hello_reply *hello);

enum err client_new(uv_loop_t *loop, const struct client_options *o, struct client **ret_client,
                    struct errmsg *e) MUST_CHECK;
/* Calls outstanding callbacks with ERR_CANCELLED or ERR_OUTCOME_UNKNOWN, closes, then `closed`. */
void client_close(struct client *c, void (*closed)(void *arg), void *arg);
void client_on_state(struct client *c, client_state_cb *cb, void *arg);

/* params: the C struct of the method's parameters, encoded before the call returns. Session and seq
 * are filled in by the client where the message has them and they are 0. deadline_ms 0: default. */
void client_call(struct client *c, enum method m, const void *params, uint64_t deadline_ms,
                 client_cb *cb, void *arg);

struct client_watch;
struct client_watch *client_watch(struct client *c, const struct watch_req *req,
                                  client_watch_cb *cb, void *arg);
void client_unwatch(struct client_watch *w); /* no callback after it */

/* ---- blocking ---- */
struct client_sync;
enum err client_sync_open(const struct client_options *o, uint64_t deadline_ms,
                          struct client_sync **ret_client, struct errmsg *e) MUST_CHECK;
void client_sync_close(struct client_sync *c); /* NULL is allowed */
/* ret_result: the C struct of the result (NULL: not wanted); its borrowed fields live until the next call. */
enum err client_sync_call(struct client_sync *c, enum method m, const void *params,
                          uint64_t deadline_ms, void *ret_result, struct errmsg *e) MUST_CHECK;
const struct hello_reply *client_sync_hello(const struct client_sync *c);
/* Runs until cb sets *stop, the watch ends, or deadline_ms (0: none) passes (ERR_TIMEOUT). */
enum err client_sync_watch(struct client_sync *c, const struct watch_req *req,
                           client_watch_cb *cb, void *arg, const bool *stop,
                           uint64_t deadline_ms, struct errmsg *e) MUST_CHECK;

#endif
