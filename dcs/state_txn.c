/* Transactions: compare, then one of two lists of operations. All of it is checked before the first
 * operation runs, so that an operation cannot fail half way and nothing has to be taken back. Later
 * operations see what earlier ones wrote; all of them are one revision. */
#include "dcs/state_internal.h"

/* ---- compare ---- */

enum target {
    TARGET_VALUE,
    TARGET_VERSION,
    TARGET_CREATE,
    TARGET_MOD,
    TARGET_LEASE,
    TARGET_NONE
};

static enum target target_parse(const char *name)
{
    static const char *const names[] = {"value", "version", "create", "mod", "lease"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(names[i], name) == 0)
            return (enum target)i;
    return TARGET_NONE;
}

static bool op_known(const char *op)
{
    return strcmp(op, "=") == 0 || strcmp(op, "!=") == 0 || strcmp(op, "<") == 0 ||
           strcmp(op, ">") == 0;
}

static enum err compare_check(struct state *s, const struct compare *c, uint64_t *total,
                              struct errmsg *e)
{
    if (target_parse(c->target) == TARGET_NONE)
        return err_set(e, ERR_INVALID,
                       "compare: target \"%s\" is none of value, version, create, mod, lease",
                       c->target);
    if (!op_known(c->op))
        return err_set(e, ERR_INVALID, "compare: operator \"%s\" is none of = != < >", c->op);
    enum err rc = kv_check_range(c->key, c->end, e);
    *total += rc == ERR_OK && c->end.n != 0 ? kv_count(s, c->key, c->end) : 0;
    if (*total > STATE_DELETE_MAX)
        return err_set(e, ERR_LIMIT, "the compares look at more than %d keys",
                       (int)STATE_DELETE_MAX);
    return rc;
}

static bool op_holds(const char *op, int order)
{
    if (op[0] == '=')
        return order == 0;
    if (op[0] == '!')
        return order != 0;
    return op[0] == '<' ? order < 0 : order > 0;
}

static bool one_holds(const void *arg, const struct kv *kv)
{
    const struct compare *c = arg;
    uint64_t number = 0;
    switch (target_parse(c->target)) {
    case TARGET_VALUE:
        if (kv->mod_revision ==
            0) /* absent: neither below nor above any value, and equal to none */
            return c->op[0] == '!';
        return op_holds(c->op, slice_cmp(kv->value, c->value));
    case TARGET_VERSION:
        number = kv->version;
        break;
    case TARGET_CREATE:
        number = kv->create_revision;
        break;
    case TARGET_MOD:
        number = kv->mod_revision;
        break;
    case TARGET_LEASE:
        number = kv->lease;
        break;
    case TARGET_NONE:
        UNREACHABLE();
    }
    return op_holds(c->op, (number > c->number) - (number < c->number));
}

static bool compare_holds(struct state *s, const struct compare *c)
{
    static const struct kv absent;
    uint64_t n;
    bool all = kv_all(s, c->key, c->end, one_holds, c, &n);
    return n > 0 ? all : one_holds(c, &absent);
}

/* Checks all compares; *ret_all: all hold. */
static enum err compare_all(struct apply *a, struct slice list, bool *ret_all)
{
    struct msg_iter it;
    struct compare c;
    uint64_t total = 0;
    bool all = true;
    if (msg_iter_init(&it, list) != ERR_OK)
        return err_set(&a->error, ERR_INVALID, "compare: not a list");
    if (it.left > STATE_TXN_OPS_MAX)
        return err_set(&a->error, ERR_LIMIT, "%zu compares, the most is %d", it.left,
                       (int)STATE_TXN_OPS_MAX);
    while (it.left > 0) {
        enum err rc = msg_iter_next(&it, &msg_compare, &c, &a->error);
        if (rc == ERR_OK)
            rc = compare_check(a->s, &c, &total, &a->error);
        if (rc != ERR_OK)
            return rc;
        all = all && compare_holds(a->s, &c);
    }
    *ret_all = all;
    return ERR_OK;
}

/* ---- operations ---- */

