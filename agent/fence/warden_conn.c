#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/fence/vip_reset.h"
#include "agent/fence/warden.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/str.h"

static bool peer_allowed(const struct warden *w, int fd)
{
    struct ucred peer;
    socklen_t n = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) != 0)
        return false;
    return peer.uid == 0 || peer.uid == geteuid() || peer.uid == w->options.peer_uid;
}

void conn_accept(struct warden *w)
{
    int fd = accept4(w->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    size_t i = 0;
    while (i < WARDEN_CLIENTS_MAX && w->client[i] >= 0)
        i++;
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = WARDEN_CLIENT + (uint32_t)i};
    if (i == WARDEN_CLIENTS_MAX || !peer_allowed(w, fd) ||
        epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &e) != 0) {
        fence_log("warn", "client_refused", "another user, or too many");
        (void)close(fd);
        return;
    }
    w->client[i] = fd;
}

static void conn_close(struct warden *w, size_t i)
{
    ASSERT(w->client[i] >= 0);
    /* Explicitly: a child before its exec holds a copy that would keep the entry alive. */
    (void)epoll_ctl(w->epoll, EPOLL_CTL_DEL, w->client[i], NULL);
    (void)close(w->client[i]);
    w->client[i] = -1;
    w->idle_since_us = clock_boot_us();
}

bool conn_any(const struct warden *w)
{
    for (size_t i = 0; i < WARDEN_CLIENTS_MAX; i++)
        if (w->client[i] >= 0)
            return true;
    return false;
}

