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
#include "proto/mp.h"
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

/* As the page writes it. */
static void type_of(const struct field *f, char *ret, size_t size)
{
    switch (f->type) {
    case FIELD_U64:
    case FIELD_I64:
        (void)snprintf(ret, size, "%s", f->type == FIELD_U64 ? "uint" : "int");
        return;
    case FIELD_BOOL:
        (void)snprintf(ret, size, "bool");
        return;
    case FIELD_BYTES:
        (void)snprintf(ret, size, "bytes");
        return;
    case FIELD_TEXT:
        (void)snprintf(ret, size, "text < %zu", f->size);
        return;
    case FIELD_RAW:
        (void)snprintf(ret, size, "any");
        return;
    case FIELD_SUB:
        (void)snprintf(ret, size, "`%s`", f->sub->name);
        return;
    case FIELD_LIST:
        (void)snprintf(ret, size, "array of `%s`, at most %zu", f->sub->name, f->size);
        return;
    case FIELD_MANY:
        (void)snprintf(ret, size, "array of `%s`", f->sub->name);
        return;
    case FIELD_NAMES:
        (void)snprintf(ret, size, "array of text, at most %zu", f->size);
        return;
    }
    fail_msg("a type that this test does not know");
}

/* Its column begins with it, and goes on with the next one or with what it means. */
static void every_field_is_of_the_type_that_is_there(void **state)
{
    (void)state;
    for (size_t i = 0; i < proto_all_messages_n; i++) {
        const struct msg *m = proto_all_messages[i];
        char *text CLEANUP(mem_cleanup) = section(m->name);
        for (size_t k = 0; k < m->n_fields; k++) {
            char type[120], row[240];
            type_of(&m->fields[k], type, sizeof type);
            (void)snprintf(row, sizeof row, "\n| `%s` | %s", m->fields[k].name, type);
            const char *at = strstr(text, row);
            if (at == NULL ||
                (strncmp(at + strlen(row), " |", 2) != 0 && at[strlen(row)] != ':'))
                fail_msg("%s.%s is not described as \"%s\"", m->name, m->fields[k].name, type);
        }
    }
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

/* The bytes of a block of the examples: hexadecimal up to a #, line by line. */
static void read_block(const char *text, const char *end, struct buf *ret)
{
    bool comment = false;
    int high = -1;
    for (; text < end; text++) {
        static const char digits[] = "0123456789abcdef";
        comment = *text == '#' || (comment && *text != '\n');
        const char *digit = comment || *text == '\0' ? NULL : strchr(digits, *text);
        if (digit == NULL)
            continue;
        int value = (int)(digit - digits);
        if (high >= 0)
            buf_append_u8(ret, (uint8_t)(high << 4 | value));
        high = high >= 0 ? -1 : value;
    }
    assert_int_equal(high, -1);
}

/* As this program writes it: nothing unknown in it, nothing left out. */
static void must_be_as_written(const struct msg *m, struct slice bytes)
{
    void *obj CLEANUP(mem_cleanup) = mem_alloc(m->size);
    struct buf again CLEANUP(buf_close) = BUF_INIT;
    struct errmsg e = {.text = ""};
    if (msg_decode(m, bytes, obj, &e) != ERR_OK)
        fail_msg("%s: %s", m->name, e.text);
    msg_encode(m, obj, &again);
    if (!slice_eq(buf_slice(&again), bytes))
        fail_msg("an example of %s is not as it is written", m->name);
}

static struct slice only_element(struct mp_reader *r)
{
    size_t n;
    struct slice params;
    assert_int_equal(mp_read_array(r, &n), ERR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(mp_read_raw(r, &params), ERR_OK);
    return params;
}

static void check_error(struct mp_reader *r)
{
    size_t n;
    uint64_t code;
    struct slice name, text, details;
    assert_int_equal(mp_read_array(r, &n), ERR_OK);
    assert_int_equal(n, 4);
    assert_int_equal(mp_read_u64(r, &code), ERR_OK);
    assert_int_equal(mp_read_bytes(r, &name), ERR_OK);
    assert_int_equal(mp_read_bytes(r, &text), ERR_OK);
    assert_int_equal(mp_read_raw(r, &details), ERR_OK);
    assert_int_equal(err_grpc(err_from_name(name)), code);
    must_be_as_written(&msg_rpc_error_details, details);
    assert_int_equal(mp_read_nil(r), ERR_OK);
}

/* *method: of the newest request, which a response answers. */
static void check_frame(struct slice frame, enum method *method)
{
    static const struct mp_limits limits = {CONN_FRAME_MAX, CONN_DEPTH_MAX, CONN_ELEMENTS_MAX};
    struct mp_reader r = {.rest = frame};
    struct slice name, result;
    size_t n;
    uint64_t type, msgid;
    assert_int_equal(mp_scan(frame, &limits, &n), ERR_OK);
    assert_int_equal(n, frame.n);
    assert_int_equal(mp_read_array(&r, &n), ERR_OK);
    assert_int_equal(mp_read_u64(&r, &type), ERR_OK);
    if (type < 2)
        assert_int_equal(mp_read_u64(&r, &msgid), ERR_OK);
    if (type == 1 && mp_read_nil(&r) != ERR_OK) {
        check_error(&r);
    } else if (type == 1) {
        assert_int_equal(mp_read_raw(&r, &result), ERR_OK);
        must_be_as_written(method_table[*method].result, result);
    } else {
        assert_int_equal(mp_read_bytes(&r, &name), ERR_OK);
        *method = method_find(name);
        bool event = type == 2 && slice_eq(name, slice_str("watch.event"));
        assert_true(event || *method != METHOD_COUNT);
        must_be_as_written(event ? &msg_watch_event : method_table[*method].params,
                           only_element(&r));
    }
    assert_int_equal(r.rest.n, 0);
}

static void every_example_is_what_this_program_sends(void **state)
{
    (void)state;
    const char *at = strstr(buf_cstr(&page), "\n## Example bytes\n");
    assert_non_null(at);
    const char *end = strstr(at + 4, "\n## ");
    enum method method = METHOD_COUNT;
    size_t n = 0;
    for (; (at = strstr(at, "\n```\n")) != NULL && at < end; n++) {
        struct buf frame CLEANUP(buf_close) = BUF_INIT;
        const char *close = strstr(at + 5, "```");
        assert_non_null(close);
        read_block(at + 5, close, &frame);
        check_frame(buf_slice(&frame), &method);
        at = close + 3;
    }
    assert_true(n >= 9);
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
        cmocka_unit_test(every_field_is_of_the_type_that_is_there),
        cmocka_unit_test(no_field_is_there_that_does_not_exist),
        cmocka_unit_test(every_method_is_there_with_params_result_and_kind),
        cmocka_unit_test(every_error_is_there_with_its_number),
        cmocka_unit_test(every_example_is_what_this_program_sends),
    };
    if (argc != 2)
        return 2;
    path = argv[1];
    return cmocka_run_group_tests(tests, setup, teardown);
}
