/* Joining, on the leader: the token that is made, the certificate that is given for one; and certificates of
 * clients. The log and the state see a token's id and the SHA-256 of its secret, never the secret, and no
 * request for a certificate. */
#include <stdio.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "dcs/access.h"
#include "dcs/node_private.h"
#include "proto/pki.h"

enum { TOKEN_TTL_MS = 3600 * 1000 };

bool token_handles(unsigned method)
{
    return method == METHOD_TOKEN_CREATE || method == METHOD_TOKEN_REDEEM ||
           method == METHOD_CERT_ISSUE;
}

static enum err prepare_create(struct node *n, struct request *r, struct errmsg *e)
{
    struct token_create c;
    struct pki_token t;
    char fingerprint[PKI_FINGERPRINT_LEN + 1], text[PKI_TOKEN_MAX];
    if (n->o.authority.ca_cert.n == 0) {
        return err_set(e, ERR_UNAVAILABLE, "this node has no CA certificate");
    }
    enum err err = msg_decode(&msg_token_create, slice_of(r->params, r->n), &c, e);
    err = err == ERR_OK ? pki_fingerprint(n->o.authority.ca_cert, fingerprint, e) : err;
    if (err != ERR_OK) {
        return err;
    }
    pki_token_new(fingerprint, &t);
    pki_token_text(&t, text);
    struct token_info info = {
        .uses_left = c.uses != 0 ? c.uses : 1,
        .expires_ms = n->ops->wall_ms(n->arg) + (c.ttl_ms != 0 ? c.ttl_ms : TOKEN_TTL_MS),
    };
    memcpy(info.id, t.id, sizeof t.id);
    pki_token_hash(&t, info.token);
    (void)snprintf(info.role, sizeof info.role, "%s", c.role[0] != '\0' ? c.role : "voter");
    mem_free(r->extra);
    r->extra = mem_strdup(text);
    msg_encode(&msg_token_info, &info, &r->command);
    return ERR_OK;
}

static enum err sign(const struct node *n, const struct token_redeem *t, uint64_t id,
                     struct buf *ret_cert, struct errmsg *e)
{
    struct pki_identity who = {.member_id = id, .kind = "node"};
    char host[128];
    uint16_t port;
    const char *hosts[1] = {host};
    memcpy(who.cluster_id, n->cluster_id, sizeof n->cluster_id);
    memcpy(who.name, t->name, sizeof who.name);
    if (str_host_port(t->address, host, sizeof host, &port) != ERR_OK) {
        return err_set(e, ERR_INVALID, "the node's address must be host:port, not \"%s\"",
                       t->address);
    }
    const struct node_authority *a = &n->o.authority;
    return pki_sign(a->ca_cert, a->ca_key, t->csr, &who, hosts, 1, ret_cert, e);
}

static enum err need_ca_key(const struct node *n, struct errmsg *e)
{
    return n->o.authority.ca_key.n > 0
               ? ERR_OK
               : err_set(e, ERR_UNAVAILABLE,
                         "%s leads, but has not fetched the CA's key yet; try again", n->name);
}

static enum err prepare_redeem(struct node *n, struct request *r, struct errmsg *e)
{
    struct token_redeem t;
    struct pki_token token;
    struct buf CLEANUP(buf_close) trial = BUF_INIT;
    char hash[65], key_hash[PKI_FINGERPRINT_LEN + 1];
    enum err err = need_ca_key(n, e);
    err = err == ERR_OK ? msg_decode(&msg_token_redeem, slice_of(r->params, r->n), &t, e) : err;
    err = err == ERR_OK ? pki_token_parse(t.token, &token, e) : err;
    if (err != ERR_OK) {
        return err;
    }
    /* Strangers may ask: nothing that costs time is done for who has no token. */
    pki_token_hash(&token, hash);
    err = state_token_check(n->state, token.id, hash, n->ops->wall_ms(n->arg), e);
    /* A request that cannot be signed must not cost a use of the token. */
    err = err == ERR_OK ? sign(n, &t, 0, &trial, e) : err;
    err = err == ERR_OK ? pki_csr_key_hash(t.csr, key_hash, e) : err;
    if (err != ERR_OK) {
        return err;
    }
    (void)snprintf(t.token, sizeof t.token, "%s:%s", token.id, hash);
    t.csr = slice_str(key_hash);
    msg_encode(&msg_token_redeem, &t, &r->command);
    return ERR_OK;
}

static enum err sign_client(const struct node *n, const struct cert_issue *c, uint64_t serial,
                            struct buf *ret_cert, struct errmsg *e)
{
    const struct node_authority *a = &n->o.authority;
    struct pki_identity who = {.serial = serial};
    memcpy(who.cluster_id, n->cluster_id, sizeof n->cluster_id);
    memcpy(who.name, c->name, sizeof who.name);
    memcpy(who.kind, c->role, sizeof who.kind);
    return pki_sign(a->ca_cert, a->ca_key, c->csr, &who, NULL, 0, ret_cert, e);
}

