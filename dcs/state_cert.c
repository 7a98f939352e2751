/* Certificates of clients: those that were issued, and names whose certificates are refused. Each issued one
 * has a serial number from the log, so that a name that was revoked may be given to a new certificate, which
 * has a higher number; whose number is not from the log (made elsewhere with the CA's key) falls under any
 * revocation of its name. A list of issued ones ends with their dates, one of revoked names does not: a
 * date that is not known here cannot end it. */
#include "base/mutant.h"
#include "base/str.h"
#include "dcs/state_internal.h"
#include "proto/pki.h"

#define DAY_MS ((uint64_t)24 * 3600 * 1000)

/* The number up to which those of the name are refused; 0: none. */
static uint64_t revoked_to(struct state *s, const char *name)
{
    sql_bind_text(s, SQL_REVOKED_GET, 1, name);
    if (!sql_row(s, SQL_REVOKED_GET))
        return 0;
    uint64_t serial = sql_u64(s, SQL_REVOKED_GET, 0);
    sql_done(s, SQL_REVOKED_GET);
    return serial;
}

/* A number that the log has not come to is of no certificate from here, as far as is known here. */
bool state_cert_revoked(struct state *s, const char *name, uint64_t serial)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    uint64_t revoked = revoked_to(s, name);
    bool later = serial > revoked && serial >> 16 <= s->m.applied;
    return revoked != 0 && !later && !MUTANT(revoked_let_in);
}

uint64_t state_revocations(const struct state *s)
{
    CHECK_MAGIC(s, STATE_MAGIC);
    return s->revocations;
}

static void read_cert(struct state *s, struct msg_list *to)
{
    struct cert_info c = {.serial = sql_u64(s, SQL_CERT_ALL, 0),
                          .issued_ms = sql_u64(s, SQL_CERT_ALL, 3),
                          .expires_ms = sql_u64(s, SQL_CERT_ALL, 4)};
    str_cut(c.name, sizeof c.name, sql_text(s, SQL_CERT_ALL, 1));
    str_cut(c.role, sizeof c.role, sql_text(s, SQL_CERT_ALL, 2));
    msg_list_append(to, &msg_cert_info, &c);
}

static void read_revoked(struct state *s, struct msg_list *to)
{
    struct cert_revoked r = {.serial = sql_u64(s, SQL_REVOKED_ALL, 1),
                             .at_ms = sql_u64(s, SQL_REVOKED_ALL, 2)};
    str_cut(r.name, sizeof r.name, sql_text(s, SQL_REVOKED_ALL, 0));
    msg_list_append(to, &msg_cert_revoked, &r);
}

void state_certs(struct state *s, struct buf *ret_reply)
{
    struct msg_list certs = {0}, revoked = {0};
    struct buf CLEANUP(buf_close) some = BUF_INIT, others = BUF_INIT;
    CHECK_MAGIC(s, STATE_MAGIC);
    while (sql_row(s, SQL_CERT_ALL))
        read_cert(s, &certs);
    while (sql_row(s, SQL_REVOKED_ALL))
        read_revoked(s, &revoked);
    msg_list_end(&certs, &some);
    msg_list_end(&revoked, &others);
    struct cert_list list = {.certs = buf_slice(&some), .revoked = buf_slice(&others)};
    msg_encode(&msg_cert_list, &list, ret_reply);
}

/* ---- commands ---- */

static enum err check_issue(struct apply *a, const struct cert_issue *r)
{
    if (r->name[0] == '\0' || r->role[0] == '\0')
        return err_set(&a->error, ERR_INVALID, "a certificate needs a name and a role");
    /* Asked for before the revocation, or by a connection that was let in before it. */
    if (r->renews != 0 && state_cert_revoked(a->s, r->name, r->renews))
        return err_set(&a->error, ERR_DENIED, "the certificate of %s was revoked", r->name);
    return ERR_OK;
}

