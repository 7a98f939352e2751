/* Members compare their states, and one that may not go on leaves.
 *
 * Each member notes the hash of its state at every entry it applies; that costs nothing (state_hash.c).
 * Every few seconds the leader asks all members for theirs at one index. What a majority of the voters has
 * is right; the next question carries it, and a member with another one leaves service: it answers no
 * request, takes no part in Raft, and says so, until an operator replaces it. Nobody can tell who is wrong
 * when no majority agrees: that is said, and all go on. */
#include "base/assert.h"
#include "base/log.h"
#include "base/str.h"
#include "dcs/node_private.h"

enum {
    COMPARE_EVERY_MS = 5000,
    /* from choosing the index to asking: followers come to it meanwhile */
    COMPARE_SETTLE_MS = 300,
    COMPARE_WAIT_MS = 1000 /* for answers */
};

/* ---- the notes ----------------------------------------------------------------------------- */

void compare_note(struct node *n, uint64_t index)
{
    n->noted[index % NODE_NOTED] = (struct node_noted){index, state_hash(n->state)};
}

void compare_forget(struct node *n)
{
    memset(n->noted, 0, sizeof n->noted);
}

static bool noted(const struct node *n, uint64_t index, uint64_t *ret_hash)
{
    const struct node_noted *x = &n->noted[index % NODE_NOTED];
    *ret_hash = x->hash;
    return index != 0 && x->index == index;
}

/* ---- out of service ------------------------------------------------------------------------ */

bool node_silent(const struct node *n)
{
    /* One that leads has a moment to hand that over. */
    return n->out != NODE_IN &&
           (!node_is_leader(n) || n->now >= n->out_since_ms + n->o.election_ms);
}

enum err node_out(const struct node *n, struct errmsg *e)
{
    switch (n->out) {
    case NODE_IN:
        return ERR_OK;
    case NODE_QUARANTINED:
        return err_set(e, ERR_CORRUPT, "%s is quarantined: %s", n->name, n->out_text);
    case NODE_REMOVED:
        return err_set(e, ERR_DENIED, "%s", n->out_text);
    }
    UNREACHABLE();
}

bool node_is_out(const struct node *n)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    return n->out != NODE_IN;
}

void node_leave(struct node *n, enum node_out why, const char *text)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    ASSERT(why != NODE_IN);
    if (n->out != NODE_IN) {
        return;
    }
    n->now = n->ops->now_ms(n->arg);
    str_cut(n->out_text, sizeof n->out_text, text);
    log_event(LOG_ERROR, why == NODE_REMOVED ? "removed" : "quarantined", NO_KV,
              "this node answers no request and takes no part in the cluster any more: %s",
              n->out_text);
    n->out = why;
    n->out_since_ms = raft_core_transfer(n->raft, 0, n->now) == ERR_OK ? n->now : 0;
    requests_abandon(n, n->out_text);
    watch_end_all(&n->hub);
    if (n->ops->out != NULL) {
        n->ops->out(n->arg, why, n->out_text);
    }
}

static void quarantine(struct node *n, uint64_t index)
{
    struct errmsg e;
    (void)err_set(&e, ERR_CORRUPT,
                  "its state at entry %llu differs from that of the majority; " NODE_REPLACE,
                  (unsigned long long)index, n->name);
    node_leave(n, NODE_QUARANTINED, e.text);
}

/* ---- a member's side ----------------------------------------------------------------------- */

void node_compare(struct node *n, struct slice params, struct buf *ret_reply)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    struct wire_compare ask;
    struct wire_compare_reply reply = {.index = 0};
    uint64_t mine;
    if (msg_decode(&wire_msg_compare, params, &ask, NULL) == ERR_OK) {
        if (noted(n, ask.agreed_index, &mine) && mine != ask.agreed_hash) {
            quarantine(n, ask.agreed_index);
        }
        reply.index = noted(n, ask.index, &mine) ? ask.index : 0;
        reply.hash = mine;
    }
    reply.quarantined = n->out == NODE_QUARANTINED;
    msg_encode(&wire_msg_compare_reply, &reply, ret_reply);
}

/* ---- the leader's side --------------------------------------------------------------------- */

static void begin(struct node *n)
{
    struct node_comparison *c = &n->compare;
    c->index = state_db_applied(n->state);
    c->asked = false;
    c->next_ms = n->now + COMPARE_SETTLE_MS;
}

static void ask(struct node *n, uint64_t id, struct slice params)
{
    struct call *x = n->ops->linked(n->arg, id) ? calls_add(&n->calls) : NULL;
    if (x == NULL) {
        return;
    }
    x->kind = CALL_COMPARE;
    x->member = id;
    x->detail = n->compare.index;
    uint32_t number = x->number;
    if (!n->ops->call(n->arg, id, number, WIRE_STATE_COMPARE, params)) {
        calls_drop(&n->calls, calls_find(&n->calls, number));
        return;
    }
    n->compare.open++;
}

