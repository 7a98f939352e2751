#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "agent/pg_slots.h"

static struct slot_config config;
static struct slots_memory memory;
static struct slots_seen here, leader;
static struct slots_facts facts;
static struct slots_plan plan;

static int set_up(void **state)
{
    (void)state;
    config = (struct slot_config){.permanent_n = 2};
    config.permanent[0] = (struct slot_def){"app", SLOT_LOGICAL, "db", "pgoutput"};
    config.permanent[1] = (struct slot_def){"arch", SLOT_PHYSICAL, "", ""};
    memory = (struct slots_memory){.token = 0};
    here =
        (struct slots_seen){.logical_wal = true, .replay_lsn = 0x500, .oldest_wal_lsn = 0x100};
    leader = (struct slots_seen){.n = 3};
    leader.at[0] = (struct slot_seen){.is = config.permanent[0],
                                      .restart_lsn = 0x200,
                                      .confirmed_lsn = 0x300,
                                      .catalog_xmin = 700,
                                      .failover = true};
    leader.at[1] = (struct slot_seen){.is = config.permanent[1], .restart_lsn = 0x200};
    leader.at[2] =
        (struct slot_seen){.is = {"regent_n2", SLOT_PHYSICAL, "", ""}, .catalog_xmin = 690};
    facts = (struct slots_facts){.config = &config,
                                 .major = 15,
                                 .here = &here,
                                 .leader = &leader,
                                 .why_not = "no leader",
                                 .own_slot = "regent_n2",
                                 .leader_token = 5};
    return 0;
}

static void has(struct slots_seen *s, struct slot_seen slot)
{
    s->at[s->n++] = slot;
}

/* The steps as statements, "; " between them. */
static void expect(const char *steps, const char *unsafe)
{
    struct buf sql CLEANUP(buf_close) = BUF_INIT;
    slots_judge(&facts, &memory, &plan);
    for (size_t i = 0; i < plan.step_n; i++) {
        buf_printf(&sql, "%s", i > 0 ? "; " : "");
        slots_step_sql(&plan.step[i], &sql);
    }
    assert_string_equal(buf_cstr(&sql), steps);
    assert_string_equal(plan.unsafe, unsafe);
}

#define MAKE_ARCH "SELECT pg_create_physical_replication_slot('arch', true)"

static void a_primary_makes_what_is_missing(void **state)
{
    (void)state;
    facts.primary = true;
    expect("SELECT pg_create_logical_replication_slot('app', 'pgoutput', false); " MAKE_ARCH,
           "");
    facts.major = 17;
    expect("SELECT pg_create_logical_replication_slot('app', 'pgoutput', false, false, "
           "true); " MAKE_ARCH,
           "");
    here.logical_wal = false;
    expect(MAKE_ARCH, "app: wal_level is not logical");
}

static void a_primary_leaves_what_is_not_as_configured(void **state)
{
    (void)state;
    facts.primary = true;
    has(&here, (struct slot_seen){.is = {"app", SLOT_LOGICAL, "other", "pgoutput"}});
    has(&here, (struct slot_seen){.is = config.permanent[1], .lost = true});
    expect("SELECT pg_drop_replication_slot('arch')", "app: exists, but not as configured");
    here.at[0].is = config.permanent[0];
    here.at[0].lost = true;
    here.at[1].active = true; /* somebody still streams: nothing can be dropped */
    expect("", "app: has lost WAL: drop it, its consumer begins anew");
    here.at[0].lost = false;
    facts.major = 17;
    expect("", "app: was made without failover: drop it, it is made anew");
}

static void a_rule_keeps_everything_away(void **state)
{
    (void)state;
    facts.primary = true;
    config.ignore[config.ignore_n++] = (struct slot_def){.type = SLOT_LOGICAL};
    expect(MAKE_ARCH, "");
    config.ignore[config.ignore_n++] = (struct slot_def){.name = "arch"};
    expect("", "");
}

static void what_left_the_configuration_is_dropped_where_it_is_the_same(void **state)
{
    struct slot_config none = {.permanent_n = 0};
    (void)state;
    facts.primary = true;
    slots_retire(&memory, &config, &none);
    facts.config = &none;
    has(&here, (struct slot_seen){.is = config.permanent[0], .synced = true});
    has(&here, (struct slot_seen){.is = {"arch", SLOT_LOGICAL, "db", "pgoutput"}});
    has(&here, (struct slot_seen){.is = {"by_hand", SLOT_PHYSICAL, "", ""}});
    expect("SELECT pg_drop_replication_slot('app')", "");
    assert_int_equal(memory.retired_n, 1);
    facts.primary = false; /* PostgreSQL drops a synchronized one when the leader's is gone */
    expect("", "");
    none.ignore[none.ignore_n++] = (struct slot_def){.name = "app"};
    facts.primary = true;
    expect("", "");
    here.n = 0;
    expect("", "");
    assert_int_equal(memory.retired_n, 0);
    slots_retire(&memory, &none, &config);
    slots_retire(&memory, &config, &none);
    slots_retire(&memory, &none, &config); /* named again in time */
    assert_int_equal(memory.retired_n, 0);
}

static void a_physical_slot_of_a_standby_moves_on_with_the_leaders(void **state)
{
    (void)state;
    config.permanent_n = 0;
    config.permanent[config.permanent_n++] = (struct slot_def){"arch", SLOT_PHYSICAL, "", ""};
    expect(MAKE_ARCH, "");
    has(&here, (struct slot_seen){.is = config.permanent[0], .restart_lsn = 0x180});
    expect("SELECT pg_replication_slot_advance('arch', '0/200')", "");
    leader.at[1].restart_lsn = 0x900; /* no further than what is replayed */
    expect("SELECT pg_replication_slot_advance('arch', '0/500')", "");
    leader.at[1].restart_lsn = 0x100;
    expect("", "arch: holds less WAL here than on the leader");
    facts.leader = NULL;
    expect("", "");
}

