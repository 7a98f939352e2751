#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "agent/pg_render.h"
#include "agent/pg_text.h"
#include "base/mem.h"

void pg_settings_close(struct pg_settings *s)
{
    for (size_t i = 0; i < s->n_pairs; i++) {
        mem_free(s->pairs[i].key);
        mem_free(s->pairs[i].value);
    }
    for (size_t i = 0; i < s->n_hba; i++)
        mem_free(s->hba[i]);
    for (size_t i = 0; i < s->n_ident; i++)
        mem_free(s->ident[i]);
    *s = (struct pg_settings){.n_pairs = 0};
}

/* The text PostgreSQL takes for it; NULL: no such value. */
static char *text_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_STRING:
        return mem_strdup(json_string_value(v));
    case JSON_INTEGER:
        return mem_printf("%" PRId64, (int64_t)json_integer_value(v));
    case JSON_REAL:
        return mem_printf("%.15g", json_real_value(v));
    case JSON_TRUE:
        return mem_strdup("on");
    case JSON_FALSE:
        return mem_strdup("off");
    case JSON_OBJECT:
    case JSON_ARRAY:
    case JSON_NULL:
        break;
    }
    return NULL;
}

static enum err take_parameters(json_t *parameters, struct pg_settings *s, struct errmsg *e)
{
    const char *key;
    json_t *value;
    if (parameters == NULL || json_is_null(parameters))
        return ERR_OK;
    if (!json_is_object(parameters))
        return err_set(e, ERR_INVALID, "postgresql.parameters is not an object");
    json_object_foreach(parameters, key, value)
    {
        if (json_is_null(value))
            continue;
        if (!pg_setting_name_ok(key))
            return err_set(e, ERR_INVALID,
                           "postgresql.parameters: no setting is called \"%.64s\"", key);
        char *text = text_of(value);
        if (text == NULL || s->n_pairs == PG_SETTINGS_MAX) {
            mem_free(text);
            return err_set(e, ERR_INVALID,
                           "postgresql.parameters.%.64s: not a value, or too many", key);
        }
        s->pairs[s->n_pairs++] = (struct conf_pair){.key = mem_strdup(key), .value = text};
    }
    return ERR_OK;
}

static enum err take_lines(json_t *all, const char *what, char *ret[static PG_HBA_MAX],
                           size_t *ret_n, struct errmsg *e)
{
    size_t i;
    json_t *line;
    if (all == NULL || json_is_null(all))
        return ERR_OK;
    if (!json_is_array(all))
        return err_set(e, ERR_INVALID, "postgresql.%s is not a list", what);
    json_array_foreach(all, i, line)
    {
        if (!json_is_string(line) || *ret_n == PG_HBA_MAX)
            return err_set(e, ERR_INVALID, "postgresql.%s[%zu]: not a text, or too many", what,
                           i);
        ret[(*ret_n)++] = mem_strdup(json_string_value(line));
    }
    return ERR_OK;
}

enum err pg_settings_parse(struct slice json, struct pg_settings *ret, struct errmsg *e)
{
    *ret = (struct pg_settings){.n_pairs = 0};
    if (json.n == 0)
        return ERR_OK;
    json_error_t why;
    json_t *root = json_loadb((const char *)json.p, json.n, JSON_REJECT_DUPLICATES, &why);
    if (root == NULL)
        return err_set(e, ERR_INVALID, "postgresql: %.100s", why.text);
    enum err rv = json_is_object(root) || json_is_null(root)
                      ? ERR_OK
                      : err_set(e, ERR_INVALID, "postgresql is not an object");
    if (rv == ERR_OK)
        rv = take_parameters(json_object_get(root, "parameters"), ret, e);
    if (rv == ERR_OK)
        rv = take_lines(json_object_get(root, "pg_hba"), "pg_hba", ret->hba, &ret->n_hba, e);
    if (rv == ERR_OK)
        rv = take_lines(json_object_get(root, "pg_ident"), "pg_ident", ret->ident,
                        &ret->n_ident, e);
    json_decref(root);
    if (rv != ERR_OK)
        pg_settings_close(ret);
    return rv;
}
