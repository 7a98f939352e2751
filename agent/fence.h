/* regent-fence as the agent sees it: start or adopt it, order PostgreSQL from it, keep its deadline.
 * Loop thread of the agent; callbacks run there. */
#ifndef REGENT_AGENT_FENCE_H
#define REGENT_AGENT_FENCE_H

#include <uv.h>

#include "base/base.h"
#include "base/err.h"

struct fence;

struct fence_state {
    bool connected;
    bool adopted;          /* it was running before this daemon */
    uint64_t postmaster;   /* pid; 0: none */
    bool processes_left;   /* some process of that PostgreSQL still exists */
    bool exited;           /* postmaster has exited since the last start; exit_status is set */
    int exit_status;       /* as waitpid gives it */
    bool requested;        /* the exit was asked for (stop, kill) */
    bool fenced;           /* killed by the deadline */
    bool armed;            /* holds a deadline and has acknowledged it */
    uint64_t token;        /* it was armed for */
    uint64_t deadline_ms;  /* CLOCK_BOOTTIME */
    uint64_t heartbeat_ms; /* its last sign of life */
    /* Carried for the daemon across its restart (opaque to the fence): */
    uint64_t lease, nonce;
    bool frozen;        /* near the deadline or in doubt: PostgreSQL stands still */
    uint64_t challenge; /* raised when the clocks disagreed: see fence_confirm() */
    uint64_t starts;    /* of PostgreSQL by this fence */
    uint64_t kill_budget_ms;
    /* CLOCK_BOOTTIME at which nothing was left after the last kill or exit; 0: none yet */
    uint64_t swept_ms;
    bool realtime, locked, cgroup;   /* what the system granted: for doctor */
    bool vip_up;                     /* the virtual addresses are on their interface */
    char vip_refused[240];           /* why not, as the last order was answered; "" none */
    bool watchdog_held, watchdog_on; /* there is a hardware watchdog; it counts */
    char watchdog_refused[240];      /* why there is none; "" there is, or none is wanted */
    char refused[240]; /* why the last start or arm was refused or failed; "" none */
};

struct fence_options {
    const char *data_dir;    /* fence.sock lives here when rootless */
    const char *socket_path; /* NULL: DATA_DIR/fence.sock */
    const char *program;     /* NULL: found as INTERFACES.md says */
    bool spawn;              /* start it when nobody answers on the socket (rootless) */
    uint64_t kill_budget_ms; /* 0: 200 */
    /* PGDATA, where known: a fresh fence then sees what an older one left; NULL: not */
    const char *pg_data_dir;
};

struct fence_ops {
    /* connected, exited, armed, fenced, ... */
    void (*changed)(void *arg, const struct fence_state *s);
    /* fence died or stalls: PostgreSQL is being killed by us; reconnect follows */
    void (*lost)(void *arg);
};

enum err fence_open(uv_loop_t *loop, const struct fence_options *o, const struct fence_ops *ops,
                    void *arg, struct fence **ret_fence, struct errmsg *e) MUST_CHECK;
/* leave: fence and PostgreSQL go on for adoption; else stops the fence (PostgreSQL must be stopped). */
void fence_close(struct fence *f, bool leave);
const struct fence_state *fence_state(const struct fence *f);

/* argv[0] is the absolute path of `postgres`; env NULL-terminated or NULL (the fence's). armed_required: refused
 * unless a deadline beyond now + kill budget is held (a start that may accept writes). ERR_OK: ordered; what
 * comes of it is told by changed(): `postmaster`, or `exited` with status 127 and the reason in `refused`. */
enum err fence_start_postgres(struct fence *f, const char *const *argv, const char *const *env,
                              const char *log_path, bool armed_required, struct errmsg *e)
    MUST_CHECK;
/* SIGINT (fast), SIGTERM (smart) or SIGQUIT (immediate) to the postmaster; any other signal is refused. */
enum err fence_signal(struct fence *f, int signal_number) MUST_CHECK;
enum err fence_kill(struct fence *f) MUST_CHECK; /* everything, at once */
/* The deadline from now on; acknowledged through `armed` in changed(). Later ones by fence_extend(). */
enum err fence_arm(struct fence *f, uint64_t token, uint64_t deadline_ms) MUST_CHECK;
/* shared memory: no message; never moves it back unless shorter is asked by fence_arm or fence_shorten */
void fence_extend(struct fence *f, uint64_t deadline_ms);
/* The same way: from now on PostgreSQL does not outlive this deadline. false: nothing is known to have changed, since
 * a fence_arm() is under way or the fence is not there; try again. */
bool fence_shorten(struct fence *f, uint64_t deadline_ms) MUST_CHECK;
/* only for a PostgreSQL that is stopped or a standby */
enum err fence_disarm(struct fence *f) MUST_CHECK;
void fence_remember(struct fence *f, uint64_t lease, uint64_t nonce);
/* The clocks disagreed (a paused VM): state.challenge has moved, and unless this comes in time PostgreSQL is
 * killed: within 100 ms, or 1 s where it can be frozen meanwhile. Call it with the challenge seen *before* a
 * renewal was submitted, once that renewal is acknowledged and passed to fence_extend(). */
void fence_confirm(struct fence *f, uint64_t challenge);
/* Addresses ("10.0.0.100/24") that the fence puts on the interface (up) or takes off. They go by themselves with
 * PostgreSQL and with the deadline; while none is armed, at lease_end_ms, which is told anew with every renewal.
 * What comes of it: `vip_up`, or `vip_refused` in changed(). n 0: none. */
enum err fence_vip(struct fence *f, bool up, uint64_t lease_end_ms, const char *interface,
                   const char *const *addresses, size_t n) MUST_CHECK;
/* The hardware watchdog: its open device, or -1: the one that the fence holds goes on; still the caller's. wanted_s is
 * its time, longest_s what a device may make of that; wanted_s 0: none is wanted. What comes of it: `watchdog_held`, or
 * `watchdog_refused` in changed(). */
enum err fence_watchdog(struct fence *f, int fd, bool required, unsigned wanted_s,
                        unsigned longest_s) MUST_CHECK;

/* The worker beside the fence: file operations and tools in PGDATA, one at a time, each a child that can
 * hang without harm. A connected stream socket to it; -1 when the fence is not there. */
int fence_worker_connect(struct fence *f);

#endif
