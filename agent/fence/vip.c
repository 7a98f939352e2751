#include "agent/fence/vip.h"

#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/str.h"

struct vip_message {
    struct nlmsghdr h;
    struct ifaddrmsg a;
    uint8_t attributes[64];
};

void vip_open(struct vip *v)
{
    *v = (struct vip){0};
    v->socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
}

static void attribute(struct vip_message *m, uint16_t type, const void *p, size_t n)
{
    struct rtattr *r = (struct rtattr *)(void *)((uint8_t *)m + NLMSG_ALIGN(m->h.nlmsg_len));
    r->rta_type = type;
    r->rta_len = (uint16_t)RTA_LENGTH(n);
    memcpy(RTA_DATA(r), p, n);
    m->h.nlmsg_len = (uint32_t)(NLMSG_ALIGN(m->h.nlmsg_len) + RTA_LENGTH(n));
}

static enum err build(struct vip *v, unsigned index, const char *text, uint8_t bits)
{
    uint8_t address[16];
    int family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET;
    size_t n = family == AF_INET6 ? 16 : 4;
    if (inet_pton(family, text, address) != 1 || bits > n * 8)
        return ERR_INVALID;
    struct vip_message m = {
        .h = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifaddrmsg)),
              .nlmsg_type = RTM_DELADDR,
              .nlmsg_flags = NLM_F_REQUEST},
        .a = {.ifa_family = (uint8_t)family, .ifa_prefixlen = bits, .ifa_index = index},
    };
    attribute(&m, IFA_LOCAL, address, n);
    _Static_assert(sizeof m <= sizeof v->message, "room for the message");
    memcpy(v->message, &m, sizeof m);
    v->size = m.h.nlmsg_len;
    v->set = true;
    return ERR_OK;
}

enum err vip_set(struct vip *v, const char *interface, const char *address)
{
    v->set = false;
    if (interface[0] == '\0')
        return ERR_OK;
    char text[64];
    uint64_t bits;
    const char *slash = strchr(address, '/');
    if (slash == NULL || str_parse_u64(slash + 1, &bits) != ERR_OK || bits > 128 ||
        str_copy_slice(text, sizeof text, slice_of(address, (size_t)(slash - address))) !=
            ERR_OK)
        return ERR_INVALID;
    unsigned index = if_nametoindex(interface);
    if (index == 0)
        return ERR_NOT_FOUND;
    return build(v, index, text, (uint8_t)bits);
}

void vip_down(struct vip *v)
{
    if (!v->set || v->socket < 0)
        return;
    ASSERT(v->size <= sizeof v->message);
    /* EADDRNOTAVAIL (somebody was faster) and EPERM change nothing in what follows. */
    (void)send(v->socket, v->message, v->size, MSG_DONTWAIT);
    v->set = false;
}
