#include "dcs/renew.h"

#include "base/assert.h"

void renew_init(struct renew *r)
{
    *r = (struct renew){.due_ms = UINT64_MAX};
    list_init(&r->items);
}

bool renew_add(struct renew *r, struct renew_item *item, uint64_t ttl_ms, uint64_t now_ms)
{
    ASSERT(list_empty(&item->link));
    if (r->n >= RENEW_MAX) {
        return false;
    }
    uint64_t ttl = item->renew.ttl_ms != 0 ? item->renew.ttl_ms : ttl_ms;
    uint64_t gather = (ttl != 0 ? ttl : RENEW_TTL_UNKNOWN_MS) / RENEW_FRACTION;
    gather = MIN(gather, (uint64_t)RENEW_GATHER_MAX_MS);
    /* What it waited elsewhere counts: the bound is on the whole way. */
    uint64_t held = renew_held_ms(item, now_ms);
    uint64_t left = !item->renew.urgent && gather > held ? gather - held : 0;
    list_push(&r->items, &item->link);
    r->n++;
    r->due_ms = MIN(r->due_ms, now_ms + left);
    return true;
}

bool renew_due(const struct renew *r, uint64_t now_ms)
{
    return r->n > 0 && now_ms >= r->due_ms;
}

uint64_t renew_held_ms(const struct renew_item *item, uint64_t now_ms)
{
    ASSERT(now_ms >= item->arrived_ms);
    return item->renew.held_ms + (now_ms - item->arrived_ms);
}

struct renew_item *renew_take(struct renew *r)
{
    struct list *l = list_pop(&r->items);
    if (l == NULL) {
        ASSERT(r->n == 0);
        return NULL;
    }
    ASSERT(r->n > 0);
    r->n--;
    if (r->n == 0) {
        r->due_ms = UINT64_MAX;
    }
    return container_of(l, struct renew_item, link);
}

void renew_forget(struct renew *r, struct renew_item *item)
{
    ASSERT(r->n > 0 && !list_empty(&item->link));
    list_remove(&item->link);
    r->n--;
    if (r->n == 0) {
        r->due_ms = UINT64_MAX;
    }
}

bool renew_may_expire(const struct renew *r, uint64_t applied, uint64_t term_start)
{
    return r->n == 0 && r->expire_index == 0 && applied >= term_start;
}

void renew_expire_proposed(struct renew *r, uint64_t index)
{
    ASSERT(r->expire_index == 0 && index > 0);
    r->expire_index = index;
}

void renew_applied(struct renew *r, uint64_t index)
{
    if (r->expire_index != 0 && index >= r->expire_index) {
        r->expire_index = 0;
    }
}

void renew_reset(struct renew *r)
{
    r->expire_index = 0;
}
