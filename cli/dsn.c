/* dsn: connection strings that find the node wanted. */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/str.h"
#include "cli/cluster.h"
#include "cli/commands.h"

enum dsn_form { DSN_KEYWORDS, DSN_URI, DSN_JDBC };

struct wanted {
    const char *role; /* as patronictl has them; NULL: primary */
    const char *member;
    const char *database, *user;
    bool prefer_standby;
    enum dsn_form form;
};

/* Per role: libpq's target_session_attrs, and what pgJDBC calls it. */
static const struct role {
    const char *name, *libpq, *jdbc;
} roles[] = {{"primary", "read-write", "primary"},
             {"leader", "read-write", "primary"},
             {"replica", "standby", "secondary"},
             {"standby", "standby", "secondary"},
             {"any", "any", "any"}};
static const struct role preferred = {"", "prefer-standby", "preferSecondary"};

static const struct role *role_of(const struct wanted *w)
{
    for (size_t i = 0; w->role != NULL && i < ARRAY_LEN(roles); i++)
        if (strcmp(roles[i].name, w->role) == 0)
            return &roles[i];
    if (w->role != NULL)
        return NULL;
    return w->prefer_standby ? &preferred : &roles[0];
}

/* ---- texts ---- */

/* 'it''s' in libpq's way; most values need no quotes. */
static void put_word(struct buf *b, const char *value)
{
    bool plain = value[0] != '\0' && strpbrk(value, " '\\\t\n") == NULL;
    if (plain) {
        buf_printf(b, "%s", value);
        return;
    }
    buf_append_u8(b, '\'');
    for (const char *p = value; *p != '\0'; p++) {
        if (*p == '\'' || *p == '\\')
            buf_append_u8(b, '\\');
        buf_append_u8(b, (uint8_t)*p);
    }
    buf_append_u8(b, '\'');
}

static void put_percent(struct buf *b, const char *value)
{
    for (const char *p = value; *p != '\0'; p++) {
        if (isalnum((unsigned char)*p) || strchr("-._~", *p) != NULL)
            buf_append_u8(b, (uint8_t)*p);
        else
            buf_printf(b, "%%%02X", (unsigned char)*p);
    }
}

static void put_keywords(struct buf *b, const struct wanted *w, const struct role *role,
                         const struct member_rec *const *m, size_t n)
{
    for (size_t i = 0; i < n; i++)
        buf_printf(b, "%s%s", i > 0 ? "," : "host=", m[i]->conn_host);
    for (size_t i = 0; i < n; i++)
        buf_printf(b, "%s%" PRIu64, i > 0 ? "," : " port=", m[i]->conn_port);
    buf_printf(b, " dbname=");
    put_word(b, w->database);
    if (w->user != NULL) {
        buf_printf(b, " user=");
        put_word(b, w->user);
    }
    buf_printf(b, " connect_timeout=2 tcp_user_timeout=5000");
    if (w->member == NULL)
        buf_printf(b, " target_session_attrs=%s", role->libpq);
}

static void put_uri(struct buf *b, const struct wanted *w, const struct role *role,
                    const struct member_rec *const *m, size_t n)
{
    bool jdbc = w->form == DSN_JDBC;
    buf_printf(b, jdbc ? "jdbc:postgresql://" : "postgresql://");
    if (!jdbc && w->user != NULL) {
        put_percent(b, w->user);
        buf_append_u8(b, '@');
    }
    for (size_t i = 0; i < n; i++) {
        bool v6 = strchr(m[i]->conn_host, ':') != NULL;
        buf_printf(b, v6 ? "%s[%s]:%" PRIu64 : "%s%s:%" PRIu64, i > 0 ? "," : "",
                   m[i]->conn_host, m[i]->conn_port);
    }
    buf_append_u8(b, '/');
    put_percent(b, w->database);
    buf_printf(b, jdbc ? "?connectTimeout=2&socketTimeout=60&tcpKeepAlive=true"
                       : "?connect_timeout=2&tcp_user_timeout=5000");
    if (w->member == NULL)
        buf_printf(
            b, jdbc ? "&hostRecheckSeconds=1&targetServerType=%s" : "&target_session_attrs=%s",
            jdbc ? role->jdbc : role->libpq);
    if (jdbc && w->user != NULL) {
        buf_printf(b, "&user=");
        put_percent(b, w->user);
    }
}

/* ---- nodes ---- */

/* All of them, so that the string stays right when the roles change: the one most likely first. */
static size_t choose(const struct cluster *cl, const struct wanted *w, const struct role *role,
                     const struct member_rec *ret[static MEMBERS_MAX])
{
    size_t n = 0;
    bool leader_first = strcmp(role->libpq, "read-write") == 0;
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < cl->members_n; i++) {
            const struct member_rec *m = &cl->members[i];
            bool first = cluster_leads(cl, m) == leader_first;
            if (m->conn_port == 0 || (w->member != NULL && strcmp(w->member, m->name) != 0) ||
                first != (pass == 0))
                continue;
            ret[n++] = m;
        }
    return n;
}

static int print(const struct cluster *cl, const struct wanted *w, const struct role *role)
{
    const struct member_rec *m[MEMBERS_MAX];
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    size_t n = choose(cl, w, role, m);
    if (n == 0 && w->member != NULL)
        return cli_fail(ERR_NOT_FOUND,
                        "no node \"%s\" with PostgreSQL is known; see `regentctl list`",
                        w->member);
    if (n == 0)
        return cli_fail(ERR_NOT_FOUND, "no PostgreSQL node is known yet; see `regentctl list`");
    if (w->form == DSN_KEYWORDS)
        put_keywords(&b, w, role, m, n);
    else
        put_uri(&b, w, role, m, n);
    (void)printf("%s\n", buf_cstr(&b));
    return CLI_DONE;
}

static int parse(int argc, char **argv, struct wanted *w)
{
    static const struct option options[] = {
        {"role", required_argument, NULL, 'r'},   {"member", required_argument, NULL, 'm'},
        {"dbname", required_argument, NULL, 'd'}, {"username", required_argument, NULL, 'U'},
        {"read-only", no_argument, NULL, 'R'},    {"uri", no_argument, NULL, 'u'},
        {"jdbc", no_argument, NULL, 'j'},         {NULL, 0, NULL, 0}};
    int option;
    optind = 1;
    while ((option = cli_option_short(argc, argv, ":r:m:d:U:", options)) != -1) {
        if (option == 'r')
            w->role = optarg;
        else if (option == 'm')
            w->member = optarg;
        else if (option == 'd')
            w->database = optarg;
        else if (option == 'U')
            w->user = optarg;
        else if (option == 'R')
            w->prefer_standby = true;
        else if (option == 'u' || option == 'j')
            w->form = option == 'u' ? DSN_URI : DSN_JDBC;
        else
            return CLI_USAGE;
    }
    if (optind < argc)
        return cli_usage("it takes options only, not \"%s\"", argv[optind]);
    if (w->role != NULL && (w->member != NULL || w->prefer_standby))
        return cli_usage("of --role, --member and --read-only one at most makes sense");
    return 0;
}

int cmd_dsn(struct cli *c, int argc, char **argv)
{
    static struct cluster cl;
    struct wanted w = {.database = "postgres"};
    int usage = parse(argc, argv, &w);
    if (usage != 0)
        return usage;
    const struct role *role = role_of(&w);
    if (role == NULL)
        return cli_usage("--role takes primary, leader, replica, standby or any");
    enum err rv = cluster_read(c, &cl);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    int done = print(&cl, &w, role);
    cluster_close(&cl);
    return done;
}
