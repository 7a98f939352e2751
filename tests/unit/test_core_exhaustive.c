/* decide() over all small views: every plan keeps the invariants of plan_check, and says why. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "agent/core/plan.h"
#include "base/rng.h"

enum { CHOICES = 8, RULES = 80 };

struct dimension {
    const char *choice[CHOICES]; /* lines in the view notation, up to a NULL */
};

static const char common[] =
    "now_ms=100000\nself=n2\ndcs_ready=1\nconfig.ttl_ms=4000\nconfig.sync_node_count=1\n"
    "config.use_pg_rewind=1\nconfig.maximum_lag_on_failover=8\nhas_initialize=1\ninitialize."
    "system_id=77\n"
    "has_sync=1\nsync.leader=n1\nsync.token=5\nlost_ms=99000\nlease=12\npg.system_id=77\npg."
    "incarnation=i2\n"
    "pg.accepts=1\npg.set_known=1\nmembers[n1].incarnation=i1\nmembers[n1].lease=11\nmembers["
    "n1].state=running\n"
    "members[n1].timeline=2\nmembers[n2].incarnation=i2\nmembers[n2].lease=12\nmembers[n2]."
    "state=running\n"
    "members[n3].incarnation=i3\nmembers[n3].lease=13\nmembers[n3].state=streaming\nmembers[n3]"
    ".timeline=2\n"
    "history[0].timeline=1\nhistory[0].token=1\nhistory[1].timeline=2\nhistory[1].token="
    "5\nhistory[1].parent=1\n"
    "history[1].switch_lsn=0/40\n";

/* All combinations of these ... */
static const struct dimension every[] = {
    {{"",
      "has_leader=1\nleader.name=n2\nleader.incarnation=i2\nleader.token=5\nleader_lease=12",
      "has_leader=1\nleader.name=n1\nleader.incarnation=i1\nleader.token=6\nleader_lease=11",
      "has_leader=1\nleader.name=n2\nleader.incarnation=i2\nleader.token=5\nleader_lease=99"}},
    {{"leader.state=acquired", "leader.state=running\nleader.timeline=2",
      "leader.state=stopping\nleader.timeline=2"}},
    {{"sync.incarnation=i1", "sync.incarnation=i2"}},
    {{"sync.q=1", "sync.v=i2\nsync.q=1", "sync.v=i2,i3\nsync.q=1", "sync.v=i2,i3\nsync.q=2",
      "sync.v=i3\nsync.q=1"}},
    {{"sync.mode=off", "sync.mode=on", "sync.mode=quorum"}},
    {{"pg.proc=stopped", "pg.proc=starting", "pg.proc=running", "pg.proc=stopping",
      "pg.proc=dying"}},
    {{"", "pg.in_recovery=1"}},
    {{"", "pg.standby_signal=1"}},
    {{"pg.data=ours", "pg.data=empty", "pg.data=broken"}},
    {{"deadline_ms=104000", "deadline_ms=99999"}},
    {{"", "armed=1"}},
    {{"pg.sealed_token=5\npg.sealed_lsn=0/50\npg.sealed_timeline=2", "pg.sealed_token=4"}},
};

