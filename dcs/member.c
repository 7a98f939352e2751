#include "dcs/member.h"

#include "base/assert.h"

static const struct member_view *find(const struct member_cluster *c, uint64_t id)
{
    for (size_t i = 0; i < c->n; i++) {
        if (c->m[i].id == id) {
            return &c->m[i];
        }
    }
    return NULL;
}

size_t member_voters(const struct member_cluster *c)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++) {
        n += c->m[i].raft == MEMBER_VOTER;
    }
    return n;
}

/* The largest odd number that the members who asked for a vote can fill, within what was set. */
static size_t target(const struct member_cluster *c)
{
    size_t asked = 0;
    for (size_t i = 0; i < c->n; i++) {
        const struct member_view *m = &c->m[i];
        asked += m->raft != MEMBER_ABSENT && m->wants_vote && m->state == MEMBER_ACTIVE;
    }
    asked = MIN(asked, c->voters_max);
    return asked % 2 == 0 && asked > 0 ? asked - 1 : asked;
}

bool member_settled(const struct member_cluster *c)
{
    size_t voters = member_voters(c);
    for (size_t i = 0; i < c->n; i++) {
        if (c->m[i].state == MEMBER_JOINING ||
            (c->m[i].raft == MEMBER_VOTER && !c->m[i].wants_vote)) {
            return false;
        }
    }
    return !c->change_pending && voters % 2 == 1 && voters >= target(c) &&
           voters <= c->voters_max;
}

static bool ready(const struct member_cluster *c, const struct member_view *m)
{
    return m->raft == MEMBER_LEARNER && m->state == MEMBER_ACTIVE && m->wants_vote &&
           m->heard && m->match_index + MEMBER_CAUGHT_UP_ENTRIES >= c->last_index;
}

static struct member_plan admit(const struct member_cluster *c)
{
    for (size_t i = 0; i < c->n; i++) {
        const struct member_view *m = &c->m[i];
        if (m->state != MEMBER_JOINING) {
            continue;
        }
        if (m->raft == MEMBER_ABSENT && m->presented && !c->change_pending) {
            return (struct member_plan){
                .action = MEMBER_ADD, .id = m->id, .why = "a registered node presented itself"};
        }
        if (m->raft != MEMBER_ABSENT && m->match_index > 0) {
            return (struct member_plan){.action = MEMBER_ACTIVATE,
                                        .id = m->id,
                                        .why = "it has stored its first entries"};
        }
    }
    return (struct member_plan){.action = MEMBER_NOTHING};
}

static struct member_plan promote(const struct member_cluster *c, size_t voters)
{
    const struct member_view *first = NULL;
    size_t n_ready = 0;
    for (size_t i = 0; i < c->n; i++) {
        if (ready(c, &c->m[i])) {
            first = first == NULL ? &c->m[i] : first;
            n_ready++;
        }
    }
    /* From an odd number two must be ready: the step to the even one is only on the way. From an even
     * one the next odd may be reached even above what all can fill: it is better than resting. */
    bool even = voters % 2 == 0;
    bool go =
        even ? n_ready >= 1 && voters < c->voters_max : n_ready >= 2 && voters < target(c);
    if (!go) {
        return (struct member_plan){.action = MEMBER_NOTHING};
    }
    return (struct member_plan){.action = MEMBER_PROMOTE,
                                .id = first->id,
                                .why = even ? "makes the number of voters odd"
                                            : "caught up, as is the next one"};
}

/* A voter that is to be none, when the others keep the quorum. The leader's turn comes when it has handed
 * over. */
static struct member_plan demote_unwanted(const struct member_cluster *c)
{
    for (size_t i = 0; i < c->n; i++) {
        const struct member_view *m = &c->m[i];
        if (m->raft == MEMBER_VOTER && !m->wants_vote && m->id != c->self &&
            member_removable(c, m->id, false, NULL) == ERR_OK) {
            return (struct member_plan){
                .action = MEMBER_DEMOTE, .id = m->id, .why = "it was demoted on request"};
        }
    }
    return (struct member_plan){.action = MEMBER_NOTHING};
}

