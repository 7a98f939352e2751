/* The virtual address goes when PostgreSQL is killed: the daemon, whose duty it is otherwise, may be
 * the one that hangs. One netlink message, built when the address is set, sent when it must go.
 * Needs CAP_NET_ADMIN; without it nothing happens and the daemon or the next owner's ARP must do. */
#ifndef REGENT_AGENT_FENCE_VIP_H
#define REGENT_AGENT_FENCE_VIP_H

#include "base/base.h"
#include "base/err.h"

struct vip {
    bool set;
    int socket; /* NETLINK_ROUTE, -1: none */
    size_t size;
    _Alignas(8) uint8_t message[128];
};

void vip_open(struct vip *v);
/* interface, "a.b.c.d/bits" or "v6/bits"; empty interface: none */
enum err vip_set(struct vip *v, const char *interface, const char *address) MUST_CHECK;
void vip_down(struct vip *v);

#endif
