/* What the agent does to its PostgreSQL: one action at a time, in steps that take time, may fail, and
 * end with the daemon. */
#include <stdio.h>

#include "base/assert.h"
#include "base/mem.h"
#include "tests/sim/node_world.h"

enum { SEAL_REPLAY_MS = 10000, POSTMASTER_MS = 10000, KILL_AFTER_MS = 5000, SOURCE_MS = 30000 };
enum { SET_ADOPT_MS = 3000 };
enum { STEP_NONE, STEP_BEGUN, STEP_WAIT, STEP_LATE };

void act_end(struct sim_node *x, enum err status, const char *why)
{
    struct act *a = &x->agent.act;
    ASSERT(a->active);
    struct errmsg e = {.code = status};
    postgres_cb *cb = a->cb;
    void *arg = a->arg;
    sim_note(x->w, x, "action %s ends: %s", plan_action_name(a->plan.action),
             status == ERR_OK ? "ok" : why);
    if (why != NULL)
        (void)snprintf(e.text, sizeof e.text, "%s", why);
    *a = (struct act){.serial = a->serial + 1};
    cb(arg, status, &e);
}

static void fail(struct sim_node *x, const char *why)
{
    act_end(x, ERR_UNAVAILABLE, why);
}

/* ---- steps ---- */

typedef void step_fn(struct sim_node *x);

struct step {
    unsigned serial;
    step_fn *fn;
};

static void on_step(struct sim *w, struct sim_node *x, void *arg)
{
    const struct step *s = arg;
    (void)w;
    if (x->agent.act.active && x->agent.act.serial == s->serial)
        s->fn(x);
}

static void between(struct sim_node *x, uint64_t from_us, uint64_t to_us, step_fn *fn)
{
    struct step s = {x->agent.act.serial, fn};
    sim_at(x->w, x, DAEMON, sim_between(x->w, from_us, to_us), "step", on_step,
           mem_dup(&s, sizeof s));
}

/* At a time that has been set, whatever the disk does. */
static void in(struct sim_node *x, uint64_t us, step_fn *fn)
{
    between(x, us, us, fn);
}

/* What is done meanwhile needs the disk. */
static void then(struct sim_node *x, uint64_t from_us, uint64_t to_us, step_fn *fn)
{
    uint64_t wait_us = sick_wait_us(x);
    between(x, from_us + wait_us, to_us + wait_us, fn);
}

static bool stands_by(const struct sim_node *x)
{
    return domain_runs(x, POSTGRES) && x->pg.proc == PG_PROC_RUNNING && x->pg.in_recovery;
}

static void ended_well(struct sim_node *x)
{
    act_end(x, ERR_OK, NULL);
}

/* ---- initdb, clone, rewind ---- */

static void new_incarnation(struct sim_node *x)
{
    struct data *d = &x->data;
    (void)snprintf(d->incarnation, sizeof d->incarnation, "%s-%llu", x->name,
                   (unsigned long long)++x->w->incarnations);
    memcpy(d->lineage, x->agent.act.plan.lineage, sizeof d->lineage);
    d->state = PG_DATA_OURS;
    d->sealed_token = d->sealed_timeline = 0;
    d->sealed_n = 0;
    d->follow_token = 0;
    d->upstream = -1;
    d->stuck = false;
    d->set = (struct sync_set){0};
}

static void initdb_done(struct sim_node *x)
{
    struct data *d = &x->data;
    d->n = d->consistent_n = 0;
    data_append(d, 0);
    d->tl[0] = (struct timeline){1, 0};
    d->tl_n = 1;
    d->control_timeline = 1;
    d->shutdown_n = d->checkpoint_n = d->recovery_n = d->n;
    d->clean = true;
    d->standby_signal = false;
    new_incarnation(x);
    ended_well(x);
}

static void take_all(struct data *d, const struct data *from)
{
    d->n = 0;
    for (size_t i = 0; i < from->n; i++)
        data_append(d, from->wal[i]);
    memcpy(d->tl, from->tl, sizeof d->tl);
    d->tl_n = from->tl_n;
    d->control_timeline = from->control_timeline;
    d->checkpoint_n = from->checkpoint_n;
    d->standby_signal = d->clean = true;
    d->consistent_n = 0;
    d->recovery_n = d->n;
}

