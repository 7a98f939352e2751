#include "cli_fixture.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static int captured, saved, memory;
static char text[65536];

void capture_begin(int fd)
{
    (void)fflush(NULL);
    captured = fd;
    saved = dup(fd);
    memory = memfd_create("capture", MFD_CLOEXEC);
    assert_true(saved >= 0 && memory >= 0);
    assert_int_equal(dup2(memory, fd), fd);
}

const char *capture_end(void)
{
    (void)fflush(NULL);
    assert_int_equal(dup2(saved, captured), captured);
    (void)close(saved);
    ssize_t n = pread(memory, text, sizeof text - 1, 0);
    (void)close(memory);
    assert_true(n >= 0);
    text[n] = '\0';
    return text;
}

void scratch_make(char *ret, size_t size)
{
    (void)snprintf(ret, size, "/tmp/test_cli.XXXXXX");
    assert_non_null(mkdtemp(ret));
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void scratch_remove(const char *dir)
{
    assert_int_equal(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static size_t count;

static int count_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)path;
    (void)st;
    (void)type;
    count += ftw->level > 0;
    return 0;
}

size_t scratch_count(const char *dir)
{
    count = 0;
    assert_int_equal(nftw(dir, count_one, 16, FTW_PHYS), 0);
    return count;
}
