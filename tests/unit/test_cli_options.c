/* Options: what is understood, and what a wrong one is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/cli.h"
#include "cli_fixture.h"

static const struct option options[] = {{"scope", required_argument, NULL, 's'},
                                        {"witness", no_argument, NULL, 'w'},
                                        {NULL, 0, NULL, 0}};

static int parse(const char *const *words, size_t n)
{
    char *argv[8] = {(char *)(uintptr_t) "init"};
    int last = 0;
    for (size_t i = 0; i < n && i < 7 && words[i] != NULL; i++)
        argv[i + 1] = (char *)(uintptr_t)words[i];
    int argc = 1;
    while (argv[argc] != NULL)
        argc++;
    optind = 1;
    for (int option; (option = cli_option(argc, argv, options)) != -1;) {
        last = option;
        if (option == CLI_BAD_OPTION)
            break;
    }
    return last;
}

static void a_wrong_option_is_told_in_one_line_with_the_nearest(void **state)
{
    (void)state;
    static const struct {
        const char *words[3], *want;
    } rows[] = {
        {{"--scop=x"}, NULL}, /* an unambiguous beginning is understood */
        {{"--scpoe", "x"},
         "regentctl: init: unknown option \"--scpoe\"; did you mean --scope?; see `regentctl "
         "init "
         "--help`\n"},
        {{"--nothing"},
         "regentctl: init: unknown option \"--nothing\"; see `regentctl init --help`\n"},
        {{"-x"}, "regentctl: init: unknown option \"-x\"; see `regentctl init --help`\n"},
        {{"--scope"}, "regentctl: init: --scope needs a value; see `regentctl init --help`\n"},
        {{"--witness=yes"},
         "regentctl: init: --witness takes no value; see `regentctl init --help`\n"},
    };
    cli_running("init");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        capture_begin(STDERR_FILENO);
        int last = parse(rows[i].words, 3);
        const char *said = capture_end();
        assert_string_equal(said, rows[i].want != NULL ? rows[i].want : "");
        assert_int_equal(last, rows[i].want != NULL ? CLI_BAD_OPTION : 's');
    }
}

static void options_may_stand_behind_arguments_until_two_dashes(void **state)
{
    (void)state;
    assert_int_equal(parse((const char *[]){"name", "--witness"}, 2), 'w');
    assert_int_equal(parse((const char *[]){"--", "--witness"}, 2), 0);
}

static void commands_without_arguments_refuse_any(void **state)
{
    (void)state;
    char *bare[] = {(char *)(uintptr_t) "list", NULL};
    char *more[] = {(char *)(uintptr_t) "list", (char *)(uintptr_t) "demo", NULL};
    assert_int_equal(cli_no_arguments(1, bare), 0);
    cli_running("list");
    capture_begin(STDERR_FILENO);
    assert_int_equal(cli_no_arguments(2, more), CLI_USAGE);
    assert_string_equal(
        capture_end(),
        "regentctl: list: unexpected argument \"demo\"; see `regentctl list --help`\n");
}

static void durations_have_a_unit_and_bounds(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t ms; /* 0: refused */
    } rows[] = {{"1s", 1000},      {"90s", 90000},
                {"10m", 600000},   {"1h", 3600000},
                {"2d", 172800000}, {"99999s", 99999000},
                {"100000s", 0},    {"0s", 0},
                {"5", 0},          {"s", 0},
                {"", 0},           {"-1s", 0},
                {"1.5h", 0},       {"1w", 0},
                {"1 h", 0},        {"99999999999999999999d", 0}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t ms = 7;
        assert_int_equal(cli_duration(rows[i].text, &ms), rows[i].ms != 0);
        assert_int_equal(ms, rows[i].ms != 0 ? rows[i].ms : 7);
    }
}

static void every_error_has_the_exit_code_of_its_kind(void **state)
{
    (void)state;
    assert_int_equal(cli_exit_code(ERR_OK), 0);
    assert_int_equal(cli_exit_code(ERR_OUTCOME_UNKNOWN), 3);
    assert_int_equal(cli_exit_code(ERR_PRECONDITION), 4);
    for (int code = 1; code < ERR_COUNT; code++)
        if (code != ERR_OUTCOME_UNKNOWN && code != ERR_PRECONDITION)
            assert_int_equal(cli_exit_code((enum err)code), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrong_option_is_told_in_one_line_with_the_nearest),
        cmocka_unit_test(options_may_stand_behind_arguments_until_two_dashes),
        cmocka_unit_test(commands_without_arguments_refuse_any),
        cmocka_unit_test(durations_have_a_unit_and_bounds),
        cmocka_unit_test(every_error_has_the_exit_code_of_its_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
