/* Frames of members to the library's messages, in pieces where it needs them. */
#include "base/mem.h"
#include "dcs/raft_core_internal.h"

/* The library keeps its leader's address; replies go by id. */
static const char ANY_ADDRESS[] = "member";

static struct raft_message message(const struct raft_frame *f, uint64_t from,
                                   enum raft_message_type type)
{
    struct raft_message m;
    memset(&m, 0, sizeof m);
    m.type = type;
    m.server_id = from;
    m.server_address = ANY_ADDRESS;
    ASSERT(f->term != 0 && from != 0);
    return m;
}

static int receive(struct raft_core *c, struct raft_message *m)
{
    struct raft_event e = {.type = RAFT_RECEIVE};
    e.receive.message = m;
    return core_event(c, &e);
}

static void note_heard(struct raft_core *c, uint64_t from)
{
    for (size_t i = 0; i < c->n_peers; i++) {
        if (c->peers[i].id == from) {
            c->peers[i].heard_ms = c->now_ms;
            return;
        }
    }
    if (c->n_peers < RAFT_CORE_MEMBERS_MAX)
        c->peers[c->n_peers++] = (struct core_peer){.id = from, .heard_ms = c->now_ms};
}

/* The library lets a leader that hears another one of its own term write over its state. There cannot
 * be one; a peer that says so is broken. */
static enum err check_leader(struct raft_core *c, const struct raft_frame *f, uint64_t from,
                             struct errmsg *e)
{
    if (c->raft.state == RAFT_LEADER && f->term == c->raft.current_term)
        return err_set(e, ERR_INVALID, "member %llu claims to lead term %llu, which is ours",
                       (unsigned long long)from, (unsigned long long)f->term);
    if (f->term >= c->raft.current_term)
        c->leader_heard_ms = c->now_ms;
    else
        c->stale_request = true;
    return ERR_OK;
}

/* ---- AppendEntries ---- */

/* Would the library take entries behind this position? */
static bool log_matches(const struct raft_core *c, uint64_t index, uint64_t term)
{
    if (index == 0)
        return true;
    if (raft_log_has(&c->log, index))
        return raft_log_get(&c->log, index)->term == term;
    return c->has_snapshot && c->snapshot.index == index && c->snapshot.term == term;
}

/* Before a new change is taken, the one before it (see core_confirm_change). */
static void before_change(struct raft_core *c, const struct raft_append_entries *a)
{
    uint64_t pending = c->raft.configuration_uncommitted_index;
    uint64_t index = a->prev_log_index + 1;
    if (pending == 0 || pending >= index || a->term < c->raft.current_term || c->installing)
        return;
    bool known = raft_log_has(&c->log, index) &&
                 raft_log_get(&c->log, index)->term == a->entries[0].term;
    if (!known && log_matches(c, a->prev_log_index, a->prev_log_term))
        core_confirm_change(c);
}

static enum err receive_piece(struct raft_core *c, struct raft_message *m, struct errmsg *e)
{
    struct raft_append_entries *a = &m->append_entries;
    if (a->n_entries > 0) {
        void *batch =
            raft_malloc(1); /* freed by the library, or by us when it stores any of them */
        ASSERT(batch != NULL);
        for (unsigned i = 0; i < a->n_entries; i++)
            a->entries[i].batch = batch;
        if ((enum raft_entry_type)a->entries[0].type == RAFT_ENTRY_CHANGE)
            before_change(c, a);
    }
    if (receive(c, m) != 0)
        return err_set(
            e, ERR_CORRUPT,
            "member %llu sent entries behind %llu that contradict committed ones here: one of "
            "the two has lost data",
            (unsigned long long)m->server_id, (unsigned long long)a->prev_log_index);
    return ERR_OK;
}

static void entry_to_lib(const struct raft_entry_view *v, struct raft_entry *ret)
{
    *ret = (struct raft_entry){.term = v->term,
                               .type = (enum raft_lib_entry_type)v->type,
                               .buf = {.base = (void *)v->data.p, .len = v->data.n}};
}

/* What lies at or below the commit index is here already, perhaps trimmed. The library takes a late entry
 * that was trimmed for a new one and appends it behind the end: begin behind the commit index instead. That
 * position matches, for whoever leads our term or a later one has all that is committed. */
