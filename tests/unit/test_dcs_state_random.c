/* Seeded random entries. Against a simple model in memory; and members fed alike, one of them
 * restarting, one restored from copies, must stay equal. A failure names its seed:
 *
 *     test_dcs_state_random [SEED]                                                            */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "dcs/state.h"
#include "tests/unit/scratch.h"

enum { KEYS = 8, IDS_MAX = 8, COMMANDS_MAX = 40, MEMBERS = 3 };

static uint64_t first_seed = 1;

/* ---- making entries ---- */

struct gen {
    struct rng rng;
    uint64_t seed;
    uint64_t leases[IDS_MAX]; /* ids given out lately, dead ones among them */
    uint64_t sessions[IDS_MAX];
    uint64_t n_leases, n_sessions;
    uint64_t seq;
    uint64_t renewal; /* n of the last renewal */
};

static uint64_t below(struct gen *g, uint64_t n)
{
    return rng_below(&g->rng, n);
}

static struct slice pick_key(struct gen *g, char *room)
{
    (void)snprintf(room, 8, "k%u", (unsigned)below(g, KEYS));
    return slice_str(room);
}

static uint64_t pick_lease(struct gen *g)
{
    return below(g, 3) != 0 || g->n_leases == 0
               ? 0
               : g->leases[below(g, MIN(g->n_leases, (uint64_t)IDS_MAX))];
}

/* Some requests are protected, some of these are sent again, some come too late. */
static void pick_session(struct gen *g, uint64_t *ret_session, uint64_t *ret_seq)
{
    if (g->n_sessions == 0 || below(g, 2) == 0)
        return;
    *ret_session = g->sessions[below(g, MIN(g->n_sessions, (uint64_t)IDS_MAX))];
    *ret_seq = below(g, 4) == 0 ? 1 + below(g, g->seq + 1) : ++g->seq;
}

static void add(struct state_batch *b, enum state_command cmd, const struct msg *m,
                const void *req)
{
    struct buf params = BUF_INIT;
    msg_encode(m, req, &params);
    (void)state_batch_add(b, cmd, buf_slice(&params));
    buf_close(&params);
}

static void gen_put(struct gen *g, struct state_batch *b)
{
    char key[8], value[16];
    (void)snprintf(value, sizeof value, "v%u", (unsigned)below(g, 100));
    struct put_req r = {.key = pick_key(g, key),
                        .value = slice_str(value),
                        .lease = pick_lease(g),
                        .prev_kv = below(g, 2) == 0,
                        .ignore_value = below(g, 8) == 0,
                        .ignore_lease = below(g, 8) == 0};
    r.value = r.ignore_value ? (struct slice){0} : r.value;
    r.lease = r.ignore_lease ? 0 : r.lease;
    pick_session(g, &r.session, &r.seq);
    add(b, STATE_CMD_PUT, &msg_put_req, &r);
}

static void gen_delete(struct gen *g, struct state_batch *b)
{
    char key[8], end[8];
    struct delete_req r = {.key = pick_key(g, key), .prev_kv = below(g, 2) == 0};
    if (below(g, 3) == 0)
        r.end = pick_key(g, end);
    pick_session(g, &r.session, &r.seq);
    add(b, STATE_CMD_DELETE, &msg_delete_req, &r);
}

static void gen_compare(struct gen *g, struct buf *out)
{
    static const char *const ops[] = {"=", "!=", "<", ">"};
    char key[8];
    struct msg_list list = {0};
    struct compare c = {.key = pick_key(g, key), .target = "version", .number = below(g, 4)};
    const char *op = ops[below(g, ARRAY_LEN(ops))];
    memcpy(c.op, op, strlen(op));
    msg_list_append(&list, &msg_compare, &c);
    msg_list_end(&list, out);
}

static void gen_ops(struct gen *g, unsigned depth, struct buf *out);

struct parts {
    struct buf compare, then, otherwise;
};

static void gen_parts(struct gen *g, unsigned depth, struct parts *p)
{
    *p = (struct parts){BUF_INIT, BUF_INIT, BUF_INIT};
    gen_compare(g, &p->compare);
    gen_ops(g, depth, &p->then);
    gen_ops(g, depth, &p->otherwise);
}

