/* explain: the decision journal in words, or one decision in full, as a case of the decision tests. */
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/core/plan.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/cluster.h"
#include "cli/commands.h"

enum { ID_MAX = 96, NEWEST_MAX = 99999 };

struct journal {
    uint64_t count;    /* lines wanted */
    uint64_t until_ms; /* --at: what was decided later is left out; UINT64_MAX: nothing is */
    /* --journal: number from the newest, or the beginning of an id; NULL: a list */
    const char *journal;
    bool row, check;
    /* found */
    uint64_t seen, skip;
    char id[ID_MAX];
    struct output *out; /* -f: instead of words */
};

/* Is it one of those asked for, by its time? */
static enum err take(const struct journal *j, const struct kv *kv, struct journal_rec *ret,
                     struct msg_arena *arena, bool *ret_wanted, struct errmsg *e)
{
    enum err rv = msg_from_json(&msg_journal_rec, kv->value, ret, arena, e);
    *ret_wanted = rv == ERR_OK && ret->at_ms <= j->until_ms;
    return rv;
}

static enum err count_journal(void *arg, const char *name, const struct kv *kv,
                              struct errmsg *e)
{
    struct journal *j = arg;
    struct msg_arena arena CLEANUP(msg_arena_close) = MSG_ARENA_INIT;
    struct journal_rec r;
    bool wanted = true;
    (void)name;
    enum err rv = j->until_ms != UINT64_MAX ? take(j, kv, &r, &arena, &wanted, e) : ERR_OK;
    j->seen += wanted;
    return rv;
}

static void print_words(const struct journal_rec *r, const char *at)
{
    bool acts = strcmp(r->action, "none") != 0;
    bool writes = strcmp(r->txn, "none") != 0;
    (void)printf("%s  %s  %s: %s%s%s%s%s\n", at, r->node, r->rule, r->reason,
                 acts ? "; does " : "", acts ? r->action : "", writes ? "; writes " : "",
                 writes ? r->txn : "");
}

static enum err print_journal(void *arg, const char *name, const struct kv *kv,
                              struct errmsg *e)
{
    struct journal *j = arg;
    struct msg_arena arena CLEANUP(msg_arena_close) = MSG_ARENA_INIT;
    struct journal_rec r;
    char at[CLOCK_TEXT_MAX];
    char token[24];
    bool wanted;
    enum err rv = take(j, kv, &r, &arena, &wanted, e);
    if (rv != ERR_OK || !wanted)
        return rv;
    if (j->skip > 0) {
        j->skip--;
        return ERR_OK;
    }
    clock_wall_text(r.at_ms, at);
    (void)snprintf(token, sizeof token, "%" PRIu64, r.token);
    if (j->out != NULL)
        output_row(j->out, (const char *[]){name, at, r.node, r.rule, r.reason, r.action, r.txn,
                                            token});
    else
        print_words(&r, at);
    return ERR_OK;
}

static enum err list(struct cli *c, struct journal *j)
{
    static const struct output_column columns[] = {
        {.name = "ID"},     {.name = "Time"},
        {.name = "Node"},   {.name = "Rule"},
        {.name = "Reason"}, {.name = "Action"},
        {.name = "Writes"}, {.name = "Token", .number = true}};
    enum err rv = cli_records(c, "journal/", NULL, count_journal, j);
    if (rv != ERR_OK)
        return rv;
    j->skip = j->seen > j->count ? j->seen - j->count : 0;
    if (c->format != CLI_TABLE)
        j->out = output_new(c, NULL, columns, ARRAY_LEN(columns));
    rv = cli_records(c, "journal/", NULL, print_journal, j);
    if (j->out != NULL)
        output_print(j->out);
    return rv;
}

/* ---- one decision ---- */

/* Of which node and when, by its key: the last one that fits. */
static enum err find_journal(void *arg, const char *name, const struct kv *kv, struct errmsg *e)
{
    struct journal *j = arg;
    (void)kv;
    (void)e;
    bool wanted = j->count == 0 ? str_starts(name, j->journal) : j->seen == j->count;
    if (wanted)
        str_cut(j->id, sizeof j->id, name);
    j->seen -= j->count != 0;
    return ERR_OK;
}

/* The plan of now for the view of then. */
static int check_plan(const struct journal_rec *r, const char *text)
{
    static struct view v;
    struct plan p;
    struct errmsg e = {0};
    if (view_parse(text, &v, &e) != ERR_OK)
        return cli_fail(ERR_CORRUPT, "the view cannot be read: %s", e.text);
    decide(&v, &p);
    bool same = strcmp(p.rule, r->rule) == 0 && strcmp(p.reason, r->reason) == 0 &&
                strcmp(plan_action_name(p.action), r->action) == 0 &&
                strcmp(plan_txn_name(p.txn), r->txn) == 0;
    if (same) {
        (void)printf("The same plan: %s: %s\n", p.rule, p.reason);
        return CLI_DONE;
    }
    return cli_fail(ERR_INTERNAL, "another plan: %s: %s; does %s; writes %s", p.rule, p.reason,
                    plan_action_name(p.action), plan_txn_name(p.txn));
}

