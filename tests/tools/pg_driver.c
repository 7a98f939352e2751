/* One node's PostgreSQL under a real fence and worker, driven by lines on stdin; JSON lines on stdout.
 *
 *   pg_driver NAME DIR PORT          data_dir DIR, PGDATA DIR/pg
 *
 *   view                             {"view": {...}}
 *   arm TOKEN MS                     the fence holds a deadline MS from now
 *   extend MS                        ... a later one
 *   run ACTION [key=value...]        {"done": ACTION, "status": ..., "text": ...} when it ends
 *       target=NAME,HOST,PORT token= timeline= lineage= k= s=A,B deadline=MS
 *   cancel | closely 0|1
 *   configure JSON                   {"postgresql": {...}, "members": [...], "slots": true}
 *   quit [leave] */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/postgres.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"

struct driver {
    uv_loop_t loop;
    uv_pipe_t in;
    uv_timer_t quit;
    struct buf line;
    struct config config;
    struct fence *fence;
    struct postgres *pg;
    enum plan_action running;
    char piece[4096];
};

static struct driver d;

static void say(json_t *j)
{
    char *text = json_dumps(j, JSON_COMPACT);
    (void)printf("%s\n", text);
    (void)fflush(stdout);
    free(text);
    json_decref(j);
}

static json_t *set_json(const struct sync_set *s)
{
    json_t *names = json_array();
    for (size_t i = 0; i < s->s_n; i++)
        (void)json_array_append_new(names, json_string(s->s[i]));
    return json_pack("{s:I,s:o}", "k", (json_int_t)s->k, "s", names);
}

static const char *const procs[] = {"stopped", "starting", "running", "stopping", "dying"};
static const char *const datas[] = {"unknown", "empty", "ours", "broken"};

static void add_senders(json_t *j, const struct view_pg *v)
{
    json_t *list = json_array();
    for (size_t i = 0; i < v->senders_n; i++)
        (void)json_array_append_new(list, json_pack("{s:s,s:b,s:I}", "incarnation",
                                                    v->senders[i].incarnation, "streaming",
                                                    (int)v->senders[i].streaming, "flush_lsn",
                                                    (json_int_t)v->senders[i].flush_lsn));
    (void)json_object_set_new(j, "senders", list);
}

static void say_view(void)
{
    static struct view_pg v;
    postgres_observe(d.pg, &v);
    json_t *j = json_object();
#define NUM(f) (void)json_object_set_new(j, #f, json_integer((json_int_t)v.f))
#define FLAG(f) (void)json_object_set_new(j, #f, json_boolean(v.f))
#define WORD(f) (void)json_object_set_new(j, #f, json_string(v.f))
    (void)json_object_set_new(j, "proc", json_string(procs[v.proc]));
    (void)json_object_set_new(j, "data", json_string(datas[v.data]));
    NUM(timeline), NUM(lsn), NUM(replay_lsn), NUM(shutdown_lsn), NUM(recovery_ms), NUM(parent);
    NUM(switch_lsn), NUM(follow_token), NUM(sealed_token), NUM(sealed_lsn),
        NUM(sealed_timeline);
    NUM(old_n);
    FLAG(standby_signal), FLAG(in_recovery), FLAG(accepts), FLAG(crashed), FLAG(clean);
    FLAG(walreceiver), FLAG(streaming), FLAG(stuck), FLAG(rewind_failed), FLAG(roles_ready);
    FLAG(checkpointed), FLAG(set_known), FLAG(set_confirmed);
    WORD(incarnation), WORD(upstream), WORD(lineage), WORD(trouble);
    (void)json_object_set_new(j, "system_id",
                              json_sprintf("%llu", (unsigned long long)v.system_id));
    (void)json_object_set_new(j, "set", set_json(&v.set));
    (void)json_object_set_new(j, "armed", json_boolean(fence_state(d.fence)->armed));
    (void)json_object_set_new(j, "postmaster",
                              json_integer((json_int_t)fence_state(d.fence)->postmaster));
    add_senders(j, &v);
    say(json_pack("{s:o}", "view", j));
}

static void done_cb(void *arg, enum err status, const struct errmsg *e)
{
    (void)arg;
    say(json_pack("{s:s,s:s,s:s}", "done", plan_action_name(d.running), "status",
                  err_name(status), "text", e->text));
    d.running = ACTION_NONE;
}

