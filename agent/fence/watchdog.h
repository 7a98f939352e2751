/* The hardware watchdog: resets the machine when even the fence stands still while PostgreSQL runs on (frozen with the
 * daemon, starved, a kernel that hangs). It counts while the fence is armed, and is fed only while its whole time fits
 * before the deadline: so whatever stands still, and whenever, the machine is reset at the deadline at the latest. When
 * PostgreSQL is gone before, or the fence is disarmed, it is stopped.
 *
 * The device is opened by regentd, so that the user of PostgreSQL need not be able to, and passed on. Linux watchdog API:
 * Documentation/watchdog/watchdog-api.rst. */
#ifndef REGENT_AGENT_FENCE_WATCHDOG_H
#define REGENT_AGENT_FENCE_WATCHDOG_H

#include "base/base.h"

enum { WATCHDOG_TEXT_MAX = 160 };

/* What the kernel's driver does; another in tests. 0, or a negative errno. */
struct watchdog_device {
    int (*set_timeout)(int fd, int *seconds); /* what it has become; starts counting anew */
    int (*run)(int fd, bool on);
    int (*feed)(int fd);
    void (*close)(int fd); /* stops it too, where it can be stopped */
};

/* Invariant: without a device (fd -1) nothing is on or pinned. */
struct watchdog {
    const struct watchdog_device *device;
    int fd;
    bool required;
    bool on;     /* it counts */
    bool pinned; /* it cannot be stopped ("nowayout"): it is fed also when nothing is guarded */
    uint64_t timeout_us; /* as the device has it; 0: not asked yet */
    unsigned wanted_s, longest_s;
    uint64_t fed_us;
    char trouble[WATCHDOG_TEXT_MAX]; /* why there is none; "" there is one, or none is wanted */
};

/* What is at stake. */
enum watchdog_need {
    WATCHDOG_REST, /* nothing that may write */
    WATCHDOG_GUARD,
    WATCHDOG_STARVE, /* the deadline is in doubt, or PostgreSQL is being killed: no more food */
};

void watchdog_init(struct watchdog *g);
/* An open device (owned from here on), or -1: the one that is held goes on with another time. */
void watchdog_take(struct watchdog *g, int fd, bool required, unsigned wanted_s,
                   unsigned longest_s);
/* Stops and closes it. */
void watchdog_leave(struct watchdog *g);
/* At every look. left_us: to the deadline, by the pessimistic clock. Microseconds until it wants to be called. */
uint64_t watchdog_tick(struct watchdog *g, enum watchdog_need need, uint64_t now_us,
                       uint64_t left_us);

#endif
