#include "agent/pg_sql.h"

#include <stdio.h>

#include "agent/pg_lookup.h"
#include "base/assert.h"
#include "base/mem.h"
#include "base/str.h"

enum { SQL_MAGIC = 0x5347514c };

enum sql_state {
    SQL_OFF,
    SQL_RESOLVING,
    SQL_CONNECTING,
    SQL_READY,
    SQL_QUERY,
    SQL_STREAM,
    SQL_FAILING
};

/* A uv handle lives until its close callback: longer than the connection it watched. */
struct sql_poll {
    uv_poll_t handle;
    struct pg_sql *owner; /* NULL: closing */
    int fd;
};

struct pg_sql {
    uint32_t magic;
    uv_loop_t *loop;
    PGconn *conn;
    struct sql_poll *poll;
    struct pg_lookup *lookup;
    uv_timer_t timer;
    enum sql_state state;
    pg_sql_cb *cb;
    void *arg;
    struct errmsg failure; /* SQL_FAILING: told from the loop */
    size_t turn;           /* of several hosts, the one that is asked; modulo their number */
    PGresult *results[PG_SQL_RESULTS];
    size_t n;
};

static void ready_cb(uv_poll_t *handle, int status, int events);

void pg_sql_target_add(struct pg_sql_target *t, const char *keyword, const char *value)
{
    ASSERT(t->n + 1 < PG_SQL_PARAMS);
    if (value == NULL || value[0] == '\0')
        return;
    t->keywords[t->n] = keyword;
    t->values[t->n] = value;
    t->n++;
}

struct pg_sql *pg_sql_new(uv_loop_t *loop)
{
    struct pg_sql *s = mem_alloc(sizeof *s);
    s->magic = SQL_MAGIC;
    s->loop = loop;
    int rv = uv_timer_init(loop, &s->timer);
    ASSERT(rv == 0);
    s->timer.data = s;
    return s;
}

static void poll_closed(uv_handle_t *handle)
{
    mem_free(container_of((uv_poll_t *)handle, struct sql_poll, handle));
}

/* Before PQfinish() or a new socket: the descriptor must not be watched when it is closed. */
static void poll_drop(struct pg_sql *s)
{
    if (s->poll == NULL)
        return;
    s->poll->owner = NULL;
    (void)uv_poll_stop(&s->poll->handle);
    uv_close((uv_handle_t *)&s->poll->handle, poll_closed);
    s->poll = NULL;
}

static bool poll_for(struct pg_sql *s, int events)
{
    int fd = PQsocket(s->conn);
    if (s->poll != NULL && s->poll->fd != fd)
        poll_drop(s);
    if (fd < 0)
        return false;
    if (s->poll == NULL) {
        s->poll = mem_alloc(sizeof *s->poll);
        s->poll->owner = s;
        s->poll->fd = fd;
        if (uv_poll_init(s->loop, &s->poll->handle, fd) != 0) {
            mem_free(s->poll);
            s->poll = NULL;
            return false;
        }
    }
    return uv_poll_start(&s->poll->handle, events, ready_cb) == 0;
}

static void drop_results(struct pg_sql *s)
{
    for (size_t i = 0; i < s->n; i++)
        PQclear(s->results[i]);
    s->n = 0;
}

void pg_sql_reset(struct pg_sql *s)
{
    CHECK_MAGIC(s, SQL_MAGIC);
    (void)uv_timer_stop(&s->timer);
    poll_drop(s);
    pg_lookup_drop(s->lookup);
    s->lookup = NULL;
    if (s->conn != NULL)
        PQfinish(s->conn);
    s->conn = NULL;
    drop_results(s);
    s->state = SQL_OFF;
    s->cb = NULL;
}

static void timer_closed(uv_handle_t *handle)
{
    struct pg_sql *s = handle->data;
    s->magic = 0;
    mem_free(s);
}

void pg_sql_free(struct pg_sql *s)
{
    if (s == NULL)
        return;
    pg_sql_reset(s);
    uv_close((uv_handle_t *)&s->timer, timer_closed);
}

