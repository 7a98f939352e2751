/* Copies of state.db: taken for Raft snapshots and backups. See state_restore.c for the way back.
 *
 * The copy is consistent because a second connection pins a read transaction on the loop, right
 * after a full commit; the pages are then copied on any thread while the loop goes on. When
 * state_copy_run() returns, copy and source are durable: the WAL is flushed too, because the log may
 * now be cut, and a power loss must not take state.db back to before the cut. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "base/mem.h"
#include "dcs/state_internal.h"

enum { COPY_MAGIC = 0x434f5059, COPY_PAGES_PER_STEP = 256 };

struct state_copy {
    uint32_t magic;
    sqlite3 *db; /* holds the pinned read transaction */
    char *source;
    char cluster_id[40];
};

static void copy_free(struct state_copy *c)
{
    (void)sqlite3_close(c->db); /* ends the read transaction */
    mem_free(c->source);
    c->magic = 0;
    mem_free(c);
}

enum err state_copy_begin(struct state *s, struct state_copy **ret_copy, struct errmsg *e)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    ASSERT(!s->in_txn && s->disk_applied == s->m.applied); /* right after state_commit_full() */
    struct state_copy *c = mem_alloc(sizeof *c);
    c->magic = COPY_MAGIC;
    c->source = mem_strdup(s->path);
    memcpy(c->cluster_id, s->cluster_id, sizeof c->cluster_id);
    int sq = sqlite3_open_v2(s->path, &c->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
    enum err rc = sq == SQLITE_OK ? ERR_OK
                                  : err_set(e, state_sqlite_err(sq), "%s: %s", s->path,
                                            sqlite3_errmsg(c->db));
    /* BEGIN alone takes no snapshot: the first read does. */
    if (rc == ERR_OK)
        rc = state_exec(c->db, s->path, "BEGIN; SELECT applied FROM store", e);
    if (rc != ERR_OK) {
        copy_free(c);
        return rc;
    }
    *ret_copy = c;
    return ERR_OK;
}

static enum err sync_file(const char *path, bool may_be_absent, struct errmsg *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT && may_be_absent)
        return ERR_OK;
    bool ok = fd >= 0 && fsync(fd) == 0;
    int saved = errno;
    if (fd >= 0)
        (void)close(fd);
    return ok ? ERR_OK : err_set(e, err_from_errno(saved), "%s: %s", path, strerror(saved));
}

enum err state_copy_pages(sqlite3 *from, sqlite3 *to, const char *path, const char *synced,
                          struct errmsg *e)
{
    sqlite3_backup *b = sqlite3_backup_init(to, "main", from, "main");
    if (b == NULL)
        return err_set(e, state_sqlite_err(sqlite3_errcode(to)), "%s: %s", path,
                       sqlite3_errmsg(to));
    int rc;
    enum err durable = ERR_OK;
    do {
        rc = sqlite3_backup_step(b, COPY_PAGES_PER_STEP);
        if (rc == SQLITE_OK)
            durable = sync_file(synced, true, e);
    } while (rc == SQLITE_OK && durable == ERR_OK);
    (void)sqlite3_backup_finish(b);
    if (durable != ERR_OK)
        return durable;
    if (rc == SQLITE_DONE)
        return ERR_OK;
    return err_set(e, state_sqlite_err(rc), "%s: copying the state: %s", path,
                   sqlite3_errstr(rc));
}

/* One plain file without a WAL. `logged` is the mark of the member that made it, not of one that
 * will install it. */
