#include "tests/sim/raft_world.h"

#include <stdio.h>

#include "base/assert.h"
#include "base/mem.h"

void world_options_default(struct world_options *o)
{
    *o = (struct world_options){.seed = 1,
                                .election_ms = 1000,
                                .heartbeat_ms = 100,
                                .snapshot_every = 8192,
                                .trailing = 8192,
                                .log_bytes_max = 16 * 1024 * 1024,
                                .delay_ms = 2,
                                .disk_ms = 2};
}

static void node_init(struct world *w, uint64_t id)
{
    struct world_node *n = &w->nodes[id];
    n->world = w;
    n->id = id;
    n->ops_end = &n->ops;
    n->disk.first = n->log.first = 1;
}

static void address_of(uint64_t id, struct raft_server *ret)
{
    (void)snprintf(ret->address, sizeof ret->address, "10.0.0.%u:7400", (unsigned)id);
}

struct world *world_new(const struct world_options *o, uint64_t voters)
{
    struct world *w = mem_alloc(sizeof *w);
    w->o = *o;
    w->now_ms = 1000;
    w->n_nodes = voters;
    w->snapshot_bytes = 100;
    w->restore_ms = 20;
    rng_seed(&w->rng, o->seed);
    struct raft_membership m = {.index = 1, .n = voters};
    for (uint64_t id = 1; id <= voters; id++) {
        m.servers[id - 1] = (struct raft_server){.id = id, .role = RAFT_ROLE_VOTER};
        address_of(id, &m.servers[id - 1]);
        node_init(w, id);
    }
    for (uint64_t id = 1; id <= voters; id++) {
        world_disk_bootstrap(&w->nodes[id].disk, &m);
        world_disk_crash(w, &w->nodes[id], false);
    }
    return w;
}

void world_free(struct world *w)
{
    for (uint64_t id = 1; id <= w->n_nodes; id++) {
        world_stop(w, id, false);
        world_disk_free(&w->nodes[id].disk);
        world_disk_free(&w->nodes[id].log);
        world_disk_free(&w->nodes[id].kept);
    }
    while (w->frames != NULL) {
        struct world_frame *f = w->frames;
        w->frames = f->next;
        mem_free(f);
    }
    while (w->timers != NULL) {
        struct world_timer *t = w->timers;
        w->timers = t->next;
        mem_free(t);
    }
    mem_free(w);
}

struct world_timer *world_timer_add(struct world *w, uint64_t at_ms, int what,
                                    struct world_node *n)
{
    struct world_timer *t = mem_alloc(sizeof *t);
    t->at_ms = at_ms;
    t->seq = w->seq++;
    t->what = what;
    t->node = n->id;
    t->life = n->life;
    struct world_timer **at = &w->timers;
    while (*at != NULL && (*at)->at_ms <= at_ms)
        at = &(*at)->next;
    t->next = *at;
    *at = t;
    return t;
}

/* ---- nodes ---- */

void world_start(struct world *w, uint64_t id)
{
    struct world_node *n = &w->nodes[id];
    ASSERT(!n->up && !n->removed && !n->out);
    struct raft_core_options o = {.id = id,
                                  .election_ms = w->o.election_ms,
                                  .heartbeat_ms = w->o.heartbeat_ms,
                                  .seed = rng_u64(&w->rng),
                                  .log_bytes_max = w->o.log_bytes_max,
                                  .apply_bytes_max = w->o.apply_bytes_max,
                                  .snapshot_every = w->o.snapshot_every,
                                  .trailing = w->o.trailing,
                                  .quiet_ms = w->o.quiet_ms,
                                  .quiet_bytes = w->o.quiet_bytes,
                                  .ops = &world_ops,
                                  .arg = n};
    n->life++;
    memset(n->linked, 0, sizeof n->linked);
    for (uint64_t other = 1; other <= w->n_nodes; other++)
        w->nodes[other].linked[id] = false;
    n->up = true;
    n->checked = 0;
    n->snapshot_timer_ms = 0;
    n->paused_until_ms = 0;
    n->state = n->state_durable;
    uint64_t last = n->disk.first + n->disk.n - 1;
    if (last < n->logged_durable)
        world_violation(w, "%llu forgot entries %llu to %llu", (unsigned long long)id,
                        (unsigned long long)last + 1, (unsigned long long)n->logged_durable);
    world_note(w, "%llu starts: term %llu, log %llu to %llu", (unsigned long long)id,
               (unsigned long long)n->disk.term, (unsigned long long)n->disk.first,
               (unsigned long long)last);
    struct raft_core_disk disk;
    struct raft_entry_view *entries;
    struct errmsg e;
    world_disk_view(n, &disk, &entries);
    n->starting = true;
    enum err r = raft_core_new(&o, &n->core, &e);
    if (r == ERR_OK)
        r = raft_core_start(n->core, &disk, w->now_ms, &e);
    n->starting = false;
    mem_free(entries);
    if (r != ERR_OK)
        world_violation(w, "%llu does not start: %s", (unsigned long long)id, e.text);
}

