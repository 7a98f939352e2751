/* Members that came back older than they were, as scripts (tests/sim/raft_script.h): whoever forgot what it has said
 * is told so by who heard it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/sim/raft_script.h"

static void a_member_that_forgot_what_it_acknowledged_is_told_by_the_leader(void **state)
{
    (void)state;
    raft_script_play(3, "lead 1\n"
                        "put 1 a\n"
                        "agree\n"
                        "keep 3\n"
                        "put 1 b\n"
                        "agree\n"
                        "crash 3\n"
                        "roll 3\n"
                        "start 3\n"
                        "run 500\n"
                        "out 3\n"
                        "put 1 c\n"
                        "run 500\n"
                        "committed 1 5\n");
}

/* The copy is one of the same cluster later than all it promised: nothing is forgotten. */
static void a_member_with_a_late_copy_goes_on(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 8192);
    raft_script(w, "lead 1\n"
                   "put 1 a\n"
                   "agree\n"
                   "run 500\n"
                   "keep 3\n"
                   "crash 3\n"
                   "roll 3\n"
                   "put 1 b\n"
                   "start 3\n"
                   "agree\n");
    assert_false(w->nodes[3].out);
    world_free(w);
}

/* Who leads now knows nothing of it; the old leader, a follower, does. */
static void the_leader_of_an_earlier_term_tells_it_too(void **state)
{
    (void)state;
    raft_script_play(3, "lead 1\n"
                        "put 1 a\n"
                        "agree\n"
                        "keep 3\n"
                        "put 1 b\n"
                        "agree\n"
                        "crash 3\n"
                        "lead 2\n"
                        "crash 2\n"
                        "start 2\n"
                        "roll 3\n"
                        "lead 2\n"
                        "start 3\n"
                        "cut 2 3\n"
                        "transfer 2 1\n"
                        "run 3000\n"
                        "out 3\n");
}

/* The copy was made between two writes: the term was stored, the vote was not. */
static void a_vote_that_was_forgotten_is_told_by_who_got_it(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 8192);
    raft_script(w, "lead 1\n"
                   "put 1 a\n"
                   "agree\n"
                   "crash 2\n"
                   "crash 1\n"
                   "start 1\n"
                   "lead 1\n" /* by the vote of 3 */
                   "crash 3\n");
    assert_int_equal(w->nodes[3].disk.vote, 1);
    w->nodes[3].disk.vote = 0;
    w->nodes[3].rolled_back = true;
    raft_script(w, "start 3\n"
                   "run 500\n"
                   "out 3\n");
    world_free(w);
}

static void a_leader_that_forgot_that_it_led_is_told(void **state)
{
    (void)state;
    raft_script_play(3, "lead 1\n"
                        "put 1 a\n"
                        "agree\n"
                        "keep 3\n"
                        "lead 3\n"
                        "put 3 b\n"
                        "agree\n"
                        "crash 3\n"
                        "roll 3\n"
                        "run 4000\n"
                        "start 3\n"
                        "run 500\n"
                        "out 3\n");
}

static void what_was_heard_outlives_the_one_that_heard_it(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 8192);
    raft_script(w, "lead 1\n"
                   "put 1 a\n"
                   "agree\n"
                   "keep 3\n"
                   "put 1 b\n"
                   "agree\n");
    struct raft_heard heard[RAFT_CORE_MEMBERS_MAX];
    size_t n = raft_core_heard_all(w->nodes[1].core, heard);
    assert_int_equal(n, 2);
    raft_script(w, "crash 3\n"
                   "roll 3\n"
                   "crash 1\n"
                   "start 1\n");
    for (size_t i = 0; i < n; i++)
        raft_core_hear(w->nodes[1].core, &heard[i]);
    raft_script(w, "lead 1\n"
                   "start 3\n"
                   "run 500\n"
                   "out 3\n");
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_member_that_forgot_what_it_acknowledged_is_told_by_the_leader),
        cmocka_unit_test(a_member_with_a_late_copy_goes_on),
        cmocka_unit_test(the_leader_of_an_earlier_term_tells_it_too),
        cmocka_unit_test(a_vote_that_was_forgotten_is_told_by_who_got_it),
        cmocka_unit_test(a_leader_that_forgot_that_it_led_is_told),
        cmocka_unit_test(what_was_heard_outlives_the_one_that_heard_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
