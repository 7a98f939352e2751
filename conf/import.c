#include "conf/import.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/str.h"
#include "conf/dynamic.h"
#include "conf/loader.h"
#include "conf/yaml_json.h"

enum { DCS_PORT = 7400, YAML_MAX = 1 << 20 };

/* Why it has no counterpart, where more can be said than that. */
static const struct {
    const char *path, *why;
} reasons[] = {
    {"etcd", "Regent keeps this in its own store"},
    {"etcd3", "Regent keeps this in its own store"},
    {"consul", "Regent keeps this in its own store"},
    {"zookeeper", "Regent keeps this in its own store"},
    {"exhibitor", "Regent keeps this in its own store"},
    {"kubernetes", "Regent keeps this in its own store"},
    {"raft", "Regent keeps this in its own store"},
    {"namespace", "the scope alone names a cluster"},
    {"citus", "not supported"},
    {"ctl", "regentctl takes the node's certificate"},
    {"bootstrap.users", "make roles with SQL when the cluster runs"},
    {"bootstrap.pg_hba", "write the lines under postgresql.pg_hba"},
    {"postgresql.pgpass", "Regent writes a password file of its own"},
    {"log.dir", "Regent logs to standard error: journalctl -u regent"},
    {"log.file_num", "Regent logs to standard error: journalctl -u regent"},
    {"log.file_size", "Regent logs to standard error: journalctl -u regent"},
    {"watchdog.safety_margin", "it follows from the ttl"},
    {"bootstrap.dcs.postgresql.use_pg_rewind", "Regent decides when to rewind"},
    {"bootstrap.dcs.ttl",
     "never carried over: Patroni's 30 s are not needed; the default is 5 s"},
};

static void left_out(struct buf *left, const char *path)
{
    const char *why = "no counterpart";
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
        if (strcmp(reasons[i].path, path) == 0)
            why = reasons[i].why;
    buf_printf(left, "%s: %s\n", path, why);
}

enum kind { KEY, SECTION, UNKNOWN };

static enum kind kind_of(const char *path)
{
    size_t n = strlen(path);
    enum kind kind = UNKNOWN;
    for (size_t i = 0; i < conf_keys_n; i++) {
        if (strcmp(conf_keys[i].path, path) == 0)
            return KEY;
        if (strncmp(conf_keys[i].path, path, n) == 0 && conf_keys[i].path[n] == '.')
            kind = SECTION;
    }
    return kind;
}

/* The section of a method that something names. */
static bool is_method(const json_t *root, const char *path)
{
    const json_t *boot = json_object_get(root, "bootstrap");
    const json_t *create =
        json_object_get(json_object_get(root, "postgresql"), "create_replica_methods");
    const char *method = json_string_value(json_object_get(boot, "method"));
    size_t i;
    json_t *name;
    if (str_starts(path, "bootstrap."))
        return method != NULL && strcmp(path + strlen("bootstrap."), method) == 0;
    json_array_foreach(create, i, name)
    {
        if (str_starts(path, "postgresql.") && json_is_string(name) &&
            strcmp(path + strlen("postgresql."), json_string_value(name)) == 0)
            return true;
    }
    return false;
}

/* As deep as the table's longest path. */
static void keep_known(const json_t *root, json_t *map, const char *prefix, struct buf *left)
{
    void *next;
    const char *key;
    json_t *value;
    json_object_foreach_safe(map, next, key, value)
    {
        char path[CONF_PATH_MAX];
        bool fits = str_format(path, sizeof path, "%s%s%s", prefix,
                               prefix[0] != '\0' ? "." : "", key) == ERR_OK;
        enum kind kind = fits ? kind_of(path) : UNKNOWN;
        if (fits && kind == UNKNOWN && is_method(root, path))
            continue;
        if (kind == SECTION && json_is_object(value))
            keep_known(root, value, path, left);
        else if (kind != KEY)
            left_out(left, fits ? path : key);
        if (kind == UNKNOWN || (kind == SECTION && json_object_size(value) == 0))
            json_object_del(map, key);
    }
}

static bool is_dynamic(const struct dynamic_key *keys, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(keys[i].name, name) == 0)
            return true;
    return false;
}

static void keep_dynamic(json_t *map, const char *prefix, const struct dynamic_key *keys,
                         size_t n, struct buf *left)
{
    void *next;
    const char *key;
    json_t *value;
    json_object_foreach_safe(map, next, key, value)
    {
        char path[CONF_PATH_MAX];
        bool fits = str_format(path, sizeof path, "%s.%s", prefix, key) == ERR_OK;
        if (fits && strcmp(path, "bootstrap.dcs.ttl") != 0 && is_dynamic(keys, n, key))
            continue;
        left_out(left, fits ? path : key);
        json_object_del(map, key);
    }
}

