/* Commands and queries on leases; the arithmetic is in state_lease.c. */
#include "base/mem.h"
#include "base/mutant.h"
#include "dcs/state_internal.h"

static void fill(const struct state *s, const struct lease *l, uint64_t now_ms,
                 struct lease_state *ret)
{
    *ret = (struct lease_state){
        .id = l->id,
        .ttl_ms = l->ttl_ms,
        .nonce = l->nonce,
        .n = l->n,
        .revision = s->m.revision,
        .remaining_ms = s->leases.started && l->expiry_ms > now_ms ? l->expiry_ms - now_ms : 0,
    };
}

static void lease_result(struct apply *a, const struct lease *l, uint64_t remaining_ms)
{
    struct lease_state r;
    fill(a->s, l, a->now_ms, &r);
    r.remaining_ms = remaining_ms;
    r.revision = apply_revision_now(a);
    apply_result(a, &msg_lease_state, &r);
}

static void gone_result(struct apply *a, uint64_t id)
{
    struct lease_state r = {.id = id, .gone = true, .revision = apply_revision_now(a)};
    apply_result(a, &msg_lease_state, &r);
}

static enum err check_ttl(uint64_t ttl_ms, struct errmsg *e)
{
    if (ttl_ms >= LEASE_TTL_MS_MIN && ttl_ms <= LEASE_TTL_MS_MAX)
        return ERR_OK;
    return err_set(e, ERR_INVALID, "a TTL of %llu ms is not between %llu ms and one year",
                   (unsigned long long)ttl_ms, (unsigned long long)LEASE_TTL_MS_MIN);
}

enum err cmd_lease_grant(struct apply *a, const void *req)
{
    const struct lease_grant *g = req;
    struct state *s = a->s;
    enum err rc = check_ttl(g->ttl_ms, &a->error);
    if (rc != ERR_OK)
        return rc;
    if (s->leases.n >= LEASES_MAX)
        return err_set(&a->error, ERR_LIMIT, "there are %d leases, the most", (int)LEASES_MAX);
    struct lease l = {
        .id = apply_new_id(a), .ttl_ms = g->ttl_ms, .nonce = g->nonce, .session = g->session};
    sql_bind_u64(s, SQL_LEASE_INSERT, 1, l.id);
    sql_bind_u64(s, SQL_LEASE_INSERT, 2, l.ttl_ms);
    sql_bind_u64(s, SQL_LEASE_INSERT, 3, l.nonce);
    sql_bind_u64(s, SQL_LEASE_INSERT, 4, l.n);
    sql_bind_u64(s, SQL_LEASE_INSERT, 5, l.session);
    sql_write(s, SQL_LEASE_INSERT);
    /* Kept under the session, so the same on every member: the TTL, not the clock. */
    lease_result(a, lease_add(&s->leases, &l, a->now_ms), l.ttl_ms);
    return ERR_OK;
}

/* Touches no table: the counter is written by the next commit that happens anyway. A void renewal
 * is answered like any other; the holder sees in nonce and n whether it was counted. */
enum err cmd_lease_renew(struct apply *a, const void *req)
{
    const struct lease_renew *r = req;
    struct lease *l = lease_find(&a->s->leases, r->id);
    if (l == NULL) {
        gone_result(a, r->id);
        return ERR_OK;
    }
    if (r->ttl_ms != 0) {
        enum err rc = check_ttl(r->ttl_ms, &a->error);
        if (rc != ERR_OK)
            return rc;
    }
    struct lease renewal = {.nonce = r->nonce, .n = r->n, .ttl_ms = r->ttl_ms};
    (void)lease_renew(&a->s->leases, l, &renewal, r->held_ms, a->now_ms);
    lease_result(a, l, l->expiry_ms > a->now_ms ? l->expiry_ms - a->now_ms : 0);
    return ERR_OK;
}

static void drop(struct apply *a, uint64_t id)
{
    if (!MUTANT(keys_outlive_lease))
        kv_delete_of_lease(a, id);
    sql_bind_u64(a->s, SQL_LEASE_DELETE, 1, id);
    sql_write(a->s, SQL_LEASE_DELETE);
    lease_remove(&a->s->leases, id);
}

enum err cmd_lease_revoke(struct apply *a, const void *req)
{
    const struct lease_revoke *r = req;
    if (lease_find(&a->s->leases, r->id) == NULL)
        return err_set(&a->error, ERR_NOT_FOUND,
                       "lease %llu does not exist: it expired or was revoked",
                       (unsigned long long)r->id);
    drop(a, r->id);
    gone_result(a, r->id);
    return ERR_OK;
}

/* Rule 3: void when a renewal got into the log before it. */
enum err cmd_lease_expire(struct apply *a, const void *req)
{
    const struct lease_renew *r = req;
    struct lease *l = lease_find(&a->s->leases, r->id);
    bool renewed = l != NULL && (l->nonce != r->nonce || l->n != r->n);
    if (renewed && !MUTANT(expire_without_counter)) {
        lease_result(a, l, 0);
        return ERR_OK;
    }
    if (l != NULL)
        drop(a, r->id);
    gone_result(a, r->id);
    return ERR_OK;
}

/* ---- queries ---- */

static void append_lease(struct state *s, const struct lease *l, bool keys, uint64_t now_ms,
                         struct msg_list *list)
{
    struct lease_state r;
    fill(s, l, now_ms, &r);
    r.keys = keys ? l->keys : 0;
    msg_list_append(list, &msg_lease_state, &r);
}

enum err state_leases(struct state *s, const struct lease_ref *r, uint64_t now_ms,
                      struct buf *ret_reply, struct errmsg *e)
{
    struct msg_list list = {0};
    struct buf leases = BUF_INIT;
    CHECK_MAGIC(s, STATE_MAGIC);
    (void)e; /* nothing can be wrong with it yet */
    const struct lease *one = r->id != 0 ? lease_find(&s->leases, r->id) : NULL;
    if (one != NULL) {
        append_lease(s, one, r->keys, now_ms, &list);
    } else if (r->id != 0) {
        struct lease_state gone = {.id = r->id, .gone = true, .revision = s->m.revision};
        msg_list_append(&list, &msg_lease_state, &gone);
    } else {
        for (size_t i = 0; i < s->leases.n; i++)
            append_lease(s, &s->leases.v[i], r->keys, now_ms, &list);
    }
    s->work += list.n * WORK_ROW;
    if (list.n != 0)
        msg_list_end(&list, &leases);
    struct lease_list reply = {.leases = buf_slice(&leases), .revision = s->m.revision};
    msg_encode(&msg_lease_list, &reply, ret_reply);
    buf_close(&leases);
    return ERR_OK;
}

void state_leases_restart(struct state *s, uint64_t now_ms)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    lease_table_restart(&s->leases, now_ms);
}

uint64_t state_next_expiry(const struct state *s)
{
    return lease_next_expiry(&s->leases);
}

size_t state_expired(const struct state *s, uint64_t now_ms, struct state_expired *ret,
                     size_t max)
{
    const struct lease_table *t = &s->leases;
    size_t n = 0;
    for (size_t i = 0; t->started && i < t->n && n < max; i++) {
        const struct lease *l = &t->v[i];
        if (l->expiry_ms <= now_ms)
            ret[n++] = (struct state_expired){
                .id = l->id, .nonce = l->nonce, .n = l->n, .keys = l->keys};
    }
    return n;
}
