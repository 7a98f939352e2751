/* One way to read options and to say what is wrong with them. */
#include <stdarg.h>
#include <stdio.h>

#include "base/str.h"
#include "cli/cli.h"

static const char *running;

void cli_running(const char *command)
{
    running = command;
}

int cli_usage(const char *fmt, ...)
{
    va_list ap;
    const char *command = running != NULL ? running : "COMMAND";
    (void)fputs("regentctl: ", stderr);
    if (running != NULL)
        (void)fprintf(stderr, "%s: ", running);
    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fprintf(stderr, "; see `regentctl %s --help`\n", command);
    return CLI_USAGE;
}

/* The option that was probably meant: two letters differ, or a third of them. */
static const char *nearest(const struct option *options, const char *given)
{
    char name[64];
    const char *best = NULL;
    size_t best_distance = SIZE_MAX;
    given += strspn(given, "-");
    if (str_copy_slice(name, sizeof name, slice_of(given, strcspn(given, "="))) != ERR_OK)
        return NULL;
    for (const struct option *o = options; o->name != NULL; o++) {
        size_t distance = str_distance(o->name, name);
        if (distance < best_distance && (distance <= 2 || 3 * distance <= strlen(o->name))) {
            best = o->name;
            best_distance = distance;
        }
    }
    return best;
}

static bool is_given(const struct option *options, int value)
{
    for (const struct option *o = options; o->name != NULL; o++)
        if (o->val == value && value != 0)
            return true;
    return false;
}

int cli_option(int argc, char **argv, const struct option *options)
{
    return cli_option_short(argc, argv, ":", options);
}

int cli_option_short(int argc, char **argv, const char *letters, const struct option *options)
{
    opterr = 0;
    int option = getopt_long(argc, argv, letters, options, NULL);
    if (option != '?' && option != ':')
        return option;
    const char *given = argv[optind - 1];
    const char *best = nearest(options, given);
    if (option == ':')
        (void)cli_usage("%s needs a value", given);
    else if (is_given(options, optopt))
        (void)cli_usage("%.*s takes no value", (int)strcspn(given, "="), given);
    else if (best != NULL)
        (void)cli_usage("unknown option \"%s\"; did you mean --%s?", given, best);
    else
        (void)cli_usage("unknown option \"%s\"", given);
    return CLI_BAD_OPTION;
}

int cli_no_arguments(int argc, char **argv)
{
    static const struct option none[] = {{NULL, 0, NULL, 0}};
    optind = 1;
    if (cli_option(argc, argv, none) == CLI_BAD_OPTION)
        return CLI_USAGE;
    return optind < argc ? cli_usage("unexpected argument \"%s\"", argv[optind]) : 0;
}

int cli_cluster_argument(struct cli *c, int argc, char **argv)
{
    if (optind == argc)
        return 0;
    enum err rv = cli_config(c);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    if (optind + 1 < argc)
        return cli_usage("unexpected argument \"%s\"", argv[optind + 1]);
    return strcmp(argv[optind], c->config.scope) == 0
               ? 0
               : cli_usage("unexpected argument \"%s\"; this node is of cluster \"%s\"",
                           argv[optind], c->config.scope);
}

int cli_cluster_only(struct cli *c, int argc, char **argv)
{
    static const struct option none[] = {{NULL, 0, NULL, 0}};
    optind = 1;
    if (cli_option(argc, argv, none) == CLI_BAD_OPTION)
        return CLI_USAGE;
    return cli_cluster_argument(c, argc, argv);
}

bool cli_duration(const char *text, uint64_t *ret_ms)
{
    static const struct {
        char unit;
        uint64_t ms;
    } units[] = {{'s', 1000}, {'m', 60000}, {'h', 3600000}, {'d', 86400000}};
    enum { VALUE_MAX = 100000 };
    char digits[16];
    uint64_t value;
    size_t n = strlen(text);
    if (n < 2 || str_copy_slice(digits, sizeof digits, slice_of(text, n - 1)) != ERR_OK)
        return false;
    if (str_parse_u64(digits, &value) != ERR_OK || value == 0 || value >= VALUE_MAX)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (units[i].unit == text[n - 1]) {
            *ret_ms = value * units[i].ms;
            return true;
        }
    }
    return false;
}
