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

static uint64_t free_bytes(const char *dir)
{
    struct statvfs v;
    return statvfs(dir, &v) == 0 ? (uint64_t)v.f_bavail * v.f_frsize : 0;
}

bool log_store_ballast_make(const char *dir)
{
    char path[LOG_STORE_PATH_MAX + 16];
    struct stat st;
    if (!path_of(dir, path))
        return false;
    if (stat(path, &st) == 0 && st.st_size >= LOG_STORE_BALLAST_BYTES)
        return true;
    if (free_bytes(dir) < LOG_STORE_PLENTY_BYTES)
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

bool log_store_judge_disk(const char *dir, bool was_full)
{
    uint64_t bytes = free_bytes(dir);
    if (bytes < LOG_STORE_DIRE_BYTES)
        (void)log_store_ballast_release(dir);
    return bytes < (was_full ? LOG_STORE_PLENTY_BYTES : LOG_STORE_LOW_BYTES) ||
           !log_store_ballast_make(dir);
}

void log_store_make_room(const char *dir)
{
    if (free_bytes(dir) < LOG_STORE_DIRE_BYTES)
        (void)log_store_ballast_release(dir);
}

bool log_store_room_for(const char *dir, uint64_t bytes)
{
    return free_bytes(dir) >= bytes + LOG_STORE_LOW_BYTES;
}
