/* Life, time, requests, facts. See raft_core_internal.h for the other parts. */
#include "dcs/raft_core.h"

#include "base/mem.h"
#include "dcs/raft_core_internal.h"

/* ---- memberships to and from the library ---- */

void core_lib_configuration(const struct raft_membership *m, struct raft_configuration *ret)
{
    struct buf data = BUF_INIT;
    raft_membership_encode(m, &data);
    struct raft_buffer b = {.base = data.p, .len = data.len};
    int r = raft_configuration_decode(&b, ret);
    ASSERT(r == 0);
    buf_close(&data);
}

void core_membership_of(const struct raft_configuration *conf, uint64_t index,
                        struct raft_membership *ret)
{
    *ret = (struct raft_membership){.index = index};
    if (conf->n == 0)
        return;
    struct raft_buffer b;
    int r = raft_configuration_encode(conf, &b);
    ASSERT(r == 0);
    enum err x = raft_membership_decode(slice_of(b.base, b.len), index, ret);
    ASSERT(x == ERR_OK);
    raft_free(b.base);
}

void raft_core_bootstrap_entry(const struct raft_membership *m, struct buf *ret_data)
{
    raft_membership_encode(m, ret_data);
}

/* ---- life ---- */

static enum err check_options(const struct raft_core_options *o, struct errmsg *e)
{
    if (o->id == 0 || o->id > INT64_MAX)
        return err_set(e, ERR_INVALID, "a member needs an id");
    if (o->heartbeat_ms == 0 || o->election_ms < 2 * o->heartbeat_ms ||
        o->election_ms > 3600000)
        return err_set(e, ERR_INVALID,
                       "election timeout %llu ms does not fit heartbeat %llu ms",
                       (unsigned long long)o->election_ms, (unsigned long long)o->heartbeat_ms);
    if (o->snapshot_every == 0 || o->trailing < o->snapshot_every || o->trailing > UINT32_MAX ||
        o->log_bytes_max == 0)
        return err_set(e, ERR_INVALID, "snapshots every %llu entries do not fit a tail of %llu",
                       (unsigned long long)o->snapshot_every, (unsigned long long)o->trailing);
    return ERR_OK;
}

enum err raft_core_new(const struct raft_core_options *o, struct raft_core **ret_core,
                       struct errmsg *e)
{
    ASSERT(o->ops != NULL);
    enum err r = check_options(o, e);
    if (r != ERR_OK)
        return r;
    struct raft_core *c = mem_alloc(sizeof *c);
    c->magic = CORE_MAGIC;
    c->o = *o;
    c->ops_end = &c->ops;
    c->held_end = &c->held;
    raft_log_init(&c->log, 1);
    int rv = raft_init(&c->raft, NULL, NULL, o->id, "self");
    ASSERT(rv == 0);
    raft_seed(&c->raft, (unsigned)(o->seed ^ o->seed >> 32) | 1U);
    raft_set_election_timeout(&c->raft, (unsigned)o->election_ms);
    raft_set_heartbeat_timeout(&c->raft, (unsigned)o->heartbeat_ms);
    raft_set_install_snapshot_timeout(&c->raft,
                                      (unsigned)MAX(30 * o->election_ms, (uint64_t)30000));
    raft_set_max_inflight_entries(&c->raft, CORE_PEER_INFLIGHT_ENTRIES);
    raft_set_pre_vote(&c->raft, true);
    *ret_core = c;
    return ERR_OK;
}

void raft_core_free(struct raft_core *c)
{
    if (c == NULL)
        return;
    CHECK_MAGIC(c, CORE_MAGIC);
    ASSERT(!c->in_callback);
    raft_close(&c->raft, NULL);
    core_free_ops(c);
    core_free_held(c);
    raft_log_close(&c->log);
    buf_close(&c->frame);
    c->magic = 0;
    mem_free(c);
}

/* ---- start ---- */