static void parts_close(struct parts *p)
{
    buf_close(&p->compare);
    buf_close(&p->then);
    buf_close(&p->otherwise);
}

/* depth: of the transaction it is a list of; 1: the outermost. */
static void gen_op(struct gen *g, unsigned depth, struct msg_list *list)
{
    static const char *const names[] = {"put", "put", "delete", "range", "txn"};
    const char *name = names[below(g, ARRAY_LEN(names))];
    struct txn_op op = {.op = ""};
    struct parts inner = {BUF_INIT, BUF_INIT, BUF_INIT};
    char key[8];
    memcpy(op.op, name, strlen(name));
    if (strcmp(name, "txn") == 0) { /* rarely too deep */
        gen_parts(g, depth + 1, &inner);
        op.compare = buf_slice(&inner.compare);
        op.then = buf_slice(&inner.then);
        op.otherwise = buf_slice(&inner.otherwise);
    } else {
        op.key = pick_key(g, key);
        op.ignore_value = below(g, 8) == 0;
        op.ignore_lease = below(g, 8) == 0;
        op.value = op.ignore_value ? (struct slice){0} : slice_str("t");
        op.lease = op.ignore_lease ? 0 : pick_lease(g);
    }
    msg_list_append(list, &msg_txn_op, &op);
    parts_close(&inner);
}

static void gen_ops(struct gen *g, unsigned depth, struct buf *out)
{
    struct msg_list list = {0};
    for (uint64_t n = depth > 5 ? 0 : below(g, 4); n > 0; n--)
        gen_op(g, depth, &list);
    msg_list_end(&list, out);
}

static void gen_txn(struct gen *g, struct state_batch *b)
{
    struct parts p;
    gen_parts(g, 1, &p);
    struct txn_req r = {.compare = buf_slice(&p.compare),
                        .then = buf_slice(&p.then),
                        .otherwise = buf_slice(&p.otherwise)};
    pick_session(g, &r.session, &r.seq);
    add(b, STATE_CMD_TXN, &msg_txn_req, &r);
    parts_close(&p);
}

static void gen_lease(struct gen *g, struct state_batch *b)
{
    uint64_t id =
        g->n_leases == 0 ? 7 : g->leases[below(g, MIN(g->n_leases, (uint64_t)IDS_MAX))];
    struct lease_grant grant = {.ttl_ms = 100 + below(g, 5000), .nonce = 1};
    struct lease_renew renew = {.id = id,
                                .nonce = 1 + below(g, 2),
                                .n = below(g, 4) == 0 ? g->renewal : ++g->renewal,
                                .ttl_ms = below(g, 4) == 0 ? 100 + below(g, 5000) : 0,
                                .held_ms = below(g, 300)};
    struct lease_revoke revoke = {.id = id};
    switch (below(g, 8)) {
    case 0:
        pick_session(g, &grant.session, &grant.seq);
        add(b, STATE_CMD_LEASE_GRANT, &msg_lease_grant, &grant);
        break;
    case 1:
        pick_session(g, &revoke.session, &revoke.seq);
        add(b, STATE_CMD_LEASE_REVOKE, &msg_lease_revoke, &revoke);
        break;
    case 2:
        (void)state_batch_expire(b, id, 1 + below(g, 2),
                                 g->renewal - MIN(g->renewal, below(g, 3)));
        break;
    default:
        add(b, STATE_CMD_LEASE_RENEW, &msg_lease_renew, &renew);
        break;
    }
}

static void gen_rare(struct gen *g, struct state_batch *b)
{
    struct session_open open = {.nonce = 1 + below(g, 5)};
    struct member first = {.name = "n1", .address = "h:1", .role = "voter"};
    struct cert_issue issue = {.name = {(char)('a' + below(g, 4))}, .role = "viewer"};
    struct cert_ref ref = {.name = {(char)('a' + below(g, 4))}, .unlisted = below(g, 2) == 0};
    switch (below(g, 6)) {
    case 4:
        issue.renews = below(g, 1000) << 16;
        add(b, STATE_CMD_CERT_ISSUE, &msg_cert_issue, &issue);
        break;
    case 5:
        add(b, STATE_CMD_CERT_REVOKE, &msg_cert_ref, &ref);
        break;
    case 0:
        (void)state_batch_member_init(b, &first);
        break;
    case 1:
        (void)state_batch_compact(b, below(g, 50));
        break;
    default:
        add(b, STATE_CMD_SESSION_OPEN, &msg_session_open, &open);
        break;
    }
}

