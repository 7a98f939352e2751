#include "agent/worker/worker_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/str.h"

static enum err fail(struct errmsg *e, const char *what, const char *path)
{
    int number = errno;
    return err_set(e, err_from_errno(number), "%s %s: %s", what, path, strerror(number));
}

enum err files_path(char ret[static FILES_PATH], const char *dir, const char *name,
                    struct errmsg *e)
{
    enum err rv = name[0] == '/' ? str_copy(ret, FILES_PATH, name)
                                 : str_format(ret, FILES_PATH, "%s/%s", dir, name);
    return rv == ERR_OK ? rv : err_set(e, rv, "path is too long: %.200s/...", dir);
}

enum err files_parent(char ret[static FILES_PATH], const char *path, struct errmsg *e)
{
    if (path[0] != '/' || str_copy(ret, FILES_PATH, path) != ERR_OK)
        return err_set(e, ERR_INVALID, "%.200s: an absolute path is needed", path);
    size_t n = strlen(ret);
    while (n > 1 && ret[n - 1] == '/')
        n--;
    while (n > 1 && ret[n - 1] != '/')
        n--;
    ret[n > 1 ? n - 1 : n] = '\0';
    return ERR_OK;
}

enum err files_sync_dir(const char *path, struct errmsg *e)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail(e, "open", path);
    enum err rv = fsync(fd) == 0 ? ERR_OK : fail(e, "fsync", path);
    (void)close(fd);
    return rv;
}

static enum err sync_parent(const char *path, struct errmsg *e)
{
    char dir[FILES_PATH];
    enum err rv = files_parent(dir, path, e);
    return rv == ERR_OK ? files_sync_dir(dir, e) : rv;
}

static bool write_all(int fd, struct slice s)
{
    while (s.n > 0) {
        ssize_t n = write(fd, s.p, s.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        s = slice_of(s.p + n, s.n - (size_t)n);
    }
    return true;
}

static enum err put_in_place(const char *path, struct slice content, mode_t mode, bool durable,
                             struct errmsg *e)
{
    char temp[FILES_PATH];
    enum err rv = str_format(temp, sizeof temp, "%s.regent-tmp", path);
    if (rv != ERR_OK)
        return err_set(e, rv, "path is too long: %.200s", path);
    (void)unlink(temp); /* of an earlier life */
    int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0)
        return fail(e, "create", temp);
    bool ok = fchmod(fd, mode) == 0 && write_all(fd, content) && (!durable || fsync(fd) == 0);
    rv = ok ? ERR_OK : fail(e, "write", temp);
    if (close(fd) != 0 && rv == ERR_OK)
        rv = fail(e, "close", temp);
    if (rv == ERR_OK && rename(temp, path) != 0)
        rv = fail(e, "rename to", path);
    if (rv != ERR_OK) {
        (void)unlink(temp);
        return rv;
    }
    return durable ? sync_parent(path, e) : ERR_OK;
}

enum err files_write(const char *path, struct slice content, mode_t mode, struct errmsg *e)
{
    return put_in_place(path, content, mode, true, e);
}

enum err files_replace(const char *path, struct slice content, mode_t mode, struct errmsg *e)
{
    return put_in_place(path, content, mode, false, e);
}

