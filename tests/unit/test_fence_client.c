#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "test_fence_world.h"

static void assert_swept_by(const struct world *w, uint64_t deadline)
{
    uint64_t swept = world_state(w)->swept_ms;
    print_message("  nothing left %lld ms before the deadline\n",
                  (long long)(deadline - swept));
    assert_true(swept != 0 && swept <= deadline);
}

/* The last commit, whoever's, lies before the moment. */
static void assert_no_commit_after(const struct world *w, uint64_t ms)
{
    uint64_t last = world_last_commit_ms(w);
    if (last > ms)
        fail_msg("a commit %llu ms too late", (unsigned long long)(last - ms));
}

/* For what is gone and has left no time: its processes would write a line a millisecond. */
static void assert_nothing_commits(struct world *w)
{
    uint64_t now = clock_boot_ms();
    world_run_ms(w, 300);
    assert_no_commit_after(w, now);
}

static void assert_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 120000), 1);
}

static void a_start_and_a_fast_stop(void **state)
{
    struct world *w = *state;
    world_start(w, false, NULL);
    assert_true(world_state(w)->processes_left);
    assert_false(world_state(w)->adopted);
    assert_int_equal(fence_signal(w->fence, SIGINT), ERR_OK);
    WORLD_UNTIL(w, is_dead);
    assert_true(world_state(w)->requested);
    assert_false(world_state(w)->fenced);
    assert_int_equal(world_state(w)->exit_status, 0);
    assert_int_equal(w->lost, 0);
}

static void a_second_postmaster_is_refused(void **state)
{
    struct world *w = *state;
    world_start(w, false, NULL);
    const char *argv[] = {FAKE_POSTGRES, "-D", w->dir, NULL};
    struct errmsg e;
    assert_int_equal(fence_start_postgres(w->fence, argv, NULL, w->log, false, &e), ERR_EXISTS);
}

static void a_start_that_may_write_needs_a_deadline(void **state)
{
    struct world *w = *state;
    const char *argv[] = {FAKE_POSTGRES, "-D", w->dir, NULL};
    struct errmsg e;
    assert_int_equal(fence_start_postgres(w->fence, argv, NULL, w->log, true, &e),
                     ERR_PRECONDITION);
    (void)world_arm(w, 3, WORLD_NEVER_MS);
    world_start(w, true, NULL);
}

static bool is_exited(const struct world *w)
{
    return world_state(w)->exited;
}

static void a_program_that_is_not_there_is_an_exit_with_a_reason(void **state)
{
    struct world *w = *state;
    const char *argv[] = {"/nonexistent/postgres", "-D", w->dir, NULL};
    struct errmsg e;
    assert_int_equal(fence_start_postgres(w->fence, argv, NULL, w->log, false, &e), ERR_OK);
    WORLD_UNTIL(w, is_dead);
    assert_int_equal(WEXITSTATUS(world_state(w)->exit_status), 127);
    assert_non_null(strstr(world_state(w)->refused, "/nonexistent/postgres"));
    assert_false(world_state(w)->requested);
    world_start(w, false, NULL);
    assert_false(is_exited(w));
}

static void everything_is_dead_at_the_deadline(void **state)
{
    struct world *w = *state;
    world_start(w, false, NULL);
    uint64_t deadline = world_arm(w, 7, WORLD_SOON_MS);
    WORLD_UNTIL(w, is_dead);
    assert_swept_by(w, deadline);
    assert_true(world_state(w)->fenced);
    assert_false(world_state(w)->armed);
    assert_false(world_state(w)->requested);
    assert_no_commit_after(w, deadline);
}

static void a_postgres_that_ignores_sigquit_is_dead_at_the_deadline_too(void **state)
{
    struct world *w = *state;
    world_start(w, false, "--ignore-quit");
    uint64_t deadline = world_arm(w, 7, WORLD_SOON_MS);
    WORLD_UNTIL(w, is_dead);
    assert_swept_by(w, deadline);
    assert_no_commit_after(w, deadline);
    assert_int_equal(world_state(w)->exit_status, SIGKILL);
}

