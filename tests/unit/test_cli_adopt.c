/* Reading the configuration of a server that is to be adopted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/str.h"
#include "cli/adopt.h"

static void put(const char *dir, const char *name, const char *text)
{
    char path[ADOPT_PATH];
    assert_int_equal(str_format(path, sizeof path, "%s/%s", dir, name), ERR_OK);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void settings_are_read_as_postgresql_reads_them(void **state)
{
    char dir[] = "/tmp/adopt-XXXXXX";
    char path[ADOPT_PATH];
    struct adoption a = {.port = 0};
    struct errmsg e = {0};
    (void)state;
    assert_non_null(mkdtemp(dir));
    str_cut(a.conf_dir, sizeof a.conf_dir, dir);
    put(dir, "postgresql.conf",
        "# comment\n"
        "port = 5433 # here\n"
        "shared_buffers 128MB\n"
        "  Work_Mem='1MB'\n"
        "archive_command = 'cp ''%p'' \\'x\\'' # quoted\n"
        "pg_stat_statements.max = 7\n"
        "include_dir 'conf.d'\n"
        "include_if_exists 'nowhere.conf'\n"
        "include = 'more.conf'\n");
    put(dir, "more.conf", "port = '5434'\n");
    assert_int_equal(str_format(path, sizeof path, "%s/conf.d", dir), ERR_OK);
    assert_int_equal(mkdir(path, 0700), 0);
    put(path, "10.conf", "port = 1\nwork_mem = 2MB\n");
    put(path, "20.conf", "work_mem = 3MB\n");
    put(path, "20.conf~", "work_mem = 4MB\n");
    assert_int_equal(str_format(path, sizeof path, "%s/postgresql.conf", dir), ERR_OK);
    assert_int_equal(adoption_read_conf(&a, path, 0, &e), ERR_OK);
    assert_string_equal(adoption_setting(&a, "port", ""), "5434");
    assert_string_equal(adoption_setting(&a, "work_mem", ""), "3MB");
    assert_string_equal(adoption_setting(&a, "shared_buffers", ""), "128MB");
    assert_string_equal(adoption_setting(&a, "archive_command", ""), "cp '%p' 'x'");
    assert_string_equal(adoption_setting(&a, "pg_stat_statements.max", ""), "7");
    assert_string_equal(adoption_setting(&a, "ssl", "off"), "off");
    put(dir, "postgresql.conf", "include 'postgresql.conf'\n");
    assert_int_equal(adoption_read_conf(&a, path, 0, &e), ERR_LIMIT);
    adoption_close(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_are_read_as_postgresql_reads_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
