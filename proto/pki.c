/* Certificates: the CA, requests, signing, and who a certificate names. */
#include "proto/pki.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <inttypes.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <stdio.h>

#include "base/str.h"
#include "proto/ossl.h"

enum {
    BACKDATE_S = 3600, /* for hosts whose clocks differ a little */
    CA_DAYS = 20 * 365,
    SERIAL_BYTES = 16,
    URI_MAX = 160
};

/* ---- small parts ---- */

static enum err pem_out(BIO *b, struct buf *ret)
{
    char *p = NULL;
    long n = BIO_get_mem_data(b, &p);
    buf_clear(ret);
    buf_append(ret, p, (size_t)n);
    return buf_ok(ret) ? ERR_OK : ERR_LIMIT;
}

static enum err cert_out(X509 *cert, struct buf *ret, struct errmsg *e)
{
    BIO *b CLEANUP(bio_cleanup) = BIO_new(BIO_s_mem());
    if (b == NULL || PEM_write_bio_X509(b, cert) != 1)
        return ossl_error(e, ERR_INTERNAL, "cannot write a certificate");
    return pem_out(b, ret);
}

static enum err key_out(EVP_PKEY *key, struct buf *ret, struct errmsg *e)
{
    BIO *b CLEANUP(bio_cleanup) = BIO_new(BIO_s_secmem());
    if (b == NULL || PEM_write_bio_PKCS8PrivateKey(b, key, NULL, NULL, 0, NULL, NULL) != 1)
        return ossl_error(e, ERR_INTERNAL, "cannot write a private key");
    return pem_out(b, ret);
}

static bool set_name(X509_NAME *name, const char *cn)
{
    return X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_UTF8,
                                      (const unsigned char *)cn, -1, -1, 0) == 1;
}

/* 0: a random one, too long to be mistaken for a number. */
static bool set_serial(X509 *cert, uint64_t serial)
{
    unsigned char bytes[SERIAL_BYTES];
    if (serial != 0)
        return ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), serial) == 1;
    if (RAND_bytes(bytes, sizeof bytes) != 1)
        return false;
    bytes[0] = (bytes[0] & 0x7f) | 0x40; /* positive, and of full length */
    BIGNUM *n = BN_bin2bn(bytes, sizeof bytes, NULL);
    bool ok = n != NULL && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert)) != NULL;
    BN_free(n);
    return ok;
}

static bool set_days(X509 *cert, int days)
{
    return X509_gmtime_adj(X509_getm_notBefore(cert), -(long)BACKDATE_S) != NULL &&
           X509_time_adj_ex(X509_getm_notAfter(cert), days, 0, NULL) != NULL;
}

/* Only for values written here: OpenSSL's extension language would interpret foreign text. */
static bool add_ext(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *ext CLEANUP(x509_ext_cleanup) = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    return ext != NULL && X509_add_ext(cert, ext, -1) == 1;
}

/* Letters, digits and what host names, cluster ids and kinds are made of. */
static bool is_word(const char *text)
{
    for (const char *p = text; *p != '\0'; p++)
        if (!isalnum((unsigned char)*p) && strchr("-_.", *p) == NULL)
            return false;
    return *text != '\0';
}

/* ---- the CA ---- */

