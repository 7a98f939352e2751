/* The virtual address (`vip:`): tells the fence to hold it while this node's PostgreSQL is the primary and
 * the lease holds, and runs the hook for networks where an address is moved by an API. What keeps the address
 * from being in two places is the fence's: it goes with PostgreSQL and with the deadline. Loop thread
 * of the agent. */
#ifndef REGENT_AGENT_VIP_H
#define REGENT_AGENT_VIP_H

#include <uv.h>

#include "agent/core/view.h"
#include "agent/fence.h"
#include "conf/config.h"

struct vip_keeper;

/* NULL when the section is empty. The arguments must outlive it. */
struct vip_keeper *vip_keeper_new(uv_loop_t *loop, const struct config *c, struct fence *fence);
/* NULL is allowed. The address stays with a PostgreSQL that runs on; a hook under way is killed. */
void vip_keeper_stop(struct vip_keeper *k);
/* At every tick. NULL is allowed. */
void vip_keeper_look(struct vip_keeper *k, const struct view *v);
/* Pure: does the address belong here? */
bool vip_wanted(const struct view *v);

#endif
