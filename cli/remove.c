/* remove: everything that the DCS says of the cluster goes, as patronictl has it: typed three times. */
#include <stdio.h>

#include "base/str.h"
#include "cli/cluster.h"
#include "cli/commands.h"

static bool typed(const char *prompt, const char *wanted)
{
    char line[128] = "";
    (void)printf("%s: ", prompt);
    (void)fflush(stdout);
    if (fgets(line, sizeof line, stdin) == NULL)
        return false;
    line[strcspn(line, "\r\n")] = '\0';
    return strcmp(line, wanted) == 0;
}

static bool confirmed(const struct cli *c, const struct cluster *cl)
{
    char prompt[200];
    if (!typed("Please confirm the cluster name to remove", c->config.scope) ||
        !typed("You are about to remove all information in DCS for the cluster, please type: "
               "\"Yes I am aware\"",
               "Yes I am aware"))
        return false;
    (void)snprintf(prompt, sizeof prompt,
                   "This cluster currently is healthy. Please specify the leader name to "
                   "continue");
    return !cl->has_leader || typed(prompt, cl->leader.name);
}

/* Agents that live would find an empty store. The primary is killed at the loss of its key, then its data begins a
 * cluster anew, with fencing tokens from one on: what a standby has noted of older ones may not fit any more. */
static int check_idle(const struct cluster *cl)
{
    for (size_t i = 0; i < cl->members_n; i++)
        if (strcmp(cl->members[i].state, "stopped") != 0)
            return cli_fail(ERR_PRECONDITION,
                            "%s runs PostgreSQL (%s): without its records the primary is "
                            "killed and begins a cluster anew, with the configuration of "
                            "bootstrap.dcs; to take a node away see `regentctl leave`; else "
                            "say --force",
                            cl->members[i].name, cl->members[i].state);
    return 0;
}

static int take_away(struct cli *c)
{
    char from[CLI_KEY_MAX];
    char end[CLI_KEY_MAX];
    struct op_result reply;
    cli_key(c, from, "");
    cli_key(c, end, "");
    end[strlen(end) - 1]++;
    struct delete_req r = {.key = slice_str(from), .end = slice_str(end)};
    enum err rv = cli_call(c, METHOD_KV_DELETE, &r, &reply);
    if (rv == ERR_OK)
        (void)printf("Cluster %s is removed: %llu records\n", c->config.scope,
                     (unsigned long long)reply.count);
    return cli_exit_code(rv);
}

int cmd_remove(struct cli *c, int argc, char **argv)
{
    static const struct option options[] = {{"force", no_argument, NULL, 'F'},
                                            {NULL, 0, NULL, 0}};
    static struct cluster cl;
    bool force = false;
    int option;
    optind = 1;
    while ((option = cli_option(argc, argv, options)) != -1) {
        if (option == CLI_BAD_OPTION)
            return CLI_USAGE;
        force = true;
    }
    enum err rv = cli_config(c);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    if (optind + 1 != argc || strcmp(argv[optind], c->config.scope) != 0)
        return cli_usage("the cluster's name is needed; this node is of cluster \"%s\"",
                         c->config.scope);
    rv = cluster_read(c, &cl);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    int code = force ? 0 : check_idle(&cl);
    if (code == 0 && !confirmed(c, &cl))
        code = cli_fail(ERR_PRECONDITION, "not confirmed: nothing was changed");
    cluster_close(&cl);
    return code != 0 ? code : take_away(c);
}
