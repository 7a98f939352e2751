#include "agent/pg_limits.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/str.h"

const char *const pg_limit_names[PG_LIMITS] = {"max_connections", "max_worker_processes",
                                               "max_wal_senders", "max_prepared_transactions",
                                               "max_locks_per_transaction"};

enum err pg_limits_parse(const char *text, struct pg_limits *ret)
{
    struct pg_limits l = {.known = true};
    *ret = (struct pg_limits){.known = false};
    for (size_t i = 0; i < PG_LIMITS; i++) {
        char number[24];
        size_t n = strcspn(text, "/");
        bool last = i + 1 == PG_LIMITS;
        if (str_copy_slice(number, sizeof number, slice_of(text, n)) != ERR_OK ||
            str_parse_u64(number, &l.v[i]) != ERR_OK || l.v[i] > INT32_MAX ||
            (text[n] == '\0') != last)
            return ERR_INVALID;
        text += n + 1;
    }
    *ret = l;
    return ERR_OK;
}

void pg_limits_text(const struct pg_limits *l, char ret[static PG_LIMITS_TEXT])
{
    size_t n = 0;
    ret[0] = '\0';
    for (size_t i = 0; l->known && i < PG_LIMITS; i++)
        n += (size_t)snprintf(ret + n, PG_LIMITS_TEXT - n, "%s%" PRIu64, i > 0 ? "/" : "",
                              MIN(l->v[i], (uint64_t)INT32_MAX));
}

struct pg_limits pg_limits_max(const struct pg_limits *a, const struct pg_limits *b)
{
    struct pg_limits l = a->known ? *a : *b;
    for (size_t i = 0; a->known && b->known && i < PG_LIMITS; i++)
        l.v[i] = MAX(a->v[i], b->v[i]);
    return l;
}

struct pg_limits pg_limits_min(const struct pg_limits *a, const struct pg_limits *b)
{
    struct pg_limits l = a->known ? *a : *b;
    for (size_t i = 0; a->known && b->known && i < PG_LIMITS; i++)
        l.v[i] = MIN(a->v[i], b->v[i]);
    return l;
}

bool pg_limits_below(const struct pg_limits *a, const struct pg_limits *b)
{
    for (size_t i = 0; a->known && b->known && i < PG_LIMITS; i++)
        if (a->v[i] < b->v[i])
            return true;
    return false;
}

struct pg_limits pg_limits_standby(const struct pg_limits *wanted,
                                   const struct pg_limits *control,
                                   const struct pg_limits *leader)
{
    struct pg_limits needed = pg_limits_max(control, leader);
    return pg_limits_max(wanted, &needed);
}

struct pg_limits pg_limits_primary(const struct pg_limits *wanted,
                                   const struct pg_limits *control,
                                   const struct pg_limits *standbys)
{
    if (!standbys->known)
        return *wanted;
    struct pg_limits had = pg_limits_max(standbys, control);
    return pg_limits_min(wanted, &had);
}
