/* Which membership change the leader makes next, and which removal is safe: pure decisions over a
 * view of the members. One change at a time; node_member.c carries them out.
 *
 * A registered member ("joining") that presented itself becomes a learner; once it has stored something
 * it is "active" (from then on an empty log under this id means a wiped directory and is refused).
 * Learners that are caught up become voters up to the target; voters that are registered as learners
 * become learners, and so do voters above the target: they stay at hand for the place of one that is removed.
 * The number of voters rests at odd
 * numbers only: an even one survives no more failures than the odd one below it.
 *
 * The cluster's version rises to the lowest of the programs of all who take part in Raft, when all of them
 * are linked. */
#ifndef REGENT_DCS_MEMBER_H
#define REGENT_DCS_MEMBER_H

#include "base/base.h"
#include "base/err.h"
#include "proto/messages.h"

enum {
    MEMBER_CAUGHT_UP_ENTRIES = 100,
    MEMBER_EVEN_PATIENCE_MS = 10000 /* so long may the number of voters be even */
};

struct member_view {
    uint64_t id;
    enum { MEMBER_ABSENT, MEMBER_LEARNER, MEMBER_VOTER } raft; /* in Raft's newest membership */
    enum { MEMBER_JOINING, MEMBER_ACTIVE, MEMBER_REMOVED } state;
    bool wants_vote; /* registered as voter or witness */
    bool presented;  /* asked to be let in, with this leader */
    bool heard;      /* answered within the last second, or is the leader itself */
    uint64_t match_index;
    uint64_t version; /* of its program, as far as this one knows it; 0: not linked */
};

struct member_cluster {
    struct member_view m[MEMBERS_MAX];
    size_t n;
    uint64_t self; /* the leader */
    uint64_t last_index;
    bool change_pending;
    uint64_t voters_max; /* the target that was set */
    uint64_t even_ms;    /* how long the number of voters has been even */
    uint64_t version;    /* the cluster's */
};

enum member_action {
    MEMBER_NOTHING,
    MEMBER_ADD,      /* as learner */
    MEMBER_ACTIVATE, /* joining -> active */
    MEMBER_PROMOTE,
    MEMBER_DEMOTE,
    MEMBER_RAISE /* the cluster's version, to `version` */
};

struct member_plan {
    enum member_action action;
    uint64_t id;
    const char *why;
    uint64_t version;
};

struct member_plan member_decide(const struct member_cluster *c);
/* Nothing is on its way: all are active, and the number of voters is odd and cannot grow. */
bool member_settled(const struct member_cluster *c);
size_t member_voters(const struct member_cluster *c);
/* May `id` be taken out? ERR_PRECONDITION says the effect on the quorum; force overrides all but the
 * last voter. */
enum err member_removable(const struct member_cluster *c, uint64_t id, bool force,
                          struct errmsg *e) MUST_CHECK;

#endif
