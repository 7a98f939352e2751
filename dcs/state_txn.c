/* Transactions: compare, then one of two lists of operations, which may be transactions again. All of it
 * is checked, and every compare decided, before the first operation runs, so that an operation cannot
 * fail half way and nothing has to be taken back. Later operations see what earlier ones wrote; all of
 * them are one revision. */
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

/* Which way each transaction that runs goes, in the order in which they are met: an outer one before
 * those in its list. All are decided before the first operation runs. */
struct path {
    bool succeeded[STATE_TXN_TOTAL_MAX + 1];
    size_t n;
};

/* What is left of a transaction that is looked at: a list, and perhaps another one behind it. */
struct check_level {
    struct msg_iter ops;
    bool runs; /* the list is one of those that are chosen */
    bool otherwise_waits, otherwise_runs;
    struct slice otherwise;
};

struct check {
    struct apply *a;
    struct path path;
    size_t compares, ops;                 /* of all transactions */
    uint64_t keys_compared, keys_deleted; /* by what runs */
    bool admits;        /* only asked what it would cost: nothing of it runs */
    uint64_t keys_read; /* then: by ranges, in all lists */
    struct check_level level[STATE_TXN_DEPTH_MAX];
    size_t depth;
};

/* A transaction is the request itself, or an operation of another one. */
struct parts {
    struct slice compare, then, otherwise;
};

