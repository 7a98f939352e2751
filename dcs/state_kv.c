#include "dcs/state_internal.h"

/* ---- looking up ---- */

struct kv kv_row(struct state *s, enum sql which)
{
    return (struct kv){
        .key = sql_blob(s, which, 0),
        .value = sql_blob(s, which, 1),
        .create_revision = sql_u64(s, which, 2),
        .mod_revision = sql_u64(s, which, 3),
        .version = sql_u64(s, which, 4),
        .lease = sql_u64(s, which, 5),
    };
}

bool kv_find(struct state *s, struct slice key, struct kv *ret_kv)
{
    uint64_t event;
    return kv_find_row(s, key, ret_kv, &event);
}

bool kv_find_row(struct state *s, struct slice key, struct kv *ret_kv, uint64_t *ret_event)
{
    *ret_kv = (struct kv){.key = key};
    *ret_event = 0;
    sql_bind_blob(s, SQL_KV_GET, 1, key);
    if (!sql_row(s, SQL_KV_GET))
        return false;
    *ret_kv = kv_row(s, SQL_KV_GET);
    buf_clear(&s->value);
    buf_append_slice(&s->value, ret_kv->value);
    ret_kv->key = key;
    ret_kv->value = buf_slice(&s->value);
    *ret_event = sql_u64(s, SQL_KV_GET, 6);
    sql_done(s, SQL_KV_GET);
    return true;
}

/* As etcd: no end is one key, end "\0" is all from key on. */
static bool is_open_end(struct slice end)
{
    return end.n == 1 && end.p[0] == 0;
}

static enum sql bind_range(struct state *s, struct slice key, struct slice end, enum sql one,
                           enum sql from, enum sql between)
{
    enum sql which = end.n == 0 ? one : is_open_end(end) ? from : between;
    sql_bind_blob(s, which, 1, key);
    if (which == between)
        sql_bind_blob(s, which, 2, end);
    return which;
}

struct slice kv_range_end(struct slice key, struct slice end,
                          uint8_t room[static STATE_KEY_MAX + 1])
{
    if (end.n == 0) { /* the key alone: up to the one right behind it */
        memcpy(room, key.p, key.n);
        room[key.n] = 0;
        return slice_of(room, key.n + 1);
    }
    if (is_open_end(end)) {
        memset(room, 0xff, STATE_KEY_MAX + 1); /* above every key */
        return slice_of(room, STATE_KEY_MAX + 1);
    }
    return end;
}

uint64_t kv_count(struct state *s, struct slice key, struct slice end)
{
    uint8_t room[STATE_KEY_MAX + 1]; /* bound, not copied */
    sql_bind_blob(s, SQL_KV_COUNT, 1, key);
    sql_bind_blob(s, SQL_KV_COUNT, 2, kv_range_end(key, end, room));
    uint64_t n = sql_one_u64(s, SQL_KV_COUNT);
    s->work += n * WORK_COUNT;
    return n;
}

uint64_t kv_count_upto(struct state *s, struct slice key, struct slice end, uint64_t most)
{
    uint8_t room[STATE_KEY_MAX + 1];
    sql_bind_blob(s, SQL_KV_COUNT_UPTO, 1, key);
    sql_bind_blob(s, SQL_KV_COUNT_UPTO, 2, kv_range_end(key, end, room));
    sql_bind_u64(s, SQL_KV_COUNT_UPTO, 3, most);
    uint64_t n = sql_one_u64(s, SQL_KV_COUNT_UPTO);
    s->work += n * WORK_COUNT;
    return n;
}

bool kv_all(struct state *s, struct slice key, struct slice end,
            bool (*holds)(const void *arg, const struct kv *kv), const void *arg,
            uint64_t *ret_n)
{
    enum sql which = bind_range(s, key, end, SQL_KV_GET, SQL_KV_FROM, SQL_KV_RANGE);
    bool all = true;
    *ret_n = 0;
    while (sql_row(s, which)) {
        struct kv kv = kv_row(s, which);
        ++*ret_n;
        all = all && holds(arg, &kv);
    }
    s->work += *ret_n * WORK_ROW;
    return all;
}

bool kv_room_take(struct kv_room *room, struct slice key, struct slice value)
{
    enum { PAIR_OVERHEAD = 96 }; /* names and numbers of an encoded pair */
    size_t bytes = key.n + value.n + PAIR_OVERHEAD;
    if (room->pairs == 0 || (room->pairs < STATE_RANGE_PAIRS_MAX && bytes > room->bytes))
        return false;
    room->pairs--;
    room->bytes -= MIN(bytes, room->bytes);
    return true;
}

