#include "conf/dynamic.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"
#include "conf/site.h"
#include "conf/slots.h"

enum { DYNAMIC_MAX = 65536, PARAMETERS_MAX = 256, LINES_MAX = 128, NAME_LEN = 63 };

/* In the order of config_rec: tests/unit/test_conf_dynamic.c proves that no key is missing. */
const struct dynamic_key dynamic_keys[] = {
    {"ttl", DYN_NUMBER, "5", NULL, 2, 3600, "seconds until a dead leader's lease has run out"},
    {"loop_wait", DYN_NUMBER, "10", NULL, 1, 3600, "seconds between rounds of housekeeping"},
    {"retry_timeout", DYN_NUMBER, "10", NULL, 1, 3600,
     "accepted for Patroni's sake; requests have deadlines of their own"},
    {"maximum_lag_on_failover", DYN_NUMBER, "1048576", NULL, 0, INT64_MAX,
     "bytes of WAL a candidate may be behind (asynchronous mode)"},
    {"synchronous_mode", DYN_TEXT, "off", "off|on|quorum", 0, 0,
     "whether commits wait for standbys, and for which"},
    {"synchronous_mode_strict", DYN_BOOL, "false", NULL, 0, 0,
     "commits wait also when no standby is there"},
    {"synchronous_node_count", DYN_NUMBER, "1", NULL, 1, 16, "standbys a commit waits for"},
    {"maximum_lag_on_syncnode", DYN_NUMBER, "0", NULL, 0, INT64_MAX,
     "bytes a synchronous standby may be behind the others before another takes its place; 0: "
     "any"},
    {"check_timeline", DYN_BOOL, "false", NULL, 0, 0,
     "only a standby that has been on the newest timeline is promoted by itself"},
    {"on_primary_crash", DYN_TEXT, "auto", "auto|restart|failover", 0, 0,
     "what follows the end of the primary's postmaster"},
    {"on_sick_node", DYN_TEXT, "report", "report|failover", 0, 0,
     "whether a primary whose disk is full or stuck, or whose PostgreSQL hangs, hands over"},
    {"sick_failover_interval", DYN_NUMBER, "300", NULL, 1, 86400,
     "seconds at least between two such hand-overs"},
    {"primary_start_timeout", DYN_NUMBER, "300", NULL, 0, 86400,
     "seconds a crashed primary's recovery may take before another takes over"},
    {"pause", DYN_BOOL, "false", NULL, 0, 0, "no automatic failover, start or stop"},
    {"use_pg_rewind", DYN_BOOL, "true", NULL, 0, 0,
     "diverged data is rewound where possible, else cloned"},
    {"remove_data_directory_on_rewind_failure", DYN_BOOL, "false", NULL, 0, 0,
     "data that a rewind could not save is deleted for the clone, not moved aside"},
    {"remove_data_directory_on_diverged_timelines", DYN_BOOL, "false", NULL, 0, 0,
     "data that cannot follow, and is not rewound, is deleted for the clone, not moved aside"},
    {"use_slots", DYN_BOOL, "true", NULL, 0, 0, "a replication slot for every other member"},
    {"member_slots_ttl", DYN_NUMBER, "1800", NULL, 1, 31536000,
     "seconds that the slot, and with it the WAL, of a member that is away is kept"},
    {"slots", DYN_MAP, "{}", NULL, 0, 0,
     "permanent replication slots, kept over a failover: name: {type: physical} or {type: "
     "logical, database: ..., plugin: ...}"},
    {"ignore_slots", DYN_LIST, "[]", NULL, 0, 0,
     "slots that are left alone: a list of {name, type, database, plugin}, what a rule leaves "
     "out matches any"},
    {"standby_cluster", DYN_MAP, "{}", NULL, 0, 0,
     "the cluster follows another site and takes no writes: {host, port, primary_slot_name, "
     "create_replica_methods, restore_command, archive_cleanup_command, "
     "recovery_min_apply_delay}"},
    {"postgresql", DYN_MAP, "{}", NULL, 0, 0, "see below"},
};
const size_t dynamic_keys_n = ARRAY_LEN(dynamic_keys);

