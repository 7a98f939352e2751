/* list, history, dsn: what the HA records say about the nodes. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/str.h"
#include "cli/cluster.h"
#include "cli/commands.h"

/* patronictl's rule: ports only where they tell something. */
static bool shows_ports(const struct cluster *cl)
{
    enum { USUAL = 5432 };
    for (size_t i = 0; i < cl->members_n; i++) {
        if (cl->members[i].conn_port != USUAL)
            return true;
        for (size_t j = 0; j < i; j++)
            if (strcmp(cl->members[i].conn_host, cl->members[j].conn_host) == 0)
                return true;
    }
    return false;
}

/* Tags as JSON, false when there is none. */
static bool tags_of(const struct member_rec *m, struct buf *ret)
{
    const struct {
        const char *name;
        bool set;
    } tags[] = {{"clonefrom", m->clonefrom},
                {"nofailover", m->nofailover},
                {"noloadbalance", m->noloadbalance},
                {"nosync", m->nosync}};
    for (size_t i = 0; i < ARRAY_LEN(tags); i++)
        if (tags[i].set)
            buf_printf(ret, "%s\"%s\":true", ret->len > 0 ? "," : "{", tags[i].name);
    if (m->failover_priority != 1)
        buf_printf(ret, "%s\"failover_priority\":%" PRId64, ret->len > 0 ? "," : "{",
                   m->failover_priority);
    if (m->sync_priority > 1)
        buf_printf(ret, "%s\"sync_priority\":%" PRId64, ret->len > 0 ? "," : "{",
                   m->sync_priority);
    bool any = ret->len > 0;
    if (any)
        buf_printf(ret, "}");
    return any;
}

/* "max_connections: 100->200, ...", as patronictl; NULL when nothing waits. */
static const char *pending_of(const struct member_rec *m, struct buf *ret)
{
    enum { SHOWN_MAX = 50 };
    const char *name;
    json_t *value;
    json_t *all = m->pending_restart ? json_loads(m->pending_reason, 0, NULL) : NULL;
    json_object_foreach(all, name, value)
    {
        const char *old_value = json_string_value(json_object_get(value, "old_value"));
        const char *new_value = json_string_value(json_object_get(value, "new_value"));
        if (old_value == NULL || new_value == NULL)
            continue;
        buf_printf(ret, "%s%s: ", ret->len > 0 ? ", " : "", name);
        if (strlen(old_value) + strlen(new_value) > SHOWN_MAX)
            buf_printf(ret, "[hidden - too long]");
        else
            buf_printf(ret, "%s->%s", old_value, new_value);
    }
    json_decref(all);
    return ret->len > 0 ? buf_cstr(ret) : NULL;
}

enum { LSN_TEXT = 24, MIB = 1048576 };

static const char *lag_text(uint64_t top, uint64_t lsn, char ret[static LSN_TEXT])
{
    (void)snprintf(ret, LSN_TEXT, "%" PRIu64, (top - MIN(top, lsn) + MIB / 2) / MIB);
    return ret;
}

static void list_row(struct output *o, const struct cli *c, const struct cluster *cl,
                     const struct member_rec *m)
{
    char restart_at[CLOCK_TEXT_MAX];
    char host[200];
    char tl[LSN_TEXT];
    char lsn[LSN_TEXT];
    char lag[LSN_TEXT];
    char replay[LSN_TEXT];
    char replay_lag[LSN_TEXT];
    struct buf tags CLEANUP(buf_close) = BUF_INIT;
    struct buf pending CLEANUP(buf_close) = BUF_INIT;
    uint64_t top = cluster_top_lsn(cl);
    bool v6 = strchr(m->conn_host, ':') != NULL;
    bool follows = !cluster_leads(cl, m) && m->lsn != 0;
    bool replays = !cluster_leads(cl, m) && m->replay_lsn != 0;
    if (shows_ports(cl))
        (void)snprintf(host, sizeof host, v6 ? "[%s]:%" PRIu64 : "%s:%" PRIu64, m->conn_host,
                       m->conn_port);
    else
        str_cut(host, sizeof host, m->conn_host);
    (void)snprintf(tl, sizeof tl, "%" PRIu64, m->timeline);
    clock_wall_text(m->restart_at_ms, restart_at);
    const char *const cells[] = {
        c->config.scope,
        m->name,
        host,
        cluster_role(cl, m),
        m->state,
        m->timeline != 0 ? tl : NULL,
        follows ? cli_lsn(m->lsn, lsn) : NULL,
        follows ? lag_text(top, m->lsn, lag) : NULL,
        replays ? cli_lsn(m->replay_lsn, replay) : NULL,
        replays ? lag_text(top, m->replay_lsn, replay_lag) : NULL,
        tags_of(m, &tags) ? buf_cstr(&tags) : NULL,
        m->pending_restart ? "*" : NULL,
        pending_of(m, &pending),
        m->restart_at_ms != 0 ? restart_at : NULL,
    };
    output_row(o, cells);
}

static void list_title(const struct cli *c, const struct cluster *cl, char *ret, size_t size)
{
    if (cl->initialize.system_id != 0)
        (void)snprintf(ret, size, "+ Cluster: %s (%" PRIu64 ") +", c->config.scope,
                       cl->initialize.system_id);
    else
        (void)snprintf(ret, size, "+ Cluster: %s (%s) +", c->config.scope,
                       cl->initialize.name[0] != '\0' ? "initializing" : "uninitialized");
}

