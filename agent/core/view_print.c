/* A view as text, by the tables of view_fields.c. */
#include <stdio.h>

#include "agent/core/view_fields.h"
#include "base/assert.h"
#include "base/str.h"

enum { DEPTH = 4, PATH = 160 };

struct out {
    char *p;
    size_t size;
    size_t n;
    bool full;
};

static void put(struct out *o, const char *text, size_t n)
{
    if (o->full || o->n + n >= o->size) {
        o->full = true;
        return;
    }
    (void)memcpy(o->p + o->n, text, n);
    o->n += n;
    o->p[o->n] = '\0';
}

static void put_text(struct out *o, const char *text, bool listed)
{
    if (listed && text[0] == '\0')
        put(o, "\\00", 3); /* a name that is empty is there */
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        char code[3];
        if (c >= 0x20 && c != 0x7f && c != '\\' && !(listed && c == ',')) {
            put(o, text, 1);
            continue;
        }
        put(o, "\\", 1);
        hex_encode(code, &c, 1);
        put(o, code, 2);
    }
}

static bool is_lsn(const struct vfield *f)
{
    size_t n = strlen(f->name);
    return n >= 3 && strcmp(f->name + n - 3, "lsn") == 0;
}

static void put_number(struct out *o, const struct vfield *f, uint64_t n)
{
    char text[40];
    int len = f->type == V_I64 ? snprintf(text, sizeof text, "%lld", (long long)(int64_t)n)
              : is_lsn(f)
                  ? snprintf(text, sizeof text, "%X/%X", (unsigned)(n >> 32), (unsigned)n)
                  : snprintf(text, sizeof text, "%llu", (unsigned long long)n);
    put(o, text, (size_t)len);
}

static uint64_t get_u64(const void *p)
{
    uint64_t n;
    (void)memcpy(&n, p, sizeof n);
    return n;
}

static uint64_t get_enum(const struct vfield *f, const void *p)
{
    unsigned n;
    if (f->size == sizeof(uint64_t))
        return get_u64(p);
    ASSERT(f->size == sizeof n);
    (void)memcpy(&n, p, sizeof n);
    return n;
}

static size_t count_of(const struct vfield *f, const char *base)
{
    size_t n;
    (void)memcpy(&n, base + f->count_offset, sizeof n);
    ASSERT(n <= f->max);
    return n;
}

static void put_enum(struct out *o, const struct vfield *f, uint64_t n)
{
    for (uint64_t i = 0; f->names[i] != NULL; i++)
        if (i == n) {
            put(o, f->names[i], strlen(f->names[i]));
            return;
        }
    put_number(o, f, n);
}

/* How many elements of a leaf are to be written; 0: it is zero, nothing is. */
static size_t leaf_size(const struct vfield *f, const char *base)
{
    const char *p = base + f->offset;
    size_t n = f->max;
    switch (f->type) {
    case V_U64:
    case V_I64:
        return get_u64(p) != 0;
    case V_BOOL:
        return *(const bool *)p;
    case V_ENUM:
        return get_enum(f, p) != 0;
    case V_TEXT:
        return p[0] != '\0';
    case V_NAMES:
        return count_of(f, base);
    case V_U64S:
        while (n > 0 && get_u64(p + (n - 1) * sizeof(uint64_t)) == 0)
            n--;
        return n;
    case V_SUB:
    case V_LIST:
    case V_END:
        break;
    }
    UNREACHABLE();
}

static void put_leaf(struct out *o, const char *path, const struct vfield *f, const char *base)
{
    const char *p = base + f->offset;
    size_t n = leaf_size(f, base);
    if (n == 0)
        return;
    put(o, path, strlen(path));
    put(o, f->name, strlen(f->name));
    put(o, "=", 1);
    if (f->type == V_BOOL)
        put(o, "1", 1);
    else if (f->type == V_TEXT)
        put_text(o, p, false);
    else if (f->type == V_ENUM)
        put_enum(o, f, get_enum(f, p));
    else if (f->type == V_U64 || f->type == V_I64)
        put_number(o, f, get_u64(p));
    for (size_t i = 0; i < n && (f->type == V_NAMES || f->type == V_U64S); i++) {
        if (i > 0)
            put(o, ",", 1);
        if (f->type == V_NAMES)
            put_text(o, p + i * 64, true);
        else
            put_number(o, f, get_u64(p + i * sizeof(uint64_t)));
    }
    put(o, "\n", 1);
}

