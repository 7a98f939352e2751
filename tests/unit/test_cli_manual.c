/* The manual names every command with its options, and every key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/buf.h"
#include "cli/cli.h"
#include "conf/keys.h"

/* The page without what troff wants before dashes, \ , and before a quote that begins a line, \&. */
static void read_page(const char *name, struct buf *ret)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/docs/man/%s", REGENT_SOURCE_DIR, name);
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
    read_page("regentctl.1", &page);
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
    read_page("regent.yml.5", &page);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_command_stands_in_the_manual_as_in_its_help),
        cmocka_unit_test(every_key_stands_in_the_manual_with_its_default),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
