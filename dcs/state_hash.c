/* One number for the whole replicated content, to compare members at the same index (`regentctl dcs
 * hash`, tests). FNV-1a over every replicated field, counters in memory included; nothing of this
 * member's own: no expiry, no `logged`, no page of the file. */
#include "dcs/state_internal.h"

struct hash {
    uint64_t h;
};

static void mix(struct hash *h, const void *p, size_t n)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++)
        h->h = (h->h ^ b[i]) * 0x100000001b3u;
}

static void mix_u64(struct hash *h, uint64_t v)
{
    uint8_t b[8];
    for (size_t i = 0; i < sizeof b; i++)
        b[i] = (uint8_t)(v >> (8 * i));
    mix(h, b, sizeof b);
}

static void mix_value(struct hash *h, sqlite3_stmt *st, int column)
{
    int type = sqlite3_column_type(st, column);
    mix_u64(h, (uint64_t)type);
    if (type == SQLITE_INTEGER) {
        mix_u64(h, (uint64_t)sqlite3_column_int64(st, column));
    } else if (type != SQLITE_NULL) {
        const void *p = sqlite3_column_blob(st, column);
        size_t n = (size_t)sqlite3_column_bytes(st, column);
        mix_u64(h, n);
        mix(h, p, n);
    }
}

static int mix_rows(sqlite3 *db, struct hash *h, const char *sql)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
    while (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        for (int i = 0; i < sqlite3_column_count(st); i++)
            mix_value(h, st, i);
        rc = SQLITE_OK;
    }
    (void)sqlite3_finalize(st);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static void mix_query(struct state *s, struct hash *h, const char *sql)
{
    if (mix_rows(s->db, h, sql) != SQLITE_OK)
        state_fatal(s, sql);
}

enum err hash_database(sqlite3 *db, const char *path, uint64_t *ret_hash, struct errmsg *e)
{
    static const char *const queries[] = {
        "SELECT revision, compacted, next_member, event_first, event_next FROM store",
        "SELECT event_bytes - event_bytes_dropped FROM store",
        "SELECT * FROM kv ORDER BY key",
        "SELECT * FROM event ORDER BY id",
        "SELECT * FROM lease ORDER BY id",
        "SELECT * FROM session ORDER BY id",
        "SELECT * FROM result ORDER BY session, slot",
        "SELECT * FROM token ORDER BY id",
        "SELECT * FROM member ORDER BY id",
    };
    struct hash h = {.h = 0xcbf29ce484222325u};
    int rc = SQLITE_OK;
    for (size_t i = 0; rc == SQLITE_OK && i < ARRAY_LEN(queries); i++)
        rc = mix_rows(db, &h, queries[i]);
    if (rc != SQLITE_OK)
        return err_set(e, state_sqlite_err(rc), "%s: %s", path, sqlite3_errmsg(db));
    *ret_hash = h.h;
    return ERR_OK;
}

enum err cmd_hash(struct apply *a, const void *req)
{
    struct hash_reply result = {.index = a->index};
    (void)req;
    a->s->marked = true;
    apply_result(a, &msg_hash_reply, &result);
    return ERR_OK;
}

bool state_take_mark(struct state *s)
{
    bool marked = s->marked;
    s->marked = false;
    return marked;
}

static void mix_memory(struct state *s, struct hash *h)
{
    for (size_t i = 0; i < s->leases.n; i++) {
        const struct lease *l = &s->leases.v[i];
        mix_u64(h, l->id);
        mix_u64(h, l->ttl_ms);
        mix_u64(h, l->nonce);
        mix_u64(h, l->n);
        mix_u64(h, l->session);
    }
    for (size_t i = 0; i < s->sessions->n; i++) {
        const struct session *x = &s->sessions->v[i];
        mix_u64(h, x->id);
        mix_u64(h, x->nonce);
        mix_u64(h, x->last_seq);
        mix_u64(h, x->used_index);
    }
}

uint64_t state_hash(struct state *s)
{
    struct hash h = {.h = 0xcbf29ce484222325u};
    CHECK_MAGIC(s, STATE_MAGIC);
    mix_u64(&h, s->m.revision);
    mix_u64(&h, s->m.compacted);
    mix_u64(&h, s->m.next_member);
    mix_u64(&h, s->m.event_first);
    mix_u64(&h, s->m.event_next);
    mix_u64(&h, s->m.event_bytes - s->m.event_bytes_dropped);
    mix_query(s, &h, "SELECT * FROM kv ORDER BY key");
    mix_query(s, &h, "SELECT * FROM event ORDER BY id");
    mix_query(s, &h, "SELECT * FROM result ORDER BY session, slot");
    mix_query(s, &h, "SELECT * FROM token ORDER BY id");
    mix_query(s, &h, "SELECT * FROM member ORDER BY id");
    mix_memory(s, &h);
    return h.h;
}