static bool source_answers(const struct sim_node *x, const struct sim_node *up)
{
    return net_open(x->w, x, up) && net_open(x->w, up, x) && domain_runs(up, POSTGRES) &&
           pg_writable(up);
}

/* What the source wrote while pg_rewind copied has to be streamed. */
static void forget_newest(struct sim_node *x)
{
    struct data *d = &x->data;
    size_t fresh = d->n - d->tl[d->tl_n - 1].start;
    d->consistent_n = d->n;
    d->n -= MIN(fresh, (size_t)sim_random(x->w, 4));
    d->checkpoint_n = MIN(d->checkpoint_n, d->n);
    d->recovery_n = d->n;
}

static void copied(struct sim_node *x)
{
    struct sim_node *up = &x->w->node[x->agent.act.upstream];
    bool rewind = x->agent.act.plan.action == ACTION_REWIND;
    x->agent.probed = true;
    x->agent.rewind_failed = rewind;
    if (!source_answers(x, up) || sim_chance(x->w, 30)) {
        fail(x, "the source is gone");
        return;
    }
    /* pg_rewind goes by the number of the timeline: on the same one it would change nothing. */
    if (rewind && data_timeline(&x->data) == data_timeline(&up->data)) {
        x->data.state = PG_DATA_OURS;
        fail(x, "the same timeline on both sides");
        return;
    }
    take_all(&x->data, &up->data);
    if (rewind)
        forget_newest(x);
    x->agent.rewind_failed = false;
    new_incarnation(x);
    ended_well(x);
}

static void copy_now(struct sim_node *x)
{
    bool clone = x->agent.act.plan.action == ACTION_CLONE;
    x->data.state = PG_DATA_BROKEN;
    then(x, 50 * MS, clone ? 2 * SEC : SEC, copied);
}

/* pg_rewind believes the source's control file, which only a checkpoint moves. */
static void ask_source(struct sim_node *x)
{
    struct act *a = &x->agent.act;
    struct sim_node *up = &x->w->node[a->upstream];
    if (source_answers(x, up) && up->data.control_timeline >= a->plan.timeline)
        copy_now(x);
    else if (x->w->now_us - a->began_us > SOURCE_MS * MS)
        fail(x, "the source is not ready");
    else
        then(x, 200 * MS, 200 * MS, ask_source);
}

static void begin_copy(struct sim_node *x)
{
    struct act *a = &x->agent.act;
    if (x->pg.proc != PG_PROC_STOPPED) {
        fail(x, "PostgreSQL runs: its data is not touched");
    } else if (a->plan.action == ACTION_INITDB) {
        then(x, 100 * MS, 400 * MS, initdb_done);
    } else if (a->upstream < 0) {
        fail(x, "no source is given");
    } else if (a->plan.action == ACTION_CLONE) {
        copy_now(x);
    } else {
        ask_source(x);
    }
}

/* ---- start ---- */

static void too_late(struct sim_node *x)
{
    if (x->pg.proc == PG_PROC_STOPPED)
        fail(x, "the fence has not started PostgreSQL in time");
}

static void order_start(struct sim_node *x)
{
    struct act *a = &x->agent.act;
    struct data *d = &x->data;
    bool primary = a->plan.action == ACTION_START_PRIMARY;
    bool armed = x->fence.armed && clock_of(x) + SIM_KILL_BUDGET_MS < x->fence.deadline_ms;
    if (!domain_runs(x, FENCE) || (primary && !armed)) {
        fail(x, "the fence: not armed with a deadline beyond the kill budget");
        return;
    }
    d->standby_signal = !primary;
    if (a->plan.lineage[0] != '\0')
        memcpy(d->lineage, a->plan.lineage, sizeof d->lineage);
    if (a->upstream >= 0)
        d->sealed_token = d->sealed_timeline = 0;
    a->step = STEP_WAIT;
    pg_start(x, primary, a->plan.token);
    fence_told(x);
    in(x, POSTMASTER_MS * MS, too_late);
}

