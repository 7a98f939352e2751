/* The second guard: the daemon looks after the fence as the fence looks after the daemon. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/fence_internal.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

enum {
    TICK_MS = 50,
    SWEEP_MS = 5,
    STALE_MS = 200, /* of a fence that the kernel says is stopped */
    STALE_BUSY_MS =
        /* of one that is merely not scheduled: killing PostgreSQL would be the greater harm */
    1000,
    RETRY_MS = 100,
    STRANGER_TICKS = 100, /* 5 s */
};

static void on_tick(uv_timer_t *timer);

static void schedule(struct fence *f, uint64_t after_ms)
{
    int rv = uv_timer_start(&f->tick, on_tick, after_ms, 0);
    ASSERT(rv == 0);
}

void fence_watch_start(struct fence *f)
{
    int rv = uv_timer_init(f->loop, &f->tick);
    ASSERT(rv == 0);
    f->tick.data = f;
    f->handles++;
    f->last_tick_ms = clock_boot_ms();
    schedule(f, TICK_MS);
}

void fence_watch_welcome(struct fence *f)
{
    pid_t pid = (pid_t)f->shm->fence_pid;
    if (!proc_stat_read(pid, &f->fence_proc) ||
        f->fence_proc.start_ticks != f->shm->fence_start_ticks)
        f->fence_proc = (struct proc_stat){0};
    f->on_time = 0;
}

/* Refreshed while the memory is there: when it is gone it is too late to ask. */
static void remember_tree(struct fence *f)
{
    struct tree *t = &f->tree;
    t->root = (pid_t)f->state.postmaster;
    t->root_start_ticks = atomic_load(&f->shm->postmaster_start_ticks);
    t->reaper = t->cgroup_of = (pid_t)f->shm->fence_pid;
    for (size_t i = 0; i < FENCE_WORKERS_MAX; i++)
        t->except[i] = (pid_t)atomic_load(&f->shm->worker_pid[i]);
    t->except[FENCE_WORKERS_MAX] = (pid_t)f->shm->logger_pid;
    memcpy(t->exe, f->shm->exe, sizeof t->exe);
    t->exe[sizeof t->exe - 1] = '\0';
    memcpy(t->pgdata, f->shm->pgdata, sizeof t->pgdata);
    t->pgdata[sizeof t->pgdata - 1] = '\0';
}

/* What a fence of ours leaves comes to us (fence_open() makes us a subreaper): reaped one by one, for
 * libuv waits for children of its own by their pids and would lose them to a wait for any. */
static void reap_known(const struct fence *f)
{
    if (f->tree.root != 0)
        (void)waitpid(f->tree.root, NULL, WNOHANG);
    for (size_t i = 0; i < ARRAY_LEN(f->tree.except); i++)
        if (f->tree.except[i] != 0)
            (void)waitpid(f->tree.except[i], NULL, WNOHANG);
}

/* Nothing of it is left: tell, and begin anew. */
static void swept(struct fence *f)
{
    reap_known(f);
    f->losing = false;
    f->lost_exited = f->lost_exited || f->tree.root != 0;
    f->tree = (struct tree){0};
    f->retry_at_ms = 0;
    fence_notify(f);
}

static void sweep(struct fence *f)
{
    reap_known(f);
    int left = tree_signal(&f->tree, SIGKILL);
    /* Only after the tree: its death sends the rest to init, where the line of parents ends. */
    if (f->fence_proc.pid != 0 && proc_signal(&f->fence_proc, SIGKILL))
        f->fence_proc = (struct proc_stat){0};
    f->tree.reaper = 0;
    if (left == 0)
        swept(f);
}

void fence_watch_lost(struct fence *f)
{
    ASSERT(!f->losing);
    if (f->shm != NULL) {
        fence_refresh(f);
        remember_tree(f);
    }
    bool guarded = f->state.postmaster != 0 || f->state.processes_left || f->state.armed;
    f->lost_fenced = f->lost_fenced || f->state.armed;
    f->arm_pending = false;
    f->starts_wanted = 0;
    f->spawned = false;
    fence_link_close(f);
    f->losing = true;
    fence_refresh(f);
    sweep(f);
    if (guarded && !f->closing)
        f->ops.lost(f->arg);
    if (!f->closing)
        schedule(f, SWEEP_MS);
}

