/* One node, all of it, in virtual time: the test is its disk, its peers and its clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/str.h"
#include "dcs/node.h"
#include "dcs/raft_frame.h"
#include "dcs/raft_membership.h"
#include "dcs/wire.h"
#include "proto/pki.h"
#include "tests/unit/scratch.h"

enum { ELECTION_MS = 1000, HEARTBEAT_MS = 100, STEP_MS = 10, WAITING_MAX = 64 };

/* What the node has asked for and will hear of at the next step. */
struct waiting {
    enum { STORED_ENTRIES, STORED_META, FRAME, CONFIRM } what;
    uint64_t index; /* STORED_ENTRIES */
    uint64_t from;  /* FRAME, CONFIRM */
    uint32_t number;
    struct buf bytes; /* FRAME: to be delivered; CONFIRM: the answer */
};

struct lone {
    struct node *n;
    struct state *s;
    char dir[64];
    uint64_t now_ms;
    struct waiting waiting[WAITING_MAX];
    size_t n_waiting;
    bool peers_dead;
    /* they acknowledge entries; votes and confirmations they give while they live */
    bool peers_store;
    size_t replies;
    enum err status, first_status; /* of the last one, and of the first */
    struct buf reply;
    struct raft_snapshot_info fetching; /* index 0: nothing */
    struct state_restoring *restoring;  /* NULL: nothing */
};

static struct waiting *wait_for(struct lone *x, int what)
{
    assert_true(x->n_waiting < WAITING_MAX);
    struct waiting *w = &x->waiting[x->n_waiting++];
    *w = (struct waiting){.what = what};
    return w;
}

/* ---- what the node asks for ---- */

static uint64_t now_ms(void *arg)
{
    return ((struct lone *)arg)->now_ms;
}

static uint64_t now_us(void *arg)
{
    return now_ms(arg) * 1000;
}

static void store_append(void *arg, uint64_t first, const struct raft_entry_view *e, size_t n)
{
    (void)e;
    wait_for(arg, STORED_ENTRIES)->index = first + n - 1;
}

static void store_truncate(void *arg, uint64_t from)
{
    (void)arg;
    fail_msg("truncated from %llu", (unsigned long long)from);
}

static void store_meta(void *arg, uint64_t term, uint64_t vote)
{
    (void)term;
    (void)vote;
    (void)wait_for(arg, STORED_META);
}

static void nothing(void *arg)
{
    (void)arg;
}

/* A peer's answer, in its place. */
static bool answer_of(const struct lone *x, const struct raft_frame *f, struct raft_frame *ret)
{
    if (f->type == RAFT_FRAME_VOTE) {
        *ret = (struct raft_frame){.type = RAFT_FRAME_VOTE_RESULT,
                                   .term = f->vote.pre_vote ? f->term - 1 : f->term};
        ret->vote_result.granted = true;
        ret->vote_result.pre_vote = f->vote.pre_vote;
        return true;
    }
    *ret = (struct raft_frame){.type = RAFT_FRAME_APPEND_RESULT, .term = f->term};
    ret->append_result.last_index = f->append.prev_index + f->append.n;
    return f->type == RAFT_FRAME_APPEND && x->peers_store;
}

static void send_frame(void *arg, uint64_t member, struct slice frame)
{
    struct lone *x = arg;
    struct raft_frame f, answer;
    assert_int_equal(raft_frame_decode(frame, &f, NULL), ERR_OK);
    if (!x->peers_dead && answer_of(x, &f, &answer)) {
        struct waiting *w = wait_for(x, FRAME);
        w->from = member;
        raft_frame_encode(&answer, &w->bytes);
    }
    raft_frame_close(&f);
}

static bool call(void *arg, uint64_t member, uint32_t number, const char *method,
                 struct slice params)
{
    struct wire_confirm c;
    if (strcmp(method, WIRE_RAFT_CONFIRM) != 0)
        return false;
    assert_int_equal(msg_decode(&wire_msg_confirm, params, &c, NULL), ERR_OK);
    struct waiting *w = wait_for(arg, CONFIRM);
    w->from = member;
    w->number = number;
    struct wire_confirm_reply yes = {.term = c.term, .round = c.round, .yes = true};
    msg_encode(&wire_msg_confirm_reply, &yes, &w->bytes);
    return true;
}

static bool linked(void *arg, uint64_t member)
{
    (void)arg;
    (void)member;
    return true;
}

static uint64_t version(void *arg, uint64_t member)
{
    return linked(arg, member) ? PROTO_VERSION : 0;
}

static void membership(void *arg, const struct raft_membership *m)
{
    (void)arg;
    (void)m;
}

static void snapshot_sweep(void *arg, uint64_t index)
{
    (void)arg;
    (void)index;
}

static void store_snapshot(void *arg, const struct raft_snapshot_info *info, uint64_t trim_to,
                           bool installed)
{
    (void)arg;
    (void)info;
    (void)trim_to;
    assert_true(installed);
}

static void snapshot_fetch(void *arg, uint64_t from, const struct raft_snapshot_info *info)
{
    struct lone *x = arg;
    (void)from;
    x->fetching = *info;
}