static enum err check_entries(const struct raft_core_disk *d, struct errmsg *e)
{
    uint64_t term = 1;
    struct raft_membership m;
    for (size_t i = 0; i < d->n; i++) {
        const struct raft_entry_view *v = &d->entries[i];
        uint64_t index = d->first_index + i;
        if (v->term < term || v->term > d->term)
            return err_set(e, ERR_CORRUPT, "log entry %llu has term %llu between %llu and %llu",
                           (unsigned long long)index, (unsigned long long)v->term,
                           (unsigned long long)term, (unsigned long long)d->term);
        if (v->type == RAFT_ENTRY_CHANGE &&
            raft_membership_decode(v->data, index, &m) != ERR_OK)
            return err_set(e, ERR_CORRUPT, "log entry %llu is no membership",
                           (unsigned long long)index);
        if (d->has_snapshot && index == d->snapshot.index && v->term != d->snapshot.term)
            return err_set(e, ERR_CORRUPT,
                           "log entry %llu and the snapshot differ in their terms",
                           (unsigned long long)index);
        term = v->term;
    }
    return ERR_OK;
}

static enum err check_disk(const struct raft_core_disk *d, struct errmsg *e)
{
    uint64_t last = d->first_index + d->n - 1;
    if (d->first_index == 0 || (d->n > 0 && d->term == 0) ||
        (d->term == 0 && d->voted_for != 0))
        return err_set(e, ERR_CORRUPT, "the log has entries or a vote, and no term");
    if (!d->has_snapshot) {
        if (d->n > 0 && (d->first_index != 1 || d->entries[0].type != RAFT_ENTRY_CHANGE))
            return err_set(e, ERR_CORRUPT,
                           "the log begins at entry %llu and there is no snapshot",
                           (unsigned long long)d->first_index);
        return check_entries(d, e);
    }
    if (d->snapshot.index == 0 || d->snapshot.term == 0 || d->snapshot.term > d->term ||
        d->snapshot.membership.index == 0 || d->snapshot.membership.index > d->snapshot.index ||
        raft_membership_check(&d->snapshot.membership, NULL) != ERR_OK)
        return err_set(e, ERR_CORRUPT, "the snapshot's record is damaged");
    if (d->first_index > d->snapshot.index + 1 || last < d->snapshot.index)
        return err_set(e, ERR_CORRUPT,
                       "the log (%llu to %llu) does not meet the snapshot at %llu",
                       (unsigned long long)d->first_index, (unsigned long long)last,
                       (unsigned long long)d->snapshot.index);
    return check_entries(d, e);
}

static void newest_membership(const struct raft_core_disk *d, struct raft_membership *ret)
{
    *ret = (struct raft_membership){0};
    if (d->has_snapshot)
        *ret = d->snapshot.membership;
    for (size_t i = 0; i < d->n; i++) {
        const struct raft_entry_view *v = &d->entries[i];
        if (v->type == RAFT_ENTRY_CHANGE && d->first_index + i > ret->index) {
            enum err r = raft_membership_decode(v->data, d->first_index + i, ret);
            ASSERT(r == ERR_OK);
        }
    }
}

static void load(struct raft_core *c, const struct raft_core_disk *d)
{
    raft_log_reset(&c->log,
                   d->n == 0 && d->has_snapshot ? d->snapshot.index + 1 : d->first_index);
    for (size_t i = 0; i < d->n; i++)
        raft_log_append(&c->log, d->entries[i].term, d->entries[i].type, d->entries[i].data);
    c->meta_term = d->term;
    c->meta_vote = d->voted_for;
    if (d->has_snapshot) {
        c->has_snapshot = true;
        c->snapshot = d->snapshot;
        c->committed = d->snapshot.membership;
        c->applied = d->snapshot.index;
    }
    newest_membership(d, &c->membership);
}

static void start_lib(struct raft_core *c, const struct raft_core_disk *d)
{
    struct raft_snapshot_metadata md = {.index = d->snapshot.index, .term = d->snapshot.term};
    struct raft_entry *entries = mem_array(d->n, sizeof *entries);
    for (size_t i = 0; i < d->n; i++) {
        const struct raft_entry_view *v = &d->entries[i];
        entries[i] = (struct raft_entry){.term = v->term,
                                         .type = (enum raft_lib_entry_type)v->type,
                                         .buf = {.base = (void *)v->data.p, .len = v->data.n}};
    }
    /* The library would make a sole voter the leader of its old term at once. */
    bool sole = raft_membership_sole_voter(&c->membership, c->o.id);
    struct raft_event e = {.type = RAFT_START};
    e.start.term = sole ? d->term + 1 : d->term;
    e.start.voted_for = sole ? c->o.id : d->voted_for;
    e.start.start_index = c->log.first;
    e.start.entries = entries;
    e.start.n_entries = (unsigned)d->n;
    if (d->has_snapshot) {
        md.configuration_index = d->snapshot.membership.index;
        core_lib_configuration(&d->snapshot.membership, &md.configuration);
        e.start.metadata = &md;
    }
    core_event_ok(c, &e);
    mem_free(entries);
}

