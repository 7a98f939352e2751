#include "dcs/server.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

enum { SESSION_MAGIC = 0x53657373, BACKLOG = 256 };

/* ---- binding ------------------------------------------------------------------------------- */

static enum err bind_one(const struct addrinfo *a, const char *text, int *ret_fd,
                         struct errmsg *e)
{
    int on = 1;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool good = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                (a->ai_family != AF_INET6 ||
                 setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) == 0) &&
                bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0;
    if (good) {
        *ret_fd = fd;
        return ERR_OK;
    }
    int error = errno;
    if (fd >= 0) {
        (void)close(fd);
    }
    const char *hint = error == EADDRINUSE
                           ? "; another program (another regentd?) has this port"
                       : error == EADDRNOTAVAIL ? "; dcs.listen must be an address of this host"
                                                : "";
    return err_set(e, err_from_errno(error), "cannot listen on %s: %s%s", text, strerror(error),
                   hint);
}

/* "*:7400" is every address of both families; "[::]" is IPv6 alone. */
enum err server_bind(const char *where, int ret_fds[static SERVER_LISTENERS_MAX], size_t *ret_n,
                     struct errmsg *e)
{
    char host[256], service[8];
    uint16_t port;
    if (str_host_port(where, host, sizeof host, &port) != ERR_OK) {
        return err_set(e, ERR_INVALID, "dcs.listen must be host:port, not \"%s\"", where);
    }
    (void)snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *list = NULL;
    int rc = getaddrinfo(strcmp(host, "*") == 0 ? NULL : host, service, &hints, &list);
    if (rc != 0) {
        return err_set(e, ERR_INVALID, "cannot resolve dcs.listen \"%s\": %s", where,
                       gai_strerror(rc));
    }
    enum err err = ERR_OK;
    size_t n = 0;
    for (struct addrinfo *a = list; a != NULL && n < SERVER_LISTENERS_MAX - 1 && err == ERR_OK;
         a = a->ai_next) {
        err = bind_one(a, where, &ret_fds[n], e);
        /* A host without IPv6 still serves "*". */
        if (err != ERR_OK && n > 0 && a->ai_family == AF_INET6 && strcmp(host, "*") == 0) {
            err = ERR_OK;
        } else if (err == ERR_OK) {
            n++;
        }
    }
    freeaddrinfo(list);
    for (size_t i = 0; err != ERR_OK && i < n; i++) {
        (void)close(ret_fds[i]);
    }
    *ret_n = err == ERR_OK ? n : 0;
    return err;
}

