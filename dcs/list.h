/* An intrusive doubly linked ring. The head is a link that belongs to nobody; a link that is in no
 * ring points at itself. Whoever embeds a link owns the object. */
#ifndef REGENT_DCS_LIST_H
#define REGENT_DCS_LIST_H

#include "base/assert.h"
#include "base/base.h"

struct list {
    struct list *prev, *next;
};

static inline void list_init(struct list *l)
{
    l->prev = l->next = l;
}

static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}

/* Puts `x`, which is in no ring, at the end of the ring of `head`. */
static inline void list_push(struct list *head, struct list *x)
{
    ASSERT(list_empty(x));
    x->prev = head->prev;
    x->next = head;
    head->prev->next = x;
    head->prev = x;
}

/* Leaves x in no ring; harmless when it already is. */
static inline void list_remove(struct list *x)
{
    x->prev->next = x->next;
    x->next->prev = x->prev;
    list_init(x);
}

/* Takes the first link out; NULL when there is none. */
static inline struct list *list_pop(struct list *head)
{
    struct list *x = head->next;
    if (x == head) {
        return NULL;
    }
    list_remove(x);
    return x;
}

/* Appends all of `from` to `to`; `from` is empty afterwards. */
static inline void list_move(struct list *to, struct list *from)
{
    if (list_empty(from)) {
        return;
    }
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

#endif
