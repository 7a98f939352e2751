/* TLS contexts. Peers are identified by CA and regent:// URI, not by DNS: no host name is checked. */
#include <openssl/ssl.h>

#include "base/mem.h"
#include "base/str.h"
#include "proto/ossl.h"
#include "proto/pki.h"

enum { PEM_MAX = 256 * 1024 };

static SSL_CTX *context_new(const SSL_METHOD *method)
{
    SSL_CTX *ctx = SSL_CTX_new(method);
    if (ctx == NULL)
        return NULL;
    /* A resumed session would skip the look at the certificate; connections are long-lived anyway. */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
    (void)SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    if (SSL_CTX_set_num_tickets(ctx, 0) == 1 &&
        SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1)
        return ctx;
    SSL_CTX_free(ctx);
    return NULL;
}

static enum err load_cert(const char *path, X509 **ret, struct errmsg *e)
{
    struct buf text CLEANUP(buf_close) = BUF_INIT;
    enum err rc = pki_read_file(path, PEM_MAX, &text, e);
    if (rc != ERR_OK)
        return rc;
    *ret = ossl_cert_of_pem(buf_slice(&text), path, e);
    return *ret != NULL ? ERR_OK : ERR_INVALID;
}

static enum err load_key(const char *path, EVP_PKEY **ret, struct errmsg *e)
{
    struct buf text CLEANUP(buf_close) = BUF_INIT;
    enum err rc = pki_read_file(path, PEM_MAX, &text, e);
    if (rc == ERR_OK) {
        *ret = ossl_key_of_pem(buf_slice(&text), path, e);
        rc = *ret != NULL ? ERR_OK : ERR_INVALID;
    }
    OPENSSL_cleanse(text.p, text.cap);
    return rc;
}

/* Our own certificate and key, checked against each other and against the CA, so that a mixed-up
 * file is named here and not as an alert from some peer. An expired one is loaded: it may still ask
 * for cert.renew. */
static enum err use_identity(SSL_CTX *ctx, X509 *ca, const char *ca_file, const char *cert_file,
                             const char *key_file, struct errmsg *e)
{
    X509 *cert CLEANUP(x509_cleanup) = NULL;
    EVP_PKEY *key CLEANUP(pkey_cleanup) = NULL;
    enum err rc = load_cert(cert_file, &cert, e);
    if (rc == ERR_OK)
        rc = load_key(key_file, &key, e);
    if (rc != ERR_OK)
        return rc;
    if (X509_check_private_key(cert, key) != 1)
        return ossl_error(
            e, ERR_INVALID,
            "key %s does not belong to certificate %s; put the pair of one request there",
            key_file, cert_file);
    if (X509_verify(cert, X509_get0_pubkey(ca)) != 1)
        return ossl_error(
            e, ERR_INVALID,
            "certificate %s is not signed by the CA in %s; put this cluster's CA there",
            cert_file, ca_file);
    if (SSL_CTX_use_certificate(ctx, cert) != 1 || SSL_CTX_use_PrivateKey(ctx, key) != 1)
        return ossl_error(e, ERR_INVALID, "cannot use certificate %s", cert_file);
    return ERR_OK;
}

static enum err trust(SSL_CTX *ctx, X509 *ca, const char *ca_file, struct errmsg *e)
{
    if (X509_check_ca(ca) == 0)
        return err_set(e, ERR_INVALID,
                       "%s is not a CA certificate; put this cluster's ca.pem there", ca_file);
    if (X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), ca) != 1)
        return ossl_error(e, ERR_INVALID, "cannot trust %s", ca_file);
    return ERR_OK;
}

/* A node whose certificate has just expired may connect to ask for a new one: the handshake lets
 * it pass, and conn hands it on as "no identity" (conn_peer_expired). Everything else stays refused. */
static int allow_expired(int ok, X509_STORE_CTX *store)
{
    if (ok == 1 || X509_STORE_CTX_get_error_depth(store) != 0 ||
        X509_STORE_CTX_get_error(store) != X509_V_ERR_CERT_HAS_EXPIRED)
        return ok;
    return 1; /* the error stays in the verify result, where conn looks */
}

enum err pki_server_context(const char *ca_file, const char *cert_file, const char *key_file,
                            SSL_CTX **ret_ctx, struct errmsg *e)
{
    SSL_CTX *ctx CLEANUP(ssl_ctx_cleanup) = context_new(TLS_server_method());
    X509 *ca CLEANUP(x509_cleanup) = NULL;
    if (ctx == NULL)
        return ossl_error(e, ERR_INTERNAL, "cannot make a TLS context");
    enum err rc = load_cert(ca_file, &ca, e);
    if (rc == ERR_OK)
        rc = trust(ctx, ca, ca_file, e);
    if (rc == ERR_OK)
        rc = use_identity(ctx, ca, ca_file, cert_file, key_file, e);
    if (rc != ERR_OK)
        return rc;
    /* The CA goes along, for a joining node, which knows only its fingerprint. */
    if (SSL_CTX_add1_chain_cert(ctx, ca) != 1 || SSL_CTX_add_client_CA(ctx, ca) != 1)
        return ossl_error(e, ERR_INTERNAL, "cannot send %s", ca_file);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, allow_expired);
    *ret_ctx = TAKE(ctx);
    return ERR_OK;
}

