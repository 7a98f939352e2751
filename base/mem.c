#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"

static void *check(void *p, size_t n)
{
    if (p == NULL && n != 0) {
        (void)fprintf(stderr, "level=fatal event=out_of_memory bytes=%zu\n", n);
        abort();
    }
    return p;
}

void *mem_alloc(size_t n)
{
    return check(calloc(1, n == 0 ? 1 : n), n);
}

void *mem_array(size_t n, size_t size)
{
    return check(calloc(n == 0 ? 1 : n, size == 0 ? 1 : size), n == 0 ? 1 : n);
}

void *mem_resize(void *p, size_t n)
{
    return check(realloc(p, n == 0 ? 1 : n), n);
}

void *mem_dup(const void *p, size_t n)
{
    char *copy = mem_alloc(n + 1);
    if (n != 0)
        memcpy(copy, p, n);
    return copy;
}

char *mem_strdup(const char *s)
{
    return mem_dup(s, strlen(s));
}

char *mem_printf(const char *fmt, ...)
{
    va_list ap;
    char *out = NULL;
    va_start(ap, fmt);
    int n = vasprintf(&out, fmt, ap);
    va_end(ap);
    return n < 0 ? check(NULL, 1) : out;
}

void mem_free(void *p)
{
    free(p);
}
