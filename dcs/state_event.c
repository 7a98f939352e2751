/* The history: one row per changed key and revision, for watches that resume. Kept until compacted,
 * by counting alone (revisions and bytes): a clock would make members differ. */
#include "dcs/state_internal.h"

/* A delete's row has no value. What was there before is row `prev`, as long as that is kept. */
static void insert_event(struct state *s, bool deleted, const struct kv *kv, uint64_t prev)
{
    uint64_t id = s->m.event_next++;
    sql_bind_u64(s, SQL_EVENT_INSERT, 1, id);
    sql_bind_u64(s, SQL_EVENT_INSERT, 2, kv->mod_revision);
    sql_bind_u64(s, SQL_EVENT_INSERT, 3, deleted);
    sql_bind_blob(s, SQL_EVENT_INSERT, 4, kv->key);
    sql_bind_blob(s, SQL_EVENT_INSERT, 5, kv->value);
    sql_bind_u64(s, SQL_EVENT_INSERT, 6, kv->create_revision);
    sql_bind_u64(s, SQL_EVENT_INSERT, 7, kv->version);
    sql_bind_u64(s, SQL_EVENT_INSERT, 8, kv->lease);
    sql_bind_u64(s, SQL_EVENT_INSERT, 9, prev);
    sql_bind_u64(s, SQL_EVENT_INSERT, 10, s->m.event_bytes);
    sql_bind_u64(s, SQL_EVENT_INSERT, 11, s->m.event_sum);
    sql_write(s, SQL_EVENT_INSERT);
    s->m.event_sum += hash_event(id, deleted, kv, prev, s->m.event_bytes);
    s->m.event_bytes += kv->key.n + kv->value.n + STATE_EVENT_OVERHEAD;
}

/* Is it worth that `state.db` alone shows it soon? See state_tidy(). */
static bool is_news(bool deleted, const struct kv *kv)
{
    static const char own[] = "/regent/";
    return deleted || kv->version == 1 || kv->key.n < sizeof own - 1 ||
           memcmp(kv->key.p, own, sizeof own - 1) != 0;
}

void event_add(struct apply *a, bool deleted, const struct kv *kv, const struct kv *prev,
               uint64_t prev_event)
{
    ASSERT(kv->mod_revision == a->revision);
    insert_event(a->s, deleted, kv, prev_event);
    a->s->news = a->s->news || is_news(deleted, kv);
    if (a->ops != NULL && a->ops->event != NULL)
        a->ops->event(a->arg, deleted, kv, prev);
}

/* ---- finding rows: both columns rise with the id, and ids have no gaps ---- */

struct event_at {
    uint64_t revision;
    uint64_t bytes; /* of all rows before this one */
    uint64_t sum;   /* of the hashes of all rows before this one */
};

static struct event_at event_at(struct state *s, uint64_t id)
{
    ASSERT(id >= s->m.event_first && id < s->m.event_next);
    sql_bind_u64(s, SQL_EVENT_AT, 1, id);
    if (!sql_row(s, SQL_EVENT_AT))
        state_fatal(s, "a row of the history is missing: reading it");
    struct event_at at = {.revision = sql_u64(s, SQL_EVENT_AT, 0),
                          .bytes = sql_u64(s, SQL_EVENT_AT, 1),
                          .sum = sql_u64(s, SQL_EVENT_AT, 2)};
    sql_done(s, SQL_EVENT_AT);
    return at;
}

