/* Private to proto/: OpenSSL's errors translated, and CLEANUP functions for its objects. */
#ifndef REGENT_PROTO_OSSL_H
#define REGENT_PROTO_OSSL_H

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "base/base.h"
#include "base/err.h"

/* Empties OpenSSL's queue of this thread into e: "<text>: <reason>". Returns code. */
enum err ossl_error(struct errmsg *e, enum err code, const char *fmt, ...) PRINTF(3, 4);
/* Why a certificate was refused and what to do about it, in words. `who` is its owner or file. */
enum err ossl_verify_error(struct errmsg *e, long verify_result, const char *who);
/* What a TLS handshake or read died of, the peer's alert included. */
enum err ossl_tls_error(struct errmsg *e, const SSL *ssl, const char *peer);

#define OSSL_CLEANUP(name, type, free_fn)       \
    static inline void name##_cleanup(type **p) \
    {                                           \
        free_fn(*p);                            \
        *p = NULL;                              \
    }
OSSL_CLEANUP(x509, X509, X509_free)
OSSL_CLEANUP(x509_req, X509_REQ, X509_REQ_free)
OSSL_CLEANUP(x509_store, X509_STORE, X509_STORE_free)
OSSL_CLEANUP(x509_store_ctx, X509_STORE_CTX, X509_STORE_CTX_free)
OSSL_CLEANUP(x509_ext, X509_EXTENSION, X509_EXTENSION_free)
OSSL_CLEANUP(names, GENERAL_NAMES, GENERAL_NAMES_free)
OSSL_CLEANUP(pkey, EVP_PKEY, EVP_PKEY_free)
OSSL_CLEANUP(bio, BIO, BIO_free_all)
OSSL_CLEANUP(ssl_ctx, SSL_CTX, SSL_CTX_free)
#undef OSSL_CLEANUP

/* NULL with a message when the text is not what it should be. `what` names it for people. */
X509 *ossl_cert_of_pem(struct slice pem, const char *what, struct errmsg *e);
EVP_PKEY *ossl_key_of_pem(struct slice pem, const char *what, struct errmsg *e);

#endif
