/* Which processes belong to a node, from /proc, and their end. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/str.h"
#include "cli/demo.h"

enum {
    PROCS_MAX = 4096,
    CMDLINE_MAX = 4096,
    KILL_LIMIT_MS = 10000,
    GRACE_MS = 3000,
    PASS_MS = 10
};

struct proc {
    pid_t pid, parent;
    char program[16]; /* as the kernel cuts it */
    bool ours;
};

struct procs {
    struct proc p[PROCS_MAX];
    size_t n;
};

/* Everything a node consists of, in the order they are killed in: a daemon that sees its PostgreSQL
 * die would give the leadership away first, and a dead node does not. */
static const char *const programs[] = {"regentd",   "regent-fence",  "postgres",      "initdb",
                                       "pg_rewind", "pg_basebackup", "pg_controldata"};

static size_t rank(const char *program)
{
    size_t i = 0;
    while (i < ARRAY_LEN(programs) && strncmp(programs[i], program, 15) != 0)
        i++;
    return i;
}

static size_t read_all(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, size - 1) : -1;
    if (fd >= 0)
        (void)close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

/* Value of "Name:\t..." in /proc/PID/status; "" when it is not there. */
static const char *status_field(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    return at != NULL ? at + strlen(name) + strspn(at + strlen(name), "\t ") : "";
}

/* Not: zombies, which are dead, and other users' processes. The owner of /proc/PID does not tell the
 * user: it is root for a process that keeps its memory to itself, as regentd does. */
static bool read_proc(const struct demo *d, pid_t pid, struct proc *ret)
{
    char path[64];
    char text[2048];
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    if (read_all(path, text, sizeof text) == 0)
        return false;
    const char *name = status_field(text, "Name:");
    *ret = (struct proc){.pid = pid,
                         .parent = (pid_t)strtol(status_field(text, "\nPPid:"), NULL, 10)};
    (void)snprintf(ret->program, sizeof ret->program, "%.*s", (int)strcspn(name, "\n"), name);
    const char *state = status_field(text, "\nState:");
    return *state != 'Z' && *state != 'X' &&
           (uid_t)strtoul(status_field(text, "\nUid:"), NULL, 10) == d->uid;
}

/* dir itself or something below it, as one whole path in a text of n bytes. */
static bool names_path(const char *text, size_t n, const char *dir)
{
    size_t len = strlen(dir);
    for (const char *at = text; (at = memmem(at, n - (size_t)(at - text), dir, len)) != NULL;
         at++) {
        bool starts = at == text || at[-1] == '\0' || at[-1] == '=';
        bool ends = at + len == text + n || at[len] == '\0' || at[len] == '/';
        if (starts && ends)
            return true;
    }
    return false;
}

static bool works_below(const struct proc *p, const char *dir)
{
    char path[64];
    char text[CMDLINE_MAX];
    (void)snprintf(path, sizeof path, "/proc/%d/cwd", (int)p->pid);
    ssize_t n = readlink(path, text, sizeof text);
    if (n > 0 && names_path(text, (size_t)n, dir))
        return true;
    (void)snprintf(path, sizeof path, "/proc/%d/cmdline", (int)p->pid);
    size_t got = read_all(path, text, sizeof text);
    return names_path(text, got, dir);
}

static const struct proc *by_pid(const struct procs *all, pid_t pid)
{
    for (size_t i = 0; i < all->n; i++)
        if (all->p[i].pid == pid)
            return &all->p[i];
    return NULL;
}

/* Hooks run as children of ours, under any name and anywhere. */
static void take_children(struct procs *all)
{
    bool more = true;
    while (more) {
        more = false;
        for (size_t i = 0; i < all->n; i++) {
            const struct proc *parent = by_pid(all, all->p[i].parent);
            if (!all->p[i].ours && parent != NULL && parent->ours) {
                all->p[i].ours = true;
                more = true;
            }
        }
    }
}

static int by_rank(const void *a, const void *b)
{
    size_t x = rank(((const struct proc *)a)->program);
    size_t y = rank(((const struct proc *)b)->program);
    return (x > y) - (x < y);
}

/* Processes of a node; those that only look at it (a shell, `tail`, regentctl) do not belong to it. */
static void find(const struct demo *d, const struct demo_node *n, struct procs *all)
{
    const char *dir = n != NULL ? n->dir : d->dir;
    size_t kept = 0;
    all->n = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *e = proc != NULL ? readdir(proc) : NULL; e != NULL; e = readdir(proc)) {
        struct proc *p = &all->p[all->n];
        pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
        if (pid <= 1 || all->n == PROCS_MAX || !read_proc(d, pid, p))
            continue;
        p->ours = rank(p->program) < ARRAY_LEN(programs) && works_below(p, dir);
        all->n++;
    }
    if (proc != NULL)
        (void)closedir(proc);
    take_children(all);
    for (size_t i = 0; i < all->n; i++)
        if (all->p[i].ours && all->p[i].pid != getpid())
            all->p[kept++] = all->p[i];
    all->n = kept;
    qsort(all->p, all->n, sizeof all->p[0], by_rank);
}

pid_t demo_find(const struct demo *d, const struct demo_node *n, const char *program)
{
    static struct procs all;
    find(d, n, &all);
    /* the postmaster is the one whose parent is no postgres */
    for (size_t i = 0; i < all.n; i++) {
        const struct proc *parent = by_pid(&all, all.p[i].parent);
        if (strncmp(all.p[i].program, program, 15) == 0 &&
            (parent == NULL || strcmp(parent->program, all.p[i].program) != 0))
            return all.p[i].pid;
    }
    return 0;
}

static void rest(void)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = PASS_MS * 1000000L}, NULL);
}

static void kill_found(const struct procs *all, size_t below_rank)
{
    for (size_t i = 0; i < all->n; i++)
        if (rank(all->p[i].program) < below_rank)
            (void)kill(all->p[i].pid, SIGKILL);
}

enum err demo_kill(const struct demo *d, const struct demo_node *n, struct errmsg *e)
{
    static struct procs all;
    uint64_t start_ms = clock_mono_ms();
    for (find(d, n, &all); all.n > 0; find(d, n, &all)) {
        if (clock_mono_ms() - start_ms > KILL_LIMIT_MS)
            return err_set(
                e, ERR_TIMEOUT,
                "process %d (%s) is still there after %d s of kill -9; it hangs in the kernel?",
                (int)all.p[0].pid, all.p[0].program, KILL_LIMIT_MS / 1000);
        kill_found(&all, SIZE_MAX);
        rest();
    }
    return ERR_OK;
}

/* The fence's end makes the kernel send the postmaster SIGQUIT: it goes at once, but takes its shared
 * memory with it, which nobody else would remove once the data directory is gone. */
enum err demo_stop(const struct demo *d, struct errmsg *e)
{
    enum { DAEMON_AND_FENCE = 2 };
    static struct procs all;
    uint64_t start_ms = clock_mono_ms();
    for (find(d, NULL, &all); all.n > 0 && clock_mono_ms() - start_ms < GRACE_MS;
         find(d, NULL, &all)) {
        kill_found(&all, DAEMON_AND_FENCE);
        rest();
    }
    return demo_kill(d, NULL, e);
}