/* The callback may start the next thing, or free s: nothing is touched after it. */
static void finish(struct pg_sql *s, struct pg_sql_reply *r)
{
    pg_sql_cb *cb = s->cb;
    PGresult *results[PG_SQL_RESULTS];
    size_t n = s->n;
    memcpy(results, s->results, sizeof results);
    r->results = results;
    r->n = n;
    s->n = 0;
    s->cb = NULL;
    (void)uv_timer_stop(&s->timer);
    if (cb != NULL)
        cb(s->arg, r);
    r->results = NULL;
    for (size_t i = 0; i < n; i++)
        PQclear(results[i]);
}

static void trim(char *text)
{
    for (char *p = text; *p != '\0'; p++)
        if (*p == '\n' || *p == '\r' || *p == '\t')
            *p = ' ';
    for (size_t n = strlen(text); n > 0 && text[n - 1] == ' '; n--)
        text[n - 1] = '\0';
}

/* The connection is given up. */
static void fail(struct pg_sql *s, enum err code, const char *why)
{
    struct pg_sql_reply r = {.status = code};
    (void)err_set(&r.e, code, "%s", why);
    trim(r.e.text);
    s->turn++;
    pg_sql_cb *cb = s->cb;
    void *arg = s->arg;
    pg_sql_reset(s);
    s->cb = cb;
    s->arg = arg;
    finish(s, &r);
}

static void fail_cb(uv_timer_t *timer)
{
    struct pg_sql *s = timer->data;
    CHECK_MAGIC(s, SQL_MAGIC);
    if (s->state == SQL_FAILING) {
        struct errmsg e = s->failure;
        fail(s, e.code, e.text);
        return;
    }
    fail(s, ERR_TIMEOUT,
         s->state == SQL_CONNECTING || s->state == SQL_RESOLVING ? "no connection in time"
                                                                 : "no answer in time");
}

/* Told from the loop, so that no callback runs inside the call that asked. */
static void fail_later(struct pg_sql *s, enum err code, const char *why)
{
    (void)err_set(&s->failure, code, "%s", why);
    s->state = SQL_FAILING;
    poll_drop(s);
    (void)uv_timer_start(&s->timer, fail_cb, 0, 0);
}

static void server_said(struct pg_sql_reply *r, const PGresult *result)
{
    const char *code = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    r->status = ERR_PRECONDITION;
    if (code != NULL && str_copy(r->sqlstate, sizeof r->sqlstate, code) != ERR_OK)
        r->sqlstate[0] = '\0';
    (void)err_set(&r->e, ERR_PRECONDITION, "%s",
                  text != NULL ? text : PQresultErrorMessage(result));
    trim(r->e.text);
}

static void query_done(struct pg_sql *s)
{
    struct pg_sql_reply r = {.status = ERR_OK};
    for (size_t i = 0; i < s->n && r.status == ERR_OK; i++) {
        ExecStatusType status = PQresultStatus(s->results[i]);
        if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK &&
            status != PGRES_COPY_BOTH && status != PGRES_EMPTY_QUERY)
            server_said(&r, s->results[i]);
    }
    if (PQstatus(s->conn) != CONNECTION_OK) {
        fail(s, ERR_UNAVAILABLE, r.e.text[0] != '\0' ? r.e.text : PQerrorMessage(s->conn));
        return;
    }
    s->state = SQL_READY;
    finish(s, &r);
}

static void step_query(struct pg_sql *s)
{
    if (PQconsumeInput(s->conn) == 0) {
        fail(s, ERR_UNAVAILABLE, PQerrorMessage(s->conn));
        return;
    }
    int unsent = PQflush(s->conn);
    while (PQisBusy(s->conn) == 0) {
        PGresult *r = PQgetResult(s->conn);
        if (r == NULL) {
            query_done(s);
            return;
        }
        ExecStatusType status = PQresultStatus(r);
        if (s->n < PG_SQL_RESULTS)
            s->results[s->n++] = r;
        else
            PQclear(r);
        if (status == PGRES_COPY_BOTH) {
            query_done(s);
            return;
        }
        if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT) {
            fail(s, ERR_UNSUPPORTED, "unexpected COPY");
            return;
        }
    }
    if (!poll_for(s, UV_READABLE | (unsent == 1 ? UV_WRITABLE : 0)))
        fail(s, ERR_UNAVAILABLE, "the connection is gone");
}

