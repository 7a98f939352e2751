/* Threads. Signals are the main thread's: what is started here has all of them blocked. */
#ifndef REGENT_BASE_THREAD_H
#define REGENT_BASE_THREAD_H

#include <pthread.h>

#include "base/base.h"

/* 0, or an errno number. */
int thread_start(pthread_t *ret_thread, void *(*run)(void *), void *arg) MUST_CHECK;

/* The calling thread, and what it starts, asks for short turns of the processor: when it wakes up it need not wait
 * until somebody who computes has had the whole of his, and its share stays what it was (sched_setattr(2), Linux 6.12
 * and later; before, nothing happens). Nor does anything under a real-time policy. Not for one that starts
 * programs: they would have it, too. */
void thread_prompt(void);

/* A piece of work that the caller needs and has other work beside. When no thread can be had it is done in
 * side_work_start(). */
struct side_work {
    pthread_t thread;
    bool running;
};

void side_work_start(struct side_work *w, void *(*run)(void *), void *arg);
/* Waits for its end. */
void side_work_end(struct side_work *w);

#endif
