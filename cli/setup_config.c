/* The configuration file that init and join write: lines of path and value, laid out as YAML.
 * --set adds to them or replaces them; what comes out is read back by the parser before anything is
 * written, so that regentd never refuses a file of ours. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/setup.h"

enum { LINES_MAX = 192, VALUE_MAX = 8192 };

struct line {
    char path[160];
    char value[VALUE_MAX]; /* YAML, on one line */
};

struct lines {
    struct line at[LINES_MAX];
    size_t n;
    bool full;
};

/* A JSON text is a YAML text. */
static void quote(char *ret, size_t size, const char *text)
{
    json_t *j = json_string(text);
    char *quoted = j != NULL ? json_dumps(j, JSON_ENCODE_ANY) : NULL;
    str_cut(ret, size, quoted != NULL ? quoted : "\"\"");
    free(quoted);
    json_decref(j);
}

static void put_yaml(struct lines *l, const char *path, const char *value)
{
    size_t i = 0;
    while (i < l->n && strcmp(l->at[i].path, path) != 0)
        i++;
    if (i == LINES_MAX || str_copy(l->at[i].path, sizeof l->at[i].path, path) != ERR_OK ||
        str_copy(l->at[i].value, sizeof l->at[i].value, value) != ERR_OK) {
        l->full = true;
        return;
    }
    l->n += i == l->n;
}

static void put_text(struct lines *l, const char *path, const char *text)
{
    char value[VALUE_MAX];
    quote(value, sizeof value, text);
    put_yaml(l, path, value);
}

static void put_address(struct lines *l, const char *path, const char *host, uint64_t port)
{
    char text[300];
    bool v6 = strchr(host, ':') != NULL;
    (void)snprintf(text, sizeof text, v6 ? "[%s]:%" PRIu64 : "%s:%" PRIu64, host, port);
    put_text(l, path, text);
}

static void put_members(const struct setup *s, struct lines *l)
{
    struct buf list CLEANUP(buf_close) = {.max = VALUE_MAX};
    for (size_t i = 0; i < s->join_n; i++) {
        char member[300];
        quote(member, sizeof member, s->join[i]);
        buf_printf(&list, "%s%s", i == 0 ? "[" : ", ", member);
    }
    buf_printf(&list, "]");
    if (s->join_n > 0)
        put_yaml(l, "dcs.join", buf_cstr(&list));
}

/* "a:5432,b" as host "a,b" and port "5432,5432". */
static void put_site(const struct setup *s, struct lines *l)
{
    struct buf hosts CLEANUP(buf_close) = {.max = 300};
    struct buf ports CLEANUP(buf_close) = {.max = 300};
    const char *p = s->standby_of;
    for (bool first = true; *p != '\0'; first = false) {
        char one[300];
        char host[256];
        uint16_t port = 5432;
        size_t n = strcspn(p, ",");
        if (str_copy_slice(one, sizeof one, slice_of(p, n)) != ERR_OK)
            one[0] = '\0';
        if (str_host_port(one, host, sizeof host, &port) != ERR_OK)
            str_cut(host, sizeof host, one);
        buf_printf(&hosts, "%s%s", first ? "" : ",", host);
        buf_printf(&ports, "%s%u", first ? "" : ",", port);
        p += n + (p[n] == ',');
    }
    put_text(l, "bootstrap.dcs.standby_cluster.host", buf_cstr(&hosts));
    put_text(l, "bootstrap.dcs.standby_cluster.port", buf_cstr(&ports));
}

static void put_defaults(const struct setup *s, struct lines *l)
{
    put_text(l, "scope", s->scope);
    put_text(l, "name", s->name);
    put_text(l, "data_dir", s->data_dir);
    put_address(l, "dcs.listen", s->host, s->dcs_port);
    put_text(l, "dcs.role", s->witness ? "witness" : s->role != NULL ? s->role : "voter");
    put_members(s, l);
    put_address(l, "restapi.listen", s->host, s->rest_port);
    put_yaml(l, "log.level", "info");
    if (s->witness)
        return;
    put_yaml(l, "bootstrap.initdb", "[encoding: UTF8, data-checksums]");
    put_yaml(l, "bootstrap.dcs.ttl", "5");
    if (s->standby_of != NULL)
        put_site(s, l);
    put_address(l, "postgresql.listen", s->host, s->pg_port);
    put_text(l, "postgresql.data_dir", s->pg_data);
    put_text(l, "postgresql.bin_dir", s->pg_bin);
}

