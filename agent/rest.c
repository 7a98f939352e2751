#include "agent/rest.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/rest_access.h"
#include "agent/rest_events.h"
#include "agent/rest_jobs.h"
#include "agent/rest_journal.h"
#include "agent/rest_live.h"
#include "agent/rest_route.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/embedded.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/pki.h"

enum {
    REST_MAGIC = 0x52e57001,
    CONNECTIONS_MAX = 256,
    IDLE_SECONDS = 10,
    FILE_MAX = 1 << 20,
    BODY_MAX = 1 << 16, /* bytes of a request */
    DCS_EVERY_MS = 5000,
};

/* Facts that do not change any more; freed when the last one who reads them is done. */
struct snapshot {
    struct rest_facts facts;
    unsigned refs; /* guarded by rest.lock */
};

struct rest {
    uint32_t magic;
    struct MHD_Daemon *http;
    pthread_mutex_t lock; /* guards `now` and every snapshot's refs */
    struct snapshot *now; /* never NULL */
    struct buf cert, key, ca;
    struct rest_access access;
    struct rest_jobs *jobs;
    struct rest_events *events;
    /* agent thread only */
    struct rest_counts counts;
    struct rest_past past;
    struct status_reply dcs;
    bool has_dcs, dcs_asked;
    uint64_t dcs_asked_ms;
};

/* Embedded by CMake: the status page. */
extern const struct embedded rest_pages[];

/* ---- snapshots ---- */

static struct snapshot *hold(struct rest *r)
{
    (void)pthread_mutex_lock(&r->lock);
    struct snapshot *s = r->now;
    s->refs++;
    (void)pthread_mutex_unlock(&r->lock);
    return s;
}

static void let_go(struct rest *r, struct snapshot *s)
{
    (void)pthread_mutex_lock(&r->lock);
    ASSERT(s->refs > 0);
    bool last = --s->refs == 0;
    (void)pthread_mutex_unlock(&r->lock);
    if (!last)
        return;
    mem_free(s->facts.config_json);
    mem_free(s);
}

static void replace(struct rest *r, struct snapshot *s)
{
    s->refs = 1;
    (void)pthread_mutex_lock(&r->lock);
    struct snapshot *before = r->now;
    r->now = s;
    (void)pthread_mutex_unlock(&r->lock);
    if (before != NULL)
        let_go(r, before);
}

/* ---- answers ---- */

/* Takes reply->body. */
static enum MHD_Result send_reply(struct MHD_Connection *conn, const struct rest_reply *reply,
                                  bool stale)
{
    size_t n = reply->body == NULL ? 0 : strlen(reply->body);
    struct MHD_Response *r = MHD_create_response_from_buffer(
        n, reply->body, n == 0 ? MHD_RESPMEM_PERSISTENT : MHD_RESPMEM_MUST_FREE);
    if (r == NULL) {
        free(reply->body);
        return MHD_NO;
    }
    if (n > 0)
        (void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, reply->type);
    if (stale)
        (void)MHD_add_response_header(r, "Regent-Stale", "true");
    enum MHD_Result rv = MHD_queue_response(conn, reply->code, r);
    MHD_destroy_response(r);
    return rv;
}

static enum MHD_Result send_error(struct MHD_Connection *conn, unsigned code, const char *text)
{
    struct rest_reply reply = {code, mem_printf("%s\n", text), "text/plain"};
    return send_reply(conn, &reply, false);
}

/* ---- for browsers ---- */

static char *make_event(void *arg, bool first)
{
    struct rest *r = arg;
    struct snapshot *s = hold(r);
    char *text = rest_live_text(&s->facts, clock_boot_ms(), first);
    let_go(r, s);
    return text;
}

/* Load balancers that ask for "/" name no type, or all of them. */
static bool wants_page(struct MHD_Connection *conn, const char *path)
{
    const char *accept =
        MHD_lookup_connection_value(conn, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT);
    return strcmp(path, "/") == 0 && accept != NULL && strstr(accept, "text/html") != NULL;
}