static void snapshot_path(void *arg, uint64_t index, char *ret_path, size_t size)
{
    const struct lone *x = arg;
    (void)index;
    assert_int_equal(str_format(ret_path, size, "%s/snapshot.db", x->dir), ERR_OK);
}

static void restore(void *arg, struct state_restoring *r)
{
    struct lone *x = arg;
    x->restoring = r;
}

static void fatal(void *arg, const char *what)
{
    (void)arg;
    fail_msg("%s", what);
}

static const struct node_ops node_ops = {.now_ms = now_ms,
                                         .wall_ms = now_ms,
                                         .now_us = now_us,
                                         .store_append = store_append,
                                         .store_truncate = store_truncate,
                                         .store_meta = store_meta,
                                         .store_flush = nothing,
                                         .send_frame = send_frame,
                                         .call = call,
                                         .linked = linked,
                                         .version = version,
                                         .flush = nothing,
                                         .membership = membership,
                                         .store_snapshot = store_snapshot,
                                         .snapshot_fetch = snapshot_fetch,
                                         .snapshot_path = snapshot_path,
                                         .restore = restore,
                                         .snapshot_sweep = snapshot_sweep,
                                         .fatal = fatal};

/* ---- time ---- */

static void deliver(struct lone *x, struct waiting *w)
{
    struct errmsg e;
    if (w->what == STORED_ENTRIES)
        node_append_stored(x->n, w->index);
    else if (w->what == STORED_META)
        node_meta_stored(x->n);
    else if (w->what == CONFIRM)
        node_answer(x->n, w->number, ERR_OK, NULL, buf_slice(&w->bytes));
    else
        assert_int_equal(node_frame(x->n, w->from, buf_slice(&w->bytes), &e), ERR_OK);
    buf_close(&w->bytes);
}

static void step(struct lone *x)
{
    struct waiting now[WAITING_MAX];
    size_t n = x->n_waiting;
    memcpy(now, x->waiting, n * sizeof *now);
    x->n_waiting = 0;
    x->now_ms += STEP_MS;
    for (size_t i = 0; i < n; i++)
        deliver(x, &now[i]);
    node_pass(x->n);
}

static void run(struct lone *x, uint64_t ms)
{
    for (uint64_t i = 0; i < ms; i += STEP_MS)
        step(x);
}

/* ---- a node with a log ---- */

static void put_command(struct buf *ret, const char *key, const char *value)
{
    struct state_batch b = {0};
    struct buf params = BUF_INIT;
    struct put_req r = {.key = slice_str(key), .value = slice_str(value)};
    msg_encode(&msg_put_req, &r, &params);
    (void)state_batch_add(&b, STATE_CMD_PUT, buf_slice(&params));
    state_batch_end(&b, 1000, ret);
    buf_close(&params);
    buf_close(&b.body);
}

/* One of three voters, restarted: its log has a put, and it does not know whether that is committed. */
static void lone_start(struct lone *x)
{
    struct errmsg e = {.text = ""};
    struct raft_membership m = {.n = 3};
    struct buf change = BUF_INIT, put = BUF_INIT;
    for (size_t i = 0; i < m.n; i++) {
        m.servers[i] = (struct raft_server){.id = i + 1, .role = RAFT_ROLE_VOTER};
        (void)snprintf(m.servers[i].address, sizeof m.servers[i].address, "n%zu:1", i + 1);
    }
    raft_core_bootstrap_entry(&m, &change);
    put_command(&put, "a", "new");
    struct raft_entry_view log[] = {
        {.term = 1, .type = RAFT_ENTRY_CHANGE, .data = buf_slice(&change)},
        {.term = 1, .type = RAFT_ENTRY_COMMAND, .data = buf_slice(&put)}};
    struct raft_core_disk disk = {.term = 1, .first_index = 1, .entries = log, .n = 2};
    struct node_options o = {.id = 1,
                             .name = "n1",
                             .address = "n1:1",
                             .role = "voter",
                             .cluster_id = "c",
                             .election_ms = ELECTION_MS,
                             .heartbeat_ms = HEARTBEAT_MS,
                             .seed = 1,
                             .state = x->s,
                             .ops = &node_ops,
                             .arg = x};
    assert_int_equal(node_new(&o, &x->n, &e), ERR_OK);
    if (node_start(x->n, &disk, &e) != ERR_OK)
        fail_msg("%s", e.text);
    buf_close(&change);
    buf_close(&put);
}

static int setup(void **state)
{
    struct lone *x = mem_alloc(sizeof *x);
    char path[96];
    struct errmsg e;
    scratch_dir(x->dir, sizeof x->dir, "node");
    assert_int_equal(str_format(path, sizeof path, "%s/state.db", x->dir), ERR_OK);
    assert_int_equal(state_open(path, "c", &x->s, &e), ERR_OK);
    x->now_ms = 1000;
    lone_start(x);
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct lone *x = *state;
    char path[96];
    node_free(x->n);
    state_close(x->s);
    assert_int_equal(str_format(path, sizeof path, "%s/state.db", x->dir), ERR_OK);
    (void)unlink(path);
    (void)rmdir(x->dir);
    for (size_t i = 0; i < x->n_waiting; i++)
        buf_close(&x->waiting[i].bytes);
    buf_close(&x->reply);
    mem_free(x);
    return 0;
}

