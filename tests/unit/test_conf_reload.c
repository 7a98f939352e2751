/* What a changed file changes in a daemon that runs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "conf/config.h"

#define LEAST                                                 \
    "scope: demo\nname: n1\ndcs: {listen: '10.0.0.1:7400'}\n" \
    "postgresql: {listen: '10.0.0.1:5432', data_dir: /srv/pg"

static void parse(const char *text, struct config *ret)
{
    struct buf report = {.max = 65536};
    if (config_parse("f.yml", slice_str(text), ret, &report) != ERR_OK)
        fail_msg("refused: %s", buf_cstr(&report));
    buf_close(&report);
}

static void what_only_the_loop_reads_is_taken_over(void **state)
{
    struct config c;
    struct config next;
    struct buf taken = BUF_INIT;
    struct buf waiting = BUF_INIT;
    (void)state;
    parse(LEAST ", parameters: {work_mem: 4MB, a.b: 1}, pg_hba: ['local all all trust']}\n",
          &c);
    parse(LEAST ", parameters: {work_mem: 5MB}, hook_timeout: 7, pre_promote: ask}\n"
                "tags: {nofailover: true}\nlog: {level: debug}\nvip: {hook: x}\n",
          &next);
    config_take(&c, &next, &taken, &waiting);
    assert_string_equal(buf_cstr(&taken),
                        "postgresql.parameters, postgresql.pg_hba, postgresql.pre_promote, "
                        "postgresql.hook_timeout, log.level");
    assert_string_equal(buf_cstr(&waiting), "vip.hook, tags.nofailover");
    assert_int_equal(c.postgresql.n_parameters, 1);
    assert_string_equal(c.postgresql.parameters[0].value, "5MB");
    assert_int_equal(c.postgresql.n_pg_hba, 0);
    assert_int_equal(c.postgresql.hook_timeout, 7);
    assert_string_equal(c.postgresql.pre_promote, "ask");
    assert_false(c.tags.nofailover);
    config_close(&next);
    buf_clear(&taken);
    buf_clear(&waiting);
    parse(LEAST ", parameters: {work_mem: 5MB}, hook_timeout: 7, pre_promote: ask}\n"
                "log: {level: debug}\n",
          &next);
    config_take(&c, &next, &taken, &waiting);
    assert_int_equal(taken.len + waiting.len, 0);
    config_close(&next);
    config_close(&c);
    buf_close(&taken);
    buf_close(&waiting);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_only_the_loop_reads_is_taken_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
