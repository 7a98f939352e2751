#include "base/thread.h"

#include <signal.h>

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
