/* The view as text and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "agent/core/view_fields.h"
#include "base/rng.h"

static char text[400000];

static void random_text(struct rng *r, char *p, size_t size, bool plain)
{
    static const char odd[] = "ab,\\=\n\t []#./ z\x7f\xc3";
    size_t n = rng_below(r, MIN(size, 20));
    (void)memset(p, 0, size);
    for (size_t i = 0; i < n; i++)
        p[i] = plain ? (char)('a' + rng_below(r, 26)) : odd[rng_below(r, sizeof odd - 1)];
}

static void random_leaf(struct rng *r, const struct vfield *f, char *base)
{
    char *p = base + f->offset;
    uint64_t n = rng_below(r, 3) == 0 ? rng_u64(r) : rng_below(r, 5);
    size_t count = rng_below(r, MIN(f->max, 4) + 1);
    if (rng_below(r, 2) == 0)
        return;
    switch (f->type) {
    case V_U64:
    case V_I64:
        (void)memcpy(p, &n, sizeof n);
        break;
    case V_BOOL:
        *(bool *)p = n & 1;
        break;
    case V_TEXT:
        random_text(r, p, f->size, false);
        break;
    case V_ENUM: {
        unsigned small = (unsigned)rng_below(r, 3);
        (void)memcpy(p, &small, sizeof small);
        break;
    }
    case V_NAMES:
        for (size_t i = 0; i < count; i++)
            random_text(r, p + i * 64, 64, false);
        (void)memcpy(base + f->count_offset, &count, sizeof count);
        break;
    case V_U64S:
        for (size_t i = 0; i < count; i++) {
            n = rng_u64(r);
            (void)memcpy(p + i * sizeof n, &n, sizeof n);
        }
        break;
    case V_SUB:
    case V_LIST:
    case V_END:
        fail();
    }
}

/* Three levels, as the view has them. */
static void random_struct(struct rng *r, const struct vfield *table, char *base, int depth)
{
    assert_true(depth < 4);
    for (const struct vfield *f = table; f->type != V_END; f++) {
        if (f->type == V_SUB) {
            random_struct(r, f->sub(), base + f->offset, depth + 1);
        } else if (f->type == V_LIST) {
            size_t n = rng_below(r, MIN(f->max, 4) + 1);
            (void)memcpy(base + f->count_offset, &n, sizeof n);
            for (size_t i = 0; i < n; i++)
                random_struct(r, f->sub(), base + f->offset + i * f->size, depth + 1);
        } else {
            random_leaf(r, f, base);
        }
    }
}

static void what_is_printed_is_read_back(void **state)
{
    (void)state;
    static struct view a;
    static struct view b;
    struct errmsg e;
    struct rng r;
    rng_seed(&r, 1);
    for (int i = 0; i < 3000; i++) {
        (void)memset(&a, 0, sizeof a);
        random_struct(&r, view_fields(), (char *)&a, 0);
        assert_int_equal(view_print(&a, text, sizeof text), ERR_OK);
        if (view_parse(text, &b, &e) != ERR_OK)
            fail_msg("%s\n%s", e.text, text);
        static char again[sizeof text];
        assert_int_equal(view_print(&b, again, sizeof again), ERR_OK);
        assert_string_equal(text, again);
        assert_memory_equal(&a, &b, sizeof a);
    }
}

static uint8_t covered[sizeof(struct view)];

static void cover(const struct vfield *table, size_t at)
{
    for (const struct vfield *f = table; f->type != V_END; f++) {
        size_t n = f->type == V_BOOL                        ? 1
                   : f->type == V_NAMES                     ? f->max * 64
                   : f->type == V_U64S                      ? f->max * 8
                   : f->type == V_TEXT || f->type == V_ENUM ? f->size
                   : f->type == V_U64 || f->type == V_I64   ? 8
                                                            : 0;
        (void)memset(covered + at + f->offset, 1, n);
        if (f->type == V_NAMES || f->type == V_LIST)
            (void)memset(covered + at + f->count_offset, 1, sizeof(size_t));
        if (f->type == V_SUB)
            cover(f->sub(), at + f->offset);
        for (size_t i = 0; f->type == V_LIST && i < f->max; i++)
            cover(f->sub(), at + f->offset + i * f->size);
    }
}

