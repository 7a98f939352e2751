/* The life of a request: checked, routed to where it can be answered, forwarded, retried, expired. */
#include "base/assert.h"
#include "base/mem.h"
#include "dcs/node_private.h"

/* Where each method is answered. */
enum route { ROUTE_NONE, ROUTE_BATCH, ROUTE_RENEW, ROUTE_READ, ROUTE_OP };

struct rule {
    enum route route;
    bool has_deadline;
    size_t deadline; /* offset of deadline_ms in the parameters */
    enum { ONCE_NEVER, ONCE_ALWAYS, ONCE_SESSION } once; /* may it be sent again? */
    size_t session; /* offset of session, when that decides */
};

#define DEADLINE(s) .has_deadline = true, .deadline = offsetof(struct s, deadline_ms)
#define SESSION(s) .once = ONCE_SESSION, .session = offsetof(struct s, session)
static const struct rule rules[NODE_METHOD_COUNT] = {
    [METHOD_SESSION_OPEN] = {ROUTE_BATCH, .once = ONCE_ALWAYS},
    [METHOD_KV_RANGE] = {ROUTE_READ, DEADLINE(range_req), .once = ONCE_ALWAYS},
    [METHOD_KV_PUT] = {ROUTE_BATCH, DEADLINE(put_req), SESSION(put_req)},
    [METHOD_KV_DELETE] = {ROUTE_BATCH, DEADLINE(delete_req), SESSION(delete_req)},
    [METHOD_KV_TXN] = {ROUTE_BATCH, DEADLINE(txn_req), SESSION(txn_req)},
    [METHOD_LEASE_GRANT] = {ROUTE_BATCH, DEADLINE(lease_grant), SESSION(lease_grant)},
    [METHOD_LEASE_RENEW] = {ROUTE_RENEW, DEADLINE(lease_renew), .once = ONCE_ALWAYS},
    [METHOD_LEASE_REVOKE] = {ROUTE_BATCH, DEADLINE(lease_revoke), SESSION(lease_revoke)},
    [METHOD_LEASE_INFO] = {ROUTE_READ, .once = ONCE_ALWAYS},
    [METHOD_MEMBER_LIST] = {ROUTE_READ, .once = ONCE_ALWAYS},
    [METHOD_MEMBER_REMOVE] = {ROUTE_OP},
    [METHOD_CLUSTER_TRANSFER] = {ROUTE_OP},
    [METHOD_TOKEN_CREATE] = {ROUTE_BATCH},
    [METHOD_TOKEN_LIST] = {ROUTE_READ, .once = ONCE_ALWAYS},
    [METHOD_TOKEN_REVOKE] = {ROUTE_BATCH},
    [METHOD_TOKEN_REDEEM] = {ROUTE_BATCH},
    [NODE_METHOD_PRESENT] = {ROUTE_OP, .once = ONCE_ALWAYS},
};

const char *request_method_name(unsigned method)
{
    ASSERT(method < NODE_METHOD_COUNT);
    return method == NODE_METHOD_PRESENT ? WIRE_MEMBER_PRESENT : method_table[method].name;
}

static const struct msg *params_of(unsigned method)
{
    return method == NODE_METHOD_PRESENT ? &wire_msg_present : method_table[method].params;
}

bool request_is_read(unsigned method)
{
    return rules[method].route == ROUTE_READ;
}

