#include "tests/unit/dcs_state_script.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/str.h"
#include "tests/unit/scratch.h"

enum { WORDS_MAX = 48, WORD_MAX = 64 };

/* ---- words ---- */

struct words {
    char v[WORDS_MAX][WORD_MAX];
    size_t n;
};

static void split(const char *line, struct words *w)
{
    w->n = 0;
    while (*line != '\0') {
        size_t n = strcspn(line, " ");
        if (n > 0) {
            assert_true(w->n < WORDS_MAX && n < WORD_MAX);
            memcpy(w->v[w->n], line, n);
            w->v[w->n++][n] = '\0';
        }
        line += n + (line[n] == ' ');
    }
}

static uint64_t number(const char *text)
{
    uint64_t v = 0;
    if (str_parse_u64(text, &v) != ERR_OK)
        fail_msg("not a number: %s", text);
    return v;
}

/* L2, S1, or a plain number. */
static uint64_t name_to_id(const struct script *x, const char *text)
{
    if (text[0] == 'L')
        return x->leases[number(text + 1)];
    return text[0] == 'S' ? x->sessions[number(text + 1)] : number(text);
}

static const char *option(const struct words *w, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 1; i < w->n; i++)
        if (strncmp(w->v[i], name, n) == 0 && w->v[i][n] == '=')
            return w->v[i] + n + 1;
    return NULL;
}

static uint64_t option_u64(const struct words *w, const char *name)
{
    const char *v = option(w, name);
    return v == NULL ? 0 : number(v);
}

static bool flag(const struct words *w, const char *name)
{
    for (size_t i = 1; i < w->n; i++)
        if (strcmp(w->v[i], name) == 0)
            return true;
    return false;
}

static void session_option(const struct script *x, const struct words *w, uint64_t *ret_session,
                           uint64_t *ret_seq)
{
    const char *v = option(w, "s");
    if (v == NULL)
        return;
    char name[WORD_MAX];
    const char *slash = strchr(v, '/');
    assert_non_null(slash);
    assert_int_equal(str_copy_slice(name, sizeof name, slice_of(v, (size_t)(slash - v))),
                     ERR_OK);
    *ret_session = name_to_id(x, name);
    *ret_seq = number(slash + 1);
}

static struct slice key_of(const char *word)
{
    return strcmp(word, "\"\"") == 0 ? (struct slice){0} : slice_str(word);
}

/* The third word when it is no option. */
static struct slice end_of(const struct words *w)
{
    if (w->n < 3 || strchr(w->v[2], '=') != NULL || strcmp(w->v[2], "prev") == 0 ||
        strcmp(w->v[2], "keys") == 0 || strcmp(w->v[2], "count") == 0)
        return (struct slice){0};
    return strcmp(w->v[2], "*") == 0 ? slice_of("", 1) : slice_str(w->v[2]);
}

/* ---- printing results ---- */

static void print_kvs(struct buf *out, struct slice many)
{
    struct msg_iter it;
    struct kv kv;
    const char *comma = "";
    assert_int_equal(msg_iter_init(&it, many), ERR_OK);
    while (msg_iter_next(&it, &msg_kv, &kv, NULL) == ERR_OK) {
        buf_printf(out, "%s%.*s=%.*s", comma, (int)kv.key.n, (const char *)kv.key.p,
                   (int)kv.value.n, (const char *)kv.value.p);
        comma = ",";
    }
}

static void print_op(struct buf *out, const struct op_result *r)
{
    if (strcmp(r->op, "delete") == 0 || strcmp(r->op, "range") == 0)
        buf_printf(out, "%llu", (unsigned long long)r->count);
    if (r->kvs.n != 0) {
        buf_printf(out, "(");
        print_kvs(out, r->kvs);
        buf_printf(out, ")");
    }
    if (r->more)
        buf_printf(out, "+");
}

static void print_results(struct buf *out, bool succeeded, struct slice results)
{
    struct msg_iter it;
    struct op_result op;
    buf_printf(out, "%s", succeeded ? "then" : "else");
    assert_int_equal(msg_iter_init(&it, results), ERR_OK);
    while (msg_iter_next(&it, &msg_op_result, &op, NULL) == ERR_OK) {
        buf_printf(out, " %s", op.op);
        print_op(out, &op);
        if (strcmp(op.op, "txn") != 0)
            continue;
        buf_printf(out, "(");
        print_results(out, op.succeeded, op.results);
        buf_printf(out, ")");
    }
}

