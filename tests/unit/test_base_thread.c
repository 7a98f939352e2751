/* Threads take no signals; work beside the caller ends before it is used. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>

#include "base/thread.h"

struct seen {
    pthread_t self;
    sigset_t blocked;
};

static void *look(void *arg)
{
    struct seen *s = arg;
    s->self = pthread_self();
    (void)pthread_sigmask(SIG_SETMASK, NULL, &s->blocked);
    return NULL;
}

static void a_thread_takes_no_signals_and_its_starter_does(void **t)
{
    (void)t;
    struct seen there = {0}, here = {0};
    pthread_t thread;
    assert_int_equal(thread_start(&thread, look, &there), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    (void)look(&here);
    assert_int_equal(sigismember(&there.blocked, SIGTERM), 1);
    assert_int_equal(sigismember(&there.blocked, SIGUSR1), 1);
    assert_int_equal(sigismember(&here.blocked, SIGTERM), 0);
}

static void side_work_runs_beside_and_is_done_at_its_end(void **t)
{
    (void)t;
    struct seen there = {0};
    struct side_work w;
    side_work_start(&w, look, &there);
    side_work_end(&w);
    side_work_end(&w); /* a second time is nothing */
    assert_int_equal(sigismember(&there.blocked, SIGTERM), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_takes_no_signals_and_its_starter_does),
        cmocka_unit_test(side_work_runs_beside_and_is_done_at_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
