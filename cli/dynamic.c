/* show-config, edit-config: the dynamic configuration. */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/edit.h"
#include "conf/dynamic.h"
#include "conf/lease_rule.h"
#include "conf/yaml_json.h"
#include "proto/pki.h"

enum { SETS_MAX = 32, FILE_MAX = 1 << 20, DEPTH_MAX = 16 };

struct edit {
    char *sets[SETS_MAX]; /* KEY=VALUE */
    size_t sets_n;
    const char *apply, *replace; /* files, "-": standard input */
    bool quiet, force;
};

int cmd_show_config(struct cli *c, int argc, char **argv)
{
    struct msg_arena arena CLEANUP(msg_arena_close) = MSG_ARENA_INIT;
    struct buf json CLEANUP(buf_close) = BUF_INIT;
    struct buf yaml CLEANUP(buf_close) = BUF_INIT;
    struct config_rec r;
    int usage = cli_cluster_only(c, argc, argv);
    if (usage != 0)
        return usage;
    enum err rv = cli_record(c, "config", &msg_config_rec, &r, &arena, NULL);
    if (rv == ERR_NOT_FOUND)
        return cli_fail(rv,
                        "no dynamic configuration yet: the cluster has not been initialised");
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    msg_to_json(&msg_config_rec, &r, &json);
    if (c->format == CLI_JSON) {
        (void)printf("%s\n", buf_cstr(&json));
        return CLI_DONE;
    }
    yaml_of_json(buf_slice(&json), &yaml);
    (void)printf("%s", buf_cstr(&yaml));
    return CLI_DONE;
}

/* ---- one value ---- */

/* The value at "a.b.c"; the last word is the rest of it: names of parameters have dots in them. */
static void set_at(json_t *at, const char *path, json_t *value)
{
    char word[64] = "";
    for (size_t depth = 0; depth < DEPTH_MAX; depth++) {
        size_t n = strcspn(path, ".");
        bool name = depth == 2 && strcmp(word, "parameters") == 0;
        if (name || path[n] == '\0' ||
            str_copy_slice(word, sizeof word, slice_of(path, n)) != ERR_OK)
            break;
        if (!json_is_object(json_object_get(at, word)))
            json_object_set_new(at, word, json_object());
        at = json_object_get(at, word);
        path += n + 1;
    }
    json_object_set(at, path, value);
}

/* JSON where it looks like it, else text. null takes the key away. */
static enum err set_one(const char *set, json_t *patch, struct errmsg *e)
{
    char *key CLEANUP(mem_cleanup) = mem_strdup(set);
    char *text = strchr(key, '=');
    if (text == NULL || text == key)
        return err_set(e, ERR_INVALID, "-s takes KEY=VALUE, not \"%s\"", set);
    *text++ = '\0';
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    if (value == NULL)
        value = json_string(text);
    if (value == NULL)
        return err_set(e, ERR_INVALID, "%s: the value is not UTF-8", key);
    set_at(patch, key, value);
    json_decref(value);
    return ERR_OK;
}

static enum err apply_sets(const struct edit *q, struct buf *json, struct errmsg *e)
{
    enum err rv = ERR_OK;
    json_t *patch = json_object();
    struct buf merged = BUF_INIT;
    for (size_t i = 0; i < q->sets_n && rv == ERR_OK; i++)
        rv = set_one(q->sets[i], patch, e);
    char *text = json_dumps(patch, JSON_COMPACT);
    if (rv == ERR_OK)
        rv = dynamic_merge(buf_slice(json), slice_str(text), &merged, e);
    free(text);
    json_decref(patch);
    buf_close(json);
    *json = merged;
    return rv;
}

/* ---- files ---- */

static enum err read_text(const char *path, struct buf *ret, struct errmsg *e)
{
    char piece[4096];
    size_t n;
    if (strcmp(path, "-") != 0)
        return pki_read_file(path, FILE_MAX, ret, e);
    while ((n = fread(piece, 1, sizeof piece, stdin)) > 0 && ret->len < FILE_MAX)
        buf_append(ret, piece, n);
    return ferror(stdin) == 0 && ret->len < FILE_MAX
               ? ERR_OK
               : err_set(e, ERR_LIMIT,
                         "standard input cannot be read, or is longer than 1 MiB");
}

/* The first finding is the message. */
static enum err take_yaml(const char *name, const struct buf *yaml, struct buf *ret_json,
                          struct errmsg *e)
{
    struct buf report CLEANUP(buf_close) = {.max = 65536};
    enum err rv = yaml_to_json(name, buf_slice(yaml), ret_json, &report);
    if (rv == ERR_OK)
        return rv;
    return err_set(e, rv, "%.*s", (int)strcspn(buf_cstr(&report), "\n"), buf_cstr(&report));
}

