/* REST on restapi.listen: health checks, status and metrics, answered from a copy of the newest view, in a
 * thread of the HTTP library. Never blocks on the DCS, the loop or PostgreSQL; whether the lease still holds
 * is judged by the clock at the time of the answer, so that a stalled loop cannot keep /primary at 200.
 * docs/rest.md is its manual. */
#ifndef REGENT_AGENT_REST_H
#define REGENT_AGENT_REST_H

#include "agent/core/plan.h"
#include "agent/fence.h"
#include "agent/host_watch.h"
#include "agent/mirror.h"
#include "agent/pg_monitor.h"
#include "conf/config.h"

struct rest;
struct rest_jobs;

/* All borrowed, for the call. */
struct rest_news {
    const struct view *view;
    const struct plan *plan;
    const struct mirror *mirror;
    const struct pg_seen *pg;        /* NULL: a witness, which has no PostgreSQL */
    const struct host_seen *host;    /* NULL: not known */
    const struct fence_state *fence; /* NULL: a witness */
    const char *pg_version;
};

/* *ret_rest is NULL when restapi.listen is empty. */
/* What changes something is carried out by `jobs`, which outlives it. */
enum err rest_start(const struct config *c, struct rest_jobs *jobs, struct rest **ret_rest,
                    struct errmsg *e) MUST_CHECK;
void rest_stop(struct rest *r);

/* ---- agent thread; NULL rest is allowed ---- */

/* Copies what the answers need. */
void rest_publish(struct rest *r, const struct rest_news *news);
/* The loop woke up so late. */
void rest_loop_lag(struct rest *r, uint64_t late_ms);
/* True every few seconds: ask for cluster.status, and give the answer to rest_dcs_status(). */
bool rest_dcs_due(struct rest *r, uint64_t now_ms);
/* NULL: there was no answer. Must follow each rest_dcs_due() that was true. */
void rest_dcs_status(struct rest *r, const struct status_reply *s);

#endif
