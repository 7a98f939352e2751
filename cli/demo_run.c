/* Child processes of the demo: regentctl for one command, regentd for good. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/demo.h"

enum { ARGUMENTS_MAX = 40, NOT_RUN = 127, POLL_MS = 50, LOG_LINES = 12, LOG_TAIL_BYTES = 8192 };

void demo_say(const struct demo *d, const char *fmt, ...)
{
    uint64_t ms = clock_mono_ms() - d->start_ms;
    va_list ap;
    (void)printf("[%5.1f s] ", (double)ms / 1000);
    va_start(ap, fmt);
    (void)vprintf(fmt, ap);
    va_end(ap);
    (void)putchar('\n');
    (void)fflush(stdout);
}

/* ---- regentctl ---- */

static void take_text(int fd, struct buf *ret)
{
    char piece[4096];
    off_t at = 0;
    ssize_t n;
    while ((n = pread(fd, piece, sizeof piece, at)) > 0) {
        buf_append(ret, piece, (size_t)n);
        at += n;
    }
    (void)close(fd);
}

static NORETURN void be_regentctl(const struct demo *d, const struct demo_node *n,
                                  const char *const *arguments, int out, int complaints)
{
    const char *argv[ARGUMENTS_MAX + 4] = {"regentctl", "-c", n->config};
    for (size_t i = 0; i < ARGUMENTS_MAX && arguments[i] != NULL; i++)
        argv[3 + i] = arguments[i];
    if (dup2(out, STDOUT_FILENO) >= 0 && dup2(complaints, STDERR_FILENO) >= 0)
        (void)execv(d->self, (char *const *)(uintptr_t)argv);
    (void)dprintf(complaints, "cannot run %s: %s\n", d->self, strerror(errno));
    _exit(NOT_RUN);
}

int demo_run(const struct demo *d, const struct demo_node *n, const char *const *arguments,
             struct buf *out, struct buf *complaints)
{
    int status = 0;
    int text = memfd_create("out", MFD_CLOEXEC);
    int errors = memfd_create("complaints", MFD_CLOEXEC);
    pid_t child = text >= 0 && errors >= 0 ? fork() : -1;
    if (child == 0)
        be_regentctl(d, n, arguments, text, errors);
    if (child < 0)
        buf_printf(complaints, "cannot run %s: %s\n", d->self, strerror(errno));
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (text >= 0)
        take_text(text, out);
    if (errors >= 0)
        take_text(errors, complaints);
    return child > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- regentd ---- */

/* A session of its own: neither Ctrl-C nor the end of the terminal reaches it. */
static NORETURN void be_regentd(const struct demo *d, const struct demo_node *n, int log)
{
    const char *argv[] = {"regentd", "-c", n->config, NULL};
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    (void)setsid();
    if (nothing >= 0 && dup2(nothing, STDIN_FILENO) >= 0 && dup2(log, STDOUT_FILENO) >= 0 &&
        dup2(log, STDERR_FILENO) >= 0 && chdir(n->dir) == 0)
        (void)execv(d->regentd, (char *const *)(uintptr_t)argv);
    (void)dprintf(log, "cannot run %s: %s\n", d->regentd, strerror(errno));
    _exit(NOT_RUN);
}

static void write_pid(const struct demo_node *n, pid_t pid)
{
    char path[DEMO_PATH_MAX + 8];
    (void)snprintf(path, sizeof path, "%s/pid", n->dir);
    FILE *f = fopen(path, "we");
    if (f == NULL)
        return; /* for people only: we look into /proc */
    (void)fprintf(f, "%d\n", (int)pid);
    (void)fclose(f);
}

enum err demo_start(struct demo *d, struct demo_node *n, struct errmsg *e)
{
    char path[DEMO_PATH_MAX + 8];
    (void)snprintf(path, sizeof path, "%s/log", n->dir);
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (log < 0)
        return err_set(e, err_from_errno(errno), "cannot write %s: %s", path, strerror(errno));
    (void)fflush(NULL);
    n->started = fork();
    if (n->started == 0)
        be_regentd(d, n, log);
    (void)close(log);
    if (n->started < 0) {
        n->started = 0;
        return err_set(e, ERR_IO, "cannot start a process: %s", strerror(errno));
    }
    write_pid(n, n->started);
    return ERR_OK;
}

bool demo_died(struct demo_node *n)
{
    if (n->started <= 0 || waitpid(n->started, NULL, WNOHANG) != n->started)
        return false;
    n->started = 0;
    return true;
}

bool demo_answers(const struct demo_node *n)
{
    char path[DEMO_PATH_MAX + 16];
    (void)snprintf(path, sizeof path, "%s/regent.sock", n->dir);
    return cli_socket_error(path) == 0;
}

enum err demo_wait(struct demo *d, struct demo_node *n, struct errmsg *e)
{
    while (!demo_answers(n)) {
        if (demo_died(n))
            return err_set(e, ERR_IO, "regentd of %s has ended", n->name);
        if (clock_mono_ms() - d->start_ms > DEMO_LIMIT_MS)
            return err_set(e, ERR_TIMEOUT, "regentd of %s does not answer", n->name);
        (void)nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
    }
    return ERR_OK;
}

static const char *last_lines(const char *text, size_t n)
{
    size_t lines = 0;
    const char *at = text + n;
    while (at > text && (at[-1] != '\n' || lines++ < LOG_LINES))
        at--;
    return at;
}

void demo_show_log(const struct demo_node *n)
{
    char path[DEMO_PATH_MAX + 8];
    char text[LOG_TAIL_BYTES + 1];
    (void)snprintf(path, sizeof path, "%s/log", n->dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t end = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    ssize_t got = fd >= 0 ? pread(fd, text, LOG_TAIL_BYTES, MAX(end - LOG_TAIL_BYTES, 0)) : -1;
    if (fd >= 0)
        (void)close(fd);
    if (got <= 0)
        return;
    text[got] = '\0';
    (void)fprintf(stderr, "The end of %s:\n%s", path, last_lines(text, (size_t)got));
}
