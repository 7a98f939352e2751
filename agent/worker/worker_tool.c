#include "agent/worker/worker_tool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/worker/worker_files.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"

enum {
    LOOK_MS = 500,
    TERM_GRACE_MS = 3000,
    INPUT_MAX = 4096,
    COUNT_MS = 10000,    /* from one look at what is in the directory to the next */
    COUNT_MAX_MS = 1000, /* such a look; with more files than that nothing is told */
    COUNT_SHARE = 20     /* of the time at most one part is spent on it */
};

struct run {
    pid_t pid;
    int pidfd;
    int out; /* its stdout and stderr; -1 at end of file */
    struct buf text;
    struct buf line; /* the unfinished one of a tool that says how far it is */
    uint64_t percent;
    uint64_t told; /* the percent that the agent knows */
    uint64_t bytes, bytes_told;
    uint64_t count_ms; /* next look at the directory */
    uint64_t deadline_ms;
    uint64_t kill_ms; /* when SIGKILL follows the SIGTERM; 0: not asked to end */
    uint64_t look_ms; /* next look, and report */
    enum err why;     /* it was asked to end */
};

void tool_arg(struct tool *t, const char *arg)
{
    for (size_t i = 0; i + 1 < TOOL_ARGS_MAX; i++) {
        if (t->argv[i] == NULL) {
            t->argv[i] = arg;
            return;
        }
    }
    UNREACHABLE();
}

enum err tool_args(struct tool *t, struct slice args, bool (*skip)(const char *arg),
                   struct errmsg *e)
{
    size_t used = 0;
    while (t->argv[used] != NULL)
        used++;
    while (args.n > 0) {
        const char *arg = (const char *)args.p;
        size_t n = strnlen(arg, args.n);
        if (n == args.n)
            return err_set(e, ERR_INVALID, "a list without its last NUL");
        bool wanted = skip == NULL || !skip(arg);
        if (wanted && ++used == TOOL_ARGS_MAX)
            return err_set(e, ERR_LIMIT, "too many options");
        if (wanted)
            tool_arg(t, arg);
        args = slice_of(args.p + n + 1, args.n - n - 1);
    }
    return ERR_OK;
}

/* Messages untranslated, for they are parsed; encodings UTF-8; nothing of PG* from outside. */
static void child_env(const struct tool *t, const char *env[static 7], struct buf *home)
{
    const char *path = getenv("PATH");
    const char *dir = getenv("HOME");
    buf_printf(home, "HOME=%s%cPATH=%s%cPGPASSFILE=%s", dir != NULL ? dir : "/", 0,
               path != NULL ? path : "/usr/bin:/bin", 0,
               t->passfile != NULL ? t->passfile : "");
    env[0] = "LC_MESSAGES=C";
    env[1] = "LANG=C.UTF-8";
    env[2] = buf_cstr(home);
    env[3] = env[2] + strlen(env[2]) + 1;
    env[4] = "PGAPPNAME=regent";
    env[5] = t->passfile != NULL ? env[3] + strlen(env[3]) + 1 : NULL;
    env[6] = NULL;
}

/* In the child: its own process group, dead when the worker is, every signal as usual. */
NORETURN static void child_exec(const struct tool *t, char *const *env, int in, int out,
                                pid_t parent)
{
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        _exit(127);
    (void)execve(t->argv[0], (char *const *)(void *)t->argv, env);
    (void)dprintf(2, "%s: %s\n", t->argv[0], strerror(errno));
    _exit(127);
}

static enum err open_input(struct slice input, int *ret_fd, struct errmsg *e)
{
    ASSERT(input.n <= INPUT_MAX);
    int p[2];
    if (input.n == 0) {
        *ret_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        return *ret_fd >= 0 ? ERR_OK
                            : err_set(e, ERR_IO, "open /dev/null: %s", strerror(errno));
    }
    if (pipe2(p, O_CLOEXEC) != 0)
        return err_set(e, err_from_errno(errno), "pipe: %s", strerror(errno));
    ssize_t n = write(p[1], input.p, input.n); /* fits into an empty pipe */
    (void)close(p[1]);
    *ret_fd = p[0];
    return n == (ssize_t)input.n ? ERR_OK : err_set(e, ERR_IO, "write to a pipe failed");
}

