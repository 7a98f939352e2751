#include "agent/fence/vip.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/fence/vip_reset.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/str.h"

enum {
    REFRESH_US = 500000,
    SECOND_US = 1000000,
    LIFETIME_MAX_S = 3600,
    LEAVE_US = 200000, /* before its lifetime ends */
    SLACK_US = 500000, /* the kernel looks at lifetimes now and then, not at the moment */
    MESSAGE_MAX = 256,
    RESET_US = 20000, /* for the connections of all addresses */
};

/* After each: at once, then at these times, for neighbours that lost the one before. */
static const uint64_t pauses_us[VIP_ANNOUNCEMENTS] = {100000,  300000,  1000000,
                                                      3000000, 6000000, 0};

void vip_open(struct vip *v)
{
    *v = (struct vip){.route = -1, .raw = -1};
    v->route = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
}

/* ---- the kernel's table ---- */

/* The answer is there when sendto() returns: the kernel works on it within the call. */
static int ask(const struct vip *v, struct nlmsghdr *h)
{
    _Alignas(8) uint8_t answer[512];
    static uint32_t sequence;
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    h->nlmsg_seq = ++sequence;
    if (v->route < 0 || sendto(v->route, h, h->nlmsg_len, MSG_DONTWAIT,
                               (const struct sockaddr *)&kernel, sizeof kernel) < 0)
        return v->route < 0 ? EBADF : errno;
    ssize_t n;
    while ((n = recv(v->route, answer, sizeof answer, MSG_DONTWAIT)) > 0) {
        const struct nlmsghdr *a = (const struct nlmsghdr *)(const void *)answer;
        if (!mnl_nlmsg_ok(a, (int)n) || a->nlmsg_seq != sequence ||
            a->nlmsg_type != NLMSG_ERROR)
            continue;
        const struct nlmsgerr *e = mnl_nlmsg_get_payload(a);
        return -e->error;
    }
    return EIO;
}

static int change(const struct vip *v, const struct vip_address *a, bool add, uint32_t seconds)
{
    _Alignas(8) uint8_t room[MESSAGE_MAX];
    struct nlmsghdr *h = mnl_nlmsg_put_header(room);
    h->nlmsg_type = add ? RTM_NEWADDR : RTM_DELADDR;
    h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    if (add)
        h->nlmsg_flags |= NLM_F_CREATE | NLM_F_REPLACE;
    struct ifaddrmsg *m = mnl_nlmsg_put_extra_header(h, sizeof *m);
    m->ifa_family = a->family;
    m->ifa_prefixlen = a->bits;
    m->ifa_index = v->index;
    size_t n = a->family == AF_INET6 ? 16 : 4;
    mnl_attr_put(h, IFA_LOCAL, n, a->bytes);
    mnl_attr_put(h, IFA_ADDRESS, n, a->bytes);
    if (add) {
        /* Never the source of a connection of this node's own: it would not survive a move. IPv4 has
         * secondary addresses for that. */
        struct ifa_cacheinfo life = {.ifa_prefered = a->family == AF_INET6 ? 0 : seconds,
                                     .ifa_valid = seconds};
        mnl_attr_put(h, IFA_CACHEINFO, sizeof life, &life);
        /* Nobody else has it by right: no waiting for a duplicate to speak up. */
        if (a->family == AF_INET6)
            mnl_attr_put_u32(h, IFA_FLAGS, IFA_F_NODAD);
    }
    ASSERT(h->nlmsg_len <= sizeof room);
    return ask(v, h);
}

/* ---- the interface ---- */

static enum err look_up(struct vip *v, char *ret_text, size_t size)
{
    struct ifreq r = {0};
    v->index = if_nametoindex(v->interface);
    if (v->index == 0) {
        (void)snprintf(ret_text, size, "there is no interface \"%s\"", v->interface);
        return ERR_NOT_FOUND;
    }
    str_cut(r.ifr_name, sizeof r.ifr_name, v->interface);
    v->ethernet =
        ioctl(v->route, SIOCGIFHWADDR, &r) == 0 && r.ifr_hwaddr.sa_family == ARPHRD_ETHER;
    if (v->ethernet)
        memcpy(v->mac, r.ifr_hwaddr.sa_data, sizeof v->mac);
    return ERR_OK;
}

static enum err parse_all(struct vip *v, const char *const *addresses, size_t n, char *ret_text,
                          size_t size)
{
    for (size_t i = 0; i < n; i++)
        if (i == VIP_MAX || vip_parse(addresses[i], &v->addresses[i]) != ERR_OK) {
            (void)snprintf(ret_text, size,
                           "\"%.60s\" is not an address with bits, or one of "
                           "more than %d",
                           addresses[i], VIP_MAX);
            return ERR_INVALID;
        }
    v->n = n;
    return ERR_OK;
}

