#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "agent/fence/warden.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/str.h"

struct start_words {
    const char *log_path;
    char *argv[FENCE_ARGV_MAX + 1];
    char *env[FENCE_ENV_MAX + 1];
};

/* n words from the payload, in place. False when they are not there. */
static bool take_words(char **at, char *end, char **ret_words, uint64_t n, size_t max)
{
    if (n > max)
        return false;
    for (uint64_t i = 0; i < n; i++) {
        char *nul = *at < end ? memchr(*at, '\0', (size_t)(end - *at)) : NULL;
        if (nul == NULL)
            return false;
        ret_words[i] = *at;
        *at = nul + 1;
    }
    ret_words[n] = NULL;
    return true;
}

static bool parse(const struct fence_msg *m, char *payload, size_t size,
                  struct start_words *ret)
{
    char *at = payload, *log[2];
    if (!take_words(&at, payload + size, log, 1, 1) ||
        !take_words(&at, payload + size, ret->argv, m->a, FENCE_ARGV_MAX) ||
        !take_words(&at, payload + size, ret->env, m->b, FENCE_ENV_MAX))
        return false;
    ret->log_path = log[0];
    return m->a > 0 && ret->argv[0][0] == '/';
}

/* Why not? ERR_OK: go. */
static enum err may_start(const struct warden *w, const struct fence_msg *m,
                          const char **ret_why)
{
    if (w->postmaster != 0 || w->leftovers || w->kill != KILL_NONE) {
        *ret_why = "processes of PostgreSQL are still there";
        return ERR_EXISTS;
    }
    if (w->stopping) {
        *ret_why = "the fence is stopping";
        return ERR_PRECONDITION;
    }
    if ((m->c & FENCE_START_ARMED) == 0)
        return ERR_OK;
    if (w->guard.phase != GUARD_RUN ||
        guard_left_us(&w->guard, clock_boot_us()) <= w->guard.budget_us) {
        *ret_why = "not armed with a deadline beyond the kill budget";
        return ERR_PRECONDITION;
    }
    return ERR_OK;
}

/* A start that did not come to be looks to the daemon like one that ended at once. */
static void failed(struct warden *w, enum err code, const char *text)
{
    fence_log("error", "start_failed", "%s", text);
    conn_refuse(w, FENCE_START, code, text);
}

static void launch(struct warden *w, const struct start_words *words, char *const *env)
{
    int pipe_fds[2];
    if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) != 0) {
        failed(w, ERR_IO, "no pipe");
        return;
    }
    const char *base = strrchr(words->argv[0], '/');
    (void)snprintf(w->tree.exe, sizeof w->tree.exe, "%s", base + 1);
    pid_t pid = fork();
    if (pid == 0)
        child_run(w, &(struct child_order){.argv = words->argv,
                                           .env = env,
                                           .log_path = words->log_path,
                                           .report_fd = pipe_fds[1]});
    (void)close(pipe_fds[1]);
    if (pid < 0) {
        (void)close(pipe_fds[0]);
        failed(w, ERR_IO, "fork failed");
        return;
    }
    w->postmaster = pid;
    w->start_pipe = pipe_fds[0];
    struct proc_stat s;
    w->tree.root_start_ticks = proc_stat_read(pid, &s) ? s.start_ticks : 0;
    w->pgdata_known = false;
    w->start_failed = false;
    struct fence_shm *shm = w->shm;
    atomic_store(&shm->exited, 0);
    atomic_store(&shm->exit_status, 0);
    atomic_store(&shm->requested, 0);
    atomic_store(&shm->fenced, 0);
    atomic_fetch_add(&shm->starts, 1);
    w->dirty = true;
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = WARDEN_START_PIPE};
    int rv = epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->start_pipe, &e);
    ASSERT(rv == 0);
    fence_log("info", "start", "%s is process %d", words->argv[0], (int)pid);
}

void postmaster_start(struct warden *w, const struct fence_msg *m, char *payload, size_t size)
{
    static struct start_words words;
    const char *why = "malformed order, or not an absolute path";
    enum err code = ERR_INVALID;
    if (parse(m, payload, size, &words))
        code = may_start(w, m, &why);
    if (code != ERR_OK) {
        failed(w, code, why);
        return;
    }
    launch(w, &words, (m->c & FENCE_START_ENV) != 0 ? words.env : environ);
}

void postmaster_started(struct warden *w)
{
    ASSERT(w->start_pipe >= 0);
    struct child_report r;
    ssize_t n = read(w->start_pipe, &r, sizeof r);
    if (n < 0 && errno == EAGAIN)
        return;
    /* Explicitly: a child before its exec holds a copy that would keep the entry alive. */
    (void)epoll_ctl(w->epoll, EPOLL_CTL_DEL, w->start_pipe, NULL);
    (void)close(w->start_pipe);
    w->start_pipe = -1;
    w->dirty = true;
    if (n == (ssize_t)sizeof r) {
        r.text[sizeof r.text - 1] = '\0';
        w->start_failed = true;
        failed(w, r.code, r.text);
        return;
    }
    w->guard.can_freeze = cgroup_verify(&w->cgroup, w->postmaster);
}
