/* The owner's part in snapshots, and its state database: a commit may be lost in a crash up to the last
 * one that was synced. */
#include "base/assert.h"
#include "base/mem.h"
#include "tests/sim/raft_world.h"

void world_state_commit(struct world *w, struct world_node *n)
{
    uint64_t logged = MIN(raft_core_stored_index(n->core), raft_core_commit_index(n->core));
    if (world_random(w, 8) != 0 || n->state.index < n->state_durable.index)
        return;
    n->state_durable = n->state;
    n->logged_durable = MAX(n->logged_durable, logged);
}

void world_snapshot_poll(struct world *w, struct world_node *n)
{
    if (n->snapshot_timer_ms != 0 || !raft_core_snapshot_due(n->core, n->state.index))
        return;
    raft_core_snapshot_begin(n->core, &n->taking);
    n->taking_state = n->state;
    n->snapshot_timer_ms = w->now_ms + 1 + world_random(w, 50);
    world_note(w, "%llu takes snapshot %llu", (unsigned long long)n->id,
               (unsigned long long)n->taking.index);
    (void)world_timer_add(w, n->snapshot_timer_ms, WORLD_SNAPSHOT_DONE, n);
}

static void file_add(struct world_node *n, const struct raft_snapshot_info *info,
                     struct world_state state)
{
    if (n->n_files == WORLD_FILES_MAX) {
        memmove(&n->files[0], &n->files[1], (WORLD_FILES_MAX - 1) * sizeof n->files[0]);
        n->n_files--;
    }
    n->files[n->n_files++] =
        (struct world_file){.index = info->index, .term = info->term, .state = state};
}

void world_snapshot_file_done(struct world *w, struct world_node *n)
{
    n->snapshot_timer_ms = 0;
    if (world_random(w, 20) == 0) {
        raft_core_snapshot_abandoned(n->core);
        return;
    }
    n->taking.size = w->snapshot_bytes;
    memcpy(n->taking.sha256, &n->taking_state.chain, sizeof n->taking_state.chain);
    file_add(n, &n->taking, n->taking_state);
    raft_core_snapshot_taken(n->core, &n->taking, w->now_ms);
}

void world_fetch_done(struct world *w, struct world_node *n, const struct world_timer *t)
{
    struct world_node *from = &w->nodes[t->source];
    bool reachable = from->up && from->paused_until_ms <= w->now_ms && !w->cut[from->id][n->id];
    for (size_t i = 0; reachable && i < from->n_files; i++) {
        struct world_file *f = &from->files[i];
        if (f->index == t->info.index && f->term == t->info.term &&
            memcmp(&f->state.chain, t->info.sha256, sizeof f->state.chain) == 0) {
            file_add(n, &t->info, f->state);
            raft_core_snapshot_received(n->core, &t->info, w->now_ms);
            return;
        }
    }
    world_note(w, "%llu fails to fetch", (unsigned long long)n->id);
    raft_core_snapshot_failed(n->core, w->now_ms);
}

bool world_file_state(struct world_node *n, const struct raft_snapshot_info *info,
                      struct world_state *ret)
{
    for (size_t i = 0; i < n->n_files; i++) {
        if (n->files[i].index == info->index && n->files[i].term == info->term) {
            *ret = (struct world_state){info->index, n->files[i].state.chain};
            return true;
        }
    }
    return false;
}

void world_restore(struct world_node *n, const struct raft_snapshot_info *info)
{
    if (!world_file_state(n, info, &n->state))
        world_violation(n->world, "%llu has no file of snapshot %llu",
                        (unsigned long long)n->id, (unsigned long long)info->index);
    n->restores++;
    world_note(n->world, "%llu restores snapshot %llu", (unsigned long long)n->id,
               (unsigned long long)info->index);
}