/* ... each with a draw of these. */
static const struct dimension some[] = {
    {{"", "", "", "dcs_ready=0\ndcs_lost_ms=1\ndcs_gone=1"}},
    {{"", "", "", "", "tilt=1", "pg.data=unknown"}},
    {{"", "", "", "txn_pending=1", "txn_unknown=1"}},
    {{"", "", "", "busy.action=checkpoint", "busy.action=clone\nbusy.target=n3"}},
    {{"", "", "stopping=1", "restarting=1"}},
    {{"", "", "has_failover=1", "has_failover=1\nfailover.candidate=n3",
      "has_failover=1\nfailover.leader=n1"}},
    {{"", "", "config.pause=1"}},
    {{"config.sync_mode=on", "config.sync_mode=quorum", "config.sync_mode=off",
      "config.sync_mode=on\nconfig.sync_strict=1"}},
    {{"", "config.on_primary_crash=failover", "config.on_primary_crash=restart"}},
    {{"pg.lsn=0/40\nmembers[n2].lsn=0/40", "pg.lsn=0/50\nmembers[n2].lsn=0/50"}},
    {{"members[n3].lsn=0/30", "members[n3].lsn=0/50", "members[n3].lsn=0/60", "-members[n3]"}},
    {{"members[n1].lsn=0/50", "members[n1].lsn=0/60", "-members[n1]", "-members[n1]"}},
    {{"pg.timeline=2\nmembers[n2].timeline=2", "pg.timeline=1\nmembers[n2].timeline=1",
      "pg.timeline=3"}},
    {{"", "pg.lineage=2:5,1:1", "pg.lineage=2:4,1:1", "pg.lineage=0:5,1:1"}},
    {{"pg.clean=1\npg.shutdown_lsn=0/50", "pg.crashed=1", "pg.clean=1"}},
    {{"", "", "pg.upstream=n1\npg.walreceiver=1", "pg.upstream=n1", "pg.walreceiver=1"}},
    {{"",
      "seals[n2].incarnation=i2\nseals[n2].token=5\nseals[n2].timeline=2\nseals[n2].lsn=0/50",
      "seals[n2].incarnation=i2\nseals[n2].token=5\nseals[n2].timeline=2\nseals[n2].lsn=0/50",
      "seals[n2].incarnation=i2\nseals[n2].token=4\nseals[n2].timeline=2\nseals[n2].lsn=0/50"}},
    {{"",
      "seals[n3].incarnation=i3\nseals[n3].token=5\nseals[n3].timeline=2\nseals[n3].lsn=0/60",
      "seals[n3].incarnation=i3\nseals[n3].token=5\nseals[n3].timeline=2\nseals[n3].lsn=0/48",
      "seals[n3].incarnation=i3\nseals[n3].token=4\nseals[n3].timeline=2\nseals[n3].lsn=0/48"}},
    {{"", "pg.set.k=1\npg.set.s=i3", "pg.set.k=1\npg.set.s=i3\npg.set_confirmed=1",
      "pg.set.k=2\npg.set.s=i1,i3\npg.set_confirmed=1", "pg.set_confirmed=1",
      "pg.set.k=1\npg.set.s=i1,i3\npg.set_confirmed=1", "pg.set_known=0"}},
    {{"", "pg.old[0].k=1\npg.old[0].s=i1", "pg.old[0]="}},
    {{"", "pg.senders[0].incarnation=i3\npg.senders[0].streaming=1",
      "pg.senders[0].incarnation=i3\npg.senders[0].streaming=1\npg.senders[1].incarnation="
      "i1\npg.senders[1].streaming=1",
      "pg.senders[0].incarnation=i1"}},
    {{"", "", "leader.shutdown_lsn=0/50", "leader.shutdown_lsn=0/60"}},
    {{"", "has_sync_before=1\nsync_before.v=i2\nsync_before.q=1\nsync_before.incarnation="
          "i1\nsync_before.token=4"}},
    {{"", "pg.stuck=1", "pg.rewind_failed=1\npg.stuck=1"}},
    {{"pg.roles_ready=1\npg.checkpointed=1", "pg.checkpointed=1", "pg.roles_ready=1"}},
    {{"", "", "nofailover=1", "members[n3].nofailover=1"}},
    {{"", "", "", "sync.unknown=1"}},
    {{"", "", "", "has_request=1\nrequest.kind=restart",
      "has_request=1\nrequest.kind=restart\nrequest.state=under way\nrequest.since_us=7",
      ("has_request=1\nrequest.kind=reinitialize\nrequest.state=under way\n"
       "request.incarnation=i2"),
      ("has_request=1\nrequest.kind=reinitialize\nrequest.state=under way\n"
       "request.incarnation=i2\nrequest.remove_data=1"),
      "has_request=1\nrequest.kind=stop\nrequest.state=under way"}},
    {{"", "", "", "sync.disarmed=1", "sync.disarmed=1\nconfig.pause=1"}},
    {{"", "",
      "busy.failed=1\nbusy.failures=3\nbusy.failed_action=start_primary\nbusy.failed_ms=1",
      "busy.failed=1\nbusy.failures=1\nbusy.failed_action=promote\nbusy.failed_ms=99999"}},
    {{"", "", "", "pg.system_id=78"}},
    {{"", "", "config.sick_failover=1\nconfig.sick_interval_ms=300000",
      "config.sick_failover=1\nconfig.sick_interval_ms=300000\nleader.relieves=n3\n"
      "leader_ms=90000",
      "config.sick_failover=1\nconfig.sick_interval_ms=300\nleader.relieves=n3\n"
      "leader_ms=90000"}},
    {{"", "pg.sick=full\npg.failing_ms=95000", "pg.sick=hung\npg.failing_ms=95000",
      "pg.sick=stuck\npg.failing_ms=99000", "pg.sick=archive"}},
    {{"", "", "members[n3].sick=full", "members[n1].sick=stuck"}},
    {{"", "sick_leader=i1"}},
    {{"", "", "", "config.standby_cluster=1", "config.standby_cluster=1\nleader.standby=1",
      "config.standby_cluster=1\nleader.standby=1\npg.upstream=@remote\npg.follow_token=5",
      "leader.standby=1\npg.upstream=@remote"}},
    {{"", "", "busy.done_action=rewind", "busy.done_action=seal\nbusy.done_ms=99999"}},
    {{"", "", "replicatefrom=n3\nmembers[n3].upstream=n1", "replicatefrom=n1",
      "replicatefrom=n3\nmembers[n3].upstream=n2", "nostream=1\nnosync=1"}},
    {{"", "", "", "has_initialize=0\nhas_sync=0",
      "has_initialize=1\ninitialize_leased=1\ninitialize.name=n2\nhas_sync=0",
      "can_bootstrap=1\nhas_initialize=0\nhas_sync=0"}},
};

