/* Requests per second over the wire protocol, on one connection to the leader:
 *
 *     dcs_load PKI_DIR HOST:PORT[,HOST:PORT...] put|get|mix|fill DEPTH MS PID[,PID...] [KEYS [VALUE_BYTES [RATE]]]
 *
 * DEPTH requests are always under way: puts of 100 bytes on 10,000 keys (without a session), linearizable
 * reads, or nine reads to a put; fill puts every key once and takes MS for the longest it may last. With RATE that
 * many a second are sent, whatever the answers do, DEPTH under way at the most, and a request's time runs from when
 * it was due. Prints one JSON line; server_cpu_us_per_op is the time of the processes PID, the figure to compare on a
 * busy machine. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/conn.h"
#include "proto/messages.h"

enum {
    VALUE_BYTES = 100,
    VALUE_BYTES_MAX = 64 * 1024,
    KEYS = 10000,
    STRIDE = 7919, /* a prime: every key comes once before the first one comes again */
    DEPTH_MAX = 256,
    WARM_UP_MS = 500,
    ENDPOINTS_MAX = 8,
    MSGID_HELLO = DEPTH_MAX
};

struct bench {
    uv_loop_t loop;
    SSL_CTX *ctx;
    char *endpoints[ENDPOINTS_MAX];
    size_t n_endpoints, at;
    struct conn *conn;
    uint64_t leader_id;

    const char *mode;
    size_t depth;
    uint64_t keys;
    size_t value_bytes;
    uint64_t rate; /* 0: each answer is followed by the next request */
    uv_timer_t pace;
    uint64_t begin_us;
    uint64_t idle[DEPTH_MAX]; /* msgids, when there is a rate */
    size_t n_idle;
    char *pids;
    uint64_t began_us[DEPTH_MAX]; /* by msgid */
    uint64_t n;                   /* requests so far */
    size_t under_way;
    uint64_t measure_us, end_us; /* warm until, and until when */
    double cpu_before_us;
    uint32_t *took_us;
    size_t n_took, cap, errors;
    struct errmsg last_error;
    struct buf params;
};

static void die(const char *what)
{
    (void)fprintf(stderr, "dcs_load: %s\n", what);
    exit(1);
}

/* User and system time of all the servers so far. */
static double servers_cpu_us(const struct bench *b)
{
    char *list = mem_strdup(b->pids), *save = NULL;
    double ticks = 0;
    for (char *pid = strtok_r(list, ",", &save); pid != NULL;
         pid = strtok_r(NULL, ",", &save)) {
        char path[64], text[1024] = "";
        (void)snprintf(path, sizeof path, "/proc/%s/stat", pid);
        FILE *f = fopen(path, "r");
        if (f == NULL || fgets(text, sizeof text, f) == NULL) {
            die("a server is gone");
        }
        (void)fclose(f);
        char *p = strrchr(text, ')');
        for (int field = 2; p != NULL && field < 14; field++) {
            p = strchr(p + 1, ' ');
        }
        if (p != NULL) {
            double user = strtod(p, &p);
            ticks += user + strtod(p, NULL);
        }
    }
    mem_free(list);
    return ticks * 1e6 / (double)sysconf(_SC_CLK_TCK);
}

/* ---- requests ------------------------------------------------------------------------------ */

static void send_one(struct bench *b, uint64_t msgid, uint64_t due_us)
{
    static const char value[VALUE_BYTES_MAX];
    char key[32];
    uint64_t n = b->n++;
    bool get = strcmp(b->mode, "get") == 0 || (strcmp(b->mode, "mix") == 0 && n % 10 != 0);
    (void)snprintf(key, sizeof key, "bench/%08u", (unsigned)(n * STRIDE % b->keys));
    buf_clear(&b->params);
    if (get) {
        struct range_req get_one = {.key = slice_str(key)};
        msg_encode(&msg_range_req, &get_one, &b->params);
    } else {
        struct put_req put = {.key = slice_str(key), .value = slice_of(value, b->value_bytes)};
        msg_encode(&msg_put_req, &put, &b->params);
    }
    b->began_us[msgid] = due_us;
    b->under_way++;
    conn_request(b->conn, msgid, get ? "kv.range" : "kv.put", buf_slice(&b->params));
}

