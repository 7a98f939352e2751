/* member add|promote|demote|remove|replace|target: each says first what it does to the quorum. */
#include <inttypes.h>
#include <stdio.h>

#include "base/str.h"
#include "cli/commands.h"
#include "cli/members.h"

static struct member_list list; /* large */

static const struct member *find(const char *name)
{
    for (size_t i = 0; i < list.members_n; i++)
        if (strcmp(list.members[i].name, name) == 0)
            return &list.members[i];
    return NULL;
}

static bool votes(const struct member *m)
{
    return strcmp(m->role, "learner") != 0 && strcmp(m->state, "active") == 0;
}

/* On stderr: what comes on stdout may be read by a program. */
static void say_voters(const char *when, uint64_t voters)
{
    uint64_t quorum = voters / 2 + 1;
    (void)fprintf(stderr,
                  "%s: %" PRIu64 " voters, quorum %" PRIu64 ", %" PRIu64 " may be lost\n", when,
                  voters, quorum, voters - quorum);
}

static void say_less(const struct member *m)
{
    say_voters("now", list.voters);
    if (!votes(m)) {
        (void)fprintf(stderr, "%s has no vote: the quorum stays as it is\n", m->name);
        return;
    }
    if (list.voters < 2)
        return; /* it will be refused */
    say_voters("then", list.voters - 1);
    if ((list.voters - 1) % 2 == 0)
        (void)fprintf(stderr,
                      "An even number survives no more than the odd one below it: unless "
                      "another node becomes a voter within 10 s, one voter more becomes a "
                      "learner.\n");
}

static void say_more(const char *name)
{
    say_voters("now", list.voters);
    (void)fprintf(
        stderr,
        "%s becomes a voter when it has caught up and the number of voters is odd with "
        "it (at most %" PRIu64 "); until then it follows without a vote.\n",
        name, list.target != 0 ? list.target : PROTO_VOTERS_MAX);
}

/* NAME [--force] */
static int parse(int argc, char **argv, struct member_ref *ret, bool may_force)
{
    *ret = (struct member_ref){0};
    for (int i = 1; i < argc; i++) {
        if (may_force && strcmp(argv[i], "--force") == 0)
            ret->force = true;
        else if (ret->name[0] != '\0' || argv[i][0] == '-' ||
                 str_copy(ret->name, sizeof ret->name, argv[i]) != ERR_OK)
            return cli_usage("one NAME of `member list` is needed");
    }
    return ret->name[0] != '\0' ? 0 : cli_usage("one NAME of `member list` is needed");
}

static enum err get_list(struct cli *c)
{
    static const struct empty nothing;
    return cli_call(c, METHOD_MEMBER_LIST, &nothing, &list);
}

static int change(struct cli *c, enum method m, const struct member_ref *r, bool less)
{
    enum err rv = get_list(c);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    const struct member *who = find(r->name);
    if (who == NULL)
        return cli_fail(ERR_NOT_FOUND, "there is no member named %s", r->name);
    if (less)
        say_less(who);
    else
        say_more(r->name);
    rv = cli_call(c, m, r, &list);
    if (rv == ERR_OK)
        members_print(c, &list);
    return cli_exit_code(rv);
}

int cmd_member_remove(struct cli *c, int argc, char **argv)
{
    struct member_ref r;
    int usage = parse(argc, argv, &r, true);
    return usage != 0 ? usage : change(c, METHOD_MEMBER_REMOVE, &r, true);
}

int cmd_member_promote(struct cli *c, int argc, char **argv)
{
    struct member_ref r;
    int usage = parse(argc, argv, &r, false);
    return usage != 0 ? usage : change(c, METHOD_MEMBER_PROMOTE, &r, false);
}

int cmd_member_demote(struct cli *c, int argc, char **argv)
{
    struct member_ref r;
    int usage = parse(argc, argv, &r, true);
    return usage != 0 ? usage : change(c, METHOD_MEMBER_DEMOTE, &r, true);
}

/* ---- newcomers ---- */

