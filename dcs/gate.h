/* How many connections a host may begin: a handshake costs the loop some tenths of a millisecond, and
 * anybody may ask for one. Each address (of IPv6: each /64 network) has a budget that fills again; the
 * addresses seen last are remembered. Pure. */
#ifndef REGENT_DCS_GATE_H
#define REGENT_DCS_GATE_H

#include "base/base.h"

enum { GATE_HOSTS_MAX = 256, GATE_BURST = 512, GATE_PER_S = 100 };

struct gate_host {
    uint8_t network[8];
    uint64_t at_ms;   /* of the last look; 0: free */
    uint64_t credits; /* thousandths of a connection, then */
};

struct gate {
    struct gate_host hosts[GATE_HOSTS_MAX];
};

/* address: 16 bytes, IPv4 as IPv6 (::ffff:a.b.c.d). false: one too many. now_ms > 0. */
bool gate_admit(struct gate *g, const uint8_t address[static 16], uint64_t now_ms);

#endif
