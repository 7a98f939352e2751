/* `regentctl sql`: one SELECT of anybody who is let in, on a pinned read transaction. Nothing but reading is
 * authorized, the secrets' hashes are not even that, and time, rows, bytes and lengths are bounded. */
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "dcs/state_internal.h"

enum {
    SQL_MAX = 64 * 1024,
    ROWS = 1000,
    ROWS_MAX = 10000,
    CELLS_MAX = 10000, /* a message is bounded in elements */
    TIME_MS = 2000,
    TIME_MAX_MS = 10000,
    COLUMNS_MAX = 100,
    ARGUMENTS_MAX = 32,
    PATTERN_MAX = 256,      /* of LIKE and GLOB */
    MADE_MAX = 128 * 1024,  /* bytes of a value, when none is stored that is as long; */
    BESIDE_MAX = 16 * 1024, /* what may stand beside the longest one in a row */
    BYTES_MAX = 1024 * 1024,
    ROW_MAX = 1792 * 1024, /* of the first row: with the largest value */
    STEPS = 50             /* of SQLite's machine between two looks at the clock */
};

/* Views over the records of the HA tier (proto/records.def), which are JSON in kv. The others are in the
 * schema. */
#define RECORD(name) "CAST(kv.key AS TEXT) GLOB '/regent/*/" name "'"
#define TEXT_OF "CAST(kv.value AS TEXT)"
#define FIELD(name) "json_extract(" TEXT_OF ", '$." name "') AS " name
#define SCOPE                                                                              \
    "substr(CAST(kv.key AS TEXT), 9, instr(substr(CAST(kv.key AS TEXT), 9), '/') - 1) AS " \
    "scope"
static const char *const views[] = {
    "CREATE TEMP VIEW leader AS SELECT " SCOPE
    ", " FIELD("name") ", " FIELD("state") ", " FIELD("timeline") ", " FIELD(
        "token") ", " FIELD("conn_host") ", " FIELD("conn_port") ", lease, mod_revision FROM "
                                                                 "kv WHERE " RECORD("leader"),
    "CREATE TEMP VIEW sync AS SELECT " SCOPE
    ", " FIELD("leader") ", " FIELD("token") ", " FIELD("mode") ", " FIELD("v") ", " FIELD(
        "q") ", " FIELD("unknown") ", mod_revision FROM kv WHERE " RECORD("sync"),
    "CREATE TEMP VIEW nodes AS SELECT " SCOPE
    ", " FIELD("name") ", " FIELD("role") ", " FIELD("state") ", " FIELD("timeline") ", " FIELD(
        "lsn") ", " FIELD("conn_host") ", " FIELD("conn_port") ", lease, mod_revision FROM kv "
                                                               "WHERE " RECORD("members/*"),
    "CREATE TEMP VIEW journal AS SELECT " SCOPE
    ", " FIELD("at_ms") ", " FIELD("node") ", " FIELD("rule") ", " FIELD("reason") ", " FIELD(
        "action") ", " FIELD("txn") ", " FIELD("token") ", mod_revision "
                                                        "FROM kv "
                                                        "WHERE " RECORD("j"
                                                                        "o"
                                                                        "u"
                                                                        "r"
                                                                        "n"
                                                                        "a"
                                                                        "l"
                                                                        "/"
                                                                        "*"),
    "CREATE TEMP VIEW history AS SELECT " SCOPE
    ", json_extract(e.value, '$.timeline') AS timeline,"
    " json_extract(e.value, '$.token') AS token, json_extract(e.value, '$.name') AS name,"
    " json_extract(e.value, '$.switch_lsn') AS switch_lsn, json_extract(e.value, '$.parent') AS"
    " parent, json_extract(e.value, '$.at_ms') AS at_ms, json_extract(e.value, '$.reason') AS"
    " reason FROM kv, json_each(CAST(kv.value AS TEXT), '$.entries') AS e WHERE " RECORD(
        "history"),
};

static int authorize(void *arg, int action, const char *a, const char *b, const char *db,
                     const char *inner)
{
    (void)arg;
    (void)db;
    (void)inner;
    if (action == SQLITE_FUNCTION && b != NULL && strstr(b, "_patch") != NULL)
        return SQLITE_DENY; /* json_patch() takes the product of both lengths */
    if (action == SQLITE_READ)
        return a != NULL && b != NULL && strcmp(a, "token") == 0 &&
                       strcmp(b, "secret_sha256") == 0
                   ? SQLITE_DENY
                   : SQLITE_OK;
    return action == SQLITE_SELECT || action == SQLITE_FUNCTION || action == SQLITE_RECURSIVE
               ? SQLITE_OK
               : SQLITE_DENY;
}