enum err cmd_cert_issue(struct apply *a, const void *req)
{
    const struct cert_issue *r = req;
    struct state *s = a->s;
    enum err rc = check_issue(a, r);
    if (rc != ERR_OK)
        return rc;
    sql_bind_u64(s, SQL_CERT_SWEEP, 1, a->wall_ms);
    sql_write(s, SQL_CERT_SWEEP);
    /* The new one stands for both in the list: a revocation, by name and number, reaches the old one all the same. */
    sql_bind_u64(s, SQL_CERT_RENEWED, 1, r->renews);
    sql_bind_text(s, SQL_CERT_RENEWED, 2, r->name);
    small_write(s, SQL_CERT_RENEWED);
    if (sql_one_u64(s, SQL_CERT_COUNT) >= STATE_CERTS_MAX)
        return err_set(&a->error, ERR_LIMIT,
                       "there are %d certificates of clients, the most; revoke some "
                       "(`regentctl cert list`)",
                       (int)STATE_CERTS_MAX);
    struct cert_info c = {.serial = apply_new_id(a),
                          .issued_ms = a->wall_ms,
                          .expires_ms = a->wall_ms + PKI_DAYS * DAY_MS};
    memcpy(c.name, r->name, sizeof c.name);
    memcpy(c.role, r->role, sizeof c.role);
    sql_bind_u64(s, SQL_CERT_INSERT, 1, c.serial);
    sql_bind_text(s, SQL_CERT_INSERT, 2, c.name);
    sql_bind_text(s, SQL_CERT_INSERT, 3, c.role);
    sql_bind_u64(s, SQL_CERT_INSERT, 4, c.issued_ms);
    sql_bind_u64(s, SQL_CERT_INSERT, 5, c.expires_ms);
    small_write(s, SQL_CERT_INSERT);
    apply_result(a, &msg_cert_info, &c);
    return ERR_OK;
}

static enum err check_revoke(struct apply *a, const struct cert_ref *r, uint64_t issued)
{
    if (r->name[0] == '\0')
        return err_set(&a->error, ERR_INVALID, "whose certificates? A name is needed");
    if (issued == 0 && !r->unlisted && revoked_to(a->s, r->name) == 0)
        return err_set(
            &a->error, ERR_NOT_FOUND,
            "no certificate of a client \"%s\" is listed; one that was made elsewhere "
            "is revoked with --unlisted, a node's with `regentctl member remove`",
            r->name);
    if (revoked_to(a->s, r->name) == 0 &&
        sql_one_u64(a->s, SQL_REVOKED_COUNT) >= STATE_REVOKED_MAX)
        return err_set(&a->error, ERR_LIMIT, "%d names are revoked, the most",
                       (int)STATE_REVOKED_MAX);
    return ERR_OK;
}

enum err cmd_cert_revoke(struct apply *a, const void *req)
{
    const struct cert_ref *r = req;
    struct state *s = a->s;
    struct cert_revoked result = {.serial = apply_new_id(a), .at_ms = a->wall_ms};
    sql_bind_text(s, SQL_CERT_COUNT_OF, 1, r->name);
    uint64_t issued = sql_one_u64(s, SQL_CERT_COUNT_OF);
    enum err rc = check_revoke(a, r, issued);
    if (rc != ERR_OK)
        return rc;
    memcpy(result.name, r->name, sizeof result.name);
    result.certs = issued;
    sql_bind_text(s, SQL_REVOKED_SET, 1, r->name);
    sql_bind_u64(s, SQL_REVOKED_SET, 2, result.serial);
    sql_bind_u64(s, SQL_REVOKED_SET, 3, result.at_ms);
    sql_write(s, SQL_REVOKED_SET);
    sql_bind_text(s, SQL_CERT_DELETE, 1, r->name);
    small_write(s, SQL_CERT_DELETE);
    s->revocations++;
    apply_result(a, &msg_cert_revoked, &result);
    return ERR_OK;
}
