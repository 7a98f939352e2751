#include "conf/yaml_json.h"

#include <stdlib.h>

#include "conf/loader.h"

static bool is_plain(const char *key)
{
    return key[0] != '\0' && key[strspn(key, "abcdefghijklmnopqrstuvwxyz_")] == '\0';
}

static void print_json(const json_t *value, struct buf *out)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY);
    buf_printf(out, "%s", text != NULL ? text : "null");
    free(text);
}

/* As deep as the document that was read. */
static void print_map(const json_t *map, size_t indent, struct buf *out)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)map, key, value)
    {
        json_t *name = json_string(key);
        buf_printf(out, "%*s", (int)(2 * indent), "");
        if (is_plain(key))
            buf_printf(out, "%s", key);
        else
            print_json(name, out);
        json_decref(name);
        bool block = json_is_object(value) && json_object_size(value) > 0;
        buf_printf(out, block ? ":\n" : ": ");
        if (block) {
            print_map(value, indent + 1, out);
        } else {
            print_json(value, out);
            buf_printf(out, "\n");
        }
    }
}

void yaml_of_json(struct slice json, struct buf *ret_yaml)
{
    json_t *map = json_loadb((const char *)json.p, json.n, 0, NULL);
    if (json_object_size(map) > 0)
        print_map(map, 0, ret_yaml);
    else
        buf_printf(ret_yaml, "{}\n");
    json_decref(map);
}

enum err yaml_to_json(const char *source, struct slice yaml, struct buf *ret_json,
                      struct buf *ret_report)
{
    struct config none = {0};
    struct loader l = {.source = source, .has_lines = true, .c = &none, .report = ret_report};
    json_t *root = NULL;
    if (conf_parse(&l, yaml.n > 0 ? yaml : slice_str(""))) {
        const yaml_node_t *n = yaml_document_get_root_node(&l.doc);
        root = n != NULL ? conf_json(&l, n) : NULL;
        if (!json_is_object(root))
            conf_complain(&l, NULL, "expected a map (key: value)");
    }
    yaml_document_delete(&l.doc);
    if (l.findings == 0)
        print_json(root, ret_json);
    json_decref(root);
    return l.findings == 0 ? ERR_OK : ERR_INVALID;
}