enum err vip_set(struct vip *v, const char *interface, const char *const *addresses, size_t n,
                 char *ret_text, size_t size)
{
    struct vip wanted = {.route = v->route, .raw = v->raw};
    enum err rv = ERR_OK;
    if (str_copy(wanted.interface, sizeof wanted.interface, interface) != ERR_OK)
        rv = ERR_NOT_FOUND;
    if (rv == ERR_OK)
        rv = parse_all(&wanted, addresses, n, ret_text, size);
    bool same = rv == ERR_OK && strcmp(wanted.interface, v->interface) == 0 &&
                wanted.n == v->n &&
                memcmp(wanted.addresses, v->addresses, sizeof v->addresses) == 0;
    if (same && n > 0)
        return look_up(v, ret_text, size);
    vip_down(v);
    *v = (struct vip){.route = v->route, .raw = v->raw};
    if (rv != ERR_OK || n == 0)
        return rv;
    if (v->raw < 0)
        wanted.raw = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    *v = wanted;
    return look_up(v, ret_text, size);
}

/* ---- announcements ---- */

static void announce(struct vip *v)
{
    uint8_t frame[VIP_FRAME_MAX];
    struct sockaddr_ll to = {
        .sll_family = AF_PACKET, .sll_ifindex = (int)v->index, .sll_halen = sizeof v->mac};
    if (v->raw < 0 || !v->ethernet)
        return;
    for (size_t i = 0; i < v->n; i++)
        for (int request = 0; request < (v->addresses[i].family == AF_INET6 ? 1 : 2);
             request++) {
            size_t len = vip_frame(&v->addresses[i], v->mac, request == 0, frame);
            to.sll_protocol = (uint16_t)(frame[12] | frame[13] << 8); /* as it stands there */
            (void)sendto(v->raw, frame, len, MSG_DONTWAIT, (const struct sockaddr *)&to,
                         sizeof to);
        }
}

/* ---- up and down ---- */

static void explain(int error, const struct vip *v, char *ret_text, size_t size)
{
    if (error == EPERM || error == EACCES)
        (void)snprintf(ret_text, size,
                       "regent-fence may not change addresses: it needs CAP_NET_ADMIN and "
                       "CAP_NET_RAW (AmbientCapabilities= of its unit)");
    else
        (void)snprintf(ret_text, size, "cannot put the address on %s: %s", v->interface,
                       strerror(error));
}

/* Lifetimes count in seconds. The last moments before the deadline are not worth one: it would be longer. */
static enum err put_on(struct vip *v, uint64_t end_us, char *ret_text, size_t size)
{
    uint64_t now = clock_boot_us();
    uint64_t seconds = (end_us - MIN(end_us, now + SLACK_US)) / SECOND_US;
    ASSERT(v->n <= VIP_MAX);
    if (v->n == 0 || seconds == 0) {
        (void)snprintf(ret_text, size, "%s",
                       v->n == 0 ? "no address is configured" : "the deadline is too near");
        return ERR_PRECONDITION;
    }
    for (size_t i = 0; i < v->n; i++) {
        int error =
            change(v, &v->addresses[i], true, (uint32_t)MIN(seconds, (uint64_t)LIFETIME_MAX_S));
        if (error == 0)
            continue;
        explain(error, v, ret_text, size);
        vip_down(v);
        return err_from_errno(error);
    }
    v->end_us = end_us;
    v->lifetime_us = now + MIN(seconds, (uint64_t)LIFETIME_MAX_S) * SECOND_US;
    return ERR_OK;
}

/* Announces when it is time; microseconds to the next. */
static uint64_t pulse(struct vip *v)
{
    uint64_t now = clock_boot_us();
    if (v->announced >= VIP_ANNOUNCEMENTS)
        return UINT64_MAX;
    if (now >= v->announce_us) {
        announce(v);
        v->announce_us = now + pauses_us[v->announced++];
    }
    return v->announce_us - MIN(now, v->announce_us);
}

enum err vip_up(struct vip *v, uint64_t end_us, char *ret_text, size_t size)
{
    if (v->n > 0 && v->raw < 0) {
        explain(EPERM, v, ret_text, size);
        return ERR_DENIED;
    }
    enum err rv = put_on(v, end_us, ret_text, size);
    if (rv != ERR_OK)
        return rv;
    if (!v->up) {
        v->up = true;
        v->announced = 0;
        v->announce_us = 0;
        (void)pulse(v);
    }
    return ERR_OK;
}

void vip_down(struct vip *v)
{
    uint64_t until_us = clock_boot_us() + RESET_US;
    for (size_t i = 0; i < v->n && v->index != 0; i++) {
        vip_reset(&v->addresses[i], until_us);
        (void)change(v, &v->addresses[i], false, 0); /* not there: somebody was faster */
    }
    v->up = false;
    v->end_us = 0;
    v->lifetime_us = 0;
}

uint64_t vip_tick(struct vip *v, uint64_t end_us)
{
    char ignored[160];
    uint64_t now = clock_boot_us();
    uint64_t moved = MAX(end_us, v->end_us) - MIN(end_us, v->end_us);
    bool ends = now + LEAVE_US >= v->lifetime_us;
    if (!v->up)
        return UINT64_MAX;
    if ((moved >= REFRESH_US || ends) && put_on(v, end_us, ignored, sizeof ignored) != ERR_OK &&
        ends)
        vip_down(v);
    if (!v->up)
        return UINT64_MAX;
    now += LEAVE_US;
    return MIN(pulse(v), v->lifetime_us - MIN(now, v->lifetime_us));
}
