#include "dcs/raft_frame.h"

#include "base/assert.h"
#include "base/mem.h"
#include "dcs/raft_membership.h"

enum { VERSION = 1, FLAG_PRE_VOTE = 1, FLAG_DISRUPT = 2, FLAG_GRANTED = 2 };

/* ---- encoding ---- */

static void encode_append(const struct raft_frame *f, struct buf *b)
{
    ASSERT(f->append.n <= RAFT_FRAME_ENTRIES_MAX);
    buf_append_be64(b, f->append.prev_index);
    buf_append_be64(b, f->append.prev_term);
    buf_append_be64(b, f->append.commit);
    buf_append_be32(b, (uint32_t)f->append.n);
    for (size_t i = 0; i < f->append.n; i++) {
        const struct raft_entry_view *v = &f->append.entries[i];
        ASSERT(v->data.n <= RAFT_FRAME_ENTRY_MAX);
        buf_append_be64(b, v->term);
        buf_append_u8(b, (uint8_t)v->type);
        buf_append_be32(b, (uint32_t)v->data.n);
        buf_append_slice(b, v->data);
    }
}

static void encode_install(const struct raft_snapshot_info *s, struct buf *b)
{
    struct buf membership = BUF_INIT;
    raft_membership_encode(&s->membership, &membership);
    buf_append_be64(b, s->index);
    buf_append_be64(b, s->term);
    buf_append_be64(b, s->size);
    buf_append(b, s->sha256, sizeof s->sha256);
    buf_append_be64(b, s->membership.index);
    buf_append_be32(b, (uint32_t)membership.len);
    buf_append_slice(b, buf_slice(&membership));
    buf_close(&membership);
}

void raft_frame_encode(const struct raft_frame *f, struct buf *ret)
{
    size_t start = ret->len;
    buf_append_u8(ret, VERSION);
    buf_append_u8(ret, (uint8_t)f->type);
    buf_append_be64(ret, f->term);
    switch (f->type) {
    case RAFT_FRAME_APPEND:
        encode_append(f, ret);
        break;
    case RAFT_FRAME_APPEND_RESULT:
        buf_append_be64(ret, f->append_result.rejected);
        buf_append_be64(ret, f->append_result.last_index);
        break;
    case RAFT_FRAME_VOTE:
        buf_append_be64(ret, f->vote.last_index);
        buf_append_be64(ret, f->vote.last_term);
        buf_append_u8(ret, (uint8_t)((f->vote.pre_vote ? FLAG_PRE_VOTE : 0) |
                                     (f->vote.disrupt_leader ? FLAG_DISRUPT : 0)));
        break;
    case RAFT_FRAME_VOTE_RESULT:
        buf_append_u8(ret, (uint8_t)((f->vote_result.pre_vote ? FLAG_PRE_VOTE : 0) |
                                     (f->vote_result.granted ? FLAG_GRANTED : 0)));
        break;
    case RAFT_FRAME_INSTALL:
        encode_install(&f->install, ret);
        break;
    case RAFT_FRAME_TIMEOUT_NOW:
        buf_append_be64(ret, f->timeout_now.last_index);
        buf_append_be64(ret, f->timeout_now.last_term);
        break;
    }
    ASSERT(buf_ok(ret) && ret->len - start <= RAFT_FRAME_MAX);
}

/* ---- decoding: a reader that remembers its first failure ---- */

struct reader {
    struct slice rest;
    bool bad;
};

static const uint8_t *take(struct reader *r, size_t n)
{
    if (r->bad || r->rest.n < n) {
        r->bad = true;
        return NULL;
    }
    const uint8_t *p = r->rest.p;
    r->rest = slice_of(p + n, r->rest.n - n);
    return p;
}

static uint64_t read_be(struct reader *r, size_t n)
{
    const uint8_t *p = take(r, n);
    uint64_t v = 0;
    for (size_t i = 0; p != NULL && i < n; i++)
        v = v << 8 | p[i];
    return v;
}

/* A term or an index: SQLite's integers are signed. Half of the range leaves room to add. */
static uint64_t read_number(struct reader *r)
{
    uint64_t v = read_be(r, 8);
    if (v > INT64_MAX / 2)
        r->bad = true;
    return v;
}

static uint8_t read_flags(struct reader *r)
{
    uint64_t v = read_be(r, 1);
    if (v > 3)
        r->bad = true;
    return (uint8_t)v;
}

/* Position and term of an entry: both zero (before the first) or both not. */
static void check_position(struct reader *r, uint64_t index, uint64_t term, uint64_t max_term)
{
    if ((index == 0) != (term == 0) || term > max_term)
        r->bad = true;
}

static void read_entry(struct reader *r, uint64_t index, uint64_t min_term, uint64_t max_term,
                       struct raft_entry_view *ret)
{
    ret->term = read_number(r);
    uint64_t type = read_be(r, 1);
    size_t n = (size_t)read_be(r, 4);
    ret->data = slice_of(take(r, n), n);
    if (r->bad || ret->term == 0 || ret->term < min_term || ret->term > max_term ||
        type < RAFT_ENTRY_COMMAND || type > RAFT_ENTRY_CHANGE || n > RAFT_FRAME_ENTRY_MAX) {
        r->bad = true;
        return;
    }
    ret->type = (enum raft_entry_type)type;
    struct raft_membership m;
    if (ret->type == RAFT_ENTRY_CHANGE &&
        raft_membership_decode(ret->data, index, &m) != ERR_OK)
        r->bad = true;
}

