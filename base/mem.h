/* Memory. Running out ends the process (fail-stop, as any storage fault does): no caller handles
 * NULL. Every queue and buffer is bounded by its owner, so that this is a bug or a dying host. */
#ifndef REGENT_BASE_MEM_H
#define REGENT_BASE_MEM_H

#include "base/base.h"

void *mem_alloc(size_t n) MUST_CHECK;              /* zeroed */
void *mem_array(size_t n, size_t size) MUST_CHECK; /* zeroed, overflow-checked */
void *mem_resize(void *p, size_t n) MUST_CHECK;
void *mem_dup(const void *p, size_t n) MUST_CHECK; /* n bytes and a NUL behind them */
char *mem_strdup(const char *s) MUST_CHECK;
char *mem_printf(const char *fmt, ...) PRINTF(1, 2) MUST_CHECK;
void mem_free(void *p); /* NULL is allowed */

/* For a daemon that shall stay small: one heap for all threads, and what is large is given back to the kernel when
 * it is freed. First in main(). */
void mem_be_frugal(void);
/* Gives back what is free, and unmaps the code that was needed at the start alone; what runs again comes back from
 * the page cache, 64 KiB a fault. Any thread; now and then. */
void mem_give_back(void);

/* For CLEANUP(mem_cleanup) on any pointer variable. */
static inline void mem_cleanup(void *owner)
{
    mem_free(take_ptr(owner));
}

#endif
