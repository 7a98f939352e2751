/* The disk below the log: operations become durable in groups, in order. A loss of power takes groups
 * from some point on, or keeps the one under way without anybody having been told. */
#include "base/assert.h"
#include "base/mem.h"
#include "tests/sim/node_world.h"

struct disk_op {
    struct disk_op *next;
    enum { OP_APPEND, OP_TRUNCATE, OP_META, OP_SNAPSHOT } type;
    uint64_t index; /* append: first; truncate: from */
    struct disk_entry *entries;
    size_t n;
    uint64_t term, vote;
    struct raft_snapshot_info *info;
    uint64_t trim_to;
    bool installed;
};

static void push(struct disk_log *l, struct disk_entry *e)
{
    if (l->n == l->cap) {
        l->cap = MAX(l->cap * 2, (size_t)64);
        l->entries = mem_resize(l->entries, l->cap * sizeof *l->entries);
    }
    l->entries[l->n] = *e;
    l->n++;
    e->data = NULL;
}

static void trim(struct disk_log *l, uint64_t to)
{
    size_t drop = to < l->first ? 0 : MIN((size_t)(to - l->first + 1), l->n);
    for (size_t i = 0; i < drop; i++)
        mem_free(l->entries[i].data);
    if (drop > 0)
        memmove(l->entries, l->entries + drop, (l->n - drop) * sizeof *l->entries);
    l->n -= drop;
    l->first += drop;
}

static void apply(struct disk_log *l, struct disk_op *op)
{
    switch (op->type) {
    case OP_APPEND:
        ASSERT(op->index == l->first + l->n);
        for (size_t i = 0; i < op->n; i++)
            push(l, &op->entries[i]);
        break;
    case OP_TRUNCATE:
        ASSERT(op->index >= l->first && op->index < l->first + l->n);
        while (l->first + l->n > op->index)
            mem_free(l->entries[--l->n].data);
        break;
    case OP_META:
        ASSERT(op->term >= l->term);
        l->term = op->term;
        l->vote = op->vote;
        break;
    case OP_SNAPSHOT:
        l->has_snapshot = true;
        l->snapshot = *op->info;
        trim(l, op->installed ? NEVER - 1 : op->trim_to);
        if (op->installed)
            l->first = op->info->index + 1;
        break;
    }
}

static void op_free(struct disk_op *op)
{
    for (size_t i = 0; i < op->n; i++)
        mem_free(op->entries[i].data);
    mem_free(op->entries);
    mem_free(op->info);
    mem_free(op);
}

static struct disk_op *op_push(struct disk *d, int type)
{
    struct disk_op *op = mem_alloc(sizeof *op);
    op->type = type;
    *d->ops_end = op;
    d->ops_end = &op->next;
    return op;
}

static struct disk_op *op_pop(struct disk *d)
{
    struct disk_op *op = d->ops;
    d->ops = op->next;
    if (d->ops == NULL)
        d->ops_end = &d->ops;
    return op;
}

static size_t waiting(const struct disk *d)
{
    size_t n = 0;
    for (const struct disk_op *op = d->ops; op != NULL; op = op->next)
        n++;
    return n;
}

/* ---- commits ---- */

static void complete(struct sim_node *x, const struct disk_op *op)
{
    switch (op->type) {
    case OP_APPEND:
        node_append_stored(x->node, op->index + op->n - 1);
        break;
    case OP_TRUNCATE:
        node_truncate_stored(x->node);
        break;
    case OP_META:
        node_meta_stored(x->node);
        break;
    case OP_SNAPSHOT:
        node_snapshot_stored(x->node);
        break;
    }
}

static void commit_begin(struct sim_node *x);

static void on_done(struct sim *w, struct sim_node *x, void *arg)
{
    struct disk *d = &x->disk;
    (void)arg;
    (void)w;
    size_t batch = d->batch;
    d->batch = 0;
    d->flushed -= batch;
    for (size_t i = 0; i < batch; i++) {
        struct disk_op *op = op_pop(d);
        size_t n = op->n;
        apply(&d->log, op);
        op->n = n;
        complete(x, op);
        op_free(op);
    }
    commit_begin(x);
    daemon_pass(x);
}

