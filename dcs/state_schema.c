/* The tables of state.db and the checks at its door. docs/FORMATS.md explains them to readers;
 * the views there are a contract, the tables are ours. */
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/thread.h"
#include "dcs/state_internal.h"

/* Keys and values are BLOBs: they compare bytewise and may hold anything. Casts for people are in
 * the views. WITHOUT ROWID: one tree to walk per look-up. Only
 * event is a rowid table: its ids are consecutive, so that a row is appended and found by number. */
static const char *const schema[] = {
    "CREATE TABLE store(cluster_id TEXT NOT NULL, applied INTEGER NOT NULL, logged INTEGER NOT"
    " NULL, revision INTEGER NOT NULL, compacted INTEGER NOT NULL, next_member INTEGER NOT "
    "NULL,"
    " event_first INTEGER NOT NULL, event_next INTEGER NOT NULL, event_bytes INTEGER NOT NULL,"
    " event_bytes_dropped INTEGER NOT NULL, event_sum INTEGER NOT NULL, event_sum_dropped "
    "INTEGER"
    " NOT NULL, rows_sum INTEGER NOT NULL, rest_sum INTEGER NOT NULL, version INTEGER NOT"
    " NULL, seal INTEGER NOT NULL)",
    "CREATE TABLE snapshot_header(name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE kv(key BLOB PRIMARY KEY, value BLOB NOT NULL, create_revision INTEGER NOT "
    "NULL,"
    " mod_revision INTEGER NOT NULL, version INTEGER NOT NULL, lease INTEGER NOT NULL, event"
    " INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX kv_lease ON kv(lease) WHERE lease != 0",
    "CREATE TABLE event(id INTEGER PRIMARY KEY, revision INTEGER NOT NULL, deleted INTEGER NOT"
    " NULL, key BLOB NOT NULL, value BLOB NOT NULL, create_revision INTEGER NOT NULL, version"
    " INTEGER NOT NULL, lease INTEGER NOT NULL, prev INTEGER NOT NULL, bytes INTEGER NOT NULL, "
    "sum INTEGER NOT"
    " NULL)",
    "CREATE TABLE lease(id INTEGER PRIMARY KEY, ttl_ms INTEGER NOT NULL, nonce INTEGER NOT "
    "NULL,"
    " n INTEGER NOT NULL, session INTEGER NOT NULL)",
    "CREATE TABLE session(id INTEGER PRIMARY KEY, nonce INTEGER NOT NULL UNIQUE, last_seq "
    "INTEGER"
    " NOT NULL, used_index INTEGER NOT NULL)",
    "CREATE TABLE result(session INTEGER, slot INTEGER, seq INTEGER NOT NULL, error TEXT,"
    " message TEXT, body BLOB NOT NULL, PRIMARY KEY(session, slot)) WITHOUT ROWID",
    "CREATE TABLE token(id TEXT PRIMARY KEY, role TEXT NOT NULL, uses_left INTEGER NOT NULL,"
    " expires_ms INTEGER NOT NULL, secret_sha256 TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE cert(serial INTEGER PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL,"
    " issued_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL)",
    "CREATE TABLE revoked(name TEXT PRIMARY KEY, serial INTEGER NOT NULL, at_ms INTEGER NOT"
    " NULL) WITHOUT ROWID",
    "CREATE TABLE member(id INTEGER PRIMARY KEY, name TEXT NOT NULL, address TEXT NOT NULL,"
    " role TEXT NOT NULL, state TEXT NOT NULL, token TEXT NOT NULL, key_sha256 TEXT NOT NULL)",
    "CREATE VIEW keys AS SELECT CAST(key AS TEXT) AS key, CAST(value AS TEXT) AS value,"
    " create_revision, mod_revision, version, lease FROM kv",
    "CREATE VIEW changes AS SELECT id, revision, CASE deleted WHEN 0 THEN 'put' ELSE 'delete' "
    "END"
    " AS type, CAST(key AS TEXT) AS key, CAST(value AS TEXT) AS value, create_revision, "
    "version,"
    " lease FROM event",
    "CREATE VIEW leases AS SELECT id, ttl_ms, nonce, n, session, (SELECT count(*) FROM kv WHERE"
    " kv.lease = lease.id AND kv.lease != 0) AS keys FROM lease",
    "CREATE VIEW sessions AS SELECT id, last_seq, used_index, (SELECT count(*) FROM result "
    "WHERE"
    " result.session = session.id) AS results FROM session",
    "CREATE VIEW members AS SELECT id, name, address, role, state FROM member",
    "CREATE VIEW tokens AS SELECT id, role, uses_left, expires_ms FROM token WHERE uses_left > "
    "0",
    "CREATE VIEW certificates AS SELECT serial, name, role, issued_ms, expires_ms FROM cert",
    "CREATE VIEW revocations AS SELECT name, serial, at_ms FROM revoked",
    "CREATE VIEW revision AS SELECT revision, compacted, applied AS raft_index, cluster_id"
    " FROM store",
};

