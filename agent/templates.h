/* Keeps files of other programs current (`templates:`): when members, roles or the leader change, each
 * template is rendered, checked, put in place and its program told. Files are read and written by
 * libuv's workers, commands are children: nothing here holds up the loop. Any failure leaves the last
 * good file in place, is logged with its reason, and is tried again. Loop thread of the agent. */
#ifndef REGENT_AGENT_TEMPLATES_H
#define REGENT_AGENT_TEMPLATES_H

#include <uv.h>

#include "agent/mirror.h"
#include "conf/config.h"

struct templates;

/* *ret_templates is NULL when the section is empty. `c` must outlive it. */
enum err templates_start(uv_loop_t *loop, const struct config *c,
                         struct templates **ret_templates, struct errmsg *e) MUST_CHECK;
/* Nothing more begins; frees itself when what runs has ended. NULL is allowed. */
void templates_stop(struct templates *t);

/* The records as they are now; while the mirror is not complete, nothing happens. */
void templates_publish(struct templates *t, const struct mirror *m);
/* A node that was known has no live agent: ask for member.list and give the answer (NULL: none) to
 * templates_members(). Nodes stay in the files until they have left the cluster. */
bool templates_members_due(struct templates *t, uint64_t now_ms);
void templates_members(struct templates *t, const struct member_list *list);

#endif