static enum err put_sets(const struct setup *s, struct lines *l, struct errmsg *e)
{
    for (size_t i = 0; i < s->sets_n; i++) {
        char path[160];
        const char *equals = strchr(s->sets[i], '=');
        size_t n = (size_t)(equals - s->sets[i]);
        if (n == 0 || str_copy_slice(path, sizeof path, slice_of(s->sets[i], n)) != ERR_OK ||
            strpbrk(equals, "\n\r") != NULL)
            return err_set(e, ERR_INVALID, "--set: \"%s\" is not KEY=VALUE on one line",
                           s->sets[i]);
        put_yaml(l, path, equals[1] != '\0' ? equals + 1 : "\"\"");
    }
    return l->full ? err_set(e, ERR_LIMIT, "too many or too long --set") : ERR_OK;
}

/* Settings of PostgreSQL have dots in their names ("pg_stat_statements.max"): no sections there. */
static bool takes_dots(const char *section)
{
    size_t n = strlen(section);
    static const char tail[] = "postgresql.parameters.";
    return n >= sizeof tail - 1 && strcmp(section + n - (sizeof tail - 1), tail) == 0;
}

/* Everything below `section` ("dcs.tls."): values first come, first written; a section where its
 * first line stands. As deep as the dots of a path. */
static void lay_out(const struct lines *l, const char *section, size_t indent, struct buf *out)
{
    size_t prefix = strlen(section);
    for (size_t i = 0; i < l->n; i++) {
        const char *rest = l->at[i].path + prefix;
        if (strncmp(l->at[i].path, section, prefix) != 0)
            continue;
        size_t dot = strcspn(rest, ".");
        if (rest[dot] == '\0' || takes_dots(section)) {
            buf_printf(out, "%*s%s: %s\n", (int)(2 * indent), "", rest, l->at[i].value);
            continue;
        }
        char deeper[160];
        if (str_copy_slice(deeper, sizeof deeper, slice_of(l->at[i].path, prefix + dot + 1)) !=
            ERR_OK)
            continue;
        bool first = true;
        for (size_t j = 0; j < i && first; j++)
            first = !str_starts(l->at[j].path, deeper);
        if (!first)
            continue;
        buf_printf(out, "%*s%.*s:\n", (int)(2 * indent), "", (int)dot, rest);
        lay_out(l, deeper, indent + 1, out);
    }
}

/* The keys of bootstrap.dcs are the fields of the dynamic configuration. */
static enum err check_dynamic(const char *text, struct errmsg *e)
{
    const char *key;
    json_t *value;
    enum err rv = ERR_OK;
    json_t *j = json_loads(text, 0, NULL);
    json_object_foreach(j, key, value)
    {
        const char *best = msg_config_rec.fields[0].name;
        for (size_t i = 1; i < msg_config_rec.n_fields; i++)
            if (str_distance(msg_config_rec.fields[i].name, key) < str_distance(best, key))
                best = msg_config_rec.fields[i].name;
        if (strcmp(best, key) != 0 && rv == ERR_OK)
            rv = err_set(e, ERR_INVALID,
                         "unknown key \"bootstrap.dcs.%s\"; the nearest known one is "
                         "\"bootstrap.dcs.%s\"",
                         key, best);
    }
    json_decref(j);
    return rv;
}

/* One finding is the message; several are listed first. */
static enum err refuse(struct buf *report, enum err why, struct errmsg *e)
{
    report->len -= report->len > 0; /* the last newline */
    if (memchr(report->p, '\n', report->len) == NULL)
        return err_set(e, why, "%s", buf_cstr(report));
    (void)fprintf(stderr, "%s\n", buf_cstr(report));
    return err_set(e, why, "the new configuration has these errors; nothing is written");
}

enum err setup_config_text(const struct setup *s, struct buf *ret, struct errmsg *e)
{
    struct buf report CLEANUP(buf_close) = {.max = 65536};
    struct lines *l CLEANUP(mem_cleanup) = mem_alloc(sizeof *l);
    struct config parsed;
    put_defaults(s, l);
    enum err rv = put_sets(s, l, e);
    if (rv != ERR_OK)
        return rv;
    buf_printf(ret, "# Written by regentctl; see regent.yml(5).\n");
    lay_out(l, "", 0, ret);
    rv = config_parse("new configuration", buf_slice(ret), &parsed, &report);
    if (rv != ERR_OK)
        return refuse(&report, rv, e);
    rv = check_dynamic(parsed.bootstrap.dcs_json, e);
    config_close(&parsed);
    return rv;
}
