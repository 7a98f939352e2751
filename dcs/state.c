/* Opening, marks and the commit of a pass. See state_internal.h for the other files.
 *
 * What is durable when: a commit is in the WAL, not fsynced. See state_schema.c for why that is
 * enough, and docs/FORMATS.md for the tables. */
#include "dcs/state_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"

enum {
    WAL_PAGES_SOFT = 8192,   /* the worker is woken: 32 MiB */
    VACUUM_PAGES_MIN = 1024, /* free ones: 4 MiB */
    WAL_PAGES_HARD = 65536,  /* nobody has given it one: the committing thread helps */
};

#define QUOTA_BYTES ((uint64_t)256 * 1024 * 1024)
#define QUOTA_RESERVED_BYTES ((uint64_t)32 * 1024 * 1024)

static int on_wal(void *arg, sqlite3 *db, const char *name, int pages)
{
    struct state *s = arg;
    (void)name;
    CHECK_MAGIC(s, STATE_MAGIC);
    if (pages < s->wal_woken_pages) { /* it began anew */
        s->wal_woken_pages = 0;
        s->wal_long_pages = WAL_PAGES_LONG;
    }
    s->wal_pages = pages;
    if (pages >= s->wal_long_pages || pages >= s->wal_woken_pages + WAL_PAGES_SOFT) {
        s->wal_woken_pages = pages;
        checkpointer_wake(s->checkpointer);
    }
    if (pages >= WAL_PAGES_HARD && s->wal_long_pages == WAL_PAGES_LONG) {
        int rc = sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
        if (rc != SQLITE_OK && rc != SQLITE_BUSY && state_sqlite_err(rc) != ERR_NO_SPACE)
            state_fatal(s, "checkpoint");
    }
    return SQLITE_OK;
}

/* SQLite would create it with the umask's permissions; this one is nobody else's to read. */
static enum err touch_private(const char *path, struct errmsg *e)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0) {
        (void)close(fd);
        return ERR_OK;
    }
    /* A file that is there is not opened here: closing it would drop SQLite's locks. */
    if (errno == EEXIST)
        return ERR_OK;
    return err_set(e, err_from_errno(errno), "%s: %s", path, strerror(errno));
}

/* SQLite's own statistics cost a mutex per allocation, a twentieth of a put; nobody reads them. It only
 * works before SQLite's first use in this process; later it does nothing. */
static void configure_sqlite(void)
{
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

void state_init_library(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, configure_sqlite);
}

static enum err open_db(struct state *s, struct errmsg *e)
{
    enum err rc = touch_private(s->path, e);
    if (rc != ERR_OK)
        return rc;
    int sq =
        sqlite3_open_v2(s->path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (sq != SQLITE_OK)
        return err_set(e, state_sqlite_err(sq), "%s: %s", s->path, sqlite3_errmsg(s->db));
    (void)sqlite3_busy_timeout(s->db,
                               5000); /* readers beside us: checkpoints, `regentctl sql` */
    rc = state_schema_open(s->db, s->path, s->cluster_id, e);
    return rc == ERR_OK ? state_prepare_all(s, e) : rc;
}

enum err state_open(const char *path, const char *cluster_id, struct state **ret_state,
                    struct errmsg *e)
{
    struct state *s = mem_alloc(sizeof *s);
    state_init_library();
    s->magic = STATE_MAGIC;
    s->path = mem_strdup(path);
    s->sessions = mem_alloc(sizeof *s->sessions);
    list_init(&s->counts);
    s->checkpointer = checkpointer_new(path);
    s->wal_long_pages = WAL_PAGES_LONG;
    enum err rc = str_copy(s->cluster_id, sizeof s->cluster_id, cluster_id);
    if (rc != ERR_OK || cluster_id[0] == '\0')
        rc = err_set(e, ERR_INVALID, "%s: the cluster id is empty or too long", path);
    else
        rc = open_db(s, e);
    if (rc != ERR_OK) {
        state_close(s);
        return rc;
    }
    state_load(s);
    (void)sqlite3_db_release_memory(s->db); /* the check read every page */
    (void)sqlite3_wal_hook(s->db, on_wal, s);
    s->news = true; /* what an earlier process left in the WAL */
    *ret_state = s;
    return ERR_OK;
}

void state_close(struct state *s)
{
    if (s == NULL)
        return;
    CHECK_MAGIC(s, STATE_MAGIC);
    ASSERT(list_empty(&s->counts));
    if (s->db != NULL && s->stmt[SQL_ROLLBACK] != NULL)
        state_rollback(s); /* uncommitted: the log has it */
    checkpointer_free(s->checkpointer);
    state_finalize_all(s);
    (void)sqlite3_close(s->db);
    lease_table_close(&s->leases);
    mem_free(s->sessions);
    mem_free(s->path);
    buf_close(&s->value);
    buf_close(&s->keys);
    buf_close(&s->result);
    buf_close(&s->brief);
    s->magic = 0;
    mem_free(s);
}

uint64_t state_db_applied(const struct state *s)
{
    return s->m.applied;
}

uint64_t state_logged(const struct state *s)
{
    return s->m.logged;
}

uint64_t state_work(const struct state *s)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    return s->work;
}

