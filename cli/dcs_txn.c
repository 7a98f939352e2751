/* dcs txn: a transaction in etcdctl's notation, from standard input. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/dcs.h"

/* etcdctl's notation: `mod("key") = "5"` in the first paragraph, `put key value`, `get key [end]`,
 * `del key [end]` in the next two. Words may stand in double quotes, with \" and \\ in them. */

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

static int take_line(char *line, unsigned number, size_t part, struct msg_list parts[3])
{
    if (part > 2)
        return cli_usage("line %u: behind the third paragraph", number);
    char *shown CLEANUP(mem_cleanup) = mem_strdup(line);
    if (part == 0 ? dcs_parse_compare(line, &parts[part]) : dcs_parse_op(line, &parts[part]))
        return 0;
    return cli_usage("line %u: \"%.200s\" is not %s", number, shown,
                     part == 0
                         ? "like mod(\"key\") = \"5\" (value, version, create, mod, lease)"
                         : "`put KEY VALUE`, `get KEY [END]` or `del KEY [END]`");
}

static int read_txn(struct msg_list parts[3])
{
    char *line = NULL;
    size_t size = 0;
    size_t part = 0;
    int rv = 0;
    for (unsigned number = 1; rv == 0 && getline(&line, &size, stdin) >= 0; number++) {
        line[strcspn(line, "\n")] = '\0';
        if (at_end(line))
            part++;
        else
            rv = take_line(line, number, part, parts);
    }
    free(line);
    return rv;
}

static void print_txn(const struct cli *c, const struct txn_reply *r)
{
    struct msg_iter it;
    struct op_result one;
    if (c->format == CLI_JSON) {
        dcs_print_result(&msg_txn_reply, r);
        return;
    }
    (void)printf("%s\n", r->succeeded ? "SUCCESS" : "FAILURE");
    if (msg_iter_init(&it, r->results) != ERR_OK)
        return;
    while (msg_iter_next(&it, &msg_op_result, &one, NULL) == ERR_OK) {
        (void)printf("\n");
        if (strcmp(one.op, "put") == 0)
            (void)printf("OK\n");
        else if (strcmp(one.op, "delete") == 0)
            (void)printf("%" PRIu64 "\n", one.count);
        else
            dcs_print_kvs(c, one.kvs, false);
    }
}

int cmd_dcs_txn(struct cli *c, int argc, char **argv)
{
    struct msg_list parts[3] = {0};
    struct buf encoded[3] = {0};
    struct txn_reply reply;
    (void)argv;
    if (argc > 1)
        return cli_usage("dcs txn reads the transaction from standard input");
    int rv = read_txn(parts);
    for (size_t i = 0; i < 3; i++)
        msg_list_end(&parts[i], &encoded[i]);
    if (rv == 0) {
        struct txn_req r = {.compare = buf_slice(&encoded[0]),
                            .then = buf_slice(&encoded[1]),
                            .otherwise = buf_slice(&encoded[2])};
        enum err err = cli_call(c, METHOD_KV_TXN, &r, &reply);
        if (err == ERR_OK)
            print_txn(c, &reply);
        rv = cli_exit_code(err);
    }
    for (size_t i = 0; i < 3; i++)
        buf_close(&encoded[i]);
    return rv;
}
