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

#define STORE "Regent keeps this in its own store"
#define ERROR_LOG "Regent logs one event a line to standard error: journalctl -u regent"
#define POOLS "Regent has no thread pools to size"
#define BY_ROLE "nothing is set by role: set it for all"
#define STOPS "a stop has a time limit of its own, after which PostgreSQL is killed"

/* Why it has no counterpart. A path stands for all below it; one that begins with a point, for all that end in it. */
static const struct {
    const char *path, *why;
} reasons[] = {
    {"etcd", STORE},
    {"etcd3", STORE},
    {"consul", STORE},
    {"zookeeper", STORE},
    {"exhibitor", STORE},
    {"kubernetes", STORE},
    {"raft", STORE},
    {"namespace", "the scope alone names a cluster"},
    {"citus", "not supported"},
    {"ctl", "regentctl takes the node's certificate"},
    {"thread_pool_size", POOLS},
    {"thread_stack_size", POOLS},
    {"restapi.thread_pool_size", POOLS},
    {"restapi.request_queue_size", POOLS},
    {"restapi.keyfile_password", "keys with a password are not supported"},
    {"restapi.ciphers", "the TLS library's own choice"},
    {"restapi.allowlist_include_members",
     "the nodes do not call each other by REST; who else may is listed in restapi.allowlist"},
    {"restapi.http_extra_headers", "answers have no further headers"},
    {"restapi.https_extra_headers", "answers have no further headers"},
    {"restapi.server_tokens", "answers do not name the program"},
    {"bootstrap.users", "make roles with SQL when the cluster runs"},
    {"bootstrap.pg_hba", "write the lines under postgresql.pg_hba"},
    {"bootstrap.dcs.ttl",
     "never carried over: Patroni's 30 s are not needed; the default is 5 s"},
    {"bootstrap.dcs.failsafe_mode",
     "not needed: the nodes are the store, and a majority of them goes on"},
    {"bootstrap.dcs.primary_race_backoff",
     "not needed: a fence ends the old primary before anybody else may lead"},
    {"bootstrap.dcs.max_timelines_history", "the newest 128 are kept"},
    {"bootstrap.dcs.primary_stop_timeout", STOPS},
    {"bootstrap.dcs.master_stop_timeout", STOPS},
    {".parameters_primary", BY_ROLE},
    {".parameters_replica", BY_ROLE},
    {".parameters_standby_leader", BY_ROLE},
    {".pg_hba_primary", BY_ROLE},
    {".pg_hba_replica", BY_ROLE},
    {".pg_hba_standby_leader", BY_ROLE},
    {".pg_ident_primary", BY_ROLE},
    {".pg_ident_replica", BY_ROLE},
    {".pg_ident_standby_leader", BY_ROLE},
    {".postgresql.recovery_conf", "Regent sets the recovery by itself, but for its commands"},
    {".postgresql.custom_conf", "write the settings under postgresql.parameters"},
    {".postgresql.config_dir", "PostgreSQL's configuration is in its data directory"},
    {".postgresql.bin_name", "PostgreSQL's programs have their usual names"},
    {".postgresql.pgpass", "Regent writes a password file of its own"},
    {".postgresql.proxy_address",
     "not shown by REST; for addresses of proxies see templates and vip"},
    {".postgresql.use_unix_socket", "the agent always connects by the socket"},
    {".postgresql.use_unix_socket_repl", "copies and standbys connect by TCP"},
    {".postgresql.pg_ctl_timeout",
     "pg_ctl is not used; primary_start_timeout bounds a crashed primary's start"},
    {".postgresql.rewind", "pg_rewind is given what it needs"},
    {".postgresql.database", "the agent connects to the database postgres"},
    {"postgresql.authentication.superuser", "Regent's connections take the password, and TLS "
                                            "where the server has it"},
    {"postgresql.authentication.replication", "Regent's connections take the password, and "
                                              "TLS where the server has it"},
    {"postgresql.authentication.rewind", "Regent's connections take the password, and TLS "
                                         "where the server has it"},
    {"log", ERROR_LOG},
    {"watchdog.safety_margin", "it follows from the ttl"},
    {"watchdog.driver", "watchdog devices of Linux alone"},
    {"tags", "there are no tags of one's own"},
};

