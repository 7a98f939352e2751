/* The client's connection: dial, hello, session, redial. */
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/client_impl.h"

/* ---- session ---- */

static void on_session(void *arg, const struct client_reply *reply)
{
    struct client *c = arg;
    struct session_reply s;
    struct errmsg e = reply->error;
    CHECK_MAGIC(c, CLIENT_MAGIC);
    c->session_state = SESSION_NONE;
    if (reply->status == ERR_OK &&
        msg_decode(&msg_session_reply, reply->result, &s, &e) == ERR_OK && s.session != 0) {
        c->session_state = SESSION_OPEN;
        c->session = s.session;
        c->next_seq = 1;
        memset(c->window, 0, sizeof c->window);
        return; /* client_answered() pumps */
    }
    if (c->closing)
        return;
    if (e.code == ERR_OK)
        (void)err_set(&e, ERR_INTERNAL, "the server gave no session");
    if (e.code == ERR_OUTCOME_UNKNOWN)
        e.code = ERR_UNAVAILABLE; /* of the session, not of the writes that wait for it */
    if (e.code == ERR_UNAVAILABLE || e.code == ERR_TIMEOUT)
        client_pump(c); /* asks again, while a write waits: each has its own deadline */
    else
        client_fail_writes(c, &e);
}

/* The nonce stays the same over retries, so a lost answer leaves no session behind. */
void client_session_need(struct client *c)
{
    if (c->session_state != SESSION_NONE)
        return;
    c->session_state = SESSION_OPENING;
    if (c->nonce == 0)
        rng_system(&c->nonce, sizeof c->nonce);
    struct session_open open = {.nonce = c->nonce};
    client_call(c, METHOD_SESSION_OPEN, &open, 0, on_session, c);
}

/* The server does not know it any more (restored, or long unused). */
void client_session_lost(struct client *c, uint64_t session)
{
    if (c->session_state != SESSION_OPEN || c->session != session)
        return;
    c->session_state = SESSION_NONE;
    c->session = 0;
    c->nonce = 0;
}

/* ---- connection ---- */

static void lost(struct client *c, const struct errmsg *why)
{
    bool was = c->connected;
    c->conn = NULL;
    c->connected = false;
    if (c->closing) {
        client_maybe_closed(c);
        return;
    }
    if (why->code != ERR_CANCELLED || c->last_why.code == ERR_OK) {
        c->last_why = *why;
        if (why->code == ERR_CANCELLED)
            (void)err_set(&c->last_why, ERR_UNAVAILABLE, "the server did not answer");
    }
    c->failures++;
    c->hello_by_ms = 0;
    client_calls_lost(c);
    client_watches_lost(c);
    client_dial_soon(c);
    if (was && c->state_cb != NULL)
        c->state_cb(c->state_arg, false, NULL);
    client_run_done(c);
}

static void hello_answered(struct client *c, const struct errmsg *error, struct slice result)
{
    struct errmsg e = *error;
    if (e.code == ERR_OK && msg_decode(&msg_hello_reply, result, &c->hello, &e) == ERR_OK &&
        c->cluster_id != NULL && c->hello.cluster_id[0] != '\0' &&
        strcmp(c->cluster_id, c->hello.cluster_id) != 0)
        (void)err_set(&e, ERR_UNAUTHENTICATED, "%s belongs to cluster %s, not to %s",
                      conn_peer_text(c->conn), c->hello.cluster_id, c->cluster_id);
    if (e.code != ERR_OK) {
        c->last_why = e;
        conn_close(c->conn);
        return;
    }
    c->connected = true;
    c->hello_by_ms = 0;
    c->failures = 0;
    c->last_why.code = ERR_OK;
    if (c->state_cb != NULL)
        c->state_cb(c->state_arg, true, &c->hello);
    if (c->closing)
        return;
    client_watches_pump(c, clock_boot_ms());
    client_pump(c);
}

static void on_ready(void *arg, const struct pki_identity *id)
{
    struct client *c = arg;
    struct hello hello = {.version = PROTO_VERSION, .role = "client"};
    struct buf params CLEANUP(buf_close) = BUF_INIT;
    uint64_t msgid;
    CHECK_MAGIC(c, CLIENT_MAGIC);
    (void)id; /* the context has verified it against the CA */
    enum err rc = str_copy(hello.name, sizeof hello.name, c->name);
    if (c->cluster_id != NULL && rc == ERR_OK)
        rc = str_copy(hello.cluster_id, sizeof hello.cluster_id, c->cluster_id);
    ASSERT(rc == ERR_OK); /* client_net_init() looked */
    bool taken = client_take_slot(c, SLOT_HELLO, NULL, &msgid);
    ASSERT(taken);
    msg_encode(&msg_hello, &hello, &params);
    conn_request(c->conn, msgid, "hello", buf_slice(&params));
    c->hello_by_ms = clock_boot_ms() + CLIENT_HELLO_MS;
    client_wake_by(c, c->hello_by_ms);
}

static void on_response(void *arg, uint64_t msgid, enum err status, const struct errmsg *error,
                        struct slice result)
{
    struct client *c = arg;
    CHECK_MAGIC(c, CLIENT_MAGIC);
    (void)status; /* error->code */
    struct slot *s = &c->slots[msgid % CLIENT_SLOTS];
    struct slot was = *s;
    struct errmsg e = *error;
    if (was.kind == SLOT_FREE || was.msgid != msgid)
        return;
    s->kind = SLOT_FREE;
    c->slots_used--;
    if (e.code != ERR_OK && conn_error_gone(c->conn) && c->n_endpoints > 1) {
        e.code = e.code == ERR_OUTCOME_UNKNOWN ? e.code : ERR_UNAVAILABLE; /* here */
        conn_close(c->conn);
    }
    switch (was.kind) {
    case SLOT_HELLO:
        hello_answered(c, &e, result);
        break;
    case SLOT_CALL:
        client_answered(c, was.what, &e, result);
        break;
    case SLOT_WATCH:
        client_watch_answered(was.what, &e, result);
        break;
    case SLOT_IGNORE:
        client_pump(c);
        break;
    case SLOT_FREE:
        break;
    }
}

