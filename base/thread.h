/* Threads. Signals are the main thread's: what is started here has all of them blocked. */
#ifndef REGENT_BASE_THREAD_H
#define REGENT_BASE_THREAD_H

#include <pthread.h>

#include "base/base.h"

/* 0, or an errno number. */
int thread_start(pthread_t *ret_thread, void *(*run)(void *), void *arg) MUST_CHECK;

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