uint64_t state_revision(const struct state *s)
{
    return s->m.revision;
}

uint64_t state_compacted(const struct state *s)
{
    return s->m.compacted;
}

/* ---- commit ---- */

/* Counters and TTLs as of this commit's index: were one missing, an expiry further on would be void
 * on the members that still know the renewal and applied on the one that forgot it. */
static void write_leases(struct state *s)
{
    struct lease_table *t = &s->leases;
    for (size_t i = 0; t->n_dirty > 0 && i < t->n; i++) {
        struct lease *l = &t->v[i];
        if (!l->dirty)
            continue;
        sql_bind_u64(s, SQL_LEASE_UPDATE, 1, l->id);
        sql_bind_u64(s, SQL_LEASE_UPDATE, 2, l->ttl_ms);
        sql_bind_u64(s, SQL_LEASE_UPDATE, 3, l->nonce);
        sql_bind_u64(s, SQL_LEASE_UPDATE, 4, l->n);
        sql_write(s, SQL_LEASE_UPDATE);
        l->dirty = false;
        t->n_dirty--;
    }
    ASSERT(t->n_dirty == 0);
}

static void write_sessions(struct state *s)
{
    struct session_table *t = s->sessions;
    for (size_t i = 0; t->n_dirty > 0 && i < t->n; i++) {
        struct session *x = &t->v[i];
        if (!x->dirty)
            continue;
        sql_bind_u64(s, SQL_SESSION_UPDATE, 1, x->id);
        sql_bind_u64(s, SQL_SESSION_UPDATE, 2, x->last_seq);
        sql_bind_u64(s, SQL_SESSION_UPDATE, 3, x->used_index);
        sql_write(s, SQL_SESSION_UPDATE);
        x->dirty = false;
        t->n_dirty--;
    }
    ASSERT(t->n_dirty == 0);
}

static void write_marks(struct state *s)
{
    sql_bind_u64(s, SQL_STORE_SET, 1, s->m.applied);
    sql_bind_u64(s, SQL_STORE_SET, 2, s->m.logged);
    sql_bind_u64(s, SQL_STORE_SET, 3, s->m.revision);
    sql_bind_u64(s, SQL_STORE_SET, 4, s->m.compacted);
    sql_bind_u64(s, SQL_STORE_SET, 5, s->m.next_member);
    sql_bind_u64(s, SQL_STORE_SET, 6, s->m.event_first);
    sql_bind_u64(s, SQL_STORE_SET, 7, s->m.event_next);
    sql_bind_u64(s, SQL_STORE_SET, 8, s->m.event_bytes);
    sql_bind_u64(s, SQL_STORE_SET, 9, s->m.event_bytes_dropped);
    sql_bind_u64(s, SQL_STORE_SET, 10, s->m.event_sum);
    sql_bind_u64(s, SQL_STORE_SET, 11, s->m.event_sum_dropped);
    sql_bind_u64(s, SQL_STORE_SET, 12, s->m.rows_sum);
    uint64_t seal = hash_seal(s);
    sql_bind_u64(s, SQL_STORE_SET, 13, s->m.rest_sum);
    sql_bind_u64(s, SQL_STORE_SET, 14, s->m.version);
    sql_bind_u64(s, SQL_STORE_SET, 15, seal);
    sql_write(s, SQL_STORE_SET);
}

