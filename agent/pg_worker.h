/* The agent's end of the worker: requests queue, one is under way, each has a deadline of ours. A
 * worker that does not answer in time is left behind (its disk may hang) and a fresh one asked for. */
#ifndef REGENT_AGENT_PG_WORKER_H
#define REGENT_AGENT_PG_WORKER_H

#include <uv.h>

#include "agent/fence.h"
#include "agent/worker/worker_messages.h"

struct pg_worker;

/* reply: valid for the callback; on a failure that the worker did not report it is empty. */
typedef void pg_worker_cb(void *arg, enum err status, const struct errmsg *e,
                          const struct worker_reply *reply);
/* What is 0 is not known. */
typedef void pg_worker_progress(void *arg, uint64_t percent, uint64_t bytes);

struct pg_worker *pg_worker_new(uv_loop_t *loop, struct fence *fence,
                                pg_worker_progress *progress, void *arg);
void pg_worker_free(struct pg_worker *w); /* pending callbacks do not come */
/* Copies q. timeout_ms 0: none (a clone). The callback comes once, from the loop. */
void pg_worker_send(struct pg_worker *w, const struct worker_req *q, uint64_t timeout_ms,
                    pg_worker_cb *cb, void *arg);
/* Ends the request of this callback argument: its callback comes with ERR_CANCELLED, or with what it
 * had come to already. */
void pg_worker_cancel(struct pg_worker *w, void *arg);

#endif