static uint64_t number(const char *text)
{
    return strtoull(text, NULL, 10);
}

static void take_option(char *word, struct plan *p, struct postgres_upstream *up,
                        uint64_t *deadline_ms)
{
    char *value = strchr(word, '=');
    if (value == NULL)
        return;
    *value++ = '\0';
    if (strcmp(word, "token") == 0)
        p->token = number(value);
    else if (strcmp(word, "timeline") == 0)
        p->timeline = number(value);
    else if (strcmp(word, "k") == 0)
        p->set.k = number(value);
    else if (strcmp(word, "remove_old") == 0)
        p->remove_old = number(value) != 0;
    else if (strcmp(word, "deadline") == 0)
        *deadline_ms = clock_boot_ms() + number(value);
    else if (strcmp(word, "lineage") == 0)
        (void)snprintf(p->lineage, sizeof p->lineage, "%s", value);
    else if (strcmp(word, "s") == 0)
        for (char *s = strtok(value, ","); s != NULL; s = strtok(NULL, ","))
            (void)snprintf(p->set.s[p->set.s_n++], 64, "%s", s);
    else if (strcmp(word, "target") == 0)
        (void)sscanf(value, "%63[^,],%127[^,],%7s", up->name, up->host, up->port);
}

static void run(char *text)
{
    static struct plan p;
    struct postgres_upstream up = {.port = ""};
    uint64_t deadline_ms = 0;
    char *rest = NULL;
    char *name = strtok_r(text, " ", &rest);
    memset(&p, 0, sizeof p);
    p.rule = "driver";
    for (int a = ACTION_NONE; name != NULL && a < ACTION_COUNT; a++)
        if (strcasecmp(plan_action_name((enum plan_action)a), name) == 0)
            p.action = (enum plan_action)a;
    char *words[16] = {NULL};
    size_t n = 0;
    for (char *w = strtok_r(NULL, " ", &rest); w != NULL && n < 16;
         w = strtok_r(NULL, " ", &rest))
        words[n++] = w;
    for (size_t i = 0; i < n; i++)
        take_option(words[i], &p, &up, &deadline_ms);
    (void)snprintf(p.target, sizeof p.target, "%s", up.name);
    d.running = p.action;
    postgres_run(d.pg, &p, up.port[0] != '\0' ? &up : NULL, deadline_ms, done_cb, NULL);
}

static void configure(const char *text)
{
    struct postgres_dynamic c = {.retry_interval_ms = 100};
    json_t *j = json_loads(text, 0, NULL);
    char *pg = json_dumps(json_object_get(j, "postgresql"), JSON_ENCODE_ANY);
    size_t i;
    json_t *m;
    json_array_foreach(json_object_get(j, "members"), i, m)(void)
        snprintf(c.members[c.members_n++], 64, "%s", json_string_value(m));
    c.slot_ttl_ms = (uint64_t)json_integer_value(json_object_get(j, "slot_ttl_ms"));
    c.use_slots = json_is_true(json_object_get(j, "slots"));
    c.parameters_json = pg != NULL ? slice_str(pg) : slice_of(NULL, 0);
    postgres_configure(d.pg, &c);
    free(pg);
    json_decref(j);
}

static void quit_cb(uv_timer_t *t)
{
    (void)t;
    exit(0);
}

static void quit(bool leave)
{
    postgres_free(d.pg);
    fence_close(d.fence, leave);
    uv_close((uv_handle_t *)&d.in, NULL);
    (void)uv_timer_start(&d.quit, quit_cb, 200, 0);
}

static void obey(char *line)
{
    if (strcmp(line, "view") == 0)
        say_view();
    else if (str_starts(line, "run "))
        run(line + 4);
    else if (strcmp(line, "cancel") == 0)
        postgres_cancel(d.pg);
    else if (str_starts(line, "configure "))
        configure(line + 10);
    else if (str_starts(line, "closely "))
        postgres_watch_closely(d.pg, line[8] == '1');
    else if (str_starts(line, "extend "))
        fence_extend(d.fence, clock_boot_ms() + number(line + 7));
    else if (str_starts(line, "arm ")) {
        unsigned long long token = 0;
        unsigned long long ms = 0;
        (void)sscanf(line, "arm %llu %llu", &token, &ms);
        if (fence_arm(d.fence, token, clock_boot_ms() + ms) != ERR_OK)
            (void)fprintf(stderr, "arm failed\n");
    } else if (str_starts(line, "quit")) {
        quit(strstr(line, "leave") != NULL);
    }
}

