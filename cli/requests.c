/* restart, reload, reinit, stop, start, flush: writes a request for a node, then follows it to its end. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/str.h"
#include "cli/cluster.h"
#include "cli/commands.h"
#include "cli/edit.h"

struct order {
    const char *verb; /* as the command is called */
    struct request_rec rec;
    const char *role; /* members to choose: leader, primary, replica, standby, any; NULL: any */
    bool any;         /* one of them, not all */
    bool wait;
    uint64_t timeout_s; /* for this program */
    const char *names[MEMBERS_MAX];
    size_t names_n;
};

int cli_take_schedule(const char *text, uint64_t *ret_ms)
{
    if (strcmp(text, "now") == 0) {
        *ret_ms = 0;
        return 0;
    }
    if (clock_wall_parse(text, ret_ms) != ERR_OK)
        return cli_usage("--scheduled: \"%s\" is not a time with its zone, like "
                         "2026-01-31T04:00:00+01:00, nor now",
                         text);
    if (*ret_ms <= clock_wall_ms())
        return cli_fail(ERR_PRECONDITION, "--scheduled: %s is in the past; nothing changed",
                        text);
    return 0;
}

/* ---- whom it is for ---- */

static bool has_role(const struct cluster *cl, const struct member_rec *m, const char *role)
{
    bool leads = cluster_leads(cl, m);
    if (role == NULL || strcmp(role, "any") == 0)
        return true;
    if (strcmp(role, "leader") == 0)
        return leads;
    if (strcmp(role, "primary") == 0)
        return leads && !cl->leader.standby;
    if (strcmp(role, "standby-leader") == 0)
        return leads && cl->leader.standby;
    return !leads; /* replica, standby */
}

static bool known_role(const char *role)
{
    static const char *const roles[] = {"leader",  "primary", "standby-leader",
                                        "replica", "standby", "any"};
    for (size_t i = 0; i < ARRAY_LEN(roles); i++)
        if (strcmp(role, roles[i]) == 0)
            return true;
    return false;
}

static const struct member_rec *find(const struct cluster *cl, const char *name)
{
    for (size_t i = 0; i < cl->members_n; i++)
        if (strcmp(cl->members[i].name, name) == 0)
            return &cl->members[i];
    return NULL;
}

static bool named(const struct order *o, const char *name)
{
    for (size_t i = 0; i < o->names_n; i++)
        if (strcmp(o->names[i], name) == 0)
            return true;
    return o->names_n == 0;
}

/* Standbys first, the leader last. The cluster's name in front is patronictl's way. */
static int choose(struct cli *c, const struct cluster *cl, struct order *o,
                  const struct member_rec *ret[static MEMBERS_MAX], size_t *ret_n)
{
    *ret_n = 0;
    if (o->names_n > 0 && find(cl, o->names[0]) == NULL &&
        strcmp(o->names[0], c->config.scope) == 0)
        memmove(o->names, o->names + 1, --o->names_n * sizeof o->names[0]);
    for (size_t i = 0; i < o->names_n; i++)
        if (find(cl, o->names[i]) == NULL)
            return cli_fail(ERR_NOT_FOUND,
                            "no node \"%s\" is running; `regentctl list` shows the nodes",
                            o->names[i]);
    for (int leader = 0; leader < 2; leader++)
        for (size_t i = 0; i < cl->members_n; i++) {
            const struct member_rec *m = &cl->members[i];
            if (cluster_leads(cl, m) == (leader == 1) && named(o, m->name) &&
                has_role(cl, m, o->role))
                ret[(*ret_n)++] = m;
        }
    if (*ret_n == 0)
        return cli_fail(ERR_NOT_FOUND,
                        "no node has the role \"%s\"; `regentctl list` shows "
                        "the nodes",
                        o->role != NULL ? o->role : "any");
    *ret_n = o->any ? 1 : *ret_n;
    return 0;
}

/* ---- one node ---- */

static const char *key_of(char ret[static 96], const char *what, const char *member)
{
    (void)snprintf(ret, 96, "%s/%s", what, member);
    return ret;
}

