/* A connection whose local address is taken away hears nothing more: nothing of it can be sent from
 * there. So it is reset before the address goes (NETLINK_SOCK_DIAG, SOCK_DESTROY), whoever's it is: of
 * PostgreSQL, of a proxy on this node, of a process that cannot be killed for now. Its client connects
 * anew at once.
 *
 * Needs CAP_NET_ADMIN and a kernel with CONFIG_INET_DIAG_DESTROY; without them nothing is reset. */
#ifndef REGENT_AGENT_FENCE_VIP_RESET_H
#define REGENT_AGENT_FENCE_VIP_RESET_H

#include "agent/fence/vip.h"

/* 0: this kernel can; else the errno. The first call may load a module, later ones never wait for a disk:
 * so it comes before there is an address. */
int vip_reset_probe(void);
/* Every TCP connection with this local address, as far as until_us (CLOCK_BOOTTIME) allows. */
void vip_reset(const struct vip_address *a, uint64_t until_us);

#endif
