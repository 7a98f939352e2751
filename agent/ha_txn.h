/* Turns the transaction of a plan into a kv.txn request, with every comparison DESIGN.md §4 demands:
 * the leader key, the `sync` record's mod_revision, and every seal counted. No I/O. */
#ifndef REGENT_AGENT_HA_TXN_H
#define REGENT_AGENT_HA_TXN_H

#include "agent/core/plan.h"
#include "agent/mirror.h"
#include "agent/postgres.h"

struct ha_txn {
    struct buf compare, then; /* encoded arrays; owned */
    struct txn_req req;       /* points into them */
};

/* self: where the others reach this node's PostgreSQL. wall_ms: for the records people read. first_config:
 * what TXN_BOOTSTRAP_DONE writes when there is no config yet. ERR_LIMIT: a record does not fit. */
enum err ha_txn_build(const struct mirror *m, const struct view *v, const struct plan *p,
                      const struct postgres_upstream *self, uint64_t wall_ms,
                      const struct config_rec *first_config, struct ha_txn *ret_txn,
                      struct errmsg *e) MUST_CHECK;
void ha_txn_close(struct ha_txn *t);

#endif
