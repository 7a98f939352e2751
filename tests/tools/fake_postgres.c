/* A postmaster for tests: children that "commit" in a loop, and the vices of the real one on demand.
 *
 *   fake_postgres -D DIR [--children N] [--ignore-quit] [--ignore-int] [--linger]
 *
 * Changes to DIR as PostgreSQL does; each child, in a session of its own, appends a line with its
 * CLOCK_BOOTTIME in microseconds to DIR/commits about once a millisecond, whatever becomes of its
 * parent. SIGINT: children are ended, status 0. SIGQUIT: the same, status 2. --ignore-*: parent and
 * children ignore it. --linger: the parent ends on SIGINT without its children. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CHILDREN_MAX = 64 };

static volatile sig_atomic_t got;

static void on_signal(int number)
{
    got = number;
}

static long long boot_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_BOOTTIME, &t);
    return (long long)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void commit_for_ever(void)
{
    (void)setsid();
    int fd = open("commits", O_WRONLY | O_CREAT | O_APPEND, 0600);
    for (;;) {
        char line[32];
        int n = snprintf(line, sizeof line, "%lld\n", boot_us());
        if (fd < 0 || write(fd, line, (size_t)n) != n)
            _exit(1);
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static void set(int number, int ignored)
{
    struct sigaction a = {.sa_handler = on_signal};
    if (ignored)
        a.sa_handler = SIG_IGN;
    (void)sigaction(number, &a, NULL);
}

int main(int argc, char **argv)
{
    const char *dir = NULL;
    int children = 2, ignore_quit = 0, ignore_int = 0, linger = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-D") == 0 && i + 1 < argc)
            dir = argv[++i];
        else if (strcmp(argv[i], "--children") == 0 && i + 1 < argc)
            children = atoi(argv[++i]);
        else if (strcmp(argv[i], "--ignore-quit") == 0)
            ignore_quit = 1;
        else if (strcmp(argv[i], "--ignore-int") == 0)
            ignore_int = 1;
        else if (strcmp(argv[i], "--linger") == 0)
            linger = 1;
        else
            return 64;
    }
    if (dir == NULL || chdir(dir) != 0 || children > CHILDREN_MAX)
        return 64;
    /* Blocked except while waiting: no signal is missed between two looks. */
    sigset_t mask, old;
    (void)sigemptyset(&mask);
    (void)sigaddset(&mask, SIGINT);
    (void)sigaddset(&mask, SIGQUIT);
    /* Before the first commit: that is the sign by which tests know that it runs. */
    (void)sigprocmask(SIG_BLOCK, &mask, &old);
    set(SIGINT, ignore_int);
    set(SIGQUIT, ignore_quit);
    pid_t child[CHILDREN_MAX];
    for (int i = 0; i < children; i++) {
        child[i] = fork();
        if (child[i] == 0) {
            (void)signal(SIGQUIT, ignore_quit ? SIG_IGN : SIG_DFL);
            (void)signal(SIGINT, SIG_DFL);
            (void)sigprocmask(SIG_SETMASK, &old, NULL);
            commit_for_ever();
        }
    }
    while (got == 0)
        (void)sigsuspend(&old);
    for (int i = 0; i < children && !linger; i++)
        (void)kill(child[i], SIGKILL);
    while (!linger && (wait(NULL) > 0 || errno == EINTR)) {
    }
    return got == SIGQUIT ? 2 : 0;
}
