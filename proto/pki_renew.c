/* A certificate that goes on: the same key, a new date. */
#include <openssl/pem.h>

#include "proto/ossl.h"
#include "proto/pki.h"

enum err pki_csr_of_key(const char *name, struct slice key_pem, struct buf *ret_csr,
                        struct errmsg *e)
{
    EVP_PKEY *key CLEANUP(pkey_cleanup) = ossl_key_of_pem(key_pem, "the node's key", e);
    X509_REQ *req CLEANUP(x509_req_cleanup) = X509_REQ_new();
    BIO *b CLEANUP(bio_cleanup) = BIO_new(BIO_s_mem());
    char *data = NULL;
    if (key == NULL)
        return ERR_INVALID;
    if (req == NULL || b == NULL ||
        X509_NAME_add_entry_by_NID(X509_REQ_get_subject_name(req), NID_commonName,
                                   MBSTRING_UTF8, (const unsigned char *)name, -1, -1,
                                   0) != 1 ||
        X509_REQ_set_pubkey(req, key) != 1 || X509_REQ_sign(req, key, EVP_sha256()) == 0 ||
        PEM_write_bio_X509_REQ(b, req) != 1)
        return ossl_error(e, ERR_INTERNAL, "cannot make a certificate request for %s", name);
    long n = BIO_get_mem_data(b, &data);
    buf_append(ret_csr, data, n > 0 ? (size_t)n : 0);
    return ERR_OK;
}

enum err pki_seconds_left(struct slice cert_pem, int64_t *ret_seconds, struct errmsg *e)
{
    enum { DAY_S = 86400 };
    int days = 0, seconds = 0;
    X509 *cert CLEANUP(x509_cleanup) = ossl_cert_of_pem(cert_pem, "the certificate", e);
    if (cert == NULL)
        return ERR_INVALID;
    if (ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(cert)) != 1)
        return ossl_error(e, ERR_INVALID, "the certificate's date cannot be read");
    *ret_seconds = (int64_t)days * DAY_S + seconds;
    return ERR_OK;
}

enum err pki_use_certificate(SSL_CTX *ctx, struct slice cert_pem, struct errmsg *e)
{
    X509 *cert CLEANUP(x509_cleanup) = ossl_cert_of_pem(cert_pem, "the certificate", e);
    if (cert == NULL)
        return ERR_INVALID;
    if (SSL_CTX_use_certificate(ctx, cert) != 1 || SSL_CTX_check_private_key(ctx) != 1)
        return ossl_error(e, ERR_INVALID, "the certificate does not fit the key in use");
    return ERR_OK;
}
