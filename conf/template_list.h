/* The `templates:` section of the configuration: which files of other programs this node keeps current. */
#ifndef REGENT_CONF_TEMPLATE_LIST_H
#define REGENT_CONF_TEMPLATE_LIST_H

#include "conf/config.h"

enum { TEMPLATES_MAX = 16, TEMPLATE_SETS_MAX = 32 };

/* Owns its strings; those not given are NULL. */
struct template_entry {
    char *name;
    char *source; /* a built-in one's name, or an absolute path; default: the name */
    char *target; /* absolute path of the file that is kept current */
    char *check;  /* shell command; $FILE is the new file, not yet in place */
    char *reload; /* shell command; $FILE is the file in place */
    unsigned mode;
    struct conf_pair set[TEMPLATE_SETS_MAX];
    size_t set_n;
};

struct template_list {
    struct template_entry entries[TEMPLATES_MAX];
    size_t n;
};

/* From the section as JSON (config.templates_json). ERR_INVALID names the key; the list is empty then. */
enum err template_list_parse(const char *json, struct template_list *ret_list, struct errmsg *e)
    MUST_CHECK;
void template_list_close(struct template_list *l);

#endif
