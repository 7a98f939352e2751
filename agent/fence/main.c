/* regent-fence: the parent of the postmaster. See docs/fence.md. */
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/fence/warden.h"
#include "agent/worker/worker.h"
#include "base/str.h"

static const char usage[] =
    "usage: regent-fence [--socket PATH] [--peer USER]\n"
    "Parent of PostgreSQL: starts it on regentd's order and kills it when its lease runs out.\n"
    "  --socket PATH       listen here (default /run/regent-postgres/fence.sock)\n"
    "  --peer USER         may connect, besides root and the own user\n"
    "  --spawned           started by regentd: ends by itself when idle, ignores SIGTERM when "
    "not\n"
    "  --idle-exit-ms N    with --spawned: after the last client has left (default 60000)\n"
    "  --ready-fd N        write '+' there once the socket listens, else the reason\n"
    "  --worker FD         be the worker that serves this socket\n"
    "  --version, --help\n";

static NORETURN void bad_usage(const char *what, const char *value)
{
    (void)fprintf(stderr, "regent-fence: %s '%s'\n%s", what, value, usage);
    exit(2);
}

static uint64_t number(const char *name, const char *text, uint64_t max)
{
    uint64_t n;
    if (text == NULL || str_parse_u64(text, &n) != ERR_OK || n > max)
        bad_usage("not a number in range for", name);
    return n;
}

static uid_t user(const char *name)
{
    const struct passwd *p = name != NULL ? getpwnam(name) : NULL;
    if (p == NULL)
        bad_usage("no such user", name != NULL ? name : "");
    return p->pw_uid;
}

static void finish(const char *text)
{
    (void)fputs(text, stdout);
    exit(0);
}

/* Takes one option; returns how many words it had. */
static int take(struct warden_options *o, const char *name, const char *value)
{
    if (strcmp(name, "--help") == 0)
        finish(usage);
    if (strcmp(name, "--version") == 0)
        finish("regent-fence " REGENT_VERSION "\n");
    if (strcmp(name, "--spawned") == 0) {
        o->spawned = true;
        return 1;
    }
    if (strcmp(name, "--worker") == 0)
        exit(worker_main((int)number(name, value, INT32_MAX)));
    if (strcmp(name, "--socket") == 0) {
        if (value == NULL || value[0] != '/' ||
            str_copy(o->socket_path, sizeof o->socket_path, value) != ERR_OK)
            bad_usage("not an absolute path for", name);
    } else if (strcmp(name, "--peer") == 0) {
        o->peer_uid = user(value);
    } else if (strcmp(name, "--idle-exit-ms") == 0) {
        o->idle_exit_ms = number(name, value, UINT32_MAX);
    } else if (strcmp(name, "--ready-fd") == 0) {
        o->ready_fd = (int)number(name, value, INT32_MAX);
    } else {
        bad_usage("unknown option", name);
    }
    return 2;
}

int main(int argc, char **argv)
{
    struct warden_options o = {.socket_path = "/run/regent-postgres/fence.sock",
                               .idle_exit_ms = 60000,
                               .peer_uid = geteuid(),
                               .ready_fd = -1};
    for (int i = 1; i < argc;)
        i += take(&o, argv[i], i + 1 < argc ? argv[i + 1] : NULL);
    static struct warden w;
    return warden_setup(&w, &o) ? warden_run(&w) : 1;
}
