/* dcs txn: a transaction in etcdctl's notation, from standard input. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/dcs.h"

/* etcdctl's notation: `mod("key") = "5"` in the first paragraph, `put key value`, `get key [end]`,
 * `del key [end]` in the next two. Words may stand in double quotes, with \" and \\ in them. Ours besides:
 * an operation may be a transaction, three paragraphs again between the lines `txn {` and `}`. */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* What stands up to the closing quote, unescaped in place; false when there is none. */
static bool quoted_word(char **text, struct slice *ret)
{
    char *from = *text;
    char *to = from;
    for (; *from != '"'; from++) {
        if (*from == '\\' && (from[1] == '"' || from[1] == '\\'))
            from++;
        if (*from == '\0')
            return false;
        *to++ = *from;
    }
    *ret = slice_of(*text, (size_t)(to - *text));
    *text = from + 1;
    return true;
}

static bool next_word(char **text, struct slice *ret)
{
    *text += strspn(*text, " \t");
    if (**text == '"') {
        ++*text;
        return quoted_word(text, ret);
    }
    size_t n = strcspn(*text, " \t()\"");
    *ret = slice_of(*text, n);
    *text += n;
    return n > 0;
}

static bool at_end(const char *text)
{
    while (is_blank(*text))
        text++;
    return *text == '\0';
}

static bool word_is(struct slice word, const char *text)
{
    return slice_eq(word, slice_str(text));
}

/* The wire's name of what is compared; NULL: there is no such thing. */
static const char *target_of(struct slice word)
{
    static const char *const names[][2] = {
        {"value", "value"}, {"val", "value"},     {"version", "version"},
        {"ver", "version"}, {"create", "create"}, {"c", "create"},
        {"mod", "mod"},     {"m", "mod"},         {"lease", "lease"}};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (word_is(word, names[i][0]))
            return names[i][1];
    return NULL;
}

static bool operator_is_known(struct slice op)
{
    return word_is(op, "=") || word_is(op, "!=") || word_is(op, "<") || word_is(op, ">");
}

bool dcs_parse_compare(char *line, struct msg_list *l)
{
    struct slice target;
    struct slice key;
    struct slice op;
    struct slice value;
    char number[24];
    struct compare cmp = {0};
    if (!next_word(&line, &target) || *line++ != '(' || !next_word(&line, &key) ||
        *line++ != ')' || !next_word(&line, &op) || !is_blank(*line) ||
        !next_word(&line, &value) || !at_end(line) || target_of(target) == NULL ||
        !operator_is_known(op))
        return false;
    cmp.key = key;
    str_cut(cmp.target, sizeof cmp.target, target_of(target));
    if (str_copy_slice(cmp.op, sizeof cmp.op, op) != ERR_OK)
        return false;
    if (strcmp(cmp.target, "value") == 0)
        cmp.value = value;
    else if (str_copy_slice(number, sizeof number, value) != ERR_OK ||
             str_parse_u64(number, &cmp.number) != ERR_OK)
        return false;
    msg_list_append(l, &msg_compare, &cmp);
    return true;
}

bool dcs_parse_op(char *line, struct msg_list *l)
{
    struct slice verb;
    struct slice key;
    struct slice value = {0};
    struct txn_op op = {0};
    if (!next_word(&line, &verb) || !next_word(&line, &key))
        return false;
    bool more = !at_end(line);
    if (more && (!is_blank(*line) || !next_word(&line, &value) || !at_end(line)))
        return false;
    op.key = key;
    if (word_is(verb, "put") && more) {
        str_cut(op.op, sizeof op.op, "put");
        op.value = value;
    } else if (word_is(verb, "get") || word_is(verb, "del")) {
        str_cut(op.op, sizeof op.op, word_is(verb, "get") ? "range" : "delete");
        op.end = value;
    } else {
        return false;
    }
    msg_list_append(l, &msg_txn_op, &op);
    return true;
}

static bool line_is(const char *line, const char *words)
{
    line += strspn(line, " \t");
    size_t n = strlen(words);
    return strncmp(line, words, n) == 0 && at_end(line + n);
}

static void level_end(struct dcs_txn_level *l, struct buf ret[3])
{
    for (size_t i = 0; i < 3; i++)
        msg_list_end(&l->parts[i], &ret[i]);
}

static int inner_begin(struct dcs_txn *t, unsigned number)
{
    if (t->depth == DCS_TXN_DEPTH_MAX)
        return cli_usage("line %u: %d transactions inside each other are the most", number,
                         (int)DCS_TXN_DEPTH_MAX);
    t->level[t->depth++] = (struct dcs_txn_level){0};
    return 0;
}

