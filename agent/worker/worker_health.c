/* Can the disks of the data still be written to, and how much room is left there? The worker of this
 * operation does nothing else, so that one that hangs is told by its silence and holds up nobody. */
#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "agent/worker/worker_ops.h"

enum { HEALTH_BYTES = 4096 };

/* In place and without a change of the file's size: one block to the disk, no journal. */
static enum err write_block(const char *dir, struct errmsg *e)
{
    static const char block[HEALTH_BYTES] = "regent writes here to see that it can\n";
    char path[FILES_PATH];
    enum err rv = files_path(path, dir, HEALTH_FILE, e);
    if (rv != ERR_OK)
        return rv;
    int fd = open(path, O_WRONLY | O_CREAT | O_DSYNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    ssize_t n = fd < 0 ? -1 : pwrite(fd, block, sizeof block, 0);
    int why = n < 0 ? errno : ENOSPC; /* a short write */
    if (fd >= 0)
        (void)close(fd);
    return n == (ssize_t)sizeof block
               ? ERR_OK
               : err_set(e, err_from_errno(why), "%.60s: %.40s", dir, strerror(why));
}

static void look_at_room(const char *dir, uint64_t *ret_free, uint64_t *ret_total)
{
    struct statvfs s;
    if (statvfs(dir, &s) != 0)
        return;
    *ret_free = (uint64_t)s.f_bavail * s.f_frsize;
    *ret_total = (uint64_t)s.f_blocks * s.f_frsize;
}

enum err op_health(struct worker *w, const struct worker_req *q, struct worker_reply *r,
                   struct errmsg *e)
{
    char wal[FILES_PATH];
    struct stat data_stat = {0};
    struct stat wal_stat = {0};
    (void)w;
    (void)prctl(PR_SET_NAME, "regent-health"); /* people tell it from the other one */
    enum err rv = files_path(wal, q->data_dir, "pg_wal", e);
    if (rv == ERR_OK && (stat(q->data_dir, &data_stat) != 0 || stat(wal, &wal_stat) != 0))
        rv = err_set(e, err_from_errno(errno), "%.60s: %.40s", wal, strerror(errno));
    if (rv != ERR_OK)
        return rv;
    look_at_room(q->data_dir, &r->data_free, &r->data_size);
    look_at_room(wal, &r->wal_free, &r->wal_size);
    rv = write_block(q->data_dir, e);
    if (rv == ERR_OK && data_stat.st_dev != wal_stat.st_dev)
        rv = write_block(wal, e);
    return rv;
}
