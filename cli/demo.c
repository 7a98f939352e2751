/* The commands of `regentctl demo`, their options and the directory they work on. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/demo.h"

static const struct option options[] = {
    {"nodes", required_argument, NULL, 'n'},     {"dir", required_argument, NULL, 'd'},
    {"base-port", required_argument, NULL, 'p'}, {"async", no_argument, NULL, 'a'},
    {"pg-bin", required_argument, NULL, 'b'},    {NULL, 0, NULL, 0}};

static int set_dir(struct demo *d, const char *dir)
{
    char cwd[DEMO_PATH_MAX];
    enum err rv = ERR_OK;
    if (dir[0] == '/')
        rv = str_copy(d->dir, sizeof d->dir, dir);
    else
        rv = getcwd(cwd, sizeof cwd) == NULL
                 ? ERR_LIMIT
                 : str_format(d->dir, sizeof d->dir, "%s/%s", cwd, dir);
    for (size_t n = strlen(d->dir); n > 1 && d->dir[n - 1] == '/'; n--)
        d->dir[n - 1] = '\0';
    return rv == ERR_OK && dir[0] != '\0'
               ? 0
               : cli_usage("--dir: \"%s\" is longer than %d characters: too long for unix "
                           "sockets below it",
                           dir, DEMO_DIR_MAX - 1);
}

static int set_option(struct demo *d, int option, const char *value)
{
    enum { PORT_MIN = 4000, PORT_MAX = 64000 };
    switch (option) {
    case 'd':
        return set_dir(d, value);
    case 'a':
        d->async = true;
        return 0;
    case 'b':
        d->pg_bin = value;
        return 0;
    case 'n':
        if (str_parse_u64(value, &d->nodes) != ERR_OK || d->nodes == 0 ||
            d->nodes > DEMO_NODES_MAX)
            return cli_usage("--nodes: \"%s\" is not a number from 1 to %d", value,
                             DEMO_NODES_MAX);
        return 0;
    case 'p':
        if (str_parse_u64(value, &d->base_port) != ERR_OK || d->base_port < PORT_MIN ||
            d->base_port > PORT_MAX)
            return cli_usage("--base-port: \"%s\" is not a port from %d to %d", value, PORT_MIN,
                             PORT_MAX);
        return 0;
    default:
        return CLI_USAGE; /* said already */
    }
}

static int default_dir(struct demo *d)
{
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    char *dir CLEANUP(mem_cleanup) = NULL;
    if (geteuid() == 0)
        dir = mem_strdup("/var/tmp/regent-demo");
    else if (state != NULL && state[0] == '/')
        dir = mem_printf("%s/regent/demo", state);
    else
        dir = mem_printf("%s/.local/state/regent/demo", home != NULL ? home : "");
    return set_dir(d, dir);
}

/* Environment variables override every key of every node's file: not what anybody means here. */
static void clear_environment(void)
{
    for (size_t i = 0; environ[i] != NULL;) {
        char name[64];
        size_t n = strcspn(environ[i], "=");
        bool ours =
            str_starts(environ[i], "REGENT_") && !str_starts(environ[i], "REGENT_FENCE=");
        if (ours && str_copy_slice(name, sizeof name, slice_of(environ[i], n)) == ERR_OK &&
            unsetenv(name) == 0)
            i = 0;
        else
            i++;
    }
}

void demo_look(struct demo *d)
{
    for (size_t i = 0; i < DEMO_NODES_MAX; i++) {
        struct demo_node *n = &d->node[i];
        (void)snprintf(n->name, sizeof n->name, "n%zu", i + 1);
        (void)snprintf(n->dir, sizeof n->dir, "%s/%s", d->dir, n->name);
        (void)snprintf(n->config, sizeof n->config, "%s/%s/regent.yml", d->dir, n->name);
        n->exists = access(n->config, F_OK) == 0;
    }
}

size_t demo_count(const struct demo *d)
{
    size_t count = 0;
    for (size_t i = 0; i < DEMO_NODES_MAX; i++)
        count += d->node[i].exists;
    return count;
}

struct demo_node *demo_node(struct demo *d, const char *name)
{
    for (size_t i = 0; i < DEMO_NODES_MAX; i++)
        if (d->node[i].exists && strcmp(d->node[i].name, name) == 0)
            return &d->node[i];
    return NULL;
}

/* Is there something in DIR, and is it ours? */
static int check_dir(struct demo *d, bool needed)
{
    char marker[DEMO_PATH_MAX];
    size_t found = 0;
    (void)snprintf(marker, sizeof marker, "%s/" DEMO_MARKER, d->dir);
    d->marked = access(marker, F_OK) == 0;
    if (!d->marked && needed)
        return cli_fail(ERR_NOT_FOUND,
                        "there is no demo cluster in %s; make one with `regentctl demo up`, or "
                        "name its --dir",
                        d->dir);
    DIR *dir = d->marked ? NULL : opendir(d->dir);
    while (dir != NULL && readdir(dir) != NULL)
        found++;
    if (dir != NULL)
        (void)closedir(dir);
    if (found > 2) /* more than . and .. */
        return cli_fail(ERR_EXISTS, "%s is not empty and no demo cluster; choose another --dir",
                        d->dir);
    char *real = d->marked ? realpath(d->dir, NULL) : NULL;
    bool fits = real == NULL || str_copy(d->dir, sizeof d->dir, real) == ERR_OK;
    free(real);
    return fits ? 0 : cli_fail(ERR_LIMIT, "the real path of %s is too long", marker);
}

