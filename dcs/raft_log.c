#include "dcs/raft_log.h"

#include "base/assert.h"
#include "base/mem.h"

struct raft_log_slot {
    struct raft_log_entry *entry;
    uint64_t bytes_before; /* of all entries before it: a sum is one subtraction */
};

enum { CAP_MIN = 1024 };

static struct raft_log_slot *slot(const struct raft_log *l, uint64_t index)
{
    ASSERT(index >= l->first && index <= l->last);
    return &l->slots[index & (l->cap - 1)];
}

static size_t entry_bytes(const struct raft_log_entry *e)
{
    return sizeof *e + sizeof(struct raft_log_slot) + e->len;
}

void raft_log_init(struct raft_log *l, uint64_t first)
{
    ASSERT(first > 0);
    *l = (struct raft_log){.first = first, .last = first - 1, .cap = CAP_MIN};
    l->slots = mem_array(l->cap, sizeof *l->slots);
}

void raft_log_close(struct raft_log *l)
{
    if (l->slots == NULL)
        return;
    raft_log_reset(l, 1);
    mem_free(TAKE(l->slots));
}

void raft_log_reset(struct raft_log *l, uint64_t first)
{
    ASSERT(first > 0);
    raft_log_trim(l, l->last);
    l->first = first;
    l->last = first - 1;
    l->bytes_end = 0;
}

static void grow(struct raft_log *l)
{
    size_t cap = l->cap * 2;
    struct raft_log_slot *slots = mem_array(cap, sizeof *slots);
    for (uint64_t i = l->first; i <= l->last; i++)
        slots[i & (cap - 1)] = l->slots[i & (l->cap - 1)];
    mem_free(l->slots);
    l->slots = slots;
    l->cap = cap;
}

void raft_log_append(struct raft_log *l, uint64_t term, enum raft_entry_type type,
                     struct slice data)
{
    ASSERT(term > 0);
    ASSERT(l->last < l->first || term >= raft_log_get(l, l->last)->term);
    if (l->last + 1 - l->first == l->cap)
        grow(l);
    struct raft_log_entry *e = mem_alloc(sizeof *e + data.n);
    *e = (struct raft_log_entry){.term = term, .type = type, .refs = 1, .len = data.n};
    if (data.n > 0)
        memcpy(e->data, data.p, data.n);
    l->last++;
    *slot(l, l->last) = (struct raft_log_slot){.entry = e, .bytes_before = l->bytes_end};
    l->bytes_end += entry_bytes(e);
}

void raft_log_truncate(struct raft_log *l, uint64_t from)
{
    ASSERT(from >= l->first && from <= l->last);
    l->bytes_end = slot(l, from)->bytes_before;
    for (; l->last >= from; l->last--)
        raft_log_release(TAKE(slot(l, l->last)->entry));
}

void raft_log_trim(struct raft_log *l, uint64_t to)
{
    ASSERT(to <= l->last);
    for (; l->first <= to; l->first++)
        raft_log_release(TAKE(slot(l, l->first)->entry));
}

bool raft_log_has(const struct raft_log *l, uint64_t index)
{
    return index >= l->first && index <= l->last;
}

const struct raft_log_entry *raft_log_get(const struct raft_log *l, uint64_t index)
{
    const struct raft_log_entry *e = slot(l, index)->entry;
    ASSERT(e != NULL && e->refs > 0);
    return e;
}

struct raft_entry_view raft_log_view(const struct raft_log_entry *entry)
{
    ASSERT(entry->refs > 0);
    return (struct raft_entry_view){
        .term = entry->term, .type = entry->type, .data = slice_of(entry->data, entry->len)};
}

size_t raft_log_bytes(const struct raft_log *l, uint64_t from, uint64_t to)
{
    from = MAX(from, l->first);
    to = MIN(to, l->last);
    if (from > to)
        return 0;
    uint64_t end = to == l->last ? l->bytes_end : slot(l, to + 1)->bytes_before;
    return (size_t)(end - slot(l, from)->bytes_before);
}

struct raft_log_entry *raft_log_hold(struct raft_log *l, uint64_t index)
{
    struct raft_log_entry *e = slot(l, index)->entry;
    ASSERT(e != NULL && e->refs > 0);
    e->refs++;
    return e;
}

void raft_log_release(struct raft_log_entry *entry)
{
    ASSERT(entry != NULL && entry->refs > 0);
    if (--entry->refs == 0)
        mem_free(entry);
}
