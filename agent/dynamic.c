/* Dynamic configuration: defaults, the checks of DESIGN.md lease rule 5, and its meaning to decide(). */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

#include "agent/lease_keeper.h"
#include "agent/mirror.h"
#include "base/str.h"

void config_defaults(struct config_rec *c)
{
    if (c->ttl == 0)
        c->ttl = 5;
    if (c->loop_wait == 0)
        c->loop_wait = 10;
    if (c->retry_timeout == 0)
        c->retry_timeout = 10;
    if (c->maximum_lag_on_failover == 0)
        c->maximum_lag_on_failover = 1048576;
    if (c->synchronous_mode[0] == '\0')
        str_cut(c->synchronous_mode, sizeof c->synchronous_mode, "off");
    if (c->synchronous_node_count == 0)
        c->synchronous_node_count = 1;
    if (c->on_primary_crash[0] == '\0')
        str_cut(c->on_primary_crash, sizeof c->on_primary_crash, "auto");
    if (c->primary_start_timeout == 0)
        c->primary_start_timeout = 300;
}

static bool one_of(const char *value, const char *a, const char *b, const char *c)
{
    return strcmp(value, a) == 0 || strcmp(value, b) == 0 || strcmp(value, c) == 0;
}

enum err config_check(const struct config_rec *c, struct errmsg *e)
{
    if (c->ttl < 2 || c->ttl > 3600)
        return err_set(e, ERR_INVALID, "ttl: %" PRIu64 " is outside 2..3600 seconds", c->ttl);
    if (!one_of(c->synchronous_mode, "off", "on", "quorum"))
        return err_set(e, ERR_INVALID, "synchronous_mode: \"%s\" is none of off, on, quorum",
                       c->synchronous_mode);
    if (!one_of(c->on_primary_crash, "auto", "restart", "failover"))
        return err_set(e, ERR_INVALID,
                       "on_primary_crash: \"%s\" is none of auto, restart, failover",
                       c->on_primary_crash);
    if (c->synchronous_node_count > SYNC_MAX)
        return err_set(e, ERR_INVALID, "synchronous_node_count: %" PRIu64 " is more than %d",
                       c->synchronous_node_count, SYNC_MAX);
    return ERR_OK;
}

static bool known_key(const char *key)
{
    for (size_t i = 0; i < msg_config_rec.n_fields; i++)
        if (strcmp(msg_config_rec.fields[i].name, key) == 0)
            return true;
    return false;
}

static enum err check_keys(const json_t *root, struct errmsg *e)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)root, key, value)
    {
        if (known_key(key))
            continue;
        const char *best = msg_config_rec.fields[0].name;
        for (size_t i = 1; i < msg_config_rec.n_fields; i++)
            if (str_distance(msg_config_rec.fields[i].name, key) < str_distance(best, key))
                best = msg_config_rec.fields[i].name;
        return err_set(
            e, ERR_INVALID,
            "unknown key \"%s\" in the dynamic configuration; the nearest known one is \"%s\"",
            key, best);
    }
    return ERR_OK;
}

enum err config_from_json(struct slice json, struct config_rec *ret_config,
                          struct msg_arena *arena, struct errmsg *e)
{
    static const char *const on_by_default[] = {"use_pg_rewind", "use_slots"};
    json_error_t why;
    json_t *root = json_loadb((const char *)json.p, json.n, 0, &why);
    if (root == NULL || !json_is_object(root)) {
        json_decref(root);
        return err_set(e, ERR_INVALID, "dynamic configuration: not a JSON object: %s",
                       why.text);
    }
    for (size_t i = 0; i < ARRAY_LEN(on_by_default); i++)
        if (json_object_get(root, on_by_default[i]) == NULL)
            json_object_set_new(root, on_by_default[i], json_true());
    /* YAML reads a bare on and off as booleans; Patroni takes them too. */
    json_t *mode = json_object_get(root, "synchronous_mode");
    if (json_is_boolean(mode))
        json_object_set_new(root, "synchronous_mode",
                            json_string(json_is_true(mode) ? "on" : "off"));
    enum err rv = check_keys(root, e);
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (rv == ERR_OK)
        rv = msg_from_json(&msg_config_rec, slice_str(text), ret_config, arena, e);
    free(text);
    if (rv != ERR_OK)
        return rv;
    config_defaults(ret_config);
    return config_check(ret_config, e);
}

void config_view(const struct config_rec *record, struct view_config *ret_config)
{
    struct config_rec c = *record;
    config_defaults(&c);
    *ret_config = (struct view_config){
        .ttl_ms = c.ttl * 1000,
        .sync_strict = c.synchronous_mode_strict,
        .sync_node_count = c.synchronous_node_count,
        .maximum_lag_on_failover = c.maximum_lag_on_failover,
        .primary_start_timeout_ms = c.primary_start_timeout * 1000,
        .retry_interval_ms = 100,
        .pause = c.pause,
        .use_pg_rewind = c.use_pg_rewind,
    };
    ret_config->sync_mode = strcmp(c.synchronous_mode, "on") == 0       ? SYNC_ON
                            : strcmp(c.synchronous_mode, "quorum") == 0 ? SYNC_QUORUM
                                                                        : SYNC_OFF;
    ret_config->on_primary_crash = strcmp(c.on_primary_crash, "restart") == 0 ? CRASH_RESTART
                                   : strcmp(c.on_primary_crash, "failover") == 0
                                       ? CRASH_FAILOVER
                                       : CRASH_AUTO;
}
