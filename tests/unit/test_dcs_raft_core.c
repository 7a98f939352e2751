/* Protocol runs of cores in one process, as scripts (tests/sim/raft_script.h); the world checks the
 * invariants of Raft at every step of each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "dcs/raft_frame.h"
#include "dcs/raft_membership.h"
#include "tests/sim/raft_script.h"

static void three_elect_and_replicate(void **state)
{
    (void)state;
    raft_script_play(3, "leader none\n"
                        "lead 2\n"
                        "put 2 a\n"
                        "put 2 b\n"
                        "refuse 1 c\n"
                        "refuse 3 c\n"
                        "agree\n");
}

static void a_lost_leader_is_replaced_and_returns_as_a_follower(void **state)
{
    (void)state;
    raft_script_play(3, "lead 1\n"
                        "put 1 a\n"
                        "agree\n"
                        "crash 1\n"
                        "run 5000\n"
                        "lead 3\n"
                        "put 3 b\n"
                        "start 1\n"
                        "agree\n"
                        "leader 3\n");
}

static void a_tail_that_was_never_committed_is_replaced(void **state)
{
    (void)state;
    raft_script_play(3, "lead 1\n"
                        "put 1 a\n"
                        "agree\n"
                        "isolate 1\n"
                        "put 1 lost\n"
                        "put 1 lost-too\n"
                        "run 50\n"
                        "crash 1\n" /* with the tail on its disk */
                        "lead 2\n"
                        "put 2 b\n"
                        "run 100\n"
                        "heal\n"
                        "start 1\n"
                        "agree\n");
}

static void a_leader_without_a_majority_steps_down(void **state)
{
    (void)state;
    raft_script_play(3, "lead 1\n"
                        "isolate 1\n"
                        "run 4000\n"
                        "refuse 1 x\n"
                        "heal\n"
                        "agree\n");
}

static void an_isolated_member_does_not_disturb_when_it_returns(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 8192);
    raft_script(w, "lead 1\n"
                   "isolate 3\n"
                   "run 20000\n");
    uint64_t term = raft_core_term(w->nodes[1].core);
    assert_int_equal(raft_core_term(w->nodes[3].core), term); /* pre-vote */
    raft_script(w, "heal\n"
                   "run 5000\n"
                   "leader 1\n"
                   "agree\n");
    assert_int_equal(raft_core_term(w->nodes[1].core), term);
    world_free(w);
}

static void a_member_is_added_promoted_and_removed(void **state)
{
    (void)state;
    raft_script_play(3, "lead 1\n"
                        "flood 1 50\n"
                        "join\n"
                        "denied voter 4\n" /* learners first */
                        "learner 4\n"
                        "agree\n"
                        "members 4 4\n"
                        "run 300\n"
                        "voter 4\n"
                        "agree\n"
                        "remove 2\n"
                        "agree\n"
                        "members 1 3\n"
                        "members 4 3\n"
                        "denied remove 1\n" /* itself */
                        "lead 4\n"
                        "remove 1\n"
                        "agree\n"
                        "members 4 2\n");
}

static void one_change_at_a_time(void **state)
{
    (void)state;
    raft_script_play(3, "lead 1\n"
                        "join\n"
                        "join\n"
                        "isolate 1\n"
                        "learner 4\n"
                        "denied learner 5\n"
                        "heal\n"
                        "agree\n"
                        "learner 5\n"
                        "agree\n"
                        "members 5 5\n");
}

static void a_change_that_was_not_committed_is_rolled_back(void **state)
{
    (void)state;
    raft_script_play(3, "lead 1\n"
                        "put 1 a\n"
                        "agree\n"
                        "join\n"
                        "isolate 1\n"
                        "learner 4\n"
                        "members 1 4\n"
                        "run 4000\n"
                        "lead 2\n"
                        "put 2 b\n"
                        "run 200\n"
                        "heal\n"
                        "agree\n"
                        "members 1 3\n");
}