static void begin_start(struct sim_node *x)
{
    struct act *a = &x->agent.act;
    struct data *d = &x->data;
    static const struct sync_set none;
    bool primary = a->plan.action == ACTION_START_PRIMARY;
    if (x->pg.proc != PG_PROC_STOPPED || d->state != PG_DATA_OURS || !x->agent.probed) {
        fail(x, "the data directory cannot be started");
        return;
    }
    x->agent.follow_known = true;
    d->upstream = primary ? -1 : a->upstream;
    d->follow_token = d->upstream < 0 ? 0 : a->plan.token;
    d->set = primary ? a->plan.set : none;
    see_set_fresh(x, &d->set);
    then(x, 5 * MS, 30 * MS, order_start);
}

/* ---- follow ---- */

static void followed(struct sim_node *x)
{
    if (!stands_by(x)) {
        fail(x, "PostgreSQL ended");
        return;
    }
    x->pg.unfed_us = 0;
    pg_loaded(x);
    if (!x->pg.held && x->pg.upstream != x->data.upstream) {
        x->pg.upstream = x->data.upstream;
        wal_cut(x);
    }
    wal_wake(x);
    see_soon(x, 0);
    ended_well(x);
}

static void follow_written(struct sim_node *x)
{
    struct act *a = &x->agent.act;
    x->data.upstream = a->upstream;
    x->data.follow_token = a->plan.token;
    if (a->plan.lineage[0] != '\0')
        memcpy(x->data.lineage, a->plan.lineage, sizeof x->data.lineage);
    if (a->upstream >= 0)
        x->data.sealed_token = x->data.sealed_timeline = 0;
    then(x, 1 * MS, 20 * MS, followed);
}

static void begin_follow(struct sim_node *x)
{
    if (!stands_by(x))
        fail(x, "only a running standby follows");
    else
        then(x, 2 * MS, 20 * MS, follow_written);
}

/* ---- seal ---- */

static void seal_written(struct sim_node *x)
{
    if (!stands_by(x)) {
        fail(x, "seal: PostgreSQL ended");
        return;
    }
    x->data.sealed_token = x->agent.act.plan.token;
    x->data.sealed_n = pg_has(x);
    x->data.sealed_timeline = timeline_at(&x->data, x->data.sealed_n);
    see_soon(x, 0);
    ended_well(x);
}

static void look_for_receiver(struct sim_node *x)
{
    struct act *a = &x->agent.act;
    uint64_t now = x->w->now_us;
    if (!stands_by(x)) {
        fail(x, "seal: PostgreSQL ended");
        return;
    }
    if (x->pg.conn != 0) {
        a->since_us = 0;
        wal_cut(x); /* SIGTERM */
    } else if (x->pg.local && x->w->mutation != MUTATION_SEAL_IN_REPLAY) {
        a->since_us = 0;
        if (now - a->began_us > SEAL_REPLAY_MS * MS) {
            fail(x, "seal: what is on the disk is still being replayed");
            return;
        }
    } else if (a->since_us == 0) {
        a->since_us = now;
    } else if (now - a->since_us >= 200 * MS) { /* two retry intervals */
        then(x, 1 * MS, 15 * MS, seal_written);
        return;
    }
    then(x, 5 * MS, 10 * MS, look_for_receiver);
}

static void seal_reloaded(struct sim_node *x)
{
    if (!stands_by(x)) {
        fail(x, "seal: PostgreSQL ended");
        return;
    }
    if (x->w->mutation == MUTATION_NO_SEAL) {
        seal_written(x);
        return;
    }
    x->pg.upstream = -1;
    pg_loaded(x);
    look_for_receiver(x);
}

static void begin_seal(struct sim_node *x)
{
    if (!stands_by(x)) {
        fail(x, "seal: PostgreSQL is not running");
        return;
    }
    x->data.upstream = -1;
    x->data.follow_token = 0;
    then(x, 5 * MS, 30 * MS, seal_reloaded);
}

