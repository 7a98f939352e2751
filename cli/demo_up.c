/* demo up: from nothing, or from whatever is left, to a cluster in which everybody streams. */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/demo.h"

enum {
    DCS_BASE = 17400,
    REST_BASE = 18008,
    PG_BASE = 15432,
    SHIFT = 10,
    SHIFTS_MAX = 50,
    POLL_MS = 100,
    NODES_DEFAULT = 3
};

/* ---- ports ---- */

static bool port_is_free(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int yes = 1;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0 &&
              bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 1) == 0;
    if (fd >= 0)
        (void)close(fd);
    return ok;
}

/* The first port in use of all that the cluster needs when everything is moved by `shift`; 0: none. */
static int taken_port(int shift, uint64_t nodes)
{
    static const int bases[] = {DCS_BASE, REST_BASE, PG_BASE};
    for (size_t b = 0; b < ARRAY_LEN(bases); b++)
        for (int i = 0; i < (int)nodes; i++)
            if (!port_is_free(bases[b] + shift + i))
                return bases[b] + shift + i;
    return 0;
}

static enum err choose_ports(struct demo *d, int *ret_shift, struct errmsg *e)
{
    int shift = d->base_port != 0 ? (int)d->base_port - DCS_BASE : 0;
    int last = d->base_port != 0 ? shift : SHIFT * SHIFTS_MAX;
    int taken = 0;
    for (; shift <= last; shift += SHIFT) {
        taken = taken_port(shift, d->nodes);
        if (taken == 0) {
            *ret_shift = shift;
            return ERR_OK;
        }
    }
    return err_set(e, ERR_EXISTS, "port %d is in use; name other ports with --base-port",
                   taken);
}

/* Where a cluster that exists has its ports: further nodes go beside it. */
static enum err existing_shift(struct demo *d, int *ret_shift, struct errmsg *e)
{
    struct config config;
    struct buf report CLEANUP(buf_close) = {.max = 65536};
    char host[256];
    uint16_t port = 0;
    if (config_load(d->node[0].config, &config, &report) != ERR_OK)
        return err_set(e, ERR_INVALID,
                       "%s is damaged: %s; `%s demo down --dir %s` removes this demo",
                       d->node[0].config, buf_cstr(&report), d->typed, d->dir);
    enum err rv = str_host_port(config.dcs.listen, host, sizeof host, &port);
    config_close(&config);
    *ret_shift = port - DCS_BASE;
    return rv;
}

/* ---- making nodes ---- */

static void first_line(struct buf *text)
{
    const char *p = buf_cstr(text);
    text->len = strcspn(p, "\n");
    if (str_starts(p, "regentctl: "))
        buf_consume(text, strlen("regentctl: "));
}

static enum err run_or_say(struct demo *d, struct demo_node *n, const char *const *arguments,
                           struct buf *out, struct errmsg *e)
{
    struct buf complaints CLEANUP(buf_close) = {.max = 65536};
    int code = demo_run(d, n, arguments, out, &complaints);
    if (code == CLI_DONE)
        return ERR_OK;
    first_line(&complaints);
    return err_set(e, ERR_IO, "%s: %s", n->name, buf_cstr(&complaints));
}

enum { NUMBER = 24 };

