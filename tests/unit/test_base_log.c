#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/base.h"
#include "base/log.h"

/* Stderr goes into a pipe; a line is far smaller than the pipe, so nothing blocks. */
struct capture {
    int saved;
    int reader;
    char text[32768];
};

static void capture_start(struct capture *c)
{
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    c->saved = dup(STDERR_FILENO);
    assert_true(c->saved >= 0);
    assert_int_equal(dup2(fds[1], STDERR_FILENO), STDERR_FILENO);
    (void)close(fds[1]);
    c->reader = fds[0];
}

static const char *capture_stop(struct capture *c)
{
    (void)dup2(c->saved, STDERR_FILENO);
    (void)close(c->saved);
    size_t len = 0;
    ssize_t n;
    while ((n = read(c->reader, c->text + len, sizeof c->text - 1 - len)) > 0)
        len += (size_t)n;
    c->text[len] = '\0';
    (void)close(c->reader);
    return c->text;
}

/* Cuts the time stamp off, after checking its shape. */
static const char *after_ts(const char *line, const char *before, const char *after)
{
    size_t n = strlen(before);
    assert_memory_equal(line, before, n);
    const char *ts = line + n;
    static const char shape[] = "dddd-dd-ddTdd:dd:dd.dddZ";
    for (size_t i = 0; i < sizeof shape - 1; i++) {
        if (shape[i] == 'd')
            assert_in_range(ts[i], '0', '9');
        else
            assert_int_equal(ts[i], shape[i]);
    }
    ts += sizeof shape - 1;
    assert_memory_equal(ts, after, strlen(after));
    return ts + strlen(after);
}

static const char *log_text(enum log_format format, const char *value)
{
    static struct capture c;
    capture_start(&c);
    log_setup(LOG_INFO, format);
    log_event(LOG_INFO, "event", KV(KV_STR("key", value)), "text");
    return capture_stop(&c);
}

static void logfmt_is_one_line_with_typed_fields(void **state)
{
    (void)state;
    static struct capture c;
    capture_start(&c);
    log_setup(LOG_INFO, LOG_LOGFMT);
    log_event(LOG_WARN, "promote",
              KV(KV_STR("rule", "best_candidate"), KV_U64("term", UINT64_MAX),
                 KV_I64("delta", -7), KV_BOOL("sealed", true)),
              "promoting %s", "n2");
    assert_string_equal(
        after_ts(capture_stop(&c), "ts=", " "),
        "level=warn event=promote rule=best_candidate "
        "term=18446744073709551615 delta=-7 sealed=true msg=\"promoting n2\"\n");
}

static void json_is_one_object_with_typed_fields(void **state)
{
    (void)state;
    static struct capture c;
    capture_start(&c);
    log_setup(LOG_INFO, LOG_JSON);
    log_event(LOG_ERROR, "promote",
              KV(KV_STR("rule", "best"), KV_U64("term", 7), KV_I64("delta", INT64_MIN),
                 KV_BOOL("sealed", false)),
              "promoting %s", "n2");
    assert_string_equal(after_ts(capture_stop(&c), "{\"ts\":\"", "\","),
                        "\"level\":\"error\",\"event\":\"promote\",\"rule\":\"best\","
                        "\"term\":7,\"delta\":-9223372036854775808,\"sealed\":false,"
                        "\"msg\":\"promoting n2\"}\n");
}

/* What an attacker may put into a name must not start a second line or a second field. */
static void values_cannot_break_out_of_their_field(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        const char *logfmt;
        const char *json;
    } rows[] = {
        {"plain", "plain", "\"plain\""},
        {"two words", "\"two words\"", "\"two words\""},
        {"", "\"\"", "\"\""},
        {NULL, "\"\"", "\"\""},
        {"a=b", "\"a=b\"", "\"a=b\""},
        {"say \"hi\"", "\"say \\\"hi\\\"\"", "\"say \\\"hi\\\"\""},
        {"back\\slash", "\"back\\\\slash\"", "\"back\\\\slash\""},
        {"x\nlevel=fatal", "\"x\\nlevel=fatal\"", "\"x\\nlevel=fatal\""},
        {"\x1b[31m\t", "\"\\u001b[31m\\u0009\"", "\"\\u001b[31m\\u0009\""},
        {"\x7f", "\"\\u007f\"", "\"\\u007f\""},
        {"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f", "\"gr\xc3\xbc\xc3\x9f\""},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char want[256];
        (void)snprintf(want, sizeof want, "level=info event=event key=%s msg=text\n",
                       rows[i].logfmt);
        assert_string_equal(after_ts(log_text(LOG_LOGFMT, rows[i].value), "ts=", " "), want);
        (void)snprintf(want, sizeof want,
                       "\"level\":\"info\",\"event\":\"event\",\"key\":%s,\"msg\":\"text\"}\n",
                       rows[i].json);
        assert_string_equal(after_ts(log_text(LOG_JSON, rows[i].value), "{\"ts\":\"", "\","),
                            want);
    }
}

