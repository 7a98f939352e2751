#include "dcs/state_rebirth.h"

#include <stdio.h>

#include "base/mutant.h"
#include "base/str.h"
#include "dcs/state_internal.h"

static enum err open_file(const char *path, int mode, sqlite3 **ret_db, struct errmsg *e)
{
    sqlite3 *db = NULL;
    int sq = sqlite3_open_v2(path, &db, mode | SQLITE_OPEN_NOMUTEX, NULL);
    if (sq != SQLITE_OK) {
        enum err rc = err_set(e, state_sqlite_err(sq), "%s: %s", path, sqlite3_errmsg(db));
        (void)sqlite3_close(db);
        return rc;
    }
    *ret_db = db;
    return ERR_OK;
}

/* ---- facts ---- */

/* Runs a query; row() gets each of its rows. */
static enum err each(sqlite3 *db, const char *path, const char *sql,
                     enum err (*row)(sqlite3_stmt *q, struct state_facts *f),
                     struct state_facts *f, struct errmsg *e)
{
    sqlite3_stmt *q = NULL;
    enum err rc = ERR_OK;
    int sq = sqlite3_prepare_v2(db, sql, -1, &q, NULL);
    while (sq == SQLITE_OK && rc == ERR_OK && (sq = sqlite3_step(q)) == SQLITE_ROW) {
        rc = row(q, f);
        sq = SQLITE_OK;
    }
    if (rc != ERR_OK)
        (void)err_set(e, rc, "%s: a text in it is longer than it may be", path);
    else if (sq != SQLITE_DONE)
        rc = err_set(e, state_sqlite_err(sq), "%s: %s", path, sqlite3_errmsg(db));
    (void)sqlite3_finalize(q);
    return rc;
}

static enum err text(sqlite3_stmt *q, int column, char *ret, size_t size)
{
    const unsigned char *t = sqlite3_column_text(q, column);
    return str_copy(ret, size, t == NULL ? "" : (const char *)t);
}

static enum err store_row(sqlite3_stmt *q, struct state_facts *f)
{
    f->index = (uint64_t)sqlite3_column_int64(q, 1);
    f->revision = (uint64_t)sqlite3_column_int64(q, 2);
    f->next_member = (uint64_t)sqlite3_column_int64(q, 3);
    f->keys = (uint64_t)sqlite3_column_int64(q, 4);
    f->epoch = (uint64_t)sqlite3_column_int64(q, 5);
    return text(q, 0, f->cluster_id, sizeof f->cluster_id);
}

static enum err member_row(sqlite3_stmt *q, struct state_facts *f)
{
    struct member *m = &f->members[f->n_members];
    if (f->n_members == MEMBERS_MAX)
        return ERR_LIMIT;
    f->n_members++;
    m->id = (uint64_t)sqlite3_column_int64(q, 0);
    enum err rc = text(q, 1, m->name, sizeof m->name);
    rc = rc == ERR_OK ? text(q, 2, m->address, sizeof m->address) : rc;
    rc = rc == ERR_OK ? text(q, 3, m->role, sizeof m->role) : rc;
    return rc == ERR_OK ? text(q, 4, m->state, sizeof m->state) : rc;
}

static enum err scope_row(sqlite3_stmt *q, struct state_facts *f)
{
    return text(q, 0, f->scope, sizeof f->scope);
}

static enum err primary_row(sqlite3_stmt *q, struct state_facts *f)
{
    return text(q, 0, f->primary, sizeof f->primary);
}

#define KEY_TEXT "CAST(key AS TEXT)"
#define IS_SYNC KEY_TEXT " GLOB '/regent/*/sync'"

static enum err gather(sqlite3 *db, const char *path, struct state_facts *f, struct errmsg *e)
{
    static const struct {
        const char *sql;
        enum err (*row)(sqlite3_stmt *q, struct state_facts *f);
    } queries[] = {
        {"SELECT cluster_id, applied, revision, next_member, (SELECT count(*) FROM kv),"
         " (SELECT value FROM snapshot_header WHERE name = 'epoch') FROM store",
         store_row},
        {"SELECT id, name, address, role, state FROM member WHERE state != 'removed' ORDER BY "
         "id",
         member_row},
        {"SELECT min(scope) FROM (SELECT DISTINCT substr(k, 1, instr(k, '/') - 1) AS scope FROM"
         " (SELECT substr(" KEY_TEXT ", 9) AS k FROM kv WHERE " KEY_TEXT
         " GLOB '/regent/*/*')) HAVING count(*) = 1",
         scope_row},
        {"SELECT json_extract(CAST(value AS TEXT), '$.leader') FROM kv WHERE " IS_SYNC
         " LIMIT 1",
         primary_row},
    };
    enum err rc = ERR_OK;
    for (size_t i = 0; rc == ERR_OK && i < ARRAY_LEN(queries); i++)
        rc = each(db, path, queries[i].sql, queries[i].row, f, e);
    return rc;
}

