/* Ranges of the past, put together from the keys and the history. A value that was replaced stands in the
 * row of the put that made it; when that put is older than the history, the value is gone although the
 * revision asked for is not: said, never guessed. */
#include "dcs/state_internal.h"

static bool is_full(const struct kv_page *page, const struct range_req *r)
{
    return page->more || (r->limit != 0 && page->kvs.n >= r->limit);
}

/* True: it is on this page; false: for the next one. */
static bool take(struct kv_page *page, const struct range_req *r, struct kv_room *room,
                 struct kv *kv)
{
    if (r->keys_only)
        kv->value = (struct slice){0};
    if (is_full(page, r) || !kv_room_take(room, kv->key, kv->value))
        return false;
    msg_list_append(&page->kvs, &msg_kv, kv);
    return true;
}

static enum err lost(struct state *s, struct slice key, uint64_t revision, struct errmsg *e)
{
    return err_set(
        e, ERR_COMPACTED,
        "what key \"%.*s\" held at revision %llu is no longer kept: it was put at or "
        "before revision %llu",
        (int)MIN(key.n, (size_t)100), (const char *)key.p, (unsigned long long)revision,
        (unsigned long long)s->m.compacted);
}

/* Those there are, and of what happened since: those that went, less those that came. */
static uint64_t count_past(struct state *s, const struct range_req *r, uint64_t now)
{
    uint8_t end[STATE_KEY_MAX + 1]; /* bound, not copied */
    sql_bind_blob(s, SQL_PAST_GONE, 1, r->key);
    sql_bind_blob(s, SQL_PAST_GONE, 2, kv_range_end(r->key, r->end, end));
    sql_bind_u64(s, SQL_PAST_GONE, 3, history_above(s, r->revision));
    return now + sql_one_u64(s, SQL_PAST_GONE);
}

static void bind_past(struct state *s, enum sql which, const struct range_req *r,
                      uint8_t room[static STATE_KEY_MAX + 1])
{
    sql_bind_blob(s, which, 1, r->key);
    sql_bind_blob(s, which, 2, kv_range_end(r->key, r->end, room));
    sql_bind_u64(s, which, 3, r->revision);
    sql_bind_u64(s, which, 4, history_above(s, r->revision));
}

enum err history_read_page(struct state *s, const struct range_req *r,
                           const struct state_count *counted, struct kv_room *room,
                           struct kv_page *ret_page, struct errmsg *e)
{
    struct kv_page page = {0};
    uint8_t end[STATE_KEY_MAX + 1]; /* bound, not copied */
    enum err rc = ERR_OK;
    if (r->revision > s->m.revision)
        return err_set(e, ERR_INVALID, "revision %llu is in the future, now is %llu",
                       (unsigned long long)r->revision, (unsigned long long)s->m.revision);
    if (r->revision < s->m.compacted)
        return err_set(e, ERR_COMPACTED, "revision %llu is no longer kept; the oldest is %llu",
                       (unsigned long long)r->revision, (unsigned long long)s->m.compacted);
    bool picks = pick_wanted(r);
    uint64_t now = counted != NULL ? count_total(counted) : kv_count(s, r->key, r->end);
    uint64_t then = count_past(s, r, now);
    enum sql which = SQL_PAST_RANGE;
    if (picks)
        rc = pick_past(s, r, MAX(now, then), &which, e);
    if (rc != ERR_OK)
        return rc;
    bind_past(s, which, r, end);
    uint64_t n = 0;
    /* those within bounds are counted by looking at all of them */
    while (rc == ERR_OK && (picks || !(page.more || r->count_only)) && sql_row(s, which)) {
        struct kv kv = kv_row(s, which);
        n++;
        if (kv.mod_revision == 0 && (picks || !is_full(&page, r)))
            rc = lost(s, kv.key, r->revision, e);
        else if (!r->count_only)
            page.more = !take(&page, r, room, &kv);
    }
    sql_done(s, which);
    s->work += n * WORK_ROW;
    page.count = picks ? n : then;
    if (rc != ERR_OK) {
        msg_list_close(&page.kvs);
        return rc;
    }
    *ret_page = page;
    return ERR_OK;
}
