#include "dcs/gate.h"

#include "base/assert.h"

#define FULL ((uint64_t)GATE_BURST * 1000)

/* IPv4 hosts are told apart by their address, IPv6 ones by the network they may choose addresses of. */
static void network_of(const uint8_t address[static 16], uint8_t ret[static 8])
{
    static const uint8_t v4[12] = {[10] = 0xff, [11] = 0xff};
    bool is_v4 = memcmp(address, v4, sizeof v4) == 0;
    memset(ret, 0, 8);
    memcpy(ret, is_v4 ? address + 12 : address, is_v4 ? 4 : 8);
    if (is_v4)
        /* no IPv6 network begins so: its first bytes are those of the IPv4 address */
        ret[7] = 4;
}

static struct gate_host *find(struct gate *g, const uint8_t network[static 8])
{
    struct gate_host *oldest = &g->hosts[0];
    for (size_t i = 0; i < GATE_HOSTS_MAX; i++) {
        struct gate_host *h = &g->hosts[i];
        if (h->at_ms != 0 && memcmp(h->network, network, sizeof h->network) == 0)
            return h;
        oldest = h->at_ms < oldest->at_ms ? h : oldest;
    }
    *oldest = (struct gate_host){.credits = FULL};
    memcpy(oldest->network, network, sizeof oldest->network);
    return oldest;
}

bool gate_admit(struct gate *g, const uint8_t address[static 16], uint64_t now_ms)
{
    uint8_t network[8];
    ASSERT(now_ms > 0);
    network_of(address, network);
    struct gate_host *h = find(g, network);
    uint64_t since_ms = h->at_ms == 0 ? 0 : now_ms - MIN(now_ms, h->at_ms);
    h->credits = MIN(FULL, h->credits + MIN(since_ms, FULL) * GATE_PER_S);
    h->at_ms = now_ms;
    if (h->credits < 1000)
        return false;
    h->credits -= 1000;
    return true;
}
