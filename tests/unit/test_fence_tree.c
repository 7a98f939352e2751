#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/fence/tree.h"
#include "base/base.h"

/* A process that works in `dir` (NULL: where we are) until it is killed; ready when this returns. */
static pid_t sleeper(const char *dir, pid_t *ret_child)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (dir != NULL && chdir(dir) != 0)
            _exit(1);
        pid_t child = ret_child != NULL ? fork() : 0;
        if (ret_child != NULL && child == 0) {
            (void)setsid();
            for (;;)
                (void)pause();
        }
        (void)!write(fds[1], &child, sizeof child);
        for (;;)
            (void)pause();
    }
    pid_t child = 0;
    assert_int_equal(read(fds[0], &child, sizeof child), sizeof child);
    if (ret_child != NULL)
        *ret_child = child;
    (void)close(fds[0]);
    (void)close(fds[1]);
    return pid;
}

static void bury(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}

static void it_reads_its_own_stat(void **state)
{
    (void)state;
    struct proc_stat s;
    assert_true(proc_stat_read(getpid(), &s));
    assert_int_equal(s.ppid, getppid());
    assert_true(s.start_ticks > 0);
    assert_false(proc_stat_read(INT32_MAX, &s));
}

static void the_tree_is_the_postmaster_and_what_descends_from_it(void **state)
{
    (void)state;
    pid_t grandchild, other = sleeper(NULL, NULL), root = sleeper(NULL, &grandchild);
    struct tree t = {.root = root};
    assert_int_equal(tree_signal(&t, 0), 2);
    assert_int_equal(tree_signal(&t, SIGKILL), 2);
    assert_int_equal(waitpid(root, NULL, 0), root);
    assert_int_equal(kill(other, 0), 0);
    bury(other);
}

static void another_process_with_the_same_pid_is_not_it(void **state)
{
    (void)state;
    pid_t root = sleeper(NULL, NULL);
    struct proc_stat s;
    assert_true(proc_stat_read(root, &s));
    struct tree t = {.root = root, .root_start_ticks = s.start_ticks + 1};
    assert_int_equal(tree_signal(&t, SIGKILL), 0);
    struct proc_stat later = s;
    later.start_ticks++;
    assert_false(proc_signal(&later, SIGKILL));
    t.root_start_ticks = s.start_ticks;
    assert_int_equal(tree_signal(&t, SIGKILL), 1);
    bury(root);
}

static void the_reapers_children_belong_to_it_but_for_the_excepted(void **state)
{
    (void)state;
    pid_t below, orphan = sleeper(NULL, NULL), worker = sleeper(NULL, &below);
    struct tree t = {.reaper = getpid(), .except = {worker}};
    assert_int_equal(tree_signal(&t, SIGKILL), 1);
    assert_int_equal(waitpid(orphan, NULL, 0), orphan);
    assert_int_equal(kill(worker, 0), 0);
    assert_int_equal(kill(below, SIGKILL), 0);
    bury(worker);
}

static void a_process_in_pgdata_with_the_right_name_is_found_without_kin(void **state)
{
    (void)state;
    char dir[] = "/tmp/test_fence_tree.XXXXXX", exe[1024];
    assert_non_null(mkdtemp(dir));
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    assert_true(n > 0);
    exe[n] = '\0';
    pid_t inside = sleeper(dir, NULL), outside = sleeper("/", NULL);
    struct tree t = {0};
    (void)snprintf(t.pgdata, sizeof t.pgdata, "%s", dir);
    assert_int_equal(tree_signal(&t, 0), 0); /* we are not called postgres */
    (void)snprintf(t.exe, sizeof t.exe, "%s", strrchr(exe, '/') + 1);
    assert_int_equal(tree_signal(&t, 0), 1);
    (void)rmdir(dir); /* moved aside under it: found all the same */
    assert_int_equal(tree_signal(&t, SIGKILL), 1);
    bury(inside);
    bury(outside);
}

static void zombies_are_dead(void **state)
{
    (void)state;
    pid_t root = sleeper(NULL, NULL);
    struct tree t = {.root = root};
    (void)kill(root, SIGKILL);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)root, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(tree_signal(&t, 0), 0);
    bury(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_reads_its_own_stat),
        cmocka_unit_test(the_tree_is_the_postmaster_and_what_descends_from_it),
        cmocka_unit_test(another_process_with_the_same_pid_is_not_it),
        cmocka_unit_test(the_reapers_children_belong_to_it_but_for_the_excepted),
        cmocka_unit_test(a_process_in_pgdata_with_the_right_name_is_found_without_kin),
        cmocka_unit_test(zombies_are_dead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
