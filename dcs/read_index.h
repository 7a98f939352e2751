/* Linearizable reads without a disk write (Raft thesis §6.4): the leader asks the voters whether its
 * term still stands; once a majority, itself among them, has said yes to a round that began after the
 * read arrived, no newer leader can have acknowledged a write before the read. Needs an entry of
 * the leader's own term committed (the caller checks that), or its commit index may be old.
 *
 * One round serves every read that waits when it starts; at most one is under way, and one without an
 * answer is followed by the next, which covers its reads too. Pure: no I/O, no clock. */
#ifndef REGENT_DCS_READ_INDEX_H
#define REGENT_DCS_READ_INDEX_H

#include "base/base.h"

enum { READ_INDEX_VOTERS_MAX = 64 };

struct read_index {
    uint64_t self;
    uint64_t term;
    uint64_t round;     /* the last one that was started */
    uint64_t confirmed; /* the last one a majority agreed to; <= round */
    uint64_t ticket;    /* the round the newest read waits for; <= round + 1 */
    uint64_t started_ms;
    size_t n;
    struct {
        uint64_t id;
        uint64_t agreed; /* the last round it said yes to */
    } voters[READ_INDEX_VOTERS_MAX];
};

/* A new term of leadership: nothing is confirmed, no read waits. Rounds go on counting, so that an
 * answer to an older term's round cannot be taken for one of this term. */
void read_index_begin(struct read_index *r, uint64_t self, uint64_t term);
/* A read has arrived; it is served when read_index_confirmed() >= the ticket returned. */
uint64_t read_index_ask(struct read_index *r);
/* Do reads wait for which a round should start now? */
bool read_index_due(const struct read_index *r, uint64_t now_ms, uint64_t resend_ms);
/* Starts a round among these voters; returns its number, to be sent to all but self. A single voter's
 * round is confirmed at once. */
uint64_t read_index_start(struct read_index *r, const uint64_t *voters, size_t n,
                          uint64_t now_ms);
/* Somebody answered round `round` of term `term`. */
void read_index_answer(struct read_index *r, uint64_t from, uint64_t term, uint64_t round,
                       bool yes);

static inline uint64_t read_index_confirmed(const struct read_index *r)
{
    return r->confirmed;
}

#endif
