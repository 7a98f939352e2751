/* Schema, what is found at start, bootstrap. Nothing is repaired: a log that is not what was written
 * makes the node a liar to its peers, so it does not start. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/mem.h"
#include "dcs/log_store_internal.h"
#include "dcs/raft_frame.h"
#include "dcs/raft_membership.h"

enum { SCHEMA_VERSION = 1, APPLICATION_ID = 0x52674c67 };

#define REMEDY                                                                               \
    "Remove the node (`regentctl member remove NAME`) and join it again with an empty data " \
    "directory"

static const char SCHEMA[] =
    "BEGIN IMMEDIATE;"
    "CREATE TABLE log(idx INTEGER PRIMARY KEY, term INTEGER NOT NULL, type INTEGER NOT NULL,"
    " data BLOB NOT NULL, crc INTEGER NOT NULL);"
    "CREATE TABLE meta(id INTEGER PRIMARY KEY CHECK(id = 1), term INTEGER NOT NULL, vote "
    "INTEGER NOT NULL,"
    " crc INTEGER NOT NULL);"
    "CREATE TABLE snapshot(id INTEGER PRIMARY KEY CHECK(id = 1), idx INTEGER NOT NULL, term "
    "INTEGER NOT NULL,"
    " membership_idx INTEGER NOT NULL, membership BLOB NOT NULL, size INTEGER NOT NULL,"
    " sha256 BLOB NOT NULL, crc INTEGER NOT NULL);"
    "PRAGMA application_id = 1382501479;"
    "PRAGMA user_version = 1;"
    "COMMIT;";

/* ---- checksums: over the fields big-endian, then the bytes ---- */

static uint32_t crc_number(uint32_t crc, uint64_t v)
{
    uint8_t b[8];
    for (unsigned i = 0; i < 8; i++)
        b[i] = (uint8_t)(v >> (56 - 8 * i));
    return (uint32_t)crc32(crc, b, sizeof b);
}

static uint32_t crc_bytes(uint32_t crc, struct slice s)
{
    return s.n == 0 ? crc : (uint32_t)crc32_z(crc, s.p, s.n);
}

uint32_t log_store_entry_crc(uint64_t index, const struct raft_entry_view *entry)
{
    uint32_t crc =
        crc_number(crc_number(crc_number(0, index), entry->term), (uint64_t)entry->type);
    return crc_bytes(crc, entry->data);
}

uint32_t log_store_meta_crc(uint64_t term, uint64_t voted_for)
{
    return crc_number(crc_number(0, term), voted_for);
}

uint32_t log_store_snapshot_crc(const struct raft_snapshot_info *info, struct slice membership)
{
    uint32_t crc = crc_number(crc_number(0, info->index), info->term);
    crc = crc_number(crc_number(crc, info->membership.index), info->size);
    crc = crc_bytes(crc, slice_of(info->sha256, sizeof info->sha256));
    return crc_bytes(crc, membership);
}

/* ---- opening ---- */

static enum err sql_error(struct log_store *s, struct errmsg *e, const char *what)
{
    int code = sqlite3_errcode(s->db) & 0xff;
    if (code == SQLITE_BUSY)
        return err_set(e, ERR_UNAVAILABLE, "%s/log.db is in use by another process", s->dir);
    if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB)
        return err_set(e, ERR_CORRUPT, "%s/log.db is damaged (%s: %s). " REMEDY, s->dir, what,
                       sqlite3_errmsg(s->db));
    if (code == SQLITE_FULL)
        return err_set(e, ERR_NO_SPACE, "%s/log.db: no space left", s->dir);
    return err_set(e, ERR_IO, "%s/log.db: %s: %s", s->dir, what, sqlite3_errmsg(s->db));
}

static enum err exec(struct log_store *s, const char *sql, struct errmsg *e)
{
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? ERR_OK
                                                                   : sql_error(s, e, sql);
}

/* One value of one row. */
static enum err query(struct log_store *s, const char *sql, int64_t *ret, char *ret_text,
                      size_t size, struct errmsg *e)
{
    sqlite3_stmt *q = NULL;
    enum err r = ERR_OK;
    if (sqlite3_prepare_v2(s->db, sql, -1, &q, NULL) != SQLITE_OK ||
        sqlite3_step(q) != SQLITE_ROW) {
        r = sql_error(s, e, sql);
    } else if (ret_text != NULL) {
        const char *t = (const char *)sqlite3_column_text(q, 0);
        (void)snprintf(ret_text, size, "%s", t == NULL ? "" : t);
    } else {
        *ret = sqlite3_column_int64(q, 0);
    }
    (void)sqlite3_finalize(q);
    return r;
}

