/* Reads: linearizable ones after a round that confirms the term, local ones at once; and watches. */
#include "base/assert.h"
#include "base/mem.h"
#include "base/mutant.h"
#include "dcs/node_private.h"

static enum err answer(struct node *n, unsigned method, struct slice params,
                       const struct state_count *counted, struct buf *ret_reply,
                       struct errmsg *e)
{
    enum err err;
    switch (method) {
    case METHOD_KV_RANGE: {
        struct range_req req;
        err = msg_decode(&msg_range_req, params, &req, e);
        return err == ERR_OK
                   ? state_range(n->state, &req, counted, NODE_RANGE_MAX, ret_reply, e)
                   : err;
    }
    case METHOD_LEASE_INFO: {
        struct lease_ref ref;
        err = msg_decode(&msg_lease_ref, params, &ref, e);
        return err == ERR_OK ? state_leases(n->state, &ref, n->now, ret_reply, e) : err;
    }
    case METHOD_MEMBER_LIST:
        member_list_encode(n, ret_reply);
        return ERR_OK;
    case METHOD_TOKEN_LIST: {
        struct token_list *list = mem_alloc(sizeof *list);
        err = state_tokens(n->state, list, e);
        if (err == ERR_OK) {
            msg_encode(&msg_token_list, list, ret_reply);
        }
        mem_free(list);
        return err;
    }
    case METHOD_CERT_LIST:
        state_certs(n->state, ret_reply);
        return ERR_OK;
    default:
        UNREACHABLE();
    }
}

bool read_is_local(const struct node *n, unsigned method, bool *ret_wide)
{
    const struct range_req *range = n->scratch;
    const struct lease_ref *ref = n->scratch;
    bool local = (method == METHOD_KV_RANGE && range->local) ||
                 (method == METHOD_LEASE_INFO && ref->local);
    *ret_wide = local && (method == METHOD_KV_RANGE ? range->end.n != 0 : ref->id == 0);
    return local;
}

void read_at_once(struct node *n, unsigned method, struct slice params,
                  const struct node_caller *caller)
{
    struct buf CLEANUP(buf_close) reply = BUF_INIT;
    struct errmsg e = {.text = ""};
    enum err err = answer(n, method, params, NULL, &reply, &e);
    caller->cb(caller->arg, caller->tag, err, e.text, buf_slice(&reply));
}

void read_add(struct node *n, struct request *r)
{
    ASSERT(node_is_leader(n));
    r->ticket = read_index_ask(&n->read);
    request_set_phase(n, r, REQUEST_READ);
}

static size_t voters_of(const struct node *n, uint64_t ret_ids[static RAFT_CORE_MEMBERS_MAX])
{
    const struct raft_membership *m = raft_core_membership(n->raft);
    size_t k = 0;
    for (size_t i = 0; i < m->n; i++) {
        if (m->servers[i].role == RAFT_ROLE_VOTER) {
            ret_ids[k++] = m->servers[i].id;
        }
    }
    return k;
}

static void ask_voter(struct node *n, uint64_t id, struct slice params)
{
    struct call *c = n->ops->linked(n->arg, id) ? calls_add(&n->calls) : NULL;
    if (c == NULL) {
        return;
    }
    c->kind = CALL_CONFIRM;
    c->member = id;
    uint32_t number = c->number;
    if (!n->ops->call(n->arg, id, number, WIRE_RAFT_CONFIRM, params)) {
        calls_drop(&n->calls, calls_find(&n->calls, number));
    }
}

/* Before that its commit index may be below what the leader before it has told clients. */
static bool own_entry_committed(const struct node *n)
{
    return raft_core_commit_index(n->raft) >= raft_core_term_start(n->raft) ||
           MUTANT(read_before_own_entry);
}

/* The oldest one needs nothing more of the peers. */
static bool confirmed(const struct node *n)
{
    return !list_empty(&n->reads) &&
           container_of(n->reads.next, struct request, link)->ticket <=
               read_index_confirmed(&n->read);
}