/* What a version of the cluster adds, by rising versions. The entry that brings the cluster to it makes it, on
 * every member at the same index. */
static const struct {
    uint64_t version;
    int schema;
    const char *sql;
} raises[] = {
    {STATE_FIRST_VERSION, STATE_SCHEMA_VERSION, ""},
#ifdef REGENT_PRETEND_NEXT
    {STATE_FIRST_VERSION + 1, STATE_SCHEMA_VERSION + 1,
     "CREATE TABLE next(id INTEGER PRIMARY KEY)"},
#endif
};

/* synchronous=NORMAL: no fsync per commit. After a power loss the file is an older but whole commit
 * (WAL frames carry checksums) and the Raft log replays the rest; the log is only cut after a copy
 * has been made durable, see state_snapshot.c. Checkpoints, which do fsync, run on a thread of
 * their own. cell_size_check: a damaged page is an error, never a read out of bounds. */
static const char *const pragmas[] = {
    "PRAGMA wal_autocheckpoint = 0", "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",   "PRAGMA cache_size = -32768",
    "PRAGMA temp_store = MEMORY",    "PRAGMA cell_size_check = ON",
    "PRAGMA trusted_schema = OFF",   "PRAGMA recursive_triggers = 0",
};

enum err state_exec(sqlite3 *db, const char *path, const char *sql, struct errmsg *e)
{
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        return ERR_OK;
    enum err code = state_sqlite_err(rc);
    const char *remedy = code == ERR_CORRUPT    ? "; " STATE_REPLACE_REMEDY
                         : code == ERR_NO_SPACE ? "; free some space on its file system"
                                                : "";
    return err_set(e, code, "%s: %s (%d)%s", path, sqlite3_errmsg(db),
                   sqlite3_extended_errcode(db), remedy);
}

/* First column of the first row, as text; "" when there is none. */
static enum err query_text(sqlite3 *db, const char *path, const char *sql, char *ret,
                           size_t size, struct errmsg *e)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
    ret[0] = '\0';
    if (rc == SQLITE_OK)
        rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(st, 0);
        (void)snprintf(ret, size, "%s", text == NULL ? "" : text);
        rc = SQLITE_DONE;
    }
    (void)sqlite3_finalize(st);
    if (rc == SQLITE_DONE)
        return ERR_OK;
    return err_set(e, state_sqlite_err(rc), "%s: %s; %s", path, sqlite3_errmsg(db),
                   STATE_REPLACE_REMEDY);
}

static enum err check_kind(sqlite3 *db, const char *path, struct errmsg *e)
{
    char application[32], version[32];
    enum err rc =
        query_text(db, path, "PRAGMA application_id", application, sizeof application, e);
    if (rc == ERR_OK)
        rc = query_text(db, path, "PRAGMA user_version", version, sizeof version, e);
    if (rc != ERR_OK)
        return rc;
    char wanted[32];
    (void)snprintf(wanted, sizeof wanted, "%d", (int)STATE_APPLICATION_ID);
    if (strcmp(application, wanted) != 0)
        return err_set(e, ERR_CORRUPT,
                       "%s: not a state database of Regent, or its header is damaged; %s", path,
                       STATE_REPLACE_REMEDY);
    for (size_t i = 0; i < ARRAY_LEN(raises); i++) {
        (void)snprintf(wanted, sizeof wanted, "%d", raises[i].schema);
        if (strcmp(version, wanted) == 0)
            return ERR_OK;
    }
    return err_set(e, ERR_UNSUPPORTED,
                   "%s: has schema version %s, this program knows version %s; run the "
                   "program that wrote it, or a newer one",
                   path, version, wanted);
}

/* SQLite takes what is missing of the last page for zeros. */
static enum err check_length(const char *path, struct errmsg *e)
{
    enum { PAGE_BYTES = 4096 };
    struct stat st;
    if (stat(path, &st) != 0 || st.st_size % PAGE_BYTES == 0)
        return ERR_OK;
    return err_set(e, ERR_CORRUPT, "%s: damaged: %lld bytes are not whole pages; %s", path,
                   (long long)st.st_size, STATE_REPLACE_REMEDY);
}