/* ---- requests ---- */

static void on_reply(void *arg, uint64_t tag, enum err status, const char *text,
                     struct slice result)
{
    struct lone *x = arg;
    (void)tag;
    (void)text;
    x->first_status = x->replies++ == 0 ? status : x->first_status;
    x->status = status;
    buf_clear(&x->reply);
    buf_append_slice(&x->reply, result);
}

static void ask(struct lone *x, const char *key)
{
    struct buf params = BUF_INIT;
    struct range_req r = {.key = slice_str(key)};
    struct node_caller caller = {.cb = on_reply, .arg = x};
    msg_encode(&msg_range_req, &r, &params);
    node_request(x->n, METHOD_KV_RANGE, buf_slice(&params), &caller);
    buf_close(&params);
}

static void must_be_answered(struct lone *x, const char *value)
{
    struct range_reply r;
    struct msg_iter it;
    struct kv kv;
    assert_int_equal(x->replies, 1);
    assert_int_equal(x->status, ERR_OK);
    assert_int_equal(msg_decode(&msg_range_reply, buf_slice(&x->reply), &r, NULL), ERR_OK);
    assert_int_equal(msg_iter_init(&it, r.kvs), ERR_OK);
    assert_int_equal(msg_iter_next(&it, &msg_kv, &kv, NULL), ERR_OK);
    assert_true(slice_eq(kv.value, slice_str(value)));
}

/* ---- the tests ---- */

/* The leader before it may have committed the put, and told a client so, before it died: an answer
 * from the state as it is would take the write back. That its term stands proves nothing about it. */
static void a_new_leader_reads_nothing_before_an_entry_of_its_own(void **state)
{
    struct lone *x = *state;
    for (int i = 0; i < 1000 && !node_is_leader(x->n); i++)
        step(x);
    assert_true(node_is_leader(x->n));
    ask(x, "a");
    run(x, ELECTION_MS / 2);
    assert_true(node_is_leader(x->n));
    assert_int_equal(x->replies, 0);
    x->peers_store = true;
    run(x, 3 * HEARTBEAT_MS);
    must_be_answered(x, "new");
}

/* The first one is what may see an election through; the next ones need not find out again. */
static void without_a_leader_for_long_everybody_is_told_at_once(void **state)
{
    struct lone *x = *state;
    x->peers_dead = true;
    ask(x, "a");
    run(x, ELECTION_MS);
    assert_int_equal(x->replies, 0);
    run(x, ELECTION_MS + 10 * STEP_MS);
    assert_true(x->replies == 1 && x->status == ERR_UNAVAILABLE);
    run(x, 10 * ELECTION_MS);
    ask(x, "a");
    step(x);
    assert_true(x->replies == 2 && x->status == ERR_UNAVAILABLE);
    x->peers_dead = false;
    x->peers_store = true;
    for (int i = 0; i < 1000 && node_revision(x->n) == 0; i++)
        step(x);
    x->replies = 0;
    ask(x, "a");
    run(x, 3 * HEARTBEAT_MS);
    must_be_answered(x, "new");
    /* a leader that was lost just now: the next one is waited for */
    x->peers_dead = true;
    for (int i = 0; i < 1000 && node_leader(x->n) != 0; i++)
        step(x);
    ask(x, "a");
    run(x, ELECTION_MS);
    assert_int_equal(x->replies, 1);
    run(x, ELECTION_MS + 10 * STEP_MS);
    assert_true(x->replies == 2 && x->status == ERR_UNAVAILABLE);
}

static void ask_put(struct lone *x, struct slice key, struct slice value)
{
    struct buf params = BUF_INIT;
    struct put_req r = {.key = key, .value = value};
    struct node_caller caller = {.cb = on_reply, .arg = x};
    msg_encode(&msg_put_req, &r, &params);
    node_request(x->n, METHOD_KV_PUT, buf_slice(&params), &caller);
    buf_close(&params);
}

static void put(struct lone *x, const char *value)
{
    ask_put(x, slice_str("a"), slice_str(value));
    run(x, 3 * STEP_MS);
    assert_int_equal(x->status, ERR_OK);
}

static void lead(struct lone *x)
{
    x->peers_store = true;
    for (int i = 0; i < 1000 && node_revision(x->n) == 0; i++)
        step(x);
    assert_true(node_is_leader(x->n));
}

/* What the peers and the disk have to say, without a pass, up to the next change of the state. */
static void deliver_until_applied(struct lone *x)
{
    uint64_t revision = node_revision(x->n);
    while (node_revision(x->n) == revision) {
        assert_true(x->n_waiting > 0);
        struct waiting next = x->waiting[0];
        x->n_waiting--;
        memmove(x->waiting, x->waiting + 1, x->n_waiting * sizeof next);
        deliver(x, &next);
    }
}

static void the_largest_value_is_written_and_a_larger_request_stops_nobody(void **state)
{
    enum { KEY = 4096, VALUE = 1536 * 1024 };
    struct lone *x = *state;
    uint8_t *bytes = mem_alloc(VALUE + VALUE / 2);
    memset(bytes, 'k', KEY);
    lead(x);
    ask_put(x, slice_of(bytes, KEY), slice_of(bytes, VALUE));
    run(x, 3 * STEP_MS);
    assert_true(x->replies == 1 && x->status == ERR_OK);
    ask_put(x, slice_str("a"), slice_of(bytes, VALUE + VALUE / 2));
    assert_true(x->replies == 2 && x->status == ERR_LIMIT);
    put(x, "small");
    assert_int_equal(x->replies, 3);
    mem_free(bytes);
}