/* ---- promote ---- */

static void promoted(struct sim_node *x)
{
    struct data *d = &x->data;
    if (!stands_by(x)) {
        if (x->pg.proc == PG_PROC_STOPPED || x->pg.proc == PG_PROC_DYING)
            fail(x, "PostgreSQL ended before it was promoted");
        else
            then(x, 10 * MS, 10 * MS, promoted);
        return;
    }
    wal_cut(x);
    pg_loaded(x);
    ASSERT(d->tl_n < SIM_TIMELINES);
    d->tl[d->tl_n] = (struct timeline){data_timeline(d) + 1, d->n};
    d->tl_n++;
    data_append(d, 0); /* the end of recovery */
    x->pg.held = false;
    pg_become_primary(x, x->agent.act.plan.token);
    x->agent.act.step = STEP_WAIT;
    see_soon(x, 0);
}

static void promote_written(struct sim_node *x)
{
    struct act *a = &x->agent.act;
    x->data.set = a->plan.set;
    if (a->plan.lineage[0] != '\0')
        memcpy(x->data.lineage, a->plan.lineage, sizeof x->data.lineage);
    x->data.sealed_token = x->data.sealed_timeline = 0;
    then(x, 15 * MS, 120 * MS, promoted);
}

static void begin_promote(struct sim_node *x)
{
    struct act *a = &x->agent.act;
    if (!stands_by(x)) {
        fail(x, "promotion: PostgreSQL is not running");
        return;
    }
    see_set(x, &a->plan.set);
    x->data.upstream = -1;
    x->data.follow_token = 0;
    then(x, 5 * MS, 25 * MS, promote_written);
}

/* ---- the rest ---- */

static void checkpointed(struct sim_node *x)
{
    if (!domain_runs(x, POSTGRES) || x->pg.proc != PG_PROC_RUNNING) {
        fail(x, "checkpoint: PostgreSQL ended");
        return;
    }
    x->data.control_timeline = data_timeline(&x->data);
    x->data.checkpoint_n = x->data.n;
    see_soon(x, 0);
    ended_well(x);
}

static void set_written(struct sim_node *x)
{
    if (!domain_runs(x, POSTGRES) || x->pg.proc != PG_PROC_RUNNING) {
        fail(x, "PostgreSQL is not running");
        return;
    }
    x->data.set = x->agent.act.plan.set;
    if (!x->pg.in_recovery)
        pg_reload_set(x);
    see_confirm(x);
    x->agent.act.step = STEP_WAIT;
    act_look(x);
}

static void set_late(struct sim_node *x)
{
    fail(x, "the synchronous set could not be confirmed");
}

static void begin_set(struct sim_node *x)
{
    see_set(x, &x->agent.act.plan.set); /* shows before a byte of it is written */
    if (!x->agent.set_known)
        in(x, SET_ADOPT_MS * MS, set_late);
    then(x, 5 * MS, 25 * MS, set_written);
}

static void reloaded(struct sim_node *x)
{
    if (!domain_runs(x, POSTGRES) || x->pg.proc != PG_PROC_RUNNING)
        fail(x, "PostgreSQL is not running");
    else
        ended_well(x);
}

static void roles_made(struct sim_node *x)
{
    if (!pg_writable(x) || !domain_runs(x, POSTGRES)) {
        fail(x, "roles: PostgreSQL does not answer");
        return;
    }
    x->agent.roles_ready = true;
    ended_well(x);
}

static void stop_late(struct sim_node *x)
{
    struct act *a = &x->agent.act;
    if (a->step++ == STEP_WAIT)
        pg_kill(x, sim_between(x->w, 5 * MS, 60 * MS), true, false);
    else
        sim_kill(x);
    in(x, KILL_AFTER_MS * MS, stop_late);
}

