/* Reading the file: YAML tree -> key table -> struct config. Every finding is reported, with its line. */
#include "conf/config.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <yaml.h>

#include "base/mem.h"
#include "base/str.h"
#include "conf/keys.h"

enum { PATH_LEN = 160, DEPTH_MAX = 16 };

struct loader {
    const char *file;
    yaml_document_t doc;
    struct config *c;
    struct buf *report;
    bool failed;
    bool *seen; /* by key */
};

static void complain(struct loader *l, const yaml_node_t *at, const char *fmt, ...) PRINTF(3, 4);
static void complain(struct loader *l, const yaml_node_t *at, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (at != NULL)
        buf_printf(l->report, "%s:%zu: %s\n", l->file, at->start_mark.line + 1, text);
    else
        buf_printf(l->report, "%s: %s\n", l->file, text);
    l->failed = true;
}

/* ---- one value ---- */

static char **str_at(struct config *c, size_t offset)
{
    return (char **)(void *)((char *)c + offset);
}

static void set_str(struct config *c, size_t offset, const char *value)
{
    char **at = str_at(c, offset);
    mem_free(*at);
    *at = mem_strdup(value);
}

static bool is_choice(const char *choices, const char *value)
{
    size_t n = strlen(value);
    for (const char *p = choices; p != NULL; p = strchr(p, '|')) {
        p += *p == '|';
        if (strncmp(p, value, n) == 0 && (p[n] == '|' || p[n] == '\0'))
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
    return errno == 0 && end != value && *end == '\0';
}

static void check_host_port(struct loader *l, const yaml_node_t *at, const struct conf_key *k, const char *value)
{
    char host[256];
    uint16_t port;
    if (k->host_port && value[0] != '\0' && str_host_port(value, host, sizeof host, &port) != ERR_OK)
        complain(l, at, "%s: \"%s\" is not host:port; write for example 10.0.0.1:7400 or [fd00::1]:7400", k->path,
                 value);
}

static void set_scalar(struct loader *l, const yaml_node_t *at, const struct conf_key *k, const char *value)
{
    char *base = (char *)l->c + k->offset;
    bool flag;
    uint64_t u;
    int64_t i;
    switch (k->type) {
    case CONF_STR:
        if (k->choices != NULL && !is_choice(k->choices, value))
            complain(l, at, "%s: \"%s\" is none of %s", k->path, value, k->choices);
        check_host_port(l, at, k, value);
        set_str(l->c, k->offset, value);
        return;
    case CONF_U64:
        if (str_parse_u64(value, &u) != ERR_OK)
            complain(l, at, "%s: \"%s\" is not a number of 0 or more", k->path, value);
        else
            memcpy(base, &u, sizeof u);
        return;
    case CONF_I64:
        if (!parse_i64(value, &i))
            complain(l, at, "%s: \"%s\" is not a number", k->path, value);
        else
            memcpy(base, &i, sizeof i);
        return;
    case CONF_BOOL:
        if (!parse_bool(value, &flag))
            complain(l, at, "%s: \"%s\" is neither true nor false", k->path, value);
        else
            memcpy(base, &flag, sizeof flag);
        return;
    case CONF_LIST:
    case CONF_FLAGS:
    case CONF_PAIRS:
    case CONF_JSON:
        break;
    }
    complain(l, at, "%s: a single value where %s is expected", k->path,
             k->type == CONF_LIST || k->type == CONF_FLAGS ? "a list (- item)" : "a map (key: value)");
}

/* ---- collections ---- */

static const char *scalar(const yaml_node_t *n)
{
    return n != NULL && n->type == YAML_SCALAR_NODE ? (const char *)n->data.scalar.value : NULL;
}

static yaml_node_t *node(struct loader *l, int index)
{
    return yaml_document_get_node(&l->doc, index);
}

static bool push_text(struct loader *l, const yaml_node_t *at, const struct conf_key *k, char *owned)
{
    size_t *n = (size_t *)(void *)((char *)l->c + k->count_offset);
    if (*n >= CONF_LIST_MAX) {
        complain(l, at, "%s: more than %d items", k->path, CONF_LIST_MAX);
        mem_free(owned);
        return false;
    }
    str_at(l->c, k->offset)[(*n)++] = owned;
    return true;
}

/* `data-checksums` -> --data-checksums, `encoding: UTF8` -> --encoding=UTF8 */
static void push_flag(struct loader *l, const struct conf_key *k, const yaml_node_t *item)
{
    if (scalar(item) != NULL) {
        push_text(l, item, k, mem_printf("--%s", scalar(item)));
        return;
    }
    if (item->type == YAML_MAPPING_NODE) {
        for (yaml_node_pair_t *p = item->data.mapping.pairs.start; p < item->data.mapping.pairs.top; p++) {
            const char *key = scalar(node(l, p->key));
            const char *value = scalar(node(l, p->value));
            if (key == NULL || value == NULL)
                complain(l, item, "%s: an option is `name` or `name: value`", k->path);
            else
                push_text(l, item, k, mem_printf("--%s=%s", key, value));
        }
        return;
    }
    complain(l, item, "%s: an option is `name` or `name: value`", k->path);
}

static void set_list(struct loader *l, const yaml_node_t *n, const struct conf_key *k)
{
    if (n->type != YAML_SEQUENCE_NODE) {
        complain(l, n, "%s: expected a list (- item)", k->path);
        return;
    }
    for (yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top; i++) {
        const yaml_node_t *item = node(l, *i);
        if (k->type == CONF_FLAGS) {
            push_flag(l, k, item);
        } else if (scalar(item) == NULL) {
            complain(l, item, "%s: every item is one text", k->path);
        } else {
            check_host_port(l, item, k, scalar(item));
            push_text(l, item, k, mem_strdup(scalar(item)));
        }
    }
}

static void set_pairs(struct loader *l, const yaml_node_t *n, const struct conf_key *k)
{
    struct conf_pair *pairs = (struct conf_pair *)(void *)((char *)l->c + k->offset);
    size_t *count = (size_t *)(void *)((char *)l->c + k->count_offset);
    if (n->type != YAML_MAPPING_NODE) {
        complain(l, n, "%s: expected a map (name: value)", k->path);
        return;
    }
    for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
        const char *key = scalar(node(l, p->key));
        const char *value = scalar(node(l, p->value));
        if (key == NULL || value == NULL)
            complain(l, n, "%s: expected name: value", k->path);
        else if (*count >= CONF_LIST_MAX)
            complain(l, n, "%s: more than %d entries", k->path, CONF_LIST_MAX);
        else
            pairs[(*count)++] = (struct conf_pair){mem_strdup(key), mem_strdup(value)};
    }
}