const struct dynamic_key dynamic_postgresql_keys[] = {
    {"parameters", DYN_MAP, "{}", NULL, 0, 0, "server parameters of all nodes"},
    {"pg_hba", DYN_LIST, "[]", NULL, 0, 0,
     "lines of pg_hba.conf, behind the agent's own; a node's own postgresql.pg_hba replaces "
     "them"},
    {"pg_ident", DYN_LIST, "[]", NULL, 0, 0,
     "lines of pg_ident.conf; a node's own postgresql.pg_ident replaces them"},
};
const size_t dynamic_postgresql_keys_n = ARRAY_LEN(dynamic_postgresql_keys);

const char *const dynamic_moved[] = {"use_pg_rewind", "use_slots",
                                     "remove_data_directory_on_rewind_failure",
                                     "remove_data_directory_on_diverged_timelines"};
const size_t dynamic_moved_n = ARRAY_LEN(dynamic_moved);

struct checker {
    const struct dynamic_edit *edit; /* NULL: this is none */
    json_t *before;                  /* parameters that are stored now */
    struct errmsg *e;
};

/* ---- keys ---- */

static const struct dynamic_key *find(const struct dynamic_key *keys, size_t n,
                                      const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    return NULL;
}

static enum err unknown_key(const struct dynamic_key *keys, size_t n, const char *prefix,
                            const char *name, struct errmsg *e)
{
    const char *best = keys[0].name;
    for (size_t i = 1; i < n; i++)
        if (str_distance(keys[i].name, name) < str_distance(best, name))
            best = keys[i].name;
    return err_set(e, ERR_INVALID,
                   "unknown key \"%s%.60s\" in the dynamic configuration; the nearest known "
                   "one is \"%s%s\"",
                   prefix, name, prefix, best);
}

static bool is_choice(const char *choices, const char *value)
{
    size_t n = strlen(value);
    for (const char *p = choices; p != NULL && n > 0; p = strchr(p, '|')) {
        p += *p == '|';
        if (strncmp(p, value, n) == 0 && (p[n] == '|' || p[n] == '\0'))
            return true;
    }
    return false;
}

static enum err check_number(const struct dynamic_key *k, const json_t *v, struct errmsg *e)
{
    uint64_t n = (uint64_t)json_integer_value(v);
    bool text = json_is_string(v) && str_parse_u64(json_string_value(v), &n) == ERR_OK;
    if (!text && (!json_is_integer(v) || json_integer_value(v) < 0))
        return err_set(e, ERR_INVALID, "%s: a number of 0 or more is expected", k->name);
    if (n < k->min || n > k->max)
        return err_set(e, ERR_INVALID, "%s: %" PRIu64 " is outside %" PRIu64 "..%" PRIu64,
                       k->name, n, k->min, k->max);
    return ERR_OK;
}

static enum err check_value(const struct dynamic_key *k, const json_t *v, struct errmsg *e)
{
    switch (k->type) {
    case DYN_NUMBER:
        return check_number(k, v, e);
    case DYN_BOOL:
        return json_is_boolean(v)
                   ? ERR_OK
                   : err_set(e, ERR_INVALID, "%s: true or false is expected", k->name);
    case DYN_TEXT:
        if (!json_is_string(v) || !is_choice(k->choices, json_string_value(v)))
            return err_set(e, ERR_INVALID, "%s: \"%.60s\" is none of %s", k->name,
                           json_is_string(v) ? json_string_value(v) : "?", k->choices);
        return ERR_OK;
    case DYN_MAP:
        return json_is_object(v)
                   ? ERR_OK
                   : err_set(e, ERR_INVALID, "%s: a map (name: value) is expected", k->name);
    case DYN_LIST:
        return json_is_array(v) ? ERR_OK
                                : err_set(e, ERR_INVALID, "%s: a list is expected", k->name);
    }
    return ERR_INTERNAL;
}

