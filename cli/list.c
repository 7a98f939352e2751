/* list, topology, history: what the HA records say about the nodes. */
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
                {"nostream", m->nostream},
                /* what follows from another tag is not one */
                {"nosync", m->nosync && !m->nostream && m->replicatefrom[0] == '\0'}};
    for (size_t i = 0; i < ARRAY_LEN(tags); i++)
        if (tags[i].set)
            buf_printf(ret, "%s\"%s\":true", ret->len > 0 ? "," : "{", tags[i].name);
    if (m->failover_priority != 1)
        buf_printf(ret, "%s\"failover_priority\":%" PRId64, ret->len > 0 ? "," : "{",
                   m->failover_priority);
    if (m->sync_priority > 1)
        buf_printf(ret, "%s\"sync_priority\":%" PRId64, ret->len > 0 ? "," : "{",
                   m->sync_priority);
    if (m->replicatefrom[0] != '\0') /* a node's name: nothing to quote */
        buf_printf(ret, "%s\"replicatefrom\":\"%s\"", ret->len > 0 ? "," : "{",
                   m->replicatefrom);
    bool any = ret->len > 0;
    if (any)
        buf_printf(ret, "}");
    return any;
}

/* "max_connections: 100->200, ...", as patronictl; NULL when nothing waits. */
const char *cluster_pending(const struct member_rec *m, struct buf *ret)
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