/* runs: the list is the chosen one. A lease that does not exist is no fault of the other. */
static enum err op_check(struct apply *a, const struct txn_op *op, bool runs, uint64_t *deletes)
{
    if (strcmp(op->op, "put") == 0)
        return kv_check_put(a->s, op->key, op->value, runs ? op->lease : 0, &a->error);
    if (strcmp(op->op, "delete") == 0 && runs)
        return kv_check_delete(a->s, op->key, op->end, deletes, &a->error);
    if (strcmp(op->op, "delete") == 0 || strcmp(op->op, "range") == 0)
        return kv_check_range(op->key, op->end, &a->error);
    return err_set(&a->error, ERR_INVALID, "operation \"%s\" is none of put, delete, range",
                   op->op);
}

static enum err ops_check(struct apply *a, struct slice list, bool runs)
{
    struct msg_iter it;
    struct txn_op op;
    uint64_t deletes = 0;
    if (msg_iter_init(&it, list) != ERR_OK)
        return err_set(&a->error, ERR_INVALID, "operations: not a list");
    if (it.left > STATE_TXN_OPS_MAX)
        return err_set(&a->error, ERR_LIMIT, "%zu operations, the most is %d", it.left,
                       (int)STATE_TXN_OPS_MAX);
    while (it.left > 0) {
        enum err rc = msg_iter_next(&it, &msg_txn_op, &op, &a->error);
        if (rc == ERR_OK)
            rc = op_check(a, &op, runs, &deletes);
        if (rc != ERR_OK)
            return rc;
    }
    return ERR_OK;
}

/* Previous pairs, and those of ranges, that do not fit into the reply are left out: `more`. */
static void op_run(struct apply *a, const struct txn_op *op, struct kv_room *room,
                   struct op_result *r, struct msg_list *ret_kvs)
{
    struct kv_prev before = {.room = room};
    struct kv_prev *prev = op->prev_kv ? &before : NULL;
    if (op->op[0] == 'p') {
        struct kv kv = {.key = op->key, .value = op->value, .lease = op->lease};
        kv_put(a, &kv, prev);
    } else if (op->op[0] == 'd') {
        r->count = kv_delete_range(a, op->key, op->end, prev);
    } else {
        struct kv_range range = {.key = op->key, .end = op->end, .limit = op->limit};
        struct kv_page page;
        kv_read_page(a->s, &range, room, &page);
        before.kvs = page.kvs;
        before.more = page.more;
        r->count = page.count;
    }
    *ret_kvs = before.kvs;
    r->more = before.more;
}

static void ops_run(struct apply *a, struct slice list, struct msg_list *results)
{
    struct msg_iter it;
    struct txn_op op;
    struct kv_room room = {STATE_RANGE_BYTES_MAX, STATE_RANGE_PAIRS_MAX};
    enum err rc = msg_iter_init(&it, list);
    ASSERT(rc == ERR_OK);
    while (it.left > 0) {
        struct op_result r = {0};
        struct msg_list kvs = {0};
        struct buf list_buf = BUF_INIT;
        rc = msg_iter_next(&it, &msg_txn_op, &op, NULL);
        ASSERT(rc == ERR_OK); /* ops_check() has read it */
        op_run(a, &op, &room, &r, &kvs);
        memcpy(r.op, op.op, sizeof r.op);
        r.revision = apply_revision_now(a);
        if (kvs.n != 0)
            msg_list_end(&kvs, &list_buf);
        r.kvs = buf_slice(&list_buf);
        msg_list_append(results, &msg_op_result, &r);
        msg_list_close(&kvs);
        buf_close(&list_buf);
    }
}

enum err cmd_txn(struct apply *a, const void *req)
{
    const struct txn_req *t = req;
    bool succeeded = false;
    enum err rc = compare_all(a, t->compare, &succeeded);
    if (rc == ERR_OK)
        rc = ops_check(a, t->then, succeeded);
    if (rc == ERR_OK)
        rc = ops_check(a, t->otherwise, !succeeded);
    if (rc != ERR_OK)
        return rc;
    struct msg_list results = {0};
    struct buf list = BUF_INIT;
    ops_run(a, succeeded ? t->then : t->otherwise, &results);
    if (results.n != 0)
        msg_list_end(&results, &list);
    struct txn_reply reply = {
        .revision = apply_revision_now(a), .succeeded = succeeded, .results = buf_slice(&list)};
    apply_result(a, &msg_txn_reply, &reply);
    if (a->s->result.len > SESSION_RESULT_MAX) {
        reply.results = (struct slice){0};
        msg_encode(&msg_txn_reply, &reply, &a->s->brief);
    }
    buf_close(&list);
    return ERR_OK;
}