static enum err start(struct run *r, const struct tool *t, struct errmsg *e)
{
    int in = -1;
    int out[2] = {-1, -1};
    struct buf home CLEANUP(buf_close) = BUF_INIT;
    const char *env[7];
    child_env(t, env, &home);
    enum err rv = open_input(t->input, &in, e);
    if (rv != ERR_OK)
        return rv;
    if (pipe2(out, O_CLOEXEC) != 0) {
        (void)close(in);
        return err_set(e, err_from_errno(errno), "pipe: %s", strerror(errno));
    }
    pid_t self = getpid();
    r->pid = fork();
    if (r->pid == 0)
        child_exec(t, (char *const *)(void *)env, in, out[1], self);
    int number = errno;
    (void)close(in);
    (void)close(out[1]);
    r->out = out[0];
    if (r->pid < 0)
        return err_set(e, err_from_errno(number), "fork: %s", strerror(number));
    (void)setpgid(r->pid, r->pid);
    (void)fcntl(r->out, F_SETFL, O_NONBLOCK);
    r->pidfd = (int)syscall(SYS_pidfd_open, r->pid, 0U);
    return ERR_OK;
}

/* The newest half of it when it grows too long. */
static void keep(struct run *r, const void *text, size_t n)
{
    if (r->text.len + n > TOOL_OUTPUT_MAX)
        buf_consume(&r->text, r->text.len / 2);
    buf_append(&r->text, text, n);
}

/* "  12/345 kB (3%), 0/1 tablespace" of pg_basebackup, "12/345 kB (3%) copied" of pg_rewind */
static bool take_percent(const char *line, uint64_t *ret)
{
    char *end;
    const char *counts = line + strspn(line, " 0123456789/");
    if (!str_starts(counts, "kB ("))
        return false;
    uint64_t percent = strtoull(counts + strlen("kB ("), &end, 10);
    if (!str_starts(end, "%)"))
        return false;
    *ret = MIN(percent, 100U);
    return true;
}

static void take_line(struct run *r)
{
    if (!take_percent(buf_cstr(&r->line), &r->percent))
        keep(r, r->line.p, r->line.len);
    buf_clear(&r->line);
}

static void take_lines(struct run *r, const char *text, size_t n)
{
    while (n > 0) {
        const char *end = memchr(text, '\n', n);
        size_t part = end != NULL ? (size_t)(end - text) + 1 : n;
        buf_append(&r->line, text, part);
        if (end != NULL || r->line.len > TOOL_OUTPUT_MAX)
            take_line(r);
        text += part;
        n -= part;
    }
}

/* Takes what there is to read. */
static void take_output(const struct tool *t, struct run *r)
{
    char piece[4096];
    for (;;) {
        ssize_t n = r->out < 0 ? 0 : read(r->out, piece, sizeof piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            if (r->out >= 0)
                (void)close(r->out);
            r->out = -1;
            return;
        }
        if (t->take != NULL)
            t->take(t->arg, slice_of(piece, (size_t)n));
        if (t->says_percent)
            take_lines(r, piece, (size_t)n);
        else
            keep(r, piece, (size_t)n);
    }
}

static void end_it(struct run *r, enum err why, uint64_t now)
{
    if (r->kill_ms == 0) {
        r->why = why;
        r->kill_ms = now + TERM_GRACE_MS;
        (void)kill(-r->pid, SIGTERM);
    } else if (now >= r->kill_ms) {
        (void)kill(-r->pid, SIGKILL);
        r->kill_ms = now + TERM_GRACE_MS;
    }
}

static void report(struct worker *w, struct run *r)
{
    struct worker_reply reply = {.id = w->id, .percent = r->percent, .bytes = r->bytes};
    memcpy(reply.kind, "progress", sizeof "progress");
    r->told = r->percent;
    r->bytes_told = r->bytes;
    worker_reply(w, &reply);
}

