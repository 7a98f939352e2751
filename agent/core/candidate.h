/* Election among sealed nodes (DESIGN.md §4 "Election"). Pure. */
#ifndef REGENT_AGENT_CORE_CANDIDATE_H
#define REGENT_AGENT_CORE_CANDIDATE_H

#include "agent/core/plan.h"

enum candidate_verdict {
    CANDIDATE_WAIT,  /* more nodes may seal; ret_wake says until when */
    CANDIDATE_SELF,  /* acquire now; counted seals are in plan */
    CANDIDATE_OTHER, /* somebody else is better */
    CANDIDATE_NONE   /* nobody may be promoted: reason in words */
};

/* Fills plan->counted, plan->sync (record after the acquisition), reason. */
enum candidate_verdict candidate_choose(const struct view *v, struct plan *p);
/* Best healthy member for a switchover (NULL: none, reason in p). `wanted` "" = any. *ret_passes: what is in the way is
 * of a kind that is over in a moment (it has just begun to stream and was not seen yet, the log went on to its next
 * segment, ...). */
const struct member_rec *candidate_switchover(const struct view *v, const char *wanted,
                                              struct plan *p, bool *ret_passes);
/* Can a node that stopped at (timeline, lsn) with this history follow the leader as it is? */
enum candidate_follow { FOLLOW_AS_IS, FOLLOW_REWIND, FOLLOW_CLONE };
enum candidate_follow candidate_follow(const struct view *v);

#endif