static bool speaks_of(const char *reason, const char *path)
{
    size_t n = strlen(reason);
    size_t len = strlen(path);
    if (reason[0] == '.')
        return len >= n - 1 && strcmp(path + len - (n - 1), reason + 1) == 0 &&
               (len == n - 1 || path[len - n] == '.');
    return strncmp(reason, path, n) == 0 && (path[n] == '\0' || path[n] == '.');
}

static void left_out(struct buf *left, const char *path)
{
    const char *why = "no counterpart";
    for (size_t i = ARRAY_LEN(reasons); i > 0; i--)
        if (speaks_of(reasons[i - 1].path, path))
            why = reasons[i - 1].why;
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

static bool is_moved(const char *name)
{
    for (size_t i = 0; i < dynamic_moved_n; i++)
        if (strcmp(dynamic_moved[i], name) == 0)
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
        if (fits && strcmp(path, "bootstrap.dcs.ttl") != 0 &&
            (is_dynamic(keys, n, key) || (keys == dynamic_postgresql_keys && is_moved(key))))
            continue;
        if (fits && kind_of(path + strlen("bootstrap.dcs.")) != UNKNOWN)
            buf_printf(left, "%s: a node's own here: write it into the files, under %s\n", path,
                       path + strlen("bootstrap.dcs."));
        else
            left_out(left, fits ? path : key);
        json_object_del(map, key);
    }
}

/* The map of that name in `map`; made when it is not there. NULL: something else bears the name. */
static json_t *map_in(json_t *map, const char *name)
{
    if (json_is_object(map) && json_object_get(map, name) == NULL)
        json_object_set_new(map, name, json_object());
    json_t *found = json_object_get(map, name);
    return json_is_object(found) ? found : NULL;
}

static void move(json_t *from, const char *name, json_t *to, const char *ours)
{
    json_t *v = json_object_get(from, name);
    if (v == NULL || to == NULL)
        return;
    if (json_object_get(to, ours) == NULL)
        json_object_set(to, ours, v);
    json_object_del(from, name);
}

/* From version 12 on they are parameters, and Patroni takes them for such. */
static void translate_recovery(json_t *pg)
{
    static const char *const commands[] = {"restore_command", "archive_cleanup_command",
                                           "recovery_end_command"};
    json_t *from = json_object_get(pg, "recovery_conf");
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (json_object_get(from, commands[i]) != NULL)
            move(from, commands[i], map_in(pg, "parameters"), commands[i]);
    if (json_is_object(from) && json_object_size(from) == 0)
        json_object_del(pg, "recovery_conf");
}

/* What one node's file may say there belongs to the whole cluster here; what all nodes have said before goes first. */
static void translate_places(json_t *root)
{
    json_t *pg = json_object_get(root, "postgresql");
    json_t *dcs = json_object_get(json_object_get(root, "bootstrap"), "dcs");
    for (size_t i = 0; i < dynamic_moved_n; i++)
        if (json_object_get(pg, dynamic_moved[i]) != NULL)
            move(pg, dynamic_moved[i],
                 map_in(map_in(map_in(root, "bootstrap"), "dcs"), "postgresql"),
                 dynamic_moved[i]);
    move(dcs, "master_start_timeout", dcs, "primary_start_timeout");
    translate_recovery(pg);
    translate_recovery(json_object_get(dcs, "postgresql"));
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

/* There, the format is one of Python's. */
static void translate_format(json_t *root, struct buf *left)
{
    json_t *log = json_object_get(root, "log");
    const char *type = json_string_value(json_object_get(log, "type"));
    if (json_object_get(log, "format") != NULL)
        left_out(left, "log.format");
    json_object_del(log, "format");
    if (type != NULL && strcmp(type, "json") == 0)
        json_object_set_new(log, "format", json_string("json"));
    json_object_del(log, "type");
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
    translate_places(root);
    translate_format(root, ret_left);
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