/* What patronictl says below the table. */
static void list_footer(const struct cluster *cl)
{
    if (cl->config.pause)
        (void)printf(" Maintenance mode: on\n");
    if (cl->failover.id[0] != '\0' && cl->failover.at_ms != 0) {
        char at[CLOCK_TEXT_MAX];
        clock_wall_text(cl->failover.at_ms, at);
        (void)printf(" Switchover scheduled at: %s\n                    from: %s\n", at,
                     cl->failover.leader);
        if (cl->failover.candidate[0] != '\0')
            (void)printf("                      to: %s\n", cl->failover.candidate);
    } else if (cl->failover.id[0] != '\0')
        (void)printf(" Requested: %s%s%s\n", cl->failover.kind,
                     cl->failover.candidate[0] != '\0' ? " to " : "", cl->failover.candidate);
}

static int show_list(struct cli *c)
{
    static const struct output_column columns[] = {
        {.name = "Cluster", .optional = true},
        {.name = "Member"},
        {.name = "Host"},
        {.name = "Role"},
        {.name = "State"},
        {.name = "TL", .number = true, .right = true},
        {.name = "Receive LSN", .right = true},
        {.name = "Receive Lag", .heading = "Lag", .number = true, .right = true},
        {.name = "Replay LSN", .right = true},
        {.name = "Replay Lag", .heading = "Lag", .number = true, .right = true},
        {.name = "Tags", .json = true, .optional = true},
        {.name = "Pending restart", .optional = true},
        {.name = "Pending restart reason", .optional = true},
        {.name = "Scheduled restart", .optional = true}};
    static struct cluster cl;
    enum err rv = cluster_read(c, &cl);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    char title[160];
    list_title(c, &cl, title, sizeof title);
    struct output *o = output_new(c, title, columns, ARRAY_LEN(columns));
    for (size_t i = 0; i < cl.members_n; i++)
        list_row(o, c, &cl, &cl.members[i]);
    output_print(o);
    if (c->format == CLI_TABLE)
        list_footer(&cl);
    cluster_close(&cl);
    return CLI_DONE;
}

/* -W: every two seconds; -w SECONDS. 0: once. */
static int parse_watch(int argc, char **argv, uint64_t *ret_every_s)
{
    enum { USUAL_S = 2, MOST_S = 3600 };
    static const struct option none[] = {{NULL, 0, NULL, 0}};
    int option;
    *ret_every_s = 0;
    optind = 1;
    while ((option = cli_option_short(argc, argv, ":Ww:", none)) != -1) {
        if (option == CLI_BAD_OPTION)
            return CLI_USAGE;
        *ret_every_s = USUAL_S;
        if (option == 'w' && (str_parse_u64(optarg, ret_every_s) != ERR_OK ||
                              *ret_every_s == 0 || *ret_every_s > MOST_S))
            return cli_usage("-w: \"%s\" is not a number of seconds up to %d", optarg, MOST_S);
    }
    return optind < argc ? cli_usage("unexpected argument \"%s\"", argv[optind]) : 0;
}

int cmd_list(struct cli *c, int argc, char **argv)
{
    uint64_t every_s;
    int rv = parse_watch(argc, argv, &every_s);
    if (rv != 0 || every_s == 0)
        return rv != 0 ? rv : show_list(c);
    for (;;) {
        if (isatty(STDOUT_FILENO)) /* in place */
            (void)printf("\033[H\033[J");
        rv = show_list(c);
        if (rv != CLI_DONE || fflush(stdout) != 0)
            return rv != CLI_DONE ? rv : CLI_FAILED;
        (void)sleep((unsigned)every_s);
        (void)printf("\n");
    }
}

/* patronictl's shape: a row for every timeline that has ended, where and why it did, and who leads the
 * one after it. */
int cmd_history(struct cli *c, int argc, char **argv)
{
    static const struct output_column columns[] = {
        {.name = "TL", .number = true, .right = true},
        {.name = "LSN", .number = true, .right = true},
        {.name = "Reason"},
        {.name = "Timestamp"},
        {.name = "New Leader"},
        {.name = "Token", .number = true, .right = true}};
    static struct history_rec h;
    int usage = cli_no_arguments(argc, argv);
    if (usage != 0)
        return usage;
    enum err rv = cli_record(c, "history", &msg_history_rec, &h, NULL, NULL);
    if (rv != ERR_OK && rv != ERR_NOT_FOUND)
        return cli_exit_code(rv);
    struct output *o = output_new(c, NULL, columns, ARRAY_LEN(columns));
    for (size_t i = 1; i < h.entries_n; i++) {
        const struct history_entry *x = &h.entries[i];
        char tl[LSN_TEXT];
        char token[LSN_TEXT];
        char lsn[LSN_TEXT];
        char at[CLOCK_TEXT_MAX];
        (void)snprintf(tl, sizeof tl, "%" PRIu64,
                       x->parent != 0 ? x->parent : h.entries[i - 1].timeline);
        (void)snprintf(lsn, sizeof lsn, "%" PRIu64, x->switch_lsn);
        (void)snprintf(token, sizeof token, "%" PRIu64, x->token);
        clock_wall_text(x->at_ms, at);
        output_row(o, (const char *[]){tl, lsn, x->reason, at, x->name, token});
    }
    output_print(o);
    return CLI_DONE;
}
