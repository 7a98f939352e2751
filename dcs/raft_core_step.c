/* One event through the library, and all that follows from it. */
#include "dcs/raft_core_internal.h"

void core_clock(struct raft_core *c, uint64_t now_ms)
{
    CHECK_MAGIC(c, CORE_MAGIC);
    ASSERT(!c->in_callback);
    c->now_ms = MAX(c->now_ms, now_ms);
}

/* ---- the update of one step, in the order it must reach the disk and the network ---- */

static bool has_change(const struct raft_update *u)
{
    for (unsigned i = 0; (u->flags & (RAFT_UPDATE_ENTRIES)) && i < u->entries.n; i++)
        if ((enum raft_entry_type)u->entries.batch[i].type == RAFT_ENTRY_CHANGE)
            return true;
    return false;
}

static void on_entries(struct raft_core *c, const struct raft_update *u)
{
    ASSERT(u->entries.n > 0 && u->entries.index > 0);
    core_store_entries(c, u->entries.index, u->entries.batch, u->entries.n);
    for (unsigned i = 0; i < u->entries.n; i++) {
        const struct raft_entry *e = &u->entries.batch[i];
        if ((enum raft_entry_type)e->type == RAFT_ENTRY_BARRIER &&
            c->raft.state == RAFT_LEADER && !c->was_leader)
            c->term_start = u->entries.index + i;
    }
    raft_free(u->entries.batch[0].batch);
}

/* The library says nothing when a membership comes, goes back or is restored: compare. */
static void on_membership(struct raft_core *c, bool new_change)
{
    uint64_t index = c->raft.configuration_uncommitted_index != 0
                         ? c->raft.configuration_uncommitted_index
                         : c->raft.configuration_committed_index;
    if (index != c->membership.index || new_change)
        core_membership_of(&c->raft.configuration, index, &c->membership);
}

static void on_update(struct raft_core *c, struct raft_update *u)
{
    bool entries = u->flags & (RAFT_UPDATE_ENTRIES);
    bool change = has_change(u); /* asked before the entries are handed on */
    if (c->raft.current_term != c->meta_term || c->raft.voted_for != c->meta_vote)
        core_store_meta(c);
    if (entries)
        on_entries(c, u);
    if (u->flags & (RAFT_UPDATE_SNAPSHOT))
        core_install_begin(c, u);
    on_membership(c, change);
    ASSERT(raft_last_index(&c->raft) == core_last_index(c));
    if (u->flags & (RAFT_UPDATE_MESSAGES)) {
        for (unsigned i = 0; i < u->messages.n; i++)
            core_send(c, &u->messages.batch[i]);
    }
}

static int step(struct raft_core *c, struct raft_event *event)
{
    ASSERT(c->started && !c->in_callback);
    struct raft_update update;
    memset(&update, 0, sizeof update);
    event->time = c->now_ms;
    event->capacity = UINT16_MAX;
    raft_index commit = c->raft.commit_index;
    int r = raft_step(&c->raft, event, &update);
    /* A late AppendEntries of a prefix takes the library's commit index back to its own end. */
    c->raft.commit_index = MAX(c->raft.commit_index, commit);
    ASSERT(r != RAFT_NOMEM);
    if (r != 0) {
        /* Nothing was appended, but a term may have been learned on the way. */
        update.flags &= ~(unsigned)((RAFT_UPDATE_ENTRIES) | (RAFT_UPDATE_SNAPSHOT));
    }
    on_update(c, &update);
    return r;
}

static void step_ok(struct raft_core *c, struct raft_event *event)
{
    int r = step(c, event);
    ASSERT(r == 0);
}

/* ---- applying ---- */

static void apply_change(struct raft_core *c, uint64_t index,
                         const struct raft_log_entry *entry)
{
    struct raft_membership m;
    enum err r = raft_membership_decode(raft_log_view(entry).data, index, &m);
    ASSERT(r == ERR_OK); /* checked when it came in */
    c->committed = m;
    struct raft_event e = {.type = RAFT_CONFIGURATION};
    e.configuration.index = index;
    core_lib_configuration(&m, &e.configuration.conf);
    step_ok(c, &e);
    CORE_CALL(c, membership, &c->committed);
}

/* While a snapshot is being installed the commit index may already lie behind it. */
bool core_behind(const struct raft_core *c)
{
    return !c->installing && !c->restoring && !c->paused && c->applied < c->raft.commit_index;
}