static enum err check_many(struct slice many, const struct msg *m, void *scratch,
                           struct errmsg *e)
{
    if (many.n == 0) {
        return ERR_OK;
    }
    struct msg_iter it;
    enum err err = msg_iter_init(&it, many);
    while (err == ERR_OK) {
        err = msg_iter_next(&it, m, scratch, e);
    }
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

/* A malformed request never becomes part of an entry. */
enum err request_check(struct node *n, unsigned method, struct slice params,
                       uint64_t *ret_deadline_ms, struct errmsg *e)
{
    const struct msg *m = params_of(method);
    enum err err = msg_decode(m, params, n->scratch, e);
    if (err == ERR_OK && method == METHOD_KV_TXN) {
        struct txn_req t = *(const struct txn_req *)n->scratch;
        union {
            struct compare compare;
            struct txn_op op;
        } one;
        err = check_many(t.compare, &msg_compare, &one.compare, e);
        err = err == ERR_OK ? check_many(t.then, &msg_txn_op, &one.op, e) : err;
        err = err == ERR_OK ? check_many(t.otherwise, &msg_txn_op, &one.op, e) : err;
    }
    if (err != ERR_OK) {
        return err;
    }
    uint64_t deadline = 0;
    if (rules[method].has_deadline) {
        memcpy(&deadline, (const char *)n->scratch + rules[method].deadline, sizeof deadline);
    }
    *ret_deadline_ms =
        deadline == 0 ? NODE_DEADLINE_MS : MIN(deadline, (uint64_t)NODE_DEADLINE_MAX_MS);
    return ERR_OK;
}

/* n->scratch holds the decoded parameters. */
static bool replayable(const struct node *n, unsigned method)
{
    uint64_t session = 0;
    if (rules[method].once == ONCE_SESSION) {
        memcpy(&session, (const char *)n->scratch + rules[method].session, sizeof session);
    }
    return rules[method].once == ONCE_ALWAYS || session != 0;
}

struct request *request_new(struct node *n, unsigned method, struct slice params,
                            const struct node_caller *caller)
{
    struct request *r = mem_alloc(sizeof *r + params.n);
    list_init(&r->link);
    list_init(&r->item.link);
    r->phase = REQUEST_DONE;
    r->method = method;
    r->arrived_ms = n->now;
    r->wait_since_ms = n->now;
    r->caller = *caller;
    r->n = params.n;
    memcpy(r->params, params.p, params.n);
    n->n_requests++;
    n->request_bytes += params.n;
    n->scan_ms = MIN(n->scan_ms, n->now + NODE_SCAN_MS);
    return r;
}

static struct list *queue_of(struct node *n, enum request_phase phase)
{
    switch (phase) {
    case REQUEST_WAIT:
        return &n->waiting;
    case REQUEST_BATCH:
        return &n->batch;
    case REQUEST_RENEW:
        return NULL;
    case REQUEST_READ:
        return &n->reads;
    case REQUEST_FLIGHT:
        return &n->flying;
    case REQUEST_FORWARDED:
        return &n->forwarded;
    case REQUEST_OP:
        return &n->ops_list;
    case REQUEST_DONE:
        return &n->done;
    }
    UNREACHABLE();
}

/* Out of whatever holds it. */
static void leave(struct node *n, struct request *r)
{
    list_remove(&r->link);
    if (!list_empty(&r->item.link)) {
        renew_forget(&n->renew, &r->item);
    }
    if (r->flight != NULL) {
        ASSERT(r->flight->at[r->position] == r);
        r->flight->at[r->position] = NULL;
        r->flight = NULL;
    }
    if (r->phase == REQUEST_OP) {
        member_op_forget(n, r);
    }
}

void request_set_phase(struct node *n, struct request *r, enum request_phase phase)
{
    leave(n, r);
    r->phase = phase;
    struct list *q = queue_of(n, phase);
    if (q != NULL) {
        list_push(q, &r->link);
    }
}

void request_reply(struct node *n, struct request *r, enum err status, const char *text,
                   struct slice result)
{
    leave(n, r);
    ASSERT(n->n_requests > 0 && n->request_bytes >= r->n);
    n->n_requests--;
    n->request_bytes -= r->n;
    r->caller.cb(r->caller.arg, r->caller.tag, status, text != NULL ? text : err_text(status),
                 result);
    buf_close(&r->command);
    mem_free(r->extra);
    mem_free(r);
}

void request_fail(struct node *n, struct request *r, enum err status, const char *text)
{
    ASSERT(status != ERR_OK);
    /* This sending was refused; an earlier one may still have been applied. */
    if (r->doubt && !request_is_read(r->method)) {
        status = ERR_OUTCOME_UNKNOWN;
        text =
            "its answer was lost and could not be had again in time; it may have been applied";
    }
    request_reply(n, r, status, text, slice_of(NULL, 0));
}

/* Back to the start: nothing of it has happened. */
void request_wait(struct node *n, struct request *r, uint64_t delay_ms)
{
    r->submitted = false;
    r->wait_since_ms = n->now;
    r->not_before_ms = n->now + delay_ms;
    request_set_phase(n, r, REQUEST_WAIT);
    n->scan_ms = MIN(n->scan_ms, n->now + MIN(delay_ms, (uint64_t)NODE_SCAN_MS));
}

void request_lost(struct node *n, struct request *r, const char *text)
{
    if (r->replayable && n->now + NODE_RETRY_MS < r->deadline_ms) {
        r->doubt = true;
        request_wait(n, r, NODE_RETRY_MS);
    } else {
        request_fail(n, r, request_is_read(r->method) ? ERR_UNAVAILABLE : ERR_OUTCOME_UNKNOWN,
                     text);
    }
}

void node_request(struct node *n, unsigned method, struct slice params,
                  const struct node_caller *caller)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    ASSERT(method < NODE_METHOD_COUNT && rules[method].route != ROUTE_NONE);
    n->now = n->ops->now_ms(n->arg);
    struct errmsg e = {.text = ""};
    uint64_t deadline_ms = 0;
    enum err err = request_check(n, method, params, &deadline_ms, &e);
    if (err == ERR_OK && (n->n_requests >= NODE_REQUESTS_MAX ||
                          n->request_bytes + params.n > NODE_REQUEST_BYTES_MAX)) {
        err = err_set(&e, ERR_LIMIT, "node %s has too many requests under way; slow down",
                      n->name);
    }
    if (err != ERR_OK) {
        caller->cb(caller->arg, caller->tag, err, e.text, slice_of(NULL, 0));
        return;
    }
    if (read_local(n, method, params, caller)) {
        return;
    }
    struct request *r = request_new(n, method, params, caller);
    if (method == METHOD_LEASE_RENEW) {
        /* n->scratch holds it decoded. A client's own idea of held_ms is not taken. */
        r->item.renew = *(const struct lease_renew *)n->scratch;
        r->item.arrived_ms = n->now;
        r->item.renew.held_ms =
            caller->peer != 0 ? MIN(r->item.renew.held_ms, (uint64_t)NODE_DEADLINE_MAX_MS) : 0;
    }
    r->replayable = replayable(n, method);
    r->deadline_ms = n->now + deadline_ms;
    request_set_phase(n, r, REQUEST_WAIT);
}