int demo_open(struct demo *d, const struct cli *c, int argc, char **argv, bool needed)
{
    int option;
    int rv = 0;
    struct errmsg e = {0};
    *d = (struct demo){.cli = c, .start_ms = clock_mono_ms(), .start_wall_ms = clock_wall_ms()};
    clear_environment();
    optind = 1;
    while (rv == 0 && (option = cli_option(argc, argv, options)) != -1)
        rv = set_option(d, option, optarg);
    d->rest = argv + optind;
    d->rest_n = argc - optind;
    if (rv == 0 && d->dir[0] == '\0')
        rv = default_dir(d);
    if (rv == 0)
        rv = check_dir(d, needed);
    if (rv == 0 && demo_user_pick(d, &e) != ERR_OK)
        rv = cli_error(&e);
    demo_look(d);
    return rv;
}

static int no_rest(const struct demo *d)
{
    return d->rest_n > 0 ? cli_usage("unexpected argument \"%s\"", d->rest[0]) : 0;
}

static int wanted_node(struct demo *d, struct demo_node **ret_node)
{
    char names[DEMO_NODES_MAX * 4] = "";
    if (d->rest_n != 1)
        return cli_usage("the name of one node is needed, for example n1");
    *ret_node = demo_node(d, d->rest[0]);
    if (*ret_node != NULL)
        return 0;
    for (size_t i = 0; i < DEMO_NODES_MAX; i++)
        if (d->node[i].exists)
            (void)snprintf(names + strlen(names), sizeof names - strlen(names), " %s",
                           d->node[i].name);
    return cli_fail(ERR_NOT_FOUND, "the demo cluster has no node \"%s\", but%s", d->rest[0],
                    names);
}

int cmd_demo_up(struct cli *c, int argc, char **argv)
{
    struct demo d;
    struct errmsg e = {0};
    int rv = demo_open(&d, c, argc, argv, false);
    if (rv == 0)
        rv = no_rest(&d);
    if (rv != 0)
        return rv;
    if (demo_user_prepare(&d, &e) != ERR_OK || demo_user_become(&d, &e) != ERR_OK)
        return cli_error(&e);
    return demo_up(&d);
}

int cmd_demo_kill(struct cli *c, int argc, char **argv)
{
    struct demo d;
    struct demo_node *n = &d.node[0];
    struct errmsg e = {0};
    int rv = demo_open(&d, c, argc, argv, true);
    if (rv == 0)
        rv = wanted_node(&d, &n);
    if (rv != 0)
        return rv;
    bool ran = demo_find(&d, n, "regentd") != 0;
    if (demo_kill(&d, n, &e) != ERR_OK)
        return cli_error(&e);
    (void)printf("%s: %s; `%s demo start %s --dir %s` brings it back\n", n->name,
                 ran ? "every process is killed" : "nothing ran", d.typed, n->name, d.dir);
    return CLI_DONE;
}

int cmd_demo_start(struct cli *c, int argc, char **argv)
{
    struct demo d;
    struct demo_node *n = &d.node[0];
    struct errmsg e = {0};
    int rv = demo_open(&d, c, argc, argv, true);
    if (rv == 0)
        rv = wanted_node(&d, &n);
    if (rv != 0)
        return rv;
    if (demo_find(&d, n, "regentd") != 0) {
        (void)printf("%s runs already\n", n->name);
        return CLI_DONE;
    }
    if (demo_user_prepare(&d, &e) != ERR_OK || demo_user_become(&d, &e) != ERR_OK)
        return cli_error(&e);
    if (demo_start(&d, n, &e) != ERR_OK)
        return cli_error(&e);
    if (demo_wait(&d, n, &e) != ERR_OK) {
        rv = cli_error(&e);
        demo_show_log(n);
        return rv;
    }
    (void)printf("%s: regentd runs, pid %d\n", n->name, (int)n->started);
    return CLI_DONE;
}

int cmd_demo_down(struct cli *c, int argc, char **argv)
{
    struct demo d;
    struct errmsg e = {0};
    int rv = demo_open(&d, c, argc, argv, true);
    if (rv == 0)
        rv = no_rest(&d);
    if (rv != 0)
        return rv;
    if (demo_stop(&d, &e) != ERR_OK || demo_user_remove(&d, &e) != ERR_OK)
        return cli_error(&e);
    (void)printf("The demo cluster is stopped and %s is gone\n", d.dir);
    return CLI_DONE;
}