static json_t *json_scalar(const yaml_node_t *n)
{
    const char *s = scalar(n);
    int64_t i;
    bool flag;
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

static json_t *json_of(struct loader *l, const yaml_node_t *n, int depth)
{
    if (depth > DEPTH_MAX) {
        complain(l, n, "nested deeper than %d levels", DEPTH_MAX);
        return json_null();
    }
    if (n->type == YAML_SCALAR_NODE)
        return json_scalar(n);
    if (n->type == YAML_SEQUENCE_NODE) {
        json_t *a = json_array();
        for (yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top; i++)
            json_array_append_new(a, json_of(l, node(l, *i), depth + 1));
        return a;
    }
    json_t *o = json_object();
    for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
        const char *key = scalar(node(l, p->key));
        if (key == NULL)
            complain(l, n, "a key must be one text");
        else
            json_object_set_new(o, key, json_of(l, node(l, p->value), depth + 1));
    }
    return o;
}

static void set_json(struct loader *l, const yaml_node_t *n, const struct conf_key *k)
{
    if (n->type != YAML_MAPPING_NODE) {
        complain(l, n, "%s: expected a map (name: value)", k->path);
        return;
    }
    json_t *j = json_of(l, n, 0);
    char *text = json_dumps(j, JSON_COMPACT);
    set_str(l->c, k->offset, text == NULL ? "{}" : text);
    free(text);
    json_decref(j);
}

