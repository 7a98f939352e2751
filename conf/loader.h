/* Inside conf/: what the steps of loading share. One loader per load; every step adds its findings
 * to the report and goes on, so that all errors of a file are told at once. */
#ifndef REGENT_CONF_LOADER_H
#define REGENT_CONF_LOADER_H

#include <jansson.h>
#include <yaml.h>

#include "conf/config.h"
#include "conf/keys.h"

enum {
    CONF_PATH_MAX = 160,     /* "postgresql.authentication.superuser.password" and the like */
    CONF_DEPTH_MAX = 16,     /* of bootstrap.dcs */
    CONF_VALUES_MAX = 10000, /* values read: aliases let a small file name very many */
    CONF_FINDINGS_MAX = 100,
    CONF_FILE_MAX = 1 << 20
};

struct loader {
    const char *source;  /* of what is read now: the file, or an environment variable */
    bool has_lines;      /* lines mean something: it is a file */
    yaml_document_t doc; /* of what is read now */
    struct config *c;
    struct buf *report;
    bool *seen;                      /* by key: given by the file or the environment */
    size_t findings, contradictions; /* the second are among the first */
    size_t values;
    /* Sections that no key is known for: of methods, if something names them. */
    struct {
        const yaml_node_t *key, *value;
        char path[CONF_PATH_MAX];
        bool taken;
    } sections[2 * CONF_METHODS_MAX];
    size_t sections_n;
};

/* ---- values.c ---- */
/* "FILE:LINE: text", `at` NULL: without a line. */
void conf_complain(struct loader *l, const yaml_node_t *at, const char *fmt, ...) PRINTF(3, 4);
/* NULL for what is no scalar, or has a NUL in it. */
const char *conf_scalar(const yaml_node_t *n);
/* `key:` with nothing behind it */
bool conf_is_empty(const yaml_node_t *n);
yaml_node_t *conf_node(struct loader *l, int index);
char **conf_str_at(struct config *c, size_t offset);
void conf_set_str(struct config *c, size_t offset, const char *value);
/* One value from the tree, or from a text that is no YAML (an environment variable, a default). */
void conf_set(struct loader *l, const struct conf_key *k, const yaml_node_t *n);
void conf_set_text(struct loader *l, const yaml_node_t *at, const struct conf_key *k,
                   const char *value);
/* Any tree; the caller's reference. Complains of what is too deep or no JSON. */
json_t *conf_json(struct loader *l, const yaml_node_t *n);
/* Frees the value and leaves it empty. */
void conf_clear(struct config *c, const struct conf_key *k);

/* ---- tree.c ---- */
/* Parses text into l->doc; false with a finding. The caller deletes the document. */
bool conf_parse(struct loader *l, struct slice text);
/* Gives every key of l->doc to conf_set(). */
void conf_walk(struct loader *l);

void conf_unknown_key(struct loader *l, const yaml_node_t *at, const char *path);

/* ---- methods.c ---- */
/* True when the unknown key may be a method's section, which is kept for conf_methods(). */
bool conf_method_section(struct loader *l, const char *path, const yaml_node_t *key,
                         const yaml_node_t *value);
/* Once the names are known, also those from the environment; l->doc is the file's. */
void conf_methods(struct loader *l);
void conf_methods_close(struct config *c);

/* ---- checks.c ---- */
/* Defaults that follow from other keys, then what must hold between keys. */
void conf_check(struct loader *l);

#endif
