#include "conf/lease_rule.h"

#include <inttypes.h>

enum { COMMIT_MS = 100 };

uint64_t lease_margin_ms(uint64_t ttl_ms)
{
    return MAX((uint64_t)200, ttl_ms / 10);
}

uint64_t lease_period_ms(uint64_t ttl_ms)
{
    return ttl_ms / 4;
}

enum err lease_rule_check(uint64_t ttl_ms, uint64_t election_ms, struct errmsg *e)
{
    uint64_t gather_ms = ttl_ms / LEASE_GATHER_DIVISOR;
    uint64_t need = lease_period_ms(ttl_ms) + gather_ms + 2 * election_ms + COMMIT_MS;
    uint64_t have = ttl_ms - MIN(ttl_ms, lease_margin_ms(ttl_ms) + LEASE_KILL_BUDGET_MS);
    if (need < have)
        return ERR_OK;
    return err_set(e, ERR_INVALID,
                   "ttl %" PRIu64 " ms is too short for an election timeout of %" PRIu64
                   " ms: renewal %" PRIu64 " + gathering %" PRIu64 " + 2 x election %" PRIu64
                   " + commit %d = %" PRIu64 " must stay below ttl - margin %" PRIu64
                   " - kill budget %d = %" PRIu64 "; raise ttl or lower dcs.election_ms",
                   ttl_ms, election_ms, lease_period_ms(ttl_ms), gather_ms, election_ms,
                   COMMIT_MS, need, lease_margin_ms(ttl_ms), LEASE_KILL_BUDGET_MS, have);
}