static uint64_t count_all(struct state *s, const struct kv_range *r)
{
    return r->counted != NULL ? count_total(r->counted) : kv_count(s, r->key, r->end);
}

void kv_read_page(struct state *s, const struct kv_range *r, struct kv_room *room,
                  struct kv_page *ret_page)
{
    struct kv_page page = {0};
    enum sql which = bind_range(s, r->key, r->end, SQL_KV_GET, SQL_KV_FROM, SQL_KV_RANGE);
    uint64_t n = 0;
    if (r->count_only && which != SQL_KV_GET) {
        page.count = count_all(s, r);
        *ret_page = page;
        return;
    }
    while (sql_row(s, which)) {
        struct kv kv = kv_row(s, which);
        if (r->keys_only)
            kv.value = (struct slice){0};
        if ((r->limit != 0 && n >= r->limit) ||
            (!r->count_only && !kv_room_take(room, kv.key, kv.value))) {
            page.more = true;
            sql_done(s, which);
            break;
        }
        if (!r->count_only)
            msg_list_append(&page.kvs, &msg_kv, &kv);
        n++;
    }
    s->work += n * WORK_ROW;
    page.count = !page.more ? n : r->end.n == 0 ? 1 : count_all(s, r);
    *ret_page = page;
}

enum err state_range(struct state *s, const struct range_req *r,
                     const struct state_count *counted, size_t max_bytes, struct buf *ret_reply,
                     struct errmsg *e)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    enum err rc = kv_check_range(r->key, r->end, e);
    if (rc != ERR_OK)
        return rc;
    struct kv_range range = {.key = r->key,
                             .end = r->end,
                             .limit = r->limit,
                             .keys_only = r->keys_only,
                             .count_only = r->count_only,
                             .counted = counted};
    struct kv_room room = {.bytes = max_bytes, .pairs = STATE_RANGE_PAIRS_MAX};
    struct kv_page page;
    if (r->revision != 0)
        rc = history_read_page(s, r, counted, &room, &page, e);
    else if (pick_wanted(r))
        rc = pick_read_page(s, r, &room, &page, e);
    else
        kv_read_page(s, &range, &room, &page);
    if (rc != ERR_OK)
        return rc;
    struct buf kvs = BUF_INIT;
    if (page.kvs.n != 0)
        msg_list_end(&page.kvs, &kvs);
    struct range_reply reply = {.revision = s->m.revision,
                                .kvs = buf_slice(&kvs),
                                .count = page.count,
                                .more = page.more};
    msg_encode(&msg_range_reply, &reply, ret_reply);
    buf_close(&kvs);
    return ERR_OK;
}

/* ---- checks: a request that passes them cannot fail ---- */

enum err kv_check_key(struct slice key, struct errmsg *e)
{
    if (key.n == 0)
        return err_set(e, ERR_INVALID, "the key is empty");
    if (key.n > STATE_KEY_MAX)
        return err_set(e, ERR_LIMIT, "the key has %zu bytes, the most is %d", key.n,
                       (int)STATE_KEY_MAX);
    return ERR_OK;
}

enum err kv_check_range(struct slice key, struct slice end, struct errmsg *e)
{
    if (end.n == 0)
        return kv_check_key(key, e);
    if (key.n > STATE_KEY_MAX || end.n > STATE_KEY_MAX + 1)
        return err_set(e, ERR_LIMIT, "a bound of the range has more than %d bytes",
                       (int)STATE_KEY_MAX);
    return ERR_OK;
}

enum err kv_check_delete(struct state *s, struct slice key, struct slice end, uint64_t *total,
                         struct errmsg *e)
{
    enum err rc = kv_check_range(key, end, e);
    if (rc != ERR_OK || end.n == 0)
        return rc;
    *total += kv_count_upto(s, key, end, STATE_DELETE_MAX + 1);
    if (*total > STATE_DELETE_MAX)
        return err_set(e, ERR_LIMIT,
                       "a request deletes at most %d keys: the leader stands still meanwhile; "
                       "delete a smaller range",
                       (int)STATE_DELETE_MAX);
    return ERR_OK;
}