/* An element of a list is called by its name where that is plain and unique, else by its number. */
static bool plain_key(const struct vfield *f, const char *list, size_t at, size_t n)
{
    const char *key = list + at * f->size;
    if (!f->keyed || key[0] == '\0' || key[0] == '#' || strlen(key) > 63)
        return false;
    for (const char *c = key; *c != '\0'; c++)
        if (*c == ']' || *c == '\\' || (unsigned char)*c <= 0x20 || (unsigned char)*c == 0x7f)
            return false;
    for (size_t i = 0; i < n; i++)
        if (i != at && strcmp(list + i * f->size, key) == 0)
            return false;
    return true;
}

struct frame {
    const struct vfield *f;
    const char *base;
    size_t element; /* of the list at *f */
    bool skip_key;  /* the element's name is in the path */
    char path[PATH];
};

/* Steps into the next element of the list at top->f; false: there is none left. */
static bool enter_element(struct out *o, struct frame *top, struct frame *next)
{
    const struct vfield *f = top->f;
    const char *list = top->base + f->offset;
    size_t n = count_of(f, top->base);
    if (top->element == n)
        return false;
    size_t at = top->element++;
    bool named = plain_key(f, list, at, n);
    (void)memset(next, 0, sizeof *next);
    next->f = f->sub();
    next->base = list + at * f->size;
    next->skip_key = named;
    char path[PATH];
    int len = named ? snprintf(path, PATH, "%s%s[%s]", top->path, f->name, next->base)
                    : snprintf(path, PATH, "%s%s[%s%zu]", top->path, f->name,
                               f->keyed ? "#" : "", at);
    ASSERT(len > 0 && len + 2 < PATH);
    put(o, path, (size_t)len); /* the element is there, even if it is zero */
    put(o, "=\n", 2);
    path[len] = '.';
    path[len + 1] = '\0';
    (void)memcpy(next->path, path, (size_t)len + 2);
    return true;
}

static void enter_struct(const struct frame *top, struct frame *next)
{
    char path[PATH];
    int len = snprintf(path, PATH, "%s%s.", top->path, top->f->name);
    ASSERT(len > 0 && len < PATH);
    (void)memset(next, 0, sizeof *next);
    next->f = top->f->sub();
    next->base = top->base + top->f->offset;
    (void)memcpy(next->path, path, (size_t)len + 1);
}

enum err view_print(const struct view *v, char *ret, size_t size)
{
    ASSERT(size > 0);
    struct out o = {.p = ret, .size = size};
    struct frame stack[DEPTH];
    size_t depth = 1;
    ret[0] = '\0';
    (void)memset(&stack[0], 0, sizeof stack[0]);
    stack[0].f = view_fields();
    stack[0].base = (const char *)v;
    while (depth > 0 && !o.full) {
        struct frame *top = &stack[depth - 1];
        struct frame *next = &stack[depth];
        if (top->f->type == V_END) {
            depth--;
            continue;
        }
        if (top->f->type == V_LIST) {
            ASSERT(depth < DEPTH);
            if (enter_element(&o, top, next)) {
                depth++;
                continue;
            }
            top->element = 0;
        } else if (top->f->type == V_SUB) {
            ASSERT(depth < DEPTH);
            enter_struct(top, next);
            top->f++;
            depth++;
            continue;
        } else if (!top->skip_key) {
            put_leaf(&o, top->path, top->f, top->base);
        }
        top->skip_key = false;
        top->f++;
    }
    if (!o.full)
        return ERR_OK;
    ret[0] = '\0';
    return ERR_LIMIT;
}
