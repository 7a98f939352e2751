#include "dcs/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"

/* What a worker does, and what it found. */
struct job {
    uv_work_t work;
    struct backup *b;
    node_reply_cb *done;
    void *done_arg;
    enum err status;
    struct errmsg e;
    /* making */
    struct state_copy *copy;
    struct snapshot_info info;
    uint8_t sha256[32];
    int fd;
    /* reading */
    uint64_t offset;
    struct buf data;
};

static void answer(struct job *j, const struct msg *m, const void *result)
{
    struct buf CLEANUP(buf_close) out = BUF_INIT;
    if (j->status == ERR_OK) {
        msg_encode(m, result, &out);
    }
    j->done(j->done_arg, 0, j->status, j->e.text, buf_slice(&out));
    buf_close(&j->data);
    mem_free(j);
}

static void refuse(node_reply_cb *done, void *done_arg, enum err status, const char *text)
{
    done(done_arg, 0, status, text, slice_of(NULL, 0));
}

static void drop(struct backup *b)
{
    if (b->fd >= 0 && b->reading == 0) {
        (void)close(b->fd);
        b->fd = -1;
    }
}

void backup_start(struct backup *b, uv_loop_t *loop, const char *dir)
{
    enum err fits = str_copy(b->dir, sizeof b->dir, dir);
    ASSERT(fits == ERR_OK);
    b->loop = loop;
    b->fd = -1;
}

/* ---- making -------------------------------------------------------------------------------- */

static void on_make(uv_work_t *w)
{
    struct job *j = container_of(w, struct job, work);
    /* A name that the snapshots' sweep takes away, should the process end right here. */
    char *path = mem_printf("%s/snapshot-0.save", j->b->dir);
    j->status = state_copy_run(TAKE(j->copy), path, &j->e);
    if (j->status == ERR_OK) {
        j->status = state_file_digest(path, j->sha256, &j->info.size, &j->e);
    }
    if (j->status == ERR_OK) {
        j->fd = open(path, O_RDONLY | O_CLOEXEC);
        j->status =
            j->fd >= 0 ? ERR_OK
                       : err_set(&j->e, err_from_errno(errno), "%s: %s", path, strerror(errno));
    }
    (void)unlink(path);
    mem_free(path);
}

static void after_make(uv_work_t *w, int status)
{
    struct job *j = container_of(w, struct job, work);
    struct backup *b = j->b;
    (void)status;
    b->making = false;
    if (b->closing && j->fd >= 0) {
        (void)close(j->fd);
        j->status = err_set(&j->e, ERR_UNAVAILABLE, "the node is stopping");
    } else if (j->status == ERR_OK) {
        memcpy(b->sha256, j->sha256, sizeof b->sha256);
        b->info = j->info;
        rng_system(&b->info.id, sizeof b->info.id); /* not to be taken for another node's */
        b->info.id >>= 11;                          /* every JSON reader can hold it */
        b->info.sha256 = slice_of(b->sha256, sizeof b->sha256);
        b->fd = j->fd;
        b->used_ms = clock_boot_ms();
    }
    answer(j, &msg_snapshot_info, &b->info);
}

void backup_save(struct backup *b, struct node *n, node_reply_cb *done, void *done_arg)
{
    if (b->making || b->fd >= 0) {
        refuse(
            done, done_arg, ERR_UNAVAILABLE,
            "another copy is being made or read on this node; try again, or ask another one");
        return;
    }
    struct job *j = mem_alloc(sizeof *j);
    *j = (struct job){.b = b, .done = done, .done_arg = done_arg, .fd = -1};
    enum err err = node_copy(n, &j->copy, &j->info, &j->e);
    if (err != ERR_OK) {
        j->status = err;
        answer(j, NULL, NULL);
        return;
    }
    b->making = true;
    int rc = uv_queue_work(b->loop, &j->work, on_make, after_make);
    ASSERT(rc == 0);
}

/* ---- reading ------------------------------------------------------------------------------- */

static void on_read(uv_work_t *w)
{
    struct job *j = container_of(w, struct job, work);
    uint8_t *to = buf_reserve(&j->data, BACKUP_PIECE);
    ssize_t n = pread(j->b->fd, to, BACKUP_PIECE, (off_t)j->offset);
    j->status =
        n < 0 ? err_set(&j->e, err_from_errno(errno), "reading the copy: %s", strerror(errno))
              : ERR_OK;
    j->data.len = n < 0 ? 0 : (size_t)n;
}

static void after_read(uv_work_t *w, int status)
{
    struct job *j = container_of(w, struct job, work);
    struct backup *b = j->b;
    struct snapshot_data out = {.data = buf_slice(&j->data)};
    (void)status;
    ASSERT(b->reading > 0);
    b->reading--;
    b->used_ms = clock_boot_ms();
    bool end = j->status == ERR_OK && j->offset + j->data.len >= b->info.size;
    answer(j, &msg_snapshot_data, &out);
    if (end || b->closing) {
        drop(b);
    }
}

void backup_piece(struct backup *b, const struct snapshot_piece *p, node_reply_cb *done,
                  void *done_arg)
{
    if (b->fd < 0 || p->id != b->info.id || p->offset > INT64_MAX) {
        refuse(done, done_arg, ERR_NOT_FOUND,
               "there is no such copy on this node (any more): begin again");
        return;
    }
    struct job *j = mem_alloc(sizeof *j);
    *j = (struct job){.b = b, .done = done, .done_arg = done_arg, .offset = p->offset};
    b->reading++;
    int rc = uv_queue_work(b->loop, &j->work, on_read, after_read);
    ASSERT(rc == 0);
}

void backup_tick(struct backup *b)
{
    if (b->fd >= 0 && clock_boot_ms() >= b->used_ms + BACKUP_IDLE_MS) {
        drop(b);
    }
}

void backup_close(struct backup *b)
{
    b->closing = true;
    if (b->loop != NULL) {
        drop(b);
    }
}
