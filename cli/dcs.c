/* dcs put|del|watch|status|transfer: etcdctl's options where they exist. */
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/dcs.h"

/* ---- options that key commands share ---- */

struct keys {
    struct slice key, end;
    char *text; /* owned: the end of a prefix */
    bool prefix, from_key, prev, ignore_value, ignore_lease;
    uint64_t rev, lease;
    char **rest;
    int rest_n;
};

/* It ends at the prefix with its last byte that is not 0xff raised; everything: "\0". */
char *dcs_prefix(struct slice *key, struct slice *ret_end)
{
    size_t n = key->n;
    char *text = mem_dup(key->p, n);
    while (n > 0 && (uint8_t)text[n - 1] == 0xff)
        n--;
    if (n > 0)
        text[n - 1]++;
    *ret_end = slice_of(n > 0 ? text : "", MAX(n, (size_t)1));
    if (key->n == 0)
        *key = slice_of("", 1); /* an empty key names none: from "\0" on */
    return text;
}

static bool *flag_of(struct keys *k, int option)
{
    return option == 'p'   ? &k->prefix
           : option == 'f' ? &k->from_key
           : option == 'v' ? &k->prev
           : option == 'i' ? &k->ignore_value
           : option == 'I' ? &k->ignore_lease
                           : NULL;
}

static int parse_options(struct keys *k, const struct option *options, int argc, char **argv)
{
    int option;
    *k = (struct keys){0};
    optind = 1;
    while ((option = cli_option(argc, argv, options)) != -1) {
        uint64_t *number = option == 'r' ? &k->rev : &k->lease;
        if (option == CLI_BAD_OPTION)
            return CLI_USAGE;
        if (flag_of(k, option) != NULL)
            *flag_of(k, option) = true;
        else if (str_parse_u64(optarg, number) != ERR_OK)
            return cli_usage("\"%s\" is not a number", optarg);
    }
    k->rest = argv + optind;
    k->rest_n = argc - optind;
    return 0;
}

/* KEY [END] */
static int parse_range(struct keys *k, const struct option *options, int argc, char **argv)
{
    int rv = parse_options(k, options, argc, argv);
    if (rv != 0)
        return rv;
    if (k->rest_n < 1 || k->rest_n > 2)
        return cli_usage("one KEY is needed, and END at most");
    if (k->from_key + k->prefix + (k->rest_n == 2) > 1)
        return cli_usage(
            "END, --prefix and --from-key say where the range ends: one is enough");
    k->key = slice_str(k->rest[0]);
    if (k->prefix)
        k->text = dcs_prefix(&k->key, &k->end);
    else if (k->from_key)
        k->end = slice_of("", 1);
    else if (k->rest_n == 2)
        k->end = slice_str(k->rest[1]);
    return 0;
}

void dcs_print_bytes(struct slice s)
{
    (void)fwrite(s.p, 1, s.n, stdout);
    (void)fputc('\n', stdout);
}

void dcs_print_result(const struct msg *m, const void *result)
{
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    msg_to_json(m, result, &b);
    dcs_print_bytes(buf_slice(&b));
}

void dcs_print_kvs(struct slice kvs)
{
    struct msg_iter it;
    struct kv kv;
    if (msg_iter_init(&it, kvs) != ERR_OK)
        return;
    while (msg_iter_next(&it, &msg_kv, &kv, NULL) == ERR_OK) {
        dcs_print_bytes(kv.key);
        dcs_print_bytes(kv.value);
    }
}

/* ---- commands ---- */

int cmd_dcs_put(struct cli *c, int argc, char **argv)
{
    static const struct option options[] = {{"prev-kv", no_argument, NULL, 'v'},
                                            {"lease", required_argument, NULL, 'L'},
                                            {"ignore-value", no_argument, NULL, 'i'},
                                            {"ignore-lease", no_argument, NULL, 'I'},
                                            {NULL, 0, NULL, 0}};
    struct keys k;
    struct op_result reply;
    int rv = parse_options(&k, options, argc, argv);
    if (rv != 0)
        return rv;
    if (k.rest_n != (k.ignore_value ? 1 : 2))
        return cli_usage(k.ignore_value ? "with --ignore-value KEY alone is needed"
                                        : "KEY and VALUE are needed");
    struct put_req r = {.key = slice_str(k.rest[0]),
                        .value = slice_str(k.ignore_value ? "" : k.rest[1]),
                        .lease = k.lease,
                        .prev_kv = k.prev,
                        .ignore_value = k.ignore_value,
                        .ignore_lease = k.ignore_lease};
    enum err err = cli_call(c, METHOD_KV_PUT, &r, &reply);
    if (err == ERR_OK && c->format == CLI_JSON)
        dcs_print_result(&msg_op_result, &reply);
    else if (err == ERR_OK)
        (void)printf("OK\n");
    if (err == ERR_OK && c->format != CLI_JSON)
        dcs_print_kvs(reply.kvs);
    return cli_exit_code(err);
}

int cmd_dcs_del(struct cli *c, int argc, char **argv)
{
    static const struct option options[] = {{"prefix", no_argument, NULL, 'p'},
                                            {"from-key", no_argument, NULL, 'f'},
                                            {"prev-kv", no_argument, NULL, 'v'},
                                            {NULL, 0, NULL, 0}};
    struct keys k;
    struct op_result reply;
    int rv = parse_range(&k, options, argc, argv);
    if (rv != 0)
        return rv;
    struct delete_req r = {.key = k.key, .end = k.end, .prev_kv = k.prev};
    enum err err = cli_call(c, METHOD_KV_DELETE, &r, &reply);
    if (err == ERR_OK && c->format == CLI_JSON)
        dcs_print_result(&msg_op_result, &reply);
    else if (err == ERR_OK)
        (void)printf("%" PRIu64 "\n", reply.count);
    if (err == ERR_OK && c->format != CLI_JSON)
        dcs_print_kvs(reply.kvs);
    mem_free(k.text);
    return cli_exit_code(err);
}

