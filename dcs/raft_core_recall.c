/* A member that came back older than it was (a restored machine, a copied directory) has forgotten entries it
 * acknowledged and votes it gave; no file of its own tells. The others heard both: each remembers the newest
 * term it heard of every member, and of that term the entries acknowledged to it and a vote for it. It says so
 * first on every new link; the member compares with what it had at its start and has said since
 * (docs/decisions/0011-a-member-that-forgot.md). */
#include <inttypes.h>

#include "base/mutant.h"
#include "dcs/raft_core_internal.h"

/* ---- what others say ---- */

static struct raft_heard *heard_of(struct raft_core *c, uint64_t id)
{
    struct raft_heard *oldest = &c->heard[0];
    for (size_t i = 0; i < c->n_heard; i++) {
        if (c->heard[i].id == id)
            return &c->heard[i];
        if (c->heard[i].id < oldest->id)
            oldest = &c->heard[i];
    }
    /* Ids are never given twice: the lowest has been gone for longest. */
    struct raft_heard *h =
        c->n_heard < RAFT_CORE_MEMBERS_MAX ? &c->heard[c->n_heard++] : oldest;
    *h = (struct raft_heard){.id = id};
    return h;
}

void raft_core_hear(struct raft_core *c, const struct raft_heard *said)
{
    CHECK_MAGIC(c, CORE_MAGIC);
    ASSERT(said->id != 0);
    struct raft_heard *h = heard_of(c, said->id);
    if (said->term < h->term)
        return;
    if (said->term > h->term)
        *h = (struct raft_heard){.id = said->id, .term = said->term};
    h->index = MAX(h->index, said->index);
    h->voted = h->voted || said->voted;
}

/* A term is told to nobody before it is stored, but for the one that a pre-vote asks about. */
void core_hear_frame(struct raft_core *c, uint64_t from, const struct raft_frame *f)
{
    struct raft_heard said = {.id = from, .term = f->term};
    switch (f->type) {
    case RAFT_FRAME_VOTE:
        if (f->vote.pre_vote)
            return;
        break;
    case RAFT_FRAME_VOTE_RESULT:
        if (f->vote_result.pre_vote)
            return;
        said.voted = f->vote_result.granted;
        break;
    case RAFT_FRAME_APPEND_RESULT:
        said.index = f->append_result.rejected == 0 ? f->append_result.last_index : 0;
        break;
    case RAFT_FRAME_APPEND:
    case RAFT_FRAME_INSTALL:
    case RAFT_FRAME_TIMEOUT_NOW:
        break;
    }
    raft_core_hear(c, &said);
}

bool raft_core_heard(const struct raft_core *c, uint64_t id, struct raft_heard *ret)
{
    CHECK_MAGIC(c, CORE_MAGIC);
    for (size_t i = 0; i < c->n_heard; i++) {
        if (c->heard[i].id == id) {
            *ret = c->heard[i];
            return true;
        }
    }
    return false;
}

size_t raft_core_heard_all(const struct raft_core *c,
                           struct raft_heard ret[static RAFT_CORE_MEMBERS_MAX])
{
    CHECK_MAGIC(c, CORE_MAGIC);
    memcpy(ret, c->heard, c->n_heard * sizeof *ret);
    return c->n_heard;
}

/* ---- what this one has said ---- */

void core_own_term(struct raft_core *c, uint64_t term, uint64_t vote, uint64_t index)
{
    struct core_own *newest = c->n_own > 0 ? &c->own[c->n_own - 1] : NULL;
    if (newest == NULL || term > newest->term) {
        if (c->n_own == CORE_OWN_TERMS) {
            memmove(&c->own[0], &c->own[1], (CORE_OWN_TERMS - 1) * sizeof c->own[0]);
            c->n_own--;
        }
        newest = &c->own[c->n_own++];
        *newest = (struct core_own){.term = term};
    }
    ASSERT(newest->term == term);
    newest->vote = vote;
    newest->index = MAX(newest->index, index);
}

#define OLDER "its directory is older than what it has said (a restored machine, or a copy)"

enum err raft_core_recall(const struct raft_core *c, uint64_t from, const struct raft_heard *h,
                          struct errmsg *e)
{
    CHECK_MAGIC(c, CORE_MAGIC);
    ASSERT(c->started);
    const struct core_own *own = NULL;
    for (size_t i = 0; i < c->n_own; i++) {
        if (c->own[i].term <= h->term)
            own = &c->own[i];
    }
    uint64_t newest = own == NULL ? 0 : own->term;
    /* None at all: from before the start, or before as many terms as are remembered. */
    if (own == NULL && (c->n_own > 0 || h->term == 0 || MUTANT(recall_any_term)))
        return ERR_OK;
    if (newest < h->term && !MUTANT(recall_any_term))
        return err_set(e, ERR_CORRUPT,
                       "member %" PRIu64 " heard of it in term %" PRIu64
                       ", and what it knows of is %" PRIu64 ": " OLDER,
                       from, h->term, newest);
    if (own->index < h->index && !MUTANT(recall_any_entry))
        return err_set(e, ERR_CORRUPT,
                       "it acknowledged entry %" PRIu64 " to member %" PRIu64
                       " in term %" PRIu64 ", and has %" PRIu64 ": " OLDER,
                       h->index, from, h->term, own->index);
    if (h->voted && own->vote != from && !MUTANT(recall_any_vote))
        return err_set(e, ERR_CORRUPT,
                       "it voted for member %" PRIu64 " in term %" PRIu64
                       ", and knows of no such vote: " OLDER,
                       from, h->term);
    return ERR_OK;
}
