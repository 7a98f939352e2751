/* sql.query: what it answers, and what it may not cost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "dcs_state_script.h"

enum { LARGEST = 1536 * 1024 };

static enum err ask(struct script *x, const char *sql, struct buf *ret_reply, struct errmsg *e)
{
    struct state_copy *c;
    struct sql_req q = {.sql = slice_str(sql), .time_ms = 10000};
    state_commit_full(x->s, 1);
    assert_int_equal(state_copy_begin(x->s, &c, e), ERR_OK);
    buf_clear(ret_reply);
    return state_copy_query(c, &q, ret_reply, e);
}

/* The first cell of the first row. */
static struct slice first(const struct buf *reply, bool *ret_more)
{
    struct sql_reply r;
    struct sql_row row;
    struct sql_cell cell;
    struct msg_iter it;
    assert_int_equal(msg_decode(&msg_sql_reply, buf_slice(reply), &r, NULL), ERR_OK);
    assert_int_equal(msg_iter_init(&it, r.rows), ERR_OK);
    assert_int_equal(msg_iter_next(&it, &msg_sql_row, &row, NULL), ERR_OK);
    assert_int_equal(msg_iter_init(&it, row.cells), ERR_OK);
    assert_int_equal(msg_iter_next(&it, &msg_sql_cell, &cell, NULL), ERR_OK);
    *ret_more = r.more;
    return cell.value;
}

static void expect(struct script *x, const char *sql, const char *want)
{
    struct buf CLEANUP(buf_close) reply = BUF_INIT;
    struct errmsg e = {.text = ""};
    bool more;
    if (ask(x, sql, &reply, &e) != ERR_OK)
        fail_msg("%s: %s", sql, e.text);
    if (!slice_eq(first(&reply, &more), slice_str(want)))
        fail_msg("%s: not %s", sql, want);
}

static void expect_error(struct script *x, const char *sql, enum err want, const char *says)
{
    struct buf CLEANUP(buf_close) reply = BUF_INIT;
    struct errmsg e = {.text = ""};
    assert_int_equal(ask(x, sql, &reply, &e), want);
    if (strstr(e.text, says) == NULL)
        fail_msg("%.60s: %s", sql, e.text);
}

static void put_large(struct script *x, char c)
{
    char *value = mem_alloc(LARGEST);
    memset(value, c, LARGEST);
    struct put_req put = {.key = slice_str("large"), .value = slice_of(value, LARGEST)};
    (void)script_command(x, STATE_CMD_PUT, &msg_put_req, &put);
    mem_free(value);
}

static const char *times(struct buf *to, const char *what, size_t n)
{
    buf_clear(to);
    buf_printf(to, "SELECT %s", what);
    for (size_t i = 1; i < n; i++)
        buf_printf(to, ", %s", what);
    return buf_cstr(to);
}

static void a_row_is_bounded_in_columns_and_bytes_the_first_one_too(void **t)
{
    (void)t;
    struct script *x = script_new();
    struct buf CLEANUP(buf_close) sql = BUF_INIT;
    expect_error(x, times(&sql, "zeroblob(100000)", 100), ERR_LIMIT, "first row");
    expect_error(x, times(&sql, "randomblob(1)", 101), ERR_INVALID, "too many columns");
    expect_error(x, "SELECT zeroblob(4194304)", ERR_LIMIT, "too big");
    expect(x, times(&sql, "1", 100), "1");
    script_free(x);
}

static void rows_go_on_up_to_a_mebibyte(void **t)
{
    (void)t;
    struct script *x = script_new();
    struct buf CLEANUP(buf_close) reply = BUF_INIT;
    struct errmsg e;
    bool more;
    assert_int_equal(ask(x,
                         "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT "
                         "100) SELECT zeroblob(100000) FROM c",
                         &reply, &e),
                     ERR_OK);
    assert_int_equal(first(&reply, &more).n, 100000);
    assert_true(more && reply.len > 900 * 1000 && reply.len < 1100 * 1000);
    script_free(x);
}

static void the_largest_value_can_be_read(void **t)
{
    (void)t;
    struct script *x = script_new();
    struct buf CLEANUP(buf_close) reply = BUF_INIT;
    struct errmsg e;
    bool more;
    (void)script_run(x, "put /regent/demo/leader {\"name\":\"n1\"}");
    put_large(x, 'a');
    assert_int_equal(ask(x, "SELECT value, key FROM keys WHERE key = 'large'", &reply, &e),
                     ERR_OK);
    assert_int_equal(first(&reply, &more).n, LARGEST);
    expect(x, "SELECT scope || ' ' || name FROM leader", "demo n1");
    script_free(x);
}

/* By SQLite's own functions these take minutes. */
static void functions_of_long_texts_end(void **t)
{
    (void)t;
    struct script *x = script_new();
    put_large(x, 'a');
    expect(x, "SELECT instr(value, substr(value, 1, 700000) || 'b') FROM keys", "0");
    expect(x, "SELECT length(replace(value, substr(value, 1, 700000) || 'b', '')) FROM keys",
           "1572864");
    expect_error(x, "SELECT trim(value, value) FROM keys", ERR_INVALID, "trim()");
    expect_error(x, "SELECT json_patch('{}', '{}')", ERR_INVALID, "json_patch");
    expect_error(x, "SELECT replace(value, 'a', value) FROM keys", ERR_LIMIT, "too big");
    script_free(x);
}

static void our_functions_answer_as_those_of_sqlite(void **t)
{
    (void)t;
    struct script *x = script_new();
    expect(x, "SELECT instr('a/b/c', '/')", "2");
    expect(x, "SELECT instr('\xc3\xa4\xc3\xb6/', '/')", "3");
    expect(x, "SELECT instr(x'c3a42f', x'2f')", "3");
    expect(x, "SELECT instr('abc', 'x') || instr('abc', '') || instr('', 'a') || instr('', '')",
           "0101");
    expect(x, "SELECT coalesce(instr(NULL, 'a'), replace('a', NULL, 'b'), 'none')", "none");
    expect(x, "SELECT replace('abcabc', 'bc', 'x')", "axax");
    expect(x, "SELECT replace('abc', '', 'x') || replace('aaa', 'a', '') || replace(12, 1, 3)",
           "abc32");
    expect(x, "SELECT trim('  a ')", "a");
    script_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_is_bounded_in_columns_and_bytes_the_first_one_too),
        cmocka_unit_test(rows_go_on_up_to_a_mebibyte),
        cmocka_unit_test(the_largest_value_can_be_read),
        cmocka_unit_test(functions_of_long_texts_end),
        cmocka_unit_test(our_functions_answer_as_those_of_sqlite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