/* The library records a change under the index of the first entry of its message. */
static void a_change_behind_other_entries_keeps_its_index(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 8192);
    raft_script(w, "lead 1\n"
                   "agree\n"
                   "isolate 3\n"
                   "put 1 a\n"
                   "put 1 b\n"
                   "put 1 c\n"
                   "learner 4\n"
                   "put 1 d\n"
                   "run 300\n"
                   "heal\n"
                   "agree\n");
    uint64_t index = raft_core_membership(w->nodes[1].core)->index;
    assert_true(index > 4);
    for (uint64_t id = 1; id <= 3; id++) {
        assert_int_equal(raft_core_membership(w->nodes[id].core)->index, index);
        assert_int_equal(w->nodes[id].membership.index, index);
        assert_false(raft_core_change_pending(w->nodes[id].core));
    }
    world_free(w);
}

/* A follower that hears of two changes at once must not forget the first. */
static void two_changes_in_one_catch_up_are_both_known(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 8192);
    raft_script(w, "lead 1\n"
                   "agree\n"
                   "isolate 3\n"
                   "learner 4\n"
                   "run 50\n"
                   "put 1 a\n"
                   "learner 5\n"
                   "run 300\n"
                   "heal\n"
                   "agree\n"
                   "members 3 5\n");
    assert_false(raft_core_change_pending(w->nodes[3].core));
    world_free(w);
}

static void leadership_is_handed_over_without_an_election_timeout(void **state)
{
    (void)state;
    raft_script_play(3, "lead 1\n"
                        "agree\n"
                        "transfer 1 2\n"
                        "run 100\n"
                        "leader 2\n"
                        "agree\n");
}

/* Nobody waits for a heartbeat: not the followers, and not the leader when one of them is silent. */
static void a_commit_is_known_to_all_at_once(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 8192);
    raft_script(w, "lead 1\nagree\n");
    for (int i = 0; i < 6; i++) {
        uint64_t index;
        if (i == 3)
            raft_script(w, "stop 3\n");
        world_run(w, 3330); /* idle, at another point between two heartbeats */
        assert_int_equal(world_submit(w, 1, slice_str("x"), &index), ERR_OK);
        world_run(w, 15);
        for (uint64_t id = 1; id <= (i < 3 ? 3 : 2); id++)
            assert_true(raft_core_commit_index(w->nodes[id].core) >= index);
    }
    world_free(w);
}

/* One frame an entry for each follower, not a second one for its commit. */
static void a_commit_travels_with_the_entries_behind_it(void **state)
{
    enum { ENTRIES = 50, HEARTBEATS = 20 };
    (void)state;
    struct world *w = raft_script_world(3, 8192);
    raft_script(w, "lead 1\nagree\n");
    uint64_t sent = w->sent[RAFT_FRAME_APPEND];
    for (int i = 0; i < ENTRIES; i++) {
        uint64_t index;
        assert_int_equal(world_submit(w, 1, slice_str("x"), &index), ERR_OK);
        while (raft_core_commit_index(w->nodes[1].core) < index)
            world_run(w, 1);
    }
    assert_true(w->sent[RAFT_FRAME_APPEND] - sent <= 2 * ENTRIES + HEARTBEATS);
    world_free(w);
}

static void a_member_far_behind_gets_a_snapshot(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 20);
    raft_script(w, "lead 1\n"
                   "stop 3\n"
                   "flood 1 200\n"
                   "start 3\n"
                   "agree\n"
                   "restored 3 1\n"
                   "put 1 x\n"
                   "agree\n"
                   "stop 3\n"
                   "start 3\n" /* from the snapshot and the log behind it */
                   "agree\n"
                   "restored 3 1\n"
                   "join\n"
                   "learner 4\n"
                   "agree\n"
                   "members 4 4\n");
    assert_int_equal(w->nodes[3].fetches, 1);
    assert_true(w->sent[RAFT_FRAME_INSTALL] <= 5);
    assert_true(raft_core_log_bytes(w->nodes[1].core) < 100 * (sizeof(uint64_t) + 64));
    world_free(w);
}

