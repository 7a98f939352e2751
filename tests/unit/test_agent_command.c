#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "agent/command.h"
#include "base/assert.h"

struct answer {
    unsigned times;
    enum err status;
    struct errmsg e;
};

static void on_end(void *arg, enum err status, const struct errmsg *e)
{
    struct answer *a = arg;
    a->times++;
    a->status = status;
    a->e = *e;
}

static struct answer run_for(const char *shell, const char *const *env, uint64_t limit_ms)
{
    struct command_order o = {.shell = shell, .env = env, .limit_ms = limit_ms};
    uv_loop_t loop;
    struct answer a = {.times = 0};
    struct command_child *child = NULL;
    struct errmsg e = {0};
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(command_start(&loop, &o, on_end, &a, &child, &e), ERR_OK);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(a.times, 1);
    return a;
}

static struct answer run(const char *shell, const char *const *env)
{
    return run_for(shell, env, 0);
}

static void a_command_sees_no_password_of_the_configuration(void **state)
{
    const char *const env[] = {"VIP_ADDRESS=10.0.0.1/24", NULL};
    (void)state;
    assert_int_equal(setenv("REGENT_POSTGRESQL_AUTHENTICATION_SUPERUSER_PASSWORD", "x", 1), 0);
    assert_int_equal(setenv("REGENT_RESTAPI_AUTHENTICATION_PASSWORD", "y", 1), 0);
    assert_int_equal(setenv("NOTIFY_SOCKET", "/run/z", 1), 0);
    assert_int_equal(setenv("PATH", "/bin:/usr/bin", 1), 0);
    assert_int_equal(setenv("HOME", "/home/somebody", 1), 0);
    assert_int_equal(setenv("LANG", "C.UTF-8", 1), 0);
    struct answer a = run("env; exit 3", env);
    assert_int_equal(a.status, ERR_IO);
    assert_non_null(strstr(a.e.text, "exit status 3"));
    assert_non_null(strstr(a.e.text, "PATH=/bin:/usr/bin\n"));
    assert_non_null(strstr(a.e.text, "HOME=/home/somebody"));
    assert_non_null(strstr(a.e.text, "LANG=C.UTF-8"));
    assert_non_null(strstr(a.e.text, "VIP_ADDRESS=10.0.0.1/24"));
    assert_null(strstr(a.e.text, "REGENT_"));
    assert_null(strstr(a.e.text, "NOTIFY_SOCKET"));
}

static void a_command_ends_as_it_does(void **state)
{
    (void)state;
    assert_int_equal(run("exit 0", NULL).status, ERR_OK);
    assert_int_equal(run("kill -9 $$", NULL).status, ERR_CANCELLED);
    assert_int_equal(run("/nowhere/to/be/found", NULL).status, ERR_IO);
    assert_int_equal(run_for("exit 0", NULL, COMMAND_NO_LIMIT).status, ERR_OK);
    struct answer late = run_for("echo begun; sleep 600", NULL, 2000);
    assert_int_equal(late.status, ERR_TIMEOUT);
    assert_non_null(strstr(late.e.text, "within 2 s"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_command_sees_no_password_of_the_configuration),
        cmocka_unit_test(a_command_ends_as_it_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
