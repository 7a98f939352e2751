/* explain why-not NODE, explain durability: what the records say about it, in words. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/str.h"
#include "cli/cluster.h"
#include "cli/commands.h"

/* The last decision of each node. */
struct last {
    char node[64], at[CLOCK_TEXT_MAX], rule[48], reason[300];
};

struct lasts {
    struct last of[MEMBERS_MAX];
    size_t n;
};

static const struct last *find_last(const struct lasts *all, const char *node)
{
    for (size_t i = 0; i < all->n; i++)
        if (strcmp(all->of[i].node, node) == 0)
            return &all->of[i];
    return NULL;
}

static enum err keep_last(void *arg, const char *name, const struct kv *kv, struct errmsg *e)
{
    struct lasts *all = arg;
    struct msg_arena arena CLEANUP(msg_arena_close) = MSG_ARENA_INIT;
    struct journal_rec r;
    (void)name;
    enum err rv = msg_from_json(&msg_journal_rec, kv->value, &r, &arena, e);
    if (rv != ERR_OK)
        return rv;
    const struct last *known = find_last(all, r.node);
    if (known == NULL && all->n == MEMBERS_MAX)
        return ERR_OK; /* of nodes that have left long ago */
    struct last *l = &all->of[known != NULL ? (size_t)(known - all->of) : all->n++];
    str_cut(l->node, sizeof l->node, r.node);
    clock_wall_text(r.at_ms, l->at);
    str_cut(l->rule, sizeof l->rule, r.rule);
    str_cut(l->reason, sizeof l->reason, r.reason);
    return ERR_OK;
}

static const struct member_rec *find_member(const struct cluster *cl, const char *node)
{
    for (size_t i = 0; i < cl->members_n; i++)
        if (strcmp(cl->members[i].name, node) == 0)
            return &cl->members[i];
    return NULL;
}

enum err explain_nobody(struct cli *c)
{
    static struct cluster cl;
    static struct lasts all;
    enum err rv = cluster_read(c, &cl);
    if (rv == ERR_OK && !cl.has_leader)
        rv = cli_records(c, "journal/", NULL, keep_last, &all);
    if (rv == ERR_OK && !cl.has_leader)
        (void)printf("Nobody leads; the last leader was %s. What each node says:\n",
                     cl.sync.leader[0] != '\0' ? cl.sync.leader : "nobody");
    for (size_t i = 0; i < all.n && rv == ERR_OK; i++) {
        const struct last *l = &all.of[i];
        if (find_member(&cl, l->node) == NULL)
            (void)printf("- %s: its daemon does not answer; the last it said was: %s\n",
                         l->node, l->reason);
        else
            (void)printf("- %s: %s: %s\n", l->node, l->rule, l->reason);
    }
    cluster_close(&cl);
    return rv;
}

static size_t objections;

static void object(const char *fmt, ...) PRINTF(1, 2);
static void object(const char *fmt, ...)
{
    va_list ap;
    (void)printf("- ");
    va_start(ap, fmt);
    (void)vprintf(fmt, ap);
    va_end(ap);
    (void)printf("\n");
    objections++;
}

static bool is_sync(const struct cluster *cl)
{
    return strcmp(cl->sync.mode, "on") == 0 || strcmp(cl->sync.mode, "quorum") == 0;
}

static bool in_v(const struct cluster *cl, const struct member_rec *m)
{
    for (size_t i = 0; i < cl->sync.v_n; i++)
        if (m->incarnation[0] != '\0' && strcmp(cl->sync.v[i], m->incarnation) == 0)
            return true;
    return false;
}

static void of_cluster(const struct cluster *cl)
{
    if (cl->config.pause)
        object("the cluster is paused: nobody is promoted by itself");
    if (cl->sync.unknown)
        object("the synchronous record is unknown since a recovery: nobody is promoted by "
               "itself");
    if (cl->sync.disarmed)
        object("%s was paused without a deadline and may take writes: nobody else leads",
               cl->sync.leader);
}