static enum err check_lease(struct state *s, uint64_t lease, struct errmsg *e)
{
    const struct lease *l = lease_find(&s->leases, lease);
    if (l == NULL)
        return err_set(e, ERR_NOT_FOUND, "lease %llu does not exist: it expired or was revoked",
                       (unsigned long long)lease);
    if (l->keys >= STATE_LEASE_KEYS_MAX)
        return err_set(e, ERR_LIMIT,
                       "lease %llu has %d keys, the most: its end deletes them at once; use "
                       "another lease for more",
                       (unsigned long long)lease, (int)STATE_LEASE_KEYS_MAX);
    return ERR_OK;
}

enum err kv_check_put(struct state *s, const struct kv_change *c, bool runs, struct errmsg *e)
{
    struct kv old;
    enum err rc = kv_check_key(c->key, e);
    if (rc != ERR_OK)
        return rc;
    if ((c->keep_value && c->value.n > 0) || (c->keep_lease && c->lease != 0))
        return err_set(e, ERR_INVALID, "a put with %s takes no %s",
                       c->keep_value && c->value.n > 0 ? "ignore_value" : "ignore_lease",
                       c->keep_value && c->value.n > 0 ? "value" : "lease");
    if (c->value.n > STATE_VALUE_MAX)
        return err_set(e, ERR_LIMIT, "the value has %zu bytes, the most is %d", c->value.n,
                       (int)STATE_VALUE_MAX);
    if (runs && (c->keep_value || c->keep_lease) && !kv_find(s, c->key, &old))
        return err_set(e, ERR_NOT_FOUND,
                       "the key does not exist, so it has no value or lease to keep");
    return runs && c->lease != 0 ? check_lease(s, c->lease, e) : ERR_OK;
}

/* ---- changing ---- */

static void insert_row(struct state *s, const struct kv *kv)
{
    sql_bind_blob(s, SQL_KV_INSERT, 1, kv->key);
    sql_bind_blob(s, SQL_KV_INSERT, 2, kv->value);
    sql_bind_u64(s, SQL_KV_INSERT, 3, kv->create_revision);
    sql_bind_u64(s, SQL_KV_INSERT, 4, kv->mod_revision);
    sql_bind_u64(s, SQL_KV_INSERT, 5, kv->version);
    sql_bind_u64(s, SQL_KV_INSERT, 6, kv->lease);
    sql_bind_u64(s, SQL_KV_INSERT, 7, s->m.event_next);
    sql_write(s, SQL_KV_INSERT);
}

/* The lease has an index of its own, which a put that keeps the lease need not touch. */
static void update_row(struct state *s, const struct kv *kv, uint64_t old_lease)
{
    sql_bind_blob(s, SQL_KV_UPDATE, 1, kv->key);
    sql_bind_blob(s, SQL_KV_UPDATE, 2, kv->value);
    sql_bind_u64(s, SQL_KV_UPDATE, 3, kv->mod_revision);
    sql_bind_u64(s, SQL_KV_UPDATE, 4, kv->version);
    sql_bind_u64(s, SQL_KV_UPDATE, 5, s->m.event_next);
    sql_write(s, SQL_KV_UPDATE);
    if (kv->lease == old_lease)
        return;
    sql_bind_blob(s, SQL_KV_LEASE, 1, kv->key);
    sql_bind_u64(s, SQL_KV_LEASE, 2, kv->lease);
    sql_write(s, SQL_KV_LEASE);
}

static void count_lease(struct state *s, uint64_t from, uint64_t to)
{
    struct lease *l = from == to || from == 0 ? NULL : lease_find(&s->leases, from);
    if (l != NULL) {
        ASSERT(l->keys > 0);
        l->keys--;
    }
    l = from == to || to == 0 ? NULL : lease_find(&s->leases, to);
    if (l != NULL)
        l->keys++;
}

static void tell_prev(struct kv_prev *prev, const struct kv *old)
{
    if (prev == NULL)
        return;
    if (!prev->more && kv_room_take(prev->room, old->key, old->value))
        msg_list_append(&prev->kvs, &msg_kv, old);
    else
        prev->more = true;
}

void kv_put(struct apply *a, const struct kv_change *c, struct kv_prev *prev)
{
    struct kv old;
    uint64_t old_event;
    struct state_marks *m = &a->s->m;
    bool existed = kv_find_row(a->s, c->key, &old, &old_event);
    struct kv row = {.key = c->key,
                     .value = c->keep_value ? old.value : c->value,
                     .lease = c->keep_lease ? old.lease : c->lease};
    row.mod_revision = apply_revision(a);
    row.create_revision = existed ? old.create_revision : row.mod_revision;
    row.version = old.version + 1;
    m->rows_sum += hash_kv(&row, m->event_next) - (existed ? hash_kv(&old, old_event) : 0);
    if (existed)
        update_row(a->s, &row, old.lease);
    else
        insert_row(a->s, &row);
    if (!existed)
        counts_note(a->s, c->key, true);
    count_lease(a->s, old.lease, row.lease);
    if (existed)
        tell_prev(prev, &old);
    event_add(a, false, &row, &old, old_event);
}

