#include "conf/template_list.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/str.h"
#include "conf/template.h"

enum { MODE_MAX = 0777, OCTAL = 8 };

/* Numbers and booleans were texts in YAML. NULL: a list, a map or nothing. */
static char *text_of(const json_t *v)
{
    if (json_is_string(v))
        return mem_strdup(json_string_value(v));
    if (json_is_integer(v))
        return mem_printf("%" JSON_INTEGER_FORMAT, json_integer_value(v));
    if (json_is_boolean(v))
        return mem_strdup(json_is_true(v) ? "true" : "false");
    return NULL;
}

static enum err read_set(struct template_entry *t, const json_t *map, struct errmsg *e)
{
    const char *key;
    json_t *v;
    if (!json_is_object(map))
        return err_set(e, ERR_INVALID, "templates.%s.set: expected a map (name: value)",
                       t->name);
    json_object_foreach((json_t *)(uintptr_t)map, key, v)
    {
        char *text = text_of(v);
        if (text == NULL || t->set_n == TEMPLATE_SETS_MAX) {
            mem_free(text);
            return err_set(e, ERR_INVALID, "templates.%s.set.%s: %s", t->name, key,
                           t->set_n == TEMPLATE_SETS_MAX ? "more than 32 values"
                                                         : "expected one value");
        }
        t->set[t->set_n++] = (struct conf_pair){mem_strdup(key), text};
    }
    return ERR_OK;
}

static enum err read_mode(struct template_entry *t, const char *text, struct errmsg *e)
{
    char *end;
    unsigned long mode = strtoul(text, &end, OCTAL);
    if (text[0] == '\0' || *end != '\0' || mode == 0 || mode > MODE_MAX)
        return err_set(e, ERR_INVALID,
                       "templates.%s.mode: \"%.20s\" is no file mode; write for example 0644",
                       t->name, text);
    t->mode = (unsigned)mode;
    return ERR_OK;
}

static enum err read_key(struct template_entry *t, const char *key, const json_t *v,
                         struct errmsg *e)
{
    const struct {
        const char *name;
        char **at;
    } texts[] = {{"template", &t->source},
                 {"target", &t->target},
                 {"check", &t->check},
                 {"reload", &t->reload}};
    if (strcmp(key, "set") == 0)
        return read_set(t, v, e);
    char *text CLEANUP(mem_cleanup) = text_of(v);
    if (text == NULL)
        return err_set(e, ERR_INVALID, "templates.%s.%s: expected one value", t->name, key);
    if (strcmp(key, "mode") == 0)
        return read_mode(t, text, e);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        if (strcmp(key, texts[i].name) == 0) {
            mem_free(*texts[i].at);
            *texts[i].at = TAKE(text);
            return ERR_OK;
        }
    return err_set(e, ERR_INVALID,
                   "templates.%s.%s: unknown key; there are template, target, check, reload, "
                   "mode, set",
                   t->name, key);
}

static enum err check_entry(struct template_entry *t, struct errmsg *e)
{
    if (t->source == NULL)
        t->source = mem_strdup(t->name);
    if (t->target == NULL || t->target[0] != '/')
        return err_set(e, ERR_INVALID,
                       "templates.%s.target: the absolute path of the file to keep is needed",
                       t->name);
    if (template_builtin(t->source) == NULL && t->source[0] != '/')
        return err_set(e, ERR_INVALID,
                       "templates.%s.template: \"%.80s\" is neither haproxy, pgbouncer, "
                       "keepalived nor an absolute path",
                       t->name, t->source);
    return ERR_OK;
}

static enum err read_entry(struct template_entry *t, const char *name, const json_t *map,
                           struct errmsg *e)
{
    const char *key;
    json_t *v;
    enum err rv = ERR_OK;
    t->name = mem_strdup(name);
    t->mode = 0644;
    if (!json_is_object(map))
        return err_set(e, ERR_INVALID, "templates.%s: expected a map (name: value)", name);
    json_object_foreach((json_t *)(uintptr_t)map, key, v)
    {
        if (rv == ERR_OK && !json_is_null(v))
            rv = read_key(t, key, v, e);
    }
    return rv == ERR_OK ? check_entry(t, e) : rv;
}

enum err template_list_parse(const char *json, struct template_list *ret_list, struct errmsg *e)
{
    const char *name;
    json_t *v;
    enum err rv = ERR_OK;
    json_t *root = json_loads(json, 0, NULL);
    *ret_list = (struct template_list){0};
    json_object_foreach(root, name, v)
    {
        if (rv == ERR_OK && ret_list->n == TEMPLATES_MAX)
            rv = err_set(e, ERR_INVALID, "templates: more than %d", TEMPLATES_MAX);
        if (rv == ERR_OK)
            rv = read_entry(&ret_list->entries[ret_list->n++], name, v, e);
    }
    json_decref(root);
    if (rv != ERR_OK)
        template_list_close(ret_list);
    return rv;
}

void template_list_close(struct template_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        struct template_entry *t = &l->entries[i];
        for (size_t k = 0; k < t->set_n; k++) {
            mem_free(t->set[k].key);
            mem_free(t->set[k].value);
        }
        mem_free(t->name);
        mem_free(t->source);
        mem_free(t->target);
        mem_free(t->check);
        mem_free(t->reload);
    }
    *l = (struct template_list){0};
}
