/* The cluster's own certificates (X.509, EC P-256, SHA-256), tokens and TLS contexts. OpenSSL 3.
 *
 * A node's identity is in its certificate: CN = name, SAN URI "regent://CLUSTER/MEMBER_ID/KIND" plus
 * the DNS/IP of its addresses. KIND: "first" (bootstraps an empty directory), "node"; of a client its role:
 * "viewer", "operator", "admin". */
#ifndef REGENT_PROTO_PKI_H
#define REGENT_PROTO_PKI_H

#include <openssl/ssl.h>

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

enum {
    PKI_FINGERPRINT_LEN = 64,
    PKI_CLUSTER_ID_MAX = 40,
    PKI_NAME_MAX = 64,
    PKI_TOKEN_MAX = 200,
    PKI_DAYS = 365 /* that a certificate is good for */
};

struct pki_identity {
    char cluster_id[PKI_CLUSTER_ID_MAX];
    char name[PKI_NAME_MAX];
    char kind[16];
    uint64_t member_id; /* 0 for clients */
    /* From the store's log; 0: none of it. A certificate without one gets a random number of 16 bytes. */
    uint64_t serial;
};

/* New CA: certificate and key as PEM. */
enum err pki_ca_new(const char *cluster_id, struct buf *ret_cert, struct buf *ret_key,
                    struct errmsg *e) MUST_CHECK;
/* New key and a certificate request for it. */
enum err pki_csr_new(const char *name, struct buf *ret_csr, struct buf *ret_key,
                     struct errmsg *e) MUST_CHECK;
/* A request for the key that is there already: a certificate that is renewed keeps its key. */
enum err pki_csr_of_key(const char *name, struct slice key_pem, struct buf *ret_csr,
                        struct errmsg *e) MUST_CHECK;
/* Seconds until it expires; negative afterwards. */
enum err pki_seconds_left(struct slice cert_pem, int64_t *ret_seconds, struct errmsg *e)
    MUST_CHECK;
/* From the next handshake on; the key must be the one in use. */
enum err pki_use_certificate(SSL_CTX *ctx, struct slice cert_pem, struct errmsg *e) MUST_CHECK;
/* Signs a request for a key of EC P-256; `hosts`: names or addresses for the SAN. Valid PKI_DAYS from now (an hour back-dated). */
enum err pki_sign(struct slice ca_cert, struct slice ca_key, struct slice csr,
                  const struct pki_identity *id, const char *const *hosts, size_t n_hosts,
                  struct buf *ret_cert, struct errmsg *e) MUST_CHECK;
/* SHA-256 of the public key in a request that is sound, lower-case hex: the same for each request made
 * with that key. */
enum err pki_csr_key_hash(struct slice csr, char ret_hex[static PKI_FINGERPRINT_LEN + 1],
                          struct errmsg *e) MUST_CHECK;
/* SHA-256 of the DER, lower-case hex. */
enum err pki_fingerprint(struct slice cert_pem, char ret_hex[static PKI_FINGERPRINT_LEN + 1],
                         struct errmsg *e) MUST_CHECK;
enum err pki_identity_of_pem(struct slice cert_pem, struct pki_identity *ret_id,
                             struct errmsg *e) MUST_CHECK;
enum err pki_identity_of(const X509 *cert, struct pki_identity *ret_id, struct errmsg *e)
    MUST_CHECK;

/* Files: written through a temporary file, fsync and rename, with mode; an existing one is refused
 * unless replace. */
enum err pki_write_file(const char *path, struct slice data, unsigned mode, bool replace,
                        struct errmsg *e) MUST_CHECK;
enum err pki_read_file(const char *path, size_t max, struct buf *ret_data, struct errmsg *e)
    MUST_CHECK;

/* TLS 1.3 only. Server: asks for a client certificate; verified when given, absent allowed (the
 * dispatcher then permits only the OPEN methods; one of this CA that has merely expired passes the
 * handshake too, see conn_peer_expired). Client: verifies against ca_file; cert_file and key_file may
 * be NULL. Peers are identified by CA and regent:// URI, so no host name is checked. */
enum err pki_server_context(const char *ca_file, const char *cert_file, const char *key_file,
                            SSL_CTX **ret_ctx, struct errmsg *e) MUST_CHECK;
enum err pki_client_context(const char *ca_file, const char *cert_file, const char *key_file,
                            SSL_CTX **ret_ctx, struct errmsg *e) MUST_CHECK;
/* For token.redeem: no certificate of ours; accepts a server whose chain contains the CA with this
 * fingerprint. */
enum err pki_join_context(const char *ca_fingerprint, SSL_CTX **ret_ctx, struct errmsg *e)
    MUST_CHECK;

/* Join token: "rgt1.<id, 16 hex>.<secret, 32 hex>.<CA fingerprint, 64 hex>". */
struct pki_token {
    char id[17];
    char secret[33];
    char ca_fingerprint[PKI_FINGERPRINT_LEN + 1];
};
void pki_token_new(const char *ca_fingerprint, struct pki_token *ret_token);
void pki_token_text(const struct pki_token *t, char ret_text[static PKI_TOKEN_MAX]);
enum err pki_token_parse(const char *text, struct pki_token *ret_token, struct errmsg *e)
    MUST_CHECK;
/* What the store keeps instead of the secret: SHA-256 hex of it. */
void pki_token_hash(const struct pki_token *t, char ret_hex[static 65]);

#endif