/* What is there already may be replaced by a start, which ends a stop. */
static enum err submit(struct cli *c, const struct order *o, const char *member)
{
    char key[96];
    struct request_rec old;
    struct buf json CLEANUP(buf_close) = BUF_INIT;
    uint64_t mod = 0;
    bool taken = false;
    enum err rv =
        cli_record(c, key_of(key, "request", member), &msg_request_rec, &old, NULL, &mod);
    if (rv != ERR_OK && rv != ERR_NOT_FOUND)
        return rv;
    bool replaces =
        rv == ERR_OK && strcmp(old.kind, "stop") == 0 && strcmp(o->rec.kind, "start") == 0;
    if (rv == ERR_OK && !replaces) {
        (void)cli_fail(ERR_EXISTS,
                       "%s: a %s is %s already; `regentctl flush %s restart` takes "
                       "a scheduled one back",
                       member, old.kind, old.at_ms != 0 ? "scheduled" : "under way", member);
        return ERR_EXISTS;
    }
    msg_to_json(&msg_request_rec, &o->rec, &json);
    rv = cli_replace(c, key, rv == ERR_OK ? mod : 0, buf_slice(&json), &taken);
    if (rv == ERR_OK && !taken) {
        rv = ERR_EXISTS;
        (void)cli_fail(rv, "%s: somebody else asked for something meanwhile", member);
    }
    return rv;
}

/* How far it is, on a terminal, in one line. member NULL: that line goes. */
static void show_progress(struct cli *c, const char *member)
{
    char key[96];
    struct member_rec m;
    if (!isatty(STDERR_FILENO))
        return;
    (void)fprintf(stderr, "\r\033[K");
    if (member == NULL || cli_record(c, key_of(key, "members", member), &msg_member_rec, &m,
                                     NULL, NULL) != ERR_OK)
        return;
    char copied[80];
    cluster_copying(&m, copied, sizeof copied);
    (void)fprintf(stderr, "%s: %s%s%s", member, m.state, copied[0] != '\0' ? ", " : "", copied);
}

/* 0: done, else it is said why not. */
static int follow(struct cli *c, const struct order *o, const char *member)
{
    char key[96];
    struct result_rec result;
    struct member_rec m;
    uint64_t end_ms = clock_mono_ms() + o->timeout_s * 1000;
    bool stop = strcmp(o->rec.kind, "stop") == 0;
    for (;; show_progress(c, member), cli_wait_change(c), show_progress(c, NULL)) {
        enum err rv =
            cli_record(c, key_of(key, "result", member), &msg_result_rec, &result, NULL, NULL);
        if (rv == ERR_OK && strcmp(result.id, o->rec.id) == 0)
            return result.ok ? CLI_DONE
                             : cli_fail(ERR_IO, "%s failed for member %s: %s", o->verb, member,
                                        result.text);
        if (rv != ERR_OK && rv != ERR_NOT_FOUND)
            return cli_exit_code(rv);
        rv = stop ? cli_record(c, key_of(key, "members", member), &msg_member_rec, &m, NULL,
                               NULL)
                  : ERR_NOT_FOUND;
        if (rv == ERR_OK && strcmp(m.state, "stopped") == 0)
            return CLI_DONE;
        if (clock_mono_ms() >= end_ms)
            return cli_fail(ERR_OUTCOME_UNKNOWN,
                            "%s of %s has not ended within %" PRIu64
                            " s and may still go on; see `regentctl list` and `explain`",
                            o->verb, member, o->timeout_s);
    }
}

static int one(struct cli *c, struct order *o, const char *member)
{
    uint8_t random[16];
    rng_system(random, sizeof random);
    hex_encode(o->rec.id, random, sizeof random);
    o->rec.requested_ms = clock_wall_ms();
    enum err rv = submit(c, o, member);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    if (o->rec.at_ms != 0) {
        (void)printf("Success: %s scheduled on member %s\n", o->verb, member);
        return CLI_DONE;
    }
    int done = o->wait ? follow(c, o, member) : CLI_DONE;
    if (done == CLI_DONE)
        (void)printf("Success: %s %s member %s\n", o->verb,
                     strcmp(o->verb, "reinitialize") == 0 ? "for" : "on", member);
    (void)fflush(stdout);
    return done;
}

/* Nobody who says yes shall be surprised by what is gone. */
static int confirm_removal(const struct member_rec *const *members, size_t n)
{
    struct buf text CLEANUP(buf_close) = BUF_INIT;
    for (size_t i = 0; i < n; i++)
        buf_printf(&text, "%s%s", i > 0 ? ", " : "", members[i]->name);
    if (isatty(STDIN_FILENO) == 0)
        return cli_fail(ERR_PRECONDITION,
                        "the data of %s is deleted, not moved aside: say --force; nothing "
                        "changed",
                        buf_cstr(&text));
    buf_printf(&text, ": the data directory, what of it is in tablespaces and its WAL are "
                      "deleted, before the copy is made where there is no room for both. "
                      "Delete them?");
    return edit_confirmed(buf_cstr(&text))
               ? 0
               : cli_fail(ERR_CANCELLED, "not confirmed: nothing changed");
}

