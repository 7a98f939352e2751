/* The manual names every command with its options, and every key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/buf.h"
#include "cli/cli.h"
#include "conf/dynamic.h"
#include "conf/keys.h"

/* The page without what troff wants before dashes, \ , and before a quote that begins a line, \&. */
static void read_page(const char *name, struct buf *ret)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/docs/%s", REGENT_SOURCE_DIR, name);
    FILE *f = fopen(path, "r");
    if (f == NULL)
        fail_msg("cannot read %s", path);
    for (int c = fgetc(f); c != EOF; c = fgetc(f))
        if (c != '\\' || ((c = fgetc(f)) != '&' && c != EOF))
            buf_append_u8(ret, (uint8_t)c);
    (void)fclose(f);
}

static void every_command_stands_in_the_manual_as_in_its_help(void **state)
{
    (void)state;
    struct buf page = BUF_INIT;
    read_page("man/regentctl.1", &page);
    for (size_t i = 0; i < cli_commands_n; i++) {
        char text[512];
        const char *usage = cli_commands[i].usage;
        (void)snprintf(text, sizeof text, ".TP\n.B %s\n%s%s", cli_commands[i].name, usage,
                       usage[0] != '\0' ? "\n" : "");
        if (strstr(buf_cstr(&page), text) == NULL)
            fail_msg("regentctl.1 has not: %s", text);
    }
    buf_close(&page);
}

static void every_key_stands_in_the_manual_with_its_default(void **state)
{
    (void)state;
    struct buf page = BUF_INIT;
    read_page("man/regent.yml.5", &page);
    for (size_t i = 0; i < conf_keys_n; i++) {
        char text[512];
        const struct conf_key *k = &conf_keys[i];
        (void)snprintf(text, sizeof text, ".TP\n.B %s\n(", k->path);
        const char *at = strstr(buf_cstr(&page), text);
        if (at == NULL)
            fail_msg("regent.yml.5 has not: %s", k->path);
        const char *end = strstr(at + strlen(text), "\n");
        assert_non_null(end);
        (void)snprintf(text, sizeof text, "Default: %s.",
                       k->fallback != NULL ? k->fallback : "");
        bool told = k->fallback == NULL || strcmp(k->fallback, "{}") == 0;
        const char *fallback = strstr(at, text);
        if (!told && (fallback == NULL || fallback > end))
            fail_msg("regent.yml.5 has not the default of %s: %s", k->path, text);
    }
    buf_close(&page);
}

/* "| `key` | type | `default` |" */
static void expect_row(const char *part, const char *prefix, const char *key,
                       const char *fallback)
{
    char text[160];
    (void)snprintf(text, sizeof text, "\n| `%s%s` | ", prefix, key);
    const char *at = strstr(part, text);
    if (at == NULL)
        fail_msg("configuration.md has not: %s%s", prefix, key);
    const char *type = at + strlen(text);
    const char *value = strstr(type, " | ");
    assert_non_null(value);
    (void)snprintf(text, sizeof text, " | `%s` | ", fallback);
    if (fallback[0] == '\0')
        (void)snprintf(text, sizeof text, " |  | ");
    if (strncmp(value, text, strlen(text)) != 0)
        fail_msg("configuration.md: the default of %s%s is `%s`", prefix, key, fallback);
}

static void every_key_stands_in_the_reference_with_its_default(void **state)
{
    struct buf page = BUF_INIT;
    size_t rows = 0;
    (void)state;
    read_page("configuration.md", &page);
    const char *dynamic = strstr(buf_cstr(&page), "\n## Dynamic configuration\n");
    const char *file = strstr(buf_cstr(&page), "\n## The file of a node\n");
    assert_true(dynamic != NULL && file > dynamic);
    for (size_t i = 0; i < conf_keys_n; i++) {
        const struct conf_key *k = &conf_keys[i];
        if (!k->required)
            expect_row(file, "", k->path, k->fallback != NULL ? k->fallback : "");
    }
    for (size_t i = 0; i < dynamic_keys_n; i++)
        expect_row(dynamic, "", dynamic_keys[i].name, dynamic_keys[i].fallback);
    for (size_t i = 0; i < dynamic_postgresql_keys_n; i++)
        expect_row(dynamic, "postgresql.", dynamic_postgresql_keys[i].name,
                   dynamic_postgresql_keys[i].fallback);
    for (const char *at = buf_cstr(&page); (at = strstr(at, "\n| `")) != NULL; at++)
        rows++;
    assert_int_equal(rows, conf_keys_n + dynamic_keys_n + dynamic_postgresql_keys_n);
    buf_close(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_command_stands_in_the_manual_as_in_its_help),
        cmocka_unit_test(every_key_stands_in_the_manual_with_its_default),
        cmocka_unit_test(every_key_stands_in_the_reference_with_its_default),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
