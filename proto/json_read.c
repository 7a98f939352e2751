/* msg_from_json(), over jansson's parser. */
#include <jansson.h>
#include <openssl/evp.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/mp.h"
#include "proto/msg.h"

/* ---- arena ---- */

struct msg_arena_chunk {
    struct msg_arena_chunk *next;
    uint8_t bytes[];
};

void msg_arena_close(struct msg_arena *a)
{
    while (a->first != NULL) {
        struct msg_arena_chunk *c = a->first;
        a->first = c->next;
        mem_free(c);
    }
}

static uint8_t *arena_alloc(struct msg_arena *a, size_t n)
{
    ASSERT(a != NULL); /* the message has fields that need an owner */
    struct msg_arena_chunk *c = mem_alloc(sizeof *c + n);
    c->next = a->first;
    a->first = c;
    return c->bytes;
}

static struct slice arena_copy(struct msg_arena *a, struct slice s)
{
    uint8_t *p = arena_alloc(a, s.n);
    if (s.n != 0)
        memcpy(p, s.p, s.n);
    return slice_of(p, s.n);
}

/* ---- fields ---- */

struct reader {
    struct msg_arena *arena;
    struct errmsg *e;
    unsigned depth; /* of the message being read */
};

/* A message inside messages of its own kind is two containers of MessagePack for each. */
enum { DEPTH_MAX = MP_DEPTH_MAX / 2 };

static enum err read_object(const struct msg *m, json_t *j, void *ret_obj,
                            const struct reader *around);

static enum err wrong(const struct msg *m, const struct field *f, const char *want,
                      const struct reader *r)
{
    return err_set(r->e, ERR_INVALID, "%s.%s: %s expected", m->name, f->name, want);
}

static enum err read_u64(json_t *j, uint64_t *ret)
{
    if (json_is_integer(j) && json_integer_value(j) >= 0) {
        *ret = (uint64_t)json_integer_value(j);
        return ERR_OK;
    }
    return json_is_string(j) ? str_parse_u64(json_string_value(j), ret) : ERR_INVALID;
}

static enum err read_text(const struct msg *m, const struct field *f, json_t *j, char *to,
                          size_t size, const struct reader *r)
{
    if (!json_is_string(j))
        return wrong(m, f, "string", r);
    if (str_copy(to, size, json_string_value(j)) != ERR_OK)
        return err_set(r->e, ERR_INVALID, "%s.%s: longer than %zu bytes", m->name, f->name,
                       size - 1);
    return ERR_OK;
}

static enum err read_base64(json_t *j, struct msg_arena *a, struct slice *ret)
{
    const char *text = json_string_value(json_object_get(j, "base64"));
    size_t n = text == NULL ? 1 : strlen(text);
    if (n % 4 != 0 || n > INT32_MAX)
        return ERR_INVALID;
    if (n == 0)
        return ERR_OK;
    uint8_t *p = arena_alloc(a, n / 4 * 3);
    int got = EVP_DecodeBlock(p, (const unsigned char *)text, (int)n);
    if (got < 0)
        return ERR_INVALID;
    /* It counts the padding as zero bytes. */
    size_t padding = text[n - 2] == '=' ? 2 : text[n - 1] == '=' ? 1 : 0;
    *ret = slice_of(p, (size_t)got - padding);
    return ERR_OK;
}

static enum err read_bytes(json_t *j, struct msg_arena *a, struct slice *ret)
{
    if (json_is_object(j))
        return read_base64(j, a, ret);
    if (!json_is_string(j))
        return ERR_INVALID;
    if (json_string_length(j) != 0)
        *ret = arena_copy(a, slice_of(json_string_value(j), json_string_length(j)));
    return ERR_OK;
}