static void gen_command(struct gen *g, struct state_batch *b)
{
    uint64_t pick = below(g, 100);
    if (pick < 45)
        gen_put(g, b);
    else if (pick < 55)
        gen_delete(g, b);
    else if (pick < 70)
        gen_txn(g, b);
    else if (pick < 96)
        gen_lease(g, b);
    else
        gen_rare(g, b);
}

/* Every fifth entry is renewals alone, as when nothing else goes on. */
static void gen_entry(struct gen *g, size_t commands, struct buf *ret_entry)
{
    struct state_batch b = {0};
    bool idle = below(g, 5) == 0;
    for (size_t n = 1 + below(g, commands); n > 0; n--) {
        struct lease_renew renew = {
            .id = g->leases[below(g, IDS_MAX)], .nonce = 1, .n = ++g->renewal};
        if (idle)
            add(&b, STATE_CMD_LEASE_RENEW, &msg_lease_renew, &renew);
        else
            gen_command(g, &b);
    }
    state_batch_end(&b, 1000, ret_entry);
    buf_close(&b.body);
}

/* ---- members ---- */

struct member_node {
    char dir[64];
    char path[96];
    struct state *s;
    uint64_t now_ms; /* clocks differ: they may not matter */
    struct gen *gen; /* learns ids from one of them */
    struct buf results;
};

static void on_result(void *arg, uint64_t index, size_t i, enum err status, const char *error,
                      struct slice result)
{
    struct member_node *m = arg;
    struct lease_state l;
    struct session_reply r;
    buf_printf(&m->results, "%llu.%zu %d %s ", (unsigned long long)index, i, (int)status,
               error == NULL ? "" : error);
    /* A lease's result tells what remains by this member's clock; all else must be equal. */
    if (status == ERR_OK && msg_decode(&msg_lease_state, result, &l, NULL) == ERR_OK &&
        l.id != 0)
        buf_printf(&m->results, "%llu %llu %llu %d", (unsigned long long)l.nonce,
                   (unsigned long long)l.n, (unsigned long long)l.ttl_ms, l.gone);
    else
        buf_append_slice(&m->results, result);
    if (m->gen == NULL || status != ERR_OK)
        return;
    if (l.id != 0 && l.n == 0 && !l.gone)
        m->gen->leases[m->gen->n_leases++ % IDS_MAX] = l.id;
    if (msg_decode(&msg_session_reply, result, &r, NULL) == ERR_OK && r.session != 0)
        m->gen->sessions[m->gen->n_sessions++ % IDS_MAX] = r.session;
}

static void node_open(struct member_node *m)
{
    struct errmsg e;
    if (state_open(m->path, "c", &m->s, &e) != ERR_OK)
        fail_msg("%s", e.text);
    state_leases_restart(m->s, m->now_ms);
}

static void node_new(struct member_node *m, uint64_t now_ms)
{
    *m = (struct member_node){.now_ms = now_ms};
    scratch_dir(m->dir, sizeof m->dir, "random");
    assert_int_equal(str_format(m->path, sizeof m->path, "%s/state.db", m->dir), ERR_OK);
    node_open(m);
}

static void node_free(struct member_node *m)
{
    char other[128];
    state_close(m->s);
    (void)unlink(m->path);
    assert_int_equal(str_format(other, sizeof other, "%s/copy.db", m->dir), ERR_OK);
    (void)unlink(other);
    (void)rmdir(m->dir);
    buf_close(&m->results);
}

static void node_apply(struct member_node *m, uint64_t index, const struct buf *entry)
{
    static const struct state_ops ops = {.result = on_result};
    m->now_ms += 17;
    state_apply(m->s, index, buf_slice(entry), m->now_ms, &ops, m);
}

static void node_restart(struct member_node *m, const struct buf *log, uint64_t last)
{
    state_close(m->s);
    node_open(m);
    for (uint64_t i = state_db_applied(m->s) + 1; i <= last; i++)
        node_apply(m, i, &log[i]);
}

