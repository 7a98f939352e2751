/* The life of a request: checked, routed to where it can be answered, forwarded, retried, expired. */
#include <stdio.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "dcs/node_private.h"

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
    [METHOD_SESSION_OPEN] = {.route = ROUTE_BATCH, .once = ONCE_ALWAYS},
    [METHOD_KV_RANGE] = {.route = ROUTE_READ, DEADLINE(range_req), .once = ONCE_ALWAYS},
    [METHOD_KV_PUT] = {.route = ROUTE_BATCH, DEADLINE(put_req), SESSION(put_req)},
    [METHOD_KV_DELETE] = {.route = ROUTE_BATCH, DEADLINE(delete_req), SESSION(delete_req)},
    [METHOD_HASH_MARK] = {.route = ROUTE_BATCH},
    [METHOD_KV_COMPACT] = {.route = ROUTE_BATCH, DEADLINE(compact_req)},
    [METHOD_KV_TXN] = {.route = ROUTE_BATCH, DEADLINE(txn_req), SESSION(txn_req)},
    [METHOD_LEASE_GRANT] = {.route = ROUTE_BATCH, DEADLINE(lease_grant), SESSION(lease_grant)},
    [METHOD_LEASE_RENEW] = {.route = ROUTE_RENEW, DEADLINE(lease_renew), .once = ONCE_ALWAYS},
    [METHOD_LEASE_REVOKE] = {.route = ROUTE_BATCH,
                             DEADLINE(lease_revoke),
                             SESSION(lease_revoke)},
    [METHOD_LEASE_INFO] = {.route = ROUTE_READ, .once = ONCE_ALWAYS},
    [METHOD_MEMBER_LIST] = {.route = ROUTE_READ, .once = ONCE_ALWAYS},
    [METHOD_MEMBER_REMOVE] = {.route = ROUTE_OP},
    [METHOD_MEMBER_PROMOTE] = {.route = ROUTE_OP, .once = ONCE_ALWAYS},
    [METHOD_MEMBER_DEMOTE] = {.route = ROUTE_OP, .once = ONCE_ALWAYS},
    [METHOD_CLUSTER_TRANSFER] = {.route = ROUTE_OP},
    [METHOD_TOKEN_CREATE] = {.route = ROUTE_BATCH},
    [METHOD_TOKEN_LIST] = {.route = ROUTE_READ, .once = ONCE_ALWAYS},
    [METHOD_TOKEN_REVOKE] = {.route = ROUTE_BATCH},
    [METHOD_TOKEN_REDEEM] = {.route = ROUTE_BATCH, .once = ONCE_ALWAYS},
    [METHOD_CERT_ISSUE] = {.route = ROUTE_BATCH},
    [METHOD_CERT_LIST] = {.route = ROUTE_READ, .once = ONCE_ALWAYS},
    [METHOD_CERT_REVOKE] = {.route = ROUTE_BATCH},
    [NODE_METHOD_PRESENT] = {.route = ROUTE_OP, .once = ONCE_ALWAYS},
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

