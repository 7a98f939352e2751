/* dcs snapshot status|restore, dcs recover: what regentd does with its files, explained and asked first. */
#include "cli/offline.h"

#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/setup.h"

static const char *text(const json_t *o, const char *name)
{
    const char *t = json_string_value(json_object_get(o, name));
    return t != NULL ? t : "";
}

static long long number(const json_t *o, const char *name)
{
    return json_integer_value(json_object_get(o, name));
}

static int print_json(const json_t *o)
{
    (void)json_dumpf(o, stdout, 0);
    (void)putchar('\n');
    return CLI_DONE;
}

static void print_facts(const json_t *o)
{
    size_t i;
    const json_t *name;
    (void)printf("cluster   %s (scope %s)\n", text(o, "cluster_id"),
                 text(o, "scope")[0] != '\0' ? text(o, "scope") : "not told");
    (void)printf("revision  %lld, %lld keys\n", number(o, "revision"), number(o, "keys"));
    (void)printf("raft      index %lld, term %lld, epoch %lld\n", number(o, "index"),
                 number(o, "term"), number(o, "epoch"));
    (void)printf("members  ");
    json_array_foreach(json_object_get(o, "members"), i, name)(void)
        printf(" %s", json_string_value(name));
    (void)printf("\nprimary   %s\n",
                 text(o, "primary")[0] != '\0' ? text(o, "primary") : "none");
}

int cmd_dcs_snapshot_status(struct cli *c, int argc, char **argv)
{
    int code = CLI_FAILED;
    if (argc != 2 || argv[1][0] == '-')
        return cli_usage("one FILE of `dcs snapshot save` is needed");
    json_t *o =
        offline_regentd((const char *[]){"--snapshot-status", argv[1], NULL}, NULL, &code);
    if (o == NULL)
        return code;
    if (c->format == CLI_JSON) {
        code = print_json(o);
    } else {
        print_facts(o);
        (void)printf("size      %lld KiB, checksum good\n", number(o, "size") / 1024);
        code = CLI_DONE;
    }
    json_decref(o);
    return code;
}

/* ---- afterwards ---- */

static void say_what_next(const json_t *o, const char *config)
{
    const char *primary = text(o, "primary");
    (void)printf(
        "\nStart it: regentd -c %s\n"
        "Further nodes: `regentctl token create` here, then `regentctl join` with an empty "
        "data_dir there.\n",
        config);
    if (primary[0] != '\0')
        (void)printf(
            "PostgreSQL: nobody is promoted by itself. %s, the last primary, takes over "
            "again when it is a node of this cluster;\nif its data is lost: `regentctl "
            "failover --candidate NODE --force`, which may lose commits.\n",
            primary);
}

/* ---- restore ---- */

/* Takes `--secrets FILE` out of the arguments: the rest is init's. */
static int take_secrets(int *argc, char **argv, const char **ret)
{
    int kept = 1;
    for (int i = 1; i < *argc; i++) {
        if (strcmp(argv[i], "--secrets") != 0)
            argv[kept++] = argv[i];
        else if (i + 1 < *argc)
            *ret = argv[++i];
        else
            return cli_usage("--secrets needs a value");
    }
    argv[kept] = NULL;
    *argc = kept;
    return 0;
}

static int build(struct setup *s, const json_t *facts, const char *file, const char *secrets,
                 const char *snapshot, json_t **ret_done)
{
    struct errmsg e = {0};
    int code = CLI_FAILED;
    enum err rv = setup_check(s, file, &e);
    if (rv == ERR_OK)
        rv = setup_dirs(s, &e);
    if (rv == ERR_OK)
        rv = setup_identity(s, "node", (uint64_t)number(facts, "next_member"), secrets, &e);
    if (rv == ERR_OK)
        rv = setup_config(s, file, &e);
    if (rv != ERR_OK) {
        setup_undo(s);
        return cli_fail(rv == ERR_PRECONDITION ? ERR_IO : rv, "%s", e.text);
    }
    *ret_done = offline_regentd((const char *[]){"-c", file, "--restore", snapshot, NULL},
                                s->data_dir, &code);
    if (*ret_done != NULL) {
        setup_done(s);
        return CLI_DONE;
    }
    char *lock CLEANUP(mem_cleanup) = mem_printf("%s/lock", s->data_dir);
    (void)unlink(lock);
    setup_undo(s);
    return code;
}