static void a_node_that_stops_tells_of_what_is_applied(void **state)
{
    struct lone *x = *state;
    lead(x);
    ask_put(x, slice_str("b"), slice_str("1"));
    node_pass(x->n);
    ask_put(x, slice_str("b"), slice_str("2"));
    deliver_until_applied(x);
    assert_int_equal(x->replies, 0);
    node_abandon(x->n);
    /* the second one was in no entry yet; the first was told of before it */
    assert_true(x->replies == 2 && x->status == ERR_UNAVAILABLE && x->first_status == ERR_OK);
}

/* What a watch is told, as "revision " each; "compacted" at its end. */
static bool told(void *arg, struct slice event, bool must)
{
    struct buf *text = arg;
    struct watch_event ev;
    (void)must;
    assert_int_equal(msg_decode(&msg_watch_event, event, &ev, NULL), ERR_OK);
    if (ev.compacted != 0)
        buf_printf(text, "compacted");
    else
        buf_printf(text, "%llu ", (unsigned long long)ev.revision);
    return true;
}

static void compact(struct lone *x, uint64_t revision)
{
    struct buf params = BUF_INIT;
    struct compact_req r = {.revision = revision};
    struct node_caller caller = {.cb = on_reply, .arg = x};
    msg_encode(&msg_compact_req, &r, &params);
    node_request(x->n, METHOD_KV_COMPACT, buf_slice(&params), &caller);
    buf_close(&params);
    run(x, 3 * STEP_MS);
    assert_int_equal(x->status, ERR_OK);
}

static void a_watch_goes_on_from_history_as_its_window_opens(void **state)
{
    struct lone *x = *state;
    struct buf text = BUF_INIT, reply = BUF_INIT;
    struct watch_req req = {.key = slice_str("a"), .credit = 100};
    struct watch *w = NULL;
    struct errmsg e;
    x->peers_store = true;
    for (int i = 0; i < 1000 && node_revision(x->n) == 0; i++)
        step(x);
    assert_int_equal(node_watch(x->n, &req, told, &text, &reply, &w, &e), ERR_OK);
    struct watch_credit more = {.watch = w->id, .credit = 100};
    for (int i = 0; i < 6; i++)
        put(x, "some value");
    assert_string_equal(buf_cstr(&text), "2 3 ");
    assert_int_equal(node_watch_credit(x->n, &more, &text, &e), ERR_OK);
    assert_string_equal(buf_cstr(&text), "2 3 4 5 ");
    more.credit = 1000;
    assert_int_equal(node_watch_credit(x->n, &more, &text, &e), ERR_OK);
    put(x, "some value");
    assert_string_equal(buf_cstr(&text), "2 3 4 5 6 7 8 ");
    for (int i = 0; i < 30; i++)
        put(x, "some value");
    uint64_t at = w->next_revision;
    static struct status_reply status;
    node_status(x->n, &status);
    assert_true(status.watches == 1 && status.watches_behind == 1 && !status.learner);
    assert_int_equal(status.leader_changes, 1);
    assert_true(status.requests == 0 && status.quota_bytes > 0);
    assert_true(w->behind && at < node_revision(x->n));
    compact(x, at);
    buf_clear(&text);
    assert_int_equal(node_watch_credit(x->n, &more, &text, &e), ERR_OK);
    assert_string_equal(buf_cstr(&text), "compacted");
    assert_int_equal(node_watch_credit(x->n, &more, &text, &e), ERR_NOT_FOUND);
    buf_close(&text);
    buf_close(&reply);
}

static void ask_to(struct lone *x, enum method method, const struct msg *m, const void *req)
{
    struct buf params = BUF_INIT;
    struct node_caller caller = {.cb = on_reply, .arg = x};
    msg_encode(m, req, &params);
    node_request(x->n, method, buf_slice(&params), &caller);
    buf_close(&params);
}

static void answers_that_take_much_memory_do_not_wait_for_the_end_of_the_pass(void **state)
{
    enum { VALUE = 1000 * 1000, TIMES = 20 };
    struct lone *x = *state;
    char *value = mem_alloc(VALUE);
    struct msg_list ops = {0};
    struct buf list = BUF_INIT;
    struct txn_op get = {.op = "range", .key = slice_str("big")},
                  put_small = {.op = "put", .key = slice_str("a"), .value = slice_str("1")};
    memset(value, 'v', VALUE);
    lead(x);
    ask_put(x, slice_str("big"), slice_of(value, VALUE));
    run(x, 3 * STEP_MS);
    msg_list_append(&ops, &msg_txn_op, &get);
    msg_list_append(&ops, &msg_txn_op, &put_small);
    msg_list_end(&ops, &list);
    struct txn_req txn = {.then = buf_slice(&list)};
    x->replies = 0;
    for (int i = 0; i < TIMES; i++)
        ask_to(x, METHOD_KV_TXN, &msg_txn_req, &txn);
    node_pass(x->n);
    deliver_until_applied(x);
    assert_true(x->replies >= TIMES - 4 && x->status == ERR_OK);
    node_pass(x->n);
    assert_int_equal(x->replies, TIMES);
    buf_close(&list);
    mem_free(value);
}

