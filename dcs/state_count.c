/* The number of keys of a range that is too large to be counted in a turn of the loop: in pieces. Keys that come and
 * go in the part that is counted are added and taken away as they are applied, those in front of it are met
 * by it: so the number is exact whenever the last piece is done, and stays so. */
#include "base/mem.h"
#include "dcs/state_internal.h"

enum { COUNT_MAGIC = 0x434f554e };

struct state_count {
    uint32_t magic;
    struct list link; /* in state.counts */
    struct state *s;
    struct buf first, at, end; /* of [first, end) the part below `at` is counted */
    uint64_t n;
};

bool state_count_wanted(const struct range_req *r)
{
    return r->end.n != 0 && (r->revision != 0 || !pick_wanted(r));
}

struct state_count *state_count_new(struct state *s, const struct range_req *r)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    uint8_t room[STATE_KEY_MAX + 1];
    struct state_count *c = mem_alloc(sizeof *c);
    c->magic = COUNT_MAGIC;
    c->s = s;
    buf_append_slice(&c->first, r->key);
    buf_append_slice(&c->at, r->key);
    buf_append_slice(&c->end, kv_range_end(r->key, r->end, room));
    list_init(&c->link);
    list_push(&s->counts, &c->link);
    return c;
}

bool state_count_some(struct state_count *c, uint64_t keys)
{
    CHECK_MAGIC(c, COUNT_MAGIC);
    struct state *s = c->s;
    sql_bind_blob(s, SQL_KV_NTH, 1, buf_slice(&c->at));
    sql_bind_blob(s, SQL_KV_NTH, 2, buf_slice(&c->end));
    sql_bind_u64(s, SQL_KV_NTH, 3, keys);
    bool more = sql_row(s, SQL_KV_NTH);
    if (more) {
        buf_clear(&c->at);
        buf_append_slice(&c->at, sql_blob(s, SQL_KV_NTH, 0));
        sql_done(s, SQL_KV_NTH);
        c->n += keys;
        s->work += keys * WORK_COUNT;
        return false;
    }
    c->n += kv_count(s, buf_slice(&c->at), buf_slice(&c->end));
    buf_clear(&c->at);
    buf_append_slice(&c->at, buf_slice(&c->end));
    return true;
}

uint64_t count_total(const struct state_count *c)
{
    CHECK_MAGIC(c, COUNT_MAGIC);
    ASSERT(slice_eq(buf_slice(&c->at), buf_slice(&c->end)));
    return c->n;
}

void state_count_free(struct state_count *c)
{
    if (c == NULL)
        return;
    CHECK_MAGIC(c, COUNT_MAGIC);
    list_remove(&c->link);
    buf_close(&c->first);
    buf_close(&c->at);
    buf_close(&c->end);
    c->magic = 0;
    mem_free(c);
}

void counts_note(struct state *s, struct slice key, bool added)
{
    for (struct list *l = s->counts.next; l != &s->counts; l = l->next) {
        struct state_count *c = container_of(l, struct state_count, link);
        if (slice_cmp(key, buf_slice(&c->first)) < 0 || slice_cmp(key, buf_slice(&c->at)) >= 0)
            continue;
        ASSERT(added || c->n > 0);
        c->n += added ? 1 : (uint64_t)-1;
    }
}

void counts_restart(struct state *s)
{
    for (struct list *l = s->counts.next; l != &s->counts; l = l->next) {
        struct state_count *c = container_of(l, struct state_count, link);
        c->n = 0;
        buf_clear(&c->at);
        buf_append_slice(&c->at, buf_slice(&c->first));
    }
}
