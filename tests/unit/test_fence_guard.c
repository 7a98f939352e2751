#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "agent/fence/guard.h"
#include "agent/fence/proto.h"
#include "base/base.h"

/* A script is rows of text: the clocks move by `boot` and `raw` milliseconds, the deadline is `left`
 * milliseconds after BOOTTIME's now (or stays: "="), and the guard must answer `action`, with the time from
 * SIGQUIT to SIGKILL behind it for a kill. "confirm" before the clocks: the last challenge is answered. */
struct script {
    const char *name;
    bool can_freeze;
    const char *rows;
};

enum { START_MS = 1000000, RAW_MS = 400000 };

static const char *const actions[] = {"-", "freeze", "thaw", "kill"};

static const struct script scripts[] = {
    {"it leaves PostgreSQL alone while the deadline is far", false,
     "50 50 5000 -\n"
     "50 50 = -\n"
     "4600 4600 = -\n"},
    {"it kills at deadline - budget, with 60 ms for SIGQUIT", false,
     "50 50 1000 -\n"
     "799 799 = -\n"
     "1 1 = kill 60\n"},
    {"found past the middle of the budget it uses SIGKILL at once", false,
     "50 50 1000 -\n"
     "901 901 = kill 0\n"},
    {"between the two SIGQUIT gets what is left before the middle", false,
     "50 50 1000 -\n"
     "860 860 = kill 40\n"},
    {"after a stop of its own beyond the deadline it kills at first sight", false,
     "50 50 1000 -\n"
     "60000 60000 = kill 0\n"},
    {"a pause of its own shorter than what is left needs nothing", false,
     "50 50 5000 -\n"
     "4000 4000 = -\n"
     "50 50 5000 -\n"},
    {"an extension moves the kill", false,
     "50 50 1000 -\n"
     "750 750 1000 -\n"
     "750 750 = -\n"
     "50 50 = kill 60\n"},
    {"a shorter deadline moves it too, and the clocks stay as far apart as they went", false,
     "50 50 5000 -\n"
     "1000 1150 = -\n"
     "50 50 1000 -\n"
     "649 649 = -\n"
     "1 1 = kill 60\n"},
    {"a doomed PostgreSQL is not saved by a later extension", false,
     "50 50 150 kill 50\n"
     "50 50 9000 -\n"},
    {"where it can, it freezes first and kills frozen at half the budget", true,
     "50 50 1000 -\n"
     "800 800 = freeze\n"
     "5 5 = -\n"
     "90 90 = -\n"
     "5 5 = kill 0\n"},
    {"a renewal that arrives while frozen thaws", true,
     "50 50 1000 -\n"
     "800 800 = freeze\n"
     "100 100 1000 thaw\n"
     "50 50 = -\n"},
    {"a renewal that does not reach beyond the budget does not thaw", true,
     "50 50 1000 -\n"
     "800 800 = freeze\n"
     "100 100 200 -\n"
     "150 150 = kill 0\n"},
    {"seen too late to freeze it kills", true,
     "50 50 1000 -\n"
     "960 960 = kill 0\n"},
    {"a paused machine whose BOOTTIME stood still for longer than the lease: kill at first "
     "sight",
     false,
     "50 50 5000 -\n"
     "50 20050 = kill 0\n"},
    {"a shorter pause: killed after 100 ms when nobody confirms", false,
     "50 50 5000 -\n"
     "50 1050 = -\n"
     "50 50 = -\n"
     "50 50 = kill 60\n"},
    {"a shorter pause: confirmed in time, nothing happens", false,
     "50 50 5000 -\n"
     "50 1050 = -\n"
     "confirm 50 50 5000 -\n"
     "1000 1000 = -\n"},
    {"an extension that is no confirmation saves nothing", false,
     "50 50 5000 -\n"
     "50 1050 = -\n"
     "50 50 9000 -\n"
     "50 50 = kill 60\n"},
    {"a renewal from before the pause cannot hide it", false,
     "50 50 5000 -\n"
     "50 6050 5000 kill 0\n"},
    {"in doubt it freezes where it can, and thaws on confirmation", true,
     "50 50 5000 -\n"
     "50 1050 = freeze\n"
     "300 300 = -\n"
     "confirm 50 50 5000 thaw\n"},
    {"in doubt and frozen, unconfirmed for a second: kill", true,
     "50 50 5000 -\n"
     "50 1050 = freeze\n"
     "999 999 = -\n"
     "1 1 = kill 0\n"},
    {"BOOTTIME ahead of RAW (suspend): doubt as well", false,
     "50 50 5000 -\n"
     "1050 50 = -\n"
     "100 100 = kill 60\n"},
    {"a clock that is slewed by 8 % is no gap", false,
     "50 50 5000 -\n"
     "50 54 = -\n"
     "1000 1080 = -\n"
     "50 54 5000 -\n"},
    {"but slewed time counts: the larger of the two is what has passed", false,
     "50 50 3000 -\n"
     "2000 2150 = -\n"
     "600 650 = kill 60\n"},
};