enum err pki_client_context(const char *ca_file, const char *cert_file, const char *key_file,
                            SSL_CTX **ret_ctx, struct errmsg *e)
{
    SSL_CTX *ctx CLEANUP(ssl_ctx_cleanup) = context_new(TLS_client_method());
    X509 *ca CLEANUP(x509_cleanup) = NULL;
    if (ctx == NULL)
        return ossl_error(e, ERR_INTERNAL, "cannot make a TLS context");
    enum err rc = load_cert(ca_file, &ca, e);
    if (rc == ERR_OK)
        rc = trust(ctx, ca, ca_file, e);
    if (rc == ERR_OK && cert_file != NULL && key_file != NULL)
        rc = use_identity(ctx, ca, ca_file, cert_file, key_file, e);
    if (rc != ERR_OK)
        return rc;
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    *ret_ctx = TAKE(ctx);
    return ERR_OK;
}

/* ---- joining: the CA is known by its fingerprint only ---- */

static bool has_fingerprint(X509 *cert, const char *want)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    char hex[2 * EVP_MAX_MD_SIZE + 1];
    unsigned n;
    if (X509_digest(cert, EVP_sha256(), digest, &n) != 1)
        return false;
    hex_encode(hex, digest, n);
    return strcmp(hex, want) == 0;
}

/* The usual verification, with the CA of that fingerprint as the only trusted one. */
static int verify_with(X509 *ca, X509_STORE_CTX *from)
{
    X509_STORE *store CLEANUP(x509_store_cleanup) = X509_STORE_new();
    X509_STORE_CTX *ctx CLEANUP(x509_store_ctx_cleanup) = X509_STORE_CTX_new();
    if (store == NULL || ctx == NULL || X509_STORE_add_cert(store, ca) != 1 ||
        X509_STORE_CTX_init(ctx, store, X509_STORE_CTX_get0_cert(from),
                            X509_STORE_CTX_get0_untrusted(from)) != 1 ||
        X509_STORE_CTX_set_purpose(ctx, X509_PURPOSE_SSL_SERVER) != 1)
        return 0;
    int ok = X509_verify_cert(ctx) == 1;
    X509_STORE_CTX_set_error(from, X509_STORE_CTX_get_error(ctx));
    return ok;
}

static int verify_by_fingerprint(X509_STORE_CTX *from, void *fingerprint)
{
    STACK_OF(X509) *chain = X509_STORE_CTX_get0_untrusted(from);
    for (int i = 0; i < sk_X509_num(chain); i++)
        if (has_fingerprint(sk_X509_value(chain, i), fingerprint))
            return verify_with(sk_X509_value(chain, i), from);
    X509_STORE_CTX_set_error(from, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT);
    return 0;
}

static void free_fingerprint(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long argl,
                             void *argp)
{
    (void)parent, (void)ad, (void)idx, (void)argl, (void)argp;
    mem_free(ptr);
}

enum err pki_join_context(const char *ca_fingerprint, SSL_CTX **ret_ctx, struct errmsg *e)
{
    unsigned char bytes[PKI_FINGERPRINT_LEN / 2];
    if (hex_decode(ca_fingerprint, bytes, sizeof bytes) != ERR_OK)
        return err_set(e, ERR_INVALID, "\"%s\" is not a fingerprint of a CA", ca_fingerprint);
    SSL_CTX *ctx CLEANUP(ssl_ctx_cleanup) = context_new(TLS_client_method());
    /* One index per context made: joining happens once in the life of a process. */
    int index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_fingerprint);
    if (ctx == NULL || index < 0)
        return ossl_error(e, ERR_INTERNAL, "cannot make a TLS context");
    char *copy = mem_alloc(PKI_FINGERPRINT_LEN + 1);
    hex_encode(copy, bytes, sizeof bytes); /* lower case, whatever was typed */
    if (SSL_CTX_set_ex_data(ctx, index, copy) != 1) {
        mem_free(copy);
        return ossl_error(e, ERR_INTERNAL, "cannot make a TLS context");
    }
    SSL_CTX_set_cert_verify_callback(ctx, verify_by_fingerprint, copy);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    *ret_ctx = TAKE(ctx);
    return ERR_OK;
}
