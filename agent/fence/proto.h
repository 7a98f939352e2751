/* What regent-fence and its client share: the messages on the socket and the memory both map.
 *
 * Messages order things and wake; facts are read from the memory. So a daemon that was killed in the
 * middle of anything learns everything from the memory, and an extension of the deadline, the one
 * thing that must never wait in a queue, is a store.
 *
 * The socket is SOCK_SEQPACKET: a message is one packet, a `struct fence_msg` and its payload.
 *
 *   client                             fence
 *   HELLO  payload: pgdata, or empty   WELCOME with the memory's descriptor
 *   START  payload: see below          CHANGED whenever a fact in the memory moved
 *   SIGNAL a: SIGINT|SIGTERM|SIGQUIT   REFUSED a: enum err, b: type of the order, payload: text
 *   KILL
 *   ARM    a: token, b: deadline_ms, c: kill budget in ms
 *   DISARM
 *   WORKER with a socket's descriptor: a fresh worker process serves it
 *   STOP   the fence exits when nothing is left to guard
 *   WATCHDOG with the device's descriptor, or without: the one held goes on. a: 0 none, 1 automatic,
 *          2 required; b: its time in seconds, c: the longest it may become
 *   VIP    payload: interface and addresses "a/bits", each NUL-terminated; empty: none. a: 1 put them on
 *          the interface (needs a deadline and a postmaster), 0 take them off. They also go with PostgreSQL.
 *          b: the end of the lease in ms, for as long as none is armed (a pause); again: later
 *
 * START's payload: log path, `a` words of argv, `b` words of the environment, each NUL-terminated;
 * c: bit 0 = armed_required, bit 1 = the environment is given (else the fence's own). */
#ifndef REGENT_AGENT_FENCE_PROTO_H
#define REGENT_AGENT_FENCE_PROTO_H

#include <stdatomic.h>

#include "base/base.h"

enum {
    FENCE_MSG_MAGIC = 0x52464e31, /* "RFN1" */
    FENCE_SHM_VERSION = 1,
    FENCE_PACKET_MAX = 64 * 1024,
    FENCE_ARGV_MAX = 128,
    FENCE_ENV_MAX = 1024,
    FENCE_WORKERS_MAX = 8,
    FENCE_PATH_MAX = 1024,
    FENCE_BUDGET_MS = 200,   /* the kill budget when none is given */
    FENCE_QUIT_MS = 60,      /* from SIGQUIT to SIGKILL, at most */
    FENCE_HEARTBEAT_MS = 50, /* the fence looks at the deadline at least this often */
};

enum fence_type {
    FENCE_HELLO = 1,
    FENCE_START,
    FENCE_SIGNAL,
    FENCE_KILL,
    FENCE_ARM,
    FENCE_DISARM,
    FENCE_WORKER,
    FENCE_STOP,
    FENCE_VIP,
    FENCE_WATCHDOG,
    FENCE_WELCOME = 101,
    FENCE_CHANGED,
    FENCE_REFUSED,
};

enum { FENCE_START_ARMED = 1, FENCE_START_ENV = 2 };

struct fence_msg {
    uint32_t magic;
    uint32_t type;
    uint64_t a, b, c;
};

/* fence_shm.features */
enum {
    FENCE_REALTIME = 1, /* SCHED_RR was granted */
    FENCE_LOCKED = 2,   /* mlockall was granted */
    FENCE_CGROUP = 4, /* PostgreSQL has a cgroup of its own: killed and frozen at one stroke */
    FENCE_VIP_UP = 8, /* the virtual addresses are on their interface */
    FENCE_WATCHDOG_HELD = 16,
    FENCE_WATCHDOG_ON = 32, /* it counts */
};

/* Of that cgroup; the fence's pid behind it. */
#define FENCE_CGROUP_NAME "regent-postgres-"

typedef _Atomic uint64_t fence_word;

#define FENCE_SHM_MAGIC UINT64_C(0x31657645656e6365)

/* Only the fence writes the first part, only the daemon the second, and the fence reads back nothing
 * of the first. Adding a field at the end keeps the version; any other change raises it. */
struct fence_shm {
    uint64_t magic;
    uint64_t version;
    char boot_id[40]; /* a deadline means nothing in another boot */
    uint64_t fence_pid, fence_start_ticks;
    uint64_t logger_pid;
    fence_word generation; /* odd while the fence writes the group below */
    fence_word features;
    fence_word postmaster_pid, postmaster_start_ticks; /* pid 0: none */
    fence_word processes_left;
    fence_word starts; /* of PostgreSQL, by this fence */
    fence_word exited, exit_status, requested, fenced;
    fence_word armed, token, budget_ms;
    fence_word frozen;
    fence_word challenge; /* counts gaps in the clocks */
    fence_word worker_pid[FENCE_WORKERS_MAX];
    char exe[64];                /* name of the postmaster's program */
    char pgdata[FENCE_PATH_MAX]; /* canonical */
    fence_word heartbeat_ms;     /* outside the group */
    fence_word kill_latency_us;  /* of the last kill: from its first signal to nothing left */
    fence_word swept_ms;         /* when a look last found nothing left after a kill */

    _Alignas(64) fence_word deadline_ms; /* CLOCK_BOOTTIME; 0: none */
    fence_word confirmed;    /* the challenge that a renewal submitted after it has answered */
    fence_word lease, nonce; /* the daemon's, for its next incarnation */
};

#endif
