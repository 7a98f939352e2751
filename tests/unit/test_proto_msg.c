#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/mem.h"
#include "proto/messages.h"
#include "proto/mp.h"
#include "proto_random.h"

enum { ROUNDS = 40 };

/* Two structs hold the same when they encode the same. */
static void assert_same(const struct msg *m, const void *a, const void *b)
{
    struct buf x CLEANUP(buf_close) = BUF_INIT, y CLEANUP(buf_close) = BUF_INIT;
    msg_encode(m, a, &x);
    msg_encode(m, b, &y);
    if (!slice_eq(buf_slice(&x), buf_slice(&y)))
        fail_msg("%s differs", m->name);
}

static void every_message_survives_messagepack(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 1);
    for (size_t i = 0; i < proto_all_messages_n * ROUNDS; i++) {
        const struct msg *m = proto_all_messages[i % proto_all_messages_n];
        void *a CLEANUP(mem_cleanup) = mem_alloc(m->size),
                *b CLEANUP(mem_cleanup) = mem_alloc(m->size);
        struct buf x CLEANUP(buf_close) = BUF_INIT;
        struct errmsg e = {.text = ""};
        proto_random_fill(&r, m, a, false);
        msg_encode(m, a, &x);
        if (msg_decode(m, buf_slice(&x), b, &e) != ERR_OK)
            fail_msg("%s: %s", m->name, e.text);
        assert_same(m, a, b);
        proto_random_free();
    }
}

static void every_message_survives_json(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 2);
    for (size_t i = 0; i < proto_all_messages_n * ROUNDS; i++) {
        const struct msg *m = proto_all_messages[i % proto_all_messages_n];
        void *a CLEANUP(mem_cleanup) = mem_alloc(m->size),
                *b CLEANUP(mem_cleanup) = mem_alloc(m->size);
        struct buf x CLEANUP(buf_close) = BUF_INIT, y CLEANUP(buf_close) = BUF_INIT;
        struct msg_arena arena CLEANUP(msg_arena_close) = MSG_ARENA_INIT;
        struct errmsg e = {.text = ""};
        proto_random_fill(&r, m, a, true);
        msg_to_json(m, a, &x);
        if (msg_from_json(m, buf_slice(&x), b, &arena, &e) != ERR_OK)
            fail_msg("%s: %s in %s", m->name, e.text, buf_cstr(&x));
        msg_to_json(m, b, &y);
        assert_string_equal(buf_cstr(&x), buf_cstr(&y));
        proto_random_free();
    }
}

static void a_message_cut_anywhere_is_refused(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 3);
    for (size_t i = 0; i < proto_all_messages_n; i++) {
        const struct msg *m = proto_all_messages[i];
        void *a CLEANUP(mem_cleanup) = mem_alloc(m->size);
        struct buf x CLEANUP(buf_close) = BUF_INIT;
        proto_random_fill(&r, m, a, false);
        msg_encode(m, a, &x);
        for (size_t n = 0; n < MIN(x.len, (size_t)4000); n++) {
            uint8_t *exact CLEANUP(mem_cleanup) = mem_dup(x.p, n);
            assert_int_equal(msg_decode(m, slice_of(exact, n), a, NULL), ERR_INVALID);
        }
        buf_append_u8(&x, 0);
        assert_int_equal(msg_decode(m, buf_slice(&x), a, NULL), ERR_INVALID);
        proto_random_free();
    }
}

static void flipped_bytes_never_break_the_decoder(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 4);
    for (size_t i = 0; i < proto_all_messages_n * ROUNDS * 5; i++) {
        const struct msg *m = proto_all_messages[i % proto_all_messages_n];
        void *a CLEANUP(mem_cleanup) = mem_alloc(m->size);
        struct buf x CLEANUP(buf_close) = BUF_INIT;
        proto_random_fill(&r, m, a, false);
        msg_encode(m, a, &x);
        for (uint64_t flips = 1 + rng_below(&r, 4); flips > 0; flips--)
            x.p[rng_below(&r, MIN(x.len, (size_t)200))] = (uint8_t)rng_u64(&r);
        if (msg_decode(m, buf_slice(&x), a, NULL) == ERR_OK) {
            struct buf again CLEANUP(buf_close) = BUF_INIT, json CLEANUP(buf_close) = BUF_INIT;
            msg_encode(m, a, &again);
            msg_to_json(m, a, &json);
        }
        proto_random_free();
    }
}