/* A client that does not read its packets loses them, not us our time: facts are in the memory. */
static void put(int fd, uint32_t type, enum err code, uint64_t b, const char *text, int pass_fd)
{
    struct fence_msg m = {.magic = FENCE_MSG_MAGIC, .type = type, .a = (uint64_t)code, .b = b};
    struct iovec io[2] = {{&m, sizeof m}, {(void *)(uintptr_t)text, strlen(text)}};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr h = {.msg_iov = io, .msg_iovlen = 2};
    if (pass_fd >= 0) {
        h.msg_control = control.bytes;
        h.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &pass_fd, sizeof pass_fd);
    }
    (void)sendmsg(fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void conn_broadcast(struct warden *w)
{
    for (size_t i = 0; i < WARDEN_CLIENTS_MAX; i++)
        if (w->client[i] >= 0)
            put(w->client[i], FENCE_CHANGED, ERR_OK, 0, "", -1);
}

void conn_refuse(struct warden *w, uint32_t type, enum err code, const char *text)
{
    for (size_t i = 0; i < WARDEN_CLIENTS_MAX; i++)
        if (w->client[i] >= 0)
            put(w->client[i], FENCE_REFUSED, code, type, text, -1);
}

static void on_hello(struct warden *w, int fd, const char *payload, size_t size)
{
    if (size > 0 && w->postmaster == 0 && w->kill == KILL_NONE &&
        str_copy_slice(w->tree.pgdata, sizeof w->tree.pgdata, slice_of(payload, size)) ==
            ERR_OK)
        look_for_leftovers(w);
    shm_publish(w);
    put(fd, FENCE_WELCOME, ERR_OK, 0, "", w->shm_fd);
}

static void on_signal(struct warden *w, const struct fence_msg *m)
{
    if (m->a != SIGINT && m->a != SIGTERM && m->a != SIGQUIT) {
        conn_refuse(w, m->type, ERR_INVALID, "not a shutdown signal");
        return;
    }
    if (w->postmaster == 0) {
        conn_refuse(w, m->type, ERR_NOT_FOUND, "no postmaster");
        return;
    }
    atomic_store(&w->shm->requested, 1);
    w->dirty = true;
    (void)kill(w->postmaster, (int)m->a);
}

/* A deadline too near to be held is refused when nothing was armed before; else it is obeyed. */
static void on_arm(struct warden *w, const struct fence_msg *m)
{
    struct guard *g = &w->guard;
    bool armed = g->phase == GUARD_RUN || g->phase == GUARD_FROZEN;
    uint64_t budget = m->c != 0 ? m->c : FENCE_BUDGET_MS;
    if (w->watchdog.required && w->watchdog.fd < 0 && !armed) {
        conn_refuse(w, m->type, ERR_PRECONDITION,
                    "watchdog.mode is required, and there is none");
        return;
    }
    if (w->kill != KILL_NONE || g->phase == GUARD_DOOMED || m->b == 0 || budget > 60000 ||
        m->b > UINT64_MAX / 2000 || (!armed && m->b <= clock_boot_ms() + budget)) {
        conn_refuse(w, m->type, ERR_PRECONDITION,
                    "being killed, or no time left before the deadline");
        return;
    }
    atomic_store(&w->shm->deadline_ms, m->b);
    struct guard_input in = {
        .boot_us = clock_boot_us(), .raw_us = warden_raw_us(), .deadline_us = m->b * 1000};
    guard_arm(g, budget * 1000, &in);
    w->token = m->a;
    w->dirty = true;
}

static void on_disarm(struct warden *w)
{
    if (w->guard.phase == GUARD_DOOMED || w->guard.phase == GUARD_IDLE) {
        w->dirty = true;
        return;
    }
    if (w->guard.phase == GUARD_FROZEN)
        (void)cgroup_freeze(&w->cgroup, false);
    w->vip_end_us = w->vip.end_us; /* the lease that it was armed for has not ended by this */
    guard_disarm(&w->guard);
    atomic_store(&w->shm->deadline_ms, 0);
    w->token = 0;
    w->dirty = true;
}

static void on_stop(struct warden *w, const struct fence_msg *m)
{
    if (w->postmaster != 0 || w->leftovers)
        conn_refuse(w, m->type, ERR_PRECONDITION, "PostgreSQL is still there");
    else
        w->stopping = true;
}

/* A PostgreSQL that may not write, or not for long, gives nobody a reason to come here. */
static enum err bring_up(struct warden *w, uint64_t lease_end_ms, char *ret_text, size_t size)
{
    const struct guard *g = &w->guard;
    uint64_t now = clock_boot_us();
    bool armed = g->phase == GUARD_RUN && guard_left_us(g, now) > g->budget_us;
    bool leased =
        g->phase == GUARD_IDLE && lease_end_ms > now / 1000 && lease_end_ms < UINT64_MAX / 2000;
    if (w->postmaster == 0 || w->kill != KILL_NONE || (!armed && !leased)) {
        str_cut(ret_text, size, "PostgreSQL does not run under a deadline");
        return ERR_PRECONDITION;
    }
    w->vip_end_us = leased ? lease_end_ms * 1000 : 0;
    return vip_up(&w->vip, warden_vip_end_us(w), ret_text, size);
}

/* Once, and before the address is here: see vip_reset.h. */
static void probe_resets(struct warden *w)
{
    int error = w->resets_probed ? 0 : vip_reset_probe();
    w->resets_probed = true;
    if (error != 0)
        fence_log(
            "warn", "vip",
            "clients that wait when the address goes will not hear of it: this kernel cannot "
            "reset their connections (%s; CONFIG_INET_DIAG_DESTROY)",
            strerror(error));
}

static void on_vip(struct warden *w, const struct fence_msg *m, const char *payload,
                   size_t size)
{
    const char *words[1 + VIP_MAX] = {""};
    size_t n = 0;
    char text[160] = "too many addresses, or one that does not end";
    enum err rv = ERR_OK;
    for (size_t at = 0; at < size && rv == ERR_OK; n++) {
        const char *nul = memchr(payload + at, '\0', size - at);
        if (nul == NULL || n == ARRAY_LEN(words))
            rv = ERR_INVALID;
        else
            words[n] = payload + at;
        at = nul != NULL ? (size_t)(nul - payload) + 1 : size;
    }
    if (rv == ERR_OK)
        rv = vip_set(&w->vip, words[0], words + 1, n > 1 ? n - 1 : 0, text, sizeof text);
    if (rv == ERR_OK && n > 1)
        probe_resets(w);
    if (rv == ERR_OK && m->a != 0)
        rv = bring_up(w, m->b, text, sizeof text);
    else if (rv == ERR_OK)
        vip_down(&w->vip);
    w->dirty = true;
    if (rv != ERR_OK)
        conn_refuse(w, m->type, rv, text);
}

/* Takes the descriptor, if there is one. */
static void on_watchdog(struct warden *w, const struct fence_msg *m, int fd)
{
    enum { LONGEST_S = 3600 };
    bool good = m->a <= 2 && m->b > 0 && m->b <= m->c && m->c <= LONGEST_S;
    w->dirty = true;
    if (m->a == 0 || !good) {
        watchdog_leave(&w->watchdog);
        w->watchdog.required = false;
        if (fd >= 0)
            (void)close(fd);
        if (!good)
            conn_refuse(w, m->type, ERR_INVALID, "no time for a watchdog");
        return;
    }
    watchdog_take(&w->watchdog, fd, m->a == 2, (unsigned)m->b, (unsigned)m->c);
    if (w->watchdog.trouble[0] != '\0')
        conn_refuse(w, m->type, ERR_NOT_FOUND, w->watchdog.trouble);
}

static void order(struct warden *w, size_t i, const struct fence_msg *m, char *payload,
                  size_t size, int *fd)
{
    switch (m->type) {
    case FENCE_HELLO:
        on_hello(w, w->client[i], payload, size);
        break;
    case FENCE_START:
        postmaster_start(w, m, payload, size);
        break;
    case FENCE_SIGNAL:
        on_signal(w, m);
        break;
    case FENCE_KILL:
        kill_begin(w, 0, true, false);
        break;
    case FENCE_ARM:
        on_arm(w, m);
        break;
    case FENCE_DISARM:
        on_disarm(w);
        break;
    case FENCE_WORKER:
        if (*fd >= 0)
            worker_spawn(w, *fd);
        *fd = -1;
        break;
    case FENCE_STOP:
        on_stop(w, m);
        break;
    case FENCE_WATCHDOG:
        on_watchdog(w, m, *fd);
        *fd = -1;
        break;
    case FENCE_VIP:
        on_vip(w, m, payload, size);
        break;
    default: /* a number from outside, not our enum */
        conn_refuse(w, m->type, ERR_UNSUPPORTED,
                    "unknown order: is the fence older than the daemon?");
    }
}

static int passed_fd(struct msghdr *h)
{
    struct cmsghdr *c = CMSG_FIRSTHDR(h);
    int fd = -1;
    if (c != NULL && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len == CMSG_LEN(sizeof fd))
        memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
}

void conn_read(struct warden *w, size_t i)
{
    static char payload[FENCE_PACKET_MAX];
    struct fence_msg m;
    struct iovec io[2] = {{&m, sizeof m}, {payload, sizeof payload}};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr h = {.msg_iov = io,
                       .msg_iovlen = 2,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(w->client[i], &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    /* ECONNRESET: the daemon has left with news unread, which is told before its last orders are. */
    if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNRESET))
        return;
    int fd = n > 0 ? passed_fd(&h) : -1;
    if (n < (ssize_t)sizeof m || m.magic != FENCE_MSG_MAGIC || (h.msg_flags & MSG_TRUNC) != 0)
        conn_close(w, i);
    else
        order(w, i, &m, payload, (size_t)n - sizeof m, &fd);
    if (fd >= 0)
        (void)close(fd);
}
