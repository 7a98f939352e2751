/* Inside the fence's client: fence_client.c (orders and state), fence_link.c (the socket),
 * fence_spawn.c (finding and starting the program), fence_watch.c (the second guard). */
#ifndef REGENT_AGENT_FENCE_INTERNAL_H
#define REGENT_AGENT_FENCE_INTERNAL_H

#include "agent/fence.h"
#include "agent/fence/proto.h"
#include "agent/fence/tree.h"

enum { FENCE_MAGIC = 0x66656e63 };

/* Invariants: fd >= 0 exactly while `link` is; shm only then; losing excludes fd >= 0. */
struct fence {
    uint32_t magic;
    uv_loop_t *loop;
    struct fence_ops ops;
    void *arg;
    bool closing;
    unsigned handles; /* open uv handles; the last one's close frees the struct */

    char socket_path[FENCE_PATH_MAX];
    char program[FENCE_PATH_MAX];
    char pg_data_dir[FENCE_PATH_MAX];
    bool spawn;
    uint64_t budget_ms;

    int fd;
    uv_poll_t *link;
    struct fence_shm *shm;
    struct fence_state state;
    bool remembers; /* what is to be in every fence's memory, from fence_remember() */
    uint64_t lease, nonce;

    uv_process_t *process; /* a fence we started */
    uv_poll_t *ready;
    int ready_fd;
    bool spawned; /* the fence of this connection, or the one being started, is ours */
    uint64_t retry_at_ms;

    /* The second guard. */
    uv_timer_t tick;
    uint64_t last_tick_ms;
    unsigned on_time;            /* ticks in a row that came when they should */
    struct proc_stat fence_proc; /* pid 0: unknown */
    struct tree tree;
    pid_t stranger; /* dead child that nobody has reaped yet; 0: none */
    unsigned stranger_ticks;
    bool losing;      /* the fence is gone and we kill what it left */
    bool lost_exited; /* told in the state until the next start */
    bool lost_fenced;

    /* Orders under way. */
    uint64_t starts_wanted; /* a start is ordered until `starts` has come so far */
    bool arm_pending;
    uint64_t extend_pending_ms; /* came while an arm was under way */
};

/* fence_client.c */
void fence_refresh(struct fence *f); /* state from the memory */
void fence_recall(struct fence *f);  /* into the memory, when there is one */
void fence_notify(struct fence *f);  /* refresh, and tell the owner */
void fence_on_refused(struct fence *f, enum fence_type order, enum err code, struct slice text);
void fence_handle_closed(
    uv_handle_t *handle); /* for uv_close: frees heap handles, then the fence */

/* fence_link.c */
bool fence_link_connect(struct fence *f);
void fence_link_close(struct fence *f);
struct fence_link_packet {
    enum fence_type type;
    uint64_t a, b, c;
    struct slice payload;
    int fd; /* 0: none; passed, still the caller's */
};
enum err fence_link_send(struct fence *f, const struct fence_link_packet *p) MUST_CHECK;

/* fence_spawn.c */
enum err fence_spawn_find(struct fence *f, const char *program, struct errmsg *e) MUST_CHECK;
enum err fence_spawn_start(struct fence *f, struct errmsg *e) MUST_CHECK;
void fence_spawn_forget(struct fence *f); /* the wait for it, not the process */

/* fence_watch.c */
void fence_watch_start(struct fence *f);
void fence_watch_welcome(struct fence *f); /* a memory has been mapped */
void fence_watch_lost(
    struct fence *f); /* the link ended: kill what is left, then connect anew */

#endif
