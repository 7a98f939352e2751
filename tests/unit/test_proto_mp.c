#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <msgpack.h>

#include "base/mem.h"
#include "base/rng.h"
#include "proto/mp.h"

static const struct mp_limits limits = {.bytes = 1 << 20, .depth = 16, .elements = 65536};

/* A random value, at most `depth` containers deep. */
static void random_value(struct rng *r, struct buf *b, unsigned depth)
{
    uint8_t bytes[70000];
    size_t n = rng_below(r, 50) == 0 ? rng_below(r, sizeof bytes) : rng_below(r, 40);
    memset(bytes, 'x', n);
    switch (rng_below(r, depth > 0 ? 8 : 6)) {
    case 0:
        mp_write_nil(b);
        break;
    case 1:
        mp_write_bool(b, rng_below(r, 2) == 0);
        break;
    case 2:
        mp_write_u64(b, rng_u64(r) >> rng_below(r, 64));
        break;
    case 3:
        mp_write_i64(b, (int64_t)rng_u64(r) >> rng_below(r, 64));
        break;
    case 4:
        mp_write_str(b, slice_of(bytes, n));
        break;
    case 5:
        mp_write_bin(b, slice_of(bytes, n));
        break;
    case 6:
        n = rng_below(r, 20);
        mp_write_array(b, n);
        for (; n > 0; n--)
            random_value(r, b, depth - 1);
        break;
    case 7:
        n = rng_below(r, 18);
        mp_write_map(b, n);
        for (n *= 2; n > 0; n--)
            random_value(r, b, depth - 1);
        break;
    }
}

static void scanner_and_msgpack_c_agree_on_sound_values(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 10);
    for (int i = 0; i < 2000; i++) {
        struct buf b CLEANUP(buf_close) = BUF_INIT;
        random_value(&r, &b, 3);
        size_t size = 0, off = 0;
        assert_int_equal(mp_scan(buf_slice(&b), &limits, &size), ERR_OK);
        assert_int_equal(size, b.len);
        msgpack_unpacked u;
        msgpack_unpacked_init(&u);
        assert_int_equal(msgpack_unpack_next(&u, (const char *)b.p, b.len, &off),
                         MSGPACK_UNPACK_SUCCESS);
        assert_int_equal(off, b.len);
        msgpack_unpacked_destroy(&u);
    }
}

static void a_value_in_pieces_is_scanned_once(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 11);
    for (int i = 0; i < 300; i++) {
        struct buf b CLEANUP(buf_close) = BUF_INIT;
        random_value(&r, &b, 3);
        struct mp_scanner s;
        mp_scanner_init(&s);
        for (size_t n = 0; n < b.len;) {
            uint8_t *exact CLEANUP(mem_cleanup) = mem_dup(b.p, n);
            size_t before = s.pos;
            assert_int_equal(mp_scanner_run(&s, slice_of(exact, n), &limits), ERR_UNAVAILABLE);
            assert_true(s.pos >= before);
            n += b.len < 300 ? 1 : 1 + rng_below(&r, b.len / 50);
        }
        assert_int_equal(mp_scanner_run(&s, buf_slice(&b), &limits), ERR_OK);
        assert_int_equal(s.pos, b.len);
    }
}

static void hostile_bytes_are_refused_before_anything_is_allocated(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        enum err want;
    } rows[] = {
        {"", 0, ERR_UNAVAILABLE},
        {"\xc1", 1, ERR_INVALID},                     /* never used */
        {"\xd4\x01\x02", 3, ERR_INVALID},             /* fixext 1 */
        {"\xc7\x01\x02\x03", 4, ERR_INVALID},         /* ext 8 */
        {"\xc9\xff\xff\xff\xff", 5, ERR_INVALID},     /* ext 32 */
        {"\xdb\xff\xff\xff\xff", 5, ERR_LIMIT},       /* str of 4 GiB */
        {"\xc6\x7f\xff\xff\xff", 5, ERR_LIMIT},       /* bin of 2 GiB */
        {"\xdd\xff\xff\xff\xff", 5, ERR_LIMIT},       /* array of 2^32 */
        {"\xdf\xff\xff\xff\xff", 5, ERR_LIMIT},       /* map of 2^32 */
        {"\xdf\x80\x00\x00\x00", 5, ERR_LIMIT},       /* twice its size overflows 32 bits */
        {"\xdd\x00\x01\x00\x01", 5, ERR_LIMIT},       /* one element too many */
        {"\xdd\x00\x01\x00\x00", 5, ERR_UNAVAILABLE}, /* just so many */
        {"\xdb\x00", 2, ERR_UNAVAILABLE},             /* half a length */
        {"\x92\xc0", 2, ERR_UNAVAILABLE},
        {"\x92\xc0\xc1", 3, ERR_INVALID},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint8_t *exact CLEANUP(mem_cleanup) = mem_dup(rows[i].bytes, rows[i].n);
        size_t size = 77;
        assert_int_equal(mp_scan(slice_of(exact, rows[i].n), &limits, &size), rows[i].want);
        assert_int_equal(size, 77);
    }
}

