/* Messages of the library as frames. Whatever is said while a term or vote is not yet stored waits for
 * it: a node must not be heard in a term that it could forget. */
#include "base/mem.h"
#include "base/mutant.h"
#include "dcs/raft_core_internal.h"

static void hold_frame(struct raft_core *c, uint64_t to, struct slice bytes)
{
    if (c->held_bytes + bytes.n > CORE_HELD_BYTES_MAX)
        return; /* as good as lost on the way */
    struct core_held_frame *h = mem_alloc(sizeof *h + bytes.n);
    h->to = to;
    h->meta = c->meta_asked;
    h->n = bytes.n;
    memcpy(h->bytes, bytes.p, bytes.n);
    *c->held_end = h;
    c->held_end = &h->next;
    c->held_bytes += bytes.n;
}

static void drop_first_held(struct raft_core *c)
{
    struct core_held_frame *h = c->held;
    c->held = h->next;
    if (c->held == NULL)
        c->held_end = &c->held;
    c->held_bytes -= h->n;
    mem_free(h);
}

void core_release_held(struct raft_core *c)
{
    while (c->held != NULL && (c->held->meta <= c->meta_stored || MUTANT(vote_before_fsync))) {
        CORE_CALL(c, send, c->held->to, slice_of(c->held->bytes, c->held->n));
        drop_first_held(c);
    }
    ASSERT(c->meta_stored < c->meta_asked || c->held == NULL);
}

void core_free_held(struct raft_core *c)
{
    while (c->held != NULL)
        drop_first_held(c);
}

static void send_frame(struct raft_core *c, uint64_t to, const struct raft_frame *f)
{
    ASSERT(to != 0 && to != c->o.id);
    buf_clear(&c->frame);
    raft_frame_encode(f, &c->frame);
    if (c->meta_stored < c->meta_asked)
        hold_frame(c, to, buf_slice(&c->frame));
    else
        CORE_CALL(c, send, to, buf_slice(&c->frame));
}

/* How many entries from `first` on fit one frame: a change begins one, 1 MiB ends it. */
static size_t frame_entries(const struct raft_core *c, uint64_t first, uint64_t last)
{
    size_t n = 0;
    size_t bytes = 0;
    for (uint64_t i = first; i <= last && n < RAFT_FRAME_ENTRIES_MAX; i++, n++) {
        const struct raft_log_entry *e = raft_log_get(&c->log, i);
        bytes += e->len + RAFT_FRAME_ENTRY_OVERHEAD;
        if (n > 0 && (e->type == RAFT_ENTRY_CHANGE || bytes > RAFT_FRAME_SOFT_MAX - 64))
            break;
    }
    return n;
}

static struct core_peer *peer_of(struct raft_core *c, uint64_t id)
{
    for (size_t i = 0; i < c->n_peers; i++)
        if (c->peers[i].id == id)
            return &c->peers[i];
    return NULL; /* not heard in this term of leadership */
}

static void note_sent(struct raft_core *c, uint64_t to, uint64_t last, uint64_t commit)
{
    struct core_peer *p = peer_of(c, to);
    if (p == NULL)
        return;
    p->sent_index = MAX(p->sent_index, last);
    p->sent_commit = MAX(p->sent_commit, MIN(commit, last));
    p->tell_ms = 0;
}

/* A change of the membership binds whoever has it, and travels when it is stored here. If we could forget
 * it, a member that it demotes would refuse our shorter log and not be a candidate itself: with two voters
 * there is no leader any more. */
static uint64_t sendable_index(const struct raft_core *c)
{
    uint64_t change = c->raft.configuration_uncommitted_index;
    return change > raft_core_stored_index(c) ? change - 1 : core_last_index(c);
}

