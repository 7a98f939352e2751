/* Reading an entry and running its commands, one by one, each with its own outcome.
 *
 * Two kinds of "no". A logical one (unknown lease, failed check) is a result: the same on every
 * member, sent to the caller, kept under its session. A damaged entry, or one with a command that
 * this program does not know (a newer leader), ends the process: skipping it would make this member
 * differ in silence. */
#include <stdio.h>

#include "dcs/state_internal.h"
#include "proto/mp.h"

static const struct mp_limits entry_limits = {
    .bytes = 16 * 1024 * 1024, .depth = MP_DEPTH_MAX, .elements = 4 * 1024 * 1024};

/* Room for the decoded parameters of any command. */
union request {
    struct session_open session_open;
    struct put_req put;
    struct delete_req delete;
    struct txn_req txn;
    struct lease_grant grant;
    struct lease_renew renew;
    struct lease_revoke revoke;
    struct token_info token;
    struct token_ref token_ref;
    struct token_redeem redeem;
    struct cert_issue cert_issue;
    struct cert_ref cert_ref;
    struct member member;
    struct compact_req compact;
    struct empty empty;
};

enum { NO_SESSION = -1 };

struct command {
    const struct msg *msg;
    enum err (*run)(struct apply *a, const void *req);
    ptrdiff_t session; /* offsets of the two fields, or NO_SESSION */
    ptrdiff_t seq;
};

#define PLAIN(m, fn)                                                           \
    {                                                                          \
        .msg = &msg_##m, .run = (fn), .session = NO_SESSION, .seq = NO_SESSION \
    }
#define ONCE(m, fn)                                                                      \
    {                                                                                    \
        .msg = &msg_##m, .run = (fn), .session = (ptrdiff_t)offsetof(struct m, session), \
        .seq = (ptrdiff_t)offsetof(struct m, seq)                                        \
    }

static const struct command commands[] = {
    [STATE_CMD_SESSION_OPEN] = PLAIN(session_open, cmd_session_open),
    [STATE_CMD_PUT] = ONCE(put_req, cmd_put),
    [STATE_CMD_DELETE] = ONCE(delete_req, cmd_delete),
    [STATE_CMD_TXN] = ONCE(txn_req, cmd_txn),
    [STATE_CMD_LEASE_GRANT] = ONCE(lease_grant, cmd_lease_grant),
    [STATE_CMD_LEASE_RENEW] = PLAIN(lease_renew, cmd_lease_renew),
    [STATE_CMD_LEASE_REVOKE] = ONCE(lease_revoke, cmd_lease_revoke),
    [STATE_CMD_LEASE_EXPIRE] = PLAIN(lease_renew, cmd_lease_expire),
    [STATE_CMD_TOKEN_CREATE] = PLAIN(token_info, cmd_token_create),
    [STATE_CMD_TOKEN_REVOKE] = PLAIN(token_ref, cmd_token_revoke),
    [STATE_CMD_TOKEN_REDEEM] = PLAIN(token_redeem, cmd_token_redeem),
    [STATE_CMD_MEMBER_STATE] = PLAIN(member, cmd_member_state),
    [STATE_CMD_COMPACT] = PLAIN(compact_req, cmd_compact),
    [STATE_CMD_MEMBER_INIT] = PLAIN(member, cmd_member_init),
    [STATE_CMD_MEMBER_ROLE] = PLAIN(member, cmd_member_role),
    [STATE_CMD_HASH] = PLAIN(empty, cmd_hash),
    [STATE_CMD_CERT_ISSUE] = PLAIN(cert_issue, cmd_cert_issue),
    [STATE_CMD_CERT_REVOKE] = PLAIN(cert_ref, cmd_cert_revoke),
    [STATE_CMD_VERSION] = PLAIN(version_mark, cmd_version),
};

/* ---- what commands use ---- */

uint64_t apply_revision(struct apply *a)
{
    if (a->revision == 0)
        a->revision = a->s->m.revision + 1;
    return a->revision;
}

uint64_t apply_revision_now(const struct apply *a)
{
    return a->revision != 0 ? a->revision : a->s->m.revision;
}

uint64_t apply_new_id(const struct apply *a)
{
    ASSERT(a->i <= UINT16_MAX && a->index < (uint64_t)1 << 47);
    return a->index << 16 | a->i;
}

void apply_result(struct apply *a, const struct msg *m, const void *result)
{
    msg_encode(m, result, &a->s->result);
}

/* ---- one command ---- */

static uint64_t u64_at(const union request *r, ptrdiff_t offset)
{
    uint64_t v;
    memcpy(&v, (const uint8_t *)r + offset, sizeof v);
    return v;
}

/* Through the session: runs what is new, answers again what was answered. */
static enum err run_once(struct apply *a, const struct command *c, const union request *r)
{
    if (c->session == NO_SESSION)
        return c->run(a, r);
    uint64_t session = u64_at(r, c->session);
    uint64_t seq = u64_at(r, c->seq);
    if (session == 0)
        return c->run(a, r);
    enum err status;
    enum err rc = session_enter(a, session, seq, &status);
    if (rc == ERR_OK)
        return status;
    if (rc != ERR_NOT_FOUND)
        return rc;
    status = c->run(a, r);
    session_keep(a, session, seq, status);
    return status;
}

