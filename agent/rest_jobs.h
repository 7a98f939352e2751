/* What REST was asked to change (and the journal, which is not in the mirror), carried out on the agent's loop: a transaction in the DCS, then, where there is
 * something to wait for, its end as the mirror shows it. Nothing here blocks. */
#ifndef REGENT_AGENT_REST_JOBS_H
#define REGENT_AGENT_REST_JOBS_H

#include <uv.h>

#include "agent/mirror.h"
#include "agent/rest_order.h"
#include "conf/dynamic.h"
#include "proto/client.h"

struct rest_jobs;

enum { REST_JOBS_MAX = 16, REST_READS_MAX = 4 /* of them */ };

struct rest_jobs_ports {
    /* One DCS request, as client_call(). */
    void (*call)(void *arg, enum method m, const void *params, uint64_t deadline_ms,
                 client_cb *cb, void *cb_arg);
    const struct view *(*view)(void *arg);
    const struct mirror *(*mirror)(void *arg);
    /* PostgreSQL is to read its configuration. */
    void (*reload)(void *arg);
    /* ERR_OK, or why this TTL does not go with the node's election timeout. */
    enum err (*check_ttl)(void *arg, uint64_t ttl_s, struct errmsg *e);
    /* No edit may lock these out. */
    struct hba_roles (*roles)(void *arg);
};

/* Loop thread, exactly once; takes reply.body. */
typedef void rest_job_cb(void *arg, struct rest_reply reply);

/* ports are copied. Loop thread. */
struct rest_jobs *rest_jobs_new(uv_loop_t *loop, const struct rest_jobs_ports *ports,
                                void *arg);
/* Any thread; takes what the order owns. False: too many at once, nothing is taken and no callback comes. */
bool rest_jobs_add(struct rest_jobs *j, const struct rest_order *o, rest_job_cb *cb, void *arg);
/* A new view is in force. Loop thread. */
void rest_jobs_look(struct rest_jobs *j);
/* Ends all with 503; further ones are not taken. Loop thread. */
void rest_jobs_close(struct rest_jobs *j);
/* After the loop has ended. */
void rest_jobs_free(struct rest_jobs *j);

#endif