static int on_progress(void *until_ms)
{
    return clock_mono_ms() >= *(const uint64_t *)until_ms;
}

static enum err query_error(sqlite3 *db, int rc, struct errmsg *e)
{
    if ((rc & 0xff) == SQLITE_INTERRUPT)
        return err_set(e, ERR_TIMEOUT, "the query took longer than it may");
    if ((rc & 0xff) == SQLITE_AUTH)
        return err_set(e, ERR_DENIED, "only reading is allowed: %s", sqlite3_errmsg(db));
    return err_set(e, (rc & 0xff) == SQLITE_TOOBIG ? ERR_LIMIT : ERR_INVALID, "%s",
                   sqlite3_errmsg(db));
}

/* ---- the reply ---- */

struct answer {
    struct msg_list columns, rows;
    size_t cells;
    bool more;
};

static void put_column(struct msg_list *l, const char *name)
{
    struct sql_cell c = {.type = "text", .value = slice_str(name)};
    msg_list_append(l, &msg_sql_cell, &c);
}

/* The length before the bytes: zeroblob() makes them only when they are asked for. */
static bool put_cell(struct msg_list *l, sqlite3_stmt *st, int i, size_t max)
{
    static const char *const names[] = {[SQLITE_INTEGER] = "integer",
                                        [SQLITE_FLOAT] = "real",
                                        [SQLITE_TEXT] = "text",
                                        [SQLITE_BLOB] = "blob",
                                        [SQLITE_NULL] = ""};
    struct sql_cell c = {.type = ""};
    int type = sqlite3_column_type(st, i);
    memcpy(c.type, names[type], strlen(names[type]) + 1);
    size_t n = type == SQLITE_NULL ? 0 : (size_t)sqlite3_column_bytes(st, i);
    if (l->body.len + n > max)
        return false;
    const void *p = type == SQLITE_BLOB   ? sqlite3_column_blob(st, i)
                    : type == SQLITE_NULL ? NULL
                                          : (const void *)sqlite3_column_text(st, i);
    c.value = slice_of(p, p != NULL ? n : 0);
    msg_list_append(l, &msg_sql_cell, &c);
    return true;
}

static enum err put_row(struct answer *a, sqlite3_stmt *st, struct errmsg *e)
{
    struct msg_list cells = {0};
    struct buf CLEANUP(buf_close) b = BUF_INIT;
    int n = sqlite3_column_count(st);
    size_t max =
        a->rows.n == 0 ? ROW_MAX : BYTES_MAX - MIN(a->rows.body.len, (size_t)BYTES_MAX);
    bool fits = true;
    for (int i = 0; fits && i < n; i++)
        fits = put_cell(&cells, st, i, max);
    msg_list_end(&cells, &b);
    if (!fits && a->rows.n == 0)
        return err_set(e, ERR_LIMIT,
                       "the first row has more than the %d bytes that fit into an answer",
                       (int)ROW_MAX);
    struct sql_row row = {.cells = buf_slice(&b)};
    if (fits)
        msg_list_append(&a->rows, &msg_sql_row, &row);
    a->more = !fits;
    a->cells += (size_t)n;
    return ERR_OK;
}

static enum err collect(sqlite3 *db, sqlite3_stmt *st, uint64_t limit, struct answer *a,
                        struct errmsg *e)
{
    int rc = SQLITE_ROW;
    enum err err = ERR_OK;
    size_t n = (size_t)sqlite3_column_count(st);
    for (int i = 0; i < (int)n; i++)
        put_column(&a->columns, sqlite3_column_name(st, i));
    while (err == ERR_OK && !a->more && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        a->more = a->rows.n >= limit || a->cells + n > CELLS_MAX;
        if (!a->more)
            err = put_row(a, st, e);
    }
    return err != ERR_OK                           ? err
           : rc == SQLITE_ROW || rc == SQLITE_DONE ? ERR_OK
                                                   : query_error(db, rc, e);
}

/* ---- the query ---- */

