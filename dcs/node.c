/* The node's life and its pass: what Raft's core asks for is handed on, what it reports is noted and
 * acted on at fixed points of the pass. */
#include "dcs/node.h"

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "dcs/node_private.h"

enum {
    NODE_SCRATCH = 64 * 1024,
    NODE_LOG_BYTES_MAX = 16 * 1024 * 1024,
    NODE_SNAPSHOT_EVERY = 65536,
    NODE_QUIET_MS = 600 * 1000,
    NODE_QUIET_BYTES = 512 * 1024
};

/* Replies do not wait for it: what they tell is in the log of a quorum, and is applied again if this
 * process ends. So the passes of a few milliseconds share a commit, and a page that all of them change is
 * written once. */
static void commit_state(struct node *n)
{
    if (!state_uncommitted(n->state)) {
        return;
    }
    uint64_t began_us = n->ops->now_us(n->arg);
    state_commit(n->state,
                 MIN(raft_core_stored_index(n->raft), raft_core_commit_index(n->raft)));
    n->uncommitted_bytes = 0;
    latency_add(&n->state_commit, n->ops->now_us(n->arg) - began_us);
    if (!n->settling && state_wal_long(n->state)) {
        n->settling = true;
        raft_core_pause_apply(n->raft, true);
    }
}

static void settle(struct node *n)
{
    if (n->settling && state_wal_settled(n->state)) {
        n->settling = false;
        raft_core_pause_apply(n->raft, false);
    }
}

/* ---- what Raft asks for -------------------------------------------------------------------- */

/* When each entry came here: a renewal counts from then, not from when this member learned that it is
 * committed, which after the death of a leader may be an election later. It was submitted before
 * either, so the holder's deadline is earlier still. */
static void store_append(void *arg, uint64_t first_index, const struct raft_entry_view *entries,
                         size_t n_entries)
{
    struct node *n = arg;
    for (size_t i = 0; i < n_entries; i++) {
        struct node_received *r = &n->received[(first_index + i) % NODE_RECEIVED];
        *r = (struct node_received){first_index + i, n->now};
    }
    n->ops->store_append(n->arg, first_index, entries, n_entries);
}

static void store_truncate(void *arg, uint64_t from_index)
{
    struct node *n = arg;
    n->ops->store_truncate(n->arg, from_index);
}

static void store_meta(void *arg, uint64_t term, uint64_t voted_for)
{
    struct node *n = arg;
    n->ops->store_meta(n->arg, term, voted_for);
}

static void store_snapshot(void *arg, const struct raft_snapshot_info *info, uint64_t trim_to,
                           bool installed)
{
    struct node *n = arg;
    n->ops->store_snapshot(n->arg, info, trim_to, installed);
}

static void send_frame(void *arg, uint64_t member_id, struct slice frame)
{
    struct node *n = arg;
    if (n->admitted && !node_silent(n)) {
        n->ops->send_frame(n->arg, member_id, frame);
    }
}

static size_t apply(void *arg, uint64_t index, uint64_t term, struct slice data)
{
    struct node *n = arg;
    CHECK_MAGIC(n, NODE_MAGIC);
    bool more = state_uncommitted(n->state);
    uint64_t before = state_work(n->state);
    write_apply(n, index, term, data);
    n->commit_ms = more ? n->commit_ms : n->now + NODE_COMMIT_MS;
    n->uncommitted_bytes += data.n;
    return (size_t)(state_work(n->state) - before);
}

static void membership(void *arg, const struct raft_membership *m)
{
    struct node *n = arg;
    n->ops->membership(n->arg, m);
}

static void role(void *arg, enum raft_core_state state, uint64_t term, uint64_t leader_id)
{
    /* Noted by comparing at the pass: several changes may come in one step. */
    (void)arg;
    (void)state;
    (void)term;
    (void)leader_id;
}

static void snapshot_fetch(void *arg, uint64_t from, const struct raft_snapshot_info *info)
{
    struct node *n = arg;
    log_event(
        LOG_INFO, "snapshot_fetch", KV(KV_U64("from", from), KV_U64("index", info->index)),
        "too far behind: fetching a snapshot of %llu bytes", (unsigned long long)info->size);
    n->ops->snapshot_fetch(n->arg, from, info);
}

/* Watches go on from where they were, or learn that history is gone. */
static void rewatch(struct node *n)
{
    for (struct list *l = n->hub.watches.next, *next; l != &n->hub.watches; l = next) {
        next = l->next;
        struct watch *w = container_of(l, struct watch, link);
        if (w->next_revision <= state_compacted(n->state)) {
            watch_end_compacted(&n->hub, w, state_compacted(n->state));
        } else if (!w->behind) {
            watch_catch_up(&n->hub, w, true);
        }
    }
}