static bool fill_ca(X509 *cert, EVP_PKEY *key, const char *cluster_id)
{
    char cn[PKI_NAME_MAX];
    (void)snprintf(cn, sizeof cn, "Regent CA %s", cluster_id);
    return X509_set_version(cert, X509_VERSION_3) == 1 && set_serial(cert, 0) &&
           set_days(cert, CA_DAYS) && set_name(X509_get_subject_name(cert), cn) &&
           X509_set_issuer_name(cert, X509_get_subject_name(cert)) == 1 &&
           X509_set_pubkey(cert, key) == 1 &&
           add_ext(cert, cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
           add_ext(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign") &&
           add_ext(cert, cert, NID_subject_key_identifier, "hash") &&
           X509_sign(cert, key, EVP_sha256()) != 0;
}

enum err pki_ca_new(const char *cluster_id, struct buf *ret_cert, struct buf *ret_key,
                    struct errmsg *e)
{
    if (!is_word(cluster_id) || strlen(cluster_id) >= PKI_CLUSTER_ID_MAX)
        return err_set(e, ERR_INVALID, "\"%s\" cannot be a cluster id", cluster_id);
    EVP_PKEY *key CLEANUP(pkey_cleanup) = EVP_EC_gen("P-256");
    X509 *cert CLEANUP(x509_cleanup) = X509_new();
    if (key == NULL || cert == NULL || !fill_ca(cert, key, cluster_id))
        return ossl_error(e, ERR_INTERNAL, "cannot make the CA");
    enum err rc = cert_out(cert, ret_cert, e);
    return rc == ERR_OK ? key_out(key, ret_key, e) : rc;
}

/* ---- requests ---- */

enum err pki_csr_new(const char *name, struct buf *ret_csr, struct buf *ret_key,
                     struct errmsg *e)
{
    EVP_PKEY *key CLEANUP(pkey_cleanup) = EVP_EC_gen("P-256");
    X509_REQ *req CLEANUP(x509_req_cleanup) = X509_REQ_new();
    BIO *b CLEANUP(bio_cleanup) = BIO_new(BIO_s_mem());
    if (key == NULL || req == NULL || b == NULL ||
        !set_name(X509_REQ_get_subject_name(req), name) || X509_REQ_set_pubkey(req, key) != 1 ||
        X509_REQ_sign(req, key, EVP_sha256()) == 0 || PEM_write_bio_X509_REQ(b, req) != 1)
        return ossl_error(e, ERR_INTERNAL, "cannot make a certificate request for %s", name);
    enum err rc = pem_out(b, ret_csr);
    return rc == ERR_OK ? key_out(key, ret_key, e) : rc;
}

/* ---- signing ---- */

static bool add_name(GENERAL_NAMES *names, int type, const char *text)
{
    unsigned char ip[16];
    size_t ip_n = inet_pton(AF_INET, text, ip) == 1    ? 4
                  : inet_pton(AF_INET6, text, ip) == 1 ? 16
                                                       : 0;
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_STRING *value = type == GEN_DNS && ip_n != 0 ? ASN1_OCTET_STRING_new()
                                                      : (ASN1_STRING *)ASN1_IA5STRING_new();
    if (type == GEN_DNS && ip_n != 0)
        type = GEN_IPADD;
    if (name == NULL || value == NULL ||
        ASN1_STRING_set(value, type == GEN_IPADD ? (const char *)ip : text,
                        type == GEN_IPADD ? (int)ip_n : (int)strlen(text)) != 1) {
        GENERAL_NAME_free(name);
        ASN1_STRING_free(value);
        return false;
    }
    GENERAL_NAME_set0_value(name, type, value);
    if (sk_GENERAL_NAME_push(names, name) > 0)
        return true;
    GENERAL_NAME_free(name);
    return false;
}

static enum err add_san(X509 *cert, const struct pki_identity *id, const char *const *hosts,
                        size_t n_hosts, struct errmsg *e)
{
    char uri[URI_MAX];
    enum err rc = str_format(uri, sizeof uri, "regent://%s/%" PRIu64 "/%s", id->cluster_id,
                             id->member_id, id->kind);
    if (rc != ERR_OK)
        return err_set(e, rc, "identity of %s is too long", id->name);
    GENERAL_NAMES *names CLEANUP(names_cleanup) = GENERAL_NAMES_new();
    bool ok = names != NULL && add_name(names, GEN_URI, uri);
    for (size_t i = 0; ok && i < n_hosts; i++) {
        unsigned char ip6[16];
        if (!is_word(hosts[i]) && inet_pton(AF_INET6, hosts[i], ip6) != 1)
            return err_set(e, ERR_INVALID, "\"%s\" is neither a host name nor an address",
                           hosts[i]);
        ok = add_name(names, GEN_DNS, hosts[i]);
    }
    if (!ok || X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, 0) != 1)
        return ossl_error(e, ERR_INTERNAL, "cannot name %s in its certificate", id->name);
    return ERR_OK;
}

static bool fill_node(X509 *cert, X509 *ca, EVP_PKEY *csr_key, const struct pki_identity *id)
{
    return X509_set_version(cert, X509_VERSION_3) == 1 && set_serial(cert, id->serial) &&
           set_days(cert, PKI_DAYS) && set_name(X509_get_subject_name(cert), id->name) &&
           X509_set_issuer_name(cert, X509_get_subject_name(ca)) == 1 &&
           X509_set_pubkey(cert, csr_key) == 1 &&
           add_ext(cert, ca, NID_basic_constraints, "critical,CA:FALSE") &&
           add_ext(cert, ca, NID_key_usage, "critical,digitalSignature") &&
           add_ext(cert, ca, NID_ext_key_usage, "serverAuth,clientAuth") &&
           add_ext(cert, ca, NID_subject_key_identifier, "hash") &&
           add_ext(cert, ca, NID_authority_key_identifier, "keyid");
}

static bool identity_sound(const struct pki_identity *id)
{
    if (!is_word(id->cluster_id) || !is_word(id->kind) || id->name[0] == '\0')
        return false;
    for (const char *p = id->name; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f || *p == '/')
            return false;
    return true;
}

/* The kind that pki_csr_new() makes: what a signature of another costs to verify is up to whoever asks. */
static bool is_p256(const X509_REQ *req)
{
    ASN1_OBJECT *algorithm = NULL;
    X509_ALGOR *whole = NULL;
    const void *curve = NULL;
    int type = 0;
    if (X509_PUBKEY_get0_param(&algorithm, NULL, NULL, &whole,
                               X509_REQ_get_X509_PUBKEY((X509_REQ *)req)) != 1 ||
        OBJ_obj2nid(algorithm) != NID_X9_62_id_ecPublicKey)
        return false;
    X509_ALGOR_get0(NULL, &type, &curve, whole);
    return type == V_ASN1_OBJECT && OBJ_obj2nid(curve) == NID_X9_62_prime256v1;
}

/* The signature proves that whoever asks holds the key. Its names are not looked at. */
static X509_REQ *csr_of_pem(struct slice csr, struct errmsg *e)
{
    BIO *b CLEANUP(bio_cleanup) = BIO_new_mem_buf(csr.p, (int)MIN(csr.n, (size_t)1 << 16));
    X509_REQ *req = b == NULL || csr.n == 0 ? NULL : PEM_read_bio_X509_REQ(b, NULL, NULL, NULL);
    if (req != NULL && !is_p256(req)) {
        X509_REQ_free(req);
        (void)err_set(e, ERR_INVALID, "the key of a certificate request must be of EC P-256");
        return NULL;
    }
    EVP_PKEY *key = req == NULL ? NULL : X509_REQ_get0_pubkey(req);
    if (key != NULL && X509_REQ_verify(req, key) == 1)
        return req;
    X509_REQ_free(req);
    (void)ossl_error(e, ERR_INVALID, "the certificate request is unsound");
    return NULL;
}

enum err pki_csr_key_hash(struct slice csr, char ret_hex[static PKI_FINGERPRINT_LEN + 1],
                          struct errmsg *e)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned char *der = NULL;
    unsigned n = 0;
    X509_REQ *req CLEANUP(x509_req_cleanup) = csr_of_pem(csr, e);
    if (req == NULL)
        return ERR_INVALID;
    int len = i2d_PUBKEY(X509_REQ_get0_pubkey(req), &der);
    bool ok = len > 0 && EVP_Digest(der, (size_t)len, digest, &n, EVP_sha256(), NULL) == 1;
    OPENSSL_free(der);
    if (!ok || n * 2 != PKI_FINGERPRINT_LEN)
        return ossl_error(e, ERR_INTERNAL, "cannot hash the key of the request");
    hex_encode(ret_hex, digest, n);
    return ERR_OK;
}

