/* The fake disk: operations become durable in groups, in order; a crash loses whole groups from some
 * point on, or keeps the one under way without anybody having been told. */
#include "base/assert.h"
#include "base/mem.h"
#include "tests/sim/raft_world.h"

struct world_disk_op {
    struct world_disk_op *next;
    enum { OP_APPEND, OP_TRUNCATE, OP_META, OP_SNAPSHOT } type;
    uint64_t index; /* append: first; truncate: from */
    struct world_entry *entries;
    size_t n;
    uint64_t term, vote;
    struct raft_snapshot_info info;
    uint64_t trim_to;
    bool installed;
};

static void entry_free(struct world_entry *e)
{
    mem_free(TAKE(e->data));
}

void world_disk_free(struct world_disk *d)
{
    for (size_t i = 0; i < d->n; i++)
        entry_free(&d->entries[i]);
    mem_free(TAKE(d->entries));
    *d = (struct world_disk){.first = 1};
}

static void disk_push(struct world_disk *d, const struct world_entry *e)
{
    if (d->n == d->cap) {
        d->cap = MAX(d->cap * 2, (size_t)64);
        d->entries = mem_resize(d->entries, d->cap * sizeof *d->entries);
    }
    d->entries[d->n] = *e;
    d->entries[d->n++].data = mem_dup(e->data, e->n);
}

static void disk_trim(struct world_disk *d, uint64_t to)
{
    size_t drop = to < d->first ? 0 : MIN((size_t)(to - d->first + 1), d->n);
    for (size_t i = 0; i < drop; i++)
        entry_free(&d->entries[i]);
    if (drop > 0)
        memmove(d->entries, d->entries + drop, (d->n - drop) * sizeof *d->entries);
    d->n -= drop;
    d->first += drop;
}

static void disk_apply(struct world_disk *d, const struct world_disk_op *op)
{
    switch (op->type) {
    case OP_APPEND:
        ASSERT(op->index == d->first + d->n);
        for (size_t i = 0; i < op->n; i++)
            disk_push(d, &op->entries[i]);
        break;
    case OP_TRUNCATE:
        ASSERT(op->index >= d->first && op->index < d->first + d->n);
        while (d->first + d->n > op->index)
            entry_free(&d->entries[--d->n]);
        break;
    case OP_META:
        ASSERT(op->term >= d->term);
        d->term = op->term;
        d->vote = op->vote;
        break;
    case OP_SNAPSHOT:
        d->has_snapshot = true;
        d->snapshot = op->info;
        disk_trim(d, op->installed ? UINT64_MAX - 1 : op->trim_to);
        if (op->installed)
            d->first = op->info.index + 1;
        break;
    }
}

static void disk_copy(struct world_disk *to, const struct world_disk *from)
{
    world_disk_free(to);
    for (size_t i = 0; i < from->n; i++)
        disk_push(to, &from->entries[i]);
    struct world_entry *entries = to->entries;
    size_t cap = to->cap;
    *to = *from;
    to->entries = entries;
    to->cap = cap;
}

static void op_free(struct world_disk_op *op)
{
    for (size_t i = 0; i < op->n; i++)
        entry_free(&op->entries[i]);
    mem_free(op->entries);
    mem_free(op);
}

static struct world_disk_op *op_pop(struct world_node *n)
{
    struct world_disk_op *op = n->ops;
    n->ops = op->next;
    if (n->ops == NULL)
        n->ops_end = &n->ops;
    return op;
}

/* ---- commits ---- */

static void commit_begin(struct world *w, struct world_node *n)
{
    if (n->batch > 0 || n->ops == NULL || n->disk_held)
        return;
    for (struct world_disk_op *op = n->ops; op != NULL; op = op->next)
        n->batch++;
    uint64_t bound = MAX(w->o.disk_ms, n->disk_slow_ms);
    (void)world_timer_add(w, w->now_ms + world_random(w, bound + 1), WORLD_DISK_DONE, n);
}

static void complete(struct world *w, struct world_node *n, const struct world_disk_op *op)
{
    switch (op->type) {
    case OP_APPEND:
        raft_core_append_stored(n->core, op->index + op->n - 1, w->now_ms);
        break;
    case OP_TRUNCATE:
        raft_core_truncate_stored(n->core);
        break;
    case OP_META:
        raft_core_meta_stored(n->core, w->now_ms);
        break;
    case OP_SNAPSHOT:
        raft_core_snapshot_stored(n->core, w->now_ms);
        break;
    }
}

void world_disk_done(struct world *w, struct world_node *n)
{
    size_t batch = n->batch;
    struct world_disk_op *op = n->ops;
    for (size_t i = 0; i < batch; i++, op = op->next)
        disk_apply(&n->disk, op);
    for (size_t i = 0; i < batch; i++) {
        op = op_pop(n);
        complete(w, n, op);
        op_free(op);
    }
    n->batch = 0;
    commit_begin(w, n);
}