/* init without a token, else join. */
static enum err make_node(struct demo *d, struct demo_node *n, const char *token,
                          struct errmsg *e)
{
    char listen[NUMBER];
    char first[NUMBER];
    char rest[NUMBER];
    char pg[NUMBER];
    char pg_data[DEMO_PATH_MAX];
    int shift = 0;
    int i = (int)(n - d->node);
    struct buf out CLEANUP(buf_close) = {.max = 65536};
    enum err rv = token == NULL ? choose_ports(d, &shift, e) : existing_shift(d, &shift, e);
    if (rv != ERR_OK)
        return rv;
    (void)snprintf(listen, sizeof listen, "127.0.0.1:%d", DCS_BASE + shift + i);
    (void)snprintf(first, sizeof first, "127.0.0.1:%d", DCS_BASE + shift);
    (void)snprintf(rest, sizeof rest, "%d", REST_BASE + shift + i);
    (void)snprintf(pg, sizeof pg, "%d", PG_BASE + shift + i);
    (void)snprintf(pg_data, sizeof pg_data, "%.200s/pg", n->dir);
    const char *common[] = {"--name",
                            n->name,
                            "--listen",
                            listen,
                            "--data-dir",
                            n->dir,
                            "--pg-data",
                            pg_data,
                            "--pg-port",
                            pg,
                            "--rest-port",
                            rest,
                            d->pg_bin != NULL ? "--pg-bin" : NULL,
                            d->pg_bin,
                            NULL};
    const char *init[] = {"init", "--scope", "demo", "--set",
                          d->async ? "bootstrap.dcs.synchronous_mode=\"off\""
                                   : "bootstrap.dcs.synchronous_mode=\"on\""};
    const char *join[] = {"join", first, "--token", token};
    const char *all[ARRAY_LEN(common) + ARRAY_LEN(init)] = {NULL};
    size_t n_words = token == NULL ? ARRAY_LEN(init) : ARRAY_LEN(join);
    memcpy(all, token == NULL ? init : join, n_words * sizeof all[0]);
    memcpy(all + n_words, common, sizeof common);
    rv = run_or_say(d, n, all, &out, e);
    n->exists = rv == ERR_OK;
    if (rv == ERR_OK)
        demo_say(d, "%s: made; DCS %s, REST 127.0.0.1:%s, PostgreSQL 127.0.0.1:%s", n->name,
                 listen, rest, pg);
    return rv;
}

static enum err start_node(struct demo *d, struct demo_node *n, struct errmsg *e)
{
    pid_t pid = demo_find(d, n, "regentd");
    if (pid != 0)
        return ERR_OK;
    /* What is left of a daemon that died alone: a fence or PostgreSQL would be adopted, and is meant to. */
    enum err rv = demo_start(d, n, e);
    if (rv == ERR_OK)
        demo_say(d, "%s: regentd starts, pid %d", n->name, (int)n->started);
    return rv;
}

static enum err start_existing(struct demo *d, struct demo_node **ret_failed, struct errmsg *e)
{
    enum err rv = ERR_OK;
    for (size_t i = 0; i < DEMO_NODES_MAX && rv == ERR_OK; i++) {
        *ret_failed = &d->node[i];
        if (d->node[i].exists)
            rv = start_node(d, &d->node[i], e);
    }
    for (size_t i = 0; i < DEMO_NODES_MAX && rv == ERR_OK; i++) {
        *ret_failed = &d->node[i];
        if (d->node[i].exists)
            rv = demo_wait(d, &d->node[i], e);
    }
    return rv;
}

static bool out_of_time(const struct demo *d)
{
    return clock_mono_ms() - d->start_ms > DEMO_LIMIT_MS;
}

static void wait_a_little(void)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
}

/* A fresh daemon answers before it leads: tries until it can. */
static enum err make_token(struct demo *d, uint64_t uses, struct buf *ret_token,
                           struct errmsg *e)
{
    char number[NUMBER];
    (void)snprintf(number, sizeof number, "%" PRIu64, uses);
    const char *const words[] = {"token", "create", "--uses", number, NULL};
    for (;;) {
        buf_clear(ret_token);
        enum err rv = run_or_say(d, &d->node[0], words, ret_token, e);
        if (rv == ERR_OK || out_of_time(d)) {
            ret_token->len = strcspn(buf_cstr(ret_token), "\n");
            return rv;
        }
        if (demo_died(&d->node[0]))
            return err_set(e, ERR_IO, "regentd of n1 has ended");
        wait_a_little();
    }
}

static enum err join_missing(struct demo *d, struct demo_node **ret_failed, struct errmsg *e)
{
    struct buf token CLEANUP(buf_close) = {.max = 4096};
    size_t have = demo_count(d);
    *ret_failed = &d->node[0];
    if (have >= d->nodes)
        return ERR_OK;
    enum err rv = make_token(d, d->nodes - have, &token, e);
    for (size_t i = 0; i < d->nodes && rv == ERR_OK; i++) {
        struct demo_node *n = &d->node[i];
        if (n->exists)
            continue;
        rv = make_node(d, n, buf_cstr(&token), e);
        *ret_failed = rv == ERR_OK ? n : &d->node[0];
        if (rv == ERR_OK)
            rv = start_node(d, n, e);
    }
    return rv;
}

