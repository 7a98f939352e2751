/* Assertions of our own, on in release: only for our bugs, never for data from peers, clients,
 * disks or PostgreSQL. A failed one logs and aborts. */
#ifndef REGENT_BASE_ASSERT_H
#define REGENT_BASE_ASSERT_H

#include "base/base.h"

NORETURN void assert_fail(const char *expr, const char *file, int line, const char *func);

#define ASSERT(c) ((c) ? (void)0 : assert_fail(#c, __FILE__, __LINE__, __func__))
#define UNREACHABLE() assert_fail("unreachable", __FILE__, __LINE__, __func__)

/* Objects that cross a `void *` carry a magic as their first member `uint32_t magic`. */
#define CHECK_MAGIC(p, m) ASSERT((p) != NULL && (p)->magic == (m))

#endif
