/* sql: one SELECT on the state of the node asked. */
#include <getopt.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"

enum { COLUMNS_MAX = 200, TIME_MAX_S = 10 };

static size_t take_columns(const struct sql_reply *r, struct output_column *columns)
{
    struct msg_iter it;
    struct sql_cell c;
    size_t n = 0;
    if (msg_iter_init(&it, r->columns) != ERR_OK)
        return 0;
    while (n < COLUMNS_MAX && msg_iter_next(&it, &msg_sql_cell, &c, NULL) == ERR_OK) {
        char *name = mem_alloc(c.value.n + 1);
        memcpy(name, c.value.p, c.value.n);
        columns[n++] = (struct output_column){.name = name, .number = true, .right = true};
    }
    return n;
}

static bool is_number(const struct sql_cell *c)
{
    return strcmp(c->type, "integer") == 0 || strcmp(c->type, "real") == 0;
}

/* NULL stays NULL; blobs in hexadecimal, as SQLite writes them. */
static char *cell_text(const struct sql_cell *c)
{
    if (c->type[0] == '\0')
        return NULL;
    if (strcmp(c->type, "blob") == 0) {
        char *hex = mem_alloc(2 * c->value.n + 4);
        memcpy(hex, "x'", 2);
        hex_encode(hex + 2, c->value.p, c->value.n);
        memcpy(hex + 2 + 2 * c->value.n, "'", 2);
        return hex;
    }
    char *text = mem_alloc(c->value.n + 1);
    memcpy(text, c->value.p, c->value.n);
    return text;
}

/* A column is one of numbers when nothing else is in it. */
static void look_at_types(const struct sql_reply *r, struct output_column *columns, size_t n)
{
    struct msg_iter rows, cells;
    struct sql_row row;
    struct sql_cell c;
    if (msg_iter_init(&rows, r->rows) != ERR_OK)
        return;
    while (msg_iter_next(&rows, &msg_sql_row, &row, NULL) == ERR_OK &&
           msg_iter_init(&cells, row.cells) == ERR_OK)
        for (size_t i = 0; i < n && msg_iter_next(&cells, &msg_sql_cell, &c, NULL) == ERR_OK;
             i++)
            if (c.type[0] != '\0' && !is_number(&c))
                columns[i].number = columns[i].right = false;
}

static void print(const struct cli *c, const struct sql_reply *r)
{
    static struct output_column columns[COLUMNS_MAX];
    char *cells[COLUMNS_MAX];
    struct msg_iter rows, in_row;
    struct sql_row row;
    struct sql_cell cell;
    size_t n = take_columns(r, columns);
    look_at_types(r, columns, n);
    struct output *o = output_new(c, NULL, columns, n);
    if (msg_iter_init(&rows, r->rows) == ERR_OK)
        while (msg_iter_next(&rows, &msg_sql_row, &row, NULL) == ERR_OK &&
               msg_iter_init(&in_row, row.cells) == ERR_OK) {
            size_t k = 0;
            while (k < n && msg_iter_next(&in_row, &msg_sql_cell, &cell, NULL) == ERR_OK)
                cells[k++] = cell_text(&cell);
            if (k == n)
                output_row(o, (const char *const *)cells);
            while (k > 0)
                mem_free(cells[--k]);
        }
    output_print(o);
    for (size_t i = 0; i < n; i++)
        mem_free((void *)(uintptr_t)columns[i].name);
    if (r->more)
        (void)fprintf(stderr, "regentctl: there are more rows; see --limit\n");
}

int cmd_sql(struct cli *c, int argc, char **argv)
{
    static const struct option options[] = {{"limit", required_argument, NULL, 'n'},
                                            {"timeout", required_argument, NULL, 't'},
                                            {NULL, 0, NULL, 0}};
    struct sql_req r = {.limit = 0};
    struct sql_reply reply;
    struct errmsg e = {0};
    uint64_t seconds = 0;
    int option;
    optind = 1;
    while ((option = cli_option(argc, argv, options)) != -1) {
        if (option == CLI_BAD_OPTION)
            return CLI_USAGE;
        if (str_parse_u64(optarg, option == 'n' ? &r.limit : &seconds) != ERR_OK ||
            seconds > TIME_MAX_S)
            return cli_usage(
                "--limit takes a number of rows, --timeout one of seconds, at most %d",
                TIME_MAX_S);
    }
    if (optind + 1 != argc)
        return cli_usage("one SELECT is needed, in quotes");
    r.sql = slice_str(argv[optind]);
    r.time_ms = seconds * 1000;
    enum err rv = cli_connect(c);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    rv = client_sync_call(c->client, METHOD_SQL_QUERY, &r, 3 * CLIENT_DEADLINE_MS, &reply, &e);
    if (rv != ERR_OK)
        return cli_fail(rv, "%s", e.text);
    print(c, &reply);
    return CLI_DONE;
}
