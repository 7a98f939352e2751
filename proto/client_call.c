/* Calls of the asynchronous client. A call is on exactly one list: to be sent (writes, queued), sent,
 * waiting for another try, or done. Callbacks run from the loop with the call already off its list,
 * so they may do anything, client_close() included. */
#include <stdio.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "proto/client_impl.h"
#include "proto/mp.h"

/* ---- lists ---- */

static void list_remove(struct client_call *call)
{
    struct call_list *l = call->list;
    *(call->prev != NULL ? &call->prev->next : &l->first) = call->next;
    *(call->next != NULL ? &call->next->prev : &l->last) = call->prev;
    call->list = NULL;
}

/* Behind `after`; NULL: at the front. */
static void list_insert(struct call_list *l, struct client_call *after,
                        struct client_call *call)
{
    if (call->list != NULL)
        list_remove(call);
    call->list = l;
    call->prev = after;
    call->next = after != NULL ? after->next : l->first;
    *(call->prev != NULL ? &call->prev->next : &l->first) = call;
    *(call->next != NULL ? &call->next->prev : &l->last) = call;
}

static void list_append(struct call_list *l, struct client_call *call)
{
    list_insert(l, l->last, call);
}

static struct call_list *queue_of(struct client *c, const struct client_call *call)
{
    return call->add_session ? &c->writes : &c->queued;
}

/* ---- slots: requests in flight, found by msgid ---- */

bool client_take_slot(struct client *c, enum slot_kind kind, void *what, uint64_t *ret_msgid)
{
    if (c->slots_used == CLIENT_SLOTS)
        return false;
    while (c->slots[c->slot_hint].kind != SLOT_FREE)
        c->slot_hint = (c->slot_hint + 1) % CLIENT_SLOTS;
    size_t i = c->slot_hint;
    c->slot_hint = (i + 1) % CLIENT_SLOTS;
    c->slots_used++;
    /* 32 bits, as the MessagePack-RPC specification has it. */
    c->next_round = (c->next_round + 1) & 0xffffff;
    c->slots[i] =
        (struct slot){.kind = kind, .what = what, .msgid = c->next_round * CLIENT_SLOTS + i};
    *ret_msgid = c->slots[i].msgid;
    return true;
}

/* A late answer to a call that ended must find nothing, but its slot stays taken: the server still
 * counts it as in flight. */
static void forget_slot(struct client *c, const struct client_call *call)
{
    struct slot *s = &c->slots[call->msgid % CLIENT_SLOTS];
    if (s->kind == SLOT_CALL && s->what == call)
        *s = (struct slot){.kind = SLOT_IGNORE, .msgid = s->msgid};
}

static void free_window(struct client *c, struct client_call *call)
{
    /* Of a session before this one there is no entry any more. */
    if (call->window_slot >= 0 && c->window[call->window_slot] == call)
        c->window[call->window_slot] = NULL;
    call->window_slot = -1;
}

/* ---- ending ---- */

void client_run_done(struct client *c)
{
    struct client_call *call;
    while ((call = c->done.first) != NULL) {
        struct client_reply reply = {.status = call->error.code, .error = call->error};
        list_remove(call);
        call->cb(call->arg, &reply);
        mem_free(call);
    }
}

/* Its callback comes from the next client_run_done(). */
void client_finish(struct client *c, struct client_call *call, const struct errmsg *error)
{
    ASSERT(error->code != ERR_OK);
    if (call->list == &c->sent)
        forget_slot(c, call);
    free_window(c, call);
    call->error = *error;
    list_append(&c->done, call);
}

/* Gives up on a call with `code`, unless it may have been applied. */
static void give_up(struct client *c, struct client_call *call, enum err code, const char *what)
{
    struct errmsg e;
    bool in_doubt = call->doubt || (call->list == &c->sent && !call->reads);
    (void)err_set(&e, in_doubt ? ERR_OUTCOME_UNKNOWN : code, "%s: %s%s",
                  method_table[call->m].name, what,
                  in_doubt ? "; it may have been applied" : "");
    client_finish(c, call, &e);
}

static void expire(struct client *c, struct client_call *call)
{
    char what[400];
    if (call->list == &c->sent && c->last_why.code == ERR_OK)
        (void)snprintf(what, sizeof what, "no answer in time from %s", conn_peer_text(c->conn));
    else if (call->list == &c->sent)
        (void)snprintf(what, sizeof what, "no answer in time (before: %.300s)",
                       c->last_why.text);
    else
        (void)snprintf(what, sizeof what, "%.380s",
                       c->last_why.code != ERR_OK ? c->last_why.text : "not connected in time");
    give_up(c, call, call->list == &c->sent ? ERR_TIMEOUT : ERR_UNAVAILABLE, what);
}

