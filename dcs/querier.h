/* sql.query: one SELECT at a time, on a pinned state, by a worker. */
#ifndef REGENT_DCS_QUERIER_H
#define REGENT_DCS_QUERIER_H

#include <uv.h>

#include "dcs/node.h"

struct querier {
    bool busy;
};

/* Answers by `done` exactly once. */
void querier_run(struct querier *q, uv_loop_t *loop, struct node *n, const struct sql_req *req,
                 node_reply_cb *done, void *done_arg);

#endif
