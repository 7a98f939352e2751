/* A view from text, by the tables of view_fields.c. */
#include "agent/core/view_fields.h"
#include "base/assert.h"
#include "base/str.h"

enum { DEPTH = 4 };

/* What is left of one line. */
struct in {
    const char *p;
    const char *end;
};

static bool at_char(const struct in *in, char c)
{
    return in->p < in->end && *in->p == c;
}

static const struct vfield *find_field(const struct vfield *table, struct in *in)
{
    size_t n = 0;
    while (in->p + n < in->end && strchr(".[=", in->p[n]) == NULL)
        n++;
    for (; table->type != V_END; table++)
        if (strlen(table->name) == n && memcmp(table->name, in->p, n) == 0) {
            in->p += n;
            return table;
        }
    return NULL;
}

static enum err parse_number(struct in *in, int base, uint64_t *ret)
{
    uint64_t n = 0;
    const char *start = in->p;
    for (; in->p < in->end; in->p++) {
        char c = *in->p;
        uint64_t digit = c >= '0' && c <= '9'   ? (uint64_t)(c - '0')
                         : c >= 'A' && c <= 'F' ? (uint64_t)(c - 'A') + 10
                         : c >= 'a' && c <= 'f' ? (uint64_t)(c - 'a') + 10
                                                : 99;
        if (digit >= (uint64_t)base)
            break;
        if (n > (UINT64_MAX - digit) / (uint64_t)base)
            return ERR_LIMIT;
        n = n * (uint64_t)base + digit;
    }
    *ret = n;
    return in->p == start ? ERR_INVALID : ERR_OK;
}

/* Decimal, or X/X as PostgreSQL writes an LSN. */
static enum err parse_u64(struct in *in, uint64_t *ret)
{
    struct in hex = *in;
    uint64_t high;
    uint64_t low;
    if (parse_number(&hex, 16, &high) == ERR_OK && at_char(&hex, '/')) {
        hex.p++;
        if (high > UINT32_MAX || parse_number(&hex, 16, &low) != ERR_OK || low > UINT32_MAX)
            return ERR_INVALID;
        *ret = high << 32 | low;
        *in = hex;
        return ERR_OK;
    }
    return parse_number(in, 10, ret);
}

static enum err parse_i64(struct in *in, uint64_t *ret)
{
    bool negative = at_char(in, '-');
    uint64_t n;
    if (negative)
        in->p++;
    enum err err = parse_number(in, 10, &n);
    if (err != ERR_OK)
        return err;
    if (n > (uint64_t)INT64_MAX + negative)
        return ERR_LIMIT;
    *ret = negative ? 0 - n : n;
    return ERR_OK;
}

/* Up to the end of the line, or to a comma in a list. */
static enum err parse_text(struct in *in, bool listed, char *dst, size_t size)
{
    size_t n = 0;
    (void)memset(dst, 0, size);
    for (; in->p < in->end && !(listed && *in->p == ','); in->p++) {
        char c = *in->p;
        if (c == '\\') {
            char code[3] = {0};
            if (in->end - in->p < 3)
                return ERR_INVALID;
            (void)memcpy(code, in->p + 1, 2);
            if (hex_decode(code, &c, 1) != ERR_OK)
                return ERR_INVALID;
            in->p += 2;
        }
        if (n + 1 >= size)
            return ERR_LIMIT;
        dst[n++] = c;
    }
    /* A NUL inside ends the text; nothing may stay behind it. */
    n = strlen(dst);
    (void)memset(dst + n, 0, size - n);
    return ERR_OK;
}

static enum err parse_enum(struct in *in, const struct vfield *f, char *p)
{
    uint64_t n = 0;
    size_t len = (size_t)(in->end - in->p);
    while (f->names[n] != NULL &&
           (strlen(f->names[n]) != len || memcmp(f->names[n], in->p, len) != 0))
        n++;
    if (f->names[n] != NULL) {
        in->p = in->end;
    } else {
        enum err err = parse_number(in, 10, &n);
        if (err != ERR_OK)
            return err;
    }
    unsigned small = (unsigned)n;
    if (f->size == sizeof small && n > 1000)
        return ERR_LIMIT;
    (void)memcpy(p, f->size == sizeof small ? (const void *)&small : (const void *)&n, f->size);
    return ERR_OK;
}

static enum err parse_list(struct in *in, const struct vfield *f, char *base)
{
    size_t n = 0;
    size_t width = f->type == V_NAMES ? 64 : sizeof(uint64_t);
    (void)memset(base + f->offset, 0, f->max * width);
    while (in->p < in->end) {
        char *p = base + f->offset + n * width;
        uint64_t number = 0;
        if (n == f->max)
            return ERR_LIMIT;
        enum err err =
            f->type == V_NAMES ? parse_text(in, true, p, width) : parse_u64(in, &number);
        if (err != ERR_OK)
            return err;
        if (f->type == V_U64S)
            (void)memcpy(p, &number, sizeof number);
        n++;
        if (at_char(in, ','))
            in->p++;
        else if (in->p < in->end)
            return ERR_INVALID;
    }
    if (f->type == V_NAMES)
        (void)memcpy(base + f->count_offset, &n, sizeof n);
    return ERR_OK;
}

