#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "dcs/state_internal.h"

static const char *const sql_text_of[SQL_COUNT] = {
#define STMT(name, text) [SQL_##name] = text,
#include "dcs/state_sql.def"
#undef STMT
};

enum err state_sqlite_err(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_OK:
        return ERR_OK;
    case SQLITE_FULL:
        return ERR_NO_SPACE;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return ERR_CORRUPT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return ERR_UNAVAILABLE;
    default:
        return ERR_IO;
    }
}

/* Logged here, although this is a library: nobody above gets the chance to do it. */
void state_fatal_text(const char *text)
{
    log_event(LOG_FATAL, "state_failed", NO_KV, "%s", text);
    abort();
}

/* Every other member has done, or will do, what failed here. Going on would make this one differ in
 * silence; after a restart the log brings it to the same point again. */
void state_fatal(struct state *s, const char *doing)
{
    char text[700];
    int rc = sqlite3_extended_errcode(s->db);
    const char *remedy =
        "the process ends; the Raft log brings the state back at the next start";
    if (state_sqlite_err(rc) == ERR_NO_SPACE)
        remedy =
            "no space left on its file system; free some and start again: nothing that was "
            "acknowledged is lost";
    else if (state_sqlite_err(rc) == ERR_CORRUPT)
        remedy =
            "the file is damaged; if it does not start again, remove this member, move its "
            "data_dir aside and join it anew";
    (void)snprintf(text, sizeof text, "%s: %s failed: %s (%d); %s", s->path, doing,
                   sqlite3_errmsg(s->db), rc, remedy);
    state_fatal_text(text);
}

enum err state_prepare_all(struct state *s, struct errmsg *e)
{
    for (size_t i = 0; i < SQL_COUNT; i++) {
        ASSERT(s->stmt[i] == NULL && sql_text_of[i] != NULL);
        int rc = sqlite3_prepare_v3(s->db, sql_text_of[i], -1, SQLITE_PREPARE_PERSISTENT,
                                    &s->stmt[i], NULL);
        if (rc != SQLITE_OK)
            return err_set(e, state_sqlite_err(rc), "%s: %s", s->path, sqlite3_errmsg(s->db));
    }
    return ERR_OK;
}

void state_finalize_all(struct state *s)
{
    for (size_t i = 0; i < SQL_COUNT; i++) {
        (void)sqlite3_finalize(s->stmt[i]);
        s->stmt[i] = NULL;
    }
}

sqlite3_stmt *sql_get(struct state *s, enum sql which)
{
    ASSERT(which < SQL_COUNT && s->stmt[which] != NULL);
    return s->stmt[which];
}

void sql_bind_u64(struct state *s, enum sql which, int column, uint64_t v)
{
    /* SQLite's integers are signed: above 2^63 they read as negative and come back unchanged. */
    if (sqlite3_bind_int64(sql_get(s, which), column, (sqlite3_int64)v) != SQLITE_OK)
        state_fatal(s, sql_text_of[which]);
}

void sql_bind_blob(struct state *s, enum sql which, int column, struct slice v)
{
    ASSERT(v.n <= INT32_MAX);
    /* A NULL pointer would bind NULL instead of an empty blob. */
    const void *p = v.n == 0 ? "" : (const void *)v.p;
    if (sqlite3_bind_blob(sql_get(s, which), column, p, (int)v.n, SQLITE_STATIC) != SQLITE_OK)
        state_fatal(s, sql_text_of[which]);
}

void sql_bind_text(struct state *s, enum sql which, int column, const char *v)
{
    sqlite3_stmt *st = sql_get(s, which);
    int rc = v == NULL ? sqlite3_bind_null(st, column)
                       : sqlite3_bind_text(st, column, v, -1, SQLITE_STATIC);
    if (rc != SQLITE_OK)
        state_fatal(s, sql_text_of[which]);
}

bool sql_row(struct state *s, enum sql which)
{
    int rc = sqlite3_step(sql_get(s, which));
    if (rc == SQLITE_ROW)
        return true;
    if (rc != SQLITE_DONE)
        state_fatal(s, sql_text_of[which]);
    (void)sqlite3_reset(s->stmt[which]);
    return false;
}

void sql_done(struct state *s, enum sql which)
{
    (void)sqlite3_reset(sql_get(s, which));
}

void sql_write(struct state *s, enum sql which)
{
    state_begin(s);
    bool row = sql_row(s, which);
    ASSERT(!row);
}

uint64_t sql_u64(struct state *s, enum sql which, int column)
{
    return (uint64_t)sqlite3_column_int64(sql_get(s, which), column);
}

struct slice sql_blob(struct state *s, enum sql which, int column)
{
    sqlite3_stmt *st = sql_get(s, which);
    const void *p = sqlite3_column_blob(st, column);
    size_t n = (size_t)sqlite3_column_bytes(st, column);
    if (p == NULL && n != 0)
        state_fatal(s, sql_text_of[which]); /* out of memory */
    return slice_of(p, n);
}

const char *sql_text(struct state *s, enum sql which, int column)
{
    const char *p = (const char *)sqlite3_column_text(sql_get(s, which), column);
    return p == NULL ? "" : p;
}

uint64_t sql_one_u64(struct state *s, enum sql which)
{
    bool row = sql_row(s, which);
    ASSERT(row);
    uint64_t v = sql_u64(s, which, 0);
    sql_done(s, which);
    return v;
}

void state_begin(struct state *s)
{
    if (s->in_txn)
        return;
    ASSERT(!s->restoring);
    bool row = sql_row(s, SQL_BEGIN);
    ASSERT(!row);
    s->in_txn = true;
}

void state_rollback(struct state *s)
{
    if (!s->in_txn)
        return;
    bool row = sql_row(s, SQL_ROLLBACK);
    ASSERT(!row);
    s->in_txn = false;
}
