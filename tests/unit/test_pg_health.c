/* When a node counts as sick, and for how long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/pg_health.h"

enum { GB = 1 << 30 };

static void the_worst_sign_counts(void **state)
{
    static const struct {
        struct health_signs s;
        enum sick sick;
        const char *why;
    } rows[] = {
        {{.written = ERR_OK}, SICK_NOT, ""},
        {{.unarchived = "000000010000000000000007"}, SICK_NOT, ""},
        {{.room_known = true,
          .data_free = GB,
          .wal_free = GB,
          .wal_size = GB,
          .unarchived = ""},
         SICK_NOT,
         ""},
        {{.room_known = true,
          .data_free = GB,
          .wal_free = GB,
          .wal_size = GB,
          .unarchived = "000000010000000000000007"},
         SICK_NOT,
         ""},
        {{.room_known = true,
          .data_free = GB,
          .wal_free = GB,
          .wal_size = GB,
          .full_in_s = 600,
          .unarchived = "000000010000000000000007"},
         SICK_ARCHIVE,
         "WAL is not archived (000000010000000000000007), and the disk fills up with it"},
        {{.room_known = true,
          .data_free = GB,
          .wal_free = GB / 11,
          .wal_size = GB,
          .unarchived = "000000010000000000000007"},
         SICK_ARCHIVE,
         "WAL is not archived (000000010000000000000007), and the disk fills up with it"},
        {{.room_known = true, .data_free = GB, .wal_free = 4096, .wal_size = GB},
         SICK_FULL,
         "the disk of /pg is full"},
        {{.room_known = true, .data_free = 4096, .wal_free = GB, .wal_size = GB},
         SICK_FULL,
         "the disk of /pg is full"},
        {{.written = ERR_NO_SPACE, .text = "no"}, SICK_FULL, "the disk of /pg is full"},
        {{.written = ERR_NO_SPACE, .hung = "it lets nobody in"},
         SICK_HUNG,
         "PostgreSQL hangs: it lets nobody in"},
        {{.late = true, .hung = "it lets nobody in"},
         SICK_STUCK,
         "a write to the disk of /pg does not come back"},
        {{.written = ERR_IO, .text = "/pg: Read-only file system"},
         SICK_STUCK,
         "a write to the disk fails: /pg: Read-only file system"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char why[120];
        assert_int_equal(health_judge(&rows[i].s, "/pg", why, sizeof why), rows[i].sick);
        assert_string_equal(why, rows[i].why);
    }
}

static void a_node_stays_sick_until_it_was_well_for_a_while(void **state)
{
    struct health h = {.sick = SICK_NOT};
    (void)state;
    health_note(&h, SICK_NOT, "", 1000);
    assert_true(h.sick == SICK_NOT && h.failing_ms == 0);
    health_note(&h, SICK_FULL, "full", 2000);
    health_note(&h, SICK_FULL, "full", 3000);
    assert_true(h.sick == SICK_FULL && h.failing_ms == 2000);
    health_note(&h, SICK_NOT, "", 4000);
    assert_true(h.sick == SICK_FULL && h.failing_ms == 0);
    assert_string_equal(h.why, "full");
    health_note(&h, SICK_STUCK, "stuck", 5000);
    assert_true(h.sick == SICK_STUCK && h.failing_ms == 5000);
    health_note(&h, SICK_NOT, "", 5000 + HEALTH_HOLD_MS - 1);
    assert_true(h.sick == SICK_STUCK);
    health_note(&h, SICK_NOT, "", 5000 + HEALTH_HOLD_MS);
    assert_true(h.sick == SICK_NOT);
    assert_string_equal(h.why, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_worst_sign_counts),
        cmocka_unit_test(a_node_stays_sick_until_it_was_well_for_a_while),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
