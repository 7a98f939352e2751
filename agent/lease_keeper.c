#include "agent/lease_keeper.h"

#include <inttypes.h>

#include "base/assert.h"
#include "base/mutant.h"

enum { COMMIT_MS = 100, GATHER_DIVISOR = 8 };

uint64_t keeper_margin_ms(uint64_t ttl_ms)
{
    return MAX((uint64_t)200, ttl_ms / 10);
}

uint64_t keeper_period_ms(uint64_t ttl_ms)
{
    return ttl_ms / 4;
}

enum err keeper_check(uint64_t ttl_ms, uint64_t election_ms, uint64_t kill_budget_ms,
                      struct errmsg *e)
{
    uint64_t need =
        keeper_period_ms(ttl_ms) + ttl_ms / GATHER_DIVISOR + 2 * election_ms + COMMIT_MS;
    uint64_t have = ttl_ms - MIN(ttl_ms, keeper_margin_ms(ttl_ms) + kill_budget_ms);
    if (need < have)
        return ERR_OK;
    return err_set(
        e, ERR_INVALID,
        "ttl %" PRIu64 " ms is too short for an election timeout of %" PRIu64
        " ms: renewal %" PRIu64 " + gathering %" PRIu64 " + 2 x election %" PRIu64
        " + commit %d = %" PRIu64 " must stay below ttl - margin %" PRIu64
        " - kill budget %" PRIu64 " = %" PRIu64 "; raise ttl or lower dcs.election_ms",
        ttl_ms, election_ms, keeper_period_ms(ttl_ms), ttl_ms / GATHER_DIVISOR, election_ms,
        COMMIT_MS, need, keeper_margin_ms(ttl_ms), kill_budget_ms, have);
}

static uint64_t deadline_of(uint64_t submitted_ms, uint64_t ttl_ms)
{
    return submitted_ms + ttl_ms - (MUTANT(no_margin) ? 0 : keeper_margin_ms(ttl_ms));
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
                               .deadline_ms = deadline_of(submitted_ms, ttl_ms),
                               .next_ms = submitted_ms + keeper_period_ms(ttl_ms)};
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
        k->deadline_ms = MIN(k->deadline_ms, deadline_of(now_ms, ttl_ms));
    k->ttl_ms = ttl_ms;
    k->next_ms = now_ms + keeper_period_ms(ttl_ms);
    return k->n;
}

void keeper_align(struct lease_keeper *k, uint64_t now_ms)
{
    uint64_t wait_ms = keeper_period_ms(k->ttl_ms) - k->ttl_ms / GATHER_DIVISOR;
    k->next_ms = MIN(k->next_ms, now_ms + wait_ms);
}

void keeper_acked(struct lease_keeper *k, uint64_t n)
{
    const struct keeper_submission *s = &k->out[n % KEEPER_OUTSTANDING];
    if (k->id == 0 || (!MUTANT(old_answer_counts) && (n <= k->acked_n || s->n != n)))
        /* an old answer, or one whose submission time is no longer known: moves nothing */
        return;
    k->acked_n = n;
    uint64_t deadline_ms = deadline_of(s->at_ms, s->ttl_ms);
    /* A later submission may have asked for a shorter TTL, and may have been applied: it binds. */
    for (size_t i = 0; i < KEEPER_OUTSTANDING; i++)
        if (k->out[i].n > n && k->out[i].ttl_ms < s->ttl_ms)
            deadline_ms = MIN(deadline_ms, deadline_of(k->out[i].at_ms, k->out[i].ttl_ms));
    k->deadline_ms = MAX(k->deadline_ms, deadline_ms);
}