static struct {
    const char *rule[RULES];
    size_t rules, views, acts;
} seen;

static size_t choices(const struct dimension *d)
{
    size_t n = 0;
    while (n < CHOICES && d->choice[n] != NULL)
        n++;
    return n;
}

static void change(struct view *v, const char *text)
{
    struct errmsg e;
    /* An element that another choice has taken away already. */
    if (text[0] != '\0' && view_apply(text, v, &e) != ERR_OK && text[0] != '-')
        fail_msg("%s", e.text);
}

static void note(const struct plan *p)
{
    size_t i = 0;
    while (i < seen.rules && seen.rule[i] != p->rule)
        i++;
    if (i == seen.rules && seen.rules < RULES)
        seen.rule[seen.rules++] = p->rule;
    seen.views++;
    seen.acts += p->action != ACTION_NONE || p->txn != TXN_NONE;
}

/* The journal has the view as text: pasted into a test it must give the same plan. */
static void check_as_text(const struct view *v, const struct plan *p)
{
    static char text[100000];
    static struct view again;
    struct plan plan;
    struct errmsg e = {0};
    assert_int_equal(view_print(v, text, sizeof text), ERR_OK);
    if (view_parse(text, &again, &e) != ERR_OK)
        fail_msg("%s", e.text);
    decide(&again, &plan);
    assert_memory_equal(p, &plan, sizeof plan);
}

static void check(const struct view *v)
{
    struct plan p;
    struct errmsg e;
    decide(v, &p);
    note(&p);
    if (plan_check(v, &p, &e) != ERR_OK) {
        static char text[100000];
        assert_int_equal(view_print(v, text, sizeof text), ERR_OK);
        fail_msg("%s\n%s", e.text, text);
    }
    /* A plan that waits says for what; one that acts repeats itself on the same view. */
    assert_true(p.reason[0] != '\0');
    struct plan again;
    decide(v, &again);
    assert_memory_equal(&p, &again, sizeof p);
    if (seen.views % 50 == 0)
        check_as_text(v, &p);
}

static void every_small_view_keeps_the_invariants(void **state)
{
    (void)state;
    static struct view base;
    static struct view v;
    size_t at[ARRAY_LEN(every)] = {0};
    struct rng r;
    rng_seed(&r, 4);
    assert_int_equal(view_parse(common, &base, NULL), ERR_OK);
    for (bool more = true; more;) {
        v = base;
        for (size_t d = 0; d < ARRAY_LEN(every); d++)
            change(&v, every[d].choice[at[d]]);
        for (size_t d = 0; d < ARRAY_LEN(some); d++)
            change(&v, some[d].choice[rng_below(&r, choices(&some[d]))]);
        /* The server keeps record and key together while a leader leads. */
        if (v.has_leader)
            v.sync.token = v.leader.token;
        if (v.pg.data == PG_DATA_EMPTY)
            (void)memset(v.pg.incarnation, 0, sizeof v.pg.incarnation);
        if (!v.has_sync)
            (void)memset(&v.sync, 0, sizeof v.sync);
        check(&v);
        more = false;
        for (size_t d = 0; d < ARRAY_LEN(every) && !more; d++) {
            more = ++at[d] < choices(&every[d]);
            at[d] = more ? at[d] : 0;
        }
    }
    print_message("%zu views, %zu rules, %zu plans that act\n", seen.views, seen.rules,
                  seen.acts);
    assert_true(seen.views > 150000);
    assert_true(seen.rules >= 36);
    assert_true(seen.acts > seen.views / 10);
}