static void on_notify(void *arg, struct slice method, struct slice params)
{
    struct client *c = arg;
    CHECK_MAGIC(c, CLIENT_MAGIC);
    if (slice_eq(method, slice_str("watch.event")))
        client_watch_event(c, params);
}

static void on_closed(void *arg, const struct errmsg *why)
{
    struct client *c = arg;
    CHECK_MAGIC(c, CLIENT_MAGIC);
    lost(c, why);
}

static const struct conn_ops ops = {
    .ready = on_ready, .response = on_response, .notify = on_notify, .closed = on_closed};

static void dial(uv_timer_t *t)
{
    struct client *c = t->data;
    char host[256];
    uint16_t port = 0;
    CHECK_MAGIC(c, CLIENT_MAGIC);
    ASSERT(c->conn == NULL);
    if (c->connect_fd != NULL) {
        int fd = c->connect_fd(c->connect_arg);
        struct errmsg why;
        if (fd >= 0) {
            c->conn = conn_from_fd(c->loop, fd, NULL, false, &ops, c);
        } else {
            (void)err_set(&why, ERR_UNAVAILABLE, "the store of this node is stopping");
            lost(c, &why);
        }
        return;
    }
    const char *endpoint = c->endpoints[c->next_endpoint];
    c->next_endpoint = (c->next_endpoint + 1) % c->n_endpoints;
    if (str_starts(endpoint, "unix:")) {
        c->conn = conn_connect(c->loop, endpoint, 0, NULL, &ops, c);
        return;
    }
    enum err rc = str_host_port(endpoint, host, sizeof host, &port);
    ASSERT(rc == ERR_OK); /* client_net_init() looked */
    c->conn = conn_connect(c->loop, host, port, c->ctx, &ops, c);
}

/* At once after a working connection; then every endpoint once without a pause worth the name. */
void client_dial_soon(struct client *c)
{
    size_t round = MAX(c->n_endpoints, (size_t)1);
    uint64_t wait_ms = 0;
    if (c->failures > round)
        wait_ms = client_backoff_ms(c, c->failures - (unsigned)round);
    else if (c->failures > 0)
        wait_ms = rng_below(&c->rng, CLIENT_BACKOFF_MIN_MS);
    (void)uv_timer_start(&c->redial, dial, wait_ms, 0);
}

void client_net_tick(struct client *c, uint64_t now_ms)
{
    if (c->connected || c->conn == NULL || c->hello_by_ms == 0)
        return;
    if (now_ms < c->hello_by_ms) {
        client_wake_by(c, c->hello_by_ms);
        return;
    }
    c->hello_by_ms = 0;
    (void)err_set(&c->last_why, ERR_UNAVAILABLE, "%s did not answer hello",
                  conn_peer_text(c->conn));
    conn_close(c->conn);
}

/* ---- options ---- */

static enum err take_endpoints(struct client *c, const struct client_options *o, bool *ret_tls,
                               struct errmsg *e)
{
    char host[256];
    uint16_t port;
    if (o->n_endpoints > CLIENT_ENDPOINTS_MAX || (o->n_endpoints == 0 && o->connect_fd == NULL))
        return err_set(e, ERR_INVALID, "1 to %d addresses of the cluster are needed, not %zu",
                       CLIENT_ENDPOINTS_MAX, o->n_endpoints);
    for (size_t i = 0; i < o->n_endpoints; i++) {
        bool local = str_starts(o->endpoints[i], "unix:");
        if (!local && str_host_port(o->endpoints[i], host, sizeof host, &port) != ERR_OK)
            return err_set(e, ERR_INVALID, "\"%s\" is not HOST:PORT", o->endpoints[i]);
        c->endpoints[c->n_endpoints++] = mem_strdup(o->endpoints[i]);
        *ret_tls |= !local;
    }
    return ERR_OK;
}

enum err client_net_init(struct client *c, const struct client_options *o, struct errmsg *e)
{
    struct hello limits;
    bool tls = false;
    c->connect_fd = o->connect_fd;
    c->connect_arg = o->connect_arg;
    c->no_session = o->no_session;
    c->name = mem_strdup(o->name != NULL ? o->name : "client");
    c->cluster_id =
        o->cluster_id != NULL && o->cluster_id[0] != '\0' ? mem_strdup(o->cluster_id) : NULL;
    if (strlen(c->name) >= sizeof limits.name ||
        (c->cluster_id != NULL && strlen(c->cluster_id) >= sizeof limits.cluster_id))
        return err_set(e, ERR_INVALID, "the name of the client or of the cluster is too long");
    enum err rc = o->connect_fd != NULL ? ERR_OK : take_endpoints(c, o, &tls, e);
    if (rc != ERR_OK || !tls)
        return rc;
    if (o->ca_fingerprint != NULL)
        return pki_join_context(o->ca_fingerprint, &c->ctx, e);
    if (o->ca_file == NULL)
        return err_set(e, ERR_INVALID, "the CA certificate of the cluster is needed");
    return pki_client_context(o->ca_file, o->cert_file, o->key_file, &c->ctx, e);
}

void client_net_free(struct client *c)
{
    for (size_t i = 0; i < c->n_endpoints; i++)
        mem_free(c->endpoints[i]);
    mem_free(c->name);
    mem_free(c->cluster_id);
    SSL_CTX_free(c->ctx);
}
