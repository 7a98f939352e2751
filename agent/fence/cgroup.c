#include "agent/fence/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/str.h"

/* The line "0::/path" of /proc/self/cgroup. */
static bool own_path(char *ret_path, size_t size)
{
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (f == NULL)
        return false;
    bool found = false;
    char line[FENCE_PATH_MAX];
    while (!found && fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "0::/", 4) == 0)
            found = str_copy(ret_path, size, line + 3) == ERR_OK;
    }
    (void)fclose(f);
    return found;
}

/* "id parent dev root mountpoint options ... - cgroup2 source options" of /proc/self/mountinfo; of
 * several mounts the first whose root is "/". */
static bool mount_point(char *ret_path, size_t size)
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    if (f == NULL)
        return false;
    bool found = false;
    char line[2 * FENCE_PATH_MAX], root[FENCE_PATH_MAX], at[FENCE_PATH_MAX];
    while (!found && fgets(line, sizeof line, f) != NULL) {
        if (strstr(line, " - cgroup2 ") == NULL ||
            sscanf(line, "%*s %*s %*s %1023s %1023s", root, at) != 2 || strcmp(root, "/") != 0)
            continue;
        found = str_copy(ret_path, size, at) == ERR_OK;
    }
    (void)fclose(f);
    return found;
}

/* Directories of fences that were killed; one that still holds processes stays (EBUSY). */
static void remove_stale(const char *parent)
{
    DIR *d = opendir(parent);
    if (d == NULL)
        return;
    const struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        uint64_t pid;
        if (!str_starts(e->d_name, FENCE_CGROUP_NAME) ||
            str_parse_u64(e->d_name + strlen(FENCE_CGROUP_NAME), &pid) != ERR_OK)
            continue;
        if (pid <= INT32_MAX && kill((pid_t)pid, 0) != 0 && errno == ESRCH)
            (void)unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR);
    }
    (void)closedir(d);
}

static int open_in(const char *dir, const char *file, int flags)
{
    char path[FENCE_PATH_MAX + 64];
    if (str_format(path, sizeof path, "%s/%s", dir, file) != ERR_OK)
        return -1;
    return open(path, flags | O_CLOEXEC);
}

static void close_files(struct cgroup *c)
{
    int *fds[] = {&c->procs, &c->kill, &c->freeze, &c->events};
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        if (*fds[i] >= 0)
            (void)close(*fds[i]);
        *fds[i] = -1;
    }
}

void cgroup_open(struct cgroup *c)
{
    *c = (struct cgroup){.procs = -1, .kill = -1, .freeze = -1, .events = -1};
    char mount[FENCE_PATH_MAX], own[FENCE_PATH_MAX], parent[FENCE_PATH_MAX];
    if (!own_path(own, sizeof own) || !mount_point(mount, sizeof mount) ||
        str_format(parent, sizeof parent, "%s%s", mount, strcmp(own, "/") == 0 ? "" : own) !=
            ERR_OK ||
        str_format(c->path, sizeof c->path, "%s/" FENCE_CGROUP_NAME "%d", parent,
                   (int)getpid()) != ERR_OK)
        return;
    remove_stale(parent);
    if (mkdir(c->path, 0755) != 0 && errno != EEXIST)
        return;
    c->procs = open_in(c->path, "cgroup.procs", O_RDWR);
    c->kill = open_in(c->path, "cgroup.kill", O_WRONLY);
    c->freeze = open_in(c->path, "cgroup.freeze", O_WRONLY);
    c->events = open_in(c->path, "cgroup.events", O_RDONLY);
    c->made = c->procs >= 0 && c->kill >= 0 && c->freeze >= 0 && c->events >= 0;
    if (!c->made)
        cgroup_close(c);
}

void cgroup_close(struct cgroup *c)
{
    close_files(c);
    if (c->path[0] != '\0')
        (void)rmdir(c->path);
    c->made = c->usable = false;
    c->path[0] = '\0';
}

static bool put(int fd, const char *text)
{
    return pwrite(fd, text, strlen(text), 0) == (ssize_t)strlen(text);
}

bool cgroup_enter(const struct cgroup *c)
{
    return c->made && put(c->procs, "0");
}

bool cgroup_verify(struct cgroup *c, pid_t pid)
{
    c->usable = false;
    if (!c->made)
        return false;
    char text[4096], want[16];
    ssize_t n = pread(c->procs, text, sizeof text - 1, 0);
    if (n <= 0)
        return false;
    text[n] = '\0';
    (void)snprintf(want, sizeof want, "%d\n", (int)pid);
    const char *at = strstr(text, want);
    c->usable = at != NULL && (at == text || at[-1] == '\n');
    return c->usable;
}

bool cgroup_kill(const struct cgroup *c)
{
    return c->made && put(c->kill, "1");
}

bool cgroup_freeze(struct cgroup *c, bool on)
{
    if (!c->made || !put(c->freeze, on ? "1" : "0"))
        return false;
    c->frozen = on;
    return true;
}

bool cgroup_is_frozen(const struct cgroup *c)
{
    char text[256];
    ssize_t n = c->made ? pread(c->events, text, sizeof text - 1, 0) : -1;
    if (n <= 0)
        return false;
    text[n] = '\0';
    return strstr(text, "frozen 1") != NULL;
}
