/* A directory, a loop, a fence with a client, and a fake postmaster, for tests with real processes. */
#ifndef REGENT_TEST_FENCE_WORLD_H
#define REGENT_TEST_FENCE_WORLD_H

#include <sys/types.h>

#include "agent/fence.h"

/* Forty times the budget of the product, for a machine that keeps any process waiting for seconds: the fence begins
 * as early, and ends as soon as it can. WORLD_SOON_MS from an order to arm on it acts; WORLD_LATER_MS: a deadline
 * with so much before it that the test is still there. */
enum {
    WORLD_BUDGET_MS = 8000,
    WORLD_SOON_MS = WORLD_BUDGET_MS + 400,
    WORLD_LATER_MS = WORLD_BUDGET_MS + 3000,
    WORLD_NEVER_MS = 600000,
};

struct world {
    char dir[64];
    char log[96], socket[96], commits[96];
    uv_loop_t loop;
    struct fence *fence;
    unsigned lost, changes;
    uint64_t token; /* last armed for */
};

void world_open(struct world *w, bool connect);
void world_close(struct world *w);      /* kills what is left, removes the directory */
void world_connect(struct world *w);    /* a daemon comes */
void world_open_fence(struct world *w); /* the same, not waited for */
void world_stop_fence(struct world *w); /* it goes and takes the fence along */
/* Until the fence has sent something; it stays unread. */
void world_wait_for_news(const struct world *w);
void world_disconnect(struct world *w); /* it goes without a word, its loop too */

const struct fence_state *world_state(const struct world *w);
typedef bool world_predicate(const struct world *w);
/* Runs the loop until it holds; fails the test, naming what, after two minutes. */
void world_until(struct world *w, world_predicate *holds, const char *what);
#define WORLD_UNTIL(w, predicate) world_until(w, predicate, #predicate)
/* Runs the loop for that long: for things that must not happen, and for time that must pass. */
void world_run_ms(struct world *w, uint64_t ms);

/* ... is NULL-terminated further arguments; waits until its children commit. */
pid_t world_start(struct world *w, bool armed, const char *option);
/* Returns the deadline: in so many ms. */
uint64_t world_arm(struct world *w, uint64_t token, uint64_t ms);
/* CLOCK_BOOTTIME of the newest commit, in ms; 0: none yet. */
uint64_t world_last_commit_ms(const struct world *w);
pid_t world_fence_pid(const struct world *w);
pid_t world_worker_pid(const struct world *w); /* of any; 0: none */

bool is_connected(const struct world *w);
bool is_running(const struct world *w);
bool is_armed(const struct world *w);
bool is_dead(const struct world *w); /* exited, and no process left */
bool is_commiting(const struct world *w);
bool is_frozen(const struct world *w);

#endif