/* ---- routing ------------------------------------------------------------------------------- */

static void lead(struct node *n, struct request *r)
{
    switch (rules[r->method].route) {
    case ROUTE_BATCH:
        if (!token_handles(r->method) || token_prepare(n, r)) {
            request_set_phase(n, r, REQUEST_BATCH);
        }
        return;
    case ROUTE_RENEW:
        write_renew(n, r);
        return;
    case ROUTE_READ:
        read_add(n, r);
        return;
    case ROUTE_OP:
        request_set_phase(n, r, REQUEST_OP);
        member_op(n, r);
        return;
    case ROUTE_NONE:
        break;
    }
    UNREACHABLE();
}

static bool forward(struct node *n, struct request *r, uint64_t leader)
{
    if (!n->ops->linked(n->arg, leader)) {
        return false;
    }
    struct call *c = calls_add(&n->calls);
    if (c == NULL) {
        return false;
    }
    c->kind = CALL_FORWARD;
    c->member = leader;
    c->what = r;
    uint32_t number = c->number;
    r->call = number;
    struct buf CLEANUP(buf_close) renew = BUF_INIT;
    struct slice params = slice_of(r->params, r->n);
    if (r->method == METHOD_LEASE_RENEW) {
        struct lease_renew w = r->item.renew;
        w.held_ms = renew_held_ms(&r->item, n->now);
        msg_encode(&msg_lease_renew, &w, &renew);
        params = buf_slice(&renew);
    }
    /* Before the call: its answer may come while it runs. */
    request_set_phase(n, r, REQUEST_FORWARDED);
    if (n->ops->call(n->arg, leader, number, request_method_name(r->method), params)) {
        return true;
    }
    calls_drop(&n->calls, calls_find(&n->calls, number));
    request_set_phase(n, r, REQUEST_WAIT);
    return false;
}

