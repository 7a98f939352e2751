/* A membership as the bytes of a change entry, and the rules that every membership keeps.
 *
 * The bytes are libraft's own (it decodes change entries by itself, reading past the end of damaged
 * ones): version 1, count, then id, address with NUL, role per server, little-endian, padded to 8.
 * Nothing reaches the library that raft_membership_decode() has not accepted. */
#ifndef REGENT_DCS_RAFT_MEMBERSHIP_H
#define REGENT_DCS_RAFT_MEMBERSHIP_H

#include "dcs/raft_core.h"

/* ERR_INVALID: no servers, no voter, id 0, an empty address, an id or an address twice. */
enum err raft_membership_check(const struct raft_membership *m, struct errmsg *e) MUST_CHECK;
void raft_membership_encode(const struct raft_membership *m, struct buf *ret_data);
/* Any bytes. index goes into the result. ERR_INVALID leaves ret untouched. */
enum err raft_membership_decode(struct slice data, uint64_t index, struct raft_membership *ret)
    MUST_CHECK;
/* NULL: not a member. */
const struct raft_server *raft_membership_find(const struct raft_membership *m, uint64_t id);
size_t raft_membership_voters(const struct raft_membership *m);
/* Is `id` the one and only voter? */
bool raft_membership_sole_voter(const struct raft_membership *m, uint64_t id);
/* Both describe the same servers, in any order. */
bool raft_membership_same(const struct raft_membership *a, const struct raft_membership *b);
/* Servers that were added, removed or altered between the two. */
size_t raft_membership_distance(const struct raft_membership *a,
                                const struct raft_membership *b);
/* `to` with the servers it shares with `from` in the order of `from`: the library finds a follower's
 * progress by position and keeps it when only roles change. */
void raft_membership_in_order(const struct raft_membership *from,
                              const struct raft_membership *to, struct raft_membership *ret);

#endif