static enum err check_map(json_t *map, const struct dynamic_key *keys, size_t n,
                          const char *prefix, struct errmsg *e)
{
    const char *name;
    json_t *value;
    void *next;
    json_object_foreach_safe(map, next, name, value)
    {
        const struct dynamic_key *k = find(keys, n, name);
        if (k == NULL)
            return unknown_key(keys, n, prefix, name, e);
        if (json_is_null(value)) {
            json_object_del(map, name);
            continue;
        }
        enum err rv = check_value(k, value, e);
        if (rv != ERR_OK)
            return rv;
    }
    return ERR_OK;
}

/* ---- postgresql ---- */

static bool name_ok(const char *name)
{
    size_t n =
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$.");
    return n > 0 && n <= NAME_LEN && name[n] == '\0' && strspn(name, "0123456789.$") == 0;
}

/* As PostgreSQL is given it; "" and false for what is no value. */
static bool text_of(const json_t *v, char ret[static 1024])
{
    int n = -1;
    if (json_is_string(v))
        n = snprintf(ret, 1024, "%s", json_string_value(v));
    else if (json_is_integer(v))
        n = snprintf(ret, 1024, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else if (json_is_real(v))
        n = snprintf(ret, 1024, "%.15g", json_real_value(v));
    else if (json_is_boolean(v))
        n = snprintf(ret, 1024, "%s", json_is_true(v) ? "on" : "off");
    return n >= 0 && n < 1024;
}

static bool has_control(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < ' ')
            return true;
    return false;
}

static enum err check_parameter(const struct checker *c, const char *name, const json_t *v)
{
    char text[1024];
    if (!name_ok(name))
        return err_set(c->e, ERR_INVALID,
                       "postgresql.parameters: no parameter of PostgreSQL is called \"%.64s\"",
                       name);
    if (!text_of(v, text))
        return err_set(c->e, ERR_INVALID, "postgresql.parameters.%s: one value is expected",
                       name);
    if (has_control(text))
        return err_set(c->e, ERR_INVALID,
                       "postgresql.parameters.%s: a line break or control character", name);
    if (c->edit == NULL || json_equal(json_object_get(c->before, name), v))
        return ERR_OK;
    if (settings_is_owned(name))
        return err_set(c->e, ERR_INVALID,
                       "postgresql.parameters.%s: Regent sets it by itself and would overrule "
                       "this value; leave it out",
                       name);
    enum err rv = settings_check_safe(name, text, c->e);
    return rv == ERR_OK ? settings_check_value(c->edit->catalogue, name, text, c->e) : rv;
}

static enum err check_parameters(const struct checker *c, json_t *all)
{
    const char *name;
    json_t *value;
    void *next;
    if (json_object_size(all) > PARAMETERS_MAX)
        return err_set(c->e, ERR_LIMIT, "postgresql.parameters: more than %d", PARAMETERS_MAX);
    json_object_foreach_safe(all, next, name, value)
    {
        enum err rv = ERR_OK;
        if (json_is_null(value))
            json_object_del(all, name);
        else
            rv = check_parameter(c, name, value);
        if (rv != ERR_OK)
            return rv;
    }
    return ERR_OK;
}

static enum err check_lines(const struct checker *c, const char *what, const json_t *lines,
                            enum err (*check)(const char *line, struct errmsg *e))
{
    size_t i;
    json_t *line;
    if (json_array_size(lines) > LINES_MAX)
        return err_set(c->e, ERR_LIMIT, "postgresql.%s: more than %d lines", what, LINES_MAX);
    json_array_foreach(lines, i, line)
    {
        if (!json_is_string(line))
            return err_set(c->e, ERR_INVALID, "postgresql.%s: every line is one text", what);
        enum err rv = check(json_string_value(line), c->e);
        if (rv != ERR_OK)
            return rv;
    }
    return ERR_OK;
}

