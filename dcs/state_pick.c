/* Ranges in another order than that of the keys, or within bounds of their revisions. SQLite sorts them in
 * memory, so the range is bounded. */
#include "dcs/state_internal.h"

/* Up and down, of the present and of the past. */
#define ORDERS(of)                                                                       \
    {                                                                                    \
        SQL_KV_BY_##of, SQL_KV_BY_##of##_DOWN, SQL_PAST_BY_##of, SQL_PAST_BY_##of##_DOWN \
    }
static const struct {
    const char *name;
    enum sql which[4];
} orders[] = {
    {"", ORDERS(KEY)},          {"key", ORDERS(KEY)}, {"version", ORDERS(VERSION)},
    {"create", ORDERS(CREATE)}, {"mod", ORDERS(MOD)}, {"value", ORDERS(VALUE)},
};

bool pick_wanted(const struct range_req *r)
{
    return r->sort[0] != '\0' || r->descend || r->min_mod != 0 || r->max_mod != 0 ||
           r->min_create != 0 || r->max_create != 0;
}

static enum err too_many(uint64_t n, struct errmsg *e)
{
    return n <= STATE_DELETE_MAX
               ? ERR_OK
               : err_set(e, ERR_LIMIT,
                         "a range that is sorted or bounded has at most %d keys; ask for a "
                         "smaller one",
                         (int)STATE_DELETE_MAX);
}

static enum err statement(const struct range_req *r, bool past, enum sql *ret_which,
                          struct errmsg *e)
{
    size_t i = 0;
    while (i < ARRAY_LEN(orders) && strcmp(orders[i].name, r->sort) != 0)
        i++;
    if (i == ARRAY_LEN(orders))
        return err_set(e, ERR_INVALID,
                       "sort \"%s\" is none of key, version, create, mod, value", r->sort);
    *ret_which = orders[i].which[(past ? 2 : 0) + (r->descend ? 1 : 0)];
    return ERR_OK;
}

/* The four bounds, from parameter `from` on. */
static void bind_bounds(struct state *s, enum sql which, const struct range_req *r, int from)
{
    const uint64_t most = INT64_MAX;
    sql_bind_u64(s, which, from, MIN(r->min_mod, most));
    sql_bind_u64(s, which, from + 1, r->max_mod == 0 ? most : MIN(r->max_mod, most));
    sql_bind_u64(s, which, from + 2, MIN(r->min_create, most));
    sql_bind_u64(s, which, from + 3, r->max_create == 0 ? most : MIN(r->max_create, most));
}

enum err pick_past(struct state *s, const struct range_req *r, uint64_t keys,
                   enum sql *ret_which, struct errmsg *e)
{
    enum err rc = statement(r, true, ret_which, e);
    rc = rc == ERR_OK ? too_many(keys, e) : rc;
    if (rc == ERR_OK)
        bind_bounds(s, *ret_which, r, 5);
    return rc;
}

enum err pick_read_page(struct state *s, const struct range_req *r, struct kv_room *room,
                        struct kv_page *ret_page, struct errmsg *e)
{
    struct kv_page page = {0};
    uint8_t end[STATE_KEY_MAX + 1]; /* bound, not copied */
    enum sql which = SQL_KV_BY_KEY;
    enum err rc = statement(r, false, &which, e);
    if (rc == ERR_OK && r->end.n != 0)
        rc = too_many(kv_count_upto(s, r->key, r->end, STATE_DELETE_MAX + 1), e);
    if (rc != ERR_OK)
        return rc;
    sql_bind_blob(s, which, 1, r->key);
    sql_bind_blob(s, which, 2, kv_range_end(r->key, r->end, end));
    bind_bounds(s, which, r, 3);
    while (sql_row(s, which)) {
        struct kv kv = kv_row(s, which);
        page.count++;
        if (r->count_only || page.more)
            continue;
        if (r->keys_only)
            kv.value = (struct slice){0};
        page.more =
            (r->limit != 0 && page.kvs.n >= r->limit) || !kv_room_take(room, kv.key, kv.value);
        if (!page.more)
            msg_list_append(&page.kvs, &msg_kv, &kv);
    }
    s->work += page.count * WORK_ROW;
    *ret_page = page;
    return ERR_OK;
}