/* A field without a row would be lost on its way through the journal. */
static void every_field_is_in_a_table(void **state)
{
    (void)state;
    cover(view_fields(), 0);
    for (size_t i = 0, gap = 0; i < sizeof covered; i++) {
        gap = covered[i] ? 0 : gap + 1;
        if (gap > 7 ||
            (gap > 0 && i + 1 < sizeof covered && covered[i + 1] && (i + 1) % 4 != 0))
            fail_msg("byte %zu of the view is in no table", i);
    }
}

static void a_small_buffer_is_refused(void **state)
{
    (void)state;
    static struct view v;
    (void)memcpy(v.self, "n1", 3);
    v.now_ms = 5;
    for (size_t size = 1; size < sizeof "now_ms=5\nself=n1\n"; size++) {
        assert_int_equal(view_print(&v, text, size), ERR_LIMIT);
        assert_string_equal(text, "");
    }
    assert_int_equal(view_print(&v, text, sizeof "now_ms=5\nself=n1\n"), ERR_OK);
    assert_string_equal(text, "now_ms=5\nself=n1\n");
}

static void what_is_no_view_is_refused(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "nonsense=1",
        "now_ms",
        "now_ms=",
        "now_ms=x",
        "now_ms=1 ",
        "now_ms=-1",
        "now_ms=18446744073709551616",
        "dcs_ready=2",
        "pg=1",
        "pg.nothing=1",
        "pg.proc=flying",
        "pg.lsn=1/100000000",
        "pg.lsn=/5",
        "members=1",
        "members[=1",
        "members[]=",
        "members[#1]=",
        "members[n1]x=1",
        "members[n1].nothing=1",
        "-members[n1]",
        "-now_ms",
        "history[1].token=1",
        "history[n1].token=1",
        "sync.v=a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q",
        "self=\\",
        "self=\\zz",
        "self=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    };
    static struct view v;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct errmsg e = {0};
        if (view_parse(rows[i], &v, &e) == ERR_OK)
            fail_msg("accepted: %s", rows[i]);
        assert_true(strstr(e.text, "line 1: ") == e.text);
    }
}

static void random_bytes_do_no_harm(void **state)
{
    (void)state;
    static const char alphabet[] = "pg.=[]#-membrs0123n,\\\nhistoy";
    static struct view v;
    struct rng r;
    rng_seed(&r, 2);
    for (int i = 0; i < 20000; i++) {
        char junk[64] = {0};
        size_t n = rng_below(&r, sizeof junk);
        for (size_t j = 0; j < n; j++)
            junk[j] = alphabet[rng_below(&r, sizeof alphabet - 1)];
        enum err err = view_parse(junk, &v, NULL);
        assert_true(err == ERR_OK || err == ERR_INVALID);
    }
}

static void changes_are_applied_to_a_view(void **state)
{
    (void)state;
    static struct view v;
    assert_int_equal(
        view_parse("members[a].lsn=1/10\nmembers[b].lsn=0/2\n\n# words\n  now_ms=3", &v, NULL),
        ERR_OK);
    assert_true(v.members_n == 2 && v.members[0].lsn == 0x100000010ULL && v.now_ms == 3);
    assert_int_equal(
        view_apply("-members[a]\nmembers[b].lsn=16\npg.lsn=99\nbusy.action=clone", &v, NULL),
        ERR_OK);
    assert_true(v.members_n == 1 && v.members[0].lsn == 16 && v.pg.lsn == 99 &&
                v.busy.action != 0);
    assert_string_equal(v.members[0].name, "b");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_printed_is_read_back),
        cmocka_unit_test(every_field_is_in_a_table),
        cmocka_unit_test(a_small_buffer_is_refused),
        cmocka_unit_test(what_is_no_view_is_refused),
        cmocka_unit_test(random_bytes_do_no_harm),
        cmocka_unit_test(changes_are_applied_to_a_view),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
