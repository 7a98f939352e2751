/* explain: the decision journal in words. */
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/str.h"
#include "cli/cluster.h"
#include "cli/commands.h"

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
    } else if (argc == 3 && strcmp(argv[1], "why-not") == 0) {
        return explain_why_not(c, argv[2]);
    } else if (argc == 2 && strcmp(argv[1], "durability") == 0) {
        return explain_durability(c);
    } else if (argc > 1) {
        return cli_usage("explain takes -n COUNT, why-not NODE, or durability");
    }
    enum err rv = cli_records(c, "journal/", NULL, count_journal, &j);
    if (rv == ERR_OK) {
        j.skip = j.seen > count ? j.seen - count : 0;
        rv = cli_records(c, "journal/", NULL, print_journal, &j);
    }
    return cli_exit_code(rv);
}
