#include "agent/ha_txn.h"

#include <stdio.h>

#include "base/assert.h"
#include "base/mutant.h"
#include "base/str.h"

enum { RECORD_MAX = 256 * 1024 };

struct builder {
    const struct mirror *m;
    const struct view *v;
    const struct plan *p;
    const struct postgres_upstream *self;
    struct msg_list compare, then;
    bool failed;
};

static const char *key_of(struct builder *b, char ret[static MIRROR_KEY_MAX], const char *name)
{
    if (mirror_key(b->m, ret, "%s", name) != ERR_OK)
        b->failed = true;
    return ret;
}

/* mod_revision 0: the key must be absent. */
static void expect(struct builder *b, const char *name, uint64_t mod_revision)
{
    char key[MIRROR_KEY_MAX];
    struct compare c = {.key = slice_str(key_of(b, key, name)),
                        .target = "mod",
                        .op = "=",
                        .number = mod_revision};
    msg_list_append(&b->compare, &msg_compare, &c);
}

static void put(struct builder *b, const char *name, const struct msg *msg, const void *record,
                uint64_t lease)
{
    char key[MIRROR_KEY_MAX];
    struct buf json CLEANUP(buf_close) = {.max = RECORD_MAX};
    msg_to_json(msg, record, &json);
    b->failed = b->failed || !buf_ok(&json);
    struct txn_op op = {.op = "put",
                        .key = slice_str(key_of(b, key, name)),
                        .value = buf_slice(&json),
                        .lease = lease};
    msg_list_append(&b->then, &msg_txn_op, &op);
}

static void drop(struct builder *b, const char *name)
{
    char key[MIRROR_KEY_MAX];
    struct txn_op op = {.op = "delete", .key = slice_str(key_of(b, key, name))};
    msg_list_append(&b->then, &msg_txn_op, &op);
}

static void expect_leader(struct builder *b)
{
    expect(b, "leader", b->m->leader_meta.mod_revision);
}

static void expect_sync(struct builder *b)
{
    expect(b, "sync", b->m->sync_meta.mod_revision);
}

/* Our address does not come from our member record: that one may have gone with the lease before. */
static void put_self_as_leader(struct builder *b, struct leader_rec rec)
{
    str_cut(rec.conn_host, sizeof rec.conn_host, b->self->host);
    b->failed = b->failed || str_parse_u64(b->self->port, &rec.conn_port) != ERR_OK;
    put(b, "leader", &msg_leader_rec, &rec, b->v->lease);
}

static void put_history(struct builder *b, struct history_rec *h,
                        const struct history_entry *add)
{
    enum { MAX = ARRAY_LEN(h->entries) };
    struct history_entry *last = h->entries_n > 0 ? &h->entries[h->entries_n - 1] : NULL;
    if (last != NULL && last->timeline == add->timeline && last->token == add->token) {
        uint64_t at_ms = last->at_ms; /* a correction */
        *last = *add;
        last->at_ms = at_ms;
        put(b, "history", &msg_history_rec, h, 0);
        return;
    }
    if (h->entries_n == MAX)
        memmove(&h->entries[0], &h->entries[1], --h->entries_n * sizeof h->entries[0]);
    h->entries[h->entries_n++] = *add;
    put(b, "history", &msg_history_rec, h, 0);
}

static void clear_failover(struct builder *b, const char *result)
{
    if (!b->m->failover_meta.present)
        return;
    struct status_rec status = b->m->status;
    str_cut(status.request_id, sizeof status.request_id, b->m->failover.id);
    str_cut(status.request_result, sizeof status.request_result, result);
    drop(b, "failover");
    put(b, "status", &msg_status_rec, &status, 0);
}