int cmd_dcs_snapshot_restore(struct cli *c, int argc, char **argv)
{
    struct setup s;
    const char *secrets = NULL;
    const char *file = config_path(c->config_path);
    int code = take_secrets(&argc, argv, &secrets);
    if (code == 0)
        code = setup_parse(&s, file, argc, argv);
    if (code != 0)
        return code;
    if (optind + 1 != argc || s.token != NULL)
        return cli_usage(s.token != NULL ? "--token belongs to join"
                                         : "one FILE of `dcs snapshot save` is needed");
    const char *snapshot = argv[optind];
    json_t *facts =
        offline_regentd((const char *[]){"--snapshot-status", snapshot, NULL}, NULL, &code);
    if (facts == NULL)
        return code;
    json_t *done = NULL;
    s.keep_pg_data = true;
    if (s.scope == NULL && text(facts, "scope")[0] != '\0')
        s.scope = text(facts, "scope");
    code = s.scope == NULL ? cli_usage("--scope is missing, and the copy does not tell it")
                           : build(&s, facts, file, secrets, snapshot, &done);
    if (code == CLI_DONE && c->format == CLI_JSON) {
        code = print_json(done);
    } else if (code == CLI_DONE) {
        (void)printf(
            "Node %s of the new cluster %s (%s) is ready, restored from revision %lld.\n",
            s.name, s.scope, text(done, "new_cluster_id"), number(done, "revision"));
        if (secrets == NULL)
            (void)printf("New PostgreSQL passwords were made, for --secrets was not given: the "
                         "roles of an existing PostgreSQL do not have them.\n");
        say_what_next(done, file);
    }
    json_decref(done);
    json_decref(facts);
    return code;
}

/* ---- recover ---- */

static bool confirmed(const char *name)
{
    char line[128] = "";
    (void)printf("\nType the name of this node to go on: ");
    (void)fflush(stdout);
    if (fgets(line, sizeof line, stdin) == NULL)
        return false;
    line[strcspn(line, "\n")] = '\0';
    return strcmp(line, name) == 0;
}

static void say_plan(const struct cli *c, const json_t *plan)
{
    if (json_is_true(json_object_get(plan, "interrupted"))) {
        (void)printf("A recovery of %s was interrupted; it will be finished.\n",
                     c->config.name);
        return;
    }
    print_facts(plan);
    (void)printf(
        "\nThis makes %s alone a new cluster out of what it has, up to the last entry of its "
        "log:\n"
        "- new CA and cluster id: the members above are locked out for ever, also if they come "
        "back.\n"
        "  Stop every one of them first: two clusters would run otherwise.\n"
        "- what only lost members had acknowledged is lost.\n"
        "- leases, client sessions and join tokens end; watches are told \"compacted\".\n"
        "- PostgreSQL: no promotion by itself until %s is back, or an operator says so.\n"
        "- what is there now is set aside in %s/before-recover-*.\n",
        c->config.name, text(plan, "primary")[0] != '\0' ? text(plan, "primary") : "a leader",
        c->config.data_dir);
}

static int carry_out(struct cli *c)
{
    int code = CLI_FAILED;
    json_t *done = offline_regentd((const char *[]){"-c", c->config.path, "--recover", NULL},
                                   c->config.data_dir, &code);
    if (done == NULL)
        return code;
    if (c->format == CLI_JSON) {
        code = print_json(done);
    } else {
        (void)printf("%s is the only member of the new cluster %s.\n", c->config.name,
                     text(done, "new_cluster_id"));
        say_what_next(done, c->config.path);
        code = CLI_DONE;
    }
    json_decref(done);
    return code;
}

int cmd_dcs_recover(struct cli *c, int argc, char **argv)
{
    bool force = argc == 2 && strcmp(argv[1], "--force") == 0;
    int code = CLI_FAILED;
    if (argc > 1 && !force)
        return cli_usage("nothing but --force is taken: run it on the surviving node");
    enum err rv = cli_config(c);
    if (rv != ERR_OK)
        return cli_exit_code(rv); /* said */
    json_t *plan =
        offline_regentd((const char *[]){"-c", c->config.path, "--recover-plan", NULL},
                        c->config.data_dir, &code);
    if (plan == NULL)
        return code;
    if (c->format != CLI_JSON)
        say_plan(c, plan);
    json_decref(plan);
    if (!force && !confirmed(c->config.name))
        return cli_fail(ERR_PRECONDITION, "not confirmed: nothing was changed");
    return carry_out(c);
}
