#include "agent/rest_count.h"

#include "base/assert.h"
#include "base/str.h"

const uint64_t count_bounds_ms[COUNT_BUCKETS] = {1, 5, 25, 100, 500, 1000, 2500, 10000, 60000};

void count_time(struct rest_histogram *h, uint64_t ms)
{
    h->n++;
    h->sum_ms += ms;
    for (size_t i = 0; i < COUNT_BUCKETS; i++)
        if (ms <= count_bounds_ms[i]) {
            h->in[i]++;
            return;
        }
}

const char *count_reason_name(enum count_reason r)
{
    switch (r) {
    case COUNT_FAILOVER:
        return "failover";
    case COUNT_SWITCHOVER:
        return "switchover";
    case COUNT_RESTART:
        return "restart";
    case COUNT_REASONS:
        break;
    }
    UNREACHABLE();
}

static void count_demotion(struct rest_counts *c, const struct view *v, const char *rule)
{
    bool leads = view_is_leader(v) && view_lease_valid(v);
    bool lost = c->led && !leads;
    c->led = leads;
    for (size_t i = 0; lost && i < COUNT_RULES; i++) {
        bool is_free = c->demotions[i].n == 0;
        if (i + 1 == COUNT_RULES)
            rule = "other";
        if (!is_free && strcmp(c->demotions[i].rule, rule) != 0)
            continue;
        str_cut(c->demotions[i].rule, sizeof c->demotions[i].rule, rule);
        c->demotions[i].n++;
        return;
    }
}

/* A hand-over tells where the old leader stopped; an acquisition does not. */
static enum count_reason reason_of(const struct rest_counts *c, const struct leader_rec *now)
{
    if (strcmp(c->leader, now->name) == 0)
        return COUNT_RESTART;
    return now->shutdown_lsn != 0 ? COUNT_SWITCHOVER : COUNT_FAILOVER;
}

static void note_leader(struct rest_counts *c, const struct leader_rec *now)
{
    if (c->token != 0 && now->token > c->token) {
        c->reason = reason_of(c, now);
        c->changed = true;
        c->failovers[c->reason]++;
    }
    if (now->token > c->token) {
        c->token = now->token;
        str_cut(c->leader, sizeof c->leader, now->name);
    }
}

void count_view(struct rest_counts *c, const struct view *v, const char *rule)
{
    count_demotion(c, v, rule);
    if (!v->dcs_ready)
        return; /* what the mirror shows may be gone */
    if (v->has_leader)
        note_leader(c, &v->leader);
    bool runs = v->has_leader && strcmp(v->leader.state, "running") == 0;
    if (!runs) {
        if (c->broken_ms == 0 && c->token != 0)
            c->broken_ms = v->now_ms;
        return;
    }
    if (c->changed && c->broken_ms != 0)
        count_time(&c->outage[c->reason], v->now_ms - MIN(v->now_ms, c->broken_ms));
    c->changed = false;
    c->broken_ms = 0;
}
