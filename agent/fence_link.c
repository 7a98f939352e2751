#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/fence/path.h"
#include "agent/fence_internal.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"

union fd_control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
};

static bool boot_matches(const struct fence_shm *s)
{
    char now[40] = "";
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, now, 36);
    (void)close(fd);
    return n == 36 && memcmp(now, s->boot_id, 36) == 0;
}

/* Takes fd. */
static struct fence_shm *map_memory(int fd)
{
    struct stat st;
    void *p = MAP_FAILED;
    if (fstat(fd, &st) == 0 && st.st_size >= (off_t)sizeof(struct fence_shm))
        p = mmap(NULL, sizeof(struct fence_shm), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (p == MAP_FAILED)
        return NULL;
    struct fence_shm *s = p;
    if (s->magic == FENCE_SHM_MAGIC && s->version == FENCE_SHM_VERSION && boot_matches(s))
        return s;
    (void)munmap(p, sizeof *s);
    return NULL;
}

static void on_welcome(struct fence *f, int fd)
{
    if (fd < 0 || f->shm != NULL) {
        if (fd >= 0)
            (void)close(fd);
        return;
    }
    f->shm = map_memory(fd);
    if (f->shm == NULL) {
        log_event(
            LOG_ERROR, "fence_version", NO_KV,
            "the fence on %s speaks another version: stop PostgreSQL and restart the fence",
            f->socket_path);
        return;
    }
    fence_recall(f);
    fence_watch_welcome(f);
    fence_notify(f);
}

/* One packet; false at the end of the connection or when nothing waits. */
static bool receive(struct fence *f, bool *ret_end)
{
    char payload[512];
    struct fence_msg m;
    struct iovec io[2] = {{&m, sizeof m}, {payload, sizeof payload}};
    union fd_control control;
    struct msghdr h = {.msg_iov = io,
                       .msg_iovlen = 2,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(f->fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    *ret_end = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) ||
               (n > 0 && (n < (ssize_t)sizeof m || m.magic != FENCE_MSG_MAGIC));
    if (n <= 0 || *ret_end)
        return false;
    int fd = -1;
    const struct cmsghdr *c = CMSG_FIRSTHDR(&h);
    if (c != NULL && c->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(c), sizeof fd);
    if (m.type == FENCE_WELCOME) {
        on_welcome(f, fd);
        return true;
    }
    if (fd >= 0)
        (void)close(fd);
    if (m.type == FENCE_CHANGED && f->shm != NULL)
        fence_notify(f);
    if (m.type == FENCE_REFUSED)
        fence_on_refused(f, (enum fence_type)m.b,
                         m.a < ERR_COUNT ? (enum err)m.a : ERR_INTERNAL,
                         slice_of(payload, (size_t)n - sizeof m));
    return true;
}

static void on_event(uv_poll_t *handle, int status, int events)
{
    struct fence *f = handle->data;
    CHECK_MAGIC(f, FENCE_MAGIC);
    (void)events;
    bool end = status < 0;
    /* The owner may close us from a callback. */
    while (!end && !f->closing && f->link == handle && receive(f, &end)) {
    }
    if (end && !f->closing && f->link == handle)
        fence_watch_lost(f);
}

bool fence_link_connect(struct fence *f)
{
    ASSERT(f->fd < 0 && f->link == NULL && !f->losing);
    struct sockaddr_un address;
    int dir = -1;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    bool ok = path_sockaddr(f->socket_path, &address, &dir) &&
              connect(fd, (const struct sockaddr *)&address, sizeof address) == 0;
    if (dir >= 0)
        (void)close(dir);
    if (!ok) {
        (void)close(fd);
        return false;
    }
    f->fd = fd;
    f->link = mem_alloc(sizeof *f->link);
    int rv = uv_poll_init(f->loop, f->link, fd);
    ASSERT(rv == 0);
    f->link->data = f;
    f->handles++;
    rv = uv_poll_start(f->link, UV_READABLE | UV_DISCONNECT, on_event);
    ASSERT(rv == 0);
    struct fence_link_packet hello = {.type = FENCE_HELLO,
                                      .payload = slice_str(f->pg_data_dir)};
    if (fence_link_send(f, &hello) == ERR_OK)
        return true;
    fence_link_close(f);
    return false;
}

void fence_link_close(struct fence *f)
{
    if (f->fd < 0)
        return;
    (void)uv_poll_stop(f->link);
    uv_close((uv_handle_t *)TAKE(f->link), fence_handle_closed);
    (void)close(f->fd);
    f->fd = -1;
    if (f->shm != NULL)
        (void)munmap(TAKE(f->shm), sizeof(struct fence_shm));
}

enum err fence_link_send(struct fence *f, const struct fence_link_packet *p)
{
    if (f->fd < 0)
        return ERR_UNAVAILABLE;
    struct fence_msg m = {
        .magic = FENCE_MSG_MAGIC, .type = (uint32_t)p->type, .a = p->a, .b = p->b, .c = p->c};
    struct iovec io[2] = {{&m, sizeof m}, {(void *)(uintptr_t)p->payload.p, p->payload.n}};
    union fd_control control = {0};
    struct msghdr h = {.msg_iov = io, .msg_iovlen = p->payload.n > 0 ? 2 : 1};
    if (p->fd > 0) {
        h.msg_control = control.bytes;
        h.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &p->fd, sizeof p->fd);
    }
    ssize_t n = sendmsg(f->fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL);
    return n == (ssize_t)(sizeof m + p->payload.n) ? ERR_OK : ERR_UNAVAILABLE;
}