static void check_restore(struct node *n, enum err status, const char *text)
{
    if (status != ERR_OK) {
        n->ops->fatal(n->arg, text);
        UNREACHABLE();
    }
}

static void restored(struct node *n)
{
    compare_forget(n);
    log_event(LOG_INFO, "snapshot_restored", KV(KV_U64("index", state_db_applied(n->state))),
              "the state is that of a snapshot");
}

/* At the start, where nobody waits for the loop. */
static void restore_now(struct node *n, const struct raft_snapshot_info *info)
{
    char path[4096];
    struct errmsg e = {.text = ""};
    n->ops->snapshot_path(n->arg, info->index, path, sizeof path);
    enum err status = state_restore(n->state, path, info->index, n->now, &e);
    check_restore(n, status, e.text);
    restored(n);
}

static void restore_beside(struct node *n, const struct raft_snapshot_info *info)
{
    char path[4096];
    struct errmsg e = {.text = ""};
    struct state_restoring *r = NULL;
    n->ops->snapshot_path(n->arg, info->index, path, sizeof path);
    node_commit_full(n);
    n->uncommitted_bytes = 0;
    enum err status = state_restore_begin(n->state, path, info->index, &r, &e);
    check_restore(n, status, e.text);
    n->ops->restore(n->arg, r);
}

static bool snapshot_restore(void *arg, const struct raft_snapshot_info *info)
{
    struct node *n = arg;
    CHECK_MAGIC(n, NODE_MAGIC);
    /* Being ahead is no harm: what the state has was committed. */
    bool needed = state_db_applied(n->state) < info->index;
    if (needed && n->running) {
        restore_beside(n, info);
    } else if (needed) {
        restore_now(n, info);
    }
    return needed && n->running;
}

static const struct raft_core_ops core_ops = {
    .store_append = store_append,
    .store_truncate = store_truncate,
    .store_meta = store_meta,
    .store_snapshot = store_snapshot,
    .send = send_frame,
    .apply = apply,
    .membership = membership,
    .role = role,
    .snapshot_fetch = snapshot_fetch,
    .snapshot_restore = snapshot_restore,
};

/* ---- life ---------------------------------------------------------------------------------- */

static uint64_t commit_deadline(const struct node *n)
{
    return !state_uncommitted(n->state)                ? UINT64_MAX
           : n->uncommitted_bytes >= NODE_COMMIT_BYTES ? n->now
                                                       : n->commit_ms;
}

static enum err copy_names(struct node *n, const struct node_options *o)
{
    enum err err = str_copy(n->name, sizeof n->name, o->name);
    err = err == ERR_OK ? str_copy(n->address, sizeof n->address, o->address) : err;
    err = err == ERR_OK ? str_copy(n->role, sizeof n->role, o->role) : err;
    err = err == ERR_OK ? str_copy(n->cluster_id, sizeof n->cluster_id, o->cluster_id) : err;
    return err == ERR_OK ? str_copy(n->scope, sizeof n->scope,
                                    o->authority.scope != NULL ? o->authority.scope : "")
                         : err;
}

/* Members that copy their states at the same entry would all be slow at once; a quorum of others is not. */
static uint64_t own_share(const struct node_options *o, uint64_t most)
{
    return most - o->id % 4 * (most / 16);
}

enum err node_new(const struct node_options *o, struct node **ret_node, struct errmsg *e)
{
    ASSERT(o->id != 0 && o->state != NULL && o->ops != NULL);
    struct node *n = mem_alloc(sizeof *n);
    n->magic = NODE_MAGIC;
    n->o = *o;
    n->ops = o->ops;
    n->arg = o->arg;
    n->state = o->state;
    n->scan_ms = n->route_ms = UINT64_MAX;
    n->scratch = mem_alloc(NODE_SCRATCH);
    struct list *const lists[] = {&n->waiting,  &n->batch,  &n->reads,
                                  &n->locals,   &n->flying, &n->forwarded,
                                  &n->ops_list, &n->done,   &n->flights};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        list_init(lists[i]);
    }
    renew_init(&n->renew);
    watch_hub_init(&n->hub);
    enum err err = copy_names(n, o);
    if (err == ERR_OK) {
        struct raft_core_options c = {
            .id = o->id,
            .election_ms = o->election_ms,
            .heartbeat_ms = o->heartbeat_ms,
            .seed = o->seed,
            .log_bytes_max =
                o->log_bytes_max != 0 ? o->log_bytes_max : own_share(o, NODE_LOG_BYTES_MAX),
            .snapshot_every =
                o->snapshot_every != 0 ? o->snapshot_every : own_share(o, NODE_SNAPSHOT_EVERY),
            .quiet_ms = NODE_QUIET_MS,
            .quiet_bytes = NODE_QUIET_BYTES,
            .ops = &core_ops,
            .arg = n,
        };
        c.trailing = c.snapshot_every;
        err = raft_core_new(&c, &n->raft, e);
    } else {
        (void)err_set(e, err, "the node's name, address or role is too long");
    }
    if (err != ERR_OK) {
        node_free(n);
        return err;
    }
    *ret_node = n;
    return ERR_OK;
}

