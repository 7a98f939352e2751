/* PostgreSQL's parameters: which are Regent's own, which values would lock it out, and what the running server says of
 * them (pg_settings, published by the leader). */
#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "base/str.h"
#include "conf/dynamic.h"

/* What nobody else may set: they carry the safety of the whole, or their values are the agent's. */
static const char owned[] = "listen_addresses\0"
                            "port\0"
                            "unix_socket_directories\0"
                            "cluster_name\0"
                            "hot_standby\0"
                            "wal_log_hints\0"
                            "primary_conninfo\0"
                            "primary_slot_name\0"
                            "synchronous_standby_names\0"
                            "wal_retrieve_retry_interval\0"
                            "restart_after_crash\0"
                            "promote_trigger_file\0"
                            "recovery_target\0"
                            "recovery_target_action\0"
                            "recovery_target_inclusive\0"
                            "recovery_target_lsn\0"
                            "recovery_target_name\0"
                            "recovery_target_time\0"
                            "recovery_target_timeline\0"
                            "recovery_target_xid\0"
                            "recovery_min_apply_delay\0"
                            "data_directory\0"
                            "config_file\0"
                            "hba_file\0"
                            "ident_file\0"
                            "external_pid_file\0";

struct slice settings_owned(void)
{
    return slice_of(owned, sizeof owned - 1);
}

bool settings_is_owned(const char *name)
{
    for (const char *p = owned; *p != '\0'; p += strlen(p) + 1)
        if (strcasecmp(p, name) == 0)
            return true;
    return false;
}

/* ---- safe for the agent ---- */

/* Below these a cluster of several nodes, and the agent's own connections, do not fit. */
static const struct {
    const char *name;
    uint64_t min;
    const char *why;
} least[] = {
    {"max_connections", 25, "the agent and its standbys need some themselves"},
    {"superuser_reserved_connections", 3, "the agent must get in when clients have taken all"},
    {"max_wal_senders", 3, "standbys and clones need one each"},
    {"max_replication_slots", 3, "every other member has one"},
    {"max_worker_processes", 2, "fewer are of no use"},
    {"max_locks_per_transaction", 32, "fewer are of no use"},
};

enum err settings_check_safe(const char *name, const char *value, struct errmsg *e)
{
    uint64_t n = 0;
    bool number = str_parse_u64(value, &n) == ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(least); i++)
        if (strcasecmp(name, least[i].name) == 0 && number && n < least[i].min)
            return err_set(e, ERR_PRECONDITION, "%s: %s is less than %llu: %s", name, value,
                           (unsigned long long)least[i].min, least[i].why);
    if (strcasecmp(name, "wal_level") == 0 && strcasecmp(value, "minimal") == 0)
        return err_set(e, ERR_PRECONDITION,
                       "wal_level: minimal allows no standby; replica and logical do");
    /* The daemon may be another user than PostgreSQL, and of no group of it. */
    if (strcasecmp(name, "unix_socket_permissions") == 0 &&
        (value[0] == '\0' || value[strlen(value) - 1] != '7'))
        return err_set(e, ERR_PRECONDITION,
                       "unix_socket_permissions: %s keeps the agent out; pg_hba says who may "
                       "connect",
                       value);
    if (strcasecmp(name, "default_transaction_read_only") == 0 && strcasecmp(value, "off") != 0)
        return err_set(e, ERR_PRECONDITION,
                       "default_transaction_read_only: no client could write to the primary");
    return ERR_OK;
}

/* ---- the catalogue: {name: [type, context, unit, min, max, "a|b|c"]}, and the libraries as those of "$libdir" ---- */

enum { ROW_TYPE, ROW_CONTEXT, ROW_UNIT, ROW_MIN, ROW_MAX, ROW_ENUM };

static const char *cell(const json_t *row, size_t i)
{
    const char *text = json_string_value(json_array_get(row, i));
    return text != NULL ? text : "";
}

static void lower(const char *name, char ret[static 64])
{
    size_t n = 0;
    for (; n < 63 && name[n] != '\0'; n++)
        ret[n] = (char)tolower((unsigned char)name[n]);
    ret[n] = '\0';
}