static void print_txn(struct buf *out, struct slice result)
{
    struct txn_reply r;
    assert_int_equal(msg_decode(&msg_txn_reply, result, &r, NULL), ERR_OK);
    buf_printf(out, "rev %llu ", (unsigned long long)r.revision);
    print_results(out, r.succeeded, r.results);
}

static void print_op_result(struct buf *out, struct slice result)
{
    struct op_result r;
    assert_int_equal(msg_decode(&msg_op_result, result, &r, NULL), ERR_OK);
    buf_printf(out, "rev %llu", (unsigned long long)r.revision);
    if (strcmp(r.op, "delete") == 0 || r.kvs.n != 0) {
        buf_printf(out, " ");
        print_op(out, &r);
    }
}

static size_t name_of(const uint64_t *ids, uint64_t id)
{
    for (size_t i = 1; id != 0 && i <= SCRIPT_NAMES_MAX; i++)
        if (ids[i] == id)
            return i;
    return 0;
}

static size_t name_new(uint64_t *ids, uint64_t id)
{
    size_t i = name_of(ids, id);
    for (size_t k = 1; i == 0 && k <= SCRIPT_NAMES_MAX; k++)
        if (ids[k] == 0) {
            ids[k] = id;
            i = k;
        }
    return i;
}

static void print_lease(struct script *x, const struct lease_state *l)
{
    buf_printf(&x->out, "L%zu", name_new(x->leases, l->id));
    if (l->gone)
        buf_printf(&x->out, " gone");
    else
        buf_printf(&x->out, " ttl %llu nonce %llu n %llu", (unsigned long long)l->ttl_ms,
                   (unsigned long long)l->nonce, (unsigned long long)l->n);
}

static void print_lease_result(struct script *x, struct slice result)
{
    struct lease_state l;
    assert_int_equal(msg_decode(&msg_lease_state, result, &l, NULL), ERR_OK);
    print_lease(x, &l);
}

static void print_session(struct script *x, struct slice result)
{
    struct session_reply r;
    assert_int_equal(msg_decode(&msg_session_reply, result, &r, NULL), ERR_OK);
    buf_printf(&x->out, "S%zu", name_new(x->sessions, r.session));
}

static void print_grant(struct script *x, struct slice result)
{
    struct token_grant *g = mem_alloc(sizeof *g);
    assert_int_equal(msg_decode(&msg_token_grant, result, g, NULL), ERR_OK);
    buf_printf(&x->out, "id %llu %s of %zu in %s", (unsigned long long)g->member_id, g->role,
               g->members_n, g->cluster_id);
    mem_free(g);
}

/* Serial numbers are shown as the index of their entry. */
static void print_cert(struct script *x, struct slice result)
{
    struct cert_info c;
    assert_int_equal(msg_decode(&msg_cert_info, result, &c, NULL), ERR_OK);
    buf_printf(&x->out, "#%llu", (unsigned long long)c.serial >> 16);
}

static void print_revoked(struct script *x, struct slice result)
{
    struct cert_revoked r;
    assert_int_equal(msg_decode(&msg_cert_revoked, result, &r, NULL), ERR_OK);
    buf_printf(&x->out, "%llu to #%llu", (unsigned long long)r.certs,
               (unsigned long long)r.serial >> 16);
}

static void print_member(struct script *x, struct slice result)
{
    struct member m;
    assert_int_equal(msg_decode(&msg_member, result, &m, NULL), ERR_OK);
    buf_printf(&x->out, "%llu %s %s", (unsigned long long)m.id, m.name, m.state);
}

/* ---- one entry ---- */

static void on_event(void *arg, bool deleted, const struct kv *kv, const struct kv *prev)
{
    struct script *x = arg;
    buf_printf(&x->events, "%s%s %.*s", x->events.len == 0 ? "" : ", ", deleted ? "del" : "put",
               (int)kv->key.n, (const char *)kv->key.p);
    if (!deleted)
        buf_printf(&x->events, "=%.*s", (int)kv->value.n, (const char *)kv->value.p);
    if (prev->mod_revision != 0)
        buf_printf(&x->events, " was %.*s", (int)prev->value.n, (const char *)prev->value.p);
}

static void on_revision(void *arg, uint64_t revision)
{
    struct script *x = arg;
    assert_true(x->events.len != 0);
    buf_printf(&x->events, " @%llu", (unsigned long long)revision);
}

struct outcome {
    struct script *x;
    enum state_command cmd;
};

