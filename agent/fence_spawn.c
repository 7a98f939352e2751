#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/fence_internal.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

enum { RETRY_MS = 200, READY_FD = 3 };

static bool runs(struct fence *f, const char *dir, const char *rest)
{
    if (str_format(f->program, sizeof f->program, "%s%s", dir, rest) != ERR_OK)
        return false;
    return access(f->program, X_OK) == 0;
}

enum err fence_spawn_find(struct fence *f, const char *program, struct errmsg *e)
{
    if (program != NULL)
        return runs(f, program, "")
                   ? ERR_OK
                   : err_set(e, ERR_NOT_FOUND, "fence program %s cannot be run", program);
    char self[FENCE_PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash != NULL) {
        *slash = '\0';
        if (runs(f, self, "/regent-fence") || runs(f, self, "/../libexec/regent/regent-fence"))
            return ERR_OK;
    }
    const char *named = getenv("REGENT_FENCE");
    if (named != NULL && runs(f, named, ""))
        return ERR_OK;
    f->program[0] = '\0';
    return err_set(e, ERR_NOT_FOUND,
                   "regent-fence is neither in %s nor in %s/../libexec/regent; set "
                   "REGENT_FENCE to its path",
                   self, self);
}

static void on_exit_of_fence(uv_process_t *process, int64_t status, int signal_number)
{
    struct fence *f = process->data;
    CHECK_MAGIC(f, FENCE_MAGIC);
    struct log_kv kv[] = {KV_I64("status", status), KV_I64("signal", signal_number)};
    if (!f->closing)
        log_event(LOG_WARN, "fence_exit", kv, ARRAY_LEN(kv), "regent-fence has ended");
    if (f->process == process)
        f->process = NULL;
    uv_close((uv_handle_t *)process, fence_handle_closed);
}

static void ready_close(struct fence *f)
{
    if (f->ready == NULL)
        return;
    (void)uv_poll_stop(f->ready);
    uv_close((uv_handle_t *)TAKE(f->ready), fence_handle_closed);
    (void)close(f->ready_fd);
    f->ready_fd = -1;
}

/* '+': it listens. Anything else is the reason why it does not. */
static void on_ready(uv_poll_t *handle, int status, int events)
{
    struct fence *f = handle->data;
    CHECK_MAGIC(f, FENCE_MAGIC);
    (void)status;
    (void)events;
    char text[512];
    ssize_t n = read(f->ready_fd, text, sizeof text - 1);
    if (n < 0 && errno == EAGAIN)
        return;
    ready_close(f);
    if (f->closing || f->fd >= 0)
        return;
    if (n == 1 && text[0] == '+' && fence_link_connect(f))
        return;
    text[n > 0 ? n : 0] = '\0';
    f->spawned = false;
    f->retry_at_ms = clock_boot_ms() + RETRY_MS;
    log_event(LOG_ERROR, "fence_start", NO_KV, "regent-fence did not start: %s",
              n > 0 ? text : "it ended without a word");
}

static int open_log(const struct fence *f)
{
    char path[FENCE_PATH_MAX + 8];
    size_t n = strlen(f->socket_path);
    if (n > 5 && strcmp(f->socket_path + n - 5, ".sock") == 0)
        n -= 5;
    (void)snprintf(path, sizeof path, "%.*s.log", (int)n, f->socket_path);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    return fd >= 0 ? fd : open("/dev/null", O_WRONLY | O_CLOEXEC);
}

/* Ours but for keys of the configuration, passwords among them: the fence's environment becomes PostgreSQL's, and
 * so archive_command's. The array alone is allocated. */
static char **environment(void)
{
    size_t n = 0;
    size_t at = 0;
    while (environ[n] != NULL)
        n++;
    char **all = mem_array(n + 1, sizeof *all);
    for (size_t i = 0; i < n; i++)
        if (!str_starts(environ[i], "REGENT_") || str_starts(environ[i], "REGENT_MUTANT="))
            all[at++] = environ[i];
    return all;
}

static int run(struct fence *f, int log_fd, int ready_write)
{
    char **env CLEANUP(mem_cleanup) = environment();
    const char *args[] = {f->program, "--socket", f->socket_path, "--spawned", "--ready-fd",
                          "3",        NULL};
    uv_stdio_container_t stdio[] = {
        {.flags = UV_IGNORE},
        {.flags = UV_INHERIT_FD, .data.fd = log_fd},
        {.flags = UV_INHERIT_FD, .data.fd = log_fd},
        {.flags = UV_INHERIT_FD, .data.fd = ready_write},
    };
    _Static_assert(ARRAY_LEN(stdio) == READY_FD + 1, "the number in args");
    /* Detached: it outlives us, by design. */
    uv_process_options_t o = {.file = f->program,
                              .args = (char **)(uintptr_t)args,
                              .env = env,
                              .flags = UV_PROCESS_DETACHED,
                              .exit_cb = on_exit_of_fence,
                              .stdio = stdio,
                              .stdio_count = (int)ARRAY_LEN(stdio)};
    uv_process_t *process = mem_alloc(sizeof *process);
    process->data = f;
    f->handles++;
    int rv = uv_spawn(f->loop, process, &o);
    if (rv != 0) {
        uv_close((uv_handle_t *)process, fence_handle_closed);
        return rv;
    }
    uv_unref((uv_handle_t *)process);
    f->process = process;
    return 0;
}

void fence_spawn_forget(struct fence *f)
{
    ready_close(f);
    if (f->process != NULL)
        uv_close((uv_handle_t *)TAKE(f->process), fence_handle_closed);
}

enum err fence_spawn_start(struct fence *f, struct errmsg *e)
{
    ASSERT(f->spawn && f->program[0] != '\0');
    if (f->ready != NULL)
        return ERR_OK; /* under way */
    int fds[2];
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0)
        return err_set(e, ERR_IO, "pipe for regent-fence: %s", strerror(errno));
    int log_fd = open_log(f);
    int rv = run(f, log_fd, fds[1]);
    (void)close(fds[1]);
    if (log_fd >= 0)
        (void)close(log_fd);
    if (rv != 0) {
        (void)close(fds[0]);
        return err_set(e, ERR_IO, "run %s: %s", f->program, uv_strerror(rv));
    }
    f->spawned = true;
    f->ready_fd = fds[0];
    f->ready = mem_alloc(sizeof *f->ready);
    rv = uv_poll_init(f->loop, f->ready, fds[0]);
    ASSERT(rv == 0);
    f->ready->data = f;
    f->handles++;
    rv = uv_poll_start(f->ready, UV_READABLE | UV_DISCONNECT, on_ready);
    ASSERT(rv == 0);
    return ERR_OK;
}
