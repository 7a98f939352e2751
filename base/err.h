/* One error space for the whole project.
 *
 * A function that can fail returns `enum err` and must be checked; where a person will read the
 * outcome it also takes a `struct errmsg *` (NULL is allowed) and says what, why and what next.
 * The text is built where the knowledge is and printed where the policy is. Foreign error spaces
 * (errno, sqlite, libuv, OpenSSL, libpq) are translated once, at the border.
 *
 * ERR_OUTCOME_UNKNOWN is never folded into failure: the request may have been applied. */
#ifndef REGENT_BASE_ERR_H
#define REGENT_BASE_ERR_H

#include "base/base.h"

enum err {
    ERR_OK = 0,
    ERR_CANCELLED, /* given up on by its owner, nothing applied */
    ERR_INVALID,   /* an argument, a key, a frame breaks its contract */
    ERR_TIMEOUT,   /* the deadline passed and nothing was applied */
    ERR_NOT_FOUND,
    ERR_EXISTS,
    ERR_DENIED,          /* identity known, right missing */
    ERR_UNAUTHENTICATED, /* identity missing or refused */
    ERR_LIMIT,           /* a bound (size, count, depth, in flight) is exceeded */
    ERR_NO_SPACE,        /* disk or quota */
    /* the state does not permit it: compare failed, unsafe, not initialised */
    ERR_PRECONDITION,
    ERR_COMPACTED, /* the revision asked for is no longer kept */
    ERR_UNSUPPORTED,
    ERR_INTERNAL,        /* our bug */
    ERR_UNAVAILABLE,     /* no leader, no quorum, not connected: nothing applied, try again */
    ERR_CORRUPT,         /* data on disk or from a peer is damaged */
    ERR_IO,              /* the operating system said no */
    ERR_OUTCOME_UNKNOWN, /* sent, and no answer: may have been applied */
    ERR_COUNT
};

struct errmsg {
    enum err code;
    char text[512];
};

/* "invalid", "not_found", ...: stable names, used on the wire. */
const char *err_name(enum err code);
/* A short sentence for people. */
const char *err_text(enum err code);
/* gRPC's number for the code, used on the wire. */
int err_grpc(enum err code);
/* Back from a wire name; ERR_INTERNAL when unknown. */
enum err err_from_name(struct slice name);
/* May the same request be sent again as it is? */
bool err_retryable(enum err code);
/* From errno: ENOSPC/EDQUOT, ENOENT, EEXIST, EACCES/EPERM, ETIMEDOUT, else ERR_IO. */
enum err err_from_errno(int error_number);

/* Writes the message (when e is not NULL) and returns code: `return err_set(...)`. */
enum err err_set(struct errmsg *e, enum err code, const char *fmt, ...) PRINTF(3, 4);
/* Puts "context: " before the text already there; returns e's code. */
enum err err_wrap(struct errmsg *e, enum err code, const char *fmt, ...) PRINTF(3, 4);

#endif