static int run(struct cli *c, struct order *o)
{
    static struct cluster cl;
    const struct member_rec *members[MEMBERS_MAX];
    size_t n = 0;
    enum err rv = cluster_read(c, &cl);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    int exit_code = choose(c, &cl, o, members, &n);
    if (exit_code == 0 && strcmp(o->verb, "reinitialize") == 0)
        for (size_t i = 0; i < n && exit_code == 0; i++)
            if (cluster_leads(&cl, members[i]))
                exit_code = cli_fail(ERR_PRECONDITION,
                                     "%s is the leader: its data is not replaced; switch over "
                                     "first",
                                     members[i]->name);
    if (exit_code == 0 && o->rec.at_ms != 0 && cl.config.pause)
        exit_code = cli_fail(ERR_PRECONDITION,
                             "nothing that is scheduled is done in a pause: `regentctl resume` "
                             "first; nothing changed");
    if (exit_code == 0 && o->rec.remove_data && !o->rec.force)
        exit_code = confirm_removal(members, n);
    for (size_t i = 0; i < n && exit_code == 0; i++)
        exit_code = one(c, o, members[i]->name);
    cluster_close(&cl);
    return exit_code;
}

/* ---- options ---- */

enum {
    OPTION_ANY = 256,
    OPTION_VERSION,
    OPTION_PENDING,
    OPTION_SCHEDULED,
    OPTION_WAIT,
    OPTION_LEADER,
    OPTION_REMOVE
};

static int take(struct order *o, int option)
{
    switch (option) {
    case 'r':
        o->role = optarg;
        return known_role(optarg) ? 0
                                  : cli_usage("--role takes leader, primary, replica, standby "
                                              "or any, not \"%s\"",
                                              optarg);
    case OPTION_ANY:
        o->any = true;
        return 0;
    case OPTION_VERSION:
        str_cut(o->rec.pg_version, sizeof o->rec.pg_version, optarg);
        return strspn(optarg, "0123456789.") == strlen(optarg) && optarg[0] != '\0'
                   ? 0
                   : cli_usage("--pg-version: \"%s\" is no version, like 15.8", optarg);
    case OPTION_PENDING:
        o->rec.pending = true;
        return 0;
    case OPTION_SCHEDULED:
        return cli_take_schedule(optarg, &o->rec.at_ms);
    case OPTION_WAIT:
        o->wait = true;
        return 0;
    case OPTION_LEADER:
        o->rec.from_leader = true;
        return 0;
    case OPTION_REMOVE:
        o->rec.remove_data = true;
        return 0;
    case 'F':
        o->rec.force = true;
        return 0;
    case 't':
        if (str_parse_u64(optarg, &o->timeout_s) != ERR_OK || o->timeout_s == 0 ||
            o->timeout_s > 86400)
            return cli_usage("--timeout: \"%s\" is not a number of seconds up to 86400",
                             optarg);
        o->rec.timeout_ms = o->timeout_s * 1000;
        return 0;
    default:
        return CLI_USAGE; /* said already */
    }
}

static int parse(struct order *o, const struct option *options, int argc, char **argv)
{
    int option;
    int rv = 0;
    optind = 1;
    while (rv == 0 && (option = cli_option(argc, argv, options)) != -1)
        rv = take(o, option);
    for (; rv == 0 && optind < argc; optind++) {
        if (o->names_n == ARRAY_LEN(o->names))
            return cli_usage("more than %zu members", ARRAY_LEN(o->names));
        o->names[o->names_n++] = argv[optind];
    }
    return rv;
}

static struct order make(const char *verb, const char *kind)
{
    struct order o = {.verb = verb, .wait = true, .timeout_s = 300};
    str_cut(o.rec.kind, sizeof o.rec.kind, kind);
    return o;
}

int cmd_restart(struct cli *c, int argc, char **argv)
{
    static const struct option options[] = {
        {"role", required_argument, NULL, 'r'},
        {"any", no_argument, NULL, OPTION_ANY},
        {"pg-version", required_argument, NULL, OPTION_VERSION},
        {"pending", no_argument, NULL, OPTION_PENDING},
        {"scheduled", required_argument, NULL, OPTION_SCHEDULED},
        {"timeout", required_argument, NULL, 't'},
        {"force", no_argument, NULL, 'F'},
        {NULL, 0, NULL, 0}};
    struct order o = make("restart", "restart");
    int rv = parse(&o, options, argc, argv);
    return rv != 0 ? rv : run(c, &o);
}