enum err raft_core_start(struct raft_core *c, const struct raft_core_disk *disk,
                         uint64_t now_ms, struct errmsg *e)
{
    core_clock(c, now_ms);
    ASSERT(!c->started);
    enum err r = check_disk(disk, e);
    if (r != ERR_OK)
        return r;
    load(c, disk);
    c->started = true;
    c->told_term = UINT64_MAX; /* the first role is always told */
    if (c->has_snapshot) {
        CORE_CALL(c, snapshot_restore, &c->snapshot);
        CORE_CALL(c, membership, &c->committed);
    }
    start_lib(c, disk);
    return ERR_OK;
}

/* ---- time ---- */

uint64_t raft_core_deadline(const struct raft_core *c)
{
    CHECK_MAGIC(c, CORE_MAGIC);
    ASSERT(c->started);
    uint64_t t = raft_timeout(&c->raft);
    /* A member that gets no heartbeats (a spare) keeps the library's deadline in the past. */
    if (t <= c->ticked_ms)
        t = c->ticked_ms + MAX(c->o.heartbeat_ms / 4, (uint64_t)1);
    return t;
}

void raft_core_tick(struct raft_core *c, uint64_t now_ms)
{
    core_clock(c, now_ms);
    ASSERT(c->started);
    c->ticked_ms = c->now_ms;
    if (c->raft.state == RAFT_FOLLOWER && c->now_ms >= raft_timeout(&c->raft) &&
        !c->installing && c->raft.last_stored == core_last_index(c) &&
        raft_membership_sole_voter(&c->membership, c->o.id))
        core_raise_term(c);
    struct raft_event e = {.type = RAFT_TIMEOUT};
    core_event_ok(c, &e);
}

/* ---- requests ---- */

static bool leads(const struct raft_core *c)
{
    return c->raft.state == RAFT_LEADER && raft_transferee(&c->raft) == 0;
}

enum err raft_core_submit(struct raft_core *c, struct slice data, uint64_t now_ms,
                          uint64_t *ret_index)
{
    core_clock(c, now_ms);
    if (!c->started || !leads(c))
        return ERR_UNAVAILABLE;
    if (data.n > RAFT_FRAME_ENTRY_MAX)
        return ERR_LIMIT;
    uint64_t commit = c->raft.commit_index;
    if (core_last_index(c) - commit >= CORE_INFLIGHT_ENTRIES_MAX ||
        raft_log_bytes(&c->log, commit + 1, core_last_index(c)) + data.n >
            CORE_INFLIGHT_BYTES_MAX)
        return ERR_LIMIT;
    *ret_index = core_last_index(c) + 1;
    int r = core_submit(c, RAFT_ENTRY_COMMAND, data);
    ASSERT(r == 0);
    return ERR_OK;
}

static enum err check_change(struct raft_core *c, const struct raft_membership *m,
                             struct errmsg *e)
{
    if (!c->started || !leads(c))
        return err_set(e, ERR_UNAVAILABLE, "this node does not lead");
    if (raft_core_change_pending(c))
        return err_set(e, ERR_PRECONDITION, "another membership change is under way");
    /* Ongaro, raft-dev 2015-07-10: a change before an entry of the own term is committed is unsafe. */
    if (c->raft.commit_index < c->term_start)
        return err_set(e, ERR_UNAVAILABLE,
                       "the new leader has not committed an entry yet, try again");
    enum err r = raft_membership_check(m, e);
    if (r != ERR_OK)
        return r;
    if (raft_membership_distance(&c->membership, m) != 1)
        return err_set(e, ERR_INVALID, "a change adds, removes or alters exactly one member");
    const struct raft_server *self = raft_membership_find(m, c->o.id);
    if (self == NULL || self->role != RAFT_ROLE_VOTER)
        return err_set(e, ERR_PRECONDITION,
                       "the leader cannot leave: transfer the leadership first");
    return ERR_OK;
}

