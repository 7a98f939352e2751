/* Lease renewals on the Raft leader: gathered for at most TTL/8 (and a second), then put into one entry, so that
 * an idle cluster writes little (DESIGN.md §3, lease rule 1). A renewal that waited says so (`held_ms`),
 * because every member counts the TTL from the arrival here, not from the commit.
 *
 * Order (lease rule 3): whatever renewal has been received is proposed before any expiry, in the same
 * entry at the latest; so renewals are taken out first, always. Pure: no I/O, no clock. */
#ifndef REGENT_DCS_RENEW_H
#define REGENT_DCS_RENEW_H

#include "dcs/list.h"
#include "proto/messages.h"

enum {
    RENEW_MAX = 4096,
    RENEW_TTL_UNKNOWN_MS = 2000,
    RENEW_FRACTION = 8,
    /* a long TTL: the answer must come before the request's deadline */
    RENEW_GATHER_MAX_MS = 1000
};

/* Embedded by whoever waits for the answer. */
struct renew_item {
    struct list link;
    struct lease_renew renew; /* held_ms: of the nodes before this one */
    uint64_t arrived_ms;      /* at this node */
};

struct renew {
    struct list items;
    size_t n;
    uint64_t due_ms;       /* UINT64_MAX: nothing waits */
    uint64_t expire_index; /* entry of the last proposed expiry, 0: none under way */
};

void renew_init(struct renew *r);
/* ttl_ms: of the lease, for one that leaves it unchanged; 0: not known. false: full. */
bool renew_add(struct renew *r, struct renew_item *item, uint64_t ttl_ms, uint64_t now_ms);
bool renew_due(const struct renew *r, uint64_t now_ms);
/* The next one; NULL when none is left. */
struct renew_item *renew_take(struct renew *r);
/* For how long it has waited in all. */
uint64_t renew_held_ms(const struct renew_item *item, uint64_t now_ms);
/* Its owner gives up. */
void renew_forget(struct renew *r, struct renew_item *item);

/* May leases that ran out be proposed now? Only when what was applied includes everything that earlier
 * leaders committed, no renewal waits and no earlier proposal is under way. */
bool renew_may_expire(const struct renew *r, uint64_t applied, uint64_t term_start);
void renew_expire_proposed(struct renew *r, uint64_t index);
void renew_applied(struct renew *r, uint64_t index);
/* Leadership was lost: proposals are no longer ours to wait for. Items stay, their owners decide. */
void renew_reset(struct renew *r);

#endif
