/* The rule of synchronous replication, exhaustively: from every safe state to every target. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "agent/core/rules.h"
#include "agent/core/syncrep.h"
#include "base/rng.h"

enum { STANDBYS = 4, ALL = 1 << STANDBYS, MANY = 24, STEPS = 12 };

static unsigned standbys = STANDBYS; /* that there are: i0, i1, ... one character each */

/* The same as bits, so that the checks share nothing with the code. */
struct bits {
    unsigned k, s;
};

static unsigned ones(unsigned x)
{
    return (unsigned)__builtin_popcount(x);
}

static bool rule(struct bits set, unsigned v, unsigned q)
{
    return v == 0 || set.k + q > ones(set.s | v);
}

static size_t names_of(unsigned bits, char names[][64])
{
    size_t n = 0;
    for (unsigned i = 0; i < standbys; i++)
        if (bits >> i & 1)
            (void)snprintf(names[n++], 64, "i%c", '0' + (int)i);
    return n;
}

static unsigned bits_of(const char names[][64], size_t n)
{
    unsigned bits = 0;
    for (size_t i = 0; i < n; i++)
        if (names[i][0] == 'i')
            bits |= 1U << (names[i][1] - '0');
        else
            bits |= 1U << 31; /* nobody */
    return bits;
}

static struct bits set_bits(const struct sync_set *s)
{
    return (struct bits){(unsigned)s->k, bits_of((const char(*)[64])s->s, s->s_n)};
}

static struct view v;

static void stream(unsigned streaming)
{
    v.pg.senders_n = 0;
    for (unsigned i = 0; i < standbys; i++) {
        if (!(streaming >> i & 1))
            continue;
        struct view_walsender *w = &v.pg.senders[v.pg.senders_n++];
        (void)snprintf(w->incarnation, sizeof w->incarnation, "i%c", '0' + (int)i);
        w->streaming = true;
    }
}

static void start(enum sync_mode mode, struct bits set, unsigned rec, unsigned q)
{
    (void)memset(&v, 0, sizeof v);
    (void)memcpy(v.self, "self", 5);
    v.has_sync = true;
    v.config.sync_mode = mode;
    (void)snprintf(v.sync.mode, sizeof v.sync.mode, "%s", mode == SYNC_ON ? "on" : "quorum");
    v.sync.q = q;
    v.sync.v_n = names_of(rec, v.sync.v);
    v.pg.set.k = set.k;
    v.pg.set.s_n = names_of(set.s, v.pg.set.s);
    v.pg.set_known = v.pg.set_confirmed = true;
    for (unsigned i = 0; i < standbys; i++) {
        struct member_rec *m = &v.members[v.members_n++];
        (void)snprintf(m->name, sizeof m->name, "n%c", '0' + (int)i);
        (void)snprintf(m->incarnation, sizeof m->incarnation, "i%c", '0' + (int)i);
        (void)snprintf(m->state, sizeof m->state, "running");
    }
}

static void fail_at(const char *what)
{
    fail_msg("%s: mode %d strict %d count %llu | set k %llu S %x confirmed %d old %zu | V %x q "
             "%llu | streaming %zu",
             what, (int)v.config.sync_mode, v.config.sync_strict,
             (unsigned long long)v.config.sync_node_count, (unsigned long long)v.pg.set.k,
             set_bits(&v.pg.set).s, v.pg.set_confirmed, v.pg.old_n,
             bits_of((const char(*)[64])v.sync.v, v.sync.v_n), (unsigned long long)v.sync.q,
             v.pg.senders_n);
}

static unsigned streaming_bits(void)
{
    unsigned bits = 0;
    for (size_t i = 0; i < v.pg.senders_n; i++)
        bits |= 1U << (v.pg.senders[i].incarnation[1] - '0');
    return bits;
}

static bool may_confirm(void)
{
    return ones(set_bits(&v.pg.set).s & streaming_bits()) >= v.pg.set.k;
}

static void check_rule(const char *what)
{
    unsigned rec = bits_of((const char(*)[64])v.sync.v, v.sync.v_n);
    bool ok = rule(set_bits(&v.pg.set), rec, (unsigned)v.sync.q);
    for (size_t i = 0; i < v.pg.old_n; i++)
        ok = ok && rule(set_bits(&v.pg.old[i]), rec, (unsigned)v.sync.q);
    if (v.config.sync_mode == SYNC_ON && (rec & ~set_bits(&v.pg.set).s) != 0)
        ok = false;
    if (!ok)
        fail_at(what);
}

static void do_set(const struct plan *p)
{
    if (v.pg.old_n == VIEW_SETS)
        fail_at("too many sets");
    v.pg.old[v.pg.old_n++] = v.pg.set;
    v.pg.set = p->set;
    v.pg.set_known = true;
    v.pg.set_confirmed = false;
    check_rule("the new set breaks the rule");
}