static int give_token(struct cli *c, const char *name, const char *role)
{
    struct token_create r = {.ttl_ms = 3600000, .uses = 1};
    struct token_info t;
    const char *via = "HOST:PORT";
    str_cut(r.role, sizeof r.role, role);
    for (size_t i = 0; i < list.members_n; i++)
        if (votes(&list.members[i]) && list.members[i].reachable &&
            strcmp(list.members[i].name, name) != 0)
            via = list.members[i].address;
    enum err rv = cli_call(c, METHOD_TOKEN_CREATE, &r, &t);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    (void)fprintf(stderr, "On %s, with an empty data_dir and within an hour:\n", name);
    (void)printf("regentctl join %s --token %s --name %s --listen HOST%s\n", via, t.token, name,
                 strcmp(role, "witness") == 0 ? " --witness" : "");
    return CLI_DONE;
}

int cmd_member_add(struct cli *c, int argc, char **argv)
{
    static const struct option options[] = {{"role", required_argument, NULL, 'r'},
                                            {NULL, 0, NULL, 0}};
    const char *role = "voter";
    int option;
    optind = 1;
    while ((option = cli_option(argc, argv, options)) != -1) {
        if (option == CLI_BAD_OPTION)
            return CLI_USAGE;
        role = optarg;
    }
    if (strcmp(role, "voter") != 0 && strcmp(role, "learner") != 0 &&
        strcmp(role, "witness") != 0)
        return cli_usage("--role takes voter, learner or witness");
    if (optind + 1 != argc || strlen(argv[optind]) >= sizeof list.members[0].name)
        return cli_usage("one NAME for the new member is needed");
    const char *name = argv[optind];
    enum err rv = get_list(c);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    if (find(name) != NULL)
        return cli_fail(ERR_EXISTS,
                        "there is a member named %s; for a new one in its place use "
                        "`member replace %s`",
                        name, name);
    if (strcmp(role, "learner") != 0)
        say_more(name);
    else
        (void)fprintf(stderr, "%s gets no vote: the quorum stays as it is\n", name);
    return give_token(c, name, role);
}

int cmd_member_replace(struct cli *c, int argc, char **argv)
{
    struct member_ref r;
    char role[16];
    int code = parse(argc, argv, &r, true);
    if (code != 0)
        return code;
    enum err rv = get_list(c);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    const struct member *who = find(r.name);
    if (who == NULL)
        return cli_fail(ERR_NOT_FOUND,
                        "there is no member named %s; a new one: `member add %s`", r.name,
                        r.name);
    if (who->reachable && !r.force)
        return cli_fail(
            ERR_PRECONDITION,
            "%s is running: replacing it throws its data away; stop it first, or use "
            "--force",
            r.name);
    str_cut(role, sizeof role, who->role);
    say_less(who);
    rv = cli_call(c, METHOD_MEMBER_REMOVE, &r, &list);
    return rv == ERR_OK ? give_token(c, r.name, role) : cli_exit_code(rv);
}

/* ---- the target ---- */

static int show_target(void)
{
    (void)printf("%" PRIu64 "\n", list.target);
    return CLI_DONE;
}

/* How many there will be: no more than ask for it, and an odd number. */
static uint64_t voters_with(uint64_t target)
{
    uint64_t asked = 0;
    for (size_t i = 0; i < list.members_n; i++)
        asked += strcmp(list.members[i].state, "active") == 0;
    asked = MIN(asked, target);
    return asked % 2 == 0 && asked > 0 ? asked - 1 : asked;
}

static int set_target(struct cli *c, const char *text)
{
    struct put_req r = {.key = slice_str(PROTO_VOTERS_KEY), .value = slice_str(text)};
    struct op_result result;
    uint64_t target = (uint64_t)(text[0] - '0');
    say_voters("now", list.voters);
    if (target < list.voters) {
        say_voters("then", target);
        (void)fprintf(
            stderr, "Those that are one no longer go on following without a vote, and take the "
                    "place of a voter that is removed.\n");
    } else if (voters_with(target) > list.voters) {
        (void)fprintf(
            stderr, "Learners become voters as they have caught up, in pairs; those that were "
                    "made learners by `member demote` stay so.\n");
    }
    enum err rv = cli_call(c, METHOD_KV_PUT, &r, &result);
    if (rv == ERR_OK)
        (void)printf("%s\n", text);
    return cli_exit_code(rv);
}

int cmd_member_target(struct cli *c, int argc, char **argv)
{
    bool sets = argc == 2;
    if (argc > 2 || (sets && strcmp(argv[1], "3") != 0 && strcmp(argv[1], "5") != 0 &&
                     strcmp(argv[1], "7") != 0))
        return cli_usage("3, 5 or 7 voters can be wanted");
    enum err rv = get_list(c);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    return sets ? set_target(c, argv[1]) : show_target();
}