/* The first row whose revision and bytes reach the given ones; event_next: none. */
static uint64_t event_search(struct state *s, uint64_t revision, uint64_t bytes)
{
    uint64_t low = s->m.event_first, high = s->m.event_next;
    while (low < high) {
        uint64_t mid = low + (high - low) / 2;
        struct event_at at = event_at(s, mid);
        if (at.revision < revision || at.bytes < bytes)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

uint64_t history_above(struct state *s, uint64_t revision)
{
    return event_search(s, revision + 1, 0);
}

/* ---- compaction ---- */

static void compact_to(struct state *s, uint64_t revision)
{
    if (revision <= s->m.compacted)
        return;
    uint64_t first = event_search(s, revision + 1, 0);
    struct event_at at = {.bytes = s->m.event_bytes, .sum = s->m.event_sum};
    if (first < s->m.event_next)
        at = event_at(s, first);
    s->m.event_bytes_dropped = at.bytes;
    s->m.event_sum_dropped = at.sum;
    sql_bind_u64(s, SQL_EVENT_DROP, 1, first);
    sql_write(s, SQL_EVENT_DROP);
    s->work += (first - s->m.event_first) * WORK_DROP;
    s->m.event_first = first;
    s->m.compacted = revision;
}

/* Down to `keep_bytes`, or a little less: whole revisions only. */
static void compact_bytes(struct state *s, uint64_t keep_bytes)
{
    ASSERT(s->m.event_bytes > keep_bytes);
    uint64_t first = event_search(s, 0, s->m.event_bytes - keep_bytes);
    ASSERT(first > s->m.event_first);
    compact_to(s, event_at(s, first - 1).revision);
}

void history_trim(struct state *s)
{
    uint64_t revision = s->m.revision;
    if (s->m.event_bytes - s->m.event_bytes_dropped > STATE_HISTORY_BYTES)
        compact_bytes(s, STATE_HISTORY_BYTES / 4 * 3);
    if (revision % STATE_HISTORY_STEP == 0 && revision > STATE_HISTORY_REVISIONS)
        compact_to(s, revision - STATE_HISTORY_REVISIONS);
}

enum err cmd_compact(struct apply *a, const void *req)
{
    const struct compact_req *r = req;
    if (r->revision > a->s->m.revision)
        return err_set(&a->error, ERR_INVALID, "revision %llu is in the future, now is %llu",
                       (unsigned long long)r->revision, (unsigned long long)a->s->m.revision);
    if (r->revision <= a->s->m.compacted)
        return err_set(&a->error, ERR_COMPACTED, "compacted up to revision %llu before",
                       (unsigned long long)a->s->m.compacted);
    compact_to(a->s, r->revision);
    struct compact_reply result = {.revision = a->s->m.revision,
                                   .compacted_revision = a->s->m.compacted};
    apply_result(a, &msg_compact_reply, &result);
    return ERR_OK;
}

/* ---- replay ---- */

/* The pair that an event replaced, from its row. When that is compacted: none, as etcd does. */
static void find_prev(struct state *s, uint64_t prev_event, struct slice key,
                      struct kv *ret_prev)
{
    *ret_prev = (struct kv){.key = key};
    if (prev_event < s->m.event_first)
        return;
    sql_bind_u64(s, SQL_EVENT_PREV, 1, prev_event);
    if (!sql_row(s, SQL_EVENT_PREV))
        state_fatal(s, "a row of the history is missing: reading it");
    buf_clear(&s->value);
    buf_append_slice(&s->value, sql_blob(s, SQL_EVENT_PREV, 0));
    ret_prev->value = buf_slice(&s->value);
    ret_prev->create_revision = sql_u64(s, SQL_EVENT_PREV, 1);
    ret_prev->version = sql_u64(s, SQL_EVENT_PREV, 2);
    ret_prev->lease = sql_u64(s, SQL_EVENT_PREV, 3);
    ret_prev->mod_revision = sql_u64(s, SQL_EVENT_PREV, 4);
    sql_done(s, SQL_EVENT_PREV);
}

static size_t replay_row(struct state *s, const struct state_ops *ops, void *arg)
{
    struct kv kv = {
        .mod_revision = sql_u64(s, SQL_EVENT_FROM, 0),
        .key = sql_blob(s, SQL_EVENT_FROM, 2),
        .value = sql_blob(s, SQL_EVENT_FROM, 3),
        .create_revision = sql_u64(s, SQL_EVENT_FROM, 4),
        .version = sql_u64(s, SQL_EVENT_FROM, 5),
        .lease = sql_u64(s, SQL_EVENT_FROM, 6),
    };
    struct kv prev;
    bool deleted = sql_u64(s, SQL_EVENT_FROM, 1) != 0;
    find_prev(s, sql_u64(s, SQL_EVENT_FROM, 7), kv.key, &prev);
    if (ops->event != NULL)
        ops->event(arg, deleted, &kv, &prev);
    return kv.key.n + kv.value.n + prev.value.n;
}

enum err state_replay_some(struct state *s, uint64_t from_revision, size_t max_bytes,
                           const struct state_ops *ops, void *arg, uint64_t *ret_next)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    if (MAX(from_revision, (uint64_t)1) <= s->m.compacted)
        return ERR_COMPACTED;
    uint64_t open = 0; /* revision whose events are being told */
    uint64_t next = s->m.revision + 1;
    size_t bytes = 0;
    sql_bind_u64(s, SQL_EVENT_FROM, 1, event_search(s, from_revision, 0));
    while (sql_row(s, SQL_EVENT_FROM)) {
        uint64_t revision = sql_u64(s, SQL_EVENT_FROM, 0);
        if (open != 0 && revision != open && ops->revision_done != NULL)
            ops->revision_done(arg, open);
        if (open != 0 && revision != open && max_bytes != 0 && bytes > max_bytes) {
            next = revision;
            open = 0;
            sql_done(s, SQL_EVENT_FROM);
            break;
        }
        open = revision;
        bytes += replay_row(s, ops, arg);
    }
    if (open != 0 && ops->revision_done != NULL)
        ops->revision_done(arg, open);
    *ret_next = next;
    return ERR_OK;
}