static enum err write_copy(struct state_copy *c, const char *path, struct errmsg *e)
{
    sqlite3 *to = NULL;
    int sq = sqlite3_open_v2(
        path, &to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    enum err rc = sq == SQLITE_OK
                      ? ERR_OK
                      : err_set(e, state_sqlite_err(sq), "%s: %s", path, sqlite3_errmsg(to));
    if (rc == ERR_OK)
        rc = state_exec(
            to, path,
            "PRAGMA page_size = 4096; PRAGMA synchronous = OFF; PRAGMA cache_size = 16", e);
    if (rc == ERR_OK)
        rc = state_copy_pages(c->db, to, path, path, e);
    if (rc == ERR_OK)
        rc = state_exec(
            to, path,
            "PRAGMA journal_mode = DELETE; UPDATE store SET logged = 0;"
            "INSERT OR REPLACE INTO snapshot_header SELECT 'format', 1;"
            "INSERT OR REPLACE INTO snapshot_header SELECT 'applied', applied FROM store;"
            "INSERT OR REPLACE INTO snapshot_header SELECT 'revision', revision FROM store",
            e);
    if (rc == ERR_OK)
        rc = hash_reseal(to, path, false, e);
    (void)sqlite3_close(to);
    return rc == ERR_OK ? sync_file(path, false, e) : rc;
}

enum err state_copy_run(struct state_copy *c, const char *path, struct errmsg *e)
{
    CHECK_MAGIC(c, COPY_MAGIC);
    /* Created here, so that it is 0600 from the first byte; an older one of that name goes. */
    (void)unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    enum err rc =
        fd >= 0 ? ERR_OK : err_set(e, err_from_errno(errno), "%s: %s", path, strerror(errno));
    if (fd >= 0)
        (void)close(fd);
    if (rc == ERR_OK)
        rc = write_copy(c, path, e);
    char *wal = mem_printf("%s-wal", c->source);
    if (rc == ERR_OK)
        rc = sync_file(wal, true, e);
    if (rc != ERR_OK)
        (void)unlink(path);
    mem_free(wal);
    copy_free(c);
    return rc;
}

enum err state_copy_hash(struct state_copy *c, uint64_t *ret_hash, struct errmsg *e)
{
    CHECK_MAGIC(c, COPY_MAGIC);
    enum err rc = hash_check(c->db, c->source, ret_hash, e);
    copy_free(c);
    return rc;
}

enum err state_copy_query(struct state_copy *c, const struct sql_req *q, struct buf *ret_reply,
                          struct errmsg *e)
{
    CHECK_MAGIC(c, COPY_MAGIC);
    enum err rc = query_database(c->db, q, ret_reply, e);
    copy_free(c);
    return rc;
}

void state_copy_cancel(struct state_copy *c)
{
    if (c == NULL)
        return;
    CHECK_MAGIC(c, COPY_MAGIC);
    copy_free(c);
}

/* ---- the file as such ---- */

enum err state_file_check(const char *path, struct errmsg *e)
{
    sqlite3 *db = NULL;
    int sq = sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
    enum err rc = sq == SQLITE_OK
                      ? state_schema_check(db, path, NULL, e)
                      : err_set(e, state_sqlite_err(sq), "%s: %s", path, sqlite3_errmsg(db));
    rc = rc == ERR_OK ? state_schema_check_whole(db, path, e) : rc;
    (void)sqlite3_close(db);
    return rc;
}

enum err state_file_digest(const char *path, uint8_t ret_sha256[static 32], uint64_t *ret_size,
                           struct errmsg *e)
{
    uint8_t piece[64 * 1024];
    uint64_t size = 0;
    ssize_t n = -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool sound = md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1;
    while (fd >= 0 && sound && (n = read(fd, piece, sizeof piece)) > 0) {
        sound = EVP_DigestUpdate(md, piece, (size_t)n) == 1;
        size += (uint64_t)n;
    }
    int saved = errno;
    sound = sound && EVP_DigestFinal_ex(md, ret_sha256, NULL) == 1;
    EVP_MD_CTX_free(md);
    if (fd >= 0)
        (void)close(fd);
    if (fd < 0 || n < 0)
        return err_set(e, err_from_errno(saved), "%s: %s", path, strerror(saved));
    if (!sound)
        return err_set(e, ERR_INTERNAL, "%s: SHA-256 failed", path);
    *ret_size = size;
    return ERR_OK;
}
