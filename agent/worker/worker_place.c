#include "agent/worker/worker_place.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "agent/worker/worker_locks.h"
#include "base/str.h"

uint64_t place_free_bytes(const char *path)
{
    struct statvfs st;
    return statvfs(path, &st) == 0 ? (uint64_t)st.f_bavail * st.f_frsize : 0;
}

static bool is_mount_point(const char *path, const char *parent)
{
    struct stat a;
    struct stat b;
    return stat(path, &a) == 0 && stat(parent, &b) == 0 && a.st_dev != b.st_dev;
}

enum err place_find(const struct worker_req *q, struct place *p, struct errmsg *e)
{
    char real[4096];
    const char *path = realpath(q->data_dir, real) != NULL ? real : q->data_dir;
    enum err rv = str_copy(p->target, sizeof p->target, path);
    if (rv == ERR_OK)
        rv = files_parent(p->parent, p->target, e);
    if (rv != ERR_OK)
        return err_set(e, rv, "%s is no usable path", q->data_dir);
    rv = files_dir_empty(p->target, &p->empty, e);
    p->exists = rv == ERR_OK;
    if (rv == ERR_NOT_FOUND) {
        p->empty = true;
        rv = ERR_OK;
    }
    if (rv != ERR_OK)
        return rv;
    bool fixed = p->exists &&
                 (is_mount_point(p->target, p->parent) || access(p->parent, W_OK | X_OK) != 0);
    p->in_place = fixed;
    return str_format(p->fresh, sizeof p->fresh, "%s%s", p->target, fixed ? "" : ".new");
}

enum err place_check(const struct place *p, struct errmsg *e)
{
    char path[FILES_PATH];
    bool empty = true;
    if (p->in_place && !p->empty)
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s is a mount point, or its parent is not writable: the old data cannot be "
            "moved aside; move the data to a subdirectory of the mount, or empty it",
            p->target);
    if (p->empty)
        return ERR_OK;
    enum err rv = files_path(path, p->target, "pg_tblspc", e);
    if (rv == ERR_OK && files_exists(path))
        rv = files_dir_empty(path, &empty, e);
    if (rv == ERR_OK && !empty)
        rv = err_set(e, ERR_UNSUPPORTED,
                     "%s has tablespaces, which are not moved aside: move or empty their "
                     "directories and remove the links in pg_tblspc first",
                     p->target);
    return rv;
}

static enum err set_aside(struct place *p, struct worker_reply *r, struct errmsg *e)
{
    char stamp[20];
    unsigned long holder = locks_holder(p->target);
    if (holder != 0)
        return err_set(e, ERR_PRECONDITION,
                       "another server runs in %s (process %lu): stop it first", p->target,
                       holder);
    files_stamp(stamp);
    enum err rv = str_format(p->old, sizeof p->old, "%s.old-%s", p->target, stamp);
    if (rv == ERR_OK)
        rv = files_rename(p->target, p->old, e);
    if (rv == ERR_OK)
        (void)snprintf(r->text, sizeof r->text, "old data moved to %.400s", p->old);
    else
        p->old[0] = '\0';
    return rv;
}

enum err place_exchange(struct place *p, struct worker_reply *r, struct errmsg *e)
{
    enum err rv = ERR_OK;
    if (p->exists && p->empty && rmdir(p->target) != 0)
        rv = err_set(e, err_from_errno(errno), "remove empty %s: %s", p->target,
                     strerror(errno));
    if (rv == ERR_OK && !p->empty)
        rv = set_aside(p, r, e);
    if (rv != ERR_OK)
        return rv;
    rv = files_rename(p->fresh, p->target, e);
    if (rv != ERR_OK && !p->empty)
        (void)rename(p->old, p->target);
    return rv;
}

enum err place_clear(struct place *p, struct worker_reply *r, struct errmsg *e)
{
    enum err rv = p->empty ? ERR_OK : set_aside(p, r, e);
    if (rv == ERR_OK && (!p->exists || !p->empty) && mkdir(p->target, 0700) != 0)
        rv = err_set(e, err_from_errno(errno), "make %s: %s", p->target, strerror(errno));
    return rv;
}

void place_undo(struct place *p)
{
    struct errmsg e = {0};
    (void)!files_remove_tree(p->target, &e); /* a mount point stays, emptied */
    if (p->old[0] != '\0')
        (void)rename(p->old, p->target);
}
