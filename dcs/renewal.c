#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "dcs/dcs_private.h"

enum {
    PEM_MAX = 256 * 1024,
    /* a third of what pki_sign() gives: months to notice that it fails */
    BEFORE_S = 120 * 86400,
    LOOK_MS = 3600 * 1000,
    AGAIN_MS = 5 * 1000
};

/* A few hundred bytes, once in two thirds of a year: no worker for that. */
static enum err install(struct dcs *d, struct slice cert, struct errmsg *e)
{
    struct pki_identity id;
    enum err err = pki_identity_of_pem(cert, &id, e);
    if (err == ERR_OK &&
        (strcmp(id.cluster_id, d->id.cluster_id) != 0 || id.member_id != d->id.member_id)) {
        err = err_set(e, ERR_INVALID, "the new certificate is not this node's");
    }
    err = err == ERR_OK ? pki_use_certificate(d->server_ctx, cert, e) : err;
    err = err == ERR_OK ? pki_use_certificate(d->client_ctx, cert, e) : err;
    return err == ERR_OK ? pki_write_file(d->cert_file, cert, 0644, true, e) : err;
}

static void report(struct dcs *d, enum err err, const char *text)
{
    d->renewal_ms = clock_boot_ms() + (err == ERR_OK ? LOOK_MS : AGAIN_MS);
    if (err == ERR_OK) {
        log_event(LOG_INFO, "certificate_renewed", NO_KV,
                  "in force from the next connection on");
    } else if (err != ERR_UNAVAILABLE) {
        d->renewal_ms = clock_boot_ms() + LOOK_MS;
        log_event(LOG_WARN, "certificate_renewal_failed", NO_KV, "%s", text);
    }
}

void renewal_answer(struct dcs *d, enum err status, const char *text, struct slice result)
{
    struct cert_reply reply;
    struct errmsg e = {.text = ""};
    if (status == ERR_OK) {
        status = msg_decode(&msg_cert_reply, result, &reply, &e);
        status = status == ERR_OK ? install(d, reply.cert, &e) : status;
        text = e.text;
    }
    report(d, status, text);
}

/* Of another voter, for a node that does not hold the CA's key. */
static void ask(struct dcs *d, struct slice csr)
{
    struct cert_req req = {.csr = csr};
    struct buf CLEANUP(buf_close) params = BUF_INIT;
    struct member *all = mem_array(MEMBERS_MAX, sizeof *all);
    size_t n = node_members(d->node, all, MEMBERS_MAX);
    bool asked = false;
    msg_encode(&msg_cert_req, &req, &params);
    for (size_t i = 0; i < n && !asked; i++) {
        asked = all[i].id != d->id.member_id && node_is_voter(d->node, all[i].id) &&
                peers_call(&d->peers, all[i].id, NUMBER_CERT_RENEW,
                           method_table[METHOD_CERT_RENEW].name, buf_slice(&params));
    }
    mem_free(all);
}

static enum err renew(struct dcs *d, struct errmsg *e)
{
    struct buf CLEANUP(buf_close) key = BUF_INIT, CLEANUP(buf_close) csr = BUF_INIT,
                                  CLEANUP(buf_close) cert = BUF_INIT;
    enum err err = pki_read_file(d->key_file, PEM_MAX, &key, e);
    err = err == ERR_OK ? pki_csr_of_key(d->name, buf_slice(&key), &csr, e) : err;
    OPENSSL_cleanse(key.p, key.len);
    if (err != ERR_OK) {
        return err;
    }
    if (d->ca_key.len == 0) {
        ask(d, buf_slice(&csr));
        return ERR_UNAVAILABLE; /* so far */
    }
    err = dcs_sign(d, &d->id, buf_slice(&csr), &cert, e);
    return err == ERR_OK ? install(d, buf_slice(&cert), e) : err;
}

void renewal_tick(struct dcs *d)
{
    struct buf CLEANUP(buf_close) cert = BUF_INIT;
    struct errmsg e = {.text = ""};
    int64_t left_s = 0;
    if (clock_boot_ms() < d->renewal_ms) {
        return;
    }
    enum err err = pki_read_file(d->cert_file, PEM_MAX, &cert, &e);
    err = err == ERR_OK ? pki_seconds_left(buf_slice(&cert), &left_s, &e) : err;
    if (err == ERR_OK && left_s > BEFORE_S) {
        d->renewal_ms = clock_boot_ms() + LOOK_MS;
        return;
    }
    err = err == ERR_OK ? renew(d, &e) : err;
    report(d, err, e.text);
}
