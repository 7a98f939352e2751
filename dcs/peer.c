#include "dcs/peer.h"

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "dcs/wire.h"
#include "proto/conn.h"

enum { PEER_MAGIC = 0x50656572 };
#define NUMBER_HELLO 0xffffffffU
#define NUMBER_PING 0xfffffffeU

struct peer {
    uint32_t magic;
    struct peers *set;
    uint64_t id;
    char address[128], host[128];
    uint16_t port;
    enum { PEER_DOWN, PEER_OPENING, PEER_HELLO, PEER_UP } state;
    struct conn *conn; /* NULL: none, or only its end is awaited */
    bool conn_closing; /* `closed` of a connection is outstanding */
    bool refused;    /* the last attempt failed for a reason that trying again will not mend */
    bool complained; /* the present trouble is in the log */
    bool leaving;    /* removed: freed when its handles are closed */
    unsigned handles;
    uint64_t version; /* spoken on the link that is up */
    uv_timer_t timer; /* DOWN: next attempt; UP: ping */
    struct buf frame;
};

static void dial(struct peer *p);

static struct peer *find(const struct peers *s, uint64_t id)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->all[i]->id == id) {
            return s->all[i];
        }
    }
    return NULL;
}

static void maybe_free(struct peer *p)
{
    if (p->leaving && p->handles == 0 && !p->conn_closing) {
        buf_close(&p->frame);
        p->magic = 0;
        mem_free(p);
    }
}

static void on_timer_closed(uv_handle_t *h)
{
    struct peer *p = h->data;
    CHECK_MAGIC(p, PEER_MAGIC);
    p->handles--;
    maybe_free(p);
}

static void on_retry(uv_timer_t *t)
{
    struct peer *p = t->data;
    CHECK_MAGIC(p, PEER_MAGIC);
    dial(p);
}

static void retry_later(struct peer *p)
{
    uint64_t wait = p->refused
                        ? PEER_REFUSED_MS
                        : PEER_RETRY_MIN_MS + rng_below(&p->set->rng, PEER_RETRY_SPREAD_MS);
    (void)uv_timer_start(&p->timer, on_retry, wait, 0);
}

static void complain(struct peer *p, const char *why)
{
    if (!p->complained) {
        log_event(LOG_WARN, "peer_down",
                  KV(KV_U64("member", p->id), KV_STR("address", p->address)), "%s", why);
        p->complained = true;
    }
}

/* ---- the connection's callbacks ------------------------------------------------------------ */

static void refuse(struct peer *p, const char *why)
{
    p->refused = true;
    complain(p, why);
    conn_close(p->conn);
}

static void on_ready(void *arg, const struct pki_identity *id)
{
    struct peer *p = arg;
    CHECK_MAGIC(p, PEER_MAGIC);
    struct peers *s = p->set;
    if (id == NULL || id->member_id != p->id || strcmp(id->cluster_id, s->cluster_id) != 0) {
        refuse(p, "another node answers at this address (the certificate's identity is not "
                  "that of the member)");
        return;
    }
    p->state = PEER_HELLO;
    struct hello hello = {.version = PROTO_VERSION, .role = "peer"};
    memcpy(hello.cluster_id, s->cluster_id, sizeof hello.cluster_id);
    memcpy(hello.name, s->name, sizeof hello.name);
    struct buf CLEANUP(buf_close) params = BUF_INIT;
    msg_encode(&msg_hello, &hello, &params);
    conn_request(p->conn, NUMBER_HELLO, method_table[METHOD_HELLO].name, buf_slice(&params));
}

static void on_ping(uv_timer_t *t)
{
    struct peer *p = t->data;
    CHECK_MAGIC(p, PEER_MAGIC);
    if (p->state == PEER_UP) {
        conn_request(p->conn, NUMBER_PING, WIRE_PEER_PING, slice_of(NULL, 0));
        conn_flush(p->conn);
    }
}

static void hello_answered(struct peer *p, enum err status, const struct errmsg *error,
                           struct slice result)
{
    struct hello_reply reply;
    if (status == ERR_OK && msg_decode(&msg_hello_reply, result, &reply, NULL) != ERR_OK) {
        refuse(p, "its answer to hello is not understood");
        return;
    }
    if (status != ERR_OK) {
        refuse(p, error->text);
        if (status == ERR_DENIED) { /* hello is denied for no other reason */
            p->set->ops->removed(p->set->arg, p->id, error->text);
        }
        return;
    }
    p->state = PEER_UP;
    p->version = MIN(reply.version, (uint64_t)PROTO_VERSION);
    p->refused = false;
    p->complained = false;
    conn_set_dead_after(p->conn, PEER_DEAD_MS);
    (void)uv_timer_start(&p->timer, on_ping, p->set->ping_ms, p->set->ping_ms);
    log_event(LOG_INFO, "peer_up", KV(KV_U64("member", p->id), KV_STR("address", p->address)),
              "connected");
    p->set->ops->link(p->set->arg, p->id, true);
}

static void on_response(void *arg, uint64_t msgid, enum err status, const struct errmsg *error,
                        struct slice result)
{
    struct peer *p = arg;
    CHECK_MAGIC(p, PEER_MAGIC);
    if (msgid == NUMBER_PING) {
        return;
    }
    if (msgid == NUMBER_HELLO) {
        if (p->state == PEER_HELLO) {
            hello_answered(p, status, error, result);
        }
    } else if (p->state == PEER_UP && msgid <= UINT32_MAX) {
        p->set->ops->answer(p->set->arg, p->id, (uint32_t)msgid, status, error->text, result);
    }
}