static void step_stream(struct pg_sql *s)
{
    char *data = NULL;
    if (PQconsumeInput(s->conn) == 0) {
        fail(s, ERR_UNAVAILABLE, PQerrorMessage(s->conn));
        return;
    }
    int n = PQgetCopyData(s->conn, &data, 1);
    PQfreemem(data);
    if (n == 0)
        return;
    struct pg_sql_reply r = {.status = ERR_OK};
    if (n < 0) {
        PGresult *result = PQgetResult(s->conn);
        if (result != NULL && PQresultStatus(result) == PGRES_FATAL_ERROR)
            server_said(&r, result);
        PQclear(result);
    }
    finish(s, &r);
}

/* libpq may close its socket here and open another, for the next host or without TLS: often of the same number. */
static void step_connect(struct pg_sql *s)
{
    poll_drop(s);
    PostgresPollingStatusType status = PQconnectPoll(s->conn);
    if (status == PGRES_POLLING_OK) {
        struct pg_sql_reply r = {.status = ERR_OK};
        (void)PQsetnonblocking(s->conn, 1);
        s->state = SQL_READY;
        finish(s, &r);
    } else if (status == PGRES_POLLING_FAILED) {
        fail(s, ERR_UNAVAILABLE, PQerrorMessage(s->conn));
    } else if (!poll_for(s, status == PGRES_POLLING_READING ? UV_READABLE : UV_WRITABLE)) {
        fail(s, ERR_UNAVAILABLE, "no socket");
    }
}

/* Between queries a readable socket is a notice, a parameter, or the end. */
static void step_idle(struct pg_sql *s)
{
    if (PQconsumeInput(s->conn) == 0 || PQstatus(s->conn) != CONNECTION_OK)
        pg_sql_reset(s);
}

static void ready_cb(uv_poll_t *handle, int status, int events)
{
    struct sql_poll *poll = container_of(handle, struct sql_poll, handle);
    struct pg_sql *s = poll->owner;
    (void)status; /* libpq finds out what is wrong with its socket */
    (void)events;
    if (s == NULL)
        return;
    CHECK_MAGIC(s, SQL_MAGIC);
    switch (s->state) {
    case SQL_CONNECTING:
        step_connect(s);
        break;
    case SQL_QUERY:
        step_query(s);
        break;
    case SQL_STREAM:
        step_stream(s);
        break;
    case SQL_READY:
        step_idle(s);
        break;
    case SQL_OFF:
    case SQL_RESOLVING:
    case SQL_FAILING:
        break;
    }
}

static void quiet(void *arg, const PGresult *r)
{
    (void)arg;
    (void)r; /* notices of a hostile server do not reach stderr */
}

static void begin_connect(struct pg_sql *s, const struct pg_sql_target *t)
{
    s->state = SQL_CONNECTING;
    s->conn = PQconnectStartParams(t->keywords, t->values, 0);
    if (s->conn == NULL || PQstatus(s->conn) == CONNECTION_BAD) {
        fail_later(s, ERR_UNAVAILABLE,
                   s->conn != NULL ? PQerrorMessage(s->conn) : "out of memory");
        return;
    }
    (void)PQsetNoticeReceiver(s->conn, quiet, NULL);
    if (!poll_for(s, UV_WRITABLE))
        fail_later(s, ERR_UNAVAILABLE, "no socket");
}

static void resolved_cb(void *arg, const struct pg_sql_target *t)
{
    struct pg_sql *s = arg;
    CHECK_MAGIC(s, SQL_MAGIC);
    s->lookup = NULL;
    if (t != NULL)
        begin_connect(s, t);
    else
        fail_later(s, ERR_UNAVAILABLE, "the host name is not known");
}

/* Piece `i` of a list with commas between; of a list of one that one. */
static enum err piece_of(const char *list, size_t i, char *ret, size_t size)
{
    if (strchr(list, ',') == NULL)
        return str_copy(ret, size, list);
    for (; i > 0 && list != NULL; i--) {
        list = strchr(list, ',');
        list = list != NULL ? list + 1 : NULL;
    }
    return list == NULL ? ERR_NOT_FOUND
                        : str_copy_slice(ret, size, slice_of(list, strcspn(list, ",")));
}