static enum err take_file(const char *path, struct buf *ret_json, struct errmsg *e)
{
    struct buf yaml CLEANUP(buf_close) = BUF_INIT;
    enum err rv = read_text(path, &yaml, e);
    return rv == ERR_OK ? take_yaml(path, &yaml, ret_json, e) : rv;
}

static enum err take_editor(const struct buf *before, struct buf *ret_json, struct errmsg *e)
{
    struct buf yaml CLEANUP(buf_close) = BUF_INIT;
    yaml_of_json(buf_slice(before), &yaml);
    enum err rv = edit_in_editor(&yaml);
    if (rv == ERR_OK)
        return take_yaml("the text", &yaml, ret_json, e);
    e->text[0] = '\0'; /* said */
    return rv;
}

/* What the configuration shall be, not yet checked. */
static enum err make_wanted(const struct edit *q, const struct buf *before, struct buf *ret,
                            struct errmsg *e)
{
    struct buf patch CLEANUP(buf_close) = BUF_INIT;
    enum err rv = ERR_OK;
    if (q->sets_n == 0 && q->apply == NULL && q->replace == NULL)
        return take_editor(before, ret, e);
    if (q->replace != NULL)
        rv = take_file(q->replace, ret, e);
    else if (q->apply == NULL)
        buf_append_slice(ret, buf_slice(before));
    if (rv == ERR_OK && q->apply != NULL)
        rv = take_file(q->apply, &patch, e);
    if (rv == ERR_OK && q->apply != NULL)
        rv = dynamic_merge(buf_slice(before), buf_slice(&patch), ret, e);
    return rv == ERR_OK && q->sets_n > 0 ? apply_sets(q, ret, e) : rv;
}

/* The running server's parameters, as JSON; empty where nobody has told them yet. */
static enum err read_catalogue(struct cli *c, struct slice *ret, struct msg_arena *arena)
{
    struct settings_rec r;
    *ret = slice_of(NULL, 0);
    enum err rv = cli_record(c, "settings", &msg_settings_rec, &r, arena, NULL);
    if (rv == ERR_OK)
        *ret = r.settings;
    return rv == ERR_NOT_FOUND ? ERR_OK : rv;
}

/* Parameters of PostgreSQL that differ. */
static void say_restarts(struct slice catalogue, struct slice before, struct slice after)
{
    const char *name;
    json_t *value;
    json_t *old = json_loadb((const char *)before.p, before.n, 0, NULL);
    json_t *new = json_loadb((const char *)after.p, after.n, 0, NULL);
    json_t *a = json_object_get(json_object_get(old, "postgresql"), "parameters");
    json_t *b = json_object_get(json_object_get(new, "postgresql"), "parameters");
    json_object_foreach(b, name, value)
    {
        if (!json_equal(json_object_get(a, name), value) &&
            settings_needs_restart(catalogue, name))
            (void)printf("%s takes effect when PostgreSQL is restarted\n", name);
    }
    json_object_foreach(a, name, value)
    {
        if (json_object_get(b, name) == NULL && settings_needs_restart(catalogue, name))
            (void)printf("%s takes effect when PostgreSQL is restarted\n", name);
    }
    json_decref(old);
    json_decref(new);
}

/* Both as people read them; false: they said no. */
static bool agreed(const struct edit *q, const struct buf *before, const struct buf *after)
{
    struct buf a CLEANUP(buf_close) = BUF_INIT;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    bool asks = isatty(STDIN_FILENO) != 0 && !q->force;
    if (!asks)
        return true;
    yaml_of_json(buf_slice(before), &a);
    yaml_of_json(buf_slice(after), &b);
    if (!q->quiet && edit_show_difference(&a, &b) != ERR_OK)
        return false;
    return edit_confirmed("Apply these changes?");
}

/* The same rules as the agents', and the arithmetic of the lease by this node's election time. */
static enum err check(const struct cli *c, const struct buf *wanted, const struct buf *before,
                      struct slice catalogue, struct buf *ret_json, struct errmsg *e)
{
    struct msg_arena arena CLEANUP(msg_arena_close) = MSG_ARENA_INIT;
    struct config_rec rec;
    const struct dynamic_edit edit = {
        .before = buf_slice(before), .catalogue = catalogue, .roles = conf_roles(&c->config)};
    enum err rv = dynamic_check_edit(buf_slice(wanted), &edit, ret_json, e);
    if (rv == ERR_OK)
        rv = msg_from_json(&msg_config_rec, buf_slice(ret_json), &rec, &arena, e);
    if (rv == ERR_OK) {
        buf_clear(ret_json); /* as it is stored */
        msg_to_json(&msg_config_rec, &rec, ret_json);
    }
    return rv == ERR_OK ? lease_rule_check(rec.ttl * 1000, c->config.dcs.election_ms, e) : rv;
}

