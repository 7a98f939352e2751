#include <jansson.h>
#include <libsmartcols/libsmartcols.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/mem.h"
#include "cli/cli.h"

const char *cli_colour(enum cli_colour colour)
{
    static const char *const sequences[] = {[CLI_PLAIN] = "\033[0m",
                                            [CLI_GOOD] = "\033[32m",
                                            [CLI_CARE] = "\033[33m",
                                            [CLI_BAD] = "\033[31m"};
    const char *term = getenv("TERM");
    const char *no = getenv("NO_COLOR");
    bool on = isatty(STDOUT_FILENO) != 0 && term != NULL && strcmp(term, "dumb") != 0 &&
              (no == NULL || no[0] == '\0');
    return on ? sequences[colour] : "";
}

struct output {
    enum cli_format format;
    const char *delimiter;
    char *title;
    const struct output_column *columns;
    size_t n;
    char **cells; /* rows * n; owned */
    size_t rows;
};

struct output *output_new(const struct cli *c, const char *title,
                          const struct output_column *columns, size_t n)
{
    struct output *o = mem_alloc(sizeof *o);
    o->format = c->format;
    o->delimiter = c->delimiter != NULL ? c->delimiter : "\t";
    o->title = title != NULL ? mem_strdup(title) : NULL;
    o->columns = columns;
    o->n = n;
    return o;
}

void output_row(struct output *o, const char *const *cells)
{
    o->cells = mem_resize(o->cells, (o->rows + 1) * o->n * sizeof *o->cells);
    for (size_t i = 0; i < o->n; i++)
        o->cells[o->rows * o->n + i] = cells[i] != NULL ? mem_strdup(cells[i]) : NULL;
    o->rows++;
}

static const char *cell(const struct output *o, size_t row, size_t column)
{
    return o->cells[row * o->n + column];
}

static bool is_shown(const struct output *o, size_t column)
{
    for (size_t r = 0; r < o->rows; r++)
        if (cell(o, r, column) != NULL)
            return true;
    return !o->columns[column].optional;
}

/* {"clonefrom": true, "zone": "a"} reads "clonefrom: true, zone: a". */
static char *plain_object(const char *json)
{
    struct buf b CLEANUP(buf_close) = BUF_INIT;
    const char *key;
    json_t *value;
    json_t *j = json_loads(json, 0, NULL);
    json_object_foreach(j, key, value)
    {
        char *text = json_is_string(value) ? strdup(json_string_value(value))
                                           : json_dumps(value, JSON_ENCODE_ANY);
        buf_printf(&b, "%s%s: %s", b.len > 0 ? ", " : "", key, text != NULL ? text : "");
        free(text);
    }
    json_decref(j);
    return mem_strdup(buf_cstr(&b));
}

static void set_cell(const struct output *o, struct libscols_line *line, size_t at, size_t row,
                     size_t column)
{
    const char *text = cell(o, row, column) != NULL ? cell(o, row, column) : "";
    char *plain CLEANUP(mem_cleanup) =
        o->columns[column].json && text[0] != '\0' ? plain_object(text) : mem_strdup(text);
    (void)scols_line_set_data(line, at, plain);
    enum cli_colour colour =
        o->columns[column].colour != NULL ? o->columns[column].colour(text) : CLI_PLAIN;
    if (colour != CLI_PLAIN && text[0] != '\0')
        (void)scols_cell_set_color(scols_line_get_cell(line, at), cli_colour(colour));
}

static void print_table(const struct output *o)
{
    struct libscols_table *t = scols_new_table();
    ASSERT(t != NULL);
    (void)scols_table_enable_colors(t, cli_colour(CLI_PLAIN)[0] != '\0');
    for (size_t i = 0; i < o->n; i++) {
        const struct output_column *c = &o->columns[i];
        if (is_shown(o, i))
            (void)scols_table_new_column(t, c->heading != NULL ? c->heading : c->name, 0,
                                         c->right ? SCOLS_FL_RIGHT : 0);
    }
    (void)scols_table_set_column_separator(t, "  ");
    for (size_t r = 0; r < o->rows; r++) {
        struct libscols_line *line = scols_table_new_line(t, NULL);
        size_t at = 0;
        for (size_t i = 0; line != NULL && i < o->n; i++)
            if (is_shown(o, i))
                set_cell(o, line, at++, r, i);
    }
    if (o->title != NULL)
        (void)printf("%s\n", o->title);
    if (o->rows > 0)
        (void)scols_print_table(t);
    scols_unref_table(t);
}

static json_t *json_cell(const struct output_column *c, const char *text)
{
    if (c->json)
        return json_loads(text, 0, NULL);
    return c->number ? json_integer(strtoll(text, NULL, 10)) : json_string(text);
}

static json_t *to_json(const struct output *o)
{
    json_t *list = json_array();
    for (size_t r = 0; r < o->rows; r++) {
        json_t *row = json_object();
        for (size_t i = 0; i < o->n; i++)
            if (cell(o, r, i) != NULL)
                json_object_set_new(row, o->columns[i].name,
                                    json_cell(&o->columns[i], cell(o, r, i)));
        json_array_append_new(list, row);
    }
    return list;
}

static void print_json(const struct output *o)
{
    json_t *list = to_json(o);
    char *text = json_dumps(list, isatty(STDOUT_FILENO) ? JSON_INDENT(2) : JSON_COMPACT);
    (void)printf("%s\n", text);
    free(text);
    json_decref(list);
}

/* A JSON value is a YAML value too. */
static void print_yaml(const struct output *o)
{
    if (o->rows == 0)
        (void)printf("[]\n");
    for (size_t r = 0; r < o->rows; r++) {
        const char *lead = "- ";
        for (size_t i = 0; i < o->n; i++) {
            if (cell(o, r, i) == NULL)
                continue;
            json_t *j = json_cell(&o->columns[i], cell(o, r, i));
            char *value = json_dumps(j, JSON_ENCODE_ANY);
            (void)printf("%s%s: %s\n", lead, o->columns[i].name, value != NULL ? value : "");
            lead = "  ";
            free(value);
            json_decref(j);
        }
    }
}

/* Tabs and line ends in a cell would make two of it. */
static void print_tsv_cell(const char *text)
{
    for (const char *p = text != NULL ? text : ""; *p != '\0'; p++)
        (void)putchar(*p == '\t' || *p == '\n' || *p == '\r' ? ' ' : *p);
}

static void print_tsv(const struct output *o)
{
    for (size_t i = 0; i < o->n; i++)
        (void)printf("%s%s", i > 0 ? o->delimiter : "", o->columns[i].name);
    (void)printf("\n");
    for (size_t r = 0; r < o->rows; r++) {
        for (size_t i = 0; i < o->n; i++) {
            (void)printf("%s", i > 0 ? o->delimiter : "");
            print_tsv_cell(cell(o, r, i));
        }
        (void)printf("\n");
    }
}

void output_print(struct output *o)
{
    switch (o->format) {
    case CLI_TABLE:
        print_table(o);
        break;
    case CLI_JSON:
        print_json(o);
        break;
    case CLI_YAML:
        print_yaml(o);
        break;
    case CLI_TSV:
        print_tsv(o);
        break;
    }
    for (size_t i = 0; i < o->rows * o->n; i++)
        mem_free(o->cells[i]);
    mem_free(o->cells);
    mem_free(o->title);
    mem_free(o);
}
