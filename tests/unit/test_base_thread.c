/* Threads take no signals; work beside the caller ends before it is used; short turns of the processor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

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

enum { SLICE_AT = 24 }; /* sched_runtime in struct sched_attr, whose length is 48 at first */

/* In ns; 0: this kernel does not tell it. */
static uint64_t slice(void)
{
    unsigned char attr[48] = {sizeof attr};
    uint64_t ns = 0;
    if (syscall(SYS_sched_getattr, 0, attr, sizeof attr, 0) != 0)
        return 0; /* a container's filter */
    memcpy(&ns, attr + SLICE_AT, sizeof ns);
    return ns;
}

struct turns {
    int policy, nice;
    uint64_t before_ns, after_ns;
};

static void *be_prompt(void *arg)
{
    struct turns *s = arg;
    s->before_ns = slice();
    thread_prompt();
    s->after_ns = slice();
    s->policy = sched_getscheduler(0);
    s->nice = getpriority(PRIO_PROCESS, 0);
    return NULL;
}

/* Its turns alone are shorter: policy and priority stay, and so do other threads. */
static void a_prompt_thread_asks_for_short_turns(void **t)
{
    (void)t;
    struct turns s = {0};
    struct side_work w;
    uint64_t here_ns = slice();
    side_work_start(&w, be_prompt, &s);
    side_work_end(&w);
    assert_int_equal(s.policy, sched_getscheduler(0));
    assert_int_equal(s.nice, getpriority(PRIO_PROCESS, 0));
    assert_true(s.after_ns == 100 * 1000 || s.after_ns == s.before_ns);
    assert_int_equal(slice(), here_ns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_thread_asks_for_short_turns),
        cmocka_unit_test(a_thread_takes_no_signals_and_its_starter_does),
        cmocka_unit_test(side_work_runs_beside_and_is_done_at_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