static enum err prepare_issue(struct node *n, struct request *r, struct errmsg *e)
{
    struct cert_issue c;
    struct buf CLEANUP(buf_close) trial = BUF_INIT;
    enum err err = need_ca_key(n, e);
    err = err == ERR_OK ? msg_decode(&msg_cert_issue, slice_of(r->params, r->n), &c, e) : err;
    if (err == ERR_OK && (access_of_role(c.role) == ACCESS_NONE || c.name[0] == '\0')) {
        err =
            err_set(e, ERR_INVALID, "a name is needed, and a role: viewer, operator or admin");
    }
    err = err == ERR_OK ? sign_client(n, &c, 0, &trial, e) : err;
    if (err == ERR_OK) {
        c.csr = slice_of(NULL, 0);
        msg_encode(&msg_cert_issue, &c, &r->command);
    }
    return err;
}

static enum err prepare(struct node *n, struct request *r, struct errmsg *e)
{
    return r->method == METHOD_TOKEN_CREATE   ? prepare_create(n, r, e)
           : r->method == METHOD_TOKEN_REDEEM ? prepare_redeem(n, r, e)
                                              : prepare_issue(n, r, e);
}

bool token_prepare(struct node *n, struct request *r)
{
    struct errmsg e = {.text = ""};
    buf_clear(&r->command);
    /* A token that the leader before this one made may not be applied here yet. */
    if (raft_core_applied_index(n->raft) < raft_core_term_start(n->raft)) {
        request_wait(n, r, NODE_RETRY_MS);
        return false;
    }
    enum err err = prepare(n, r, &e);
    if (err != ERR_OK) {
        request_fail(n, r, err, e.text);
    }
    return err == ERR_OK;
}

static enum err finish_create(const struct request *r, struct slice result,
                              struct buf *ret_result, struct errmsg *e)
{
    struct token_info info;
    enum err err = msg_decode(&msg_token_info, result, &info, e);
    ASSERT(err == ERR_OK && r->extra != NULL);
    err = str_copy(info.token, sizeof info.token, r->extra);
    msg_encode(&msg_token_info, &info, ret_result);
    return err;
}

static enum err finish_redeem(struct node *n, const struct request *r, struct slice result,
                              struct buf *ret_result, struct errmsg *e)
{
    struct token_redeem t;
    struct token_grant *g = mem_alloc(sizeof *g);
    struct buf CLEANUP(buf_close) cert = BUF_INIT;
    enum err err = msg_decode(&msg_token_redeem, slice_of(r->params, r->n), &t, e);
    err = err == ERR_OK ? msg_decode(&msg_token_grant, result, g, e) : err;
    err = err == ERR_OK ? sign(n, &t, g->member_id, &cert, e) : err;
    if (err == ERR_OK) {
        memcpy(g->scope, n->scope, sizeof g->scope);
        g->cert = buf_slice(&cert);
        g->ca = n->o.authority.ca_cert;
        g->secrets = n->o.authority.secrets;
        msg_encode(&msg_token_grant, g, ret_result);
        log_event(LOG_INFO, "member_registered",
                  KV(KV_STR("member", t.name), KV_U64("id", g->member_id)),
                  "joined by a token; it takes part once it has been started");
    }
    mem_free(g);
    return err;
}

static enum err finish_issue(struct node *n, const struct request *r, struct slice result,
                             struct buf *ret_result, struct errmsg *e)
{
    struct cert_issue c;
    struct cert_info info;
    struct buf CLEANUP(buf_close) cert = BUF_INIT;
    enum err err = msg_decode(&msg_cert_issue, slice_of(r->params, r->n), &c, e);
    err = err == ERR_OK ? msg_decode(&msg_cert_info, result, &info, e) : err;
    err = err == ERR_OK ? sign_client(n, &c, info.serial, &cert, e) : err;
    if (err == ERR_OK) {
        struct cert_reply reply = {.cert = buf_slice(&cert), .serial = info.serial};
        msg_encode(&msg_cert_reply, &reply, ret_result);
        log_event(
            LOG_INFO, "certificate_issued",
            KV(KV_STR("name", c.name), KV_STR("role", c.role), KV_U64("serial", info.serial)),
            "for a client");
    }
    return err;
}

enum err token_finish(struct node *n, const struct request *r, struct slice result,
                      struct buf *ret_result, struct errmsg *e)
{
    return r->method == METHOD_TOKEN_CREATE   ? finish_create(r, result, ret_result, e)
           : r->method == METHOD_TOKEN_REDEEM ? finish_redeem(n, r, result, ret_result, e)
                                              : finish_issue(n, r, result, ret_result, e);
}