static void a_stopped_postgres_is_killed_as_it_is(void **state)
{
    struct world *w = *state;
    assert_int_equal(kill(world_start(w, false, NULL), SIGSTOP), 0);
    uint64_t deadline = world_arm(w, 7, WORLD_SOON_MS);
    WORLD_UNTIL(w, is_dead);
    assert_swept_by(w, deadline);
}

static void an_extension_keeps_it_alive(void **state)
{
    struct world *w = *state;
    world_start(w, false, NULL);
    uint64_t first = world_arm(w, 7, WORLD_LATER_MS);
    while (clock_boot_ms() < first - WORLD_BUDGET_MS + 300) {
        world_run_ms(w, 150);
        fence_extend(w->fence, clock_boot_ms() + WORLD_LATER_MS);
    }
    assert_true(is_running(w));
    fence_extend(w->fence, clock_boot_ms() + WORLD_NEVER_MS);
    uint64_t deadline = world_state(w)->deadline_ms;
    fence_extend(w->fence, deadline - 300); /* never backwards */
    assert_int_equal(world_state(w)->deadline_ms, deadline);
    assert_true(fence_shorten(w->fence, deadline + 1000));
    assert_int_equal(world_state(w)->deadline_ms, deadline);
    assert_true(fence_shorten(w->fence, deadline - 1000)); /* but when it is asked for */
    assert_int_equal(world_state(w)->deadline_ms, deadline - 1000);
    (void)world_arm(w, 8, WORLD_BUDGET_MS - 300); /* and by an order */
    WORLD_UNTIL(w, is_dead);
    assert_true(world_state(w)->swept_ms < deadline);
}

static void a_standby_runs_on_without_a_deadline(void **state)
{
    struct world *w = *state;
    world_start(w, false, NULL);
    uint64_t deadline = world_arm(w, 7, WORLD_LATER_MS);
    assert_int_equal(fence_disarm(w->fence), ERR_OK);
    while (clock_boot_ms() < deadline - WORLD_BUDGET_MS + 300)
        world_run_ms(w, 100);
    assert_true(is_running(w));
    assert_false(world_state(w)->armed);
}

static void what_a_crashed_postmaster_leaves_is_swept(void **state)
{
    struct world *w = *state;
    pid_t pid = world_start(w, false, NULL);
    assert_int_equal(kill(pid, SIGKILL), 0);
    WORLD_UNTIL(w, is_dead);
    assert_false(world_state(w)->requested);
    assert_no_commit_after(w, world_state(w)->swept_ms);
    assert_nothing_commits(w);
}

static void nothing_is_left_when_it_says_so(void **state)
{
    struct world *w = *state;
    for (unsigned i = 0; i < 5; i++) {
        world_start(w, false, "--linger");
        assert_int_equal(fence_signal(w->fence, SIGINT), ERR_OK);
        WORLD_UNTIL(w, is_dead);
        assert_no_commit_after(w, world_state(w)->swept_ms);
    }
}

static void a_daemon_that_returns_adopts(void **state)
{
    struct world *w = *state;
    pid_t pid = world_start(w, false, NULL);
    uint64_t deadline = world_arm(w, 9, WORLD_NEVER_MS);
    fence_remember(w->fence, 11, 12);
    world_disconnect(w);
    world_connect(w);
    const struct fence_state *s = world_state(w);
    assert_true(s->adopted);
    assert_int_equal(s->postmaster, pid);
    assert_true(s->armed);
    assert_int_equal(s->token, 9);
    assert_int_equal(s->deadline_ms, deadline);
    assert_int_equal(s->lease, 11);
    assert_int_equal(s->nonce, 12);
    fence_extend(w->fence, deadline + 1000);
    assert_int_equal(s->deadline_ms, deadline + 1000);
}

static void without_a_daemon_it_kills_and_waits_for_one(void **state)
{
    struct world *w = *state;
    int postmaster = (int)syscall(SYS_pidfd_open, world_start(w, false, NULL), 0);
    uint64_t deadline = world_arm(w, 9, WORLD_LATER_MS);
    pid_t fence = world_fence_pid(w);
    world_disconnect(w);
    assert_readable(postmaster); /* it has exited */
    (void)close(postmaster);
    world_connect(w);
    assert_int_equal(world_fence_pid(w), fence);
    WORLD_UNTIL(w, is_dead);
    assert_true(world_state(w)->fenced);
    assert_swept_by(w, deadline);
    assert_no_commit_after(w, deadline);
}

