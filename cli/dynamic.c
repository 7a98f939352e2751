/* show-config, edit-config: the dynamic configuration. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "conf/dynamic.h"

enum { SETS_MAX = 32 };

static char *config_text(const struct config_rec *r, size_t flags)
{
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    msg_to_json(&msg_config_rec, r, &b);
    json_t *j = json_loads(buf_cstr(&b), 0, NULL);
    char *text = json_dumps(j, flags);
    json_decref(j);
    return text;
}

int cmd_show_config(struct cli *c, int argc, char **argv)
{
    struct msg_arena arena CLEANUP(msg_arena_close) = MSG_ARENA_INIT;
    struct config_rec r;
    int usage = cli_no_arguments(argc, argv);
    if (usage != 0)
        return usage;
    enum err rv = cli_record(c, "config", &msg_config_rec, &r, &arena, NULL);
    if (rv == ERR_NOT_FOUND)
        return cli_fail(rv,
                        "no dynamic configuration yet: the cluster has not been initialised");
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    char *text = config_text(&r, JSON_INDENT(2));
    (void)printf("%s\n", text);
    free(text);
    return CLI_DONE;
}

/* The object of that name in j, made when it is not there. */
static json_t *section_of(json_t *j, const char *name)
{
    if (!json_is_object(json_object_get(j, name)))
        json_object_set_new(j, name, json_object());
    return json_object_get(j, name);
}

/* "ttl", or "postgresql.parameters.NAME", where NAME may have dots in it. null takes it away. */
static enum err set_one(json_t *root, const char *path, const char *text, struct errmsg *e)
{
    static const char section[] = "postgresql.";
    static const char parameters[] = "postgresql.parameters.";
    json_t *at = root;
    const char *key = path;
    if (str_starts(path, section)) {
        at = section_of(root, "postgresql");
        key = path + strlen(section);
    }
    if (str_starts(path, parameters)) {
        at = section_of(at, "parameters");
        key = path + strlen(parameters);
    }
    if (key[0] == '\0')
        return err_set(e, ERR_INVALID,
                       "unknown key \"%s\"; `regentctl show-config` lists the keys", path);
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    if (value == NULL)
        value = json_string(text);
    json_object_set(at, key, value); /* null: taken away by the check */
    json_decref(value);
    return ERR_OK;
}

/* The record as JSON with `sets` ("KEY=VALUE") laid over it. */
static enum err apply_sets(const struct config_rec *old, char *const *sets, size_t n,
                           struct buf *ret, struct errmsg *e)
{
    enum err rv = ERR_OK;
    char *before = config_text(old, 0);
    json_t *j = json_loads(before, 0, NULL);
    free(before);
    for (size_t i = 0; i < n && rv == ERR_OK; i++) {
        char *key CLEANUP(mem_cleanup) = mem_strdup(sets[i]);
        char *value = strchr(key, '=');
        if (value == NULL) {
            rv = err_set(e, ERR_INVALID, "-s takes KEY=VALUE, not \"%s\"", sets[i]);
            break;
        }
        *value++ = '\0';
        rv = set_one(j, key, value, e);
    }
    char *text = json_dumps(j, JSON_COMPACT);
    buf_append_slice(ret, slice_str(text));
    free(text);
    json_decref(j);
    return rv;
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

/* Of the parameters that the edit names. */
static void say_restarts(struct slice catalogue, char *const *sets, size_t n)
{
    static const char parameters[] = "postgresql.parameters.";
    for (size_t i = 0; i < n; i++) {
        char *name CLEANUP(mem_cleanup) = mem_strdup(sets[i]);
        name[strcspn(name, "=")] = '\0';
        if (str_starts(name, parameters) &&
            settings_needs_restart(catalogue, name + strlen(parameters)))
            (void)printf("%s takes effect when PostgreSQL is restarted\n",
                         name + strlen(parameters));
    }
}

/* -s KEY=VALUE, and -p NAME=VALUE for a parameter of PostgreSQL, as patronictl has them. */
static int parse_sets(int argc, char **argv, char *sets[static SETS_MAX], size_t *ret_n)
{
    for (int i = 1; i < argc; i += 2) {
        bool parameter = strcmp(argv[i], "-p") == 0 || strcmp(argv[i], "--pg") == 0;
        bool set = strcmp(argv[i], "-s") == 0 || strcmp(argv[i], "--set") == 0;
        if ((!parameter && !set) || i + 1 >= argc || *ret_n == SETS_MAX)
            return cli_usage("edit-config takes -s KEY=VALUE and -p NAME=VALUE, at most %d",
                             SETS_MAX);
        sets[(*ret_n)++] = parameter ? mem_printf("postgresql.parameters.%s", argv[i + 1])
                                     : mem_strdup(argv[i + 1]);
    }
    return *ret_n > 0 ? 0 : cli_usage("edit-config takes -s KEY=VALUE and -p NAME=VALUE");
}

static int edit(struct cli *c, char *const *sets, size_t n)
{
    struct msg_arena arena CLEANUP(msg_arena_close) = MSG_ARENA_INIT;
    struct buf wanted CLEANUP(buf_close) = BUF_INIT;
    struct buf before CLEANUP(buf_close) = BUF_INIT;
    struct buf json CLEANUP(buf_close) = BUF_INIT;
    struct slice catalogue;
    struct config_rec old;
    struct errmsg e = {0};
    uint64_t mod = 0;
    bool taken;
    enum err rv = cli_record(c, "config", &msg_config_rec, &old, &arena, &mod);
    if (rv == ERR_NOT_FOUND)
        return cli_fail(rv,
                        "no dynamic configuration yet: the cluster has not been initialised");
    if (rv == ERR_OK)
        rv = read_catalogue(c, &catalogue, &arena);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    msg_to_json(&msg_config_rec, &old, &before);
    rv = apply_sets(&old, sets, n, &wanted, &e);
    if (rv == ERR_OK)
        rv = dynamic_check_edit(buf_slice(&wanted), buf_slice(&before), catalogue, &json, &e);
    if (rv != ERR_OK)
        return cli_fail(rv, "%s; nothing changed", e.text);
    rv = cli_replace(c, "config", mod, buf_slice(&json), &taken);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    if (!taken)
        return cli_fail(ERR_INVALID,
                        "somebody else changed the configuration meanwhile; nothing "
                        "changed: do it again");
    (void)printf("Configuration changed\n");
    say_restarts(catalogue, sets, n);
    return CLI_DONE;
}

int cmd_edit_config(struct cli *c, int argc, char **argv)
{
    char *sets[SETS_MAX] = {NULL};
    size_t n = 0;
    int rv = parse_sets(argc, argv, sets, &n);
    if (rv == 0)
        rv = edit(c, sets, n);
    for (size_t i = 0; i < n; i++)
        mem_free(sets[i]);
    return rv;
}
