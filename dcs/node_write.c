/* Writes on the leader: one entry per pass with everything that waits, its results on application,
 * the replies at the end of the pass. */
#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "dcs/node_private.h"

static const enum state_command commands[METHOD_COUNT] = {
    [METHOD_SESSION_OPEN] = STATE_CMD_SESSION_OPEN,
    [METHOD_KV_PUT] = STATE_CMD_PUT,
    [METHOD_KV_DELETE] = STATE_CMD_DELETE,
    [METHOD_KV_TXN] = STATE_CMD_TXN,
    [METHOD_HASH_MARK] = STATE_CMD_HASH,
    [METHOD_KV_COMPACT] = STATE_CMD_COMPACT,
    [METHOD_LEASE_GRANT] = STATE_CMD_LEASE_GRANT,
    [METHOD_LEASE_REVOKE] = STATE_CMD_LEASE_REVOKE,
    [METHOD_TOKEN_CREATE] = STATE_CMD_TOKEN_CREATE,
    [METHOD_TOKEN_REVOKE] = STATE_CMD_TOKEN_REVOKE,
    [METHOD_TOKEN_REDEEM] = STATE_CMD_TOKEN_REDEEM,
    [METHOD_CERT_ISSUE] = STATE_CMD_CERT_ISSUE,
    [METHOD_CERT_REVOKE] = STATE_CMD_CERT_REVOKE,
};

static struct flight *flight_new(void)
{
    struct flight *f = mem_alloc(sizeof *f);
    list_init(&f->link);
    return f;
}

/* Makes room for a command at `position`; commands nobody waits for have no request. */
static void flight_extend(struct flight *f, size_t position)
{
    if (position >= f->cap) {
        size_t cap = MAX(f->cap * 2, position + 16);
        f->at = mem_resize(f->at, cap * sizeof(struct request *));
        f->cap = cap;
    }
    for (; f->n <= position; f->n++) {
        f->at[f->n] = NULL;
    }
}

static void flight_free(struct flight *f)
{
    for (size_t i = 0; i < f->n; i++) {
        if (f->at[i] != NULL) {
            ASSERT(f->at[i]->flight == f);
            f->at[i]->flight = NULL;
        }
    }
    list_remove(&f->link);
    buf_close(&f->entry);
    mem_free(f->at);
    mem_free(f);
}

static void board(struct node *n, struct flight *f, struct request *r, size_t position)
{
    ASSERT(r->flight == NULL && position >= f->n);
    request_set_phase(n, r, REQUEST_FLIGHT);
    flight_extend(f, position);
    f->at[position] = r;
    r->flight = f;
    r->position = position;
}

/* ---- gathering ----------------------------------------------------------------------------- */

void write_renew(struct node *n, struct request *r)
{
    struct buf CLEANUP(buf_close) known = BUF_INIT;
    uint64_t ttl_ms = 0;
    if (r->item.renew.ttl_ms == 0) {
        struct lease_ref ref = {.id = r->item.renew.id};
        struct lease_list list;
        struct msg_iter it;
        struct lease_state lease;
        if (state_leases(n->state, &ref, n->now, &known, NULL) == ERR_OK &&
            msg_decode(&msg_lease_list, buf_slice(&known), &list, NULL) == ERR_OK &&
            list.leases.n > 0 && msg_iter_init(&it, list.leases) == ERR_OK &&
            msg_iter_next(&it, &msg_lease_state, &lease, NULL) == ERR_OK) {
            ttl_ms = lease.ttl_ms;
        }
    }
    request_set_phase(n, r, REQUEST_RENEW);
    if (!renew_add(&n->renew, &r->item, ttl_ms, n->now)) {
        request_fail(n, r, ERR_LIMIT, "too many lease renewals wait");
    }
}

