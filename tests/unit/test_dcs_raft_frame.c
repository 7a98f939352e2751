#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "dcs/raft_frame.h"
#include "dcs/raft_lib.h"
#include "dcs/raft_membership.h"

static struct raft_membership three(void)
{
    return (struct raft_membership){
        .index = 7,
        .n = 3,
        .servers = {{.id = 1, .role = RAFT_ROLE_VOTER, .address = "a:1"},
                    {.id = 5, .role = RAFT_ROLE_LEARNER, .address = "b:2"},
                    {.id = 9, .role = RAFT_ROLE_SPARE, .address = "[::1]:3"}}};
}

static void encode_append(struct buf *b)
{
    struct raft_membership m = three();
    struct buf change CLEANUP(buf_close) = BUF_INIT;
    raft_membership_encode(&m, &change);
    struct raft_entry_view v[] = {
        {.term = 3, .type = RAFT_ENTRY_CHANGE, .data = buf_slice(&change)},
        {.term = 3, .type = RAFT_ENTRY_COMMAND, .data = slice_str("hello")},
        {.term = 4, .type = RAFT_ENTRY_COMMAND, .data = slice_str("")},
        {.term = 4, .type = RAFT_ENTRY_BARRIER, .data = slice_of("\0\0\0\0\0\0\0\0", 8)},
    };
    struct raft_frame f = {.type = RAFT_FRAME_APPEND, .term = 4};
    f.append.prev_index = 10;
    f.append.prev_term = 2;
    f.append.commit = 9;
    f.append.entries = v;
    f.append.n = ARRAY_LEN(v);
    raft_frame_encode(&f, b);
}

static void encode_install(struct buf *b)
{
    struct raft_frame f = {.type = RAFT_FRAME_INSTALL, .term = 4};
    f.install = (struct raft_snapshot_info){
        .index = 100, .term = 4, .size = 12345, .membership = three(), .sha256 = {1, 2, 3}};
    raft_frame_encode(&f, b);
}

static void an_append_survives_the_wire(void **state)
{
    (void)state;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    encode_append(&b);
    struct raft_frame f;
    assert_int_equal(raft_frame_decode(buf_slice(&b), &f, NULL), ERR_OK);
    assert_int_equal(f.type, RAFT_FRAME_APPEND);
    assert_int_equal(f.term, 4);
    assert_int_equal(f.append.prev_index, 10);
    assert_int_equal(f.append.prev_term, 2);
    assert_int_equal(f.append.commit, 9);
    assert_int_equal(f.append.n, 4);
    assert_true(slice_eq(f.append.entries[1].data, slice_str("hello")));
    assert_int_equal(f.append.entries[3].type, RAFT_ENTRY_BARRIER);
    raft_frame_close(&f);
}

static void an_install_survives_the_wire(void **state)
{
    (void)state;
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    encode_install(&b);
    struct raft_frame f;
    assert_int_equal(raft_frame_decode(buf_slice(&b), &f, NULL), ERR_OK);
    struct raft_membership m = three();
    assert_int_equal(f.install.index, 100);
    assert_int_equal(f.install.size, 12345);
    assert_int_equal(f.install.sha256[2], 3);
    assert_int_equal(f.install.membership.index, 7);
    assert_true(raft_membership_same(&f.install.membership, &m));
    raft_frame_close(&f);
}

static void small_messages_survive_the_wire(void **state)
{
    (void)state;
    struct raft_frame in[] = {
        {.type = RAFT_FRAME_APPEND_RESULT,
         .term = 2,
         .append_result = {.rejected = 5, .last_index = 4}},
        {.type = RAFT_FRAME_VOTE,
         .term = 2,
         .vote = {.last_index = 5, .last_term = 1, .disrupt_leader = true, .pre_vote = false}},
        {.type = RAFT_FRAME_VOTE_RESULT,
         .term = 2,
         .vote_result = {.granted = true, .pre_vote = true}},
        {.type = RAFT_FRAME_TIMEOUT_NOW,
         .term = 2,
         .timeout_now = {.last_index = 5, .last_term = 2}},
    };
    for (size_t i = 0; i < ARRAY_LEN(in); i++) {
        struct buf b CLEANUP(buf_close) = BUF_INIT;
        struct raft_frame out;
        raft_frame_encode(&in[i], &b);
        assert_int_equal(raft_frame_decode(buf_slice(&b), &out, NULL), ERR_OK);
        struct buf again CLEANUP(buf_close) = BUF_INIT;
        raft_frame_encode(&out, &again);
        assert_true(slice_eq(buf_slice(&b), buf_slice(&again)));
        raft_frame_close(&out);
    }
}

static void every_shortened_frame_is_refused(void **state)
{
    (void)state;
    void (*const make[])(struct buf *) = {encode_append, encode_install};
    for (size_t k = 0; k < ARRAY_LEN(make); k++) {
        struct buf b CLEANUP(buf_close) = BUF_INIT;
        make[k](&b);
        for (size_t n = 0; n < b.len; n++) {
            uint8_t *exact = mem_dup(b.p, n);
            struct raft_frame f;
            assert_int_equal(raft_frame_decode(slice_of(exact, n), &f, NULL), ERR_INVALID);
            raft_frame_close(&f);
            mem_free(exact);
        }
        buf_append_u8(&b, 0);
        struct raft_frame f;
        assert_int_equal(raft_frame_decode(buf_slice(&b), &f, NULL), ERR_INVALID);
    }
}