/* 15 digits: 0.1 stays 0.1. */
static enum err read_raw(json_t *j, struct msg_arena *a, struct slice *ret)
{
    char *text = json_dumps(j, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    if (text == NULL)
        return ERR_INVALID;
    *ret = arena_copy(a, slice_str(text));
    free(text);
    return ERR_OK;
}

static enum err read_list(const struct msg *m, const struct field *f, json_t *j, uint8_t *obj,
                          const struct reader *r)
{
    size_t n = json_array_size(j);
    if (!json_is_array(j))
        return wrong(m, f, "array", r);
    if (n > f->size)
        return err_set(r->e, ERR_LIMIT, "%s.%s: more than %zu elements", m->name, f->name,
                       f->size);
    for (size_t i = 0; i < n; i++) {
        json_t *element = json_array_get(j, i);
        enum err rc = f->type == FIELD_LIST
                          ? read_object(f->sub, element, obj + f->offset + i * f->sub->size, r)
                          : read_text(m, f, element, (char *)obj + f->offset + i * 64, 64, r);
        if (rc != ERR_OK)
            return rc;
    }
    memcpy(obj + f->count_offset, &n, sizeof n);
    return ERR_OK;
}

static enum err read_many(const struct msg *m, const struct field *f, json_t *j,
                          struct slice *ret, const struct reader *r)
{
    if (!json_is_array(j))
        return wrong(m, f, "array", r);
    if (json_array_size(j) == 0)
        return ERR_OK;
    void *element CLEANUP(mem_cleanup) = mem_alloc(f->sub->size);
    struct msg_list list CLEANUP(msg_list_close) = {0};
    struct buf out CLEANUP(buf_close) = BUF_INIT;
    for (size_t i = 0; i < json_array_size(j); i++) {
        enum err rc = read_object(f->sub, json_array_get(j, i), element, r);
        if (rc != ERR_OK)
            return rc;
        msg_list_append(&list, f->sub, element);
    }
    msg_list_end(&list, &out);
    *ret = arena_copy(r->arena, buf_slice(&out));
    return ERR_OK;
}

static enum err read_field(const struct msg *m, const struct field *f, json_t *j, uint8_t *obj,
                           const struct reader *r)
{
    void *p = obj + f->offset;
    switch (f->type) {
    case FIELD_U64:
        return read_u64(j, p) == ERR_OK ? ERR_OK : wrong(m, f, "unsigned integer", r);
    case FIELD_I64:
        if (!json_is_integer(j))
            return wrong(m, f, "integer", r);
        *(int64_t *)p = json_integer_value(j);
        return ERR_OK;
    case FIELD_BOOL:
        if (!json_is_boolean(j))
            return wrong(m, f, "true or false", r);
        *(bool *)p = json_is_true(j);
        return ERR_OK;
    case FIELD_BYTES:
        return read_bytes(j, r->arena, p) == ERR_OK
                   ? ERR_OK
                   : wrong(m, f, "string or {\"base64\": ...}", r);
    case FIELD_TEXT:
        return read_text(m, f, j, p, f->size, r);
    case FIELD_RAW:
        return read_raw(j, r->arena, p) == ERR_OK ? ERR_OK : wrong(m, f, "value", r);
    case FIELD_SUB:
        return read_object(f->sub, j, p, r);
    case FIELD_LIST:
    case FIELD_NAMES:
        return read_list(m, f, j, obj, r);
    case FIELD_MANY:
        return read_many(m, f, j, p, r);
    }
    UNREACHABLE();
}

/* Calls itself along the tables, of which one names itself: hence the bound. */
static enum err read_object(const struct msg *m, json_t *j, void *ret_obj,
                            const struct reader *around)
{
    struct reader inside = *around;
    const struct reader *r = &inside;
    inside.depth++;
    memset(ret_obj, 0, m->size);
    if (r->depth > DEPTH_MAX)
        return err_set(r->e, ERR_LIMIT, "%s: more than %d levels deep", m->name,
                       (int)DEPTH_MAX);
    if (!json_is_object(j))
        return err_set(r->e, ERR_INVALID, "%s: object expected", m->name);
    for (size_t i = 0; i < m->n_fields; i++) {
        json_t *value = json_object_get(j, m->fields[i].name);
        if (value == NULL || json_is_null(value))
            continue;
        enum err rc = read_field(m, &m->fields[i], value, ret_obj, r);
        if (rc != ERR_OK)
            return rc;
    }
    return ERR_OK;
}

enum err msg_from_json(const struct msg *m, struct slice json, void *ret_obj,
                       struct msg_arena *arena, struct errmsg *e)
{
    struct reader r = {.arena = arena, .e = e};
    json_error_t where;
    memset(ret_obj, 0, m->size);
    json_t *j = json_loadb((const char *)json.p, json.n, JSON_REJECT_DUPLICATES, &where);
    if (j == NULL)
        return err_set(e, ERR_INVALID, "%s: line %d, column %d: %s", m->name, where.line,
                       where.column, where.text);
    enum err rc = read_object(m, j, ret_obj, &r);
    json_decref(j);
    return rc;
}
