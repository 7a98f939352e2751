/* What the agent knows of its PostgreSQL: agent/postgres.c without the SQL. It looks now and then, so
 * what it knows is old; a new daemon knows nothing of the sets that may be in force. */
#include <stdio.h>

#include "base/assert.h"
#include "base/mem.h"
#include "tests/sim/node_world.h"

enum { LOOK_MS = 250, CLOSE_MS = 10, EAGER_MS = 20, CONFIRM_MS = 10 };

/* ---- looks ---- */

static void take_look(struct sim_node *x)
{
    struct look *l = &x->agent.look;
    const struct data *d = &x->data;
    bool primary = !x->pg.in_recovery;
    *l = (struct look){.serial = l->serial + 1,
                       .start_us = x->pg.starts,
                       .in_recovery = !primary,
                       .walreceiver = x->pg.conn != 0,
                       .streaming = x->pg.streaming,
                       .checkpointed = primary && d->control_timeline == data_timeline(d),
                       .lsn = pg_lsn(pg_has(x)),
                       .replay_lsn = pg_lsn(primary ? d->n : MIN(x->pg.replayed, d->n)),
                       .timeline = timeline_at(d, pg_has(x))};
    if (x->w->mutation == MUTATION_NO_SEAL && d->sealed_token != 0)
        l->walreceiver = l->streaming = false;
    if (primary && d->tl_n > 1) {
        l->parent = d->tl[d->tl_n - 2].id;
        l->switch_lsn = pg_lsn(d->tl[d->tl_n - 1].start);
    }
    for (size_t i = 0; primary && i < x->w->n; i++) {
        const struct walsender *s = &x->pg.senders[i];
        if (s->conn == 0)
            continue;
        struct view_walsender *out = &l->senders[l->senders_n++];
        memcpy(out->incarnation, x->w->node[i].data.incarnation, sizeof x->data.incarnation);
        out->streaming = s->streaming;
        out->flush_lsn = pg_lsn(s->flushed);
    }
}

static void first_look(struct sim_node *x)
{
    struct agent_pg *a = &x->agent;
    a->ever_seen = true;
    a->follow_known = true;
    x->data.upstream = x->pg.shown; /* a daemon may have died before the reload */
    x->data.follow_token = x->pg.shown_token;
    if (a->set_known || a->set.k != 0)
        return;
    a->set = x->data.set; /* what it shows; on a primary more may be in force */
    a->set_known = x->pg.in_recovery;
}

static void on_look(struct sim *w, struct sim_node *x, void *arg)
{
    struct agent_pg *a = &x->agent;
    (void)arg;
    if (a->look_us == 0 || w->now_us < a->look_us)
        return; /* none is wanted, or a later one is planned */
    a->look_us = 0;
    if (x->pg.proc == PG_PROC_STOPPED || x->pg.proc == PG_PROC_DYING)
        return;
    a->accepts = x->pg.accepts && domain_runs(x, POSTGRES);
    if (a->accepts) {
        take_look(x);
        if (!a->ever_seen)
            first_look(x);
        if (!a->look.in_recovery && a->set_known && !a->confirmed && !a->confirming)
            see_confirm(x);
    }
    act_look(x);
    see_told(x);
    bool eager = a->act.active || a->closely;
    see_soon(x, (eager ? CLOSE_MS : a->ever_seen ? LOOK_MS : EAGER_MS) * MS);
}

void see_soon(struct sim_node *x, uint64_t delay_us)
{
    uint64_t at = x->w->now_us + delay_us;
    if (!x->up[DAEMON] || (x->agent.look_us != 0 && x->agent.look_us <= at))
        return;
    x->agent.look_us = at;
    sim_at(x->w, x, DAEMON, delay_us, "look", on_look, NULL);
}

/* ---- the data directory ---- */

static void on_probed(struct sim *w, struct sim_node *x, void *arg)
{
    (void)w;
    (void)arg;
    x->agent.probed = x->agent.identified = true;
    act_look(x);
    see_told(x);
}

void see_probe(struct sim_node *x)
{
    uint64_t in_us = sim_between(x->w, 2 * MS, 20 * MS);
    sim_at(x->w, x, DAEMON, in_us + sick_wait_us(x), "probed", on_probed, NULL);
}

/* ---- the fence's news ---- */

static void adopted(struct sim_node *x)
{
    x->agent.set = (struct sync_set){0};
    x->agent.set_known = x->agent.confirmed = x->agent.confirming = false;
    x->agent.old_n = 0;
    x->agent.confirm_serial++;
}

void see_fence(struct sim_node *x)
{
    struct agent_pg *a = &x->agent;
    struct fence_state f;
    sim_fence(x, &f);
    uint64_t was = a->postmaster;
    a->postmaster = f.postmaster;
    if (f.postmaster != 0 && was != f.postmaster) {
        bool ours = a->act.active && (a->act.plan.action == ACTION_START_PRIMARY ||
                                      a->act.plan.action == ACTION_START_STANDBY);
        a->stopping = a->ever_seen = a->accepts = false;
        a->starting_ms = clock_of(x);
        if (!ours) {
            a->follow_known = false;
            adopted(x);
            see_probe(x);
        }
        see_soon(x, EAGER_MS * MS);
    }
    if (f.postmaster == 0 && was != 0) {
        a->probed = a->ever_seen = a->roles_ready = a->accepts = false;
        a->confirmed = a->confirming = false;
        a->confirm_serial++;
    }
    if (f.postmaster == 0 && !f.processes_left) {
        a->stopping = false;
        if (f.connected && !a->probed)
            see_probe(x);
    }
    act_look(x);
    see_told(x);
}