/* Each may take a fifth of a second of the loop. */
static void what_deletes_a_range_ends_its_entry(void **state)
{
    struct lone *x = *state;
    struct delete_req del = {.key = slice_str("a"), .end = slice_str("c")};
    lead(x);
    uint64_t index = node_last_index(x->n);
    ask_to(x, METHOD_KV_DELETE, &msg_delete_req, &del);
    ask_to(x, METHOD_KV_DELETE, &msg_delete_req, &del);
    ask_put(x, slice_str("a"), slice_str("1"));
    ask_put(x, slice_str("a"), slice_str("2"));
    run(x, 10 * STEP_MS);
    assert_int_equal(x->replies, 4);
    assert_int_equal(node_last_index(x->n), index + 3);
}

static void apply_here(struct lone *x, struct state_batch *b)
{
    struct buf entry = BUF_INIT;
    state_batch_end(b, 1000, &entry);
    state_apply(x->s, state_db_applied(x->s) + 1, buf_slice(&entry), x->now_ms, NULL, NULL);
    buf_close(&entry);
    buf_close(&b->body);
}

static void add_keys(struct lone *x, const char *prefix, size_t n)
{
    struct state_batch puts = {0};
    struct buf params = BUF_INIT;
    char key[32];
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(key, sizeof key, "%s%zu", prefix, i);
        struct put_req r = {.key = slice_str(key)};
        buf_clear(&params);
        msg_encode(&msg_put_req, &r, &params);
        (void)state_batch_add(&puts, STATE_CMD_PUT, buf_slice(&params));
    }
    apply_here(x, &puts);
    buf_close(&params);
}

static uint64_t count_keys(struct lone *x)
{
    struct buf bytes = BUF_INIT;
    struct range_reply reply;
    struct range_req all = {.key = slice_str("a"), .end = slice_str("z"), .count_only = true};
    assert_int_equal(state_range(x->s, &all, NULL, 1000, &bytes, NULL), ERR_OK);
    assert_int_equal(msg_decode(&msg_range_reply, buf_slice(&bytes), &reply, NULL), ERR_OK);
    buf_close(&bytes);
    return reply.count;
}

/* Whoever may read may ask for the number of all keys, 256 times on each connection. One of so many keys is
 * counted in two pieces. */
static void answered_in_turns(struct lone *x, bool local)
{
    enum { READS = 30, KEYS = 40000, IN_A_TURN = 256 * 1024 / KEYS + 1 };
    struct range_req count = {
        .key = slice_str("b"), .end = slice_str("c"), .count_only = true, .local = local};
    struct range_reply reply;
    add_keys(x, "b", KEYS);
    x->replies = 0;
    for (int i = 0; i < READS; i++)
        ask_to(x, METHOD_KV_RANGE, &msg_range_req, &count);
    assert_int_equal(x->replies, 0);
    for (int turns = 0; x->replies < READS; turns++) {
        size_t before = x->replies;
        assert_true(turns < 100);
        step(x);
        assert_true(x->status == ERR_OK && x->replies <= before + IN_A_TURN);
        if (x->replies > 0 && x->replies < READS)
            assert_true(node_deadline(x->n) <= x->now_ms);
    }
    assert_int_equal(msg_decode(&msg_range_reply, buf_slice(&x->reply), &reply, NULL), ERR_OK);
    assert_int_equal(reply.count, KEYS);
}

static void reads_of_many_keys_are_answered_in_turns(void **state)
{
    lead(*state);
    answered_in_turns(*state, false);
}

static void local_reads_of_many_keys_are_answered_in_turns(void **state)
{
    struct lone *x = *state;
    x->peers_dead = true; /* no leader is needed */
    answered_in_turns(x, true);
    struct range_req one = {.key = slice_str("b1"), .local = true};
    ask_to(x, METHOD_KV_RANGE, &msg_range_req, &one);
    assert_int_equal(x->replies, 31); /* at once */
}

