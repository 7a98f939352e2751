/* show-config, edit-config: the dynamic configuration. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"

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

/* The record as JSON with `sets` laid over it; NULL with a complaint. */
static enum err apply_sets(const struct config_rec *old, char *const *sets, size_t n,
                           struct buf *ret, struct errmsg *e)
{
    char *before = config_text(old, 0);
    json_t *j = json_loads(before, 0, NULL);
    free(before);
    for (size_t i = 0; i < n; i++) {
        char *key CLEANUP(mem_cleanup) = mem_strdup(sets[i]);
        char *value = strchr(key, '=');
        if (value == NULL) {
            json_decref(j);
            return err_set(e, ERR_INVALID, "-s takes KEY=VALUE, not \"%s\"", sets[i]);
        }
        *value++ = '\0';
        if (json_object_get(j, key) == NULL) {
            json_decref(j);
            return err_set(e, ERR_INVALID,
                           "unknown key \"%s\"; `regentctl show-config` lists the keys", key);
        }
        json_t *parsed = json_loads(value, JSON_DECODE_ANY, NULL);
        json_object_set_new(j, key, parsed != NULL ? parsed : json_string(value));
    }
    char *text = json_dumps(j, JSON_COMPACT);
    buf_append_slice(ret, slice_str(text));
    free(text);
    json_decref(j);
    return ERR_OK;
}

int cmd_edit_config(struct cli *c, int argc, char **argv)
{
    enum { SETS_MAX = 32 };
    struct msg_arena arena CLEANUP(msg_arena_close) = MSG_ARENA_INIT;
    struct buf json CLEANUP(buf_close) = BUF_INIT;
    struct buf compares CLEANUP(buf_close) = BUF_INIT;
    struct buf ops CLEANUP(buf_close) = BUF_INIT;
    struct config_rec old;
    struct config_rec new;
    struct errmsg e = {0};
    char *sets[SETS_MAX];
    size_t n = 0;
    uint64_t mod = 0;
    for (int i = 1; i < argc; i += 2) {
        if ((strcmp(argv[i], "-s") != 0 && strcmp(argv[i], "--set") != 0) || i + 1 >= argc ||
            n == SETS_MAX)
            return cli_usage("edit-config takes -s KEY=VALUE");
        sets[n++] = argv[i + 1];
    }
    if (n == 0)
        return cli_usage("edit-config takes -s KEY=VALUE");
    enum err rv = cli_record(c, "config", &msg_config_rec, &old, &arena, &mod);
    if (rv == ERR_NOT_FOUND)
        return cli_fail(rv,
                        "no dynamic configuration yet: the cluster has not been initialised");
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    rv = apply_sets(&old, sets, n, &json, &e);
    if (rv == ERR_OK)
        rv = msg_from_json(&msg_config_rec, buf_slice(&json), &new, &arena, &e);
    if (rv != ERR_OK)
        return cli_fail(rv, "%s", e.text);
    char key[CLI_KEY_MAX];
    cli_key(c, key, "config");
    struct msg_list list = {0};
    msg_list_append(
        &list, &msg_compare,
        &(struct compare){.key = slice_str(key), .target = "mod", .op = "=", .number = mod});
    msg_list_end(&list, &compares);
    list = (struct msg_list){0};
    msg_list_append(
        &list, &msg_txn_op,
        &(struct txn_op){.op = "put", .key = slice_str(key), .value = buf_slice(&json)});
    msg_list_end(&list, &ops);
    struct txn_reply reply;
    rv = cli_call(c, METHOD_KV_TXN,
                  &(struct txn_req){.compare = buf_slice(&compares), .then = buf_slice(&ops)},
                  &reply);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    if (!reply.succeeded)
        return cli_fail(
            ERR_INVALID,
            "somebody else changed the configuration meanwhile; nothing changed: do it again");
    (void)printf("Configuration changed\n");
    return CLI_DONE;
}
