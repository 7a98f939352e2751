/* Takes the hash of a pinned state on a worker and reports it to the node. */
#ifndef REGENT_DCS_HASHER_H
#define REGENT_DCS_HASHER_H

#include <uv.h>

#include "dcs/node.h"

/* *node is looked at when it is done: the node lives as long as the loop runs. */
void hasher_start(uv_loop_t *loop, struct state_copy *copy, struct node **node);

#endif
