/* PostgreSQL as far as the protocol can tell: WAL, timelines by number, walsenders that go by the set
 * they have read last, sealing. It knows nothing of tokens and leases. */
#include <stdio.h>

#include "base/assert.h"
#include "tests/sim/core_world.h"

uint64_t pg_lsn(size_t n)
{
    return 4096 * (uint64_t)n;
}

uint64_t data_timeline(const struct data *d)
{
    return d->tl_n == 0 ? 0 : d->tl[d->tl_n - 1].id;
}

bool pg_writable(const struct node *x)
{
    return x->pg.proc == PG_PROC_RUNNING && !x->pg.in_recovery;
}

static void append(struct world *w, struct data *d)
{
    ASSERT(d->n < WAL_MAX && w->next_id < sizeof w->acked);
    d->wal[d->n++] = w->next_id++;
}

void pg_kill(struct world *w, struct node *x)
{
    if (x->pg.proc == PG_PROC_STOPPED)
        return;
    world_log(w, x, "PostgreSQL dies%s", x->pg.in_recovery ? "" : " (primary)");
    x->pg.crashed = !x->pg.in_recovery;
    x->data.clean = x->pg.in_recovery;
    /* What waits for a disk that is stuck ends when the disk goes on. */
    x->pg.proc = x->sick == SICK_STUCK ? PG_PROC_DYING : PG_PROC_STOPPED;
    x->pg.streaming = false;
}

/* By timeline numbers, as a walsender does it. */
static bool can_stream(const struct data *from, const struct data *to)
{
    for (size_t i = 0; i < from->tl_n; i++) {
        if (from->tl[i].id != data_timeline(to))
            continue;
        size_t end = i + 1 < from->tl_n ? from->tl[i + 1].start : from->n;
        return to->n <= end;
    }
    return false;
}

static bool is_prefix(const struct data *a, const struct data *of)
{
    return a->n <= of->n && memcmp(a->wal, of->wal, a->n * sizeof a->wal[0]) == 0;
}

static void take_timelines(struct data *to, const struct data *from)
{
    to->tl_n = 0;
    for (size_t i = 0; i < from->tl_n && from->tl[i].start <= to->n; i++)
        to->tl[to->tl_n++] = from->tl[i];
}

static void stream(struct world *w, struct node *x)
{
    x->pg.streaming = false;
    if (x->pg.proc != PG_PROC_RUNNING || !x->pg.in_recovery || x->pg.upstream < 0)
        return;
    struct node *up = &w->node[x->pg.upstream];
    if (up == x || !pg_writable(up) || !world_linked(w, x, up))
        return;
    if (!can_stream(&up->data, &x->data)) {
        x->pg.stuck = true;
        return;
    }
    if (!is_prefix(&x->data, &up->data)) {
        world_violation(w, "%s streams from %s, but its log is another one", x->name, up->name);
        return;
    }
    x->pg.streaming = true;
    size_t n = rng_below(&w->rng, 4);
    for (; n > 0 && x->data.n < up->data.n; n--) {
        x->data.wal[x->data.n] = up->data.wal[x->data.n];
        x->data.n++;
    }
    take_timelines(&x->data, &up->data);
}

static const struct node *sender_of(const struct world *w, const struct node *primary,
                                    const char *incarnation)
{
    for (size_t i = 0; i < w->n; i++)
        if (w->node[i].pg.streaming && &w->node[w->node[i].pg.upstream] == primary &&
            strcmp(w->node[i].data.incarnation, incarnation) == 0)
            return &w->node[i];
    return NULL;
}

static bool satisfied(const struct world *w, const struct node *x, const struct sync_set *s,
                      size_t n)
{
    size_t have = 0;
    for (size_t i = 0; i < s->s_n; i++) {
        const struct node *standby = sender_of(w, x, s->s[i]);
        have += standby != NULL && standby->data.n >= n;
    }
    return have >= s->k;
}

static void release_commits(struct world *w, struct node *x)
{
    for (; x->pg.acked_n < x->data.n; x->pg.acked_n++) {
        bool ok = satisfied(w, x, &x->pg.set, x->pg.acked_n + 1);
        for (size_t i = 0; i < x->pg.force_n; i++)
            ok = ok || satisfied(w, x, &x->pg.force[i].set, x->pg.acked_n + 1);
        if (!ok)
            return;
        if (x->pg.token < w->acked_token)
            world_violation(w, "%s acknowledges with token %llu after %llu has", x->name,
                            (unsigned long long)x->pg.token,
                            (unsigned long long)w->acked_token);
        w->acked_token = x->pg.token;
        w->acked[x->data.wal[x->pg.acked_n]] = 1;
        w->acked_count++;
    }
}

