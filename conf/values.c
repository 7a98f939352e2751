/* One value at a time: from a node of the YAML tree into the field that the key's row names. */
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "base/mem.h"
#include "base/str.h"
#include "conf/loader.h"

void conf_complain(struct loader *l, const yaml_node_t *at, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    /* the rest of such a file is not looked at */
    bool flooded = l->values > CONF_VALUES_MAX + 1;
    if (l->findings++ >= CONF_FINDINGS_MAX || flooded)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *p = text; *p != '\0'; p++) /* a finding is one line, whatever the file holds */
        if (iscntrl((unsigned char)*p))
            *p = '?';
    if (at != NULL && l->has_lines)
        buf_printf(l->report, "%s:%zu: %s\n", l->source, at->start_mark.line + 1, text);
    else
        buf_printf(l->report, "%s: %s\n", l->source, text);
}

const char *conf_scalar(const yaml_node_t *n)
{
    if (n == NULL || n->type != YAML_SCALAR_NODE)
        return NULL;
    const char *text = (const char *)n->data.scalar.value;
    return strlen(text) == n->data.scalar.length ? text : NULL;
}

bool conf_is_empty(const yaml_node_t *n)
{
    return n->type == YAML_SCALAR_NODE && n->data.scalar.length == 0 &&
           n->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

/* Every look at a node is counted: that bounds the work that aliases can make. */
yaml_node_t *conf_node(struct loader *l, int index)
{
    if (l->values++ == CONF_VALUES_MAX)
        conf_complain(l, NULL, "more than %d values; are there aliases of aliases?",
                      CONF_VALUES_MAX);
    return l->values > CONF_VALUES_MAX ? NULL : yaml_document_get_node(&l->doc, index);
}

char **conf_str_at(struct config *c, size_t offset)
{
    return (char **)(void *)((char *)c + offset);
}

static size_t *count_at(struct config *c, const struct conf_key *k)
{
    return (size_t *)(void *)((char *)c + k->count_offset);
}

static struct conf_pair *pairs_at(struct config *c, const struct conf_key *k)
{
    return (struct conf_pair *)(void *)((char *)c + k->offset);
}

void conf_set_str(struct config *c, size_t offset, const char *value)
{
    char **at = conf_str_at(c, offset);
    mem_free(*at);
    *at = mem_strdup(value);
}

void conf_clear(struct config *c, const struct conf_key *k)
{
    bool list = k->type == CONF_LIST || k->type == CONF_FLAGS;
    if (k->type == CONF_STR || k->type == CONF_JSON)
        mem_free(take_ptr(conf_str_at(c, k->offset)));
    for (size_t i = 0; list && i < *count_at(c, k); i++)
        mem_free(take_ptr(&conf_str_at(c, k->offset)[i]));
    for (size_t i = 0; k->type == CONF_PAIRS && i < *count_at(c, k); i++) {
        mem_free(TAKE(pairs_at(c, k)[i].key));
        mem_free(TAKE(pairs_at(c, k)[i].value));
    }
    if (list || k->type == CONF_PAIRS)
        *count_at(c, k) = 0;
}

/* ---- one text ---- */

static bool is_choice(const char *choices, const char *value)
{
    size_t n = strlen(value);
    for (const char *p = choices; p != NULL; p = strchr(p, '|')) {
        p += *p == '|';
        if (n > 0 && strncmp(p, value, n) == 0 && (p[n] == '|' || p[n] == '\0'))
            return true;
    }
    return false;
}

static bool parse_bool(const char *value, bool *ret)
{
    static const char *const yes[] = {"true", "yes", "on", "1"};
    static const char *const no[] = {"false", "no", "off", "0"};
    for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
        if (strcasecmp(value, yes[i]) == 0 || strcasecmp(value, no[i]) == 0) {
            *ret = strcasecmp(value, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

static bool parse_i64(const char *value, int64_t *ret)
{
    char *end;
    errno = 0;
    long long x = strtoll(value, &end, 10);
    *ret = x;
    return errno == 0 && end != value && *end == '\0' && !isspace((unsigned char)value[0]);
}

static void check_host_port(struct loader *l, const yaml_node_t *at, const struct conf_key *k,
                            const char *value)
{
    char host[256];
    uint16_t port;
    if (k->host_port && value[0] != '\0' &&
        str_host_port(value, host, sizeof host, &port) != ERR_OK)
        conf_complain(l, at,
                      "%s: \"%s\" is not host:port; write for example 10.0.0.1:7400 or "
                      "[fd00::1]:7400",
                      k->path, value);
}

static void set_text(struct loader *l, const yaml_node_t *at, const struct conf_key *k,
                     const char *value)
{
    if (k->choices != NULL && !is_choice(k->choices, value))
        conf_complain(l, at, "%s: \"%s\" is none of %s", k->path, value, k->choices);
    check_host_port(l, at, k, value);
    conf_set_str(l->c, k->offset, value);
}

static void set_number(struct loader *l, const yaml_node_t *at, const struct conf_key *k,
                       const char *value)
{
    uint64_t u;
    char *base = (char *)l->c + k->offset;
    if (str_parse_u64(value, &u) != ERR_OK)
        conf_complain(l, at, "%s: \"%s\" is not a number of 0 or more", k->path, value);
    else if (k->max != 0 && u > k->max)
        conf_complain(l, at, "%s: %s is more than %llu", k->path, value,
                      (unsigned long long)k->max);
    else
        memcpy(base, &u, sizeof u);
}

void conf_set_text(struct loader *l, const yaml_node_t *at, const struct conf_key *k,
                   const char *value)
{
    char *base = (char *)l->c + k->offset;
    bool flag;
    int64_t i;
    switch (k->type) {
    case CONF_STR:
        set_text(l, at, k, value);
        return;
    case CONF_U64:
        set_number(l, at, k, value);
        return;
    case CONF_I64:
        if (!parse_i64(value, &i))
            conf_complain(l, at, "%s: \"%s\" is not a number", k->path, value);
        else
            memcpy(base, &i, sizeof i);
        return;
    case CONF_BOOL:
        if (!parse_bool(value, &flag))
            conf_complain(l, at, "%s: \"%s\" is neither true nor false", k->path, value);
        else
            memcpy(base, &flag, sizeof flag);
        return;
    case CONF_LIST:
    case CONF_FLAGS:
    case CONF_PAIRS:
    case CONF_JSON:
        break;
    }
    conf_complain(l, at, "%s: a single value where %s is expected", k->path,
                  k->type == CONF_LIST || k->type == CONF_FLAGS ? "a list (- item)"
                                                                : "a map (key: value)");
}

/* ---- collections ---- */

static void push_text(struct loader *l, const yaml_node_t *at, const struct conf_key *k,
                      char *owned)
{
    size_t *n = count_at(l->c, k);
    if (*n < CONF_LIST_MAX) {
        conf_str_at(l->c, k->offset)[(*n)++] = owned;
        return;
    }
    conf_complain(l, at, "%s: more than %d items", k->path, CONF_LIST_MAX);
    mem_free(owned);
}

/* `data-checksums` -> --data-checksums, `encoding: UTF8` -> --encoding=UTF8 */
static void push_flag(struct loader *l, const struct conf_key *k, const yaml_node_t *item)
{
    bool map = item->type == YAML_MAPPING_NODE;
    if (conf_scalar(item) != NULL) {
        push_text(l, item, k, mem_printf("--%s", conf_scalar(item)));
        return;
    }
    if (!map)
        conf_complain(l, item, "%s: an option is `name` or `name: value`", k->path);
    for (yaml_node_pair_t *p = map ? item->data.mapping.pairs.start : NULL;
         map && p < item->data.mapping.pairs.top; p++) {
        const char *key = conf_scalar(conf_node(l, p->key));
        const char *value = conf_scalar(conf_node(l, p->value));
        if (key == NULL || value == NULL)
            conf_complain(l, item, "%s: an option is `name` or `name: value`", k->path);
        else
            push_text(l, item, k, mem_printf("--%s=%s", key, value));
    }
}

static void set_list(struct loader *l, const yaml_node_t *n, const struct conf_key *k)
{
    if (n->type != YAML_SEQUENCE_NODE) {
        conf_complain(l, n, "%s: expected a list (- item)", k->path);
        return;
    }
    for (yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top;
         i++) {
        const yaml_node_t *item = conf_node(l, *i);
        if (item == NULL)
            return;
        if (k->type == CONF_FLAGS) {
            push_flag(l, k, item);
        } else if (conf_scalar(item) == NULL) {
            conf_complain(l, item, "%s: every item is one text", k->path);
        } else {
            check_host_port(l, item, k, conf_scalar(item));
            push_text(l, item, k, mem_strdup(conf_scalar(item)));
        }
    }
}

static void set_pairs(struct loader *l, const yaml_node_t *n, const struct conf_key *k)
{
    size_t *count = count_at(l->c, k);
    if (n->type != YAML_MAPPING_NODE) {
        conf_complain(l, n, "%s: expected a map (name: value)", k->path);
        return;
    }
    for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top;
         p++) {
        const yaml_node_t *name = conf_node(l, p->key);
        const char *key = conf_scalar(name);
        const char *value = conf_scalar(conf_node(l, p->value));
        if (key == NULL || value == NULL)
            conf_complain(l, name != NULL ? name : n, "%s: expected name: value, one text each",
                          k->path);
        else if (*count >= CONF_LIST_MAX)
            conf_complain(l, name, "%s: more than %d entries", k->path, CONF_LIST_MAX);
        else
            pairs_at(l->c, k)[(*count)++] =
                (struct conf_pair){mem_strdup(key), mem_strdup(value)};
    }
}

/* ---- any tree, as JSON ---- */

/* Plain scalars are numbers, booleans or null where they look like it; quoted ones are texts. */
static json_t *json_scalar(const yaml_node_t *n)
{
    const char *s = conf_scalar(n);
    int64_t i;
    bool flag;
    if (s == NULL)
        return NULL;
    if (n->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return json_string(s);
    if (s[0] == '\0' || strcmp(s, "null") == 0 || strcmp(s, "~") == 0)
        return json_null();
    if (parse_i64(s, &i))
        return json_integer(i);
    if (!isdigit((unsigned char)s[0]) && parse_bool(s, &flag))
        return json_boolean(flag);
    return json_string(s);
}

static json_t *json_of(struct loader *l, const yaml_node_t *n, int depth);

static json_t *json_map(struct loader *l, const yaml_node_t *n, int depth)
{
    json_t *o = json_object();
    for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top;
         p++) {
        const yaml_node_t *name = conf_node(l, p->key);
        const char *key = conf_scalar(name);
        if (key == NULL)
            conf_complain(l, name != NULL ? name : n, "a key must be one text");
        else if (json_object_get(o, key) != NULL)
            conf_complain(l, name, "%s stands twice", key);
        else
            json_object_set_new(o, key, json_of(l, conf_node(l, p->value), depth + 1));
    }
    return o;
}

static json_t *json_of(struct loader *l, const yaml_node_t *n, int depth)
{
    json_t *j = NULL;
    if (n == NULL)
        return json_null(); /* complained about already */
    if (depth > CONF_DEPTH_MAX)
        conf_complain(l, n, "nested deeper than %d levels", CONF_DEPTH_MAX);
    else if (n->type == YAML_MAPPING_NODE)
        j = json_map(l, n, depth);
    else if (n->type == YAML_SCALAR_NODE && (j = json_scalar(n)) == NULL)
        conf_complain(l, n, "a text must not have a NUL in it");
    if (depth > CONF_DEPTH_MAX || n->type != YAML_SEQUENCE_NODE)
        return j != NULL ? j : json_null();
    j = json_array();
    for (yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top;
         i++)
        json_array_append_new(j, json_of(l, conf_node(l, *i), depth + 1));
    return j;
}

json_t *conf_json(struct loader *l, const yaml_node_t *n)
{
    return json_of(l, n, 0);
}

static void set_json(struct loader *l, const yaml_node_t *n, const struct conf_key *k)
{
    if (n->type != YAML_MAPPING_NODE) {
        conf_complain(l, n, "%s: expected a map (name: value)", k->path);
        return;
    }
    json_t *j = json_of(l, n, 0);
    char *text = json_dumps(j, JSON_COMPACT);
    conf_set_str(l->c, k->offset, text == NULL ? "{}" : text);
    free(text);
    json_decref(j);
}

void conf_set(struct loader *l, const struct conf_key *k, const yaml_node_t *n)
{
    if (n == NULL || conf_is_empty(n))
        return; /* `key:` without a value means the default */
    if (k->type == CONF_LIST || k->type == CONF_FLAGS)
        set_list(l, n, k);
    else if (k->type == CONF_PAIRS)
        set_pairs(l, n, k);
    else if (k->type == CONF_JSON)
        set_json(l, n, k);
    else if (conf_scalar(n) != NULL)
        conf_set_text(l, n, k, conf_scalar(n));
    else
        conf_complain(l, n, "%s: expected one value", k->path);
}
