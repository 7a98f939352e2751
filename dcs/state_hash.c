/* The hash of the whole replicated content, kept up to date with every change (dcs/row_hash.h): members
 * compare it at one index at no cost, and a file whose rows do not add up to what was committed with
 * them is damaged.
 *
 * In it is everything that is the same on every member at one index; nothing of this member's own: no
 * expiry, no `logged`, no page of the file. The row of `store` is sealed with a number of its own. */
#include <inttypes.h>
#include <stdio.h>

#include "dcs/row_hash.h"
#include "dcs/state_internal.h"

uint64_t hash_kv(const struct kv *kv, uint64_t event)
{
    uint64_t h = row_hash_bytes(row_hash_begin(ROW_KV), kv->key);
    h = row_hash_bytes(row_hash_u64(h, kv->lease), kv->value);
    h = row_hash_u64(row_hash_u64(h, kv->create_revision), kv->mod_revision);
    return row_hash_end(row_hash_u64(row_hash_u64(h, kv->version), event));
}

uint64_t hash_event(uint64_t id, bool deleted, const struct kv *kv, uint64_t prev,
                    uint64_t bytes)
{
    uint64_t h = row_hash_u64(row_hash_begin(ROW_EVENT), id);
    h = row_hash_u64(row_hash_u64(h, kv->mod_revision), deleted);
    h = row_hash_bytes(row_hash_bytes(h, kv->key), kv->value);
    h = row_hash_u64(row_hash_u64(h, kv->create_revision), kv->version);
    h = row_hash_u64(row_hash_u64(h, kv->lease), prev);
    return row_hash_end(row_hash_u64(h, bytes));
}

uint64_t hash_result(uint64_t session, uint64_t slot, const struct kept_result *r)
{
    uint64_t h = row_hash_u64(row_hash_u64(row_hash_begin(ROW_RESULT), session), slot);
    h = row_hash_bytes(row_hash_u64(h, r->seq), slice_str(r->error));
    h = row_hash_bytes(h, slice_str(r->message));
    return row_hash_end(row_hash_bytes(h, r->body));
}

/* ---- rows of a file ---- */

/* Of everything that a file has. */
struct file_sums {
    uint64_t rows, rest, events; /* as in struct state_marks */
    uint64_t indexed, index;     /* what the index of leases should hold, and holds */
};

static uint64_t hash_columns(sqlite3_stmt *st, enum row_table table, int n)
{
    uint64_t h = row_hash_begin(table);
    for (int i = 0; i < n; i++) {
        if (sqlite3_column_type(st, i) == SQLITE_INTEGER) {
            h = row_hash_u64(h, (uint64_t)sqlite3_column_int64(st, i));
        } else {
            const void *p = sqlite3_column_blob(st, i);
            h = row_hash_bytes(h, slice_of(p, (size_t)sqlite3_column_bytes(st, i)));
        }
    }
    return row_hash_end(h);
}

static enum err sql_failed(sqlite3 *db, const char *path, struct errmsg *e)
{
    return err_set(e, state_sqlite_err(sqlite3_extended_errcode(db)), "%s: %s; %s", path,
                   sqlite3_errmsg(db), STATE_REPLACE_REMEDY);
}

#define KV_COLUMNS "key, lease, value, create_revision, mod_revision, version, event"

/* What the index of leases should hold for this row of kv. */
static uint64_t index_hash(sqlite3_stmt *st)
{
    enum { INDEX_COLUMNS = 2 };
    return sqlite3_column_int64(st, 1) == 0 ? 0 : hash_columns(st, ROW_KV_LEASE, INDEX_COLUMNS);
}

/* Adds up the rows of a table, or of an index. */
static enum err add_rows(sqlite3 *db, const char *path, enum row_table table, const char *sql,
                         struct file_sums *sums, struct errmsg *e)
{
    sqlite3_stmt *st = NULL;
    uint64_t *sum = table == ROW_KV || table == ROW_RESULT ? &sums->rows
                    : table == ROW_KV_LEASE                ? &sums->index
                                                           : &sums->rest;
    int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
    while (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        *sum += hash_columns(st, table, sqlite3_column_count(st));
        sums->indexed += table == ROW_KV ? index_hash(st) : 0;
        rc = SQLITE_OK;
    }
    enum err err = rc == SQLITE_DONE ? ERR_OK : sql_failed(db, path, e);
    (void)sqlite3_finalize(st);
    return err;
}

static enum err damaged_event(const char *path, uint64_t id, struct errmsg *e)
{
    return err_set(e, ERR_CORRUPT, "%s: damaged: row %" PRIu64 " of the history; %s", path, id,
                   STATE_REPLACE_REMEDY);
}