static void inner_end(struct dcs_txn *t)
{
    struct buf parts[3] = {0};
    level_end(&t->level[--t->depth], parts);
    struct txn_op op = {.op = "txn",
                        .compare = buf_slice(&parts[0]),
                        .then = buf_slice(&parts[1]),
                        .otherwise = buf_slice(&parts[2])};
    struct dcs_txn_level *around = &t->level[t->depth - 1];
    msg_list_append(&around->parts[around->part], &msg_txn_op, &op);
    for (size_t i = 0; i < 3; i++)
        buf_close(&parts[i]);
}

int dcs_txn_line(struct dcs_txn *t, unsigned number, char *line)
{
    struct dcs_txn_level *l = &t->level[t->depth - 1];
    if (at_end(line)) {
        l->part++;
        return 0;
    }
    if (t->depth > 1 && line_is(line, "}")) {
        inner_end(t);
        return 0;
    }
    if (l->part > 2)
        return cli_usage("line %u: behind the third paragraph", number);
    if (l->part > 0 && line_is(line, "txn {"))
        return inner_begin(t, number);
    char *shown CLEANUP(mem_cleanup) = mem_strdup(line);
    struct msg_list *list = &l->parts[l->part];
    if (l->part == 0 ? dcs_parse_compare(line, list) : dcs_parse_op(line, list))
        return 0;
    return cli_usage("line %u: \"%.200s\" is not %s", number, shown,
                     l->part == 0
                         ? "like mod(\"key\") = \"5\" (value, version, create, mod, lease)"
                         : "`put KEY VALUE`, `get KEY [END]`, `del KEY [END]` or `txn {`");
}

int dcs_txn_end(struct dcs_txn *t, struct buf ret[3])
{
    if (t->depth > 1)
        return cli_usage("`txn {` without its `}`");
    level_end(&t->level[0], ret);
    return 0;
}

void dcs_txn_init(struct dcs_txn *t)
{
    *t = (struct dcs_txn){.depth = 1};
}

void dcs_txn_close(struct dcs_txn *t)
{
    for (size_t i = 0; i < DCS_TXN_DEPTH_MAX; i++)
        for (size_t k = 0; k < 3; k++)
            msg_list_close(&t->level[i].parts[k]);
}

static int read_txn(struct dcs_txn *t, struct buf ret[3])
{
    char *line = NULL;
    size_t size = 0;
    int rv = 0;
    for (unsigned number = 1; rv == 0 && getline(&line, &size, stdin) >= 0; number++) {
        line[strcspn(line, "\n")] = '\0';
        rv = dcs_txn_line(t, number, line);
    }
    free(line);
    return rv == 0 ? dcs_txn_end(t, ret) : rv;
}

/* Calls itself as often as the transactions of the request are inside each other. */
static void print_results(bool succeeded, struct slice results)
{
    struct msg_iter it;
    struct op_result one;
    (void)printf("%s\n", succeeded ? "SUCCESS" : "FAILURE");
    if (msg_iter_init(&it, results) != ERR_OK)
        return;
    while (msg_iter_next(&it, &msg_op_result, &one, NULL) == ERR_OK) {
        (void)printf("\n");
        if (strcmp(one.op, "txn") == 0)
            print_results(one.succeeded, one.results);
        else if (strcmp(one.op, "put") == 0)
            (void)printf("OK\n");
        else if (strcmp(one.op, "delete") == 0)
            (void)printf("%" PRIu64 "\n", one.count);
        else
            dcs_print_kvs(one.kvs);
    }
}

int cmd_dcs_txn(struct cli *c, int argc, char **argv)
{
    struct dcs_txn t;
    struct buf encoded[3] = {0};
    struct txn_reply reply;
    (void)argv;
    if (argc > 1)
        return cli_usage("dcs txn reads the transaction from standard input");
    dcs_txn_init(&t);
    int rv = read_txn(&t, encoded);
    if (rv == 0) {
        struct txn_req r = {.compare = buf_slice(&encoded[0]),
                            .then = buf_slice(&encoded[1]),
                            .otherwise = buf_slice(&encoded[2])};
        enum err err = cli_call(c, METHOD_KV_TXN, &r, &reply);
        if (err == ERR_OK && c->format == CLI_JSON)
            dcs_print_result(&msg_txn_reply, &reply);
        else if (err == ERR_OK)
            print_results(reply.succeeded, reply.results);
        rv = cli_exit_code(err);
    }
    dcs_txn_close(&t);
    for (size_t i = 0; i < 3; i++)
        buf_close(&encoded[i]);
    return rv;
}