static void on_result(void *arg, uint64_t index, size_t i, enum err status, const char *error,
                      struct slice result)
{
    struct script *x = ((struct outcome *)arg)->x;
    (void)index;
    assert_int_equal(i, 0);
    if (status != ERR_OK) {
        assert_non_null(error);
        assert_true(error[0] != '\0');
        buf_printf(&x->out, "%s", err_name(status));
        return;
    }
    switch (((struct outcome *)arg)->cmd) {
    case STATE_CMD_PUT:
    case STATE_CMD_DELETE:
        print_op_result(&x->out, result);
        break;
    case STATE_CMD_TXN:
        print_txn(&x->out, result);
        break;
    case STATE_CMD_LEASE_GRANT:
    case STATE_CMD_LEASE_RENEW:
    case STATE_CMD_LEASE_REVOKE:
    case STATE_CMD_LEASE_EXPIRE:
        print_lease_result(x, result);
        break;
    case STATE_CMD_SESSION_OPEN:
        print_session(x, result);
        break;
    case STATE_CMD_TOKEN_REDEEM:
        print_grant(x, result);
        break;
    case STATE_CMD_MEMBER_STATE:
    case STATE_CMD_MEMBER_ROLE:
    case STATE_CMD_MEMBER_INIT:
        print_member(x, result);
        break;
    case STATE_CMD_CERT_ISSUE:
        print_cert(x, result);
        break;
    case STATE_CMD_CERT_REVOKE:
        print_revoked(x, result);
        break;
    case STATE_CMD_TOKEN_CREATE:
    case STATE_CMD_TOKEN_REVOKE:
    case STATE_CMD_COMPACT:
    case STATE_CMD_HASH:
    case STATE_CMD_VERSION:
        buf_printf(&x->out, "ok");
        break;
    }
}

static void event_of_outcome(void *arg, bool deleted, const struct kv *kv,
                             const struct kv *prev)
{
    on_event(((struct outcome *)arg)->x, deleted, kv, prev);
}

static void revision_of_outcome(void *arg, uint64_t revision)
{
    on_revision(((struct outcome *)arg)->x, revision);
}

static void apply_batch(struct script *x, enum state_command cmd, struct state_batch *b)
{
    static const struct state_ops ops = {
        .result = on_result, .event = event_of_outcome, .revision_done = revision_of_outcome};
    struct outcome o = {.x = x, .cmd = cmd};
    assert_true(x->n_log < SCRIPT_LOG_MAX);
    struct buf *entry = &x->log[x->n_log].entry;
    state_batch_end(b, x->wall_ms, entry);
    buf_close(&b->body);
    x->log[x->n_log++].index = ++x->index;
    state_apply(x->s, x->index, buf_slice(entry), x->now_ms, &ops, &o);
}

static void apply(struct script *x, enum state_command cmd, const struct msg *m,
                  const void *req)
{
    struct state_batch b = {0};
    struct buf params = BUF_INIT;
    msg_encode(m, req, &params);
    (void)state_batch_add(&b, cmd, buf_slice(&params));
    buf_close(&params);
    apply_batch(x, cmd, &b);
}

/* ---- keys ---- */

static void do_put(struct script *x, const struct words *w)
{
    const char *lease = option(w, "lease");
    struct put_req r = {.key = key_of(w->v[1]),
                        .value = slice_str(w->v[2]),
                        .lease = lease == NULL ? 0 : name_to_id(x, lease),
                        .prev_kv = flag(w, "prev"),
                        .ignore_value = flag(w, "keep_value"),
                        .ignore_lease = flag(w, "keep_lease")};
    if (strcmp(w->v[2], "-") == 0)
        r.value = (struct slice){0};
    session_option(x, w, &r.session, &r.seq);
    apply(x, STATE_CMD_PUT, &msg_put_req, &r);
}

static void do_del(struct script *x, const struct words *w)
{
    struct delete_req r = {
        .key = key_of(w->v[1]), .end = end_of(w), .prev_kv = flag(w, "prev")};
    session_option(x, w, &r.session, &r.seq);
    apply(x, STATE_CMD_DELETE, &msg_delete_req, &r);
}