void world_stop(struct world *w, uint64_t id, bool lose_unsynced)
{
    struct world_node *n = &w->nodes[id];
    if (!n->up)
        return;
    world_note(w, "%llu %s", (unsigned long long)id, lose_unsynced ? "crashes" : "stops");
    if (!lose_unsynced && n->state.index >= n->state_durable.index)
        n->state_durable = n->state;
    raft_core_free(TAKE(n->core));
    n->up = false;
    world_disk_crash(w, n, lose_unsynced);
    n->role = RAFT_CORE_FOLLOWER;
}

uint64_t world_join(struct world *w)
{
    ASSERT(w->n_nodes < WORLD_NODES_MAX);
    uint64_t id = ++w->n_nodes;
    node_init(w, id);
    world_start(w, id);
    return id;
}

struct world_node *world_leader(struct world *w)
{
    struct world_node *best = NULL;
    for (uint64_t id = 1; id <= w->n_nodes; id++) {
        struct world_node *n = &w->nodes[id];
        if (n->up && raft_core_state(n->core) == RAFT_CORE_LEADER &&
            (best == NULL || raft_core_term(n->core) > raft_core_term(best->core)))
            best = n;
    }
    return best;
}

bool world_member(struct world *w, uint64_t id)
{
    struct world_node *l = world_leader(w);
    if (l == NULL)
        return false;
    const struct raft_membership *m = raft_core_membership(l->core);
    for (size_t i = 0; i < m->n; i++) {
        if (m->servers[i].id == id)
            return true;
    }
    return false;
}

/* ---- requests ---- */

static void after(struct world *w, struct world_node *n)
{
    if (!n->up)
        return;
    raft_core_hurry(n->core, w->now_ms);
    raft_core_turn(n->core);
    world_check_commit(n);
    world_state_commit(w, n);
    world_snapshot_poll(w, n);
}

enum err world_submit(struct world *w, uint64_t id, struct slice data, uint64_t *ret_index)
{
    struct world_node *n = &w->nodes[id];
    if (!n->up || n->paused_until_ms > w->now_ms)
        return ERR_UNAVAILABLE;
    enum err r = raft_core_submit(n->core, data, w->now_ms, ret_index);
    after(w, n);
    return r;
}

enum err world_change(struct world *w, uint64_t id, uint64_t member, enum raft_role role,
                      bool remove)
{
    struct world_node *n = &w->nodes[id];
    if (!n->up || n->paused_until_ms > w->now_ms)
        return ERR_UNAVAILABLE;
    struct raft_membership m = *raft_core_membership(n->core);
    size_t i = 0;
    while (i < m.n && m.servers[i].id != member)
        i++;
    if (remove && i < m.n) {
        memmove(&m.servers[i], &m.servers[i + 1], (m.n - i - 1) * sizeof m.servers[0]);
        m.n--;
    } else if (!remove) {
        m.servers[i] = (struct raft_server){.id = member, .role = role};
        address_of(member, &m.servers[i]);
        m.n = MAX(m.n, i + 1);
    }
    uint64_t index;
    struct errmsg e;
    enum err r = raft_core_change(n->core, &m, w->now_ms, &index, &e);
    world_note(w, "change at %llu: member %llu %s %d: %s", (unsigned long long)id,
               (unsigned long long)member, remove ? "removed" : "role", (int)role, err_name(r));
    after(w, n);
    return r;
}

void world_transfer(struct world *w, uint64_t id, uint64_t to)
{
    struct world_node *n = &w->nodes[id];
    if (!n->up || n->paused_until_ms > w->now_ms)
        return;
    enum err r = raft_core_transfer(n->core, to, w->now_ms);
    world_note(w, "transfer from %llu to %llu: %s", (unsigned long long)id,
               (unsigned long long)to, err_name(r));
    after(w, n);
}

/* ---- the network ---- */

void world_cut(struct world *w, uint64_t a, uint64_t b, bool cut)
{
    w->cut[a][b] = w->cut[b][a] = cut;
}

void world_isolate(struct world *w, uint64_t id, bool cut)
{
    for (uint64_t other = 1; other <= WORLD_NODES_MAX; other++)
        world_cut(w, id, other, cut);
}

void world_heal(struct world *w)
{
    memset(w->cut, 0, sizeof w->cut);
}

/* ---- running ---- */

