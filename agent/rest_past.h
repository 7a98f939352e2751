/* The last minutes, for the status page: how far members lagged, and what this node decided. Pure. */
#ifndef REGENT_AGENT_REST_PAST_H
#define REGENT_AGENT_REST_PAST_H

#include "agent/core/view.h"

enum { PAST_SAMPLES = 150, PAST_EVERY_MS = 2000, PAST_DECISIONS = 12 };

#define PAST_UNKNOWN UINT64_MAX

struct past_member {
    char name[64];
    uint64_t lag_bytes[PAST_SAMPLES]; /* PAST_UNKNOWN: it was not there */
};

struct past_decision {
    uint64_t wall_ms;
    char rule[48];
    char reason[200];
};

struct rest_past {
    struct past_member members[VIEW_MEMBERS];
    size_t members_n;
    /* `next` is where the next sample goes: the oldest, once all are taken */
    size_t samples_n, next;
    uint64_t sampled_ms;
    struct past_decision decisions[PAST_DECISIONS]; /* newest first */
    size_t decisions_n;
};

/* A decision counts when its rule is another than the last one's. */
void past_note(struct rest_past *p, const struct view *v, uint64_t leader_lsn, uint64_t wall_ms,
               const char *rule, const char *reason);
/* Samples of one member, oldest first: i < p->samples_n. */
uint64_t past_lag(const struct rest_past *p, const struct past_member *m, size_t i);

#endif
