#include "dcs/snapshot_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "dcs/log_store.h"
#include "dcs/peer.h"
#include "dcs/wire.h"

enum { PATH_BYTES = 4096, FETCH_PATIENCE_MS = 10000 };

void snapshot_files_path(const struct snapshot_files *s, uint64_t index, char *ret_path,
                         size_t size)
{
    int n = snprintf(ret_path, size, "%s/snapshot-%llu.db", s->dir, (unsigned long long)index);
    ASSERT(n > 0 && (size_t)n < size);
}

static void part_path(const struct snapshot_files *s, uint64_t index,
                      char ret_path[static PATH_BYTES])
{
    (void)snprintf(ret_path, PATH_BYTES, "%s/snapshot-%llu.part", s->dir,
                   (unsigned long long)index);
}

/* Removes temporary files (when asked) and snapshots below `below`. */
static void sweep(const struct snapshot_files *s, uint64_t below, bool parts)
{
    DIR *d = opendir(s->dir);
    struct dirent *f;
    while (d != NULL && (f = readdir(d)) != NULL) {
        static const char prefix[] = "snapshot-";
        char path[PATH_BYTES];
        char *suffix;
        if (strncmp(f->d_name, prefix, sizeof prefix - 1) != 0) {
            continue;
        }
        uint64_t index = strtoull(f->d_name + sizeof prefix - 1, &suffix, 10);
        bool whole = strcmp(suffix, ".db") == 0;
        if ((whole && index < below) || (!whole && parts)) {
            (void)snprintf(path, sizeof path, "%s/%s", s->dir, f->d_name);
            (void)unlink(path);
        }
    }
    if (d != NULL) {
        (void)closedir(d);
    }
}

void snapshot_files_start(struct snapshot_files *s, uint64_t keep)
{
    sweep(s, keep, true);
}

/* A job at a worker: run there, then `after` on the loop. */
struct job {
    uv_work_t work;
    struct snapshot_files *files;
    void (*run)(struct job *j);
    void (*after)(struct job *j);
    struct raft_snapshot_info info;
    struct state_copy *copy;
    struct state_restoring *restoring;
    struct snapshot_fetch *fetch;
    uint64_t below;
    uint64_t size; /* that the file will have, about */
    enum err status;
    struct errmsg e;
    /* snapshot.read */
    uint64_t offset, tag;
    node_reply_cb *done;
    void *done_arg;
    struct buf data;
};

static void on_work(uv_work_t *w)
{
    struct job *j = container_of(w, struct job, work);
    j->run(j);
}

static void on_after(uv_work_t *w, int status)
{
    struct job *j = container_of(w, struct job, work);
    (void)status;
    j->files->working--;
    j->after(j);
    buf_close(&j->data);
    mem_free(j);
}

static void start(struct snapshot_files *s, struct job *j)
{
    j->files = s;
    s->working++;
    int rc = uv_queue_work(s->loop, &j->work, on_work, on_after);
    ASSERT(rc == 0);
}

static void run_sweep(struct job *j)
{
    sweep(j->files, j->below, false);
}

static void after_sweep(struct job *j)
{
    (void)j;
}

void snapshot_files_sweep(struct snapshot_files *s, uint64_t below)
{
    struct job *j = mem_alloc(sizeof *j);
    j->run = run_sweep;
    j->after = after_sweep;
    j->below = below;
    start(s, j);
}

/* ---- making -------------------------------------------------------------------------------- */

/* A name is durable only once its directory is. */
static enum err publish(const struct snapshot_files *s, uint64_t index, struct errmsg *e)
{
    char part[PATH_BYTES], path[PATH_BYTES];
    part_path(s, index, part);
    snapshot_files_path(s, index, path, sizeof path);
    int fd = rename(part, path) == 0 ? open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int error = fd < 0 || fsync(fd) != 0 ? errno : 0;
    if (fd >= 0) {
        (void)close(fd);
    }
    return error == 0 ? ERR_OK
                      : err_set(e, err_from_errno(error), "%s: %s", path, strerror(error));
}

