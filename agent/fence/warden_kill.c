#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/fence/warden.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/mutant.h"

enum { SWEEP_US = 3000 };

static void flag(fence_word *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

/* What must not be swept: our own helpers. */
static void refresh_tree(struct warden *w)
{
    w->tree.root = w->postmaster;
    w->tree.reaper = w->self;
    memcpy(w->tree.except, w->worker, sizeof w->worker);
    w->tree.except[FENCE_WORKERS_MAX] = w->logger;
}

void look_for_leftovers(struct warden *w)
{
    if (w->postmaster != 0 || w->kill != KILL_NONE)
        return;
    refresh_tree(w);
    bool left = tree_signal(&w->tree, 0) > 0;
    w->dirty = w->dirty || left != w->leftovers;
    w->leftovers = left;
}

/* A stopped postmaster gets SIGQUIT when it is continued: no use waiting for that. */
static bool is_stopped(pid_t pid)
{
    struct proc_stat s;
    return proc_stat_read(pid, &s) && (s.state == 'T' || s.state == 't');
}

void kill_begin(struct warden *w, uint64_t quit_us, bool requested, bool fenced)
{
    uint64_t now = clock_boot_us();
    bool something = w->postmaster != 0 || w->leftovers;
    if (requested)
        flag(&w->shm->requested, 1);
    if (fenced && something)
        flag(&w->shm->fenced, 1);
    if (fenced || requested)
        w->vip_leaves = true;
    w->dirty = true;
    if (w->kill != KILL_NONE) {
        w->sweep_at_us = MIN(w->sweep_at_us, now + quit_us);
        return;
    }
    w->kill_started_us = now;
    w->sweep_next_us = 0;
    w->sweep_at_us = now + quit_us;
    w->kill = KILL_SWEEP;
    if (quit_us > 0 && w->postmaster != 0 && !is_stopped(w->postmaster)) {
        w->kill = KILL_QUIT;
        (void)kill(w->postmaster, SIGQUIT);
    }
}

static void kill_done(struct warden *w)
{
    uint64_t now = clock_boot_us(), took = now - w->kill_started_us;
    flag(&w->shm->kill_latency_us, took);
    flag(&w->shm->swept_ms, now / 1000);
    w->kill = KILL_NONE;
    w->leftovers = false;
    w->dirty = true;
    if (w->guard.phase == GUARD_DOOMED)
        guard_disarm(&w->guard);
    if (w->cgroup.frozen)
        (void)cgroup_freeze(&w->cgroup, false);
    fence_log("info", "swept",
              "no process of PostgreSQL is left, %llu us after the first signal",
              (unsigned long long)took);
}

/* Frozen or stopped processes die of SIGKILL as they are: never thawed for it. */
static bool sweep(struct warden *w)
{
    if (w->cgroup.usable)
        (void)cgroup_kill(&w->cgroup);
    if (w->postmaster != 0)
        (void)kill(w->postmaster, SIGKILL);
    refresh_tree(w);
    int living = MUTANT(kill_postmaster_alone) ? 0 : tree_signal(&w->tree, SIGKILL);
    reap(w);
    return living == 0 && w->postmaster == 0;
}

uint64_t kill_step(struct warden *w)
{
    uint64_t now = clock_boot_us();
    switch (w->kill) {
    case KILL_NONE:
        return UINT64_MAX;
    case KILL_QUIT:
        if (w->postmaster != 0 && now < w->sweep_at_us)
            return w->sweep_at_us - now;
        w->kill = KILL_SWEEP;
        break;
    case KILL_SWEEP:
        break;
    }
    if (now < w->sweep_next_us)
        return w->sweep_next_us - now;
    if (sweep(w)) {
        kill_done(w);
        return UINT64_MAX;
    }
    /* The killed need a processor to die on, and with real-time priority we would be keeping it: rest
     * for twice as long as the look took, however many SIGCHLD arrive meanwhile. */
    uint64_t end = clock_boot_us(), rest = MAX((uint64_t)SWEEP_US, 2 * (end - now));
    w->sweep_next_us = end + rest;
    return rest;
}

static void postmaster_gone(struct warden *w, int status)
{
    if (w->start_pipe >= 0)
        postmaster_started(w);
    w->vip_leaves = true;
    w->postmaster = 0;
    w->tree.root = 0;
    flag(&w->shm->exit_status, (uint64_t)status);
    flag(&w->shm->exited, 1);
    w->dirty = true;
    if (w->kill != KILL_NONE)
        return;
    if (w->start_failed) {
        look_for_leftovers(w);
        return;
    }
    w->leftovers = true; /* until a sweep has found nothing */
    kill_begin(w, 0, false, false);
}

void reap(struct warden *w)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        ASSERT(pid != w->self);
        if (pid == w->postmaster) {
            postmaster_gone(w, status);
            continue;
        }
        for (size_t i = 0; i < FENCE_WORKERS_MAX; i++) {
            if (w->worker[i] == pid) {
                w->worker[i] = 0;
                w->dirty = true;
            }
        }
        if (pid == w->logger)
            w->logger = 0;
    }
}