static void add_renewals(struct node *n, struct state_batch *b, struct flight *f)
{
    struct buf CLEANUP(buf_close) params = BUF_INIT;
    struct renew_item *item;
    while ((item = renew_take(&n->renew)) != NULL) {
        struct request *r = container_of(item, struct request, item);
        struct lease_renew w = item->renew;
        w.held_ms = renew_held_ms(item, n->now);
        w.deadline_ms = 0; /* the request's alone */
        buf_clear(&params);
        msg_encode(&msg_lease_renew, &w, &params);
        board(n, f, r, state_batch_add(b, STATE_CMD_LEASE_RENEW, buf_slice(&params)));
    }
}

static struct slice first_key(const struct request *r)
{
    if (r->method == METHOD_KV_PUT) {
        struct put_req put;
        return msg_decode(&msg_put_req, slice_of(r->params, r->n), &put, NULL) == ERR_OK
                   ? put.key
                   : slice_of(NULL, 0);
    }
    struct txn_req txn;
    struct txn_op op;
    struct msg_iter it;
    if (r->method != METHOD_KV_TXN ||
        msg_decode(&msg_txn_req, slice_of(r->params, r->n), &txn, NULL) != ERR_OK ||
        txn.then.n == 0 || msg_iter_init(&it, txn.then) != ERR_OK ||
        msg_iter_next(&it, &msg_txn_op, &op, NULL) != ERR_OK) {
        return slice_of(NULL, 0);
    }
    return op.key;
}

/* Looking costs as much as a small write: while there is plenty, once in a while is enough. */
static bool plenty(struct node *n)
{
    if (n->now >= n->plenty_until_ms &&
        state_admit(n->state, NODE_PLENTY_BYTES, false, NULL) == ERR_OK) {
        n->plenty_until_ms = n->now + NODE_PLENTY_MS;
    }
    return n->now < n->plenty_until_ms;
}

/* Its result is kept, so that it costs nothing. */
static bool has_result(struct node *n, const struct request *r)
{
    struct put_req put = {.session = 0};
    struct txn_req txn = {.session = 0};
    struct slice params = slice_of(r->params, r->n);
    bool is_put = r->method == METHOD_KV_PUT;
    enum err err = is_put ? msg_decode(&msg_put_req, params, &put, NULL)
                          : msg_decode(&msg_txn_req, params, &txn, NULL);
    uint64_t session = is_put ? put.session : txn.session;
    return err == ERR_OK && session != 0 &&
           state_has_result(n->state, session, is_put ? put.seq : txn.seq);
}

/* Only what stores something is held to the quota and to the room on this disk; HA keys may use the
 * reserve of both. */
static bool has_room(struct node *n, const struct request *r, size_t bytes, struct errmsg *e)
{
    if ((r->method != METHOD_KV_PUT && r->method != METHOD_KV_TXN) ||
        (plenty(n) && !n->disk_full) || has_result(n, r)) {
        return true;
    }
    struct slice key = first_key(r);
    static const char ha[] = "/regent/";
    bool reserved = key.n >= sizeof ha - 1 && memcmp(key.p, ha, sizeof ha - 1) == 0;
    if (n->disk_full && !reserved) {
        (void)err_set(e, ERR_NO_SPACE,
                      "the disk of %s, which leads, is nearly full: free some space there, or "
                      "move leadership to a node that has room",
                      n->name);
        return false;
    }
    return state_admit(n->state, bytes + r->n, reserved, e) == ERR_OK;
}

static bool any_end(struct slice many, const struct msg *m, void *one, const struct slice *end,
                    const char *op)
{
    struct msg_iter it;
    if (many.n == 0 || msg_iter_init(&it, many) != ERR_OK) {
        return false;
    }
    while (msg_iter_next(&it, m, one, NULL) == ERR_OK) {
        if (end->n > 0 || strcmp(op, "txn") == 0) {
            return true;
        }
    }
    return false;
}

/* May it take the loop as long as the bound on the keys of one request allows? */
static bool wide(const struct request *r)
{
    struct slice params = slice_of(r->params, r->n);
    struct delete_req del;
    struct txn_req t;
    struct compare c = {.op = ""};
    struct txn_op op;
    if (r->method == METHOD_KV_DELETE) {
        return msg_decode(&msg_delete_req, params, &del, NULL) != ERR_OK || del.end.n > 0;
    }
    if (r->method != METHOD_KV_TXN) {
        return r->method == METHOD_LEASE_REVOKE;
    }
    return msg_decode(&msg_txn_req, params, &t, NULL) != ERR_OK ||
           any_end(t.compare, &msg_compare, &c, &c.end, c.op) ||
           any_end(t.then, &msg_txn_op, &op, &op.end, op.op) ||
           any_end(t.otherwise, &msg_txn_op, &op, &op.end, op.op);
}

