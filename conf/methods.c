/* Programs of the administrator that make data: the sections that bootstrap.method and create_replica_methods name. */
#include <stdlib.h>

#include "base/mem.h"
#include "base/str.h"
#include "conf/loader.h"

static const char *tail_of(const char *path)
{
    return strchr(path, '.') + 1;
}

bool conf_method_section(struct loader *l, const char *path, const yaml_node_t *key,
                         const yaml_node_t *value)
{
    bool place = str_starts(path, "bootstrap.") || str_starts(path, "postgresql.");
    if (!place || strchr(tail_of(path), '.') != NULL || value == NULL ||
        value->type != YAML_MAPPING_NODE || l->sections_n == ARRAY_LEN(l->sections))
        return false;
    size_t at = l->sections_n++;
    l->sections[at].key = key;
    l->sections[at].value = value;
    str_cut(l->sections[at].path, sizeof l->sections[at].path, path);
    return true;
}

static void method_free(struct conf_method *m)
{
    if (m == NULL)
        return;
    for (size_t i = 0; i < m->n_params; i++)
        mem_free(m->params[i]);
    for (size_t i = 0; i < m->n_recovery_conf; i++) {
        mem_free(m->recovery_conf[i].key);
        mem_free(m->recovery_conf[i].value);
    }
    mem_free(m->name);
    mem_free(m->command);
    mem_free(m);
}

void conf_methods_close(struct config *c)
{
    method_free(c->bootstrap.custom);
    c->bootstrap.custom = NULL;
    for (size_t i = 0; i < CONF_METHODS_MAX; i++)
        method_free(TAKE(c->postgresql.create[i]));
}

/* A scalar as a person wrote it; the caller frees it. NULL: it is none. */
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

static void take_recovery(struct loader *l, struct conf_method *m, const yaml_node_t *at,
                          json_t *all)
{
    const char *name;
    json_t *v;
    if (!json_is_object(all))
        conf_complain(l, at, "%s.recovery_conf: expected a map (name: value)", m->name);
    json_object_foreach(all, name, v)
    {
        char *value = text_of(v);
        bool sane = value != NULL && strpbrk(value, "\r\n") == NULL &&
                    strspn(name, "abcdefghijklmnopqrstuvwxyz_") == strlen(name);
        if (!sane || m->n_recovery_conf == CONF_LIST_MAX) {
            conf_complain(l, at, "%s.recovery_conf.%s: one line of text is expected", m->name,
                          name);
            mem_free(value);
        } else {
            m->recovery_conf[m->n_recovery_conf++] =
                (struct conf_pair){mem_strdup(name), value};
        }
    }
}

/* What is no key of ours becomes an option of the program. */
static void take_param(struct loader *l, struct conf_method *m, const yaml_node_t *at,
                       const char *name, const json_t *v)
{
    char *value = text_of(v);
    if (value == NULL || m->n_params == CONF_LIST_MAX)
        conf_complain(l, at, "%s.%s: one value is expected", m->name, name);
    else
        m->params[m->n_params++] = mem_printf("--%s=%s", name, value);
    mem_free(value);
}

static void take_entry(struct loader *l, struct conf_method *m, const yaml_node_t *at,
                       const char *name, json_t *v)
{
    const struct {
        const char *name;
        bool *flag;
    } flags[] = {{"no_params", &m->no_params},
                 {"keep_existing_recovery_conf", &m->keep_existing_recovery_conf},
                 {"keep_data", &m->keep_data},
                 {"no_leader", NULL}};
    for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
        if (strcmp(flags[i].name, name) != 0)
            continue;
        if (!json_is_boolean(v))
            conf_complain(l, at, "%s.%s: true or false is expected", m->name, name);
        else if (flags[i].flag != NULL)
            *flags[i].flag = json_is_true(v);
        return;
    }
    if (strcmp(name, "recovery_conf") == 0) {
        take_recovery(l, m, at, v);
    } else if (strcmp(name, "command") == 0) {
        mem_free(m->command);
        m->command = text_of(v);
    } else {
        take_param(l, m, at, name, v);
    }
}

static struct conf_method *method_of(struct loader *l, const char *section, const char *name)
{
    char path[CONF_PATH_MAX];
    size_t at = 0;
    struct conf_method *m = mem_alloc(sizeof *m);
    m->name = mem_strdup(name);
    if (str_format(path, sizeof path, "%s.%s", section, name) != ERR_OK)
        path[0] = '\0';
    while (at < l->sections_n && strcmp(l->sections[at].path, path) != 0)
        at++;
    if (at == l->sections_n) {
        conf_complain(l, NULL,
                      "%s is missing: the section of the method \"%s\", with its command", path,
                      name);
        return m;
    }
    l->sections[at].taken = true;
    json_t *all = conf_json(l, l->sections[at].value);
    const char *key;
    json_t *v;
    json_object_foreach(all, key, v)
    {
        take_entry(l, m, l->sections[at].key, key, v);
    }
    json_decref(all);
    if (m->command == NULL || m->command[0] == '\0')
        conf_complain(l, l->sections[at].key, "%s.command is missing (what makes the data)",
                      path);
    return m;
}

void conf_methods(struct loader *l)
{
    struct config *c = l->c;
    size_t n = c->postgresql.n_create_replica_methods;
    bool ours = strcmp(c->bootstrap.method, "initdb") == 0 ||
                strcmp(c->bootstrap.method, "adopt") == 0 || c->bootstrap.method[0] == '\0';
    if (!ours)
        c->bootstrap.custom = method_of(l, "bootstrap", c->bootstrap.method);
    if (n > CONF_METHODS_MAX)
        conf_complain(l, NULL, "postgresql.create_replica_methods: more than %d",
                      CONF_METHODS_MAX);
    for (size_t i = 0; i < MIN(n, (size_t)CONF_METHODS_MAX); i++) {
        const char *name = c->postgresql.create_replica_methods[i];
        if (strcmp(name, "basebackup") != 0) {
            c->postgresql.create[i] = method_of(l, "postgresql", name);
            continue;
        }
        c->postgresql.create[i] = mem_alloc(sizeof *c->postgresql.create[i]);
        c->postgresql.create[i]->name = mem_strdup(name);
        c->postgresql.create[i]->command = mem_strdup("");
    }
    for (size_t i = 0; i < l->sections_n; i++)
        if (!l->sections[i].taken)
            conf_unknown_key(l, l->sections[i].key, l->sections[i].path);
}