static void lines_below_the_level_are_not_written(void **state)
{
    (void)state;
    for (int min = LOG_DEBUG; min <= LOG_FATAL; min++) {
        static struct capture c;
        capture_start(&c);
        log_setup((enum log_level)min, LOG_LOGFMT);
        for (int level = LOG_DEBUG; level <= LOG_FATAL; level++)
            log_event((enum log_level)level, "e", NO_KV, "m");
        const char *text = capture_stop(&c);
        int lines = 0;
        for (; *text != '\0'; text++)
            lines += *text == '\n';
        assert_int_equal(lines, LOG_FATAL - min + 1);
    }
}

static void a_long_text_is_cut_and_stays_one_line(void **state)
{
    (void)state;
    static const enum log_format formats[] = {LOG_LOGFMT, LOG_JSON};
    static char big[8000];
    memset(big, 'x', sizeof big - 1);
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        static struct capture c;
        capture_start(&c);
        log_setup(LOG_INFO, formats[i]);
        log_event(LOG_INFO, "e", NO_KV, "%s", big);
        const char *text = capture_stop(&c);
        size_t n = strlen(text);
        assert_in_range(n, 2000, 4096);
        assert_ptr_equal(strchr(text, '\n'), text + n - 1);
    }
}

static void levels_have_names(void **state)
{
    (void)state;
    static const char *const names[] = {"debug", "info", "warn", "error", "fatal"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        enum log_level level = LOG_FATAL;
        assert_int_equal(log_level_parse(names[i], &level), ERR_OK);
        assert_int_equal(level, i);
    }
    static const char *const wrong[] = {"", "INFO", "warning", "info "};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        enum log_level level = LOG_WARN;
        assert_int_equal(log_level_parse(wrong[i], &level), ERR_INVALID);
        assert_int_equal(level, LOG_WARN);
    }
}

/* In a child, since the name stays for the life of the process. */
static void the_node_is_on_every_line(void **state)
{
    (void)state;
    static struct capture c;
    capture_start(&c);
    pid_t pid = fork();
    if (pid == 0) {
        log_setup(LOG_INFO, LOG_LOGFMT);
        log_set_name("n1");
        log_event(LOG_INFO, "e", NO_KV, "m");
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_string_equal(after_ts(capture_stop(&c), "ts=", " "),
                        "level=info node=n1 event=e msg=m\n");
}

static void a_failed_assertion_names_its_place_and_aborts(void **state)
{
    (void)state;
    static struct capture c;
    capture_start(&c);
    pid_t pid = fork();
    if (pid == 0) {
        (void)signal(SIGABRT, SIG_DFL);
        ASSERT(pid != 0);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    const char *text = capture_stop(&c);
    assert_non_null(strstr(text, "level=fatal event=assert file="));
    assert_non_null(strstr(text, "test_base_log.c"));
    assert_non_null(strstr(text, "msg=\"pid != 0\"\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logfmt_is_one_line_with_typed_fields),
        cmocka_unit_test(json_is_one_object_with_typed_fields),
        cmocka_unit_test(values_cannot_break_out_of_their_field),
        cmocka_unit_test(lines_below_the_level_are_not_written),
        cmocka_unit_test(a_long_text_is_cut_and_stays_one_line),
        cmocka_unit_test(levels_have_names),
        cmocka_unit_test(the_node_is_on_every_line),
        cmocka_unit_test(a_failed_assertion_names_its_place_and_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
