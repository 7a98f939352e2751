#include "base/thread.h"

#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/assert.h"

int thread_start(pthread_t *ret_thread, void *(*run)(void *), void *arg)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(ret_thread, NULL, run, arg);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

/* As in sched_setattr(2): the kernel's header and libc's do not go together. */
struct scheduling {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
};

void thread_prompt(void)
{
    enum { SLICE_NS = 100 * 1000 }; /* the least there is */
    struct scheduling attr = {.size = sizeof attr};
    if (syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0) != 0 || attr.policy != SCHED_OTHER)
        return;
    attr.runtime_ns = SLICE_NS;
    (void)syscall(SYS_sched_setattr, 0, &attr, 0);
}

void side_work_start(struct side_work *w, void *(*run)(void *), void *arg)
{
    w->running = thread_start(&w->thread, run, arg) == 0;
    if (!w->running)
        (void)run(arg);
}

void side_work_end(struct side_work *w)
{
    if (!w->running)
        return;
    int rc = pthread_join(w->thread, NULL);
    ASSERT(rc == 0);
    w->running = false;
}