/* Ranges inside a transaction are counted by every member as it is applied. */
static bool reads_little(struct node *n, const struct request *r, struct errmsg *e)
{
    struct txn_req t;
    return r->method != METHOD_KV_TXN ||
           msg_decode(&msg_txn_req, slice_of(r->params, r->n), &t, NULL) != ERR_OK ||
           state_txn_admit(n->state, &t, e) == ERR_OK || has_result(n, r);
}

/* false: the last one may take the loop for long, and the entry ends with it. */
static bool add_requests(struct node *n, struct state_batch *b, struct flight *f)
{
    while (!list_empty(&n->batch) && f->n < NODE_ENTRY_COMMANDS_MAX) {
        struct request *r = container_of(n->batch.next, struct request, link);
        struct errmsg e;
        if (b->n > 0 && state_batch_bytes(b) + r->n > NODE_ENTRY_MAX) {
            return true;
        }
        bool last = wide(r);
        if (!has_room(n, r, state_batch_bytes(b), &e) || (last && !reads_little(n, r, &e))) {
            request_fail(n, r, e.code, e.text);
            continue;
        }
        struct slice command =
            r->command.len > 0 ? buf_slice(&r->command) : slice_of(r->params, r->n);
        board(n, f, r, state_batch_add(b, commands[r->method], command));
        if (last) {
            return false;
        }
    }
    return true;
}

/* max_keys: of all that go together; the first lease goes with whatever it has. */
static void add_expiries(struct node *n, struct state_batch *b, struct flight *f,
                         uint64_t max_keys)
{
    struct state_expired gone[NODE_EXPIRE_MAX];
    size_t n_gone = state_expired(n->state, n->now, gone, NODE_EXPIRE_MAX);
    uint64_t keys = 0;
    for (size_t i = 0; i < n_gone && (i == 0 || keys + gone[i].keys <= max_keys); i++) {
        keys += gone[i].keys;
        flight_extend(f, state_batch_expire(b, gone[i].id, gone[i].nonce, gone[i].n));
        f->expires = true;
        log_event(LOG_INFO, "lease_expire", KV(KV_U64("lease", gone[i].id)),
                  "lease %016llx was not renewed in time", (unsigned long long)gone[i].id);
    }
}

/* ---- submitting ---------------------------------------------------------------------------- */

/* It would never leave, and stop every write behind it. */
static void refuse(struct node *n, struct flight *f)
{
    for (size_t i = 0; i < f->n; i++) {
        if (f->at[i] != NULL) {
            request_fail(n, f->at[i], ERR_LIMIT, "too large for an entry of the log");
        }
    }
    flight_free(f);
}

static bool launch(struct node *n, struct flight *f)
{
    uint64_t index = 0;
    if (f->entry.len > RAFT_FRAME_ENTRY_MAX) {
        refuse(n, f);
        return true;
    }
    enum err err = raft_core_submit(n->raft, buf_slice(&f->entry), n->now, &index);
    if (err != ERR_OK) {
        return false; /* its bound is hit, or leadership is just gone: next pass */
    }
    f->submitted = true;
    f->submitted_us = n->ops->now_us(n->arg);
    f->index = index;
    f->term = raft_core_term(n->raft);
    buf_close(&f->entry);
    if (f->expires) {
        renew_expire_proposed(&n->renew, index);
    }
    return true;
}

static struct flight *last_flight(const struct node *n)
{
    return list_empty(&n->flights) ? NULL : container_of(n->flights.prev, struct flight, link);
}

static bool expiry_due(const struct node *n)
{
    return n->now >= state_next_expiry(n->state) && n->renew.expire_index == 0 &&
           raft_core_applied_index(n->raft) >= raft_core_term_start(n->raft);
}