/* `off` without quotes is false to YAML. */
static void translate_watchdog(json_t *root)
{
    json_t *watchdog = json_object_get(root, "watchdog");
    const json_t *mode = json_object_get(watchdog, "mode");
    if (json_is_boolean(mode))
        json_object_set_new(watchdog, "mode",
                            json_string(json_is_true(mode) ? "automatic" : "off"));
}

/* Python's names of levels. */
static void translate_level(json_t *root)
{
    json_t *log = json_object_get(root, "log");
    const char *level = json_string_value(json_object_get(log, "level"));
    const char *ours = "info";
    if (level == NULL)
        return;
    switch (toupper((unsigned char)level[0])) {
    case 'D':
        ours = "debug";
        break;
    case 'W':
        ours = "warn";
        break;
    case 'E':
    case 'C':
    case 'F':
        ours = "error";
        break;
    default:
        break;
    }
    json_object_set_new(log, "level", json_string(ours));
}

static void set_dcs(json_t *root, const struct import_options *o)
{
    const json_t *rest = json_object_get(root, "restapi");
    const char *address = json_string_value(json_object_get(rest, "connect_address"));
    char host[256];
    char listen[300];
    uint16_t port;
    if (address == NULL)
        address = json_string_value(json_object_get(rest, "listen"));
    if (o->dcs_listen != NULL)
        str_cut(listen, sizeof listen, o->dcs_listen);
    else if (address != NULL && str_host_port(address, host, sizeof host, &port) == ERR_OK)
        (void)snprintf(listen, sizeof listen, strchr(host, ':') != NULL ? "[%s]:%d" : "%s:%d",
                       host, DCS_PORT);
    else
        return; /* the parser says that it is missing */
    json_object_set_new(root, "dcs", json_pack("{s:s}", "listen", listen));
    json_object_set_new(root, "data_dir", json_string(o->data_dir));
}

static enum err check(const json_t *dynamic, struct slice yaml, struct buf *left)
{
    struct config parsed;
    struct errmsg e = {0};
    struct buf normal CLEANUP(buf_close) = {.max = YAML_MAX};
    char *text = dynamic != NULL ? json_dumps(dynamic, 0) : NULL;
    enum err rv = text != NULL ? dynamic_check(slice_str(text), &normal, &e) : ERR_OK;
    free(text);
    if (rv != ERR_OK)
        buf_printf(left, "bootstrap.dcs: %s\n", e.text);
    if (config_parse("the result", yaml, &parsed, left) != ERR_OK)
        return ERR_INVALID;
    config_close(&parsed);
    return rv;
}

enum err import_patroni(struct slice text, const struct import_options *o, struct buf *ret_yaml,
                        struct buf *ret_left)
{
    struct config none = {0};
    struct loader l = {.source = o->source, .has_lines = true, .c = &none, .report = ret_left};
    if (!conf_parse(&l, text)) {
        yaml_document_delete(&l.doc);
        return ERR_INVALID;
    }
    json_t *root = conf_json(&l, yaml_document_get_root_node(&l.doc));
    yaml_document_delete(&l.doc);
    if (!json_is_object(root))
        conf_complain(&l, NULL, "expected a map (key: value)");
    if (l.findings > 0) {
        json_decref(root);
        return ERR_INVALID;
    }
    keep_known(root, root, "", ret_left);
    json_t *dynamic = json_object_get(json_object_get(root, "bootstrap"), "dcs");
    keep_dynamic(dynamic, "bootstrap.dcs", dynamic_keys, dynamic_keys_n, ret_left);
    keep_dynamic(json_object_get(dynamic, "postgresql"), "bootstrap.dcs.postgresql",
                 dynamic_postgresql_keys, dynamic_postgresql_keys_n, ret_left);
    translate_level(root);
    translate_watchdog(root);
    set_dcs(root, o);
    buf_printf(ret_yaml, "# Made of %s by `regentctl import`; see regent.yml(5).\n", o->source);
    char *json = json_dumps(root, JSON_COMPACT);
    yaml_of_json(slice_str(json), ret_yaml);
    free(json);
    enum err rv = check(dynamic, buf_slice(ret_yaml), ret_left);
    json_decref(root);
    return rv;
}