static enum err check_schema(struct log_store *s, struct errmsg *e)
{
    int64_t version = 0;
    int64_t application = 0;
    int64_t tables = 0;
    enum err r = query(s, "PRAGMA user_version", &version, NULL, 0, e);
    if (r == ERR_OK)
        r = query(s, "PRAGMA application_id", &application, NULL, 0, e);
    if (r == ERR_OK)
        r = query(s, "SELECT count(*) FROM sqlite_schema", &tables, NULL, 0, e);
    if (r != ERR_OK)
        return r;
    if (version == 0 && application == 0 && tables == 0)
        return exec(s, SCHEMA, e);
    if (application != APPLICATION_ID)
        return err_set(e, ERR_CORRUPT,
                       "%s/log.db is no log of regent, or its header is damaged. " REMEDY,
                       s->dir);
    if (version != SCHEMA_VERSION)
        return err_set(e, ERR_UNSUPPORTED, "%s/log.db has version %lld, this regentd knows %d",
                       s->dir, (long long)version, SCHEMA_VERSION);
    return ERR_OK;
}

static enum err check_structure(struct log_store *s, struct errmsg *e)
{
    char text[200] = "";
    enum err r = query(s, "PRAGMA quick_check(1)", NULL, text, sizeof text, e);
    for (char *p = text; *p != '\0'; p++)
        *p = *p == '\n' ? ' ' : *p; /* what is reported is one line */
    if (r == ERR_OK && strcmp(text, "ok") != 0)
        return err_set(e, ERR_CORRUPT, "%s/log.db is damaged (%s). " REMEDY, s->dir, text);
    return r;
}

/* SQLite would create it with the umask's permissions, and the WAL with the same; it is nobody else's to
 * read. */
static enum err make_private(const char *path, struct errmsg *e)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0)
        (void)close(fd);
    else if (errno != EEXIST || chmod(path, 0600) != 0)
        return err_set(e, err_from_errno(errno), "%s: %s", path, strerror(errno));
    return ERR_OK;
}

enum err log_store_open_db(struct log_store *s, struct errmsg *e)
{
    char path[LOG_STORE_PATH_MAX + 16];
    (void)snprintf(path, sizeof path, "%s/log.db", s->dir);
    enum err private = make_private(path, e);
    if (private != ERR_OK)
        return private;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
                SQLITE_OPEN_EXRESCODE;
    if (sqlite3_open_v2(path, &s->db, flags, NULL) != SQLITE_OK)
        return err_set(e, ERR_IO, "cannot open %s: %s", path, sqlite3_errmsg(s->db));
    char mode[16] = "";
    /* Small pages: an entry of a few renewals, the commonest by far, writes a whole one. A small cache: rows
     * are only added at the end and deleted at the front, none is read again. */
    enum err r = exec(
        s, "PRAGMA page_size=2048; PRAGMA locking_mode=EXCLUSIVE; PRAGMA cache_size=-256", e);
    if (r == ERR_OK)
        r = query(s, "PRAGMA journal_mode=WAL", NULL, mode, sizeof mode, e);
    if (r == ERR_OK && strcmp(mode, "wal") != 0)
        return err_set(e, ERR_IO, "%s: no write-ahead log here (%s)", path, mode);
    if (r ==
        ERR_OK) /* the checkpoint writes anew whatever an earlier process left in the WAL */
        r = exec(
            s,
            "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0; PRAGMA cell_size_check=1;"
            "BEGIN IMMEDIATE; COMMIT; PRAGMA wal_checkpoint(TRUNCATE)",
            e);
    if (r == ERR_OK)
        r = check_schema(s, e);
    return r == ERR_OK ? check_structure(s, e) : r;
}

/* ---- loading ---- */

static struct slice column_blob(sqlite3_stmt *q, int i)
{
    const void *p = sqlite3_column_blob(q, i);
    return slice_of(p, (size_t)sqlite3_column_bytes(q, i));
}

static uint64_t column(sqlite3_stmt *q, int i)
{
    return (uint64_t)sqlite3_column_int64(q, i);
}

