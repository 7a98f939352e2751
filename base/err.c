#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

static const struct {
    const char *name;
    const char *text;
    int grpc;
    bool retryable;
} table[ERR_COUNT] = {
    [ERR_OK] = {"ok", "done", 0, false},
    [ERR_CANCELLED] = {"cancelled", "cancelled", 1, false},
    [ERR_INVALID] = {"invalid", "invalid argument", 3, false},
    [ERR_TIMEOUT] = {"timeout", "deadline passed", 4, true},
    [ERR_NOT_FOUND] = {"not_found", "not found", 5, false},
    [ERR_EXISTS] = {"exists", "exists already", 6, false},
    [ERR_DENIED] = {"denied", "permission denied", 7, false},
    [ERR_UNAUTHENTICATED] = {"unauthenticated", "not authenticated", 16, false},
    [ERR_LIMIT] = {"limit", "limit exceeded", 8, true},
    [ERR_NO_SPACE] = {"no_space", "no space left", 8, false},
    [ERR_PRECONDITION] = {"precondition", "the present state does not permit it", 9, false},
    [ERR_COMPACTED] = {"compacted", "revision is compacted", 11, false},
    [ERR_UNSUPPORTED] = {"unsupported", "not supported", 12, false},
    [ERR_INTERNAL] = {"internal", "internal error", 13, false},
    [ERR_UNAVAILABLE] = {"unavailable", "unavailable", 14, true},
    [ERR_CORRUPT] = {"corrupt", "data is damaged", 15, false},
    [ERR_IO] = {"io", "input/output error", 13, false},
    [ERR_OUTCOME_UNKNOWN] = {"outcome_unknown", "outcome unknown", 2, false},
};

const char *err_name(enum err code)
{
    return code < ERR_COUNT ? table[code].name : "internal";
}

const char *err_text(enum err code)
{
    return code < ERR_COUNT ? table[code].text : "internal error";
}

int err_grpc(enum err code)
{
    return code < ERR_COUNT ? table[code].grpc : 13;
}

bool err_retryable(enum err code)
{
    return code < ERR_COUNT && table[code].retryable;
}

enum err err_from_name(struct slice name)
{
    for (size_t i = 0; i < ERR_COUNT; i++)
        if (slice_eq(name, slice_str(table[i].name)))
            return (enum err)i;
    return ERR_INTERNAL;
}

enum err err_from_errno(int error_number)
{
    switch (error_number) {
    case 0:
        return ERR_OK;
    case ENOSPC:
    case EDQUOT:
        return ERR_NO_SPACE;
    case ENOENT:
        return ERR_NOT_FOUND;
    case EEXIST:
        return ERR_EXISTS;
    case EACCES:
    case EPERM:
        return ERR_DENIED;
    case ETIMEDOUT:
        return ERR_TIMEOUT;
    default:
        return ERR_IO;
    }
}

enum err err_set(struct errmsg *e, enum err code, const char *fmt, ...)
{
    if (e == NULL)
        return code;
    va_list ap;
    va_start(ap, fmt);
    e->code = code;
    (void)vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    return code;
}

enum err err_wrap(struct errmsg *e, enum err code, const char *fmt, ...)
{
    if (e == NULL)
        return code;
    char inner[sizeof e->text];
    memcpy(inner, e->text, sizeof inner);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof e->text)
        (void)snprintf(e->text + n, sizeof e->text - (size_t)n, ": %s", inner);
    e->code = code;
    return code;
}
