#include "proto/ossl.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdarg.h>
#include <stdio.h>

enum err ossl_error(struct errmsg *e, enum err code, const char *fmt, ...)
{
    /* The last error in the queue is the one nearest to the caller. */
    unsigned long last = ERR_peek_last_error();
    const char *reason = last != 0 ? ERR_reason_error_string(last) : NULL;
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    ERR_clear_error();
    return err_set(e, code, "%s: %s", text,
                   reason != NULL ? reason : "no reason given by OpenSSL");
}

enum err ossl_verify_error(struct errmsg *e, long verify_result, const char *who)
{
    const char *why = X509_verify_cert_error_string(verify_result);
    const char *remedy;
    ERR_clear_error();
    switch (verify_result) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        remedy =
            "renew it (a running node does so by itself; otherwise join again with a token)";
        break;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        remedy = "compare the clocks of both hosts";
        break;
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
        remedy = "it is of another cluster's CA; use this cluster's ca.pem and join with a "
                 "token of it";
        break;
    default:
        remedy = "issue a new one with a join token";
        break;
    }
    return err_set(e, ERR_UNAUTHENTICATED, "certificate of %s refused: %s; %s", who, why,
                   remedy);
}

/* The peer's alerts about our certificate, told as what they mean here. */
static const char *alert_text(int reason)
{
    switch (reason) {
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
        return "it refused our certificate: signed by a CA it does not know; is it another "
               "cluster?";
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
        return "it refused our certificate: expired; renew it";
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
        return "it refused our certificate; join again with a token";
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
        return "it wants a client certificate and we have none";
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
    case SSL_R_UNSUPPORTED_PROTOCOL:
        return "it does not speak TLS 1.3";
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTP_REQUEST:
        return "it does not speak TLS; is this the right port?";
    default:
        return NULL;
    }
}

enum err ossl_tls_error(struct errmsg *e, const SSL *ssl, const char *peer)
{
    unsigned long last = ERR_peek_last_error();
    long verify = SSL_get_verify_result(ssl);
    int reason = last != 0 ? ERR_GET_REASON(last) : 0;
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED && verify != X509_V_OK)
        return ossl_verify_error(e, verify, peer);
    const char *text = alert_text(reason);
    if (text == NULL)
        return ossl_error(e, ERR_UNAVAILABLE, "TLS with %s failed", peer);
    ERR_clear_error();
    return err_set(e, ERR_UNAUTHENTICATED, "TLS with %s failed: %s", peer, text);
}

X509 *ossl_cert_of_pem(struct slice pem, const char *what, struct errmsg *e)
{
    BIO *b CLEANUP(bio_cleanup) = BIO_new_mem_buf(pem.p, (int)MIN(pem.n, (size_t)1 << 20));
    X509 *cert = b == NULL || pem.n == 0 ? NULL : PEM_read_bio_X509(b, NULL, NULL, NULL);
    if (cert == NULL)
        (void)ossl_error(e, ERR_INVALID, "%s is not a PEM certificate", what);
    return cert;
}

/* Never asks at the terminal for a pass phrase. */
static int no_passphrase(char *to, int size, int writing, void *arg)
{
    (void)to, (void)size, (void)writing, (void)arg;
    return -1;
}

EVP_PKEY *ossl_key_of_pem(struct slice pem, const char *what, struct errmsg *e)
{
    BIO *b CLEANUP(bio_cleanup) = BIO_new_mem_buf(pem.p, (int)MIN(pem.n, (size_t)1 << 20));
    EVP_PKEY *key =
        b == NULL || pem.n == 0 ? NULL : PEM_read_bio_PrivateKey(b, NULL, no_passphrase, NULL);
    if (key == NULL)
        (void)ossl_error(e, ERR_INVALID, "%s is not a PEM private key without pass phrase",
                         what);
    return key;
}