/* A file that fills the disk to the brim would take the log and the state down with it. */
static enum err no_room(struct job *j)
{
    return err_set(&j->e, ERR_NO_SPACE,
                   "%s: no room for a snapshot of %llu bytes; free some space", j->files->dir,
                   (unsigned long long)j->size);
}

static void run_copy(struct job *j)
{
    char part[PATH_BYTES];
    part_path(j->files, j->info.index, part);
    (void)unlink(part);
    if (log_store_room_for(j->files->dir, j->size)) {
        j->status = state_copy_run(TAKE(j->copy), part, &j->e);
    } else {
        state_copy_cancel(TAKE(j->copy));
        j->status = no_room(j);
    }
    if (j->status == ERR_OK) {
        j->status = state_file_digest(part, j->info.sha256, &j->info.size, &j->e);
    }
    if (j->status == ERR_OK) {
        j->status = publish(j->files, j->info.index, &j->e);
    }
    if (j->status != ERR_OK) {
        (void)unlink(part);
    }
}

static void after_copy(struct job *j)
{
    struct snapshot_files *s = j->files;
    if (s->closing) {
        return;
    }
    if (j->status != ERR_OK && j->status != ERR_NO_SPACE) {
        s->ops->fatal(s->arg, j->e.text);
    }
    if (j->status != ERR_OK) {
        log_event(LOG_WARN, "snapshot_failed", NO_KV, "%s", j->e.text);
    }
    s->ops->copied(s->arg, &j->info, j->status == ERR_OK);
}

void snapshot_files_copy(struct snapshot_files *s, struct state_copy *copy, uint64_t bytes,
                         const struct raft_snapshot_info *info)
{
    struct job *j = mem_alloc(sizeof *j);
    j->run = run_copy;
    j->after = after_copy;
    j->copy = copy;
    j->size = bytes;
    j->info = *info;
    start(s, j);
}

/* ---- putting in the state's place ----------------------------------------------------------- */

static void run_restore(struct job *j)
{
    j->status = state_restore_run(j->restoring, &j->e);
}

static void after_restore(struct job *j)
{
    struct snapshot_files *s = j->files;
    if (s->closing) {
        state_restore_cancel(TAKE(j->restoring));
    } else {
        s->ops->restored(s->arg, TAKE(j->restoring), j->status, j->e.text);
    }
}

void snapshot_files_restore(struct snapshot_files *s, struct state_restoring *r)
{
    struct job *j = mem_alloc(sizeof *j);
    j->run = run_restore;
    j->after = after_restore;
    j->restoring = r;
    start(s, j);
}

/* ---- reading out --------------------------------------------------------------------------- */