static void do_get(struct script *x, const struct words *w)
{
    struct range_req r = {.key = key_of(w->v[1]),
                          .end = end_of(w),
                          .limit = option_u64(w, "limit"),
                          .revision = option_u64(w, "rev"),
                          .keys_only = flag(w, "keys"),
                          .descend = flag(w, "down"),
                          .min_mod = option_u64(w, "min_mod"),
                          .max_mod = option_u64(w, "max_mod"),
                          .min_create = option_u64(w, "min_create"),
                          .max_create = option_u64(w, "max_create"),
                          .count_only = flag(w, "count")};
    struct buf b = BUF_INIT;
    struct range_reply reply;
    uint64_t max = option_u64(w, "max");
    if (option(w, "sort") != NULL)
        assert_int_equal(str_copy(r.sort, sizeof r.sort, option(w, "sort")), ERR_OK);
    enum err rc = state_range(x->s, &r, NULL, max == 0 ? 100000 : max, &b, NULL);
    if (rc != ERR_OK) {
        buf_printf(&x->out, "%s", err_name(rc));
        return;
    }
    assert_int_equal(msg_decode(&msg_range_reply, buf_slice(&b), &reply, NULL), ERR_OK);
    assert_int_equal(reply.revision, state_revision(x->s));
    buf_printf(&x->out, "%llu%s", (unsigned long long)reply.count, reply.more ? "+" : "");
    if (reply.kvs.n != 0)
        buf_printf(&x->out, " ");
    print_kvs(&x->out, reply.kvs);
    buf_close(&b);
}

/* KEY's numbers: create mod version lease. */
static void do_meta(struct script *x, const struct words *w)
{
    struct range_req r = {.key = key_of(w->v[1])};
    struct buf b = BUF_INIT;
    struct range_reply reply;
    struct msg_iter it;
    struct kv kv;
    assert_int_equal(state_range(x->s, &r, NULL, 1000, &b, NULL), ERR_OK);
    assert_int_equal(msg_decode(&msg_range_reply, buf_slice(&b), &reply, NULL), ERR_OK);
    assert_int_equal(msg_iter_init(&it, reply.kvs), ERR_OK);
    if (msg_iter_next(&it, &msg_kv, &kv, NULL) == ERR_OK)
        buf_printf(&x->out, "create %llu mod %llu version %llu lease L%zu",
                   (unsigned long long)kv.create_revision, (unsigned long long)kv.mod_revision,
                   (unsigned long long)kv.version, name_of(x->leases, kv.lease));
    buf_close(&b);
}

static size_t parse_compare(const struct script *x, const struct words *w, size_t i,
                            struct msg_list *list)
{
    struct compare c = {.key = key_of(w->v[i + 1])};
    const char *dots = strstr(w->v[i + 1], "..");
    if (dots != NULL) { /* KEY..END */
        c.key = slice_of(w->v[i + 1], (size_t)(dots - w->v[i + 1]));
        c.end = strcmp(dots + 2, "*") == 0 ? slice_of("", 1) : slice_str(dots + 2);
    }
    assert_int_equal(str_copy(c.target, sizeof c.target, w->v[i]), ERR_OK);
    assert_int_equal(str_copy(c.op, sizeof c.op, w->v[i + 2]), ERR_OK);
    if (strcmp(c.target, "value") == 0)
        c.value = slice_str(w->v[i + 3]);
    else
        c.number = name_to_id(x, w->v[i + 3]);
    msg_list_append(list, &msg_compare, &c);
    return i + 4;
}

static size_t parse_parts(const struct script *x, const struct words *w, size_t i,
                          struct buf bufs[3]);

/* ( COMPARE ? OPS : OPS ) */
static size_t parse_inner(const struct script *x, const struct words *w, size_t i,
                          struct msg_list *list)
{
    struct buf bufs[3] = {0};
    i = parse_parts(x, w, i + 1, bufs) + 1;
    struct txn_op o = {.op = "txn",
                       .compare = buf_slice(&bufs[0]),
                       .then = buf_slice(&bufs[1]),
                       .otherwise = buf_slice(&bufs[2])};
    msg_list_append(list, &msg_txn_op, &o);
    for (size_t k = 0; k < 3; k++)
        buf_close(&bufs[k]);
    return i;
}

static size_t parse_op(const struct script *x, const struct words *w, size_t i,
                       struct msg_list *list)
{
    struct words op = {0};
    if (w->v[i][0] == '(')
        return parse_inner(x, w, i, list);
    for (; i < w->n && strchr(",:)", w->v[i][0]) == NULL && strncmp(w->v[i], "s=", 2) != 0; i++)
        memcpy(op.v[op.n++], w->v[i], WORD_MAX);
    const char *lease = option(&op, "lease");
    struct txn_op o = {.key = key_of(op.v[1]),
                       .lease = lease == NULL ? 0 : name_to_id(x, lease),
                       .limit = option_u64(&op, "limit"),
                       .prev_kv = flag(&op, "prev"),
                       .ignore_value = flag(&op, "keep_value"),
                       .ignore_lease = flag(&op, "keep_lease")};
    const char *name = strcmp(op.v[0], "get") == 0   ? "range"
                       : strcmp(op.v[0], "del") == 0 ? "delete"
                                                     : op.v[0];
    assert_int_equal(str_copy(o.op, sizeof o.op, name), ERR_OK);
    if (strcmp(name, "put") == 0)
        o.value = strcmp(op.v[2], "-") == 0 ? (struct slice){0} : slice_str(op.v[2]);
    else
        o.end = end_of(&op);
    msg_list_append(list, &msg_txn_op, &o);
    return i;
}

