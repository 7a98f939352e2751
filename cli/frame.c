/* -W: the same output again and again, on a terminal in place. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/str.h"
#include "cli/cli.h"

#define HOME "\033[H"
#define CLEAR_LINE "\033[K"
#define CLEAR_BELOW "\033[J"

static volatile sig_atomic_t resized;

static void on_resize(int number)
{
    (void)number;
    resized = 1;
}

int cli_every(const char *text, uint64_t *ret_s)
{
    enum { MOST_S = 3600 };
    if (str_parse_u64(text, ret_s) == ERR_OK && *ret_s > 0 && *ret_s <= MOST_S)
        return 0;
    return cli_usage("-w: \"%s\" is not a number of seconds up to %d", text, MOST_S);
}

/* What fits into `columns` of a line of `n` bytes. */
static size_t cut(const char *line, size_t n, size_t columns)
{
    size_t at = 0;
    while (at < n && columns > 0) {
        if (line[at] == '\033') { /* a colour: up to its 'm' */
            const char *end = memchr(line + at, 'm', n - at);
            at = end != NULL ? (size_t)(end - line) + 1 : n;
            continue;
        }
        at++;
        while (at < n && ((unsigned char)line[at] & 0xc0U) == 0x80) /* the rest of a letter */
            at++;
        columns--;
    }
    return at;
}

/* No line longer than the terminal is wide, nor more of them than it is high: they would scroll. */
static void draw(const char *text, size_t n)
{
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    struct winsize w = {0};
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row > 1 && w.ws_col > 0;
    size_t rows = known ? w.ws_row - 1U : SIZE_MAX, columns = known ? w.ws_col : SIZE_MAX;
    buf_append_slice(&b, slice_str(HOME));
    for (size_t at = 0; at < n && rows > 0; rows--) {
        const char *end = memchr(text + at, '\n', n - at);
        size_t line = end != NULL ? (size_t)(end - text) - at : n - at;
        buf_append(&b, text + at, cut(text + at, line, columns));
        buf_printf(&b, "%s" CLEAR_LINE "\n", cli_colour(CLI_PLAIN));
        at += line + 1;
    }
    buf_append_slice(&b, slice_str(CLEAR_BELOW));
    (void)fwrite(b.p, 1, b.len, stdout);
}

int cli_frame(struct cli *c, int (*show)(struct cli *c, void *arg), void *arg)
{
    if (!isatty(STDOUT_FILENO))
        return show(c, arg);
    char *text = NULL;
    size_t n = 0;
    FILE *terminal = stdout, *frame = open_memstream(&text, &n);
    ASSERT(frame != NULL);
    stdout = frame;
    int code = show(c, arg);
    stdout = terminal;
    (void)fclose(frame);
    if (code == CLI_DONE)
        draw(text, n);
    free(text);
    return code;
}

bool cli_frame_wait(uint64_t every_s)
{
    struct sigaction a = {.sa_handler = on_resize};
    if (fflush(stdout) != 0)
        return false; /* nobody reads any more */
    (void)sigaction(SIGWINCH, &a, NULL);
    if (resized == 0)
        (void)sleep((unsigned)every_s); /* ends early when the terminal changes its size */
    resized = 0;
    return true;
}

int cli_again(struct cli *c, uint64_t every_s, int (*show)(struct cli *c, void *arg), void *arg)
{
    if (every_s == 0)
        return show(c, arg);
    int code = cli_frame(c, show, arg);
    /* What fails later passes: a failover is what one watches. */
    while (code == CLI_DONE && cli_frame_wait(every_s)) {
        if (!isatty(STDOUT_FILENO))
            (void)printf("\n");
        (void)cli_frame(c, show, arg);
    }
    return code != CLI_DONE ? code : CLI_FAILED;
}
