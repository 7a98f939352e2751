/* status: is the cluster well? One screen, and an exit code for scripts. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/str.h"
#include "cli/cluster.h"
#include "cli/commands.h"

enum { MIB = 1048576 };

/* Lines as they are found: on the screen, or as rows of the format asked for. Warnings stand behind them; any
 * makes the exit code 1. Notes do not: they say what is not there to be well, such as a second node. */
struct health {
    struct buf warnings, notes;
    size_t n;
    struct output *rows; /* NULL: the screen */
};

static void line(struct health *h, const char *what, const char *fmt, ...) PRINTF(3, 4);
static void line(struct health *h, const char *what, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (h->rows != NULL)
        output_row(h->rows, (const char *[]){what, text});
    else
        (void)printf("%-12s %s\n", what, text);
}

static void remark(struct health *h, const char *what, const char *text)
{
    bool warning = strcmp(what, "warning") == 0;
    if (h->rows != NULL)
        output_row(h->rows, (const char *[]){what, text});
    else
        buf_printf(warning ? &h->warnings : &h->notes, "  %s%c %s%s\n",
                   cli_colour(warning ? CLI_CARE : CLI_PLAIN), warning ? '!' : '-', text,
                   cli_colour(CLI_PLAIN));
}

static void warn(struct health *h, const char *fmt, ...) PRINTF(2, 3);
static void warn(struct health *h, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    remark(h, "warning", text);
    h->n++;
}

static void note(struct health *h, const char *text)
{
    remark(h, "note", text);
}

static void look_at_quorum(struct health *h, const struct status_reply *s)
{
    uint64_t spare = s->reachable_voters > s->quorum ? s->reachable_voters - s->quorum : 0;
    line(h, "DCS",
         "leader %s, term %" PRIu64 ", %" PRIu64 " of %" PRIu64
         " voters reachable, quorum %" PRIu64,
         s->leader[0] != '\0' ? s->leader : "none", s->term, s->reachable_voters, s->voters,
         s->quorum);
    line(h, "may be lost", "%" PRIu64 " more voter%s before nothing can be decided", spare,
         spare == 1 ? "" : "s");
    if (s->trouble[0] != '\0')
        warn(h, "%s: %s %s", s->name, s->trouble, s->trouble_text);
    if (s->leader[0] == '\0')
        warn(h, "the DCS has no leader: nothing can be decided");
    if (s->reachable_voters < s->voters)
        warn(h, "%" PRIu64 " voter(s) cannot be reached from here",
             s->voters - s->reachable_voters);
    if (s->voters < 3)
        note(h, "fewer than 3 voters: the loss of one stops everything; join nodes until there "
                "are 3");
}

static void look_at_sickness(struct health *h, const struct cluster *cl)
{
    for (size_t i = 0; i < cl->members_n; i++)
        if (cl->members[i].sick[0] != '\0')
            warn(h, "%s is sick: %s", cl->members[i].name, cl->members[i].sick_why);
}

static void look_at_leader(struct health *h, const struct cluster *cl)
{
    const struct member_rec *leader = NULL;
    for (size_t i = 0; i < cl->members_n; i++)
        if (cluster_leads(cl, &cl->members[i]))
            leader = &cl->members[i];
    if (leader != NULL)
        line(h, "leader", "%s, %s, timeline %" PRIu64, cl->leader.name, leader->state,
             leader->timeline);
    else
        line(h, "leader", "%s", cl->has_leader ? cl->leader.name : "none");
    if (!cl->has_leader)
        warn(h, "there is no leader: nobody can write; `regentctl explain` says why");
    else if (leader == NULL || !str_starts(leader->state, "running"))
        warn(h, "leader %s does not run; `regentctl explain` says why", cl->leader.name);
}

/* Nodes with PostgreSQL that the DCS knows of, and those among them that nobody hears. */
static size_t look_at_members(struct health *h, const struct cluster *cl,
                              const struct member_list *list)
{
    size_t with_postgres = 0;
    for (size_t i = 0; i < list->members_n; i++) {
        const struct member *m = &list->members[i];
        bool heard = false;
        if (strcmp(m->role, "witness") == 0 || strcmp(m->state, "active") != 0)
            continue;
        with_postgres++;
        for (size_t j = 0; j < cl->members_n; j++) {
            bool it = strcmp(cl->members[j].name, m->name) == 0;
            heard = heard || it;
            if (it && cl->unheard_ms[j] != 0)
                warn(h, "%s has not been heard of for %.1f s: what is said of it is as old",
                     m->name, (double)cl->unheard_ms[j] / 1000);
        }
        if (!heard)
            warn(h, "%s is a member, but its agent is not heard: is regentd running there?",
                 m->name);
    }
    return with_postgres;
}