static enum err skip_committed(const struct raft_core *c, struct raft_frame *f, uint64_t from,
                               struct errmsg *e)
{
    uint64_t commit = c->raft.commit_index;
    if (f->term < c->raft.current_term || c->installing || f->append.prev_index >= commit)
        return ERR_OK;
    size_t skip = (size_t)MIN(commit - f->append.prev_index, (uint64_t)f->append.n);
    for (size_t i = 0; i < skip; i++) {
        uint64_t index = f->append.prev_index + 1 + i;
        if (raft_log_has(&c->log, index) &&
            raft_log_get(&c->log, index)->term != f->append.entries[i].term)
            return err_set(e, ERR_CORRUPT,
                           "member %llu has entry %llu of term %llu, here term %llu is "
                           "committed: one of the "
                           "two has lost data",
                           (unsigned long long)from, (unsigned long long)index,
                           (unsigned long long)f->append.entries[i].term,
                           (unsigned long long)raft_log_get(&c->log, index)->term);
    }
    bool in_log = raft_log_has(&c->log, commit);
    ASSERT(in_log || (c->has_snapshot && c->snapshot.index == commit));
    f->append.prev_index = commit;
    f->append.prev_term = in_log ? raft_log_get(&c->log, commit)->term : c->snapshot.term;
    f->append.n -= skip;
    if (f->append.n > 0)
        memmove(f->append.entries, f->append.entries + skip,
                f->append.n * sizeof f->append.entries[0]);
    return ERR_OK;
}

/* A change must be the first of what the library sees: behind others in one message it would be recorded
 * under their index. The sender splits too; this does not rest on it. */
static enum err receive_append(struct raft_core *c, struct raft_frame *f, uint64_t from,
                               struct errmsg *e)
{
    enum err r = skip_committed(c, f, from, e);
    size_t n = f->append.n;
    struct raft_entry *entries = n == 0 ? NULL : mem_array(n, sizeof *entries);
    for (size_t i = 0; i < n; i++)
        entry_to_lib(&f->append.entries[i], &entries[i]);
    for (size_t at = 0, end = 0; r == ERR_OK && (at < n || at == 0); at = end) {
        end = at + (n > 0);
        while (end < n && f->append.entries[end].type != RAFT_ENTRY_CHANGE)
            end++;
        struct raft_message m = message(f, from, RAFT_APPEND_ENTRIES);
        m.append_entries.term = f->term;
        m.append_entries.prev_log_index = f->append.prev_index + at;
        m.append_entries.prev_log_term =
            at == 0 ? f->append.prev_term : f->append.entries[at - 1].term;
        m.append_entries.leader_commit = f->append.commit;
        m.append_entries.entries = entries == NULL ? NULL : entries + at;
        m.append_entries.n_entries = (unsigned)(end - at);
        r = receive_piece(c, &m, e);
        if (n == 0)
            break;
    }
    mem_free(entries);
    return r;
}

/* ---- the rest ---- */

static enum err receive_append_result(struct raft_core *c, const struct raft_frame *f,
                                      uint64_t from)
{
    if (c->raft.state != RAFT_LEADER)
        return ERR_OK;
    if (f->term == c->raft.current_term)
        note_heard(c, from);
    struct raft_message m = message(f, from, RAFT_APPEND_ENTRIES_RESULT);
    m.append_entries_result.version = 2;
    m.append_entries_result.term = f->term;
    /* A rejection that was overtaken by the acceptance of the same entry would take the library's next
     * index below the acknowledged one, from where it sends nothing for ever: only count it as heard. */
    if (f->append_result.rejected == 0 ||
        f->append_result.rejected > raft_core_match_index(c, from)) {
        m.append_entries_result.rejected = f->append_result.rejected;
        m.append_entries_result.last_log_index = f->append_result.last_index;
    }
    int r = receive(c, &m);
    ASSERT(r == 0);
    return ERR_OK;
}

static void forget_silent_leader(struct raft_core *c)
{
    if (c->now_ms - c->leader_heard_ms < c->o.election_ms)
        return;
    c->raft.follower_state.current_leader.id = 0;
    raft_free(c->raft.follower_state.current_leader.address);
    c->raft.follower_state.current_leader.address = NULL;
}

/* A candidate asks the voters of its own membership, and a vote counts by that alone (Raft thesis, 4.1).
 * The library refuses when the own, older membership says learner: one voter that promoted a second and
 * lost its leadership before the second heard of it would wait for that vote for ever. So a learner that is
 * asked answers as a voter. It also never drops a silent leader by itself, as voters do. */
