#include "agent/command.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/mem.h"
#include "base/str.h"

enum { COMMAND_MAGIC = 0x52e60c01, HANDLES = 3 };

struct command_child {
    uint32_t magic;
    uv_process_t process;
    uv_pipe_t out;
    uv_timer_t limit;
    unsigned closed;
    command_cb *cb;
    void *arg;
    bool late;
    uint64_t limit_ms;
    size_t text_n;
    char text[COMMAND_TEXT_MAX]; /* what it wrote last */
    char piece[COMMAND_TEXT_MAX];
};

/* The end of what a command says is what tells why it failed. */
static void keep_text(struct command_child *c, const char *p, size_t n)
{
    size_t room = sizeof c->text - 1;
    if (n >= room) {
        memcpy(c->text, p + n - room, room);
        c->text_n = room;
        return;
    }
    size_t drop = c->text_n + n > room ? c->text_n + n - room : 0;
    memmove(c->text, c->text + drop, c->text_n - drop);
    memcpy(c->text + c->text_n - drop, p, n);
    c->text_n += n - drop;
}

static void on_alloc(uv_handle_t *h, size_t wanted, uv_buf_t *ret)
{
    struct command_child *c = h->data;
    (void)wanted;
    *ret = uv_buf_init(c->piece, sizeof c->piece);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    struct command_child *c = s->data;
    if (n > 0)
        keep_text(c, b->base, (size_t)n);
    else if (n < 0)
        (void)uv_read_stop(s);
}

/* What is still in the pipe when the child has ended; others may hold its other end for ever. */
static void drain(struct command_child *c)
{
    uv_os_fd_t fd;
    ssize_t n;
    if (uv_fileno((uv_handle_t *)&c->out, &fd) != 0)
        return;
    while ((n = read(fd, c->piece, sizeof c->piece)) > 0)
        keep_text(c, c->piece, (size_t)n);
    while (c->text_n > 0 && (c->text[c->text_n - 1] == '\n' || c->text[c->text_n - 1] == ' '))
        c->text_n--;
    c->text[c->text_n] = '\0';
}

static void on_closed(uv_handle_t *h)
{
    struct command_child *c = h->data;
    if (++c->closed == HANDLES)
        mem_free(c);
}

static void close_all(struct command_child *c)
{
    c->magic = 0;
    uv_close((uv_handle_t *)&c->process, on_closed);
    uv_close((uv_handle_t *)&c->out, on_closed);
    uv_close((uv_handle_t *)&c->limit, on_closed);
}

static void on_child_exit(uv_process_t *p, int64_t status, int number)
{
    struct command_child *c = p->data;
    struct errmsg e = {0};
    enum err rv = ERR_OK;
    CHECK_MAGIC(c, COMMAND_MAGIC);
    drain(c);
    if (c->late)
        rv = err_set(&e, ERR_TIMEOUT, "did not end within %llu s and was killed: %s",
                     (unsigned long long)c->limit_ms / 1000, c->text);
    else if (number != 0)
        rv = err_set(&e, ERR_CANCELLED, "ended by signal %d: %s", number, c->text);
    else if (status != 0)
        rv = err_set(&e, ERR_IO, "exit status %lld: %s", (long long)status, c->text);
    command_cb *cb = c->cb;
    void *arg = c->arg;
    close_all(c);
    cb(arg, rv, &e);
}

void command_kill(struct command_child *c)
{
    CHECK_MAGIC(c, COMMAND_MAGIC);
    if (uv_process_get_pid(&c->process) > 0)
        (void)kill(-uv_process_get_pid(&c->process), SIGKILL);
}

static void on_limit(uv_timer_t *t)
{
    struct command_child *c = t->data;
    c->late = true;
    command_kill(c);
}

/* Of ours only what tells a program where and in which language it runs, then theirs; the array alone is allocated.
 * What else is in our environment may be a key of the configuration: REGENT_..._PASSWORD. */
static char **environment(const char *const *more)
{
    static const char *const passed[] = {
        "PATH=", "HOME=", "USER=", "LOGNAME=", "LANG=", "LC_ALL=", "TZ=", "TMPDIR="};
    char **all = mem_array(ARRAY_LEN(passed) + COMMAND_ENV_MAX + 1, sizeof *all);
    size_t at = 0;
    for (size_t i = 0; i < ARRAY_LEN(passed); i++)
        for (size_t k = 0; environ[k] != NULL; k++)
            if (str_starts(environ[k], passed[i])) {
                all[at++] = environ[k];
                break;
            }
    for (size_t i = 0; more != NULL && more[i] != NULL; i++) {
        ASSERT(i < COMMAND_ENV_MAX);
        all[at++] = (char *)(uintptr_t)more[i];
    }
    return all;
}

static struct command_child *child_new(uv_loop_t *loop, command_cb *cb, void *arg)
{
    struct command_child *c = mem_alloc(sizeof *c);
    c->magic = COMMAND_MAGIC;
    c->cb = cb;
    c->arg = arg;
    ASSERT(uv_pipe_init(loop, &c->out, 0) == 0 && uv_timer_init(loop, &c->limit) == 0);
    c->process.data = c->out.data = c->limit.data = c;
    return c;
}

enum err command_start(uv_loop_t *loop, const struct command_order *order, command_cb *cb,
                       void *arg, struct command_child **ret_child, struct errmsg *e)
{
    struct command_child *c = child_new(loop, cb, arg);
    char *line CLEANUP(mem_cleanup) = mem_printf("exec 2>&1\n%s", order->shell);
    char **all CLEANUP(mem_cleanup) = environment(order->env);
    char *argv[] = {(char *)(uintptr_t) "/bin/sh", (char *)(uintptr_t) "-c", line, NULL};
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_IGNORE},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&c->out},
        {.flags = UV_IGNORE}};
    uv_process_options_t o = {.file = argv[0],
                              .args = argv,
                              .env = all,
                              .flags = UV_PROCESS_DETACHED,
                              .stdio = stdio,
                              .stdio_count = ARRAY_LEN(stdio),
                              .exit_cb = on_child_exit};
    int rv = uv_spawn(loop, &c->process, &o);
    if (rv != 0) {
        close_all(c);
        return err_set(e, ERR_IO, "cannot start /bin/sh: %s", uv_strerror(rv));
    }
    (void)uv_read_start((uv_stream_t *)&c->out, on_alloc, on_read);
    c->limit_ms = order->limit_ms != 0 ? order->limit_ms : COMMAND_LIMIT_MS;
    if (c->limit_ms != COMMAND_NO_LIMIT)
        uv_timer_start(&c->limit, on_limit, c->limit_ms, 0);
    *ret_child = c;
    return ERR_OK;
}
