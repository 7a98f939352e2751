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
    if (c->o.apply_bytes_max == 0)
        c->o.apply_bytes_max = CORE_APPLY_BYTES_MAX;
    c->ops_end = &c->ops;
    c->held_end = &c->held;
    raft_log_init(&c->log, 1);
    int rv = raft_init(&c->raft, NULL, NULL, o->id, "self");
    ASSERT(rv == 0);
    c->raft.tracer = NULL; /* the default one formats a line a step, for nobody */
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

/* ---- time ---- */

/* When the library wants to be called. */
static uint64_t lib_deadline(const struct raft_core *c)
{
    uint64_t t = raft_timeout(&c->raft);
    /* A member that gets no heartbeats (a spare) keeps the library's deadline in the past. */
    if (t <= c->ticked_ms)
        t = c->ticked_ms + MAX(c->o.heartbeat_ms / 4, (uint64_t)1);
    return t;
}

uint64_t raft_core_deadline(const struct raft_core *c)
{
    CHECK_MAGIC(c, CORE_MAGIC);
    ASSERT(c->started);
    return core_behind(c) ? c->now_ms : lib_deadline(c);
}

void raft_core_tick(struct raft_core *c, uint64_t now_ms)
{
    core_clock(c, now_ms);
    ASSERT(c->started);
    if (c->now_ms < lib_deadline(c)) {
        core_go_on(c);
        return;
    }
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

/* A voter that has nothing can neither vote nor acknowledge: the cluster would stand still, with two
 * voters for ever if the leader is lost just then. */
static enum err check_promotions(struct raft_core *c, const struct raft_membership *m,
                                 struct errmsg *e)
{
    for (size_t i = 0; i < m->n; i++) {
        const struct raft_server *s = &m->servers[i];
        const struct raft_server *was = raft_membership_find(&c->membership, s->id);
        if (s->role != RAFT_ROLE_VOTER || (was != NULL && was->role == RAFT_ROLE_VOTER))
            continue;
        uint64_t match = raft_core_match_index(c, s->id);
        if (was == NULL || !raft_core_recently_heard(c, s->id, c->now_ms) ||
            match < c->membership.index || core_last_index(c) - match > CORE_PROMOTE_LAG_MAX)
            return err_set(
                e, ERR_PRECONDITION,
                "member %llu has not caught up: a learner with entry %llu of %llu cannot "
                "become a voter yet",
                (unsigned long long)s->id, (unsigned long long)match,
                (unsigned long long)core_last_index(c));
    }
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
    return check_promotions(c, m, e);
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

void raft_core_pause_apply(struct raft_core *c, bool pause)
{
    CHECK_MAGIC(c, CORE_MAGIC);
    c->paused = pause;
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

uint64_t raft_core_snapshot_index(const struct raft_core *c)
{
    return c->has_snapshot ? c->snapshot.index : 0;
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