static void run_read(struct job *j)
{
    char path[PATH_BYTES];
    snapshot_files_path(j->files, j->info.index, path, sizeof path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t *to = buf_reserve(&j->data, WIRE_SNAPSHOT_PIECE);
    ssize_t n = fd < 0 ? -1 : pread(fd, to, WIRE_SNAPSHOT_PIECE, (off_t)j->offset);
    j->status =
        n < 0 ? err_set(&j->e, err_from_errno(errno), "%s: %s", path, strerror(errno)) : ERR_OK;
    j->data.len = n < 0 ? 0 : (size_t)n;
    if (fd >= 0) {
        (void)close(fd);
    }
}

static void after_read(struct job *j)
{
    struct buf CLEANUP(buf_close) out = BUF_INIT;
    struct wire_bytes piece = {.data = buf_slice(&j->data)};
    if (j->status == ERR_OK) {
        msg_encode(&wire_msg_bytes, &piece, &out);
    }
    j->done(j->done_arg, j->tag, j->status, j->e.text, buf_slice(&out));
}

void snapshot_files_read(struct snapshot_files *s, uint64_t index, uint64_t offset,
                         node_reply_cb *done, void *done_arg, uint64_t tag)
{
    struct job *j = mem_alloc(sizeof *j);
    j->run = run_read;
    j->after = after_read;
    j->info.index = index;
    j->offset = offset;
    j->done = done;
    j->done_arg = done_arg;
    j->tag = tag;
    start(s, j);
}

/* ---- fetching ------------------------------------------------------------------------------ */

/* Lives until it is reported or replaced, and no job holds it. */
struct snapshot_fetch {
    struct snapshot_files *files;
    struct raft_snapshot_info info;
    uint64_t from, offset, progress_ms;
    uint32_t number; /* of the call under way */
    bool dead;       /* replaced, or given up on */
    bool busy;       /* a job holds it */
    int fd;          /* of the temporary file; -1: not open yet */
    EVP_MD_CTX *sha;
};

static void fetch_free(struct snapshot_fetch *f)
{
    ASSERT(!f->busy);
    if (f->fd >= 0) {
        const struct snapshot_fetch *next = f->files->fetch;
        char part[PATH_BYTES];
        part_path(f->files, f->info.index, part);
        if (next == NULL || next->info.index != f->info.index) {
            (void)unlink(part); /* there no more when it was published */
        }
        (void)close(f->fd);
    }
    EVP_MD_CTX_free(f->sha);
    mem_free(f);
}

static void fetch_end(struct snapshot_fetch *f, bool ok)
{
    struct snapshot_files *s = f->files;
    struct raft_snapshot_info info = f->info;
    ASSERT(s->fetch == f);
    s->fetch = NULL;
    f->dead = true;
    if (!f->busy) {
        fetch_free(f);
    }
    s->ops->fetched(s->arg, &info, ok);
}

static void ask(struct snapshot_fetch *f)
{
    struct snapshot_files *s = f->files;
    struct wire_snapshot_read req = {.index = f->info.index, .offset = f->offset};
    struct buf CLEANUP(buf_close) params = BUF_INIT;
    msg_encode(&wire_msg_snapshot_read, &req, &params);
    f->number = PEER_OWN_CALLS | (++s->calls & 0xffffff);
    /* Without a link the piece is asked for again once there is one: the leader would begin anew
     * only after a long while. */
    s->ask_pending = !s->ops->call(s->arg, f->from, f->number, buf_slice(&params));
}

static enum err put_piece(struct job *j)
{
    struct snapshot_fetch *f = j->fetch;
    char part[PATH_BYTES];
    part_path(j->files, f->info.index, part);
    if (f->fd < 0 && !log_store_room_for(j->files->dir, j->size)) {
        return no_room(j);
    }
    if (f->fd < 0) {
        f->fd = open(part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        f->sha = EVP_MD_CTX_new();
        ASSERT(f->sha != NULL && EVP_DigestInit_ex(f->sha, EVP_sha256(), NULL) == 1);
    }
    size_t done = 0;
    while (f->fd >= 0 && done < j->data.len) {
        ssize_t n =
            pwrite(f->fd, j->data.p + done, j->data.len - done, (off_t)(f->offset + done));
        if (n <= 0) {
            break;
        }
        done += (size_t)n;
    }
    if (f->fd < 0 || done < j->data.len) {
        return err_set(&j->e, err_from_errno(errno), "%s: %s", part, strerror(errno));
    }
    ASSERT(EVP_DigestUpdate(f->sha, j->data.p, j->data.len) == 1);
    return ERR_OK;
}

static enum err finish(struct job *j)
{
    struct snapshot_fetch *f = j->fetch;
    uint8_t sha[EVP_MAX_MD_SIZE];
    ASSERT(EVP_DigestFinal_ex(f->sha, sha, NULL) == 1);
    if (memcmp(sha, f->info.sha256, sizeof f->info.sha256) != 0) {
        return err_set(&j->e, ERR_CORRUPT, "the snapshot at %llu arrived damaged",
                       (unsigned long long)f->info.index);
    }
    if (fsync(f->fd) != 0) {
        return err_set(&j->e, err_from_errno(errno), "fsync of a snapshot: %s",
                       strerror(errno));
    }
    char part[PATH_BYTES];
    part_path(j->files, f->info.index, part);
    enum err err = state_file_check(part, &j->e);
    return err == ERR_OK ? publish(j->files, f->info.index, &j->e) : err;
}

static void run_piece(struct job *j)
{
    j->status = put_piece(j);
    if (j->status == ERR_OK && j->fetch->offset + j->data.len == j->fetch->info.size) {
        j->status = finish(j);
    }
}

static void after_piece(struct job *j)
{
    struct snapshot_fetch *f = j->fetch;
    struct snapshot_files *s = j->files;
    f->busy = false;
    if (f->dead) {
        fetch_free(f);
        return;
    }
    f->offset += j->data.len;
    f->progress_ms = clock_boot_ms();
    if (j->status == ERR_IO) {
        s->ops->fatal(s->arg, j->e.text);
    }
    if (j->status != ERR_OK) {
        log_event(LOG_WARN, "snapshot_fetch_failed", NO_KV, "%s", j->e.text);
        fetch_end(f, false);
    } else if (f->offset == f->info.size) {
        fetch_end(f, true);
    } else {
        ask(f);
    }
}

bool snapshot_files_answer(struct snapshot_files *s, uint32_t number, enum err status,
                           struct slice result)
{
    struct snapshot_fetch *f = s->fetch;
    struct wire_bytes piece = {.data = {0}};
    if (f == NULL || f->busy || f->number != number) {
        return false;
    }
    if (status == ERR_OK) {
        status = msg_decode(&wire_msg_bytes, result, &piece, NULL);
    }
    /* An empty piece before the end, or one too many: not the file that was announced. */
    if (status != ERR_OK || piece.data.n == 0 || piece.data.n > f->info.size - f->offset) {
        log_event(LOG_WARN, "snapshot_fetch_failed", NO_KV,
                  "the member that sends it has no such file any more");
        fetch_end(f, false);
        return true;
    }
    struct job *j = mem_alloc(sizeof *j);
    j->run = run_piece;
    j->after = after_piece;
    j->fetch = f;
    j->size = f->info.size;
    f->busy = true;
    f->number = 0;
    buf_append_slice(&j->data, piece.data);
    start(s, j);
    return true;
}

static void drop(struct snapshot_files *s)
{
    struct snapshot_fetch *f = s->fetch;
    s->fetch = NULL;
    if (f != NULL) {
        f->dead = true;
        if (!f->busy) {
            fetch_free(f);
        }
    }
}

void snapshot_files_fetch(struct snapshot_files *s, uint64_t from,
                          const struct raft_snapshot_info *info)
{
    drop(s);
    struct snapshot_fetch *f = mem_alloc(sizeof *f);
    f->files = s;
    f->info = *info;
    f->from = from;
    f->fd = -1;
    f->progress_ms = clock_boot_ms();
    s->fetch = f;
    s->ask_pending = true;
}

void snapshot_files_go(struct snapshot_files *s)
{
    struct snapshot_fetch *f = s->fetch;
    if (!s->ask_pending || f == NULL) {
        return;
    }
    s->ask_pending = false;
    if (clock_boot_ms() - f->progress_ms > FETCH_PATIENCE_MS) {
        log_event(LOG_WARN, "snapshot_fetch_failed", KV(KV_U64("from", f->from)),
                  "no link to the member that has it");
        fetch_end(f, false);
    } else {
        ask(f);
    }
}

/* The pieces that arrived stay. */
void snapshot_files_link_down(struct snapshot_files *s, uint64_t member)
{
    if (s->fetch != NULL && s->fetch->from == member && !s->fetch->busy) {
        s->ask_pending = true;
    }
}

void snapshot_files_close(struct snapshot_files *s)
{
    s->closing = true;
    drop(s);
}