/* It would grow for hours in an idle member; but no more often than that. */
static void a_log_that_grows_slowly_is_cut_after_a_while(void **state)
{
    (void)state;
    enum { QUIET_MS = 5000, QUIET_BYTES = 4000, FILES_MAX = 3 };
    struct world_options o;
    world_options_default(&o);
    o.quiet_ms = QUIET_MS;
    o.quiet_bytes = QUIET_BYTES;
    struct world *w = world_new(&o, 1);
    world_start(w, 1);
    raft_script(w, "lead 1\n"
                   "flood 1 400\n"
                   "run 100\n");
    assert_int_equal(w->nodes[1].n_files, 0);
    assert_true(raft_core_log_bytes(w->nodes[1].core) > 2 * QUIET_BYTES);
    raft_script(w, "run 5000\n");
    assert_int_equal(w->nodes[1].n_files, 1);
    assert_true(raft_core_log_bytes(w->nodes[1].core) <= QUIET_BYTES);
    raft_script(w, "flood 1 400\n"
                   "run 1000\n");
    assert_int_equal(w->nodes[1].n_files, 1);
    raft_script(w, "run 5000\n"
                   "stop 1\n"
                   "start 1\n"
                   "lead 1\n"
                   "put 1 x\n"
                   "agree\n");
    assert_true(w->nodes[1].n_files <= FILES_MAX);
    world_free(w);
}

static size_t copies_of_a_state(uint64_t bytes)
{
    struct world *w = raft_script_world(1, 20);
    w->snapshot_bytes = bytes;
    raft_script(w, "lead 1\n");
    for (int i = 0; i < 12; i++)
        raft_script(w, "flood 1 20\nrun 100\n");
    size_t n = w->nodes[1].n_files;
    world_free(w);
    return n;
}

/* Or its copies would be most of what is written. */
static void a_large_state_is_copied_less_often(void **state)
{
    (void)state;
    size_t often = copies_of_a_state(100);
    size_t seldom = copies_of_a_state((uint64_t)1 << 30);
    assert_true(seldom >= 2 && often >= 2 * seldom);
}

/* The leader must not begin the transfer anew because of heartbeats that the follower cannot match. */
static void a_slow_transfer_is_not_begun_again(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 20);
    w->fetch_ms = 3000;
    raft_script(w, "lead 1\n"
                   "stop 3\n"
                   "flood 1 100\n"
                   "start 3\n"
                   "run 2500\n");
    assert_int_equal(w->nodes[3].fetches, 1);
    assert_int_equal(w->sent[RAFT_FRAME_INSTALL], 1);
    raft_script(w, "flood 1 100\n"
                   "agree\n");
    world_free(w);
}

/* What makes a snapshot durable is the log's record of it. While it becomes the state, beside the loop, the
 * member acknowledges entries, and with them it may be the majority; it applies nothing. */
static void a_member_stores_and_votes_while_a_snapshot_becomes_its_state(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 20);
    w->restore_ms = UINT32_MAX; /* for ever, in this test */
    w->restore_beside = true;
    raft_script(w, "lead 1\n"
                   "stop 3\n"
                   "flood 1 100\n"
                   "start 3\n"
                   "run 2000\n"
                   "restored 3 0\n"
                   "stop 2\n"
                   "flood 1 20\n"
                   "run 1000\n"
                   "leader 1\n");
    uint64_t last = raft_core_last_index(w->nodes[1].core);
    assert_int_equal(raft_core_commit_index(w->nodes[1].core), last);
    assert_int_equal(raft_core_stored_index(w->nodes[3].core), last);
    assert_int_equal(raft_core_applied_index(w->nodes[3].core), 1);
    raft_script(w, "crash 1\n"
                   "start 2\n"
                   "run 5000\n"
                   "leader 3\n"); /* 2 lacks what 3 acknowledged */
    raft_script(w, "crash 3\n"
                   "start 3\n"
                   "restored 3 1\n"
                   "start 1\n"
                   "agree\n");
    world_free(w);
}

