/* Snapshots: at most one is being taken, fetched or installed. The library crashes when an install
 * arrives beside another one; the newest such message waits here. To the library the data is opaque:
 * it gets a byte, the file is moved by the owner. */
#include "dcs/raft_core_internal.h"

static bool idle(const struct raft_core *c)
{
    ASSERT(c->taking + c->fetching.set + c->installing + c->restoring <= 1);
    return !c->taking && !c->fetching.set && !c->installing && !c->restoring;
}

bool core_fetches_from(const struct raft_core *c, uint64_t leader)
{
    return (c->fetching.set && c->fetching.from == leader) ||
           (c->waiting.set && c->waiting.from == leader);
}

/* ---- taking ---- */

/* A large state is copied less often, or its copies would be most of what is written: at most once for each
 * so many parts of the log's bound. */
static size_t log_share(const struct raft_core *c)
{
    uint64_t more = c->has_snapshot ? c->snapshot.size / (2 * c->o.log_bytes_max) : 0;
    return (size_t)MIN(1 + more, (uint64_t)CORE_LOG_SHARE_MAX);
}

/* Nothing but time made it due: there are hours of renewals in the memory of an idle member, and a copy of its
 * small state costs less. */
static size_t quiet_bytes(const struct raft_core *c)
{
    uint64_t state = c->has_snapshot ? c->snapshot.size / 4 : 0;
    return (size_t)MAX((uint64_t)c->o.quiet_bytes, state);
}

static bool quiet_due(const struct raft_core *c, uint64_t since)
{
    return c->o.quiet_ms != 0 && c->now_ms - c->snapshot_ms >= c->o.quiet_ms &&
           raft_log_bytes(&c->log, since + 1, c->applied) >= quiet_bytes(c);
}

static bool busy_due(const struct raft_core *c, uint64_t since)
{
    return c->applied - since >= c->o.snapshot_every * log_share(c) ||
           raft_log_bytes(&c->log, since + 1, c->applied) >=
               c->o.log_bytes_max / 2 * log_share(c);
}

bool raft_core_snapshot_due(const struct raft_core *c, uint64_t state_index)
{
    CHECK_MAGIC(c, CORE_MAGIC);
    if (!c->started || !idle(c) || c->waiting.set || state_index > c->applied ||
        !raft_log_has(&c->log, c->applied) || c->committed.n == 0)
        return false;
    uint64_t since = c->has_snapshot ? c->snapshot.index : 0;
    return c->applied > since && (busy_due(c, since) || quiet_due(c, since));
}

void raft_core_snapshot_begin(struct raft_core *c, struct raft_snapshot_info *ret_info)
{
    CHECK_MAGIC(c, CORE_MAGIC);
    ASSERT(idle(c) && !c->in_callback && raft_log_has(&c->log, c->applied) &&
           c->committed.n > 0);
    ASSERT(!c->has_snapshot || c->applied > c->snapshot.index);
    c->taking = true;
    c->taking_index = c->applied;
    c->taking_quiet = !busy_due(c, c->has_snapshot ? c->snapshot.index : 0);
    *ret_info = (struct raft_snapshot_info){.index = c->applied,
                                            .term = raft_log_get(&c->log, c->applied)->term,
                                            .membership = c->committed};
}

/* How far the log may be cut: what stays behind the snapshot, for members that lag a little, is
 * bounded in entries and in bytes, and is never nothing (the library takes 0 for an install). */
static uint64_t trim_target(const struct raft_core *c, uint64_t index)
{
    uint64_t to = index > c->o.trailing ? index - c->o.trailing : 0;
    size_t log_max = c->taking_quiet ? quiet_bytes(c) : c->o.log_bytes_max / 2 * log_share(c);
    to = MAX(to, c->log.first - 1);
    while (to + 1 < index && raft_log_bytes(&c->log, to + 1, index) > log_max)
        to++;
    ASSERT(to < index);
    return to;
}

void raft_core_snapshot_taken(struct raft_core *c, const struct raft_snapshot_info *info,
                              uint64_t now_ms)
{
    core_clock(c, now_ms);
    ASSERT(c->taking && info->index == c->taking_index);
    core_store_snapshot(c, info, trim_target(c, info->index), false);
}

/* The next install that waits begins as if it came now. */
static void run_waiting(struct raft_core *c)
{
    if (!c->waiting.set || !idle(c))
        return;
    struct core_install i = c->waiting;
    c->waiting.set = false;
    core_install_arrived(c, &i);
}

void raft_core_snapshot_abandoned(struct raft_core *c)
{
    CHECK_MAGIC(c, CORE_MAGIC);
    ASSERT(c->taking && !c->in_callback);
    c->taking = false;
    run_waiting(c);
}

static void taken_done(struct raft_core *c, const struct core_op *op)
{
    ASSERT(c->taking);
    struct raft_event e = {.type = RAFT_SNAPSHOT};
    e.snapshot.metadata.index = op->info->index;
    e.snapshot.metadata.term = op->info->term;
    e.snapshot.metadata.configuration_index = op->info->membership.index;
    core_lib_configuration(&op->info->membership, &e.snapshot.metadata.configuration);
    e.snapshot.trailing = (unsigned)(op->info->index - op->trim_to);
    c->taking = false;
    c->has_snapshot = true;
    c->snapshot = *op->info;
    c->snapshot_ms = c->now_ms;
    raft_log_trim(&c->log, op->trim_to);
    core_event_ok(c, &e);
}

/* ---- installing ---- */

