/* Transactions in etcdctl's notation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "cli/dcs.h"

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
        cmocka_unit_test(a_long_value_arrives_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
