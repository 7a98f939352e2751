/* What the neighbours are told: ARP (RFC 5227) and neighbour advertisements (RFC 4861, 4.4). */
#include <arpa/inet.h>
#include <sys/socket.h>

#include "agent/fence/vip.h"
#include "base/assert.h"
#include "base/str.h"

enum {
    ETHER_ARP = 0x0806,
    ETHER_V6 = 0x86dd,
    ETHER_MIN = 60, /* without the checksum */
    ICMPV6 = 58,
    NA_BYTES = 32,
    NA_TYPE = 136,
    NA_OVERRIDE = 0x20,
    HOP_LIMIT = 255,
};

static uint8_t *put(uint8_t *at, const void *p, size_t n)
{
    memcpy(at, p, n);
    return at + n;
}

static uint8_t *put16(uint8_t *at, unsigned value)
{
    *at++ = (uint8_t)(value >> 8);
    *at++ = (uint8_t)value;
    return at;
}

/* Sender and target are the address itself; some hosts heed requests only, some replies only. */
static void arp(const struct vip_address *a, const uint8_t *mac, bool request, uint8_t *at)
{
    static const uint8_t everybody[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    static const uint8_t nobody[6];
    at = put(at, everybody, 6);
    at = put(at, mac, 6);
    at = put16(at, ETHER_ARP);
    at = put16(at, 1); /* Ethernet */
    at = put16(at, 0x0800);
    *at++ = 6;
    *at++ = 4;
    at = put16(at, request ? 1 : 2);
    at = put(at, mac, 6);
    at = put(at, a->bytes, 4);
    at = put(at, request ? nobody : everybody, 6);
    (void)put(at, a->bytes, 4);
}

static unsigned sum16(const uint8_t *p, size_t n)
{
    unsigned sum = 0;
    for (size_t i = 0; i + 1 < n; i += 2)
        sum += (unsigned)p[i] << 8 | p[i + 1];
    return sum;
}

/* Over the pseudo header, too. */
static unsigned checksum(const uint8_t *addresses, const uint8_t *message)
{
    unsigned sum = sum16(addresses, 32) + NA_BYTES + ICMPV6 + sum16(message, NA_BYTES);
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

static size_t advertisement(const struct vip_address *a, const uint8_t *mac, uint8_t *begin)
{
    static const uint8_t all_nodes[16] = {0xff, 0x02, [15] = 1};
    static const uint8_t all_mac[6] = {0x33, 0x33, 0, 0, 0, 1};
    uint8_t *at = put(begin, all_mac, 6);
    at = put(at, mac, 6);
    at = put16(at, ETHER_V6);
    at = put16(at, 0x6000);
    at = put16(at, 0);
    at = put16(at, NA_BYTES);
    *at++ = ICMPV6;
    *at++ = HOP_LIMIT;
    uint8_t *addresses = at;
    at = put(at, a->bytes, 16);
    at = put(at, all_nodes, 16);
    uint8_t *message = at;
    *at++ = NA_TYPE;
    *at++ = 0;
    at = put16(at, 0); /* checksum */
    *at++ = NA_OVERRIDE;
    at = put(at, (const uint8_t[3]){0}, 3);
    at = put(at, a->bytes, 16);
    *at++ = 2; /* target link-layer address */
    *at++ = 1;
    at = put(at, mac, 6);
    (void)put16(message + 2, checksum(addresses, message));
    return (size_t)(at - begin);
}

size_t vip_frame(const struct vip_address *a, const uint8_t mac[static 6], bool request,
                 uint8_t ret[static VIP_FRAME_MAX])
{
    memset(ret, 0, VIP_FRAME_MAX);
    if (a->family == AF_INET6)
        return advertisement(a, mac, ret);
    arp(a, mac, request, ret);
    return ETHER_MIN;
}

enum err vip_parse(const char *text, struct vip_address *ret)
{
    char host[64];
    uint64_t bits;
    const char *slash = strchr(text, '/');
    uint8_t family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET;
    size_t bits_max = family == AF_INET6 ? 128 : 32;
    *ret = (struct vip_address){.family = family};
    if (slash == NULL || str_parse_u64(slash + 1, &bits) != ERR_OK || bits == 0 ||
        bits > bits_max ||
        str_copy_slice(host, sizeof host, slice_of(text, (size_t)(slash - text))) != ERR_OK ||
        inet_pton(family, host, ret->bytes) != 1)
        return ERR_INVALID;
    ret->bits = (uint8_t)bits;
    return ERR_OK;
}