/* Every member counts them as it applies the transaction. */
static void a_transaction_whose_ranges_have_many_keys_is_not_proposed(void **state)
{
    enum { KEYS = 16000 };
    struct lone *x = *state;
    struct msg_list ops = {0};
    struct buf three = BUF_INIT;
    struct session_open open = {.nonce = 5};
    struct session_reply session;
    struct txn_op get = {
        .op = "range", .key = slice_str("b"), .end = slice_str("c"), .limit = 1};
    for (int i = 0; i < 3; i++)
        msg_list_append(&ops, &msg_txn_op, &get);
    msg_list_end(&ops, &three);
    lead(x);
    ask_to(x, METHOD_SESSION_OPEN, &msg_session_open, &open);
    run(x, 3 * STEP_MS);
    assert_int_equal(msg_decode(&msg_session_reply, buf_slice(&x->reply), &session, NULL),
                     ERR_OK);
    struct txn_req few = {.then = buf_slice(&three), .session = session.session, .seq = 1};
    ask_to(x, METHOD_KV_TXN, &msg_txn_req, &few);
    run(x, 3 * STEP_MS);
    assert_int_equal(x->status, ERR_OK);
    add_keys(x, "b", KEYS);
    struct txn_op inner = {.op = "txn", .otherwise = buf_slice(&three)};
    struct buf one = BUF_INIT;
    msg_list_append(&ops, &msg_txn_op, &inner);
    msg_list_end(&ops, &one);
    /* what does not run counts as well */
    struct txn_req many[] = {{.then = buf_slice(&three)},
                             {.otherwise = buf_slice(&three)},
                             {.then = buf_slice(&one)},
                             {.otherwise = buf_slice(&one)},
                             {.then = buf_slice(&three), .session = few.session, .seq = 2}};
    uint64_t index = node_last_index(x->n);
    for (size_t i = 0; i < ARRAY_LEN(many); i++) {
        x->status = ERR_OK;
        ask_to(x, METHOD_KV_TXN, &msg_txn_req, &many[i]);
        run(x, 3 * STEP_MS);
        assert_int_equal(x->status, ERR_LIMIT);
    }
    assert_int_equal(node_last_index(x->n), index);
    ask_put(x, slice_str("a"), slice_str("1")); /* its entry has the index of add_keys() */
    run(x, 3 * STEP_MS);
    ask_to(x, METHOD_KV_TXN, &msg_txn_req, &few); /* its result is kept */
    run(x, 3 * STEP_MS);
    assert_int_equal(x->status, ERR_OK);
    buf_close(&three);
    buf_close(&one);
}

static void grant_lease(struct lone *x, uint64_t ttl_ms)
{
    struct state_batch b = {0};
    struct buf params = BUF_INIT;
    struct lease_grant g = {.ttl_ms = ttl_ms, .nonce = 1};
    msg_encode(&msg_lease_grant, &g, &params);
    (void)state_batch_add(&b, STATE_CMD_LEASE_GRANT, buf_slice(&params));
    apply_here(x, &b);
    buf_close(&params);
}

static void renew_lease(struct lone *x, uint64_t lease)
{
    struct state_batch b = {0};
    struct buf params = BUF_INIT;
    struct lease_renew r = {.id = lease, .nonce = 1, .n = 1};
    msg_encode(&msg_lease_renew, &r, &params);
    (void)state_batch_add(&b, STATE_CMD_LEASE_RENEW, buf_slice(&params));
    apply_here(x, &b);
    buf_close(&params);
}

static void copy_into_snapshot(struct lone *x)
{
    struct state_copy *copy;
    struct snapshot_info info;
    struct errmsg e;
    char path[128];
    snapshot_path(x, 0, path, sizeof path);
    assert_int_equal(node_copy(x->n, &copy, &info, &e), ERR_OK);
    assert_int_equal(state_copy_run(copy, path, &e), ERR_OK);
}

/* A leader that is far ahead: its entry 100, as a file. */
static void offer_snapshot(struct lone *x)
{
    struct buf bytes = BUF_INIT;
    struct errmsg e;
    struct raft_frame f = {.type = RAFT_FRAME_INSTALL, .term = 9};
    f.install = (struct raft_snapshot_info){
        .index = 100, .term = 9, .size = 1, .membership = {.n = 3, .index = 1}};
    for (size_t i = 0; i < 3; i++) {
        struct raft_server *s = &f.install.membership.servers[i];
        *s = (struct raft_server){.id = i + 1, .role = RAFT_ROLE_VOTER};
        (void)snprintf(s->address, sizeof s->address, "n%zu:1", i + 1);
    }
    raft_frame_encode(&f, &bytes);
    assert_int_equal(node_frame(x->n, 2, buf_slice(&bytes), &e), ERR_OK);
    buf_close(&bytes);
}

/* Renewals alone leave what a copy would have to commit, which cannot be done meanwhile. */
static void while_a_snapshot_is_put_in_place_no_copy_is_made(void **state)
{
    struct lone *x = *state;
    struct state_copy *copy;
    struct snapshot_info info;
    struct errmsg e = {.text = ""};
    char path[128];
    x->peers_dead = true;
    run(x, STEP_MS);
    grant_lease(x, 60000);
    uint64_t lease = state_db_applied(x->s) << 16;
    copy_into_snapshot(x);
    renew_lease(x, lease);
    assert_false(state_uncommitted(x->s));
    offer_snapshot(x);
    for (int i = 0; i < 100 && x->fetching.index == 0; i++)
        step(x);
    node_snapshot_fetched(x->n, &x->fetching, true);
    for (int i = 0; i < 100 && x->restoring == NULL; i++) {
        step(x);
        node_snapshot_stored(x->n);
    }
    assert_non_null(x->restoring);
    assert_int_equal(node_copy(x->n, &copy, &info, &e), ERR_UNAVAILABLE);
    run(x, 2 * NODE_DEADLINE_MS);
    assert_int_equal(state_restore_run(x->restoring, &e), ERR_OK);
    node_restored(x->n, x->restoring, ERR_OK, NULL);
    assert_int_equal(state_db_applied(x->s), 100);
    assert_int_equal(node_copy(x->n, &copy, &info, &e), ERR_OK);
    state_copy_cancel(copy);
    snapshot_path(x, 0, path, sizeof path);
    (void)unlink(path);
}