static enum MHD_Result send_page(struct MHD_Connection *conn)
{
    const char *text = rest_pages[0].text;
    struct MHD_Response *r = MHD_create_response_from_buffer(
        strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
    if (r == NULL)
        return MHD_NO;
    (void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, "text/html; charset=utf-8");
    (void)MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
    (void)MHD_add_response_header(r, MHD_HTTP_HEADER_VARY, "Accept");
    (void)MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    (void)MHD_add_response_header(
        r, "Content-Security-Policy",
        "default-src 'none'; script-src 'unsafe-inline'; style-src "
        "'unsafe-inline'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    enum MHD_Result rv = MHD_queue_response(conn, MHD_HTTP_OK, r);
    MHD_destroy_response(r);
    return rv;
}

static enum MHD_Result send_events(struct rest *r, struct MHD_Connection *conn)
{
    enum MHD_Result rv;
    if (rest_events_answer(r->events, conn, &rv))
        return rv;
    return send_error(conn, MHD_HTTP_SERVICE_UNAVAILABLE,
                      "Too many pages are open on this node; close one");
}

/* What is kept of a request from its headers to its answer. */
struct request {
    struct rest *rest;
    struct MHD_Connection *conn;
    const struct rest_verb *verb; /* NULL: it reads, or is none */
    struct buf body;
    bool submitted, stale;
    struct rest_reply reply; /* code 0: not yet */
};

/* On the agent's loop. */
static void on_carried_out(void *arg, struct rest_reply reply)
{
    struct request *q = arg;
    q->reply = reply;
    MHD_resume_connection(q->conn);
}

/* The connection sleeps until the agent's loop has carried the order out, which it takes. */
static enum MHD_Result submit(struct request *q, struct rest_order *order)
{
    q->submitted = true;
    MHD_suspend_connection(q->conn);
    if (rest_jobs_add(q->rest->jobs, order, on_carried_out, q))
        return MHD_YES;
    rest_order_close(order);
    q->reply =
        rest_text(MHD_HTTP_SERVICE_UNAVAILABLE, "too many requests of this kind are under way");
    MHD_resume_connection(q->conn);
    return MHD_YES;
}

static enum MHD_Result take_order(struct request *q)
{
    struct rest_order order;
    struct snapshot *s = hold(q->rest);
    bool good = rest_order_parse((enum rest_verb_kind)q->verb->kind, buf_slice(&q->body),
                                 &s->facts, clock_wall_ms(), &order, &q->reply);
    let_go(q->rest, s);
    if (good)
        return submit(q, &order);
    q->submitted = true;
    rest_order_close(&order);
    return send_reply(q->conn, &q->reply, false);
}

struct parameters {
    struct rest_query query;
    enum err status;
    struct errmsg e;
};

static enum MHD_Result on_parameter(void *arg, enum MHD_ValueKind kind, const char *key,
                                    const char *value)
{
    struct parameters *p = arg;
    (void)kind;
    p->status = rest_query_add(&p->query, key, value != NULL ? value : "", &p->e);
    return p->status == ERR_OK ? MHD_YES : MHD_NO;
}

static enum MHD_Result answer(struct request *q, const char *path, bool with_body)
{
    struct rest *r = q->rest;
    struct MHD_Connection *conn = q->conn;
    struct parameters p = {.status = ERR_OK};
    struct rest_reply reply;
    if (wants_page(conn, path))
        return send_page(conn);
    const struct rest_route *route = rest_route_find(path);
    if (route == NULL)
        return send_error(conn, MHD_HTTP_NOT_FOUND,
                          "No such path; /openapi.json describes those there are");
    if (route->kind == ROUTE_EVENTS && with_body)
        return send_events(r, conn);
    (void)MHD_get_connection_values(conn, MHD_GET_ARGUMENT_KIND, on_parameter, &p);
    if (p.status != ERR_OK)
        return send_error(conn, MHD_HTTP_BAD_REQUEST, p.e.text);
    struct snapshot *s = hold(r);
    uint64_t now_ms = clock_boot_ms();
    if (route->kind == ROUTE_JOURNAL && with_body && s->facts.known) {
        q->stale = rest_stale(&s->facts, now_ms);
        let_go(r, s);
        return submit(q, &(struct rest_order){
                             .kind = VERB_JOURNAL,
                             .limit = p.query.limit != 0 ? p.query.limit : REST_JOURNAL_LINES});
    }
    rest_answer(&s->facts, route, &p.query, now_ms, with_body, &reply);
    bool stale = rest_stale(&s->facts, now_ms);
    let_go(r, s);
    return send_reply(conn, &reply, stale);
}

static bool too_large(struct MHD_Connection *conn)
{
    uint64_t n = 0;
    const char *text =
        MHD_lookup_connection_value(conn, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return text != NULL && (str_parse_u64(text, &n) != ERR_OK || n > BODY_MAX);
}

static enum MHD_Result send_refusal(struct MHD_Connection *conn,
                                    const struct rest_refusal *refusal)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(
        strlen(refusal->text), (void *)refusal->text, MHD_RESPMEM_PERSISTENT);
    if (r == NULL)
        return MHD_NO;
    (void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, "text/html");
    if (refusal->challenge)
        (void)MHD_add_response_header(r, MHD_HTTP_HEADER_WWW_AUTHENTICATE,
                                      "Basic realm=\"Patroni\"");
    enum MHD_Result rv = MHD_queue_response(conn, refusal->code, r);
    MHD_destroy_response(r);
    return rv;
}

/* From the headers alone: who may not is told before anything of the body is kept. */
static enum MHD_Result begin(struct rest *r, struct MHD_Connection *conn, const char *url,
                             const char *method, void **state)
{
    struct request *q = mem_alloc(sizeof *q);
    q->rest = r;
    q->conn = conn;
    q->verb = rest_verb_find(method, url);
    *state = q;
    if (too_large(conn))
        return send_error(conn, MHD_HTTP_CONTENT_TOO_LARGE, "The request is larger than 64 kB");
    struct rest_refusal refusal = rest_access_any(&r->access, conn);
    if (refusal.code == 0 && q->verb != NULL)
        refusal = rest_access_unsafe(&r->access, conn);
    return refusal.code != 0 ? send_refusal(conn, &refusal) : MHD_YES;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *conn, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **state)
{
    struct rest *r = arg;
    struct request *q = *state;
    CHECK_MAGIC(r, REST_MAGIC);
    (void)version;
    if (q == NULL) /* the first call has the headers only */
        return begin(r, conn, url, method, state);
    if (*upload_size != 0) { /* read, so that its sender sees the answer */
        size_t n = *upload_size;
        *upload_size = 0;
        if (q->body.len + n > BODY_MAX)
            return MHD_NO;
        buf_append(&q->body, upload, n);
        return MHD_YES;
    }
    if (q->submitted)
        return send_reply(conn, &q->reply, q->stale);
    if (q->verb != NULL)
        return take_order(q);
    bool get = strcmp(method, "GET") == 0;
    if (!get && strcmp(method, "HEAD") != 0 && strcmp(method, "OPTIONS") != 0) {
        char text[80];
        (void)snprintf(text, sizeof text, "Unsupported method ('%.20s')", method);
        return send_error(conn, MHD_HTTP_NOT_IMPLEMENTED, text);
    }
    return answer(q, url, get);
}

static void on_completed(void *arg, struct MHD_Connection *conn, void **state,
                         enum MHD_RequestTerminationCode why)
{
    (void)arg;
    (void)conn;
    (void)why;
    struct request *q = TAKE(*state);
    if (q == NULL)
        return;
    if (q->body.p != NULL)
        explicit_bzero(q->body.p, q->body.len);
    buf_close(&q->body);
    mem_free(q);
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
        rv = err_set(e, err_from_errno(errno),
                     "restapi.listen: cannot listen on %s: %s; choose another port or stop "
                     "what uses it (another regentd?)",
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
    unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME;
    struct MHD_OptionItem tls[] = {{MHD_OPTION_END, 0, NULL},
                                   {MHD_OPTION_END, 0, NULL},
                                   {MHD_OPTION_END, 0, NULL},
                                   {MHD_OPTION_END, 0, NULL}};
    if (c->restapi.certfile[0] != '\0') {
        enum err rv = pki_read_file(c->restapi.certfile, FILE_MAX, &r->cert, e);
        if (rv == ERR_OK)
            rv = pki_read_file(c->restapi.keyfile[0] != '\0' ? c->restapi.keyfile
                                                             : c->restapi.certfile,
                               FILE_MAX, &r->key, e);
        if (rv == ERR_OK && r->access.verify != CLIENT_NONE)
            rv = pki_read_file(c->restapi.cafile, FILE_MAX, &r->ca, e);
        if (rv != ERR_OK)
            return rv;
        flags |= MHD_USE_TLS;
        tls[0] =
            (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)buf_cstr(&r->cert)};
        tls[1] =
            (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)buf_cstr(&r->key)};
        if (r->access.verify != CLIENT_NONE)
            tls[2] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_TRUST, 0,
                                             (void *)buf_cstr(&r->ca)};
    }
    r->http = MHD_start_daemon(flags, 0, NULL, NULL, on_request, r, MHD_OPTION_LISTEN_SOCKET,
                               fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
                               MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
                               MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
                               MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
    if (r->http == NULL)
        return err_set(e, ERR_IO, "restapi.listen: cannot serve on %s: %s", c->restapi.listen,
                       c->restapi.certfile[0] != '\0' ? "check restapi.certfile and keyfile"
                                                      : strerror(errno));
    return ERR_OK;
}

/* Before the first view there is but what the configuration says. */
static struct snapshot *first_snapshot(const struct config *c)
{
    struct snapshot *s = mem_alloc(sizeof *s);
    str_cut(s->facts.scope, sizeof s->facts.scope, c->scope);
    str_cut(s->facts.name, sizeof s->facts.name, c->name);
    s->facts.tags = (struct rest_tags){.nofailover = c->tags.nofailover,
                                       .noloadbalance = c->tags.noloadbalance,
                                       .clonefrom = c->tags.clonefrom,
                                       .nosync = c->tags.nosync,
                                       .nostream = c->tags.nostream,
                                       .failover_priority = c->tags.failover_priority,
                                       .sync_priority = c->tags.sync_priority};
    str_cut(s->facts.tags.replicatefrom, sizeof s->facts.tags.replicatefrom,
            c->tags.replicatefrom);
    return s;
}

enum err rest_start(const struct config *c, struct rest_jobs *jobs, struct rest **ret_rest,
                    struct errmsg *e)
{
    int fd = -1;
    *ret_rest = NULL;
    if (c->restapi.listen[0] == '\0')
        return ERR_OK;
    enum err rv = bind_socket(c->restapi.listen, &fd, e);
    if (rv != ERR_OK)
        return rv;
    struct rest *r = mem_alloc(sizeof *r);
    r->magic = REST_MAGIC;
    r->events = rest_events_new(make_event, r);
    (void)pthread_mutex_init(&r->lock, NULL);
    r->jobs = jobs;
    replace(r, first_snapshot(c));
    rv = rest_access_init(&r->access, c, e);
    r->now->facts.changes = rest_access_way(&r->access);
    if (rv == ERR_OK)
        rv = start_http(r, c, fd, e);
    if (rv != ERR_OK) {
        (void)close(fd);
        rest_stop(r);
        return rv;
    }
    *ret_rest = r;
    return ERR_OK;
}

void rest_stop(struct rest *r)
{
    if (r == NULL)
        return;
    CHECK_MAGIC(r, REST_MAGIC);
    rest_events_end(r->events);
    if (r->http != NULL)
        MHD_stop_daemon(r->http);
    rest_events_free(TAKE(r->events));
    let_go(r, TAKE(r->now));
    (void)pthread_mutex_destroy(&r->lock);
    buf_close(&r->cert);
    buf_close(&r->key);
    buf_close(&r->ca);
    r->magic = 0;
    mem_free(r);
}

/* ---- news ---- */

static char *config_text(const struct mirror *m)
{
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    if (!m->config_meta.present)
        return NULL;
    msg_to_json(&msg_config_rec, &m->config, &b);
    return mem_strdup(buf_cstr(&b));
}

void rest_publish(struct rest *r, const struct rest_news *news)
{
    if (r == NULL)
        return;
    CHECK_MAGIC(r, REST_MAGIC);
    struct snapshot *s = mem_alloc(sizeof *s);
    struct rest_facts *f = &s->facts;
    const struct rest_facts *before = &r->now->facts; /* only this thread replaces it */
    const char *rule = news->plan->rule == NULL ? "" : news->plan->rule;
    count_view(&r->counts, news->view, rule);
    memcpy(f->scope, before->scope, sizeof f->scope);
    memcpy(f->name, before->name, sizeof f->name);
    f->tags = before->tags;
    f->changes = before->changes;
    f->known = true;
    f->wall_ms = clock_wall_ms();
    f->view = *news->view;
    if (news->pg != NULL)
        f->pg = *news->pg;
    if (news->mirror->request_meta.present)
        f->request = news->mirror->request;
    if (news->mirror->failover_meta.present)
        f->failover = news->mirror->failover;
    f->config_json = config_text(news->mirror);
    f->counts = r->counts;
    f->has_dcs = r->has_dcs;
    f->dcs = r->dcs;
    str_cut(f->pg_version, sizeof f->pg_version, news->pg_version);
    str_cut(f->rule, sizeof f->rule, rule);
    if (news->host != NULL)
        f->host = *news->host;
    if (news->fence != NULL) {
        f->fence_deadline_ms = news->fence->armed ? news->fence->deadline_ms : 0;
        f->fence_kills_ms =
            f->fence_deadline_ms - MIN(f->fence_deadline_ms, news->fence->kill_budget_ms);
        f->vip_up = news->fence->vip_up;
        f->watchdog_on = news->fence->watchdog_on;
    }
    past_note(&r->past, news->view, rest_leader_lsn(f), f->wall_ms, rule, news->plan->reason);
    f->past = r->past;
    replace(r, s);
    rest_events_wake(r->events, news->view->now_ms);
}

void rest_loop_lag(struct rest *r, uint64_t late_ms)
{
    if (r != NULL)
        count_time(&r->counts.loop_lag, late_ms);
}

bool rest_dcs_due(struct rest *r, uint64_t now_ms)
{
    if (r == NULL || r->dcs_asked || now_ms < r->dcs_asked_ms + DCS_EVERY_MS)
        return false;
    r->dcs_asked = true;
    r->dcs_asked_ms = now_ms;
    return true;
}

void rest_dcs_status(struct rest *r, const struct status_reply *s)
{
    if (r == NULL)
        return;
    r->dcs_asked = false;
    r->has_dcs = s != NULL;
    if (s != NULL)
        r->dcs = *s;
}