static void bootstrap_done(struct builder *b, const struct config_rec *first_config,
                           uint64_t wall_ms)
{
    const struct view *v = b->v;
    expect(b, "initialize", b->m->initialize_meta.mod_revision);
    expect(b, "leader", 0);
    expect(b, "sync", 0);
    struct initialize_rec init = {.system_id = v->pg.system_id};
    str_cut(init.name, sizeof init.name, v->self);
    put(b, "initialize", &msg_initialize_rec, &init, 0);
    put_self_as_leader(b, b->p->leader);
    put(b, "sync", &msg_sync_rec, &b->p->sync, 0);
    struct history_rec h = {0};
    struct history_entry first = b->p->history;
    first.at_ms = wall_ms;
    put_history(b, &h, &first);
    if (!b->m->config_meta.present)
        put(b, "config", &msg_config_rec, first_config, 0);
}

/* A seal of a loss before this one counts in none to come; its node may be gone for good. */
static void drop_old_seals(struct builder *b)
{
    for (size_t i = 0; i < b->v->seals_n; i++) {
        const struct seal_rec *s = &b->v->seals[i];
        char name[MIRROR_KEY_MAX];
        if (s->token >= b->v->sync.token)
            continue;
        if (str_format(name, sizeof name, "seal/%s", s->name) != ERR_OK)
            b->failed = true;
        drop(b, name);
    }
}

static void acquire(struct builder *b)
{
    expect(b, "leader", 0);
    if (!MUTANT(acquire_by_absence))
        expect_sync(b);
    for (size_t i = 0; i < b->p->counted_n && !MUTANT(acquire_by_absence); i++) {
        char name[MIRROR_KEY_MAX];
        size_t at = b->p->counted[i];
        ASSERT(at < b->v->seals_n);
        if (str_format(name, sizeof name, "seal/%s", b->v->seals[at].name) != ERR_OK)
            b->failed = true;
        expect(b, name, b->v->seal_mod_revisions[at]);
    }
    if (b->p->forced) {
        expect(b, "failover", b->m->failover_meta.mod_revision);
        clear_failover(b, "done");
    }
    struct leader_rec rec = {.token = b->p->sync.token, .state = "acquired"};
    str_cut(rec.name, sizeof rec.name, b->v->self);
    str_cut(rec.incarnation, sizeof rec.incarnation, b->p->sync.incarnation);
    str_cut(rec.relieves, sizeof rec.relieves, b->p->leader.relieves);
    put_self_as_leader(b, rec);
    put(b, "sync", &msg_sync_rec, &b->p->sync, 0);
    drop_old_seals(b);
}

static void handover(struct builder *b)
{
    const struct member_rec *to = view_member(b->v, b->p->target);
    if (to == NULL || to->lease == 0) {
        b->failed = true;
        return;
    }
    char name[MIRROR_KEY_MAX];
    if (str_format(name, sizeof name, "members/%s", to->name) != ERR_OK)
        b->failed = true;
    expect_leader(b);
    expect_sync(b);
    /* it still has what it was chosen for */
    if (!MUTANT(hand_over_to_the_changed))
        expect(b, name, mirror_member_mod(b->m, to->name));
    put(b, "leader", &msg_leader_rec, &b->p->leader, to->lease);
    put(b, "sync", &msg_sync_rec, &b->p->sync, 0);
    clear_failover(b, "done");
}

static void leader_state(struct builder *b, uint64_t wall_ms)
{
    expect_leader(b);
    expect_sync(b);
    put_self_as_leader(b, b->p->leader);
    if (b->p->has_sync)
        put(b, "sync", &msg_sync_rec, &b->p->sync, 0);
    if (b->p->has_history) {
        struct history_rec h = b->m->history;
        struct history_entry add = b->p->history;
        add.at_ms = wall_ms;
        put_history(b, &h, &add);
    }
}