static enum err check_roles(const struct checker *c, const json_t *lines)
{
    size_t i;
    json_t *line;
    enum err rv = ERR_OK;
    json_array_foreach(lines, i, line)
    {
        rv = hba_check_roles(json_string_value(line), &c->edit->roles, c->e);
        if (rv != ERR_OK)
            break;
    }
    return rv;
}

static enum err check_postgresql(const struct checker *c, json_t *pg)
{
    enum err rv =
        check_map(pg, dynamic_postgresql_keys, dynamic_postgresql_keys_n, "postgresql.", c->e);
    if (rv == ERR_OK)
        rv = check_parameters(c, json_object_get(pg, "parameters"));
    if (rv == ERR_OK)
        rv = check_lines(c, "pg_hba", json_object_get(pg, "pg_hba"), hba_check);
    if (rv == ERR_OK && c->edit != NULL)
        rv = check_roles(c, json_object_get(pg, "pg_hba"));
    return rv == ERR_OK
               ? check_lines(c, "pg_ident", json_object_get(pg, "pg_ident"), ident_check)
               : rv;
}

/* ---- the whole ---- */

/* Where Patroni has a key, and how it writes a value. */
static void to_our_places(json_t *root)
{
    json_t *pg = json_object_get(root, "postgresql");
    for (size_t i = 0; i < dynamic_moved_n; i++) {
        json_t *v = json_object_get(pg, dynamic_moved[i]);
        if (v == NULL)
            continue;
        if (!json_is_null(v))
            json_object_set(root, dynamic_moved[i], v);
        json_object_del(pg, dynamic_moved[i]);
    }
    json_t *lag = json_object_get(root, "maximum_lag_on_syncnode");
    if (json_is_integer(lag) && json_integer_value(lag) == -1)
        json_object_set_new(root, "maximum_lag_on_syncnode", json_integer(0));
    /* YAML reads a bare on and off as booleans. */
    json_t *mode = json_object_get(root, "synchronous_mode");
    if (json_is_boolean(mode))
        json_object_set_new(root, "synchronous_mode",
                            json_string(json_is_true(mode) ? "on" : "off"));
}

static json_t *default_of(const struct dynamic_key *k)
{
    uint64_t n = 0;
    switch (k->type) {
    case DYN_NUMBER:
        return str_parse_u64(k->fallback, &n) == ERR_OK ? json_integer((json_int_t)n) : NULL;
    case DYN_BOOL:
        return json_boolean(strcmp(k->fallback, "true") == 0);
    case DYN_TEXT:
        return json_string(k->fallback);
    case DYN_MAP:
    case DYN_LIST:
        break;
    }
    return NULL;
}

static void fill_defaults(json_t *root)
{
    for (size_t i = 0; i < dynamic_keys_n; i++) {
        json_t *v = json_object_get(root, dynamic_keys[i].name) == NULL
                        ? default_of(&dynamic_keys[i])
                        : NULL;
        if (v != NULL)
            json_object_set_new(root, dynamic_keys[i].name, v);
    }
}

static enum err check_slots(const struct checker *c, const json_t *root)
{
    struct slot_config parsed;
    char *slots = json_dumps(json_object_get(root, "slots"), JSON_ENCODE_ANY);
    char *ignore = json_dumps(json_object_get(root, "ignore_slots"), JSON_ENCODE_ANY);
    enum err rv =
        slots_parse(slots != NULL ? slice_str(slots) : slice_of(NULL, 0),
                    ignore != NULL ? slice_str(ignore) : slice_of(NULL, 0), &parsed, c->e);
    free(slots);
    free(ignore);
    return rv;
}

