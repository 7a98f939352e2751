/* One libpq connection driven by the agent's loop: connect, then one query at a time, each with a
 * deadline of ours. A query that passes it costs the connection: the server may be hung, and nobody
 * here waits for it.
 *
 * Thread: the loop's. Callbacks run once, never from inside the call that started them, and never
 * after pg_sql_free() or pg_sql_reset(). */
#ifndef REGENT_AGENT_PG_SQL_H
#define REGENT_AGENT_PG_SQL_H

#include <libpq-fe.h>
#include <uv.h>

#include "base/base.h"
#include "base/err.h"

struct pg_sql;

enum { PG_SQL_RESULTS = 8, PG_SQL_PARAMS = 24 };

struct pg_sql_reply {
    enum err
        status; /* ERR_OK; ERR_UNAVAILABLE: no connection, or lost; ERR_TIMEOUT; ERR_PRECONDITION:
                        the server said no, sqlstate says why */
    char sqlstate[6];
    struct errmsg e;
    PGresult *const *results; /* one per statement, borrowed for the callback */
    size_t n;
};

typedef void pg_sql_cb(void *arg, const struct pg_sql_reply *r);

/* Keywords (static) and values of a connection string; values are borrowed during the call. A host name
 * is looked up beside the loop. Of several hosts with commas between (and one port, or as many) one is asked; after a
 * failure, which may be that it is not what target_session_attrs asks for, the next call asks the next one. */
struct pg_sql_target {
    const char *keywords[PG_SQL_PARAMS];
    const char *values[PG_SQL_PARAMS];
    size_t n;
};
void pg_sql_target_add(struct pg_sql_target *t, const char *keyword, const char *value);

struct pg_sql *pg_sql_new(uv_loop_t *loop);
void pg_sql_free(struct pg_sql *s); /* NULL is allowed */
/* Drops connection and pending callback; usable again. */
void pg_sql_reset(struct pg_sql *s);
void pg_sql_connect(struct pg_sql *s, const struct pg_sql_target *t, uint64_t timeout_ms,
                    pg_sql_cb *cb, void *arg);
/* Simple protocol: several statements may be in one text. Not while another one runs. A COPY answer
 * counts as done (the stream begins); the connection is good for nothing else afterwards. */
void pg_sql_query(struct pg_sql *s, const char *sql, uint64_t timeout_ms, pg_sql_cb *cb,
                  void *arg);
/* After a COPY answer: waits for the stream's first message, or its error. */
void pg_sql_wait_stream(struct pg_sql *s, uint64_t timeout_ms, pg_sql_cb *cb, void *arg);
bool pg_sql_ready(const struct pg_sql *s); /* connected, no query runs */
bool pg_sql_connected(const struct pg_sql *s);
PGconn *pg_sql_conn(struct pg_sql *s); /* for PQencryptPasswordConn; NULL when not connected */

/* Column `col` of row `row`; "" for NULL. */
const char *pg_sql_text(const PGresult *r, int row, int col);

#endif
