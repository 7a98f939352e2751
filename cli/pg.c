#include "cli/pg.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/mem.h"
#include "base/str.h"

static const struct role {
    const char *name;
    const char *attrs; /* libpq's target_session_attrs */
} roles[] = {{"primary", "read-write"},
             {"leader", "read-write"},
             {"replica", "standby"},
             {"standby", "standby"},
             {"any", "any"}};

static const struct role *role_of(const struct pg_wanted *w)
{
    const char *name = w->role != NULL ? w->role : w->member != NULL ? "any" : "primary";
    for (size_t i = 0; i < ARRAY_LEN(roles); i++)
        if (strcmp(roles[i].name, name) == 0)
            return &roles[i];
    return NULL;
}

bool pg_known_role(const char *role)
{
    return role_of(&(struct pg_wanted){.role = role}) != NULL;
}

void pg_error_line(const char *message, char *ret, size_t size)
{
    static const char *const heads[] = {"ERROR:  ", "FATAL:  ", "PANIC:  "};
    for (size_t i = 0; i < ARRAY_LEN(heads); i++)
        if (str_starts(message, heads[i]))
            message += strlen(heads[i]);
    str_cut(ret, size, message);
    for (char *p = ret; *p != '\0'; p++)
        if (*p == '\n')
            *p = p[1] == '\0' ? '\0' : ' ';
}

/* The node most likely first; libpq asks each whether it has the role. */
static size_t put_hosts(const struct cluster *cl, const struct pg_wanted *w,
                        const struct role *role, struct buf *hosts, struct buf *ports)
{
    size_t n = 0;
    bool leader_first = strcmp(role->attrs, "standby") != 0;
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < cl->members_n; i++) {
            const struct member_rec *m = &cl->members[i];
            if (m->conn_port == 0 || (w->member != NULL && strcmp(m->name, w->member) != 0) ||
                (cluster_leads(cl, m) == leader_first) != (pass == 0))
                continue;
            buf_printf(hosts, "%s%s", n > 0 ? "," : "", m->conn_host);
            buf_printf(ports, "%s%" PRIu64, n > 0 ? "," : "", m->conn_port);
            n++;
        }
    return n;
}

/* The superuser's password, from the file that only the daemon's user and root can read. */
static enum err load_secrets(struct cli *c)
{
    struct errmsg e = {0};
    char *path CLEANUP(mem_cleanup) = mem_printf("%s/secrets.yml", c->config.data_dir);
    if (c->config.postgresql.authentication.superuser.password != NULL &&
        c->config.postgresql.authentication.superuser.password[0] != '\0')
        return ERR_OK;
    enum err rv = config_load_secrets(&c->config, path, &e);
    if (rv != ERR_OK)
        (void)cli_fail(rv, "%s; as which user? `sudo`, or name a user of PostgreSQL with -U",
                       e.text);
    return rv;
}

static enum err open_session(const struct pg_wanted *w, const struct role *role,
                             const char *user, const char *password, struct buf *hosts,
                             struct buf *ports, PGconn **ret_pg)
{
    const char *const keys[] = {"host",
                                "port",
                                "dbname",
                                "user",
                                "password",
                                "application_name",
                                "connect_timeout",
                                "tcp_user_timeout",
                                "target_session_attrs",
                                NULL};
    const char *const values[] = {buf_cstr(hosts),
                                  buf_cstr(ports),
                                  w->dbname != NULL ? w->dbname : "postgres",
                                  user,
                                  password,
                                  "regentctl",
                                  "5",
                                  "10000",
                                  role->attrs,
                                  NULL};
    char why[600];
    *ret_pg = PQconnectdbParams(keys, values, 0);
    if (PQstatus(*ret_pg) == CONNECTION_OK)
        return ERR_OK;
    pg_error_line(PQerrorMessage(*ret_pg), why, sizeof why);
    PQfinish(TAKE(*ret_pg));
    (void)cli_fail(ERR_UNAVAILABLE, "cannot connect as %s: %s", user, why);
    return ERR_UNAVAILABLE;
}

static void be_silent(void *arg, const PGresult *notice)
{
    (void)arg;
    (void)notice;
}

enum err pg_connect(struct cli *c, const struct pg_wanted *w, PGconn **ret_pg)
{
    static struct cluster cl;
    struct buf hosts CLEANUP(buf_close) = BUF_INIT;
    struct buf ports CLEANUP(buf_close) = BUF_INIT;
    const struct role *role = role_of(w);
    ASSERT(role != NULL);
    enum err rv = cluster_read(c, &cl);
    if (rv == ERR_OK && w->user == NULL)
        rv = load_secrets(c);
    if (rv != ERR_OK)
        return rv;
    const struct conf_user *super = &c->config.postgresql.authentication.superuser;
    bool own = w->user == NULL;
    size_t n = put_hosts(&cl, w, role, &hosts, &ports);
    cluster_close(&cl);
    if (n == 0) {
        (void)cli_fail(ERR_NOT_FOUND,
                       "no node %s%s%swith PostgreSQL is running; see `regentctl list`",
                       w->member != NULL ? "\"" : "", w->member != NULL ? w->member : "",
                       w->member != NULL ? "\" " : "");
        return ERR_NOT_FOUND;
    }
    rv = open_session(w, role, own ? super->username : w->user,
                      w->password != NULL ? w->password
                      : own               ? super->password
                                          : NULL,
                      &hosts, &ports, ret_pg);
    if (rv == ERR_OK)
        (void)PQsetNoticeReceiver(*ret_pg, be_silent, NULL);
    return rv;
}
