/* The engine's talk with the DCS: the mirror, HA transactions, and the proof before a destructive action. */
#include <inttypes.h>
#include <stdio.h>

#include "agent/engine_internal.h"
#include "base/log.h"
#include "base/str.h"

/* ---- mirror ---- */

/* The end of a prefix range: the prefix with its last byte (a '/') raised. */
static void prefix_end(const char *prefix, char ret_end[static MIRROR_KEY_MAX])
{
    size_t n = strlen(prefix);
    memcpy(ret_end, prefix, n + 1);
    ret_end[n - 1]++;
}

static void fill_failed(struct engine *g, const char *text)
{
    g->filling = false;
    buf_close(&g->fill_kvs);
    log_event(LOG_WARN, "dcs_read", NO_KV, "%s", text);
    engine_wake(g);
}

/* ERR_LIMIT: a page is not the records, and must not be taken for them. */
static enum err fill_page(const struct client_reply *reply, struct range_reply *ret_page,
                          struct errmsg *e)
{
    *e = reply->error;
    if (reply->status != ERR_OK)
        return reply->status;
    enum err rv = msg_decode(&msg_range_reply, reply->result, ret_page, e);
    if (rv == ERR_OK && ret_page->more)
        return err_set(e, ERR_LIMIT, "the records do not fit into a message");
    return rv;
}

static void on_fill_rest(void *arg, const struct client_reply *reply)
{
    struct engine *g = arg;
    CHECK_MAGIC(g, ENGINE_MAGIC);
    struct errmsg e = {0};
    struct range_reply rest;
    if (fill_page(reply, &rest, &e) != ERR_OK) {
        fill_failed(g, e.text);
        return;
    }
    g->filling = false;
    g->contact_ms = MAX(g->contact_ms, g->fill_asked_ms);
    struct range_reply first = {.revision = g->fill_revision, .kvs = buf_slice(&g->fill_kvs)};
    if (mirror_fill_two(&g->mirror, &first, &rest, engine_now(g), &e) != ERR_OK)
        log_event(LOG_WARN, "dcs_read", NO_KV, "%s", e.text);
    buf_close(&g->fill_kvs);
    char end[MIRROR_KEY_MAX];
    prefix_end(g->mirror.prefix, end);
    g->o.ports->watch(g->o.arg, slice_str(g->mirror.prefix), slice_str(end),
                      g->mirror.revision + 1);
    engine_wake(g);
}

static void on_fill(void *arg, const struct client_reply *reply)
{
    struct engine *g = arg;
    CHECK_MAGIC(g, ENGINE_MAGIC);
    struct errmsg e = {0};
    struct range_reply first;
    char from[MIRROR_KEY_MAX];
    char end[MIRROR_KEY_MAX];
    if (fill_page(reply, &first, &e) != ERR_OK ||
        mirror_key(&g->mirror, from, "journal0") != ERR_OK) {
        fill_failed(g, e.text);
        return;
    }
    buf_append_slice(&g->fill_kvs, first.kvs);
    g->fill_revision = first.revision;
    prefix_end(g->mirror.prefix, end);
    struct range_req r = {
        .key = slice_str(from), .end = slice_str(end), .revision = first.revision};
    g->o.ports->call(g->o.arg, METHOD_KV_RANGE, &r, 0, on_fill_rest, g);
}

/* Everything but the journal, which can be larger than a message: in two ranges of one revision. */
void engine_fill(struct engine *g)
{
    char end[MIRROR_KEY_MAX];
    if (g->filling || !g->connected || mirror_key(&g->mirror, end, "journal/") != ERR_OK)
        return;
    g->filling = true;
    g->fill_asked_ms = engine_now(g);
    struct range_req r = {.key = slice_str(g->mirror.prefix), .end = slice_str(end)};
    g->o.ports->call(g->o.arg, METHOD_KV_RANGE, &r, 0, on_fill, g);
}

void engine_watch(struct engine *g, enum err status, const struct watch_event *ev)
{
    CHECK_MAGIC(g, ENGINE_MAGIC);
    struct errmsg e = {0};
    if (status != ERR_OK) {
        mirror_lost(&g->mirror); /* compacted or cancelled: read everything again */
        engine_fill(g);
    } else if (mirror_events(&g->mirror, ev, engine_now(g), &e) != ERR_OK) {
        log_event(LOG_ERROR, "record", NO_KV,
                  "%s; it counts as unchanged until it is put right", e.text);
    }
    engine_wake(g);
}

static void on_own_config(void *arg, const struct client_reply *reply)
{
    struct engine *g = arg;
    CHECK_MAGIC(g, ENGINE_MAGIC);
    struct errmsg e = {0};
    struct range_reply r;
    if (reply->status != ERR_OK || g->mirror.complete || g->mirror.config_meta.present ||
        msg_decode(&msg_range_reply, reply->result, &r, &e) != ERR_OK)
        return;
    if (mirror_config(&g->mirror, &r, &e) != ERR_OK)
        log_event(LOG_WARN, "dcs_read", NO_KV, "%s", e.text);
    engine_wake(g);
}

