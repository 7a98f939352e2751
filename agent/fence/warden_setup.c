#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "agent/fence/path.h"
#include "agent/fence/warden.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/notify.h"
#include "base/str.h"

enum { RR_PRIORITY = 10 };

static bool complain(const struct warden *w, const char *what, const char *name)
{
    char text[512];
    int n = snprintf(text, sizeof text, "%s %.300s: %s", what, name, strerror(errno));
    fence_log("error", "setup", "%s", text);
    if (w->options.ready_fd >= 0 && n > 0)
        (void)!write(w->options.ready_fd, text, MIN((size_t)n, sizeof text - 1));
    return false;
}

/* The lock outlives no fence, the socket file does: whoever holds the lock may replace the file. */
static bool take_lock(const struct warden *w)
{
    char path[FENCE_PATH_MAX + 8];
    (void)snprintf(path, sizeof path, "%s.lock", w->options.socket_path);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return complain(w, "open", path);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        return complain(w, "another fence holds", path);
    return true; /* held, and the descriptor kept, until the process ends */
}

static bool listen_on(struct warden *w)
{
    const char *path = w->options.socket_path;
    struct sockaddr_un address;
    int dir = -1;
    w->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (w->listener < 0 || !path_sockaddr(path, &address, &dir))
        return complain(w, "socket", path);
    (void)unlink(path);
    /* Other users pass the file's mode only when one of them may connect; the credentials decide. */
    mode_t mode = w->options.peer_uid != geteuid() ? 0666 : 0600;
    mode_t old = umask(0777 & ~mode);
    int rv = bind(w->listener, (const struct sockaddr *)&address, sizeof address);
    (void)umask(old);
    if (dir >= 0)
        (void)close(dir);
    if (rv != 0 || listen(w->listener, WARDEN_CLIENTS_MAX) != 0)
        return complain(w, "listen on", path);
    return true;
}

/* Our standard error becomes a pipe that never blocks; this process may hang on the disk for us. */
static bool start_logger(struct warden *w)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0)
        return complain(w, "pipe for", "the log");
    pid_t parent = getpid();
    w->logger = fork();
    if (w->logger < 0)
        return complain(w, "fork for", "the log");
    if (w->logger == 0) {
        (void)signal(SIGTERM, SIG_IGN); /* it ends with the last line */
        (void)signal(SIGINT, SIG_IGN);
        (void)prctl(PR_SET_NAME, "regent-fence-lg");
        (void)dup2(fds[0], STDIN_FILENO);
        (void)dup2(STDERR_FILENO, STDOUT_FILENO);
        (void)close_range(STDERR_FILENO + 1, ~0U, 0);
        if (getppid() != parent)
            _exit(0);
        char buf[4096];
        ssize_t n;
        while ((n = read(STDIN_FILENO, buf, sizeof buf)) > 0)
            (void)!write(STDOUT_FILENO, buf, (size_t)n);
        _exit(0);
    }
    (void)fcntl(fds[1], F_SETFL, O_NONBLOCK);
    (void)dup2(fds[1], STDERR_FILENO);
    (void)close(fds[0]);
    (void)close(fds[1]);
    return true;
}

static void put_oom(const char *text)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)!write(fd, text, strlen(text)); /* needs a capability; best effort */
    (void)close(fd);
}

/* Each is granted or not; what was granted is told in `features`. */
static uint64_t harden(void)
{
    uint64_t features = 0;
    put_oom("-1000");
    struct sched_param p = {.sched_priority = RR_PRIORITY};
    if (sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &p) == 0)
        features |= FENCE_REALTIME;
    if (mlockall(MCL_CURRENT | MCL_FUTURE) == 0)
        features |= FENCE_LOCKED;
    return features;
}

static void read_boot_id(char ret_id[static 40])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, ret_id, 36) : 0;
    ret_id[n > 0 ? n : 0] = '\0';
    if (fd >= 0)
        (void)close(fd);
}

static bool make_memory(struct warden *w)
{
    w->shm_fd = memfd_create("regent-fence", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (w->shm_fd < 0 || ftruncate(w->shm_fd, sizeof *w->shm) != 0)
        return complain(w, "memory for", "the deadline");
    w->shm = mmap(NULL, sizeof *w->shm, PROT_READ | PROT_WRITE, MAP_SHARED, w->shm_fd, 0);
    if (w->shm == MAP_FAILED)
        return complain(w, "map", "the deadline");
    /* A client could otherwise shorten it and have us die of SIGBUS. */
    (void)fcntl(w->shm_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    w->shm->magic = FENCE_SHM_MAGIC;
    w->shm->version = FENCE_SHM_VERSION;
    read_boot_id(w->shm->boot_id);
    w->shm->fence_pid = (uint64_t)w->self;
    w->shm->logger_pid = (uint64_t)w->logger;
    struct proc_stat s;
    w->shm->fence_start_ticks = proc_stat_read(w->self, &s) ? s.start_ticks : 0;
    return true;
}

static bool watch(struct warden *w, int fd, uint32_t tag)
{
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = tag};
    return fd >= 0 && epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &e) == 0;
}

static bool make_loop(struct warden *w)
{
    sigset_t set;
    (void)sigemptyset(&set);
    static const int taken[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < ARRAY_LEN(taken); i++)
        (void)sigaddset(&set, taken[i]);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    w->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    w->timer = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    if (w->epoll < 0 || !watch(w, w->signals, WARDEN_SIGNALS) ||
        !watch(w, w->timer, WARDEN_TIMER) || !watch(w, w->listener, WARDEN_LISTENER))
        return complain(w, "set up", "the loop");
    return true;
}

static void make_empty(struct warden *w, const struct warden_options *o)
{
    *w = (struct warden){.options = *o,
                         .epoll = -1,
                         .listener = -1,
                         .timer = -1,
                         .signals = -1,
                         .shm_fd = -1,
                         .start_pipe = -1};
    for (size_t i = 0; i < WARDEN_CLIENTS_MAX; i++)
        w->client[i] = -1;
    w->self = getpid();
    w->idle_since_us = clock_boot_us();
    guard_init(&w->guard);
}

bool warden_setup(struct warden *w, const struct warden_options *o)
{
    make_empty(w, o);
    notify_open();
    if (!take_lock(w) || !listen_on(w) || !start_logger(w) || !make_memory(w) || !make_loop(w))
        return false;
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
        return complain(w, "become", "the subreaper");
    /* What we may do for the virtual address is nothing for our children. */
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (chdir("/") != 0)
        return complain(w, "change to", "/");
    cgroup_open(&w->cgroup);
    vip_open(&w->vip);
    watchdog_init(&w->watchdog);
    atomic_store(&w->shm->features, harden());
    shm_publish(w);
    uint64_t f = atomic_load(&w->shm->features);
    fence_log("info", "ready", "%s; realtime=%d locked=%d cgroup=%d", o->socket_path,
              (f & FENCE_REALTIME) != 0, (f & FENCE_LOCKED) != 0, w->cgroup.made);
    if (o->ready_fd >= 0) {
        (void)!write(o->ready_fd, "+", 1);
        (void)close(o->ready_fd);
    }
    notify_send("READY=1");
    return true;
}
