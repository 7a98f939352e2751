/* msg_to_json(): written directly, because RAW is embedded as it stands, which a tree of jansson's
 * cannot hold. */
#include <inttypes.h>

#include "base/assert.h"
#include "base/mem.h"
#include "proto/msg.h"

/* Length of the UTF-8 character at the front (RFC 3629), 0 when there is no sound one. */
static size_t utf8_char(struct slice s)
{
    uint8_t a = s.p[0];
    size_t n = a < 0x80 ? 1 : a < 0xc2 ? 0 : a < 0xe0 ? 2 : a < 0xf0 ? 3 : a < 0xf5 ? 4 : 0;
    if (n == 0 || n > s.n)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s.p[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (a == 0xe0 && s.p[1] < 0xa0) || (a == 0xf0 && s.p[1] < 0x90);
    bool surrogate = a == 0xed && s.p[1] > 0x9f;
    bool too_big = a == 0xf4 && s.p[1] > 0x8f;
    return overlong || surrogate || too_big ? 0 : n;
}

static bool is_text(struct slice s)
{
    for (size_t i = 0, n; i < s.n; i += n) {
        n = utf8_char(slice_of(s.p + i, s.n - i));
        if (n == 0 || s.p[i] == 0)
            return false;
    }
    return true;
}

/* How many bytes at the front stand for themselves. */
static size_t plain(struct slice s)
{
    size_t n = 0;
    while (n < s.n && s.p[n] >= 0x20 && s.p[n] < 0x7f && s.p[n] != '"' && s.p[n] != '\\')
        n++;
    return n;
}

static void put_string(struct buf *out, struct slice s)
{
    buf_append_u8(out, '"');
    for (size_t i = 0, n; i < s.n; i += n) {
        n = plain(slice_of(s.p + i, s.n - i));
        if (n > 0) {
            buf_append(out, s.p + i, n);
            continue;
        }
        n = utf8_char(slice_of(s.p + i, s.n - i));
        uint8_t c = s.p[i];
        if (n == 0) {
            buf_append_u8(out, '?');
            n = 1;
        } else if (c == '"' || c == '\\') {
            buf_append_u8(out, '\\');
            buf_append_u8(out, c);
        } else if (c == '\n') {
            buf_append(out, "\\n", 2);
        } else if (c < 0x20 || c == 0x7f) {
            buf_printf(out, "\\u%04x", c);
        } else {
            buf_append(out, s.p + i, n);
        }
    }
    buf_append_u8(out, '"');
}

static void put_base64(struct buf *out, struct slice s)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < s.n; i += 3) {
        size_t n = MIN((size_t)3, s.n - i);
        uint32_t v = (uint32_t)s.p[i] << 16;
        if (n > 1)
            v |= (uint32_t)s.p[i + 1] << 8;
        if (n > 2)
            v |= s.p[i + 2];
        char four[4] = {digits[v >> 18], digits[v >> 12 & 63],
                        n > 1 ? digits[v >> 6 & 63] : '=', n > 2 ? digits[v & 63] : '='};
        buf_append(out, four, sizeof four);
    }
}

static void put_bytes(struct buf *out, struct slice s)
{
    if (is_text(s)) {
        put_string(out, s);
        return;
    }
    buf_append_slice(out, slice_str("{\"base64\":\""));
    put_base64(out, s);
    buf_append_slice(out, slice_str("\"}"));
}

static void put_u64(struct buf *out, uint64_t v)
{
    /* JSON readers, jansson among them, have no number above it. */
    buf_printf(out, v > INT64_MAX ? "\"%" PRIu64 "\"" : "%" PRIu64, v);
}

static void put_list(struct buf *out, const struct field *f, const uint8_t *obj)
{
    size_t n;
    memcpy(&n, obj + f->count_offset, sizeof n);
    ASSERT(n <= f->size);
    buf_append_u8(out, '[');
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buf_append_u8(out, ',');
        if (f->type == FIELD_LIST) {
            msg_to_json(f->sub, obj + f->offset + i * f->sub->size, out);
        } else {
            const char *name = (const char *)obj + f->offset + i * 64;
            put_string(out, slice_of(name, strnlen(name, 63)));
        }
    }
    buf_append_u8(out, ']');
}

/* As deep as the lists are inside each other, which whoever decoded them has bounded. */
static void put_many(struct buf *out, const struct field *f, struct slice many)
{
    void *element CLEANUP(mem_cleanup) = mem_alloc(f->sub->size);
    struct msg_iter it;
    bool first = true;
    buf_append_u8(out, '[');
    if (msg_iter_init(&it, many) == ERR_OK) {
        /* An element that cannot be read ends the list: it is for people here. */
        for (; msg_iter_next(&it, f->sub, element, NULL) == ERR_OK; first = false) {
            if (!first)
                buf_append_u8(out, ',');
            msg_to_json(f->sub, element, out);
        }
    }
    buf_append_u8(out, ']');
}

static void put_field(struct buf *out, const struct field *f, const uint8_t *obj)
{
    const void *p = obj + f->offset;
    switch (f->type) {
    case FIELD_U64:
        put_u64(out, *(const uint64_t *)p);
        break;
    case FIELD_I64:
        buf_printf(out, "%" PRId64, *(const int64_t *)p);
        break;
    case FIELD_BOOL:
        buf_append_slice(out, slice_str(*(const bool *)p ? "true" : "false"));
        break;
    case FIELD_BYTES:
        put_bytes(out, *(const struct slice *)p);
        break;
    case FIELD_TEXT:
        put_string(out, slice_of(p, strnlen(p, f->size - 1)));
        break;
    case FIELD_RAW:
        if (((const struct slice *)p)->n == 0)
            buf_append(out, "null", 4);
        else
            buf_append_slice(out, *(const struct slice *)p);
        break;
    case FIELD_SUB:
        msg_to_json(f->sub, p, out);
        break;
    case FIELD_LIST:
    case FIELD_NAMES:
        put_list(out, f, obj);
        break;
    case FIELD_MANY:
        put_many(out, f, *(const struct slice *)p);
        break;
    }
}

void msg_to_json(const struct msg *m, const void *obj, struct buf *out)
{
    buf_append_u8(out, '{');
    for (size_t i = 0; i < m->n_fields; i++) {
        buf_printf(out, "%s\"%s\":", i > 0 ? "," : "", m->fields[i].name);
        put_field(out, &m->fields[i], obj);
    }
    buf_append_u8(out, '}');
}