/* ---- the tree ---- */

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

static void unknown_key(struct loader *l, const yaml_node_t *at, const char *path)
{
    const char *best = conf_keys[0].path;
    for (size_t i = 1; i < conf_keys_n; i++)
        if (str_distance(conf_keys[i].path, path) < str_distance(best, path))
            best = conf_keys[i].path;
    complain(l, at, "unknown key \"%s\"; the nearest known one is \"%s\"", path, best);
}

static bool is_empty(const yaml_node_t *n)
{
    return n->type == YAML_SCALAR_NODE && n->data.scalar.length == 0 &&
           n->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

static void set_key(struct loader *l, size_t i, const yaml_node_t *n)
{
    const struct conf_key *k = &conf_keys[i];
    l->seen[i] = true;
    if (is_empty(n))
        return; /* `key:` without a value means the default */
    if (k->type == CONF_LIST || k->type == CONF_FLAGS)
        set_list(l, n, k);
    else if (k->type == CONF_PAIRS)
        set_pairs(l, n, k);
    else if (k->type == CONF_JSON)
        set_json(l, n, k);
    else if (scalar(n) != NULL)
        set_scalar(l, n, k, scalar(n));
    else
        complain(l, n, "%s: expected one value", k->path);
}

static void walk(struct loader *l, const yaml_node_t *map, const char *prefix)
{
    if (map->type != YAML_MAPPING_NODE) {
        if (!is_empty(map))
            complain(l, map, "%s: expected a map (key: value)", prefix[0] != '\0' ? prefix : "the file");
        return;
    }
    for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        const yaml_node_t *key = node(l, p->key);
        char path[PATH_LEN];
        if (scalar(key) == NULL ||
            str_format(path, sizeof path, "%s%s%s", prefix, prefix[0] != '\0' ? "." : "", scalar(key)) != ERR_OK) {
            complain(l, key, "a key must be one short text");
            continue;
        }
        size_t i = find_key(path);
        if (i != SIZE_MAX && l->seen[i])
            complain(l, key, "%s stands twice", path);
        else if (i != SIZE_MAX)
            set_key(l, i, node(l, p->value));
        else if (is_section(path))
            walk(l, node(l, p->value), path); /* as deep as the table's longest path: bounded */
        else
            unknown_key(l, key, path);
    }
}

/* ---- environment and defaults ---- */

static void env_name(const char *path, char ret[static PATH_LEN])
{
    size_t n = (size_t)snprintf(ret, PATH_LEN, "REGENT_%s", path);
    for (size_t i = 0; i < n && i < PATH_LEN; i++)
        ret[i] = (char)(ret[i] == '.' ? '_' : toupper((unsigned char)ret[i]));
}

static void from_environment(struct loader *l)
{
    for (size_t i = 0; i < conf_keys_n; i++) {
        char name[PATH_LEN];
        env_name(conf_keys[i].path, name);
        const char *value = getenv(name);
        if (value == NULL)
            continue;
        const char *file = l->file;
        l->file = name;
        set_scalar(l, NULL, &conf_keys[i], value);
        l->file = file;
        l->seen[i] = true;
    }
}

static void fill_defaults(struct loader *l)
{
    for (size_t i = 0; i < conf_keys_n; i++) {
        const struct conf_key *k = &conf_keys[i];
        if (k->required && (!l->seen[i] || *str_at(l->c, k->offset) == NULL))
            complain(l, NULL, "%s is missing (%s)", k->path, k->help);
        if (k->type == CONF_JSON && *str_at(l->c, k->offset) == NULL)
            set_str(l->c, k->offset, k->fallback);
        if (k->type == CONF_STR && *str_at(l->c, k->offset) == NULL)
            set_str(l->c, k->offset, k->fallback != NULL ? k->fallback : "");
        if (!l->seen[i] && k->fallback != NULL && k->type != CONF_STR && k->type != CONF_JSON)
            set_scalar(l, NULL, k, k->fallback);
    }
}

static void default_path(char **at, const char *dir, const char *file)
{
    if ((*at)[0] == '\0') {
        mem_free(*at);
        *at = mem_printf("%s/%s", dir, file);
    }
}