static enum err compare_check(struct check *k, const struct compare *c, bool runs)
{
    struct errmsg *e = &k->a->error;
    if (target_parse(c->target) == TARGET_NONE)
        return err_set(e, ERR_INVALID,
                       "compare: target \"%s\" is none of value, version, create, mod, lease",
                       c->target);
    if (!op_known(c->op))
        return err_set(e, ERR_INVALID, "compare: operator \"%s\" is none of = != < >", c->op);
    enum err rc = kv_check_range(c->key, c->end, e);
    bool counts = rc == ERR_OK && runs && c->end.n != 0;
    k->keys_compared +=
        counts ? kv_count_upto(k->a->s, c->key, c->end, STATE_DELETE_MAX + 1) : 0;
    if (k->keys_compared > STATE_DELETE_MAX)
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

/* *total: in all lists so far. */
static enum err list_begin(struct check *k, struct slice list, const char *what, size_t *total,
                           struct msg_iter *ret_it)
{
    if (msg_iter_init(ret_it, list) != ERR_OK)
        return err_set(&k->a->error, ERR_INVALID, "%s: not a list", what);
    if (ret_it->left > STATE_TXN_OPS_MAX)
        return err_set(&k->a->error, ERR_LIMIT, "%zu %s, the most is %d", ret_it->left, what,
                       (int)STATE_TXN_OPS_MAX);
    *total += ret_it->left;
    if (*total > STATE_TXN_TOTAL_MAX)
        return err_set(&k->a->error, ERR_LIMIT,
                       "more than %d %s in a transaction and those inside it",
                       (int)STATE_TXN_TOTAL_MAX, what);
    return ERR_OK;
}

/* Checks all compares; *ret_all: all hold, as far as that matters. */
static enum err compare_all(struct check *k, struct slice list, bool runs, bool *ret_all)
{
    struct msg_iter it;
    struct compare c;
    bool all = true;
    enum err rc = list_begin(k, list, "compares", &k->compares, &it);
    while (rc == ERR_OK && it.left > 0) {
        rc = msg_iter_next(&it, &msg_compare, &c, &k->a->error);
        if (rc == ERR_OK)
            rc = compare_check(k, &c, runs);
        if (rc == ERR_OK)
            all = all && runs && compare_holds(k->a->s, &c);
    }
    *ret_all = all;
    return rc;
}

/* ---- checking ---- */

static struct parts parts_of(const struct txn_op *op)
{
    return (struct parts){op->compare, op->then, op->otherwise};
}

static enum err check_ops_of(struct check *k, struct check_level *l, struct slice list,
                             bool runs)
{
    l->runs = runs;
    return list_begin(k, list, "operations", &k->ops, &l->ops);
}

static enum err check_enter(struct check *k, const struct parts *t, bool runs)
{
    bool all;
    if (k->depth == STATE_TXN_DEPTH_MAX)
        return err_set(&k->a->error, ERR_LIMIT,
                       "transactions inside each other: %d levels are the most",
                       (int)STATE_TXN_DEPTH_MAX);
    enum err rc = compare_all(k, t->compare, runs, &all);
    if (rc != ERR_OK)
        return rc;
    if (runs)
        k->path.succeeded[k->path.n++] = all;
    struct check_level *l = &k->level[k->depth++];
    *l = (struct check_level){
        .otherwise = t->otherwise, .otherwise_waits = true, .otherwise_runs = runs && !all};
    return check_ops_of(k, l, t->then, runs && all);
}

static struct kv_change change_of(const struct txn_op *op)
{
    return (struct kv_change){op->key, op->value, op->lease, op->ignore_value,
                              op->ignore_lease};
}

static enum err check_put(struct apply *a, const struct txn_op *op, bool runs)
{
    struct kv_change c = change_of(op);
    return kv_check_put(a->s, &c, runs, &a->error);
}

static enum err check_read(struct check *k, const struct txn_op *op)
{
    struct apply *a = k->a;
    enum err rc = kv_check_range(op->key, op->end, &a->error);
    if (rc != ERR_OK || !k->admits || op->end.n == 0)
        return rc;
    k->keys_read += kv_count_upto(a->s, op->key, op->end, STATE_DELETE_MAX + 1);
    if (k->keys_read > STATE_DELETE_MAX)
        return err_set(
            &a->error, ERR_LIMIT,
            "the ranges of a transaction look at %d keys at most, whatever their limit: "
            "all members stand still meanwhile; read outside of it",
            (int)STATE_DELETE_MAX);
    return ERR_OK;
}

/* A lease that does not exist is no fault of a list that does not run. */
static enum err op_check(struct check *k, const struct txn_op *op, bool runs)
{
    struct apply *a = k->a;
    if (strcmp(op->op, "put") == 0)
        return check_put(a, op, runs);
    if (strcmp(op->op, "delete") == 0 && runs)
        return kv_check_delete(a->s, op->key, op->end, &k->keys_deleted, &a->error);
    if (strcmp(op->op, "delete") == 0)
        return kv_check_range(op->key, op->end, &a->error);
    if (strcmp(op->op, "range") == 0)
        return check_read(k, op);
    if (strcmp(op->op, "txn") == 0) {
        struct parts inner = parts_of(op);
        return check_enter(k, &inner, runs);
    }
    return err_set(&a->error, ERR_INVALID,
                   "operation \"%s\" is none of put, delete, range, txn", op->op);
}

static enum err check_all(struct check *k, const struct parts *t)
{
    enum err rc = check_enter(k, t, !k->admits);
    while (rc == ERR_OK && k->depth > 0) {
        struct check_level *l = &k->level[k->depth - 1];
        struct txn_op op;
        if (l->ops.left > 0) {
            rc = msg_iter_next(&l->ops, &msg_txn_op, &op, &k->a->error);
            if (rc == ERR_OK)
                rc = op_check(k, &op, l->runs);
        } else if (l->otherwise_waits) {
            l->otherwise_waits = false;
            rc = check_ops_of(k, l, l->otherwise, l->otherwise_runs);
        } else {
            k->depth--;
        }
    }
    return rc;
}

/* What else is wrong with it is told when it is applied. */
enum err state_txn_admit(struct state *s, const struct txn_req *t, struct errmsg *e)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    struct apply a = {.s = s};
    struct check k = {.a = &a, .admits = true};
    struct parts whole = {t->compare, t->then, t->otherwise};
    (void)!check_all(&k, &whole);
    return k.keys_read > STATE_DELETE_MAX ? err_set(e, ERR_LIMIT, "%s", a.error.text) : ERR_OK;
}

/* ---- running ---- */

struct run_level {
    struct msg_iter ops;
    bool succeeded;
    struct msg_list results;
};

struct run {
    struct apply *a;
    const struct path *path;
    size_t at; /* in it: the next transaction */
    struct kv_room room;
    struct run_level level[STATE_TXN_DEPTH_MAX];
    size_t depth;
};