static void apply_command(struct raft_core *c, uint64_t index,
                          const struct raft_log_entry *entry)
{
    ASSERT(!c->in_callback);
    c->in_callback = true;
    c->turn_bytes += c->o.ops->apply(c->o.arg, index, entry->term, raft_log_view(entry).data);
    c->in_callback = false;
}

/* Not all in one turn: behind a snapshot, or a restart, there may be tens of MiB, and a few short commands that
 * delete much may be committed together. A leader would not be answered meanwhile, nor a follower hear of
 * it. */
static void apply_committed(struct raft_core *c)
{
    enum { ENTRY_COST = 64 }; /* of applying, in bytes, besides those of the entry */
    while (core_behind(c) && c->turn_bytes < c->o.apply_bytes_max) {
        uint64_t index = c->applied + 1;
        const struct raft_log_entry *entry = raft_log_get(&c->log, index);
        c->applied = index;
        c->turn_bytes += entry->len + ENTRY_COST;
        switch (entry->type) {
        case RAFT_ENTRY_COMMAND:
            apply_command(c, index, entry);
            break;
        case RAFT_ENTRY_CHANGE:
            apply_change(c, index, entry);
            break;
        case RAFT_ENTRY_BARRIER:
            break;
        }
    }
}

/* ---- role ---- */

/* A new leader knows what is committed when an entry of its own term is. The library writes a barrier
 * only when it has uncommitted entries, and never as the sole voter. */
static void on_leadership(struct raft_core *c)
{
    bool leader = c->raft.state == RAFT_LEADER;
    if (leader && !c->was_leader) {
        c->n_peers = 0;
        if (c->term_start == 0) {
            static const uint8_t nothing[8];
            int r = core_submit(c, RAFT_ENTRY_BARRIER, slice_of(nothing, sizeof nothing));
            ASSERT(r == 0 && c->term_start != 0);
        }
    }
    if (!leader)
        c->term_start = 0;
    c->was_leader = leader;
}

static void tell_role(struct raft_core *c)
{
    enum raft_core_state state = raft_core_state(c);
    uint64_t leader = raft_core_leader(c);
    if (state == c->told_state && c->raft.current_term == c->told_term &&
        leader == c->told_leader)
        return;
    c->told_state = state;
    c->told_term = c->raft.current_term;
    c->told_leader = leader;
    CORE_CALL(c, role, state, c->told_term, leader);
}

void raft_core_turn(struct raft_core *c)
{
    CHECK_MAGIC(c, CORE_MAGIC);
    c->turn_bytes = 0;
}

void core_go_on(struct raft_core *c)
{
    on_leadership(c);
    apply_committed(c);
    on_leadership(c); /* an applied change may have deposed us */
    tell_role(c);
}

int core_event(struct raft_core *c, struct raft_event *event)
{
    int r = step(c, event);
    core_go_on(c);
    return r;
}

void core_event_ok(struct raft_core *c, struct raft_event *event)
{
    int r = core_event(c, event);
    ASSERT(r == 0);
}

int core_submit(struct raft_core *c, enum raft_entry_type type, struct slice data)
{
    ASSERT(c->raft.state == RAFT_LEADER);
    /* The library passes the pointers through to the update: no copy, and a batch only to be freed. */
    struct raft_entry entry = {.term = c->raft.current_term,
                               .type = (enum raft_lib_entry_type)type,
                               .buf = {.base = (void *)data.p, .len = data.n},
                               .batch = raft_malloc(1)};
    ASSERT(entry.batch != NULL);
    struct raft_event e = {.type = RAFT_SUBMIT};
    e.submit.entries = &entry;
    e.submit.n = 1;
    int r = step(c, &e);
    if (r != 0)
        raft_free(entry.batch);
    return r;
}

/* The library elects a sole voter without a new term. Entries of its last life may have reached a
 * learner before the own disk; new ones in the same term under the same index would be taken for
 * them (docs/decisions/0001). */
void core_raise_term(struct raft_core *c)
{
    ASSERT(c->raft.state == RAFT_FOLLOWER &&
           raft_membership_sole_voter(&c->membership, c->o.id));
    c->raft.current_term++;
    c->raft.voted_for = c->o.id;
    c->raft.follower_state.match = 0;
}

/* A change entry is proposed only after the one before it is committed. The library believes a change
 * committed only when it is applied, and forgets one that a second change overtakes. */
void core_confirm_change(struct raft_core *c)
{
    ASSERT(c->raft.configuration_uncommitted_index != 0);
    struct raft_event e = {.type = RAFT_CONFIGURATION};
    e.configuration.index = c->raft.configuration_uncommitted_index;
    core_lib_configuration(&c->membership, &e.configuration.conf);
    step_ok(c, &e);
}
