#include "conf/site.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>

#include "base/str.h"

#define KEY "standby_cluster"

static enum err bad(struct errmsg *e, const char *key, const char *what)
{
    return err_set(e, ERR_INVALID, KEY ".%s: %s", key, what);
}

/* One line of text, or a number. */
static enum err take_text(const json_t *v, const char *key, char *ret, size_t size,
                          struct errmsg *e)
{
    char number[32];
    const char *text = json_string_value(v);
    if (json_is_integer(v)) {
        (void)snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        text = number;
    }
    if (text == NULL)
        return bad(e, key, "one value is expected");
    for (const char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c < ' ')
            return bad(e, key, "a line break or control character");
    return str_copy(ret, size, text) == ERR_OK ? ERR_OK : bad(e, key, "too long");
}

static size_t count(const char *list)
{
    size_t n = list[0] != '\0';
    for (; *list != '\0'; list++)
        n += *list == ',';
    return n;
}

/* Names or addresses; a path would be a socket. */
static enum err check_hosts(const struct site *s, struct errmsg *e)
{
    const char *p = s->host;
    for (size_t n = count(p); n > 0; n--) {
        size_t len = strcspn(p, ",");
        if (len == 0 || *p == '/')
            return bad(e, "host", "names or addresses with commas between are expected");
        for (size_t i = 0; i < len; i++)
            if (!isalnum((unsigned char)p[i]) && strchr("-._:%[]", p[i]) == NULL)
                return bad(e, "host", "names or addresses with commas between are expected");
        p += len + 1;
    }
    return ERR_OK;
}

static enum err check_ports(const struct site *s, struct errmsg *e)
{
    const char *p = s->port;
    size_t n = count(p);
    if (n > 1 && n != count(s->host))
        return bad(e, "port", "one, or as many as hosts");
    for (; n > 0; n--) {
        char one[8];
        uint64_t port = 0;
        size_t len = strcspn(p, ",");
        if (str_copy_slice(one, sizeof one, slice_of(p, len)) != ERR_OK ||
            str_parse_u64(one, &port) != ERR_OK || port == 0 || port > 65535)
            return bad(e, "port", "numbers from 1 to 65535 are expected");
        p += len + 1;
    }
    return ERR_OK;
}

static enum err check_slot(const struct site *s, struct errmsg *e)
{
    size_t n = strspn(s->primary_slot_name, "abcdefghijklmnopqrstuvwxyz0123456789_");
    return s->primary_slot_name[n] == '\0'
               ? ERR_OK
               : bad(e, "primary_slot_name", "lower-case letters, digits and _ only");
}

static enum err take_methods(const json_t *v, struct site *s, struct errmsg *e)
{
    size_t i;
    json_t *name;
    if (!json_is_array(v) || json_array_size(v) > SITE_METHODS_MAX)
        return bad(e, "create_replica_methods", "a list of 8 names at most is expected");
    json_array_foreach(v, i, name)
    {
        enum err rv = take_text(name, "create_replica_methods", s->create_replica_methods[i],
                                sizeof s->create_replica_methods[i], e);
        if (rv != ERR_OK)
            return rv;
        s->create_replica_methods_n++;
    }
    return ERR_OK;
}

static enum err take_key(const char *key, const json_t *v, struct site *s, struct errmsg *e)
{
    const struct {
        const char *name;
        char *ret;
        size_t size;
    } texts[] = {
        {"host", s->host, sizeof s->host},
        {"port", s->port, sizeof s->port},
        {"primary_slot_name", s->primary_slot_name, sizeof s->primary_slot_name},
        {"restore_command", s->restore_command, sizeof s->restore_command},
        {"archive_cleanup_command", s->archive_cleanup_command,
         sizeof s->archive_cleanup_command},
        {"recovery_min_apply_delay", s->recovery_min_apply_delay,
         sizeof s->recovery_min_apply_delay},
    };
    if (json_is_null(v))
        return ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        if (strcmp(texts[i].name, key) == 0)
            return take_text(v, key, texts[i].ret, texts[i].size, e);
    if (strcmp(key, "create_replica_methods") == 0)
        return take_methods(v, s, e);
    return err_set(e, ERR_INVALID,
                   KEY ".%.60s: unknown key; there are host, port, primary_slot_name, "
                       "create_replica_methods, restore_command, archive_cleanup_command and "
                       "recovery_min_apply_delay",
                   key);
}

static enum err take_all(json_t *root, struct site *s, struct errmsg *e)
{
    const char *key;
    json_t *v;
    enum err rv = json_is_object(root) || json_is_null(root)
                      ? ERR_OK
                      : err_set(e, ERR_INVALID, KEY ": a map (host: ..., ...) is expected");
    json_object_foreach(root, key, v)
    {
        if (rv == ERR_OK)
            rv = take_key(key, v, s, e);
    }
    if (rv == ERR_OK)
        rv = check_hosts(s, e);
    if (rv == ERR_OK)
        rv = check_ports(s, e);
    if (rv == ERR_OK)
        rv = check_slot(s, e);
    bool nothing = json_object_size(root) == 0;
    if (rv == ERR_OK && !nothing && s->host[0] == '\0' && s->restore_command[0] == '\0')
        rv = err_set(e, ERR_INVALID,
                     KEY ": host is missing (or restore_command, to follow an archive alone)");
    return rv;
}

enum err site_parse(struct slice json, struct site *ret, struct errmsg *e)
{
    *ret = (struct site){0};
    if (json.n == 0)
        return ERR_OK;
    json_t *root = json_loadb((const char *)json.p, json.n, JSON_DECODE_ANY, NULL);
    enum err rv = take_all(root, ret, e);
    json_decref(root);
    if (rv != ERR_OK)
        *ret = (struct site){0};
    return rv;
}

bool site_many(const struct site *s)
{
    return count(s->host) > 1;
}