static void add_lease(struct lone *x, size_t keys)
{
    struct state_batch puts = {0};
    struct buf params = BUF_INIT;
    char key[32];
    grant_lease(x, 2000);
    uint64_t lease = state_db_applied(x->s) << 16;
    for (size_t i = 0; i < keys; i++) {
        (void)snprintf(key, sizeof key, "%llu-%zu", (unsigned long long)lease, i);
        struct put_req r = {.key = slice_str(key), .lease = lease};
        buf_clear(&params);
        msg_encode(&msg_put_req, &r, &params);
        (void)state_batch_add(&puts, STATE_CMD_PUT, buf_slice(&params));
    }
    apply_here(x, &puts);
    buf_close(&params);
}

/* The log goes on behind what was applied beside it. */
static void catch_up(struct lone *x)
{
    while (node_last_index(x->n) < state_db_applied(x->s)) {
        ask_put(x, slice_str("a"), slice_str("1"));
        run(x, 3 * STEP_MS);
    }
}

/* They are committed together, and each is as much as a turn is good for: a leader would be silent for the time
 * of all of them, and a renewal would wait as long. */
static void what_deletes_much_is_applied_in_turns(void **state)
{
    enum { REQUESTS = 4, KEYS = 8192 };
    static const char *const ranges[] = {"b", "c", "d", "e", "f"};
    struct lone *x = *state;
    lead(x);
    for (size_t i = 0; i < REQUESTS; i++)
        add_keys(x, ranges[i], KEYS);
    catch_up(x);
    x->replies = 0;
    x->peers_store = false;
    for (size_t i = 0; i < REQUESTS; i++) {
        struct delete_req del = {.key = slice_str(ranges[i]), .end = slice_str(ranges[i + 1])};
        ask_to(x, METHOD_KV_DELETE, &msg_delete_req, &del);
    }
    ask_put(x, slice_str("a"), slice_str("behind them"));
    run(x, 2 * HEARTBEAT_MS);
    uint64_t keys = count_keys(x);
    assert_true(x->replies == 0 && keys > (uint64_t)REQUESTS * KEYS);
    x->peers_store = true;
    for (int turns = 0; x->replies < REQUESTS + 2; turns++) {
        assert_true(turns < 100);
        step(x);
        uint64_t left = count_keys(x);
        assert_true(keys - left <= KEYS);
        if (left < keys && left > KEYS)
            assert_int_equal(node_deadline(x->n), x->now_ms); /* the next turn comes at once */
        if (x->replies == 1)
            ask(x, "a"); /* of what is committed */
        keys = left;
    }
    assert_int_equal(x->status, ERR_OK);
    x->replies = 1;
    must_be_answered(x, "behind them");
    assert_true(keys < KEYS);
}

/* A dead node's lease, with the keys of an agent. */
static void what_takes_long_without_end_keeps_no_lease_alive(void **state)
{
    enum { TIMES = 400 };
    struct lone *x = *state;
    struct delete_req del = {.key = slice_str("a"), .end = slice_str("c")};
    lead(x);
    add_lease(x, 2);
    add_lease(x, 2);
    catch_up(x);
    for (int i = 0; i < TIMES && state_next_expiry(x->s) != UINT64_MAX; i++) {
        ask_to(x, METHOD_KV_DELETE, &msg_delete_req, &del);
        ask_to(x, METHOD_KV_DELETE, &msg_delete_req, &del);
        run(x, STEP_MS);
    }
    assert_int_equal(state_next_expiry(x->s), UINT64_MAX);
}

static void leases_with_many_keys_end_in_several_entries(void **state)
{
    enum { LEASES = 5, KEYS = 8192 };
    struct lone *x = *state;
    lead(x);
    for (int i = 0; i < LEASES; i++)
        add_lease(x, KEYS);
    catch_up(x);
    uint64_t index = node_last_index(x->n);
    run(x, 4000);
    assert_int_equal(state_next_expiry(x->s), UINT64_MAX);
    assert_int_equal(node_last_index(x->n), index + 2);
}

/* Megabytes of it would hold up the loop: the rest comes in the passes to come, and what is new behind it. */
static void a_long_history_is_told_in_pieces_and_without_a_gap(void **state)
{
    enum { TIMES = 60, VALUE = 10000 };
    struct lone *x = *state;
    struct buf text = BUF_INIT, want = BUF_INIT, reply = BUF_INIT;
    struct watch_req req = {.key = slice_str("a"), .start_revision = 1};
    struct watch *w = NULL;
    struct errmsg e;
    char value[VALUE + 1];
    memset(value, 'v', VALUE);
    value[VALUE] = '\0';
    lead(x);
    for (int i = 0; i < TIMES; i++)
        put(x, value);
    for (uint64_t i = 1; i <= node_revision(x->n) + 1; i++)
        buf_printf(&want, "%llu ", (unsigned long long)i);
    assert_int_equal(node_watch(x->n, &req, told, &text, &reply, &w, &e), ERR_OK);
    node_watch_start(x->n, w);
    assert_true(text.len > 0 && text.len < want.len / 2);
    assert_int_equal(node_deadline(x->n), x->now_ms);
    ask_put(x, slice_str("a"), slice_str("new"));
    run(x, 10 * STEP_MS);
    assert_string_equal(buf_cstr(&text), buf_cstr(&want));
    assert_true(node_deadline(x->n) > x->now_ms);
    assert_true(node_unwatch(x->n, w->id, &text));
    buf_close(&text);
    buf_close(&want);
    buf_close(&reply);
}

