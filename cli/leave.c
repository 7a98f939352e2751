/* leave: this node goes for good. Its daemon stops first, which hands over and stops PostgreSQL, then the others take
 * it out of the DCS; so nobody is asked to decide while the quorum changes. */
#include <errno.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/members.h"
#include "cli/setup.h"

static struct member_list list; /* large */

struct leave {
    const char *file;
    char unit[160]; /* "": no service runs this node */
    char others[2048];
};

static bool votes(const struct member *m)
{
    return strcmp(m->role, "learner") != 0 && strcmp(m->state, "active") == 0;
}

static bool systemctl(const char *verb, const char *option, const char *unit)
{
    const char *argv[] = {"systemctl", verb, unit, option, NULL};
    pid_t pid;
    int status = -1;
    if (posix_spawnp(&pid, argv[0], NULL, NULL, (char **)(uintptr_t)argv, environ) != 0)
        return false;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void find_unit(struct leave *l)
{
    struct setup_owner owner;
    char instance[128];
    setup_owner_find(l->file, &owner);
    setup_instance(l->file, instance, sizeof instance);
    if (owner.packaged && access("/run/systemd/system", F_OK) == 0)
        (void)snprintf(l->unit, sizeof l->unit, "regent%s%s.service",
                       instance[0] != '\0' ? "@" : "", instance);
}

/* The voters that stay must have a quorum by themselves: they decide that this one goes. */
static int check(const struct cli *c, struct leave *l)
{
    const struct member *self = NULL;
    uint64_t voters = 0, reachable = 0;
    size_t n = 0;
    for (size_t i = 0; i < list.members_n; i++) {
        const struct member *m = &list.members[i];
        bool own = strcmp(m->name, c->config.name) == 0;
        self = own ? m : self;
        voters += votes(m);
        if (own || !votes(m) || !m->reachable || n + sizeof m->address > sizeof l->others)
            continue;
        reachable++;
        n += (size_t)snprintf(l->others + n, sizeof l->others - n, "%s%s", n > 0 ? "," : "",
                              m->address);
    }
    if (self == NULL)
        return cli_fail(ERR_NOT_FOUND, "%s is no member of this cluster any more",
                        c->config.name);
    if (reachable < voters / 2 + 1)
        return cli_fail(ERR_PRECONDITION,
                        "without %s %" PRIu64 " of %" PRIu64
                        " voters can be reached, and %" PRIu64
                        " are needed to let it go: start the others first, or `member remove` "
                        "those that are lost; the last node cannot leave",
                        self->name, reachable, voters, voters / 2 + 1);
    return CLI_DONE;
}

static int stop_daemon(const struct cli *c, const struct leave *l)
{
    char *path CLEANUP(mem_cleanup) = mem_printf("%s/regent.sock", c->config.data_dir);
    if (l->unit[0] != '\0') {
        (void)fprintf(stderr, "Stopping %s: a leader hands over first.\n", l->unit);
        if (!systemctl("disable", "--now", l->unit))
            return cli_fail(ERR_IO, "`systemctl disable --now %s` failed", l->unit);
    }
    if (cli_socket_error(path) == 0)
        return cli_fail(ERR_PRECONDITION,
                        "regentd runs here: stop it with SIGTERM (a leader hands over first), "
                        "then do this again with -H %s",
                        l->others);
    return CLI_DONE;
}

static void say_what_is_left(const struct cli *c, const struct leave *l)
{
    (void)printf("%s has left cluster %s. Its files are where they were: %s and %s",
                 c->config.name, c->config.scope, l->file, c->config.data_dir);
    if (strcmp(c->config.dcs.role, "witness") != 0)
        (void)printf(", PostgreSQL's data in %s", c->config.postgresql.data_dir);
    (void)printf(".\nThe node cannot come back with them: `regentctl join` makes a new one.\n");
}

int cmd_leave(struct cli *c, int argc, char **argv)
{
    static const struct empty nothing;
    struct leave l = {.file = config_path(c->config_path)};
    struct member_ref r = {0};
    int code = cli_no_arguments(argc, argv);
    enum err rv = code == 0 ? cli_config(c) : ERR_OK;
    if (code != 0 || rv != ERR_OK)
        return code != 0 ? code : cli_exit_code(rv);
    rv = cli_call(c, METHOD_MEMBER_LIST, &nothing, &list);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    find_unit(&l);
    code = check(c, &l);
    if (code == CLI_DONE)
        code = stop_daemon(c, &l);
    if (code != CLI_DONE)
        return code;
    client_sync_close(TAKE(c->client)); /* to the others from here on */
    c->hosts = l.others;
    str_cut(r.name, sizeof r.name, c->config.name);
    rv = cli_call(c, METHOD_MEMBER_REMOVE, &r, &list);
    if (rv == ERR_OK)
        say_what_is_left(c, &l);
    else if (l.unit[0] != '\0')
        (void)fprintf(stderr,
                      "%s is stopped but still a member; `systemctl enable --now %s` brings it "
                      "back.\n",
                      c->config.name, l.unit);
    return cli_exit_code(rv);
}
