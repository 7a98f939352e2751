/* Virtual addresses, bound to the deadline: the fence puts them on the interface when the daemon asks
 * and PostgreSQL is armed, and takes them away whenever PostgreSQL goes. Each address has a lifetime
 * in the kernel that ends with the deadline, so that it goes even when fence and daemon are dead.
 *
 * Neighbours learn of it by gratuitous ARP and unsolicited neighbour advertisements. Needs
 * CAP_NET_ADMIN and CAP_NET_RAW. Messages are built with libmnl in memory that is there from the
 * start; the kernel acts on them within the call. */
#ifndef REGENT_AGENT_FENCE_VIP_H
#define REGENT_AGENT_FENCE_VIP_H

#include <net/if.h>

#include "base/base.h"
#include "base/err.h"

enum { VIP_MAX = 4, VIP_ANNOUNCEMENTS = 6 };

struct vip_address {
    uint8_t family, bits;
    uint8_t bytes[16];
};

struct vip {
    int route, raw; /* NETLINK_ROUTE, AF_PACKET; -1: none */
    char interface[IF_NAMESIZE];
    struct vip_address addresses[VIP_MAX];
    size_t n; /* 0: none is configured */
    bool up;
    unsigned index;
    bool ethernet;
    uint8_t mac[6];
    uint64_t end_us;      /* CLOCK_BOOTTIME; until then at the latest */
    uint64_t lifetime_us; /* as the kernel has it, in whole seconds: somewhat earlier */
    uint64_t announce_us;
    unsigned announced;
};

void vip_open(struct vip *v);
/* interface, and "a.b.c.d/bits" or "v6/bits", up to VIP_MAX; n 0: none. What was up goes first. On an
 * error ret_text says what to do. */
enum err vip_set(struct vip *v, const char *interface, const char *const *addresses, size_t n,
                 char *ret_text, size_t size) MUST_CHECK;
/* On the interface until end_us at the latest; again: later. Announces itself from then on. */
enum err vip_up(struct vip *v, uint64_t end_us, char *ret_text, size_t size) MUST_CHECK;
/* Off it, also when somebody else has put it there. First its connections are reset (vip_reset.h), which
 * takes 20 ms at most. */
void vip_down(struct vip *v);
/* Keeps the lifetime and the announcements going while up; takes it down shortly before the kernel would,
 * which tells no client. Microseconds until it wants to be called. */
uint64_t vip_tick(struct vip *v, uint64_t end_us);

/* Pure, for the tests: one announcement as an Ethernet frame; its length. */
enum { VIP_FRAME_MAX = 96 };
size_t vip_frame(const struct vip_address *a, const uint8_t mac[static 6], bool request,
                 uint8_t ret[static VIP_FRAME_MAX]);
enum err vip_parse(const char *text, struct vip_address *ret) MUST_CHECK;

#endif
