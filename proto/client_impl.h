/* Private to proto/: the inside of the asynchronous client.
 *   client.c        life, and how a call begins
 *   client_call.c   what it goes through: queue, send, answer, deadline
 *   client_net.c    one connection at a time: dial, hello, session, redial
 *   client_watch.c  watches and how they are resumed */
#ifndef REGENT_PROTO_CLIENT_IMPL_H
#define REGENT_PROTO_CLIENT_IMPL_H

#include <openssl/ssl.h>

#include "base/buf.h"
#include "base/rng.h"
#include "proto/client.h"
#include "proto/conn.h"

enum {
    CLIENT_MAGIC = 0x636c6e74,
    CLIENT_SLOTS = 256, /* the server's limit of requests in flight; a power of two */
    CLIENT_WINDOW = 32, /* session writes without an answer */
    CLIENT_SPAN = 48,   /* of their seqs, below the 64 results the server keeps */
    CLIENT_BACKOFF_MIN_MS = 20,
    CLIENT_BACKOFF_MAX_MS = 200,
    CLIENT_HELLO_MS = 2000,
    CLIENT_SILENT_MIN_MS = 1000,
    CLIENT_PARAMS_MAX = 2 * 1024 * 1024
};

/* May a request be sent again when it is not known what became of it? */
enum resend {
    RESEND_ALWAYS,  /* reads, and what is idempotent by itself */
    RESEND_SESSION, /* carries (session, seq): the server applies it once */
    RESEND_NEVER
};

struct client_call {
    struct client_call *prev, *next;
    struct call_list *list;
    client_cb *cb;
    void *arg;
    enum method m;
    enum resend resend;
    bool add_session, add_deadline; /* not among the encoded params yet */
    bool doubt;                     /* sent on a connection that broke before the answer */
    bool reads;                     /* nothing to be in doubt about */
    unsigned attempts;
    int window_slot; /* -1: none */
    uint64_t session, seq;
    uint64_t deadline_at_ms, sent_at_ms, not_before_ms; /* CLOCK_BOOTTIME */
    uint64_t patience_ms;
    uint64_t msgid;
    struct errmsg error; /* for the callback, once on the done list */
    size_t n;
    uint8_t params[];
};

struct call_list {
    struct client_call *first, *last;
};

enum slot_kind { SLOT_FREE, SLOT_HELLO, SLOT_CALL, SLOT_WATCH, SLOT_IGNORE };

struct slot {
    enum slot_kind kind;
    uint64_t msgid;
    void *what;
};

enum watch_state { WATCH_IDLE, WATCH_CREATING, WATCH_ACTIVE };

struct client_watch {
    struct client *c;
    struct client_watch *prev, *next;
    enum watch_state state;
    bool dead;    /* unwatched, or ended */
    bool in_call; /* its callback runs: freed behind it */
    client_watch_cb *cb;
    void *arg;
    uint64_t id;   /* the server's, while ACTIVE */
    uint64_t from; /* next revision to deliver; 0: whatever comes */
    uint64_t retry_at_ms;
    struct buf key, end;
    bool prev_kv, no_put, no_delete;
    uint64_t progress_ms;
    uint64_t window, left; /* 0: no window; bytes that may still come on this connection */
};

/* How a method's parameters carry what the client fills in; NULL: not at all. */
struct shape {
    const struct field *session, *seq, *deadline;
};

enum session_state { SESSION_NONE, SESSION_OPENING, SESSION_OPEN };

struct client {
    uint32_t magic;
    uv_loop_t *loop;
    char *endpoints[CLIENT_ENDPOINTS_MAX];
    size_t n_endpoints, next_endpoint;
    char *cluster_id, *name;
    int (*connect_fd)(void *);
    void *connect_arg;
    bool no_session;
    SSL_CTX *ctx;
    struct rng rng;
    struct shape shapes[METHOD_COUNT];

    /* connection */
    struct conn *conn;
    bool connected; /* hello was answered */
    struct hello_reply hello;
    unsigned failures;      /* since the last hello */
    struct errmsg last_why; /* why there is no connection, or no leader */
    uint64_t hello_by_ms;
    uv_timer_t redial;
    client_state_cb *state_cb;
    void *state_arg;

    /* session */
    enum session_state session_state;
    uint64_t session, nonce, next_seq;
    struct client_call
        *window[CLIENT_WINDOW]; /* of this session, without an answer; NULL: free */

    /* calls: each on exactly one list */
    struct call_list writes;  /* session writes to be sent */
    struct call_list queued;  /* all others to be sent */
    struct call_list sent;    /* in the order of sending */
    struct call_list waiting; /* until not_before_ms */
    struct call_list done;    /* until their callback */
    struct slot slots[CLIENT_SLOTS];
    size_t slots_used, slot_hint;
    uint64_t next_round; /* upper bits of msgids */
    uv_timer_t wake;
    uint64_t wake_at_ms; /* UINT64_MAX: not set */
    struct buf scratch;

    struct client_watch *watches;

    bool closing;
    unsigned handles;
    void (*closed)(void *);
    void *closed_arg;
};

/* client_call.c */
void client_enqueue(struct client *c, struct client_call *call);
void client_cancel_calls(struct client *c);
void client_on_wake(uv_timer_t *t);
void client_pump(struct client *c); /* sends what may be sent */
void client_wake_by(struct client *c, uint64_t at_ms);
void client_finish(struct client *c, struct client_call *call, const struct errmsg *error);
void client_run_done(struct client *c);
void client_answered(struct client *c, struct client_call *call, const struct errmsg *error,
                     struct slice result);
void client_calls_lost(struct client *c); /* the connection is gone */
void client_fail_writes(struct client *c, const struct errmsg *why);
bool client_take_slot(struct client *c, enum slot_kind kind, void *what, uint64_t *ret_msgid);
uint64_t client_backoff_ms(struct client *c, unsigned attempts);

/* client.c */
void client_maybe_closed(struct client *c);

/* client_net.c */
enum err client_net_init(struct client *c, const struct client_options *o, struct errmsg *e)
    MUST_CHECK;
void client_net_free(struct client *c);
void client_dial_soon(struct client *c);
void client_session_need(struct client *c);
void client_session_lost(struct client *c, uint64_t session);
void client_net_tick(struct client *c, uint64_t now_ms);

/* client_watch.c */
void client_watches_pump(struct client *c, uint64_t now_ms);
void client_watches_lost(struct client *c);
void client_watches_close(struct client *c);
void client_watch_answered(struct client_watch *w, const struct errmsg *error,
                           struct slice result);
void client_watch_event(struct client *c, struct slice params);

#endif