/* `to` becomes what `from` is. */
static void node_install(struct member_node *from, struct member_node *to, uint64_t index)
{
    struct errmsg e;
    struct state_copy *c;
    char path[128];
    assert_int_equal(str_format(path, sizeof path, "%s/copy.db", to->dir), ERR_OK);
    state_commit_full(from->s, index);
    assert_int_equal(state_copy_begin(from->s, &c, &e), ERR_OK);
    assert_int_equal(state_copy_run(c, path, &e), ERR_OK);
    if (state_restore(to->s, path, index, to->now_ms, &e) != ERR_OK)
        fail_msg("%s", e.text);
}

static void must_be_equal(struct member_node *m, uint64_t seed, uint64_t index)
{
    uint64_t hash = state_hash(m[0].s);
    for (size_t k = 1; k < MEMBERS; k++)
        if (state_hash(m[k].s) != hash)
            fail_msg("seed %llu: member %zu differs at index %llu", (unsigned long long)seed, k,
                     (unsigned long long)index);
}

/* One member commits each entry, one restarts, one is restored from copies of the first. */
static void run_members(uint64_t seed, uint64_t entries, size_t commands, uint64_t every,
                        uint64_t *ret_compacted)
{
    struct member_node m[MEMBERS];
    struct gen g = {.seed = seed};
    struct buf *log = mem_array((size_t)entries + 1, sizeof *log);
    rng_seed(&g.rng, seed);
    for (size_t k = 0; k < MEMBERS; k++)
        node_new(&m[k], 1000 * (k + 1));
    m[0].gen = &g;
    for (uint64_t i = 1; i <= entries; i++) {
        gen_entry(&g, commands, &log[i]);
        for (size_t k = 0; k < MEMBERS; k++) {
            buf_clear(&m[k].results);
            node_apply(&m[k], i, &log[i]);
        }
        for (size_t k = 1; k < MEMBERS; k++)
            if (!slice_eq(buf_slice(&m[0].results), buf_slice(&m[k].results)))
                fail_msg("seed %llu: index %llu: results differ", (unsigned long long)seed,
                         (unsigned long long)i);
        state_commit(m[0].s, i);
        if (below(&g, 3) == 0)
            state_commit(m[1].s, i);
        if (below(&g, 8) == 0)
            node_restart(&m[1], log, i);
        if (below(&g, 20) == 0)
            node_install(&m[0], &m[2], i);
        if (i % every == 0 || i == entries)
            must_be_equal(m, seed, i);
    }
    *ret_compacted = state_compacted(m[0].s);
    for (size_t k = 0; k < MEMBERS; k++)
        node_free(&m[k]);
    for (uint64_t i = 1; i <= entries; i++)
        buf_close(&log[i]);
    mem_free(log);
}

static void members_stay_equal_at_every_index(void **t)
{
    uint64_t compacted;
    (void)t;
    for (uint64_t seed = first_seed; seed < first_seed + 6; seed++)
        run_members(seed, 150, 8, 1, &compacted);
}

static void members_stay_equal_across_automatic_compaction(void **t)
{
    uint64_t compacted;
    (void)t;
    run_members(first_seed, 1600, COMMANDS_MAX, 200, &compacted);
    assert_true(compacted > 50); /* which is all that gen_rare() asks for */
}

/* ---- the model: an array of keys ---- */

struct model_key {
    char value[16];
    uint64_t create, mod, version; /* version 0: absent */
};

struct model {
    struct model_key keys[KEYS];   /* what the operations say */
    struct model_key mirror[KEYS]; /* what the events say */
    uint64_t revision;
    struct buf told; /* events, as text */
    size_t told_at[2000];
    uint64_t count_at[2000];   /* keys there were, by revision */
    struct state_count *count; /* under way, of [from, to); NULL: none */
    size_t from, to, counts;
};

static void tell(struct buf *out, bool deleted, const struct kv *kv, const struct kv *prev)
{
    buf_printf(out, "%llu %s %.*s=%.*s was %llu %.*s\n", (unsigned long long)kv->mod_revision,
               deleted ? "del" : "put", (int)kv->key.n, (const char *)kv->key.p,
               (int)kv->value.n, (const char *)kv->value.p,
               (unsigned long long)prev->mod_revision, (int)prev->value.n,
               (const char *)prev->value.p);
}

