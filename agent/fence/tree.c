#include "agent/fence/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/assert.h"

enum { PARENTS_MAX = 64, FIELD_START = 22 };

/* What getdents64 writes; glibc's readdir would allocate. */
struct dirent_raw {
    uint64_t ino;
    int64_t off;
    uint16_t reclen;
    uint8_t type;
    char name[];
};

static ssize_t read_small(const char *path, char *buf, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = read(fd, buf, size - 1);
    (void)close(fd);
    if (n < 0)
        return -1;
    buf[n] = '\0';
    return n;
}

/* "pid (name) S ppid ... start ...": the name may hold anything, so start behind its last ')'. */
static bool parse_stat(char *text, struct proc_stat *s)
{
    char *p = strrchr(text, ')');
    if (p == NULL || p[1] != ' ' || p[2] == '\0')
        return false;
    s->state = p[2];
    p += 3;
    s->ppid = (pid_t)strtol(p, &p, 10);
    for (int field = 5; field < FIELD_START; field++)
        (void)strtoll(p, &p, 10);
    s->start_ticks = strtoull(p, NULL, 10);
    return s->start_ticks != 0 || s->ppid == 0;
}

bool proc_stat_read(pid_t pid, struct proc_stat *ret_stat)
{
    char path[32], text[1024];
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    struct proc_stat s = {.pid = pid};
    if (read_small(path, text, sizeof text) <= 0 || !parse_stat(text, &s))
        return false;
    *ret_stat = s;
    return true;
}

static bool read_link(pid_t pid, const char *what, char *ret, size_t size)
{
    char path[40];
    (void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, what);
    ssize_t n = readlink(path, ret, size);
    if (n <= 0 || (size_t)n >= size) {
        ret[0] = '\0';
        return false;
    }
    ret[n] = '\0';
    return true;
}

bool proc_cwd(pid_t pid, char *ret_path, size_t size)
{
    return read_link(pid, "cwd", ret_path, size);
}

/* Text equality with an optional " (deleted)" behind: a package upgrade replaces the program, and a
 * reclone moves PGDATA, under a running PostgreSQL. */
static bool same_path(const char *link, const char *wanted)
{
    size_t n = strlen(wanted);
    return strncmp(link, wanted, n) == 0 &&
           (link[n] == '\0' || strcmp(link + n, " (deleted)") == 0);
}

/* /proc/PID/cgroup may be read of every user's process. */
static bool in_cgroup(pid_t pid, pid_t fence)
{
    char path[40], text[4096], wanted[64];
    (void)snprintf(path, sizeof path, "/proc/%d/cgroup", (int)pid);
    (void)snprintf(wanted, sizeof wanted, "/" FENCE_CGROUP_NAME "%d\n", (int)fence);
    return fence != 0 && read_small(path, text, sizeof text) > 0 &&
           strstr(text, wanted) != NULL;
}

static bool lives_in_pgdata(const struct tree *t, pid_t pid)
{
    char link[FENCE_PATH_MAX + 16];
    if (!proc_cwd(pid, link, sizeof link))
        return in_cgroup(pid, t->cgroup_of);
    if (t->pgdata[0] == '\0' || !same_path(link, t->pgdata))
        return false;
    if (!read_link(pid, "exe", link, sizeof link))
        return false;
    const char *base = strrchr(link, '/');
    return same_path(base != NULL ? base + 1 : link, t->exe[0] != '\0' ? t->exe : "postgres");
}

static bool excepted(const struct tree *t, pid_t pid)
{
    for (size_t i = 0; i < ARRAY_LEN(t->except); i++)
        if (t->except[i] == pid)
            return true;
    return false;
}

static bool is_root(const struct tree *t, const struct proc_stat *s)
{
    return t->root != 0 && s->pid == t->root &&
           (t->root_start_ticks == 0 || t->root_start_ticks == s->start_ticks);
}

/* Parents already found to lead nowhere, during one look at all processes: most have the same few. */
struct kinless {
    pid_t pid[256];
};

static bool has(const struct tree *t, const struct proc_stat *s, struct kinless *k)
{
    if (proc_is_dead(s) || s->pid == t->reaper)
        return false;
    struct proc_stat at = *s;
    for (int depth = 0; depth < PARENTS_MAX; depth++) {
        if (excepted(t, at.pid))
            return false;
        if (is_root(t, &at) || (t->reaper != 0 && at.ppid == t->reaper))
            return true;
        if (at.ppid <= 1 || k->pid[(size_t)at.ppid % ARRAY_LEN(k->pid)] == at.ppid ||
            !proc_stat_read(at.ppid, &at))
            break;
    }
    if (s->ppid > 0)
        k->pid[(size_t)s->ppid % ARRAY_LEN(k->pid)] = s->ppid;
    return lives_in_pgdata(t, s->pid);
}

bool tree_has(const struct tree *t, const struct proc_stat *s)
{
    struct kinless none = {0};
    return has(t, s, &none);
}

bool proc_signal(const struct proc_stat *s, int signal_number)
{
    int fd = pidfd_open(s->pid, 0);
    if (fd < 0)
        return false;
    /* The descriptor holds whoever bears the pid now; the start time says whether that is ours. */
    struct proc_stat now;
    bool ok = proc_stat_read(s->pid, &now) && now.start_ticks == s->start_ticks &&
              pidfd_send_signal(fd, signal_number, NULL, 0) == 0;
    (void)close(fd);
    return ok;
}

static pid_t pid_of(const char *name)
{
    pid_t pid = 0;
    for (const char *p = name; *p != '\0'; p++) {
        if (*p < '0' || *p > '9')
            return 0;
        pid = pid * 10 + (*p - '0');
    }
    return pid;
}

/* Collected first, signalled then: a parent that dies early would take the line of its children along. */
struct found {
    struct kinless kinless;
    struct proc_stat one[512];
    size_t n;
    int all; /* also those signalled already, when there are more than fit */
};

static void signal_found(struct found *f, int signal_number)
{
    for (size_t i = 0; i < f->n && signal_number != 0; i++)
        (void)proc_signal(&f->one[i], signal_number);
    f->n = 0;
}

static void visit(const struct tree *t, pid_t pid, int signal_number, struct found *f)
{
    struct proc_stat s;
    if (pid == 0 || pid == getpid() || !proc_stat_read(pid, &s) || !has(t, &s, &f->kinless))
        return;
    if (f->n == ARRAY_LEN(f->one))
        signal_found(f, signal_number);
    f->one[f->n++] = s;
    f->all++;
}

int tree_signal(const struct tree *t, int signal_number)
{
    ASSERT(signal_number >= 0);
    int fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    _Alignas(struct dirent_raw) char buf[8192];
    struct found f = {.n = 0};
    long n;
    while ((n = syscall(SYS_getdents64, fd, buf, sizeof buf)) > 0) {
        for (long at = 0; at < n;) {
            const struct dirent_raw *d = (const struct dirent_raw *)(const void *)(buf + at);
            visit(t, pid_of(d->name), signal_number, &f);
            at += d->reclen;
        }
    }
    (void)close(fd);
    signal_found(&f, signal_number);
    return n < 0 ? -1 : f.all;
}
