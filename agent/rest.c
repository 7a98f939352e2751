#include "agent/rest.h"

#include <errno.h>
#include <jansson.h>
#include <microhttpd.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/rest_body.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/pki.h"

enum { CONNECTIONS_MAX = 256, IDLE_SECONDS = 10, FILE_MAX = 1 << 20 };

struct rest {
    struct MHD_Daemon *http;
    pthread_mutex_t lock; /* guards `now` */
    struct rest_facts now;
    struct buf cert, key;
};

/* ---- answers ---- */

static bool is_primary(const struct rest_facts *f, uint64_t now_ms)
{
    const struct view *v = &f->view;
    return view_is_leader(v) && now_ms < v->deadline_ms && v->pg.proc == PG_PROC_RUNNING &&
           v->pg.accepts && !v->pg.in_recovery;
}

static bool is_leader(const struct rest_facts *f, uint64_t now_ms)
{
    return view_is_leader(&f->view) && now_ms < f->view.deadline_ms;
}

static bool is_running(const struct rest_facts *f, uint64_t now_ms)
{
    (void)now_ms;
    return f->view.pg.proc == PG_PROC_RUNNING && f->view.pg.accepts;
}

static bool is_replica(const struct rest_facts *f, uint64_t now_ms)
{
    const struct member_rec *self = view_member(&f->view, f->view.self);
    return is_running(f, now_ms) && f->view.pg.in_recovery && !is_leader(f, now_ms) &&
           (self == NULL || !self->noloadbalance);
}

static bool is_sync(const struct rest_facts *f, uint64_t now_ms)
{
    if (!f->view.dcs_ready || !is_replica(f, now_ms))
        return false;
    for (size_t i = 0; i < f->view.sync.v_n; i++)
        if (strcmp(f->view.sync.v[i], f->view.pg.incarnation) == 0)
            return true;
    return false;
}

static bool is_async(const struct rest_facts *f, uint64_t now_ms)
{
    return f->view.dcs_ready && is_replica(f, now_ms) && !is_sync(f, now_ms);
}

static bool is_readable(const struct rest_facts *f, uint64_t now_ms)
{
    return is_primary(f, now_ms) || is_replica(f, now_ms);
}

static bool is_readable_sync(const struct rest_facts *f, uint64_t now_ms)
{
    return is_primary(f, now_ms) || is_sync(f, now_ms);
}

static bool is_live(const struct rest_facts *f, uint64_t now_ms)
{
    uint64_t limit = f->view.config.ttl_ms * (is_leader(f, now_ms) ? 1 : 2);
    return f->view.config.pause || now_ms < f->view.now_ms + limit;
}

static bool is_ready(const struct rest_facts *f, uint64_t now_ms)
{
    if (is_leader(f, now_ms))
        return true;
    if (!is_running(f, now_ms) || !f->view.pg.streaming)
        return false;
    return f->view.pg.lsn - MIN(f->view.pg.lsn, f->view.pg.replay_lsn) <=
           f->view.config.maximum_lag_on_failover;
}

static bool always(const struct rest_facts *f, uint64_t now_ms)
{
    (void)f;
    (void)now_ms;
    return true;
}

struct endpoint {
    const char *path;
    bool (*good)(const struct rest_facts *f, uint64_t now_ms);
    char *(*body)(const struct rest_facts *f); /* malloc'ed JSON; NULL: no body */
};

static const struct endpoint endpoints[] = {
    {"/", is_primary, rest_status_body},
    {"/primary", is_primary, rest_status_body},
    {"/read-write", is_primary, rest_status_body},
    {"/master", is_primary, rest_status_body},
    {"/leader", is_leader, rest_status_body},
    {"/replica", is_replica, rest_status_body},
    {"/read-only", is_readable, rest_status_body},
    {"/synchronous", is_sync, rest_status_body},
    {"/sync", is_sync, rest_status_body},
    {"/read-only-sync", is_readable_sync, rest_status_body},
    {"/asynchronous", is_async, rest_status_body},
    {"/async", is_async, rest_status_body},
    {"/health", is_running, rest_status_body},
    {"/liveness", is_live, NULL},
    {"/readiness", is_ready, NULL},
    {"/patroni", always, rest_status_body},
    {"/cluster", always, rest_cluster_body},
    {"/history", always, rest_history_body},
};

static enum MHD_Result send_text(struct MHD_Connection *conn, unsigned code, char *body,
                                 const char *type, bool stale)
{
    size_t n = body == NULL ? 0 : strlen(body);
    struct MHD_Response *r = MHD_create_response_from_buffer(
        n, body, body == NULL ? MHD_RESPMEM_PERSISTENT : MHD_RESPMEM_MUST_FREE);
    if (r == NULL) {
        free(body);
        return MHD_NO;
    }
    (void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (stale)
        (void)MHD_add_response_header(r, "Regent-Stale", "true");
    enum MHD_Result rv = MHD_queue_response(conn, code, r);
    MHD_destroy_response(r);
    return rv;
}

static enum MHD_Result send_error(struct MHD_Connection *conn, unsigned code, const char *text)
{
    return send_text(conn, code, strdup(text), "text/plain", false);
}

static const struct endpoint *find_endpoint(const char *path)
{
    for (size_t i = 0; i < ARRAY_LEN(endpoints); i++)
        if (strcmp(endpoints[i].path, path) == 0)
            return &endpoints[i];
    return NULL;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *conn, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **state)
{
    struct rest *r = arg;
    (void)version;
    (void)upload;
    static int seen;
    if (*state == NULL) { /* the first call has the headers only */
        *state = &seen;
        return MHD_YES;
    }
    if (*upload_size != 0) {
        *upload_size = 0;
        return MHD_YES;
    }
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0 &&
        strcmp(method, "OPTIONS") != 0)
        return send_error(conn, MHD_HTTP_NOT_IMPLEMENTED, "Unsupported method\n");
    const struct endpoint *at = find_endpoint(url);
    if (at == NULL)
        return send_error(conn, MHD_HTTP_NOT_FOUND, "No such path; see docs/rest.md\n");
    struct rest_facts *f CLEANUP(mem_cleanup) = mem_alloc(sizeof *f);
    (void)pthread_mutex_lock(&r->lock);
    *f = r->now;
    (void)pthread_mutex_unlock(&r->lock);
    unsigned code =
        f->known && at->good(f, clock_boot_ms()) ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
    char *body = at->body == NULL || strcmp(method, "GET") != 0 ? NULL : at->body(f);
    return send_text(conn, code, body, "application/json", !f->view.dcs_ready);
}

