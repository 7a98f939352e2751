#include "dcs/archive.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "dcs/log_store.h"
#include "proto/trailer.h"

#define PREFIX "dcs-"
#define SUFFIX ".snapshot"

struct job {
    uv_work_t work;
    struct archive *a;
    struct state_copy *copy;
    struct snapshot_info info;
    char name[64];
    size_t keep;
    uint64_t bytes;
    enum err status;
    struct errmsg e;
};

static enum err io_error(struct errmsg *e, const char *path)
{
    return err_set(e, err_from_errno(errno), "%s: %s", path, strerror(errno));
}

/* ---- the files, oldest first: their names begin with the time ------------------------------ */

static int is_ours(const struct dirent *d)
{
    size_t n = strlen(d->d_name);
    return str_starts(d->d_name, PREFIX) && n > strlen(SUFFIX) &&
           strcmp(d->d_name + n - strlen(SUFFIX), SUFFIX) == 0;
}

static void prune(const char *dir, size_t keep)
{
    struct dirent **all = NULL;
    int n = scandir(dir, &all, is_ours, alphasort);
    for (int i = 0; i < n; i++) {
        if ((size_t)(n - i) > keep) {
            char *path = mem_printf("%s/%s", dir, all[i]->d_name);
            (void)unlink(path);
            mem_free(path);
        }
        free(all[i]);
    }
    free(all);
}

/* Seconds since the newest was made; UINT64_MAX: there is none. */
static uint64_t newest_age_s(const char *dir)
{
    struct dirent **all = NULL;
    uint64_t age_s = UINT64_MAX;
    int n = scandir(dir, &all, is_ours, alphasort);
    for (int i = 0; i < n; i++) {
        struct stat st;
        char *path = mem_printf("%s/%s", dir, all[i]->d_name);
        if (i == n - 1 && stat(path, &st) == 0) {
            uint64_t now_s = clock_wall_ms() / 1000, made_s = (uint64_t)st.st_mtime;
            age_s = now_s - MIN(now_s, made_s);
        }
        mem_free(path);
        free(all[i]);
    }
    free(all);
    return age_s;
}

/* ---- one copy, on a worker ----------------------------------------------------------------- */

/* The copy's last page says what it is. */
static enum err seal(const char *path, const struct snapshot_info *info, struct errmsg *e)
{
    struct trailer t = {.term = info->term};
    uint8_t end[TRAILER_SIZE];
    enum err err = state_file_digest(path, t.sha256, &t.size, e);
    if (err != ERR_OK)
        return err;
    trailer_encode(&t, end);
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, end, sizeof end) == (ssize_t)sizeof end && fsync(fd) == 0;
    err = ok ? ERR_OK : io_error(e, path);
    if (fd >= 0)
        (void)close(fd);
    return err;
}

static enum err publish(const char *part, const char *path, const char *dir, struct errmsg *e)
{
    if (rename(part, path) != 0)
        return io_error(e, path);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    enum err err = ok ? ERR_OK : io_error(e, dir);
    if (fd >= 0)
        (void)close(fd);
    return err;
}

static void on_work(uv_work_t *w)
{
    struct job *j = container_of(w, struct job, work);
    const char *dir = j->a->dir;
    char *part = mem_printf("%s/copy.part", dir); /* one left over is overwritten */
    char *path = mem_printf("%s/%s", dir, j->name);
    if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
        j->status = io_error(&j->e, dir);
        state_copy_cancel(TAKE(j->copy));
    } else if (!log_store_room_for(dir, j->bytes)) {
        j->status = err_set(&j->e, ERR_NO_SPACE, "%s has too little room left", dir);
        state_copy_cancel(TAKE(j->copy));
    } else {
        j->status = state_copy_run(TAKE(j->copy), part, &j->e);
    }
    if (j->status == ERR_OK)
        j->status = seal(part, &j->info, &j->e);
    if (j->status == ERR_OK)
        j->status = publish(part, path, dir, &j->e);
    if (j->status == ERR_OK)
        prune(dir, j->keep);
    else
        (void)unlink(part);
    mem_free(part);
    mem_free(path);
}

static void on_done(uv_work_t *w, int status)
{
    struct job *j = container_of(w, struct job, work);
    struct archive *a = j->a;
    (void)status;
    a->making = false;
    if (j->status == ERR_OK) {
        a->revision = j->info.revision;
        a->failed = false;
        log_event(LOG_INFO, "archived",
                  KV(KV_STR("file", j->name), KV_U64("revision", j->info.revision)),
                  "a copy of the store was saved");
    } else {
        a->next_ms = clock_boot_ms() + ARCHIVE_AGAIN_MS;
        if (!a->failed)
            log_event(LOG_WARN, "archive_failed", NO_KV, "no copy of the store was saved: %s",
                      j->e.text);
        a->failed = true;
    }
    mem_free(j);
}

static void name_of(uint64_t revision, char *ret, size_t size)
{
    time_t now = (time_t)(clock_wall_ms() / 1000);
    struct tm t;
    char text[32];
    (void)gmtime_r(&now, &t);
    (void)strftime(text, sizeof text, "%Y%m%dT%H%M%SZ", &t);
    (void)snprintf(ret, size, PREFIX "%s-%llu" SUFFIX, text, (unsigned long long)revision);
}

static void begin(struct archive *a, struct node *n, uint64_t bytes)
{
    struct job *j = mem_alloc(sizeof *j);
    *j = (struct job){.a = a, .keep = (size_t)a->keep, .bytes = bytes};
    if (node_copy(n, &j->copy, &j->info, &j->e) != ERR_OK) {
        mem_free(j);
        a->next_ms = clock_boot_ms() + ARCHIVE_AGAIN_MS;
        return;
    }
    name_of(j->info.revision, j->name, sizeof j->name);
    a->making = true;
    int rc = uv_queue_work(a->loop, &j->work, on_work, on_done);
    ASSERT(rc == 0);
}

void archive_start(struct archive *a)
{
    uint64_t age_s = newest_age_s(a->dir), every_s = a->interval_ms / 1000;
    a->next_ms = clock_boot_ms() + (age_s < every_s ? (every_s - age_s) * 1000 : 1000);
}

void archive_tick(struct archive *a, struct node *n, uint64_t bytes)
{
    uint64_t now_ms = clock_boot_ms();
    if (a->interval_ms == 0 || a->making)
        return;
    if (now_ms < a->next_ms)
        return;
    a->next_ms = now_ms + a->interval_ms;
    if (node_revision(n) != a->revision)
        begin(a, n, bytes);
}