enum route request_route(unsigned method)
{
    return rules[method].route;
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

/* A malformed request never becomes part of an entry. (What is wrong inside an inner transaction is
 * found when it is applied, which refuses the whole.) */
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
    if (err == ERR_OK && rules[method].route == ROUTE_BATCH && params.n > NODE_WRITE_MAX) {
        err = err_set(e, ERR_LIMIT, "a write has at most %d bytes, this one has %zu",
                      (int)NODE_WRITE_MAX, params.n);
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
    r->phase_since_ms = n->now;
    r->caller = *caller;
    r->n = params.n;
    memcpy(r->params, params.p, params.n);
    n->n_requests++;
    n->request_bytes += params.n;
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
    case REQUEST_LOCAL:
        return &n->locals;
    case REQUEST_FLIGHT:
        return &n->flying;
    case REQUEST_FORWARDED:
        return &n->forwarded;
    case REQUEST_OP:
        return &n->ops_list;
    case REQUEST_DONE:
        return &n->done;
    case REQUEST_PHASES:
        break;
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
    state_count_free(r->count);
    r->count = NULL;
}

/* How long it was in the phase that it leaves. */
static void count_time(const struct node *n, struct request *r)
{
    r->spent_ms[r->phase] += n->now - MIN(n->now, r->phase_since_ms);
    r->phase_since_ms = n->now;
}

/* Once, where the client asked, with what it waited for. */
static void say_slow(struct node *n, struct request *r)
{
    static const char *const names[REQUEST_PHASES] = {
        [REQUEST_WAIT] = "no_leader",    [REQUEST_BATCH] = "queue",
        [REQUEST_RENEW] = "gathering",   [REQUEST_READ] = "read_round",
        [REQUEST_LOCAL] = "local_reads", [REQUEST_FLIGHT] = "commit",
        [REQUEST_FORWARDED] = "leader",  [REQUEST_OP] = "membership_change",
        [REQUEST_DONE] = "reply"};
    char parts[200] = "";
    size_t at = 0;
    uint64_t total_ms = n->now - MIN(n->now, r->arrived_ms);
    if (total_ms < NODE_SLOW_MS || r->caller.peer != 0) {
        return;
    }
    n->slow_total++;
    if (n->slow_ms != 0 && n->now < n->slow_ms + NODE_SLOW_MS) {
        n->slow_unsaid++;
        return;
    }
    for (size_t i = 0; i < REQUEST_PHASES; i++) {
        if (r->spent_ms[i] > 0 && at < sizeof parts) {
            at += (size_t)snprintf(parts + at, sizeof parts - at, "%s%s %llu ms",
                                   at > 0 ? ", " : "", names[i],
                                   (unsigned long long)r->spent_ms[i]);
        }
    }
    log_event(LOG_WARN, "slow_request",
              KV(KV_STR("method", request_method_name(r->method)), KV_U64("ms", total_ms),
                 KV_U64("others", n->slow_unsaid)),
              "%s", parts);
    n->slow_ms = n->now;
    n->slow_unsaid = 0;
}

/* No later line has told of them. */
void requests_tell_slow(struct node *n)
{
    if (n->slow_unsaid == 0 || n->now < n->slow_ms + (uint64_t)2 * NODE_SLOW_MS) {
        return;
    }
    log_event(LOG_WARN, "slow_requests", KV(KV_U64("others", n->slow_unsaid)),
              "as many more took a second or longer in the second behind the last one told");
    n->slow_unsaid = 0;
}

void request_set_phase(struct node *n, struct request *r, enum request_phase phase)
{
    leave(n, r);
    count_time(n, r);
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
    count_time(n, r);
    say_slow(n, r);
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
    n->route_ms = MIN(n->route_ms, r->not_before_ms);
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
    enum err err = node_out(n, &e);
    err = err == ERR_OK ? request_check(n, method, params, &deadline_ms, &e) : err;
    if (err == ERR_OK && (n->n_requests >= NODE_REQUESTS_MAX ||
                          n->request_bytes + params.n > NODE_REQUEST_BYTES_MAX)) {
        err = err_set(&e, ERR_LIMIT, "node %s has too many requests under way; slow down",
                      n->name);
    }
    if (err != ERR_OK) {
        caller->cb(caller->arg, caller->tag, err, e.text, slice_of(NULL, 0));
        return;
    }
    bool wide, local = read_is_local(n, method, &wide);
    if (local && !wide) {
        read_at_once(n, method, params, caller);
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
    r->of_session = r->replayable && rules[method].once == ONCE_SESSION;
    r->deadline_ms = n->now + deadline_ms;
    n->scan_ms = MIN(n->scan_ms, r->deadline_ms);
    n->route_ms = local ? n->route_ms : n->now;
    request_set_phase(n, r, local ? REQUEST_LOCAL : REQUEST_WAIT);
}