static void of_member(const struct cluster *cl, const struct member_rec *m)
{
    uint64_t top = cluster_top_lsn(cl);
    uint64_t lag = top - MIN(top, m->lsn);
    if (m->nofailover || m->failover_priority <= 0)
        object("its tag nofailover keeps it from leading");
    if (strcmp(m->state, "streaming") != 0 && strcmp(m->state, "running") != 0)
        object("its PostgreSQL is %s", m->state);
    if (m->sick[0] != '\0' && strcmp(cl->config.on_sick_node, "failover") == 0)
        object("it is sick: it is chosen after all others");
    if (is_sync(cl) && !in_v(cl, m))
        object("synchronous_mode is %s, and it is not in the record: it may lack commits that "
               "were acknowledged",
               cl->sync.mode);
    if (!is_sync(cl) && lag > cl->config.maximum_lag_on_failover)
        object("it is %" PRIu64 " bytes behind, more than maximum_lag_on_failover (%" PRIu64
               ")",
               lag, cl->config.maximum_lag_on_failover);
    if (m->slots[0] != '\0')
        object("permanent slots would be lost or broken with it: %s", m->slots);
    if (cl->has_leader && m->timeline != 0 && cl->leader.timeline > m->timeline)
        object("it is on timeline %" PRIu64 ", the leader on %" PRIu64, m->timeline,
               cl->leader.timeline);
}

int explain_why_not(struct cli *c, const char *node)
{
    static struct cluster cl;
    static struct lasts all;
    enum err rv = cluster_read(c, &cl);
    if (rv == ERR_OK)
        rv = cli_records(c, "journal/", NULL, keep_last, &all);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    const struct member_rec *m = find_member(&cl, node);
    const struct last *last = find_last(&all, node);
    if (m == NULL && last == NULL) {
        cluster_close(&cl);
        return cli_fail(ERR_NOT_FOUND, "no node \"%s\" is known; `regentctl list` shows them",
                        node);
    }
    if (m != NULL && cluster_leads(&cl, m)) {
        (void)printf("%s leads.\n", node);
    } else {
        (void)printf("%s does not lead: %s does.\n", node,
                     cl.has_leader ? cl.leader.name : "nobody");
        if (m == NULL)
            object("its daemon does not answer: its lease has run out");
        else
            of_member(&cl, m);
        of_cluster(&cl);
        if (objections == 0)
            (void)printf("Nothing stands in its way: were the leader lost, it would stand.\n");
    }
    if (m != NULL && m->sick[0] != '\0')
        (void)printf("It is sick: %s; %s.\n", m->sick_why, cluster_sick_policy(&cl, m));
    if (last != NULL)
        (void)printf("Its last decision, %s, by rule %s: %s\n", last->at, last->rule,
                     last->reason);
    cluster_close(&cl);
    return CLI_DONE;
}

/* ---- durability ---- */

static void asynchronous(const struct cluster *cl)
{
    (void)printf("A commit is acknowledged as soon as the leader has it.\n"
                 "- The leader's PostgreSQL crashes: nothing is lost.\n"
                 "- Its node is lost: what no standby had received is lost; a standby that is "
                 "more than\n"
                 "  %" PRIu64 " bytes behind is not promoted by itself.\n"
                 "- It is cut off: what it acknowledged until its lease ended, at most %" PRIu64
                 " s, is lost.\n",
                 cl->config.maximum_lag_on_failover, cl->config.ttl);
}

int explain_durability(struct cli *c)
{
    static struct cluster cl;
    enum err rv = cluster_read(c, &cl);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    bool strict = cl.config.synchronous_mode_strict;
    bool sync = strcmp(cl.config.synchronous_mode, "on") == 0 ||
                strcmp(cl.config.synchronous_mode, "quorum") == 0;
    (void)printf("synchronous_mode is %s%s.\n", sync ? cl.config.synchronous_mode : "off",
                 sync && strict ? ", strict" : "");
    if (!sync || (cl.sync.v_n == 0 && !strict)) {
        if (sync)
            (void)printf(
                "No standby is synchronous now, so for now it is as if it were off.\n");
        asynchronous(&cl);
    } else if (cl.sync.v_n == 0) {
        (void)printf("No standby is synchronous now: commits wait until one is.\n");
    } else {
        (void)printf(
            "A commit is acknowledged when a standby has it, too: any of %zu may be promoted\n"
            "when %" PRIu64 " of them have been compared.\n"
            "- Any one node is lost, frozen or cut off: nothing that was acknowledged is "
            "lost.\n"
            "- The leader and its synchronous standbys are lost together: what only they "
            "had.\n",
            cl.sync.v_n, cl.sync.q);
        (void)printf("%s\n", strict ? "- No synchronous standby is left: commits wait."
                                    : "- No synchronous standby is left: the leader goes on "
                                      "alone, as if it were off.");
    }
    for (size_t i = 0; i < cl.members_n; i++)
        if (cl.members[i].slots[0] != '\0')
            (void)printf("- %s %s: permanent slots that would not be good there: %s\n",
                         cl.members[i].name,
                         cluster_leads(&cl, &cl.members[i]) ? "leads" : "is promoted",
                         cl.members[i].slots);
    (void)printf("- A session with synchronous_commit = off or local asks for less itself.\n");
    cluster_close(&cl);
    return CLI_DONE;
}