enum err pki_sign(struct slice ca_cert, struct slice ca_key, struct slice csr,
                  const struct pki_identity *id, const char *const *hosts, size_t n_hosts,
                  struct buf *ret_cert, struct errmsg *e)
{
    if (!identity_sound(id))
        return err_set(e, ERR_INVALID,
                       "\"%s\" of cluster \"%s\" cannot be put into a certificate", id->name,
                       id->cluster_id);
    X509 *ca CLEANUP(x509_cleanup) = ossl_cert_of_pem(ca_cert, "the CA certificate", e);
    EVP_PKEY *key CLEANUP(pkey_cleanup) =
        ca == NULL ? NULL : ossl_key_of_pem(ca_key, "the CA key", e);
    if (key == NULL)
        return ERR_INVALID;
    if (X509_check_private_key(ca, key) != 1)
        return ossl_error(e, ERR_INVALID, "the CA key does not belong to the CA certificate");

    X509_REQ *req CLEANUP(x509_req_cleanup) = csr_of_pem(csr, e);
    if (req == NULL)
        return err_wrap(e, ERR_INVALID, "%s", id->name);
    EVP_PKEY *csr_key = X509_REQ_get0_pubkey(req);
    X509 *cert CLEANUP(x509_cleanup) = X509_new();
    if (cert == NULL || !fill_node(cert, ca, csr_key, id))
        return ossl_error(e, ERR_INTERNAL, "cannot make a certificate for %s", id->name);
    enum err rc = add_san(cert, id, hosts, n_hosts, e);
    if (rc != ERR_OK)
        return rc;
    if (X509_sign(cert, key, EVP_sha256()) == 0)
        return ossl_error(e, ERR_INTERNAL, "cannot sign the certificate of %s", id->name);
    return cert_out(cert, ret_cert, e);
}