static enum err read_from(int fd, char *ret, size_t size, const char *path, struct errmsg *e)
{
    size_t have = 0;
    while (have < size) {
        ssize_t n = read(fd, ret + have, size - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail(e, "read", path);
        if (n == 0) {
            ret[have] = '\0';
            return ERR_OK;
        }
        have += (size_t)n;
    }
    return err_set(e, ERR_LIMIT, "%s is longer than %zu bytes", path, size - 1);
}

enum err files_read(const char *path, char *ret, size_t size, struct errmsg *e)
{
    ret[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return fail(e, "open", path);
    enum err rv = read_from(fd, ret, size, path, e);
    (void)close(fd);
    if (rv != ERR_OK)
        ret[0] = '\0';
    return rv;
}

enum err files_tail(const char *path, char *ret, size_t size, struct errmsg *e)
{
    ret[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return fail(e, "open", path);
    off_t end = lseek(fd, 0, SEEK_END);
    off_t from = end > (off_t)size - 1 ? end - ((off_t)size - 1) : 0;
    ssize_t n = end < 0 ? -1 : pread(fd, ret, size - 1, from);
    enum err rv = n >= 0 ? ERR_OK : fail(e, "read", path);
    (void)close(fd);
    ret[MAX(n, 0)] = '\0';
    char *line = from > 0 && n > 0 ? strchr(ret, '\n') : NULL;
    if (line != NULL)
        memmove(ret, line + 1, strlen(line + 1) + 1);
    return rv;
}

enum err files_remove(const char *path, struct errmsg *e)
{
    if (unlink(path) == 0)
        return sync_parent(path, e);
    return errno == ENOENT ? ERR_OK : fail(e, "remove", path);
}

enum err files_rename(const char *from, const char *to, struct errmsg *e)
{
    if (rename(from, to) != 0) {
        int number = errno;
        enum err code =
            number == EBUSY || number == EXDEV ? ERR_UNSUPPORTED : err_from_errno(number);
        return err_set(e, code, "rename %s to %s: %s", from, to, strerror(number));
    }
    return sync_parent(to, e);
}

bool files_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

enum err files_dir_empty(const char *path, bool *ret_empty, struct errmsg *e)
{
    DIR *d = opendir(path);
    if (d == NULL)
        return fail(e, "open", path);
    bool empty = true;
    struct dirent *entry;
    while (empty && (entry = readdir(d)) != NULL)
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
                strcmp(entry->d_name, "lost+found") == 0 || strcmp(entry->d_name, NEW_DIR) == 0;
    (void)closedir(d);
    *ret_empty = empty;
    return ERR_OK;
}

enum err files_own_dir(const char *path, struct errmsg *e)
{
    if (mkdir(path, 0700) == 0)
        return sync_parent(path, e);
    struct stat st;
    if (errno != EEXIST || lstat(path, &st) != 0)
        return fail(e, "create directory", path);
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
        (st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return err_set(e, ERR_DENIED,
                       "%s must be a directory of this user that nobody else may write to",
                       path);
    return ERR_OK;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

enum err files_remove_tree(const char *path, struct errmsg *e)
{
    if (!files_exists(path))
        return ERR_OK;
    if (nftw(path, remove_entry, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0)
        return fail(e, "remove", path);
    return ERR_OK;
}

/* One pass: what is removed while it is read may hide others. */
static enum err clear_entries(DIR *d, const char *path, const char *last, bool *ret_found,
                              struct errmsg *e)
{
    enum err rv = ERR_OK;
    struct dirent *entry;
    *ret_found = false;
    rewinddir(d);
    while (rv == ERR_OK && (entry = readdir(d)) != NULL) {
        char one[FILES_PATH];
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
            strcmp(name, "lost+found") == 0 || (last != NULL && strcmp(name, last) == 0))
            continue;
        *ret_found = true;
        rv = files_path(one, path, name, e);
        if (rv == ERR_OK)
            rv = files_remove_tree(one, e);
    }
    return rv;
}

enum err files_clear_dir(const char *path, const char *last, struct errmsg *e)
{
    char one[FILES_PATH];
    bool found = true;
    enum err rv = ERR_OK;
    DIR *d = opendir(path);
    if (d == NULL)
        return fail(e, "open", path);
    while (rv == ERR_OK && found)
        rv = clear_entries(d, path, last, &found, e);
    (void)closedir(d);
    if (rv != ERR_OK || last == NULL)
        return rv;
    rv = files_path(one, path, last, e);
    if (rv == ERR_OK)
        rv = sync_parent(one, e); /* the others are gone for good before the last goes */
    return rv == ERR_OK ? files_remove(one, e) : rv;
}

/* nftw() hands nothing through; the worker has one thread */
static uint64_t tree_bytes, tree_end_ms;

static int add_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)path;
    (void)at;
    if (type != FTW_NS)
        tree_bytes += (uint64_t)st->st_blocks * 512;
    return tree_end_ms != 0 && clock_mono_ms() >= tree_end_ms ? 1 : 0;
}

bool files_tree_bytes_within(const char *path, uint64_t limit_ms, uint64_t *ret_bytes)
{
    tree_bytes = 0;
    tree_end_ms = limit_ms != 0 ? clock_mono_ms() + limit_ms : 0;
    bool whole = nftw(path, add_entry, 32, FTW_PHYS | FTW_MOUNT) != 1;
    *ret_bytes = tree_bytes;
    return whole;
}

uint64_t files_tree_bytes(const char *path)
{
    uint64_t bytes;
    (void)files_tree_bytes_within(path, 0, &bytes);
    return bytes;
}

void files_stamp(char ret[static 20])
{
    time_t now = time(NULL);
    struct tm tm;
    if (gmtime_r(&now, &tm) == NULL || strftime(ret, 20, "%Y%m%dT%H%M%SZ", &tm) == 0)
        (void)snprintf(ret, 20, "%lld", (long long)now % 1000000000000LL);
}