/* Up to the end of the line or a closing parenthesis. */
static size_t parse_parts(const struct script *x, const struct words *w, size_t i,
                          struct buf bufs[3])
{
    struct msg_list lists[3] = {0};
    size_t part = 0;
    while (i < w->n && w->v[i][0] != ')') {
        if (w->v[i][0] == '?' || w->v[i][0] == ':') {
            part++;
            i++;
        } else if (w->v[i][0] == ',' || strncmp(w->v[i], "s=", 2) == 0) {
            i++;
        } else {
            i = part == 0 ? parse_compare(x, w, i, &lists[0]) : parse_op(x, w, i, &lists[part]);
        }
    }
    for (size_t k = 0; k < 3; k++)
        msg_list_end(&lists[k], &bufs[k]);
    return i;
}

static void do_txn(struct script *x, const struct words *w)
{
    struct buf bufs[3] = {0};
    (void)parse_parts(x, w, 1, bufs);
    struct txn_req r = {.compare = buf_slice(&bufs[0]),
                        .then = buf_slice(&bufs[1]),
                        .otherwise = buf_slice(&bufs[2])};
    session_option(x, w, &r.session, &r.seq);
    apply(x, STATE_CMD_TXN, &msg_txn_req, &r);
    for (size_t i = 0; i < 3; i++)
        buf_close(&bufs[i]);
}

static void do_compact(struct script *x, const struct words *w)
{
    struct state_batch b = {0};
    (void)state_batch_compact(&b, number(w->v[1]));
    apply_batch(x, STATE_CMD_COMPACT, &b);
}

static void do_replay(struct script *x, const struct words *w)
{
    static const struct state_ops ops = {.event = on_event, .revision_done = on_revision};
    uint64_t max = option_u64(w, "max"), next = 0;
    enum err rc = state_replay_some(x->s, number(w->v[1]), max, &ops, x, &next);
    if (rc != ERR_OK)
        buf_printf(&x->out, "%s", err_name(rc));
    else
        buf_printf(&x->out, "next %llu", (unsigned long long)next);
}

/* ---- leases and sessions ---- */

static void do_grant(struct script *x, const struct words *w)
{
    struct lease_grant r = {.ttl_ms = number(w->v[1]), .nonce = number(w->v[2])};
    session_option(x, w, &r.session, &r.seq);
    apply(x, STATE_CMD_LEASE_GRANT, &msg_lease_grant, &r);
}

static void do_renew(struct script *x, const struct words *w)
{
    struct lease_renew r = {.id = name_to_id(x, w->v[1]),
                            .nonce = number(w->v[2]),
                            .n = number(w->v[3]),
                            .ttl_ms = option_u64(w, "ttl"),
                            .held_ms = option_u64(w, "held")};
    apply(x, STATE_CMD_LEASE_RENEW, &msg_lease_renew, &r);
}

static void do_expire(struct script *x, const struct words *w)
{
    struct state_batch b = {0};
    (void)state_batch_expire(&b, name_to_id(x, w->v[1]), number(w->v[2]), number(w->v[3]));
    apply_batch(x, STATE_CMD_LEASE_EXPIRE, &b);
}

static void do_revoke(struct script *x, const struct words *w)
{
    struct lease_revoke r = {.id = name_to_id(x, w->v[1])};
    session_option(x, w, &r.session, &r.seq);
    apply(x, STATE_CMD_LEASE_REVOKE, &msg_lease_revoke, &r);
}

static void do_leases(struct script *x, const struct words *w)
{
    struct lease_ref r = {.keys = true};
    struct buf b = BUF_INIT;
    struct lease_list list;
    struct msg_iter it;
    struct lease_state l;
    const char *space = "";
    if (w->n > 1)
        r.id = name_to_id(x, w->v[1]);
    assert_int_equal(state_leases(x->s, &r, x->now_ms, &b, NULL), ERR_OK);
    assert_int_equal(msg_decode(&msg_lease_list, buf_slice(&b), &list, NULL), ERR_OK);
    assert_int_equal(msg_iter_init(&it, list.leases), ERR_OK);
    while (msg_iter_next(&it, &msg_lease_state, &l, NULL) == ERR_OK) {
        buf_printf(&x->out, "%s", space);
        print_lease(x, &l);
        if (!l.gone)
            buf_printf(&x->out, " left %llu keys %llu", (unsigned long long)l.remaining_ms,
                       (unsigned long long)l.keys);
        space = "; ";
    }
    buf_close(&b);
}