static void note(struct bench *b, uint64_t took_us)
{
    if (b->n_took == b->cap) {
        b->cap = b->cap * 2 + 65536;
        b->took_us = mem_resize(b->took_us, b->cap * sizeof b->took_us[0]);
    }
    b->took_us[b->n_took++] = (uint32_t)took_us;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void report(struct bench *b)
{
    double seconds = (double)(clock_boot_us() - b->measure_us) / 1e6;
    double cpu_us = servers_cpu_us(b) - b->cpu_before_us;
    if (b->n_took == 0) {
        die(b->errors > 0 ? b->last_error.text : "no answer");
    }
    qsort(b->took_us, b->n_took, sizeof b->took_us[0], by_value);
    (void)printf("{\"system\": \"regent\", \"mode\": \"%s\", \"depth\": %zu, \"ops\": %zu, "
                 "\"errors\": %zu, \"per_s\": %.0f, \"p50_us\": %u, \"p99_us\": %u, "
                 "\"max_us\": %u, \"server_cpu_us_per_op\": %.2f}\n",
                 b->mode, b->depth, b->n_took, b->errors, (double)b->n_took / seconds,
                 b->took_us[b->n_took / 2], b->took_us[b->n_took * 99 / 100],
                 b->took_us[b->n_took - 1], cpu_us / (double)b->n_took);
}

static void on_answer(struct bench *b, uint64_t msgid, enum err status)
{
    uint64_t now = clock_boot_us();
    b->under_way--;
    if (b->cpu_before_us == 0 && now >= b->measure_us) {
        b->measure_us = now;
        b->cpu_before_us = servers_cpu_us(b);
    } else if (b->cpu_before_us > 0 && status == ERR_OK) {
        note(b, now - b->began_us[msgid]);
    }
    b->errors += status != ERR_OK;
    bool filled = strcmp(b->mode, "fill") == 0 && b->n >= b->keys;
    if (b->rate > 0) {
        b->idle[b->n_idle++] = msgid; /* on_pace() does the rest */
    } else if (now < b->end_us && !filled) {
        send_one(b, msgid, now);
    } else if (b->under_way == 0) {
        report(b);
        conn_close(b->conn);
    }
}

/* ---- the connection: to whoever leads ------------------------------------------------------ */

static void connect_next(struct bench *b);

static void on_ready(void *arg, const struct pki_identity *id)
{
    struct bench *b = arg;
    struct hello hello = {.version = 1, .name = "dcs_load", .role = "client"};
    (void)id;
    buf_clear(&b->params);
    msg_encode(&msg_hello, &hello, &b->params);
    conn_request(b->conn, MSGID_HELLO, "hello", buf_slice(&b->params));
}

/* What is due by now, a turn each millisecond; the end when all are answered. */
static void on_pace(uv_timer_t *t)
{
    struct bench *b = t->data;
    uint64_t now = clock_boot_us(), due_us = 0;
    while (now < b->end_us && b->n_idle > 0 &&
           (due_us = b->begin_us + b->n * 1000000 / b->rate) <= now) {
        send_one(b, b->idle[--b->n_idle], due_us);
    }
    if (now >= b->end_us && b->under_way == 0) {
        uv_close((uv_handle_t *)t, NULL);
        report(b);
        conn_close(b->conn);
    }
}

static void begin(struct bench *b)
{
    b->begin_us = clock_boot_us();
    b->measure_us = b->begin_us + WARM_UP_MS * 1000ULL;
    b->end_us += b->measure_us;
    if (b->rate == 0) {
        for (size_t i = 0; i < b->depth; i++) {
            send_one(b, i, b->begin_us);
        }
    } else {
        for (size_t i = 0; i < b->depth; i++) {
            b->idle[b->n_idle++] = i;
        }
        (void)uv_timer_init(&b->loop, &b->pace);
        b->pace.data = b;
        (void)uv_timer_start(&b->pace, on_pace, 0, 1);
    }
}

static void on_hello(struct bench *b, enum err status, struct slice result)
{
    struct hello_reply reply;
    if (status != ERR_OK || msg_decode(&msg_hello_reply, result, &reply, NULL) != ERR_OK) {
        die("hello was refused");
    }
    if (reply.leader_id != reply.member_id) {
        conn_close(b->conn);
        return;
    }
    b->leader_id = reply.leader_id;
    begin(b);
}

static void on_response(void *arg, uint64_t msgid, enum err status, const struct errmsg *error,
                        struct slice result)
{
    struct bench *b = arg;
    if (error != NULL && status != ERR_OK) {
        b->last_error = *error;
    }
    if (msgid == MSGID_HELLO) {
        on_hello(b, status, result);
    } else {
        on_answer(b, msgid, status);
    }
}

static void on_closed(void *arg, const struct errmsg *why)
{
    struct bench *b = arg;
    if (b->leader_id == 0) {
        connect_next(b);
    } else if (b->under_way > 0) {
        die(why->text);
    }
}

static void connect_next(struct bench *b)
{
    static const struct conn_ops ops = {
        .ready = on_ready, .response = on_response, .closed = on_closed};
    char host[128];
    uint16_t port;
    if (str_host_port(b->endpoints[b->at++ % b->n_endpoints], host, sizeof host, &port) !=
        ERR_OK) {
        die("not host:port");
    }
    b->conn = conn_connect(&b->loop, host, port, b->ctx, &ops, b);
}

static SSL_CTX *context(const char *pki)
{
    SSL_CTX *ctx = NULL;
    struct errmsg e;
    char *ca = mem_printf("%s/ca.crt", pki), *cert = mem_printf("%s/node.crt", pki),
         *key = mem_printf("%s/node.key", pki);
    if (pki_client_context(ca, cert, key, &ctx, &e) != ERR_OK) {
        die(e.text);
    }
    mem_free(ca);
    mem_free(cert);
    mem_free(key);
    return ctx;
}

static uint64_t number(const char *text, uint64_t max)
{
    uint64_t v = 0;
    if (str_parse_u64(text, &v) != ERR_OK || v == 0 || v > max) {
        die("a number is out of range");
    }
    return v;
}

int main(int argc, char **argv)
{
    static struct bench b;
    char *save = NULL;
    if (argc < 7 || argc > 10) {
        die("usage: dcs_load PKI_DIR ENDPOINTS put|get|mix|fill DEPTH MS PIDS [KEYS "
            "[VALUE_BYTES [RATE]]]");
    }
    (void)signal(SIGPIPE, SIG_IGN);
    b.ctx = context(argv[1]);
    for (char *p = strtok_r(argv[2], ",", &save); p != NULL && b.n_endpoints < ENDPOINTS_MAX;
         p = strtok_r(NULL, ",", &save)) {
        b.endpoints[b.n_endpoints++] = p;
    }
    b.mode = argv[3];
    b.depth = number(argv[4], DEPTH_MAX);
    b.end_us = number(argv[5], 3600 * 1000) * 1000;
    b.pids = argv[6];
    b.keys = argc > 7 ? number(argv[7], 100 * 1000 * 1000) : KEYS;
    b.value_bytes = argc > 8 ? number(argv[8], VALUE_BYTES_MAX) : VALUE_BYTES;
    b.rate = argc > 9 ? number(argv[9], 1000 * 1000) : 0;
    if (b.keys % STRIDE == 0) {
        die("KEYS must not be a multiple of 7919");
    }
    int rc = uv_loop_init(&b.loop);
    ASSERT(rc == 0 && b.n_endpoints > 0);
    connect_next(&b);
    (void)uv_run(&b.loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&b.loop);
    SSL_CTX_free(b.ctx);
    buf_close(&b.params);
    mem_free(b.took_us);
    return 0;
}