static void look_at_standbys(struct health *h, const struct cluster *cl, size_t nodes)
{
    size_t synchronous = 0;
    size_t streaming = 0;
    size_t standbys = 0;
    uint64_t top = cluster_top_lsn(cl);
    for (size_t i = 0; i < cl->members_n; i++) {
        const struct member_rec *m = &cl->members[i];
        if (cluster_leads(cl, m))
            continue;
        uint64_t lag_mb = (top - MIN(top, m->lsn)) / MIB;
        bool streams = strcmp(m->state, "streaming") == 0;
        standbys++;
        streaming += streams;
        synchronous += strcmp(cluster_role(cl, m), "Replica") != 0;
        char copied[80];
        cluster_copying(m, copied, sizeof copied);
        line(h, m->name, "%s, %s%s%s%s, %" PRIu64 " MB behind", cluster_role(cl, m), m->state,
             copied[0] != '\0' ? " (" : "", copied, copied[0] != '\0' ? ")" : "", lag_mb);
        if (!streams)
            warn(h, "%s does not stream: %s", m->name, m->state);
    }
    line(h, "replication", "%zu of %zu stream, synchronous_mode %s", streaming, standbys,
         cl->config.synchronous_mode[0] != '\0' ? cl->config.synchronous_mode : "off");
    if (nodes <= 1)
        note(h, "this is the only node: its loss cannot be survived");
    else if (standbys == 0)
        warn(h, "there is no standby: a failure of the leader cannot be survived");
    if (strcmp(cl->config.synchronous_mode, "on") == 0 && synchronous == 0 && nodes > 1)
        warn(h, "no standby is synchronous now: a failover may wait or lose commits");
}

static void look_at_slots(struct health *h, const struct cluster *cl)
{
    for (size_t i = 0; i < cl->members_n; i++)
        if (cl->members[i].slots[0] != '\0')
            warn(h, "permanent slots on %s: %s", cl->members[i].name, cl->members[i].slots);
}

static void look_at_requests(struct health *h, const struct cluster *cl)
{
    if (cl->config.pause)
        warn(h, "paused: nothing is decided automatically; `regentctl resume` ends it");
    if (cl->sync.disarmed && !cl->config.pause)
        warn(h, "%s was paused and its fence holds no deadline yet: nobody else may lead",
             cl->sync.leader);
    if (cl->sync.unknown)
        warn(h,
             "the synchronous set is unknown since a recovery: nobody is promoted by itself");
    if (cl->failover.id[0] != '\0')
        line(h, "under way", "%s%s%s", cl->failover.kind,
             cl->failover.candidate[0] != '\0' ? " to " : "", cl->failover.candidate);
}

static int show_status(struct cli *c, void *arg)
{
    static struct cluster cl;
    static const struct empty nothing;
    static struct member_list list;
    static const struct output_column columns[] = {{.name = "What"}, {.name = "Text"}};
    struct status_reply s = {0};
    struct health h = {0};
    enum err rv = cli_config(c);
    if (rv == ERR_OK)
        rv = cli_call(c, METHOD_CLUSTER_STATUS, &nothing, &s);
    bool readable = s.leader[0] != '\0' || s.reachable_voters >= s.quorum;
    if (rv == ERR_OK && readable)
        rv = cluster_read(c, &cl);
    if (rv == ERR_OK && readable)
        rv = cluster_read_ages(c, &cl);
    if (rv == ERR_OK && readable)
        rv = cli_call(c, METHOD_MEMBER_LIST, &nothing, &list);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    if (c->format != CLI_TABLE)
        h.rows = output_new(c, NULL, columns, ARRAY_LEN(columns));
    line(&h, "cluster", "%s, asked %s", c->config.scope, s.name);
    look_at_quorum(&h, &s);
    if (readable) {
        look_at_leader(&h, &cl);
        look_at_standbys(&h, &cl, look_at_members(&h, &cl, &list));
        look_at_sickness(&h, &cl);
        look_at_slots(&h, &cl);
        look_at_requests(&h, &cl);
    }
    line(&h, "storage", "state %" PRIu64 " KiB, log %" PRIu64 " KiB, fsync p99 %" PRIu64 " us",
         s.db_bytes / 1024, s.log_bytes / 1024, s.fsync_us_p99);
    const char *health = h.n == 0 ? "good" : "not good";
    if (h.rows != NULL) {
        line(&h, "health", "%s", health);
        output_print(h.rows);
    } else {
        line(&h, "health", "%s%s%s%s", cli_colour(h.n == 0 ? CLI_GOOD : CLI_CARE), health,
             cli_colour(CLI_PLAIN), h.n == 0 ? "" : ":");
        (void)printf("%s%s", buf_cstr(&h.warnings), buf_cstr(&h.notes));
    }
    buf_close(&h.warnings);
    buf_close(&h.notes);
    cluster_close(&cl);
    *(bool *)arg = h.n == 0;
    return CLI_DONE;
}

int cmd_status(struct cli *c, int argc, char **argv)
{
    static const struct option options[] = {{"watch", required_argument, NULL, 'w'},
                                            {NULL, 0, NULL, 0}};
    uint64_t every_s = 0;
    bool healthy = false;
    int option;
    optind = 1;
    while ((option = cli_option_short(argc, argv, ":Ww:", options)) != -1) {
        if (option == CLI_BAD_OPTION || (option == 'w' && cli_every(optarg, &every_s) != 0))
            return CLI_USAGE;
        every_s = option == 'W' ? CLI_EVERY_S : every_s;
    }
    if (optind < argc)
        return cli_usage("unexpected argument \"%s\"", argv[optind]);
    int rv = cli_again(c, every_s, show_status, &healthy);
    return rv != CLI_DONE || healthy ? rv : CLI_FAILED;
}