static void delete_one(struct apply *a, struct slice key, struct kv_prev *prev)
{
    struct kv old;
    uint64_t old_event;
    bool existed = kv_find_row(a->s, key, &old, &old_event);
    ASSERT(existed);
    a->s->work += WORK_DELETE;
    struct kv tombstone = {.key = key, .mod_revision = apply_revision(a)};
    sql_bind_blob(a->s, SQL_KV_DELETE, 1, key);
    sql_write(a->s, SQL_KV_DELETE);
    counts_note(a->s, key, false);
    a->s->m.rows_sum -= hash_kv(&old, old_event);
    count_lease(a->s, old.lease, 0);
    tell_prev(prev, &old);
    event_add(a, true, &tombstone, &old, old_event);
}

/* First all keys, then the deletions: a statement does not walk what another one changes. */
static uint64_t delete_found(struct apply *a, enum sql which, struct kv_prev *prev)
{
    struct state *s = a->s;
    uint64_t n = 0;
    buf_clear(&s->keys);
    while (sql_row(s, which)) {
        struct slice key = sql_blob(s, which, 0);
        buf_append_be32(&s->keys, (uint32_t)key.n);
        buf_append_slice(&s->keys, key);
    }
    for (size_t at = 0; at < s->keys.len; n++) {
        const uint8_t *p = s->keys.p + at;
        size_t size = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        delete_one(a, slice_of(p + 4, size), prev);
        at += 4 + size;
    }
    return n;
}

uint64_t kv_delete_range(struct apply *a, struct slice key, struct slice end,
                         struct kv_prev *prev)
{
    return delete_found(a, bind_range(a->s, key, end, SQL_KV_GET, SQL_KV_FROM, SQL_KV_RANGE),
                        prev);
}

void kv_delete_of_lease(struct apply *a, uint64_t lease)
{
    sql_bind_u64(a->s, SQL_KV_OF_LEASE, 1, lease);
    (void)delete_found(a, SQL_KV_OF_LEASE, NULL);
}

/* ---- commands ---- */

static void one_result(struct apply *a, const char *op, uint64_t count, struct kv_prev *prev)
{
    struct buf kvs = BUF_INIT;
    struct op_result r = {.revision = apply_revision_now(a), .count = count};
    memcpy(r.op, op, strlen(op) + 1);
    r.more = prev->more;
    if (prev->kvs.n != 0)
        msg_list_end(&prev->kvs, &kvs);
    r.kvs = buf_slice(&kvs);
    apply_result(a, &msg_op_result, &r);
    if (a->s->result.len > SESSION_RESULT_MAX) {
        r.kvs = (struct slice){0};
        msg_encode(&msg_op_result, &r, &a->s->brief);
    }
    buf_close(&kvs);
}

enum err cmd_put(struct apply *a, const void *req)
{
    const struct put_req *r = req;
    struct kv_change c = {r->key, r->value, r->lease, r->ignore_value, r->ignore_lease};
    enum err rc = kv_check_put(a->s, &c, true, &a->error);
    if (rc != ERR_OK)
        return rc;
    struct kv_room room = {STATE_RANGE_BYTES_MAX, STATE_RANGE_PAIRS_MAX};
    struct kv_prev prev = {.room = &room};
    kv_put(a, &c, r->prev_kv ? &prev : NULL);
    one_result(a, "put", 0, &prev);
    return ERR_OK;
}

enum err cmd_delete(struct apply *a, const void *req)
{
    const struct delete_req *r = req;
    uint64_t total = 0;
    enum err rc = kv_check_delete(a->s, r->key, r->end, &total, &a->error);
    if (rc != ERR_OK)
        return rc;
    struct kv_room room = {STATE_RANGE_BYTES_MAX, STATE_RANGE_PAIRS_MAX};
    struct kv_prev prev = {.room = &room};
    uint64_t n = kv_delete_range(a, r->key, r->end, r->prev_kv ? &prev : NULL);
    one_result(a, "delete", n, &prev);
    return ERR_OK;
}
