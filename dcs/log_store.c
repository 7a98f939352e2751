/* Life, and the loop's side: gathering, handing over, completions. */
#include "dcs/log_store.h"

#include <stdlib.h>

#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "base/thread.h"
#include "dcs/log_store_internal.h"

/* ---- queues ---- */

void log_queue_push(struct log_queue *q, struct log_op *op)
{
    op->next = NULL;
    if (q->first == NULL)
        q->end = &q->first;
    *q->end = op;
    q->end = &op->next;
}

struct log_op *log_queue_take(struct log_queue *q)
{
    q->end = NULL;
    return TAKE(q->first);
}

void log_op_free(struct log_op *op)
{
    mem_free(op->entries);
    mem_free(op->info);
    mem_free(op);
}

static void free_chain(struct log_op *chain)
{
    while (chain != NULL) {
        struct log_op *next = chain->next;
        log_op_free(chain);
        chain = next;
    }
}

/* ---- life ---- */

/* The members write the same: each at its own time, so that a majority of others does not wait. */
static int own_checkpoint(void)
{
    uint32_t less;
    rng_system(&less, sizeof less);
    return LOG_STORE_CHECKPOINT_HARD - (int)(less % (LOG_STORE_CHECKPOINT_HARD / 2));
}

static void init_wake(struct log_store *s)
{
    pthread_condattr_t a;
    (void)pthread_condattr_init(&a);
    (void)pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&s->wake, &a);
    (void)pthread_condattr_destroy(&a);
}

enum err log_store_open(const char *dir, struct log_store **ret_store,
                        struct raft_core_disk *ret_disk, struct errmsg *e)
{
    struct log_store *s = mem_alloc(sizeof *s);
    s->magic = LOG_STORE_MAGIC;
    s->checkpoint_hard = own_checkpoint();
    (void)pthread_mutex_init(&s->mutex, NULL);
    init_wake(s);
    enum err r = str_copy(s->dir, sizeof s->dir, dir);
    if (r != ERR_OK)
        r = err_set(e, r, "the path %s is too long", dir);
    if (r == ERR_OK)
        r = log_store_open_db(s, e);
    if (r == ERR_OK)
        r = log_store_load(s, ret_disk, e);
    if (r == ERR_OK)
        r = log_store_prepare(s, e);
    if (r != ERR_OK) {
        log_store_close(s);
        return r;
    }
    (void)sqlite3_db_release_memory(s->db); /* the check read every page */
    s->disk_full = log_store_judge_disk(s->dir, false);
    *ret_store = s;
    return ERR_OK;
}

void log_store_loaded(struct log_store *s)
{
    CHECK_MAGIC(s, LOG_STORE_MAGIC);
    for (size_t i = 0; i < s->n_loaded; i++)
        mem_free((void *)s->loaded[i].data.p);
    mem_free(TAKE(s->loaded));
    s->n_loaded = 0;
}

static void complete(struct log_store *s, const struct log_op *op)
{
    switch (op->type) {
    case LOG_OP_APPEND:
        s->ops->appended(s->arg, op->index + op->n - 1);
        break;
    case LOG_OP_TRUNCATE:
        s->ops->truncated(s->arg);
        break;
    case LOG_OP_META:
        s->ops->meta(s->arg);
        break;
    case LOG_OP_SNAPSHOT:
        s->ops->snapshot(s->arg);
        break;
    }
}

static void on_async(uv_async_t *async)
{
    struct log_store *s = async->data;
    CHECK_MAGIC(s, LOG_STORE_MAGIC);
    (void)pthread_mutex_lock(&s->mutex);
    struct log_op *chain = log_queue_take(&s->done);
    bool full = s->disk_full;
    (void)pthread_mutex_unlock(&s->mutex);
    if (full != s->told_full && s->ops->disk_full != NULL) {
        s->told_full = full;
        s->ops->disk_full(s->arg, full);
    }
    while (chain != NULL) {
        struct log_op *op = chain;
        chain = op->next;
        complete(s, op);
        log_op_free(op);
    }
}

enum err log_store_start(struct log_store *s, uv_loop_t *loop, const struct log_store_ops *ops,
                         void *arg, struct errmsg *e)
{
    CHECK_MAGIC(s, LOG_STORE_MAGIC);
    ASSERT(!s->started && ops->fatal != NULL);
    s->ops = ops;
    s->arg = arg;
    int r = uv_async_init(loop, &s->async, on_async);
    if (r != 0)
        return err_set(e, ERR_IO, "no handle for the log's worker: %s", uv_strerror(r));
    s->async.data = s;
    s->started = true;
    r = thread_start(&s->thread, log_store_worker, s);
    if (r != 0) {
        s->stop = true;
        return err_set(e, ERR_IO, "no thread for the log: %s", strerror(r));
    }
    (void)uv_async_send(&s->async); /* tells of a disk that is full already */
    return ERR_OK;
}