static void ask_all(struct node *n)
{
    struct node_comparison *c = &n->compare;
    const struct raft_membership *m = raft_core_membership(n->raft);
    struct wire_compare w = {
        .index = c->index, .agreed_index = c->agreed_index, .agreed_hash = c->agreed_hash};
    struct buf CLEANUP(buf_close) params = BUF_INIT;
    msg_encode(&wire_msg_compare, &w, &params);
    c->asked = true;
    c->open = 0;
    c->n = 1;
    c->votes[0] = (struct compare_vote){.id = n->o.id, .voter = node_is_voter(n, n->o.id)};
    c->votes[0].known = noted(n, c->index, &c->votes[0].hash);
    c->next_ms = n->now + COMPARE_WAIT_MS;
    for (size_t i = 0; i < m->n; i++) {
        if (m->servers[i].id != n->o.id) {
            ask(n, m->servers[i].id, buf_slice(&params));
        }
    }
}

static void remember_quarantined(struct node_comparison *c, uint64_t id, bool quarantined)
{
    for (size_t i = 0; i < c->n_quarantined; i++) {
        if (c->quarantined[i] == id) {
            c->quarantined[i] = c->quarantined[--c->n_quarantined];
            break;
        }
    }
    if (quarantined && c->n_quarantined < MEMBERS_MAX) {
        c->quarantined[c->n_quarantined++] = id;
    }
}

bool compare_quarantined(const struct node *n, uint64_t id)
{
    for (size_t i = 0; i < n->compare.n_quarantined; i++) {
        if (n->compare.quarantined[i] == id) {
            return true;
        }
    }
    return false;
}

void compare_answer(struct node *n, uint64_t from, uint64_t index, enum err status,
                    struct slice result)
{
    struct node_comparison *c = &n->compare;
    struct wire_compare_reply reply;
    if (!node_is_leader(n) || !c->asked || index != c->index || c->open == 0) {
        return;
    }
    c->open--;
    if (status != ERR_OK || c->n >= MEMBERS_MAX ||
        msg_decode(&wire_msg_compare_reply, result, &reply, NULL) != ERR_OK) {
        return;
    }
    remember_quarantined(c, from, reply.quarantined);
    if (reply.quarantined) {
        return;
    }
    c->votes[c->n++] = (struct compare_vote){.id = from,
                                             .voter = node_is_voter(n, from),
                                             .known = reply.index == index,
                                             .hash = reply.hash};
}

static void report(const struct compare_vote *v, uint64_t index, uint64_t hash)
{
    if (v->known && v->hash != hash) {
        log_event(LOG_ERROR, "state_differs",
                  KV(KV_U64("member", v->id), KV_U64("index", index)),
                  "this member's state is not that of the majority");
    }
}

static void judge(struct node *n)
{
    struct node_comparison *c = &n->compare;
    const struct raft_membership *m = raft_core_membership(n->raft);
    size_t n_voters = 0;
    uint64_t hash, index = c->index;
    for (size_t i = 0; i < m->n; i++) {
        n_voters += m->servers[i].role == RAFT_ROLE_VOTER;
    }
    enum compare_verdict v = compare_votes(c->votes, c->n, n_voters, &hash);
    if (v == COMPARE_SPLIT && !c->split) {
        log_event(LOG_ERROR, "state_differs", KV(KV_U64("index", index)),
                  "members have different states, and no majority agrees on one: compare them "
                  "with `regentctl dcs hash` and replace those that are wrong");
    }
    c->split = v == COMPARE_SPLIT || (c->split && v == COMPARE_TOO_FEW);
    c->index = 0;
    c->next_ms = n->now + COMPARE_EVERY_MS;
    if (v != COMPARE_EQUAL && v != COMPARE_ODD) {
        return;
    }
    c->agreed_index = index;
    c->agreed_hash = hash;
    if (v == COMPARE_ODD) {
        for (size_t i = 0; i < c->n; i++) {
            report(&c->votes[i], index, hash);
        }
        begin(n); /* the next question tells the odd ones */
    }
    if (c->votes[0].known && c->votes[0].hash != hash) {
        quarantine(n, index);
    }
}

void compare_drive(struct node *n)
{
    struct node_comparison *c = &n->compare;
    if (!node_is_leader(n) || n->out != NODE_IN) {
        c->index = 0;
        c->split = false;
        return;
    }
    if (c->index != 0 && c->asked && (c->open == 0 || n->now >= c->next_ms)) {
        judge(n);
    } else if (n->now >= c->next_ms) {
        if (c->index == 0) {
            begin(n);
        } else {
            ask_all(n);
        }
    }
}

uint64_t compare_deadline(const struct node *n)
{
    return node_is_leader(n) && n->out == NODE_IN ? n->compare.next_ms : UINT64_MAX;
}