enum err raft_core_change(struct raft_core *c, const struct raft_membership *m, uint64_t now_ms,
                          uint64_t *ret_index, struct errmsg *e)
{
    core_clock(c, now_ms);
    enum err r = check_change(c, m, e);
    if (r != ERR_OK)
        return r;
    struct raft_membership ordered;
    raft_membership_in_order(&c->membership, m, &ordered);
    struct buf data = BUF_INIT;
    raft_membership_encode(&ordered, &data);
    *ret_index = core_last_index(c) + 1;
    int rv = core_submit(c, RAFT_ENTRY_CHANGE, buf_slice(&data));
    ASSERT(rv == 0 && raft_core_change_pending(c));
    buf_close(&data);
    return ERR_OK;
}

enum err raft_core_transfer(struct raft_core *c, uint64_t to, uint64_t now_ms)
{
    core_clock(c, now_ms);
    if (!c->started || !leads(c))
        return ERR_UNAVAILABLE;
    const struct raft_server *s = to == 0 ? NULL : raft_membership_find(&c->membership, to);
    if (to != 0 && (s == NULL || s->role != RAFT_ROLE_VOTER || to == c->o.id))
        return ERR_INVALID;
    struct raft_event e = {.type = RAFT_TRANSFER};
    e.transfer.server_id = to;
    int r = core_event(c, &e);
    ASSERT(r == 0 || r == RAFT_NOTFOUND);
    return r == 0 ? ERR_OK : ERR_PRECONDITION;
}

/* ---- facts ---- */

enum raft_core_state raft_core_state(const struct raft_core *c)
{
    CHECK_MAGIC(c, CORE_MAGIC);
    switch (c->raft.state) {
    case RAFT_LEADER:
        return RAFT_CORE_LEADER;
    case RAFT_CANDIDATE:
        return RAFT_CORE_CANDIDATE;
    default:
        return RAFT_CORE_FOLLOWER;
    }
}

uint64_t raft_core_term(const struct raft_core *c)
{
    return c->raft.current_term;
}

/* A learner never gives up a leader by itself: two rounds of silence do. */
uint64_t raft_core_leader(const struct raft_core *c)
{
    if (c->raft.state == RAFT_LEADER)
        return c->o.id;
    if (c->raft.state != RAFT_FOLLOWER || c->now_ms - c->leader_heard_ms > 2 * c->o.election_ms)
        return 0;
    return c->raft.follower_state.current_leader.id;
}

uint64_t raft_core_last_index(const struct raft_core *c)
{
    return core_last_index(c);
}

uint64_t raft_core_stored_index(const struct raft_core *c)
{
    return c->raft.last_stored;
}

uint64_t raft_core_commit_index(const struct raft_core *c)
{
    return c->raft.commit_index;
}

uint64_t raft_core_applied_index(const struct raft_core *c)
{
    return c->applied;
}

uint64_t raft_core_term_start(const struct raft_core *c)
{
    return c->term_start;
}

uint64_t raft_core_match_index(const struct raft_core *c, uint64_t member_id)
{
    raft_index index = 0;
    if (c->raft.state != RAFT_LEADER || raft_match_index(&c->raft, member_id, &index) != 0)
        return 0;
    return index;
}

bool raft_core_recently_heard(const struct raft_core *c, uint64_t member_id, uint64_t now_ms)
{
    if (c->raft.state != RAFT_LEADER)
        return false;
    if (member_id == c->o.id)
        return true;
    for (size_t i = 0; i < c->n_peers; i++) {
        if (c->peers[i].id == member_id)
            return now_ms < c->peers[i].heard_ms + c->o.election_ms;
    }
    return false;
}

size_t raft_core_log_bytes(const struct raft_core *c)
{
    return raft_log_bytes(&c->log, c->log.first, c->log.last);
}

const struct raft_membership *raft_core_membership(const struct raft_core *c)
{
    return &c->membership;
}

bool raft_core_change_pending(const struct raft_core *c)
{
    return c->raft.configuration_uncommitted_index != 0;
}