static enum err load_meta(struct log_store *s, struct raft_core_disk *d, bool *ret_found,
                          struct errmsg *e)
{
    sqlite3_stmt *q = NULL;
    enum err r = ERR_OK;
    int code = sqlite3_prepare_v2(s->db, "SELECT term, vote, crc FROM meta WHERE id = 1", -1,
                                  &q, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(q);
    *ret_found = code == SQLITE_ROW;
    if (code == SQLITE_ROW) {
        d->term = column(q, 0);
        d->voted_for = column(q, 1);
        if (log_store_meta_crc(d->term, d->voted_for) != column(q, 2) || d->term == 0 ||
            d->term > INT64_MAX)
            r = err_set(e, ERR_CORRUPT, "%s/log.db: term and vote are damaged. " REMEDY,
                        s->dir);
    } else if (code != SQLITE_DONE) {
        r = sql_error(s, e, "term and vote");
    }
    (void)sqlite3_finalize(q);
    return r;
}

/* The row's own soundness; then whether the file it names is there. */
static enum err check_snapshot(struct log_store *s, sqlite3_stmt *q,
                               struct raft_snapshot_info *info, struct errmsg *e)
{
    struct slice membership = column_blob(q, 3);
    struct slice hash = column_blob(q, 5);
    info->index = column(q, 0);
    info->term = column(q, 1);
    info->size = column(q, 4);
    bool sound = hash.n == sizeof info->sha256 &&
                 raft_membership_decode(membership, column(q, 2), &info->membership) == ERR_OK;
    if (sound)
        memcpy(info->sha256, hash.p, sizeof info->sha256);
    if (!sound || log_store_snapshot_crc(info, membership) != column(q, 6))
        return err_set(e, ERR_CORRUPT,
                       "%s/log.db: the record of the snapshot is damaged. " REMEDY, s->dir);
    char path[LOG_STORE_PATH_MAX + 64];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/snapshot-%llu.db", s->dir,
                   (unsigned long long)info->index);
    if (stat(path, &st) != 0)
        return err_set(e, ERR_CORRUPT, "the snapshot %s is missing (%s). " REMEDY, path,
                       strerror(errno));
    if ((uint64_t)st.st_size != info->size)
        return err_set(e, ERR_CORRUPT, "the snapshot %s has %lld bytes, not %llu. " REMEDY,
                       path, (long long)st.st_size, (unsigned long long)info->size);
    return ERR_OK;
}

