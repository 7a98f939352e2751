#include "dcs/state_lease.h"

#include "base/assert.h"
#include "base/mem.h"
#include "base/mutant.h"
#include "dcs/row_hash.h"

static uint64_t hash_of(const struct lease *l)
{
    uint64_t h = row_hash_u64(row_hash_begin(ROW_LEASE), l->id);
    h = row_hash_u64(row_hash_u64(h, l->ttl_ms), l->nonce);
    return row_hash_end(row_hash_u64(row_hash_u64(h, l->n), l->session));
}

void lease_table_close(struct lease_table *t)
{
    mem_free(t->v);
    *t = (struct lease_table){0};
}

void lease_table_clear(struct lease_table *t)
{
    t->n = 0;
    t->n_dirty = 0;
    t->sum = 0;
    t->started = false;
}

/* Position of the first lease whose id is not below `id`. */
static size_t position(const struct lease_table *t, uint64_t id)
{
    size_t low = 0, high = t->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (t->v[mid].id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct lease *lease_find(const struct lease_table *t, uint64_t id)
{
    size_t i = position(t, id);
    return i < t->n && t->v[i].id == id ? &t->v[i] : NULL;
}

struct lease *lease_add(struct lease_table *t, const struct lease *l, uint64_t now_ms)
{
    ASSERT(t->n < LEASES_MAX);
    ASSERT(t->n == 0 || t->v[t->n - 1].id < l->id);
    ASSERT(l->ttl_ms <= LEASE_TTL_MS_MAX);
    if (t->n == t->cap) {
        t->cap = MAX(t->cap * 2, (size_t)16);
        t->v = mem_resize(t->v, t->cap * sizeof *t->v);
    }
    struct lease *to = &t->v[t->n++];
    *to = *l;
    to->dirty = false;
    to->expiry_ms = now_ms + l->ttl_ms;
    t->sum += hash_of(to);
    return to;
}

void lease_remove(struct lease_table *t, uint64_t id)
{
    struct lease *l = lease_find(t, id);
    ASSERT(l != NULL);
    t->n_dirty -= l->dirty;
    t->sum -= hash_of(l);
    size_t behind = (size_t)(t->v + t->n - (l + 1));
    memmove(l, l + 1, behind * sizeof *l);
    t->n--;
}

/* Nonces are numbers that each life of the holder chooses higher than the last one's: a lower one
 * speaks for a life that is over. */
static bool moves_on(const struct lease *l, uint64_t nonce, uint64_t n)
{
    return nonce > l->nonce || (nonce == l->nonce && n > l->n) || MUTANT(renewal_goes_back);
}

bool lease_renew(struct lease_table *t, struct lease *l, const struct lease *renewal,
                 uint64_t held_ms, uint64_t now_ms)
{
    ASSERT(l >= t->v && l < t->v + t->n);
    if (!moves_on(l, renewal->nonce, renewal->n))
        return false;
    uint64_t ttl_ms = renewal->ttl_ms != 0 ? renewal->ttl_ms : l->ttl_ms;
    uint64_t since_ms = now_ms - (MUTANT(held_forgotten) ? 0 : MIN(now_ms, held_ms));
    uint64_t expiry_ms = since_ms + ttl_ms;
    /* With the same or a longer TTL a renewal can only help: one that waited longer at the leader
     * than the one before took to arrive here must not shorten what was granted. A shorter TTL
     * binds the holder from its submission, which lies before since_ms (rule 4). */
    if (ttl_ms < l->ttl_ms || expiry_ms > l->expiry_ms)
        l->expiry_ms = expiry_ms;
    t->sum -= hash_of(l);
    l->nonce = renewal->nonce;
    l->n = renewal->n;
    l->ttl_ms = ttl_ms;
    t->sum += hash_of(l);
    t->n_dirty += !l->dirty;
    l->dirty = true;
    return true;
}

void lease_table_restart(struct lease_table *t, uint64_t now_ms)
{
    for (size_t i = 0; i < t->n; i++)
        t->v[i].expiry_ms = MUTANT(restart_keeps_expiry) ? now_ms : now_ms + t->v[i].ttl_ms;
    t->started = true;
}

uint64_t lease_next_expiry(const struct lease_table *t)
{
    uint64_t next = UINT64_MAX;
    for (size_t i = 0; t->started && i < t->n; i++)
        next = MIN(next, t->v[i].expiry_ms);
    return next;
}