/* Whoever reads our output slowly is waited for. */
enum { WATCH_WINDOW = 1024 * 1024 };

struct follow {
    const struct cli *c;
    bool stop;
    enum err why;
};

static void on_event(void *arg, enum err status, const struct watch_event *ev)
{
    struct follow *f = arg;
    struct msg_iter it;
    struct event one;
    if (status != ERR_OK) {
        f->why = status;
        f->stop = true;
        return;
    }
    if (msg_iter_init(&it, ev->events) != ERR_OK)
        return;
    while (msg_iter_next(&it, &msg_event, &one, NULL) == ERR_OK) {
        if (f->c->format == CLI_JSON) {
            dcs_print_result(&msg_event, &one);
            continue;
        }
        (void)printf("%s\n", strcmp(one.type, "put") == 0 ? "PUT" : "DELETE");
        if (one.prev.mod_revision != 0) {
            dcs_print_bytes(one.prev.key);
            dcs_print_bytes(one.prev.value);
        }
        dcs_print_bytes(one.kv.key);
        if (strcmp(one.type, "put") == 0)
            dcs_print_bytes(one.kv.value);
    }
    if (fflush(stdout) != 0)
        f->stop = true; /* nobody reads any more */
}

int cmd_dcs_watch(struct cli *c, int argc, char **argv)
{
    static const struct option options[] = {{"prefix", no_argument, NULL, 'p'},
                                            {"prev-kv", no_argument, NULL, 'v'},
                                            {"rev", required_argument, NULL, 'r'},
                                            {NULL, 0, NULL, 0}};
    struct keys k;
    struct errmsg e = {0};
    struct follow f = {.c = c};
    int rv = parse_range(&k, options, argc, argv);
    if (rv != 0)
        return rv;
    enum err err = cli_connect(c);
    if (err != ERR_OK)
        return cli_exit_code(err);
    struct watch_req r = {.key = k.key,
                          .end = k.end,
                          .start_revision = k.rev,
                          .prev_kv = k.prev,
                          .credit = WATCH_WINDOW};
    err = client_sync_watch(c->client, &r, on_event, &f, &f.stop, 0, &e);
    mem_free(k.text);
    if (f.why == ERR_COMPACTED)
        return cli_fail(f.why,
                        "the watch ended: revision %" PRIu64
                        " is compacted; start again from a newer one",
                        k.rev);
    return err == ERR_OK ? CLI_DONE : cli_fail(err, "the watch ended: %s", e.text);
}

static void print_latencies(const struct status_reply *s)
{
    for (size_t i = 0; i < s->latencies_n; i++) {
        const struct latency_reply *l = &s->latencies[i];
        if (l->count > 0)
            (void)printf("%-14s %" PRIu64 " since the start, mean %" PRIu64
                         " us, p50 <= %" PRIu64 " us, p99 <= %" PRIu64 " us\n",
                         l->name, l->count, l->sum_us / l->count, l->p50_us, l->p99_us);
    }
}

int cmd_dcs_status(struct cli *c, int argc, char **argv)
{
    struct status_reply s;
    static const struct empty nothing;
    int usage = cli_no_arguments(argc, argv);
    if (usage != 0)
        return usage;
    enum err rv = cli_call(c, METHOD_CLUSTER_STATUS, &nothing, &s);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    if (c->format == CLI_JSON) {
        dcs_print_result(&msg_status_reply, &s);
        return CLI_DONE;
    }
    (void)printf("node           %s (id %" PRIu64 "), %s\n", s.name, s.member_id, s.state);
    (void)printf("cluster        %s\n", s.cluster_id);
    (void)printf("version        %" PRIu64 ", this program knows %" PRIu64 "\n", s.version,
                 s.program_version);
    (void)printf("Raft leader    %s, term %" PRIu64 "\n",
                 s.leader[0] != '\0' ? s.leader : "none", s.term);
    (void)printf("quorum         %" PRIu64 " of %" PRIu64 " voters, %" PRIu64 " reachable\n",
                 s.quorum, s.voters, s.reachable_voters);
    (void)printf("revision       %" PRIu64 " (compacted below %" PRIu64 ")\n", s.revision,
                 s.compacted_revision);
    (void)printf("log            last %" PRIu64 ", committed %" PRIu64 ", applied %" PRIu64
                 "\n",
                 s.last_index, s.commit_index, s.applied_index);
    (void)printf("size           state %" PRIu64 " KiB, log %" PRIu64 " KiB\n",
                 s.db_bytes / 1024, s.log_bytes / 1024);
    (void)printf("log fsync p99  %" PRIu64 " us\n", s.fsync_us_p99);
    print_latencies(&s);
    if (s.trouble[0] != '\0')
        (void)printf("trouble        %s %s\n", s.trouble, s.trouble_text);
    return CLI_DONE;
}

int cmd_dcs_transfer(struct cli *c, int argc, char **argv)
{
    struct transfer_req r = {0};
    struct status_reply s;
    if (argc > 2 || (argc == 2 && str_copy(r.name, sizeof r.name, argv[1]) != ERR_OK))
        return cli_usage("one NAME of `member list` at most");
    enum err rv = cli_call(c, METHOD_CLUSTER_TRANSFER, &r, &s);
    if (rv == ERR_OK)
        (void)printf(s.leader[0] != '\0'
                         ? "Raft leader is %s\n"
                         : "The Raft leadership moves%s; see `regentctl dcs status`\n",
                     s.leader);
    return cli_exit_code(rv);
}
