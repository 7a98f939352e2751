#include "agent/fence/guard.h"

#include "agent/fence/proto.h"
#include "base/assert.h"
#include "base/mutant.h"

enum {
    MS = 1000,
    DISAGREE_US = 200 * MS,
    GRACE_US = 100 * MS,
    GRACE_FROZEN_US = 1000 * MS,
    LOOK_US = FENCE_HEARTBEAT_MS * MS,
    LOOK_FROZEN_US = 5 * MS,
};

void guard_init(struct guard *g)
{
    *g = (struct guard){.phase = GUARD_IDLE, .budget_us = (uint64_t)FENCE_BUDGET_MS * MS};
}

static void look(struct guard *g, const struct guard_input *in)
{
    g->last_boot_us = in->boot_us;
    g->last_raw_us = in->raw_us;
}

void guard_arm(struct guard *g, uint64_t budget_us, const struct guard_input *in)
{
    ASSERT(budget_us > 0 && in->deadline_us > 0);
    bool keep = g->phase == GUARD_RUN || g->phase == GUARD_FROZEN;
    if (!keep) {
        g->phase = GUARD_RUN;
        g->doubt = false;
        g->drift_us = 0;
        look(g, in);
    }
    g->budget_us = budget_us;
    g->deadline_us = in->deadline_us;
}

void guard_disarm(struct guard *g)
{
    g->phase = GUARD_IDLE;
    g->doubt = false;
    g->drift_us = 0;
    g->deadline_us = 0;
}

void guard_freeze_failed(struct guard *g)
{
    g->can_freeze = false;
    if (g->phase == GUARD_FROZEN)
        g->phase = GUARD_RUN;
    /* In doubt the grace of a running PostgreSQL is the short one. */
    if (g->doubt && g->doubt_until_us > g->last_raw_us + GRACE_US)
        g->doubt_until_us = g->last_raw_us + GRACE_US;
}

uint64_t guard_left_us(const struct guard *g, uint64_t boot_us)
{
    uint64_t now = boot_us + (g->drift_us > 0 ? (uint64_t)g->drift_us : 0);
    return g->deadline_us > now ? g->deadline_us - now : 0;
}

/* Rules 3 and 4: how far apart did the clocks go since the last look? Before the deadline is looked at:
 * a renewal submitted before a pause must not launder it. */
static void compare_clocks(struct guard *g, const struct guard_input *in)
{
    int64_t boot = (int64_t)(in->boot_us - g->last_boot_us);
    int64_t raw = (int64_t)(in->raw_us - g->last_raw_us);
    int64_t apart = raw - boot;
    int64_t tolerance = DISAGREE_US + MAX(boot, raw) / 8;
    g->drift_us += apart;
    look(g, in);
    if ((apart <= tolerance && -apart <= tolerance) || MUTANT(pause_unseen))
        return;
    g->challenge++;
    g->doubt = true;
    g->doubt_until_us = in->raw_us + (g->can_freeze ? GRACE_FROZEN_US : GRACE_US);
}

static void take_deadline(struct guard *g, const struct guard_input *in)
{
    if (g->doubt && in->confirmed == g->challenge && in->deadline_us > in->boot_us) {
        g->doubt = false;
        g->drift_us = 0;
    }
    if (MUTANT(renewal_launders_pause))
        g->doubt = false;
    if (in->deadline_us == g->deadline_us)
        return;
    /* In doubt the new deadline may stem from before the pause: the drift stays. A shorter one (of a shorter ttl) says
     * nothing of the clocks. */
    if (!g->doubt && in->deadline_us > g->deadline_us)
        g->drift_us = 0;
    g->deadline_us = in->deadline_us;
}

static struct guard_verdict doom(struct guard *g, uint64_t left_us)
{
    bool frozen = g->phase == GUARD_FROZEN;
    uint64_t half = g->budget_us / 2;
    uint64_t quit =
        frozen || left_us <= half ? 0 : MIN(left_us - half, (uint64_t)FENCE_QUIT_MS * MS);
    g->phase = GUARD_DOOMED;
    return (struct guard_verdict){.action = GUARD_KILL, .quit_us = quit, .wake_us = LOOK_US};
}

static struct guard_verdict step_running(struct guard *g, const struct guard_input *in)
{
    uint64_t left = guard_left_us(g, in->boot_us);
    bool near = left <= (MUTANT(kill_at_the_deadline) ? 0 : g->budget_us);
    if (!near && !g->doubt)
        return (struct guard_verdict){.wake_us = MIN((uint64_t)LOOK_US, left - g->budget_us)};
    if (g->can_freeze && left > g->budget_us / 2) {
        g->phase = GUARD_FROZEN;
        return (struct guard_verdict){.action = GUARD_FREEZE, .wake_us = LOOK_FROZEN_US};
    }
    if (near || in->raw_us >= g->doubt_until_us)
        return doom(g, left);
    uint64_t grace = MIN(g->doubt_until_us - in->raw_us, left - g->budget_us);
    return (struct guard_verdict){.wake_us = MIN(grace, (uint64_t)LOOK_US)};
}

static struct guard_verdict step_frozen(struct guard *g, const struct guard_input *in)
{
    uint64_t left = guard_left_us(g, in->boot_us);
    if (left <= g->budget_us / 2 || (g->doubt && in->raw_us >= g->doubt_until_us))
        return doom(g, left);
    if (left > g->budget_us && !g->doubt) {
        g->phase = GUARD_RUN;
        return (struct guard_verdict){.action = GUARD_THAW, .wake_us = 0};
    }
    return (struct guard_verdict){.wake_us = LOOK_FROZEN_US};
}

struct guard_verdict guard_step(struct guard *g, const struct guard_input *in)
{
    struct guard_verdict nothing = {.wake_us = LOOK_US};
    switch (g->phase) {
    case GUARD_IDLE:
    case GUARD_DOOMED:
        look(g, in);
        return nothing;
    case GUARD_RUN:
        compare_clocks(g, in);
        take_deadline(g, in);
        return step_running(g, in);
    case GUARD_FROZEN:
        compare_clocks(g, in);
        take_deadline(g, in);
        return step_frozen(g, in);
    }
    UNREACHABLE();
}
