/* How short a lease may be: the arithmetic that whoever stores a TTL and whoever holds a lease go by. Pure. */
#ifndef REGENT_CONF_LEASE_RULE_H
#define REGENT_CONF_LEASE_RULE_H

#include "base/base.h"
#include "base/err.h"

/* Time that a fence is given for killing PostgreSQL when a deadline passes. */
enum { LEASE_KILL_BUDGET_MS = 200, LEASE_GATHER_DIVISOR = 8 };

uint64_t lease_margin_ms(uint64_t ttl_ms); /* max(200 ms, TTL/10) */
uint64_t lease_period_ms(uint64_t ttl_ms); /* between two renewals: TTL/4 */
/* Lease rule 5: refused when renewal period + gathering + 2 x election + commit >= TTL - margin - kill
 * budget; the message shows the sum. */
enum err lease_rule_check(uint64_t ttl_ms, uint64_t election_ms, struct errmsg *e) MUST_CHECK;

#endif
