/* What members said to each other, for one that came back older than it was. See raft_core_recall.c. */
#include "base/assert.h"
#include "base/mutant.h"
#include "dcs/node_private.h"

void node_hear(struct node *n, const struct raft_heard *said)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    raft_core_hear(n->raft, said);
}

size_t node_heard_all(const struct node *n, struct raft_heard ret[static MEMBERS_MAX])
{
    CHECK_MAGIC(n, NODE_MAGIC);
    return raft_core_heard_all(n->raft, ret);
}

/* Before any frame on this link: the member must not vote for this one, nor acknowledge anything to it, on
 * the ground of what it does not know any more. */
void recall_tell(struct node *n, uint64_t member)
{
    struct raft_heard h;
    struct buf CLEANUP(buf_close) params = BUF_INIT;
    if (!raft_core_heard(n->raft, member, &h) || MUTANT(recall_unsaid)) {
        return;
    }
    struct wire_recall w = {.term = h.term, .index = h.index, .voted = h.voted};
    msg_encode(&wire_msg_recall, &w, &params);
    struct call *x = calls_add(&n->calls);
    if (x == NULL) {
        return;
    }
    x->kind = CALL_RECALL;
    x->member = member;
    uint32_t number = x->number;
    if (!n->ops->call(n->arg, member, number, WIRE_PEER_RECALL, buf_slice(&params))) {
        calls_drop(&n->calls, calls_find(&n->calls, number));
    }
}

void node_recall(struct node *n, uint64_t from, struct slice params)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    struct wire_recall w;
    struct errmsg e, said;
    if (msg_decode(&wire_msg_recall, params, &w, NULL) != ERR_OK) {
        return;
    }
    struct raft_heard h = {.id = n->o.id, .term = w.term, .index = w.index, .voted = w.voted};
    if (raft_core_recall(n->raft, from, &h, &e) != ERR_OK) {
        (void)err_set(&said, ERR_CORRUPT, "%s; " NODE_REPLACE, e.text, n->name);
        node_leave(n, NODE_QUARANTINED, said.text);
    }
}
