/* Plays the daemon for the fence: orders on standard input, one a line; what happens on standard output.
 *
 *   fence_driver SOCKET [no-spawn] [PGDATA]
 *
 *   start LOG armed|free PROGRAM ARG...   signal N   kill   disarm   remember LEASE NONCE   confirm N
 *   arm TOKEN MS (from now)   extend MS   keep MS (extend to now + MS, every 20 ms; 0: no more)
 *   vip up|down INTERFACE ADDRESS/BITS [MS until the lease ends]
 *   worker (prints what it sends, or "worker-end")   leave   stop
 *
 * Every order is answered by "rc NAME"; every change of state by "changed ...", a lost fence by "lost". */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#include "agent/fence.h"
#include "base/assert.h"
#include "base/clock.h"

enum { WORDS_MAX = 64, KEEP_MS = 20 };

static struct {
    uv_loop_t loop;
    struct fence *fence;
    uv_poll_t input;
    uv_timer_t keeper;
    uint64_t keep_ms;
    char line[8192];
    size_t line_n;
} d;

static void on_changed(void *arg, const struct fence_state *s)
{
    (void)arg;
    printf("changed connected=%d adopted=%d postmaster=%" PRIu64
           " left=%d exited=%d status=%d requested=%d "
           "fenced=%d armed=%d token=%" PRIu64 " deadline=%" PRIu64 " lease=%" PRIu64
           " nonce=%" PRIu64 " frozen=%d challenge=%" PRIu64
           " cgroup=%d realtime=%d locked=%d starts=%" PRIu64 " swept=%" PRIu64 " now=%" PRIu64
           " vip=%d refused=%s\n",
           s->connected, s->adopted, s->postmaster, s->processes_left, s->exited,
           s->exit_status, s->requested, s->fenced, s->armed, s->token, s->deadline_ms,
           s->lease, s->nonce, s->frozen, s->challenge, s->cgroup, s->realtime, s->locked,
           s->starts, s->swept_ms, clock_boot_ms(), s->vip_up, s->refused);
}

static void on_lost(void *arg)
{
    (void)arg;
    printf("lost now=%" PRIu64 "\n", clock_boot_ms());
}

static void on_keep(uv_timer_t *t)
{
    (void)t;
    if (d.keep_ms != 0)
        fence_extend(d.fence, clock_boot_ms() + d.keep_ms);
}

static enum err start(char **w, size_t n)
{
    struct errmsg e = {0};
    if (n < 4)
        return ERR_INVALID;
    enum err rv = fence_start_postgres(d.fence, (const char *const *)(w + 3), NULL, w[1],
                                       strcmp(w[2], "armed") == 0, &e);
    if (rv != ERR_OK)
        printf("error %s\n", e.text);
    return rv;
}

static enum err worker(void)
{
    int fd = fence_worker_connect(d.fence);
    if (fd < 0)
        return ERR_UNAVAILABLE;
    /* A worker that waits for us ends when we do. */
    printf("worker-fd %d\n", fd);
    (void)close(fd);
    return ERR_OK;
}

static uint64_t num(const char *word)
{
    return strtoull(word, NULL, 10);
}

static void finish(bool leave)
{
    fence_close(d.fence, leave);
    (void)uv_poll_stop(&d.input);
    uv_close((uv_handle_t *)&d.input, NULL);
    uv_close((uv_handle_t *)&d.keeper, NULL);
}

static enum err obey(char **w, size_t n)
{
    uint64_t a = n > 1 ? num(w[1]) : 0, b = n > 2 ? num(w[2]) : 0;
    if (strcmp(w[0], "start") == 0)
        return start(w, n);
    if (strcmp(w[0], "signal") == 0)
        return fence_signal(d.fence, (int)a);
    if (strcmp(w[0], "kill") == 0)
        return fence_kill(d.fence);
    if (strcmp(w[0], "disarm") == 0)
        return fence_disarm(d.fence);
    if (strcmp(w[0], "arm") == 0)
        return fence_arm(d.fence, a, clock_boot_ms() + b);
    if (strcmp(w[0], "worker") == 0)
        return worker();
    if (strcmp(w[0], "extend") == 0)
        fence_extend(d.fence, clock_boot_ms() + a);
    else if (strcmp(w[0], "keep") == 0)
        d.keep_ms = a;
    else if (strcmp(w[0], "remember") == 0)
        fence_remember(d.fence, a, b);
    else if (strcmp(w[0], "confirm") == 0)
        fence_confirm(d.fence, a);
    else if (strcmp(w[0], "state") == 0)
        on_changed(NULL, fence_state(d.fence));
    else if (strcmp(w[0], "leave") == 0 || strcmp(w[0], "stop") == 0)
        finish(w[0][0] == 'l');
    else if (strcmp(w[0], "vip") == 0 && n >= 4)
        return fence_vip(d.fence, strcmp(w[1], "up") == 0,
                         n > 4 ? clock_boot_ms() + num(w[4]) : 0, w[2],
                         (const char *const *)&w[3], 1);
    else
        return ERR_INVALID;
    return ERR_OK;
}

static void on_line(char *line)
{
    char *words[WORDS_MAX + 1], *at = NULL;
    size_t n = 0;
    for (char *w = strtok_r(line, " ", &at); w != NULL && n < WORDS_MAX;
         w = strtok_r(NULL, " ", &at))
        words[n++] = w;
    words[n] = NULL;
    if (n > 0)
        printf("rc %s\n", err_name(obey(words, n)));
}

static void on_input(uv_poll_t *p, int status, int events)
{
    (void)status;
    (void)events;
    ssize_t n = read(STDIN_FILENO, d.line + d.line_n, sizeof d.line - 1 - d.line_n);
    if (n <= 0) {
        if (!uv_is_closing((uv_handle_t *)p))
            finish(true);
        return;
    }
    d.line_n += (size_t)n;
    char *nl;
    while ((nl = memchr(d.line, '\n', d.line_n)) != NULL) {
        *nl = '\0';
        on_line(d.line);
        size_t used = (size_t)(nl + 1 - d.line);
        memmove(d.line, nl + 1, d.line_n - used);
        d.line_n -= used;
    }
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 64;
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    struct fence_options o = {.socket_path = argv[1], .spawn = true};
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "no-spawn") == 0)
            o.spawn = false;
        else
            o.pg_data_dir = argv[i];
    }
    static const struct fence_ops ops = {.changed = on_changed, .lost = on_lost};
    struct errmsg e = {0};
    int rv = uv_loop_init(&d.loop);
    ASSERT(rv == 0);
    if (fence_open(&d.loop, &o, &ops, NULL, &d.fence, &e) != ERR_OK) {
        printf("error %s\n", e.text);
        return 1;
    }
    (void)uv_poll_init(&d.loop, &d.input, STDIN_FILENO);
    (void)uv_poll_start(&d.input, UV_READABLE | UV_DISCONNECT, on_input);
    (void)uv_timer_init(&d.loop, &d.keeper);
    (void)uv_timer_start(&d.keeper, on_keep, KEEP_MS, KEEP_MS);
    (void)uv_run(&d.loop, UV_RUN_DEFAULT);
    rv = uv_loop_close(&d.loop);
    ASSERT(rv == 0);
    return 0;
}
