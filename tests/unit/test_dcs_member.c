/* dcs/member: admission, promotion in pairs, odd numbers, safe removal. A cluster is written as text:
 * one word a member, the first is the leader.
 *     V voter, L learner, - absent from Raft; then flags: j joining, p presented, d not heard of,
 *     w does not want a vote, b lags behind, z stored nothing yet
 * A number in front is the target, 7 without it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "dcs/member.h"

enum { LAST_INDEX = 1000 };

static struct member_cluster cluster(const char *text)
{
    struct member_cluster c = {
        .self = 1, .last_index = LAST_INDEX, .voters_max = PROTO_VOTERS_MAX};
    const char *p = text;
    if (*p >= '3' && *p <= '7') {
        c.voters_max = (uint64_t)(*p - '0');
        p += 2;
    }
    while (*p != '\0') {
        struct member_view *m = &c.m[c.n++];
        m->id = c.n;
        m->raft = *p == 'V' ? MEMBER_VOTER : *p == 'L' ? MEMBER_LEARNER : MEMBER_ABSENT;
        m->state = MEMBER_ACTIVE;
        m->wants_vote = true;
        m->heard = m->raft != MEMBER_ABSENT;
        m->match_index = m->raft != MEMBER_ABSENT ? LAST_INDEX - MEMBER_CAUGHT_UP_ENTRIES : 0;
        for (p++; *p != '\0' && *p != ' '; p++) {
            m->state = *p == 'j' ? MEMBER_JOINING : m->state;
            m->presented = m->presented || *p == 'p';
            m->heard = m->heard && *p != 'd';
            m->wants_vote = m->wants_vote && *p != 'w';
            m->match_index -= *p == 'b';
            m->match_index = *p == 'z' ? 0 : m->match_index;
        }
        p += *p == ' ';
    }
    return c;
}

static const struct row {
    const char *what;
    const char *cluster;
    bool pending;
    uint64_t even_ms;
    enum member_action action;
    uint64_t id;
} rows[] = {
    {"nothing to do with one", "V", false, 0, MEMBER_NOTHING, 0},
    {"a registered node that has not been started waits", "V -j", false, 0, MEMBER_NOTHING, 0},
    {"one that presents itself is added", "V -jp", false, 0, MEMBER_ADD, 2},
    {"but not while another change is under way", "V -jp", true, 0, MEMBER_NOTHING, 0},
    {"it is not active before it has stored something", "V Ljpz", false, 0, MEMBER_NOTHING, 0},
    {"then it is", "V Ljp", false, 0, MEMBER_ACTIVATE, 2},
    {"activation needs no room in the log of changes", "V Ljp", true, 0, MEMBER_ACTIVATE, 2},
    {"the second voter waits for the third", "V L", false, 0, MEMBER_NOTHING, 0},
    {"both ready: the first of them", "V L L", false, 0, MEMBER_PROMOTE, 2},
    {"and the next at once", "V V L", false, 0, MEMBER_PROMOTE, 3},
    {"one lags: neither", "V L Lb", false, 0, MEMBER_NOTHING, 0},
    {"one is silent: neither", "V L Ld", false, 0, MEMBER_NOTHING, 0},
    {"a learner by choice is no voter", "V L Lw", false, 0, MEMBER_NOTHING, 0},
    {"a fourth node stays a learner", "V V V L", false, 0, MEMBER_NOTHING, 0},
    {"a fifth makes five", "V V V L L", false, 0, MEMBER_PROMOTE, 4},
    {"never more than seven", "V V V V V V V L L", false, 0, MEMBER_NOTHING, 0},
    {"an even number is borne for a while", "V V", false, MEMBER_EVEN_PATIENCE_MS - 1,
     MEMBER_NOTHING, 0},
    {"then one voter less", "V V", false, MEMBER_EVEN_PATIENCE_MS, MEMBER_DEMOTE, 2},
    {"the silent one first", "V Vd V V", false, MEMBER_EVEN_PATIENCE_MS, MEMBER_DEMOTE, 2},
    {"never the leader", "V Vw", false, MEMBER_EVEN_PATIENCE_MS, MEMBER_DEMOTE, 2},
    {"a ready learner is better than a demotion", "V V V V L", false, MEMBER_EVEN_PATIENCE_MS,
     MEMBER_PROMOTE, 5},
    {"who is to be no voter becomes none", "V V Vw", false, 0, MEMBER_DEMOTE, 3},
    {"not the leader", "Vw V V", false, 0, MEMBER_NOTHING, 0},
    {"not when the quorum hangs on it", "V Vd Vw", false, 0, MEMBER_NOTHING, 0},
    {"not during another change", "V V Vw", true, 0, MEMBER_NOTHING, 0},
    {"no demotion during another change", "V V", true, MEMBER_EVEN_PATIENCE_MS, MEMBER_NOTHING,
     0},
    {"a fifth stays a learner when three are wanted", "3 V V V L L", false, 0, MEMBER_NOTHING,
     0},
    {"and takes the place of one that goes", "3 V V L L", false, 0, MEMBER_PROMOTE, 3},
    {"two too many: the newest goes first", "3 V V V V V", false, 0, MEMBER_DEMOTE, 5},
    {"then the next, at once", "3 V V V V L", false, 0, MEMBER_DEMOTE, 4},
    {"one that is silent goes first", "3 V Vd V V V", false, 0, MEMBER_DEMOTE, 2},
    {"not when the quorum hangs on it", "3 V Vd Vd Vd V", false, 0, MEMBER_NOTHING, 0},
    {"not during another change", "3 V V V V V", true, 0, MEMBER_NOTHING, 0},
    {"seven to five", "5 V V V V V V V", false, 0, MEMBER_DEMOTE, 7},
    {"a target that is not reached is no reason to demote", "5 V V V", false, 0, MEMBER_NOTHING,
     0},
};

static void test_decisions(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct member_cluster c = cluster(rows[i].cluster);
        c.change_pending = rows[i].pending;
        c.even_ms = rows[i].even_ms;
        struct member_plan p = member_decide(&c);
        if (p.action != rows[i].action || p.id != rows[i].id) {
            fail_msg("%s (%s): action %d of member %d", rows[i].what, rows[i].cluster,
                     (int)p.action, (int)p.id);
        }
    }
}

static const struct {
    const char *what;
    const char *cluster;
    uint64_t id;
    bool force, allowed;
} removals[] = {
    {"a learner may always go", "V L", 2, false, true},
    {"one of three, all live", "V V V", 3, false, true},
    {"the one that is down", "V V Vd", 3, false, true},
    {"not a live one while another is down", "V V Vd", 2, false, false},
    {"unless forced", "V V Vd", 2, true, true},
    {"two of five down: a live one may not go", "V V V Vd Vd", 2, false, false},
    {"one of them may", "V V V Vd Vd", 5, false, true},
    {"never the only voter, not even forced", "V L", 1, true, false},
};

static void test_removals(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(removals); i++) {
        struct member_cluster c = cluster(removals[i].cluster);
        struct errmsg e = {.text = ""};
        enum err err = member_removable(&c, removals[i].id, removals[i].force, &e);
        if ((err == ERR_OK) != removals[i].allowed) {
            fail_msg("%s: %s", removals[i].what, err_name(err));
        }
        assert_true(err == ERR_OK ||
                    (err == ERR_PRECONDITION && strstr(e.text, "quorum") != NULL));
    }
}

/* Whatever happens, following the decisions never rests at an even number while nodes are well. */
static void test_growing_to_any_size_ends_odd(void **state)
{
    (void)state;
    for (size_t n = 1; n <= 9; n++) {
        struct member_cluster c = cluster("V");
        c.n = n;
        for (size_t i = 1; i < n; i++) {
            c.m[i] = c.m[0];
            c.m[i].id = i + 1;
            c.m[i].raft = MEMBER_LEARNER;
        }
        struct member_plan p;
        while ((p = member_decide(&c)).action != MEMBER_NOTHING) {
            assert_int_equal(p.action, MEMBER_PROMOTE);
            c.m[p.id - 1].raft = MEMBER_VOTER;
        }
        size_t want = n >= 7 ? 7 : n % 2 == 0 ? n - 1 : n;
        assert_int_equal(member_voters(&c), want);
        assert_true(member_settled(&c));
    }
}

