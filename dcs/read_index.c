#include "dcs/read_index.h"

#include "base/assert.h"
#include "base/mutant.h"

void read_index_begin(struct read_index *r, uint64_t self, uint64_t term)
{
    uint64_t round = r->round;
    memset(r, 0, sizeof *r);
    r->self = self;
    r->term = term;
    r->round = round;
    r->confirmed = round;
    r->ticket = round;
}

uint64_t read_index_ask(struct read_index *r)
{
    ASSERT(r->ticket <= r->round + 1);
    r->ticket = r->round + 1;
    return r->ticket;
}

bool read_index_due(const struct read_index *r, uint64_t now_ms, uint64_t resend_ms)
{
    if (r->ticket <= r->confirmed) {
        return false;
    }
    bool under_way = r->confirmed < r->round;
    return !under_way || now_ms >= r->started_ms + resend_ms;
}

static uint64_t agreed_before(const struct read_index *old, uint64_t id)
{
    for (size_t i = 0; i < old->n; i++) {
        if (old->voters[i].id == id) {
            return old->voters[i].agreed;
        }
    }
    return 0;
}

/* The newest round that a majority of the voters has agreed to. */
static void count(struct read_index *r)
{
    for (size_t i = 0; i < r->n; i++) {
        uint64_t round = r->voters[i].agreed;
        size_t yes = 0;
        for (size_t k = 0; k < r->n; k++) {
            yes += r->voters[k].agreed >= round;
        }
        if ((yes > r->n / 2 || MUTANT(read_without_quorum)) && round > r->confirmed) {
            r->confirmed = round;
        }
    }
    ASSERT(r->confirmed <= r->round);
}

uint64_t read_index_start(struct read_index *r, const uint64_t *voters, size_t n,
                          uint64_t now_ms)
{
    ASSERT(n <= READ_INDEX_VOTERS_MAX);
    struct read_index old = *r;
    r->round++;
    r->started_ms = now_ms;
    r->n = n;
    for (size_t i = 0; i < n; i++) {
        r->voters[i].id = voters[i];
        r->voters[i].agreed = voters[i] == r->self ? r->round : agreed_before(&old, voters[i]);
    }
    count(r);
    return r->round;
}

void read_index_answer(struct read_index *r, uint64_t from, uint64_t term, uint64_t round,
                       bool yes)
{
    if ((!yes && !MUTANT(read_counts_refusal)) || term != r->term || round > r->round) {
        return;
    }
    for (size_t i = 0; i < r->n; i++) {
        if (r->voters[i].id == from && r->voters[i].agreed < round) {
            r->voters[i].agreed = round;
        }
    }
    count(r);
}
