/* Transactions in etcdctl's notation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/dcs.h"
#include "cli_fixture.h"

static const char *shown(const struct msg *m, struct msg_list *l, bool ok)
{
    static char text[4096];
    struct buf array = {.max = 65536};
    struct buf json = {.max = 65536};
    struct msg_iter it;
    union {
        struct compare compare;
        struct txn_op op;
    } one;
    (void)snprintf(text, sizeof text, "refused");
    if (ok) {
        msg_list_end(l, &array);
        assert_int_equal(msg_iter_init(&it, buf_slice(&array)), ERR_OK);
        assert_int_equal(msg_iter_next(&it, m, &one, NULL), ERR_OK);
        if (m == &msg_compare)
            buf_printf(&json, "%s|%.*s|%s|%llu|%.*s", one.compare.target,
                       (int)one.compare.key.n, (const char *)one.compare.key.p, one.compare.op,
                       (unsigned long long)one.compare.number, (int)one.compare.value.n,
                       (const char *)one.compare.value.p);
        else
            buf_printf(&json, "%s|%.*s|%.*s|%.*s", one.op.op, (int)one.op.key.n,
                       (const char *)one.op.key.p, (int)one.op.value.n,
                       (const char *)one.op.value.p, (int)one.op.end.n,
                       (const char *)one.op.end.p);
        (void)snprintf(text, sizeof text, "%s", buf_cstr(&json));
    }
    msg_list_close(l);
    buf_close(&array);
    buf_close(&json);
    return text;
}

struct row {
    const char *line, *want;
};

static void compares_are_read_as_etcdctl_writes_them(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"mod(\"key\") = \"5\"", "mod|key|=|5|"},
        {"m(key) > 7", "mod|key|>|7|"},
        {"  version( \"a b\" ) < \"3\"  ", "refused"}, /* no blank inside the parentheses */
        {"ver(\"a b\") < 3  ", "version|a b|<|3|"},
        {"c(k) != 0", "create|k|!=|0|"},
        {"lease(k) = 9", "lease|k|=|9|"},
        {"value(\"k\") = \"v\"", "value|k|=|0|v"},
        {"val(k) = \"say \\\"hi\\\" \\\\\"", "value|k|=|0|say \"hi\" \\"},
        {"val(k) = \"\"", "value|k|=|0|"},
        {"value(k) = plain", "value|k|=|0|plain"},
        {"mod(k) = five", "refused"},
        {"mod(k) = -1", "refused"},
        {"mod(k) == 1", "refused"},
        {"mod(k)=1", "refused"},
        {"mod(k) = 1 2", "refused"},
        {"mod(k) =", "refused"},
        {"mod(k = 1", "refused"},
        {"mod k = 1", "refused"},
        {"color(k) = 1", "refused"},
        {"val(k) = \"open", "refused"},
        {"val(\"k) = 1", "refused"},
        {"", "refused"},
        {"(", "refused"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char line[128];
        struct msg_list l = {0};
        (void)snprintf(line, sizeof line, "%s", rows[i].line);
        assert_string_equal(shown(&msg_compare, &l, dcs_parse_compare(line, &l)), rows[i].want);
    }
}

static void operations_are_read_as_etcdctl_writes_them(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"put k v", "put|k|v|"},
        {"put \"a b\" \"c d\"", "put|a b|c d|"},
        {"put k \"\"", "put|k||"},
        {"  get k  ", "range|k||"},
        {"get a z", "range|a||z"},
        {"del a", "delete|a||"},
        {"del \"a\" \"b\"", "delete|a||b"},
        {"put k", "refused"}, /* never an empty value by mistake */
        {"put k v w", "refused"},
        {"put k \"v", "refused"},
        {"get", "refused"},
        {"get a b c", "refused"},
        {"move a b", "refused"},
        {"range a", "refused"},
        {"", "refused"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char line[128];
        struct msg_list l = {0};
        (void)snprintf(line, sizeof line, "%s", rows[i].line);
        assert_string_equal(shown(&msg_txn_op, &l, dcs_parse_op(line, &l)), rows[i].want);
    }
}

