/* Preloaded (LD_PRELOAD) into regentd and the fence it starts: a regular file whose name ends in "fake-watchdog" is a
 * watchdog of the kernel, and has a line for everything that is done to it: WORD MILLISECONDS (CLOCK_BOOTTIME) SECONDS. */
#include <dlfcn.h>
#include <linux/watchdog.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static int seconds = 60;

static int is_ours(int fd)
{
    char link[64], path[512];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    static const char name[] = "fake-watchdog";
    size_t length = sizeof name - 1;
    return n > (ssize_t)length && memcmp(path + n - length, name, length) == 0;
}

static int note(int fd, const char *word)
{
    char line[96];
    struct timespec t;
    (void)clock_gettime(CLOCK_BOOTTIME, &t);
    int n = snprintf(line, sizeof line, "%s %lld %d\n", word,
                     (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000, seconds);
    return write(fd, line, (size_t)n) == n ? 0 : -1;
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list list;
    va_start(list, request);
    void *arg = va_arg(list, void *);
    va_end(list);
    if (!is_ours(fd)) {
        int (*next)(int, unsigned long, ...);
        void *f = dlsym(RTLD_NEXT, "ioctl");
        memcpy(&next, &f, sizeof next);
        return next(fd, request, arg);
    }
    if (request == WDIOC_SETTIMEOUT) {
        seconds = *(int *)arg;
        return note(fd, "time");
    }
    if (request == WDIOC_SETOPTIONS)
        return note(fd, *(int *)arg == WDIOS_ENABLECARD ? "on" : "off");
    return note(fd, request == WDIOC_KEEPALIVE ? "feed" : "?");
}