static void decode_append(struct reader *r, struct raft_frame *f)
{
    f->append.prev_index = read_number(r);
    f->append.prev_term = read_number(r);
    f->append.commit = read_number(r);
    size_t n = (size_t)read_be(r, 4);
    check_position(r, f->append.prev_index, f->append.prev_term, f->term);
    if (r->bad || n > RAFT_FRAME_ENTRIES_MAX || n > r->rest.n / RAFT_FRAME_ENTRY_OVERHEAD) {
        r->bad = true;
        return;
    }
    if (n == 0)
        return;
    f->append.entries = mem_array(n, sizeof *f->append.entries);
    uint64_t min_term = f->append.prev_term;
    for (size_t i = 0; i < n && !r->bad; i++) {
        read_entry(r, f->append.prev_index + 1 + i, min_term, f->term, &f->append.entries[i]);
        min_term = f->append.entries[i].term;
    }
    f->append.n = n;
}

static void decode_install(struct reader *r, uint64_t term, struct raft_snapshot_info *s)
{
    s->index = read_number(r);
    s->term = read_number(r);
    s->size = read_number(r);
    const uint8_t *hash = take(r, sizeof s->sha256);
    uint64_t membership_index = read_number(r);
    size_t n = (size_t)read_be(r, 4);
    const uint8_t *p = take(r, n);
    check_position(r, s->index, s->term, term);
    if (r->bad || s->index == 0 || membership_index == 0 || membership_index > s->index ||
        raft_membership_decode(slice_of(p, n), membership_index, &s->membership) != ERR_OK) {
        r->bad = true;
        return;
    }
    memcpy(s->sha256, hash, sizeof s->sha256);
}

static void decode_body(struct reader *r, struct raft_frame *f)
{
    uint8_t flags;
    switch (f->type) {
    case RAFT_FRAME_APPEND:
        decode_append(r, f);
        break;
    case RAFT_FRAME_APPEND_RESULT:
        f->append_result.rejected = read_number(r);
        f->append_result.last_index = read_number(r);
        break;
    case RAFT_FRAME_VOTE:
        f->vote.last_index = read_number(r);
        f->vote.last_term = read_number(r);
        flags = read_flags(r);
        f->vote.pre_vote = flags & FLAG_PRE_VOTE;
        f->vote.disrupt_leader = flags & FLAG_DISRUPT;
        check_position(r, f->vote.last_index, f->vote.last_term, f->term);
        break;
    case RAFT_FRAME_VOTE_RESULT:
        flags = read_flags(r);
        f->vote_result.pre_vote = flags & FLAG_PRE_VOTE;
        f->vote_result.granted = flags & FLAG_GRANTED;
        break;
    case RAFT_FRAME_INSTALL:
        decode_install(r, f->term, &f->install);
        break;
    case RAFT_FRAME_TIMEOUT_NOW:
        f->timeout_now.last_index = read_number(r);
        f->timeout_now.last_term = read_number(r);
        check_position(r, f->timeout_now.last_index, f->timeout_now.last_term, f->term);
        break;
    }
}

/* A membership is long, and most frames have none. */
static void clear(struct raft_frame *f, enum raft_frame_type type, uint64_t term)
{
    size_t some = offsetof(struct raft_frame, append) + sizeof f->append;
    memset(f, 0, type == RAFT_FRAME_INSTALL ? sizeof *f : some);
    f->type = type;
    f->term = term;
}

enum err raft_frame_decode(struct slice bytes, struct raft_frame *ret_frame, struct errmsg *e)
{
    _Static_assert(sizeof ret_frame->append >= sizeof ret_frame->vote, "append is the longest");
    clear(ret_frame, RAFT_FRAME_TIMEOUT_NOW, 0);
    struct reader r = {.rest = bytes};
    uint64_t version = read_be(&r, 1);
    uint64_t type = read_be(&r, 1);
    uint64_t term = read_number(&r);
    if (r.bad || bytes.n > RAFT_FRAME_MAX || version != VERSION || type < RAFT_FRAME_APPEND ||
        type > RAFT_FRAME_TIMEOUT_NOW || term == 0)
        return err_set(e, ERR_INVALID,
                       "a raft frame of %zu bytes, version %u, type %u is unsound", bytes.n,
                       (unsigned)version, (unsigned)type);
    clear(ret_frame, (enum raft_frame_type)type, term);
    decode_body(&r, ret_frame);
    if (r.bad || r.rest.n != 0) {
        raft_frame_close(ret_frame);
        clear(ret_frame, RAFT_FRAME_TIMEOUT_NOW, 0);
        return err_set(e, ERR_INVALID, "a raft frame of type %u is damaged", (unsigned)type);
    }
    return ERR_OK;
}

void raft_frame_close(struct raft_frame *f)
{
    if (f->type == RAFT_FRAME_APPEND) {
        mem_free(TAKE(f->append.entries));
        f->append.n = 0;
    }
}