static bool servable(const struct node *n)
{
    return node_is_leader(n) && confirmed(n) &&
           raft_core_applied_index(n->raft) >= n->read_floor;
}

/* Not while confirmed ones wait for what is committed to be applied: each round would have them wait for more. */
void read_start(struct node *n)
{
    if (!node_is_leader(n) || list_empty(&n->reads) || (confirmed(n) && !servable(n)) ||
        !own_entry_committed(n) || !read_index_due(&n->read, n->now, n->o.heartbeat_ms)) {
        return;
    }
    uint64_t voters[RAFT_CORE_MEMBERS_MAX];
    size_t n_voters = voters_of(n, voters);
    n->read_floor = raft_core_commit_index(n->raft);
    struct wire_confirm confirm = {.term = raft_core_term(n->raft)};
    confirm.round = read_index_start(&n->read, voters, n_voters, n->now);
    n->round_us = n->ops->now_us(n->arg);
    struct buf CLEANUP(buf_close) params = BUF_INIT;
    msg_encode(&wire_msg_confirm, &confirm, &params);
    for (size_t i = 0; i < n_voters; i++) {
        if (voters[i] != n->o.id) {
            ask_voter(n, voters[i], buf_slice(&params));
        }
    }
}

/* The peer's side. Its term is what counts: it raises it in memory before it votes in a newer one. */
void node_confirm(struct node *n, struct slice params, struct buf *ret_reply)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    struct wire_confirm confirm;
    struct wire_confirm_reply reply = {.term = raft_core_term(n->raft)};
    reply.yes = n->admitted && n->out == NODE_IN &&
                msg_decode(&wire_msg_confirm, params, &confirm, NULL) == ERR_OK &&
                confirm.term == reply.term;
    /* The asker needs no memory of its own: term and round come back. */
    reply.round = reply.yes ? confirm.round : 0;
    msg_encode(&wire_msg_confirm_reply, &reply, ret_reply);
}

void read_answer(struct node *n, uint64_t from, enum err status, struct slice result)
{
    struct wire_confirm_reply reply;
    if (status != ERR_OK || !node_is_leader(n) ||
        msg_decode(&wire_msg_confirm_reply, result, &reply, NULL) != ERR_OK) {
        return;
    }
    read_index_answer(&n->read, from, reply.term, reply.round, reply.yes);
    if (n->round_us != 0 && read_index_confirmed(&n->read) == n->read.round) {
        latency_add(&n->round, n->ops->now_us(n->arg) - n->round_us);
        n->round_us = 0;
    }
}

/* false: the range has more keys, to be counted before it can be answered. */
static bool counted(struct node *n, struct request *r)
{
    struct range_req req;
    if (r->method != METHOD_KV_RANGE ||
        msg_decode(&msg_range_req, slice_of(r->params, r->n), &req, NULL) != ERR_OK ||
        !state_count_wanted(&req)) {
        return true;
    }
    if (r->count == NULL) {
        r->count = state_count_new(n->state, &req);
    }
    return state_count_some(r->count, NODE_COUNT_KEYS);
}

static void serve_first(struct node *n, struct list *queue)
{
    struct request *r = container_of(queue->next, struct request, link);
    struct buf CLEANUP(buf_close) reply = BUF_INIT;
    struct errmsg e = {.text = ""};
    if (counted(n, r)) {
        enum err err = answer(n, r->method, slice_of(r->params, r->n), r->count, &reply, &e);
        request_reply(n, r, err, e.text, buf_slice(&reply));
    }
}

/* As far as is good in a turn of the loop: each may look at all keys there are. */
void read_serve(struct node *n)
{
    uint64_t end = state_work(n->state) + NODE_READ_WORK_MAX;
    while (servable(n) && state_work(n->state) < end) {
        serve_first(n, &n->reads);
    }
    end = state_work(n->state) + NODE_READ_WORK_MAX;
    while (!list_empty(&n->locals) && state_work(n->state) < end) {
        serve_first(n, &n->locals);
    }
}

