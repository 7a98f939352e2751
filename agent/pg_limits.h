/* The settings that a standby must have at least as high as its primary (PostgreSQL, "Hot Standby Parameter
 * Overview"): raised on standbys first, lowered on the primary first. The file always has what is wanted;
 * what a server starts with is decided here, and stands on its command line, so that PostgreSQL goes on
 * showing the setting as one that waits for a restart. Pure. */
#ifndef REGENT_AGENT_PG_LIMITS_H
#define REGENT_AGENT_PG_LIMITS_H

#include "base/base.h"
#include "base/err.h"

enum { PG_LIMITS = 5, PG_LIMITS_TEXT = 64 };

struct pg_limits {
    bool known;
    uint64_t v[PG_LIMITS]; /* in the order of pg_limit_names */
};

extern const char *const pg_limit_names[PG_LIMITS];

/* "100/8/10/0/64", as member records and the worker carry them. ERR_INVALID: unknown. */
enum err pg_limits_parse(const char *text, struct pg_limits *ret) MUST_CHECK;
void pg_limits_text(const struct pg_limits *l, char ret[static PG_LIMITS_TEXT]);
/* The higher (lower) of both; what one does not know is the other's. */
struct pg_limits pg_limits_max(const struct pg_limits *a, const struct pg_limits *b);
struct pg_limits pg_limits_min(const struct pg_limits *a, const struct pg_limits *b);
/* Some value of a is lower than b's: a server with a cannot follow one with b. */
bool pg_limits_below(const struct pg_limits *a, const struct pg_limits *b);

/* What to start with, given what the files want. A standby: no less than its data needs (`control`) and its
 * leader has. A primary: no more than its standbys have, unless it had more already. */
struct pg_limits pg_limits_standby(const struct pg_limits *wanted,
                                   const struct pg_limits *control,
                                   const struct pg_limits *leader);
struct pg_limits pg_limits_primary(const struct pg_limits *wanted,
                                   const struct pg_limits *control,
                                   const struct pg_limits *standbys);

#endif
