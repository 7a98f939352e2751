/* The leases of the state, in memory over the table `lease`: DESIGN.md §3, lease rules 2 to 4.
 * No I/O and no clock; time comes in. Sorted by id, which only grows, so that every member walks
 * them in the same order.
 *
 * Two kinds of fields. Replicated (id, ttl, nonce, n, session): the same on every member at the
 * same index (and keys, which is counted). This member's own (expiry): from its own CLOCK_BOOTTIME, never written anywhere. */
#ifndef REGENT_DCS_STATE_LEASE_H
#define REGENT_DCS_STATE_LEASE_H

#include "base/base.h"

enum { LEASES_MAX = 4096 };

#define LEASE_TTL_MS_MIN ((uint64_t)100)
#define LEASE_TTL_MS_MAX ((uint64_t)365 * 24 * 3600 * 1000)

struct lease {
    uint64_t id;
    uint64_t ttl_ms;
    uint64_t nonce; /* of the holder's present life; a higher one supersedes */
    uint64_t n;     /* highest renewal counted under nonce */
    uint64_t session;
    uint64_t keys;      /* attached; follows from the table kv */
    uint64_t expiry_ms; /* CLOCK_BOOTTIME of this member */
    bool dirty;         /* replicated fields differ from the table */
};

struct lease_table {
    struct lease *v; /* owned */
    size_t n;
    size_t cap;
    size_t n_dirty;
    uint64_t sum; /* of the rows' hashes (dcs/row_hash.h), as they are in memory */
    bool started; /* expiries are set: false between loading and the first look at the clock */
};

void lease_table_close(struct lease_table *t);
void lease_table_clear(struct lease_table *t); /* keeps the memory; not started */
struct lease *lease_find(const struct lease_table *t, uint64_t id); /* NULL: none */
/* id is above every other one. The clock starts at now. */
struct lease *lease_add(struct lease_table *t, const struct lease *l, uint64_t now_ms);
void lease_remove(struct lease_table *t, uint64_t id);
/* A renewal at its apply. False: void, because it is a re-sent or a superseded one; nothing
 * changes then. ttl_ms 0: unchanged. The expiry goes back only when the TTL shrinks. */
bool lease_renew(struct lease_table *t, struct lease *l, const struct lease *renewal,
                 uint64_t held_ms, uint64_t now_ms);
/* After a start or a restored snapshot: every expiry = now + TTL. */
void lease_table_restart(struct lease_table *t, uint64_t now_ms);
uint64_t lease_next_expiry(const struct lease_table *t); /* UINT64_MAX: none */

#endif
