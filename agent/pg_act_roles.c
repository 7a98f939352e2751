/* ENSURE_ROLES: the replication role, and the one pg_rewind works with. Idempotent. Passwords leave
 * this process only as SCRAM verifiers. */
#include <stdio.h>

#include "agent/command.h"
#include "agent/pg_text.h"
#include "agent/postgres_private.h"
#include "base/mem.h"
#include "base/str.h"

/* What pg_rewind calls on its source. */
static const char *const rewind_functions[] = {
    "pg_catalog.pg_ls_dir(text, boolean, boolean)",
    "pg_catalog.pg_stat_file(text, boolean)",
    "pg_catalog.pg_read_binary_file(text)",
    "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
};

static enum err put_role(struct postgres *p, struct buf *sql, const struct conf_user *u,
                         const char *attributes)
{
    PGconn *conn = pg_sql_conn(p->sql);
    if (conn == NULL || u->username == NULL || u->username[0] == '\0' || u->password == NULL ||
        u->password[0] == '\0')
        return ERR_INVALID;
    char *verifier = PQencryptPasswordConn(conn, u->password, u->username, "scram-sha-256");
    if (verifier == NULL)
        return ERR_INTERNAL;
    struct buf name CLEANUP(buf_close) = BUF_INIT;
    struct buf literal CLEANUP(buf_close) = BUF_INIT;
    struct buf create CLEANUP(buf_close) = BUF_INIT;
    pg_put_ident(&name, u->username);
    pg_put_literal(&literal, u->username);
    buf_printf(&create, "CREATE ROLE %s", buf_cstr(&name));
    struct buf create_literal CLEANUP(buf_close) = BUF_INIT;
    pg_put_literal(&create_literal, buf_cstr(&create));
    buf_printf(sql,
               "DO 'BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = ");
    /* Inside the quotes of DO every quote is doubled once more. */
    struct buf body CLEANUP(buf_close) = BUF_INIT;
    buf_printf(&body, "%s) THEN EXECUTE %s; END IF; END", buf_cstr(&literal),
               buf_cstr(&create_literal));
    for (const char *c = buf_cstr(&body); *c != '\0'; c++) {
        if (*c == '\'')
            buf_append_u8(sql, '\'');
        buf_append_u8(sql, (uint8_t)*c);
    }
    buf_printf(sql, "'; ALTER ROLE %s %s PASSWORD '%s';", buf_cstr(&name), attributes,
               verifier);
    explicit_bzero(verifier, strlen(verifier));
    PQfreemem(verifier);
    return ERR_OK;
}

static void ready(struct postgres *p)
{
    p->roles_ready = true;
    action_end(p, ERR_OK, NULL);
}

static void noted(struct postgres *p, const struct worker_reply *r)
{
    (void)r;
    p->probe.fresh = false;
    ready(p);
}

static void bootstrapped(struct postgres *p, enum err status, const struct errmsg *e)
{
    struct worker_req q;
    if (status != ERR_OK) {
        action_fail(p, ERR_PRECONDITION, "%s", e->text);
        return;
    }
    postgres_req(p, &q, "made");
    action_worker(p, &q, PG_WORKER_MS, noted);
}

/* Its connection is the superuser's, by the socket; nobody else is there yet, so no commit waits for a standby. */
static void post_bootstrap(struct postgres *p)
{
    const struct config *c = p->config;
    const struct conf_user *u = &c->postgresql.authentication.superuser;
    const char *command = c->bootstrap.post_bootstrap[0] != '\0' ? c->bootstrap.post_bootstrap
                                                                 : c->bootstrap.post_init;
    struct buf dsn CLEANUP(buf_close) = BUF_INIT;
    pg_put_conninfo(&dsn, "host", p->socket_dir);
    pg_put_conninfo(&dsn, "port", p->port);
    pg_put_conninfo(&dsn, "user", u->username);
    pg_put_conninfo(&dsn, "dbname", "postgres");
    char *target CLEANUP(mem_cleanup) = mem_printf("REGENT_DSN=%s", buf_cstr(&dsn));
    char *password CLEANUP(mem_cleanup) = mem_printf("PGPASSWORD=%s", u->password);
    char *shell CLEANUP(mem_cleanup) =
        command[0] != '\0' ? mem_printf("%s \"$REGENT_DSN\"", command) : mem_strdup("");
    const char *env[] = {target, password,
                         "PGOPTIONS=-c synchronous_commit=local -c statement_timeout=0", NULL};
    hook_run(p, "post_bootstrap", shell, env, COMMAND_NO_LIMIT, bootstrapped);
    explicit_bzero(password, strlen(password));
}

static void done(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    if (r->status != ERR_OK) {
        action_fail(p, r->status, "roles: %s", r->e.text);
        return;
    }
    if (p->act.plan.first && p->probe.fresh)
        post_bootstrap(p);
    else
        ready(p);
}

static void connected(void *arg, const struct pg_sql_reply *r)
{
    struct postgres *p = arg;
    struct buf sql CLEANUP(buf_close) = BUF_INIT;
    const struct conf_user *rewind = &p->config->postgresql.authentication.rewind;
    if (r->status != ERR_OK) {
        action_fail(p, r->status, "roles: %s", r->e.text);
        return;
    }
    enum err rv = put_role(p, &sql, &p->config->postgresql.authentication.replication,
                           "LOGIN REPLICATION");
    if (rv == ERR_OK)
        rv = put_role(p, &sql, rewind, "LOGIN");
    if (rv != ERR_OK) {
        action_fail(p, rv, "roles: replication and rewind each need a username and a password");
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(rewind_functions); i++) {
        buf_printf(&sql, "GRANT EXECUTE ON FUNCTION %s TO ", rewind_functions[i]);
        pg_put_ident(&sql, rewind->username);
        buf_append_u8(&sql, ';');
    }
    pg_sql_query(p->sql, buf_cstr(&sql), PG_SQL_MS, done, p);
    explicit_bzero(sql.p, sql.len);
}

void act_roles(struct postgres *p)
{
    action_connect(p, connected);
}