/* A directory with very many files, or on a slow disk, is not looked at again: for people only. */
static void count(const struct tool *t, struct run *r, uint64_t now)
{
    if (t->fills == NULL || now < r->count_ms || r->kill_ms != 0)
        return;
    bool whole = files_tree_bytes_within(t->fills, COUNT_MAX_MS, &r->bytes);
    uint64_t took_ms = clock_mono_ms() - now;
    r->bytes = whole ? r->bytes : 0;
    r->count_ms = whole ? now + MAX((uint64_t)COUNT_MS, COUNT_SHARE * took_ms) : UINT64_MAX;
}

/* Until the child is gone; its status. */
static int attend(struct worker *w, const struct tool *t, struct run *r)
{
    for (;;) {
        int status = 0;
        struct pollfd p[3] = {{.fd = r->pidfd, .events = POLLIN},
                              {.fd = r->out, .events = POLLIN},
                              {.fd = w->gone ? -1 : w->fd, .events = POLLIN}};
        (void)poll(p, 3, r->pidfd < 0 ? 20 : 100);
        take_output(t, r);
        if (waitpid(r->pid, &status, WNOHANG) == r->pid) {
            take_output(t, r);
            return status;
        }
        if (p[2].revents != 0)
            worker_listen(w);
        uint64_t now = clock_mono_ms();
        if (w->cancelled || w->gone)
            end_it(r, ERR_CANCELLED, now);
        else if (r->deadline_ms != 0 && now >= r->deadline_ms)
            end_it(r, ERR_TIMEOUT, now);
        if (now < r->look_ms)
            continue;
        r->look_ms = now + LOOK_MS;
        if (t->look != NULL)
            t->look(t->arg);
        count(t, r, now);
        if (r->percent != r->told || r->bytes != r->bytes_told)
            report(w, r);
    }
}

/* The last lines of what it said, on one line. */
static void last_words(struct buf *text, char *ret, size_t size)
{
    const char *s = buf_cstr(text);
    size_t n = strlen(s);
    while (n > 0 && (s[n - 1] == '\n' || s[n - 1] == ' '))
        n--;
    size_t from = n > size - 1 ? n - (size - 1) : 0;
    memcpy(ret, s + from, n - from);
    ret[n - from] = '\0';
    for (char *p = ret; *p != '\0'; p++)
        if ((unsigned char)*p < ' ')
            *p = *p == '\n' ? ';' : ' ';
}

static enum err verdict(const struct tool *t, struct run *r, int status, struct errmsg *e)
{
    char words[360];
    const char *slash = strrchr(t->argv[0], '/');
    const char *name = slash != NULL ? slash + 1 : t->argv[0];
    last_words(&r->text, words, sizeof words);
    if (r->why != ERR_OK)
        return err_set(e, r->why, "%s was ended: %s", name, err_text(r->why));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return ERR_OK;
    if (WIFSIGNALED(status))
        return err_set(e, ERR_IO, "%s was killed by signal %d: %s", name, WTERMSIG(status),
                       words);
    return err_set(e, ERR_IO, "%s failed (status %d): %s", name, WEXITSTATUS(status), words);
}

enum err tool_run(struct worker *w, const struct tool *t, struct buf *output, struct errmsg *e)
{
    struct run r = {.pidfd = -1, .out = -1};
    uint64_t now = clock_mono_ms();
    r.deadline_ms = t->timeout_ms == 0 ? 0 : now + t->timeout_ms;
    r.look_ms = now + LOOK_MS;
    enum err rv =
        w->cancelled || w->gone ? err_set(e, ERR_CANCELLED, "cancelled") : start(&r, t, e);
    if (rv == ERR_OK) {
        int status = attend(w, t, &r);
        take_line(&r);
        /* What it left behind of its group goes too. */
        (void)kill(-r.pid, SIGKILL);
        rv = verdict(t, &r, status, e);
    }
    if (r.out >= 0)
        (void)close(r.out);
    if (r.pidfd >= 0)
        (void)close(r.pidfd);
    if (output != NULL && rv == ERR_OK) {
        buf_clear(output);
        buf_append_slice(output, buf_slice(&r.text));
    }
    buf_close(&r.line);
    buf_close(&r.text);
    return rv;
}
