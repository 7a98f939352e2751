#include "dcs/calls.h"

#include "base/assert.h"
#include "base/mem.h"

void calls_close(struct calls *c)
{
    mem_free(c->slots);
    memset(c, 0, sizeof *c);
}

static void grow(struct calls *c)
{
    uint32_t size = c->size == 0 ? 64 : c->size * 2;
    c->slots = mem_resize(c->slots, size * sizeof *c->slots);
    memset(c->slots + c->size, 0, (size - c->size) * sizeof *c->slots);
    for (uint32_t i = size; i > c->size; i--) {
        c->slots[i - 1].next_free = c->free;
        c->free = i;
    }
    c->size = size;
}

struct call *calls_add(struct calls *c)
{
    if (c->free == 0) {
        if (c->size >= CALLS_MAX) {
            return NULL;
        }
        grow(c);
    }
    uint32_t at = c->free - 1;
    struct call *call = &c->slots[at];
    ASSERT(call->number == 0);
    c->free = call->next_free;
    /* Never 0, never above CALL_NUMBER_MAX. */
    call->generation = (uint16_t)(call->generation % 0xffff + 1);
    uint16_t generation = call->generation;
    memset(call, 0, sizeof *call);
    call->generation = generation;
    call->number = ((uint32_t)generation << CALLS_SLOT_BITS) | at;
    c->used++;
    return call;
}

struct call *calls_find(struct calls *c, uint64_t number)
{
    uint64_t at = number & (CALLS_MAX - 1);
    if (number == 0 || number > CALL_NUMBER_MAX || at >= c->size ||
        c->slots[at].number != number) {
        return NULL;
    }
    return &c->slots[at];
}

void calls_drop(struct calls *c, struct call *call)
{
    uint32_t at = (uint32_t)(call - c->slots);
    ASSERT(at < c->size && call->number != 0 && c->used > 0);
    call->number = 0;
    call->next_free = c->free;
    c->free = at + 1;
    c->used--;
}
