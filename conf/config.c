/* The way of a configuration: file, environment, defaults, checks. */
#include "conf/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "conf/loader.h"

/* ---- environment and defaults ---- */

static void env_name(const char *path, char ret[static CONF_PATH_MAX])
{
    size_t n = (size_t)snprintf(ret, CONF_PATH_MAX, "REGENT_%s", path);
    for (size_t i = 0; i < n && i < CONF_PATH_MAX; i++)
        ret[i] = (char)(ret[i] == '.' ? '_' : toupper((unsigned char)ret[i]));
}

/* Lists and maps come as YAML, `[a, b]` and `{a: b}`, and replace what the file has. */
static void from_yaml_text(struct loader *l, const struct conf_key *k, const char *value)
{
    conf_clear(l->c, k);
    if (!conf_parse(l, slice_str(value)))
        return;
    conf_set(l, k, yaml_document_get_root_node(&l->doc));
    yaml_document_delete(&l->doc);
}

static void from_environment(struct loader *l)
{
    const char *file = l->source;
    l->has_lines = false;
    for (size_t i = 0; i < conf_keys_n; i++) {
        const struct conf_key *k = &conf_keys[i];
        char name[CONF_PATH_MAX];
        env_name(k->path, name);
        const char *value = getenv(name);
        if (value == NULL)
            continue;
        l->source = name;
        if (k->type >= CONF_LIST)
            from_yaml_text(l, k, value);
        else
            conf_set_text(l, NULL, k, value);
        l->source = file;
        l->seen[i] = true;
    }
}

static void fill_defaults(struct loader *l)
{
    for (size_t i = 0; i < conf_keys_n; i++) {
        const struct conf_key *k = &conf_keys[i];
        bool text = k->type == CONF_STR || k->type == CONF_JSON;
        const char *value = text ? *conf_str_at(l->c, k->offset) : NULL;
        if (k->required && (value == NULL || value[0] == '\0'))
            conf_complain(l, NULL, "%s is missing (%s)", k->path, k->help);
        if (text && value == NULL)
            conf_set_str(l->c, k->offset, k->fallback != NULL ? k->fallback : "");
    }
}

/* First of all, so that a bad value leaves a good one behind and makes no second finding. */
static void preset_numbers(struct loader *l)
{
    for (size_t i = 0; i < conf_keys_n; i++) {
        const struct conf_key *k = &conf_keys[i];
        bool text = k->type == CONF_STR || k->type == CONF_JSON;
        if (!text && k->fallback != NULL)
            conf_set_text(l, NULL, k, k->fallback);
    }
}

/* ---- entry points ---- */

enum err config_parse(const char *name, struct slice text, struct config *ret_config,
                      struct buf *ret_report)
{
    struct loader l = {
        .source = name, .has_lines = true, .c = ret_config, .report = ret_report};
    memset(ret_config, 0, sizeof *ret_config);
    l.seen = mem_array(conf_keys_n, sizeof *l.seen);
    ret_config->path = mem_strdup(name);
    preset_numbers(&l);
    if (conf_parse(&l, text)) {
        yaml_document_t file = l.doc;
        conf_walk(&l);
        from_environment(&l);
        fill_defaults(&l);
        l.doc = file;
        l.has_lines = true;
        conf_methods(&l);
        yaml_document_delete(&l.doc);
        conf_check(&l);
    }
    mem_free(l.seen);
    if (l.findings > CONF_FINDINGS_MAX)
        buf_printf(ret_report, "%s: and %zu more\n", name, l.findings - CONF_FINDINGS_MAX);
    if (l.findings > 0)
        config_close(ret_config);
    if (l.findings == 0)
        return ERR_OK;
    return l.findings == l.contradictions ? ERR_PRECONDITION : ERR_INVALID;
}

/* Whole file; complaints go to the report. */
static bool read_file(const char *path, struct buf *ret_text, struct buf *report)
{
    FILE *f = fopen(path, "re");
    int why = errno;
    char piece[4096];
    size_t n = 1;
    while (f != NULL && n > 0 && ret_text->len <= CONF_FILE_MAX) {
        n = fread(piece, 1, sizeof piece, f);
        buf_append(ret_text, piece, n);
        why = errno;
    }
    bool ok = f != NULL && ferror(f) == 0 && ret_text->len <= CONF_FILE_MAX;
    if (f != NULL)
        (void)fclose(f);
    if (!ok && ret_text->len > CONF_FILE_MAX)
        buf_printf(report, "%s: more than %d bytes: this is no configuration file\n", path,
                   CONF_FILE_MAX);
    else if (!ok)
        buf_printf(report, "%s: cannot read the configuration file: %s; %s\n", path,
                   strerror(why),
                   why == ENOENT ? "name one with -c FILE or REGENT_CONFIG, or make one with "
                                   "`regentctl init`"
                                 : "check its owner and mode");
    return ok;
}

/* As in a container: what must be there is in the environment, so a file is not needed. */
static bool environment_alone(const char *path)
{
    return access(path, F_OK) != 0 && errno == ENOENT && getenv("REGENT_SCOPE") != NULL &&
           getenv("REGENT_NAME") != NULL && getenv("REGENT_DCS_LISTEN") != NULL;
}

enum err config_load(const char *path, struct config *ret_config, struct buf *ret_report)
{
    struct buf text CLEANUP(buf_close) = BUF_INIT;
    memset(ret_config, 0, sizeof *ret_config);
    if (environment_alone(path))
        return config_parse("the environment", slice_str(""), ret_config, ret_report);
    if (!read_file(path, &text, ret_report))
        return ERR_INVALID;
    return config_parse(path, buf_slice(&text), ret_config, ret_report);
}

void config_close(struct config *c)
{
    for (size_t i = 0; i < conf_keys_n; i++)
        conf_clear(c, &conf_keys[i]);
    conf_methods_close(c);
    mem_free(c->path);
    memset(c, 0, sizeof *c);
}

const char *config_path(const char *explicit_path)
{
    if (explicit_path != NULL)
        return explicit_path;
    const char *env = getenv("REGENT_CONFIG");
    return env != NULL ? env : "/etc/regent/regent.yml";
}