#define NO_ROWS "app: the leader does not keep its catalog rows for this standby yet"

static void only_logical(void)
{
    config.permanent_n = 1;
}

static void a_logical_slot_is_copied_when_its_wal_is_here(void **state)
{
    (void)state;
    only_logical();
    expect("", "app: to be copied, with a restart");
    assert_int_equal(plan.copy_n, 1);
    assert_string_equal(plan.copy[0], "app");
    here.oldest_wal_lsn = 0x201;
    expect("", "app: needs WAL that is gone here, until its consumer has moved on");
    assert_int_equal(plan.copy_n, 0);
    here.logical_wal = false;
    expect("", "app: wal_level is not logical here");
    leader.at[0].lost = true;
    expect("", "app: the leader has no good one");
    facts.leader = NULL;
    expect("", "app: no leader");
}

static void a_copy_is_good_when_its_rows_were_never_without_protection(void **state)
{
    (void)state;
    only_logical();
    has(&here, (struct slot_seen){
                   .is = config.permanent[0], .confirmed_lsn = 0x300, .catalog_xmin = 695});
    expect("", NO_ROWS); /* seen to be kept for the first time */
    expect("", "app: may lack catalog rows, until its consumer has moved on");
    here.at[0].catalog_xmin = 700;
    leader.at[0].catalog_xmin = 720; /* the leader has moved on since */
    expect("", "");
    leader.at[2].catalog_xmin = 0; /* our slot there was made anew: from the start */
    expect("", NO_ROWS);
    leader.at[2].catalog_xmin = 690;
    expect("", NO_ROWS);
    expect("", "app: may lack catalog rows, until its consumer has moved on");
    here.at[0].catalog_xmin = 720;
    expect("", "");
    facts.leader_token++; /* another leader */
    expect("", NO_ROWS);
    leader.at[2].catalog_xmin = 721; /* it keeps less than the copy needs */
    expect("", NO_ROWS);
    expect("", NO_ROWS);
}

static void transaction_ids_go_round(void **state)
{
    (void)state;
    only_logical();
    leader.at[0].catalog_xmin = 5;
    leader.at[2].catalog_xmin = 0xFFFFFFF0;
    has(&here, (struct slot_seen){
                   .is = config.permanent[0], .confirmed_lsn = 0x300, .catalog_xmin = 10});
    expect("", NO_ROWS);
    expect("", "");
    here.at[0].catalog_xmin = 0xFFFFFFF8;
    expect("", "app: may lack catalog rows, until its consumer has moved on");
}

static void a_copy_moves_on_behind_the_leaders(void **state)
{
    (void)state;
    only_logical();
    has(&here, (struct slot_seen){
                   .is = config.permanent[0], .confirmed_lsn = 0x280, .catalog_xmin = 700});
    expect("SELECT pg_replication_slot_advance('app', '0/300')", NO_ROWS);
    here.at[0].confirmed_lsn = 0x310;
    expect("", "app: is ahead of the leader's");
    here.at[0].is.plugin[0] = 'x';
    expect("SELECT pg_drop_replication_slot('app')",
           "app: the copy here is no good, and is made anew");
}

static void postgresql_17_synchronizes_by_itself(void **state)
{
    (void)state;
    only_logical();
    facts.major = 17;
    expect("", "app: not synchronized yet");
    has(&here, (struct slot_seen){.is = config.permanent[0]}); /* of a time as primary */
    expect("SELECT pg_drop_replication_slot('app')", "app: not synchronized yet");
    here.at[0].synced = here.at[0].temporary = true;
    expect("", "app: synchronized, but not consistent yet");
    here.at[0].temporary = false;
    expect("", "");
    leader.at[0].failover = false;
    expect("", "app: the leader's was made without failover");
}

static void what_does_not_fit_is_left_out(void **state)
{
    char unsafe[20] = "";
    (void)state;
    slots_say(unsafe, sizeof unsafe, "a", "because");
    slots_say(unsafe, sizeof unsafe, "b", "because of something");
    slots_say(unsafe, sizeof unsafe, "c", "yes");
    assert_string_equal(unsafe, "a: because; c: yes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_primary_makes_what_is_missing, set_up),
        cmocka_unit_test_setup(a_primary_leaves_what_is_not_as_configured, set_up),
        cmocka_unit_test_setup(a_rule_keeps_everything_away, set_up),
        cmocka_unit_test_setup(what_left_the_configuration_is_dropped_where_it_is_the_same,
                               set_up),
        cmocka_unit_test_setup(a_physical_slot_of_a_standby_moves_on_with_the_leaders, set_up),
        cmocka_unit_test_setup(a_logical_slot_is_copied_when_its_wal_is_here, set_up),
        cmocka_unit_test_setup(a_copy_is_good_when_its_rows_were_never_without_protection,
                               set_up),
        cmocka_unit_test_setup(transaction_ids_go_round, set_up),
        cmocka_unit_test_setup(a_copy_moves_on_behind_the_leaders, set_up),
        cmocka_unit_test_setup(postgresql_17_synchronizes_by_itself, set_up),
        cmocka_unit_test_setup(what_does_not_fit_is_left_out, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