static enum err check_pages(sqlite3 *db, const char *path, struct errmsg *e)
{
    char text[200];
    enum err rc = query_text(db, path, "PRAGMA quick_check(1)", text, sizeof text, e);
    if (rc != ERR_OK)
        return rc;
    for (char *p = text; *p != '\0'; p++)
        *p = *p == '\n' ? ' ' : *p; /* what is reported is one line */
    if (strcmp(text, "ok") != 0)
        return err_set(e, ERR_CORRUPT, "%s: damaged: %s; %s", path, text, STATE_REPLACE_REMEDY);
    return ERR_OK;
}

enum err state_schema_check_whole(sqlite3 *db, const char *path, struct errmsg *e)
{
    uint64_t hash;
    enum err rc = check_pages(db, path, e);
    return rc == ERR_OK ? hash_check(db, path, &hash, e) : rc;
}

struct adding {
    const char *path;
    enum err rc;
    struct errmsg e;
};

static void *add_up_beside(void *arg)
{
    struct adding *a = arg;
    sqlite3 *db = NULL;
    uint64_t hash;
    int sq = sqlite3_open_v2(a->path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
    a->rc = sq == SQLITE_OK
                ? state_exec(db, a->path, "PRAGMA cell_size_check = ON", &a->e)
                : err_set(&a->e, state_sqlite_err(sq), "%s: %s", a->path, sqlite3_errmsg(db));
    a->rc = a->rc == ERR_OK ? hash_check(db, a->path, &hash, &a->e) : a->rc;
    (void)sqlite3_close(db);
    return NULL;
}

/* Pages and rows at once, the rows over a connection of their own: nobody writes yet, and with a full store
 * it is what a start takes. */
static enum err check_whole_at_start(sqlite3 *db, const char *path, struct errmsg *e)
{
    struct adding rows = {.path = path};
    struct side_work beside;
    side_work_start(&beside, add_up_beside, &rows);
    enum err rc = check_pages(db, path, e);
    side_work_end(&beside);
    return rc == ERR_OK && rows.rc != ERR_OK ? err_set(e, rows.rc, "%s", rows.e.text) : rc;
}

enum err state_schema_check(sqlite3 *db, const char *path, const char *cluster_id,
                            struct errmsg *e)
{
    char cluster[40];
    struct state_marks marks;
    enum err rc = check_length(path, e);
    if (rc == ERR_OK)
        rc = check_kind(db, path, e);
    if (rc == ERR_OK)
        rc = hash_check_marks(db, path, cluster, &marks, e);
    if (rc == ERR_OK && marks.version > PROTO_VERSION)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: the cluster is at version %llu, this program knows %d: upgrade "
                       "regent on this node",
                       path, (unsigned long long)marks.version, (int)PROTO_VERSION);
    if (rc == ERR_OK && cluster_id != NULL && strcmp(cluster, cluster_id) != 0)
        return err_set(
            e, ERR_PRECONDITION,
            "%s: belongs to cluster %s, but this node's certificate is of cluster %s; "
            "use the data_dir of that cluster, or an empty one",
            path, cluster, cluster_id);
    return rc;
}

static enum err create(sqlite3 *db, const char *path, const char *cluster_id, struct errmsg *e)
{
    char text[300];
    enum err rc = state_exec(db, path, "BEGIN IMMEDIATE", e);
    for (size_t i = 0; rc == ERR_OK && i < ARRAY_LEN(schema); i++)
        rc = state_exec(db, path, schema[i], e);
    if (rc == ERR_OK) {
        char *sql =
            sqlite3_mprintf("INSERT INTO store VALUES(%Q, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0,"
                            " 0, 0, %d, 0)",
                            cluster_id, (int)STATE_FIRST_VERSION);
        ASSERT(sql != NULL);
        rc = state_exec(db, path, sql, e);
        sqlite3_free(sql);
    }
    rc = rc == ERR_OK ? hash_reseal(db, path, false, e) : rc;
    (void)snprintf(text, sizeof text,
                   "PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT",
                   (int)STATE_APPLICATION_ID, (int)STATE_SCHEMA_VERSION);
    return rc == ERR_OK ? state_exec(db, path, text, e) : rc;
}

/* Only before the first page: on a file that is there `auto_vacuum` would be a write, and the checkpoint of
 * all that the WAL holds, at each start. */
