/* regent-fence from inside: one struct, one loop. Everything is set up once; afterwards nothing is
 * allocated, no file is opened that a hung disk could hold, and no write can block. */
#ifndef REGENT_AGENT_FENCE_WARDEN_H
#define REGENT_AGENT_FENCE_WARDEN_H

#include <sys/types.h>

#include "agent/fence/cgroup.h"
#include "agent/fence/guard.h"
#include "agent/fence/proto.h"
#include "agent/fence/tree.h"
#include "agent/fence/vip.h"
#include "agent/fence/watchdog.h"
#include "base/base.h"
#include "base/err.h"

enum { WARDEN_CLIENTS_MAX = 8 };

/* What an epoll event is about. */
enum warden_tag {
    WARDEN_LISTENER,
    WARDEN_TIMER,
    WARDEN_SIGNALS,
    WARDEN_START_PIPE,
    WARDEN_CLIENT, /* + index */
};

/* NONE -> QUIT -> SWEEP -> NONE, or NONE -> SWEEP -> NONE. */
enum kill_phase { KILL_NONE, KILL_QUIT, KILL_SWEEP };

struct warden_options {
    char socket_path[FENCE_PATH_MAX];
    bool spawned; /* by regentd: SIGTERM is ignored while PostgreSQL runs, idle fences end */
    uint64_t idle_exit_ms; /* after the last client left with nothing to guard */
    uid_t peer_uid;        /* may connect, besides root and ourselves; our own: nobody else */
    int ready_fd;          /* told when the socket listens; -1: nobody */
};

struct warden {
    struct warden_options options;
    int epoll, listener, timer, signals;
    int client[WARDEN_CLIENTS_MAX]; /* -1: free */
    struct fence_shm *shm;
    int shm_fd;
    pid_t self, logger;
    pid_t worker[FENCE_WORKERS_MAX]; /* 0: free */

    pid_t postmaster;  /* 0: none; ours until we reap it, so its pid cannot be another's */
    int start_pipe;    /* -1, or open until the child's exec */
    bool start_failed; /* it never became a postmaster: its end is no reason to sweep */
    bool pgdata_known; /* tree.pgdata is this postmaster's, not an earlier one's */
    bool leftovers;    /* processes of that PostgreSQL without its postmaster */
    struct tree tree;
    struct cgroup cgroup;
    struct guard guard;
    uint64_t token;

    enum kill_phase kill;
    uint64_t kill_started_us, sweep_at_us, sweep_next_us;
    bool dirty;    /* facts moved: publish and tell the clients */
    bool stopping; /* exit when nothing is left */
    uint64_t idle_since_us;
    struct vip vip;
    bool vip_leaves; /* at the end of this tick, behind the signals */
    /* while nothing is armed (a pause): the lease's, as the daemon told it last */
    uint64_t vip_end_us;
    bool resets_probed; /* vip_reset_probe() */
    struct watchdog watchdog;
};

/* warden_setup.c: once, before the loop; on failure says why and returns false. */
bool warden_setup(struct warden *w, const struct warden_options *o);
/* warden_loop.c: until it is told to end; the exit status. */
int warden_run(struct warden *w);
uint64_t warden_raw_us(void);
uint64_t warden_vip_end_us(const struct warden *w); /* until when the address may stay */

/* warden_conn.c */
void conn_accept(struct warden *w);
void conn_read(struct warden *w, size_t index);
void conn_broadcast(struct warden *w);
void conn_refuse(struct warden *w, uint32_t type, enum err code, const char *text);
bool conn_any(const struct warden *w);

/* warden_start.c: the packet's payload is valid until the call returns. */
void postmaster_start(struct warden *w, const struct fence_msg *m, char *payload, size_t size);
void postmaster_started(struct warden *w); /* the start pipe became readable */
/* warden_child.c: the rest of the child's life up to exec; never returns. */
struct child_order {
    char *const *argv;
    char *const *env;
    const char *log_path;
    int report_fd;
};
struct child_report {
    enum err code;
    char text[240];
};
NORETURN void child_run(struct warden *w, const struct child_order *o);
/* What the unit grants the fence alone: capabilities, real-time priority, safety from the OOM killer. */
void child_drop_privileges(void);
/* warden_locks.c: in the child; postmaster.pid and the socket's lock file of a postmaster that is dead. */
void locks_remove_stale(const char *pgdata);

/* warden_kill.c */
void kill_begin(struct warden *w, uint64_t quit_us, bool requested, bool fenced);
/* One step; returns when it wants the next, in microseconds from now (UINT64_MAX: not at all). */
uint64_t kill_step(struct warden *w);
void reap(struct warden *w);
void look_for_leftovers(struct warden *w);

/* warden_shm.c */
void shm_publish(struct warden *w);

/* warden_worker.c: takes the descriptor. */
void worker_spawn(struct warden *w, int fd);

/* fence_log.c: to a pipe that never blocks; a logger process writes it out. */
void fence_log(const char *level, const char *event, const char *fmt, ...) PRINTF(3, 4);

#endif