static void deliver(struct raft_core *c, const struct core_install *i)
{
    ASSERT(!c->installing && !c->taking);
    if (c->raft.state == RAFT_LEADER && i->term == c->raft.current_term)
        return; /* as in check_leader(): it cannot be */
    c->stale_request = i->term < c->raft.current_term;
    struct raft_message m;
    memset(&m, 0, sizeof m);
    m.type = RAFT_INSTALL_SNAPSHOT;
    m.server_id = i->from;
    m.server_address = "member";
    m.install_snapshot.term = i->term;
    m.install_snapshot.last_index = i->info.index;
    m.install_snapshot.last_term = i->info.term;
    m.install_snapshot.conf_index = i->info.membership.index;
    core_lib_configuration(&i->info.membership, &m.install_snapshot.conf);
    m.install_snapshot.data = (struct raft_buffer){.base = raft_malloc(1), .len = 1};
    struct raft_event e = {.type = RAFT_RECEIVE};
    e.receive.message = &m;
    c->delivering = &i->info;
    core_event_ok(c, &e);
    c->delivering = NULL;
    c->stale_request = false;
}

/* Needs no file: the library answers by itself, of an older term or because all of it is here. */
static bool answered_without_file(const struct raft_core *c, const struct core_install *i)
{
    if (i->term < c->raft.current_term ||
        (c->has_snapshot && c->snapshot.index >= i->info.index))
        return true;
    return raft_log_has(&c->log, i->info.index) &&
           raft_log_get(&c->log, i->info.index)->term == i->info.term;
}

static bool same_snapshot(const struct core_install *a, const struct core_install *b)
{
    return a->from == b->from && a->info.index == b->info.index &&
           a->info.term == b->info.term &&
           memcmp(a->info.sha256, b->info.sha256, sizeof a->info.sha256) == 0;
}

void core_install_arrived(struct raft_core *c, const struct core_install *i)
{
    if (c->fetching.set && same_snapshot(&c->fetching, i)) {
        c->fetching.term = MAX(c->fetching.term, i->term); /* the leader asks again */
        return;
    }
    if (!idle(c)) {
        if (!c->waiting.set || i->term >= c->waiting.term)
            c->waiting = *i;
        return;
    }
    if (answered_without_file(c, i)) {
        deliver(c, i);
        return;
    }
    c->fetching = *i;
    CORE_CALL(c, snapshot_fetch, i->from, &c->fetching.info);
}

void raft_core_snapshot_received(struct raft_core *c, const struct raft_snapshot_info *info,
                                 uint64_t now_ms)
{
    core_clock(c, now_ms);
    ASSERT(c->fetching.set && info->index == c->fetching.info.index &&
           info->term == c->fetching.info.term);
    struct core_install i = c->fetching;
    c->fetching.set = false;
    /* What a leader of an older term sent is a committed prefix all the same: take it as if it came from
     * the present leader, who has it too, and hears from us how far we are. */
    if (i.term < c->raft.current_term && c->raft.state == RAFT_FOLLOWER &&
        c->raft.follower_state.current_leader.id != 0) {
        i.term = c->raft.current_term;
        i.from = c->raft.follower_state.current_leader.id;
    }
    deliver(c, &i);
    run_waiting(c);
}

void raft_core_snapshot_failed(struct raft_core *c, uint64_t now_ms)
{
    core_clock(c, now_ms);
    ASSERT(c->fetching.set);
    c->fetching.set = false;
    if (c->fetching.term == c->raft.current_term && c->raft.state == RAFT_FOLLOWER)
        core_send_rejection(c, c->fetching.from, c->fetching.info.index);
    run_waiting(c);
}

/* The library has taken the message and forgotten its log; so do we, and the disk. */
void core_install_begin(struct raft_core *c, struct raft_update *u)
{
    struct raft_snapshot_metadata *md = &u->snapshot.metadata;
    const struct raft_snapshot_info *info = c->delivering;
    ASSERT(info != NULL && info->index == md->index && info->term == md->term);
    ASSERT(!c->installing && info->index > c->applied);
    raft_configuration_close(&md->configuration);
    raft_free(u->snapshot.chunk.base);
    c->installing = true;
    raft_log_reset(&c->log, info->index + 1);
    core_store_snapshot(c, info, info->index, true);
}

static void installed_done(struct raft_core *c, const struct core_op *op)
{
    ASSERT(c->installing && c->raft.state == RAFT_FOLLOWER);
    struct raft_event e = {.type = RAFT_PERSISTED_SNAPSHOT};
    e.persisted_snapshot.metadata.index = op->info->index;
    e.persisted_snapshot.metadata.term = op->info->term;
    e.persisted_snapshot.metadata.configuration_index = op->info->membership.index;
    core_lib_configuration(&op->info->membership, &e.persisted_snapshot.metadata.configuration);
    e.persisted_snapshot.last = true;
    c->installing = false;
    c->has_snapshot = true;
    c->snapshot = *op->info;
    c->snapshot_ms = c->now_ms;
    c->committed = op->info->membership;
    core_restore(c);
    core_event_ok(c, &e);
}

void core_restore(struct raft_core *c)
{
    ASSERT(!c->restoring && !c->in_callback);
    c->in_callback = true;
    c->restoring = c->o.ops->snapshot_restore(c->o.arg, &c->snapshot);
    c->in_callback = false;
    if (!c->restoring)
        c->applied = c->snapshot.index;
    CORE_CALL(c, membership, &c->committed);
}

void raft_core_snapshot_restored(struct raft_core *c, uint64_t now_ms)
{
    core_clock(c, now_ms);
    ASSERT(c->restoring && c->applied < c->snapshot.index);
    c->restoring = false;
    c->applied = c->snapshot.index;
    core_go_on(c);
    run_waiting(c);
}

void core_snapshot_done(struct raft_core *c, struct core_op *op)
{
    if (op->installed)
        installed_done(c, op);
    else
        taken_done(c, op);
    run_waiting(c);
}