static void depth_and_elements_are_counted_over_the_whole_value(void **state)
{
    (void)state;
    size_t size;
    uint8_t nested[40];
    memset(nested, 0x91, sizeof nested);
    nested[16] = 0xc0;
    assert_int_equal(mp_scan(slice_of(nested, 17), &limits, &size), ERR_OK);
    nested[16] = 0x91;
    assert_int_equal(mp_scan(slice_of(nested, 40), &limits, &size), ERR_LIMIT);
    nested[16] = 0x90; /* an empty one counts too */
    assert_int_equal(mp_scan(slice_of(nested, 17), &limits, &size), ERR_LIMIT);

    struct mp_limits few = {.bytes = 100, .depth = 4, .elements = 6};
    assert_int_equal(mp_scan(slice_of("\x92\x91\xc0\x81\xc0\xc0", 6), &few, &size), ERR_OK);
    few.elements = 4;
    assert_int_equal(mp_scan(slice_of("\x92\x91\xc0\x81\xc0\xc0", 6), &few, &size), ERR_LIMIT);
    few = (struct mp_limits){.bytes = 5, .depth = 4, .elements = 6};
    assert_int_equal(mp_scan(slice_of("\xa4zzzz", 5), &few, &size), ERR_OK);
    assert_int_equal(mp_scan(slice_of("\xa5zzzzz", 6), &few, &size), ERR_LIMIT);
    assert_int_equal(mp_scan(slice_of("\x96\xc0\xc0\xc0\xc0\xc0\xc0", 7), &few, &size),
                     ERR_LIMIT);
}

static void integers_of_every_width_are_read_alike(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        int64_t want;
        bool as_u64;
    } rows[] = {
        {"\x7f", 1, 127, true},
        {"\xe0", 1, -32, false},
        {"\xff", 1, -1, false},
        {"\xcc\x05", 2, 5, true},
        {"\xcd\x00\x05", 3, 5, true},
        {"\xce\x00\x00\x00\x05", 5, 5, true},
        {"\xcf\x00\x00\x00\x00\x00\x00\x00\x05", 9, 5, true},
        {"\xd0\x05", 2, 5, true},
        {"\xd0\x80", 2, -128, false},
        {"\xd1\x80\x00", 3, -32768, false},
        {"\xd2\xff\xff\xff\xfe", 5, -2, false},
        {"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", 9, INT64_MIN, false},
        {"\xd3\x7f\xff\xff\xff\xff\xff\xff\xff", 9, INT64_MAX, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct mp_reader r = {.rest = slice_of(rows[i].bytes, rows[i].n)}, again = r;
        int64_t got;
        uint64_t u;
        assert_int_equal(mp_read_i64(&r, &got), ERR_OK);
        assert_true(got == rows[i].want);
        assert_int_equal(r.rest.n, 0);
        assert_int_equal(mp_read_u64(&again, &u), rows[i].as_u64 ? ERR_OK : ERR_INVALID);
        assert_int_equal(again.rest.n, rows[i].as_u64 ? 0 : rows[i].n);
    }
    struct mp_reader big = {.rest = slice_of("\xcf\x80\x00\x00\x00\x00\x00\x00\x00", 9)};
    int64_t got;
    assert_int_equal(mp_read_i64(&big, &got), ERR_INVALID);
}

static void a_read_of_the_wrong_type_moves_nothing(void **state)
{
    (void)state;
    static const char *const values[] = {"\xc0",  "\xc2",     "\x01",
                                         "\xa1z", "\x91\xc0", "\x81\xc0\xc0"};
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        struct slice in = slice_str(values[i]);
        struct mp_reader r = {.rest = in};
        bool b;
        uint64_t u;
        struct slice s;
        size_t n;
        if (i != 0)
            assert_int_equal(mp_read_nil(&r), ERR_INVALID);
        if (i != 1)
            assert_int_equal(mp_read_bool(&r, &b), ERR_INVALID);
        if (i != 2)
            assert_int_equal(mp_read_u64(&r, &u), ERR_INVALID);
        if (i != 3)
            assert_int_equal(mp_read_bytes(&r, &s), ERR_INVALID);
        if (i != 4)
            assert_int_equal(mp_read_array(&r, &n), ERR_INVALID);
        if (i != 5)
            assert_int_equal(mp_read_map(&r, &n), ERR_INVALID);
        assert_int_equal(r.rest.n, in.n);
        assert_int_equal(mp_read_raw(&r, &s), ERR_OK);
        assert_true(slice_eq(s, in));
        assert_int_equal(mp_read_raw(&r, &s), ERR_INVALID);
    }
}

static void a_writer_over_its_bound_shows_it_at_the_end(void **state)
{
    (void)state;
    struct buf b CLEANUP(buf_close) = {.max = 4};
    mp_write_str(&b, slice_str("abc"));
    assert_true(buf_ok(&b));
    mp_write_u64(&b, 1);
    assert_false(buf_ok(&b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scanner_and_msgpack_c_agree_on_sound_values),
        cmocka_unit_test(a_value_in_pieces_is_scanned_once),
        cmocka_unit_test(hostile_bytes_are_refused_before_anything_is_allocated),
        cmocka_unit_test(depth_and_elements_are_counted_over_the_whole_value),
        cmocka_unit_test(integers_of_every_width_are_read_alike),
        cmocka_unit_test(a_read_of_the_wrong_type_moves_nothing),
        cmocka_unit_test(a_writer_over_its_bound_shows_it_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