static struct raft_lib_server *vote_as_voter(struct raft_core *c, int *ret_role)
{
    if (c->raft.state != RAFT_FOLLOWER)
        return NULL;
    for (unsigned i = 0; i < c->raft.configuration.n; i++) {
        struct raft_lib_server *s = &c->raft.configuration.servers[i];
        if (s->id == c->o.id && s->role != RAFT_VOTER) {
            forget_silent_leader(c);
            *ret_role = s->role;
            s->role = RAFT_VOTER;
            return s;
        }
    }
    return NULL;
}

static enum err receive_vote(struct raft_core *c, const struct raft_frame *f, uint64_t from)
{
    struct raft_message m = message(f, from, RAFT_REQUEST_VOTE);
    m.request_vote.version = 2;
    m.request_vote.term = f->term;
    m.request_vote.candidate_id = from;
    m.request_vote.last_log_index = f->vote.last_index;
    m.request_vote.last_log_term = f->vote.last_term;
    m.request_vote.disrupt_leader = f->vote.disrupt_leader;
    m.request_vote.pre_vote = f->vote.pre_vote;
    const struct raft_lib_server *servers = c->raft.configuration.servers;
    int role = RAFT_STANDBY;
    struct raft_lib_server *learner = vote_as_voter(c, &role);
    int r = receive(c, &m);
    ASSERT(r == 0 &&
           c->raft.configuration.servers == servers); /* a vote alters no membership */
    if (learner != NULL)
        learner->role = role;
    return ERR_OK;
}

/* To anybody but a candidate it says nothing, and the library would read a candidate's fields out of
 * another state's. A real vote for a term we are not in is no vote either. */
static enum err receive_vote_result(struct raft_core *c, const struct raft_frame *f,
                                    uint64_t from)
{
    if (c->raft.state != RAFT_CANDIDATE)
        return ERR_OK;
    struct raft_message m = message(f, from, RAFT_REQUEST_VOTE_RESULT);
    m.request_vote_result.version = 2;
    m.request_vote_result.term = f->term;
    m.request_vote_result.vote_granted = f->vote_result.granted;
    m.request_vote_result.pre_vote = f->vote_result.pre_vote;
    int r = receive(c, &m);
    ASSERT(r == 0);
    return ERR_OK;
}

static enum err receive_timeout_now(struct raft_core *c, const struct raft_frame *f,
                                    uint64_t from)
{
    struct raft_message m = message(f, from, RAFT_TIMEOUT_NOW);
    m.timeout_now.term = f->term;
    m.timeout_now.last_log_index = f->timeout_now.last_index;
    m.timeout_now.last_log_term = f->timeout_now.last_term;
    int r = receive(c, &m);
    ASSERT(r == 0);
    return ERR_OK;
}

static enum err receive_frame(struct raft_core *c, struct raft_frame *f, uint64_t from,
                              struct errmsg *e)
{
    enum err r = ERR_OK;
    switch (f->type) {
    case RAFT_FRAME_APPEND:
        r = check_leader(c, f, from, e);
        return r != ERR_OK ? r : receive_append(c, f, from, e);
    case RAFT_FRAME_INSTALL:
        r = check_leader(c, f, from, e);
        if (r == ERR_OK) {
            struct core_install i = {
                .set = true, .from = from, .term = f->term, .info = f->install};
            core_install_arrived(c, &i);
        }
        return r;
    case RAFT_FRAME_APPEND_RESULT:
        return receive_append_result(c, f, from);
    case RAFT_FRAME_VOTE:
        return receive_vote(c, f, from);
    case RAFT_FRAME_VOTE_RESULT:
        return receive_vote_result(c, f, from);
    case RAFT_FRAME_TIMEOUT_NOW:
        return receive_timeout_now(c, f, from);
    }
    UNREACHABLE();
}

enum err raft_core_receive(struct raft_core *c, uint64_t from, struct slice frame,
                           uint64_t now_ms, struct errmsg *e)
{
    core_clock(c, now_ms);
    ASSERT(c->started);
    if (from == 0 || from == c->o.id)
        return err_set(e, ERR_INVALID, "a raft frame from member %llu, which is %s",
                       (unsigned long long)from, from == 0 ? "nobody" : "this one");
    struct raft_frame f;
    enum err r = raft_frame_decode(frame, &f, e);
    if (r == ERR_OK) {
        core_hear_frame(c, from, &f);
        r = receive_frame(c, &f, from, e);
    }
    c->stale_request = false;
    raft_frame_close(&f);
    return r;
}
