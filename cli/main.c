/* regentctl: the administrator's program. One table of commands gives dispatch, help and completion. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"
#include "cli/cli.h"
#include "cli/commands.h"

static void usage(FILE *to)
{
    (void)fprintf(
        to,
        "usage: regentctl [-c FILE] [-H HOST:PORT,...] [-f table|json|yaml|tsv] COMMAND\n\n");
    for (size_t i = 0; i < cli_commands_n; i++)
        (void)fprintf(to, "  %-21s %s\n", cli_commands[i].name, cli_commands[i].help);
    (void)fprintf(
        to,
        "\n`regentctl COMMAND --help` shows the options of a command.\n"
        "Exit codes: 0 done, 1 failed, 2 usage, 3 outcome unknown, 4 refused for safety.\n");
}

/* Words of the command's name found at the front of argv; 0: it is another command. */
static int match(const struct command *cmd, int argc, char **argv)
{
    const char *name = cmd->name;
    int words = 0;
    while (*name != '\0') {
        size_t n = strcspn(name, " ");
        if (words >= argc || strlen(argv[words]) != n || strncmp(argv[words], name, n) != 0)
            return 0;
        words++;
        name += n + (name[n] == ' ');
    }
    return words;
}

static const struct command *find(int argc, char **argv, int *ret_words)
{
    for (size_t i = 0; i < cli_commands_n; i++) {
        *ret_words = match(&cli_commands[i], argc, argv);
        if (*ret_words > 0)
            return &cli_commands[i];
    }
    return NULL;
}

static int unknown(int argc, char **argv)
{
    char text[128];
    const char *best = cli_commands[0].name;
    if (argc == 0) {
        usage(stderr);
        return CLI_USAGE;
    }
    (void)snprintf(text, sizeof text, "%s%s%s", argv[0], argc > 1 ? " " : "",
                   argc > 1 ? argv[1] : "");
    for (size_t i = 1; i < cli_commands_n; i++)
        if (MIN(str_distance(cli_commands[i].name, text),
                str_distance(cli_commands[i].name, argv[0])) <
            MIN(str_distance(best, text), str_distance(best, argv[0])))
            best = cli_commands[i].name;
    (void)fprintf(stderr,
                  "regentctl: unknown command \"%s\"; did you mean \"%s\"? `regentctl --help` "
                  "lists all\n",
                  text, best);
    return CLI_USAGE;
}

static bool parse_format(const char *text, enum cli_format *ret)
{
    static const char *const names[] = {"table", "json", "yaml", "tsv"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret = (enum cli_format)i;
            return true;
        }
    }
    return false;
}

/* -f and -c are understood behind the command too, as in patronictl: pulls them out of argv. Behind `query` -c is
 * followed by SQL, behind `demote-cluster` --host by the other site. */
static int take_globals(struct cli *c, int argc, char **argv)
{
    int kept = 0;
    for (int i = 0; i < argc; i++) {
        bool last = i + 1 >= argc;
        bool query = kept > 0 && strcmp(argv[0], "query") == 0;
        bool demotes = kept > 0 && strcmp(argv[0], "demote-cluster") == 0;
        if (strcmp(argv[i], "--") == 0) {
            for (; i < argc; i++)
                argv[kept++] = argv[i];
            break;
        }
        if ((strcmp(argv[i], "-f") == 0 || strcmp(argv[i], "--format") == 0) && !last) {
            if (!parse_format(argv[++i], &c->format))
                return -1;
            c->format_given = true;
        } else if (((strcmp(argv[i], "-c") == 0 && !query) ||
                    strcmp(argv[i], "--config") == 0) &&
                   !last) {
            c->config_path = argv[++i];
        } else if ((strcmp(argv[i], "-H") == 0 ||
                    (strcmp(argv[i], "--host") == 0 && !demotes)) &&
                   !last) {
            c->hosts = argv[++i];
        } else {
            argv[kept++] = argv[i];
        }
    }
    argv[kept] = NULL;
    return kept;
}

static bool wants_help(int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    static struct cli c;
    int words = 0;
    (void)signal(SIGPIPE, SIG_IGN);
    argc = take_globals(&c, argc - 1, argv + 1);
    argv++;
    if (argc < 0) {
        (void)fprintf(stderr, "regentctl: -f takes table, json, yaml or tsv\n");
        return CLI_USAGE;
    }
    if (argc > 0 && strcmp(argv[0], "--version") == 0)
        argv[0] = (char *)"version";
    const struct command *cmd = find(argc, argv, &words);
    if (cmd == NULL && wants_help(argc, argv)) {
        usage(stdout);
        return CLI_DONE;
    }
    if (cmd == NULL)
        return unknown(argc, argv);
    if (wants_help(argc, argv)) {
        (void)printf("usage: regentctl %s %s\n\n%s.\n", cmd->name, cmd->usage, cmd->help);
        return CLI_DONE;
    }
    cli_running(cmd->name);
    int rv = cmd->run(&c, argc - words + 1, argv + words - 1);
    client_sync_close(c.client);
    if (c.configured)
        config_close(&c.config);
    return fflush(stdout) == 0 ? rv : CLI_FAILED;
}
