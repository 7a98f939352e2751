/* A growable byte buffer with a bound. Writers append without checking; going over `max` (0: no
 * bound) sets `overflow`, drops the append, and is checked once at the end with buf_ok(). */
#ifndef REGENT_BASE_BUF_H
#define REGENT_BASE_BUF_H

#include "base/base.h"

struct buf {
    uint8_t *p; /* owned */
    size_t len;
    size_t cap;
    size_t max; /* bytes; 0 = unbounded */
    bool overflow;
};

#define BUF_INIT ((struct buf){0})

void buf_close(struct buf *b); /* frees; the buffer is empty and usable */
void buf_clear(struct buf *b); /* keeps the memory */
void buf_append(struct buf *b, const void *p, size_t n);
void buf_append_slice(struct buf *b, struct slice s);
void buf_append_u8(struct buf *b, uint8_t v);
void buf_append_be32(struct buf *b, uint32_t v);
void buf_append_be64(struct buf *b, uint64_t v);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF(2, 3); /* no NUL appended */
/* Room for n more bytes behind len, NULL on overflow; the caller then raises len itself. */
uint8_t *buf_reserve(struct buf *b, size_t n);
void buf_consume(struct buf *b, size_t n); /* drops n bytes at the front; n <= len */
/* Of more than `keep` bytes, most of which are not used, gives memory back. */
void buf_trim(struct buf *b, size_t keep);
/* NUL-terminated view, valid until the next append */
const char *buf_cstr(struct buf *b);

static inline bool buf_ok(const struct buf *b)
{
    return !b->overflow;
}

static inline struct slice buf_slice(const struct buf *b)
{
    return slice_of(b->p, b->len);
}

#endif
