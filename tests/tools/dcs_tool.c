/* Any method of the wire protocol from a command line, for tests; not installed.
 *
 *     dcs_tool [-p PKI_DIR] [-t MS] ENDPOINT[,ENDPOINT...] call METHOD JSON
 *     dcs_tool ...                                 lines         "METHOD JSON" a line on stdin, one JSON line each
 *     dcs_tool ...                                 watch KEY END START       one JSON line an event, until killed
 *     dcs_tool ...                                 load PREFIX WORKERS MS    puts, until SIGTERM or so long; a line
 *                                                                            "ok KEY" or "outcome_unknown KEY"
 *
 * A connection is tried for MS, and a call waits for as long as its deadline_ms says, else MS: half a minute, which is
 * through a change of leader on a slow machine.
 * An answer is {"ok": {...}} or {"error": "name", "text": "..."}. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/client.h"

enum { OBJECT_MAX = 1 << 20 };

static uint64_t patience_ms = 30000;

static void die(const struct errmsg *e)
{
    (void)fprintf(stderr, "dcs_tool: %s\n", e->text);
    exit(1);
}

static void say_error(enum err status, const char *text)
{
    char quoted[1024];
    size_t n = 0;
    for (; *text != '\0' && n + 2 < sizeof quoted; text++) {
        if (*text == '"' || *text == '\\') {
            quoted[n++] = '\\';
        }
        quoted[n++] = *text;
    }
    quoted[n] = '\0';
    (void)printf("{\"error\": \"%s\", \"text\": \"%s\"}\n", err_name(status), quoted);
}

static uint64_t deadline_ms_of(enum method m, const void *params)
{
    const struct msg *p = method_table[m].params;
    uint64_t ms = 0;
    for (size_t i = 0; i < p->n_fields; i++) {
        if (strcmp(p->fields[i].name, "deadline_ms") == 0) {
            memcpy(&ms, (const char *)params + p->fields[i].offset, sizeof ms);
        }
    }
    return ms != 0 ? ms : patience_ms;
}

static bool call(struct client_sync *c, const char *method, const char *json)
{
    enum method m = method_find(slice_str(method));
    struct errmsg e = {.text = "no such method"};
    struct msg_arena arena = MSG_ARENA_INIT;
    struct buf CLEANUP(buf_close) out = BUF_INIT;
    void *params = mem_alloc(OBJECT_MAX), *result = mem_alloc(OBJECT_MAX);
    enum err err = m == METHOD_COUNT ? ERR_INVALID : ERR_OK;
    if (err == ERR_OK) {
        err = msg_from_json(method_table[m].params, slice_str(json), params, &arena, &e);
    }
    if (err == ERR_OK) {
        err = client_sync_call(c, m, params, deadline_ms_of(m, params), result, &e);
    }
    if (err == ERR_OK) {
        msg_to_json(method_table[m].result, result, &out);
        (void)printf("{\"ok\": %s}\n", buf_cstr(&out));
    } else {
        say_error(err, e.text);
    }
    (void)fflush(stdout);
    msg_arena_close(&arena);
    mem_free(params);
    mem_free(result);
    return err == ERR_OK;
}

static int lines(struct client_sync *c)
{
    char *line = NULL;
    size_t cap = 0;
    while (getline(&line, &cap, stdin) > 0) {
        line[strcspn(line, "\n")] = '\0';
        char *space = strchr(line, ' ');
        if (space != NULL) {
            *space = '\0';
        }
        (void)call(c, line, space != NULL ? space + 1 : "{}");
    }
    free(line);
    return 0;
}

static void on_watch(void *arg, enum err status, const struct watch_event *ev)
{
    struct buf CLEANUP(buf_close) out = BUF_INIT;
    (void)arg;
    if (status != ERR_OK) {
        say_error(status, err_text(status));
    } else {
        msg_to_json(&msg_watch_event, ev, &out);
        (void)printf("%s\n", buf_cstr(&out));
    }
    (void)fflush(stdout);
}

static int watch(struct client_sync *c, const char *key, const char *end, uint64_t start)
{
    struct watch_req req = {
        .key = slice_str(key), .end = slice_str(end), .start_revision = start};
    struct errmsg e;
    bool stop = false;
    if (strcmp(end, "*") == 0) {
        req.end = slice_of("", 1);
    }
    return client_sync_watch(c, &req, on_watch, NULL, &stop, 0, &e) == ERR_OK ? 0 : 1;
}

/* ---- load ---------------------------------------------------------------------------------- */

struct load {
    struct client *client;
    uv_signal_t term;
    const char *prefix;
    uint64_t until_ms, next, under_way;
};

