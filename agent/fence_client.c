#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/fence_internal.h"
#include "base/assert.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

static uint64_t get(const fence_word *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static void copy_state(const struct fence_shm *s, struct fence_state *t)
{
    t->postmaster = get(&s->postmaster_pid);
    t->processes_left = get(&s->processes_left) != 0;
    t->starts = get(&s->starts);
    t->exited = get(&s->exited) != 0;
    t->exit_status = (int)get(&s->exit_status);
    t->requested = get(&s->requested) != 0;
    t->fenced = get(&s->fenced) != 0;
    t->armed = get(&s->armed) != 0;
    t->token = get(&s->token);
    t->kill_budget_ms = get(&s->budget_ms);
    t->frozen = get(&s->frozen) != 0;
    t->challenge = get(&s->challenge);
    t->swept_ms = get(&s->swept_ms);
    uint64_t features = get(&s->features);
    t->realtime = (features & FENCE_REALTIME) != 0;
    t->locked = (features & FENCE_LOCKED) != 0;
    t->cgroup = (features & FENCE_CGROUP) != 0;
    t->vip_up = (features & FENCE_VIP_UP) != 0;
    t->watchdog_held = (features & FENCE_WATCHDOG_HELD) != 0;
    t->watchdog_on = (features & FENCE_WATCHDOG_ON) != 0;
}

/* The reader's side of the seqlock. A fence that died while writing leaves it odd: then what is there
 * has to do. */
static void read_memory(struct fence *f)
{
    const struct fence_shm *s = f->shm;
    for (int tries = 0; tries < 1000; tries++) {
        uint64_t before = atomic_load_explicit(&s->generation, memory_order_acquire);
        copy_state(s, &f->state);
        atomic_thread_fence(memory_order_acquire);
        if ((before & 1) == 0 && before == get(&s->generation))
            break;
    }
    f->state.deadline_ms = get(&s->deadline_ms);
    f->state.heartbeat_ms = get(&s->heartbeat_ms);
    f->state.lease = get(&s->lease);
    f->state.nonce = get(&s->nonce);
}

/* What the memory of a fence that is gone, or has not obeyed yet, cannot say. */
static void overlay(struct fence *f)
{
    struct fence_state *s = &f->state;
    s->connected = f->shm != NULL;
    s->adopted = s->connected && !f->spawned;
    if (f->shm == NULL) {
        s->armed = false;
        s->postmaster = f->losing ? s->postmaster : 0;
        s->processes_left = f->losing;
    }
    if (f->starts_wanted > s->starts)
        s->exited = false;
    else if (f->starts_wanted != 0)
        f->starts_wanted = 0;
    if (s->postmaster == 0 && f->lost_exited && s->starts == 0 && f->starts_wanted == 0) {
        s->exited = true;
        s->exit_status = SIGKILL;
        s->requested = false;
        s->fenced = f->lost_fenced;
    }
}

void fence_refresh(struct fence *f)
{
    if (f->shm != NULL)
        read_memory(f);
    else
        f->state.starts = f->losing ? f->state.starts : 0;
    overlay(f);
}

/* An extension that came while an arm was under way would have been overwritten by it. */
static void settle_arm(struct fence *f)
{
    if (!f->arm_pending || f->shm == NULL || !f->state.armed)
        return;
    f->arm_pending = false;
    uint64_t extend = f->extend_pending_ms;
    f->extend_pending_ms = 0;
    if (extend != 0)
        fence_extend(f, extend);
}

void fence_notify(struct fence *f)
{
    fence_refresh(f);
    settle_arm(f);
    if (!f->closing)
        f->ops.changed(f->arg, &f->state);
}

void fence_on_refused(struct fence *f, enum fence_type order, enum err code, struct slice text)
{
    if (order == FENCE_VIP) {
        (void)snprintf(f->state.vip_refused, sizeof f->state.vip_refused, "%.*s",
                       (int)MIN(text.n, (size_t)200), (const char *)text.p);
        if (!f->closing)
            f->ops.changed(f->arg, &f->state);
    }
    if (order == FENCE_WATCHDOG) {
        (void)snprintf(f->state.watchdog_refused, sizeof f->state.watchdog_refused, "%.*s",
                       (int)MIN(text.n, (size_t)200), (const char *)text.p);
        fence_refresh(f);
        if (!f->closing)
            f->ops.changed(f->arg, &f->state);
    }
    if (order != FENCE_START && order != FENCE_ARM)
        return;
    (void)snprintf(f->state.refused, sizeof f->state.refused, "%s: %.*s", err_name(code),
                   (int)MIN(text.n, (size_t)200), (const char *)text.p);
    if (order == FENCE_ARM)
        f->arm_pending = false;
    fence_refresh(f);
    if (order == FENCE_START && f->starts_wanted != 0) {
        f->starts_wanted = 0;
        f->state.exited = true;
        f->state.exit_status = W_EXITCODE(127, 0);
    }
    if (!f->closing)
        f->ops.changed(f->arg, &f->state);
}

static enum err take_options(struct fence *f, const struct fence_options *o, struct errmsg *e)
{
    enum err rv =
        o->socket_path != NULL
            ? str_copy(f->socket_path, sizeof f->socket_path, o->socket_path)
            : str_format(f->socket_path, sizeof f->socket_path, "%s/fence.sock", o->data_dir);
    if (rv == ERR_OK && f->socket_path[0] != '/') {
        /* The fence works in "/". */
        char full[PATH_MAX], relative[FENCE_PATH_MAX];
        memcpy(relative, f->socket_path, sizeof relative);
        rv = getcwd(full, sizeof full) == NULL
                 ? ERR_IO
                 : str_format(f->socket_path, sizeof f->socket_path, "%s/%s", full, relative);
    }
    if (rv != ERR_OK)
        return err_set(e, rv, "path of the fence's socket is too long");
    if (o->pg_data_dir != NULL) {
        char *real CLEANUP(mem_cleanup) = realpath(o->pg_data_dir, NULL);
        if (real != NULL && str_copy(f->pg_data_dir, sizeof f->pg_data_dir, real) != ERR_OK)
            return err_set(e, ERR_LIMIT, "path of the data directory is too long");
    }
    f->spawn = o->spawn;
    f->budget_ms = o->kill_budget_ms != 0 ? o->kill_budget_ms : FENCE_BUDGET_MS;
    return o->spawn ? fence_spawn_find(f, o->program, e) : ERR_OK;
}

enum err fence_open(uv_loop_t *loop, const struct fence_options *o, const struct fence_ops *ops,
                    void *arg, struct fence **ret_fence, struct errmsg *e)
{
    ASSERT(ops->changed != NULL && ops->lost != NULL);
    ASSERT(o->socket_path != NULL || o->data_dir != NULL);
    struct fence *f = mem_alloc(sizeof *f);
    *f = (struct fence){
        .magic = FENCE_MAGIC, .loop = loop, .ops = *ops, .arg = arg, .fd = -1, .ready_fd = -1};
    enum err rv = take_options(f, o, e);
    /* Where PID 1 reaps slowly or not at all (we may be it) a dead postmaster's pid would linger. */
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (rv == ERR_OK && !fence_link_connect(f) && f->spawn)
        rv = fence_spawn_start(f, e);
    if (rv != ERR_OK && f->handles == 0) {
        mem_free(f);
        return rv;
    }
    fence_watch_start(f);
    if (rv != ERR_OK) {
        fence_close(f, true);
        return rv;
    }
    *ret_fence = f;
    return ERR_OK;
}

void fence_handle_closed(uv_handle_t *handle)
{
    struct fence *f = handle->data;
    CHECK_MAGIC(f, FENCE_MAGIC);
    if (handle != (uv_handle_t *)&f->tick)
        mem_free(handle);
    ASSERT(f->handles > 0);
    if (--f->handles > 0 || !f->closing)
        return;
    f->magic = 0;
    mem_free(f);
}

void fence_close(struct fence *f, bool leave)
{
    if (f == NULL)
        return;
    CHECK_MAGIC(f, FENCE_MAGIC);
    /* A fence that does not get it ends by itself a minute after we have left. */
    if (!leave && fence_link_send(f, &(struct fence_link_packet){.type = FENCE_STOP}) != ERR_OK)
        log_event(LOG_WARN, "fence_stop", NO_KV, "the fence takes no orders");
    f->closing = true;
    fence_link_close(f);
    fence_spawn_forget(f);
    uv_close((uv_handle_t *)&f->tick, fence_handle_closed);
}

const struct fence_state *fence_state(const struct fence *f)
{
    CHECK_MAGIC(f, FENCE_MAGIC);
    return &f->state;
}

static void put_word(struct buf *b, const char *word)
{
    buf_append(b, word, strlen(word) + 1);
}

static enum err may_start(struct fence *f, const char *program, bool armed_required,
                          struct errmsg *e)
{
    if (f->shm == NULL)
        return err_set(e, ERR_UNAVAILABLE, "the fence is not there");
    if (program == NULL || program[0] != '/')
        return err_set(e, ERR_INVALID, "the program to start needs an absolute path");
    fence_refresh(f);
    const struct fence_state *s = &f->state;
    if (s->postmaster != 0 || s->processes_left || f->starts_wanted != 0)
        return err_set(e, ERR_EXISTS, "processes of PostgreSQL are still there");
    if (armed_required && (!s->armed || s->deadline_ms <= clock_boot_ms() + s->kill_budget_ms))
        return err_set(e, ERR_PRECONDITION,
                       "the fence holds no deadline beyond its kill budget");
    return ERR_OK;
}

enum err fence_start_postgres(struct fence *f, const char *const *argv, const char *const *env,
                              const char *log_path, bool armed_required, struct errmsg *e)
{
    CHECK_MAGIC(f, FENCE_MAGIC);
    enum err rv = may_start(f, argv[0], armed_required, e);
    if (rv != ERR_OK)
        return rv;
    struct buf b CLEANUP(buf_close) = {.max = FENCE_PACKET_MAX};
    struct fence_link_packet p = {.type = FENCE_START};
    put_word(&b, log_path != NULL ? log_path : "");
    for (; argv[p.a] != NULL; p.a++)
        put_word(&b, argv[p.a]);
    for (; env != NULL && env[p.b] != NULL; p.b++)
        put_word(&b, env[p.b]);
    p.c = (armed_required ? FENCE_START_ARMED : 0U) | (env != NULL ? FENCE_START_ENV : 0U);
    if (!buf_ok(&b) || p.a > FENCE_ARGV_MAX || p.b > FENCE_ENV_MAX)
        return err_set(e, ERR_LIMIT, "arguments and environment are too long to pass");
    p.payload = buf_slice(&b);
    if (fence_link_send(f, &p) != ERR_OK)
        return err_set(e, ERR_UNAVAILABLE, "the fence takes no orders");
    f->starts_wanted = f->state.starts + 1;
    f->lost_exited = f->lost_fenced = false;
    f->state.refused[0] = '\0';
    fence_refresh(f);
    return ERR_OK;
}

enum err fence_signal(struct fence *f, int signal_number)
{
    if (signal_number != SIGINT && signal_number != SIGTERM && signal_number != SIGQUIT)
        return ERR_INVALID;
    return fence_link_send(
        f, &(struct fence_link_packet){.type = FENCE_SIGNAL, .a = (uint64_t)signal_number});
}

enum err fence_kill(struct fence *f)
{
    return fence_link_send(f, &(struct fence_link_packet){.type = FENCE_KILL});
}

enum err fence_arm(struct fence *f, uint64_t token, uint64_t deadline_ms)
{
    CHECK_MAGIC(f, FENCE_MAGIC);
    struct fence_link_packet p = {
        .type = FENCE_ARM, .a = token, .b = deadline_ms, .c = f->budget_ms};
    if (f->shm == NULL || deadline_ms == 0)
        return ERR_UNAVAILABLE;
    enum err rv = fence_link_send(f, &p);
    if (rv != ERR_OK)
        return rv;
    f->arm_pending = true;
    f->extend_pending_ms = 0;
    f->state.refused[0] = '\0';
    return ERR_OK;
}

void fence_extend(struct fence *f, uint64_t deadline_ms)
{
    CHECK_MAGIC(f, FENCE_MAGIC);
    if (f->arm_pending) {
        f->extend_pending_ms = MAX(f->extend_pending_ms, deadline_ms);
        return;
    }
    if (f->shm == NULL || !f->state.armed || deadline_ms <= get(&f->shm->deadline_ms))
        return;
    atomic_store_explicit(&f->shm->deadline_ms, deadline_ms, memory_order_release);
    f->state.deadline_ms = deadline_ms;
}

bool fence_shorten(struct fence *f, uint64_t deadline_ms)
{
    CHECK_MAGIC(f, FENCE_MAGIC);
    if (f->shm == NULL || f->arm_pending)
        return false;
    if (f->state.armed && deadline_ms < get(&f->shm->deadline_ms)) {
        atomic_store_explicit(&f->shm->deadline_ms, deadline_ms, memory_order_release);
        f->state.deadline_ms = deadline_ms;
    }
    return true;
}

void fence_confirm(struct fence *f, uint64_t challenge)
{
    if (f->shm != NULL)
        atomic_store_explicit(&f->shm->confirmed, challenge, memory_order_release);
}

enum err fence_disarm(struct fence *f)
{
    return fence_link_send(f, &(struct fence_link_packet){.type = FENCE_DISARM});
}

void fence_remember(struct fence *f, uint64_t lease, uint64_t nonce)
{
    f->state.lease = f->lease = lease;
    f->state.nonce = f->nonce = nonce;
    f->remembers = true;
    fence_recall(f);
}

/* Also of a fence that came later: one that was connected after the lease was granted, or has taken the place
 * of another. */
void fence_recall(struct fence *f)
{
    if (f->shm == NULL || !f->remembers)
        return;
    atomic_store(&f->shm->lease, f->lease);
    atomic_store(&f->shm->nonce, f->nonce);
}

enum err fence_vip(struct fence *f, bool up, uint64_t lease_end_ms, const char *interface,
                   const char *const *addresses, size_t n)
{
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    put_word(&b, interface);
    for (size_t i = 0; i < n; i++)
        put_word(&b, addresses[i]);
    f->state.vip_refused[0] = '\0';
    return fence_link_send(
        f, &(struct fence_link_packet){.type = FENCE_VIP,
                                       .a = up,
                                       .b = lease_end_ms,
                                       .payload = n > 0 ? buf_slice(&b) : slice_of("", 0)});
}

enum err fence_watchdog(struct fence *f, int fd, bool required, unsigned wanted_s,
                        unsigned longest_s)
{
    f->state.watchdog_refused[0] = '\0';
    uint64_t mode = wanted_s == 0 ? 0 : required ? 2 : 1;
    struct fence_link_packet p = {
        .type = FENCE_WATCHDOG, .a = mode, .b = wanted_s, .c = longest_s, .fd = MAX(fd, 0)};
    return fence_link_send(f, &p);
}

int fence_worker_connect(struct fence *f)
{
    int fds[2];
    if (f->shm == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        return -1;
    enum err rv =
        fence_link_send(f, &(struct fence_link_packet){.type = FENCE_WORKER, .fd = fds[1]});
    (void)close(fds[1]);
    if (rv == ERR_OK)
        return fds[0];
    (void)close(fds[0]);
    return -1;
}
