/* Where a request goes: into this leader's queues, to the leader, back after a lost answer, out at its
 * deadline. */
#include "base/assert.h"
#include "dcs/node_private.h"

/* ---- routing ------------------------------------------------------------------------------- */

static void lead(struct node *n, struct request *r)
{
    switch (request_route(r->method)) {
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

/* No leader, or no way to it: for how long it is waited for (an election takes about two timeouts). Where there
 * has been none for so long, whoever asks then is told so at once. */
static bool grace_over(const struct node *n, const struct request *r)
{
    uint64_t since_ms = raft_core_leader(n->raft) == 0 ? MIN(r->wait_since_ms, n->leaderless_ms)
                                                       : r->wait_since_ms;
    return r->caller.peer != 0 || n->now >= since_ms + 2 * n->o.election_ms;
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
    n->route_ms = list_empty(&n->waiting) ? UINT64_MAX : n->now + NODE_ROUTE_MS;
}

static void forwarded_answer(struct node *n, struct request *r, enum err status,
                             const char *text, struct slice result)
{
    if (status == ERR_OK) {
        request_reply(n, r, status, NULL, result);
    } else if (r->of_session && error_is_result(status, text)) {
        request_reply(n, r, status, text, slice_of(NULL, 0)); /* also of an earlier sending */
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
    } else if (call.kind == CALL_COMPARE) {
        compare_answer(n, call.member, call.detail, status, result);
    } else if (call.what != NULL) {
        forwarded_answer(n, call.what, status, text, result);
    }
}

/* ---- deadlines ----------------------------------------------------------------------------- */

/* Its answer will find nobody. */
static void forget_call(struct node *n, struct request *r)
{
    if (r->phase == REQUEST_FORWARDED) {
        struct call *c = calls_find(&n->calls, r->call);
        ASSERT(c != NULL && c->what == r);
        c->what = NULL;
    }
}

static void expire_one(struct node *n, struct request *r)
{
    bool sent = r->phase == REQUEST_FORWARDED || r->submitted || r->phase == REQUEST_FLIGHT;
    forget_call(n, r);
    if (sent && !request_is_read(r->method)) {
        request_fail(n, r, ERR_OUTCOME_UNKNOWN, "no answer in time; it may have been applied");
    } else {
        request_fail(n, r, ERR_TIMEOUT, "the deadline passed; nothing was applied");
    }
}

/* Noted for the next look. */
static void not_yet(struct node *n, const struct request *r)
{
    n->scan_ms = MIN(n->scan_ms, r->deadline_ms);
}

static void expire_queue(struct node *n, struct list *q)
{
    for (struct list *l = q->next, *next; l != q; l = next) {
        next = l->next;
        struct request *r = container_of(l, struct request, link);
        if (n->now >= r->deadline_ms) {
            expire_one(n, r);
        } else {
            not_yet(n, r);
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
        } else {
            not_yet(n, r);
        }
    }
}

void requests_expire(struct node *n)
{
    if (n->now < n->scan_ms) {
        return;
    }
    struct list *const queues[] = {&n->waiting, &n->batch,     &n->reads,   &n->locals,
                                   &n->flying,  &n->forwarded, &n->ops_list};
    n->scan_ms = UINT64_MAX;
    for (size_t i = 0; i < ARRAY_LEN(queues); i++) {
        expire_queue(n, queues[i]);
    }
    expire_renewals(n);
}

uint64_t requests_deadline(const struct node *n)
{
    return MIN(n->scan_ms, n->route_ms);
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

void requests_abandon(struct node *n, const char *why)
{
    struct list *const queues[] = {&n->waiting, &n->batch,     &n->reads,    &n->locals,
                                   &n->flying,  &n->forwarded, &n->ops_list, &n->done};
    for (size_t i = 0; i < ARRAY_LEN(queues); i++) {
        while (!list_empty(queues[i])) {
            struct request *r = container_of(queues[i]->next, struct request, link);
            bool sent = r->phase == REQUEST_FORWARDED || r->phase == REQUEST_FLIGHT ||
                        r->phase == REQUEST_DONE || r->submitted;
            forget_call(n, r);
            request_fail(n, r, sent ? ERR_OUTCOME_UNKNOWN : ERR_UNAVAILABLE, why);
        }
    }
    while (!list_empty(&n->renew.items)) {
        struct renew_item *item = container_of(n->renew.items.next, struct renew_item, link);
        request_fail(n, container_of(item, struct request, item), ERR_UNAVAILABLE, why);
    }
}

void node_abandon(struct node *n)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    write_deliver(n);
    requests_abandon(n, "the node is stopping");
}

void node_link(struct node *n, uint64_t member, bool up)
{
    CHECK_MAGIC(n, NODE_MAGIC);
    if (up) {
        recall_tell(n, member);
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
