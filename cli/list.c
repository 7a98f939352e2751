/* list, history, explain, show-config, edit-config, dsn: what the HA records say. */
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"

struct members {
    struct member_rec m[MEMBERS_MAX];
    size_t n;
};

static enum err take_member(void *arg, const char *name, const struct kv *kv, struct errmsg *e)
{
    struct members *all = arg;
    (void)name;
    if (all->n == MEMBERS_MAX)
        return ERR_OK;
    enum err rv = msg_from_json(&msg_member_rec, kv->value, &all->m[all->n], NULL, e);
    all->n += rv == ERR_OK;
    return rv;
}

struct cluster {
    struct members members;
    struct leader_rec leader;
    struct sync_rec sync;
    struct initialize_rec initialize;
    bool has_leader;
};

static enum err optional(enum err rv)
{
    return rv == ERR_NOT_FOUND ? ERR_OK : rv;
}

static enum err read_cluster(struct cli *c, struct cluster *cl)
{
    *cl = (struct cluster){0};
    enum err rv = cli_records(c, "members/", take_member, &cl->members);
    if (rv == ERR_OK) {
        rv = cli_record(c, "leader", &msg_leader_rec, &cl->leader, NULL, NULL);
        cl->has_leader = rv == ERR_OK;
        rv = optional(rv);
    }
    if (rv == ERR_OK)
        rv = optional(cli_record(c, "sync", &msg_sync_rec, &cl->sync, NULL, NULL));
    if (rv == ERR_OK)
        rv = optional(
            cli_record(c, "initialize", &msg_initialize_rec, &cl->initialize, NULL, NULL));
    return rv;
}

static bool is_leader(const struct cluster *cl, const struct member_rec *m)
{
    return cl->has_leader && strcmp(cl->leader.name, m->name) == 0;
}

static const char *role_of(const struct cluster *cl, const struct member_rec *m)
{
    if (is_leader(cl, m))
        return "Leader";
    for (size_t i = 0; i < cl->sync.v_n; i++)
        if (m->incarnation[0] != '\0' && strcmp(cl->sync.v[i], m->incarnation) == 0)
            return strcmp(cl->sync.mode, "quorum") == 0 ? "Quorum Standby" : "Sync Standby";
    return "Replica";
}

static uint64_t top_lsn(const struct cluster *cl)
{
    uint64_t top = 0;
    for (size_t i = 0; i < cl->members.n; i++)
        if (is_leader(cl, &cl->members.m[i]))
            top = cl->members.m[i].lsn;
    for (size_t i = 0; top == 0 && i < cl->members.n; i++)
        top = MAX(top, cl->members.m[i].lsn);
    return top;
}

static void list_row(struct output *o, const struct cli *c, const struct cluster *cl,
                     const struct member_rec *m)
{
    char host[200];
    char tl[24];
    char lag[24];
    uint64_t top = top_lsn(cl);
    (void)snprintf(host, sizeof host, m->conn_port == 5432 ? "%s" : "%s:%" PRIu64, m->conn_host,
                   m->conn_port);
    (void)snprintf(tl, sizeof tl, "%" PRIu64, m->timeline);
    (void)snprintf(lag, sizeof lag, "%" PRIu64, (top - MIN(top, m->lsn)) / 1048576);
    output_row(o, (const char *[]){c->config.scope, m->name, host, role_of(cl, m), m->state,
                                   m->timeline != 0 ? tl : NULL,
                                   is_leader(cl, m) || m->lsn == 0 ? NULL : lag});
}

int cmd_list(struct cli *c, int argc, char **argv)
{
    static const struct output_column columns[] = {
        {.name = "Cluster"},
        {.name = "Member"},
        {.name = "Host"},
        {.name = "Role"},
        {.name = "State"},
        {.name = "TL", .number = true, .right = true},
        {.name = "Lag in MB", .number = true, .right = true}};
    static struct cluster cl;
    (void)argv;
    if (argc > 1)
        return cli_usage("list takes no argument");
    enum err rv = read_cluster(c, &cl);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    char title[160];
    (void)snprintf(title, sizeof title, "+ Cluster: %s (%" PRIu64 ") +", c->config.scope,
                   cl.initialize.system_id);
    struct output *o = output_new(c, title, columns, ARRAY_LEN(columns));
    for (size_t i = 0; i < cl.members.n; i++)
        list_row(o, c, &cl, &cl.members.m[i]);
    output_print(o);
    return CLI_DONE;
}

