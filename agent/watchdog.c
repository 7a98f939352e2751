#include "agent/watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "conf/lease_rule.h"

enum { KEEPER_MAGIC = 0x52e70d06, AGAIN_MS = 30000, REFUSAL_MAX = 240 };

struct watchdog_keeper {
    uint32_t magic;
    const struct config *config;
    struct fence *fence;
    bool off, required;
    bool connected, told;
    unsigned told_s; /* 0: told that none is wanted */
    uint64_t again_ms;
    bool was_held;
    int fd; /* handed over, but the fence has not said yet that it holds it; -1: none */
    char complained[REFUSAL_MAX];
};

static unsigned whole_seconds(uint64_t ms)
{
    return (unsigned)MAX(ms / 1000, (uint64_t)1);
}

unsigned watchdog_wanted_s(uint64_t ttl_ms)
{
    return whole_seconds((ttl_ms - MIN(ttl_ms, lease_margin_ms(ttl_ms))) / 2);
}

unsigned watchdog_longest_s(uint64_t ttl_ms)
{
    uint64_t hold_ms = ttl_ms - MIN(ttl_ms, lease_margin_ms(ttl_ms));
    return MAX(whole_seconds(hold_ms / 10 * 7), watchdog_wanted_s(ttl_ms));
}

static const char *remedy(int error)
{
    switch (error) {
    case ENOENT:
        return "; load the driver of the machine's watchdog, or `softdog`";
    case EACCES:
    case EPERM:
        return "; the user of regentd must be able to write it: a rule of udev does that";
    case EBUSY:
        return "; somebody else has it: systemd (RuntimeWatchdogSec=), or the package watchdog";
    default:
        return "";
    }
}

enum err watchdog_check(const struct config *c, struct errmsg *e)
{
    if (strcmp(c->watchdog.mode, "required") != 0 || access(c->watchdog.device, W_OK) == 0)
        return ERR_OK;
    int error = errno;
    return err_set(e, ERR_PRECONDITION, "watchdog.mode is required, but %s: %s%s",
                   c->watchdog.device, strerror(error), remedy(error));
}

static void complain(struct watchdog_keeper *k, const char *text)
{
    if (strcmp(k->complained, text) == 0)
        return;
    str_cut(k->complained, sizeof k->complained, text);
    log_event(k->required ? LOG_ERROR : LOG_INFO, "watchdog",
              KV(KV_STR("device", k->config->watchdog.device)),
              k->required ? "no hardware watchdog: %s" : "without a hardware watchdog: %s",
              text);
}

static void tell_changes(struct watchdog_keeper *k, const struct fence_state *s)
{
    if (s->watchdog_held && !k->was_held) {
        log_event(LOG_INFO, "watchdog",
                  KV(KV_STR("device", k->config->watchdog.device), KV_U64("s", k->told_s)),
                  "the fence has the hardware watchdog");
        k->complained[0] = '\0';
    }
    k->was_held = s->watchdog_held;
    if (s->watchdog_refused[0] != '\0')
        complain(k, s->watchdog_refused);
}

/* Opening it starts it: what the fence does not hold (an older one knows nothing of it) has to be stopped again. */
static void settle(struct watchdog_keeper *k, const struct fence_state *s)
{
    if (k->fd < 0 || (s->connected && !s->watchdog_held && s->watchdog_refused[0] == '\0'))
        return;
    if (!s->connected || !s->watchdog_held)
        (void)!write(k->fd, "V", 1);
    (void)close(k->fd);
    k->fd = -1;
}

static void hand_over(struct watchdog_keeper *k, unsigned wanted_s, unsigned longest_s)
{
    const char *path = k->config->watchdog.device;
    if (!k->off && k->fd < 0 && !fence_state(k->fence)->watchdog_held) {
        k->fd = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK);
        if (k->fd < 0) {
            int error = errno;
            char text[REFUSAL_MAX];
            (void)snprintf(text, sizeof text, "%s%s", strerror(error), remedy(error));
            complain(k, text);
            return;
        }
    }
    if (fence_watchdog(k->fence, k->fd, k->required, wanted_s, longest_s) == ERR_OK) {
        k->told = true;
        k->told_s = wanted_s;
    }
}

struct watchdog_keeper *watchdog_keeper_new(const struct config *c, struct fence *fence)
{
    struct watchdog_keeper *k = mem_alloc(sizeof *k);
    *k = (struct watchdog_keeper){.magic = KEEPER_MAGIC,
                                  .config = c,
                                  .fence = fence,
                                  .fd = -1,
                                  .off = strcmp(c->watchdog.mode, "off") == 0,
                                  .required = strcmp(c->watchdog.mode, "required") == 0};
    return k;
}

void watchdog_keeper_free(struct watchdog_keeper *k)
{
    static const struct fence_state gone;
    if (k != NULL)
        settle(k, &gone);
    mem_free(k);
}

bool watchdog_keeper_look(struct watchdog_keeper *k, uint64_t ttl_ms, uint64_t now_ms)
{
    if (k == NULL)
        return true;
    CHECK_MAGIC(k, KEEPER_MAGIC);
    const struct fence_state *s = fence_state(k->fence);
    unsigned wanted_s = k->off ? 0 : watchdog_wanted_s(ttl_ms);
    if (s->connected != k->connected) {
        k->told = false;
        k->again_ms = 0;
    }
    k->connected = s->connected;
    settle(k, s);
    if (!s->connected)
        return true;
    tell_changes(k, s);
    bool settled = k->told && k->told_s == wanted_s && (k->off || s->watchdog_held);
    bool nothing_to_end = k->off && !s->watchdog_held;
    if (!settled && !nothing_to_end &&
        (now_ms >= k->again_ms || (k->told && k->told_s != wanted_s))) {
        k->again_ms = now_ms + AGAIN_MS;
        hand_over(k, wanted_s, watchdog_longest_s(ttl_ms));
    }
    return !k->required || k->complained[0] == '\0';
}
