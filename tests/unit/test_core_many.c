/* As many members as there can be: what the rows of decide/ say of three holds for all of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "agent/core/plan.h"

static struct view v;
static struct plan p;

static void member(size_t i)
{
    struct member_rec *m = &v.members[v.members_n++];
    *m = (struct member_rec){.timeline = 2, .lsn = 0x500, .lease = 100 + i};
    (void)snprintf(m->name, sizeof m->name, "n%02zu", i);
    (void)snprintf(m->incarnation, sizeof m->incarnation, "i%02zu", i);
    (void)snprintf(m->role, sizeof m->role, "%s", i == 0 ? "primary" : "replica");
    (void)snprintf(m->state, sizeof m->state, "%s", i == 0 ? "running" : "streaming");
    (void)snprintf(m->upstream, sizeof m->upstream, "%s", i == 0 ? "" : "n00");
}

/* n00 leads or has led; the view is that of node `self`. */
static void begin(size_t self, enum sync_mode mode)
{
    v = (struct view){
        .now_ms = 100000,
        .dcs_ready = true,
        .config = {.ttl_ms = 5000,
                   .sync_mode = mode,
                   .sync_node_count = 1,
                   .maximum_lag_on_failover = 0x1000},
        .has_initialize = true,
        .initialize = {.system_id = 77},
        .has_sync = true,
        .sync = {.leader = "n00", .incarnation = "i00", .token = 5, .q = 1},
        .history_n = 2,
        .history = {{.timeline = 1, .token = 1},
                    {.timeline = 2, .token = 5, .parent = 1, .switch_lsn = 0x300}},
        .lease = 100 + self,
        .deadline_ms = 104000,
        .armed = true};
    (void)snprintf(v.sync.mode, sizeof v.sync.mode, "%s", mode == SYNC_OFF ? "off" : "quorum");
    for (size_t i = 0; i < VIEW_MEMBERS; i++)
        member(i);
    (void)memcpy(v.self, v.members[self].name, sizeof v.self);
    struct view_pg *pg = &v.pg;
    *pg = (struct view_pg){.data = PG_DATA_OURS,
                           .proc = PG_PROC_RUNNING,
                           .accepts = true,
                           .system_id = 77,
                           .timeline = 2,
                           .lsn = 0x500,
                           .replay_lsn = 0x500,
                           .roles_ready = true,
                           .checkpointed = true,
                           .set_known = true,
                           .set_confirmed = true};
    (void)memcpy(pg->incarnation, v.members[self].incarnation, sizeof pg->incarnation);
}

static void as_leader(enum sync_mode mode)
{
    begin(0, mode);
    v.has_leader = true;
    v.leader = (struct leader_rec){
        .name = "n00", .incarnation = "i00", .token = 5, .timeline = 2, .state = "running"};
    v.leader_lease = 100;
    for (size_t i = 1; i < VIEW_MEMBERS; i++) {
        struct view_walsender *w = &v.pg.senders[v.pg.senders_n++];
        *w = (struct view_walsender){.streaming = true, .flush_lsn = 0x500};
        (void)memcpy(w->incarnation, v.members[i].incarnation, sizeof v.members[i].incarnation);
    }
}

/* Everybody but the last leader has sealed. */
static void as_sealed(size_t self)
{
    begin(self, SYNC_OFF);
    v.lost_ms = 99000;
    v.pg.in_recovery = v.pg.standby_signal = true;
    v.pg.sealed_token = 5;
    v.pg.sealed_lsn = v.pg.lsn;
    v.pg.sealed_timeline = 2;
    for (size_t i = 1; i < VIEW_MEMBERS; i++) {
        struct seal_rec *s = &v.seals[v.seals_n];
        *s = (struct seal_rec){.token = 5, .timeline = 2, .lsn = 0x500, .lineage = "2:5,1:1"};
        (void)memcpy(s->name, v.members[i].name, sizeof s->name);
        (void)memcpy(s->incarnation, v.members[i].incarnation, sizeof s->incarnation);
        v.seal_mod_revisions[v.seals_n++] = 1000 + i;
    }
}

static void decides(const char *rule, enum plan_action action, enum plan_txn txn)
{
    struct errmsg e = {0};
    decide(&v, &p);
    if (plan_check(&v, &p, &e) != ERR_OK)
        fail_msg("%s", e.text);
    if (strcmp(p.rule, rule) != 0 || p.action != action || p.txn != txn)
        fail_msg("%s: %s %s (%s)", p.rule, plan_action_name(p.action), plan_txn_name(p.txn),
                 p.reason);
}

static void a_quorum_has_as_many_as_a_record_has_room_for(void **state)
{
    (void)state;
    as_leader(SYNC_QUORUM);
    v.members[VIEW_MEMBERS - 1].sync_priority = 5; /* the last one is the first choice */
    decides("leader_sync", ACTION_SET_SYNC, TXN_NONE);
    assert_int_equal(p.set.s_n, SYNC_MAX);
    assert_string_equal(p.set.s[0], v.members[VIEW_MEMBERS - 1].incarnation);
    v.pg.set = p.set;
    decides("leader_sync", ACTION_NONE, TXN_SYNC);
    assert_int_equal(p.sync.v_n, SYNC_MAX);
    assert_int_equal(p.sync.q, SYNC_MAX);
    v.sync = p.sync;
    decides("leader", ACTION_NONE, TXN_NONE);
}

static void every_seal_is_counted_and_one_node_is_the_best(void **state)
{
    (void)state;
    size_t winners = 0;
    for (size_t self = 1; self < VIEW_MEMBERS; self++) {
        as_sealed(self);
        bool best = self == VIEW_MEMBERS - 1;
        v.seals[v.seals_n - 1].lsn = v.members[VIEW_MEMBERS - 1].lsn = 0x501;
        if (best)
            v.pg.lsn = v.pg.replay_lsn = v.pg.sealed_lsn = 0x501;
        decides("election", ACTION_NONE, best ? TXN_ACQUIRE : TXN_NONE);
        if (best)
            assert_int_equal(p.counted_n, VIEW_MEMBERS - 1);
        winners += p.txn == TXN_ACQUIRE;
    }
    assert_int_equal(winners, 1);
}

static void the_last_one_by_name_takes_over_by_order(void **state)
{
    (void)state;
    as_leader(SYNC_OFF);
    v.has_failover = true;
    v.failover = (struct failover_rec){.kind = "switchover", .leader = "n00"};
    (void)memcpy(v.failover.candidate, v.members[VIEW_MEMBERS - 1].name,
                 sizeof v.failover.candidate);
    decides("switch_checkpoint", ACTION_CHECKPOINT, TXN_LEADER_STATE);
    v.busy.done_action = ACTION_CHECKPOINT;
    v.busy.done_ms = v.now_ms;
    (void)memcpy(v.leader.state, "stopping", sizeof "stopping");
    v.pg.proc = PG_PROC_STOPPED;
    v.pg.clean = true;
    v.pg.shutdown_lsn = 0x500;
    decides("switch_handover", ACTION_NONE, TXN_HANDOVER);
    assert_string_equal(p.target, v.members[VIEW_MEMBERS - 1].name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_quorum_has_as_many_as_a_record_has_room_for),
        cmocka_unit_test(every_seal_is_counted_and_one_node_is_the_best),
        cmocka_unit_test(the_last_one_by_name_takes_over_by_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