struct one {
    struct load *load;
    char key[128];
};

static void put_next(struct load *l);

static void on_put(void *arg, const struct client_reply *reply)
{
    struct one *o = arg;
    struct load *l = o->load;
    (void)printf("%s %s\n", reply->status == ERR_OK ? "ok" : err_name(reply->status), o->key);
    mem_free(o);
    l->under_way--;
    if (clock_mono_ms() < l->until_ms) {
        put_next(l);
    } else if (l->under_way == 0) {
        client_close(l->client, NULL, NULL);
        uv_close((uv_handle_t *)&l->term, NULL);
    }
}

static void put_next(struct load *l)
{
    struct one *o = mem_alloc(sizeof *o);
    o->load = l;
    (void)snprintf(o->key, sizeof o->key, "%s%08llu", l->prefix, (unsigned long long)l->next++);
    struct put_req put = {.key = slice_str(o->key), .value = slice_str(o->key)};
    l->under_way++;
    client_call(l->client, METHOD_KV_PUT, &put, patience_ms, on_put, o);
}

static void on_term(uv_signal_t *h, int number)
{
    struct load *l = h->data;
    (void)number;
    l->until_ms = 0; /* what is under way comes to its end */
}

static int load(const struct client_options *o, const char *prefix, uint64_t workers,
                uint64_t ms)
{
    uv_loop_t loop;
    struct errmsg e;
    struct load l = {.prefix = prefix, .until_ms = clock_mono_ms() + ms};
    if (uv_loop_init(&loop) != 0 || client_new(&loop, o, &l.client, &e) != ERR_OK) {
        die(&e);
    }
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    l.term.data = &l;
    if (uv_signal_init(&loop, &l.term) != 0 ||
        uv_signal_start(&l.term, on_term, SIGTERM) != 0) {
        return 1;
    }
    while (workers-- > 0) {
        put_next(&l);
    }
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    (void)fflush(stdout);
    return uv_loop_close(&loop) == 0 ? 0 : 1;
}

static void endpoints(struct client_options *o, char *text)
{
    char *save = NULL;
    for (char *p = strtok_r(text, ",", &save);
         p != NULL && o->n_endpoints < CLIENT_ENDPOINTS_MAX; p = strtok_r(NULL, ",", &save)) {
        o->endpoints[o->n_endpoints++] = p;
    }
}

static uint64_t number(const char *text)
{
    uint64_t v = 0;
    return str_parse_u64(text, &v) == ERR_OK ? v : 0;
}

static char ca_file[4096], cert_file[4096], key_file[4096];

static void use_pki(struct client_options *o, const char *dir)
{
    (void)snprintf(ca_file, sizeof ca_file, "%s/ca.crt", dir);
    (void)snprintf(cert_file, sizeof cert_file, "%s/node.crt", dir);
    (void)snprintf(key_file, sizeof key_file, "%s/node.key", dir);
    o->ca_file = ca_file;
    o->cert_file = cert_file;
    o->key_file = key_file;
}

int main(int argc, char **argv)
{
    struct client_options o = {.name = "dcs_tool"};
    struct client_sync *c = NULL;
    struct errmsg e;
    int i = 1;
    (void)signal(SIGPIPE, SIG_IGN);
    for (; i + 1 < argc && argv[i][0] == '-'; i += 2) {
        if (strcmp(argv[i], "-p") == 0) {
            use_pki(&o, argv[i + 1]);
        } else if (strcmp(argv[i], "-t") == 0) {
            patience_ms = number(argv[i + 1]);
        }
    }
    if (argc - i < 2) {
        (void)fprintf(
            stderr,
            "usage: dcs_tool [-p PKI_DIR] [-t MS] ENDPOINTS call|lines|watch|load ...\n");
        return 2;
    }
    endpoints(&o, argv[i]);
    const char *verb = argv[i + 1];
    if (strcmp(verb, "load") == 0 && argc - i == 5) {
        return load(&o, argv[i + 2], number(argv[i + 3]), number(argv[i + 4]));
    }
    if (client_sync_open(&o, patience_ms, &c, &e) != ERR_OK) {
        die(&e);
    }
    int rc = 2;
    if (strcmp(verb, "call") == 0 && argc - i == 4) {
        rc = call(c, argv[i + 2], argv[i + 3]) ? 0 : 1;
    } else if (strcmp(verb, "lines") == 0) {
        rc = lines(c);
    } else if (strcmp(verb, "watch") == 0 && argc - i == 5) {
        rc = watch(c, argv[i + 2], argv[i + 3], number(argv[i + 4]));
    }
    client_sync_close(c);
    return rc;
}
