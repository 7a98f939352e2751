/* A copy of another node's data, in place of what is here.
 *
 * The copy is made in a new directory beside the data; only when it is whole is the old data moved
 * aside and the new moved in, so that a clone that fails costs nothing. A crash between the two
 * renames leaves no data directory: it is cloned again. Old data is never deleted. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "agent/worker/worker_ops.h"
#include "base/str.h"

struct place {
    char target[FILES_PATH]; /* the data directory, links resolved */
    char parent[FILES_PATH];
    char
        fresh[FILES_PATH]; /* where the copy is made; target itself when it cannot be renamed */
    bool exists;
    bool empty;
    bool in_place;
    uint64_t free_before; /* bytes */
};

static uint64_t free_bytes(const char *path)
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

static enum err find_place(const struct worker_req *q, struct place *p, struct errmsg *e)
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

/* Everything that would stop the exchange is found before hours are spent on the copy. */
static enum err check_place(const struct place *p, struct errmsg *e)
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

static uint64_t bytes_taken(void *arg)
{
    const struct place *p = arg;
    uint64_t now = free_bytes(p->parent);
    return p->free_before > now ? p->free_before - now : 0;
}

static enum err run_basebackup(struct worker *w, const struct worker_req *q,
                               const char *bin_dir, struct place *p, struct errmsg *e)
{
    char path[FILES_PATH];
    struct buf conninfo CLEANUP(buf_close) = BUF_INIT;
    struct tool t = {.progress = bytes_taken, .arg = p};
    enum err rv = files_path(path, bin_dir, "pg_basebackup", e);
    if (rv != ERR_OK)
        return rv;
    tool_conninfo(q, NULL, &conninfo);
    const char *args[] = {path,
                          "-D",
                          p->fresh,
                          "-X",
                          "stream",
                          "--checkpoint=fast",
                          "--no-password",
                          "-d",
                          buf_cstr(&conninfo)};
    for (size_t i = 0; i < ARRAY_LEN(args); i++)
        tool_arg(&t, args[i]);
    rv = tool_args(&t, q->args, NULL, e);
    p->free_before = free_bytes(p->parent);
    return rv == ERR_OK ? tool_run(w, &t, NULL, e) : rv;
}

static enum err exchange(const struct place *p, struct worker_reply *r, struct errmsg *e)
{
    char old[FILES_PATH];
    char stamp[20];
    enum err rv = ERR_OK;
    files_stamp(stamp);
    rv = str_format(old, sizeof old, "%s.old-%s", p->target, stamp);
    if (rv == ERR_OK && p->exists && p->empty && rmdir(p->target) != 0)
        rv = err_set(e, err_from_errno(errno), "remove empty %s: %s", p->target,
                     strerror(errno));
    if (rv == ERR_OK && !p->empty) {
        rv = files_rename(p->target, old, e);
        if (rv == ERR_OK)
            (void)snprintf(r->text, sizeof r->text, "old data moved to %.400s", old);
    }
    if (rv != ERR_OK)
        return rv;
    rv = files_rename(p->fresh, p->target, e);
    if (rv != ERR_OK && !p->empty)
        (void)rename(old, p->target);
    return rv;
}

enum err op_clone(struct worker *w, const struct worker_req *q, struct worker_reply *r,
                  struct errmsg *e)
{
    struct place p = {.exists = false};
    enum err rv = find_place(q, &p, e);
    if (rv == ERR_OK)
        rv = check_place(&p, e);
    if (rv == ERR_OK)
        rv = programs_find(q, r->bin_dir, e);
    if (rv == ERR_OK && !p.in_place)
        rv = files_remove_tree(p.fresh, e); /* of a clone that was cut short */
    if (rv == ERR_OK)
        rv = run_basebackup(w, q, r->bin_dir, &p, e);
    /* What the source says of itself came along. */
    if (rv == ERR_OK)
        rv = incarnation_void(p.fresh, e);
    if (rv == ERR_OK)
        rv = signal_file_set(p.fresh, true, e);
    if (rv == ERR_OK)
        rv = lineage_write(p.fresh, q->lineage, e);
    if (rv == ERR_OK)
        rv = incarnation_write(p.fresh, q->name, r->incarnation, e);
    if (rv == ERR_OK && !p.in_place)
        rv = exchange(&p, r, e);
    return rv;
}