/* ---- disks and crashes ---- */

static void a_cluster_starts_again_from_its_disks(void **state)
{
    (void)state;
    raft_script_play(3, "lead 1\n"
                        "flood 1 100\n"
                        "crash 1\n"
                        "crash 2\n"
                        "crash 3\n"
                        "start 1\n"
                        "start 2\n"
                        "start 3\n"
                        "lead 2\n"
                        "put 2 x\n"
                        "agree\n");
}

/* A vote or an entry that is not on the disk is not spoken of. */
static void a_held_disk_acknowledges_nothing(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 8192);
    raft_script(w, "lead 1\n"
                   "agree\n");
    uint64_t commit = raft_core_commit_index(w->nodes[1].core);
    raft_script(w, "hold 2\n"
                   "hold 3\n"
                   "put 1 a\n"
                   "run 900\n");
    assert_int_equal(raft_core_commit_index(w->nodes[1].core), commit);
    assert_int_equal(raft_core_stored_index(w->nodes[1].core), commit + 1);
    assert_int_equal(raft_core_last_index(w->nodes[2].core), commit + 1);
    assert_int_equal(raft_core_stored_index(w->nodes[2].core), commit);
    raft_script(w, "crash 2\n"
                   "crash 3\n"
                   "release 2\n"
                   "release 3\n"
                   "start 2\n"
                   "start 3\n"
                   "agree\n");
    world_free(w);
}

static void a_candidate_waits_for_its_own_vote_on_disk(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 8192);
    raft_script(w, "hold 1\n"
                   "hold 2\n"
                   "hold 3\n"
                   "run 20000\n"
                   "leader none\n");
    assert_int_equal(w->sent[RAFT_FRAME_APPEND], 0);
    raft_script(w, "release 1\n"
                   "release 2\n"
                   "release 3\n"
                   "run 6000\n"
                   "agree\n");
    world_free(w);
}

/* Entries of its last life may be known to a learner and not to itself: the term must differ. */
static void a_sole_voter_starts_a_new_term(void **state)
{
    (void)state;
    struct world *w = raft_script_world(1, 8192);
    raft_script(w, "lead 1\n"
                   "join\n"
                   "learner 2\n"
                   "agree\n");
    uint64_t term = raft_core_term(w->nodes[1].core);
    raft_script(w, "hold 1\n"
                   "put 1 seen-by-the-learner-only\n"
                   "run 50\n"
                   "crash 1\n"
                   "release 1\n"
                   "start 1\n"
                   "put 1 other\n"
                   "agree\n");
    assert_true(raft_core_term(w->nodes[1].core) > term);
    world_free(w);
}

/* The second voter may not have heard of its promotion when the first one needs its vote. */
static void one_voter_becomes_two_across_a_crash(void **state)
{
    (void)state;
    raft_script_play(1, "lead 1\n"
                        "join\n"
                        "learner 2\n"
                        "agree\n"
                        "run 300\n"
                        "cut 1 2\n"
                        "voter 2\n"
                        "run 100\n"
                        "crash 1\n"
                        "heal\n"
                        "start 1\n"
                        "run 8000\n"
                        "lead 1\n"
                        "agree\n"
                        "members 2 2\n");
}

static void back_pressure_is_a_limit_not_a_failure(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 8192);
    raft_script(w, "lead 1\n"
                   "isolate 1\n");
    uint64_t index;
    size_t n = 0;
    enum err r;
    while ((r = world_submit(w, 1, slice_str("x"), &index)) == ERR_OK)
        n++;
    assert_int_equal(r, ERR_LIMIT);
    assert_true(n >= 512 && n <= 1024);
    raft_script(w, "heal\n"
                   "agree\n"
                   "put 1 y\n"
                   "isolate 1\n");
    uint8_t *big = mem_alloc(RAFT_FRAME_ENTRY_MAX + 1);
    assert_int_equal(world_submit(w, 1, slice_of(big, RAFT_FRAME_ENTRY_MAX + 1), &index),
                     ERR_LIMIT);
    n = 0;
    while ((r = world_submit(w, 1, slice_of(big, RAFT_FRAME_ENTRY_MAX), &index)) == ERR_OK)
        n++;
    assert_int_equal(r, ERR_LIMIT);
    assert_int_equal(n, 4);
    raft_script(w, "heal\n"
                   "agree\n");
    mem_free(big);
    world_free(w);
}