void node_free(struct node *n)
{
    if (n == NULL) {
        return;
    }
    CHECK_MAGIC(n, NODE_MAGIC);
    if (n->raft != NULL) {
        commit_state(n);
    }
    node_abandon(n);
    write_free(n);
    watch_hub_close(&n->hub);
    calls_close(&n->calls);
    buf_close(&n->results);
    raft_core_free(n->raft);
    mem_free(n->scratch);
    n->magic = 0;
    mem_free(n);
}

enum err node_start(struct node *n, const struct raft_core_disk *disk, struct errmsg *e)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    n->now = n->ops->now_ms(n->arg);
    n->leaderless_ms = n->now;
    n->admitted = disk->has_snapshot || disk->n > 0;
    /* A crash came between recording an installed snapshot and its restoration. */
    if (disk->has_snapshot && state_db_applied(n->state) + 1 < disk->first_index) {
        restore_now(n, &disk->snapshot);
    }
    state_leases_restart(n->state, n->now);
    enum err err = raft_core_start(n->raft, disk, n->now, e);
    if (err == ERR_OK) {
        n->ops->membership(n->arg, raft_core_membership(n->raft));
    }
    n->running = true;
    return err;
}

void node_set_authority(struct node *n, const struct node_authority *a)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    n->o.authority = *a;
}

void node_admit(struct node *n)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    n->admitted = true;
}

/* ---- the pass ------------------------------------------------------------------------------ */

static void lost_leadership(struct node *n)
{
    write_lost_leadership(n);
    requests_lost_leadership(n);
    member_lost_leadership(n);
}

/* Leadership and what is known of it, compared with the last pass. */
static void notice_role(struct node *n)
{
    uint64_t term = raft_core_term(n->raft), leader = raft_core_leader(n->raft);
    bool leads = raft_core_state(n->raft) == RAFT_CORE_LEADER;
    if (n->leading_term != 0 && (!leads || term != n->leading_term)) {
        n->leading_term = 0;
        lost_leadership(n);
    }
    if (leads && n->leading_term == 0) {
        n->leading_term = term;
        read_index_begin(&n->read, n->o.id, term);
        n->round_us = 0;
    }
    if (leader != n->known_leader || (leader != 0 && term != n->known_term)) {
        log_event(LOG_INFO, "raft_leader", KV(KV_U64("leader", leader), KV_U64("term", term)),
                  "%s",
                  leader == n->o.id ? "this node leads"
                  : leader == 0     ? "no leader is known"
                                    : "another node leads");
        n->leader_changes += leader != 0;
        n->leaderless_ms = n->now;
        n->known_leader = leader;
        n->known_term = term;
    }
}

static void begin_snapshot(struct node *n)
{
    if (n->copying || n->now < n->copy_ms ||
        !raft_core_snapshot_due(n->raft, state_db_applied(n->state))) {
        return;
    }
    struct raft_snapshot_info *info = mem_alloc(sizeof *info);
    struct state_copy *copy = NULL;
    struct errmsg e;
    raft_core_snapshot_begin(n->raft, info);
    node_commit_full(n);
    if (state_copy_begin(n->state, &copy, &e) == ERR_OK) {
        n->copying = true;
        n->ops->snapshot_copy(n->arg, copy, info);
    } else {
        log_event(LOG_WARN, "snapshot_failed", NO_KV, "%s", e.text);
        n->copy_ms = n->now + NODE_COPY_AGAIN_MS;
        raft_core_snapshot_abandoned(n->raft);
    }
    mem_free(info);
}