int cmd_history(struct cli *c, int argc, char **argv)
{
    static const struct output_column columns[] = {
        {.name = "TL", .number = true, .right = true},
        {.name = "LSN", .right = true},
        {.name = "Reason"},
        {.name = "Timestamp"},
        {.name = "New Leader"},
        {.name = "Token", .number = true, .right = true}};
    static struct history_rec h;
    (void)argc;
    (void)argv;
    enum err rv = optional(cli_record(c, "history", &msg_history_rec, &h, NULL, NULL));
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    struct output *o = output_new(c, NULL, columns, ARRAY_LEN(columns));
    for (size_t i = 0; i < h.entries_n; i++) {
        const struct history_entry *x = &h.entries[i];
        char tl[24];
        char token[24];
        char lsn[24];
        char at[CLOCK_TEXT_MAX];
        (void)snprintf(tl, sizeof tl, "%" PRIu64, x->timeline);
        (void)snprintf(token, sizeof token, "%" PRIu64, x->token);
        clock_wall_text(x->at_ms, at);
        output_row(o, (const char *[]){tl, cli_lsn(x->switch_lsn, lsn), x->reason, at, x->name,
                                       token});
    }
    output_print(o);
    return CLI_DONE;
}

/* ---- explain ---- */

struct journal {
    uint64_t skip;
    uint64_t seen;
};

static enum err count_journal(void *arg, const char *name, const struct kv *kv,
                              struct errmsg *e)
{
    (void)name;
    (void)kv;
    (void)e;
    ((struct journal *)arg)->seen++;
    return ERR_OK;
}

static enum err print_journal(void *arg, const char *name, const struct kv *kv,
                              struct errmsg *e)
{
    struct journal *j = arg;
    struct msg_arena arena CLEANUP(msg_arena_close) = MSG_ARENA_INIT;
    struct journal_rec r;
    char at[CLOCK_TEXT_MAX];
    (void)name;
    if (j->skip > 0) {
        j->skip--;
        return ERR_OK;
    }
    enum err rv = msg_from_json(&msg_journal_rec, kv->value, &r, &arena, e);
    if (rv != ERR_OK)
        return rv;
    clock_wall_text(r.at_ms, at);
    bool acts = strcmp(r.action, "none") != 0;
    bool writes = strcmp(r.txn, "none") != 0;
    (void)printf("%s  %s  %s: %s%s%s%s%s\n", at, r.node, r.rule, r.reason,
                 acts ? "; does " : "", acts ? r.action : "", writes ? "; writes " : "",
                 writes ? r.txn : "");
    return ERR_OK;
}

int cmd_explain(struct cli *c, int argc, char **argv)
{
    uint64_t count = 30;
    struct journal j = {0};
    if (argc == 3 && strcmp(argv[1], "-n") == 0) {
        if (str_parse_u64(argv[2], &count) != ERR_OK)
            return cli_usage("-n: \"%s\" is not a number", argv[2]);
    } else if (argc > 1) {
        return cli_usage("explain takes -n COUNT");
    }
    enum err rv = cli_records(c, "journal/", count_journal, &j);
    if (rv == ERR_OK) {
        j.skip = j.seen > count ? j.seen - count : 0;
        rv = cli_records(c, "journal/", print_journal, &j);
    }
    return cli_exit_code(rv);
}

/* ---- dynamic configuration ---- */

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
    (void)argc;
    (void)argv;
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

/* ---- dsn ---- */

int cmd_dsn(struct cli *c, int argc, char **argv)
{
    static struct cluster cl;
    bool read_only = argc == 2 && strcmp(argv[1], "--read-only") == 0;
    if (argc > 1 && !read_only)
        return cli_usage("dsn takes --read-only at most");
    enum err rv = read_cluster(c, &cl);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    if (cl.members.n == 0)
        return cli_fail(ERR_NOT_FOUND, "no PostgreSQL node is known yet; see `regentctl list`");
    (void)printf("host=");
    for (size_t i = 0; i < cl.members.n; i++)
        (void)printf("%s%s", i > 0 ? "," : "", cl.members.m[i].conn_host);
    (void)printf(" port=");
    for (size_t i = 0; i < cl.members.n; i++)
        (void)printf("%s%" PRIu64, i > 0 ? "," : "", cl.members.m[i].conn_port);
    (void)printf(" dbname=postgres connect_timeout=2 target_session_attrs=%s\n",
                 read_only ? "prefer-standby" : "read-write");
    return CLI_DONE;
}