/* ---- frames that our own sender does not make ---- */

/* A change to n members, as an entry; the bytes go to *b. */
static struct raft_entry_view change_entry(uint64_t term, uint64_t n, struct buf *b)
{
    struct raft_membership m = {.n = n};
    for (uint64_t i = 0; i < n; i++) {
        m.servers[i] = (struct raft_server){
            .id = i + 1, .role = i < 3 ? RAFT_ROLE_VOTER : RAFT_ROLE_LEARNER};
        m.servers[i].address[0] = (char)('a' + i);
    }
    raft_membership_encode(&m, b);
    return (struct raft_entry_view){
        .term = term, .type = RAFT_ENTRY_CHANGE, .data = buf_slice(b)};
}

static void hear(struct world *w, uint64_t to, uint64_t term, uint64_t prev_index,
                 uint64_t prev_term, struct raft_entry_view *entries, size_t n)
{
    struct raft_frame f = {.type = RAFT_FRAME_APPEND, .term = term};
    f.append.prev_index = prev_index;
    f.append.prev_term = prev_term;
    f.append.entries = entries;
    f.append.n = n;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    raft_frame_encode(&f, &b);
    struct errmsg e;
    assert_int_equal(raft_core_receive(w->nodes[to].core, 1, buf_slice(&b), w->now_ms, &e),
                     ERR_OK);
}

static void the_receiver_splits_before_a_change_too(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 8192);
    raft_script(w, "lead 1\n"
                   "agree\n"
                   "isolate 3\n");
    struct raft_core *c = w->nodes[3].core;
    uint64_t last = raft_core_last_index(c);
    uint64_t term = raft_core_term(c);
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    struct raft_entry_view v[] = {
        {.term = term, .type = RAFT_ENTRY_COMMAND, .data = slice_str("x")},
        {.term = term, .type = RAFT_ENTRY_COMMAND, .data = slice_str("y")},
        change_entry(term, 4, &b)};
    hear(w, 3, term, last, term, v, ARRAY_LEN(v));
    assert_int_equal(raft_core_last_index(c), last + 3);
    assert_int_equal(raft_core_membership(c)->index, last + 3);
    assert_int_equal(raft_core_membership(c)->n, 4);
    world_free(w);
}

/* The second of two changes proves that the first is committed; when the second goes, the first stays. */
static void a_change_that_was_overtaken_is_kept(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 8192);
    raft_script(w, "lead 1\n"
                   "agree\n"
                   "isolate 3\n");
    struct raft_core *c = w->nodes[3].core;
    uint64_t last = raft_core_last_index(c);
    uint64_t term = raft_core_term(c);
    struct buf first CLEANUP(buf_close) = BUF_INIT;
    struct buf second CLEANUP(buf_close) = BUF_INIT;
    struct raft_entry_view v[] = {change_entry(term, 4, &first),
                                  change_entry(term, 5, &second)};
    hear(w, 3, term, last, term, v, ARRAY_LEN(v));
    assert_int_equal(raft_core_membership(c)->n, 5);
    struct raft_entry_view other = {
        .term = term + 1, .type = RAFT_ENTRY_COMMAND, .data = slice_str("z")};
    hear(w, 3, term + 1, last + 1, term, &other, 1);
    assert_int_equal(raft_core_membership(c)->n, 4);
    assert_int_equal(raft_core_membership(c)->index, last + 1);
    world_free(w);
}