/* No leader, or no way to it: for how long it is waited for (an election takes about two timeouts). */
static bool grace_over(const struct node *n, const struct request *r)
{
    return r->caller.peer != 0 || n->now >= r->wait_since_ms + 2 * n->o.election_ms;
}

static void route(struct node *n, struct request *r)
{
    if (node_is_leader(n)) {
        lead(n, r);
        return;
    }
    uint64_t leader = raft_core_leader(n->raft);
    if (r->caller.peer == 0 && leader != 0 && leader != n->o.id && forward(n, r, leader)) {
        return;
    }
    if (grace_over(n, r)) {
        struct errmsg e;
        (void)err_set(
            &e, ERR_UNAVAILABLE, "%s",
            r->caller.peer != 0 ? "this node is not the leader"
            : leader == 0
                ? "no leader: fewer than a majority of the voters may be running; try again"
                : "the leader cannot be reached from this node; try another node");
        request_fail(n, r, ERR_UNAVAILABLE, e.text);
        return;
    }
    request_set_phase(n, r, REQUEST_WAIT);
}

void requests_route(struct node *n)
{
    struct list now;
    list_init(&now);
    list_move(&now, &n->waiting);
    struct list *l;
    while ((l = list_pop(&now)) != NULL) {
        struct request *r = container_of(l, struct request, link);
        ASSERT(r->phase == REQUEST_WAIT);
        if (r->not_before_ms > n->now) {
            list_push(&n->waiting, &r->link);
        } else {
            route(n, r);
        }
    }
}

static void forwarded_answer(struct node *n, struct request *r, enum err status,
                             const char *text, struct slice result)
{
    if (status == ERR_OK) {
        request_reply(n, r, status, NULL, result);
    } else if (status == ERR_OUTCOME_UNKNOWN) {
        request_lost(n, r, text);
    } else if (status == ERR_UNAVAILABLE && n->now + NODE_RETRY_MS < r->deadline_ms) {
        request_wait(n, r, NODE_RETRY_MS);
    } else {
        request_fail(n, r, status, text);
    }
}

void node_answer(struct node *n, uint32_t number, enum err status, const char *text,
                 struct slice result)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    struct call *c = calls_find(&n->calls, number);
    if (c == NULL) {
        return;
    }
    n->now = n->ops->now_ms(n->arg);
    struct call call = *c;
    calls_drop(&n->calls, c);
    if (call.kind == CALL_CONFIRM) {
        read_answer(n, call.member, status, result);
    } else if (call.what != NULL) {
        forwarded_answer(n, call.what, status, text, result);
    }
}

/* ---- deadlines ----------------------------------------------------------------------------- */

static void expire_one(struct node *n, struct request *r)
{
    bool sent = r->phase == REQUEST_FORWARDED || r->submitted || r->phase == REQUEST_FLIGHT;
    if (r->phase == REQUEST_FORWARDED) {
        struct call *c = calls_find(&n->calls, r->call);
        ASSERT(c != NULL && c->what == r);
        c->what = NULL; /* its answer will find nobody */
    }
    if (sent && !request_is_read(r->method)) {
        request_fail(n, r, ERR_OUTCOME_UNKNOWN, "no answer in time; it may have been applied");
    } else {
        request_fail(n, r, ERR_TIMEOUT, "the deadline passed; nothing was applied");
    }
}

