/* Attributes, small macros and the two plain shapes everybody shares. libc only.
 * Every other header of the project may include this one; it includes nothing of ours. */
#ifndef REGENT_BASE_BASE_H
#define REGENT_BASE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#define CLEANUP(fn) __attribute__((cleanup(fn)))
#define NORETURN __attribute__((noreturn))
#define UNUSED __attribute__((unused))

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
/* <sys/param.h>, which libuv includes, has its own. */
#undef MIN
#undef MAX
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Moves a pointer out of its owner: the source becomes NULL. */
#define TAKE(p) take_ptr((void *)&(p))
static inline void *take_ptr(void *owner)
{
    void *p;
    memcpy(&p, owner, sizeof p);
    memset(owner, 0, sizeof p);
    return p;
}

/* Borrowed bytes: never owned, valid as long as what they point into. */
struct slice {
    const uint8_t *p;
    size_t n;
};

static inline struct slice slice_of(const void *p, size_t n)
{
    return (struct slice){.p = (const uint8_t *)p, .n = n};
}

static inline struct slice slice_str(const char *s)
{
    return slice_of(s, strlen(s));
}

static inline bool slice_eq(struct slice a, struct slice b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* Byte order of keys: memcmp, then the shorter first. */
static inline int slice_cmp(struct slice a, struct slice b)
{
    size_t n = MIN(a.n, b.n);
    int c = n == 0 ? 0 : memcmp(a.p, b.p, n);
    return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

#endif