/* Each row says what the ones before it add up to. */
static enum err add_events(sqlite3 *db, const char *path, const struct state_marks *m,
                           uint64_t *sum, struct errmsg *e)
{
    enum { EVENT_COLUMNS = 10 };
    sqlite3_stmt *st = NULL;
    uint64_t next = m->event_first, before = m->event_sum_dropped;
    enum err err = ERR_OK;
    int rc = sqlite3_prepare_v2(db,
                                "SELECT id, revision, deleted, key, value, create_revision,"
                                " version, lease, prev, bytes, sum FROM event ORDER BY id",
                                -1, &st, NULL);
    while (rc == SQLITE_OK && err == ERR_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        if ((uint64_t)sqlite3_column_int64(st, 0) != next ||
            (uint64_t)sqlite3_column_int64(st, EVENT_COLUMNS) != before)
            err = damaged_event(path, next, e);
        before += hash_columns(st, ROW_EVENT, EVENT_COLUMNS);
        next++;
        rc = SQLITE_OK;
    }
    if (err == ERR_OK && rc != SQLITE_DONE)
        err = sql_failed(db, path, e);
    if (err == ERR_OK && next != m->event_next)
        err = damaged_event(path, next, e);
    (void)sqlite3_finalize(st);
    *sum = before - m->event_sum_dropped;
    return err;
}

/* ---- the row of `store` ---- */

static uint64_t seal_of(const char *cluster_id, const struct state_marks *m)
{
    uint64_t h = row_hash_bytes(row_hash_begin(ROW_STORE), slice_str(cluster_id));
    h = row_hash_u64(row_hash_u64(h, m->applied), m->logged);
    h = row_hash_u64(row_hash_u64(h, m->revision), m->compacted);
    h = row_hash_u64(row_hash_u64(h, m->next_member), m->event_first);
    h = row_hash_u64(row_hash_u64(h, m->event_next), m->event_bytes);
    h = row_hash_u64(row_hash_u64(h, m->event_bytes_dropped), m->event_sum);
    h = row_hash_u64(row_hash_u64(h, m->event_sum_dropped), m->rows_sum);
    return row_hash_end(row_hash_u64(row_hash_u64(h, m->rest_sum), m->version));
}

static uint64_t rest_sum(const struct state *s)
{
    return s->leases.sum + s->sessions->sum + s->small_sum;
}

uint64_t hash_seal(struct state *s)
{
    s->m.rest_sum = rest_sum(s);
    return seal_of(s->cluster_id, &s->m);
}

static enum err read_store(sqlite3 *db, const char *path, char ret_cluster[static 40],
                           struct state_marks *ret_marks, uint64_t *ret_seal, struct errmsg *e)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(
        db,
        "SELECT applied, logged, revision, compacted, next_member, event_first,"
        " event_next, event_bytes, event_bytes_dropped, event_sum,"
        " event_sum_dropped, rows_sum, rest_sum, version, seal, cluster_id FROM store",
        -1, &st, NULL);
    rc = rc == SQLITE_OK ? sqlite3_step(st) : rc;
    *ret_marks = (struct state_marks){0};
    *ret_seal = 0;
    if (rc == SQLITE_ROW) {
        marks_read(st, ret_marks);
        *ret_seal = (uint64_t)sqlite3_column_int64(st, 14);
        const char *id = (const char *)sqlite3_column_text(st, 15);
        (void)snprintf(ret_cluster, 40, "%s", id == NULL ? "" : id);
    }
    enum err err = rc == SQLITE_ROW ? ERR_OK
                   : rc == SQLITE_DONE
                       ? err_set(e, ERR_CORRUPT, "%s: damaged: no row of store; %s", path,
                                 STATE_REPLACE_REMEDY)
                       : sql_failed(db, path, e);
    (void)sqlite3_finalize(st);
    return err;
}

/* ---- all of a file ---- */

static const struct {
    enum row_table table;
    const char *sql;
} tables[] = {
    {ROW_KV, "SELECT " KV_COLUMNS " FROM kv NOT INDEXED"},
    {ROW_KV_LEASE, "SELECT key, lease FROM kv INDEXED BY kv_lease WHERE lease != 0"},
    {ROW_RESULT, "SELECT session, slot, seq, error, message, body FROM result"},
    {ROW_LEASE, "SELECT id, ttl_ms, nonce, n, session FROM lease"},
    {ROW_SESSION, "SELECT id, nonce, last_seq, used_index FROM session NOT INDEXED"},
    {ROW_TOKEN, HASH_TOKENS},
    {ROW_CERT, HASH_CERTS},
    {ROW_REVOKED, HASH_REVOKED},
    {ROW_MEMBER, HASH_MEMBERS},
};

/* What there is, added up. */
static enum err add_all(sqlite3 *db, const char *path, const struct state_marks *m,
                        struct file_sums *ret_sums, struct errmsg *e)
{
    *ret_sums = (struct file_sums){0};
    enum err err = add_events(db, path, m, &ret_sums->events, e);
    for (size_t i = 0; err == ERR_OK && i < ARRAY_LEN(tables); i++)
        err = add_rows(db, path, tables[i].table, tables[i].sql, ret_sums, e);
    return err;
}

