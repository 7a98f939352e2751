#include "proto/mp.h"

#include <msgpack/pack.h>

#include "base/assert.h"

/* ---- scanner ---- */

/* What the head of a value says: its own size with the payload, or how many elements follow. */
struct head {
    uint64_t size; /* head and payload bytes */
    uint64_t elements;
    bool container;
};

static uint64_t be(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

/* Bytes of a big-endian length behind the first byte; 0 when it is in the byte or there is none. */
static unsigned length_bytes(uint8_t t)
{
    switch (t) {
    case 0xc4: /* bin 8 */
    case 0xd9: /* str 8 */
        return 1;
    case 0xc5: /* bin 16 */
    case 0xda: /* str 16 */
    case 0xdc: /* array 16 */
    case 0xde: /* map 16 */
        return 2;
    case 0xc6: /* bin 32 */
    case 0xdb: /* str 32 */
    case 0xdd: /* array 32 */
    case 0xdf: /* map 32 */
        return 4;
    default:
        return 0;
    }
}

/* Sizes of the types 0xc0..0xdf that have a fixed one; 0: see length_bytes, or refused. */
static const uint8_t fixed_size[32] = {
    [0x00] = 1,                                     /* nil */
    [0x02] = 1, [0x03] = 1,                         /* false, true */
    [0x0a] = 5, [0x0b] = 9,                         /* float 32, 64 */
    [0x0c] = 2, [0x0d] = 3, [0x0e] = 5, [0x0f] = 9, /* uint 8..64 */
    [0x10] = 2, [0x11] = 3, [0x12] = 5, [0x13] = 9, /* int 8..64 */
};

static enum err head_read(struct slice in, struct head *ret)
{
    if (in.n == 0)
        return ERR_UNAVAILABLE;
    uint8_t t = in.p[0];
    *ret = (struct head){.size = 1};
    if (t <= 0x7f || t >= 0xe0)
        return ERR_OK;
    if (t <= 0x9f) { /* fixmap, fixarray */
        ret->container = true;
        ret->elements = t <= 0x8f ? 2U * (t & 0x0fU) : t & 0x0fU;
        return ERR_OK;
    }
    if (t <= 0xbf) { /* fixstr */
        ret->size = 1U + (t & 0x1fU);
        return ERR_OK;
    }
    if (fixed_size[t - 0xc0] != 0) {
        ret->size = fixed_size[t - 0xc0];
        return ERR_OK;
    }
    unsigned n = length_bytes(t);
    if (n == 0)
        return ERR_INVALID; /* 0xc1 and the extension types */
    if (in.n < 1U + n)
        return ERR_UNAVAILABLE;
    uint64_t length = be(in.p + 1, n);
    ret->size = 1 + n;
    if (t < 0xdc) {
        ret->size += length;
    } else {
        ret->container = true;
        ret->elements = t >= 0xde ? 2 * length : length;
    }
    return ERR_OK;
}

void mp_scanner_init(struct mp_scanner *s)
{
    s->pos = 0;
    s->elements = 0;
    s->depth = 0;
    s->started = false;
}

static bool scanner_done(const struct mp_scanner *s)
{
    return s->started && s->depth == 0;
}

/* Takes the value (or the head of the container) that was just read. */
static enum err scanner_take(struct mp_scanner *s, const struct head *h,
                             const struct mp_limits *limits)
{
    if (h->size > limits->bytes - s->pos)
        return ERR_LIMIT;
    if (h->elements > limits->elements - s->elements)
        return ERR_LIMIT;
    if (h->container && s->depth >= MIN(limits->depth, (unsigned)MP_DEPTH_MAX))
        return ERR_LIMIT;
    s->started = true;
    s->pos += (size_t)h->size;
    s->elements += (size_t)h->elements;
    if (s->depth > 0)
        s->left[s->depth - 1]--;
    if (h->elements > 0)
        s->left[s->depth++] = (size_t)h->elements;
    while (s->depth > 0 && s->left[s->depth - 1] == 0)
        s->depth--;
    return ERR_OK;
}

enum err mp_scanner_run(struct mp_scanner *s, struct slice in, const struct mp_limits *limits)
{
    while (!scanner_done(s)) {
        if (s->pos >= limits->bytes)
            return ERR_LIMIT;
        if (s->pos >= in.n)
            return ERR_UNAVAILABLE; /* inside a payload, or right behind one */
        struct head h;
        enum err rc = head_read(slice_of(in.p + s->pos, in.n - s->pos), &h);
        if (rc == ERR_OK)
            rc = scanner_take(s, &h, limits);
        if (rc != ERR_OK)
            return rc;
    }
    return s->pos <= in.n ? ERR_OK : ERR_UNAVAILABLE;
}

enum err mp_scan(struct slice in, const struct mp_limits *limits, size_t *ret_size)
{
    struct mp_scanner s;
    mp_scanner_init(&s);
    enum err rc = mp_scanner_run(&s, in, limits);
    if (rc == ERR_OK)
        *ret_size = s.pos;
    return rc;
}

/* ---- cursor ---- */

static void advance(struct mp_reader *r, size_t n)
{
    r->rest = slice_of(r->rest.p + n, r->rest.n - n);
}

/* The head at the cursor, whose bytes (for a container: whose head) are all there. */
static enum err head_here(const struct mp_reader *r, struct head *ret)
{
    if (head_read(r->rest, ret) != ERR_OK || ret->size > r->rest.n)
        return ERR_INVALID;
    return ERR_OK;
}

enum err mp_read_nil(struct mp_reader *r)
{
    if (r->rest.n == 0 || r->rest.p[0] != 0xc0)
        return ERR_INVALID;
    advance(r, 1);
    return ERR_OK;
}

enum err mp_read_bool(struct mp_reader *r, bool *ret)
{
    if (r->rest.n == 0 || (r->rest.p[0] & 0xfe) != 0xc2)
        return ERR_INVALID;
    *ret = r->rest.p[0] == 0xc3;
    advance(r, 1);
    return ERR_OK;
}

/* Any integer: its 64 bits and whether they are to be read as a negative number. */
static enum err read_int(struct mp_reader *r, uint64_t *ret_bits, bool *ret_negative)
{
    struct head h;
    if (head_here(r, &h) != ERR_OK)
        return ERR_INVALID;
    uint8_t t = r->rest.p[0];
    unsigned n = (unsigned)h.size - 1;
    uint64_t bits;
    bool is_signed = false;
    if (t <= 0x7f) {
        bits = t;
    } else if (t >= 0xe0) {
        bits = (uint64_t)(int64_t)(int8_t)t;
        is_signed = true;
    } else if (t >= 0xcc && t <= 0xcf) {
        bits = be(r->rest.p + 1, n);
    } else if (t >= 0xd0 && t <= 0xd3) {
        bits = be(r->rest.p + 1, n);
        is_signed = true;
        if (n < 8 && (bits >> (8 * n - 1)) != 0)
            bits |= UINT64_MAX << (8 * n);
    } else {
        return ERR_INVALID;
    }
    *ret_bits = bits;
    *ret_negative = is_signed && (bits >> 63) != 0;
    return ERR_OK;
}

static void skip_head(struct mp_reader *r)
{
    struct head h;
    enum err rc = head_here(r, &h);
    ASSERT(rc == ERR_OK);
    advance(r, (size_t)h.size);
}

enum err mp_read_u64(struct mp_reader *r, uint64_t *ret)
{
    uint64_t bits;
    bool negative;
    if (read_int(r, &bits, &negative) != ERR_OK || negative)
        return ERR_INVALID;
    *ret = bits;
    skip_head(r);
    return ERR_OK;
}

enum err mp_read_i64(struct mp_reader *r, int64_t *ret)
{
    uint64_t bits;
    bool negative;
    if (read_int(r, &bits, &negative) != ERR_OK || (!negative && bits > INT64_MAX))
        return ERR_INVALID;
    *ret = (int64_t)bits;
    skip_head(r);
    return ERR_OK;
}

enum err mp_read_bytes(struct mp_reader *r, struct slice *ret)
{
    struct head h;
    if (head_here(r, &h) != ERR_OK)
        return ERR_INVALID;
    uint8_t t = r->rest.p[0];
    bool fix = t >= 0xa0 && t <= 0xbf;
    unsigned n = length_bytes(t);
    if (!fix && (n == 0 || h.container))
        return ERR_INVALID;
    *ret = slice_of(r->rest.p + 1 + n, (size_t)h.size - 1 - n);
    advance(r, (size_t)h.size);
    return ERR_OK;
}

static enum err read_container(struct mp_reader *r, bool map, size_t *ret_n)
{
    struct head h;
    if (head_here(r, &h) != ERR_OK || !h.container)
        return ERR_INVALID;
    uint8_t t = r->rest.p[0];
    bool is_map = t <= 0x8f || t >= 0xde;
    if (is_map != map)
        return ERR_INVALID;
    *ret_n = (size_t)(map ? h.elements / 2 : h.elements);
    advance(r, (size_t)h.size);
    return ERR_OK;
}

enum err mp_read_array(struct mp_reader *r, size_t *ret_n)
{
    return read_container(r, false, ret_n);
}

enum err mp_read_map(struct mp_reader *r, size_t *ret_n)
{
    return read_container(r, true, ret_n);
}

enum err mp_read_raw(struct mp_reader *r, struct slice *ret)
{
    const struct mp_limits limits = {
        .bytes = SIZE_MAX, .depth = MP_DEPTH_MAX, .elements = SIZE_MAX};
    size_t n;
    if (mp_scan(r->rest, &limits, &n) != ERR_OK)
        return ERR_INVALID;
    *ret = slice_of(r->rest.p, n);
    advance(r, n);
    return ERR_OK;
}

/* ---- writer ---- */

static int to_buf(void *arg, const char *p, size_t n)
{
    struct buf *b = (struct buf *)arg;
    buf_append(b, p, n);
    return buf_ok(b) ? 0 : -1;
}

/* The packer is two words on the stack: it holds no state between values. Its result only repeats
 * what buf_ok() says. */
static msgpack_packer packer(struct buf *b)
{
    msgpack_packer pk;
    msgpack_packer_init(&pk, b, to_buf);
    return pk;
}

void mp_write_nil(struct buf *b)
{
    msgpack_packer pk = packer(b);
    (void)msgpack_pack_nil(&pk);
}

void mp_write_bool(struct buf *b, bool v)
{
    msgpack_packer pk = packer(b);
    (void)(v ? msgpack_pack_true(&pk) : msgpack_pack_false(&pk));
}

void mp_write_u64(struct buf *b, uint64_t v)
{
    msgpack_packer pk = packer(b);
    (void)msgpack_pack_uint64(&pk, v);
}

void mp_write_i64(struct buf *b, int64_t v)
{
    msgpack_packer pk = packer(b);
    (void)msgpack_pack_int64(&pk, v);
}

void mp_write_str(struct buf *b, struct slice s)
{
    msgpack_packer pk = packer(b);
    (void)msgpack_pack_str(&pk, s.n);
    (void)msgpack_pack_str_body(&pk, s.p, s.n);
}

void mp_write_bin(struct buf *b, struct slice s)
{
    msgpack_packer pk = packer(b);
    (void)msgpack_pack_bin(&pk, s.n);
    (void)msgpack_pack_bin_body(&pk, s.p, s.n);
}

void mp_write_array(struct buf *b, size_t n)
{
    msgpack_packer pk = packer(b);
    (void)msgpack_pack_array(&pk, n);
}

void mp_write_map(struct buf *b, size_t n)
{
    msgpack_packer pk = packer(b);
    (void)msgpack_pack_map(&pk, n);
}
