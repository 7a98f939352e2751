/* Moves the WAL of state.db into the file, on a thread of its own: it fsyncs, and nothing on the
 * loop may. The thread starts at the first need, so that a small or simulated state has none.
 *
 * While it does, a second connection of its own reads. SQLite before 3.51.3 loses commits
 * (https://sqlite.org/wal.html#walresetbug) when a checkpoint that finds all moved already is overtaken by a
 * commit that begins the WAL anew: it takes the frames of the new WAL for moved. With a reader there, the WAL
 * cannot begin anew as long as something is to be moved, and once nothing is, the file cannot be written. */
#include <stdio.h>

#include "base/mem.h"
#include "base/thread.h"
#include "dcs/state_internal.h"

enum { BUSY_MS = 5000 };

struct checkpointer {
    char *path;
    pthread_t thread;
    bool running; /* loop thread only */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool wanted; /* under lock */
    bool stop;   /* under lock */
    /* under lock: rounds; each covers what was asked for before it began */
    uint64_t asked, done;
    bool whole; /* under lock: the last round left nothing in the WAL */
};

struct checkpointer *checkpointer_new(const char *path)
{
    struct checkpointer *c = mem_alloc(sizeof *c);
    c->path = mem_strdup(path);
    int rc = pthread_mutex_init(&c->lock, NULL);
    ASSERT(rc == 0);
    rc = pthread_cond_init(&c->changed, NULL);
    ASSERT(rc == 0);
    return c;
}

/* False: told to stop. */
static bool wait_for_work(struct checkpointer *c, uint64_t *ret_round)
{
    (void)pthread_mutex_lock(&c->lock);
    while (!c->wanted && !c->stop)
        (void)pthread_cond_wait(&c->changed, &c->lock);
    c->wanted = false;
    *ret_round = c->asked;
    bool go_on = !c->stop;
    (void)pthread_mutex_unlock(&c->lock);
    return go_on;
}

NORETURN static void fail(struct checkpointer *c, sqlite3 *db)
{
    char text[700];
    int rc = sqlite3_extended_errcode(db);
    (void)snprintf(text, sizeof text, "%s: checkpoint failed: %s (%d)", c->path,
                   sqlite3_errmsg(db), rc);
    state_fatal_text(text);
}

static sqlite3 *connect(struct checkpointer *c)
{
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(c->path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_busy_timeout(db, BUSY_MS);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, "PRAGMA synchronous = NORMAL; PRAGMA cache_size = 0", NULL, NULL,
                          NULL);
    if (rc != SQLITE_OK)
        fail(c, db);
    return db;
}

/* True: nothing was left in the WAL. */
static bool move(struct checkpointer *c, sqlite3 *db, sqlite3 *reader)
{
    int pages = -1, moved = 0;
    /* BEGIN alone reads nothing: the first SELECT does. */
    sqlite3 *at = reader;
    int rc = sqlite3_exec(at, "BEGIN; SELECT applied FROM store", NULL, NULL, NULL);
    if (rc == SQLITE_OK) {
        at = db;
        rc = sqlite3_wal_checkpoint_v2(at, NULL, SQLITE_CHECKPOINT_PASSIVE, &pages, &moved);
    }
    /* Without room everything stays in the WAL, and nothing is lost. */
    if (rc != SQLITE_OK && rc != SQLITE_BUSY && state_sqlite_err(rc) != ERR_NO_SPACE)
        fail(c, at);
    if (sqlite3_exec(reader, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        fail(c, reader);
    return rc == SQLITE_OK && moved == pages;
}

static void *run(void *arg)
{
    struct checkpointer *c = arg;
    sqlite3 *db = connect(c), *reader = connect(c);
    uint64_t round;
    while (wait_for_work(c, &round)) {
        bool whole = move(c, db, reader);
        (void)pthread_mutex_lock(&c->lock);
        c->done = round;
        c->whole = whole;
        (void)pthread_mutex_unlock(&c->lock);
    }
    (void)sqlite3_close(reader);
    (void)sqlite3_close(db);
    return NULL;
}

void checkpointer_wake(struct checkpointer *c)
{
    (void)pthread_mutex_lock(&c->lock);
    c->wanted = true;
    c->asked++;
    (void)pthread_cond_signal(&c->changed);
    (void)pthread_mutex_unlock(&c->lock);
    if (!c->running) {
        int rc = thread_start(&c->thread, run, c);
        ASSERT(rc == 0);
        c->running = true;
    }
}

bool checkpointer_idle(struct checkpointer *c, bool *ret_whole)
{
    (void)pthread_mutex_lock(&c->lock);
    bool idle = c->done == c->asked;
    *ret_whole = c->whole;
    (void)pthread_mutex_unlock(&c->lock);
    return idle;
}

void checkpointer_free(struct checkpointer *c)
{
    if (c == NULL)
        return;
    (void)pthread_mutex_lock(&c->lock);
    c->stop = true;
    (void)pthread_cond_signal(&c->changed);
    (void)pthread_mutex_unlock(&c->lock);
    if (c->running)
        (void)pthread_join(c->thread, NULL);
    (void)pthread_cond_destroy(&c->changed);
    (void)pthread_mutex_destroy(&c->lock);
    mem_free(c->path);
    mem_free(c);
}