static enum err set_layout(sqlite3 *db, const char *path, struct errmsg *e)
{
    struct stat st;
    if (stat(path, &st) == 0 && st.st_size > 0)
        return ERR_OK;
    return state_exec(db, path, "PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL", e);
}

enum err state_schema_raise(sqlite3 *db, const char *path, uint64_t from, uint64_t to,
                            struct errmsg *e)
{
    char text[300];
    enum err rc = ERR_OK;
    for (size_t i = 0; rc == ERR_OK && i < ARRAY_LEN(raises); i++) {
        if (raises[i].version <= from || raises[i].version > to)
            continue;
        (void)snprintf(text, sizeof text, "%s; PRAGMA user_version = %d", raises[i].sql,
                       raises[i].schema);
        rc = state_exec(db, path, text, e);
    }
    return rc;
}

enum err state_schema_open(sqlite3 *db, const char *path, const char *cluster_id,
                           struct errmsg *e)
{
    char tables[32];
    enum err rc = set_layout(db, path, e);
    for (size_t i = 0; rc == ERR_OK && i < ARRAY_LEN(pragmas); i++)
        rc = state_exec(db, path, pragmas[i], e);
    if (rc != ERR_OK)
        return rc;
    rc = query_text(db, path, "SELECT count(*) FROM sqlite_schema", tables, sizeof tables, e);
    if (rc != ERR_OK)
        return rc;
    if (strcmp(tables, "0") == 0)
        return create(db, path, cluster_id, e);
    rc = state_schema_check(db, path, cluster_id, e);
    return rc == ERR_OK ? check_whole_at_start(db, path, e) : rc;
}

void marks_read(sqlite3_stmt *st, struct state_marks *ret_marks)
{
    uint64_t *const to[] = {
        &ret_marks->applied,
        &ret_marks->logged,
        &ret_marks->revision,
        &ret_marks->compacted,
        &ret_marks->next_member,
        &ret_marks->event_first,
        &ret_marks->event_next,
        &ret_marks->event_bytes,
        &ret_marks->event_bytes_dropped,
        &ret_marks->event_sum,
        &ret_marks->event_sum_dropped,
        &ret_marks->rows_sum,
        &ret_marks->rest_sum,
        &ret_marks->version,
    };
    for (size_t i = 0; i < ARRAY_LEN(to); i++)
        *to[i] = (uint64_t)sqlite3_column_int64(st, (int)i);
}

static void load_marks(struct state *s)
{
    bool row = sql_row(s, SQL_STORE_GET);
    ASSERT(row); /* quick_check passed and the schema is ours */
    marks_read(sql_get(s, SQL_STORE_GET), &s->m);
    sql_done(s, SQL_STORE_GET);
    s->disk_applied = s->m.applied;
}

static void load_leases(struct state *s)
{
    lease_table_clear(&s->leases);
    while (sql_row(s, SQL_LEASE_ALL)) {
        struct lease l = {
            .id = sql_u64(s, SQL_LEASE_ALL, 0),
            .ttl_ms = sql_u64(s, SQL_LEASE_ALL, 1),
            .nonce = sql_u64(s, SQL_LEASE_ALL, 2),
            .n = sql_u64(s, SQL_LEASE_ALL, 3),
            .session = sql_u64(s, SQL_LEASE_ALL, 4),
        };
        (void)lease_add(&s->leases, &l, 0);
    }
    while (sql_row(s, SQL_KV_COUNT_LEASES)) {
        struct lease *l = lease_find(&s->leases, sql_u64(s, SQL_KV_COUNT_LEASES, 0));
        if (l != NULL)
            l->keys = sql_u64(s, SQL_KV_COUNT_LEASES, 1);
    }
}

static void load_sessions(struct state *s)
{
    session_table_clear(s->sessions);
    while (sql_row(s, SQL_SESSION_ALL)) {
        struct session x = {
            .id = sql_u64(s, SQL_SESSION_ALL, 0),
            .nonce = sql_u64(s, SQL_SESSION_ALL, 1),
            .last_seq = sql_u64(s, SQL_SESSION_ALL, 2),
            .used_index = sql_u64(s, SQL_SESSION_ALL, 3),
        };
        (void)session_add(s->sessions, &x);
    }
}

void state_load(struct state *s)
{
    ASSERT(!s->in_txn);
    load_marks(s);
    load_leases(s);
    load_sessions(s);
    counts_restart(s);
    hash_small(s);
    s->revocations++;
}