static void model_event(void *arg, bool deleted, const struct kv *kv, const struct kv *prev)
{
    struct model *m = arg;
    struct model_key *k = &m->mirror[kv->key.p[1] - '0'];
    if (m->told_at[kv->mod_revision] == 0)
        m->told_at[kv->mod_revision] = m->told.len + 1;
    tell(&m->told, deleted, kv, prev);
    memset(k, 0, sizeof *k);
    if (deleted)
        return;
    memcpy(k->value, kv->value.p, kv->value.n);
    k->create = kv->create_revision;
    k->mod = kv->mod_revision;
    k->version = kv->version;
}

static void replay_event(void *arg, bool deleted, const struct kv *kv, const struct kv *prev)
{
    tell(arg, deleted, kv, prev);
}

static void model_put(struct model *m, size_t i, const char *value, uint64_t revision)
{
    struct model_key *k = &m->keys[i];
    memset(k->value, 0, sizeof k->value);
    memcpy(k->value, value, strlen(value));
    k->create = k->version == 0 ? revision : k->create;
    k->mod = revision;
    k->version++;
    m->revision = revision;
}

static void model_delete(struct model *m, size_t from, size_t to, uint64_t revision)
{
    for (size_t i = from; i < to; i++)
        if (m->keys[i].version != 0) {
            memset(&m->keys[i], 0, sizeof m->keys[i]);
            m->revision = revision;
        }
}

/* One random entry, on the model and into the batch. */
static void model_step(struct model *m, struct gen *g, struct state_batch *b)
{
    char from[8], to[8], value[16];
    size_t i = below(g, KEYS), j = below(g, KEYS + 1);
    uint64_t revision = m->revision + 1;
    (void)snprintf(from, sizeof from, "k%zu", i);
    (void)snprintf(to, sizeof to, "k%zu", j);
    (void)snprintf(value, sizeof value, "v%u", (unsigned)below(g, 1000));
    struct put_req put = {.key = slice_str(from), .value = slice_str(value)};
    struct delete_req del = {.key = slice_str(from), .end = slice_str(to)};
    if (below(g, 3) != 0) {
        model_put(m, i, value, revision);
        add(b, STATE_CMD_PUT, &msg_put_req, &put);
    } else {
        model_delete(m, i, j, revision);
        add(b, STATE_CMD_DELETE, &msg_delete_req, &del);
    }
}

static void check_key(const struct model_key *want, const struct kv *got)
{
    assert_true(slice_eq(slice_str(want->value), got->value));
    assert_int_equal(want->create, got->create_revision);
    assert_int_equal(want->mod, got->mod_revision);
    assert_int_equal(want->version, got->version);
}

static void check_range(struct model *m, struct state *s)
{
    struct range_req r = {.key = slice_str("k"), .end = slice_str("l")};
    struct range_reply reply;
    struct buf b = BUF_INIT;
    struct msg_iter it;
    struct kv kv;
    size_t i = 0;
    assert_int_equal(state_range(s, &r, NULL, 1 << 20, &b, NULL), ERR_OK);
    assert_int_equal(msg_decode(&msg_range_reply, buf_slice(&b), &reply, NULL), ERR_OK);
    assert_int_equal(reply.revision, m->revision);
    assert_int_equal(msg_iter_init(&it, reply.kvs), ERR_OK);
    while (msg_iter_next(&it, &msg_kv, &kv, NULL) == ERR_OK) {
        while (m->keys[i].version == 0)
            i++;
        assert_int_equal(kv.key.p[1], '0' + i);
        check_key(&m->keys[i++], &kv);
    }
    for (; i < KEYS; i++)
        assert_int_equal(m->keys[i].version, 0);
    assert_memory_equal(m->keys, m->mirror, sizeof m->keys);
    buf_close(&b);
}

static uint64_t model_count(const struct model *m, size_t from, size_t to)
{
    uint64_t n = 0;
    for (size_t i = from; i < to; i++)
        n += m->keys[i].version != 0;
    return n;
}

