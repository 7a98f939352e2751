#include "dcs/intake.h"

#include "base/assert.h"

void intake_init(struct intake *i)
{
    list_init(&i->holders);
    list_init(&i->waiting);
    i->n_holders = 0;
}

void intake_ticket_init(struct intake_ticket *t)
{
    *t = (struct intake_ticket){.holds = false};
    list_init(&t->link);
}

static void give(struct intake *i, struct intake_ticket *t, uint64_t now_ms)
{
    ASSERT(!t->holds && i->n_holders < INTAKE_PLACES);
    list_push(&i->holders, &t->link);
    i->n_holders++;
    t->holds = true;
    t->since_ms = t->moved_ms = now_ms;
}

bool intake_note(struct intake *i, struct intake_ticket *t, size_t bytes, uint64_t now_ms)
{
    ASSERT(t->holds || list_empty(&t->link)); /* who waits is not read from */
    t->bytes = bytes;
    t->moved_ms = now_ms;
    if (bytes <= INTAKE_FREE) {
        intake_leave(i, t);
    } else if (!t->holds && i->n_holders < INTAKE_PLACES && list_empty(&i->waiting)) {
        give(i, t, now_ms);
    } else if (!t->holds) {
        list_push(&i->waiting, &t->link);
        return false;
    }
    return true;
}

struct intake_ticket *intake_next(struct intake *i, uint64_t now_ms)
{
    if (i->n_holders == INTAKE_PLACES || list_empty(&i->waiting)) {
        return NULL;
    }
    struct intake_ticket *t = container_of(list_pop(&i->waiting), struct intake_ticket, link);
    give(i, t, now_ms);
    return t;
}

struct intake_ticket *intake_stalled(const struct intake *i, uint64_t now_ms)
{
    for (struct list *l = i->holders.next; l != &i->holders && !list_empty(&i->waiting);
         l = l->next) {
        struct intake_ticket *t = container_of(l, struct intake_ticket, link);
        if (now_ms >= t->moved_ms + INTAKE_STILL_MS || now_ms >= t->since_ms + INTAKE_HOLD_MS) {
            return t;
        }
    }
    return NULL;
}

void intake_leave(struct intake *i, struct intake_ticket *t)
{
    list_remove(&t->link);
    if (t->holds) {
        ASSERT(i->n_holders > 0);
        i->n_holders--;
        t->holds = false;
    }
}