static enum err prepare(sqlite3 *db, struct slice sql, sqlite3_stmt **ret, struct errmsg *e)
{
    const char *rest = NULL;
    int rc = sqlite3_prepare_v2(db, (const char *)sql.p, (int)sql.n, ret, &rest);
    if (rc != SQLITE_OK)
        return query_error(db, rc, e);
    while (rest < (const char *)sql.p + sql.n && strchr(" \t\r\n;", *rest) != NULL)
        rest++;
    bool one = *ret != NULL && rest >= (const char *)sql.p + sql.n;
    if (!one || sqlite3_stmt_readonly(*ret) == 0 || sqlite3_column_count(*ret) == 0)
        return err_set(e, ERR_INVALID, "one SELECT is needed");
    return ERR_OK;
}

static enum err run(sqlite3 *db, const struct sql_req *q, struct answer *a, struct errmsg *e)
{
    sqlite3_stmt *st = NULL;
    uint64_t limit = q->limit == 0 ? ROWS : MIN(q->limit, (uint64_t)ROWS_MAX);
    enum err rc = prepare(db, q->sql, &st, e);
    rc = rc == ERR_OK ? collect(db, st, limit, a, e) : rc;
    (void)sqlite3_finalize(st);
    return rc;
}

static void encode(sqlite3 *db, struct answer *a, struct buf *ret_reply)
{
    struct buf columns = BUF_INIT, rows = BUF_INIT;
    sqlite3_stmt *st = NULL;
    struct sql_reply r = {.more = a->more};
    if (sqlite3_prepare_v2(db, "SELECT applied FROM store", -1, &st, NULL) == SQLITE_OK &&
        sqlite3_step(st) == SQLITE_ROW)
        r.index = (uint64_t)sqlite3_column_int64(st, 0);
    (void)sqlite3_finalize(st);
    msg_list_end(&a->columns, &columns);
    msg_list_end(&a->rows, &rows);
    r.columns = buf_slice(&columns);
    r.rows = buf_slice(&rows);
    msg_encode(&msg_sql_reply, &r, ret_reply);
    buf_close(&columns);
    buf_close(&rows);
}

/* What is stored can be read, and nothing much longer can be made: of so many functions each may make one. */
static enum err set_limits(sqlite3 *db, struct errmsg *e)
{
    static const char longest[] =
        "SELECT max(n) FROM (SELECT max(length(value)) AS n FROM kv UNION ALL SELECT "
        "max(length(value)) FROM event)";
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(db, longest, -1, &st, NULL);
    rc = rc == SQLITE_OK ? sqlite3_step(st) : rc;
    int n = rc == SQLITE_ROW ? sqlite3_column_int(st, 0) : 0;
    (void)sqlite3_finalize(st);
    if (rc != SQLITE_ROW)
        return query_error(db, rc, e);
    (void)sqlite3_limit(db, SQLITE_LIMIT_LENGTH, MAX((int)MADE_MAX, n + (int)BESIDE_MAX));
    (void)sqlite3_limit(db, SQLITE_LIMIT_COLUMN, COLUMNS_MAX);
    (void)sqlite3_limit(db, SQLITE_LIMIT_FUNCTION_ARG, ARGUMENTS_MAX);
    (void)sqlite3_limit(db, SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_MAX);
    (void)sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 0);
    return ERR_OK;
}

enum err query_database(sqlite3 *db, const struct sql_req *q, struct buf *ret_reply,
                        struct errmsg *e)
{
    struct answer a = {0};
    uint64_t time_ms = q->time_ms == 0 ? TIME_MS : MIN(q->time_ms, (uint64_t)TIME_MAX_MS);
    uint64_t until_ms = clock_mono_ms() + time_ms;
    if (q->sql.n == 0 || q->sql.n > SQL_MAX || memchr(q->sql.p, 0, q->sql.n) != NULL)
        return err_set(e, ERR_INVALID, "one SELECT of at most %d bytes is needed",
                       (int)SQL_MAX);
    query_text_functions(db);
    for (size_t i = 0; i < ARRAY_LEN(views); i++)
        if (sqlite3_exec(db, views[i], NULL, NULL, NULL) != SQLITE_OK)
            return err_set(e, ERR_INTERNAL, "%s", sqlite3_errmsg(db));
    sqlite3_progress_handler(db, STEPS, on_progress, &until_ms);
    enum err rc = set_limits(db, e);
    (void)sqlite3_set_authorizer(db, authorize, NULL);
    rc = rc == ERR_OK ? run(db, q, &a, e) : rc;
    sqlite3_progress_handler(db, 0, NULL, NULL);
    if (rc == ERR_OK) {
        encode(db, &a, ret_reply);
    } else {
        msg_list_close(&a.columns);
        msg_list_close(&a.rows);
    }
    return rc;
}