void world_disk_release(struct world *w, uint64_t id)
{
    w->nodes[id].disk_held = false;
    commit_begin(w, &w->nodes[id]);
}

void world_disk_crash(struct world *w, struct world_node *n, bool lose)
{
    bool keep_batch = !lose || world_random(w, 2) == 0;
    size_t batch = lose ? n->batch : SIZE_MAX;
    for (size_t i = 0; n->ops != NULL; i++) {
        struct world_disk_op *op = op_pop(n);
        if (keep_batch && i < batch)
            disk_apply(&n->disk, op);
        op_free(op);
    }
    n->batch = 0;
    disk_copy(&n->log, &n->disk);
}

void world_disk_keep(struct world_node *n)
{
    disk_copy(&n->kept, &n->disk);
    n->kept_state = n->state_durable;
    n->kept_logged = n->logged_durable;
}

void world_disk_roll_back(struct world_node *n)
{
    ASSERT(!n->up && n->kept.n > 0);
    disk_copy(&n->disk, &n->kept);
    disk_copy(&n->log, &n->kept);
    n->state_durable = n->kept_state;
    n->logged_durable = n->kept_logged;
    n->rolled_back = true;
}

/* ---- the core's storage operations ---- */

static struct world_disk_op *op_push(struct world_node *n, int type)
{
    struct world_disk_op *op = mem_alloc(sizeof *op);
    op->type = type;
    *n->ops_end = op;
    n->ops_end = &op->next;
    return op;
}

static void asked(struct world_node *n, const struct world_disk_op *op)
{
    disk_apply(&n->log, op);
    commit_begin(n->world, n);
}

static void on_append(void *arg, uint64_t first, const struct raft_entry_view *entries,
                      size_t n)
{
    struct world_node *node = arg;
    struct world_disk_op *op = op_push(node, OP_APPEND);
    op->index = first;
    op->n = n;
    op->entries = mem_array(n, sizeof *op->entries);
    for (size_t i = 0; i < n; i++)
        op->entries[i] =
            (struct world_entry){.term = entries[i].term,
                                 .type = entries[i].type,
                                 .data = mem_dup(entries[i].data.p, entries[i].data.n),
                                 .n = entries[i].data.n};
    world_note(node->world, "%llu appends %llu+%zu term %llu", (unsigned long long)node->id,
               (unsigned long long)first, n, (unsigned long long)entries[0].term);
    asked(node, op);
}

static void on_truncate(void *arg, uint64_t from)
{
    struct world_node *n = arg;
    struct world_disk_op *op = op_push(n, OP_TRUNCATE);
    op->index = from;
    world_note(n->world, "%llu truncates from %llu", (unsigned long long)n->id,
               (unsigned long long)from);
    if (from <= n->checked)
        world_violation(n->world, "%llu truncates committed entries from %llu",
                        (unsigned long long)n->id, (unsigned long long)from);
    asked(n, op);
}

static void on_meta(void *arg, uint64_t term, uint64_t vote)
{
    struct world_node *n = arg;
    struct world_disk_op *op = op_push(n, OP_META);
    op->term = term;
    op->vote = vote;
    if (term < n->log.term || (term == n->log.term && n->log.vote != 0 && n->log.vote != vote))
        world_violation(n->world, "%llu changes its vote of term %llu",
                        (unsigned long long)n->id, (unsigned long long)term);
    world_note(n->world, "%llu term %llu vote %llu", (unsigned long long)n->id,
               (unsigned long long)term, (unsigned long long)vote);
    asked(n, op);
}

static void on_snapshot(void *arg, const struct raft_snapshot_info *info, uint64_t trim_to,
                        bool installed)
{
    struct world_node *n = arg;
    struct world_disk_op *op = op_push(n, OP_SNAPSHOT);
    op->info = *info;
    op->trim_to = trim_to;
    op->installed = installed;
    world_note(n->world, "%llu %s snapshot %llu, trims to %llu", (unsigned long long)n->id,
               installed ? "installs" : "stores", (unsigned long long)info->index,
               (unsigned long long)trim_to);
    asked(n, op);
}

void world_disk_view(struct world_node *n, struct raft_core_disk *ret,
                     struct raft_entry_view **ret_entries)
{
    struct world_disk *d = &n->disk;
    struct raft_entry_view *v = mem_array(d->n, sizeof *v);
    for (size_t i = 0; i < d->n; i++)
        v[i] = (struct raft_entry_view){.term = d->entries[i].term,
                                        .type = d->entries[i].type,
                                        .data = slice_of(d->entries[i].data, d->entries[i].n)};
    *ret = (struct raft_core_disk){.term = d->term,
                                   .voted_for = d->vote,
                                   .has_snapshot = d->has_snapshot,
                                   .snapshot = d->snapshot,
                                   .first_index = d->first,
                                   .entries = v,
                                   .n = d->n};
    *ret_entries = v;
}