/* The library would append them behind the end. */
static void a_late_append_below_the_trimmed_prefix_changes_nothing(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 20);
    raft_script(w, "lead 1\n"
                   "flood 1 100\n"
                   "run 1000\n"
                   "agree\n");
    struct raft_core *c = w->nodes[3].core;
    uint64_t last = raft_core_last_index(c);
    assert_true(w->nodes[3].log.first > 20);
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    struct raft_entry_view v[] = {
        change_entry(1, 3, &b),
        {.term = 1, .type = RAFT_ENTRY_COMMAND, .data = slice_str("x")},
        {.term = 1, .type = RAFT_ENTRY_COMMAND, .data = slice_str("y")}};
    hear(w, 3, raft_core_term(c), 0, 0, v, ARRAY_LEN(v));
    assert_int_equal(raft_core_last_index(c), last);
    assert_int_equal(raft_core_stored_index(c), last);
    raft_script(w, "put 1 z\n"
                   "agree\n");
    world_free(w);
}

/* Else 2 would refuse the log of 1, which has forgotten the demotion, and not be a candidate itself. */
static void a_demotion_that_the_leader_can_forget_is_not_sent(void **state)
{
    (void)state;
    struct world *w = raft_script_world(2, 8192);
    raft_script(w, "lead 1\n"
                   "agree\n"
                   "hold 1\n"
                   "learner 2\n"
                   "run 300\n"
                   "crash 1\n"
                   "release 1\n"
                   "start 1\n"
                   "agree\n");
    world_free(w);
}

/* The library would never send this member an entry again. */
static void a_late_rejection_does_not_stop_replication(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 8192);
    raft_script(w, "lead 1\n"
                   "flood 1 10\n"
                   "run 10\n" /* acknowledged, and the follower has not heard of the commit */
                   "isolate 3\n"
                   "run 3000\n");
    struct raft_core *c = w->nodes[1].core;
    uint64_t match = raft_core_match_index(c, 3);
    assert_true(match > 1);
    struct raft_frame f = {.type = RAFT_FRAME_APPEND_RESULT, .term = raft_core_term(c)};
    f.append_result.rejected = match;
    f.append_result.last_index = match - 1;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    raft_frame_encode(&f, &b);
    struct errmsg e;
    assert_int_equal(raft_core_receive(c, 3, buf_slice(&b), w->now_ms, &e), ERR_OK);
    raft_script(w, "put 1 x\n"
                   "heal\n"
                   "agree\n");
    world_free(w);
}

static void a_leader_of_our_own_term_is_not_believed(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 8192);
    raft_script(w, "lead 1\n"
                   "agree\n");
    struct raft_frame f = {.type = RAFT_FRAME_APPEND, .term = raft_core_term(w->nodes[1].core)};
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    raft_frame_encode(&f, &b);
    struct errmsg e;
    assert_int_equal(raft_core_receive(w->nodes[1].core, 2, buf_slice(&b), w->now_ms, &e),
                     ERR_INVALID);
    assert_int_equal(raft_core_receive(w->nodes[1].core, 1, buf_slice(&b), w->now_ms, &e),
                     ERR_INVALID);
    raft_script(w, "run 2000\n"
                   "leader 1\n");
    world_free(w);
}

static void a_member_that_contradicts_what_is_committed_is_named(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 8192);
    raft_script(w, "lead 1\n"
                   "put 1 a\n"
                   "agree\n"
                   "isolate 3\n");
    struct raft_core *c = w->nodes[3].core;
    struct raft_entry_view other = {
        .term = raft_core_term(c) + 1, .type = RAFT_ENTRY_COMMAND, .data = slice_str("z")};
    struct raft_frame f = {.type = RAFT_FRAME_APPEND, .term = raft_core_term(c) + 1};
    f.append.prev_index = 1;
    f.append.prev_term = 1;
    f.append.entries = &other;
    f.append.n = 1;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    raft_frame_encode(&f, &b);
    struct errmsg e;
    assert_int_equal(raft_core_receive(c, 2, buf_slice(&b), w->now_ms, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.text, "one of the two has lost data"));
    world_free(w);
}

static size_t frames_too_big;
static size_t changes_not_first;

