/* promote-cluster, demote-cluster: from a standby cluster to one that takes writes, and back. */
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/str.h"
#include "cli/cluster.h"
#include "cli/commands.h"
#include "cli/edit.h"

struct site_change {
    bool demote;
    const char *host, *port, *restore_command, *slot;
    bool force;
    uint64_t timeout_s;
    char said[128]; /* the last line of progress */
};

static int parse(struct cli *c, struct site_change *q, int argc, char **argv)
{
    static const struct option options[] = {{"host", required_argument, NULL, 'o'},
                                            {"port", required_argument, NULL, 'p'},
                                            {"restore-command", required_argument, NULL, 'r'},
                                            {"primary-slot-name", required_argument, NULL, 's'},
                                            {"force", no_argument, NULL, 'F'},
                                            {"timeout", required_argument, NULL, 't'},
                                            {NULL, 0, NULL, 0}};
    int option;
    optind = 1;
    while ((option = cli_option(argc, argv, options)) != -1) {
        if (option == CLI_BAD_OPTION)
            return CLI_USAGE;
        if (strchr("oprs", option) != NULL && !q->demote)
            return cli_usage("promote-cluster takes --force and --timeout alone");
        q->force = q->force || option == 'F';
        q->host = option == 'o' ? optarg : q->host;
        q->port = option == 'p' ? optarg : q->port;
        q->restore_command = option == 'r' ? optarg : q->restore_command;
        q->slot = option == 's' ? optarg : q->slot;
        if (option == 't' && (str_parse_u64(optarg, &q->timeout_s) != ERR_OK ||
                              q->timeout_s == 0 || q->timeout_s > 3600))
            return cli_usage("--timeout: \"%s\" is not a number of seconds up to 3600", optarg);
    }
    if (q->demote && q->host == NULL && q->restore_command == NULL)
        return cli_usage(
            "--host is missing (or --restore-command, to follow an archive alone)");
    return cli_cluster_argument(c, argc, argv);
}

static bool is_standby(const struct cluster *cl)
{
    struct slice s = cl->config.standby_cluster;
    return s.n > 0 && !slice_eq(s, slice_str("null")) && !slice_eq(s, slice_str("{}"));
}

/* What can be seen to be impossible before anything is written. */
static int check(const struct site_change *q, const struct cluster *cl)
{
    if (cl->config.pause)
        return cli_fail(ERR_PRECONDITION,
                        "the cluster is paused, so that nothing would be started or stopped; "
                        "`regentctl resume` first");
    if (q->demote && is_standby(cl))
        return cli_fail(ERR_PRECONDITION,
                        "this is a standby cluster already; another site to follow is set by "
                        "`regentctl edit-config -s standby_cluster.host=HOST`");
    if (!q->demote && !is_standby(cl))
        return cli_fail(ERR_PRECONDITION,
                        "this is no standby cluster: there is nothing to promote");
    if (!cl->has_leader)
        return cli_fail(ERR_PRECONDITION, "there is no leader; see `regentctl list`");
    return 0;
}

/* Two sites that take writes are two histories: one of them will be thrown away. */
static int ask(const struct site_change *q, const struct cluster *cl)
{
    char question[256];
    if (q->force)
        return 0;
    if (isatty(STDIN_FILENO) == 0)
        return cli_fail(ERR_PRECONDITION,
                        q->demote
                            ? "clients lose their primary until another site is promoted: say "
                              "--force; nothing changed"
                            : "the other site must take no writes any more, for what it takes "
                              "from here on is lost: see to that, and say --force; nothing "
                              "changed");
    if (q->demote)
        (void)snprintf(question, sizeof question,
                       "%s will take no writes any more and follow %.100s. Demote the cluster?",
                       cl->leader.name, q->host != NULL ? q->host : "the archive");
    else
        (void)snprintf(question, sizeof question,
                       "The other site must take no writes any more, for they would be lost. "
                       "Promote %s?",
                       cl->leader.name);
    return edit_confirmed(question) ? 0
                                    : cli_fail(ERR_CANCELLED, "not confirmed: nothing changed");
}

static char *section(const struct site_change *q)
{
    json_t *o = json_object();
    const struct {
        const char *key, *value;
    } texts[] = {{"host", q->host},
                 {"port", q->port},
                 {"restore_command", q->restore_command},
                 {"primary_slot_name", q->slot}};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        if (texts[i].value != NULL)
            json_object_set_new(o, texts[i].key, json_string(texts[i].value));
    char *json = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return json;
}

/* Each step once, as it is seen. */
static void say(struct site_change *q, const struct cluster *cl, uint64_t took_ms)
{
    char line[sizeof q->said];
    if (!cl->has_leader)
        (void)snprintf(line, sizeof line, "no leader for a moment");
    else if (cl->leader.standby)
        (void)snprintf(line, sizeof line, "%s is standby leader", cl->leader.name);
    else
        (void)snprintf(line, sizeof line, "%s is leader, %s", cl->leader.name,
                       cl->leader.state);
    if (strcmp(line, q->said) == 0)
        return;
    memcpy(q->said, line, sizeof line);
    (void)printf("%6" PRIu64 " ms  %s\n", took_ms, line);
    (void)fflush(stdout);
}

static int follow(struct cli *c, struct site_change *q)
{
    static struct cluster cl;
    uint64_t start_ms = clock_mono_ms();
    for (;;) {
        enum err rv = cluster_read(c, &cl);
        uint64_t took_ms = clock_mono_ms() - start_ms;
        if (rv != ERR_OK)
            return cli_exit_code(rv);
        bool done = cl.has_leader && cl.leader.standby == q->demote &&
                    strcmp(cl.leader.state, "running") == 0;
        say(q, &cl, took_ms);
        cluster_close(&cl);
        if (done) {
            (void)printf("Success: cluster is %s, led by %s (%" PRIu64 " ms)\n",
                         q->demote ? "demoted" : "promoted", cl.leader.name, took_ms);
            return CLI_DONE;
        }
        if (took_ms > q->timeout_s * 1000)
            return cli_fail(ERR_OUTCOME_UNKNOWN,
                            "it has not ended within %" PRIu64
                            " s and goes on; see `regentctl list` and `regentctl explain`",
                            q->timeout_s);
        cli_wait_change(c);
    }
}

static int run(struct cli *c, struct site_change *q)
{
    static struct cluster cl;
    enum err loaded = cli_config(c);
    if (loaded != ERR_OK)
        return cli_exit_code(loaded);
    enum err rv = cluster_read(c, &cl);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    int no = check(q, &cl);
    if (no == 0)
        no = ask(q, &cl);
    cluster_close(&cl);
    if (no != 0)
        return no;
    char *json = q->demote ? section(q) : NULL;
    int done = cli_set_dynamic(c, "standby_cluster", json != NULL ? json : "null");
    free(json);
    return done == CLI_DONE ? follow(c, q) : done;
}

int cmd_promote_cluster(struct cli *c, int argc, char **argv)
{
    struct site_change q = {.timeout_s = 60};
    int rv = parse(c, &q, argc, argv);
    return rv != 0 ? rv : run(c, &q);
}

int cmd_demote_cluster(struct cli *c, int argc, char **argv)
{
    struct site_change q = {.demote = true, .timeout_s = 60};
    int rv = parse(c, &q, argc, argv);
    return rv != 0 ? rv : run(c, &q);
}