static void on_closed(void *arg, const struct errmsg *why)
{
    struct peer *p = arg;
    CHECK_MAGIC(p, PEER_MAGIC);
    bool was_up = p->state == PEER_UP;
    p->conn = NULL;
    p->conn_closing = false;
    p->state = PEER_DOWN;
    if (p->leaving) {
        maybe_free(p);
        return;
    }
    (void)uv_timer_stop(&p->timer);
    complain(p, why->text);
    retry_later(p);
    if (was_up) {
        p->set->ops->link(p->set->arg, p->id, false);
    }
}

static const struct conn_ops conn_ops = {
    .ready = on_ready, .response = on_response, .closed = on_closed};

static void dial(struct peer *p)
{
    if (p->state != PEER_DOWN || p->leaving) {
        return;
    }
    ASSERT(p->conn == NULL && !p->conn_closing);
    (void)uv_timer_stop(&p->timer);
    p->state = PEER_OPENING;
    p->conn_closing = true;
    p->conn = conn_connect(p->set->loop, p->host, p->port, p->set->ctx, &conn_ops, p);
    conn_set_write_max(p->conn, 2 * (size_t)PEER_CALLS_MAX);
}

/* ---- the set ------------------------------------------------------------------------------- */

void peers_add(struct peers *s, uint64_t id, const char *address)
{
    if (id == s->self || s->closing) {
        return;
    }
    struct peer *p = find(s, id);
    char host[128];
    uint16_t port;
    if ((p != NULL && strcmp(p->address, address) == 0) ||
        strlen(address) >= sizeof p->address) {
        return;
    }
    if (str_host_port(address, host, sizeof host, &port) != ERR_OK) {
        log_event(LOG_ERROR, "peer_address",
                  KV(KV_U64("member", id), KV_STR("address", address)),
                  "this member's address is not host:port; it cannot be reached");
        return;
    }
    bool known = p != NULL;
    if (!known) {
        if (s->n >= MEMBERS_MAX) {
            return;
        }
        p = mem_alloc(sizeof *p);
        p->magic = PEER_MAGIC;
        p->set = s;
        p->id = id;
        p->timer.data = p;
        (void)uv_timer_init(s->loop, &p->timer);
        p->handles = 1;
        s->all[s->n++] = p;
    }
    memcpy(p->address, address, strlen(address) + 1);
    memcpy(p->host, host, sizeof p->host);
    p->port = port;
    if (known && p->conn != NULL) {
        conn_close(p->conn); /* dialed anew at its new address */
    } else {
        dial(p);
    }
}

static void release(struct peers *s, size_t at)
{
    struct peer *p = s->all[at];
    bool was_up = p->state == PEER_UP;
    s->all[at] = s->all[--s->n];
    p->leaving = true;
    if (p->conn != NULL) {
        conn_close(p->conn);
    }
    uv_close((uv_handle_t *)&p->timer, on_timer_closed);
    if (was_up) {
        s->ops->link(s->arg, p->id, false);
    }
}

void peers_remove(struct peers *s, uint64_t id)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->all[i]->id == id) {
            release(s, i);
            return;
        }
    }
}

void peers_close(struct peers *s)
{
    s->closing = true;
    while (s->n > 0) {
        release(s, s->n - 1);
    }
}

uint64_t peers_version(const struct peers *s, uint64_t id)
{
    const struct peer *p = find(s, id);
    return p != NULL && p->state == PEER_UP ? p->version : 0;
}

bool peers_linked(const struct peers *s, uint64_t id)
{
    const struct peer *p = find(s, id);
    return p != NULL && p->state == PEER_UP;
}

size_t peers_count(const struct peers *s)
{
    return s->n;
}

uint64_t peers_id_at(const struct peers *s, size_t i)
{
    ASSERT(i < s->n);
    return s->all[i]->id;
}

void peers_send_frame(struct peers *s, uint64_t id, struct slice frame)
{
    struct peer *p = find(s, id);
    if (p == NULL || p->state != PEER_UP || conn_pending_bytes(p->conn) > PEER_FRAMES_MAX) {
        return;
    }
    struct wire_bytes w = {.data = frame};
    buf_clear(&p->frame);
    msg_encode(&wire_msg_bytes, &w, &p->frame);
    conn_notify(p->conn, WIRE_RAFT_FRAME, buf_slice(&p->frame));
}

bool peers_call(struct peers *s, uint64_t id, uint32_t number, const char *method,
                struct slice params)
{
    struct peer *p = find(s, id);
    ASSERT(number < NUMBER_PING);
    if (p == NULL || p->state != PEER_UP || conn_pending_bytes(p->conn) > PEER_CALLS_MAX) {
        return false;
    }
    conn_request(p->conn, number, method, params);
    return true;
}

void peers_flush(struct peers *s)
{
    for (size_t i = 0; i < s->n; i++) {
        struct peer *p = s->all[i];
        if (p->conn != NULL && p->state >= PEER_HELLO) {
            conn_flush(p->conn);
        }
    }
}

void peers_dialed_us(struct peers *s, uint64_t id)
{
    struct peer *p = find(s, id);
    if (p != NULL && p->state == PEER_DOWN) {
        dial(p);
    }
}
