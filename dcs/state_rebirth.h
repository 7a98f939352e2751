/* A file with a state (a copy, never state.db of a node) looked into, and made the first state of a new
 * cluster: for `dcs snapshot restore` and `dcs recover`. Offline, any thread. */
#ifndef REGENT_DCS_STATE_REBIRTH_H
#define REGENT_DCS_STATE_REBIRTH_H

#include "base/base.h"
#include "base/err.h"
#include "proto/messages.h"

/* No number that the old cluster may have given out after this state was written is given out again:
 * revisions, log indices (ids of leases and sessions are made of them), fencing tokens. */
#define REBIRTH_REVISIONS 1000000000ull
#define REBIRTH_INDICES (1ull << 32)
#define REBIRTH_TOKENS 1000000ull

struct state_facts {
    char cluster_id[40];
    uint64_t index, revision, next_member, keys;
    uint64_t epoch;                     /* how often it was made a new cluster */
    char scope[64];                     /* of the HA records; "": none, or of several */
    char primary[64];                   /* last leader by the sync record; "": none */
    struct member members[MEMBERS_MAX]; /* not removed */
    size_t n_members;
};

/* Checks the file as a node would at its start. */
enum err state_file_facts(const char *path, struct state_facts *ret_facts, struct errmsg *e)
    MUST_CHECK;

/* One transaction: `self` (its id is the next one) is the only member, all others are removed; leases with
 * their keys, sessions, tokens, requests to fail over and history are gone; sync records are unknown; the
 * numbers above are raised; the epoch too. Not synced. */
enum err state_file_rebirth(const char *path, const char *cluster_id, const struct member *self,
                            struct errmsg *e) MUST_CHECK;

#endif