static void unknown_fields_are_skipped_and_known_ones_found_in_any_order(void **state)
{
    (void)state;
    struct buf x CLEANUP(buf_close) = BUF_INIT;
    struct lease_renew got;
    mp_write_map(&x, 4);
    mp_write_str(&x, slice_str("n"));
    mp_write_u64(&x, 7);
    mp_write_str(&x, slice_str("later"));
    mp_write_array(&x, 2);
    mp_write_map(&x, 1);
    mp_write_u64(&x, 1);
    mp_write_nil(&x);
    mp_write_i64(&x, -5);
    mp_write_str(&x, slice_of("id\0", 3)); /* a known name with a zero byte is another name */
    mp_write_bool(&x, true);
    mp_write_str(&x, slice_str("id"));
    mp_write_u64(&x, 9);
    assert_int_equal(msg_decode(&msg_lease_renew, buf_slice(&x), &got, NULL), ERR_OK);
    assert_int_equal(got.n, 7);
    assert_int_equal(got.id, 9);
}

static void refusals_name_the_field(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum { U, S, LONG, TWICE, NUL } value;
        const char *text;
    } rows[] = {
        {"name", U, "member_ref.name: text expected"},
        {"force", S, "member_ref.force: boolean expected"},
        {"name", LONG, "member_ref.name: longer than 63 bytes"},
        {"name", TWICE, "member_ref.name: given twice"},
        {"name", NUL, "member_ref.name: contains a zero byte"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf x CLEANUP(buf_close) = BUF_INIT;
        struct member_ref got;
        struct errmsg e = {.text = ""};
        char big[64];
        memset(big, 'x', sizeof big);
        mp_write_map(&x, rows[i].value == TWICE ? 2 : 1);
        for (int k = rows[i].value == TWICE ? 2 : 1; k > 0; k--) {
            mp_write_str(&x, slice_str(rows[i].name));
            if (rows[i].value == U)
                mp_write_u64(&x, 1);
            else if (rows[i].value == LONG)
                mp_write_str(&x, slice_of(big, sizeof big));
            else
                mp_write_str(&x, slice_of("a\0b", rows[i].value == NUL ? 3 : 1));
        }
        assert_int_equal(msg_decode(&msg_member_ref, buf_slice(&x), &got, &e), ERR_INVALID);
        assert_string_equal(e.text, rows[i].text);
    }
}

static void a_list_longer_than_its_array_is_refused(void **state)
{
    (void)state;
    struct buf x CLEANUP(buf_close) = BUF_INIT;
    struct member_list *got CLEANUP(mem_cleanup) = mem_alloc(sizeof *got);
    mp_write_map(&x, 1);
    mp_write_str(&x, slice_str("members"));
    mp_write_array(&x, 65);
    for (int i = 0; i < 65; i++)
        mp_write_map(&x, 0);
    struct errmsg e = {.text = ""};
    assert_int_equal(msg_decode(&msg_member_list, buf_slice(&x), got, &e), ERR_LIMIT);
    assert_string_equal(e.text, "member_list.members: more than 64 elements");
}