static void run_enter(struct run *r, const struct parts *t)
{
    ASSERT(r->depth < STATE_TXN_DEPTH_MAX && r->at < r->path->n);
    struct run_level *l = &r->level[r->depth++];
    *l = (struct run_level){.succeeded = r->path->succeeded[r->at++]};
    enum err rc = msg_iter_init(&l->ops, l->succeeded ? t->then : t->otherwise);
    ASSERT(rc == ERR_OK); /* check_all() has read it */
}

/* The list of results, encoded; empty without one. */
static struct slice results_end(struct msg_list *results, struct buf *room)
{
    if (results->n != 0)
        msg_list_end(results, room);
    return buf_slice(room);
}

/* Previous pairs, and those of ranges, that do not fit into the reply are left out: `more`. */
static void op_run(struct run *run, const struct txn_op *op)
{
    struct apply *a = run->a;
    struct op_result r = {0};
    struct buf list = BUF_INIT;
    struct kv_prev before = {.room = &run->room};
    struct kv_prev *prev = op->prev_kv ? &before : NULL;
    if (op->op[0] == 'p') {
        struct kv_change c = change_of(op);
        kv_put(a, &c, prev);
    } else if (op->op[0] == 'd') {
        r.count = kv_delete_range(a, op->key, op->end, prev);
    } else {
        struct kv_range range = {.key = op->key, .end = op->end, .limit = op->limit};
        struct kv_page page;
        kv_read_page(a->s, &range, &run->room, &page);
        before.kvs = page.kvs;
        before.more = page.more;
        r.count = page.count;
    }
    memcpy(r.op, op->op, sizeof r.op);
    r.revision = apply_revision_now(a);
    r.more = before.more;
    r.kvs = results_end(&before.kvs, &list);
    msg_list_append(&run->level[run->depth - 1].results, &msg_op_result, &r);
    msg_list_close(&before.kvs);
    buf_close(&list);
}

/* The innermost transaction is done: its results become one of those of the transaction around it. */
static void run_leave(struct run *run)
{
    struct run_level *l = &run->level[--run->depth];
    struct buf list = BUF_INIT;
    struct op_result r = {
        .op = "txn", .revision = apply_revision_now(run->a), .succeeded = l->succeeded};
    r.results = results_end(&l->results, &list);
    msg_list_append(&run->level[run->depth - 1].results, &msg_op_result, &r);
    buf_close(&list);
}

static void run_all(struct run *r, const struct parts *t)
{
    run_enter(r, t);
    while (r->depth > 1 || r->level[0].ops.left > 0) {
        struct run_level *l = &r->level[r->depth - 1];
        struct txn_op op;
        if (l->ops.left == 0) {
            run_leave(r);
            continue;
        }
        enum err rc = msg_iter_next(&l->ops, &msg_txn_op, &op, NULL);
        ASSERT(rc == ERR_OK);
        if (op.op[0] == 't') {
            struct parts inner = parts_of(&op);
            run_enter(r, &inner);
        } else {
            op_run(r, &op);
        }
    }
}

enum err cmd_txn(struct apply *a, const void *req)
{
    const struct txn_req *t = req;
    struct parts whole = {t->compare, t->then, t->otherwise};
    struct check k = {.a = a};
    enum err rc = check_all(&k, &whole);
    if (rc != ERR_OK)
        return rc;
    struct run r = {
        .a = a, .path = &k.path, .room = {STATE_RANGE_BYTES_MAX, STATE_RANGE_PAIRS_MAX}};
    run_all(&r, &whole);
    ASSERT(r.at == k.path.n);
    struct buf list = BUF_INIT;
    struct txn_reply reply = {.revision = apply_revision_now(a),
                              .succeeded = r.level[0].succeeded};
    reply.results = results_end(&r.level[0].results, &list);
    apply_result(a, &msg_txn_reply, &reply);
    if (a->s->result.len > SESSION_RESULT_MAX) {
        reply.results = (struct slice){0};
        msg_encode(&msg_txn_reply, &reply, &a->s->brief);
    }
    buf_close(&list);
    return ERR_OK;
}