static bool is_back(const struct world *w)
{
    return w->lost > 0 && is_connected(w) && is_dead(w);
}

static void a_killed_fence_takes_postgres_along_and_a_new_one_comes(void **state)
{
    struct world *w = *state;
    world_start(w, false, "--ignore-quit"); /* PDEATHSIG alone would not do */
    (void)world_arm(w, 9, WORLD_NEVER_MS);
    pid_t fence = world_fence_pid(w);
    assert_int_equal(kill(fence, SIGKILL), 0);
    WORLD_UNTIL(w, is_back);
    assert_nothing_commits(w);
    assert_int_equal(w->lost, 1);
    assert_int_not_equal(world_fence_pid(w), fence);
    assert_false(world_state(w)->adopted);
    assert_false(world_state(w)->armed);
    assert_true(world_state(w)->fenced);
    world_start(w, false, NULL);
}

static void a_stopped_fence_is_replaced(void **state)
{
    struct world *w = *state;
    world_start(w, false, "--ignore-quit");
    (void)world_arm(w, 9, WORLD_NEVER_MS);
    assert_int_equal(kill(world_fence_pid(w), SIGSTOP), 0);
    WORLD_UNTIL(w, is_back);
    assert_nothing_commits(w);
}

static void a_new_fence_sees_what_an_older_one_left(void **state)
{
    struct world *w = *state;
    world_start(w, false, "--ignore-quit");
    pid_t fence = world_fence_pid(w);
    world_disconnect(w);
    assert_int_equal(kill(fence, SIGKILL), 0);
    /* The first new fence has no name of the program to go by but "postgres"; a start does. */
    world_connect(w);
    const char *argv[] = {FAKE_POSTGRES, "-D", w->dir, NULL};
    struct errmsg e;
    assert_int_equal(fence_start_postgres(w->fence, argv, NULL, w->log, false, &e), ERR_OK);
    WORLD_UNTIL(w, is_exited);
    assert_int_equal(WEXITSTATUS(world_state(w)->exit_status), 127);
    assert_non_null(strstr(world_state(w)->refused, "exists"));
}

static bool is_burdened(const struct world *w)
{
    return world_state(w)->processes_left && !is_running(w);
}

static void and_kills_it_on_demand(void **state)
{
    struct world *w = *state;
    a_new_fence_sees_what_an_older_one_left(state);
    WORLD_UNTIL(w, is_burdened);
    assert_int_equal(fence_kill(w->fence), ERR_OK);
    WORLD_UNTIL(w, is_dead);
    world_start(w, false, NULL);
}

static bool has_worker(const struct world *w)
{
    return world_worker_pid(w) != 0;
}

static bool has_no_worker(const struct world *w)
{
    return world_worker_pid(w) == 0;
}

static void a_worker_ends_when_its_daemon_goes(void **state)
{
    struct world *w = *state;
    int fd = fence_worker_connect(w->fence);
    assert_true(fd >= 0);
    WORLD_UNTIL(w, has_worker);
    (void)close(fd);
    WORLD_UNTIL(w, has_no_worker);
}

static void a_worker_is_no_part_of_postgres(void **state)
{
    struct world *w = *state;
    world_start(w, false, NULL);
    int fd = fence_worker_connect(w->fence);
    assert_true(fd >= 0);
    WORLD_UNTIL(w, has_worker);
    pid_t pid = world_worker_pid(w);
    assert_int_equal(fence_kill(w->fence), ERR_OK);
    WORLD_UNTIL(w, is_dead);
    assert_int_equal(world_worker_pid(w), pid);
    assert_int_equal(kill(pid, 0), 0);
    (void)close(fd);
}

static pid_t old_fence;

static bool has_a_new_fence(const struct world *w)
{
    return is_connected(w) && world_fence_pid(w) != old_fence;
}

