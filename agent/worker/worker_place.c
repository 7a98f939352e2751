#include "agent/worker/worker_place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "agent/worker/worker_locks.h"
#include "base/str.h"

static uint64_t free_bytes(const char *path)
{
    struct statvfs st;
    return statvfs(path, &st) == 0 ? (uint64_t)st.f_bavail * st.f_frsize : 0;
}

/* A bind mount may be of the parent's file system; where the kernel cannot say it (before 5.8), another device tells. */
static bool is_mount_point(const char *path, const char *parent)
{
    struct statx x;
    struct stat a;
    struct stat b;
    if (statx(AT_FDCWD, path, 0, 0, &x) == 0 &&
        (x.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) != 0)
        return (x.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
    return stat(path, &a) == 0 && stat(parent, &b) == 0 && a.st_dev != b.st_dev;
}

static enum err refuse_root(const struct place *p, struct errmsg *e)
{
    char path[FILES_PATH];
    enum err rv = files_path(path, p->target, "lost+found", e);
    if (rv == ERR_OK && files_exists(path))
        rv = err_set(e, ERR_UNSUPPORTED,
                     "%s has lost+found in it, which nobody could copy it with: make a "
                     "subdirectory of it postgresql.data_dir",
                     p->target);
    return rv;
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
    rv = refuse_root(p, e);
    if (rv != ERR_OK)
        return rv;
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
    return str_format(p->fresh, sizeof p->fresh, "%s%s", p->target,
                      fixed ? "/" NEW_DIR : ".new");
}

static enum err has_tablespaces(const struct place *p, bool *ret, struct errmsg *e)
{
    char path[FILES_PATH];
    bool empty = true;
    enum err rv = files_path(path, p->target, "pg_tblspc", e);
    if (rv == ERR_OK && files_exists(path))
        rv = files_dir_empty(path, &empty, e);
    *ret = !empty;
    return rv;
}

enum err place_check(const struct place *p, struct errmsg *e)
{
    bool tablespaces = false;
    if (p->in_place && !p->empty)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s cannot be moved aside (a mount point, or in a directory that is not "
                       "writable): `regentctl reinit --remove-data` deletes it",
                       p->target);
    if (p->empty)
        return ERR_OK;
    enum err rv = has_tablespaces(p, &tablespaces, e);
    if (rv == ERR_OK && tablespaces)
        rv = err_set(e, ERR_UNSUPPORTED,
                     "%s has tablespaces, which are not moved aside: `regentctl reinit "
                     "--remove-data` deletes what is in them of it",
                     p->target);
    return rv;
}

bool place_is_short(const struct place *p)
{
    return !p->empty && files_tree_bytes(p->target) > free_bytes(p->parent);
}

static enum err no_server(const struct place *p, struct errmsg *e)
{
    unsigned long holder = locks_holder(p->target);
    return holder == 0 ? ERR_OK
                       : err_set(e, ERR_PRECONDITION,
                                 "another server runs in %s (process %lu): stop it first",
                                 p->target, holder);
}

static enum err set_aside(struct place *p, struct worker_reply *r, struct errmsg *e)
{
    char stamp[20];
    files_stamp(stamp);
    enum err rv = no_server(p, e);
    if (rv == ERR_OK)
        rv = str_format(p->old, sizeof p->old, "%s.old-%s", p->target, stamp);
    if (rv == ERR_OK)
        rv = files_rename(p->target, p->old, e);
    if (rv == ERR_OK)
        (void)snprintf(r->text, sizeof r->text, "old data moved to %.400s", p->old);
    else
        p->old[0] = '\0';
    return rv;
}

static enum err move_entries(const char *from, const char *to, struct errmsg *e)
{
    enum err rv = ERR_OK;
    struct dirent *entry;
    DIR *d = opendir(from);
    if (d == NULL)
        return err_set(e, err_from_errno(errno), "open %s: %s", from, strerror(errno));
    while (rv == ERR_OK && (entry = readdir(d)) != NULL) {
        char a[FILES_PATH];
        char b[FILES_PATH];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        rv = files_path(a, from, entry->d_name, e);
        if (rv == ERR_OK)
            rv = files_path(b, to, entry->d_name, e);
        if (rv == ERR_OK && rename(a, b) != 0)
            rv =
                err_set(e, err_from_errno(errno), "rename %s to %s: %s", a, b, strerror(errno));
    }
    (void)closedir(d);
    return rv;
}

/* The directory stays: what is in `fresh` goes up. Half of that is no data. */
static enum err exchange_within(const struct place *p, struct errmsg *e)
{
    char mark[FILES_PATH];
    enum err rv = files_path(mark, p->target, REMOVE_FILE, e);
    if (rv == ERR_OK)
        rv = files_write(mark, slice_of(NULL, 0), 0600, e);
    if (rv == ERR_OK)
        rv = move_entries(p->fresh, p->target, e);
    if (rv == ERR_OK && rmdir(p->fresh) != 0)
        rv = err_set(e, err_from_errno(errno), "remove %s: %s", p->fresh, strerror(errno));
    if (rv == ERR_OK)
        rv = files_sync_dir(p->target, e);
    return rv == ERR_OK ? files_remove(mark, e) : rv;
}

static enum err remove_empty(const char *path, struct errmsg *e)
{
    /* of a copy that was cut short when the directory could not be renamed */
    char left[FILES_PATH];
    enum err rv = files_path(left, path, NEW_DIR, e);
    if (rv == ERR_OK)
        rv = files_remove_tree(left, e);
    if (rv == ERR_OK && rmdir(path) != 0)
        rv = err_set(e, err_from_errno(errno), "remove empty %s: %s", path, strerror(errno));
    return rv;
}

enum err place_exchange(struct place *p, struct worker_reply *r, struct errmsg *e)
{
    enum err rv = ERR_OK;
    if (p->in_place)
        return exchange_within(p, e);
    if (p->exists && p->empty)
        rv = remove_empty(p->target, e);
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
    if (rv == ERR_OK)
        rv = files_remove_tree(p->fresh, e);
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

/* ---- data that need not be kept ---- */

bool place_is_half_deleted(const struct place *p)
{
    char path[FILES_PATH];
    return !p->empty && files_path(path, p->target, REMOVE_FILE, NULL) == ERR_OK &&
           files_exists(path);
}

/* This data's part of a tablespace: other servers may have theirs in the same directory, by their version. */
static enum err clear_tablespace(const char *location, const char *version, struct errmsg *e)
{
    char mine[32];
    char path[FILES_PATH];
    (void)snprintf(mine, sizeof mine, "PG_%s_", version);
    DIR *d = opendir(location);
    if (d == NULL)
        return errno == ENOENT ? ERR_OK
                               : err_set(e, err_from_errno(errno), "open %s: %s", location,
                                         strerror(errno));
    enum err rv = ERR_OK;
    struct dirent *entry;
    while (rv == ERR_OK && (entry = readdir(d)) != NULL) {
        if (!str_starts(entry->d_name, mine))
            continue;
        rv = files_path(path, location, entry->d_name, e);
        if (rv == ERR_OK)
            rv = files_remove_tree(path, e);
    }
    (void)closedir(d);
    return rv;
}

static enum err clear_tablespaces(const struct place *p, struct errmsg *e)
{
    char path[FILES_PATH];
    char version[16] = "";
    enum err rv = files_path(path, p->target, "PG_VERSION", e);
    if (rv == ERR_OK)
        rv = files_read(path, version, sizeof version, e);
    if (rv == ERR_NOT_FOUND)
        return ERR_OK; /* deleted: then this has been done */
    version[strcspn(version, "\n")] = '\0';
    if (rv == ERR_OK)
        rv = files_path(path, p->target, "pg_tblspc", e);
    DIR *d = rv == ERR_OK ? opendir(path) : NULL;
    if (rv == ERR_OK && d == NULL && errno != ENOENT)
        rv = err_set(e, err_from_errno(errno), "open %s: %s", path, strerror(errno));
    if (d == NULL)
        return rv;
    struct dirent *entry;
    while (rv == ERR_OK && (entry = readdir(d)) != NULL) {
        char link[FILES_PATH];
        char real[4096];
        if (entry->d_name[0] == '.')
            continue;
        rv = files_path(link, path, entry->d_name, e);
        if (rv == ERR_OK && realpath(link, real) != NULL)
            rv = clear_tablespace(real, version, e);
    }
    (void)closedir(d);
    return rv;
}

/* WAL on a disk of its own: the copy's is to go there, too. */
static enum err clear_wal(const struct place *p, struct errmsg *e)
{
    char path[FILES_PATH];
    char real[4096];
    struct stat st;
    enum err rv = files_path(path, p->target, "pg_wal", e);
    if (rv != ERR_OK || lstat(path, &st) != 0 || !S_ISLNK(st.st_mode) ||
        realpath(path, real) == NULL)
        return rv;
    return files_clear_dir(real, NULL, e);
}

static enum err delete_data(struct place *p, struct errmsg *e)
{
    char path[FILES_PATH];
    bool again = place_is_half_deleted(p);
    enum err rv = no_server(p, e);
    if (rv == ERR_OK)
        rv = files_path(path, p->target, REMOVE_FILE, e);
    if (rv == ERR_OK && !again)
        rv = files_write(path, slice_of(NULL, 0), 0600, e);
    if (rv == ERR_OK)
        rv = incarnation_void(p->target, e);
    if (rv == ERR_OK)
        rv = clear_tablespaces(p, e);
    if (rv == ERR_OK)
        rv = clear_wal(p, e);
    if (rv == ERR_OK)
        rv = files_clear_dir(p->target, REMOVE_FILE, e);
    p->empty = rv == ERR_OK;
    return rv;
}

enum err place_give_up(struct place *p, struct worker_reply *r, struct errmsg *e)
{
    bool tablespaces = false;
    if (p->empty)
        return ERR_OK;
    enum err rv = has_tablespaces(p, &tablespaces, e);
    bool stays = !p->in_place && !tablespaces && !place_is_half_deleted(p) &&
                 files_tree_bytes(p->target) < free_bytes(p->parent) / 10 * 9;
    if (rv != ERR_OK || stays)
        return rv;
    rv = delete_data(p, e);
    (void)snprintf(r->text, sizeof r->text, "old data in %.400s deleted", p->target);
    return rv;
}

void place_drop_old(struct place *p, struct worker_reply *r)
{
    struct errmsg e = {0};
    if (p->old[0] == '\0')
        return;
    if (files_remove_tree(p->old, &e) == ERR_OK)
        (void)snprintf(r->text, sizeof r->text, "old data deleted");
    else
        (void)snprintf(r->text, sizeof r->text, "old data is in %.200s: %.250s", p->old,
                       e.text);
}
