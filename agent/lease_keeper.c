#include "agent/lease_keeper.h"

#include "base/assert.h"
#include "base/mutant.h"
#include "conf/lease_rule.h"

uint64_t keeper_deadline(uint64_t submitted_ms, uint64_t ttl_ms)
{
    return submitted_ms + ttl_ms - (MUTANT(no_margin) ? 0 : lease_margin_ms(ttl_ms));
}

void keeper_granted(struct lease_keeper *k, uint64_t id, uint64_t nonce, uint64_t n,
                    uint64_t ttl_ms, uint64_t submitted_ms)
{
    ASSERT(id != 0 && ttl_ms >= 1000);
    *k = (struct lease_keeper){.id = id,
                               .nonce = nonce,
                               .n = n,
                               .acked_n = n,
                               .ttl_ms = ttl_ms,
                               .deadline_ms = keeper_deadline(submitted_ms, ttl_ms),
                               .next_ms = submitted_ms + lease_period_ms(ttl_ms)};
}

void keeper_gone(struct lease_keeper *k)
{
    uint64_t deadline_ms = k->deadline_ms;
    *k = (struct lease_keeper){.deadline_ms = deadline_ms};
}

bool keeper_due(const struct lease_keeper *k, uint64_t now_ms)
{
    return k->id != 0 && now_ms >= k->next_ms;
}

uint64_t keeper_submit(struct lease_keeper *k, uint64_t ttl_ms, uint64_t now_ms)
{
    ASSERT(k->id != 0);
    k->n++;
    k->out[k->n % KEEPER_OUTSTANDING] = (struct keeper_submission){k->n, now_ms, ttl_ms};
    if (ttl_ms < k->ttl_ms && !MUTANT(shorter_ttl_late))
        k->deadline_ms = MIN(k->deadline_ms, keeper_deadline(now_ms, ttl_ms));
    k->ttl_ms = ttl_ms;
    k->next_ms = now_ms + lease_period_ms(ttl_ms);
    return k->n;
}

void keeper_align(struct lease_keeper *k, uint64_t now_ms)
{
    uint64_t wait_ms = lease_period_ms(k->ttl_ms) - k->ttl_ms / LEASE_GATHER_DIVISOR;
    k->next_ms = MIN(k->next_ms, now_ms + wait_ms);
}

void keeper_acked(struct lease_keeper *k, uint64_t n)
{
    const struct keeper_submission *s = &k->out[n % KEEPER_OUTSTANDING];
    if (k->id == 0 || (!MUTANT(old_answer_counts) && (n <= k->acked_n || s->n != n)))
        /* an old answer, or one whose submission time is no longer known: moves nothing */
        return;
    k->acked_n = n;
    uint64_t deadline_ms = keeper_deadline(s->at_ms, s->ttl_ms);
    /* A later submission may have asked for a shorter TTL, and may have been applied: it binds. */
    for (size_t i = 0; i < KEEPER_OUTSTANDING; i++)
        if (k->out[i].n > n && k->out[i].ttl_ms < s->ttl_ms)
            deadline_ms = MIN(deadline_ms, keeper_deadline(k->out[i].at_ms, k->out[i].ttl_ms));
    k->deadline_ms = MAX(k->deadline_ms, deadline_ms);
}