/* As tests/unit/decide has its cases. */
static void print_row(const struct journal_rec *r, const char *view)
{
    (void)printf("case: %s: %s\nbase: nothing\n%s=> rule=%s", r->node, r->reason, view,
                 r->rule);
    if (strcmp(r->action, "none") != 0)
        (void)printf(" action=%s", r->action);
    if (strcmp(r->txn, "none") != 0)
        (void)printf(" txn=%s", r->txn);
    (void)printf("\n");
}

static int print_one(struct cli *c, const struct journal *j)
{
    struct msg_arena arena CLEANUP(msg_arena_close) = MSG_ARENA_INIT;
    struct buf view CLEANUP(buf_close) = BUF_INIT;
    struct journal_rec r;
    char key[ID_MAX + 16];
    char at[CLOCK_TEXT_MAX];
    (void)snprintf(key, sizeof key, "journal/%s", j->id);
    enum err rv = cli_record(c, key, &msg_journal_rec, &r, &arena, NULL);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    buf_append_slice(&view, r.view);
    if (view.len == 0)
        return cli_fail(ERR_NOT_FOUND, "the view of %s was too long for the journal", j->id);
    if (j->check)
        return check_plan(&r, buf_cstr(&view));
    if (j->row) {
        print_row(&r, buf_cstr(&view));
        return CLI_DONE;
    }
    clock_wall_text(r.at_ms, at);
    print_words(&r, at);
    (void)printf("%s", buf_cstr(&view));
    return CLI_DONE;
}

static int one(struct cli *c, struct journal *j)
{
    j->count = 0;
    bool number = strlen(j->journal) <= 5 && str_parse_u64(j->journal, &j->count) == ERR_OK;
    if (number && j->count == 0)
        return cli_usage("--journal: 1 is the newest");
    enum err rv = number ? cli_records(c, "journal/", NULL, count_journal, j) : ERR_OK;
    if (rv == ERR_OK)
        rv = cli_records(c, "journal/", NULL, find_journal, j);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    if (j->id[0] == '\0')
        return cli_fail(
            ERR_NOT_FOUND,
            "the journal has no entry \"%s\"; `regentctl explain -f tsv` lists them",
            j->journal);
    return print_one(c, j);
}

/* ---- options ---- */

static int take_option(struct journal *j, int option)
{
    switch (option) {
    case 'n':
        return str_parse_u64(optarg, &j->count) == ERR_OK
                   ? 0
                   : cli_usage("-n: \"%s\" is not a number", optarg);
    case 'a':
        return clock_wall_parse(optarg, &j->until_ms) == ERR_OK
                   ? 0
                   : cli_usage("--at: \"%s\" is not a time with its zone, like "
                               "2026-01-31T04:00:00+01:00",
                               optarg);
    case 'j':
        j->journal = optarg;
        return 0;
    case 'r':
        j->row = true;
        return 0;
    case 'k':
        j->check = true;
        return 0;
    default:
        return CLI_USAGE; /* said already */
    }
}

/* What stands behind the options: nothing, why, why-not NODE, durability. */
static int subject(struct cli *c, struct journal *j, int argc, char **argv)
{
    const char *word = argc > 0 ? argv[0] : "why";
    if (argc == 2 && strcmp(word, "why-not") == 0)
        return explain_why_not(c, argv[1]);
    if (argc == 1 && strcmp(word, "durability") == 0)
        return explain_durability(c);
    if (argc > 1 || strcmp(word, "why") != 0)
        return cli_usage("explain takes why, why-not NODE or durability, not \"%s\"", word);
    if (j->journal != NULL)
        return one(c, j);
    bool now = c->format == CLI_TABLE && j->until_ms == UINT64_MAX;
    enum err rv = list(c, j);
    return cli_exit_code(rv == ERR_OK && now ? explain_nobody(c) : rv);
}

int cmd_explain(struct cli *c, int argc, char **argv)
{
    static const struct option options[] = {
        {"count", required_argument, NULL, 'n'},   {"at", required_argument, NULL, 'a'},
        {"journal", required_argument, NULL, 'j'}, {"row", no_argument, NULL, 'r'},
        {"check", no_argument, NULL, 'k'},         {NULL, 0, NULL, 0}};
    struct journal j = {.count = 30, .until_ms = UINT64_MAX};
    int option;
    int rv = 0;
    optind = 1;
    while (rv == 0 && (option = cli_option_short(argc, argv, ":n:", options)) != -1)
        rv = take_option(&j, option);
    if (rv == 0 && (j.row || j.check) && j.journal == NULL)
        rv = cli_usage("--row and --check go with --journal N");
    return rv != 0 ? rv : subject(c, &j, argc - optind, argv + optind);
}