/* ---- sending ---- */

/* The encoded params with the session, the seq and the time left put behind them. */
static struct slice final_params(struct client *c, const struct client_call *call,
                                 uint64_t now_ms)
{
    struct mp_reader r = {.rest = slice_of(call->params, call->n)};
    size_t n;
    if (!call->add_session && !call->add_deadline)
        return r.rest;
    enum err rc = mp_read_map(&r, &n);
    ASSERT(rc == ERR_OK);
    buf_clear(&c->scratch);
    mp_write_map(&c->scratch, n + (call->add_session ? 2 : 0) + (call->add_deadline ? 1 : 0));
    buf_append_slice(&c->scratch, r.rest);
    if (call->add_session) {
        mp_write_str(&c->scratch, slice_str("session"));
        mp_write_u64(&c->scratch, call->session);
        mp_write_str(&c->scratch, slice_str("seq"));
        mp_write_u64(&c->scratch, call->seq);
    }
    if (call->add_deadline) {
        mp_write_str(&c->scratch, slice_str("deadline_ms"));
        mp_write_u64(&c->scratch, MAX(call->deadline_at_ms, now_ms + 1) - now_ms);
    }
    return buf_slice(&c->scratch);
}

static void send_call(struct client *c, struct client_call *call, uint64_t now_ms)
{
    bool taken = client_take_slot(c, SLOT_CALL, call, &call->msgid);
    ASSERT(taken);
    call->sent_at_ms = now_ms;
    list_append(&c->sent, call);
    conn_request(c->conn, call->msgid, method_table[call->m].name,
                 final_params(c, call, now_ms));
    if (call->resend != RESEND_NEVER && c->n_endpoints > 0)
        client_wake_by(c, now_ms + call->patience_ms);
}

/* A place in the window and a seq, for a write that is sent for the first time. */
static bool number(struct client *c, struct client_call *call)
{
    uint64_t oldest = c->next_seq;
    int at = -1;
    for (int i = 0; i < CLIENT_WINDOW; i++) {
        if (c->window[i] == NULL)
            at = i;
        else
            oldest = MIN(oldest, c->window[i]->seq);
    }
    if (at < 0 || c->next_seq - oldest >= CLIENT_SPAN)
        return false;
    call->window_slot = at;
    call->session = c->session;
    call->seq = c->next_seq++;
    c->window[at] = call;
    return true;
}

void client_pump(struct client *c)
{
    if (!c->connected || c->closing || !conn_is_open(c->conn))
        return;
    uint64_t now_ms = clock_boot_ms();
    struct client_call *call;
    while ((call = c->queued.first) != NULL && c->slots_used < CLIENT_SLOTS)
        send_call(c, call, now_ms);
    while ((call = c->writes.first) != NULL && c->slots_used < CLIENT_SLOTS) {
        if (call->session == 0 && c->session_state != SESSION_OPEN) {
            client_session_need(c);
            break;
        }
        if (call->session == 0 && !number(c, call))
            break;
        send_call(c, call, now_ms);
    }
}

/* ---- answers ---- */

uint64_t client_backoff_ms(struct client *c, unsigned attempts)
{
    uint64_t top = MIN((uint64_t)CLIENT_BACKOFF_MIN_MS << MIN(attempts, 10U),
                       (uint64_t)CLIENT_BACKOFF_MAX_MS);
    return top / 2 + rng_below(&c->rng, top / 2 + 1);
}

static void try_later(struct client *c, struct client_call *call, const struct errmsg *error)
{
    c->last_why = *error;
    call->not_before_ms = clock_boot_ms() + client_backoff_ms(c, call->attempts++);
    list_append(&c->waiting, call);
    client_wake_by(c, call->not_before_ms);
}

static bool session_unknown(const struct client_call *call, const struct errmsg *error)
{
    return call->add_session && error_of_session(error->code, error->text);
}

/* Speaks of one sending alone, and the next one may fare better. */
static bool passes(enum err code)
{
    return err_retryable(code) || code == ERR_OUTCOME_UNKNOWN || code == ERR_CANCELLED ||
           code == ERR_NO_SPACE;
}

/* No answer to a write of a session that is, or may be, in the log: as the store applies it once, it is sent
 * again until it has its result, or its deadline has passed. */
static void refused_in_doubt(struct client *c, struct client_call *call,
                             const struct errmsg *error)
{
    if (session_unknown(call, error)) {
        client_session_lost(c, call->session);
        give_up(c, call, ERR_OUTCOME_UNKNOWN, error->text);
    } else if (error_is_result(error->code, error->text)) {
        client_finish(c, call, error);
    } else if (passes(error->code)) {
        call->doubt = true;
        try_later(c, call, error);
    } else {
        give_up(c, call, ERR_OUTCOME_UNKNOWN, error->text);
    }
}