bool state_uncommitted(const struct state *s)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    return s->in_txn;
}

/* Deleted keys leave free pages, which are given back a few at a time: under a steady load they would only
 * be needed again. */
static void shrink(struct state *s)
{
    uint64_t free_pages = sql_one_u64(s, SQL_FREE_PAGES);
    if (free_pages < VACUUM_PAGES_MIN || free_pages < sql_one_u64(s, SQL_PAGES) / 4)
        return;
    while (sql_row(s, SQL_VACUUM)) {
    }
}

void state_commit(struct state *s, uint64_t logged)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    if (!s->in_txn)
        return;
    /* The mark only rises: what was durable in the log once may not be missing from it later. */
    s->m.logged = MAX(s->m.logged, logged);
    write_leases(s);
    write_sessions(s);
    write_marks(s);
    bool row = sql_row(s, SQL_COMMIT);
    ASSERT(!row);
    s->in_txn = false;
    s->disk_applied = s->m.applied;
    s->commits++;
    shrink(s);
}

void state_commit_full(struct state *s, uint64_t logged)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    if (s->disk_applied != s->m.applied)
        state_begin(s);
    state_commit(s, logged);
    ASSERT(s->leases.n_dirty == 0 && s->sessions->n_dirty == 0);
}

/* ---- the WAL ---- */

bool state_wal_long(const struct state *s)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    return s->wal_pages >= s->wal_long_pages;
}

bool state_wal_settled(struct state *s)
{
    bool whole;
    CHECK_MAGIC(s, STATE_MAGIC);
    if (!checkpointer_idle(s->checkpointer, &whole))
        return false;
    /* A reader kept it from its end: once more when as much has come again. */
    s->wal_long_pages = whole ? WAL_PAGES_LONG : s->wal_pages + WAL_PAGES_SOFT;
    s->wal_pages = 0;
    return true;
}

void state_tidy(struct state *s, uint64_t now_ms)
{
    enum { QUIET_MS = 2000, AT_LATEST_MS = 30000 };
    CHECK_MAGIC(s, STATE_MAGIC);
    if (!s->news)
        return;
    if (s->news_since_ms == 0)
        s->news_since_ms = now_ms;
    if (s->in_txn || s->commits != s->quiet_commits)
        s->quiet_since_ms = now_ms;
    s->quiet_commits = s->commits;
    if (now_ms < s->quiet_since_ms + QUIET_MS && now_ms < s->news_since_ms + AT_LATEST_MS)
        return;
    s->news = s->in_txn;
    s->news_since_ms = 0;
    checkpointer_wake(s->checkpointer);
}

/* ---- quota ---- */

uint64_t state_quota_bytes(void)
{
    return QUOTA_BYTES;
}

size_t state_db_bytes(struct state *s)
{
    return (size_t)sql_one_u64(s, SQL_BYTES);
}

enum err state_admit(struct state *s, size_t bytes, bool reserved, struct errmsg *e)
{
    uint64_t limit = QUOTA_BYTES + (reserved ? QUOTA_RESERVED_BYTES : 0);
    uint64_t used = state_db_bytes(s);
    /* Each byte written may stand twice: in kv and in the history. */
    if (used + 2 * (uint64_t)bytes <= limit)
        return ERR_OK;
    return err_set(e, ERR_NO_SPACE,
                   "the store holds %llu of %llu MiB: delete keys or make the values smaller; "
                   "history goes by itself",
                   (unsigned long long)(used >> 20), (unsigned long long)(limit >> 20));
}