static void random_damage_never_crashes(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 1);
    for (int i = 0; i < 20000; i++) {
        struct buf b CLEANUP(buf_close) = BUF_INIT;
        (i % 2 == 0 ? encode_append : encode_install)(&b);
        for (uint64_t k = 1 + rng_below(&r, 3); k > 0; k--)
            b.p[rng_below(&r, b.len)] = (uint8_t)rng_u64(&r);
        struct raft_frame f;
        if (raft_frame_decode(buf_slice(&b), &f, NULL) == ERR_OK && f.type == RAFT_FRAME_APPEND)
            assert_true(f.append.n <= RAFT_FRAME_ENTRIES_MAX);
        raft_frame_close(&f);
    }
}

static enum err decode_with(uint64_t prev_index, uint64_t prev_term, uint64_t entry_term,
                            uint64_t term)
{
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    struct raft_entry_view v = {.term = entry_term, .type = RAFT_ENTRY_COMMAND};
    struct raft_frame f = {.type = RAFT_FRAME_APPEND, .term = term};
    f.append.prev_index = prev_index;
    f.append.prev_term = prev_term;
    f.append.entries = &v;
    f.append.n = 1;
    raft_frame_encode(&f, &b);
    enum err r = raft_frame_decode(buf_slice(&b), &f, NULL);
    raft_frame_close(&f);
    return r;
}

static void terms_must_make_sense(void **state)
{
    (void)state;
    assert_int_equal(decode_with(1, 1, 1, 1), ERR_OK);
    assert_int_equal(decode_with(0, 0, 1, 1), ERR_OK);
    assert_int_equal(decode_with(0, 1, 1, 1), ERR_INVALID);
    assert_int_equal(decode_with(1, 0, 1, 1), ERR_INVALID);
    assert_int_equal(decode_with(1, 2, 1, 2), ERR_INVALID); /* falls */
    assert_int_equal(decode_with(1, 1, 3, 2), ERR_INVALID); /* of the future */
    assert_int_equal(decode_with(1, 1, 0, 2), ERR_INVALID);
    assert_int_equal(decode_with(1, 1, 1, 0), ERR_INVALID);
    assert_int_equal(decode_with(1, 1, 1, UINT64_MAX), ERR_INVALID);
}

static void the_library_reads_our_memberships_and_we_its(void **state)
{
    (void)state;
    struct raft_membership m = three();
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    raft_membership_encode(&m, &b);
    struct raft_configuration conf;
    struct raft_buffer rb = {.base = b.p, .len = b.len};
    assert_int_equal(raft_configuration_decode(&rb, &conf), 0);
    assert_int_equal(conf.n, 3);
    assert_int_equal(conf.servers[0].role, RAFT_VOTER);
    assert_int_equal(conf.servers[1].role, RAFT_STANDBY);
    assert_int_equal(conf.servers[2].role, RAFT_SPARE);
    assert_string_equal(conf.servers[2].address, "[::1]:3");
    assert_int_equal(raft_configuration_encode(&conf, &rb), 0);
    assert_true(slice_eq(slice_of(rb.base, rb.len), buf_slice(&b)));
    raft_free(rb.base);
    raft_configuration_close(&conf);
}

static void unsound_memberships_are_refused(void **state)
{
    (void)state;
    struct raft_membership m = three();
    m.servers[1].id = 1;
    assert_int_equal(raft_membership_check(&m, NULL), ERR_INVALID);
    m = three();
    (void)memcpy(m.servers[1].address, "a:1", 4);
    assert_int_equal(raft_membership_check(&m, NULL), ERR_INVALID);
    m = three();
    m.servers[0].role = RAFT_ROLE_LEARNER;
    assert_int_equal(raft_membership_check(&m, NULL), ERR_INVALID);
    m = three();
    m.n = 0;
    assert_int_equal(raft_membership_check(&m, NULL), ERR_INVALID);
    m = three();
    m.servers[2].address[0] = '\0';
    assert_int_equal(raft_membership_check(&m, NULL), ERR_INVALID);
}

static void distance_and_order_of_memberships(void **state)
{
    (void)state;
    struct raft_membership a = three();
    struct raft_membership b = {.n = 2, .servers = {a.servers[2], a.servers[0]}};
    assert_int_equal(raft_membership_distance(&a, &b), 1);
    b.servers[0].role = RAFT_ROLE_VOTER;
    assert_int_equal(raft_membership_distance(&a, &b), 2);
    struct raft_membership c;
    raft_membership_in_order(&a, &b, &c);
    assert_int_equal(c.n, 2);
    assert_int_equal(c.servers[0].id, 1);
    assert_int_equal(c.servers[1].id, 9);
    assert_int_equal(c.servers[1].role, RAFT_ROLE_VOTER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_append_survives_the_wire),
        cmocka_unit_test(an_install_survives_the_wire),
        cmocka_unit_test(small_messages_survive_the_wire),
        cmocka_unit_test(every_shortened_frame_is_refused),
        cmocka_unit_test(random_damage_never_crashes),
        cmocka_unit_test(terms_must_make_sense),
        cmocka_unit_test(the_library_reads_our_memberships_and_we_its),
        cmocka_unit_test(unsound_memberships_are_refused),
        cmocka_unit_test(distance_and_order_of_memberships),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