static struct guard_verdict step(struct guard *g, const struct guard_input *in)
{
    struct guard_verdict v = guard_step(g, in);
    assert_true(v.wake_us <= (uint64_t)FENCE_HEARTBEAT_MS * 1000);
    return v;
}

static void play_row(struct guard *g, struct guard_input *in, const char *rows)
{
    char line[64], left[16], want[16];
    const char *row = line;
    (void)snprintf(line, sizeof line, "%.*s", (int)strcspn(rows, "\n"), rows);
    unsigned boot, raw, quit = 0;
    if (strncmp(row, "confirm ", 8) == 0) {
        in->confirmed = g->challenge;
        row += 8;
    }
    int n = sscanf(row, "%u %u %15s %15s %u", &boot, &raw, left, want, &quit);
    assert_true(n >= 4);
    in->boot_us += boot * 1000ULL;
    in->raw_us += raw * 1000ULL;
    if (strcmp(left, "=") != 0)
        in->deadline_us = in->boot_us + strtoull(left, NULL, 10) * 1000;
    struct guard_verdict v = step(g, in);
    if (strcmp(actions[v.action], want) != 0 || v.quit_us != quit * 1000ULL)
        fail_msg("row \"%s\": got %s %llu us", row, actions[v.action],
                 (unsigned long long)v.quit_us);
}

static void every_script_plays(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(scripts); i++) {
        print_message("  %s\n", scripts[i].name);
        struct guard g;
        guard_init(&g);
        struct guard_input in = {.boot_us = START_MS * 1000ULL,
                                 .raw_us = RAW_MS * 1000ULL,
                                 .deadline_us = (START_MS + 5000) * 1000ULL};
        g.can_freeze = scripts[i].can_freeze;
        guard_arm(&g, 200 * 1000, &in);
        for (const char *row = scripts[i].rows; *row != '\0'; row = strchr(row, '\n') + 1)
            play_row(&g, &in, row);
    }
}

static void unarmed_it_never_acts(void **state)
{
    (void)state;
    struct guard g;
    guard_init(&g);
    struct guard_input in = {.boot_us = 1000000, .raw_us = 1};
    for (unsigned i = 0; i < 100; i++) {
        in.boot_us += 1000 * i;
        in.raw_us += 30000000;
        assert_int_equal(step(&g, &in).action, GUARD_NOTHING);
    }
    assert_int_equal(g.phase, GUARD_IDLE);
}

static void what_cannot_be_frozen_in_time_is_killed(void **state)
{
    (void)state;
    struct guard g;
    guard_init(&g);
    g.can_freeze = true;
    struct guard_input in = {.boot_us = 1000000, .raw_us = 1000000, .deadline_us = 1150000};
    guard_arm(&g, 200 * 1000, &in);
    assert_int_equal(step(&g, &in).action, GUARD_FREEZE);
    guard_freeze_failed(&g);
    struct guard_verdict v = step(&g, &in);
    assert_int_equal(v.action, GUARD_KILL);
    assert_int_equal(v.quit_us, 50 * 1000);
}

static void it_looks_again_exactly_when_the_budget_begins(void **state)
{
    (void)state;
    struct guard g;
    guard_init(&g);
    struct guard_input in = {.boot_us = 1000000, .raw_us = 1000000, .deadline_us = 1220000};
    guard_arm(&g, 200 * 1000, &in);
    assert_int_equal(step(&g, &in).wake_us, 20000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_script_plays),
        cmocka_unit_test(unarmed_it_never_acts),
        cmocka_unit_test(what_cannot_be_frozen_in_time_is_killed),
        cmocka_unit_test(it_looks_again_exactly_when_the_budget_begins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