int cmd_reload(struct cli *c, int argc, char **argv)
{
    static const struct option options[] = {{"role", required_argument, NULL, 'r'},
                                            {"force", no_argument, NULL, 'F'},
                                            {NULL, 0, NULL, 0}};
    struct order o = make("reload", "reload");
    o.timeout_s = 60;
    int rv = parse(&o, options, argc, argv);
    return rv != 0 ? rv : run(c, &o);
}

int cmd_reinit(struct cli *c, int argc, char **argv)
{
    static const struct option options[] = {{"wait", no_argument, NULL, OPTION_WAIT},
                                            {"from-leader", no_argument, NULL, OPTION_LEADER},
                                            {"remove-data", no_argument, NULL, OPTION_REMOVE},
                                            {"force", no_argument, NULL, 'F'},
                                            {"timeout", required_argument, NULL, 't'},
                                            {NULL, 0, NULL, 0}};
    struct order o = make("reinitialize", "reinitialize");
    o.wait = false;
    o.timeout_s = 3600;
    int rv = parse(&o, options, argc, argv);
    if (rv == 0 && o.names_n == 0)
        rv = cli_usage("which MEMBER? Its data is replaced");
    return rv != 0 ? rv : run(c, &o);
}

/* stop and start: of one node that is named. */
static int of_one(struct cli *c, const char *kind, int argc, char **argv)
{
    static const struct option options[] = {{"timeout", required_argument, NULL, 't'},
                                            {NULL, 0, NULL, 0}};
    struct order o = make(kind, kind);
    int rv = parse(&o, options, argc, argv);
    if (rv == 0 && o.names_n != 1)
        rv = cli_usage("which MEMBER? One is needed");
    return rv != 0 ? rv : run(c, &o);
}

int cmd_stop(struct cli *c, int argc, char **argv)
{
    return of_one(c, "stop", argc, argv);
}

int cmd_start(struct cli *c, int argc, char **argv)
{
    return of_one(c, "start", argc, argv);
}

/* ---- flush ---- */

static int flush_restart(struct cli *c, const char *member)
{
    char key[96];
    struct request_rec r;
    uint64_t mod = 0;
    bool taken = false;
    enum err rv =
        cli_record(c, key_of(key, "request", member), &msg_request_rec, &r, NULL, &mod);
    if (rv != ERR_OK && rv != ERR_NOT_FOUND)
        return cli_exit_code(rv);
    if (rv == ERR_NOT_FOUND || r.at_ms == 0 || r.state[0] != '\0') {
        (void)printf("No scheduled restart on member %s\n", member);
        return CLI_DONE;
    }
    rv = cli_delete(c, key, mod, &taken);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    if (!taken)
        return cli_fail(ERR_EXISTS, "the restart of %s has begun meanwhile", member);
    (void)printf("Success: flush scheduled restart on member %s\n", member);
    return CLI_DONE;
}

static int flush_switchover(struct cli *c)
{
    struct failover_rec f;
    uint64_t mod = 0;
    bool taken = false;
    enum err rv = cli_record(c, "failover", &msg_failover_rec, &f, NULL, &mod);
    if (rv != ERR_OK && rv != ERR_NOT_FOUND)
        return cli_exit_code(rv);
    if (rv == ERR_NOT_FOUND || f.at_ms == 0)
        return cli_fail(ERR_NOT_FOUND, "no switchover is scheduled");
    rv = cli_delete(c, "failover", mod, &taken);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    if (!taken)
        return cli_fail(ERR_EXISTS, "the switchover has ended meanwhile");
    (void)printf("Success: scheduled switchover deleted\n");
    return CLI_DONE;
}

int cmd_flush(struct cli *c, int argc, char **argv)
{
    static const struct option options[] = {{"role", required_argument, NULL, 'r'},
                                            {"force", no_argument, NULL, 'F'},
                                            {NULL, 0, NULL, 0}};
    static struct cluster cl;
    const struct member_rec *members[MEMBERS_MAX];
    size_t n = 0;
    struct order o = make("flush", "restart");
    int rv = parse(&o, options, argc, argv);
    if (rv != 0)
        return rv;
    const char *what = o.names_n > 0 ? o.names[--o.names_n] : "";
    if (strcmp(what, "switchover") == 0)
        return flush_switchover(c);
    if (strcmp(what, "restart") != 0)
        return cli_usage("say restart or switchover at the end");
    enum err read = cluster_read(c, &cl);
    if (read != ERR_OK)
        return cli_exit_code(read);
    rv = choose(c, &cl, &o, members, &n);
    for (size_t i = 0; i < n && rv == 0; i++)
        rv = flush_restart(c, members[i]->name);
    cluster_close(&cl);
    return rv;
}
