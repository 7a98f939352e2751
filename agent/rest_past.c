#include "agent/rest_past.h"

#include "base/assert.h"
#include "base/str.h"

static struct past_member *member_of(struct rest_past *p, const char *name)
{
    for (size_t i = 0; i < p->members_n; i++)
        if (strcmp(p->members[i].name, name) == 0)
            return &p->members[i];
    if (p->members_n == VIEW_MEMBERS)
        return NULL;
    struct past_member *m = &p->members[p->members_n++];
    str_cut(m->name, sizeof m->name, name);
    for (size_t i = 0; i < PAST_SAMPLES; i++)
        m->lag_bytes[i] = PAST_UNKNOWN;
    return m;
}

/* Who has not been there for as long as is remembered leaves. */
static void forget(struct rest_past *p)
{
    size_t kept = 0;
    for (size_t i = 0; i < p->members_n; i++) {
        bool seen = false;
        for (size_t k = 0; k < PAST_SAMPLES && !seen; k++)
            seen = p->members[i].lag_bytes[k] != PAST_UNKNOWN;
        if (seen && kept++ != i)
            p->members[kept - 1] = p->members[i];
    }
    p->members_n = kept;
}

static void sample(struct rest_past *p, const struct view *v, uint64_t leader_lsn)
{
    for (size_t i = 0; i < p->members_n; i++)
        p->members[i].lag_bytes[p->next] = PAST_UNKNOWN;
    for (size_t i = 0; i < v->members_n; i++) {
        struct past_member *m = member_of(p, v->members[i].name);
        bool leads = v->has_leader && strcmp(v->leader.name, v->members[i].name) == 0;
        if (m != NULL)
            m->lag_bytes[p->next] = leads ? 0 : leader_lsn - MIN(leader_lsn, v->members[i].lsn);
    }
    p->next = (p->next + 1) % PAST_SAMPLES;
    p->samples_n = MIN(p->samples_n + 1, (size_t)PAST_SAMPLES);
    forget(p);
}

/* That it waits for what it has begun is no decision. */
static bool is_waiting(const char *rule)
{
    return rule[0] == '\0' || strcmp(rule, "busy") == 0 || strcmp(rule, "txn") == 0;
}

static void decide(struct rest_past *p, uint64_t wall_ms, const char *rule, const char *reason)
{
    if (is_waiting(rule) || (p->decisions_n > 0 && strcmp(p->decisions[0].rule, rule) == 0))
        return;
    p->decisions_n = MIN(p->decisions_n + 1, (size_t)PAST_DECISIONS);
    memmove(&p->decisions[1], &p->decisions[0], (p->decisions_n - 1) * sizeof p->decisions[0]);
    struct past_decision *d = &p->decisions[0];
    d->wall_ms = wall_ms;
    str_cut(d->rule, sizeof d->rule, rule);
    str_cut(d->reason, sizeof d->reason, reason);
}

void past_note(struct rest_past *p, const struct view *v, uint64_t leader_lsn, uint64_t wall_ms,
               const char *rule, const char *reason)
{
    decide(p, wall_ms, rule, reason);
    if (p->samples_n > 0 && v->now_ms < p->sampled_ms + PAST_EVERY_MS)
        return;
    p->sampled_ms = v->now_ms;
    sample(p, v, leader_lsn);
}

uint64_t past_lag(const struct rest_past *p, const struct past_member *m, size_t i)
{
    ASSERT(i < p->samples_n);
    return m->lag_bytes[p->samples_n < PAST_SAMPLES ? i : (p->next + i) % PAST_SAMPLES];
}