/* As this node's own store has it, without a quorum: the best there is for a PostgreSQL that is started alone. */
static void read_own_config(struct engine *g)
{
    char key[MIRROR_KEY_MAX];
    if (mirror_key(&g->mirror, key, "config") != ERR_OK)
        return;
    struct range_req r = {.key = slice_str(key), .local = true};
    g->o.ports->call(g->o.arg, METHOD_KV_RANGE, &r, 0, on_own_config, g);
}

void engine_connected(struct engine *g, bool connected)
{
    CHECK_MAGIC(g, ENGINE_MAGIC);
    g->connected = connected;
    if (connected && !g->mirror.complete) {
        if (!g->mirror.config_meta.present)
            read_own_config(g);
        engine_fill(g);
    }
    engine_wake(g);
}

/* ---- transactions ---- */

static void txn_done(struct engine *g)
{
    g->txn_pending = false;
    g->txn_revision = 0;
}

static void on_txn(void *arg, const struct client_reply *reply)
{
    struct engine *g = arg;
    CHECK_MAGIC(g, ENGINE_MAGIC);
    struct txn_reply r = {0};
    struct errmsg e;
    enum err rv = reply->status;
    if (rv == ERR_OK && msg_decode(&msg_txn_reply, reply->result, &r, &e) != ERR_OK)
        rv = ERR_OUTCOME_UNKNOWN;
    const char *name = plan_txn_name(g->txn);
    if (rv == ERR_OK && r.succeeded) {
        log_event(LOG_INFO, "txn", KV(KV_STR("txn", name), KV_U64("revision", r.revision)),
                  "%s is applied", name);
        g->txn_revision = r.revision;
        if (g->txn == TXN_ACQUIRE) {
            /* A primary that takes its key again goes on writing: nothing can be undone. */
            g->has_sync_before = !g->txn_sync_before.disarmed;
            g->sync_before = g->txn_sync_before;
        } else if (g->txn == TXN_RELEASE || g->txn == TXN_HANDOVER) {
            g->has_sync_before = false;
        }
        engine_txn_settle(g);
    } else if (rv == ERR_OUTCOME_UNKNOWN) {
        log_event(LOG_WARN, "txn", KV(KV_STR("txn", name)),
                  "outcome of %s is unknown: reading again", name);
        g->txn_unknown = true;
        txn_done(g);
        mirror_lost(&g->mirror);
        engine_fill(g);
    } else {
        log_event(LOG_INFO, "txn", KV(KV_STR("txn", name)), "%s is not applied: %s", name,
                  rv == ERR_OK ? "the records have changed meanwhile" : reply->error.text);
        txn_done(g);
        mirror_lost(&g->mirror);
        engine_fill(g);
    }
    engine_wake(g);
}

/* After a success the plan waits until the mirror shows it. */
void engine_txn_settle(struct engine *g)
{
    if (g->txn_pending && g->txn_revision != 0 && g->mirror.revision >= g->txn_revision)
        txn_done(g);
}

static uint64_t txn_deadline_ms(const struct engine *g)
{
    return 2 * g->view.config.ttl_ms;
}

static void on_touch(void *arg, const struct client_reply *reply)
{
    struct engine *g = arg;
    CHECK_MAGIC(g, ENGINE_MAGIC);
    g->txn_touching = false;
    if (reply->status == ERR_OK) {
        g->txn_unknown = false;
        mirror_lost(&g->mirror);
        engine_fill(g);
    }
    engine_wake(g);
}

static enum err build_txn(const struct engine *g, const struct plan *p, struct ha_txn *ret_txn,
                          struct errmsg *e)
{
    struct postgres_upstream self = {.read_write = false};
    (void)snprintf(self.port, sizeof self.port, "%u", (unsigned)g->o.conn_port);
    str_cut(self.name, sizeof self.name, g->name);
    str_cut(self.host, sizeof self.host, g->conn_host);
    return ha_txn_build(&g->mirror, &g->view, p, &self, g->o.ports->wall_ms(g->o.arg),
                        g->o.bootstrap, ret_txn, e);
}

/* A transaction of unknown outcome may still be on its way. Rewriting the sync record as it is raises its
 * mod_revision, so that the delayed one fails its comparison; then the world is known again. */
static void touch_sync(struct engine *g)
{
    struct plan p = {.rule = "touch", .txn = TXN_SYNC, .sync = g->mirror.sync};
    struct ha_txn t;
    struct errmsg e;
    if (!g->mirror.sync_meta.present || !g->mirror.leader_meta.present ||
        !view_is_leader(&g->view)) {
        /* it compared the leader key, or an absent one with the seals: see
         * docs/ha-protocol.md */
        g->txn_unknown = false;
        return;
    }
    if (build_txn(g, &p, &t, &e) != ERR_OK)
        return;
    g->txn_touching = true;
    g->o.ports->call(g->o.arg, METHOD_KV_TXN, &t.req, txn_deadline_ms(g), on_touch, g);
    ha_txn_close(&t);
}

