/* REST on restapi.listen: health checks and status, answered from a copy of the newest view, in threads of
 * the HTTP library. Never blocks on the DCS, the loop or PostgreSQL; whether the lease still holds is judged
 * by the clock at the time of the answer, so that a stalled loop cannot keep /primary at 200. */
#ifndef REGENT_AGENT_REST_H
#define REGENT_AGENT_REST_H

#include "agent/core/plan.h"
#include "agent/mirror.h"
#include "conf/config.h"

struct rest;

/* *ret_rest is NULL when restapi.listen is empty. */
enum err rest_start(const struct config *c, struct rest **ret_rest, struct errmsg *e)
    MUST_CHECK;
/* Copies what the answers need. Agent thread. NULL rest is allowed. */
void rest_publish(struct rest *r, const struct view *v, const struct plan *p,
                  const struct mirror *m, const char *pg_version);
void rest_stop(struct rest *r);

#endif
