/* Memory for requests of which a part has arrived. Each connection may have INTAKE_FREE bytes of one; for
 * more it needs one of INTAKE_PLACES places, and is not read from until one is free, first come, first
 * served. So whatever many clients announce and send, no more than a few large requests are in memory at
 * once, and none of them fails for it. Whoever has a place and is waited for has to go on: one that has sent
 * nothing for INTAKE_STILL_MS, or has not ended its request within INTAKE_HOLD_MS, has to go. Pure. */
#ifndef REGENT_DCS_INTAKE_H
#define REGENT_DCS_INTAKE_H

#include "dcs/list.h"

enum {
    INTAKE_FREE = 64 * 1024,
    INTAKE_PLACES = 16,
    INTAKE_STILL_MS = 2000,
    INTAKE_HOLD_MS = 10000
};

struct intake {
    struct list holders, waiting; /* oldest first */
    size_t n_holders;
};

/* One connection's; in none of the lists while it needs no place. */
struct intake_ticket {
    struct list link;
    bool holds;
    size_t bytes;                /* of its request so far */
    uint64_t since_ms, moved_ms; /* holds: from when on; when something came last */
};

void intake_init(struct intake *i);
void intake_ticket_init(struct intake_ticket *t);
/* Something has come; it has `bytes` of an unfinished request now, 0: none. false: not to be read from
 * before intake_next() returns it. */
bool intake_note(struct intake *i, struct intake_ticket *t, size_t bytes, uint64_t now_ms)
    MUST_CHECK;
/* The next one that is to be read from again; NULL: none. */
struct intake_ticket *intake_next(struct intake *i, uint64_t now_ms);
/* One that has to go because others wait; NULL: none. Its connection is closed, then intake_leave(). */
struct intake_ticket *intake_stalled(const struct intake *i, uint64_t now_ms);
void intake_leave(struct intake *i, struct intake_ticket *t);

#endif