/* plan_check is not an echo of decide(): a plan that is right for one view is refused on others. */
static void a_plan_for_another_view_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *view;
        enum plan_action action;
        enum plan_txn txn;
    } rows[] = {
        {"has_leader=1\nleader.name=n1\npg.proc=running\npg.in_recovery=1", ACTION_PROMOTE,
         TXN_NONE},
        {"pg.proc=stopped", ACTION_START_PRIMARY, TXN_NONE},
        {"sync.mode=on\nsync.v=i3\nsync.q=1\ndeadline_ms=104000", ACTION_NONE, TXN_ACQUIRE},
        {"has_leader=1\nleader.name=n2\nleader.incarnation=i2\nleader_lease=12\npg.proc="
         "running",
         ACTION_NONE, TXN_RELEASE},
        {"has_leader=1\nleader.name=n1\nsync.v=i2", ACTION_CLONE, TXN_NONE},
        {"has_leader=1\nleader.name=n1\nsync.v=i2", ACTION_REWIND, TXN_NONE},
        {"has_leader=1\nleader.name=n1", ACTION_SET_SYNC, TXN_NONE},
        {"has_leader=1\nleader.name=n1", ACTION_NONE, TXN_SYNC},
        {"has_leader=1\nleader.name=n1", ACTION_SEAL, TXN_NONE},
        {"has_leader=1\nleader.name=n1", ACTION_NONE, TXN_HANDOVER},
        {"pg.data=ours", ACTION_INITDB, TXN_NONE},
        {"dcs_ready=0", ACTION_NONE, TXN_SEAL},
        {"busy.action=clone", ACTION_CHECKPOINT, TXN_NONE},
        {"pg.proc=running\ndeadline_ms=99999", ACTION_CHECKPOINT, TXN_NONE},
        {"has_leader=1\nleader.name=n1", ACTION_NONE, TXN_BOOTSTRAP_BEGIN},
        {"has_leader=1\nleader.name=n1\nleader.token=6\npg.sealed_token=6\npg.in_recovery=1",
         ACTION_FOLLOW, TXN_NONE},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        static struct view v;
        assert_int_equal(view_parse(common, &v, NULL), ERR_OK);
        v.pg.data = PG_DATA_OURS;
        change(&v, rows[i].view);
        struct plan p = {
            .rule = "test", .action = rows[i].action, .txn = rows[i].txn, .arm = true};
        p.token = v.leader.token;
        struct errmsg e = {0};
        if (plan_check(&v, &p, &e) != ERR_INTERNAL)
            fail_msg("accepted: %s %s on %s", plan_action_name(p.action), plan_txn_name(p.txn),
                     rows[i].view);
        assert_true(strstr(e.text, "rule test breaks: ") != NULL);
    }
}

static bool refused_for(const struct view *v, const struct plan *p, const char *invariant)
{
    struct errmsg e = {0};
    return plan_check(v, p, &e) == ERR_INTERNAL && strstr(e.text, invariant) != NULL;
}

static void followed_is_the_leader_or_who_streams_from_it(void **state)
{
    static const struct {
        const char *change;
        bool refused;
    } rows[] = {
        {"replicatefrom=n3\nmembers[n3].upstream=n1", false},
        {"members[n3].upstream=n1", true}, /* nobody said so */
        {"replicatefrom=n3\nmembers[n3].upstream=n2", true},
        {"replicatefrom=n3\nmembers[n3].upstream=n1\nmembers[n3].timeline=1", true},
        {"replicatefrom=n3\nmembers[n3].upstream=n1\nmembers[n3].state=running", true},
        {"replicatefrom=n3\nmembers[n3].upstream=n4", true},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        static struct view v;
        assert_int_equal(view_parse(common, &v, NULL), ERR_OK);
        change(&v, "has_leader=1\nleader.name=n1\nleader.token=6\nleader.timeline=2\n"
                   "leader.state=running\npg.proc=running\npg.in_recovery=1");
        change(&v, rows[i].change);
        struct plan p = {.rule = "test", .action = ACTION_FOLLOW, .token = 6, .target = "n3"};
        if (refused_for(&v, &p, "followed is the leader") != rows[i].refused)
            fail_msg("%s", rows[i].change);
    }
}