/* libpq would try several hosts one after the other, and wait for one that is silent as long as for all. */
static enum err one_host(const struct pg_sql *s, const struct pg_sql_target *t,
                         struct pg_sql_target *ret, char host[static 256], char port[static 8])
{
    const char *hosts = "";
    const char *ports = "";
    size_t n = 1;
    *ret = (struct pg_sql_target){.n = 0};
    for (size_t i = 0; i < t->n; i++) {
        if (strcmp(t->keywords[i], "host") == 0)
            hosts = t->values[i];
        else if (strcmp(t->keywords[i], "port") == 0)
            ports = t->values[i];
        else
            pg_sql_target_add(ret, t->keywords[i], t->values[i]);
    }
    for (const char *c = hosts; *c != '\0'; c++)
        n += *c == ',';
    enum err rv = piece_of(hosts, s->turn % n, host, 256);
    if (rv == ERR_OK)
        rv = piece_of(ports, s->turn % n, port, 8);
    pg_sql_target_add(ret, "host", host);
    pg_sql_target_add(ret, "port", port);
    return rv;
}

void pg_sql_connect(struct pg_sql *s, const struct pg_sql_target *t, uint64_t timeout_ms,
                    pg_sql_cb *cb, void *arg)
{
    struct pg_sql_target one;
    char host[256] = "";
    char port[8] = "";
    CHECK_MAGIC(s, SQL_MAGIC);
    ASSERT(t->keywords[t->n] == NULL);
    pg_sql_reset(s);
    s->cb = cb;
    s->arg = arg;
    (void)uv_timer_start(&s->timer, fail_cb, timeout_ms, 0);
    if (one_host(s, t, &one, host, port) != ERR_OK) {
        fail_later(s, ERR_INVALID, "hosts and ports do not fit together");
        return;
    }
    if (!pg_lookup_needed(&one)) {
        begin_connect(s, &one);
        return;
    }
    s->state = SQL_RESOLVING;
    s->lookup = pg_lookup_start(s->loop, &one, resolved_cb, s);
    if (s->lookup == NULL)
        fail_later(s, ERR_UNAVAILABLE, "the host name cannot be looked up");
}

void pg_sql_query(struct pg_sql *s, const char *sql, uint64_t timeout_ms, pg_sql_cb *cb,
                  void *arg)
{
    CHECK_MAGIC(s, SQL_MAGIC);
    ASSERT(s->cb == NULL);
    s->cb = cb;
    s->arg = arg;
    if (s->state != SQL_READY) {
        fail_later(s, ERR_UNAVAILABLE, "not connected");
        return;
    }
    s->state = SQL_QUERY;
    if (PQsendQuery(s->conn, sql) == 0) {
        fail_later(s, ERR_UNAVAILABLE, PQerrorMessage(s->conn));
        return;
    }
    (void)uv_timer_start(&s->timer, fail_cb, timeout_ms, 0);
    if (!poll_for(s, UV_READABLE | (PQflush(s->conn) == 1 ? UV_WRITABLE : 0)))
        fail_later(s, ERR_UNAVAILABLE, "the connection is gone");
}

void pg_sql_wait_stream(struct pg_sql *s, uint64_t timeout_ms, pg_sql_cb *cb, void *arg)
{
    CHECK_MAGIC(s, SQL_MAGIC);
    ASSERT(s->cb == NULL);
    s->cb = cb;
    s->arg = arg;
    if (s->state != SQL_READY) {
        fail_later(s, ERR_UNAVAILABLE, "not connected");
        return;
    }
    s->state = SQL_STREAM;
    (void)uv_timer_start(&s->timer, fail_cb, timeout_ms, 0);
    if (!poll_for(s, UV_READABLE))
        fail_later(s, ERR_UNAVAILABLE, "the connection is gone");
}

bool pg_sql_ready(const struct pg_sql *s)
{
    return s->state == SQL_READY;
}

bool pg_sql_connected(const struct pg_sql *s)
{
    return s->state == SQL_READY || s->state == SQL_QUERY || s->state == SQL_STREAM;
}

PGconn *pg_sql_conn(struct pg_sql *s)
{
    return pg_sql_connected(s) ? s->conn : NULL;
}

const char *pg_sql_text(const PGresult *r, int row, int col)
{
    if (row >= PQntuples(r) || col >= PQnfields(r) || PQgetisnull(r, row, col) != 0)
        return "";
    return PQgetvalue(r, row, col);
}
