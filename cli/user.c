/* user create|delete|password: roles of PostgreSQL, on the primary. The server gets a verifier that was computed here;
 * the password itself stays in this process. */
#include <getopt.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/pg.h"

static const struct attribute {
    const char *option, *sql;
} attributes[] = {{"superuser", "SUPERUSER"},
                  {"createdb", "CREATEDB"},
                  {"createrole", "CREATEROLE"},
                  {"replication", "REPLICATION"},
                  {"bypassrls", "BYPASSRLS"}};

struct role_order {
    const char *name;
    bool has[ARRAY_LEN(attributes)];
    bool no_password;
};

/* Nothing of what follows may stand in the server's log or statistics, whatever they are set to. */
static const char say_nothing[] =
    "SET log_statement = 'none'; SET log_min_duration_statement = -1; "
    "SET log_min_duration_sample = -1; SET log_transaction_sample_rate = 0; "
    "SET log_min_error_statement = 'panic'; SET pg_stat_statements.track = 'none'; "
    "SET pgaudit.log = 'none'; SET track_activities = off";

static int parse(struct role_order *o, bool attributed, int argc, char **argv)
{
    struct option options[ARRAY_LEN(attributes) + 2] = {{NULL, 0, NULL, 0}};
    int option;
    for (size_t i = 0; attributed && i < ARRAY_LEN(attributes); i++)
        options[i] = (struct option){attributes[i].option, no_argument, NULL, (int)i + 1000};
    if (attributed)
        options[ARRAY_LEN(attributes)] = (struct option){"no-password", no_argument, NULL, 'n'};
    optind = 1;
    while ((option = cli_option(argc, argv, options)) != -1) {
        if (option == CLI_BAD_OPTION)
            return CLI_USAGE;
        if (option == 'n')
            o->no_password = true;
        else
            o->has[option - 1000] = true;
    }
    if (optind + 1 != argc || argv[optind][0] == '\0')
        return cli_usage("one NAME is needed; the password is asked for, or read from standard "
                         "input");
    o->name = argv[optind];
    return strlen(o->name) < 64 ? 0 : cli_usage("\"%s\" is longer than 63 bytes", o->name);
}

/* The roles that the agents work with have their passwords in secrets.yml on every node. */
static int check_own(const struct cli *c, const char *name)
{
    const struct conf_user *own[] = {&c->config.postgresql.authentication.superuser,
                                     &c->config.postgresql.authentication.replication,
                                     &c->config.postgresql.authentication.rewind};
    for (size_t i = 0; i < ARRAY_LEN(own); i++)
        if (own[i]->username != NULL && strcmp(own[i]->username, name) == 0)
            return cli_fail(ERR_PRECONDITION,
                            "%s is a role that Regent works with: its password is in "
                            "secrets.yml of every node; nothing changed",
                            name);
    return 0;
}

static int run(PGconn *pg, const char *sql)
{
    char why[600];
    PGresult *r = PQexec(pg, sql);
    bool good = PQresultStatus(r) == PGRES_COMMAND_OK;
    bool lost = PQstatus(pg) != CONNECTION_OK;
    pg_error_line(lost ? PQerrorMessage(pg) : PQresultErrorMessage(r), why, sizeof why);
    PQclear(r);
    if (good)
        return CLI_DONE;
    return cli_fail(lost ? ERR_OUTCOME_UNKNOWN : ERR_INVALID, "%s; %s", why,
                    lost ? "it may have been done: look before doing it again"
                         : "nothing changed");
}

/* " PASSWORD 'SCRAM-SHA-256$...'" behind the statement. */
static int put_verifier(PGconn *pg, const char *name, char *secret, struct buf *sql)
{
    char why[600];
    char *verifier = PQencryptPasswordConn(pg, secret, name, "scram-sha-256");
    explicit_bzero(secret, SECRET_MAX);
    if (verifier == NULL) {
        pg_error_line(PQerrorMessage(pg), why, sizeof why);
        return cli_fail(ERR_INVALID, "%s; nothing changed", why);
    }
    char *literal = PQescapeLiteral(pg, verifier, strlen(verifier));
    buf_printf(sql, " PASSWORD %s", literal != NULL ? literal : "NULL");
    PQfreemem(literal);
    PQfreemem(verifier);
    return CLI_DONE;
}

/* "CREATE ROLE", the quoted name, what follows. */
static int change(struct cli *c, const struct role_order *o, const char *verb, bool secret)
{
    struct buf sql CLEANUP(buf_close) = BUF_INIT;
    char password[SECRET_MAX] = "";
    PGconn *pg = NULL;
    ASSERT(o->name != NULL);
    enum err rv = cli_config(c);
    int code = rv == ERR_OK ? check_own(c, o->name) : cli_exit_code(rv);
    if (code != 0)
        return code;
    if (secret)
        rv = secret_read("Password of the role", true, password);
    if (rv == ERR_OK)
        rv = pg_connect(c, &(struct pg_wanted){.role = "primary"}, &pg);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    char *name = PQescapeIdentifier(pg, o->name, strlen(o->name));
    buf_printf(&sql, "%s ROLE %s", verb, name != NULL ? name : "\"\"");
    PQfreemem(name);
    for (size_t i = 0; i < ARRAY_LEN(attributes); i++)
        if (o->has[i])
            buf_printf(&sql, " %s", attributes[i].sql);
    if (strcmp(verb, "CREATE") == 0)
        buf_printf(&sql, " LOGIN");
    code = run(pg, say_nothing);
    if (code == CLI_DONE && secret)
        code = put_verifier(pg, o->name, password, &sql);
    if (code == CLI_DONE)
        code = run(pg, buf_cstr(&sql));
    explicit_bzero(password, sizeof password);
    PQfinish(pg);
    return code;
}

int cmd_user_create(struct cli *c, int argc, char **argv)
{
    struct role_order o = {.name = NULL};
    int rv = parse(&o, true, argc, argv);
    if (rv == 0)
        rv = change(c, &o, "CREATE", !o.no_password);
    if (rv == CLI_DONE)
        (void)printf("Success: role %s created\n", o.name);
    return rv;
}

int cmd_user_password(struct cli *c, int argc, char **argv)
{
    struct role_order o = {.name = NULL};
    int rv = parse(&o, false, argc, argv);
    if (rv == 0)
        rv = change(c, &o, "ALTER", true);
    if (rv == CLI_DONE)
        (void)printf("Success: password of role %s changed\n", o.name);
    return rv;
}

int cmd_user_delete(struct cli *c, int argc, char **argv)
{
    struct role_order o = {.name = NULL};
    int rv = parse(&o, false, argc, argv);
    if (rv == 0)
        rv = change(c, &o, "DROP", false);
    if (rv == CLI_DONE)
        (void)printf("Success: role %s deleted\n", o.name);
    return rv;
}