/* ---- waiting for health ---- */

bool demo_list(struct demo *d, json_t **ret_list, struct buf *complaints)
{
    static const char *const words[] = {"list", "-f", "json", NULL};
    *ret_list = NULL;
    for (size_t i = 0; i < DEMO_NODES_MAX && *ret_list == NULL; i++) {
        struct buf out CLEANUP(buf_close) = {.max = 1 << 20};
        if (!d->node[i].exists || !demo_answers(&d->node[i]))
            continue;
        buf_clear(complaints);
        if (demo_run(d, &d->node[i], words, &out, complaints) == CLI_DONE)
            *ret_list = json_loadb((const char *)out.p, out.len, 0, NULL);
    }
    return json_is_array(*ret_list);
}

static const char *text_of(const json_t *row, const char *name)
{
    const char *text = json_string_value(json_object_get(row, name));
    return text != NULL ? text : "";
}

struct health {
    size_t leaders, streaming, synchronous;
};

/* Counts, and says what is new about each node. */
static void look_at(struct demo *d, const json_t *list, struct health *ret)
{
    size_t i;
    json_t *row;
    *ret = (struct health){0};
    json_array_foreach((json_t *)list, i, row)
    {
        const char *role = text_of(row, "Role");
        const char *state = text_of(row, "State");
        bool leads = strcmp(role, "Leader") == 0;
        struct demo_node *n = demo_node(d, text_of(row, "Member"));
        char now[sizeof n->shown];
        ret->leaders += leads && strcmp(state, "running") == 0;
        ret->streaming += !leads && strcmp(state, "streaming") == 0;
        ret->synchronous +=
            strcmp(role, "Sync Standby") == 0 || strcmp(role, "Quorum Standby") == 0;
        (void)snprintf(now, sizeof now, "%.24s, %.32s", role, state);
        if (n == NULL || strcmp(now, n->shown) == 0)
            continue;
        str_cut(n->shown, sizeof n->shown, now);
        demo_say(d, "%s: %s", n->name, now);
    }
}

static bool is_synchronous(struct demo *d)
{
    static const char *const words[] = {"show-config", "-f", "json", NULL};
    struct buf out CLEANUP(buf_close) = {.max = 1 << 20};
    struct buf complaints CLEANUP(buf_close) = {.max = 65536};
    for (size_t i = 0; i < DEMO_NODES_MAX; i++)
        if (d->node[i].exists && demo_run(d, &d->node[i], words, &out, &complaints) == CLI_DONE)
            break;
    json_t *config = json_loadb((const char *)out.p, out.len, 0, NULL);
    bool on = strcmp(text_of(config, "synchronous_mode"), "off") != 0 &&
              text_of(config, "synchronous_mode")[0] != '\0';
    json_decref(config);
    return on;
}

/* Records hang on leases, which outlive a power cut: what a node said before we started its daemon is old. */
static bool is_old(const struct demo *d, const char *json)
{
    json_t *record = json_loads(json, 0, NULL);
    const char *name = text_of(record, "name");
    bool old = false;
    for (size_t i = 0; i < DEMO_NODES_MAX; i++)
        old = old || (d->node[i].started != 0 && strcmp(d->node[i].name, name) == 0 &&
                      (uint64_t)json_integer_value(json_object_get(record, "since_ms")) <
                          d->start_wall_ms);
    json_decref(record);
    return old;
}

static bool all_fresh(struct demo *d)
{
    static const char *const words[] = {
        "-f", "json", "dcs", "get", "--prefix", "/regent/demo/members/", NULL};
    struct buf out CLEANUP(buf_close) = {.max = 1 << 20};
    struct buf complaints CLEANUP(buf_close) = {.max = 65536};
    size_t i;
    json_t *kv;
    for (i = 0; i < DEMO_NODES_MAX; i++)
        if (d->node[i].exists && demo_run(d, &d->node[i], words, &out, &complaints) == CLI_DONE)
            break;
    json_t *list = json_loadb((const char *)out.p, out.len, 0, NULL);
    bool fresh = json_is_array(list);
    json_array_foreach(list, i, kv) fresh = fresh && !is_old(d, text_of(kv, "value"));
    json_decref(list);
    return fresh;
}