static void show_ops(struct buf *out, struct slice many);

static void show_txn(struct buf *out, struct slice compare, struct slice then,
                     struct slice otherwise)
{
    struct msg_iter it;
    struct compare c;
    assert_int_equal(msg_iter_init(&it, compare), ERR_OK);
    while (msg_iter_next(&it, &msg_compare, &c, NULL) == ERR_OK)
        buf_printf(out, "%s(%.*s) ", c.target, (int)c.key.n, (const char *)c.key.p);
    buf_printf(out, "?");
    show_ops(out, then);
    buf_printf(out, " :");
    show_ops(out, otherwise);
}

static void show_ops(struct buf *out, struct slice many)
{
    struct msg_iter it;
    struct txn_op op;
    assert_int_equal(msg_iter_init(&it, many), ERR_OK);
    while (msg_iter_next(&it, &msg_txn_op, &op, NULL) == ERR_OK) {
        buf_printf(out, " %s", op.op);
        if (strcmp(op.op, "txn") == 0) {
            buf_printf(out, "(");
            show_txn(out, op.compare, op.then, op.otherwise);
            buf_printf(out, ")");
        } else {
            buf_printf(out, " %.*s", (int)op.key.n, (const char *)op.key.p);
        }
    }
}

/* Lines are separated by |. */
static const char *whole(const char *lines)
{
    static struct buf text;
    struct dcs_txn t;
    struct buf parts[3] = {0};
    char copy[512];
    int rv = 0;
    unsigned number = 1;
    dcs_txn_init(&t);
    buf_clear(&text);
    (void)snprintf(copy, sizeof copy, "%s", lines);
    for (char *line = copy, *next; rv == 0 && line != NULL; line = next) {
        next = strchr(line, '|');
        if (next != NULL)
            *next++ = '\0';
        rv = dcs_txn_line(&t, number++, line);
    }
    if (rv == 0)
        rv = dcs_txn_end(&t, parts);
    if (rv == 0)
        show_txn(&text, buf_slice(&parts[0]), buf_slice(&parts[1]), buf_slice(&parts[2]));
    else
        buf_printf(&text, "refused");
    dcs_txn_close(&t);
    for (size_t i = 0; i < 3; i++)
        buf_close(&parts[i]);
    return buf_cstr(&text);
}

static void a_transaction_may_hold_others(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"mod(a) = 1||put a 1|get b||del c", "mod(a) ? put a range b : delete c"},
        {"|put a 1", "? put a :"},
        {"||put a 1", "? : put a"},
        {"|txn {|mod(b) = 2||put b 1||get b|}|put c 1||get d",
         "? txn(mod(b) ? put b : range b) put c : range d"},
        {"|txn {||txn {||  txn { | |get a| } |}|}", "? txn(? txn(? txn(? range a :) :) :) :"},
        {"|txn {||txn {||txn {||txn {||get a|}|}|}|}", "refused"}, /* too deep */
        {"|txn {||get a", "refused"},
        {"|get a|}", "refused"},
        {"txn {||get a|}", "refused"}, /* no comparison */
        {"|txn {||get a||get b||get c|}", "refused"},
        {"|txn", "refused"},
        {"|txn { get a }", "refused"},
    };
    capture_begin(STDERR_FILENO);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_string_equal(whole(rows[i].line), rows[i].want);
    (void)capture_end();
}

static void a_long_value_arrives_whole(void **state)
{
    (void)state;
    enum { LONG = 3000 };
    char line[LONG + 16] = "put k ";
    struct msg_list l = {0};
    for (size_t i = 6; i < 6 + LONG; i++)
        line[i] = 'x';
    const char *text = shown(&msg_txn_op, &l, dcs_parse_op(line, &l));
    assert_int_equal(strlen(text), strlen("put|k||") + LONG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compares_are_read_as_etcdctl_writes_them),
        cmocka_unit_test(operations_are_read_as_etcdctl_writes_them),
        cmocka_unit_test(a_transaction_may_hold_others),
        cmocka_unit_test(a_long_value_arrives_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
