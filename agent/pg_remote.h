/* A connection to another node's PostgreSQL. */
#ifndef REGENT_AGENT_PG_REMOTE_H
#define REGENT_AGENT_PG_REMOTE_H

#include "agent/pg_sql.h"
#include "agent/postgres.h"

/* As pg_sql_connect(). replication: a walsender's connection. */
void pg_remote_connect(struct pg_sql *s, const struct postgres_upstream *to,
                       const struct conf_user *user, bool replication, pg_sql_cb *cb,
                       void *arg);

#endif
