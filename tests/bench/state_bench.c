/* Puts applied per second in one process, without Raft and network:
 *
 *     state_bench [DIR] [BATCHES] [VALUE_BYTES] [KEYS]
 *
 * Batches of 256 puts, one entry and one commit each, on random ones of KEYS (10,000) keys; once without a
 * session and once with one; then opens the file again, which reads and checks all of it. Prints one JSON
 * line each; apply_cpu_us and commit_cpu_us are
 * this thread's time per put, the figures to compare on a busy machine. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "dcs/state.h"

enum { BATCH = 256 };

struct bench {
    struct state *s;
    struct rng rng;
    uint64_t index;
    uint64_t session;
    uint64_t seq;
    size_t value_bytes;
    uint64_t keys;
    uint64_t apply_us, commit_us; /* CPU time of this thread */
};

static void on_result(void *arg, uint64_t index, size_t i, enum err status, const char *error,
                      struct slice result)
{
    struct bench *b = arg;
    struct session_reply r;
    (void)index;
    (void)i;
    (void)error;
    ASSERT(status == ERR_OK);
    if (b->session == 1 && msg_decode(&msg_session_reply, result, &r, NULL) == ERR_OK)
        b->session = r.session;
}

static const struct state_ops ops = {.result = on_result};

static uint64_t thread_cpu_us(void)
{
    struct timespec t;
    int rc = clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    ASSERT(rc == 0);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* Adds this thread's time in apply and in commit to the two counters. */
static void submit(struct bench *b, struct state_batch *batch, struct buf *entry)
{
    buf_clear(entry);
    state_batch_end(batch, 1, entry);
    uint64_t start_us = thread_cpu_us();
    state_apply(b->s, ++b->index, buf_slice(entry), 1, &ops, b);
    uint64_t applied_us = thread_cpu_us();
    state_commit(b->s, b->index);
    b->apply_us += applied_us - start_us;
    b->commit_us += thread_cpu_us() - applied_us;
}

static void add_put(struct bench *b, struct state_batch *batch, struct buf *params)
{
    static const uint8_t value[4096];
    char key[32];
    (void)snprintf(key, sizeof key, "/bench/%08u", (unsigned)rng_below(&b->rng, b->keys));
    struct put_req r = {.key = slice_str(key),
                        .value = slice_of(value, b->value_bytes),
                        .session = b->session,
                        .seq = b->session != 0 ? ++b->seq : 0};
    buf_clear(params);
    msg_encode(&msg_put_req, &r, params);
    (void)state_batch_add(batch, STATE_CMD_PUT, buf_slice(params));
}

static void run(struct bench *b, size_t batches, const char *what)
{
    struct state_batch batch = {0};
    struct buf params = BUF_INIT, entry = BUF_INIT;
    uint64_t us = 0;
    b->apply_us = b->commit_us = 0;
    for (size_t i = 0; i < batches; i++) {
        for (size_t k = 0; k < BATCH; k++)
            add_put(b, &batch, &params);
        uint64_t from = clock_boot_us();
        submit(b, &batch, &entry);
        us += clock_boot_us() - from;
    }
    double n = (double)batches * BATCH;
    printf("{\"bench\":\"state\",\"case\":\"%s\",\"puts\":%.0f,\"value_bytes\":%zu,"
           "\"puts_per_s\":%.0f,\"us_per_put\":%.2f,\"apply_cpu_us\":%.2f,\"commit_cpu_us\":%."
           "2f}\n",
           what, n, b->value_bytes, n * 1e6 / (double)us, (double)us / n,
           (double)b->apply_us / n, (double)b->commit_us / n);
    buf_close(&batch.body);
    buf_close(&params);
    buf_close(&entry);
}

static void open_session(struct bench *b)
{
    struct state_batch batch = {0};
    struct buf params = BUF_INIT, entry = BUF_INIT;
    struct session_open r = {.nonce = 1};
    msg_encode(&msg_session_open, &r, &params);
    (void)state_batch_add(&batch, STATE_CMD_SESSION_OPEN, buf_slice(&params));
    b->session = 1; /* to be filled in by the result */
    submit(b, &batch, &entry);
    buf_close(&batch.body);
    buf_close(&params);
    buf_close(&entry);
}

int main(int argc, char **argv)
{
    struct bench b = {.value_bytes = 100, .keys = 10000};
    struct errmsg e;
    uint64_t batches = 1000, value_bytes = 100;
    char dir[128], path[160];
    if (str_format(dir, sizeof dir, "%s/state-bench-XXXXXX", argc > 1 ? argv[1] : "/tmp") !=
            ERR_OK ||
        (argc > 2 && str_parse_u64(argv[2], &batches) != ERR_OK) ||
        (argc > 4 && (str_parse_u64(argv[4], &b.keys) != ERR_OK || b.keys == 0)) ||
        (argc > 3 && str_parse_u64(argv[3], &value_bytes) != ERR_OK) || value_bytes > 4096 ||
        mkdtemp(dir) == NULL || str_format(path, sizeof path, "%s/state.db", dir) != ERR_OK) {
        fprintf(stderr, "usage: state_bench [DIR] [BATCHES] [VALUE_BYTES <= 4096] [KEYS]\n");
        return 2;
    }
    b.value_bytes = (size_t)value_bytes;
    rng_seed(&b.rng, 1);
    if (state_open(path, "bench", &b.s, &e) != ERR_OK) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    run(&b, (size_t)batches, "plain");
    open_session(&b);
    run(&b, (size_t)batches, "session");
    size_t bytes = state_db_bytes(b.s);
    state_close(b.s);
    uint64_t from = clock_boot_us();
    if (state_open(path, "bench", &b.s, &e) != ERR_OK) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    printf("{\"bench\":\"state\",\"db_bytes\":%zu,\"open_ms\":%.0f}\n", bytes,
           (double)(clock_boot_us() - from) / 1000);
    state_close(b.s);
    (void)unlink(path);
    (void)rmdir(dir);
    return 0;
}
