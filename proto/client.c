/* The asynchronous client: its life, and how a call begins. */
#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "proto/client_impl.h"

/* ---- calling ---- */

static bool zero_u64(const struct field *f, const void *params)
{
    uint64_t v = 1;
    if (f != NULL)
        memcpy(&v, (const uint8_t *)params + f->offset, sizeof v);
    return v == 0;
}

static enum resend resend_of(const struct client *c, enum method m, bool has_session)
{
    if (has_session)
        return RESEND_SESSION;
    switch (method_table[m].kind) {
    case METHOD_KIND_READ:
    case METHOD_KIND_LOCAL:
        return RESEND_ALWAYS;
    case METHOD_KIND_WRITE: /* a renewal counts by its n, a session by its nonce */
        return m == METHOD_SESSION_OPEN || (m == METHOD_LEASE_RENEW && !c->no_session)
                   ? RESEND_ALWAYS
                   : RESEND_NEVER;
    case METHOD_KIND_OPEN:
        return m == METHOD_HELLO || m == METHOD_CERT_RENEW ? RESEND_ALWAYS : RESEND_NEVER;
    }
    UNREACHABLE();
}

static struct client_call *call_new(struct client *c, enum method m, const void *params,
                                    uint64_t deadline_ms)
{
    const struct shape *shape = &c->shapes[m];
    bool own_session = shape->session != NULL && !zero_u64(shape->session, params);
    buf_clear(&c->scratch);
    msg_encode(method_table[m].params, params, &c->scratch);
    struct client_call *call = mem_alloc(sizeof *call + c->scratch.len);
    call->m = m;
    call->add_session = !c->no_session && zero_u64(shape->session, params);
    call->add_deadline = zero_u64(shape->deadline, params);
    call->resend = resend_of(c, m, call->add_session || own_session);
    call->reads =
        method_table[m].kind == METHOD_KIND_READ || method_table[m].kind == METHOD_KIND_LOCAL;
    call->window_slot = -1;
    deadline_ms = deadline_ms != 0 ? deadline_ms : CLIENT_DEADLINE_MS;
    call->deadline_at_ms = clock_boot_ms() + deadline_ms;
    call->patience_ms = MAX(deadline_ms / 3, (uint64_t)CLIENT_SILENT_MIN_MS);
    call->n = c->scratch.len;
    memcpy(call->params, c->scratch.p, c->scratch.len);
    return call;
}

void client_call(struct client *c, enum method m, const void *params, uint64_t deadline_ms,
                 client_cb *cb, void *arg)
{
    CHECK_MAGIC(c, CLIENT_MAGIC);
    ASSERT(m < METHOD_COUNT && cb != NULL);
    struct client_call *call = call_new(c, m, params, deadline_ms);
    struct errmsg e;
    call->cb = cb;
    call->arg = arg;
    if (c->closing || call->n > CLIENT_PARAMS_MAX) {
        if (c->closing)
            (void)err_set(&e, ERR_CANCELLED, "the client is being closed");
        else
            (void)err_set(&e, ERR_LIMIT, "%s: %zu bytes are more than a message may have",
                          method_table[m].name, call->n);
        client_finish(c, call, &e);
        if (c->closing)
            client_run_done(c);
        client_wake_by(c, 0);
        return;
    }
    client_enqueue(c, call);
}

/* ---- life ---- */

static const struct field *find_field(const struct msg *m, const char *name)
{
    for (size_t i = 0; i < m->n_fields; i++)
        if (strcmp(m->fields[i].name, name) == 0)
            return &m->fields[i];
    return NULL;
}

enum err client_new(uv_loop_t *loop, const struct client_options *o, struct client **ret_client,
                    struct errmsg *e)
{
    struct client *c = mem_alloc(sizeof *c);
    uint64_t seed;
    c->magic = CLIENT_MAGIC;
    c->loop = loop;
    c->wake_at_ms = UINT64_MAX;
    rng_system(&seed, sizeof seed);
    rng_seed(&c->rng, seed);
    for (size_t i = 0; i < METHOD_COUNT; i++)
        c->shapes[i] =
            (struct shape){.session = find_field(method_table[i].params, "session"),
                           .seq = find_field(method_table[i].params, "seq"),
                           .deadline = find_field(method_table[i].params, "deadline_ms")};
    enum err rc = client_net_init(c, o, e);
    if (rc != ERR_OK) {
        client_net_free(c);
        mem_free(c);
        return rc;
    }
    (void)uv_timer_init(loop, &c->wake);
    (void)uv_timer_init(loop, &c->redial);
    c->wake.data = c;
    c->redial.data = c;
    c->handles = 2;
    client_dial_soon(c);
    *ret_client = c;
    return ERR_OK;
}

void client_on_state(struct client *c, client_state_cb *cb, void *arg)
{
    CHECK_MAGIC(c, CLIENT_MAGIC);
    c->state_cb = cb;
    c->state_arg = arg;
}

void client_maybe_closed(struct client *c)
{
    if (!c->closing || c->handles > 0 || c->conn != NULL)
        return;
    void (*closed)(void *) = c->closed;
    void *arg = c->closed_arg;
    client_net_free(c);
    buf_close(&c->scratch);
    c->magic = 0;
    mem_free(c);
    if (closed != NULL)
        closed(arg);
}

static void on_timer_closed(uv_handle_t *h)
{
    struct client *c = h->data;
    CHECK_MAGIC(c, CLIENT_MAGIC);
    c->handles--;
    client_maybe_closed(c);
}

void client_close(struct client *c, void (*closed)(void *arg), void *arg)
{
    CHECK_MAGIC(c, CLIENT_MAGIC);
    ASSERT(!c->closing);
    c->closing = true;
    c->closed = closed;
    c->closed_arg = arg;
    client_cancel_calls(c);
    client_watches_close(c);
    if (c->conn != NULL)
        conn_close(c->conn);
    uv_close((uv_handle_t *)&c->wake, on_timer_closed);
    uv_close((uv_handle_t *)&c->redial, on_timer_closed);
}