static int store(struct cli *c, uint64_t mod, const struct buf *before, const struct buf *json,
                 struct slice catalogue)
{
    bool taken;
    enum err rv = cli_replace(c, "config", mod, buf_slice(json), &taken);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    if (!taken)
        return cli_fail(ERR_INVALID,
                        "somebody else changed the configuration meanwhile; nothing "
                        "changed: do it again");
    (void)printf("Configuration changed\n");
    say_restarts(catalogue, buf_slice(before), buf_slice(json));
    return CLI_DONE;
}

/* Whatever the order of the keys. */
static bool same_json(const struct buf *a, const struct buf *b)
{
    json_t *x = json_loadb((const char *)a->p, a->len, 0, NULL);
    json_t *y = json_loadb((const char *)b->p, b->len, 0, NULL);
    bool same = json_equal(x, y) != 0;
    json_decref(x);
    json_decref(y);
    return same;
}

static int edit(struct cli *c, const struct edit *q)
{
    struct msg_arena arena CLEANUP(msg_arena_close) = MSG_ARENA_INIT;
    struct buf wanted CLEANUP(buf_close) = BUF_INIT;
    struct buf before CLEANUP(buf_close) = BUF_INIT;
    struct buf json CLEANUP(buf_close) = BUF_INIT;
    struct slice catalogue;
    struct config_rec old;
    struct errmsg e = {0};
    uint64_t mod = 0;
    enum err rv = cli_record(c, "config", &msg_config_rec, &old, &arena, &mod);
    if (rv == ERR_NOT_FOUND)
        return cli_fail(rv,
                        "no dynamic configuration yet: the cluster has not been initialised");
    if (rv == ERR_OK)
        rv = read_catalogue(c, &catalogue, &arena);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    msg_to_json(&msg_config_rec, &old, &before);
    rv = make_wanted(q, &before, &wanted, &e);
    if (rv != ERR_OK && e.text[0] == '\0')
        return cli_exit_code(rv); /* said */
    if (rv == ERR_OK)
        rv = check(c, &wanted, &before, catalogue, &json, &e);
    if (rv != ERR_OK)
        return cli_fail(rv, "%s; nothing changed", e.text);
    if (same_json(&json, &before)) {
        (void)printf("Not changed\n");
        return CLI_DONE;
    }
    if (!agreed(q, &before, &json))
        return cli_fail(ERR_CANCELLED, "not confirmed: nothing changed");
    return store(c, mod, &before, &json, catalogue);
}

int cli_set_dynamic(struct cli *c, const char *key, const char *json)
{
    struct edit q = {.force = true, .sets_n = 1};
    q.sets[0] = mem_printf("%s=%s", key, json);
    int rv = edit(c, &q);
    mem_free(q.sets[0]);
    return rv;
}

/* -s KEY=VALUE, and -p NAME=VALUE for a parameter of PostgreSQL, as patronictl has them. */
static int parse_edit(struct cli *c, int argc, char **argv, struct edit *q)
{
    static const struct option options[] = {{"set", required_argument, NULL, 's'},
                                            {"pg", required_argument, NULL, 'p'},
                                            {"apply", required_argument, NULL, 'a'},
                                            {"replace", required_argument, NULL, 'r'},
                                            {"quiet", no_argument, NULL, 'q'},
                                            {"force", no_argument, NULL, 'F'},
                                            {NULL, 0, NULL, 0}};
    int option;
    optind = 1;
    while ((option = cli_option_short(argc, argv, ":s:p:q", options)) != -1) {
        if (option == CLI_BAD_OPTION)
            return CLI_USAGE;
        q->quiet = q->quiet || option == 'q';
        q->force = q->force || option == 'F';
        q->apply = option == 'a' ? optarg : q->apply;
        q->replace = option == 'r' ? optarg : q->replace;
        if (option != 's' && option != 'p')
            continue;
        if (q->sets_n == SETS_MAX)
            return cli_usage("at most %d of -s and -p", SETS_MAX);
        q->sets[q->sets_n++] =
            option == 'p' ? mem_printf("postgresql.parameters.%s", optarg) : mem_strdup(optarg);
    }
    if (q->apply != NULL && q->replace != NULL)
        return cli_usage("of --apply and --replace one at most makes sense");
    return cli_cluster_argument(c, argc, argv);
}

int cmd_edit_config(struct cli *c, int argc, char **argv)
{
    struct edit q = {.sets_n = 0};
    int rv = parse_edit(c, argc, argv, &q);
    if (rv == 0)
        rv = edit(c, &q);
    for (size_t i = 0; i < q.sets_n; i++)
        mem_free(q.sets[i]);
    return rv;
}
