/* The view described once as tables, for view_text.c. Private to agent/core. */
#ifndef REGENT_AGENT_CORE_VIEW_FIELDS_H
#define REGENT_AGENT_CORE_VIEW_FIELDS_H

#include "agent/core/view.h"

enum vtype {
    V_END, /* ends a table */
    V_U64,
    V_I64,
    V_BOOL,
    V_TEXT,  /* char[size] */
    V_ENUM,  /* unsigned of 4 or 8 bytes (size), `names` up to a NULL */
    V_NAMES, /* char[max][64] and a count */
    V_U64S,  /* uint64_t[max], the rest zero */
    V_SUB,   /* a struct, `sub` */
    /* struct[max] of `size` bytes, `sub`, and a count; `keyed`: first field is a text that
     * names it */
    V_LIST
};

struct vfield {
    const char *name;
    enum vtype type;
    size_t offset;
    size_t size;
    size_t max;
    size_t count_offset;
    const struct vfield *(*sub)(void);
    const char *const *names;
    bool keyed;
};

const struct vfield *view_fields(void);

#endif
