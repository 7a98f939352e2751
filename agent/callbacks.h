/* The administrator's programs that are told what happens to this node's PostgreSQL (`postgresql.callbacks`), with
 * Patroni's arguments: action, role, scope. They run beside the loop, one at a time, and nothing waits for them: a
 * newer event ends the one that still runs; a reload waits for its turn. Loop thread of the agent. */
#ifndef REGENT_AGENT_CALLBACKS_H
#define REGENT_AGENT_CALLBACKS_H

#include <uv.h>

#include "agent/core/plan.h"
#include "conf/config.h"

enum callback {
    CALLBACK_NONE,
    CALLBACK_ON_START,
    CALLBACK_ON_STOP,
    CALLBACK_ON_RESTART,
    CALLBACK_ON_RELOAD,
    CALLBACK_ON_ROLE_CHANGE,
    CALLBACK_COUNT
};

enum callback_role { CALLBACK_REPLICA, CALLBACK_STANDBY_LEADER, CALLBACK_PRIMARY };

/* What an event is judged by. */
struct callback_facts {
    bool known;   /* false: PostgreSQL is between two states, or not looked at yet */
    bool running; /* it accepts connections */
    /* who leads has been seen: only from then on is a replica known to be one */
    bool led;
    /* while it runs; else as it last ran, when it has `ran` here at all */
    enum callback_role role;
    bool ran;
    bool restarting; /* it is being stopped to be started again at once */
    uint64_t reloads;
};

/* The event between two observations; *seen becomes what to compare the next one with. A start with another role is a
 * change of role; a stop for a restart waits for its start. The first observation is no event, nor is what a standby turns out to be when it is first known who
 * leads. Pure. */
enum callback callback_next(struct callback_facts *seen, const struct callback_facts *now);
const char *callback_name(enum callback c);

struct callbacks;

/* c outlives it. */
struct callbacks *callbacks_new(uv_loop_t *loop, const struct config *c);
/* Frees itself when what runs has ended; at_once: it is ended now. NULL is allowed. */
void callbacks_stop(struct callbacks *k, bool at_once);
/* The view and plan in force; reloads: how often the configuration has been reloaded. */
void callbacks_publish(struct callbacks *k, const struct view *v, const struct plan *p,
                       uint64_t reloads);

#endif