/* The answer of the server; the call is on `sent` and its slot is free again. */
void client_answered(struct client *c, struct client_call *call, const struct errmsg *error,
                     struct slice result)
{
    if (error->code == ERR_OK) {
        struct client_reply reply = {.status = ERR_OK, .result = result};
        c->last_why.code = ERR_OK;
        free_window(c, call);
        list_remove(call);
        call->cb(call->arg, &reply);
        mem_free(call);
    } else if (error->code == ERR_UNAVAILABLE) {
        try_later(c, call, error);
    } else if (session_unknown(call, error) && !call->doubt) {
        client_session_lost(c, call->session);
        free_window(c, call);
        call->session = 0;
        if (call->attempts++ == 0)
            list_insert(&c->writes, NULL, call);
        else
            try_later(c, call, error);
    } else if (call->resend == RESEND_SESSION &&
               (call->doubt || error->code == ERR_OUTCOME_UNKNOWN)) {
        refused_in_doubt(c, call, error);
    } else {
        client_finish(c, call, error);
    }
    client_run_done(c);
    client_pump(c);
}

/* The connection is gone: what was sent is sent again, in its order, or ends in doubt. */
void client_calls_lost(struct client *c)
{
    struct client_call *call;
    memset(c->slots, 0, sizeof c->slots);
    c->slots_used = 0;
    while ((call = c->sent.last) != NULL) {
        if (call->resend == RESEND_NEVER) {
            give_up(c, call, ERR_OUTCOME_UNKNOWN, "the connection broke before the answer");
            continue;
        }
        call->doubt = !call->reads;
        list_insert(queue_of(c, call), NULL, call);
    }
}

/* No session to be had: ends the writes that wait for one. */
void client_fail_writes(struct client *c, const struct errmsg *why)
{
    for (struct client_call *call = c->writes.first, *next; call != NULL; call = next) {
        next = call->next;
        if (call->session == 0)
            client_finish(c, call, why);
    }
}

/* ---- time ---- */

void client_wake_by(struct client *c, uint64_t at_ms)
{
    if (at_ms >= c->wake_at_ms || c->closing)
        return;
    uint64_t now_ms = clock_boot_ms();
    c->wake_at_ms = at_ms;
    (void)uv_timer_start(&c->wake, client_on_wake, at_ms > now_ms ? at_ms - now_ms : 0, 0);
}

static void tick_list(struct client *c, struct call_list *l, uint64_t now_ms)
{
    for (struct client_call *call = l->first, *next; call != NULL; call = next) {
        next = call->next;
        if (call->deadline_at_ms <= now_ms)
            expire(c, call);
        else if (l == &c->waiting && call->not_before_ms <= now_ms)
            list_insert(queue_of(c, call), NULL, call);
        else
            client_wake_by(c, l == &c->waiting ? MIN(call->not_before_ms, call->deadline_at_ms)
                                               : call->deadline_at_ms);
    }
}

/* A server that is silent with a request in hand may hang: another one shall be asked, early enough
 * for its answer. */
static bool is_silent(struct client *c, uint64_t now_ms)
{
    if (!c->connected || c->n_endpoints == 0)
        return false;
    uint64_t heard_ms = conn_last_read_ms(c->conn);
    for (const struct client_call *call = c->sent.first; call != NULL; call = call->next) {
        if (call->resend == RESEND_NEVER)
            return false;
        uint64_t since_ms = MAX(heard_ms, call->sent_at_ms);
        if (now_ms >= since_ms + call->patience_ms)
            return true;
        client_wake_by(c, since_ms + call->patience_ms);
    }
    return false;
}

void client_on_wake(uv_timer_t *t)
{
    struct client *c = t->data;
    CHECK_MAGIC(c, CLIENT_MAGIC);
    uint64_t now_ms = clock_boot_ms();
    c->wake_at_ms = UINT64_MAX;
    struct call_list *const lists[] = {&c->writes, &c->queued, &c->sent, &c->waiting};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        tick_list(c, lists[i], now_ms);
    if (is_silent(c, now_ms))
        conn_close(c->conn);
    client_net_tick(c, now_ms);
    client_watches_pump(c, now_ms);
    client_run_done(c);
    client_pump(c);
}

/* ---- from outside ---- */

void client_enqueue(struct client *c, struct client_call *call)
{
    client_wake_by(c, call->deadline_at_ms);
    list_append(queue_of(c, call), call);
    client_pump(c);
}

void client_cancel_calls(struct client *c)
{
    struct call_list *const lists[] = {&c->writes, &c->queued, &c->sent, &c->waiting};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        while (lists[i]->first != NULL)
            give_up(c, lists[i]->first, ERR_CANCELLED, "the client was closed");
    client_run_done(c);
}
