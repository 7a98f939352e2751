#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/fence/warden.h"
#include "base/str.h"

/* PostgreSQL takes a lock file for valid when *some* process bears the pid in it: also a zombie that PID 1
 * has not reaped yet, and also a stranger of the same user after a reboot. A postmaster changes to PGDATA
 * before it writes the file, so a living process that works elsewhere did not write it. */
static bool holds(pid_t pid, const char *pgdata)
{
    struct proc_stat s;
    char cwd[FENCE_PATH_MAX];
    if (!proc_stat_read(pid, &s) || proc_is_dead(&s))
        return false;
    return !proc_cwd(pid, cwd, sizeof cwd) || strcmp(cwd, pgdata) == 0;
}

/* Whole small file; the number of its lines, each ended by NUL now. */
static size_t read_lines(const char *path, char *text, size_t size, char **ret_lines,
                         size_t max)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, text, size - 1) : -1;
    if (fd >= 0)
        (void)close(fd);
    if (got <= 0)
        return 0;
    text[got] = '\0';
    size_t n = 0;
    char *at = text;
    for (char *end; n < max && (end = strchr(at, '\n')) != NULL; at = end + 1) {
        *end = '\0';
        ret_lines[n++] = at;
    }
    return n;
}

static void remove_socket_lock(const char *directory, const char *port, const char *pid)
{
    char path[FENCE_PATH_MAX], text[1024], *line[1];
    if (str_format(path, sizeof path, "%s/.s.PGSQL.%s.lock", directory, port) != ERR_OK ||
        read_lines(path, text, sizeof text, line, 1) != 1 || strcmp(line[0], pid) != 0)
        return;
    (void)unlink(path);
}

/* postmaster.pid: pid, data directory, start time, port, socket directory, ... (miscadmin.h). Only after
 * refuse_company() has found nobody at home. */
void locks_remove_stale(const char *pgdata)
{
    enum { PID, PORT = 3, SOCKET_DIRECTORY, LINES };
    char path[FENCE_PATH_MAX + 32], text[4096], *line[LINES];
    uint64_t pid;
    (void)snprintf(path, sizeof path, "%s/postmaster.pid", pgdata);
    size_t n = read_lines(path, text, sizeof text, line, LINES);
    if (n == 0 || str_parse_u64(line[PID], &pid) != ERR_OK || pid == 0 || pid > INT32_MAX ||
        holds((pid_t)pid, pgdata))
        return;
    if (n == LINES)
        remove_socket_lock(line[SOCKET_DIRECTORY], line[PORT], line[PID]);
    (void)unlink(path);
}