static void send_append(struct raft_core *c, uint64_t to, const struct raft_append_entries *a)
{
    struct raft_frame f = {.type = RAFT_FRAME_APPEND, .term = a->term};
    uint64_t last =
        MAX(a->prev_log_index, MIN(a->prev_log_index + a->n_entries, sendable_index(c)));
    note_sent(c, to, last, a->leader_commit);
    f.append.prev_index = a->prev_log_index;
    f.append.prev_term = a->prev_log_term;
    f.append.commit = a->leader_commit;
    do {
        uint64_t first = f.append.prev_index + 1;
        size_t n = frame_entries(c, first, last);
        struct raft_entry_view *views = n == 0 ? NULL : mem_array(n, sizeof *views);
        for (size_t i = 0; i < n; i++)
            views[i] = raft_log_view(raft_log_get(&c->log, first + i));
        f.append.entries = views;
        f.append.n = n;
        send_frame(c, to, &f);
        if (n > 0)
            f.append.prev_term = views[n - 1].term;
        f.append.prev_index += n;
        mem_free(views);
    } while (f.append.prev_index < last);
}

static void send_append_result(struct raft_core *c, uint64_t to,
                               const struct raft_append_entries_result *a)
{
    struct raft_frame f = {.type = RAFT_FRAME_APPEND_RESULT, .term = a->term};
    if (c->stale_request) {
        /* The term is the answer; the library leaves the rest unset. */
        f.append_result.rejected = f.append_result.last_index = 0;
    } else if (a->rejected != 0 && core_fetches_from(c, to)) {
        /* The leader would take the rejection of a heartbeat for the failure of the transfer and begin
         * it anew. It must hear from us all the same: acknowledge nothing. */
        f.append_result.rejected = f.append_result.last_index = 0;
    } else {
        f.append_result.rejected = a->rejected;
        f.append_result.last_index = a->last_log_index;
        if (a->rejected == 0)
            core_own_term(c, c->meta_term, c->meta_vote, a->last_log_index);
    }
    send_frame(c, to, &f);
}

void core_send_rejection(struct raft_core *c, uint64_t to, uint64_t snapshot)
{
    struct raft_frame f = {.type = RAFT_FRAME_APPEND_RESULT, .term = c->raft.current_term};
    f.append_result.rejected = snapshot;
    f.append_result.last_index = core_last_index(c);
    send_frame(c, to, &f);
}

static void send_install(struct raft_core *c, uint64_t to,
                         const struct raft_install_snapshot *a)
{
    ASSERT(c->has_snapshot && a->last_index == c->snapshot.index &&
           a->last_term == c->snapshot.term);
    ASSERT(a->conf_index == c->snapshot.membership.index);
    struct raft_frame f = {.type = RAFT_FRAME_INSTALL, .term = a->term};
    struct core_peer *p = peer_of(c, to);
    if (p != NULL)
        p->install_index = a->last_index;
    f.install = c->snapshot;
    send_frame(c, to, &f);
}

void core_send(struct raft_core *c, const struct raft_message *m)
{
    struct raft_frame f;
    switch (m->type) {
    case RAFT_APPEND_ENTRIES:
        send_append(c, m->server_id, &m->append_entries);
        return;
    case RAFT_APPEND_ENTRIES_RESULT:
        send_append_result(c, m->server_id, &m->append_entries_result);
        return;
    case RAFT_INSTALL_SNAPSHOT:
        send_install(c, m->server_id, &m->install_snapshot);
        return;
    case RAFT_REQUEST_VOTE:
        ASSERT(m->request_vote.candidate_id == c->o.id);
        f.type = RAFT_FRAME_VOTE;
        f.term = m->request_vote.term;
        f.vote.last_index = m->request_vote.last_log_index;
        f.vote.last_term = m->request_vote.last_log_term;
        f.vote.disrupt_leader = m->request_vote.disrupt_leader;
        f.vote.pre_vote = m->request_vote.pre_vote;
        break;
    case RAFT_REQUEST_VOTE_RESULT:
        f.type = RAFT_FRAME_VOTE_RESULT;
        f.term = m->request_vote_result.term;
        f.vote_result.granted = m->request_vote_result.vote_granted;
        f.vote_result.pre_vote = m->request_vote_result.pre_vote;
        break;
    case RAFT_TIMEOUT_NOW:
        f.type = RAFT_FRAME_TIMEOUT_NOW;
        f.term = m->timeout_now.term;
        f.timeout_now.last_index = m->timeout_now.last_log_index;
        f.timeout_now.last_term = m->timeout_now.last_log_term;
        break;
    default:
        return;
    }
    send_frame(c, m->server_id, &f);
}

