/* What a frugal process gives back, and that it goes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1 /* its own allocator keeps what is freed */
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static size_t resident_bytes(void)
{
    unsigned long size = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lu %lu", &size, &resident), 2);
    (void)fclose(f);
    return resident * (size_t)getpagesize();
}

static void what_was_freed_is_given_back(void **state)
{
    enum { N = 1024, BYTES = 16 * 1024 };
    static void *p[N];
    (void)state;
    if (SANITIZED)
        skip();
    for (size_t i = 0; i < N; i++) {
        p[i] = mem_alloc(BYTES);
        memset(p[i], 'x', BYTES);
    }
    /* the last one stays: the heap cannot simply end before it */
    for (size_t i = 0; i < N - 1; i++)
        mem_free(TAKE(p[i]));
    size_t before = resident_bytes();
    mem_give_back();
    assert_true(resident_bytes() + (size_t)N * BYTES / 2 < before);
    mem_free(TAKE(p[N - 1]));
}

static void code_that_was_unmapped_runs_again(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        mem_give_back();
        char *text = mem_printf("%d of %s", i, "three");
        assert_int_equal(text[0], '0' + i);
        mem_free(text);
    }
}

int main(void)
{
    mem_be_frugal();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_freed_is_given_back),
        cmocka_unit_test(code_that_was_unmapped_runs_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
