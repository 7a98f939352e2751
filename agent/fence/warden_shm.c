#include "agent/fence/warden.h"

static void put(fence_word *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

/* exited, exit_status, requested and fenced are written where they happen; the rest mirrors w. */
static void mirror(struct fence_shm *s, const struct warden *w)
{
    put(&s->postmaster_pid, (uint64_t)w->postmaster);
    put(&s->postmaster_start_ticks, w->postmaster != 0 ? w->tree.root_start_ticks : 0);
    put(&s->processes_left, w->postmaster != 0 || w->leftovers || w->kill != KILL_NONE);
    put(&s->armed, w->guard.phase == GUARD_RUN || w->guard.phase == GUARD_FROZEN);
    put(&s->frozen, w->guard.phase == GUARD_FROZEN);
    put(&s->token, w->token);
    put(&s->budget_ms, w->guard.budget_us / 1000);
    put(&s->challenge, w->guard.challenge);
    for (size_t i = 0; i < FENCE_WORKERS_MAX; i++)
        put(&s->worker_pid[i], (uint64_t)w->worker[i]);
    memcpy(s->exe, w->tree.exe, sizeof s->exe);
    memcpy(s->pgdata, w->tree.pgdata, sizeof s->pgdata);
    uint64_t features = atomic_load_explicit(&s->features, memory_order_relaxed);
    features = w->cgroup.usable ? features | FENCE_CGROUP : features & ~(uint64_t)FENCE_CGROUP;
    features = w->vip.up ? features | FENCE_VIP_UP : features & ~(uint64_t)FENCE_VIP_UP;
    features &= ~(uint64_t)(FENCE_WATCHDOG_HELD | FENCE_WATCHDOG_ON);
    features |= w->watchdog.fd >= 0 ? FENCE_WATCHDOG_HELD : 0U;
    features |= w->watchdog.on ? FENCE_WATCHDOG_ON : 0U;
    put(&s->features, features);
}

/* A seqlock: readers retry while the generation is odd or has moved. */
void shm_publish(struct warden *w)
{
    struct fence_shm *s = w->shm;
    uint64_t generation = atomic_load_explicit(&s->generation, memory_order_relaxed);
    atomic_store_explicit(&s->generation, generation + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    mirror(s, w);
    atomic_store_explicit(&s->generation, generation + 2, memory_order_release);
}
