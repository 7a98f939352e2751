#include "agent/fence/vip_reset.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"

/* linux/sock_diag.h has it since 4.5; its number is the kernel's interface. */
#ifndef SOCK_DESTROY
#define SOCK_DESTROY 21
#endif

enum { ASK_MAX = 256, PAGE_MAX = 16384 };

/* Those with a peer that may wait; a listener has none. */
static const uint32_t states = 1U << TCP_ESTABLISHED | 1U << TCP_SYN_SENT | 1U << TCP_SYN_RECV |
                               1U << TCP_FIN_WAIT1 | 1U << TCP_FIN_WAIT2 |
                               1U << TCP_CLOSE_WAIT | 1U << TCP_LAST_ACK | 1U << TCP_CLOSING;

static int open_diag(void)
{
    return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG);
}

static struct nlmsghdr *put_request(void *room, uint16_t type, uint16_t flags, uint8_t family,
                                    const struct inet_diag_sockid *id)
{
    struct nlmsghdr *h = mnl_nlmsg_put_header(room);
    h->nlmsg_type = type;
    h->nlmsg_flags = NLM_F_REQUEST | flags;
    struct inet_diag_req_v2 *r = mnl_nlmsg_put_extra_header(h, sizeof *r);
    r->sdiag_family = family;
    r->sdiag_protocol = IPPROTO_TCP;
    r->idiag_states = states;
    if (id != NULL)
        r->id = *id;
    return h;
}

static bool tell(int fd, const struct nlmsghdr *h)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    ASSERT(h->nlmsg_len <= ASK_MAX);
    return sendto(fd, h, h->nlmsg_len, MSG_DONTWAIT, (const struct sockaddr *)&kernel,
                  sizeof kernel) >= 0;
}

/* The errno of the one request before. */
static int answer(int fd)
{
    _Alignas(8) uint8_t room[512];
    ssize_t n = recv(fd, room, sizeof room, MSG_DONTWAIT);
    const struct nlmsghdr *h = (const struct nlmsghdr *)(const void *)room;
    if (n <= 0 || !mnl_nlmsg_ok(h, (int)n) || h->nlmsg_type != NLMSG_ERROR)
        return EIO;
    const struct nlmsgerr *e = mnl_nlmsg_get_payload(h);
    return -e->error;
}

static int destroy(int fd, uint8_t family, const struct inet_diag_sockid *id)
{
    _Alignas(8) uint8_t room[ASK_MAX];
    return tell(fd, put_request(room, SOCK_DESTROY, NLM_F_ACK, family, id)) ? answer(fd)
                                                                            : errno;
}

int vip_reset_probe(void)
{
    static const struct inet_diag_sockid nobody = {
        .idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}};
    int fd = open_diag();
    if (fd < 0)
        return errno;
    int error = destroy(fd, AF_INET, &nobody);
    (void)close(fd);
    return error == ENOENT ? 0 : error; /* it has looked for one */
}

/* The kernel's filter: one condition, "the local address is this one". An IPv4 address also matches the
 * mapped one of a socket of AF_INET6. */
static bool ask_for(int fd, uint8_t family, const struct vip_address *a)
{
    _Alignas(8) uint8_t room[ASK_MAX], filter[64] = {0};
    size_t bytes = a->family == AF_INET6 ? 16 : 4;
    uint8_t length =
        (uint8_t)(sizeof(struct inet_diag_bc_op) + sizeof(struct inet_diag_hostcond) + bytes);
    struct inet_diag_bc_op op = {
        .code = INET_DIAG_BC_S_COND, .yes = length, .no = (uint16_t)(length + 4)};
    struct inet_diag_hostcond where = {
        .family = a->family, .prefix_len = (uint8_t)(8 * bytes), .port = -1};
    memcpy(filter, &op, sizeof op);
    memcpy(filter + sizeof op, &where, sizeof where);
    memcpy(filter + sizeof op + sizeof where, a->bytes, bytes);
    struct nlmsghdr *h = put_request(room, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, family, NULL);
    mnl_attr_put(h, INET_DIAG_REQ_BYTECODE, length, filter);
    return tell(fd, h);
}

/* The next page of the list is made within recv(): it is there, or it is the end. */
static void reset_family(uint8_t family, const struct vip_address *a, uint64_t until_us)
{
    static _Alignas(8) uint8_t page[PAGE_MAX];
    int list = open_diag(), act = open_diag();
    bool more = list >= 0 && act >= 0 && ask_for(list, family, a);
    while (more) {
        ssize_t got = recv(list, page, sizeof page, MSG_DONTWAIT);
        int n = got > 0 ? (int)got : 0;
        const struct nlmsghdr *h = (const struct nlmsghdr *)(const void *)page;
        more = mnl_nlmsg_ok(h, n);
        for (; more && mnl_nlmsg_ok(h, n); h = mnl_nlmsg_next(h, &n)) {
            more = h->nlmsg_type == SOCK_DIAG_BY_FAMILY && clock_boot_us() < until_us;
            const struct inet_diag_msg *m = mnl_nlmsg_get_payload(h);
            if (more)
                (void)destroy(act, family, &m->id); /* gone already: as well */
        }
    }
    if (list >= 0)
        (void)close(list);
    if (act >= 0)
        (void)close(act);
}

void vip_reset(const struct vip_address *a, uint64_t until_us)
{
    ASSERT(a->family == AF_INET || a->family == AF_INET6);
    reset_family(a->family, a, until_us);
    if (a->family == AF_INET)
        reset_family(AF_INET6, a, until_us);
}