/* The voter one can best do without: unreachable before reachable, then the newest; never the leader. */
static struct member_plan demote(const struct member_cluster *c, const char *why)
{
    const struct member_view *worst = NULL;
    for (size_t i = 0; i < c->n; i++) {
        const struct member_view *m = &c->m[i];
        if (m->raft != MEMBER_VOTER || m->id == c->self) {
            continue;
        }
        bool worse = worst == NULL || (worst->heard && !m->heard) ||
                     (worst->heard == m->heard && m->id > worst->id);
        worst = worse ? m : worst;
    }
    if (worst == NULL) {
        return (struct member_plan){.action = MEMBER_NOTHING};
    }
    return (struct member_plan){.action = MEMBER_DEMOTE, .id = worst->id, .why = why};
}

/* A voter above the target, when the others keep the quorum. */
static struct member_plan demote_excess(const struct member_cluster *c, size_t voters)
{
    struct member_plan p = {.action = MEMBER_NOTHING};
    if (voters > c->voters_max) {
        p = demote(c, "there are more voters than are wanted");
    }
    bool safe = p.action != MEMBER_NOTHING && member_removable(c, p.id, false, NULL) == ERR_OK;
    return safe ? p : (struct member_plan){.action = MEMBER_NOTHING};
}

static struct member_plan raise_version(const struct member_cluster *c)
{
    uint64_t lowest = UINT64_MAX;
    for (size_t i = 0; i < c->n; i++) {
        lowest = c->m[i].raft != MEMBER_ABSENT ? MIN(lowest, c->m[i].version) : lowest;
    }
    if (lowest <= c->version) {
        return (struct member_plan){.action = MEMBER_NOTHING};
    }
    return (struct member_plan){
        .action = MEMBER_RAISE,
        .version = lowest,
        .why = "every member's program knows it; older programs are refused now"};
}

struct member_plan member_decide(const struct member_cluster *c)
{
    ASSERT(c->n <= MEMBERS_MAX && c->voters_max % 2 == 1);
    struct member_plan p = admit(c);
    size_t voters = member_voters(c);
    if (p.action != MEMBER_NOTHING || c->change_pending || voters == 0) {
        return p;
    }
    p = demote_unwanted(c);
    if (p.action == MEMBER_NOTHING) {
        p = demote_excess(c, voters);
    }
    if (p.action == MEMBER_NOTHING) {
        p = promote(c, voters);
    }
    if (p.action == MEMBER_NOTHING && voters % 2 == 0 &&
        c->even_ms >= MEMBER_EVEN_PATIENCE_MS) {
        p = demote(c, "an even number of voters survives no more failures");
    }
    return p.action == MEMBER_NOTHING ? raise_version(c) : p;
}

enum err member_removable(const struct member_cluster *c, uint64_t id, bool force,
                          struct errmsg *e)
{
    const struct member_view *gone = find(c, id);
    ASSERT(gone != NULL);
    if (gone->raft != MEMBER_VOTER) {
        return ERR_OK;
    }
    size_t voters = 0, live = 0;
    for (size_t i = 0; i < c->n; i++) {
        const struct member_view *m = &c->m[i];
        if (m->raft == MEMBER_VOTER && m->id != id) {
            voters++;
            live += m->heard;
        }
    }
    if (voters == 0) {
        return err_set(e, ERR_PRECONDITION,
                       "it is the only voter: without it the cluster has no quorum; add "
                       "another node first");
    }
    size_t quorum = voters / 2 + 1;
    if (live >= quorum || force) {
        return ERR_OK;
    }
    return err_set(e, ERR_PRECONDITION,
                   "%zu of the %zu voters left are reachable and the quorum would be %zu: the "
                   "cluster would "
                   "stop; bring a node back first, or use --force",
                   live, voters, quorum);
}
