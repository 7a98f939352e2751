#include "proto/msg.h"

#include "base/assert.h"
#include "proto/mp.h"

/* A whole message: the bounds of a frame, which it came in. */
static const struct mp_limits limits = {
    .bytes = 4 * 1024 * 1024, .depth = MP_DEPTH_MAX, .elements = 65536};

static const void *at(const void *obj, size_t offset)
{
    return (const uint8_t *)obj + offset;
}

static void *at_mut(void *obj, size_t offset)
{
    return (uint8_t *)obj + offset;
}

static size_t count_of(const struct field *f, const void *obj)
{
    size_t n;
    memcpy(&n, at(obj, f->count_offset), sizeof n);
    ASSERT(n <= f->size);
    return n;
}

enum { NAME_STRIDE = 64 }; /* of NAMES, see messages.h */

/* ---- encoding ---- */

/* Calls itself along SUB: as deep as the tables, never as deep as some input. */
static bool is_zero(const struct field *f, const void *obj)
{
    const void *p = at(obj, f->offset);
    switch (f->type) {
    case FIELD_U64:
    case FIELD_I64:
        return *(const uint64_t *)p == 0;
    case FIELD_BOOL:
        return !*(const bool *)p;
    case FIELD_TEXT:
        return *(const char *)p == '\0';
    case FIELD_BYTES:
    case FIELD_RAW:
    case FIELD_MANY:
        return ((const struct slice *)p)->n == 0;
    case FIELD_LIST:
    case FIELD_NAMES:
        return count_of(f, obj) == 0;
    case FIELD_SUB:
        for (size_t i = 0; i < f->sub->n_fields; i++)
            if (!is_zero(&f->sub->fields[i], p))
                return false;
        return true;
    }
    UNREACHABLE();
}

static void encode_list(const struct field *f, const void *obj, struct buf *out)
{
    size_t n = count_of(f, obj);
    mp_write_array(out, n);
    for (size_t i = 0; i < n; i++)
        msg_encode(f->sub, at(obj, f->offset + i * f->sub->size), out);
}

static void encode_names(const struct field *f, const void *obj, struct buf *out)
{
    size_t n = count_of(f, obj);
    mp_write_array(out, n);
    for (size_t i = 0; i < n; i++) {
        const char *name = at(obj, f->offset + i * NAME_STRIDE);
        mp_write_str(out, slice_of(name, strnlen(name, NAME_STRIDE - 1)));
    }
}

static void encode_field(const struct field *f, const void *obj, struct buf *out)
{
    const void *p = at(obj, f->offset);
    switch (f->type) {
    case FIELD_U64:
        mp_write_u64(out, *(const uint64_t *)p);
        break;
    case FIELD_I64:
        mp_write_i64(out, *(const int64_t *)p);
        break;
    case FIELD_BOOL:
        mp_write_bool(out, *(const bool *)p);
        break;
    case FIELD_BYTES:
        mp_write_bin(out, *(const struct slice *)p);
        break;
    case FIELD_TEXT:
        mp_write_str(out, slice_of(p, strnlen(p, f->size - 1)));
        break;
    case FIELD_RAW:
    case FIELD_MANY:
        buf_append_slice(out, *(const struct slice *)p);
        break;
    case FIELD_SUB:
        msg_encode(f->sub, p, out);
        break;
    case FIELD_LIST:
        encode_list(f, obj, out);
        break;
    case FIELD_NAMES:
        encode_names(f, obj, out);
        break;
    }
}

void msg_encode(const struct msg *m, const void *obj, struct buf *out)
{
    bool present[MSG_FIELDS_MAX];
    size_t n = 0;
    for (size_t i = 0; i < m->n_fields; i++) {
        present[i] = !is_zero(&m->fields[i], obj);
        n += present[i];
    }
    mp_write_map(out, n);
    for (size_t i = 0; i < m->n_fields; i++) {
        if (!present[i])
            continue;
        mp_write_str(out, slice_str(m->fields[i].name));
        encode_field(&m->fields[i], obj, out);
    }
}

