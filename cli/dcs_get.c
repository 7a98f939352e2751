/* dcs get: a range by etcdctl's options. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <strings.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/dcs.h"

struct get {
    struct range_req r;
    char *prefix_end, *last; /* owned: what r.key, r.end may point to */
    bool prefix, from_key, values_only;
};

static const struct option get_options[] = {{"prefix", no_argument, NULL, 'p'},
                                            {"from-key", no_argument, NULL, 'f'},
                                            {"local", no_argument, NULL, 'l'},
                                            {"keys-only", no_argument, NULL, 'k'},
                                            {"count-only", no_argument, NULL, 'c'},
                                            {"print-value-only", no_argument, NULL, 'v'},
                                            {"sort-by", required_argument, NULL, 's'},
                                            {"order", required_argument, NULL, 'o'},
                                            {"limit", required_argument, NULL, 'n'},
                                            {"rev", required_argument, NULL, 'r'},
                                            {"min-mod-rev", required_argument, NULL, 'm'},
                                            {"max-mod-rev", required_argument, NULL, 'M'},
                                            {"min-create-rev", required_argument, NULL, 'a'},
                                            {"max-create-rev", required_argument, NULL, 'A'},
                                            {NULL, 0, NULL, 0}};

/* NULL: the option has no number. */
static uint64_t *number_of(struct range_req *r, int option)
{
    switch (option) {
    case 'n':
        return &r->limit;
    case 'r':
        return &r->revision;
    case 'm':
        return &r->min_mod;
    case 'M':
        return &r->max_mod;
    case 'a':
        return &r->min_create;
    case 'A':
        return &r->max_create;
    default:
        return NULL;
    }
}

static int parse_sort(struct range_req *r, const char *text)
{
    static const char *const names[][2] = {{"create", "create"},
                                           {"key", "key"},
                                           {"modify", "mod"},
                                           {"value", "value"},
                                           {"version", "version"}};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcasecmp(names[i][0], text) == 0) {
            str_cut(r->sort, sizeof r->sort, names[i][1]);
            return 0;
        }
    return cli_usage("--sort-by is none of create, key, modify, value, version: \"%s\"", text);
}

static int parse_order(struct range_req *r, const char *text)
{
    r->descend = strcasecmp(text, "descend") == 0;
    return r->descend || strcasecmp(text, "ascend") == 0
               ? 0
               : cli_usage("--order is ascend or descend, not \"%s\"", text);
}

static int parse_option(struct get *g, int option)
{
    uint64_t *number = number_of(&g->r, option);
    if (number != NULL)
        return str_parse_u64(optarg, number) == ERR_OK
                   ? 0
                   : cli_usage("\"%s\" is not a number", optarg);
    if (option == 's')
        return parse_sort(&g->r, optarg);
    if (option == 'o')
        return parse_order(&g->r, optarg);
    bool *flag = option == 'p'   ? &g->prefix
                 : option == 'f' ? &g->from_key
                 : option == 'l' ? &g->r.local
                 : option == 'k' ? &g->r.keys_only
                 : option == 'c' ? &g->r.count_only
                                 : &g->values_only;
    *flag = true;
    return 0;
}

static int parse(struct get *g, int argc, char **argv)
{
    int option;
    *g = (struct get){0};
    optind = 1;
    while ((option = cli_option(argc, argv, get_options)) != -1) {
        int rv = option == CLI_BAD_OPTION ? CLI_USAGE : parse_option(g, option);
        if (rv != 0)
            return rv;
    }
    int n = argc - optind;
    if (n < 1 || n > 2)
        return cli_usage("one KEY is needed, and END at most");
    if ((n == 2) + g->prefix + g->from_key > 1)
        return cli_usage("END, --prefix and --from-key are three ways to say one thing");
    if (g->r.keys_only + g->r.count_only + g->values_only > 1)
        return cli_usage("--keys-only, --count-only and --print-value-only exclude each other");
    g->r.key = slice_str(argv[optind]);
    if (g->prefix)
        g->prefix_end = dcs_prefix(&g->r.key, &g->r.end);
    else if (g->from_key)
        g->r.end = slice_of("", 1);
    else if (n == 2)
        g->r.end = slice_str(argv[optind + 1]);
    if (g->from_key && g->r.key.n == 0)
        g->r.key = slice_of("", 1); /* an empty key names none: from "\0" on */
    return 0;
}

static void print_one(const struct cli *c, const struct get *g, const struct kv *kv, bool first)
{
    if (c->format == CLI_JSON) {
        (void)printf("%s", first ? "" : ",");
        dcs_print_result(&msg_kv, kv);
        return;
    }
    if (!g->values_only)
        dcs_print_bytes(kv->key);
    if (!g->r.keys_only)
        dcs_print_bytes(kv->value);
}

/* ret_last: room for the last key, which the caller frees. */
static void print_page(const struct cli *c, const struct get *g, struct slice kvs, bool *first,
                       struct slice *ret_last)
{
    struct msg_iter it;
    struct kv kv = {0};
    if (msg_iter_init(&it, kvs) != ERR_OK)
        return;
    for (; msg_iter_next(&it, &msg_kv, &kv, NULL) == ERR_OK; *first = false) {
        print_one(c, g, &kv, *first);
        *ret_last = kv.key;
    }
}

/* The range behind the page that ended with `last`: a reply holds as much as fits into a message. */
static enum err go_on(struct get *g, struct slice last)
{
    if (g->r.sort[0] != '\0' && strcmp(g->r.sort, "key") != 0)
        return ERR_LIMIT;
    char *key = mem_dup(last.p, last.n); /* and a NUL: the key behind it */
    if (g->r.descend)
        g->r.end = slice_of(key, last.n);
    else
        g->r.key = slice_of(key, last.n + 1);
    mem_free(g->last);
    g->last = key;
    return ERR_OK;
}

static int count(struct cli *c, const struct get *g)
{
    struct range_reply reply;
    enum err err = cli_call(c, METHOD_KV_RANGE, &g->r, &reply);
    if (err == ERR_OK && c->format == CLI_JSON)
        dcs_print_result(&msg_range_reply, &reply);
    else if (err == ERR_OK)
        (void)printf("%" PRIu64 "\n", reply.count);
    return cli_exit_code(err);
}

static int pages(struct cli *c, struct get *g)
{
    bool begun = false, first = true, more = true;
    int rv = CLI_DONE;
    while (more && rv == CLI_DONE) {
        struct range_reply reply;
        struct slice last = {0};
        enum err err = cli_call(c, METHOD_KV_RANGE, &g->r, &reply);
        if (err != ERR_OK) {
            rv = cli_exit_code(err);
            break;
        }
        if (c->format == CLI_JSON && !begun)
            (void)printf("[");
        begun = true;
        print_page(c, g, reply.kvs, &first, &last);
        more = reply.more && g->r.limit == 0 && last.n > 0;
        if (more && go_on(g, last) != ERR_OK)
            rv = cli_fail(ERR_LIMIT,
                          "these are not all: no more than fit into a message can be sorted; "
                          "give --limit, or read a smaller range");
    }
    if (c->format == CLI_JSON && begun)
        (void)printf("]\n");
    return rv;
}

int cmd_dcs_get(struct cli *c, int argc, char **argv)
{
    struct get g;
    int rv = parse(&g, argc, argv);
    if (rv == 0)
        rv = g.r.count_only ? count(c, &g) : pages(c, &g);
    mem_free(g.prefix_end);
    mem_free(g.last);
    return rv;
}
