#include "agent/worker/worker_locks.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/worker/worker_files.h"

enum { LOCK_MAX = 4096 };

/* Behind the name in /proc/PID/stat, which may hold anything. */
static bool is_dead(unsigned long pid)
{
    char path[64];
    char text[1024];
    (void)snprintf(path, sizeof path, "/proc/%lu/stat", pid);
    if (files_read(path, text, sizeof text, NULL) != ERR_OK)
        return true;
    const char *close = strrchr(text, ')');
    return close != NULL && (close[2] == 'Z' || close[2] == 'X');
}

static bool works_in(unsigned long pid, const char *data_dir)
{
    char path[64];
    char cwd[PATH_MAX];
    char real[PATH_MAX];
    (void)snprintf(path, sizeof path, "/proc/%lu/cwd", pid);
    ssize_t n = readlink(path, cwd, sizeof cwd - 1);
    if (n < 0 || realpath(data_dir, real) == NULL)
        return true; /* not to be seen: taken for the holder */
    cwd[n] = '\0';
    return strcmp(cwd, real) == 0;
}

void locks_remove_dead(const char *path, const char *data_dir)
{
    char text[LOCK_MAX];
    if (files_read(path, text, sizeof text, NULL) != ERR_OK)
        return;
    unsigned long pid = strtoul(text, NULL, 10);
    if (pid > 1 && (is_dead(pid) || !works_in(pid, data_dir)))
        (void)unlink(path);
}

unsigned long locks_holder(const char *data_dir)
{
    char path[FILES_PATH];
    char text[LOCK_MAX];
    if (files_path(path, data_dir, "postmaster.pid", NULL) != ERR_OK ||
        files_read(path, text, sizeof text, NULL) != ERR_OK)
        return 0;
    unsigned long pid = strtoul(text, NULL, 10);
    return pid > 1 && !is_dead(pid) && works_in(pid, data_dir) ? pid : 0;
}