/* The first frame on a link comes behind what the sender heard of this member. False: it is to leave. */
static bool link_up(struct world *w, struct world_node *n, uint64_t from)
{
    struct raft_heard heard;
    struct errmsg e;
    const struct world_node *other = &w->nodes[from];
    if (n->linked[from] || !other->up || !raft_core_heard(other->core, n->id, &heard))
        return true;
    n->linked[from] = true;
    if (raft_core_recall(n->core, from, &heard, &e) == ERR_OK)
        return true;
    world_note(w, "%llu leaves: %s", (unsigned long long)n->id, e.text);
    if (!n->rolled_back)
        world_violation(w, "%llu is said to have forgotten: %s", (unsigned long long)n->id,
                        e.text);
    n->out = true;
    world_stop(w, n->id, true);
    return false;
}

static void deliver(struct world *w)
{
    struct world_frame *f = w->frames;
    w->frames = f->next;
    struct world_node *n = &w->nodes[f->to];
    if (n->up && !n->removed && link_up(w, n, f->from)) {
        struct errmsg e;
        world_note_frame(w, f);
        /* An exact copy, so that a sanitizer sees a read behind the end. */
        uint8_t *bytes = mem_dup(f->bytes, f->n);
        if (raft_core_receive(n->core, f->from, slice_of(bytes, f->n), w->now_ms, &e) != ERR_OK)
            world_violation(w, "%llu refuses a frame: %s", (unsigned long long)f->to, e.text);
        mem_free(bytes);
        after(w, n);
    }
    mem_free(f);
}

static void fire(struct world *w)
{
    struct world_timer *t = w->timers;
    w->timers = t->next;
    struct world_node *n = &w->nodes[t->node];
    if (n->up && n->life == t->life) {
        switch (t->what) {
        case WORLD_DISK_DONE:
            world_disk_done(w, n);
            break;
        case WORLD_SNAPSHOT_DONE:
            world_snapshot_file_done(w, n);
            break;
        case WORLD_FETCH_DONE:
            world_fetch_done(w, n, t);
            break;
        case WORLD_RESTORE_DONE:
            world_restore(n, &t->info);
            raft_core_snapshot_restored(n->core, w->now_ms);
            break;
        }
        after(w, n);
    }
    mem_free(t);
}

static uint64_t wake_ms(const struct world *w, const struct world_node *n)
{
    uint64_t due_ms = MIN(raft_core_deadline(n->core), raft_core_hurry_deadline(n->core));
    return MAX(MAX(due_ms, n->paused_until_ms), w->now_ms);
}

/* A paused node hears and completes nothing: what is due for it moves behind the pause. */
static bool postponed(struct world *w)
{
    struct world_frame *f = w->frames;
    if (f != NULL && f->at_ms <= w->now_ms && w->nodes[f->to].paused_until_ms > w->now_ms) {
        w->frames = f->next;
        f->at_ms = w->nodes[f->to].paused_until_ms;
        struct world_frame **at = &w->frames;
        while (*at != NULL && (*at)->at_ms <= f->at_ms)
            at = &(*at)->next;
        f->next = *at;
        *at = f;
        return true;
    }
    struct world_timer *t = w->timers;
    if (t != NULL && t->at_ms <= w->now_ms && w->nodes[t->node].paused_until_ms > w->now_ms) {
        w->timers = t->next;
        t->at_ms = w->nodes[t->node].paused_until_ms;
        struct world_timer **at = &w->timers;
        while (*at != NULL && (*at)->at_ms <= t->at_ms)
            at = &(*at)->next;
        t->next = *at;
        *at = t;
        return true;
    }
    return false;
}

bool world_step(struct world *w, uint64_t until_ms)
{
    uint64_t frame = w->frames != NULL ? w->frames->at_ms : UINT64_MAX;
    uint64_t timer = w->timers != NULL ? w->timers->at_ms : UINT64_MAX;
    uint64_t tick = UINT64_MAX;
    struct world_node *ticking = NULL;
    for (uint64_t id = 1; id <= w->n_nodes; id++) {
        struct world_node *n = &w->nodes[id];
        if (n->up && wake_ms(w, n) < tick) {
            tick = wake_ms(w, n);
            ticking = n;
        }
    }
    uint64_t next = MIN(MIN(frame, timer), tick);
    if (next > until_ms) {
        w->now_ms = MAX(w->now_ms, until_ms);
        return false;
    }
    w->now_ms = MAX(w->now_ms, next);
    if (postponed(w))
        return true;
    if (timer == next) {
        fire(w);
    } else if (frame == next) {
        deliver(w);
    } else {
        if (w->now_ms >= raft_core_deadline(ticking->core))
            raft_core_tick(ticking->core, w->now_ms);
        after(w, ticking);
    }
    return true;
}

void world_run(struct world *w, uint64_t ms)
{
    uint64_t until = w->now_ms + ms;
    while (world_step(w, until))
        ;
}

bool world_until(struct world *w, bool (*cond)(struct world *w, void *arg), void *arg,
                 uint64_t ms)
{
    uint64_t until = w->now_ms + ms;
    while (!cond(w, arg)) {
        if (!world_step(w, until))
            return cond(w, arg);
    }
    return true;
}