static void copy_default(char **at, const char *from)
{
    if ((*at)[0] == '\0') {
        mem_free(*at);
        *at = mem_strdup(from);
    }
}

static void check_name(struct loader *l, const char *key, const char *value)
{
    if (strlen(value) > 60)
        complain(l, NULL, "%s: \"%s\" is longer than 60 characters", key, value);
    for (const char *p = value; *p != '\0'; p++) {
        if (!isalnum((unsigned char)*p) && strchr("_-.", *p) == NULL) {
            complain(l, NULL, "%s: \"%s\" may hold letters, digits, and _ - . only", key, value);
            return;
        }
    }
}

static void cross_checks(struct loader *l)
{
    struct config *c = l->c;
    default_path(&c->dcs.tls.ca, c->data_dir, "pki/ca.crt");
    default_path(&c->dcs.tls.cert, c->data_dir, "pki/node.crt");
    default_path(&c->dcs.tls.key, c->data_dir, "pki/node.key");
    copy_default(&c->dcs.connect_address, c->dcs.listen);
    copy_default(&c->restapi.connect_address, c->restapi.listen);
    copy_default(&c->postgresql.connect_address, c->postgresql.listen);
    check_name(l, "scope", c->scope);
    check_name(l, "name", c->name);
    bool witness = strcmp(c->dcs.role, "witness") == 0;
    if (!witness && c->postgresql.listen[0] == '\0')
        complain(l, NULL, "postgresql.listen is missing (host:port PostgreSQL listens on); only a witness has none");
    if (!witness && c->postgresql.data_dir[0] == '\0')
        complain(l, NULL, "postgresql.data_dir is missing (where PostgreSQL's data lives); only a witness has none");
    if (c->data_dir[0] != '/')
        complain(l, NULL, "data_dir: \"%s\" is not an absolute path", c->data_dir);
    if (c->postgresql.data_dir[0] != '\0' && c->postgresql.data_dir[0] != '/')
        complain(l, NULL, "postgresql.data_dir: \"%s\" is not an absolute path", c->postgresql.data_dir);
    if (c->dcs.heartbeat_ms == 0 || c->dcs.election_ms < 5 * c->dcs.heartbeat_ms)
        complain(l, NULL, "dcs.election_ms (%" PRIu64 ") must be at least five times dcs.heartbeat_ms (%" PRIu64 ")",
                 c->dcs.election_ms, c->dcs.heartbeat_ms);
}

/* ---- entry points ---- */

static bool parse_yaml(struct loader *l, FILE *f)
{
    yaml_parser_t parser;
    if (yaml_parser_initialize(&parser) == 0)
        return false;
    yaml_parser_set_input_file(&parser, f);
    bool ok = yaml_parser_load(&parser, &l->doc) != 0;
    if (!ok) {
        buf_printf(l->report, "%s:%zu: not valid YAML: %s\n", l->file, parser.problem_mark.line + 1,
                   parser.problem != NULL ? parser.problem : "unreadable");
        l->failed = true;
    }
    yaml_parser_delete(&parser);
    return ok;
}

static bool open_file(struct loader *l, FILE **ret_file)
{
    *ret_file = fopen(l->file, "re");
    if (*ret_file != NULL)
        return true;
    int why = errno;
    buf_printf(l->report, "%s: cannot read the configuration file: %s; %s\n", l->file, strerror(why),
               why == ENOENT ? "name one with -c FILE or REGENT_CONFIG, or make one with `regentctl init`"
                             : "check its owner and mode");
    l->failed = true;
    return false;
}

