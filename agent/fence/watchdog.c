#include "agent/fence/watchdog.h"

#include <errno.h>
#include <linux/watchdog.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/assert.h"

/* ---- the kernel's device ---- */

static int kernel_set_timeout(int fd, int *seconds)
{
    return ioctl(fd, WDIOC_SETTIMEOUT, seconds) == 0 ? 0 : -errno;
}

static int kernel_run(int fd, bool on)
{
    int flag = on ? WDIOS_ENABLECARD : WDIOS_DISABLECARD;
    return ioctl(fd, WDIOC_SETOPTIONS, &flag) == 0 ? 0 : -errno;
}

static int kernel_feed(int fd)
{
    return ioctl(fd, WDIOC_KEEPALIVE, 0) == 0 ? 0 : -errno;
}

/* A driver that stops only when it is closed wants to read this first. */
static void kernel_close(int fd)
{
    (void)!write(fd, "V", 1);
    (void)close(fd);
}

static const struct watchdog_device kernel = {
    .set_timeout = kernel_set_timeout,
    .run = kernel_run,
    .feed = kernel_feed,
    .close = kernel_close,
};

/* ---- what we make of it ---- */

enum { LAST_MEAL_US = 100 * 1000, BEFORE_US = 1000 };

void watchdog_init(struct watchdog *g)
{
    *g = (struct watchdog){.device = &kernel, .fd = -1};
}

void watchdog_leave(struct watchdog *g)
{
    if (g->fd < 0)
        return;
    if (g->on)
        (void)g->device->run(g->fd, false);
    g->device->close(g->fd);
    g->fd = -1;
    g->on = g->pinned = false;
    g->timeout_us = 0;
}

static void give_up(struct watchdog *g, const char *what, int error)
{
    (void)snprintf(g->trouble, sizeof g->trouble, "%s: %s", what, strerror(-error));
    watchdog_leave(g);
}

void watchdog_take(struct watchdog *g, int fd, bool required, unsigned wanted_s,
                   unsigned longest_s)
{
    ASSERT(wanted_s > 0 && wanted_s <= longest_s);
    g->required = required;
    g->wanted_s = wanted_s;
    g->longest_s = longest_s;
    g->trouble[0] = '\0';
    if (fd >= 0) {
        watchdog_leave(g);
        g->fd = fd;
        g->on = true; /* the kernel started it when it was opened */
    } else if (g->fd < 0) {
        (void)snprintf(g->trouble, sizeof g->trouble, "no device was handed over");
    }
}

/* Setting the time starts counting anew: only when the longest that it may become fits before the deadline. */
static bool settle_timeout(struct watchdog *g, uint64_t now_us, uint64_t left_us)
{
    int seconds = (int)g->wanted_s;
    if (g->timeout_us != 0 && g->timeout_us >= (uint64_t)g->wanted_s * 1000000 &&
        g->timeout_us <= (uint64_t)g->longest_s * 1000000)
        return true;
    if (left_us < (uint64_t)g->longest_s * 1000000)
        return false;
    int rv = g->device->set_timeout(g->fd, &seconds);
    if (rv != 0) {
        give_up(g, "it is no watchdog, or takes no time", rv);
        return false;
    }
    if (seconds < 1 || (unsigned)seconds > g->longest_s) {
        (void)snprintf(g->trouble, sizeof g->trouble,
                       "its time would be %d s, and %u s are the most that this ttl allows",
                       seconds, g->longest_s);
        watchdog_leave(g);
        return false;
    }
    g->timeout_us = (uint64_t)seconds * 1000000;
    g->fed_us = now_us;
    return true;
}

static void feed(struct watchdog *g, uint64_t now_us)
{
    int rv = g->device->feed(g->fd);
    if (rv != 0)
        give_up(g, "it cannot be kept alive", rv);
    g->fed_us = now_us;
}

static bool hungry(const struct watchdog *g, uint64_t now_us)
{
    return now_us - g->fed_us >= g->timeout_us / 4;
}

static void guard(struct watchdog *g, uint64_t now_us, uint64_t left_us)
{
    if (!settle_timeout(g, now_us, left_us) || left_us < g->timeout_us)
        return;
    if (g->on) {
        /* The last time as late as can be: a renewal may come until shortly before the deadline. */
        if (hungry(g, now_us) || left_us < g->timeout_us + LAST_MEAL_US)
            feed(g, now_us);
        return;
    }
    int rv = g->device->run(g->fd, true);
    if (rv == 0)
        rv = g->device->feed(g->fd);
    g->on = true;
    g->fed_us = now_us;
    if (rv != 0)
        give_up(g, "it cannot be started", rv);
}

static void rest(struct watchdog *g, uint64_t now_us)
{
    if (!settle_timeout(g, now_us, UINT64_MAX))
        return;
    if (g->on && !g->pinned && g->device->run(g->fd, false) == 0)
        g->on = false;
    else if (g->on) {
        g->pinned = true;
        if (hungry(g, now_us))
            feed(g, now_us);
    }
}

uint64_t watchdog_tick(struct watchdog *g, enum watchdog_need need, uint64_t now_us,
                       uint64_t left_us)
{
    if (g->fd < 0)
        return UINT64_MAX;
    switch (need) {
    case WATCHDOG_REST:
        rest(g, now_us);
        break;
    case WATCHDOG_GUARD:
        guard(g, now_us, left_us);
        break;
    case WATCHDOG_STARVE:
        break;
    }
    if (g->fd < 0 || !g->on || g->timeout_us == 0)
        return UINT64_MAX;
    uint64_t spare_us = left_us - MIN(left_us, g->timeout_us);
    return need == WATCHDOG_GUARD && spare_us > BEFORE_US
               ? MIN(spare_us - BEFORE_US, g->timeout_us / 4)
               : g->timeout_us / 4;
}
