/* The host name of a connection looked up beside the loop: libpq would hold up the loop for it. */
#ifndef REGENT_AGENT_PG_LOOKUP_H
#define REGENT_AGENT_PG_LOOKUP_H

#include "agent/pg_sql.h"

struct pg_lookup;

/* t: the target with hostaddr in it, borrowed; NULL: the name is not known. */
typedef void pg_lookup_cb(void *arg, const struct pg_sql_target *t);

/* Does t name a host that must be looked up: no path of a socket, no address? */
bool pg_lookup_needed(const struct pg_sql_target *t);
/* Copies t. NULL when it cannot be begun; else the callback comes once, from the loop. */
struct pg_lookup *pg_lookup_start(uv_loop_t *loop, const struct pg_sql_target *t,
                                  pg_lookup_cb *cb, void *arg);
/* The callback will not come. NULL is allowed. */
void pg_lookup_drop(struct pg_lookup *l);

#endif
