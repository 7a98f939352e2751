/* token ..., member ..., version */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/members.h"

static const struct empty nothing_to_say;

int cmd_token_create(struct cli *c, int argc, char **argv)
{
    static const struct option options[] = {{"ttl", required_argument, NULL, 't'},
                                            {"uses", required_argument, NULL, 'u'},
                                            {"role", required_argument, NULL, 'r'},
                                            {NULL, 0, NULL, 0}};
    struct token_create r = {.ttl_ms = 3600000, .uses = 1, .role = "voter"};
    struct token_info t;
    int option;
    optind = 1;
    while ((option = cli_option(argc, argv, options)) != -1) {
        if (option == 't' && !cli_duration(optarg, &r.ttl_ms))
            return cli_usage("--ttl: \"%s\" is not a duration like 90s, 10m, 1h or 2d", optarg);
        if (option == 'u' &&
            (str_parse_u64(optarg, &r.uses) != ERR_OK || r.uses == 0 || r.uses > 64))
            return cli_usage("--uses: \"%s\" is not a number from 1 to 64", optarg);
        if (option == 'r' && str_copy(r.role, sizeof r.role, optarg) != ERR_OK)
            return cli_usage("--role takes voter, learner or witness");
        if (option == CLI_BAD_OPTION)
            return CLI_USAGE;
    }
    if (strcmp(r.role, "voter") != 0 && strcmp(r.role, "learner") != 0 &&
        strcmp(r.role, "witness") != 0)
        return cli_usage("--role takes voter, learner or witness");
    enum err rv = cli_call(c, METHOD_TOKEN_CREATE, &r, &t);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    (void)printf("%s\n", t.token);
    return CLI_DONE;
}

int cmd_token_list(struct cli *c, int argc, char **argv)
{
    static const struct output_column columns[] = {
        {.name = "ID"},
        {.name = "Role"},
        {.name = "Uses left", .number = true, .right = true},
        {.name = "Expires"}};
    static struct token_list list;
    int usage = cli_no_arguments(argc, argv);
    if (usage != 0)
        return usage;
    enum err rv = cli_call(c, METHOD_TOKEN_LIST, &nothing_to_say, &list);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    struct output *o = output_new(c, NULL, columns, ARRAY_LEN(columns));
    for (size_t i = 0; i < list.tokens_n; i++) {
        char uses[24];
        char expires[CLOCK_TEXT_MAX];
        (void)snprintf(uses, sizeof uses, "%" PRIu64, list.tokens[i].uses_left);
        clock_wall_text(list.tokens[i].expires_ms, expires);
        output_row(o, (const char *[]){list.tokens[i].id, list.tokens[i].role, uses, expires});
    }
    output_print(o);
    return CLI_DONE;
}

int cmd_token_revoke(struct cli *c, int argc, char **argv)
{
    struct token_ref r = {0};
    struct empty nothing;
    if (argc != 2 || str_copy(r.id, sizeof r.id, argv[1]) != ERR_OK)
        return cli_usage("one token ID of `token list` is needed");
    return cli_exit_code(cli_call(c, METHOD_TOKEN_REVOKE, &r, &nothing));
}

void members_print(const struct cli *c, const struct member_list *list)
{
    static const struct output_column columns[] = {
        {.name = "id", .number = true, .right = true},
        {.name = "name"},
        {.name = "address"},
        {.name = "role"},
        {.name = "state"},
        {.name = "match_index", .number = true, .right = true},
        {.name = "lag_entries", .number = true, .right = true},
        {.name = "leader"}};
    char title[160];
    (void)snprintf(title, sizeof title, "%" PRIu64 " voters, quorum %" PRIu64 ", term %" PRIu64,
                   list->voters, list->quorum, list->term);
    struct output *o = output_new(c, title, columns, ARRAY_LEN(columns));
    for (size_t i = 0; i < list->members_n; i++) {
        const struct member *m = &list->members[i];
        char id[24];
        char match[24];
        char lag[24];
        (void)snprintf(id, sizeof id, "%" PRIu64, m->id);
        (void)snprintf(match, sizeof match, "%" PRIu64, m->match_index);
        (void)snprintf(lag, sizeof lag, "%" PRIu64, m->lag_entries);
        output_row(o, (const char *[]){id, m->name, m->address, m->role, m->state, match, lag,
                                       m->leader ? "yes" : NULL});
    }
    output_print(o);
}

int cmd_member_list(struct cli *c, int argc, char **argv)
{
    static struct member_list list;
    int usage = cli_no_arguments(argc, argv);
    if (usage != 0)
        return usage;
    enum err rv = cli_call(c, METHOD_MEMBER_LIST, &nothing_to_say, &list);
    if (rv == ERR_OK)
        members_print(c, &list);
    return cli_exit_code(rv);
}

int cmd_version(struct cli *c, int argc, char **argv)
{
    int usage = cli_no_arguments(argc, argv);
    if (usage != 0)
        return usage;
    (void)printf("regentctl %s\n", REGENT_VERSION);
    const char *file = config_path(c->config_path);
    FILE *f = fopen(file, "re"); /* a machine without a node has one version only */
    if (f == NULL && c->hosts == NULL)
        return CLI_DONE;
    if (f != NULL)
        (void)fclose(f);
    enum err rv = cli_connect(c);
    if (rv == ERR_OK) {
        const struct hello_reply *h = client_sync_hello(c->client);
        (void)printf("%s %s, protocol %" PRIu64 "\n", h->name, h->software, h->version);
    }
    return cli_exit_code(rv);
}