static void destroy(struct log_store *s)
{
    log_store_loaded(s);
    free_chain(log_queue_take(&s->gathered));
    free_chain(log_queue_take(&s->todo));
    free_chain(log_queue_take(&s->done));
    for (int i = 0; i < LOG_STMT_COUNT; i++)
        (void)sqlite3_finalize(s->stmt[i]);
    (void)sqlite3_close(s->db);
    (void)pthread_mutex_destroy(&s->mutex);
    (void)pthread_cond_destroy(&s->wake);
    s->magic = 0;
    mem_free(s);
}

static void on_async_closed(uv_handle_t *handle)
{
    destroy(handle->data);
}

void log_store_close(struct log_store *s)
{
    if (s == NULL)
        return;
    CHECK_MAGIC(s, LOG_STORE_MAGIC);
    if (!s->started) {
        destroy(s);
        return;
    }
    log_store_flush(s);
    (void)pthread_mutex_lock(&s->mutex);
    bool running = !s->stop;
    s->stop = true;
    (void)pthread_cond_signal(&s->wake);
    (void)pthread_mutex_unlock(&s->mutex);
    if (running)
        (void)pthread_join(s->thread, NULL);
    uv_close((uv_handle_t *)&s->async, on_async_closed);
}

/* ---- requests ---- */

static struct log_op *gather(struct log_store *s, enum log_op_type type)
{
    CHECK_MAGIC(s, LOG_STORE_MAGIC);
    struct log_op *op = mem_alloc(sizeof *op);
    op->type = type;
    log_queue_push(&s->gathered, op);
    return op;
}

void log_store_append(struct log_store *s, uint64_t first_index,
                      const struct raft_entry_view *entries, size_t n)
{
    ASSERT(n > 0 && first_index > 0);
    struct log_op *op = gather(s, LOG_OP_APPEND);
    op->index = first_index;
    op->entries = mem_dup(entries, n * sizeof *entries);
    op->n = n;
}

void log_store_truncate(struct log_store *s, uint64_t from_index)
{
    ASSERT(from_index > 1);
    gather(s, LOG_OP_TRUNCATE)->index = from_index;
}

void log_store_meta(struct log_store *s, uint64_t term, uint64_t voted_for)
{
    ASSERT(term > 0);
    struct log_op *op = gather(s, LOG_OP_META);
    op->term = term;
    op->voted_for = voted_for;
}

void log_store_snapshot(struct log_store *s, const struct raft_snapshot_info *info,
                        uint64_t trim_to, bool installed)
{
    ASSERT(info->index > 0 && trim_to <= info->index);
    struct log_op *op = gather(s, LOG_OP_SNAPSHOT);
    op->info = mem_dup(info, sizeof *info);
    op->trim_to = trim_to;
    op->installed = installed;
}

void log_store_flush(struct log_store *s)
{
    CHECK_MAGIC(s, LOG_STORE_MAGIC);
    if (s->gathered.first == NULL || !s->started)
        return;
    struct log_op *chain = log_queue_take(&s->gathered);
    (void)pthread_mutex_lock(&s->mutex);
    while (chain != NULL) {
        struct log_op *next = chain->next;
        log_queue_push(&s->todo, chain);
        chain = next;
    }
    (void)pthread_mutex_unlock(&s->mutex);
    /* behind the lock, or the worker wakes to wait for it */
    (void)pthread_cond_signal(&s->wake);
}

/* ---- facts ---- */

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

uint64_t log_store_fsync_us_p99(struct log_store *s)
{
    CHECK_MAGIC(s, LOG_STORE_MAGIC);
    uint32_t times[LOG_STORE_TIMES];
    (void)pthread_mutex_lock(&s->mutex);
    size_t n = MIN(s->n_commits, (size_t)LOG_STORE_TIMES);
    memcpy(times, s->commit_us, n * sizeof times[0]);
    (void)pthread_mutex_unlock(&s->mutex);
    if (n == 0)
        return 0;
    qsort(times, n, sizeof times[0], by_value);
    return times[(n * 99) / 100];
}

void log_store_fsync(struct log_store *s, struct latency *ret_latency)
{
    CHECK_MAGIC(s, LOG_STORE_MAGIC);
    (void)pthread_mutex_lock(&s->mutex);
    *ret_latency = s->commits;
    (void)pthread_mutex_unlock(&s->mutex);
}

bool log_store_disk_full(struct log_store *s)
{
    CHECK_MAGIC(s, LOG_STORE_MAGIC);
    (void)pthread_mutex_lock(&s->mutex);
    bool full = s->disk_full;
    (void)pthread_mutex_unlock(&s->mutex);
    return full;
}

void log_store_look(struct log_store *s)
{
    CHECK_MAGIC(s, LOG_STORE_MAGIC);
    (void)pthread_mutex_lock(&s->mutex);
    s->look = true;
    (void)pthread_cond_signal(&s->wake);
    (void)pthread_mutex_unlock(&s->mutex);
}