static uint64_t count_of(struct state *s, const struct range_req *r,
                         const struct state_count *counted)
{
    struct range_reply reply;
    struct buf b = BUF_INIT;
    assert_int_equal(state_range(s, r, counted, 100, &b, NULL), ERR_OK);
    assert_int_equal(msg_decode(&msg_range_reply, buf_slice(&b), &reply, NULL), ERR_OK);
    buf_close(&b);
    return reply.count;
}

/* In pieces, between which keys come and go in front of the place and behind it. */
static void check_count(struct model *m, struct gen *g, struct state *s)
{
    char from[8], to[8];
    if (m->count == NULL) {
        m->from = below(g, KEYS);
        m->to = m->from + 1 + below(g, KEYS - m->from);
    }
    (void)snprintf(from, sizeof from, "k%zu", m->from);
    (void)snprintf(to, sizeof to, "k%zu", m->to);
    struct range_req r = {
        .key = slice_str(from), .end = slice_str(m->to < KEYS ? to : "l"), .count_only = true};
    assert_true(state_count_wanted(&r));
    if (m->count == NULL)
        m->count = state_count_new(s, &r);
    if (!state_count_some(m->count, 1 + below(g, 2)))
        return;
    m->counts++;
    assert_int_equal(count_of(s, &r, m->count), model_count(m, m->from, m->to));
    if (below(g, 3) == 0)
        return; /* it stays right */
    state_count_free(m->count);
    m->count = NULL;
}

static void check_past_count(struct model *m, struct gen *g, struct state *s)
{
    struct range_req all = {.key = slice_str("k"), .end = slice_str("l"), .count_only = true};
    m->count_at[m->revision] = model_count(m, 0, KEYS);
    all.revision = m->revision != 0 ? 1 + below(g, m->revision) : 0;
    assert_int_equal(count_of(s, &all, NULL), m->count_at[all.revision]);
}

static void check_replay(struct model *m, struct gen *g, struct state *s)
{
    static const struct state_ops ops = {.event = replay_event};
    struct buf again = BUF_INIT;
    if (m->revision == 0)
        return;
    uint64_t from = 1 + below(g, m->revision), next;
    assert_int_equal(state_replay_some(s, from, 0, &ops, &again, &next), ERR_OK);
    size_t at = m->told_at[from] - 1;
    assert_int_equal(again.len, m->told.len - at);
    assert_memory_equal(again.p, m->told.p + at, again.len);
    buf_close(&again);
}

static void keys_and_events_are_those_of_a_simple_model(void **t)
{
    static const struct state_ops ops = {.event = model_event};
    (void)t;
    for (uint64_t seed = first_seed; seed < first_seed + 3; seed++) {
        struct member_node node;
        struct gen g = {.seed = seed};
        struct model *m = mem_alloc(sizeof *m);
        rng_seed(&g.rng, seed);
        node_new(&node, 1000);
        for (uint64_t i = 1; i <= 1000; i++) {
            struct state_batch b = {0};
            struct buf entry = BUF_INIT;
            model_step(m, &g, &b);
            state_batch_end(&b, 1, &entry);
            state_apply(node.s, i, buf_slice(&entry), 1000, &ops, m);
            assert_int_equal(state_revision(node.s), m->revision);
            check_range(m, node.s);
            check_count(m, &g, node.s);
            check_past_count(m, &g, node.s);
            if (i % 10 == 0)
                check_replay(m, &g, node.s);
            if (i % 7 == 0)
                state_commit(node.s, i);
            buf_close(&entry);
            buf_close(&b.body);
        }
        assert_true(m->counts > 10);
        state_count_free(m->count);
        buf_close(&m->told);
        mem_free(m);
        node_free(&node);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_and_events_are_those_of_a_simple_model),
        cmocka_unit_test(members_stay_equal_at_every_index),
        cmocka_unit_test(members_stay_equal_across_automatic_compaction),
    };
    if (argc > 1 && str_parse_u64(argv[1], &first_seed) != ERR_OK) {
        fprintf(stderr, "usage: test_dcs_state_random [SEED]\n");
        return 2;
    }
    return cmocka_run_group_tests_name("dcs_state_random", tests, NULL, NULL);
}
