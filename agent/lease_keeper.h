/* The holder's side of a lease (DESIGN.md lease rule 4), without I/O: when to renew, what to send, and
 * until when the holder may act.
 *
 * deadline = time of the first submission of the newest acknowledged renewal + TTL - margin.
 * Only a renewal that moved the counter moves the deadline. A shorter TTL binds from its first
 * submission, a longer one from its acknowledgement. */
#ifndef REGENT_AGENT_LEASE_KEEPER_H
#define REGENT_AGENT_LEASE_KEEPER_H

#include "base/base.h"
#include "base/err.h"

enum { KEEPER_OUTSTANDING = 16 };

struct keeper_submission {
    uint64_t n;
    uint64_t at_ms;
    uint64_t ttl_ms;
};

struct lease_keeper {
    uint64_t id; /* 0: no lease */
    uint64_t nonce;
    uint64_t n;      /* of the newest submission */
    uint64_t ttl_ms; /* wanted */
    uint64_t acked_n;
    uint64_t deadline_ms;                             /* 0: none */
    uint64_t next_ms;                                 /* when the next renewal is due */
    struct keeper_submission out[KEEPER_OUTSTANDING]; /* ring by n */
};

/* Until when a renewal that was first submitted then lets its holder lead. */
uint64_t keeper_deadline(uint64_t submitted_ms, uint64_t ttl_ms);
/* A lease granted (or found again) by a request first submitted at submitted_ms, nonce, counter n. */
void keeper_granted(struct lease_keeper *k, uint64_t id, uint64_t nonce, uint64_t n,
                    uint64_t ttl_ms, uint64_t submitted_ms);
/* The lease is gone, or its holder has changed. The deadline stays until it has passed. */
void keeper_gone(struct lease_keeper *k);
bool keeper_due(const struct lease_keeper *k, uint64_t now_ms);
/* The next renewal: its counter. ttl_ms: what configuration wants now. */
uint64_t keeper_submit(struct lease_keeper *k, uint64_t ttl_ms, uint64_t now_ms);
/* The store applied renewal n. */
void keeper_acked(struct lease_keeper *k, uint64_t n);
/* An answer is here. All holders whose renewals were gathered in one entry hear it at once: the next ones
 * are timed from it, never later than by their period, so that they meet in one entry again. */
void keeper_align(struct lease_keeper *k, uint64_t now_ms);

#endif