static void confirm(void)
{
    v.pg.set_confirmed = true;
    v.pg.old_n = 0;
}

/* One step of the code and what it causes. False: nothing left to do. */
static bool step(void)
{
    struct plan p = {0};
    bool wait = false;
    struct sync_rec before = v.sync;
    bool acts = syncrep_step(&v, &p, &wait);
    if (acts && p.txn == TXN_SYNC) {
        unsigned old = bits_of((const char(*)[64])before.v, before.v_n);
        unsigned new = bits_of((const char(*)[64])p.sync.v, p.sync.v_n);
        v.sync = p.sync;
        if ((new & ~old) != 0 && !v.pg.set_confirmed)
            fail_at("recorded before it was confirmed");
        check_rule("the new record breaks the rule");
    } else if (acts) {
        do_set(&p);
    } else if (wait) {
        if (!may_confirm())
            fail_at("waits for a confirmation that cannot come");
        confirm();
    }
    return acts || wait;
}

static void check_reached(void)
{
    unsigned streaming = streaming_bits();
    unsigned rec = bits_of((const char(*)[64])v.sync.v, v.sync.v_n);
    uint64_t count = v.config.sync_node_count;
    uint64_t want = v.config.sync_mode == SYNC_ON ? MIN(count, ones(streaming))
                                                  : MIN(SYNC_MAX, ones(streaming));
    if (streaming != 0 && (ones(rec) != want || (rec & ~streaming) != 0))
        fail_at("not what was wanted");
    if (streaming == 0 && v.config.sync_strict != (v.pg.set.k > 0))
        fail_at("nobody streams: strict keeps a set, else none");
}

static void go(void)
{
    for (int i = 0; i < STEPS; i++)
        if (!step()) {
            check_reached();
            return;
        }
    fail_at("does not end");
}

static void from_one_state(enum sync_mode mode, struct bits set, unsigned rec, unsigned q)
{
    for (unsigned streaming = 0; streaming < ALL; streaming++)
        for (unsigned count = 1; count <= 3; count++)
            for (unsigned kind = 0; kind < 4; kind++) {
                start(mode, set, rec, q);
                v.config.sync_strict = kind & 1;
                v.config.sync_node_count = count;
                v.pg.set_known = v.pg.set_confirmed = !(kind & 2); /* adopted */
                stream(streaming);
                go();
            }
}

static size_t for_every_safe_state(enum sync_mode mode)
{
    size_t n = 0;
    for (unsigned s = 0; s < ALL; s++)
        for (unsigned k = 0; k <= ones(s); k++)
            for (unsigned rec = 0; rec < ALL; rec++)
                for (unsigned q = 1; q <= MAX(ones(rec), 1U); q++) {
                    bool on_shape = k == ones(s) && q == 1 && (rec & ~s) == 0;
                    if ((k == 0) != (s == 0) || !rule((struct bits){k, s}, rec, q) ||
                        (mode == SYNC_ON && !on_shape))
                        continue;
                    from_one_state(mode, (struct bits){k, s}, rec, q);
                    n++;
                }
    return n;
}

static void every_way_is_safe_and_ends_in_mode_on(void **state)
{
    (void)state;
    assert_int_equal(for_every_safe_state(SYNC_ON), 81); /* pairs V within S */
}

static void every_way_is_safe_and_ends_in_mode_quorum(void **state)
{
    (void)state;
    assert_int_equal(for_every_safe_state(SYNC_QUORUM), 385);
}

/* More standbys than a record has names for. Those who stay keep the record: it is empty on the way only when fewer of
 * it are left than commits wait for. */
static void more_standbys_than_a_record_has_room_for(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 5);
    standbys = MANY;
    for (int run = 0; run < 300; run++) {
        start(SYNC_QUORUM, (struct bits){0, 0}, 0, 1);
        v.config.sync_strict = run & 1;
        unsigned streaming = (1U << MANY) - 1;
        for (int change = 0; change < 8; change++) {
            v.config.sync_node_count = 1 + rng_below(&r, 3);
            stream(streaming);
            unsigned rec = bits_of((const char(*)[64])v.sync.v, v.sync.v_n);
            bool keeps = ones(rec & streaming) >= v.config.sync_node_count && may_confirm();
            for (int i = 0; step(); i++) {
                if (i == STEPS)
                    fail_at("does not end");
                if (keeps && v.sync.v_n == 0)
                    fail_at("the record is given up on the way");
            }
            check_reached();
            for (uint64_t n = rng_below(&r, change % 3 == 0 ? MANY : 4); n > 0; n--)
                streaming ^= 1U << rng_below(&r, MANY);
        }
    }
    standbys = STANDBYS;
}

/* Members whose agents have died, and nobody streams: an election among those who come back stays possible. Only who
 * must be rewound leaves all the same. */
