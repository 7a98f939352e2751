/* The dynamic configuration: what a cluster has in common, replicated, JSON. One table describes its keys; whoever
 * stores it (regentctl, REST) and whoever reads it goes by the same checks, so that nothing is stored that a node
 * would refuse. Pure: no I/O. */
#ifndef REGENT_CONF_DYNAMIC_H
#define REGENT_CONF_DYNAMIC_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

/* Who connects for the cluster itself: names of roles. */
struct hba_roles {
    const char *superuser, *replication, *rewind;
};

enum dynamic_type { DYN_NUMBER, DYN_BOOL, DYN_TEXT, DYN_MAP, DYN_LIST };

struct dynamic_key {
    const char *name;
    enum dynamic_type type;
    const char *fallback; /* as shown to people */
    const char *choices;  /* "a|b|c": the only values; NULL: any */
    uint64_t min, max;    /* DYN_NUMBER */
    const char *help;
};

extern const struct dynamic_key dynamic_keys[];
extern const size_t dynamic_keys_n;
/* The keys within `postgresql`. */
extern const struct dynamic_key dynamic_postgresql_keys[];
extern const size_t dynamic_postgresql_keys_n;
/* Keys that Patroni has within `postgresql`, and that are taken there, too. */
extern const char *const dynamic_moved[];
extern const size_t dynamic_moved_n;

/* Checks a whole configuration and gives it back in its normal form: Patroni's places and spellings of a value
 * become ours, null and unset are the same, and every plain value that is unset has its default. ERR_INVALID: thing,
 * reason and remedy in e. */
enum err dynamic_check(struct slice json, struct buf *ret_json, struct errmsg *e) MUST_CHECK;
/* The same for a change that a person makes to the stored configuration `before`. Each parameter of PostgreSQL that
 * differs must be one that Regent does not set by itself, safe for it, and good by `catalogue` (settings_rec.settings;
 * empty: not known). ERR_PRECONDITION: it would lock the agent or replication out. */
struct dynamic_edit {
    struct slice before, catalogue;
    struct hba_roles roles;
};
enum err dynamic_check_edit(struct slice json, const struct dynamic_edit *edit,
                            struct buf *ret_json, struct errmsg *e) MUST_CHECK;

/* `before` with `patch` laid over it, to be checked: maps are merged, null takes a key away. ERR_INVALID: the patch is
 * no JSON object. */
enum err dynamic_merge(struct slice before, struct slice patch, struct buf *ret_json,
                       struct errmsg *e) MUST_CHECK;

/* ---- PostgreSQL's parameters (settings.c) ---- */
/* Names, NUL behind each, of the settings nobody else may set. */
struct slice settings_owned(void);
bool settings_is_owned(const char *name);
/* By the catalogue (see settings_rec): is there such a parameter, and does it take this value? */
enum err settings_check_value(struct slice catalogue, const char *name, const char *value,
                              struct errmsg *e) MUST_CHECK;
/* The catalogue says that it takes a restart. */
bool settings_needs_restart(struct slice catalogue, const char *name);
/* ERR_PRECONDITION: values with which the agent could no longer do its work, whatever PostgreSQL thinks of them. */
enum err settings_check_safe(const char *name, const char *value, struct errmsg *e) MUST_CHECK;

/* ---- lines of pg_hba.conf and pg_ident.conf (hba.c) ---- */
/* One record that PostgreSQL can read: a broken one keeps it from starting. Comments and empty lines are fine. */
enum err hba_check(const char *line, struct errmsg *e) MUST_CHECK;
enum err ident_check(const char *line, struct errmsg *e) MUST_CHECK;
/* The agent's own lines come first, so that no other takes away what the cluster needs. One that is meant to do just
 * that would be without effect: ERR_PRECONDITION. */
enum err hba_check_roles(const char *line, const struct hba_roles *roles, struct errmsg *e)
    MUST_CHECK;

#endif