/* An empty one is none. */
static enum err check_site(const struct checker *c, json_t *root)
{
    struct site site;
    json_t *map = json_object_get(root, "standby_cluster");
    if (map == NULL)
        return ERR_OK;
    char *text = json_dumps(map, JSON_ENCODE_ANY);
    enum err rv = site_parse(slice_str(text != NULL ? text : ""), &site, c->e);
    free(text);
    if (rv == ERR_OK && site.host[0] == '\0' && site.restore_command[0] == '\0')
        json_object_del(root, "standby_cluster");
    return rv;
}

static enum err check(const struct checker *c, json_t *root)
{
    if (!json_is_object(root))
        return err_set(c->e, ERR_INVALID, "dynamic configuration: not a JSON object");
    to_our_places(root);
    enum err rv = check_map(root, dynamic_keys, dynamic_keys_n, "", c->e);
    if (rv == ERR_OK)
        rv = check_slots(c, root);
    if (rv == ERR_OK)
        rv = check_site(c, root);
    json_t *pg = json_object_get(root, "postgresql");
    return rv == ERR_OK && pg != NULL ? check_postgresql(c, pg) : rv;
}

static enum err check_text(struct checker *c, struct slice json, struct buf *ret_json)
{
    json_error_t why;
    if (json.n > DYNAMIC_MAX)
        return err_set(c->e, ERR_LIMIT, "dynamic configuration: longer than %d bytes",
                       DYNAMIC_MAX);
    json_t *root = json_loadb((const char *)json.p, json.n, JSON_REJECT_DUPLICATES, &why);
    if (root == NULL)
        return err_set(c->e, ERR_INVALID, "dynamic configuration: not a JSON object: %s",
                       why.text);
    enum err rv = check(c, root);
    if (rv == ERR_OK)
        fill_defaults(root);
    char *text = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(15));
    if (text == NULL)
        rv = err_set(c->e, ERR_INVALID, "dynamic configuration: cannot be written as JSON");
    else if (rv == ERR_OK)
        buf_append_slice(ret_json, slice_str(text));
    free(text);
    json_decref(root);
    return rv;
}

enum err dynamic_check(struct slice json, struct buf *ret_json, struct errmsg *e)
{
    struct checker c = {.e = e};
    return check_text(&c, json, ret_json);
}

enum err dynamic_check_edit(struct slice json, const struct dynamic_edit *edit,
                            struct buf *ret_json, struct errmsg *e)
{
    json_t *stored = json_loadb((const char *)edit->before.p, edit->before.n, 0, NULL);
    json_t *now = json_object_get(json_object_get(stored, "postgresql"), "parameters");
    struct checker c = {.edit = edit, .e = e};
    c.before = json_is_object(now) ? json_incref(now) : json_object();
    enum err rv = check_text(&c, json, ret_json);
    json_decref(c.before);
    json_decref(stored);
    return rv;
}

/* ---- changes ---- */

enum { MERGE_DEPTH_MAX = 16 };

static void merge(json_t *to, const json_t *patch, unsigned depth)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)patch, key, value)
    {
        json_t *old = json_object_get(to, key);
        if (json_is_null(value))
            json_object_del(to, key);
        else if (json_is_object(value) && json_is_object(old) && depth < MERGE_DEPTH_MAX)
            merge(old, value, depth + 1);
        else
            json_object_set(to, key, value);
    }
}

enum err dynamic_merge(struct slice before, struct slice patch, struct buf *ret_json,
                       struct errmsg *e)
{
    enum err rv = ERR_OK;
    json_t *to = json_loadb((const char *)before.p, before.n, 0, NULL);
    json_t *from = json_loadb((const char *)patch.p, patch.n, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(from))
        rv = err_set(e, ERR_INVALID, "not a JSON object");
    if (rv == ERR_OK)
        merge(to, from, 0);
    char *text = json_dumps(to, JSON_COMPACT);
    buf_append_slice(ret_json, slice_str(text != NULL ? text : "{}"));
    free(text);
    json_decref(from);
    json_decref(to);
    return rv;
}