static void expire_queue(struct node *n, struct list *q)
{
    for (struct list *l = q->next, *next; l != q; l = next) {
        next = l->next;
        struct request *r = container_of(l, struct request, link);
        if (n->now >= r->deadline_ms) {
            expire_one(n, r);
        }
    }
}

static void expire_renewals(struct node *n)
{
    struct list *q = &n->renew.items;
    for (struct list *l = q->next, *next; l != q; l = next) {
        next = l->next;
        struct request *r =
            container_of(container_of(l, struct renew_item, link), struct request, item);
        if (n->now >= r->deadline_ms) {
            expire_one(n, r);
        }
    }
}

void requests_expire(struct node *n)
{
    if (n->now < n->scan_ms) {
        return;
    }
    struct list *const queues[] = {&n->waiting, &n->batch,     &n->reads,
                                   &n->flying,  &n->forwarded, &n->ops_list};
    for (size_t i = 0; i < ARRAY_LEN(queues); i++) {
        expire_queue(n, queues[i]);
    }
    expire_renewals(n);
    n->scan_ms = n->n_requests > 0 ? n->now + NODE_SCAN_MS : UINT64_MAX;
}

uint64_t requests_deadline(const struct node *n)
{
    return n->scan_ms;
}

/* ---- leadership ---------------------------------------------------------------------------- */

static void wait_all(struct node *n, struct list *q)
{
    struct list all;
    list_init(&all);
    list_move(&all, q);
    struct list *l;
    while ((l = list_pop(&all)) != NULL) {
        request_wait(n, container_of(l, struct request, link), 0);
    }
}

/* What was not submitted goes to the next leader. */
void requests_lost_leadership(struct node *n)
{
    wait_all(n, &n->batch);
    wait_all(n, &n->reads);
    while (!list_empty(&n->renew.items)) {
        struct renew_item *item = container_of(n->renew.items.next, struct renew_item, link);
        request_wait(n, container_of(item, struct request, item), 0);
    }
    renew_reset(&n->renew);
}

void requests_abandon(struct node *n)
{
    struct list *const queues[] = {&n->waiting,   &n->batch,    &n->reads, &n->flying,
                                   &n->forwarded, &n->ops_list, &n->done};
    for (size_t i = 0; i < ARRAY_LEN(queues); i++) {
        while (!list_empty(queues[i])) {
            struct request *r = container_of(queues[i]->next, struct request, link);
            bool sent =
                r->phase == REQUEST_FORWARDED || r->phase == REQUEST_FLIGHT || r->submitted;
            request_fail(n, r, sent ? ERR_OUTCOME_UNKNOWN : ERR_UNAVAILABLE,
                         "the node is stopping");
        }
    }
    while (!list_empty(&n->renew.items)) {
        struct renew_item *item = container_of(n->renew.items.next, struct renew_item, link);
        request_fail(n, container_of(item, struct request, item), ERR_UNAVAILABLE,
                     "the node is stopping");
    }
}

void node_abandon(struct node *n)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    requests_abandon(n);
}

void node_link(struct node *n, uint64_t member, bool up)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    if (up) {
        return;
    }
    /* Forwarded requests first, in the order in which they were sent. */
    for (struct list *l = n->forwarded.next, *next; l != &n->forwarded; l = next) {
        next = l->next;
        struct request *r = container_of(l, struct request, link);
        struct call *c = calls_find(&n->calls, r->call);
        if (c != NULL && c->member == member) {
            node_answer(n, c->number, ERR_OUTCOME_UNKNOWN,
                        "the link to the leader broke before the answer", slice_of(NULL, 0));
        }
    }
    for (uint32_t i = 0; i < n->calls.size; i++) {
        struct call *c = calls_at(&n->calls, i);
        if (c != NULL && c->member == member) {
            calls_drop(&n->calls, c);
        }
    }
}