static void request(struct builder *b, uint64_t wall_ms)
{
    char name[MIRROR_KEY_MAX];
    char result[MIRROR_KEY_MAX];
    if (str_format(name, sizeof name, "request/%s", b->v->self) != ERR_OK ||
        str_format(result, sizeof result, "result/%s", b->v->self) != ERR_OK)
        b->failed = true;
    expect(b, name, b->m->request_meta.mod_revision);
    if (b->p->txn == TXN_REQUEST) {
        put(b, name, &msg_request_rec, &b->p->request, 0);
        return;
    }
    struct result_rec rec = {.ok = b->p->request_ok, .at_ms = wall_ms};
    str_cut(rec.id, sizeof rec.id, b->p->request.id);
    str_cut(rec.text, sizeof rec.text, b->p->reason);
    drop(b, name);
    put(b, result, &msg_result_rec, &rec, 0);
}

static void build(struct builder *b, const struct config_rec *first_config, uint64_t wall_ms)
{
    char name[MIRROR_KEY_MAX];
    struct initialize_rec init = {0};
    switch (b->p->txn) {
    case TXN_BOOTSTRAP_BEGIN:
        expect(b, "initialize", 0);
        str_cut(init.name, sizeof init.name, b->v->self);
        put(b, "initialize", &msg_initialize_rec, &init, b->v->lease);
        return;
    case TXN_BOOTSTRAP_DONE:
        bootstrap_done(b, first_config, wall_ms);
        return;
    case TXN_BOOTSTRAP_ABORT:
        expect(b, "initialize", b->m->initialize_meta.mod_revision);
        drop(b, "initialize");
        return;
    case TXN_ACQUIRE:
        acquire(b);
        return;
    case TXN_RELEASE:
        expect_leader(b);
        expect_sync(b);
        drop(b, "leader");
        if (b->p->restore_sync)
            put(b, "sync", &msg_sync_rec, &b->p->sync, 0);
        return;
    case TXN_HANDOVER:
        handover(b);
        return;
    case TXN_LEADER_STATE:
        leader_state(b, wall_ms);
        return;
    case TXN_SYNC:
        if (!MUTANT(record_of_anybody)) {
            expect_leader(b);
            expect_sync(b);
        }
        put(b, "sync", &msg_sync_rec, &b->p->sync, 0);
        return;
    case TXN_SEAL:
        expect(b, "leader", 0);
        expect_sync(b);
        if (str_format(name, sizeof name, "seal/%s", b->v->self) != ERR_OK)
            b->failed = true;
        put(b, name, &msg_seal_rec, &b->p->seal, 0);
        return;
    case TXN_REQUEST:
    case TXN_CLEAR_REQUEST:
        request(b, wall_ms);
        return;
    case TXN_CLEAR_FAILOVER:
        expect(b, "failover", b->m->failover_meta.mod_revision);
        clear_failover(b, b->p->reason);
        return;
    case TXN_NONE:
    case TXN_COUNT:
        break;
    }
    UNREACHABLE();
}

enum err ha_txn_build(const struct mirror *m, const struct view *v, const struct plan *p,
                      const struct postgres_upstream *self, uint64_t wall_ms,
                      const struct config_rec *first_config, struct ha_txn *ret_txn,
                      struct errmsg *e)
{
    struct builder b = {.m = m, .v = v, .p = p, .self = self};
    *ret_txn = (struct ha_txn){0};
    build(&b, first_config, wall_ms);
    msg_list_end(&b.compare, &ret_txn->compare);
    msg_list_end(&b.then, &ret_txn->then);
    ret_txn->req.compare = buf_slice(&ret_txn->compare);
    ret_txn->req.then = buf_slice(&ret_txn->then);
    if (!b.failed && buf_ok(&ret_txn->compare) && buf_ok(&ret_txn->then))
        return ERR_OK;
    ha_txn_close(ret_txn);
    return err_set(e, ERR_LIMIT, "%s: a record does not fit", plan_txn_name(p->txn));
}

void ha_txn_close(struct ha_txn *t)
{
    buf_close(&t->compare);
    buf_close(&t->then);
    t->req = (struct txn_req){0};
}
