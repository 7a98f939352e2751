#include "conf/slots.h"

#include <jansson.h>
#include <stdio.h>

#include "base/str.h"

enum { NAME_LEN = 63 };
#define OWN_PREFIX "regent_" /* members' slots */

static enum err bad(struct errmsg *e, const char *where, const char *what)
{
    return err_set(e, ERR_INVALID, "%s: %s", where, what);
}

/* As PostgreSQL wants it. */
static bool name_ok(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");
    return n > 0 && n <= NAME_LEN && name[n] == '\0';
}

static enum err take_text(const json_t *v, const char *where, char ret[static 64],
                          struct errmsg *e)
{
    const char *text = json_string_value(v);
    if (text == NULL || text[0] == '\0' || str_copy(ret, 64, text) != ERR_OK)
        return bad(e, where, "a text of 1 to 63 bytes is expected");
    return ERR_OK;
}

static enum err take_type(const json_t *v, const char *where, enum slot_type *ret,
                          struct errmsg *e)
{
    const char *text = json_string_value(v);
    if (text != NULL && strcmp(text, "physical") == 0)
        *ret = SLOT_PHYSICAL;
    else if (text != NULL && strcmp(text, "logical") == 0)
        *ret = SLOT_LOGICAL;
    else
        return bad(e, where, "type is physical or logical");
    return ERR_OK;
}

/* name is a key here only where it is not one outside. */
static enum err take_keys(json_t *o, const char *where, bool rule, struct slot_def *d,
                          struct errmsg *e)
{
    const char *key;
    json_t *v;
    enum err rv = json_is_object(o) ? ERR_OK : bad(e, where, "a map (type: ...) is expected");
    json_object_foreach(o, key, v)
    {
        if (rv != ERR_OK)
            return rv;
        if (json_is_null(v))
            continue;
        if (strcmp(key, "type") == 0)
            rv = take_type(v, where, &d->type, e);
        else if (strcmp(key, "database") == 0)
            rv = take_text(v, where, d->database, e);
        else if (strcmp(key, "plugin") == 0)
            rv = take_text(v, where, d->plugin, e);
        else if (rule && strcmp(key, "name") == 0)
            rv = take_text(v, where, d->name, e);
        else
            rv = err_set(e, ERR_INVALID,
                         "%s: unknown key \"%.40s\"; there are %stype, "
                         "database and plugin",
                         where, key, rule ? "name, " : "");
    }
    return rv;
}

static enum err take_permanent(const char *name, json_t *o, struct slot_def *d,
                               struct errmsg *e)
{
    char where[96];
    (void)snprintf(where, sizeof where, "slots.%.63s", name);
    if (!name_ok(name))
        return bad(e, where,
                   "a slot's name has 1 to 63 of a-z, 0-9 and _, PostgreSQL takes no other");
    if (str_starts(name, OWN_PREFIX))
        return bad(e, where, "names with " OWN_PREFIX " are those of the members' own slots");
    enum err rv = take_keys(o, where, false, d, e);
    if (rv != ERR_OK)
        return rv;
    bool both = d->database[0] != '\0' && d->plugin[0] != '\0';
    if (d->type == SLOT_ANY)
        d->type = both ? SLOT_LOGICAL : SLOT_PHYSICAL;
    if (d->type == SLOT_LOGICAL && !both)
        return bad(e, where, "a logical slot needs a database and a plugin");
    if (d->type == SLOT_PHYSICAL && (d->database[0] != '\0' || d->plugin[0] != '\0'))
        return bad(e, where, "a physical slot has neither database nor plugin");
    return str_copy(d->name, sizeof d->name, name);
}

static enum err take_slots(json_t *slots, struct slot_config *ret, struct errmsg *e)
{
    const char *name;
    json_t *o;
    enum err rv = slots == NULL || json_is_object(slots) || json_is_null(slots)
                      ? ERR_OK
                      : bad(e, "slots", "a map (name: {type: ...}) is expected");
    json_object_foreach(slots, name, o)
    {
        if (rv != ERR_OK)
            return rv;
        if (json_is_null(o))
            continue;
        if (ret->permanent_n == SLOTS_PERMANENT_MAX)
            return err_set(e, ERR_LIMIT, "slots: more than %d", SLOTS_PERMANENT_MAX);
        rv = take_permanent(name, o, &ret->permanent[ret->permanent_n++], e);
    }
    return rv;
}

static enum err take_rules(json_t *rules, struct slot_config *ret, struct errmsg *e)
{
    if (rules != NULL && !json_is_array(rules) && !json_is_null(rules))
        return bad(e, "ignore_slots", "a list of {name, type, database, plugin} is expected");
    if (json_array_size(rules) > SLOTS_IGNORE_MAX)
        return err_set(e, ERR_LIMIT, "ignore_slots: more than %d rules", SLOTS_IGNORE_MAX);
    for (size_t i = 0; i < json_array_size(rules); i++) {
        char where[32];
        struct slot_def *d = &ret->ignore[ret->ignore_n++];
        (void)snprintf(where, sizeof where, "ignore_slots[%zu]", i);
        enum err rv = take_keys(json_array_get(rules, i), where, true, d, e);
        if (rv != ERR_OK)
            return rv;
        if (d->name[0] == '\0' && d->type == SLOT_ANY && d->database[0] == '\0' &&
            d->plugin[0] == '\0')
            return bad(e, where, "a rule without any of its keys would match every slot");
    }
    return ERR_OK;
}

static enum err load(struct slice text, const char *what, json_t **ret, struct errmsg *e)
{
    *ret = NULL;
    if (text.n == 0)
        return ERR_OK;
    *ret = json_loadb((const char *)text.p, text.n, JSON_DECODE_ANY, NULL);
    return *ret != NULL ? ERR_OK : bad(e, what, "not JSON");
}

enum err slots_parse(struct slice slots, struct slice ignore, struct slot_config *ret,
                     struct errmsg *e)
{
    json_t *list = NULL;
    json_t *rules = NULL;
    (void)memset(ret, 0, sizeof *ret);
    enum err rv = load(slots, "slots", &list, e);
    if (rv == ERR_OK)
        rv = load(ignore, "ignore_slots", &rules, e);
    if (rv == ERR_OK)
        rv = take_slots(list, ret, e);
    if (rv == ERR_OK)
        rv = take_rules(rules, ret, e);
    if (rv != ERR_OK)
        (void)memset(ret, 0, sizeof *ret);
    json_decref(list);
    json_decref(rules);
    return rv;
}

static bool fits(const char *rule, const char *text)
{
    return rule[0] == '\0' || strcmp(rule, text) == 0;
}

bool slots_ignored(const struct slot_config *c, const struct slot_def *slot)
{
    for (size_t i = 0; i < c->ignore_n; i++) {
        const struct slot_def *r = &c->ignore[i];
        if (fits(r->name, slot->name) && fits(r->database, slot->database) &&
            fits(r->plugin, slot->plugin) && (r->type == SLOT_ANY || r->type == slot->type))
            return true;
    }
    return false;
}

const struct slot_def *slots_permanent(const struct slot_config *c, const char *name)
{
    for (size_t i = 0; i < c->permanent_n; i++)
        if (strcmp(c->permanent[i].name, name) == 0)
            return &c->permanent[i];
    return NULL;
}

bool slots_any_logical(const struct slot_config *c)
{
    for (size_t i = 0; i < c->permanent_n; i++)
        if (c->permanent[i].type == SLOT_LOGICAL)
            return true;
    return false;
}