void write_submit(struct node *n)
{
    struct flight *stalled = last_flight(n);
    if (!node_is_leader(n) || (stalled != NULL && !stalled->submitted && !launch(n, stalled))) {
        return;
    }
    bool expire = expiry_due(n);
    if (list_empty(&n->batch) && !renew_due(&n->renew, n->now) && !expire) {
        return;
    }
    struct flight *f = flight_new();
    struct state_batch *b = &n->building;
    ASSERT(b->n == 0 && b->body.len == 0);
    add_renewals(n, b, f);
    bool room = add_requests(n, b, f);
    /* Also behind one that takes long: who sends such without end must not keep a dead node's lease alive. */
    if (expire && renew_may_expire(&n->renew, raft_core_applied_index(n->raft),
                                   raft_core_term_start(n->raft))) {
        add_expiries(n, b, f, room ? NODE_EXPIRE_KEYS_MAX : 0);
    }
    if (b->n == 0) {
        flight_free(f);
        return;
    }
    b->version = state_version(n->state);
    state_batch_end(b, n->ops->wall_ms(n->arg), &f->entry);
    list_push(&n->flights, &f->link);
    (void)launch(n, f);
}

uint64_t write_deadline(const struct node *n)
{
    if (!node_is_leader(n)) {
        return UINT64_MAX;
    }
    const struct flight *stalled = last_flight(n);
    if (stalled != NULL && !stalled->submitted) {
        return n->now + n->o.heartbeat_ms; /* what lets it go is a frame or a write that ends */
    }
    if (!list_empty(&n->batch)) {
        return n->now; /* more than one entry's worth */
    }
    bool may = n->renew.expire_index == 0 &&
               raft_core_applied_index(n->raft) >= raft_core_term_start(n->raft);
    return MIN(n->renew.due_ms, may ? state_next_expiry(n->state) : UINT64_MAX);
}

static void submit_internal(struct node *n, uint64_t *ret_index)
{
    struct buf CLEANUP(buf_close) entry = BUF_INIT;
    n->building.version = state_version(n->state);
    state_batch_end(&n->building, n->ops->wall_ms(n->arg), &entry);
    if (raft_core_submit(n->raft, buf_slice(&entry), n->now, ret_index) != ERR_OK) {
        *ret_index = 0;
    }
}

void write_member_state(struct node *n, uint64_t id, const char *new_state, uint64_t *ret_index)
{
    (void)state_batch_member(&n->building, id, new_state);
    submit_internal(n, ret_index);
}

void write_member_role(struct node *n, uint64_t id, const char *role, uint64_t *ret_index)
{
    (void)state_batch_member_role(&n->building, id, role);
    submit_internal(n, ret_index);
}

void write_member_init(struct node *n, const struct member *m, uint64_t *ret_index)
{
    (void)state_batch_member_init(&n->building, m);
    submit_internal(n, ret_index);
}

void write_version(struct node *n, uint64_t version, uint64_t *ret_index)
{
    (void)state_batch_version(&n->building, version);
    submit_internal(n, ret_index);
}

/* ---- applying ------------------------------------------------------------------------------ */

static void keep(struct node *n, struct request *r, enum err status, struct slice bytes)
{
    r->status = status;
    r->result_at = n->results.len;
    r->result_n = bytes.n;
    buf_append_slice(&n->results, bytes);
    buf_append_u8(&n->results, 0); /* texts are read as C strings */
    request_set_phase(n, r, REQUEST_DONE);
    if (n->results.len > NODE_RESULTS_MAX) {
        write_deliver(n); /* from here on the bounds of connections hold */
    }
}

static void on_result(void *arg, uint64_t index, size_t i, enum err status, const char *error,
                      struct slice result)
{
    struct node *n = arg;
    CHECK_MAGIC(n, NODE_MAGIC);
    struct flight *f = n->applying;
    if (f == NULL || i >= f->n || f->at[i] == NULL) {
        return;
    }
    ASSERT(f->index == index);
    keep(n, f->at[i], status,
         status == ERR_OK ? result : slice_str(error != NULL ? error : err_text(status)));
}