static void do_expired(struct script *x)
{
    struct state_expired v[SCRIPT_NAMES_MAX];
    size_t n = state_expired(x->s, x->now_ms, v, ARRAY_LEN(v));
    const char *space = "";
    for (size_t i = 0; i < n; i++) {
        buf_printf(&x->out, "%sL%zu %llu %llu", space, name_of(x->leases, v[i].id),
                   (unsigned long long)v[i].nonce, (unsigned long long)v[i].n);
        space = "; ";
    }
    if (n == 0)
        buf_printf(&x->out, "none");
}

static void do_session(struct script *x, const struct words *w)
{
    struct session_open r = {.nonce = number(w->v[1])};
    apply(x, STATE_CMD_SESSION_OPEN, &msg_session_open, &r);
}

/* ---- tokens and members ---- */

/* A stand-in for SHA-256: 64 hex digits that differ as the secrets do. */
static void fake_hash(const char *secret, char ret_hex[static 65])
{
    uint8_t bytes[32] = {0};
    memcpy(bytes, secret, MIN(strlen(secret), sizeof bytes));
    hex_encode(ret_hex, bytes, sizeof bytes);
}

static void do_token(struct script *x, const struct words *w)
{
    struct token_info t = {.uses_left = number(w->v[3]), .expires_ms = number(w->v[4])};
    assert_int_equal(str_copy(t.id, sizeof t.id, w->v[1]), ERR_OK);
    assert_int_equal(str_copy(t.role, sizeof t.role, w->v[2]), ERR_OK);
    fake_hash(w->v[5], t.token);
    apply(x, STATE_CMD_TOKEN_CREATE, &msg_token_info, &t);
}

static void do_untoken(struct script *x, const struct words *w)
{
    struct token_ref r = {0};
    assert_int_equal(str_copy(r.id, sizeof r.id, w->v[1]), ERR_OK);
    apply(x, STATE_CMD_TOKEN_REVOKE, &msg_token_ref, &r);
}

static void do_redeem(struct script *x, const struct words *w)
{
    struct token_redeem r = {0};
    char hash[65];
    fake_hash(w->v[2], hash);
    assert_int_equal(str_format(r.token, sizeof r.token, "%s:%s", w->v[1], hash), ERR_OK);
    fake_hash(w->n > 5 ? w->v[5] : w->v[3], hash);
    r.csr = slice_str(hash);
    assert_int_equal(str_copy(r.name, sizeof r.name, w->v[3]), ERR_OK);
    assert_int_equal(str_copy(r.address, sizeof r.address, w->v[4]), ERR_OK);
    apply(x, STATE_CMD_TOKEN_REDEEM, &msg_token_redeem, &r);
}

static void do_tokens(struct script *x)
{
    struct token_list *list = mem_alloc(sizeof *list);
    assert_int_equal(state_tokens(x->s, list, NULL), ERR_OK);
    for (size_t i = 0; i < list->tokens_n; i++) {
        assert_string_equal(list->tokens[i].token, "");
        buf_printf(&x->out, "%s%s %s %llu", i == 0 ? "" : "; ", list->tokens[i].id,
                   list->tokens[i].role, (unsigned long long)list->tokens[i].uses_left);
    }
    mem_free(list);
}

static void do_issue(struct script *x, const struct words *w)
{
    struct cert_issue r = {.renews = option_u64(w, "renews") << 16};
    assert_int_equal(str_copy(r.name, sizeof r.name, w->v[1]), ERR_OK);
    assert_int_equal(str_copy(r.role, sizeof r.role, w->v[2]), ERR_OK);
    apply(x, STATE_CMD_CERT_ISSUE, &msg_cert_issue, &r);
}

static void do_unissue(struct script *x, const struct words *w)
{
    struct cert_ref r = {.unlisted = flag(w, "unlisted")};
    assert_int_equal(str_copy(r.name, sizeof r.name, w->v[1]), ERR_OK);
    apply(x, STATE_CMD_CERT_REVOKE, &msg_cert_ref, &r);
}

/* refused NAME INDEX */
static void do_refused(struct script *x, const struct words *w)
{
    bool yes = state_cert_revoked(x->s, w->v[1], number(w->v[2]) << 16);
    buf_printf(&x->out, yes ? "yes" : "no");
}

