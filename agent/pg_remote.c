#include "agent/pg_remote.h"

#include <stdio.h>

enum { REMOTE_CONNECT_MS = 3000 };

void pg_remote_connect(struct pg_sql *s, const struct postgres_upstream *to,
                       const struct conf_user *user, bool replication, pg_sql_cb *cb, void *arg)
{
    struct pg_sql_target t = {.n = 0};
    pg_sql_target_add(&t, "host", to->host);
    pg_sql_target_add(&t, "port", to->port);
    pg_sql_target_add(&t, "user", user->username);
    pg_sql_target_add(&t, "password", user->password);
    /* nobody's ~/.pgpass; of one that is there and no file libpq warns at every connection */
    pg_sql_target_add(&t, "passfile", "/dev/null/none");
    pg_sql_target_add(&t, "application_name", "regent");
    pg_sql_target_add(&t, "gssencmode", "disable");
    pg_sql_target_add(&t, "sslmode", "prefer");
    pg_sql_target_add(&t, "tcp_user_timeout", "3000");
    if (to->read_write)
        pg_sql_target_add(&t, "target_session_attrs", "read-write");
    if (replication)
        pg_sql_target_add(&t, "replication", "true");
    else
        pg_sql_target_add(&t, "dbname", "postgres");
    pg_sql_connect(s, &t, REMOTE_CONNECT_MS, cb, arg);
}