static void on_fence_connected(struct sim *w, struct sim_node *x, void *arg)
{
    (void)w;
    (void)arg;
    x->agent.fence_connected = true;
    sim_recall(x);
    see_fence(x);
    daemon_wake(x);
}

void see_start(struct sim_node *x)
{
    x->agent = (struct agent_pg){0};
    sick_start(x);
    sim_at(x->w, x, DAEMON, sim_between(x->w, 1 * MS, 20 * MS), "fence", on_fence_connected,
           NULL);
}

/* ---- the synchronous set ---- */

static bool same_set(const struct sync_set *a, const struct sync_set *b)
{
    return a->k == b->k && a->s_n == b->s_n && memcmp(a->s, b->s, a->s_n * sizeof a->s[0]) == 0;
}

static bool names(const struct sync_set *s, const char *name)
{
    for (size_t i = 0; i < s->s_n; i++)
        if (strcmp(s->s[i], name) == 0)
            return true;
    return false;
}

void see_set(struct sim_node *x, const struct sync_set *set)
{
    struct agent_pg *a = &x->agent;
    a->confirm_serial++;
    a->confirmed = a->confirming = false;
    if (!a->set_known || a->old_n == VIEW_SETS) {
        /* any set may be in force besides: nothing is known until the confirmation */
        a->all = true;
        a->set_known = false;
    } else if (!same_set(&a->set, set)) {
        a->old[a->old_n++] = a->set;
    }
    a->set = *set;
}

void see_set_fresh(struct sim_node *x, const struct sync_set *set)
{
    struct agent_pg *a = &x->agent;
    a->confirm_serial++;
    a->set = *set;
    a->set_known = true;
    a->old_n = 0;
    a->all = a->confirmed = a->confirming = false;
}

/* Has everybody who may go by an older set taken the new one? */
static bool all_taken(const struct sim_node *x)
{
    const struct agent_pg *a = &x->agent;
    if (x->pg.defined != (a->set.k > 0))
        return false;
    for (size_t i = 0; i < x->w->n; i++) {
        const struct walsender *s = &x->pg.senders[i];
        const char *who = x->w->node[i].data.incarnation;
        bool counts = a->all || names(&a->set, who);
        for (size_t j = 0; j < a->old_n; j++)
            counts = counts || names(&a->old[j], who);
        if (s->conn != 0 && counts && !same_set(&s->set, &a->set))
            return false;
    }
    return true;
}

static bool flushed_by_k(const struct sim_node *x)
{
    size_t n = 0;
    for (size_t i = 0; i < x->w->n; i++) {
        const struct walsender *s = &x->pg.senders[i];
        n += s->conn != 0 && s->flushed >= x->agent.mark &&
             names(&x->agent.set, x->w->node[i].data.incarnation);
    }
    return n >= x->agent.set.k;
}

static void on_confirm(struct sim *w, struct sim_node *x, void *arg)
{
    struct agent_pg *a = &x->agent;
    if (*(unsigned *)arg != a->confirm_serial || (!a->set_known && !a->all) ||
        x->pg.in_recovery)
        return;
    bool answers = domain_runs(x, POSTGRES) && x->pg.accepts;
    if (answers && !a->taken && all_taken(x)) {
        a->taken = true;
        data_append(&x->data, 0); /* the mark is a record of its own */
        a->mark = x->data.n;
        wal_send(x);
    }
    if (w->mutation != MUTATION_NO_CONFIRM && (!a->taken || !answers || !flushed_by_k(x))) {
        sim_at(w, x, DAEMON, CONFIRM_MS * MS, "confirm", on_confirm,
               mem_dup(arg, sizeof(unsigned)));
        return;
    }
    a->confirmed = a->set_known = true;
    a->all = false;
    a->old_n = 0;
    sim_note(w, x, "set of %zu, k %llu, confirmed", a->set.s_n, (unsigned long long)a->set.k);
    act_look(x);
    see_told(x);
}

void see_confirm(struct sim_node *x)
{
    struct agent_pg *a = &x->agent;
    a->taken = a->confirmed = false;
    a->confirming = true;
    a->confirm_serial++;
    sim_at(x->w, x, DAEMON, CONFIRM_MS * MS, "confirm", on_confirm,
           mem_dup(&a->confirm_serial, sizeof a->confirm_serial));
}

/* ---- the view ---- */

static enum pg_proc proc_of(const struct sim_node *x, const struct fence_state *f)
{
    if (f->postmaster != 0)
        return x->agent.stopping    ? PG_PROC_STOPPING
               : x->agent.ever_seen ? PG_PROC_RUNNING
                                    : PG_PROC_STARTING;
    return f->processes_left || !f->connected ? PG_PROC_DYING : PG_PROC_STOPPED;
}

