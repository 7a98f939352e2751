#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/fence/warden.h"
#include "base/str.h"

/* Between fork and exec of the postmaster. Here a hung disk holds the child, not the fence. */

static NORETURN void give_up(const struct child_order *o, enum err code, const char *what,
                             const char *name)
{
    struct child_report r = {.code = code};
    (void)snprintf(r.text, sizeof r.text, "%s %.150s: %s", what, name, strerror(errno));
    (void)!write(o->report_fd, &r, sizeof r);
    _exit(127);
}

/* Dispositions other than default survive exec, the mask too. */
static void reset_signals(void)
{
    for (int i = 1; i < NSIG; i++)
        (void)signal(i, SIG_DFL);
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

void child_drop_privileges(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3];
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capget, &head, caps) == 0) {
        for (size_t i = 0; i < ARRAY_LEN(caps); i++)
            caps[i].inheritable = 0;
        (void)syscall(SYS_capset, &head, caps);
    }
    (void)setrlimit(RLIMIT_RTPRIO, &(struct rlimit){0});
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!write(fd, "0", 1);
        (void)close(fd);
    }
}

static void tie_to_parent(const struct warden *w)
{
    /* SIGQUIT: backends leave in the handler. With SIGKILL a procedure that commits in a loop went on
     * for seconds without its postmaster. */
    if (prctl(PR_SET_PDEATHSIG, SIGQUIT) != 0)
        _exit(127);
    if (getppid() != w->self)
        _exit(127); /* it died before the line above */
    child_drop_privileges();
}

static void redirect(const struct child_order *o)
{
    int null = open("/dev/null", O_RDONLY);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0)
        give_up(o, ERR_IO, "open", "/dev/null");
    const char *log = o->log_path[0] != '\0' ? o->log_path : "/dev/null";
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd < 0)
        give_up(o, err_from_errno(errno), "open the log", log);
    if (dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0)
        give_up(o, ERR_IO, "redirect to", log);
}

static const char *data_directory(const struct child_order *o)
{
    for (char *const *a = o->argv; *a != NULL; a++) {
        if (strcmp(*a, "-D") == 0)
            return a[1];
        if (strncmp(*a, "-D", 2) == 0)
            return *a + 2;
    }
    for (char *const *e = o->env; *e != NULL; e++)
        if (strncmp(*e, "PGDATA=", 7) == 0)
            return *e + 7;
    return NULL;
}

/* Never a second postmaster while anything of an old one is left, whoever started that. */
static void refuse_company(struct warden *w, const struct child_order *o)
{
    const char *dir = data_directory(o);
    static char real[4097];
    if (dir == NULL || realpath(dir, real) == NULL)
        give_up(o, ERR_NOT_FOUND, "data directory", dir != NULL ? dir : "(none given)");
    struct tree t = {0};
    if (str_copy(t.pgdata, sizeof t.pgdata, real) != ERR_OK)
        give_up(o, ERR_LIMIT, "too long a path:", real);
    memcpy(t.exe, w->tree.exe, sizeof t.exe);
    int left = tree_signal(&t, 0);
    if (left == 0) {
        locks_remove_stale(t.pgdata);
        return;
    }
    errno = left < 0 ? EIO : EBUSY;
    give_up(o, left < 0 ? ERR_IO : ERR_EXISTS, "processes of another PostgreSQL run in", real);
}

void child_run(struct warden *w, const struct child_order *o)
{
    if (setsid() < 0)
        _exit(127);
    tie_to_parent(w);
    reset_signals();
    (void)cgroup_enter(&w->cgroup); /* verified from outside after exec */
    redirect(o);
    refuse_company(w, o);
    (void)close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    (void)execve(o->argv[0], o->argv, o->env);
    give_up(o, err_from_errno(errno), "run", o->argv[0]);
}