/* ---- decoding ---- */

static enum err decode_map(const struct msg *m, struct mp_reader *r, void *ret_obj,
                           struct errmsg *e);

static enum err wrong(const struct msg *m, const struct field *f, const char *want,
                      struct errmsg *e)
{
    return err_set(e, ERR_INVALID, "%s.%s: %s expected", m->name, f->name, want);
}

/* A text is the copy of `s` in `size` bytes, NUL included. */
static enum err put_text(const struct msg *m, const struct field *f, struct slice s, char *to,
                         size_t size, struct errmsg *e)
{
    if (s.n >= size)
        return err_set(e, ERR_INVALID, "%s.%s: longer than %zu bytes", m->name, f->name,
                       size - 1);
    if (s.n != 0 && memchr(s.p, 0, s.n) != NULL)
        return err_set(e, ERR_INVALID, "%s.%s: contains a zero byte", m->name, f->name);
    if (s.n != 0)
        memcpy(to, s.p, s.n);
    to[s.n] = '\0';
    return ERR_OK;
}

static enum err decode_list(const struct msg *m, const struct field *f, struct mp_reader *r,
                            void *obj, struct errmsg *e)
{
    size_t n;
    if (mp_read_array(r, &n) != ERR_OK)
        return wrong(m, f, "array", e);
    if (n > f->size)
        return err_set(e, ERR_LIMIT, "%s.%s: more than %zu elements", m->name, f->name,
                       f->size);
    for (size_t i = 0; i < n; i++) {
        struct slice s;
        enum err rc;
        if (f->type == FIELD_LIST) {
            rc = decode_map(f->sub, r, at_mut(obj, f->offset + i * f->sub->size), e);
        } else {
            char *to = at_mut(obj, f->offset + i * NAME_STRIDE);
            rc = mp_read_bytes(r, &s) == ERR_OK ? put_text(m, f, s, to, NAME_STRIDE, e)
                                                : wrong(m, f, "array of names", e);
        }
        if (rc != ERR_OK)
            return rc;
    }
    memcpy(at_mut(obj, f->count_offset), &n, sizeof n);
    return ERR_OK;
}

/* MANY stays encoded, but must be an array: msg_iter_init() may rely on it. */
static enum err decode_many(const struct msg *m, const struct field *f, struct mp_reader *r,
                            struct slice *ret, struct errmsg *e)
{
    struct mp_reader look = *r;
    size_t n;
    if (mp_read_array(&look, &n) != ERR_OK || mp_read_raw(r, ret) != ERR_OK)
        return wrong(m, f, "array", e);
    return ERR_OK;
}

static enum err decode_field(const struct msg *m, const struct field *f, struct mp_reader *r,
                             void *obj, struct errmsg *e)
{
    void *p = at_mut(obj, f->offset);
    struct slice s;
    switch (f->type) {
    case FIELD_U64:
        return mp_read_u64(r, p) == ERR_OK ? ERR_OK : wrong(m, f, "unsigned integer", e);
    case FIELD_I64:
        return mp_read_i64(r, p) == ERR_OK ? ERR_OK : wrong(m, f, "integer", e);
    case FIELD_BOOL:
        return mp_read_bool(r, p) == ERR_OK ? ERR_OK : wrong(m, f, "boolean", e);
    case FIELD_BYTES:
        return mp_read_bytes(r, p) == ERR_OK ? ERR_OK : wrong(m, f, "bytes", e);
    case FIELD_TEXT:
        if (mp_read_bytes(r, &s) != ERR_OK)
            return wrong(m, f, "text", e);
        return put_text(m, f, s, p, f->size, e);
    case FIELD_RAW:
        return mp_read_raw(r, p) == ERR_OK ? ERR_OK : wrong(m, f, "value", e);
    case FIELD_SUB:
        return decode_map(f->sub, r, p, e);
    case FIELD_LIST:
    case FIELD_NAMES:
        return decode_list(m, f, r, obj, e);
    case FIELD_MANY:
        return decode_many(m, f, r, p, e);
    }
    UNREACHABLE();
}

