/* docs/PROTOCOL.md, given as the argument, against the tables: a client is written from it alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/mem.h"
#include "proto/conn.h"
#include "proto_random.h"

static const char *path;
static struct buf page;

/* From "#### `name`" to the next heading; "" when there is none. */
static char *section(const char *name)
{
    char heading[80];
    (void)snprintf(heading, sizeof heading, "\n#### `%s`\n", name);
    const char *begin = strstr(buf_cstr(&page), heading);
    if (begin == NULL)
        return mem_strdup("");
    begin += strlen(heading);
    const char *end = strstr(begin, "\n##");
    return mem_dup(begin, end != NULL ? (size_t)(end - begin) : strlen(begin));
}

static void every_field_of_every_message_is_there(void **state)
{
    (void)state;
    for (size_t i = 0; i < proto_all_messages_n; i++) {
        const struct msg *m = proto_all_messages[i];
        char *text CLEANUP(mem_cleanup) = section(m->name);
        if (text[0] == '\0')
            fail_msg("message %s is not described", m->name);
        const char *at = text;
        for (size_t k = 0; k < m->n_fields; k++) {
            char row[80];
            (void)snprintf(row, sizeof row, "| `%s` |", m->fields[k].name);
            at = strstr(at, row); /* in the order of the table, too */
            if (at == NULL)
                fail_msg("field %s.%s is not described", m->name, m->fields[k].name);
        }
    }
}

static void no_field_is_there_that_does_not_exist(void **state)
{
    (void)state;
    for (size_t i = 0; i < proto_all_messages_n; i++) {
        const struct msg *m = proto_all_messages[i];
        char *text CLEANUP(mem_cleanup) = section(m->name);
        size_t rows = 0;
        for (const char *at = text; (at = strstr(at, "\n| `")) != NULL; at++)
            rows++;
        if (rows != m->n_fields)
            fail_msg("%s has %zu fields, %zu are described", m->name, m->n_fields, rows);
    }
}

static void every_method_is_there_with_params_result_and_kind(void **state)
{
    (void)state;
    static const char *const kinds[] = {"read", "write", "local", "open"};
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        const struct method_info *m = &method_table[i];
        char row[160];
        (void)snprintf(row, sizeof row, "\n| `%s` | `%s` | `%s` | %s |\n", m->name,
                       m->params->name, m->result->name, kinds[m->kind]);
        if (strstr(buf_cstr(&page), row) == NULL)
            fail_msg("there is no line%s", row);
    }
}

static void every_error_is_there_with_its_number(void **state)
{
    (void)state;
    for (int i = 1; i < ERR_COUNT; i++) {
        char name[40], number[16];
        (void)snprintf(name, sizeof name, "`%s`", err_name((enum err)i));
        (void)snprintf(number, sizeof number, "| %d |", err_grpc((enum err)i));
        const char *at = buf_cstr(&page);
        bool found = false;
        while (!found && (at = strstr(at, name)) != NULL) {
            const char *end = strchr(at, '\n'), *n = strstr(at, number);
            found = n != NULL && n < end;
            at++;
        }
        if (!found)
            fail_msg("error %s with number %s is not described", name, number);
    }
}

static int setup(void **state)
{
    (void)state;
    struct errmsg e;
    return pki_read_file(path, 1 << 20, &page, &e) == ERR_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    buf_close(&page);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_of_every_message_is_there),
        cmocka_unit_test(no_field_is_there_that_does_not_exist),
        cmocka_unit_test(every_method_is_there_with_params_result_and_kind),
        cmocka_unit_test(every_error_is_there_with_its_number),
    };
    if (argc != 2)
        return 2;
    path = argv[1];
    return cmocka_run_group_tests(tests, setup, teardown);
}