static void view_data(const struct sim_node *x, struct view_pg *v)
{
    const struct data *d = &x->data;
    v->data = x->agent.probed ? d->state : PG_DATA_UNKNOWN;
    if (d->state == PG_DATA_EMPTY || !x->agent.identified)
        return; /* who it is stays known while a stopped one is being looked at again */
    v->system_id = SIM_SYSTEM_ID;
    memcpy(v->incarnation, d->incarnation, sizeof v->incarnation);
    memcpy(v->lineage, d->lineage, sizeof v->lineage);
    v->standby_signal = v->in_recovery = d->standby_signal;
    v->sealed_token = d->sealed_token;
    v->sealed_lsn = pg_lsn(d->sealed_n);
    v->sealed_timeline = d->sealed_timeline;
}

static void view_stopped(const struct sim_node *x, struct view_pg *v)
{
    const struct data *d = &x->data;
    v->crashed = x->pg.crashed;
    if (v->data != PG_DATA_OURS)
        return;
    v->clean = d->clean;
    v->recovery_ms = 200;
    /* The control file is behind the log. */
    size_t n = d->clean ? d->n : d->standby_signal ? MIN(d->recovery_n, d->n) : d->checkpoint_n;
    if (d->standby_signal) /* nor is it ahead of what a rewind has noted there */
        n = MAX(n, d->consistent_n);
    v->timeline = d->clean            ? data_timeline(d)
                  : d->standby_signal ? timeline_at(d, n)
                                      : d->control_timeline;
    v->lsn = v->replay_lsn = pg_lsn(n);
    v->shutdown_lsn = d->clean && !d->standby_signal ? pg_lsn(d->shutdown_n) : 0;
}

static void view_running(const struct sim_node *x, struct view_pg *v)
{
    const struct look *l = &x->agent.look;
    v->accepts = x->agent.accepts;
    if (!x->agent.ever_seen)
        return;
    v->start_us = l->start_us; /* told apart by it, no more */
    v->in_recovery = l->in_recovery;
    v->timeline = l->timeline;
    v->lsn = l->lsn;
    v->replay_lsn = l->replay_lsn;
    v->walreceiver = l->walreceiver;
    v->streaming = l->streaming;
    v->checkpointed = l->checkpointed;
    v->parent = l->parent;
    v->switch_lsn = l->switch_lsn;
    memcpy(v->senders, l->senders, l->senders_n * sizeof l->senders[0]);
    v->senders_n = l->senders_n;
}

void sim_observe(void *arg, struct view_pg *ret_pg)
{
    struct sim_node *x = arg;
    const struct agent_pg *a = &x->agent;
    struct fence_state f;
    sim_fence(x, &f);
    memset(ret_pg, 0, sizeof *ret_pg);
    ret_pg->proc = proc_of(x, &f);
    ret_pg->starting_ms = ret_pg->proc == PG_PROC_STARTING ? a->starting_ms : 0;
    view_data(x, ret_pg);
    ret_pg->rewind_failed = a->rewind_failed;
    ret_pg->roles_ready = a->roles_ready;
    ret_pg->stuck = a->probed && x->data.stuck;
    if (a->follow_known && x->data.upstream >= 0) {
        (void)snprintf(ret_pg->upstream, sizeof ret_pg->upstream, "%s",
                       x->w->node[x->data.upstream].name);
        ret_pg->follow_token = x->data.follow_token;
    }
    if (f.postmaster != 0)
        view_running(x, ret_pg);
    else
        view_stopped(x, ret_pg);
    ret_pg->set = a->set;
    ret_pg->set_known = a->set_known;
    ret_pg->set_confirmed = a->set_known && f.postmaster != 0 && a->confirmed;
    memcpy(ret_pg->old, a->old, a->old_n * sizeof a->old[0]);
    ret_pg->old_n = a->old_n;
    ret_pg->sick = a->health.sick;
    ret_pg->failing_ms = a->health.failing_ms;
    memcpy(ret_pg->sick_why, a->health.why, sizeof ret_pg->sick_why);
}

/* Positions move all the time; only what they are compared for is news. */
void see_told(struct sim_node *x)
{
    struct view_pg now;
    sim_observe(x, &now);
    if (!x->agent.closely) {
        now.lsn = now.replay_lsn = 0;
        for (size_t i = 0; i < now.senders_n; i++)
            now.senders[i].flush_lsn = 0;
    }
    /* Padding that differs would cost a look in vain, no more. */
    /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison,cert-exp42-c,cert-flp37-c) */
    if (memcmp(&now, &x->agent.told, sizeof now) == 0)
        return;
    memcpy(&x->agent.told, &now, sizeof now);
    daemon_wake(x);
}

void sim_configure(void *arg, const struct postgres_dynamic *d)
{
    (void)arg;
    (void)d;
}

void sim_watch_closely(void *arg, bool on)
{
    struct sim_node *x = arg;
    x->agent.closely = on;
    if (on)
        see_soon(x, CLOSE_MS * MS);
}
