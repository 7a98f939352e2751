/* secrets.yml: the passwords that all nodes share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "conf/config.h"

static const char least[] =
    "{scope: s, name: n, dcs: {listen: 'a:1'}, postgresql: {listen: 'a:2', "
    "data_dir: /pg, authentication: {rewind: {password: mine}}}}";

static enum err load(const char *text, struct config *ret, struct errmsg *e)
{
    char path[] = "/tmp/test_conf_secrets.XXXXXX";
    struct buf report = {.max = 65536};
    int fd = mkstemp(path);
    size_t n = strlen(text);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, n), n);
    (void)close(fd);
    assert_int_equal(config_parse("f.yml", slice_str(least), ret, &report), ERR_OK);
    enum err rv = config_load_secrets(ret, path, e);
    (void)unlink(path);
    if (rv != ERR_OK) { /* the message begins with the path */
        assert_memory_equal(e->text, path, strlen(path));
        memmove(e->text, e->text + strlen(path), strlen(e->text + strlen(path)) + 1);
        config_close(ret);
    }
    return rv;
}

static void passwords_fill_what_the_file_leaves_open(void **state)
{
    (void)state;
    struct config c;
    struct errmsg e = {0};
    assert_int_equal(load("superuser: \"s#1\"\nreplication: r\nrewind: w\n", &c, &e), ERR_OK);
    assert_string_equal(c.postgresql.authentication.superuser.password, "s#1");
    assert_string_equal(c.postgresql.authentication.replication.password, "r");
    assert_string_equal(c.postgresql.authentication.rewind.password, "mine");
    config_close(&c);
}

static void a_damaged_file_is_told_without_a_secret(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"", ": expected `superuser:`, `replication:` and `rewind:` passwords"},
        {"hunter2", ": expected `superuser:`, `replication:` and `rewind:` passwords"},
        {"superuser: a\nroot: hunter2\n",
         ":2: unknown key \"root\"; known are superuser, replication, rewind"},
        {"superuser: [hunter2]\n", ":1: expected name: password"},
        {"superuser: [hunter2\n", ": not valid YAML"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct config c;
        struct errmsg e = {0};
        assert_int_equal(load(rows[i].text, &c, &e), ERR_INVALID);
        assert_string_equal(e.text, rows[i].want);
    }
}

static void a_missing_file_names_its_maker(void **state)
{
    (void)state;
    struct config c;
    struct errmsg e = {0};
    struct buf report = {.max = 65536};
    assert_int_equal(config_parse("f.yml", slice_str(least), &c, &report), ERR_OK);
    assert_int_equal(config_load_secrets(&c, "/nowhere/secrets.yml", &e), ERR_INVALID);
    assert_string_equal(e.text,
                        "/nowhere/secrets.yml: cannot read the passwords: No such file or "
                        "directory; `regentctl init` or `join` makes the file");
    config_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passwords_fill_what_the_file_leaves_open),
        cmocka_unit_test(a_damaged_file_is_told_without_a_secret),
        cmocka_unit_test(a_missing_file_names_its_maker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