static void only_who_streams_from_the_leader_is_recorded(void **state)
{
    static struct view v;
    (void)state;
    assert_int_equal(view_parse(common, &v, NULL), ERR_OK);
    change(&v, "has_leader=1\nleader.name=n2\nleader.incarnation=i2\nleader.token=5\n"
               "leader_lease=12\nleader.state=running\nsync.incarnation=i2\nsync.mode=quorum\n"
               "sync.q=1\npg.proc=running\npg.data=ours\narmed=1\ndeadline_ms=104000\n"
               "pg.senders[0].incarnation=i1\npg.senders[0].streaming=1\n"
               "members[n1].upstream=n2\nmembers[n3].upstream=n1");
    struct plan p = {.rule = "test", .txn = TXN_SYNC, .token = 5, .arm = true, .sync = v.sync};
    p.sync.v_n = 1;
    (void)snprintf(p.sync.v[0], sizeof p.sync.v[0], "i3"); /* behind n1 */
    assert_true(refused_for(&v, &p, "who streams from the leader itself"));
    (void)snprintf(p.sync.v[0], sizeof p.sync.v[0], "i1");
    assert_false(refused_for(&v, &p, "who streams from the leader itself"));
}

#define ASKED                                                             \
    "has_request=1\nrequest.kind=reinitialize\nrequest.state=under way\n" \
    "request.remove_data=1\nrequest.incarnation=i2"

static void data_is_deleted_only_where_the_policy_or_a_person_says_so(void **state)
{
    static const struct {
        const char *change;
        enum plan_action action;
        const char *refused;
    } rows[] = {
        {"config.remove_on_diverged=1", ACTION_CLONE, NULL},
        {"pg.rewind_failed=1\nconfig.remove_on_rewind_failure=1", ACTION_CLONE, NULL},
        {"pg.lsn=1", ACTION_CLONE, "data is deleted only"},
        {"config.remove_on_rewind_failure=1", ACTION_CLONE, "data is deleted only"},
        {"pg.rewind_failed=1\nconfig.remove_on_diverged=1", ACTION_CLONE,
         "data is deleted only"},
        {"config.remove_on_diverged=1", ACTION_REWIND, "data is deleted only"},
        {"config.remove_on_diverged=1", ACTION_START_STANDBY, "data is deleted only"},
        {ASKED, ACTION_CLONE, NULL},
        {ASKED "\npg.data=broken\npg.incarnation=", ACTION_CLONE, NULL},
        {ASKED "\npg.incarnation=i9", ACTION_CLONE, "data is deleted only"},
        {ASKED "\nrequest.remove_data=0", ACTION_CLONE, "data is deleted only"},
        {ASKED "\nrequest.state=", ACTION_CLONE, "data is deleted only"},
        {ASKED "\nrequest.kind=restart", ACTION_CLONE, "data is deleted only"},
        {"config.remove_on_diverged=1\nsync.v=i2", ACTION_CLONE,
         "data that the record counts on"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        static struct view v;
        struct errmsg e = {0};
        assert_int_equal(view_parse(common, &v, NULL), ERR_OK);
        change(&v, "has_leader=1\nleader.name=n1\nleader.token=6\nleader.timeline=2\n"
                   "leader.state=running\npg.proc=stopped\npg.data=ours");
        change(&v, rows[i].change);
        struct plan p = {.rule = "test",
                         .action = rows[i].action,
                         .token = 6,
                         .target = "n1",
                         .remove_old = true};
        enum err rv = plan_check(&v, &p, &e);
        bool as_said = rows[i].refused == NULL
                           ? rv == ERR_OK
                           : rv == ERR_INTERNAL && strstr(e.text, rows[i].refused) != NULL;
        if (!as_said)
            fail_msg("%s: %s", rows[i].change, e.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_small_view_keeps_the_invariants),
        cmocka_unit_test(a_plan_for_another_view_is_refused),
        cmocka_unit_test(followed_is_the_leader_or_who_streams_from_it),
        cmocka_unit_test(only_who_streams_from_the_leader_is_recorded),
        cmocka_unit_test(data_is_deleted_only_where_the_policy_or_a_person_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