static bool starts_nocase(const char *whole, const char *text)
{
    return strncasecmp(whole, text, strlen(text)) == 0;
}

/* As PostgreSQL reads them: unambiguous beginnings, too. */
static bool is_bool(const char *text)
{
    static const char *const words[] = {"true", "false", "yes", "no"};
    for (size_t i = 0; text[0] != '\0' && i < ARRAY_LEN(words); i++)
        if (starts_nocase(words[i], text))
            return true;
    return strcasecmp(text, "on") == 0 || strcasecmp(text, "of") == 0 ||
           strcasecmp(text, "off") == 0 || strcmp(text, "0") == 0 || strcmp(text, "1") == 0;
}

static bool in_list(const char *list, const char *text)
{
    size_t n = strlen(text);
    for (const char *p = list; p != NULL && n > 0; p = strchr(p, '|')) {
        p += *p == '|';
        if (strncasecmp(p, text, n) == 0 && (p[n] == '|' || p[n] == '\0'))
            return true;
    }
    return false;
}

/* How many bytes or microseconds; 0: no such unit. */
static double unit_size(const char *unit, bool *ret_time)
{
    static const struct {
        const char *name;
        bool time;
        double size;
    } units[] = {{"B", false, 1},
                 {"kB", false, 1024},
                 {"MB", false, 1048576},
                 {"GB", false, 1073741824},
                 {"TB", false, 1099511627776},
                 {"us", true, 1},
                 {"ms", true, 1e3},
                 {"s", true, 1e6},
                 {"min", true, 6e7},
                 {"h", true, 3.6e9},
                 {"d", true, 8.64e10}};
    char *end;
    double times = strtod(unit, &end); /* "8kB": so many of the unit behind it */
    for (size_t i = 0; i < ARRAY_LEN(units); i++)
        if (strcmp(end, units[i].name) == 0) {
            *ret_time = units[i].time;
            return (end == unit ? 1 : times) * units[i].size;
        }
    return 0;
}

static enum err bad_unit(const char *name, const char *value, const char *unit, bool time,
                         struct errmsg *e)
{
    if (unit[0] == '\0')
        return err_set(e, ERR_INVALID, "%s: \"%s\": a number without a unit is expected", name,
                       value);
    return err_set(e, ERR_INVALID, "%s: \"%s\": valid units are %s", name, value,
                   time ? "us, ms, s, min, h and d" : "B, kB, MB, GB and TB");
}

/* The number in the parameter's own unit. */
static enum err take_number(const json_t *row, const char *name, const char *value, double *ret,
                            struct errmsg *e)
{
    const char *unit = cell(row, ROW_UNIT);
    bool time = false;
    bool given_time = false;
    char *end;
    double base = unit_size(unit, &time);
    double x = strtod(value, &end);
    if (end == value || !(x > -1e18 && x < 1e18))
        return err_set(e, ERR_INVALID, "%s: \"%s\" is not a number", name, value);
    while (*end == ' ')
        end++;
    *ret = x;
    if (*end == '\0')
        return ERR_OK;
    double given = unit_size(end, &given_time);
    if (base == 0 || given == 0 || time != given_time || isdigit((unsigned char)*end))
        return bad_unit(name, value, unit, time, e);
    *ret = x * given / base;
    return ERR_OK;
}

static enum err check_number(const json_t *row, const char *name, const char *value,
                             struct errmsg *e)
{
    double x = 0;
    bool whole = strcmp(cell(row, ROW_TYPE), "integer") == 0;
    enum err rv = take_number(row, name, value, &x, e);
    if (rv != ERR_OK)
        return rv;
    if (whole && x > -1e18 && x < 1e18)
        x = (double)(int64_t)(x < 0 ? x - 0.5 : x + 0.5);
    if (x < strtod(cell(row, ROW_MIN), NULL) || x > strtod(cell(row, ROW_MAX), NULL))
        return err_set(e, ERR_INVALID, "%s: %s is outside %s .. %s%s%s", name, value,
                       cell(row, ROW_MIN), cell(row, ROW_MAX),
                       cell(row, ROW_UNIT)[0] != '\0' ? " in units of " : "",
                       cell(row, ROW_UNIT));
    return ERR_OK;
}

