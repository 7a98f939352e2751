/* Ranges in another order than that of the keys, or within bounds of their revisions. SQLite sorts them in
 * memory, so the range is bounded. */
#include "dcs/state_internal.h"

static const struct {
    const char *name;
    enum sql up, down;
} orders[] = {
    {"", SQL_KV_BY_KEY, SQL_KV_BY_KEY_DOWN},
    {"key", SQL_KV_BY_KEY, SQL_KV_BY_KEY_DOWN},
    {"version", SQL_KV_BY_VERSION, SQL_KV_BY_VERSION_DOWN},
    {"create", SQL_KV_BY_CREATE, SQL_KV_BY_CREATE_DOWN},
    {"mod", SQL_KV_BY_MOD, SQL_KV_BY_MOD_DOWN},
    {"value", SQL_KV_BY_VALUE, SQL_KV_BY_VALUE_DOWN},
};

bool pick_wanted(const struct range_req *r)
{
    return r->sort[0] != '\0' || r->descend || r->min_mod != 0 || r->max_mod != 0 ||
           r->min_create != 0 || r->max_create != 0;
}

static enum err check(struct state *s, const struct range_req *r, enum sql *ret_which,
                      struct errmsg *e)
{
    size_t i = 0;
    while (i < ARRAY_LEN(orders) && strcmp(orders[i].name, r->sort) != 0)
        i++;
    if (i == ARRAY_LEN(orders))
        return err_set(e, ERR_INVALID,
                       "sort \"%s\" is none of key, version, create, mod, value", r->sort);
    if (r->revision != 0)
        return err_set(e, ERR_UNSUPPORTED, "a range of the past cannot be sorted or bounded");
    if (r->end.n != 0 && kv_count(s, r->key, r->end) > STATE_DELETE_MAX)
        return err_set(e, ERR_LIMIT,
                       "a range that is sorted or bounded has at most %d keys; ask for a "
                       "smaller one",
                       (int)STATE_DELETE_MAX);
    *ret_which = r->descend ? orders[i].down : orders[i].up;
    return ERR_OK;
}

static void bind(struct state *s, enum sql which, const struct range_req *r,
                 uint8_t room[static STATE_KEY_MAX + 1])
{
    sql_bind_blob(s, which, 1, r->key);
    sql_bind_blob(s, which, 2, kv_range_end(r->key, r->end, room));
    sql_bind_u64(s, which, 3, MIN(r->min_mod, (uint64_t)INT64_MAX));
    sql_bind_u64(s, which, 4,
                 r->max_mod == 0 ? INT64_MAX : MIN(r->max_mod, (uint64_t)INT64_MAX));
    sql_bind_u64(s, which, 5, MIN(r->min_create, (uint64_t)INT64_MAX));
    sql_bind_u64(s, which, 6,
                 r->max_create == 0 ? INT64_MAX : MIN(r->max_create, (uint64_t)INT64_MAX));
}

enum err pick_read_page(struct state *s, const struct range_req *r, struct kv_room *room,
                        struct kv_page *ret_page, struct errmsg *e)
{
    struct kv_page page = {0};
    uint8_t end[STATE_KEY_MAX + 1]; /* bound, not copied */
    enum sql which = SQL_KV_BY_KEY;
    enum err rc = check(s, r, &which, e);
    if (rc != ERR_OK)
        return rc;
    bind(s, which, r, end);
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
    *ret_page = page;
    return ERR_OK;
}