static void finish_revision(struct apply *a)
{
    struct state *s = a->s;
    if (a->revision == 0)
        return;
    ASSERT(a->revision == s->m.revision + 1);
    s->m.revision = a->revision;
    history_trim(s);
    if (a->ops != NULL && a->ops->revision_done != NULL)
        a->ops->revision_done(a->arg, a->revision);
}

/* Damage alone is an error here. */
static enum err run_command(struct apply *a, uint64_t kind, struct slice params,
                            struct errmsg *e)
{
    union request r;
    if (kind >= ARRAY_LEN(commands) || commands[kind].run == NULL)
        return err_set(e, ERR_INVALID, "command %llu is unknown: written by a newer program",
                       (unsigned long long)kind);
    const struct command *c = &commands[kind];
    ASSERT(c->msg->size <= sizeof r);
    enum err rc = msg_decode(c->msg, params, &r, e);
    if (rc != ERR_OK)
        return rc;
    buf_clear(&a->s->result);
    buf_clear(&a->s->brief);
    enum err status = run_once(a, c, &r);
    ASSERT(status == ERR_OK || a->revision == 0); /* refused means nothing changed */
    finish_revision(a);
    if (a->ops != NULL && a->ops->result != NULL)
        a->ops->result(a->arg, a->index, a->i, status, status == ERR_OK ? NULL : a->error.text,
                       status == ERR_OK ? buf_slice(&a->s->result) : (struct slice){0});
    return ERR_OK;
}

/* ---- the entry ---- */

static enum err read_header(struct mp_reader *r, uint64_t *ret_wall_ms, size_t *ret_n,
                            struct errmsg *e)
{
    uint64_t version;
    size_t n, whole;
    enum err rc = mp_scan(r->rest, &entry_limits, &whole);
    if (rc != ERR_OK || whole != r->rest.n)
        return err_set(e, ERR_INVALID, "not one whole MessagePack value");
    if (mp_read_array(r, &n) != ERR_OK || n != 3 || mp_read_u64(r, &version) != ERR_OK)
        return err_set(e, ERR_INVALID, "no entry header");
    if (version < STATE_FIRST_VERSION || version > PROTO_VERSION)
        return err_set(e, ERR_INVALID, "version %llu is unknown: written by a newer program",
                       (unsigned long long)version);
    if (mp_read_u64(r, ret_wall_ms) != ERR_OK || mp_read_array(r, ret_n) != ERR_OK)
        return err_set(e, ERR_INVALID, "no list of commands");
    if (*ret_n > UINT16_MAX)
        return err_set(e, ERR_INVALID, "too many commands");
    return ERR_OK;
}

static enum err read_command(struct mp_reader *r, uint64_t *ret_kind, struct slice *ret_params,
                             struct errmsg *e)
{
    size_t n;
    if (mp_read_array(r, &n) != ERR_OK || n != 2 || mp_read_u64(r, ret_kind) != ERR_OK ||
        mp_read_raw(r, ret_params) != ERR_OK)
        return err_set(e, ERR_INVALID, "a command is not [kind, map]");
    return ERR_OK;
}

enum err state_apply_entry(struct state *s, uint64_t index, struct slice entry, uint64_t now_ms,
                           const struct state_ops *ops, void *arg, struct errmsg *e)
{
    struct mp_reader r = {.rest = entry};
    uint64_t wall_ms = 0;
    size_t n = 0;
    enum err rc = read_header(&r, &wall_ms, &n, e);
    for (size_t i = 0; rc == ERR_OK && i < n; i++) {
        struct apply a = {.s = s,
                          .index = index,
                          .i = i,
                          .wall_ms = wall_ms,
                          .now_ms = now_ms,
                          .ops = ops,
                          .arg = arg};
        uint64_t kind = 0;
        struct slice params = {0};
        rc = read_command(&r, &kind, &params, e);
        if (rc == ERR_OK)
            rc = run_command(&a, kind, params, e);
    }
    return rc;
}

void state_apply(struct state *s, uint64_t index, struct slice entry, uint64_t now_ms,
                 const struct state_ops *ops, void *arg)
{
    struct errmsg e;
    CHECK_MAGIC(s, STATE_MAGIC);
    if (index <= s->m.applied)
        return;
    if (!s->leases.started)
        lease_table_restart(&s->leases, now_ms);
    if (state_apply_entry(s, index, entry, now_ms, ops, arg, &e) != ERR_OK) {
        char text[700];
        (void)snprintf(
            text, sizeof text,
            "%s: log entry %llu cannot be applied: %s; if this program is older than "
            "the leader's, upgrade it, else replace this node",
            s->path, (unsigned long long)index, e.text);
        state_fatal_text(text);
    }
    s->m.applied = index;
}
