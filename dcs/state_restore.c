/* A file in the place of state.db: a snapshot that was installed, a saved copy.
 *
 * A second connection writes all its pages in one transaction of the WAL: a crash leaves the old state or
 * the new one. The loop's own connection is pinned to the old one meanwhile, so that what it reads and what
 * it has in memory stay of one moment. */
#include <limits.h>
#include <stdio.h>

#include "base/mem.h"
#include "dcs/state_internal.h"

enum { RESTORING_MAGIC = 0x52535452, BUSY_MS = 5000 };

struct state_restoring {
    uint32_t magic;
    char *path, *target;
    char cluster_id[40];
    uint64_t index;
    bool done; /* run() has put it in place */
};

static enum err open_database(const char *path, int flags, sqlite3 **ret_db, struct errmsg *e)
{
    int sq = sqlite3_open_v2(path, ret_db, flags | SQLITE_OPEN_NOMUTEX, NULL);
    return sq == SQLITE_OK
               ? ERR_OK
               : err_set(e, state_sqlite_err(sq), "%s: %s", path, sqlite3_errmsg(*ret_db));
}

static enum err open_source(const struct state_restoring *r, sqlite3 **ret_db, struct errmsg *e)
{
    enum err rc = open_database(r->path, SQLITE_OPEN_READONLY, ret_db, e);
    rc = rc == ERR_OK ? state_schema_check(*ret_db, r->path, r->cluster_id, e) : rc;
    return rc == ERR_OK ? state_exec(*ret_db, r->path, "BEGIN; SELECT applied FROM store", e)
                        : rc;
}

/* Nothing else writes: the checkpointer alone is there, and for the journal's mode to be read. */
static enum err open_target(const struct state_restoring *r, sqlite3 **ret_db, struct errmsg *e)
{
    enum err rc = open_database(r->target, SQLITE_OPEN_READWRITE, ret_db, e);
    if (rc != ERR_OK)
        return rc;
    (void)sqlite3_busy_timeout(*ret_db, BUSY_MS);
    return state_exec(*ret_db, r->target,
                      "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0;"
                      "PRAGMA cache_size = -1024; SELECT applied FROM store",
                      e);
}

enum err state_restore_run(struct state_restoring *r, struct errmsg *e)
{
    CHECK_MAGIC(r, RESTORING_MAGIC);
    sqlite3 *from = NULL, *to = NULL;
    char *wal = mem_printf("%s-wal", r->target);
    enum err rc = open_source(r, &from, e);
    rc = rc == ERR_OK ? open_target(r, &to, e) : rc;
    rc = rc == ERR_OK ? state_copy_pages(from, to, r->target, wal, e) : rc;
    r->done = rc == ERR_OK;
    (void)sqlite3_close(from);
    (void)sqlite3_close(to);
    mem_free(wal);
    return rc;
}

enum err state_restore_begin(struct state *s, const char *path, uint64_t index,
                             struct state_restoring **ret, struct errmsg *e)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    ASSERT(!s->in_txn && !s->restoring);
    enum err rc = state_exec(s->db, s->path, "BEGIN; SELECT applied FROM store", e);
    if (rc != ERR_OK)
        return rc;
    s->restoring = true;
    struct state_restoring *r = mem_alloc(sizeof *r);
    r->magic = RESTORING_MAGIC;
    r->path = mem_strdup(path);
    r->target = mem_strdup(s->path);
    memcpy(r->cluster_id, s->cluster_id, sizeof r->cluster_id);
    r->index = index;
    *ret = r;
    return ERR_OK;
}

/* Between the file's commit and this one lies only the window in which applied is the file's, at most
 * `index`, and logged is 0. */
void state_restore_end(struct state *s, struct state_restoring *r, uint64_t now_ms)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    CHECK_MAGIC(r, RESTORING_MAGIC);
    ASSERT(s->restoring && !s->in_txn);
    struct errmsg e;
    if (state_exec(s->db, s->path, "COMMIT", &e) != ERR_OK)
        state_fatal_text(e.text);
    s->restoring = false;
    if (r->done) {
        state_load(s);
        ASSERT(s->m.applied <= r->index);
        /* The file ends at Raft's index; what lies between are barriers and membership changes. */
        s->m.applied = r->index;
        s->m.logged = 0;
        s->wal_long_pages = INT_MAX; /* it is all of the state: to be moved beside what comes */
        state_begin(s);
        state_commit(s, r->index);
        s->wal_long_pages = s->wal_pages + WAL_PAGES_LONG;
        lease_table_restart(&s->leases, now_ms);
        checkpointer_wake(s->checkpointer);
    }
    state_restore_cancel(r);
}

bool state_is_restoring(const struct state *s)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    return s->restoring;
}

void state_restore_cancel(struct state_restoring *r)
{
    if (r == NULL)
        return;
    CHECK_MAGIC(r, RESTORING_MAGIC);
    mem_free(r->path);
    mem_free(r->target);
    r->magic = 0;
    mem_free(r);
}

enum err state_restore(struct state *s, const char *path, uint64_t index, uint64_t now_ms,
                       struct errmsg *e)
{
    struct state_restoring *r;
    CHECK_MAGIC(s, STATE_MAGIC);
    /* what was applied and not committed is in the file, or behind it in the log */
    if (s->in_txn) {
        state_rollback(s);
        state_load(s);
    }
    enum err rc = state_restore_begin(s, path, index, &r, e);
    if (rc != ERR_OK)
        return rc;
    rc = state_restore_run(r, e);
    state_restore_end(s, r, now_ms);
    return rc;
}