void engine_txn(struct engine *g, const struct plan *p)
{
    struct ha_txn t;
    struct errmsg e = {0};
    if (g->txn_pending || !g->connected)
        return;
    if (g->txn_unknown) {
        if (!g->txn_touching && g->mirror.complete)
            touch_sync(g);
        return;
    }
    ASSERT(p->txn != TXN_NONE);
    if (build_txn(g, p, &t, &e) != ERR_OK) {
        log_event(LOG_ERROR, "txn", KV(KV_STR("rule", p->rule)), "%s", e.text);
        return;
    }
    g->txn_pending = true;
    g->txn_revision = 0;
    g->txn = p->txn;
    g->txn_sync_before = g->mirror.sync;
    g->o.ports->call(g->o.arg, METHOD_KV_TXN, &t.req, txn_deadline_ms(g), on_txn, g);
    ha_txn_close(&t);
}

/* ---- proof ---- */

static uint64_t mod_of(const struct range_reply *r, const char *key)
{
    struct msg_iter it;
    struct kv kv;
    if (msg_iter_init(&it, r->kvs) != ERR_OK)
        return 0;
    while (msg_iter_next(&it, &msg_kv, &kv, NULL) == ERR_OK)
        if (slice_eq(kv.key, slice_str(key)))
            return kv.mod_revision;
    return 0;
}

static void on_proof(void *arg, const struct client_reply *reply)
{
    struct engine_proof_read *read = arg;
    struct engine *g = read->engine;
    CHECK_MAGIC(g, ENGINE_MAGIC);
    struct range_reply r;
    struct errmsg e;
    char leader[MIRROR_KEY_MAX];
    char sync[MIRROR_KEY_MAX];
    bool wanted = read->number == g->proof.number;
    read->engine = NULL;
    if (!wanted)
        return;
    g->proof.number = 0;
    if (reply->status != ERR_OK ||
        msg_decode(&msg_range_reply, reply->result, &r, &e) != ERR_OK ||
        mirror_key(&g->mirror, leader, "leader") != ERR_OK ||
        mirror_key(&g->mirror, sync, "sync") != ERR_OK) {
        engine_wake(g);
        return;
    }
    g->proof.proven =
        mod_of(&r, leader) == g->proof.leader_mod && mod_of(&r, sync) == g->proof.sync_mod;
    engine_wake(g);
}

static bool proof_is_for(const struct engine *g, const struct plan *p)
{
    const struct engine_proof *f = &g->proof;
    return f->action == p->action && f->token == p->token &&
           strcmp(f->target, p->target) == 0 &&
           f->leader_mod == g->mirror.leader_meta.mod_revision &&
           f->sync_mod == g->mirror.sync_meta.mod_revision;
}

static struct engine_proof_read *free_read(struct engine *g)
{
    for (size_t i = 0; i < ARRAY_LEN(g->proof_reads); i++)
        if (g->proof_reads[i].engine == NULL)
            return &g->proof_reads[i];
    return NULL;
}

static void ask_proof(struct engine *g, const struct plan *p)
{
    struct engine_proof_read *read = free_read(g);
    g->proof = (struct engine_proof){0};
    if (read == NULL)
        return; /* each ends by its deadline */
    *read = (struct engine_proof_read){.engine = g, .number = ++g->proof_number};
    g->proof = (struct engine_proof){.number = read->number,
                                     .action = p->action,
                                     .token = p->token,
                                     .leader_mod = g->mirror.leader_meta.mod_revision,
                                     .sync_mod = g->mirror.sync_meta.mod_revision};
    memcpy(g->proof.target, p->target, sizeof g->proof.target);
    /* leader, members, seals, status and sync, but not the journal, which sorts before them */
    char from[MIRROR_KEY_MAX];
    char end[MIRROR_KEY_MAX];
    enum err rv = mirror_key(&g->mirror, from, "leader");
    ASSERT(rv == ERR_OK); /* longer keys have been read */
    prefix_end(g->mirror.prefix, end);
    struct range_req r = {.key = slice_str(from), .end = slice_str(end), .keys_only = true};
    g->o.ports->call(g->o.arg, METHOD_KV_RANGE, &r, g->view.config.ttl_ms, on_proof, read);
}

bool engine_proven(struct engine *g, const struct plan *p)
{
    if (g->proof.proven && proof_is_for(g, p)) {
        g->proof = (struct engine_proof){0};
        return true;
    }
    if (g->proof.number == 0 || !proof_is_for(g, p))
        ask_proof(g, p);
    return false;
}