static void many_is_walked_element_by_element(void **state)
{
    (void)state;
    struct buf x CLEANUP(buf_close) = BUF_INIT;
    struct msg_list list = {.n = 0};
    for (uint64_t i = 1; i <= 20; i++) {
        struct kv kv = {.key = slice_of("key", 3), .mod_revision = i};
        msg_list_append(&list, &msg_kv, &kv);
    }
    msg_list_end(&list, &x);
    struct msg_iter it;
    struct kv kv;
    assert_int_equal(msg_iter_init(&it, buf_slice(&x)), ERR_OK);
    for (uint64_t i = 1; i <= 20; i++) {
        assert_int_equal(msg_iter_next(&it, &msg_kv, &kv, NULL), ERR_OK);
        assert_int_equal(kv.mod_revision, i);
    }
    assert_int_equal(msg_iter_next(&it, &msg_kv, &kv, NULL), ERR_NOT_FOUND);
    assert_int_equal(msg_iter_init(&it, slice_of(NULL, 0)), ERR_OK);
    assert_int_equal(msg_iter_next(&it, &msg_kv, &kv, NULL), ERR_NOT_FOUND);
}

static void json_says_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text;
    } rows[] = {
        {"{\"ttl\":-1}", "config_rec.ttl: unsigned integer expected"},
        {"{\"ttl\":5.5}", "config_rec.ttl: unsigned integer expected"},
        {"{\"pause\":1}", "config_rec.pause: true or false expected"},
        {"{\"synchronous_mode\":\"far too long\"}",
         "config_rec.synchronous_mode: longer than 7 bytes"},
        {"[]", "config_rec: object expected"},
        {"{\"ttl\":5,\"ttl\":6}",
         "config_rec: line 1, column 14: duplicate object key near '\"ttl\"'"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct config_rec got;
        struct errmsg e = {.text = ""};
        assert_int_equal(
            msg_from_json(&msg_config_rec, slice_str(rows[i].json), &got, NULL, &e),
            ERR_INVALID);
        assert_string_equal(e.text, rows[i].text);
    }
}

static void json_keeps_what_people_wrote(void **state)
{
    (void)state;
    struct config_rec c;
    struct msg_arena arena CLEANUP(msg_arena_close) = MSG_ARENA_INIT;
    static const char json[] = "{\"later\":1,\"ttl\":\"18446744073709551615\",\"pause\":null,"
                               "\"postgresql\":{\"z\":0.1,\"a\":\"\\u00e9\"}}";
    assert_int_equal(msg_from_json(&msg_config_rec, slice_str(json), &c, &arena, NULL), ERR_OK);
    assert_true(c.ttl == UINT64_MAX);
    assert_false(c.pause);
    assert_true(slice_eq(c.postgresql, slice_str("{\"z\":0.1,\"a\":\"\xc3\xa9\"}")));
}

static void a_text_cut_in_a_character_can_still_be_stored(void **state)
{
    (void)state;
    struct status_rec s = {.request_id = "ab\xc3"}, got;
    struct buf x CLEANUP(buf_close) = BUF_INIT;
    msg_to_json(&msg_status_rec, &s, &x);
    assert_int_equal(msg_from_json(&msg_status_rec, buf_slice(&x), &got, NULL, NULL), ERR_OK);
    assert_string_equal(got.request_id, "ab?");
}

static void methods_are_found_by_their_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < METHOD_COUNT; i++)
        assert_int_equal(method_find(slice_str(method_table[i].name)), i);
    assert_int_equal(method_find(slice_str("kv.pu")), METHOD_COUNT);
    assert_int_equal(method_find(slice_of("kv.put\0", 7)), METHOD_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_survives_messagepack),
        cmocka_unit_test(every_message_survives_json),
        cmocka_unit_test(a_message_cut_anywhere_is_refused),
        cmocka_unit_test(flipped_bytes_never_break_the_decoder),
        cmocka_unit_test(unknown_fields_are_skipped_and_known_ones_found_in_any_order),
        cmocka_unit_test(refusals_name_the_field),
        cmocka_unit_test(a_list_longer_than_its_array_is_refused),
        cmocka_unit_test(many_is_walked_element_by_element),
        cmocka_unit_test(json_says_what_is_wrong),
        cmocka_unit_test(json_keeps_what_people_wrote),
        cmocka_unit_test(a_text_cut_in_a_character_can_still_be_stored),
        cmocka_unit_test(methods_are_found_by_their_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