void node_pass(struct node *n)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    n->now = n->ops->now_ms(n->arg);
    settle(n);
    if (n->now >= raft_core_deadline(n->raft)) {
        raft_core_tick(n->raft, n->now);
    }
    notice_role(n);
    requests_expire(n);
    requests_tell_slow(n);
    requests_route(n);
    if (n->out == NODE_IN) {
        member_drive(n);
        write_submit(n);
        compare_drive(n);
    }
    read_start(n);
    raft_core_hurry(n->raft, n->now);
    n->ops->store_flush(n->arg);
    n->ops->flush(n->arg);
    if (n->commit_due) {
        /* since the last pass: its replies have left, the log is being written */
        commit_state(n);
    }
    write_deliver(n);
    read_serve(n);
    watches_catch_up(n);
    begin_snapshot(n);
    n->commit_due = n->now >= commit_deadline(n);
    n->ops->store_flush(n->arg);
    n->ops->flush(n->arg);
    raft_core_turn(n->raft);
}

void node_turn_took(struct node *n, uint64_t us)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    latency_add(&n->loop, us);
}

uint64_t node_deadline(const struct node *n)
{
    uint64_t at = raft_core_deadline(n->raft);
    at = MIN(at, raft_core_hurry_deadline(n->raft));
    at = MIN(at, requests_deadline(n));
    if (n->out == NODE_IN) {
        at = MIN(at, write_deadline(n));
        at = MIN(at, read_deadline(n));
        at = MIN(at, member_deadline(n));
        at = MIN(at, compare_deadline(n));
    }
    at = MIN(at, commit_deadline(n));
    at = n->settling ? MIN(at, n->now + NODE_SETTLE_MS) : at;
    return list_empty(&n->done) && n->hub.n_catching_up == 0 ? at : n->now;
}

/* ---- what comes in ------------------------------------------------------------------------- */

enum err node_frame(struct node *n, uint64_t from, struct slice frame, struct errmsg *e)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    if (!n->admitted || node_silent(n)) {
        return ERR_OK; /* an empty directory has no say under an old id */
    }
    n->now = n->ops->now_ms(n->arg);
    return raft_core_receive(n->raft, from, frame, n->now, e);
}

void node_append_stored(struct node *n, uint64_t last_index)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    n->now = n->ops->now_ms(n->arg);
    raft_core_append_stored(n->raft, last_index, n->now);
}

void node_truncate_stored(struct node *n)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    raft_core_truncate_stored(n->raft);
}

void node_meta_stored(struct node *n)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    n->now = n->ops->now_ms(n->arg);
    raft_core_meta_stored(n->raft, n->now);
}

void node_snapshot_stored(struct node *n)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    n->now = n->ops->now_ms(n->arg);
    raft_core_snapshot_stored(n->raft, n->now);
    n->ops->snapshot_sweep(n->arg, raft_core_snapshot_index(n->raft));
}

void node_snapshot_copied(struct node *n, const struct raft_snapshot_info *info, bool ok)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    ASSERT(n->copying);
    n->now = n->ops->now_ms(n->arg);
    n->copying = false;
    if (!ok) {
        n->copy_ms = n->now + NODE_COPY_AGAIN_MS;
        raft_core_snapshot_abandoned(n->raft);
        return;
    }
    log_event(LOG_INFO, "snapshot_taken",
              KV(KV_U64("index", info->index), KV_U64("bytes", info->size)),
              "the log can be trimmed");
    raft_core_snapshot_taken(n->raft, info, n->now);
}

void node_snapshot_fetched(struct node *n, const struct raft_snapshot_info *info, bool ok)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    n->now = n->ops->now_ms(n->arg);
    if (ok) {
        raft_core_snapshot_received(n->raft, info, n->now);
    } else {
        raft_core_snapshot_failed(n->raft, n->now);
    }
}

void node_restored(struct node *n, struct state_restoring *r, enum err status, const char *text)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    n->now = n->ops->now_ms(n->arg);
    state_restore_end(n->state, r, n->now);
    check_restore(n, status, text);
    restored(n);
    rewatch(n);
    raft_core_snapshot_restored(n->raft, n->now);
}

void node_set_disk_full(struct node *n, bool full)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    if (full && !n->disk_full) {
        log_event(
            LOG_WARN, "disk_full", NO_KV,
            "the disk of the data directory is nearly full: free some space; while this node "
            "leads, only keys of high availability are written");
    } else if (!full && n->disk_full) {
        log_event(LOG_INFO, "disk_ok", NO_KV, "the disk of the data directory has room again");
    }
    n->disk_full = full;
}

bool node_step_aside(struct node *n)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    n->now = n->ops->now_ms(n->arg);
    return node_is_leader(n) && raft_core_transfer(n->raft, 0, n->now) == ERR_OK;
}
