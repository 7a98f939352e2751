/* secrets.yml: the passwords that all nodes share. */
#include <errno.h>
#include <stdio.h>

#include "base/str.h"
#include "conf/loader.h"

enum { SECRETS_MAX = 65536 };

#define AT_SECRET(user) offsetof(struct config, postgresql.authentication.user.password)

static const struct {
    const char *key;
    size_t offset;
} secret_keys[] = {
    {"superuser", AT_SECRET(superuser)},
    {"replication", AT_SECRET(replication)},
    {"rewind", AT_SECRET(rewind)},
};

/* What the configuration file says wins. */
static enum err take_secret(struct config *c, const char *key, const char *value)
{
    for (size_t i = 0; i < ARRAY_LEN(secret_keys); i++) {
        if (strcmp(secret_keys[i].key, key) != 0)
            continue;
        const char *now = *conf_str_at(c, secret_keys[i].offset);
        if (now == NULL || now[0] == '\0')
            conf_set_str(c, secret_keys[i].offset, value);
        return ERR_OK;
    }
    return ERR_INVALID;
}

static enum err take_all(struct loader *l, const char *path, struct errmsg *e)
{
    const yaml_node_t *root = yaml_document_get_root_node(&l->doc);
    if (root == NULL || root->type != YAML_MAPPING_NODE)
        return err_set(e, ERR_INVALID,
                       "%s: expected `superuser:`, `replication:` and `rewind:` passwords",
                       path);
    for (yaml_node_pair_t *p = root->data.mapping.pairs.start; p < root->data.mapping.pairs.top;
         p++) {
        const yaml_node_t *name = conf_node(l, p->key);
        const char *key = conf_scalar(name);
        const char *value = conf_scalar(conf_node(l, p->value));
        size_t line = name != NULL ? name->start_mark.line + 1 : 0;
        if (key == NULL || value == NULL)
            return err_set(e, ERR_INVALID, "%s:%zu: expected name: password", path, line);
        if (take_secret(l->c, key, value) != ERR_OK)
            return err_set(e, ERR_INVALID,
                           "%s:%zu: unknown key \"%.60s\"; known are superuser, replication, "
                           "rewind",
                           path, line, key);
    }
    return ERR_OK;
}

enum err config_load_secrets(struct config *c, const char *path, struct errmsg *e)
{
    struct buf report CLEANUP(buf_close) = {.max = 4096};
    char text[SECRETS_MAX];
    struct loader l = {.source = path, .has_lines = true, .c = c, .report = &report};
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return err_set(
            e, ERR_INVALID,
            "%s: cannot read the passwords: %s; `regentctl init` or `join` makes the "
            "file",
            path, strerror(errno));
    size_t n = fread(text, 1, sizeof text, f);
    (void)fclose(f);
    if (!conf_parse(&l, slice_of(text, n)))
        return err_set(e, ERR_INVALID, "%s: not valid YAML", path);
    enum err rv = take_all(&l, path, e);
    yaml_document_delete(&l.doc);
    return rv;
}