static void assert_remembered(const struct world *w)
{
    assert_int_equal(world_state(w)->lease, 11);
    assert_int_equal(world_state(w)->nonce, 12);
}

static void what_is_remembered_is_in_the_memory_of_every_fence(void **state)
{
    struct world *w = *state;
    old_fence = world_fence_pid(w);
    world_disconnect(w);
    assert_int_equal(kill(old_fence, SIGKILL), 0);
    world_open_fence(w);
    fence_remember(w->fence, 11, 12); /* before there is one */
    WORLD_UNTIL(w, has_a_new_fence);
    assert_remembered(w);
    old_fence = world_fence_pid(w);
    assert_int_equal(kill(old_fence, SIGKILL), 0);
    WORLD_UNTIL(w, has_a_new_fence);
    world_disconnect(w);
    world_connect(w);
    assert_remembered(w);
}

static void a_worker_does_not_survive_its_fence(void **state)
{
    struct world *w = *state;
    int fd = fence_worker_connect(w->fence);
    assert_true(fd >= 0);
    WORLD_UNTIL(w, has_worker);
    old_fence = world_fence_pid(w);
    assert_int_equal(kill(old_fence, SIGKILL), 0);
    char byte;
    assert_int_equal(read(fd, &byte, 1), 0); /* the end of its socket is the event */
    (void)close(fd);
    WORLD_UNTIL(w, has_a_new_fence);
}

static void assert_ends(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    assert_readable(fd);
    (void)close(fd);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void a_fence_asked_to_stop_ends_and_removes_its_socket(void **state)
{
    struct world *w = *state;
    pid_t pid = world_fence_pid(w);
    world_stop_fence(w);
    assert_ends(pid);
    assert_int_not_equal(access(w->socket, F_OK), 0);
}

static void a_last_order_is_taken_although_news_of_the_fence_were_not(void **state)
{
    struct world *w = *state;
    pid_t pid = world_fence_pid(w);
    assert_int_equal(fence_arm(w->fence, 4, clock_boot_ms() + WORLD_NEVER_MS), ERR_OK);
    assert_int_equal(fence_disarm(w->fence), ERR_OK);
    world_wait_for_news(w);
    world_stop_fence(w);
    assert_ends(pid);
}

static void sigterm_does_not_end_a_fence_that_guards(void **state)
{
    struct world *w = *state;
    world_start(w, false, NULL);
    pid_t pid = world_fence_pid(w);
    assert_int_equal(kill(pid, SIGTERM), 0);
    assert_int_equal(kill(pid, SIGHUP), 0);
    world_run_ms(w, 200);
    assert_int_equal(w->lost, 0);
    assert_true(is_running(w));
}

static int setup(void **state)
{
    static struct world w;
    world_open(&w, true);
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    world_close(*state);
    return 0;
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_start_and_a_fast_stop),
        T(a_second_postmaster_is_refused),
        T(a_start_that_may_write_needs_a_deadline),
        T(a_program_that_is_not_there_is_an_exit_with_a_reason),
        T(everything_is_dead_at_the_deadline),
        T(a_postgres_that_ignores_sigquit_is_dead_at_the_deadline_too),
        T(a_stopped_postgres_is_killed_as_it_is),
        T(an_extension_keeps_it_alive),
        T(a_standby_runs_on_without_a_deadline),
        T(what_a_crashed_postmaster_leaves_is_swept),
        T(nothing_is_left_when_it_says_so),
        T(what_is_remembered_is_in_the_memory_of_every_fence),
        T(a_daemon_that_returns_adopts),
        T(without_a_daemon_it_kills_and_waits_for_one),
        T(a_killed_fence_takes_postgres_along_and_a_new_one_comes),
        T(a_stopped_fence_is_replaced),
        T(a_new_fence_sees_what_an_older_one_left),
        T(and_kills_it_on_demand),
        T(a_worker_ends_when_its_daemon_goes),
        T(a_worker_is_no_part_of_postgres),
        T(a_worker_does_not_survive_its_fence),
        T(a_fence_asked_to_stop_ends_and_removes_its_socket),
        T(a_last_order_is_taken_although_news_of_the_fence_were_not),
        T(sigterm_does_not_end_a_fence_that_guards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