/* ---- life ---- */

static enum err resolve(const char *listen_on, struct addrinfo **ret_ai, struct errmsg *e)
{
    char host[256];
    char service[8];
    uint16_t port;
    if (str_host_port(listen_on, host, sizeof host, &port) != ERR_OK)
        return err_set(e, ERR_INVALID, "restapi.listen: \"%s\" is not host:port", listen_on);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    (void)snprintf(service, sizeof service, "%u", port);
    int rv = getaddrinfo(host, service, &hints, ret_ai);
    if (rv != 0)
        return err_set(e, ERR_INVALID, "restapi.listen: cannot resolve \"%s\": %s", host,
                       gai_strerror(rv));
    return ERR_OK;
}

/* Bound here, so that a port in use has a clear answer. */
static enum err bind_socket(const char *listen_on, int *ret_fd, struct errmsg *e)
{
    struct addrinfo *ai = NULL;
    enum err rv = resolve(listen_on, &ai, e);
    if (rv != ERR_OK)
        return rv;
    ASSERT(ai != NULL);
    int one = 1;
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 || listen(fd, SOMAXCONN) != 0) {
        rv = err_set(
            e, err_from_errno(errno),
            "restapi.listen: cannot listen on %s: %s; choose another port or stop what uses it",
            listen_on, strerror(errno));
        if (fd >= 0)
            (void)close(fd);
    } else {
        *ret_fd = fd;
    }
    freeaddrinfo(ai);
    return rv;
}

static enum err start_http(struct rest *r, const struct config *c, int fd, struct errmsg *e)
{
    unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL;
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_END, 0, NULL}, {MHD_OPTION_END, 0, NULL}, {MHD_OPTION_END, 0, NULL}};
    if (c->restapi.verify_client[0] != '\0' && strcmp(c->restapi.verify_client, "none") != 0)
        return err_set(
            e, ERR_UNSUPPORTED,
            "restapi.verify_client: \"%s\" is not supported by this version; use none",
            c->restapi.verify_client);
    if (c->restapi.certfile[0] != '\0') {
        enum err rv = pki_read_file(c->restapi.certfile, FILE_MAX, &r->cert, e);
        if (rv == ERR_OK)
            rv = pki_read_file(c->restapi.keyfile[0] != '\0' ? c->restapi.keyfile
                                                             : c->restapi.certfile,
                               FILE_MAX, &r->key, e);
        if (rv != ERR_OK)
            return rv;
        flags |= MHD_USE_TLS;
        tls[0] =
            (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)buf_cstr(&r->cert)};
        tls[1] =
            (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)buf_cstr(&r->key)};
    }
    r->http = MHD_start_daemon(flags, 0, NULL, NULL, on_request, r, MHD_OPTION_LISTEN_SOCKET,
                               fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
                               MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
                               MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
    if (r->http == NULL)
        return err_set(e, ERR_IO, "restapi.listen: cannot serve on %s: %s", c->restapi.listen,
                       c->restapi.certfile[0] != '\0' ? "check restapi.certfile and keyfile"
                                                      : strerror(errno));
    return ERR_OK;
}

enum err rest_start(const struct config *c, struct rest **ret_rest, struct errmsg *e)
{
    int fd = -1;
    *ret_rest = NULL;
    if (c->restapi.listen[0] == '\0')
        return ERR_OK;
    enum err rv = bind_socket(c->restapi.listen, &fd, e);
    if (rv != ERR_OK)
        return rv;
    struct rest *r = mem_alloc(sizeof *r);
    (void)pthread_mutex_init(&r->lock, NULL);
    rv = start_http(r, c, fd, e);
    if (rv != ERR_OK) {
        (void)close(fd);
        rest_stop(r);
        return rv;
    }
    *ret_rest = r;
    return ERR_OK;
}

void rest_publish(struct rest *r, const struct view *v, const struct plan *p,
                  const struct mirror *m, const char *pg_version)
{
    if (r == NULL)
        return;
    (void)pthread_mutex_lock(&r->lock);
    r->now.known = true;
    r->now.view = *v;
    str_cut(r->now.scope, sizeof r->now.scope, m->prefix + strlen("/regent/"));
    r->now.scope[strcspn(r->now.scope, "/")] = '\0';
    str_cut(r->now.pg_version, sizeof r->now.pg_version, pg_version);
    str_cut(r->now.rule, sizeof r->now.rule, p->rule == NULL ? "" : p->rule);
    (void)pthread_mutex_unlock(&r->lock);
}

void rest_stop(struct rest *r)
{
    if (r == NULL)
        return;
    if (r->http != NULL)
        MHD_stop_daemon(r->http);
    (void)pthread_mutex_destroy(&r->lock);
    buf_close(&r->cert);
    buf_close(&r->key);
    mem_free(r);
}
