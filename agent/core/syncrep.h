/* The rule of synchronous replication (DESIGN.md §4) and its transitions. Pure.
 *
 * k + q > |V u S| for every (k, S) in force, or V is empty and only the record's leader may lead. */
#ifndef REGENT_AGENT_CORE_SYNCREP_H
#define REGENT_AGENT_CORE_SYNCREP_H

#include "agent/core/plan.h"

bool syncrep_rule(uint64_t k, const char s[][64], size_t s_n, const char v[][64], size_t v_n,
                  uint64_t q);
/* Does the record (v, q) keep the rule against every set that may be in force on this primary? */
bool syncrep_record_safe(const struct view_pg *pg, const struct sync_rec *r);
/* Does the set keep the rule against the record? */
bool syncrep_set_safe(const struct sync_set *set, const struct sync_rec *r);
/* One safe step from what is to what is wanted: fills txn TXN_SYNC or action ACTION_SET_SYNC of plan, or
 * neither when nothing is to do (or to wait for: *ret_wait with words in plan->reason). */
bool syncrep_step(const struct view *v, struct plan *p, bool *ret_wait);
/* synchronous_standby_names of a set: `FIRST 2 ("a","b")`, `ANY 1 (...)`, "" */
enum err syncrep_names(const struct sync_set *set, enum sync_mode mode, char *ret, size_t size)
    MUST_CHECK;

#endif