/* Fields mostly come in the order of the table: looks first at `hint`, then all around. */
static size_t find_field(const struct msg *m, struct slice name, size_t hint)
{
    for (size_t i = 0; i < m->n_fields; i++) {
        size_t at_index = (hint + i) % m->n_fields;
        if (slice_eq(slice_str(m->fields[at_index].name), name))
            return at_index;
    }
    return m->n_fields;
}

/* Calls itself along SUB and LIST: as deep as the tables, never as deep as the input. */
static enum err decode_map(const struct msg *m, struct mp_reader *r, void *ret_obj,
                           struct errmsg *e)
{
    bool seen[MSG_FIELDS_MAX] = {false};
    size_t n, hint = 0;
    memset(ret_obj, 0, m->size);
    if (mp_read_map(r, &n) != ERR_OK)
        return err_set(e, ERR_INVALID, "%s: map expected", m->name);
    for (; n > 0; n--) {
        struct slice name, skipped;
        if (mp_read_bytes(r, &name) != ERR_OK)
            return err_set(e, ERR_INVALID, "%s: field name expected", m->name);
        size_t i = find_field(m, name, hint);
        if (i == m->n_fields) {
            if (mp_read_raw(r, &skipped) != ERR_OK)
                return err_set(e, ERR_INVALID, "%s: unsound value", m->name);
            continue;
        }
        if (seen[i])
            return err_set(e, ERR_INVALID, "%s.%s: given twice", m->name, m->fields[i].name);
        seen[i] = true;
        hint = i + 1;
        enum err rc = decode_field(m, &m->fields[i], r, ret_obj, e);
        if (rc != ERR_OK)
            return rc;
    }
    return ERR_OK;
}

enum err msg_decode(const struct msg *m, struct slice in, void *ret_obj, struct errmsg *e)
{
    size_t size;
    memset(ret_obj, 0, m->size);
    enum err rc = mp_scan(in, &limits, &size);
    if (rc == ERR_LIMIT)
        return err_set(e, ERR_LIMIT, "%s: too long, too deep or too many elements", m->name);
    if (rc != ERR_OK)
        return err_set(e, ERR_INVALID, "%s: not a whole MessagePack value", m->name);
    if (size != in.n)
        return err_set(e, ERR_INVALID, "%s: bytes behind the message", m->name);
    struct mp_reader r = {.rest = in};
    return decode_map(m, &r, ret_obj, e);
}

/* ---- MANY ---- */

void msg_list_append(struct msg_list *l, const struct msg *m, const void *obj)
{
    msg_encode(m, obj, &l->body);
    l->n++;
}

void msg_list_end(struct msg_list *l, struct buf *out)
{
    mp_write_array(out, l->n);
    buf_append_slice(out, buf_slice(&l->body));
    if (!buf_ok(&l->body))
        out->overflow = true;
    msg_list_close(l);
}

void msg_list_close(struct msg_list *l)
{
    buf_close(&l->body);
    l->n = 0;
}

enum err msg_iter_init(struct msg_iter *it, struct slice many)
{
    *it = (struct msg_iter){0};
    if (many.n == 0)
        return ERR_OK; /* an absent field is an empty list */
    struct mp_reader r = {.rest = many};
    size_t n;
    if (mp_read_array(&r, &n) != ERR_OK)
        return ERR_INVALID;
    *it = (struct msg_iter){.rest = r.rest, .left = n};
    return ERR_OK;
}

enum err msg_iter_next(struct msg_iter *it, const struct msg *m, void *ret_obj,
                       struct errmsg *e)
{
    if (it->left == 0)
        return ERR_NOT_FOUND;
    struct mp_reader r = {.rest = it->rest};
    enum err rc = decode_map(m, &r, ret_obj, e);
    if (rc != ERR_OK)
        return rc;
    it->rest = r.rest;
    it->left--;
    return ERR_OK;
}