static void on_event(void *arg, bool deleted, const struct kv *kv, const struct kv *prev)
{
    struct node *n = arg;
    CHECK_MAGIC(n, NODE_MAGIC);
    watch_event(&n->hub, deleted, kv, prev);
}

static void on_revision_done(void *arg, uint64_t revision)
{
    struct node *n = arg;
    CHECK_MAGIC(n, NODE_MAGIC);
    watch_revision_done(&n->hub, revision);
}

const struct state_ops node_state_ops = {
    .result = on_result,
    .event = on_event,
    .revision_done = on_revision_done,
};

/* The flight of the entry at `index`, if it is ours; older ones cannot be left. */
static struct flight *arrived(struct node *n, uint64_t index, uint64_t term)
{
    struct flight *f =
        list_empty(&n->flights) ? NULL : container_of(n->flights.next, struct flight, link);
    if (f == NULL || !f->submitted || f->index != index || f->term != term) {
        return NULL;
    }
    list_remove(&f->link);
    return f;
}

void write_apply(struct node *n, uint64_t index, uint64_t term, struct slice data)
{
    ASSERT(n->applying == NULL);
    struct flight *f = arrived(n, index, term);
    uint64_t began_us = n->ops->now_us(n->arg);
    if (f != NULL) {
        latency_add(&n->commit, began_us - f->submitted_us);
    }
    n->applying = f;
    const struct node_received *r = &n->received[index % NODE_RECEIVED];
    state_apply(n->state, index, data, r->index == index ? r->at_ms : n->now, &node_state_ops,
                n);
    n->applying = NULL;
    latency_add(&n->apply, n->ops->now_us(n->arg) - began_us);
    if (state_db_applied(n->state) == index) { /* entries before it are only replayed */
        compare_note(n, index);
    }
    if (state_take_mark(n->state)) {
        node_hash_begin(n, index);
    }
    renew_applied(&n->renew, index);
    if (n->member_index != 0 && index >= n->member_index) {
        n->member_index = 0;
    }
    if (f == NULL) {
        return;
    }
    for (size_t i = 0; i < f->n; i++) {
        if (f->at[i] != NULL) {
            keep(n, f->at[i], ERR_INTERNAL,
                 slice_str("the entry was applied without a result for this request"));
        }
    }
    flight_free(f);
}

void write_deliver(struct node *n)
{
    struct list *l;
    while ((l = list_pop(&n->done)) != NULL) {
        struct request *r = container_of(l, struct request, link);
        struct slice bytes = slice_of(n->results.p + r->result_at, r->result_n);
        struct buf CLEANUP(buf_close) own = BUF_INIT;
        struct errmsg e = {.text = ""};
        enum err status = r->status;
        if (status == ERR_OK && token_handles(r->method)) {
            status = token_finish(n, r, bytes, &own, &e);
            bytes = buf_slice(&own);
        }
        const char *text = status == ERR_OK    ? NULL
                           : e.text[0] != '\0' ? e.text
                                               : (const char *)bytes.p;
        request_reply(n, r, status, text, status == ERR_OK ? bytes : slice_of(NULL, 0));
    }
    buf_clear(&n->results);
    buf_trim(&n->results, NODE_RESULTS_KEEP);
}

/* Submitted entries may still be committed by the next leader; the others never left. */
void write_lost_leadership(struct node *n)
{
    while (!list_empty(&n->flights)) {
        struct flight *f = container_of(n->flights.next, struct flight, link);
        for (size_t i = 0; i < f->n; i++) {
            struct request *r = f->at[i];
            if (r == NULL) {
                continue;
            }
            if (f->submitted) {
                request_lost(n, r,
                             "the leader changed before the answer; it may have been applied");
            } else {
                request_wait(n, r, 0);
            }
        }
        flight_free(f);
    }
}

void write_free(struct node *n)
{
    while (!list_empty(&n->flights)) {
        flight_free(container_of(n->flights.next, struct flight, link));
    }
    buf_close(&n->building.body);
}
