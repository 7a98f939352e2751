/* Preloaded (LD_PRELOAD) into everything a node runs: all clocks are behind by the nanoseconds that the file named by
 * STOPPED_CLOCK holds (one int64_t). Who freezes the node and adds the time of the freeze before the thaw has made a
 * virtual machine whose host stopped it: no clock in it has moved. Waits for a moment are moved along with the clocks. */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { NS = 1000000000 };

static const volatile int64_t *behind_ns; /* mapped; NULL: none */

__attribute__((constructor)) static void open_file(void)
{
    const char *path = getenv("STOPPED_CLOCK");
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *map = mmap(NULL, sizeof *behind_ns, PROT_READ, MAP_SHARED, fd, 0);
    behind_ns = map != MAP_FAILED ? map : NULL;
    (void)close(fd);
}

static int64_t behind(void)
{
    return behind_ns != NULL ? *behind_ns : 0;
}

static struct timespec moved(struct timespec t, int64_t by_ns)
{
    int64_t ns = (int64_t)t.tv_sec * NS + t.tv_nsec + by_ns;
    return (struct timespec){.tv_sec = (time_t)(ns / NS), .tv_nsec = (long)(ns % NS)};
}

/* The function of that name that this one stands before, into *ret_function. */
static void next_of(const char *name, void *ret_function, size_t size)
{
    void *f = dlsym(RTLD_NEXT, name);
    memcpy(ret_function, &f, size);
}

int clock_gettime(clockid_t id, struct timespec *ret_time)
{
    static int (*next)(clockid_t, struct timespec *);
    if (next == NULL)
        next_of("clock_gettime", &next, sizeof next);
    int rv = next(id, ret_time);
    if (rv == 0 && id != CLOCK_PROCESS_CPUTIME_ID && id != CLOCK_THREAD_CPUTIME_ID)
        *ret_time = moved(*ret_time, -behind());
    return rv;
}

int gettimeofday(struct timeval *restrict ret_time, void *restrict zone)
{
    struct timespec t;
    (void)zone;
    int rv = clock_gettime(CLOCK_REALTIME, &t);
    *ret_time = (struct timeval){.tv_sec = t.tv_sec, .tv_usec = t.tv_nsec / 1000};
    return rv;
}

time_t time(time_t *ret_time)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    if (ret_time != NULL)
        *ret_time = t.tv_sec;
    return t.tv_sec;
}

int timerfd_settime(int fd, int flags, const struct itimerspec *at, struct itimerspec *ret_old)
{
    static int (*next)(int, int, const struct itimerspec *, struct itimerspec *);
    struct itimerspec t = *at;
    if (next == NULL)
        next_of("timerfd_settime", &next, sizeof next);
    if ((flags & TFD_TIMER_ABSTIME) != 0 && (t.it_value.tv_sec != 0 || t.it_value.tv_nsec != 0))
        t.it_value = moved(t.it_value, behind());
    return next(fd, flags, &t, ret_old);
}

/* Which of the two clocks a moment is of can be told by its size. */
int pthread_cond_timedwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m,
                           const struct timespec *restrict at)
{
    struct timespec t = moved(*at, behind());
    return pthread_cond_clockwait(c, m, at->tv_sec > NS ? CLOCK_REALTIME : CLOCK_MONOTONIC, &t);
}
