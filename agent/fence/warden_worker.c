#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "agent/fence/warden.h"
#include "base/assert.h"

enum { WORKER_FD = 3 };

/* The worker is this program again (main.c: --worker), outside of PostgreSQL's tree, and never
 * outlives the fence. Subreaper, so that what its tools leave behind comes to it and not to us. */
static NORETURN void run(const struct warden *w, int fd)
{
    (void)setsid();
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != w->self)
        _exit(127);
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    child_drop_privileges();
    for (int i = 1; i < NSIG; i++)
        (void)signal(i, SIG_DFL);
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    /* dup2 onto itself would keep FD_CLOEXEC. */
    if (fd == WORKER_FD ? fcntl(fd, F_SETFD, 0) != 0 : dup2(fd, WORKER_FD) < 0)
        _exit(127);
    (void)close_range(WORKER_FD + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    (void)execl("/proc/self/exe", "regent-fence", "--worker", "3", (char *)NULL);
    _exit(127);
}

void worker_spawn(struct warden *w, int fd)
{
    ASSERT(fd >= 0);
    size_t slot = 0;
    while (slot < FENCE_WORKERS_MAX && w->worker[slot] != 0)
        slot++;
    if (slot == FENCE_WORKERS_MAX) {
        (void)close(fd);
        conn_refuse(w, FENCE_WORKER, ERR_LIMIT, "too many workers are still busy");
        return;
    }
    pid_t pid = fork();
    if (pid == 0)
        run(w, fd);
    (void)close(fd); /* the other side sees the end when the worker is gone */
    if (pid < 0) {
        conn_refuse(w, FENCE_WORKER, ERR_IO, "fork failed");
        return;
    }
    w->worker[slot] = pid;
    w->dirty = true;
}
