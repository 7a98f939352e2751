/* Outstanding calls by number: what an answer from a member belongs to. A number is used once in a
 * long while (slot and generation), so that a late answer finds nothing. */
#ifndef REGENT_DCS_CALLS_H
#define REGENT_DCS_CALLS_H

#include "base/base.h"

enum { CALLS_SLOT_BITS = 15, CALLS_MAX = 1 << CALLS_SLOT_BITS };
enum { CALL_NUMBER_MAX = 0x7fffffff }; /* numbers above are the links' own */

struct call {
    uint32_t number; /* 0: free */
    uint32_t next_free;
    uint16_t generation;
    int kind; /* of the owner */
    uint64_t member;
    void *what;
    uint64_t detail;
};

struct calls {
    struct call *slots;
    uint32_t size, free; /* free: first free slot + 1 */
    uint32_t used;
};

void calls_close(struct calls *c);
/* NULL: too many. Valid until the next calls_* call. */
struct call *calls_add(struct calls *c);
struct call *calls_find(struct calls *c, uint64_t number); /* NULL: none */
void calls_drop(struct calls *c, struct call *call);
/* Iterates over the used ones: i from 0 up to c->size. */
static inline struct call *calls_at(struct calls *c, uint32_t i)
{
    return c->slots[i].number != 0 ? &c->slots[i] : NULL;
}

#endif