/* `below`: how many stand between it and the root of the tree; 0: no tree, or the root. */
static void list_row(struct output *o, const struct cli *c, const struct cluster *cl,
                     const struct member_rec *m, size_t below)
{
    char name[128];
    char restart_at[CLOCK_TEXT_MAX];
    char host[200];
    char tl[LSN_TEXT];
    char lsn[LSN_TEXT];
    char lag[LSN_TEXT];
    char replay[LSN_TEXT];
    char replay_lag[LSN_TEXT];
    char as_of[LSN_TEXT];
    char copied[LSN_TEXT];
    char copied_mb[LSN_TEXT];
    char copy_since[CLOCK_TEXT_MAX];
    uint64_t unheard_ms = cl->unheard_ms[m - cl->members];
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
    (void)snprintf(name, sizeof name, "%*s%s%s", below > 0 ? (int)(2 * (below - 1)) : 0, "",
                   below > 0 ? "+ " : "", m->name);
    (void)snprintf(tl, sizeof tl, "%" PRIu64, m->timeline);
    clock_wall_text(m->restart_at_ms, restart_at);
    (void)snprintf(copied, sizeof copied, "%" PRIu64, m->copied);
    (void)snprintf(copied_mb, sizeof copied_mb, "%" PRIu64, m->copied_bytes / MIB);
    clock_wall_text(m->copy_since_ms, copy_since);
    (void)snprintf(as_of, sizeof as_of, "%.1f s ago", (double)unheard_ms / 1000);
    const char *const cells[] = {
        c->config.scope,
        name,
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
        cluster_pending(m, &pending),
        m->restart_at_ms != 0 ? restart_at : NULL,
        unheard_ms != 0 ? as_of : NULL,
        m->sick[0] != '\0' ? m->sick_why : NULL,
        m->copied != 0 ? copied : NULL,
        m->copied_bytes != 0 ? copied_mb : NULL,
        m->copy_since_ms != 0 ? copy_since : NULL,
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

/* ---- colours ---- */

static enum cli_colour role_colour(const char *text)
{
    return strstr(text, "Leader") != NULL ? CLI_GOOD : CLI_PLAIN;
}

static enum cli_colour state_colour(const char *text)
{
    static const char *const well[] = {"running", "streaming", "in archive recovery"};
    static const char *const down[] = {"stopped", "crashed", "start failed"};
    for (size_t i = 0; i < ARRAY_LEN(well); i++)
        if (strcmp(text, well[i]) == 0)
            return CLI_PLAIN;
    for (size_t i = 0; i < ARRAY_LEN(down); i++)
        if (strcmp(text, down[i]) == 0)
            return CLI_BAD;
    return CLI_CARE;
}

static enum cli_colour care(const char *text)
{
    (void)text;
    return CLI_CARE;
}

static enum cli_colour bad(const char *text)
{
    (void)text;
    return CLI_BAD;
}

struct listing {
    bool tree, extended, timestamp;
    uint64_t every_s; /* 0: once */
};

/* The rows of who streams from `upstream`, each with those below it; NULL: of who streams from no member. */
static void rows_below(struct output *o, const struct cli *c, const struct cluster *cl,
                       const char *upstream, size_t depth)
{
    for (size_t i = 0; i < cl->members_n && depth < MEMBERS_MAX; i++) {
        const struct member_rec *m = &cl->members[i];
        bool root = cluster_leads(cl, m) || m->upstream[0] == '\0';
        if (upstream == NULL ? !root : root || strcmp(m->upstream, upstream) != 0)
            continue;
        list_row(o, c, cl, m, depth);
        rows_below(o, c, cl, m->name, depth + 1);
    }
}

static void say_time(void)
{
    char now[CLOCK_TEXT_MAX];
    clock_wall_text(clock_wall_ms(), now);
    (void)printf("%s\n", now);
}

static int show_list(struct cli *c, void *arg)
{
    const struct listing *w = arg;
    struct output_column columns[] = {
        {.name = "Cluster", .optional = true},
        {.name = "Member"},
        {.name = "Host"},
        {.name = "Role", .colour = role_colour},
        {.name = "State", .colour = state_colour},
        {.name = "TL", .number = true, .right = true},
        {.name = "Receive LSN", .right = true},
        {.name = "Receive Lag", .heading = "Lag", .number = true, .right = true},
        {.name = "Replay LSN", .right = true},
        {.name = "Replay Lag", .heading = "Lag", .number = true, .right = true},
        {.name = "Tags", .json = true, .optional = !w->extended},
        {.name = "Pending restart", .optional = !w->extended, .colour = care},
        {.name = "Pending restart reason", .optional = !w->extended},
        {.name = "Scheduled restart", .optional = !w->extended},
        {.name = "As of", .optional = true, .colour = care},
        {.name = "Sick", .optional = true, .colour = bad},
        {.name = "Copied",
         .heading = "Copied %",
         .number = true,
         .right = true,
         .optional = true},
        {.name = "Copied MB", .number = true, .right = true, .optional = true},
        {.name = "Copying since", .optional = true}};
    static struct cluster cl;
    enum err rv = cluster_read(c, &cl);
    if (rv == ERR_OK)
        rv = cluster_read_ages(c, &cl);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    char title[160];
    list_title(c, &cl, title, sizeof title);
    if (w->timestamp && c->format == CLI_TABLE)
        say_time();
    struct output *o = output_new(c, title, columns, ARRAY_LEN(columns));
    if (w->tree)
        rows_below(o, c, &cl, NULL, 0);
    for (size_t i = 0; i < cl.members_n && !w->tree; i++)
        list_row(o, c, &cl, &cl.members[i], 0);
    output_print(o);
    if (c->format == CLI_TABLE)
        list_footer(&cl);
    cluster_close(&cl);
    return CLI_DONE;
}

/* -W: every two seconds. The cluster's name may stand behind, as with patronictl. */
static int parse_listing(struct cli *c, int argc, char **argv, struct listing *w)
{
    static const struct option options[] = {{"extended", no_argument, NULL, 'e'},
                                            {"timestamp", no_argument, NULL, 't'},
                                            {"watch", required_argument, NULL, 'w'},
                                            {NULL, 0, NULL, 0}};
    int option;
    optind = 1;
    while ((option = cli_option_short(argc, argv, ":etWw:", options)) != -1) {
        if (option == CLI_BAD_OPTION)
            return CLI_USAGE;
        w->extended = w->extended || option == 'e';
        w->timestamp = w->timestamp || option == 't';
        if (option == 'W')
            w->every_s = CLI_EVERY_S;
        else if (option == 'w' && cli_every(optarg, &w->every_s) != 0)
            return CLI_USAGE;
    }
    return cli_cluster_argument(c, argc, argv);
}

static int list(struct cli *c, struct listing *w, int argc, char **argv)
{
    int rv = parse_listing(c, argc, argv, w);
    return rv != 0 ? rv : cli_again(c, w->every_s, show_list, w);
}

int cmd_list(struct cli *c, int argc, char **argv)
{
    struct listing w = {.tree = false};
    return list(c, &w, argc, argv);
}

int cmd_topology(struct cli *c, int argc, char **argv)
{
    struct listing w = {.tree = true};
    return list(c, &w, argc, argv);
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
    int usage = cli_cluster_only(c, argc, argv);
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