void world_disk_bootstrap(struct world_disk *d, const struct raft_membership *m)
{
    struct buf b = BUF_INIT;
    raft_core_bootstrap_entry(m, &b);
    struct world_entry e = {.term = 1, .type = RAFT_ENTRY_CHANGE, .data = b.p, .n = b.len};
    d->term = 1;
    d->first = 1;
    disk_push(d, &e);
    buf_close(&b);
}

/* ---- the rest of the callbacks ---- */

static void on_send(void *arg, uint64_t to, struct slice frame);
/* Every eighth one takes long. */
static size_t on_apply(void *arg, uint64_t index, uint64_t term, struct slice data)
{
    struct world_node *n = arg;
    n->applies++;
    world_check_apply(n, index, term, data);
    return index % 8 == 0 ? 1024 * 1024 : 0;
}

static void on_membership(void *arg, const struct raft_membership *m)
{
    struct world_node *n = arg;
    n->membership = *m;
    if (m->index > n->world->membership.index)
        n->world->membership = *m;
    world_note(n->world, "%llu membership of %llu: %zu members", (unsigned long long)n->id,
               (unsigned long long)m->index, m->n);
}

static void on_role(void *arg, enum raft_core_state state, uint64_t term, uint64_t leader)
{
    struct world_node *n = arg;
    n->role = state;
    n->role_term = term;
    n->role_leader = leader;
    static const char *const names[] = {"follower", "candidate", "leader"};
    world_note(n->world, "%llu is %s, term %llu, leader %llu", (unsigned long long)n->id,
               names[state], (unsigned long long)term, (unsigned long long)leader);
    world_check_role(n, state, term);
}

static void on_fetch(void *arg, uint64_t from, const struct raft_snapshot_info *info)
{
    struct world_node *n = arg;
    struct world *w = n->world;
    n->fetches++;
    world_note(w, "%llu fetches snapshot %llu from %llu", (unsigned long long)n->id,
               (unsigned long long)info->index, (unsigned long long)from);
    struct world_timer *t = world_timer_add(
        w, w->now_ms + 1 + w->fetch_ms + world_random(w, 300), WORLD_FETCH_DONE, n);
    t->source = from;
    t->info = *info;
}

/* A crash while it goes on may come before the file is the state, or behind it. */
static bool on_restore(void *arg, const struct raft_snapshot_info *info)
{
    struct world_node *n = arg;
    struct world *w = n->world;
    if (n->state.index >= info->index)
        return false;
    if (n->starting || (!w->restore_beside && world_random(w, 4) == 0)) {
        world_restore(n, info);
        return false;
    }
    if (!w->restore_beside && world_random(w, 2) == 0)
        (void)world_file_state(n, info, &n->state_durable);
    uint64_t ms = 1 + (w->restore_beside ? w->restore_ms : world_random(w, w->restore_ms));
    world_timer_add(w, w->now_ms + ms, WORLD_RESTORE_DONE, n)->info = *info;
    return true;
}

static void on_send(void *arg, uint64_t to, struct slice frame)
{
    struct world_node *n = arg;
    struct world *w = n->world;
    world_check_vote(w, n->id, to, frame);
    w->sent[frame.p[1] & 7]++;
    if (to > w->n_nodes || w->cut[n->id][to] || world_random(w, 1000) < w->o.loss ||
        (w->drop != NULL && w->drop(w, n->id, to, frame)))
        return;
    unsigned copies = world_random(w, 1000) < w->o.duplicate ? 2 : 1;
    while (copies-- > 0) {
        struct world_frame *f = mem_alloc(sizeof *f + frame.n);
        f->from = n->id;
        f->to = to;
        f->n = frame.n;
        f->seq = w->seq++;
        memcpy(f->bytes, frame.p, frame.n);
        bool late = world_random(w, 1000) < w->o.reorder;
        f->at_ms = w->now_ms +
                   (late ? world_random(w, 20 * w->o.delay_ms + 1) : 1 + w->o.delay_ms / 4);
        struct world_frame **at = &w->frames;
        while (*at != NULL && (*at)->at_ms <= f->at_ms)
            at = &(*at)->next;
        f->next = *at;
        *at = f;
    }
}

const struct raft_core_ops world_ops = {
    .store_append = on_append,
    .store_truncate = on_truncate,
    .store_meta = on_meta,
    .store_snapshot = on_snapshot,
    .send = on_send,
    .apply = on_apply,
    .membership = on_membership,
    .role = on_role,
    .snapshot_fetch = on_fetch,
    .snapshot_restore = on_restore,
};