static bool look(struct world *w, uint64_t from, uint64_t to, struct slice frame)
{
    (void)w;
    (void)from;
    (void)to;
    struct raft_frame f;
    assert_int_equal(raft_frame_decode(frame, &f, NULL), ERR_OK);
    if (f.type == RAFT_FRAME_APPEND) {
        frames_too_big += f.append.n > 1 && frame.n > RAFT_FRAME_SOFT_MAX;
        for (size_t i = 1; i < f.append.n; i++)
            changes_not_first += f.append.entries[i].type == RAFT_ENTRY_CHANGE;
    }
    raft_frame_close(&f);
    return false;
}

static void a_catch_up_comes_in_frames_of_bounded_size(void **state)
{
    (void)state;
    struct world *w = raft_script_world(3, 8192);
    w->drop = look;
    frames_too_big = changes_not_first = 0;
    raft_script(w, "lead 1\n"
                   "stop 3\n");
    uint8_t *big = mem_alloc(300 * 1024);
    for (int i = 0; i < 20; i++) {
        uint64_t index;
        assert_int_equal(world_submit(w, 1, slice_of(big, 300 * 1024), &index), ERR_OK);
        world_run(w, 50);
    }
    mem_free(big);
    raft_script(w, "put 1 x\n"
                   "learner 4\n"
                   "run 50\n"
                   "start 3\n"
                   "agree\n");
    assert_int_equal(frames_too_big, 0);
    assert_int_equal(changes_not_first, 0);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_elect_and_replicate),
        cmocka_unit_test(a_lost_leader_is_replaced_and_returns_as_a_follower),
        cmocka_unit_test(a_tail_that_was_never_committed_is_replaced),
        cmocka_unit_test(a_leader_without_a_majority_steps_down),
        cmocka_unit_test(an_isolated_member_does_not_disturb_when_it_returns),
        cmocka_unit_test(a_member_is_added_promoted_and_removed),
        cmocka_unit_test(one_change_at_a_time),
        cmocka_unit_test(a_change_that_was_not_committed_is_rolled_back),
        cmocka_unit_test(a_change_behind_other_entries_keeps_its_index),
        cmocka_unit_test(two_changes_in_one_catch_up_are_both_known),
        cmocka_unit_test(leadership_is_handed_over_without_an_election_timeout),
        cmocka_unit_test(a_commit_is_known_to_all_at_once),
        cmocka_unit_test(a_commit_travels_with_the_entries_behind_it),
        cmocka_unit_test(a_member_far_behind_gets_a_snapshot),
        cmocka_unit_test(a_log_that_grows_slowly_is_cut_after_a_while),
        cmocka_unit_test(a_large_state_is_copied_less_often),
        cmocka_unit_test(a_slow_transfer_is_not_begun_again),
        cmocka_unit_test(a_member_stores_and_votes_while_a_snapshot_becomes_its_state),
        cmocka_unit_test(a_cluster_starts_again_from_its_disks),
        cmocka_unit_test(a_held_disk_acknowledges_nothing),
        cmocka_unit_test(a_candidate_waits_for_its_own_vote_on_disk),
        cmocka_unit_test(a_sole_voter_starts_a_new_term),
        cmocka_unit_test(one_voter_becomes_two_across_a_crash),
        cmocka_unit_test(back_pressure_is_a_limit_not_a_failure),
        cmocka_unit_test(the_receiver_splits_before_a_change_too),
        cmocka_unit_test(a_change_that_was_overtaken_is_kept),
        cmocka_unit_test(a_late_append_below_the_trimmed_prefix_changes_nothing),
        cmocka_unit_test(a_demotion_that_the_leader_can_forget_is_not_sent),
        cmocka_unit_test(a_late_rejection_does_not_stop_replication),
        cmocka_unit_test(a_leader_of_our_own_term_is_not_believed),
        cmocka_unit_test(a_member_that_contradicts_what_is_committed_is_named),
        cmocka_unit_test(a_catch_up_comes_in_frames_of_bounded_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
