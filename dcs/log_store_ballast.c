/* The ballast: a file that is given up when the disk is full, so that the log can go on long enough for
 * somebody to be told. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "dcs/log_store_internal.h"

static bool path_of(const char *dir, char ret[static LOG_STORE_PATH_MAX + 16])
{
    int n = snprintf(ret, LOG_STORE_PATH_MAX + 16, "%s/ballast", dir);
    return n > 0 && n < LOG_STORE_PATH_MAX + 16;
}

static bool plenty_of_room(const char *dir)
{
    struct statvfs v;
    if (statvfs(dir, &v) != 0)
        return false;
    return (uint64_t)v.f_bavail * v.f_frsize >= 4 * (uint64_t)LOG_STORE_BALLAST_BYTES;
}

bool log_store_ballast_make(const char *dir)
{
    char path[LOG_STORE_PATH_MAX + 16];
    struct stat st;
    if (!path_of(dir, path))
        return false;
    if (stat(path, &st) == 0 && st.st_size >= LOG_STORE_BALLAST_BYTES)
        return true;
    if (!plenty_of_room(dir))
        return false;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return false;
    bool ok = posix_fallocate(fd, 0, LOG_STORE_BALLAST_BYTES) == 0;
    (void)close(fd);
    if (!ok)
        (void)unlink(path);
    return ok;
}

bool log_store_ballast_release(const char *dir)
{
    char path[LOG_STORE_PATH_MAX + 16];
    return path_of(dir, path) && unlink(path) == 0;
}
