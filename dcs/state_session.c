#include "dcs/state_internal.h"

#include "dcs/row_hash.h"
#include "dcs/state_session.h"

#include "base/mutant.h"

/* ---- the table in memory ---- */

static uint64_t hash_of(const struct session *s)
{
    uint64_t h = row_hash_u64(row_hash_begin(ROW_SESSION), s->id);
    h = row_hash_u64(row_hash_u64(h, s->nonce), s->last_seq);
    return row_hash_end(row_hash_u64(h, s->used_index));
}

void session_table_clear(struct session_table *t)
{
    t->n = 0;
    t->n_dirty = 0;
    t->sum = 0;
}

struct session *session_find(struct session_table *t, uint64_t id)
{
    size_t low = 0, high = t->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (t->v[mid].id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low < t->n && t->v[low].id == id ? &t->v[low] : NULL;
}

struct session *session_of_nonce(struct session_table *t, uint64_t nonce)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->v[i].nonce == nonce)
            return &t->v[i];
    return NULL;
}

struct session *session_add(struct session_table *t, const struct session *s)
{
    ASSERT(t->n < SESSIONS_MAX);
    ASSERT(t->n == 0 || t->v[t->n - 1].id < s->id);
    t->v[t->n] = *s;
    t->v[t->n].dirty = false;
    t->sum += hash_of(s);
    return &t->v[t->n++];
}

void session_remove(struct session_table *t, struct session *s)
{
    ASSERT(s >= t->v && s < t->v + t->n);
    t->n_dirty -= s->dirty;
    t->sum -= hash_of(s);
    memmove(s, s + 1, (size_t)(t->v + t->n - (s + 1)) * sizeof *s);
    t->n--;
}

void session_touch(struct session_table *t, struct session *s, uint64_t seq, uint64_t index)
{
    ASSERT(index >= s->used_index);
    t->sum -= hash_of(s);
    s->last_seq = MAX(s->last_seq, seq);
    s->used_index = index;
    t->sum += hash_of(s);
    t->n_dirty += !s->dirty;
    s->dirty = true;
}

/* ---- opening and evicting ---- */

static bool holds_lease(const struct state *s, uint64_t session)
{
    for (size_t i = 0; i < s->leases.n; i++)
        if (s->leases.v[i].session == session)
            return true;
    return false;
}

/* The one used longest ago, by Raft index. A session whose lease lives belongs to an agent, which may
 * have nothing to write for days: it goes only when all others are of that kind, too. */
static struct session *pick_victim(struct state *s)
{
    struct session *oldest = NULL, *oldest_free = NULL;
    for (size_t i = 0; i < s->sessions->n; i++) {
        struct session *x = &s->sessions->v[i];
        if (oldest == NULL || x->used_index < oldest->used_index)
            oldest = x;
        bool candidate = oldest_free == NULL || x->used_index < oldest_free->used_index;
        if (candidate && !holds_lease(s, x->id))
            oldest_free = x;
    }
    return oldest_free != NULL ? oldest_free : oldest;
}

static struct kept_result read_result(struct state *s, enum sql which)
{
    return (struct kept_result){.seq = sql_u64(s, which, 0),
                                .error = sql_text(s, which, 1),
                                .message = sql_text(s, which, 2),
                                .body = sql_blob(s, which, 3)};
}

static void drop_results(struct state *s, uint64_t session)
{
    sql_bind_u64(s, SQL_RESULT_ALL, 1, session);
    while (sql_row(s, SQL_RESULT_ALL)) {
        struct kept_result r = read_result(s, SQL_RESULT_ALL);
        s->m.rows_sum -= hash_result(session, sql_u64(s, SQL_RESULT_ALL, 4), &r);
    }
    sql_bind_u64(s, SQL_RESULT_DELETE, 1, session);
    sql_write(s, SQL_RESULT_DELETE);
}

static void evict(struct state *s)
{
    struct session *x = pick_victim(s);
    ASSERT(x != NULL);
    sql_bind_u64(s, SQL_SESSION_DELETE, 1, x->id);
    sql_write(s, SQL_SESSION_DELETE);
    drop_results(s, x->id);
    session_remove(s->sessions, x);
}

static struct session *open_new(struct apply *a, uint64_t nonce)
{
    struct state *s = a->s;
    struct session x = {.id = apply_new_id(a), .nonce = nonce, .used_index = a->index};
    if (s->sessions->n == SESSIONS_MAX)
        evict(s);
    sql_bind_u64(s, SQL_SESSION_INSERT, 1, x.id);
    sql_bind_u64(s, SQL_SESSION_INSERT, 2, x.nonce);
    sql_bind_u64(s, SQL_SESSION_INSERT, 3, x.last_seq);
    sql_bind_u64(s, SQL_SESSION_INSERT, 4, x.used_index);
    sql_write(s, SQL_SESSION_INSERT);
    return session_add(s->sessions, &x);
}