static enum err load_snapshot(struct log_store *s, struct raft_core_disk *d, struct errmsg *e)
{
    sqlite3_stmt *q = NULL;
    enum err r = ERR_OK;
    int code = sqlite3_prepare_v2(
        s->db,
        "SELECT idx, term, membership_idx, membership, size, sha256, crc FROM snapshot "
        "WHERE id = 1",
        -1, &q, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(q);
    if (code == SQLITE_ROW) {
        d->has_snapshot = true;
        r = check_snapshot(s, q, &d->snapshot, e);
    } else if (code != SQLITE_DONE) {
        r = sql_error(s, e, "the snapshot");
    }
    (void)sqlite3_finalize(q);
    return r;
}

static enum err load_entry(struct log_store *s, sqlite3_stmt *q, uint64_t expected,
                           struct errmsg *e)
{
    uint64_t index = column(q, 0);
    struct raft_entry_view v = {.term = column(q, 1), .data = column_blob(q, 3)};
    int64_t type = sqlite3_column_int64(q, 2);
    if (expected != 0 && index != expected)
        return err_set(e, ERR_CORRUPT, "%s/log.db: entries %llu to %llu are missing. " REMEDY,
                       s->dir, (unsigned long long)expected, (unsigned long long)index - 1);
    v.type = (enum raft_entry_type)type;
    if (type < RAFT_ENTRY_COMMAND || type > RAFT_ENTRY_CHANGE || v.term == 0 || index == 0 ||
        v.data.n > RAFT_FRAME_ENTRY_MAX || log_store_entry_crc(index, &v) != column(q, 4))
        return err_set(e, ERR_CORRUPT, "%s/log.db: entry %llu is damaged. " REMEDY, s->dir,
                       (unsigned long long)index);
    v.data =
        slice_of(mem_dup(v.data.p == NULL ? (const void *)"" : v.data.p, v.data.n), v.data.n);
    s->loaded[s->n_loaded++] = v;
    return ERR_OK;
}

static enum err load_entries(struct log_store *s, struct raft_core_disk *d, struct errmsg *e)
{
    size_t cap = 1024;
    s->loaded = mem_array(cap, sizeof *s->loaded);
    sqlite3_stmt *q = NULL;
    int code = sqlite3_prepare_v2(
        s->db, "SELECT idx, term, type, data, crc FROM log ORDER BY idx", -1, &q, NULL);
    enum err r = ERR_OK;
    while (r == ERR_OK && code == SQLITE_OK && (code = sqlite3_step(q)) == SQLITE_ROW) {
        if (s->n_loaded == cap)
            s->loaded = mem_resize(s->loaded, (cap *= 2) * sizeof *s->loaded);
        if (s->n_loaded == 0)
            d->first_index = column(q, 0);
        r = load_entry(s, q, s->n_loaded == 0 ? 0 : d->first_index + s->n_loaded, e);
        code = SQLITE_OK;
    }
    if (r == ERR_OK && code != SQLITE_DONE)
        r = sql_error(s, e, "the entries");
    (void)sqlite3_finalize(q);
    d->entries = s->loaded;
    d->n = s->n_loaded;
    return r;
}

static uint64_t last_index(const struct raft_core_disk *d)
{
    return d->first_index + d->n - 1;
}

enum err log_store_check_logged(const struct raft_core_disk *d, uint64_t logged,
                                struct errmsg *e)
{
    uint64_t last = last_index(d);
    if (last >= logged)
        return ERR_OK;
    return err_set(
        e, ERR_CORRUPT,
        "log.db ends at entry %llu but entry %llu was acknowledged by this node: the "
        "disk lost writes. " REMEDY,
        (unsigned long long)last, (unsigned long long)logged);
}

static enum err check_whole(struct log_store *s, const struct raft_core_disk *d, bool has_meta,
                            struct errmsg *e)
{
    uint64_t last = last_index(d);
    if (!has_meta && (d->n > 0 || d->has_snapshot))
        return err_set(e, ERR_CORRUPT, "%s/log.db: term and vote are missing. " REMEDY, s->dir);
    if (d->n > 0 && !d->has_snapshot && d->first_index != 1)
        return err_set(e, ERR_CORRUPT,
                       "%s/log.db begins at entry %llu and there is no snapshot. " REMEDY,
                       s->dir, (unsigned long long)d->first_index);
    if (d->has_snapshot && (d->first_index > d->snapshot.index + 1 || last < d->snapshot.index))
        return err_set(
            e, ERR_CORRUPT,
            "%s/log.db (entries %llu to %llu) does not meet its snapshot at %llu. " REMEDY,
            s->dir, (unsigned long long)d->first_index, (unsigned long long)last,
            (unsigned long long)d->snapshot.index);
    return ERR_OK;
}

enum err log_store_load(struct log_store *s, struct raft_core_disk *ret_disk, struct errmsg *e)
{
    struct raft_core_disk d = {.first_index = 1};
    bool has_meta = false;
    enum err r = load_meta(s, &d, &has_meta, e);
    if (r == ERR_OK)
        r = load_snapshot(s, &d, e);
    if (r == ERR_OK && d.has_snapshot)
        d.first_index = d.snapshot.index + 1;
    if (r == ERR_OK)
        r = load_entries(s, &d, e);
    if (r == ERR_OK)
        r = check_whole(s, &d, has_meta, e);
    if (r != ERR_OK)
        return r;
    s->first_row = d.n > 0 ? d.first_index : 0;
    s->empty = !has_meta && d.n == 0 && !d.has_snapshot;
    *ret_disk = d;
    return ERR_OK;
}

/* ---- bootstrap ---- */

static enum err write_first(struct log_store *s, const struct log_op *ops, struct errmsg *e)
{
    CHECK_MAGIC(s, LOG_STORE_MAGIC);
    ASSERT(!s->started);
    if (!s->empty)
        return err_set(e, ERR_EXISTS, "%s/log.db is not empty: this node is a member already",
                       s->dir);
    if (log_store_commit(s, ops) != SQLITE_OK)
        return sql_error(s, e, "bootstrap");
    s->empty = false;
    return ERR_OK;
}

enum err log_store_bootstrap(struct log_store *s, struct slice entry, struct errmsg *e)
{
    struct raft_entry_view v = {.term = 1, .type = RAFT_ENTRY_CHANGE, .data = entry};
    struct log_op append = {.type = LOG_OP_APPEND, .index = 1, .entries = &v, .n = 1};
    struct log_op meta = {.next = &append, .type = LOG_OP_META, .term = 1};
    return write_first(s, &meta, e);
}

enum err log_store_reborn(struct log_store *s, struct raft_snapshot_info *info,
                          struct errmsg *e)
{
    struct log_op snapshot = {.type = LOG_OP_SNAPSHOT, .info = info, .installed = true};
    struct log_op meta = {.next = &snapshot, .type = LOG_OP_META, .term = info->term};
    return write_first(s, &meta, e);
}
