/* The YAML tree: parsing, and the way of every key into the table. */
#include "base/str.h"
#include "conf/loader.h"

static void not_yaml(struct loader *l, const yaml_parser_t *parser)
{
    yaml_node_t at = {.start_mark = parser->problem_mark};
    conf_complain(l, &at, "not valid YAML: %s",
                  parser->problem != NULL ? parser->problem : "unreadable");
}

/* A second document would be ignored without a word: refused. */
static void only_one(struct loader *l, yaml_parser_t *parser)
{
    yaml_document_t more;
    if (yaml_parser_load(parser, &more) == 0) {
        not_yaml(l, parser);
        return;
    }
    const yaml_node_t *root = yaml_document_get_root_node(&more);
    if (root != NULL)
        conf_complain(l, root, "a second document (---): everything belongs into the first");
    yaml_document_delete(&more);
}

bool conf_parse(struct loader *l, struct slice text)
{
    yaml_parser_t parser;
    if (yaml_parser_initialize(&parser) == 0) {
        conf_complain(l, NULL, "cannot be read: out of memory");
        return false;
    }
    yaml_parser_set_input_string(&parser, text.p, text.n);
    bool ok = yaml_parser_load(&parser, &l->doc) != 0;
    if (!ok)
        not_yaml(l, &parser);
    else if (yaml_document_get_root_node(&l->doc) != NULL)
        only_one(l, &parser);
    yaml_parser_delete(&parser);
    return ok;
}

static size_t find_key(const char *path)
{
    for (size_t i = 0; i < conf_keys_n; i++)
        if (strcmp(conf_keys[i].path, path) == 0)
            return i;
    return SIZE_MAX;
}

static bool is_section(const char *path)
{
    size_t n = strlen(path);
    for (size_t i = 0; i < conf_keys_n; i++)
        if (strncmp(conf_keys[i].path, path, n) == 0 && conf_keys[i].path[n] == '.')
            return true;
    return false;
}

/* Keys and sections alike: "postgresq" means postgresql. */
static void nearest(const char *path, char ret[static CONF_PATH_MAX])
{
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < conf_keys_n; i++) {
        const char *known = conf_keys[i].path;
        for (size_t n = strcspn(known, "."); n > 0; n += known[n] == '.') {
            char prefix[CONF_PATH_MAX];
            n += strcspn(known + n, ".");
            if (str_copy_slice(prefix, sizeof prefix, slice_of(known, n)) == ERR_OK &&
                str_distance(prefix, path) < best) {
                best = str_distance(prefix, path);
                str_cut(ret, CONF_PATH_MAX, prefix);
            }
            if (known[n] == '\0')
                break;
        }
    }
}

/* Keys of the same meaning elsewhere, or of none here. */
static const struct {
    const char *path, *instead;
} absent[] = {
    {"dcs.initial_cluster", "a cluster is founded by `regentctl init` on its first node, and "
                            "the others are added by `regentctl "
                            "join`, which makes their certificates"},
    {"dcs.etcd",
     "there is no etcd API: clients speak the protocol of docs/PROTOCOL.md on dcs.listen"},
};

/* Empty, as in the examples of others, they are no harm. */
static bool is_nothing(struct loader *l, const yaml_node_t *v)
{
    if (v == NULL || conf_is_empty(v))
        return true;
    if (v->type == YAML_SEQUENCE_NODE)
        return v->data.sequence.items.start == v->data.sequence.items.top;
    if (v->type != YAML_MAPPING_NODE)
        return false;
    for (yaml_node_pair_t *p = v->data.mapping.pairs.start; p < v->data.mapping.pairs.top;
         p++) {
        const yaml_node_t *one = conf_node(l, p->value);
        if (one != NULL && !conf_is_empty(one))
            return false;
    }
    return true;
}

static bool is_absent(struct loader *l, const char *path, const yaml_node_t *at,
                      const yaml_node_t *value)
{
    for (size_t i = 0; i < ARRAY_LEN(absent); i++) {
        if (strcmp(absent[i].path, path) != 0)
            continue;
        if (!is_nothing(l, value))
            conf_complain(l, at, "%s is not offered: %s", path, absent[i].instead);
        return true;
    }
    return false;
}

void conf_unknown_key(struct loader *l, const yaml_node_t *at, const char *path)
{
    char best[CONF_PATH_MAX] = "";
    nearest(path, best);
    conf_complain(l, at, "unknown key \"%s\"; the nearest known one is \"%s\"", path, best);
}

static void walk(struct loader *l, const yaml_node_t *map, const char *prefix)
{
    if (map == NULL || conf_is_empty(map))
        return;
    if (map->type != YAML_MAPPING_NODE) {
        conf_complain(l, map, "%s: expected a map (key: value)",
                      prefix[0] != '\0' ? prefix : "the file");
        return;
    }
    for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top;
         p++) {
        const yaml_node_t *key = conf_node(l, p->key);
        char path[CONF_PATH_MAX];
        if (key == NULL)
            return;
        if (conf_scalar(key) == NULL ||
            str_format(path, sizeof path, "%s%s%s", prefix, prefix[0] != '\0' ? "." : "",
                       conf_scalar(key)) != ERR_OK) {
            conf_complain(l, key, "a key must be one short text");
            continue;
        }
        size_t i = find_key(path);
        if (i != SIZE_MAX && l->seen[i])
            conf_complain(l, key, "%s stands twice", path);
        else if (i != SIZE_MAX)
            conf_set(l, &conf_keys[i], conf_node(l, p->value));
        else if (is_section(path))
            walk(l, conf_node(l, p->value), path); /* as deep as the table's longest path */
        else if (!is_absent(l, path, key, conf_node(l, p->value)) &&
                 !conf_method_section(l, path, key, conf_node(l, p->value)))
            conf_unknown_key(l, key, path);
        if (i != SIZE_MAX)
            l->seen[i] = true;
    }
}

void conf_walk(struct loader *l)
{
    walk(l, yaml_document_get_root_node(&l->doc), "");
}
