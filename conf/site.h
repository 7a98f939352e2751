/* `standby_cluster` of the dynamic configuration, in Patroni's shape: the other site, whose data this cluster follows.
 * Pure. */
#ifndef REGENT_CONF_SITE_H
#define REGENT_CONF_SITE_H

#include "base/base.h"
#include "base/err.h"

enum { SITE_METHODS_MAX = 8, SITE_COMMAND_MAX = 1024 };

/* As PostgreSQL is given it; "" is left out. All "": there is no other site. */
struct site {
    char host[256]; /* several with commas between: the one that takes writes is followed */
    char port[64];  /* one for all, or as many; "" stands for 5432 */
    char primary_slot_name[64];
    char restore_command[SITE_COMMAND_MAX];
    char archive_cleanup_command[SITE_COMMAND_MAX];
    char recovery_min_apply_delay[32];
    /* how the first copy is made, in this order: "basebackup", or of postgresql.create_replica_methods. None: as
     * every other */
    char create_replica_methods[SITE_METHODS_MAX][64];
    size_t create_replica_methods_n;
};

/* Empty text and null are none. ERR_INVALID: thing, reason and remedy in e; *ret is then empty. */
enum err site_parse(struct slice json, struct site *ret, struct errmsg *e) MUST_CHECK;
/* Several hosts. */
bool site_many(const struct site *s);

#endif