static void strict_v_is_never_smaller_than_q(unsigned rec, unsigned q, unsigned dead,
                                             unsigned stopped)
{
    start(SYNC_QUORUM, (struct bits){ones(rec) - q + 1, rec}, rec, q);
    v.config.sync_strict = true;
    v.config.sync_node_count = ones(rec) - q + 1;
    stream(0);
    v.members_n = 0;
    for (unsigned i = 0; i < STANDBYS; i++) {
        if (dead >> i & 1)
            continue;
        struct member_rec *m = &v.members[v.members_n++];
        (void)memset(m, 0, sizeof *m);
        (void)snprintf(m->name, sizeof m->name, "n%u", i);
        (void)snprintf(m->incarnation, sizeof m->incarnation, "i%u", i);
        (void)snprintf(m->state, sizeof m->state, stopped >> i & 1 ? "stopped" : "running");
    }
    for (int i = 0; i < STEPS; i++)
        if (!step())
            break;
    unsigned left = bits_of((const char(*)[64])v.sync.v, v.sync.v_n);
    if (v.sync.q != (left != 0 ? q : 1))
        fail_at("other than q seals");
    if ((left & stopped & ~dead) != 0)
        fail_at("who must be rewound is counted on");
    if (ones(rec & ~(stopped & ~dead)) >= q && ones(left) < q)
        fail_at("nobody can be elected");
}

static void strict_an_election_stays_possible(void **state)
{
    (void)state;
    for (unsigned rec = 1; rec < ALL; rec++)
        for (unsigned q = 1; q <= ones(rec); q++)
            for (unsigned dead = 0; dead < ALL; dead++)
                for (unsigned stopped = 0; stopped < ALL; stopped++)
                    strict_v_is_never_smaller_than_q(rec, q, dead, stopped);
}

/* Standbys come and go between the steps, confirmations come when they like, the mode changes. */
static void a_target_that_moves_never_breaks_the_rule(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 3);
    for (int run = 0; run < 4000; run++) {
        enum sync_mode mode = rng_below(&r, 2) == 0 ? SYNC_ON : SYNC_QUORUM;
        start(mode, (struct bits){0, 0}, 0, 1);
        for (int i = 0; i < 40; i++) {
            if (rng_below(&r, 3) == 0)
                stream((unsigned)rng_below(&r, ALL));
            if (rng_below(&r, 20) == 0)
                v.config.sync_mode = rng_below(&r, 2) == 0 ? SYNC_ON : SYNC_QUORUM;
            v.config.sync_node_count = 1 + rng_below(&r, 3);
            v.config.sync_strict = rng_below(&r, 2) == 0;
            if (rng_below(&r, 2) == 0 && may_confirm())
                confirm();
            struct plan p = {0};
            bool wait = false;
            if (v.pg.old_n == VIEW_SETS)
                break; /* no room to remember more */
            if (!syncrep_step(&v, &p, &wait))
                continue;
            if (p.action == ACTION_SET_SYNC)
                do_set(&p);
            else
                v.sync = p.sync;
            if (v.config.sync_mode == SYNC_QUORUM || strcmp(v.sync.mode, "on") == 0)
                check_rule("the rule is broken");
        }
    }
}

static void the_text_of_a_set(void **state)
{
    (void)state;
    char text[64];
    struct sync_set s = {.k = 2, .s = {"a", "b", "c"}, .s_n = 3};
    assert_int_equal(syncrep_names(&s, SYNC_ON, text, sizeof text), ERR_OK);
    assert_string_equal(text, "FIRST 2 (\"a\",\"b\",\"c\")");
    assert_int_equal(syncrep_names(&s, SYNC_QUORUM, text, sizeof text), ERR_OK);
    assert_string_equal(text, "ANY 2 (\"a\",\"b\",\"c\")");
    for (size_t size = 1; size < sizeof "ANY 2 (\"a\",\"b\",\"c\")"; size++)
        assert_int_equal(syncrep_names(&s, SYNC_QUORUM, text, size), ERR_LIMIT);
    (void)memcpy(s.s[1], "x\"y", 4);
    assert_int_equal(syncrep_names(&s, SYNC_ON, text, sizeof text), ERR_INVALID);
    s.k = 0;
    assert_int_equal(syncrep_names(&s, SYNC_ON, text, sizeof text), ERR_OK);
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_way_is_safe_and_ends_in_mode_on),
        cmocka_unit_test(every_way_is_safe_and_ends_in_mode_quorum),
        cmocka_unit_test(more_standbys_than_a_record_has_room_for),
        cmocka_unit_test(strict_an_election_stays_possible),
        cmocka_unit_test(a_target_that_moves_never_breaks_the_rule),
        cmocka_unit_test(the_text_of_a_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