/* From any number of voters to any target, with all nodes well: it is reached and then it rests. */
static void test_any_target_is_reached_from_any_other(void **state)
{
    (void)state;
    for (uint64_t from = 3; from <= 7; from += 2) {
        for (uint64_t to = 3; to <= 7; to += 2) {
            struct member_cluster c = cluster("V V V V V V V L");
            struct member_plan p;
            for (size_t i = from; i < 7; i++) {
                c.m[i].raft = MEMBER_LEARNER;
            }
            c.voters_max = to;
            for (int steps = 0; (p = member_decide(&c)).action != MEMBER_NOTHING; steps++) {
                assert_true(steps < 8 && p.id != c.self);
                assert_int_equal(p.action, from < to ? MEMBER_PROMOTE : MEMBER_DEMOTE);
                c.m[p.id - 1].raft = p.action == MEMBER_PROMOTE ? MEMBER_VOTER : MEMBER_LEARNER;
                c.even_ms = member_voters(&c) % 2 == 0 ? MEMBER_EVEN_PATIENCE_MS : 0;
            }
            assert_int_equal(member_voters(&c), to);
            assert_true(member_settled(&c));
        }
    }
}

/* The cluster's version follows the lowest program of those who take part, when all are linked. */
static void test_the_version_rises_with_the_last_member(void **state)
{
    (void)state;
    static const struct {
        const char *what, *cluster;
        uint64_t versions[4], now, want;
        bool pending;
    } raises[] = {
        {"all know the next", "V V V", {2, 2, 2}, 1, 2, false},
        {"one does not", "V V V", {2, 1, 2}, 1, 0, false},
        {"the leader does not", "V V V", {1, 1, 1}, 1, 0, false},
        {"one is not linked", "V V V", {2, 0, 2}, 1, 0, false},
        {"a learner counts", "V V V Lw", {2, 2, 2, 1}, 1, 0, false},
        {"who has not been let in yet is refused later", "V V V -j", {2, 2, 2, 0}, 1, 2, false},
        {"two at once, as far as all know", "V V V", {4, 3, 4}, 1, 3, false},
        {"never back", "V V V", {2, 2, 2}, 3, 0, false},
        {"not while somebody may be on his way in", "V V V", {2, 2, 2}, 1, 0, true},
        {"alone", "V", {2}, 1, 2, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(raises); i++) {
        struct member_cluster c = cluster(raises[i].cluster);
        c.version = raises[i].now;
        c.change_pending = raises[i].pending;
        for (size_t k = 0; k < c.n; k++) {
            c.m[k].version = raises[i].versions[k];
        }
        struct member_plan p = member_decide(&c);
        if ((p.action == MEMBER_RAISE) != (raises[i].want != 0) ||
            p.version != raises[i].want) {
            fail_msg("%s: action %d, version %d", raises[i].what, (int)p.action,
                     (int)p.version);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decisions),
        cmocka_unit_test(test_removals),
        cmocka_unit_test(test_growing_to_any_size_ends_odd),
        cmocka_unit_test(test_any_target_is_reached_from_any_other),
        cmocka_unit_test(test_the_version_rises_with_the_last_member),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