static void do_certs(struct script *x)
{
    struct buf reply = BUF_INIT;
    struct cert_list list;
    struct msg_iter it;
    struct cert_info c;
    struct cert_revoked r;
    const char *comma = "";
    state_certs(x->s, &reply);
    assert_int_equal(msg_decode(&msg_cert_list, buf_slice(&reply), &list, NULL), ERR_OK);
    assert_int_equal(msg_iter_init(&it, list.certs), ERR_OK);
    for (; msg_iter_next(&it, &msg_cert_info, &c, NULL) == ERR_OK; comma = "; ")
        buf_printf(&x->out, "%s%s %s #%llu", comma, c.name, c.role,
                   (unsigned long long)c.serial >> 16);
    assert_int_equal(msg_iter_init(&it, list.revoked), ERR_OK);
    for (; msg_iter_next(&it, &msg_cert_revoked, &r, NULL) == ERR_OK; comma = "; ")
        buf_printf(&x->out, "%sno %s to #%llu", comma, r.name,
                   (unsigned long long)r.serial >> 16);
    buf_close(&reply);
}

static void do_init(struct script *x, const struct words *w)
{
    struct state_batch b = {0};
    struct member m = {.role = "voter"};
    assert_int_equal(str_copy(m.name, sizeof m.name, w->v[1]), ERR_OK);
    assert_int_equal(str_copy(m.address, sizeof m.address, w->v[2]), ERR_OK);
    (void)state_batch_member_init(&b, &m);
    apply_batch(x, STATE_CMD_MEMBER_INIT, &b);
}

static void do_member(struct script *x, const struct words *w)
{
    struct state_batch b = {0};
    (void)state_batch_member(&b, number(w->v[1]), w->v[2]);
    apply_batch(x, STATE_CMD_MEMBER_STATE, &b);
}

static void do_members(struct script *x)
{
    struct member *m = mem_array(MEMBERS_MAX, sizeof *m);
    size_t n;
    assert_int_equal(state_members(x->s, m, MEMBERS_MAX, &n), ERR_OK);
    for (size_t i = 0; i < n; i++)
        buf_printf(&x->out, "%s%llu %s %s %s", i == 0 ? "" : "; ", (unsigned long long)m[i].id,
                   m[i].name, m[i].role, m[i].state);
    mem_free(m);
}

/* ---- the database ---- */

static void open_state(struct script *x)
{
    struct errmsg e;
    if (state_open(x->path, "cluster-1", &x->s, &e) != ERR_OK)
        fail_msg("%s", e.text);
    state_leases_restart(x->s, x->now_ms);
}

static void catch_up(struct script *x)
{
    for (size_t i = 0; i < x->n_log; i++)
        state_apply(x->s, x->log[i].index, buf_slice(&x->log[i].entry), x->now_ms, NULL, NULL);
}

static void do_reopen(struct script *x)
{
    uint64_t before = state_hash(x->s);
    state_close(x->s);
    open_state(x);
    buf_printf(&x->out, "at %llu", (unsigned long long)state_db_applied(x->s));
    catch_up(x);
    assert_int_equal(state_hash(x->s), before);
}

static void copy_path(const struct script *x, char ret[static 128])
{
    assert_int_equal(str_format(ret, 128, "%s/copy.db", x->dir), ERR_OK);
}

static void do_copy(struct script *x)
{
    char path[128];
    struct state_copy *c;
    struct errmsg e;
    copy_path(x, path);
    state_commit_full(x->s, x->index);
    assert_int_equal(state_copy_begin(x->s, &c, &e), ERR_OK);
    if (state_copy_run(c, path, &e) != ERR_OK)
        fail_msg("%s", e.text);
    buf_printf(&x->out, "at %llu", (unsigned long long)state_db_applied(x->s));
}

static void do_restore(struct script *x)
{
    char path[128];
    struct errmsg e;
    copy_path(x, path);
    if (state_restore(x->s, path, x->index, x->now_ms, &e) != ERR_OK)
        fail_msg("%s", e.text);
    assert_int_equal(state_logged(x->s), x->index);
    assert_int_equal(state_db_applied(x->s), x->index);
    for (size_t i = 0; i < x->n_log; i++)
        buf_close(&x->log[i].entry); /* the log begins anew behind it */
    x->n_log = 0;
    buf_printf(&x->out, "ok");
}

static void do_applied(struct script *x)
{
    buf_printf(&x->out, "%llu", (unsigned long long)state_db_applied(x->s));
}