static void confirm(struct world *w, struct node *x)
{
    for (size_t i = 0; i < x->pg.force_n;)
        if (w->now_ms >= x->pg.force[i].until_ms)
            x->pg.force[i] = x->pg.force[--x->pg.force_n];
        else
            i++;
    if (x->pg.confirmed || !x->pg.set_known || !x->alive || x->paused)
        return;
    if (!x->pg.taken && x->pg.force_n == 0) {
        x->pg.taken = true;
        x->pg.confirm_n = x->data.n;
    }
    if (x->pg.taken && satisfied(w, x, &x->pg.set, x->pg.confirm_n)) {
        x->pg.confirmed = true;
        x->pg.old_n = 0;
    }
}

void pg_tick(struct world *w)
{
    for (size_t i = 0; i < w->n; i++)
        stream(w, &w->node[i]);
    for (size_t i = 0; i < w->n; i++) {
        struct node *x = &w->node[i];
        if (x->pg.proc == PG_PROC_DYING && x->sick != SICK_STUCK)
            x->pg.proc = PG_PROC_STOPPED;
        if (!pg_writable(x))
            continue;
        if (world_chance(w, 200) && x->data.n + 8 < WAL_MAX)
            append(w, &x->data);
        release_commits(w, x);
        confirm(w, x);
    }
}

static void check_complete(struct world *w, const struct node *x)
{
    static uint8_t have[sizeof w->acked];
    if (!w->lossless)
        return;
    (void)memset(have, 0, w->next_id);
    for (size_t i = 0; i < x->data.n; i++)
        have[x->data.wal[i]] = 1;
    for (uint32_t id = 0; id < w->next_id; id++)
        if (w->acked[id] && !have[id]) {
            world_violation(w, "commit %u was acknowledged and %s, now primary, has not got it",
                            id, x->name);
            return;
        }
}

static void become_primary(struct world *w, struct node *x, const struct plan *p)
{
    struct postgres *pg = &x->pg;
    pg->proc = PG_PROC_RUNNING;
    pg->in_recovery = false;
    pg->upstream = -1;
    pg->crashed = pg->stuck = pg->streaming = false;
    pg->token = p->token;
    pg->acked_n = x->data.n;
    pg->set = p->set;
    pg->set_known = true;
    pg->confirmed = false;
    pg->taken = false;
    pg->old_n = pg->force_n = 0;
    pg->checkpointed = p->action == ACTION_START_PRIMARY;
    x->data.standby_signal = false;
    x->data.clean = false;
    check_complete(w, x);
}

static void promote(struct world *w, struct node *x, const struct plan *p)
{
    struct data *d = &x->data;
    if (x->pg.proc != PG_PROC_RUNNING || !x->pg.in_recovery)
        return;
    (void)memcpy(d->lineage, p->lineage, sizeof d->lineage);
    ASSERT(d->tl_n < TIMELINES);
    d->tl[d->tl_n] = (struct timeline){data_timeline(d) + 1, p->token, d->n};
    d->tl_n++;
    d->sealed_token = 0;
    become_primary(w, x, p);
}

static void set_sync(struct world *w, struct node *x, const struct plan *p)
{
    struct postgres *pg = &x->pg;
    if (pg->force_n < FORCE) {
        pg->force[pg->force_n].set = pg->set;
        pg->force[pg->force_n++].until_ms = w->now_ms + rng_below(&w->rng, 300);
    }
    if (pg->old_n == VIEW_SETS)
        pg->old_n--;
    pg->old[pg->old_n++] = pg->set;
    pg->set = p->set;
    pg->set_known = true;
    pg->confirmed = pg->taken = false;
}

static void new_incarnation(struct world *w, struct data *d)
{
    (void)snprintf(d->incarnation, sizeof d->incarnation, "i%u", w->incarnation_next++);
}

