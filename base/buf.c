#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/mem.h"

void buf_close(struct buf *b)
{
    mem_free(b->p);
    *b = (struct buf){.max = b->max};
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    b->overflow = false;
}

uint8_t *buf_reserve(struct buf *b, size_t n)
{
    ASSERT(b->len <= b->cap);
    if (b->overflow || n > SIZE_MAX / 4 || (b->max != 0 && n > b->max - MIN(b->len, b->max))) {
        b->overflow = true;
        return NULL;
    }
    if (b->len + n > b->cap) {
        size_t cap = MAX(b->len + n, b->cap * 2);
        cap = MAX(cap, (size_t)64);
        b->p = mem_resize(b->p, cap);
        b->cap = cap;
    }
    return b->p + b->len;
}

void buf_append(struct buf *b, const void *p, size_t n)
{
    uint8_t *to = n == 0 ? NULL : buf_reserve(b, n);
    if (to == NULL)
        return;
    memcpy(to, p, n);
    b->len += n;
}

void buf_append_slice(struct buf *b, struct slice s)
{
    buf_append(b, s.p, s.n);
}

void buf_append_u8(struct buf *b, uint8_t v)
{
    buf_append(b, &v, 1);
}

void buf_append_be32(struct buf *b, uint32_t v)
{
    uint8_t x[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
    buf_append(b, x, sizeof x);
}

void buf_append_be64(struct buf *b, uint64_t v)
{
    buf_append_be32(b, (uint32_t)(v >> 32));
    buf_append_be32(b, (uint32_t)v);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    ASSERT(n >= 0);
    uint8_t *to = buf_reserve(b, (size_t)n + 1);
    if (to != NULL) {
        (void)vsnprintf((char *)to, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

void buf_consume(struct buf *b, size_t n)
{
    ASSERT(n <= b->len);
    if (n != 0 && b->len != n)
        memmove(b->p, b->p + n, b->len - n);
    b->len -= n;
}

void buf_trim(struct buf *b, size_t keep)
{
    if (b->cap <= keep || b->len >= b->cap / 4)
        return;
    if (b->len == 0) {
        buf_close(b);
        return;
    }
    b->cap = b->len * 2;
    b->p = mem_resize(b->p, b->cap);
}

const char *buf_cstr(struct buf *b)
{
    uint8_t *end = buf_reserve(b, 1);
    if (end == NULL)
        return "";
    *end = 0;
    return (const char *)b->p;
}