static uint64_t content_hash(const struct state_marks *m)
{
    uint64_t h = row_hash_u64(row_hash_begin(ROW_CONTENT), m->revision);
    h = row_hash_u64(row_hash_u64(h, m->compacted), m->next_member);
    h = row_hash_u64(row_hash_u64(h, m->event_first), m->event_next);
    h = row_hash_u64(h, m->event_bytes - m->event_bytes_dropped);
    h = row_hash_u64(h, m->event_sum - m->event_sum_dropped);
    h = row_hash_u64(row_hash_u64(h, m->rows_sum), m->rest_sum);
    return row_hash_end(row_hash_u64(h, m->version));
}

static enum err check_sums(const char *path, const struct state_marks *m,
                           const struct file_sums *found, struct errmsg *e)
{
    const char *what = found->events != m->event_sum - m->event_sum_dropped ? "of the history"
                       : found->rows != m->rows_sum ? "of keys or results"
                       : found->rest != m->rest_sum
                           ? "of leases, sessions, tokens, certificates or members"
                       : found->index != found->indexed ? "of the index of leases"
                                                        : NULL;
    return what == NULL
               ? ERR_OK
               : err_set(e, ERR_CORRUPT,
                         "%s: damaged: the rows %s are not those that were written; %s", path,
                         what, STATE_REPLACE_REMEDY);
}

enum err hash_check_marks(sqlite3 *db, const char *path, char ret_cluster[static 40],
                          struct state_marks *ret_marks, struct errmsg *e)
{
    uint64_t seal;
    enum err err = read_store(db, path, ret_cluster, ret_marks, &seal, e);
    if (err != ERR_OK || seal == seal_of(ret_cluster, ret_marks))
        return err;
    return err_set(e, ERR_CORRUPT, "%s: damaged: the row of store is not what was written; %s",
                   path, STATE_REPLACE_REMEDY);
}

enum err hash_check(sqlite3 *db, const char *path, uint64_t *ret_hash, struct errmsg *e)
{
    char cluster[40];
    struct state_marks m;
    struct file_sums found;
    enum err err = hash_check_marks(db, path, cluster, &m, e);
    err = err == ERR_OK ? add_all(db, path, &m, &found, e) : err;
    err = err == ERR_OK ? check_sums(path, &m, &found, e) : err;
    if (err == ERR_OK)
        *ret_hash = content_hash(&m);
    return err;
}

enum err hash_reseal(sqlite3 *db, const char *path, bool add, struct errmsg *e)
{
    char cluster[40], sql[300];
    struct state_marks m;
    struct file_sums found;
    uint64_t seal;
    enum err err = read_store(db, path, cluster, &m, &seal, e);
    err = err == ERR_OK && add ? add_all(db, path, &m, &found, e) : err;
    if (err != ERR_OK)
        return err;
    if (add) {
        m.rows_sum = found.rows;
        m.rest_sum = found.rest;
        m.event_sum = m.event_sum_dropped + found.events;
    }
    (void)snprintf(sql, sizeof sql,
                   "UPDATE store SET event_sum = %" PRId64 ", rows_sum = %" PRId64
                   ", rest_sum = %" PRId64 ", seal = %" PRId64,
                   (int64_t)m.event_sum, (int64_t)m.rows_sum, (int64_t)m.rest_sum,
                   (int64_t)seal_of(cluster, &m));
    return state_exec(db, path, sql, e);
}

/* ---- running ---- */

void hash_small(struct state *s)
{
    static const struct {
        enum sql sql;
        enum row_table table;
    } small[] = {{SQL_TOKEN_ALL, ROW_TOKEN},
                 {SQL_CERT_ALL, ROW_CERT},
                 {SQL_REVOKED_ALL, ROW_REVOKED},
                 {SQL_MEMBER_ALL, ROW_MEMBER}};
    s->small_sum = 0;
    for (size_t i = 0; i < ARRAY_LEN(small); i++)
        while (sql_row(s, small[i].sql))
            s->small_sum += hash_columns(sql_get(s, small[i].sql), small[i].table,
                                         sqlite3_column_count(sql_get(s, small[i].sql)));
}

void small_write(struct state *s, enum sql which)
{
    sql_write(s, which);
    hash_small(s);
}

uint64_t state_hash(struct state *s)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    struct state_marks m = s->m;
    m.rest_sum = rest_sum(s);
    return content_hash(&m);
}

enum err cmd_hash(struct apply *a, const void *req)
{
    struct hash_reply result = {.index = a->index};
    (void)req;
    a->s->marked = true;
    apply_result(a, &msg_hash_reply, &result);
    return ERR_OK;
}

bool state_take_mark(struct state *s)
{
    bool marked = s->marked;
    s->marked = false;
    return marked;
}