/* By numbers: on the same timeline nothing is to be done, so nothing is. */
static void copy_from(struct world *w, struct node *x, const struct plan *p)
{
    struct node *up = world_node(w, p->target);
    struct data *d = &x->data;
    if (p->action == ACTION_CLONE || !can_stream(&up->data, d)) {
        (void)memcpy(d->wal, up->data.wal, sizeof d->wal);
        d->n = up->data.n;
        take_timelines(d, &up->data);
    }
    new_incarnation(w, d);
    (void)memcpy(d->lineage, p->lineage, sizeof d->lineage);
    d->state = PG_DATA_OURS;
    d->standby_signal = true;
    d->clean = true;
    d->sealed_token = d->follow_token = 0;
    x->pg.stuck = x->pg.crashed = false;
}

static void stop_fast(struct world *w, struct node *x)
{
    struct postgres *pg = &x->pg;
    if (pg->proc != PG_PROC_RUNNING)
        return;
    if (!pg->in_recovery && x->data.n < WAL_MAX)
        append(w, &x->data);
    bool clean = true;
    for (size_t i = 0; i < w->n; i++) {
        struct node *s = &w->node[i];
        if (pg->in_recovery || !s->pg.streaming || &w->node[s->pg.upstream] != x)
            continue;
        clean = clean && is_prefix(&s->data, &x->data);
        (void)memcpy(s->data.wal, x->data.wal, sizeof s->data.wal);
        s->data.n = x->data.n;
        take_timelines(&s->data, &x->data);
        s->pg.streaming = false;
    }
    if (world_chance(w, 100)) { /* a hung walsender: the time limit, then immediate */
        pg_kill(w, x);
        return;
    }
    ASSERT(clean);
    x->data.clean = true;
    x->data.shutdown_n = x->data.n;
    pg->proc = PG_PROC_STOPPED;
    pg->crashed = pg->streaming = false;
}

static void point_at(struct world *w, struct node *x, const struct plan *p)
{
    struct node *up = p->target[0] == '\0' ? NULL : world_node(w, p->target);
    x->pg.upstream = up == NULL ? -1 : (int)(up - w->node);
    if (up == NULL)
        return;
    x->data.follow_token = p->token;
    x->data.sealed_token = 0;
    (void)memcpy(x->data.lineage, p->lineage, sizeof x->data.lineage);
}

static void start_standby(struct world *w, struct node *x, const struct plan *p)
{
    x->pg.proc = PG_PROC_RUNNING;
    x->pg.in_recovery = true;
    x->pg.crashed = x->pg.roles = false;
    x->pg.set_known = x->pg.confirmed = false;
    x->data.standby_signal = true;
    x->data.clean = true;
    point_at(w, x, p);
}

static void initdb(struct world *w, struct node *x)
{
    struct data *d = &x->data;
    d->state = PG_DATA_OURS;
    d->n = 0;
    append(w, d);
    d->tl[0] = (struct timeline){1, 1, 0};
    d->tl_n = 1;
    d->clean = true;
    d->standby_signal = false;
    (void)snprintf(d->lineage, sizeof d->lineage, "1:1");
    new_incarnation(w, d);
}

void pg_effect(struct world *w, struct node *x, const struct plan *p)
{
    switch (p->action) {
    case ACTION_INITDB:
        initdb(w, x);
        break;
    case ACTION_START_PRIMARY:
        if (x->pg.proc == PG_PROC_STOPPED)
            become_primary(w, x, p);
        break;
    case ACTION_START_STANDBY:
        if (x->pg.proc == PG_PROC_STOPPED)
            start_standby(w, x, p);
        break;
    case ACTION_FOLLOW:
        if (x->pg.in_recovery)
            point_at(w, x, p);
        break;
    case ACTION_SEAL:
        x->pg.upstream = -1;
        x->pg.streaming = false;
        x->data.sealed_token = p->token;
        x->data.sealed_n = x->data.n;
        x->data.sealed_timeline = data_timeline(&x->data);
        break;
    case ACTION_PROMOTE:
        promote(w, x, p);
        break;
    case ACTION_CHECKPOINT:
        x->pg.checkpointed = true;
        break;
    case ACTION_STOP_FAST:
        stop_fast(w, x);
        break;
    case ACTION_STOP_IMMEDIATE:
    case ACTION_KILL:
        pg_kill(w, x);
        break;
    case ACTION_REWIND:
    case ACTION_CLONE:
        copy_from(w, x, p);
        break;
    case ACTION_SET_SYNC:
        set_sync(w, x, p);
        break;
    case ACTION_ENSURE_ROLES:
        x->pg.roles = true;
        break;
    case ACTION_RELOAD:
    case ACTION_PRE_PROMOTE:
    case ACTION_NONE:
    case ACTION_COUNT:
        break;
    }
}