static void alloc_cb(uv_handle_t *h, size_t n, uv_buf_t *ret)
{
    (void)h;
    (void)n;
    *ret = uv_buf_init(d.piece, sizeof d.piece);
}

static void read_cb(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    (void)s;
    if (n < 0) {
        quit(false);
        return;
    }
    buf_append(&d.line, b->base, (size_t)n);
    uint8_t *end;
    while (d.line.len > 0 && (end = memchr(d.line.p, '\n', d.line.len)) != NULL) {
        char *line = mem_dup(d.line.p, (size_t)(end - d.line.p));
        buf_consume(&d.line, (size_t)(end - d.line.p) + 1);
        obey(line);
        mem_free(line);
    }
}

static void fence_changed(void *arg, const struct fence_state *s)
{
    (void)arg;
    (void)s;
    if (d.pg != NULL)
        postgres_fence_changed(d.pg);
}

static void fence_lost(void *arg)
{
    (void)arg;
    if (d.pg != NULL)
        postgres_fence_changed(d.pg);
}

static void set_config(char **argv)
{
    struct config *c = &d.config;
    const char *bin = getenv("PG_BIN");
    c->scope = mem_strdup("test");
    c->name = mem_strdup(argv[1]);
    c->data_dir = mem_strdup(argv[2]);
    c->postgresql.listen = mem_printf("127.0.0.1:%s", argv[3]);
    c->postgresql.connect_address = mem_strdup(c->postgresql.listen);
    c->postgresql.data_dir = mem_printf("%s/pg", argv[2]);
    c->postgresql.bin_dir = mem_strdup(bin != NULL ? bin : "");
    c->postgresql.authentication.superuser =
        (struct conf_user){mem_strdup("postgres"), mem_strdup("su'per:\\1")};
    c->postgresql.authentication.replication =
        (struct conf_user){mem_strdup("replicator"), mem_strdup("re:p\\l'2")};
    c->postgresql.authentication.rewind =
        (struct conf_user){mem_strdup("rewinder"), mem_strdup("rw\"3")};
    static const struct conf_pair few[] = {
        {(char *)"max_connections", (char *)"20"},
        {(char *)"shared_buffers", (char *)"16MB"},
        {(char *)"max_standby_streaming_delay", (char *)"-1"},
        {(char *)"min_wal_size", (char *)"32MB"}};
    for (size_t i = 0; i < ARRAY_LEN(few); i++)
        c->postgresql.parameters[c->postgresql.n_parameters++] = few[i];
    c->bootstrap.initdb[c->bootstrap.n_initdb++] = mem_strdup("--encoding=UTF8");
}

int main(int argc, char **argv)
{
    static const struct fence_ops fence_ops = {.changed = fence_changed, .lost = fence_lost};
    static const struct postgres_ops pg_ops = {.changed = NULL};
    struct errmsg e = {0};
    if (argc != 4 && argc != 5)
        return 2;
    set_config(argv);
    (void)uv_loop_init(&d.loop);
    struct fence_options fo = {
        .data_dir = argv[2], .spawn = true, .kill_budget_ms = argc == 5 ? number(argv[4]) : 0};
    if (fence_open(&d.loop, &fo, &fence_ops, NULL, &d.fence, &e) != ERR_OK) {
        (void)fprintf(stderr, "fence: %s\n", e.text);
        return 1;
    }
    struct postgres_options po = {.config = &d.config, .fence = d.fence};
    if (postgres_new(&d.loop, &po, &pg_ops, NULL, &d.pg, &e) != ERR_OK) {
        (void)fprintf(stderr, "postgres: %s\n", e.text);
        return 1;
    }
    (void)uv_timer_init(&d.loop, &d.quit);
    (void)uv_pipe_init(&d.loop, &d.in, 0);
    (void)uv_pipe_open(&d.in, 0);
    (void)uv_read_start((uv_stream_t *)&d.in, alloc_cb, read_cb);
    return uv_run(&d.loop, UV_RUN_DEFAULT);
}