static enum err check_row(const json_t *row, const char *name, const char *value,
                          struct errmsg *e)
{
    const char *type = cell(row, ROW_TYPE);
    const char *list = cell(row, ROW_ENUM);
    if (strcmp(cell(row, ROW_CONTEXT), "internal") == 0)
        return err_set(e, ERR_INVALID, "%s: PostgreSQL does not let anybody set it", name);
    if (strcmp(type, "bool") == 0 && !is_bool(value))
        return err_set(e, ERR_INVALID, "%s: \"%s\" is neither on nor off", name, value);
    if (strcmp(type, "enum") == 0 && !in_list(list, value) &&
        !(in_list(list, "on") && is_bool(value)))
        return err_set(e, ERR_INVALID, "%s: \"%s\" is none of %s", name, value, list);
    if (strcmp(type, "integer") == 0 || strcmp(type, "real") == 0)
        return check_number(row, name, value, e);
    return ERR_OK;
}

/* The next of "a, "b"": without quotes, "$libdir/" and ".so"; false: no more. */
static bool next_library(const char **at, char ret[static 128])
{
    static const char dir[] = "$libdir/";
    const char *p = *at + strspn(*at, " ,\"");
    p += str_starts(p, dir) ? strlen(dir) : 0;
    size_t n = strcspn(p, " ,\"");
    *at = p + n;
    if (n > 3 && strncmp(p + n - 3, ".so", 3) == 0)
        n -= 3;
    (void)snprintf(ret, 128, "%.*s", (int)MIN(n, (size_t)127), p);
    return n > 0;
}

/* With one that is not there PostgreSQL does not start, or lets nobody in, not even the agent. */
static enum err check_libraries(const json_t *all, const char *name, const char *value,
                                struct errmsg *e)
{
    char library[128];
    const char *there = cell(json_object_get(all, "$libdir"), ROW_ENUM);
    while (there[0] != '\0' && next_library(&value, library))
        if (strchr(library, '/') == NULL && !in_list(there, library))
            return err_set(e, ERR_PRECONDITION,
                           "%s: the leader's PostgreSQL has no library \"%s\": it would let "
                           "nobody in; install it on every node first",
                           name, library);
    return ERR_OK;
}

static enum err unknown(json_t *all, const char *name, struct errmsg *e)
{
    const char *known;
    json_t *row;
    const char *best = "";
    size_t distance = SIZE_MAX;
    json_object_foreach(all, known, row)
    {
        size_t d = str_distance(known, name);
        if (d < distance && known[0] != '$') {
            best = known;
            distance = d;
        }
    }
    return err_set(e, ERR_INVALID,
                   "PostgreSQL has no parameter \"%s\"; the nearest known one is \"%s\"", name,
                   best);
}

enum err settings_check_value(struct slice catalogue, const char *name, const char *value,
                              struct errmsg *e)
{
    char key[64];
    enum err rv = ERR_OK;
    json_t *all = json_loadb((const char *)catalogue.p, catalogue.n, 0, NULL);
    lower(name, key);
    const json_t *row = json_object_get(all, key);
    if (row != NULL)
        rv = check_row(row, key, value, e);
    else if (json_object_size(all) > 0 && strchr(name, '.') == NULL)
        rv = unknown(all, key, e); /* an extension's is known when the extension is loaded */
    if (rv == ERR_OK && strstr(key, "_preload_libraries") != NULL)
        rv = check_libraries(all, key, value, e);
    json_decref(all);
    return rv;
}

bool settings_needs_restart(struct slice catalogue, const char *name)
{
    char key[64];
    json_t *all = json_loadb((const char *)catalogue.p, catalogue.n, 0, NULL);
    lower(name, key);
    bool restart = strcmp(cell(json_object_get(all, key), ROW_CONTEXT), "postmaster") == 0;
    json_decref(all);
    return restart;
}