static void commit_begin(struct sim_node *x)
{
    struct sim *w = x->w;
    struct disk *d = &x->disk;
    if (d->batch > 0 || d->flushed == 0)
        return;
    d->batch = d->flushed;
    uint64_t slow = x->slow_until_us > w->now_us ? x->slow_disk_us : 0;
    sim_at(w, x, DAEMON, 200 + sim_random(w, 2 * MS) + (slow != 0 ? sim_random(w, slow) : 0),
           "fsync", on_done, NULL);
}

void disk_flush(struct sim_node *x)
{
    x->disk.flushed = waiting(&x->disk);
    commit_begin(x);
}

void disk_crash(struct sim_node *x, bool power)
{
    struct disk *d = &x->disk;
    /* A process that dies has written what its thread had begun, whatever the disk does. */
    bool keep = !power || sim_chance(x->w, 500);
    size_t batch = d->batch;
    for (size_t i = 0; d->ops != NULL; i++) {
        struct disk_op *op = op_pop(d);
        if (keep && i < batch)
            apply(&d->log, op);
        op_free(op);
    }
    d->batch = d->flushed = 0;
}

/* ---- what Raft asks for ---- */

void disk_append(struct sim_node *x, uint64_t first, const struct raft_entry_view *e, size_t n)
{
    struct disk_op *op = op_push(&x->disk, OP_APPEND);
    op->index = first;
    op->n = n;
    op->entries = mem_array(n, sizeof *op->entries);
    for (size_t i = 0; i < n; i++)
        op->entries[i] = (struct disk_entry){.term = e[i].term,
                                             .type = e[i].type,
                                             .data = mem_dup(e[i].data.p, e[i].data.n),
                                             .n = e[i].data.n};
}

void disk_truncate(struct sim_node *x, uint64_t from)
{
    op_push(&x->disk, OP_TRUNCATE)->index = from;
}

void disk_meta(struct sim_node *x, uint64_t term, uint64_t vote)
{
    struct disk_op *op = op_push(&x->disk, OP_META);
    op->term = term;
    op->vote = vote;
}

void disk_snapshot(struct sim_node *x, const struct raft_snapshot_info *info, uint64_t trim_to,
                   bool installed)
{
    struct disk_op *op = op_push(&x->disk, OP_SNAPSHOT);
    op->info = mem_dup(info, sizeof *info);
    op->trim_to = trim_to;
    op->installed = installed;
}

/* ---- life ---- */

void disk_init(struct disk *d, const struct raft_membership *m, struct slice first_entry)
{
    struct buf b = BUF_INIT;
    *d = (struct disk){.log = {.term = 1, .first = 1}};
    d->ops_end = &d->ops;
    raft_core_bootstrap_entry(m, &b);
    struct disk_entry change = {.term = 1, .type = RAFT_ENTRY_CHANGE, .data = b.p, .n = b.len};
    push(&d->log, &change);
    struct disk_entry rows = {.term = 1,
                              .type = RAFT_ENTRY_COMMAND,
                              .data = mem_dup(first_entry.p, first_entry.n),
                              .n = first_entry.n};
    push(&d->log, &rows);
}

void disk_close(struct disk *d)
{
    while (d->ops != NULL)
        op_free(op_pop(d));
    for (size_t i = 0; i < d->log.n; i++)
        mem_free(d->log.entries[i].data);
    mem_free(TAKE(d->log.entries));
}

void disk_view(struct sim_node *x, struct raft_core_disk *ret,
               struct raft_entry_view **ret_entries)
{
    struct disk_log *l = &x->disk.log;
    struct raft_entry_view *v = mem_array(l->n, sizeof *v);
    for (size_t i = 0; i < l->n; i++)
        v[i] = (struct raft_entry_view){.term = l->entries[i].term,
                                        .type = l->entries[i].type,
                                        .data = slice_of(l->entries[i].data, l->entries[i].n)};
    *ret = (struct raft_core_disk){.term = l->term,
                                   .voted_for = l->vote,
                                   .has_snapshot = l->has_snapshot,
                                   .snapshot = l->snapshot,
                                   .first_index = l->first,
                                   .entries = v,
                                   .n = l->n};
    *ret_entries = v;
}