static void redeem(struct lone *x, const struct pki_token *t)
{
    struct buf params = BUF_INIT;
    struct token_redeem r = {.name = "n9", .address = "n9:1", .csr = slice_str("no request")};
    struct node_caller caller = {.cb = on_reply, .arg = x};
    pki_token_text(t, r.token);
    msg_encode(&msg_token_redeem, &r, &params);
    node_request(x->n, METHOD_TOKEN_REDEEM, buf_slice(&params), &caller);
    buf_close(&params);
    run(x, 3 * STEP_MS);
}

static void add_token(struct lone *x, const struct pki_token *t, uint64_t expires_ms)
{
    struct state_batch b = {0};
    struct buf params = BUF_INIT;
    struct token_info info = {.role = "voter", .uses_left = 1, .expires_ms = expires_ms};
    memcpy(info.id, t->id, sizeof t->id);
    pki_token_hash(t, info.token);
    msg_encode(&msg_token_info, &info, &params);
    (void)state_batch_add(&b, STATE_CMD_TOKEN_CREATE, buf_slice(&params));
    apply_here(x, &b);
    buf_close(&params);
}

/* There is neither a CA nor a request here that could be worked with: who gets beyond the token fails with
 * another error. */
static void nothing_is_signed_or_verified_for_a_token_that_is_not_valid(void **state)
{
    struct lone *x = *state;
    char fingerprint[PKI_FINGERPRINT_LEN + 1];
    struct pki_token good, late, unknown;
    struct node_authority a = {.ca_cert = slice_str("none"), .ca_key = slice_str("none")};
    memset(fingerprint, 'a', sizeof fingerprint - 1);
    fingerprint[sizeof fingerprint - 1] = '\0';
    pki_token_new(fingerprint, &good);
    pki_token_new(fingerprint, &late);
    pki_token_new(fingerprint, &unknown);
    node_set_authority(x->n, &a);
    lead(x);
    add_token(x, &late, 1001);
    add_token(x, &good, 1000 * 1000 * 1000);
    redeem(x, &unknown);
    assert_true(x->replies == 1 && x->status == ERR_DENIED);
    redeem(x, &late);
    assert_true(x->replies == 2 && x->status == ERR_DENIED);
    memcpy(unknown.id, good.id, sizeof good.id); /* the id is public, the secret is not */
    redeem(x, &unknown);
    assert_true(x->replies == 3 && x->status == ERR_DENIED);
    redeem(x, &good);
    assert_true(x->replies == 4 && x->status == ERR_INVALID);
}

/* The leader before it may have made the token: what is not applied yet is waited for. */
static void a_new_leader_looks_no_token_up_before_an_entry_of_its_own(void **state)
{
    struct lone *x = *state;
    char fingerprint[PKI_FINGERPRINT_LEN + 1];
    struct pki_token t;
    struct node_authority a = {.ca_cert = slice_str("none"), .ca_key = slice_str("none")};
    memset(fingerprint, 'a', sizeof fingerprint - 1);
    fingerprint[sizeof fingerprint - 1] = '\0';
    pki_token_new(fingerprint, &t);
    node_set_authority(x->n, &a);
    for (int i = 0; i < 1000 && !node_is_leader(x->n); i++)
        step(x);
    redeem(x, &t);
    assert_int_equal(x->replies, 0);
    x->peers_store = true;
    run(x, 3 * HEARTBEAT_MS);
    assert_true(x->replies == 1 && x->status == ERR_DENIED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_new_leader_reads_nothing_before_an_entry_of_its_own,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(without_a_leader_for_long_everybody_is_told_at_once,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_watch_goes_on_from_history_as_its_window_opens, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            the_largest_value_is_written_and_a_larger_request_stops_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(a_node_that_stops_tells_of_what_is_applied, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            answers_that_take_much_memory_do_not_wait_for_the_end_of_the_pass, setup, teardown),
        cmocka_unit_test_setup_teardown(what_deletes_a_range_ends_its_entry, setup, teardown),
        cmocka_unit_test_setup_teardown(reads_of_many_keys_are_answered_in_turns, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(local_reads_of_many_keys_are_answered_in_turns, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            a_transaction_whose_ranges_have_many_keys_is_not_proposed, setup, teardown),
        cmocka_unit_test_setup_teardown(what_deletes_much_is_applied_in_turns, setup, teardown),
        cmocka_unit_test_setup_teardown(what_takes_long_without_end_keeps_no_lease_alive, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(leases_with_many_keys_end_in_several_entries, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_long_history_is_told_in_pieces_and_without_a_gap,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(while_a_snapshot_is_put_in_place_no_copy_is_made, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            nothing_is_signed_or_verified_for_a_token_that_is_not_valid, setup, teardown),
        cmocka_unit_test_setup_teardown(
            a_new_leader_looks_no_token_up_before_an_entry_of_its_own, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