enum err config_load(const char *path, struct config *ret_config, struct buf *ret_report)
{
    struct loader l = {.file = path, .c = ret_config, .report = ret_report};
    FILE *f;
    memset(ret_config, 0, sizeof *ret_config);
    if (!open_file(&l, &f))
        return ERR_INVALID;
    l.seen = mem_array(conf_keys_n, sizeof *l.seen);
    ret_config->path = mem_strdup(path);
    if (parse_yaml(&l, f)) {
        const yaml_node_t *root = yaml_document_get_root_node(&l.doc);
        if (root != NULL)
            walk(&l, root, "");
        from_environment(&l);
        fill_defaults(&l);
        if (ret_config->scope != NULL)
            cross_checks(&l);
        yaml_document_delete(&l.doc);
    }
    (void)fclose(f);
    mem_free(l.seen);
    if (l.failed)
        config_close(ret_config);
    return l.failed ? ERR_INVALID : ERR_OK;
}

static void free_list(char **items, size_t *n)
{
    for (size_t i = 0; i < *n; i++)
        mem_free(items[i]);
    *n = 0;
}

void config_close(struct config *c)
{
    for (size_t i = 0; i < conf_keys_n; i++) {
        const struct conf_key *k = &conf_keys[i];
        char *base = (char *)c + k->offset;
        size_t *n = (size_t *)(void *)((char *)c + k->count_offset);
        if (k->type == CONF_STR || k->type == CONF_JSON)
            mem_free(*str_at(c, k->offset));
        else if (k->type == CONF_LIST || k->type == CONF_FLAGS)
            free_list((char **)(void *)base, n);
        else if (k->type == CONF_PAIRS)
            for (size_t j = 0; j < *n; j++) {
                mem_free(((struct conf_pair *)(void *)base)[j].key);
                mem_free(((struct conf_pair *)(void *)base)[j].value);
            }
    }
    mem_free(c->path);
    memset(c, 0, sizeof *c);
}

const char *config_path(const char *explicit_path)
{
    if (explicit_path != NULL)
        return explicit_path;
    const char *env = getenv("REGENT_CONFIG");
    return env != NULL ? env : "/etc/regent/regent.yml";
}

/* ---- secrets.yml ---- */

#define AT_SECRET(user) offsetof(struct config, postgresql.authentication.user.password)

static const struct {
    const char *key;
    size_t offset;
} secret_keys[] = {
    {"superuser", AT_SECRET(superuser)},
    {"replication", AT_SECRET(replication)},
    {"rewind", AT_SECRET(rewind)},
};

static enum err take_secret(struct config *c, const char *key, const char *value)
{
    for (size_t i = 0; i < ARRAY_LEN(secret_keys); i++) {
        if (strcmp(secret_keys[i].key, key) != 0)
            continue;
        char **at = str_at(c, secret_keys[i].offset);
        if (*at == NULL || (*at)[0] == '\0')
            set_str(c, secret_keys[i].offset, value);
        return ERR_OK;
    }
    return ERR_INVALID;
}

enum err config_load_secrets(struct config *c, const char *path, struct errmsg *e)
{
    struct buf report CLEANUP(buf_close) = {.max = 4096};
    struct loader l = {.file = path, .c = c, .report = &report};
    FILE *f;
    if (!open_file(&l, &f))
        return err_set(e, ERR_INVALID, "%s: cannot read the passwords: %s; `regentctl init` or `join` makes the file",
                       path, strerror(errno));
    enum err rv = ERR_OK;
    if (!parse_yaml(&l, f)) {
        rv = err_set(e, ERR_INVALID, "%s: not valid YAML", path);
    } else {
        yaml_node_t *root = yaml_document_get_root_node(&l.doc);
        bool map = root != NULL && root->type == YAML_MAPPING_NODE;
        if (!map)
            rv = err_set(e, ERR_INVALID, "%s: expected `superuser:`, `replication:` and `rewind:` passwords", path);
        for (yaml_node_pair_t *p = map ? root->data.mapping.pairs.start : NULL;
             map && rv == ERR_OK && p < root->data.mapping.pairs.top; p++) {
            const char *key = scalar(node(&l, p->key));
            const char *value = scalar(node(&l, p->value));
            if (key == NULL || value == NULL || take_secret(c, key, value) != ERR_OK)
                rv = err_set(e, ERR_INVALID, "%s: unknown key \"%s\"", path, key != NULL ? key : "?");
        }
        yaml_document_delete(&l.doc);
    }
    (void)fclose(f);
    return rv;
}