uint64_t read_deadline(const struct node *n)
{
    return !list_empty(&n->locals)                       ? n->now
           : list_empty(&n->reads) || !node_is_leader(n) ? UINT64_MAX
           : servable(n)                                 ? n->now
                                                         : n->now + n->o.heartbeat_ms;
}

/* ---- watches ------------------------------------------------------------------------------- */

enum err node_watch(struct node *n, const struct watch_req *req, watch_send *send, void *arg,
                    struct buf *ret_reply, struct watch **ret_watch, struct errmsg *e)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    enum err out = node_out(n, e);
    if (out != ERR_OK) {
        return out;
    }
    if (req->key.n == 0 && req->end.n == 0) {
        return err_set(e, ERR_INVALID, "a watch needs a key; for all keys give end = \"\\0\"");
    }
    uint64_t compacted = state_compacted(n->state);
    if (req->start_revision != 0 && req->start_revision <= compacted) {
        return err_set(e, ERR_COMPACTED, "revision %llu is no longer kept; the oldest is %llu",
                       (unsigned long long)req->start_revision,
                       (unsigned long long)compacted + 1);
    }
    uint64_t revision = state_revision(n->state);
    enum err err = watch_add(&n->hub, req, revision, send, arg, ret_watch);
    if (err != ERR_OK) {
        return err_set(e, err, "this node has %d watches already", WATCH_MAX);
    }
    struct watch_reply reply = {.watch = (*ret_watch)->id, .revision = revision};
    msg_encode(&msg_watch_reply, &reply, ret_reply);
    return ERR_OK;
}

/* One piece: what a window does not let through need not be read, and others wait for the loop. */
static void replay(struct node *n, struct watch *w)
{
    uint64_t next = w->next_revision;
    watch_replay_begin(&n->hub, w);
    enum err err =
        state_replay_some(n->state, next, NODE_REPLAY_BYTES, &node_state_ops, n, &next);
    if (!watch_replay_end(&n->hub)) {
        return;
    }
    if (err != ERR_OK) {
        watch_end_compacted(&n->hub, w, state_compacted(n->state));
    } else if (w->behind || next > state_revision(n->state)) {
        watch_catch_up(&n->hub, w, false);
    }
}

void node_watch_start(struct node *n, struct watch *w)
{
    if (!w->behind && w->next_revision <= state_revision(n->state)) {
        watch_catch_up(&n->hub, w, true);
        replay(n, w);
    }
}

void watches_catch_up(struct node *n)
{
    struct watch *w;
    for (int i = 0; i < NODE_REPLAY_PIECES && (w = watch_next_catching_up(&n->hub)) != NULL;
         i++) {
        replay(n, w);
    }
}

enum err node_watch_credit(struct node *n, const struct watch_credit *c, const void *arg,
                           struct errmsg *e)
{
    struct watch *w = watch_find(&n->hub, c->watch, arg);
    if (w == NULL) {
        return err_set(e, ERR_NOT_FOUND, "there is no such watch on this connection");
    }
    if (!w->window) {
        return err_set(e, ERR_PRECONDITION,
                       "this watch was created without a window: it needs no credit");
    }
    if (watch_grant(w, c->credit)) {
        node_watch_start(n, w);
    }
    return ERR_OK;
}

bool node_unwatch(struct node *n, uint64_t id, void *arg)
{
    struct watch *w = watch_find(&n->hub, id, arg);
    if (w != NULL) {
        watch_free(&n->hub, w);
    }
    return w != NULL;
}

void node_unwatch_all(struct node *n, void *arg)
{
    watch_free_all_of(&n->hub, arg);
}

void node_watch_progress(struct node *n, uint64_t elapsed_ms)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    watch_progress(&n->hub, elapsed_ms, state_revision(n->state));
}
