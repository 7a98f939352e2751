#include <jansson.h>
#include <libsmartcols/libsmartcols.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/mem.h"
#include "cli/cli.h"

struct output {
    enum cli_format format;
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

static void print_table(const struct output *o)
{
    struct libscols_table *t = scols_new_table();
    ASSERT(t != NULL);
    scols_table_enable_colors(t, 0);
    for (size_t i = 0; i < o->n; i++)
        (void)scols_table_new_column(t, o->columns[i].name, 0,
                                     o->columns[i].right ? SCOLS_FL_RIGHT : 0);
    (void)scols_table_set_column_separator(t, "  ");
    for (size_t r = 0; r < o->rows; r++) {
        struct libscols_line *line = scols_table_new_line(t, NULL);
        for (size_t i = 0; line != NULL && i < o->n; i++)
            (void)scols_line_set_data(line, i, cell(o, r, i) != NULL ? cell(o, r, i) : "");
    }
    if (o->title != NULL)
        (void)printf("%s\n", o->title);
    if (o->rows > 0)
        (void)scols_print_table(t);
    scols_unref_table(t);
}

static json_t *to_json(const struct output *o)
{
    json_t *list = json_array();
    for (size_t r = 0; r < o->rows; r++) {
        json_t *row = json_object();
        for (size_t i = 0; i < o->n; i++) {
            const char *text = cell(o, r, i);
            if (text == NULL)
                continue;
            json_object_set_new(row, o->columns[i].name,
                                o->columns[i].number ? json_integer(strtoll(text, NULL, 10))
                                                     : json_string(text));
        }
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

/* A JSON string is a YAML scalar too, so quoting is JSON's. */
static void print_yaml(const struct output *o)
{
    if (o->rows == 0)
        (void)printf("[]\n");
    for (size_t r = 0; r < o->rows; r++) {
        const char *lead = "- ";
        for (size_t i = 0; i < o->n; i++) {
            const char *text = cell(o, r, i);
            if (text == NULL)
                continue;
            json_t *quoted = json_string(text);
            char *value =
                o->columns[i].number ? strdup(text) : json_dumps(quoted, JSON_ENCODE_ANY);
            (void)printf("%s%s: %s\n", lead, o->columns[i].name, value);
            lead = "  ";
            free(value);
            json_decref(quoted);
        }
    }
}

static void print_tsv(const struct output *o)
{
    for (size_t i = 0; i < o->n; i++)
        (void)printf("%s%s", i > 0 ? "\t" : "", o->columns[i].name);
    (void)printf("\n");
    for (size_t r = 0; r < o->rows; r++) {
        for (size_t i = 0; i < o->n; i++)
            (void)printf("%s%s", i > 0 ? "\t" : "", cell(o, r, i) != NULL ? cell(o, r, i) : "");
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
