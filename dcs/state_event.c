/* The history: one row per changed key and revision, for watches that resume. Kept until compacted,
 * by counting alone (revisions and bytes): a clock would make members differ. */
#include "dcs/state_internal.h"

/* A delete's row has no value; what was there before is the row at prev_revision, if it is kept. */
static void insert_event(struct apply *a, bool deleted, const struct kv *kv,
                         uint64_t prev_revision)
{
    struct state *s = a->s;
    sql_bind_u64(s, SQL_EVENT_INSERT, 1, kv->mod_revision);
    sql_bind_u64(s, SQL_EVENT_INSERT, 2, a->sub++);
    sql_bind_u64(s, SQL_EVENT_INSERT, 3, deleted);
    sql_bind_blob(s, SQL_EVENT_INSERT, 4, kv->key);
    sql_bind_blob(s, SQL_EVENT_INSERT, 5, kv->value);
    sql_bind_u64(s, SQL_EVENT_INSERT, 6, kv->create_revision);
    sql_bind_u64(s, SQL_EVENT_INSERT, 7, kv->version);
    sql_bind_u64(s, SQL_EVENT_INSERT, 8, kv->lease);
    sql_bind_u64(s, SQL_EVENT_INSERT, 9, prev_revision);
    sql_write(s, SQL_EVENT_INSERT);
    s->m.history_bytes += kv->key.n + kv->value.n + STATE_EVENT_OVERHEAD;
}

void event_add(struct apply *a, bool deleted, const struct kv *kv, const struct kv *prev)
{
    ASSERT(kv->mod_revision == a->revision);
    insert_event(a, deleted, kv, prev->mod_revision);
    if (a->ops != NULL && a->ops->event != NULL)
        a->ops->event(a->arg, deleted, kv, prev);
}

/* ---- compaction ---- */

/* Drops revisions up to `upto`, or as many of them as it takes to come down to max_bytes. */
static void compact_to(struct state *s, uint64_t upto, uint64_t max_bytes)
{
    uint64_t bytes = s->m.history_bytes, last = 0;
    sql_bind_u64(s, SQL_EVENT_SIZES, 1, upto);
    while (sql_row(s, SQL_EVENT_SIZES)) {
        uint64_t revision = sql_u64(s, SQL_EVENT_SIZES, 0);
        if (revision != last && bytes <= max_bytes) { /* whole revisions only */
            upto = last;
            sql_done(s, SQL_EVENT_SIZES);
            break;
        }
        last = revision;
        bytes -= sql_u64(s, SQL_EVENT_SIZES, 1) + STATE_EVENT_OVERHEAD;
    }
    if (upto <= s->m.compacted)
        return;
    sql_bind_u64(s, SQL_EVENT_DELETE, 1, upto);
    sql_write(s, SQL_EVENT_DELETE);
    s->m.history_bytes = bytes;
    s->m.compacted = upto;
}

void history_trim(struct state *s)
{
    uint64_t revision = s->m.revision;
    if (s->m.history_bytes > STATE_HISTORY_BYTES)
        compact_to(s, revision, STATE_HISTORY_BYTES / 4 * 3);
    if (revision % STATE_HISTORY_STEP == 0 && revision > STATE_HISTORY_REVISIONS)
        compact_to(s, revision - STATE_HISTORY_REVISIONS, 0);
}

enum err cmd_compact(struct apply *a, const void *req)
{
    const struct compact_cmd *r = req;
    if (r->revision > a->s->m.revision)
        return err_set(&a->error, ERR_INVALID, "revision %llu is in the future, now is %llu",
                       (unsigned long long)r->revision, (unsigned long long)a->s->m.revision);
    if (r->revision <= a->s->m.compacted)
        return err_set(&a->error, ERR_COMPACTED, "compacted up to revision %llu before",
                       (unsigned long long)a->s->m.compacted);
    compact_to(a->s, r->revision, 0);
    struct empty result;
    memset(&result, 0, sizeof result);
    apply_result(a, &msg_empty, &result);
    return ERR_OK;
}

/* ---- replay ---- */

/* The pair that the event at (revision, sub) replaced. Of a compacted one only the revision would
 * be known: given as none, as etcd does. */
static void find_prev(struct state *s, uint64_t prev_revision, const struct kv *kv,
                      uint64_t sub, struct kv *ret_prev)
{
    *ret_prev = (struct kv){.key = kv->key};
    if (prev_revision == 0)
        return;
    sql_bind_u64(s, SQL_EVENT_PREV, 1, prev_revision);
    sql_bind_blob(s, SQL_EVENT_PREV, 2, kv->key);
    sql_bind_u64(s, SQL_EVENT_PREV, 3, kv->mod_revision);
    sql_bind_u64(s, SQL_EVENT_PREV, 4, sub);
    if (!sql_row(s, SQL_EVENT_PREV))
        return;
    buf_clear(&s->value);
    buf_append_slice(&s->value, sql_blob(s, SQL_EVENT_PREV, 0));
    ret_prev->value = buf_slice(&s->value);
    ret_prev->create_revision = sql_u64(s, SQL_EVENT_PREV, 1);
    ret_prev->version = sql_u64(s, SQL_EVENT_PREV, 2);
    ret_prev->lease = sql_u64(s, SQL_EVENT_PREV, 3);
    ret_prev->mod_revision = prev_revision;
    sql_done(s, SQL_EVENT_PREV);
}

static size_t replay_row(struct state *s, const struct state_ops *ops, void *arg)
{
    struct kv kv = {
        .mod_revision = sql_u64(s, SQL_EVENT_FROM, 0),
        .key = sql_blob(s, SQL_EVENT_FROM, 3),
        .value = sql_blob(s, SQL_EVENT_FROM, 4),
        .create_revision = sql_u64(s, SQL_EVENT_FROM, 5),
        .version = sql_u64(s, SQL_EVENT_FROM, 6),
        .lease = sql_u64(s, SQL_EVENT_FROM, 7),
    };
    struct kv prev;
    bool deleted = sql_u64(s, SQL_EVENT_FROM, 2) != 0;
    find_prev(s, sql_u64(s, SQL_EVENT_FROM, 8), &kv, sql_u64(s, SQL_EVENT_FROM, 1), &prev);
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
    sql_bind_u64(s, SQL_EVENT_FROM, 1, from_revision);
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

enum err state_replay(struct state *s, uint64_t from_revision, const struct state_ops *ops,
                      void *arg)
{
    uint64_t next;
    return state_replay_some(s, from_revision, 0, ops, arg, &next);
}
