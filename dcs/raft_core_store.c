/* The FIFO of storage operations, and what their completions mean by the time they come. */
#include "base/mem.h"
#include "dcs/raft_core_internal.h"

static struct core_op *op_push(struct raft_core *c, enum core_op_type type)
{
    struct core_op *op = mem_alloc(sizeof *op);
    op->type = type;
    *c->ops_end = op;
    c->ops_end = &op->next;
    return op;
}

static struct core_op *op_pop(struct raft_core *c, enum core_op_type type)
{
    struct core_op *op = c->ops;
    ASSERT(op != NULL && op->type == type); /* completions come in the order of the calls */
    c->ops = op->next;
    if (c->ops == NULL)
        c->ops_end = &c->ops;
    return op;
}

static void op_free(struct core_op *op)
{
    for (size_t i = 0; i < op->n; i++)
        raft_log_release(op->entries[i]);
    mem_free((void *)op->entries);
    mem_free(op->views);
    mem_free(op->info);
    mem_free(op);
}

void core_free_ops(struct raft_core *c)
{
    while (c->ops != NULL)
        op_free(op_pop(c, c->ops->type));
}

void core_store_meta(struct raft_core *c)
{
    ASSERT(c->raft.current_term >= c->meta_term);
    c->meta_term = c->raft.current_term;
    c->meta_vote = c->raft.voted_for;
    c->meta_asked++;
    core_own_term(c, c->meta_term, c->meta_vote, 0);
    op_push(c, CORE_OP_META);
    CORE_CALL(c, store_meta, c->meta_term, c->meta_vote);
}

/* Appends under way lose what was cut off: their completion must not be taken for the storing of the
 * entries that now stand under the same index. */
static void clip_appends(struct raft_core *c, uint64_t from)
{
    for (struct core_op *op = c->ops; op != NULL; op = op->next) {
        if (op->type == CORE_OP_APPEND && op->valid_index >= from)
            op->valid_index = from - 1;
    }
}

static void store_truncate(struct raft_core *c, uint64_t from)
{
    ASSERT(from > c->applied);
    raft_log_truncate(&c->log, from);
    clip_appends(c, from);
    op_push(c, CORE_OP_TRUNCATE);
    CORE_CALL(c, store_truncate, from);
}

void core_store_entries(struct raft_core *c, uint64_t first, const struct raft_entry *entries,
                        size_t n)
{
    ASSERT(first <= c->log.last + 1 && first >= c->log.first);
    if (first <= c->log.last)
        store_truncate(c, first);
    struct core_op *op = op_push(c, CORE_OP_APPEND);
    op->n = n;
    op->entries = mem_array(n, sizeof *op->entries);
    op->views = mem_array(n, sizeof *op->views);
    for (size_t i = 0; i < n; i++) {
        const struct raft_entry *e = &entries[i];
        raft_log_append(&c->log, e->term, (enum raft_entry_type)e->type,
                        slice_of(e->buf.base, e->buf.len));
        op->entries[i] = raft_log_hold(&c->log, first + i);
        op->views[i] = raft_log_view(op->entries[i]);
    }
    op->asked_index = op->valid_index = first + n - 1;
    CORE_CALL(c, store_append, first, op->views, n);
}

void core_store_snapshot(struct raft_core *c, const struct raft_snapshot_info *info,
                         uint64_t trim_to, bool installed)
{
    if (installed)
        clip_appends(c, 1);
    struct core_op *op = op_push(c, CORE_OP_SNAPSHOT);
    op->installed = installed;
    op->trim_to = trim_to;
    op->info = mem_dup(info, sizeof *info);
    CORE_CALL(c, store_snapshot, op->info, trim_to, installed);
}

/* ---- completions ---- */

void raft_core_append_stored(struct raft_core *c, uint64_t last_index, uint64_t now_ms)
{
    core_clock(c, now_ms);
    struct core_op *op = op_pop(c, CORE_OP_APPEND);
    ASSERT(op->asked_index == last_index);
    uint64_t stored = op->valid_index;
    op_free(op);
    if (stored <= c->raft.last_stored || c->installing)
        return;
    /* No candidate has writes under way: the library waits for them before it becomes one. */
    ASSERT(c->raft.state != RAFT_CANDIDATE && stored <= core_last_index(c));
    struct raft_event e = {.type = RAFT_PERSISTED_ENTRIES};
    e.persisted_entries.index = stored;
    core_event_ok(c, &e);
}

void raft_core_truncate_stored(struct raft_core *c)
{
    CHECK_MAGIC(c, CORE_MAGIC);
    op_free(op_pop(c, CORE_OP_TRUNCATE));
}

void raft_core_meta_stored(struct raft_core *c, uint64_t now_ms)
{
    core_clock(c, now_ms);
    op_free(op_pop(c, CORE_OP_META));
    c->meta_stored++;
    ASSERT(c->meta_stored <= c->meta_asked);
    core_release_held(c);
}

void raft_core_snapshot_stored(struct raft_core *c, uint64_t now_ms)
{
    core_clock(c, now_ms);
    struct core_op *op = op_pop(c, CORE_OP_SNAPSHOT);
    core_snapshot_done(c, op);
    op_free(op);
}
