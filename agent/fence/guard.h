/* When does the fence act? A pure function of clocks and deadline: no I/O, so every case is a row of
 * a table in tests/unit/test_fence_guard.c. The rules:
 *
 * 1. At deadline - budget PostgreSQL is killed (SIGQUIT, then SIGKILL), so that it is dead at the
 *    deadline. Found past the middle of the budget already (the fence itself was stopped): SIGKILL at once.
 * 2. Where PostgreSQL can be frozen it is frozen at deadline - budget instead, thawed when a renewal
 *    has moved the deadline beyond now + budget, and killed frozen at deadline - budget/2.
 * 3. The time that has passed since the deadline last moved is the larger of CLOCK_BOOTTIME's and
 *    CLOCK_MONOTONIC_RAW's: a paused VM's BOOTTIME may stand still while the counter behind RAW runs.
 * 4. When the two disagree by more than 200 ms (plus an eighth of the time between two looks, which a
 *    slewing time daemon can make) in one look, the deadline is in doubt: a challenge is raised. A
 *    renewal submitted after it confirms it; else PostgreSQL is killed after 100 ms, or, frozen
 *    meanwhile, after 1 s.
 * 5. A fence that was merely late, with clocks that agree, needs no rule of its own: the deadline is
 *    absolute, so either there is time left, or rule 1 kills at first sight. */
#ifndef REGENT_AGENT_FENCE_GUARD_H
#define REGENT_AGENT_FENCE_GUARD_H

#include "base/base.h"

enum guard_phase { GUARD_IDLE, GUARD_RUN, GUARD_FROZEN, GUARD_DOOMED };

enum guard_action { GUARD_NOTHING, GUARD_FREEZE, GUARD_THAW, GUARD_KILL };

/* Invariants: IDLE = not armed. DOOMED is left only by guard_arm() or guard_disarm(). */
struct guard {
    enum guard_phase phase;
    bool can_freeze;
    uint64_t budget_us;
    uint64_t deadline_us; /* as last seen */
    uint64_t last_boot_us, last_raw_us;
    int64_t
        drift_us; /* RAW's lead over BOOTTIME since the deadline last moved or was confirmed */
    uint64_t challenge;
    bool doubt;
    uint64_t doubt_until_us; /* on RAW: it is the one that runs */
};

struct guard_input {
    uint64_t boot_us, raw_us;
    uint64_t deadline_us;
    uint64_t confirmed;
};

struct guard_verdict {
    enum guard_action action;
    uint64_t quit_us; /* of KILL: from SIGQUIT to SIGKILL; 0: SIGKILL at once */
    uint64_t wake_us; /* look again after this, at the latest */
};

void guard_init(struct guard *g);
void guard_arm(struct guard *g, uint64_t budget_us, const struct guard_input *in);
void guard_disarm(struct guard *g);
/* PostgreSQL could not be frozen in time: go on as if there were no such means. */
void guard_freeze_failed(struct guard *g);
struct guard_verdict guard_step(struct guard *g, const struct guard_input *in);
/* Until the deadline by the pessimistic clock; 0 when it has passed. */
uint64_t guard_left_us(const struct guard *g, uint64_t boot_us);

#endif