enum err cmd_session_open(struct apply *a, const void *req)
{
    const struct session_open *r = req;
    if (r->nonce == 0)
        return err_set(&a->error, ERR_INVALID,
                       "session: the nonce is 0; choose a random number");
    struct session *x = session_of_nonce(a->s->sessions, r->nonce);
    if (x == NULL)
        x = open_new(a, r->nonce);
    else
        session_touch(a->s->sessions, x, 0, a->index);
    struct session_reply reply = {.session = x->id, .revision = apply_revision_now(a)};
    apply_result(a, &msg_session_reply, &reply);
    return ERR_OK;
}

/* ---- once ---- */

/* Slots are a ring: the row of a sequence is overwritten by the one SESSION_WINDOW later. */
static bool find_result(struct apply *a, uint64_t session, uint64_t seq, enum err *ret_status)
{
    struct state *s = a->s;
    bool found = false;
    sql_bind_u64(s, SQL_RESULT_GET, 1, session);
    sql_bind_u64(s, SQL_RESULT_GET, 2, seq % SESSION_WINDOW);
    if (!sql_row(s, SQL_RESULT_GET))
        return false;
    struct kept_result r = read_result(s, SQL_RESULT_GET);
    if (r.seq == seq) {
        *ret_status = r.error[0] == '\0' ? ERR_OK : err_from_name(slice_str(r.error));
        (void)err_set(&a->error, *ret_status, "%s", r.message);
        buf_append_slice(&s->result, r.body);
        found = true;
    }
    sql_done(s, SQL_RESULT_GET);
    return found;
}

bool state_has_result(struct state *s, uint64_t session, uint64_t seq)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    sql_bind_u64(s, SQL_RESULT_GET, 1, session);
    sql_bind_u64(s, SQL_RESULT_GET, 2, seq % SESSION_WINDOW);
    if (!sql_row(s, SQL_RESULT_GET))
        return false;
    bool found = sql_u64(s, SQL_RESULT_GET, 0) == seq;
    sql_done(s, SQL_RESULT_GET);
    return found;
}

enum err session_enter(struct apply *a, uint64_t session, uint64_t seq, enum err *ret_status)
{
    struct session *x = session_find(a->s->sessions, session);
    if (x == NULL)
        return err_set(&a->error, ERR_PRECONDITION,
                       "session %llu is unknown, %d others were used since; open a new one",
                       (unsigned long long)session, (int)SESSIONS_MAX);
    if (seq == 0)
        return err_set(&a->error, ERR_INVALID, "session: sequences start at 1");
    if (x->last_seq >= SESSION_WINDOW && seq <= x->last_seq - SESSION_WINDOW)
        return err_set(&a->error, ERR_OUTCOME_UNKNOWN,
                       "sequence %llu: its result is not kept any more, the session is at %llu",
                       (unsigned long long)seq, (unsigned long long)x->last_seq);
    bool done = seq <= x->last_seq && !MUTANT(apply_retry_again) &&
                find_result(a, session, seq, ret_status);
    session_touch(a->s->sessions, x, seq, a->index);
    return done ? ERR_OK : ERR_NOT_FOUND;
}

/* The hash of what a slot holds; 0: nothing. */
static uint64_t slot_hash(struct state *s, const struct session *x, uint64_t slot)
{
    if ((x->known >> slot & 1) != 0)
        return x->result_hash[slot];
    sql_bind_u64(s, SQL_RESULT_GET, 1, x->id);
    sql_bind_u64(s, SQL_RESULT_GET, 2, slot);
    if (!sql_row(s, SQL_RESULT_GET))
        return 0;
    struct kept_result r = read_result(s, SQL_RESULT_GET);
    uint64_t h = hash_result(x->id, slot, &r);
    sql_done(s, SQL_RESULT_GET);
    return h;
}

static void note_result(struct state *s, uint64_t session, const struct kept_result *r)
{
    struct session *x = session_find(s->sessions, session);
    uint64_t slot = r->seq % SESSION_WINDOW;
    ASSERT(x != NULL);
    uint64_t h = hash_result(session, slot, r);
    s->m.rows_sum += h - slot_hash(s, x, slot);
    x->result_hash[slot] = h;
    x->known |= (uint64_t)1 << slot;
}

void session_keep(struct apply *a, uint64_t session, uint64_t seq, enum err status)
{
    struct state *s = a->s;
    bool ok = status == ERR_OK;
    struct slice body = buf_slice(s->result.len > SESSION_RESULT_MAX ? &s->brief : &s->result);
    ASSERT(body.n <= SESSION_RESULT_MAX);
    struct kept_result kept = {.seq = seq,
                               .error = ok ? "" : err_name(status),
                               .message = ok ? "" : a->error.text,
                               .body = ok ? body : (struct slice){0}};
    note_result(s, session, &kept);
    sql_bind_u64(s, SQL_RESULT_SET, 1, session);
    sql_bind_u64(s, SQL_RESULT_SET, 2, seq % SESSION_WINDOW);
    sql_bind_u64(s, SQL_RESULT_SET, 3, seq);
    sql_bind_text(s, SQL_RESULT_SET, 4, ok ? NULL : err_name(status));
    sql_bind_text(s, SQL_RESULT_SET, 5, ok ? NULL : a->error.text);
    sql_bind_blob(s, SQL_RESULT_SET, 6, ok ? body : (struct slice){0});
    sql_write(s, SQL_RESULT_SET);
}