static enum err parse_value(struct in *in, const struct vfield *f, char *base)
{
    char *p = base + f->offset;
    uint64_t n = 0;
    enum err err = ERR_OK;
    switch (f->type) {
    case V_U64:
    case V_I64:
    case V_BOOL:
        err = f->type == V_I64 ? parse_i64(in, &n) : parse_u64(in, &n);
        if (err != ERR_OK)
            return err;
        if (f->type == V_BOOL && n > 1)
            return ERR_INVALID;
        if (f->type == V_BOOL)
            *(bool *)p = n == 1;
        else
            (void)memcpy(p, &n, sizeof n);
        return ERR_OK;
    case V_TEXT:
        return parse_text(in, false, p, f->size);
    case V_ENUM:
        return parse_enum(in, f, p);
    case V_NAMES:
    case V_U64S:
        return parse_list(in, f, base);
    case V_SUB:
    case V_LIST:
    case V_END:
        break;
    }
    return ERR_INVALID;
}

/* [key], [N] or [#N]: the element's index; `ret_key` is its name when a new one is meant. */
static enum err parse_index(struct in *in, const struct vfield *f, const char *list, size_t n,
                            size_t *ret_at, char ret_key[static 64])
{
    const char *close = memchr(in->p, ']', (size_t)(in->end - in->p));
    ret_key[0] = '\0';
    if (!at_char(in, '[') || close == NULL)
        return ERR_INVALID;
    in->p++;
    size_t len = (size_t)(close - in->p);
    uint64_t number = 0;
    if (!f->keyed || at_char(in, '#')) {
        if (f->keyed)
            in->p++;
        if (parse_number(in, 10, &number) != ERR_OK || in->p != close || number > n)
            return ERR_INVALID;
        *ret_at = (size_t)number;
    } else {
        if (len == 0 || len > 63)
            return ERR_INVALID;
        (void)memcpy(ret_key, in->p, len);
        ret_key[len] = '\0';
        size_t at = 0;
        while (at < n && strcmp(list + at * f->size, ret_key) != 0)
            at++;
        *ret_at = at;
    }
    in->p = close + 1;
    return ERR_OK;
}

static size_t count_of(const struct vfield *f, const char *base)
{
    size_t n;
    (void)memcpy(&n, base + f->count_offset, sizeof n);
    ASSERT(n <= f->max);
    return n;
}

/* Goes to the element; one past the last is made. `drop`: takes it out, then *ret_base is NULL. */
static enum err enter_list(struct in *in, const struct vfield *f, char *base, bool drop,
                           char **ret_base)
{
    char key[64];
    size_t at;
    size_t n = count_of(f, base);
    char *list = base + f->offset;
    enum err err = parse_index(in, f, list, n, &at, key);
    if (err != ERR_OK)
        return err;
    if (drop && in->p == in->end) {
        if (at >= n)
            return ERR_NOT_FOUND;
        (void)memmove(list + at * f->size, list + (at + 1) * f->size, (n - at - 1) * f->size);
        n--;
        (void)memset(list + n * f->size, 0, f->size);
        (void)memcpy(base + f->count_offset, &n, sizeof n);
        *ret_base = NULL;
        return ERR_OK;
    }
    if (at == n) {
        if (n == f->max)
            return ERR_LIMIT;
        (void)memset(list + at * f->size, 0, f->size);
        (void)memcpy(list + at * f->size, key, strlen(key)); /* the first field is the name */
        n++;
        (void)memcpy(base + f->count_offset, &n, sizeof n);
    }
    *ret_base = list + at * f->size;
    return ERR_OK;
}

static enum err apply_line(struct in in, char *base)
{
    const struct vfield *table = view_fields();
    bool drop = at_char(&in, '-');
    if (drop)
        in.p++;
    for (size_t depth = 0; depth < DEPTH; depth++) {
        const struct vfield *f = find_field(table, &in);
        if (f == NULL)
            return ERR_NOT_FOUND;
        if (f->type == V_LIST) {
            char *element = NULL;
            enum err err = enter_list(&in, f, base, drop, &element);
            if (err != ERR_OK || element == NULL)
                return err;
            base = element;
            if (at_char(&in, '=') && in.p + 1 == in.end)
                return ERR_OK; /* only that it is there */
        } else if (f->type == V_SUB) {
            base += f->offset;
        } else {
            if (!at_char(&in, '=') || drop)
                return ERR_INVALID;
            in.p++;
            enum err err = parse_value(&in, f, base);
            return err == ERR_OK && in.p != in.end ? ERR_INVALID : err;
        }
        if (!at_char(&in, '.'))
            return ERR_INVALID;
        in.p++;
        table = f->sub();
    }
    return ERR_INVALID;
}

enum err view_apply(const char *text, struct view *view, struct errmsg *e)
{
    for (size_t line = 1; *text != '\0'; line++) {
        size_t n = strcspn(text, "\n");
        struct in in = {.p = text, .end = text + n};
        while (in.p < in.end && (*in.p == ' ' || *in.p == '\t'))
            in.p++;
        if (in.p < in.end && *in.p != '#') {
            enum err err = apply_line(in, (char *)view);
            if (err != ERR_OK)
                return err_set(e, ERR_INVALID, "line %zu: %s: \"%.*s\"", line,
                               err == ERR_NOT_FOUND ? "no such field"
                               : err == ERR_LIMIT   ? "too long, too many or too large"
                                                    : "not a field=value of the view notation",
                               (int)MIN(in.end - in.p, 200), in.p);
        }
        text += n + (text[n] == '\n');
    }
    return ERR_OK;
}

enum err view_parse(const char *text, struct view *ret_view, struct errmsg *e)
{
    (void)memset(ret_view, 0, sizeof *ret_view);
    return view_apply(text, ret_view, e);
}
