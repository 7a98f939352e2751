#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "agent/fence/warden.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/notify.h"

enum {
    LOOK_US = FENCE_HEARTBEAT_MS * 1000,
    LOOK_IDLE_US =
        500 * 1000, /* nothing armed, nothing to learn: no reason to wake more often */
};

uint64_t warden_raw_us(void)
{
    struct timespec t;
    int rv = clock_gettime(CLOCK_MONOTONIC_RAW, &t);
    ASSERT(rv == 0);
    return (uint64_t)t.tv_sec * 1000000U + (uint64_t)t.tv_nsec / 1000U;
}

static struct guard_input read_input(const struct warden *w)
{
    /* Deadline first, then the clocks: an old "now" with a new deadline would be too friendly. */
    uint64_t deadline_ms = atomic_load_explicit(&w->shm->deadline_ms, memory_order_acquire);
    return (struct guard_input){
        .deadline_us = MIN(deadline_ms, UINT64_MAX / 2000) * 1000,
        .confirmed = atomic_load_explicit(&w->shm->confirmed, memory_order_acquire),
        .boot_us = clock_boot_us(),
        .raw_us = warden_raw_us(),
    };
}

static void on_kill(struct warden *w, uint64_t quit_us)
{
    bool something = w->postmaster != 0 || w->leftovers;
    kill_begin(w, quit_us, false, true);
    if (something)
        fence_log("error", "fenced",
                  "the deadline of token %llu has come: PostgreSQL is killed",
                  (unsigned long long)w->token);
}

/* One look at the deadline and what follows from it; microseconds to the next. */
static uint64_t guard_tick(struct warden *w)
{
    uint64_t challenge = w->guard.challenge;
    struct guard_input in = read_input(w);
    struct guard_verdict v = guard_step(&w->guard, &in);
    switch (v.action) {
    case GUARD_NOTHING:
        break;
    case GUARD_FREEZE:
        w->dirty = true;
        if (w->postmaster == 0 || !cgroup_freeze(&w->cgroup, true)) {
            guard_freeze_failed(&w->guard);
            v.wake_us = 0;
        }
        break;
    case GUARD_THAW:
        /* guard_step() has looked at the deadline a moment ago: nothing lies between. */
        w->dirty = true;
        (void)cgroup_freeze(&w->cgroup, false);
        break;
    case GUARD_KILL:
        on_kill(w, v.quit_us);
        break;
    }
    if (w->guard.phase == GUARD_FROZEN && !cgroup_is_frozen(&w->cgroup) &&
        guard_left_us(&w->guard, in.boot_us) <= w->guard.budget_us / 4 * 3) {
        guard_freeze_failed(&w->guard); /* a task that sleeps in the kernel holds it up */
        v.wake_us = 0;
    }
    if (w->guard.challenge != challenge) {
        w->dirty = true;
        fence_log("warn", "clock_gap",
                  "the clocks disagree: PostgreSQL is killed unless the lease is "
                  "confirmed anew");
    }
    return v.wake_us;
}

/* Every PostgreSQL process works in PGDATA: the postmaster tells where that is without our touching it. */
static bool learn_pgdata(struct warden *w)
{
    if (w->postmaster == 0 || w->start_pipe >= 0 || w->pgdata_known)
        return true;
    char cwd[FENCE_PATH_MAX];
    if (!proc_cwd(w->postmaster, cwd, sizeof cwd) || strcmp(cwd, "/") == 0)
        return false;
    memcpy(w->tree.pgdata, cwd, sizeof cwd);
    w->pgdata_known = true;
    w->dirty = true;
    return true;
}

static bool idle(const struct warden *w)
{
    return w->postmaster == 0 && !w->leftovers && w->kill == KILL_NONE &&
           w->guard.phase == GUARD_IDLE;
}

static bool finished(const struct warden *w)
{
    if (!idle(w))
        return false;
    if (w->stopping)
        return true;
    if (!w->options.spawned || conn_any(w))
        return false;
    for (size_t i = 0; i < FENCE_WORKERS_MAX; i++)
        if (w->worker[i] != 0)
            return false;
    return clock_boot_us() - w->idle_since_us >= w->options.idle_exit_ms * 1000;
}

static void feed_watchdog(uint64_t *wake_us)
{
    static uint64_t fed_us;
    uint64_t period = notify_watchdog_us() / 4, now = clock_boot_us();
    if (period == 0)
        return;
    if (now - fed_us >= period) {
        notify_send("WATCHDOG=1");
        fed_us = now;
    }
    *wake_us = MIN(*wake_us, period - (now - fed_us));
}

static void set_timer(const struct warden *w, uint64_t wake_us)
{
    uint64_t at = clock_boot_us() + MAX(wake_us, (uint64_t)1);
    struct itimerspec t = {.it_value = {.tv_sec = (time_t)(at / 1000000U),
                                        .tv_nsec = (long)(at % 1000000U) * 1000}};
    int rv = timerfd_settime(w->timer, TFD_TIMER_ABSTIME, &t, NULL);
    ASSERT(rv == 0);
}

uint64_t warden_vip_end_us(const struct warden *w)
{
    uint64_t now = clock_boot_us();
    return w->guard.phase == GUARD_IDLE ? w->vip_end_us : now + guard_left_us(&w->guard, now);
}