/* ---- reading ---- */

/* "regent://CLUSTER/MEMBER_ID/KIND" */
static enum err parse_uri(const char *uri, struct pki_identity *ret)
{
    char text[URI_MAX];
    static const char scheme[] = "regent://";
    if (!str_starts(uri, scheme) || str_copy(text, sizeof text, uri + strlen(scheme)) != ERR_OK)
        return ERR_INVALID;
    char *member = strchr(text, '/');
    char *kind = member == NULL ? NULL : strchr(member + 1, '/');
    if (kind == NULL)
        return ERR_INVALID;
    *member++ = '\0';
    *kind++ = '\0';
    if (!is_word(text) || !is_word(kind) || str_parse_u64(member, &ret->member_id) != ERR_OK ||
        str_copy(ret->cluster_id, sizeof ret->cluster_id, text) != ERR_OK)
        return ERR_INVALID;
    return str_copy(ret->kind, sizeof ret->kind, kind);
}

/* The one SAN of our scheme; none or several are refused. */
static enum err read_uri(const X509 *cert, struct pki_identity *ret)
{
    GENERAL_NAMES *names CLEANUP(names_cleanup) =
        X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    unsigned found = 0;
    for (int i = 0; names != NULL && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_URI)
            continue;
        const ASN1_STRING *s = name->d.uniformResourceIdentifier;
        const char *text = (const char *)ASN1_STRING_get0_data(s);
        if (ASN1_STRING_length(s) < 0 || strlen(text) != (size_t)ASN1_STRING_length(s))
            return ERR_INVALID;
        if (!str_starts(text, "regent://"))
            continue;
        if (++found > 1 || parse_uri(text, ret) != ERR_OK)
            return ERR_INVALID;
    }
    return found == 1 ? ERR_OK : ERR_INVALID;
}

enum err pki_identity_of(const X509 *cert, struct pki_identity *ret_id, struct errmsg *e)
{
    struct pki_identity id = {.member_id = 0};
    X509_NAME *subject = X509_get_subject_name(cert);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    unsigned char *cn = NULL;
    int n = at < 0 ? -1
                   : ASN1_STRING_to_UTF8(
                         &cn, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    enum err rc =
        n <= 0 ? ERR_INVALID : str_copy_slice(id.name, sizeof id.name, slice_of(cn, (size_t)n));
    OPENSSL_free(cn);
    if (rc == ERR_OK)
        rc = read_uri(cert, &id);
    if (rc != ERR_OK || !identity_sound(&id))
        return ossl_error(
            e, ERR_UNAUTHENTICATED,
            "the certificate names no member of a Regent cluster (SAN regent://...)");
    if (ASN1_INTEGER_get_uint64(&id.serial, X509_get0_serialNumber(cert)) != 1) {
        ERR_clear_error(); /* a random one is longer */
        id.serial = 0;
    }
    *ret_id = id;
    return ERR_OK;
}

enum err pki_identity_of_pem(struct slice cert_pem, struct pki_identity *ret_id,
                             struct errmsg *e)
{
    X509 *cert CLEANUP(x509_cleanup) = ossl_cert_of_pem(cert_pem, "this text", e);
    return cert == NULL ? ERR_INVALID : pki_identity_of(cert, ret_id, e);
}

enum err pki_fingerprint(struct slice cert_pem, char ret_hex[static PKI_FINGERPRINT_LEN + 1],
                         struct errmsg *e)
{
    X509 *cert CLEANUP(x509_cleanup) = ossl_cert_of_pem(cert_pem, "this text", e);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n;
    if (cert == NULL)
        return ERR_INVALID;
    if (X509_digest(cert, EVP_sha256(), digest, &n) != 1 || n * 2 != PKI_FINGERPRINT_LEN)
        return ossl_error(e, ERR_INTERNAL, "cannot take a fingerprint");
    hex_encode(ret_hex, digest, n);
    return ERR_OK;
}