/* A fence that is stopped, traced or dead does not come back by itself in time; one that waits for a
 * processor does. A late daemon judges nobody. */
static bool fence_stalls(const struct fence *f, uint64_t now_ms)
{
    uint64_t beat = atomic_load_explicit(&f->shm->heartbeat_ms, memory_order_acquire);
    uint64_t stale = now_ms > beat ? now_ms - beat : 0;
    if (!f->state.armed || stale <= STALE_MS || f->on_time < 2 || f->fence_proc.pid == 0)
        return false;
    struct proc_stat s;
    if (!proc_stat_read(f->fence_proc.pid, &s) || s.start_ticks != f->fence_proc.start_ticks)
        return true;
    return stale > STALE_BUSY_MS || proc_is_dead(&s) || s.state == 'T' || s.state == 't';
}

/* The fence begins at deadline - budget; what still lives a quarter before the end is ours to kill. */
static uint64_t own_deadline_ms(const struct fence *f)
{
    uint64_t deadline = atomic_load(&f->shm->deadline_ms);
    uint64_t lead = f->state.kill_budget_ms / 4;
    return deadline > lead ? deadline - lead : 0;
}

static uint64_t guard(struct fence *f, uint64_t now_ms)
{
    if (fence_stalls(f, now_ms)) {
        log_event(LOG_ERROR, "fence_stalls", NO_KV, "no sign of life from the fence");
        fence_watch_lost(f);
        return SWEEP_MS;
    }
    if (!f->state.armed || !f->state.processes_left)
        return TICK_MS;
    uint64_t at = own_deadline_ms(f);
    if (now_ms < at)
        return MIN(at - now_ms, (uint64_t)TICK_MS);
    remember_tree(f);
    (void)tree_signal(&f->tree, SIGKILL);
    return SWEEP_MS;
}

static void connect_anew(struct fence *f, uint64_t now_ms)
{
    if (now_ms < f->retry_at_ms || f->ready != NULL)
        return;
    f->retry_at_ms = now_ms + RETRY_MS;
    /* The last one has to be reaped first: it may hold the lock still. */
    if (fence_link_connect(f) || !f->spawn || f->process != NULL)
        return;
    struct errmsg e;
    if (fence_spawn_start(f, &e) != ERR_OK)
        log_event(LOG_ERROR, "fence_start", NO_KV, "%s", e.text);
}

/* The duty of a subreaper, and of PID 1: children that nobody knows. A child of ours is waited for by
 * libuv as soon as its loop runs; one that has been dead for STRANGER_TICKS looks in a row is nobody's. */
static void reap_strangers(struct fence *f)
{
    siginfo_t info = {0};
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid != f->stranger)
        f->stranger_ticks = 0;
    f->stranger = info.si_pid;
    if (f->stranger != 0 && ++f->stranger_ticks >= STRANGER_TICKS)
        (void)waitpid(f->stranger, NULL, WNOHANG);
}

static void on_tick(uv_timer_t *timer)
{
    struct fence *f = timer->data;
    CHECK_MAGIC(f, FENCE_MAGIC);
    uint64_t now_ms = clock_boot_ms(), next_ms = TICK_MS;
    f->on_time = now_ms - f->last_tick_ms <= 2 * TICK_MS ? f->on_time + 1 : 0;
    f->last_tick_ms = now_ms;
    reap_strangers(f);
    if (f->losing) {
        sweep(f);
        next_ms = SWEEP_MS;
    } else if (f->fd < 0) {
        connect_anew(f, now_ms);
    } else if (f->shm != NULL) {
        next_ms = guard(f, now_ms);
    }
    if (!f->closing)
        schedule(f, next_ms);
}
