/* The hardware watchdog (`watchdog:`): opens the device and hands it to the fence, which feeds it
 * (agent/fence/watchdog.h). Loop thread of the agent. */
#ifndef REGENT_AGENT_WATCHDOG_H
#define REGENT_AGENT_WATCHDOG_H

#include "agent/fence.h"
#include "conf/config.h"

struct watchdog_keeper;

/* The time of the watchdog for a TTL, and the longest that a device may make of it: half of the time that a renewal gives,
 * so that it is fed most of the time, and so little more that there is time for feeding at all. Pure. */
unsigned watchdog_wanted_s(uint64_t ttl_ms);
unsigned watchdog_longest_s(uint64_t ttl_ms);

/* ERR_PRECONDITION when it is required and this daemon cannot have it. */
enum err watchdog_check(const struct config *c, struct errmsg *e) MUST_CHECK;
/* The arguments must outlive it. */
struct watchdog_keeper *watchdog_keeper_new(const struct config *c, struct fence *fence);
/* NULL is allowed. The fence keeps the device. */
void watchdog_keeper_free(struct watchdog_keeper *k);
/* At every tick. NULL is allowed. False: it is required, and there is none: this node must not lead on. */
bool watchdog_keeper_look(struct watchdog_keeper *k, uint64_t ttl_ms, uint64_t now_ms);

#endif
