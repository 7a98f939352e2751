#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <signal.h>

#include "base/clock.h"
#include "test_fence_world.h"

/* Needs a delegated cgroup (root, or a user unit with Delegate=yes); told and skipped without. */
static void start_in_cgroup(struct world *w)
{
    world_start(w, false, "--ignore-quit");
    if (world_state(w)->cgroup)
        return;
    print_message("SKIP: no cgroup v2 is delegated to this process\n");
    skip();
}

static uint64_t extended_ms;

static bool is_not_frozen(const struct world *w)
{
    return !is_frozen(w);
}

static bool commits_again(const struct world *w)
{
    return world_last_commit_ms(w) > extended_ms;
}

static void near_the_deadline_postgres_stands_still_and_thaws_on_a_renewal(void **state)
{
    struct world *w = *state;
    start_in_cgroup(w);
    uint64_t deadline = world_arm(w, 5, WORLD_SOON_MS);
    WORLD_UNTIL(w, is_frozen);
    assert_true(clock_boot_ms() < deadline);
    fence_extend(w->fence, clock_boot_ms() + WORLD_NEVER_MS);
    extended_ms = clock_boot_ms();
    WORLD_UNTIL(w, commits_again);
    WORLD_UNTIL(w, is_not_frozen);
    assert_true(is_running(w));
}

static void frozen_it_is_killed_before_the_deadline(void **state)
{
    struct world *w = *state;
    start_in_cgroup(w);
    uint64_t deadline = world_arm(w, 5, WORLD_SOON_MS);
    WORLD_UNTIL(w, is_frozen);
    uint64_t frozen = clock_boot_ms();
    WORLD_UNTIL(w, is_dead);
    assert_true(world_state(w)->swept_ms <= deadline);
    assert_true(world_last_commit_ms(w) <= frozen + 20);
    world_start(w, false, NULL); /* the next one is not born frozen */
}

static void a_frozen_postgres_does_not_survive_its_fence(void **state)
{
    struct world *w = *state;
    start_in_cgroup(w);
    (void)world_arm(w, 5, WORLD_SOON_MS);
    WORLD_UNTIL(w, is_frozen);
    (void)kill(world_fence_pid(w), SIGKILL);
    WORLD_UNTIL(w, is_dead);
    assert_int_equal(w->lost, 1);
    WORLD_UNTIL(w, is_connected);
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
        T(near_the_deadline_postgres_stands_still_and_thaws_on_a_renewal),
        T(frozen_it_is_killed_before_the_deadline),
        T(a_frozen_postgres_does_not_survive_its_fence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