/* The owner holds the lock of the directory: a socket that is there is left over. */
enum err server_bind_local(const char *path, int *ret_fd, struct errmsg *e)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (str_copy(a.sun_path, sizeof a.sun_path, path) != ERR_OK) {
        return err_set(e, ERR_INVALID,
                       "the path of the local socket is too long (%zu bytes, %zu allowed): %s; "
                       "use a shorter data_dir",
                       strlen(path), sizeof a.sun_path - 1, path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    (void)unlink(path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || chmod(path, 0600) != 0 ||
        listen(fd, BACKLOG) != 0) {
        int error = errno;
        if (fd >= 0) {
            (void)close(fd);
        }
        return err_set(e, err_from_errno(error), "cannot listen on %s: %s", path,
                       strerror(error));
    }
    *ret_fd = fd;
    return ERR_OK;
}

/* ---- sessions ------------------------------------------------------------------------------ */

static void session_free(struct session *x)
{
    ASSERT(x->conn == NULL && x->in_flight == 0);
    x->magic = 0;
    mem_free(x);
}

static void mark(struct session *x)
{
    if (list_empty(&x->dirty)) {
        list_push(&x->server->dirty, &x->dirty);
    }
}

/* Would n bytes more be too much for all clients together? */
static bool crowded(struct session *x, size_t n)
{
    struct server *s = x->server;
    if (x->peer || conn_pending_bytes(x->conn) + n <= SERVER_UNREAD_FREE) {
        return false;
    }
    if (s->unread + n > SERVER_UNREAD_MAX) {
        s->unread = 0;
        for (struct list *l = s->sessions.next; l != &s->sessions; l = l->next) {
            struct session *other = container_of(l, struct session, link);
            s->unread +=
                other->conn == NULL || other->peer ? 0 : conn_memory_bytes(other->conn);
        }
    }
    bool over = s->unread + n > SERVER_UNREAD_MAX;
    s->unread += over ? 0 : n;
    return over;
}

/* Only a read's answer can be refused: without room for any other the connection ends, and its client asks again
 * on another. Errors, that of a refused read among them, and short answers find some room for a while. */
static bool cut_off(struct session *x, size_t n)
{
    enum { OVERHEAD = 100 };
    if (conn_pending_bytes(x->conn) <= SERVER_UNREAD_FREE) {
        x->squeezed_in = 0;
    }
    x->squeezed_in += n + OVERHEAD;
    if (!conn_is_open(x->conn) || x->squeezed_in <= SERVER_UNREAD_FREE || !crowded(x, n)) {
        return false;
    }
    log_event(LOG_WARN, "too_slow", KV(KV_STR("peer", conn_peer_text(x->conn))),
              "clients do not read their answers (%d MiB wait): its connection is closed",
              SERVER_UNREAD_MAX / 1024 / 1024);
    conn_close(x->conn);
    return true;
}

static void answer(struct session *x, uint64_t msgid, struct slice result)
{
    conn_reply(x->conn, msgid, result);
    mark(x);
}

void session_reply(struct session *x, uint64_t msgid, struct slice result)
{
    if (x->conn != NULL && !cut_off(x, result.n)) {
        answer(x, msgid, result);
    }
}

void session_error(struct session *x, uint64_t msgid, enum err code, const char *text)
{
    if (x->conn == NULL || cut_off(x, strlen(text))) {
        return;
    }
    struct member leader = {.id = 0};
    struct node *n = x->server->o.node;
    if (node_is_out(n)) {
        conn_reply_gone(x->conn, msgid, code, text);
        mark(x);
        return;
    }
    bool hint = code == ERR_UNAVAILABLE && node_leader(n) != 0 &&
                node_leader(n) != x->server->o.member_id &&
                node_member(n, node_leader(n), &leader) == ERR_OK;
    conn_reply_error(x->conn, msgid, code, text, hint ? leader.address : NULL);
    mark(x);
}

struct ticket *session_begin(struct session *x, uint64_t msgid, size_t n)
{
    size_t max = x->peer ? SERVER_PEER_IN_FLIGHT_MAX : SERVER_IN_FLIGHT_MAX;
    size_t bytes = x->peer ? SERVER_PEER_BYTES_MAX : SERVER_SESSION_BYTES_MAX;
    if (x->in_flight >= max || x->bytes + n > bytes) {
        struct errmsg e;
        (void)err_set(&e, ERR_LIMIT,
                      "too much under way on this connection: %zu requests, %zu bytes (limits "
                      "%zu and %zu)",
                      x->in_flight, x->bytes, max, bytes);
        session_error(x, msgid, ERR_LIMIT, e.text);
        return NULL;
    }
    struct ticket *t = mem_alloc(sizeof *t);
    *t = (struct ticket){.session = x, .msgid = msgid, .n = n};
    x->in_flight++;
    x->bytes += n;
    return t;
}

/* Many large answers in one pass would close the connection; a read can be asked for again. */
static bool room_for(struct session *x, size_t n)
{
    size_t max = (x->peer ? SERVER_PEER_WRITE_MAX : SERVER_WRITE_MAX) / 2;
    if (x->conn == NULL) {
        return true;
    }
    if (conn_pending_bytes(x->conn) + n > max) {
        conn_flush(x->conn);
    }
    return conn_pending_bytes(x->conn) + n <= max && !crowded(x, n);
}

void session_done(void *ticket, uint64_t tag, enum err status, const char *text,
                  struct slice result)
{
    struct ticket *t = ticket;
    struct session *x = t->session;
    (void)tag;
    CHECK_MAGIC(x, SESSION_MAGIC);
    ASSERT(x->in_flight > 0 && x->bytes >= t->n);
    x->in_flight--;
    x->bytes -= t->n;
    if (status == ERR_OK && t->read && !room_for(x, result.n)) {
        session_error(
            x, t->msgid, ERR_LIMIT,
            "too many answers wait on this connection to be read; ask for less at once");
    } else if (status == ERR_OK && t->read && x->conn != NULL) {
        answer(x, t->msgid, result);
    } else if (status == ERR_OK) {
        session_reply(x, t->msgid, result);
    } else {
        session_error(x, t->msgid, status, text);
    }
    mem_free(t);
    if (x->conn == NULL && x->in_flight == 0) {
        session_free(x);
    }
}

bool session_watch_send(void *session, struct slice event, bool must)
{
    struct session *x = session;
    CHECK_MAGIC(x, SESSION_MAGIC);
    if (x->conn == NULL ||
        (!must && (conn_pending_bytes(x->conn) + event.n > SERVER_WATCH_PENDING_MAX ||
                   crowded(x, event.n)))) {
        return false;
    }
    conn_notify(x->conn, "watch.event", event);
    mark(x);
    return true;
}

static const char *refused(const struct server *s, const struct pki_identity *id)
{
    struct member m;
    if (id->member_id == 0) {
        return node_cert_revoked(s->o.node, id->name, id->serial) ? SERVER_REVOKED : NULL;
    }
    bool gone =
        node_member(s->o.node, id->member_id, &m) == ERR_OK && strcmp(m.state, "removed") == 0;
    return gone ? SERVER_REMOVED : NULL;
}

/* A revocation holds from the moment in which this member applies it. Of members that are removed only those are
 * asked for that have not said hello: server_look() closes the door of the others. */
static const char *refused_now(struct session *x, bool members_too)
{
    uint64_t revocations = node_revocations(x->server->o.node);
    bool look = x->id.member_id != 0 ? members_too : x->revocations != revocations;
    if (x->has_id && look) {
        x->revocations = revocations;
        x->refused = refused(x->server, &x->id);
    }
    return x->refused;
}

static void on_ready(void *arg, const struct pki_identity *id)
{
    struct session *x = arg;
    CHECK_MAGIC(x, SESSION_MAGIC);
    x->ready = true;
    if (x->local) {
        x->access = ACCESS_ADMIN;
        uint32_t uid = conn_peer_uid(x->conn);
        if (uid != 0 && uid != geteuid()) {
            log_event(LOG_WARN, "refused", KV(KV_U64("uid", uid)),
                      "the local socket is for root and the daemon's user");
            conn_close(x->conn);
        }
        return;
    }
    if (id == NULL) {
        conn_set_write_max(x->conn, SERVER_STRANGER_WRITE_MAX);
        conn_set_dead_after(x->conn, SERVER_STRANGER_MS);
        conn_set_frame_max(x->conn, SERVER_STRANGER_FRAME_MAX);
        return;
    }
    if (strcmp(id->cluster_id, x->server->o.cluster_id) != 0) {
        log_event(
            LOG_WARN, "refused",
            KV(KV_STR("peer", conn_peer_text(x->conn)), KV_STR("cluster", id->cluster_id)),
            "its certificate is of another cluster");
        conn_close(x->conn);
        return;
    }
    x->id = *id;
    x->has_id = true;
    x->access = access_of_kind(id->kind);
}

static void on_request(void *arg, uint64_t msgid, struct slice method, struct slice params)
{
    struct session *x = arg;
    CHECK_MAGIC(x, SESSION_MAGIC);
    const char *why = refused_now(x, !x->said_hello);
    if (why != NULL) {
        session_error(x, msgid, ERR_DENIED, why);
        return;
    }
    dispatch_request(x, msgid, method, params);
}

static void on_notify(void *arg, struct slice method, struct slice params)
{
    struct session *x = arg;
    CHECK_MAGIC(x, SESSION_MAGIC);
    dispatch_notify(x, method, params);
}

/* Those for whom there is room now go on. */
static void let_go_on(struct server *s)
{
    struct intake_ticket *t;
    while ((t = intake_next(&s->intake, clock_boot_ms())) != NULL) {
        struct session *x = container_of(t, struct session, intake);
        conn_hold(x->conn, false);
    }
}

static void on_received(void *arg, size_t unfinished)
{
    struct session *x = arg;
    CHECK_MAGIC(x, SESSION_MAGIC);
    /* Members are few, and known. */
    if (!intake_note(&x->server->intake, &x->intake, x->peer ? 0 : unfinished,
                     clock_boot_ms())) {
        conn_hold(x->conn, true);
    }
    let_go_on(x->server);
}

static void on_closed(void *arg, const struct errmsg *why)
{
    struct session *x = arg;
    (void)why;
    CHECK_MAGIC(x, SESSION_MAGIC);
    ASSERT(x->server->n_sessions > 0);
    x->conn = NULL;
    x->server->n_sessions--;
    list_remove(&x->link);
    list_remove(&x->dirty);
    intake_leave(&x->server->intake, &x->intake);
    let_go_on(x->server);
    if (x->server->o.node != NULL) {
        node_unwatch_all(x->server->o.node, x);
    }
    if (x->in_flight == 0) {
        session_free(x);
    }
}

static const struct conn_ops session_ops = {.ready = on_ready,
                                            .request = on_request,
                                            .notify = on_notify,
                                            .closed = on_closed,
                                            .received = on_received};

static void push_out_stranger(struct server *s)
{
    struct session *oldest = NULL;
    size_t n = 0;
    for (struct list *l = s->sessions.next; l != &s->sessions; l = l->next) {
        struct session *x = container_of(l, struct session, link);
        if (!x->local && !x->has_id && !x->pushed_out) {
            oldest = oldest == NULL ? x : oldest;
            n++;
        }
    }
    if (n >= SERVER_STRANGERS_MAX) {
        oldest->pushed_out = true;
        conn_close(oldest->conn);
    }
}

static void open_session(struct server *s, int fd, bool local)
{
    if (!local) {
        push_out_stranger(s);
    }
    if (s->closing || s->n_sessions >= s->sessions_max) {
        (void)close(fd);
        return;
    }
    struct session *x = mem_alloc(sizeof *x);
    x->magic = SESSION_MAGIC;
    list_init(&x->link);
    list_init(&x->dirty);
    intake_ticket_init(&x->intake);
    x->server = s;
    x->local = local;
    list_push(&s->sessions, &x->link);
    s->n_sessions++;
    x->conn = conn_from_fd(s->o.loop, fd, local ? NULL : s->o.ctx, true, &session_ops, x);
    conn_set_write_max(x->conn, SERVER_WRITE_MAX);
}

/* ---- listening ----------------------------------------------------------------------------- */

/* Before the handshake, which is what a flood would cost. */
static bool turned_away(struct server *s, const struct sockaddr_storage *from)
{
    enum { SAY_AGAIN_MS = 60000 };
    uint8_t address[16] = {[10] = 0xff, [11] = 0xff};
    uint64_t now_ms = clock_boot_ms();
    if (from->ss_family == AF_INET6) {
        memcpy(address, &((const struct sockaddr_in6 *)from)->sin6_addr, sizeof address);
    } else {
        memcpy(address + 12, &((const struct sockaddr_in *)from)->sin_addr, 4);
    }
    if (gate_admit(&s->gate, address, now_ms)) {
        return false;
    }
    if (s->turned_away_ms == 0 || now_ms >= s->turned_away_ms + SAY_AGAIN_MS) {
        char host[64] = "?";
        (void)getnameinfo((const struct sockaddr *)from, sizeof *from, host, sizeof host, NULL,
                          0, NI_NUMERICHOST);
        log_event(LOG_WARN, "turned_away", KV(KV_STR("host", host)),
                  "it connects more than %d times a second", (int)GATE_PER_S);
        s->turned_away_ms = now_ms;
    }
    return true;
}

static void on_connection(uv_poll_t *poll, int status, int events)
{
    struct listener *l = container_of(poll, struct listener, poll);
    (void)events;
    /* A few a pass: a storm of connections must not starve those that are open. */
    for (int i = 0; status == 0 && i < 16; i++) {
        struct sockaddr_storage from = {.ss_family = AF_UNSPEC};
        socklen_t size = sizeof from;
        int fd = accept4(l->fd, (struct sockaddr *)&from, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            return;
        }
        if (!l->local && turned_away(l->server, &from)) {
            (void)close(fd);
            continue;
        }
        open_session(l->server, fd, l->local);
    }
}

/* The process keeps descriptors for its files, whoever connects. */
static size_t sessions_max(void)
{
    struct rlimit r = {0, 0};
    (void)getrlimit(RLIMIT_NOFILE, &r);
    size_t reserved = MIN((size_t)SERVER_FDS_RESERVED, (size_t)r.rlim_cur / 2);
    return MIN((size_t)SERVER_SESSIONS_MAX, (size_t)r.rlim_cur - reserved);
}

void server_start(struct server *s, const struct server_options *o, const int *fds, size_t n,
                  size_t local)
{
    ASSERT(n <= SERVER_LISTENERS_MAX);
    memset(s, 0, sizeof *s);
    s->o = *o;
    s->sessions_max = sessions_max();
    list_init(&s->sessions);
    list_init(&s->dirty);
    intake_init(&s->intake);
    for (size_t i = 0; i < n; i++) {
        struct listener *l = &s->listeners[s->n_listeners++];
        l->fd = fds[i];
        l->local = i == local;
        l->server = s;
        int rc = uv_poll_init(s->o.loop, &l->poll, l->fd);
        ASSERT(rc == 0);
        rc = uv_poll_start(&l->poll, UV_READABLE, on_connection);
        ASSERT(rc == 0);
    }
}

void server_adopt(struct server *s, int fd)
{
    open_session(s, fd, true);
}

void server_flush(struct server *s)
{
    struct list *l;
    while ((l = list_pop(&s->dirty)) != NULL) {
        struct session *x = container_of(l, struct session, dirty);
        if (x->conn != NULL) {
            conn_flush(x->conn);
        }
    }
}

static void close_stalled(struct server *s)
{
    struct intake_ticket *t;
    while ((t = intake_stalled(&s->intake, clock_boot_ms())) != NULL) {
        struct session *x = container_of(t, struct session, intake);
        log_event(LOG_WARN, "stalled", KV(KV_STR("peer", conn_peer_text(x->conn))),
                  "others wait behind a request of which %zu bytes came and no more: its "
                  "connection is closed",
                  t->bytes);
        intake_leave(&s->intake, t);
        conn_close(x->conn);
    }
    let_go_on(s);
}

static void close_refused(struct server *s)
{
    uint64_t applied = node_applied(s->o.node);
    if (applied == s->checked_applied) {
        return;
    }
    s->checked_applied = applied;
    for (struct list *l = s->sessions.next; l != &s->sessions; l = l->next) {
        struct session *x = container_of(l, struct session, link);
        if (x->conn != NULL && refused_now(x, true) != NULL) {
            conn_close(x->conn);
        }
    }
}

void server_look(struct server *s)
{
    close_refused(s);
    close_stalled(s);
}

static void on_listener_closed(uv_handle_t *h)
{
    struct listener *l = container_of((uv_poll_t *)h, struct listener, poll);
    (void)close(l->fd);
}

void server_close(struct server *s)
{
    s->closing = true;
    for (size_t i = 0; i < s->n_listeners; i++) {
        uv_close((uv_handle_t *)&s->listeners[i].poll, on_listener_closed);
    }
    s->n_listeners = 0;
    for (struct list *l = s->sessions.next; l != &s->sessions; l = l->next) {
        struct session *x = container_of(l, struct session, link);
        if (x->conn != NULL) {
            conn_close(x->conn);
        }
    }
}