static uint64_t tick_vip(struct warden *w)
{
    bool up = w->vip.up;
    uint64_t wake = vip_tick(&w->vip, warden_vip_end_us(w));
    w->dirty = w->dirty || up != w->vip.up;
    return wake;
}

static enum watchdog_need watchdog_need(const struct warden *w)
{
    if (w->kill != KILL_NONE || w->guard.doubt)
        return WATCHDOG_STARVE;
    switch (w->guard.phase) {
    case GUARD_IDLE:
        return WATCHDOG_REST;
    case GUARD_RUN:
    case GUARD_FROZEN:
        return WATCHDOG_GUARD;
    case GUARD_DOOMED:
        return WATCHDOG_STARVE;
    }
    UNREACHABLE();
}

static uint64_t tick_watchdog(struct warden *w)
{
    const struct watchdog *g = &w->watchdog;
    uint64_t now = clock_boot_us();
    bool held = g->fd >= 0, on = g->on, pinned = g->pinned;
    uint64_t wake =
        watchdog_tick(&w->watchdog, watchdog_need(w), now, guard_left_us(&w->guard, now));
    w->dirty = w->dirty || held != (g->fd >= 0) || on != g->on;
    if (held && g->fd < 0) {
        fence_log("error", "watchdog", "given up: %s", g->trouble);
        conn_refuse(w, FENCE_WATCHDOG, ERR_UNAVAILABLE, g->trouble);
    }
    if (pinned != g->pinned && g->pinned)
        fence_log("warn", "watchdog",
                  "it cannot be stopped: the machine is reset when this fence ends");
    return wake;
}

/* After every batch of events, and at least every heartbeat while there is something to guard. */
static void tick(struct warden *w)
{
    uint64_t wake = guard_tick(w);
    wake = MIN(wake, kill_step(w));
    if (w->vip_leaves)
        vip_down(&w->vip);
    w->vip_leaves = false;
    wake = MIN(wake, tick_vip(w));
    wake = MIN(wake, tick_watchdog(w));
    if (w->leftovers && w->kill == KILL_NONE)
        look_for_leftovers(w);
    if (!learn_pgdata(w))
        wake = MIN(wake, (uint64_t)5000);
    if (w->guard.phase == GUARD_IDLE && w->kill == KILL_NONE && !w->vip.up)
        wake = w->leftovers || w->tree.pgdata[0] == '\0' ? wake
                                                         : MAX(wake, (uint64_t)LOOK_IDLE_US);
    feed_watchdog(&wake);
    if (w->dirty) {
        w->dirty = false;
        shm_publish(w);
        conn_broadcast(w);
    }
    atomic_store_explicit(&w->shm->heartbeat_ms, clock_boot_ms(), memory_order_release);
    set_timer(w, wake);
}

static void on_terminate(struct warden *w)
{
    if (w->options.spawned && !idle(w)) {
        fence_log("warn", "ignored",
                  "SIGTERM while PostgreSQL is guarded; stop regentd instead");
        return;
    }
    /* The unit is being stopped: no PostgreSQL without its fence. */
    w->stopping = true;
    if (w->postmaster != 0 || w->leftovers)
        kill_begin(w, (uint64_t)FENCE_QUIT_MS * 1000, true, false);
    guard_disarm(&w->guard);
}

static void on_signals(struct warden *w)
{
    struct signalfd_siginfo s;
    while (read(w->signals, &s, sizeof s) == (ssize_t)sizeof s) {
        if (s.ssi_signo == SIGTERM || s.ssi_signo == SIGINT)
            on_terminate(w);
        /* SIGCHLD: reap() below, also when several were merged. The others mean nothing to us. */
    }
    reap(w);
}

static void dispatch(struct warden *w, uint32_t tag)
{
    uint64_t ticks;
    switch (tag) {
    case WARDEN_LISTENER:
        conn_accept(w);
        break;
    case WARDEN_TIMER:
        (void)!read(w->timer, &ticks, sizeof ticks);
        break;
    case WARDEN_SIGNALS:
        on_signals(w);
        break;
    case WARDEN_START_PIPE:
        if (w->start_pipe >= 0)
            postmaster_started(w);
        break;
    default: /* WARDEN_CLIENT + index */
        ASSERT(tag - WARDEN_CLIENT < WARDEN_CLIENTS_MAX);
        if (w->client[tag - WARDEN_CLIENT] >= 0)
            conn_read(w, tag - WARDEN_CLIENT);
    }
}

int warden_run(struct warden *w)
{
    ASSERT(w->epoll >= 0 && w->shm != NULL);
    tick(w);
    while (!finished(w)) {
        struct epoll_event e[16];
        int n = epoll_wait(w->epoll, e, (int)ARRAY_LEN(e), -1);
        ASSERT(n >= 0 || errno == EINTR);
        for (int i = 0; i < n; i++)
            dispatch(w, e[i].data.u32);
        tick(w);
    }
    vip_down(&w->vip);
    watchdog_leave(&w->watchdog);
    fence_log("info", "end", "nothing to guard");
    cgroup_close(&w->cgroup);
    (void)unlink(w->options.socket_path);
    return 0;
}
