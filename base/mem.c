#include "base/mem.h"

#include <link.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

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

/* ---- what stays resident ---- */

void mem_be_frugal(void)
{
    enum { LARGE_BYTES = 64 * 1024 };
    (void)mallopt(M_ARENA_MAX, 1);
    (void)mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, LARGE_BYTES);
}

/* Code and constants: private mappings of a file that nothing can have written to. */
static int unmap_code(struct dl_phdr_info *info, size_t size, void *arg)
{
    uintptr_t page = (uintptr_t)getpagesize();
    (void)size;
    (void)arg;
    if (strncmp(info->dlpi_name, "linux-vdso", 10) == 0)
        return 0;
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        if (h->p_type != PT_LOAD || (h->p_flags & PF_W) != 0)
            continue;
        uintptr_t from = (info->dlpi_addr + h->p_vaddr) & ~(page - 1);
        uintptr_t to = info->dlpi_addr + h->p_vaddr + h->p_memsz;
        (void)madvise((void *)from, to - from, MADV_DONTNEED);
    }
    return 0;
}

void mem_give_back(void)
{
    (void)malloc_trim(0);
    (void)dl_iterate_phdr(unmap_code, NULL);
}
