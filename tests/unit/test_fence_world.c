#include "test_fence_world.h"

#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/fence_internal.h"
#include "base/clock.h"
#include "tests/unit/scratch.h"

enum { PATIENCE_MS = 120000, STEP_MS = 2 };

static void on_changed(void *arg, const struct fence_state *s)
{
    struct world *w = arg;
    assert_ptr_equal(s, fence_state(w->fence));
    w->changes++;
}

static void on_lost(void *arg)
{
    struct world *w = arg;
    w->lost++;
}

const struct fence_state *world_state(const struct world *w)
{
    return fence_state(w->fence);
}

void world_open_fence(struct world *w)
{
    static const struct fence_ops ops = {.changed = on_changed, .lost = on_lost};
    struct fence_options o = {.data_dir = w->dir,
                              .program = FENCE_PROGRAM,
                              .spawn = true,
                              .pg_data_dir = w->dir,
                              .kill_budget_ms = WORLD_BUDGET_MS};
    struct errmsg e;
    assert_int_equal(uv_loop_init(&w->loop), 0);
    assert_int_equal(fence_open(&w->loop, &o, &ops, w, &w->fence, &e), ERR_OK);
}

void world_connect(struct world *w)
{
    world_open_fence(w);
    WORLD_UNTIL(w, is_connected);
}

static void end_loop(struct world *w)
{
    w->fence = NULL;
    assert_int_equal(uv_run(&w->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&w->loop), 0);
}

void world_stop_fence(struct world *w)
{
    fence_close(w->fence, false);
    end_loop(w);
}

void world_wait_for_news(const struct world *w)
{
    struct pollfd p = {.fd = w->fence->fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
}

void world_disconnect(struct world *w)
{
    fence_close(w->fence, true);
    end_loop(w);
}

void world_open(struct world *w, bool connect)
{
    *w = (struct world){0};
    scratch_dir(w->dir, sizeof w->dir, "fence");
    (void)snprintf(w->log, sizeof w->log, "%s/log", w->dir);
    (void)snprintf(w->socket, sizeof w->socket, "%s/fence.sock", w->dir);
    (void)snprintf(w->commits, sizeof w->commits, "%s/commits", w->dir);
    if (connect)
        world_connect(w);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
    (void)st;
    (void)type;
    (void)f;
    return remove(path);
}

void world_close(struct world *w)
{
    if (w->fence == NULL)
        world_connect(w);
    WORLD_UNTIL(w, is_connected);
    if (world_state(w)->processes_left) {
        assert_int_equal(fence_kill(w->fence), ERR_OK);
        WORLD_UNTIL(w, is_dead);
    }
    assert_int_equal(fence_disarm(w->fence), ERR_OK);
    fence_close(w->fence, false);
    end_loop(w);
    (void)nftw(w->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void on_step(uv_timer_t *t)
{
    (void)t;
}

/* The timer only bounds how long a run of the loop sleeps: commits and clocks are no events of it. */
static bool run_until(struct world *w, world_predicate *holds, uint64_t ms)
{
    uv_timer_t step;
    uint64_t end = clock_boot_ms() + ms;
    assert_int_equal(uv_timer_init(&w->loop, &step), 0);
    assert_int_equal(uv_timer_start(&step, on_step, STEP_MS, STEP_MS), 0);
    bool held = false;
    while (!(held = holds != NULL && holds(w)) && clock_boot_ms() < end)
        (void)uv_run(&w->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&step, NULL);
    (void)uv_run(&w->loop, UV_RUN_NOWAIT);
    return held;
}

void world_until(struct world *w, world_predicate *holds, const char *what)
{
    if (!run_until(w, holds, PATIENCE_MS))
        fail_msg("never: %s (%s)", what, w->dir);
}

void world_run_ms(struct world *w, uint64_t ms)
{
    (void)run_until(w, NULL, ms);
}

pid_t world_start(struct world *w, bool armed, const char *option)
{
    const char *argv[] = {FAKE_POSTGRES, "-D", w->dir, option, NULL};
    struct errmsg e = {0};
    (void)remove(w->commits);
    if (fence_start_postgres(w->fence, argv, NULL, w->log, armed, &e) != ERR_OK)
        fail_msg("start: %s", e.text);
    WORLD_UNTIL(w, is_running);
    WORLD_UNTIL(w, is_commiting);
    return (pid_t)world_state(w)->postmaster;
}

static bool is_refused(const struct world *w)
{
    return world_state(w)->refused[0] != '\0';
}

/* Whoever looks late finds it fenced already, or refused because the time was over on the way. */
static bool is_answered(const struct world *w)
{
    return is_armed(w) || world_state(w)->fenced || is_refused(w);
}

uint64_t world_arm(struct world *w, uint64_t token, uint64_t ms)
{
    uint64_t deadline;
    w->token = token;
    do {
        deadline = clock_boot_ms() + ms;
        assert_int_equal(fence_arm(w->fence, token, deadline), ERR_OK);
        WORLD_UNTIL(w, is_answered);
    } while (is_refused(w));
    return deadline;
}

uint64_t world_last_commit_ms(const struct world *w)
{
    char tail[128];
    int fd = open(w->commits, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    off_t size = lseek(fd, 0, SEEK_END);
    ssize_t n = pread(fd, tail, sizeof tail - 1, size > 100 ? size - 100 : 0);
    (void)close(fd);
    if (n <= 0)
        return 0;
    tail[n] = '\0';
    uint64_t newest = 0;
    const char *line = size > 100 ? strchr(tail, '\n') : tail;
    for (; line != NULL && *line != '\0'; line = strchr(line + 1, '\n'))
        newest = MAX(newest, strtoull(line, NULL, 10) / 1000);
    return newest;
}

pid_t world_fence_pid(const struct world *w)
{
    return w->fence->fence_proc.pid;
}

pid_t world_worker_pid(const struct world *w)
{
    for (size_t i = 0; i < FENCE_WORKERS_MAX; i++) {
        pid_t pid =
            w->fence->shm != NULL ? (pid_t)atomic_load(&w->fence->shm->worker_pid[i]) : 0;
        if (pid != 0)
            return pid;
    }
    return 0;
}

bool is_connected(const struct world *w)
{
    return world_state(w)->connected;
}

bool is_running(const struct world *w)
{
    return world_state(w)->postmaster != 0;
}

bool is_armed(const struct world *w)
{
    return world_state(w)->armed && world_state(w)->token == w->token;
}

bool is_dead(const struct world *w)
{
    const struct fence_state *s = world_state(w);
    return s->exited && s->postmaster == 0 && !s->processes_left;
}

bool is_commiting(const struct world *w)
{
    return world_last_commit_ms(w) != 0;
}

bool is_frozen(const struct world *w)
{
    return world_state(w)->frozen;
}