static bool database_line(struct script *x, const struct words *w)
{
    const char *cmd = w->v[0];
    if (strcmp(cmd, "commit") == 0)
        state_commit(x->s, x->index);
    else if (strcmp(cmd, "full") == 0)
        state_commit_full(x->s, x->index);
    else if (strcmp(cmd, "reopen") == 0)
        do_reopen(x);
    else if (strcmp(cmd, "copy") == 0)
        do_copy(x);
    else if (strcmp(cmd, "restore") == 0)
        do_restore(x);
    else if (strcmp(cmd, "applied") == 0)
        do_applied(x);
    else if (strcmp(cmd, "uncommitted") == 0)
        buf_printf(&x->out, state_uncommitted(x->s) ? "yes" : "no");
    else if (strcmp(cmd, "now") == 0)
        x->now_ms = number(w->v[1]);
    else if (strcmp(cmd, "wall") == 0)
        x->wall_ms = number(w->v[1]);
    else if (strcmp(cmd, "index") == 0)
        x->index = number(w->v[1]);
    else
        return false;
    return true;
}

/* ---- lines ---- */

static bool query_line(struct script *x, const struct words *w)
{
    const char *cmd = w->v[0];
    if (strcmp(cmd, "expired") == 0)
        do_expired(x);
    else if (strcmp(cmd, "tokens") == 0)
        do_tokens(x);
    else if (strcmp(cmd, "certs") == 0)
        do_certs(x);
    else if (strcmp(cmd, "members") == 0)
        do_members(x);
    else
        return database_line(x, w);
    return true;
}

static void run_line(struct script *x, const struct words *w)
{
    static const struct {
        const char *name;
        void (*run)(struct script *x, const struct words *w);
    } lines[] = {
        {"put", do_put},         {"del", do_del},         {"get", do_get},
        {"meta", do_meta},       {"txn", do_txn},         {"compact", do_compact},
        {"replay", do_replay},   {"grant", do_grant},     {"renew", do_renew},
        {"expire", do_expire},   {"revoke", do_revoke},   {"leases", do_leases},
        {"session", do_session}, {"token", do_token},     {"untoken", do_untoken},
        {"redeem", do_redeem},   {"init", do_init},       {"member", do_member},
        {"issue", do_issue},     {"unissue", do_unissue}, {"refused", do_refused},
    };
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        if (strcmp(lines[i].name, w->v[0]) == 0) {
            lines[i].run(x, w);
            return;
        }
    if (!query_line(x, w))
        fail_msg("unknown line: %s", w->v[0]);
}

static const char *shown(struct script *x)
{
    if (x->events.len != 0) {
        buf_printf(&x->out, " | ");
        buf_append_slice(&x->out, buf_slice(&x->events));
    }
    return buf_cstr(&x->out);
}

const char *script_run(struct script *x, const char *line)
{
    struct words w;
    buf_clear(&x->out);
    buf_clear(&x->events);
    split(line, &w);
    run_line(x, &w);
    return shown(x);
}

const char *script_command(struct script *x, enum state_command cmd, const struct msg *m,
                           const void *req)
{
    buf_clear(&x->out);
    buf_clear(&x->events);
    apply(x, cmd, m, req);
    return shown(x);
}

void script_rows(struct script *x, const struct script_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *got = script_run(x, rows[i].line);
        if (strcmp(got, rows[i].want) != 0)
            fail_msg("row %zu: %s\n  got:  %s\n  want: %s", i, rows[i].line, got, rows[i].want);
    }
}

void script_open(struct script *x)
{
    memset(x, 0, sizeof *x);
    x->now_ms = 1000;
    x->wall_ms = 1000;
    scratch_dir(x->dir, sizeof x->dir, "state");
    assert_int_equal(str_format(x->path, sizeof x->path, "%s/state.db", x->dir), ERR_OK);
    open_state(x);
}

void script_close(struct script *x)
{
    static const char *const names[] = {"state.db", "state.db-wal", "state.db-shm", "copy.db"};
    state_close(x->s);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char path[128];
        assert_int_equal(str_format(path, sizeof path, "%s/%s", x->dir, names[i]), ERR_OK);
        (void)unlink(path);
    }
    (void)rmdir(x->dir);
    for (size_t i = 0; i < x->n_log; i++)
        buf_close(&x->log[i].entry);
    buf_close(&x->out);
    buf_close(&x->events);
}

struct script *script_new(void)
{
    struct script *x = mem_alloc(sizeof *x);
    script_open(x);
    return x;
}

void script_free(struct script *x)
{
    script_close(x);
    mem_free(x);
}