/* ---- without waiting for the heartbeat ---- */

static bool term_at(const struct raft_core *c, uint64_t index, uint64_t *ret_term)
{
    if (raft_log_has(&c->log, index))
        *ret_term = raft_log_get(&c->log, index)->term;
    else if (c->has_snapshot && c->snapshot.index == index)
        *ret_term = c->snapshot.term;
    else
        return false;
    return true;
}

/* Entries behind `from`, as many as fit one frame, or the commit index alone. */
static void send_behind(struct raft_core *c, uint64_t to, uint64_t from)
{
    uint64_t last = sendable_index(c);
    struct raft_append_entries a = {.term = c->raft.current_term,
                                    .prev_log_index = from,
                                    .leader_commit = c->raft.commit_index};
    uint64_t term;
    if (!term_at(c, from, &term))
        return;
    a.prev_log_term = term;
    a.n_entries = from < last ? (unsigned)frame_entries(c, from + 1, last) : 0;
    send_append(c, to, &a);
}

enum {
    /* one that lags further is catching up, which is the library's business */
    HURRY_ENTRIES_MAX = 64,
    HURRY_COMMIT_MS = 3 /* what is committed waits so long for entries to travel with */
};

/* Leaves tell_ms in the future, or 0. A frame and its answer for every commit would double what the
 * members say to each other: under load the next entry tells it. */
static void hurry_peer(struct raft_core *c, struct core_peer *p)
{
    uint64_t match = raft_core_match_index(c, p->id);
    uint64_t last = sendable_index(c);
    uint64_t tell_ms = p->tell_ms;
    p->tell_ms = 0;
    if (match == 0 || match + HURRY_ENTRIES_MAX < last || match < p->install_index ||
        !raft_core_recently_heard(c, p->id, c->now_ms))
        return;
    if (MAX(p->sent_index, match) < last)
        send_behind(c, p->id, MAX(p->sent_index, match));
    else if (match != last || p->sent_commit >= MIN(c->raft.commit_index, match))
        return;
    else if (tell_ms != 0 && c->now_ms >= tell_ms)
        send_behind(c, p->id, match);
    else
        p->tell_ms = tell_ms != 0 ? tell_ms : c->now_ms + HURRY_COMMIT_MS;
}

/* The library tells a follower of a commit with the next heartbeat, and while one member is silent new
 * entries wait for it, too. An append beside the library's own is an append like any other. */
void raft_core_hurry(struct raft_core *c, uint64_t now_ms)
{
    core_clock(c, now_ms);
    ASSERT(c->started);
    bool leads = c->raft.state == RAFT_LEADER && raft_transferee(&c->raft) == 0;
    for (size_t i = 0; i < c->n_peers; i++) {
        struct core_peer *p = &c->peers[i];
        const struct raft_server *s = raft_membership_find(&c->membership, p->id);
        if (leads && s != NULL && s->role != RAFT_ROLE_SPARE)
            hurry_peer(c, p);
        else
            p->tell_ms = 0;
    }
}

uint64_t raft_core_hurry_deadline(const struct raft_core *c)
{
    CHECK_MAGIC(c, CORE_MAGIC);
    uint64_t at = UINT64_MAX;
    for (size_t i = 0; i < c->n_peers; i++)
        at = c->peers[i].tell_ms != 0 ? MIN(at, c->peers[i].tell_ms) : at;
    return at;
}