static void begin_stop(struct sim_node *x)
{
    struct act *a = &x->agent.act;
    uint64_t now = clock_of(x);
    bool fast = a->plan.action == ACTION_STOP_FAST;
    a->step = STEP_WAIT;
    x->agent.stopping = true;
    if (fast)
        pg_stop_fast(x);
    else
        pg_kill(x, sim_between(x->w, 5 * MS, 60 * MS), true, false);
    uint64_t ms = !fast ? KILL_AFTER_MS : a->limit_local_ms > now ? a->limit_local_ms - now : 0;
    in(x, ms * MS, stop_late);
    act_look(x);
    if (x->agent.act.active)
        see_told(x);
}

static bool is_one(const struct act *a, enum plan_action one, enum plan_action other)
{
    return a->plan.action == one || a->plan.action == other;
}

void act_look(struct sim_node *x)
{
    struct act *a = &x->agent.act;
    if (!a->active || a->step < STEP_WAIT)
        return;
    bool down = x->pg.proc == PG_PROC_STOPPED;
    bool answers = x->agent.accepts && x->agent.ever_seen;
    if (is_one(a, ACTION_STOP_FAST, ACTION_STOP_IMMEDIATE)) {
        if (down)
            ended_well(x);
    } else if (is_one(a, ACTION_START_PRIMARY, ACTION_START_STANDBY)) {
        if (down)
            fail(x, "PostgreSQL did not start");
        else if (answers)
            ended_well(x);
    } else if (a->plan.action == ACTION_SET_SYNC) {
        /* Where the sets in force are not known, only the end of the confirmation tells. */
        if (down)
            fail(x, "PostgreSQL ended");
        else if (x->agent.set_known)
            ended_well(x);
    } else if (a->plan.action == ACTION_PROMOTE) {
        if (down)
            fail(x, "PostgreSQL ended before it was promoted");
        else if (answers && !x->agent.look.in_recovery)
            ended_well(x);
    }
}

static void begin(struct sim_node *x)
{
    static step_fn *const begins[ACTION_COUNT] = {
        [ACTION_INITDB] = begin_copy,         [ACTION_CLONE] = begin_copy,
        [ACTION_REWIND] = begin_copy,         [ACTION_START_PRIMARY] = begin_start,
        [ACTION_START_STANDBY] = begin_start, [ACTION_FOLLOW] = begin_follow,
        [ACTION_SEAL] = begin_seal,           [ACTION_PROMOTE] = begin_promote,
        [ACTION_STOP_FAST] = begin_stop,      [ACTION_STOP_IMMEDIATE] = begin_stop,
        [ACTION_SET_SYNC] = begin_set};
    struct act *a = &x->agent.act;
    a->step = STEP_BEGUN;
    if (begins[a->plan.action] != NULL)
        begins[a->plan.action](x);
    else if (a->plan.action == ACTION_CHECKPOINT)
        then(x, 10 * MS, 500 * MS, checkpointed);
    else if (a->plan.action == ACTION_RELOAD)
        then(x, 5 * MS, 30 * MS, reloaded);
    else
        then(x, 5 * MS, 60 * MS, roles_made);
}

void sim_run_action(void *arg, const struct plan *p, const struct postgres_upstream *up,
                    uint64_t deadline_ms, postgres_cb *cb, void *cb_arg)
{
    struct sim_node *x = arg;
    struct act *a = &x->agent.act;
    ASSERT(!a->active);
    const struct sim_node *named = up == NULL ? NULL : sim_node_named(x->w, up->name);
    *a = (struct act){.active = true,
                      .serial = a->serial + 1,
                      .plan = *p,
                      .upstream = named == NULL ? -1 : (int)(named - x->w->node),
                      .began_us = x->w->now_us,
                      .limit_local_ms = deadline_ms,
                      .cb = cb,
                      .arg = cb_arg};
    sim_note(x->w, x, "action %s %s", plan_action_name(p->action), p->target);
    then(x, 0, 0, begin);
}

static void cancelled(struct sim_node *x)
{
    act_end(x, ERR_CANCELLED, "given up");
}

void sim_cancel(void *arg)
{
    struct sim_node *x = arg;
    struct act *a = &x->agent.act;
    if (!a->active || a->cancelled)
        return;
    a->cancelled = true;
    a->serial++; /* what was planned is void */
    then(x, 1 * MS, 20 * MS, cancelled);
}