static struct demo_node *dead_node(struct demo *d)
{
    for (size_t i = 0; i < DEMO_NODES_MAX; i++)
        if (d->node[i].exists && demo_died(&d->node[i]))
            return &d->node[i];
    return NULL;
}

/* The node to blame when it takes too long: one that neither leads nor streams. */
static struct demo_node *slow_node(struct demo *d)
{
    for (size_t i = 0; i < DEMO_NODES_MAX; i++)
        if (d->node[i].exists && strstr(d->node[i].shown, "streaming") == NULL &&
            strcmp(d->node[i].shown, "Leader, running") != 0)
            return &d->node[i];
    return &d->node[0];
}

static enum err wait_health(struct demo *d, struct demo_node **ret_failed, struct errmsg *e)
{
    struct buf complaints CLEANUP(buf_close) = {.max = 65536};
    bool asked = false;
    bool synchronous = false;
    bool fresh = false;
    for (; !out_of_time(d); wait_a_little()) {
        struct health h = {0};
        json_t *list;
        fresh = fresh || all_fresh(d); /* before the look that goes by it */
        if (demo_list(d, &list, &complaints) && fresh)
            look_at(d, list, &h);
        json_decref(list);
        bool all = h.leaders == 1 && h.streaming + 1 == demo_count(d);
        if (all && !asked)
            synchronous = is_synchronous(d);
        asked = asked || all;
        if (all && (!synchronous || h.synchronous > 0 || demo_count(d) == 1))
            return ERR_OK;
        *ret_failed = dead_node(d);
        if (*ret_failed != NULL)
            return err_set(e, ERR_IO, "regentd of %s has ended", (*ret_failed)->name);
    }
    *ret_failed = slow_node(d);
    first_line(&complaints);
    return err_set(e, ERR_TIMEOUT, "%s is not well within %d s (%s)", (*ret_failed)->name,
                   DEMO_LIMIT_MS / 1000,
                   complaints.len > 0 ? buf_cstr(&complaints) : (*ret_failed)->shown);
}

/* ---- the way ---- */

static void farewell(const struct demo *d)
{
    (void)printf("The cluster is up (%.1f s). Look at it:\n"
                 "  %s -c %s list\n"
                 "  %s demo status --dir %s\n"
                 "  %s demo psql --dir %s\n"
                 "Kill a node, then bring it back:\n"
                 "  %s demo kill n1 --dir %s\n"
                 "  %s demo start n1 --dir %s\n"
                 "Remove everything:\n"
                 "  %s demo down --dir %s\n",
                 (double)(clock_mono_ms() - d->start_ms) / 1000, d->typed, d->node[0].config,
                 d->typed, d->dir, d->typed, d->dir, d->typed, d->dir, d->typed, d->dir,
                 d->typed, d->dir);
}

int demo_up(struct demo *d)
{
    struct errmsg e = {0};
    struct demo_node *failed = &d->node[0];
    size_t have = demo_count(d);
    enum err rv = ERR_OK;
    if (d->nodes == 0)
        d->nodes = have > 0 ? have : NODES_DEFAULT;
    if (have > 0 && (d->async || d->base_port != 0))
        demo_say(d, "the cluster exists: --async and --base-port are for a new one");
    else if (have == 0 && d->user[0] != '\0')
        demo_say(d, "everything runs as user %s in %s", d->user, d->dir);
    if (have == 0)
        rv = make_node(d, &d->node[0], NULL, &e);
    if (rv == ERR_OK)
        rv = start_existing(d, &failed, &e);
    if (rv == ERR_OK)
        rv = join_missing(d, &failed, &e);
    if (rv == ERR_OK)
        rv = wait_health(d, &failed, &e);
    if (rv != ERR_OK) {
        (void)cli_fail(rv, "demo up: %s", e.text);
        demo_show_log(failed);
        return CLI_FAILED;
    }
    farewell(d);
    return CLI_DONE;
}
