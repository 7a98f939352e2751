#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/callbacks.h"

/* P, R, L: runs as primary, replica, standby leader; u: as a standby, nobody knows yet of which kind; s: stopped;
 * x: stopped for a restart; ?: in between; +: a reload */
static struct callback_facts facts(char c, uint64_t reloads)
{
    return (struct callback_facts){.known = c != '?',
                                   .running = strchr("PRLu", c) != NULL,
                                   .led = strchr("PRL", c) != NULL,
                                   .role = c == 'P'   ? CALLBACK_PRIMARY
                                           : c == 'L' ? CALLBACK_STANDBY_LEADER
                                                      : CALLBACK_REPLICA,
                                   .restarting = c == 'x',
                                   .reloads = reloads};
}

static void a_life_is_told_in_events(void **state)
{
    static const struct {
        const char *life, *events;
    } rows[] = {
        {"P", ""},
        {"s", ""},
        {"?R", ""},
        {"RRR", ""},
        {"sR", "on_start "},
        {"s?P", "on_start "},
        {"Rs", "on_stop "},
        {"R?s", "on_stop "},
        {"R??R", ""},
        {"RP", "on_role_change "},
        {"R?P", "on_role_change "},
        {"PsP", "on_stop on_start "},
        {"PsR", "on_stop on_role_change "},
        {"P?s?R", "on_stop on_role_change "},
        {"PsssR", "on_stop on_role_change "},
        {"PsRP", "on_stop on_role_change on_role_change "},
        {"RxR", "on_restart "},
        {"R?x??R", "on_restart "},
        {"RxxxR", "on_restart "},
        {"RxP", "on_role_change "},
        {"RxRsR", "on_restart on_stop on_start "},
        {"R+R", "on_reload "},
        {"R++R", "on_reload "},
        {"s+s", ""},
        {"s+R", "on_start "},
        {"R+s", "on_stop "},
        {"R+P", "on_role_change "},
        {"sRL", "on_start on_role_change "},
        {"LR", "on_role_change "},
        {"LP", "on_role_change "},
        {"PsRL", "on_stop on_role_change on_role_change "},
        {"LsL", "on_stop on_start "},
        {"LsR", "on_stop on_role_change "},
        {"LxL", "on_restart "},
        {"L+L", "on_reload "},
        {"uL", ""},
        {"uRL", "on_role_change "},
        {"suL", "on_start "},
        {"uP", "on_role_change "},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct callback_facts seen = {.known = false};
        struct buf told CLEANUP(buf_close) = BUF_INIT;
        uint64_t reloads = 0;
        for (const char *c = rows[i].life; *c != '\0'; c++) {
            struct callback_facts now = facts(*c, reloads);
            reloads += *c == '+';
            enum callback event = *c == '+' ? CALLBACK_NONE : callback_next(&seen, &now);
            if (event != CALLBACK_NONE)
                buf_printf(&told, "%s ", callback_name(event));
        }
        if (strcmp(buf_cstr(&told), rows[i].events) != 0)
            fail_msg("%s: %s", rows[i].life, buf_cstr(&told));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_life_is_told_in_events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