enum err state_file_facts(const char *path, struct state_facts *ret_facts, struct errmsg *e)
{
    sqlite3 *db = NULL;
    enum err rc = open_file(path, SQLITE_OPEN_READONLY, &db, e);
    if (rc != ERR_OK || db == NULL)
        return rc;
    memset(ret_facts, 0, sizeof *ret_facts);
    rc = state_schema_check(db, path, NULL, e);
    rc = rc == ERR_OK ? state_schema_check_whole(db, path, e) : rc;
    rc = rc == ERR_OK ? gather(db, path, ret_facts, e) : rc;
    (void)sqlite3_close(db);
    return rc;
}

/* ---- rebirth ---- */

/* ?1 cluster id, ?2 name, ?3 address, ?4 role, ?5 to ?7 the gaps. The row of `store` comes last but for what
 * reads the new revision. Keys keep the numbers of their history rows, which lie below event_first now:
 * "gone", not "never was". */
static const char *const steps[] = {
    "DELETE FROM kv WHERE lease != 0",
    ("DELETE FROM kv WHERE " KEY_TEXT " GLOB '/regent/*/failover'"),
    "DELETE FROM lease",
    "DELETE FROM session",
    "DELETE FROM result",
    "DELETE FROM token",
    "DELETE FROM cert", /* of the old CA, which the new cluster does not know */
    "DELETE FROM revoked",
    "DELETE FROM event",
    "UPDATE member SET state = 'removed'",
    "INSERT INTO member SELECT next_member, ?2, ?3, ?4, 'active', '', '' FROM store",
    ("UPDATE store SET cluster_id = ?1, applied = applied + ?6, logged = 0,"
     " revision = revision + ?5, compacted = revision + ?5, next_member = next_member + 1,"
     " event_first = event_next, event_bytes_dropped = event_bytes,"
     " event_sum_dropped = event_sum"),
    ("UPDATE kv SET value = CAST(json_set(CAST(value AS TEXT), '$.unknown', json('true'),"
     " '$.token', coalesce(json_extract(CAST(value AS TEXT), '$.token'), 0) + ?7) AS BLOB),"
     " mod_revision = (SELECT revision FROM store), version = version + 1 WHERE " IS_SYNC),
    ("INSERT INTO snapshot_header VALUES('epoch', 1)"
     " ON CONFLICT(name) DO UPDATE SET value = value + 1"),
    "INSERT OR REPLACE INTO snapshot_header SELECT 'applied', applied FROM store",
    "INSERT OR REPLACE INTO snapshot_header SELECT 'revision', revision FROM store",
};

static int bind_all(sqlite3_stmt *q, const char *cluster_id, const struct member *self)
{
    const char *const texts[] = {cluster_id, self->name, self->address, self->role};
    uint64_t revisions = MUTANT(revision_reused) ? 0 : REBIRTH_REVISIONS;
    uint64_t tokens = MUTANT(token_reused) ? 0 : REBIRTH_TOKENS;
    const uint64_t gaps[] = {revisions, REBIRTH_INDICES, tokens};
    int n = sqlite3_bind_parameter_count(q);
    int sq = SQLITE_OK;
    for (int i = 0; i < 7 && i < n && sq == SQLITE_OK; i++)
        sq = i < 4 ? sqlite3_bind_text(q, i + 1, texts[i], -1, SQLITE_STATIC)
                   : sqlite3_bind_int64(q, i + 1, (int64_t)gaps[i - 4]);
    return sq;
}

static enum err step(sqlite3 *db, const char *path, const char *sql, const char *cluster_id,
                     const struct member *self, struct errmsg *e)
{
    sqlite3_stmt *q = NULL;
    int sq = sqlite3_prepare_v2(db, sql, -1, &q, NULL);
    sq = sq == SQLITE_OK ? bind_all(q, cluster_id, self) : sq;
    sq = sq == SQLITE_OK ? sqlite3_step(q) : sq;
    enum err rc = sq == SQLITE_DONE
                      ? ERR_OK
                      : err_set(e, state_sqlite_err(sq), "%s: %s", path, sqlite3_errmsg(db));
    (void)sqlite3_finalize(q);
    return rc;
}

enum err state_file_rebirth(const char *path, const char *cluster_id, const struct member *self,
                            struct errmsg *e)
{
    sqlite3 *db = NULL;
    enum err rc = open_file(path, SQLITE_OPEN_READWRITE, &db, e);
    if (rc != ERR_OK || db == NULL)
        return rc;
    rc = member_check(self, e);
    rc = rc == ERR_OK ? state_exec(db, path, "BEGIN IMMEDIATE", e) : rc;
    for (size_t i = 0; rc == ERR_OK && i < ARRAY_LEN(steps); i++)
        rc = step(db, path, steps[i], cluster_id, self, e);
    rc = rc == ERR_OK ? hash_reseal(db, path, true, e) : rc;
    rc = rc == ERR_OK ? state_exec(db, path, "COMMIT", e) : rc;
    (void)sqlite3_close(db);
    return rc;
}
