/* PostgreSQL itself, for `query` and `user`: a connection to a node that the HA records name. */
#ifndef REGENT_CLI_PG_H
#define REGENT_CLI_PG_H

#include <libpq-fe.h>

#include "cli/cluster.h"

struct pg_wanted {
    /* leader, primary, replica, standby, any; NULL: any with a member, else primary */
    const char *role;
    const char *member;   /* NULL: any that has the role */
    const char *dbname;   /* NULL: postgres */
    const char *user;     /* NULL: the superuser of secrets.yml */
    const char *password; /* NULL: of secrets.yml for the superuser, else what libpq finds */
};

/* Connects; says why not. The caller ends it with PQfinish(). The session names itself regentctl and says nothing on
 * standard error by itself. */
enum err pg_connect(struct cli *c, const struct pg_wanted *w, PGconn **ret_pg) MUST_CHECK;
/* The last error of the connection or of a result in one line, without "ERROR: ". */
void pg_error_line(const char *message, char *ret, size_t size);
bool pg_known_role(const char *role);

/* ---- secret.c ---- */
enum { SECRET_MAX = 256 };
/* A password from the terminal, not echoed (twice when `twice`), or one line of standard input. Says what is wrong. */
enum err secret_read(const char *prompt, bool twice, char ret[static SECRET_MAX]) MUST_CHECK;

#endif
