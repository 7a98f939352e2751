#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "proto_fixture.h"

static struct certs certs, other;

static int setup(void **state)
{
    (void)state;
    certs_setup(&certs);
    certs_setup(&other);
    certs_issue(&certs, "n1", 7, "first", false);
    certs_issue(&certs, "n2", 8, "node", false);
    certs_issue(&certs, "old", 9, "node", true);
    certs_issue(&other, "stranger", 1, "node", false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    certs_teardown(&certs);
    certs_teardown(&other);
    return 0;
}

static void a_signed_certificate_says_who_it_is(void **state)
{
    (void)state;
    struct buf pem CLEANUP(buf_close) = BUF_INIT;
    struct pki_identity id;
    assert_int_equal(pki_read_file(certs_path(&certs, "n1.pem"), 10000, &pem, NULL), ERR_OK);
    assert_int_equal(pki_identity_of_pem(buf_slice(&pem), &id, NULL), ERR_OK);
    assert_string_equal(id.cluster_id, CERT_CLUSTER);
    assert_string_equal(id.name, "n1");
    assert_string_equal(id.kind, "first");
    assert_int_equal(id.member_id, 7);
}

static void the_signer_names_the_holder_not_the_request(void **state)
{
    (void)state;
    struct buf csr CLEANUP(buf_close) = BUF_INIT, key CLEANUP(buf_close) = BUF_INIT,
                   cert CLEANUP(buf_close) = BUF_INIT;
    struct pki_identity id = {.cluster_id = CERT_CLUSTER, .name = "real", .kind = "client"},
                        got;
    assert_int_equal(pki_csr_new("pretended", &csr, &key, NULL), ERR_OK);
    assert_int_equal(pki_sign(buf_slice(&certs.ca), buf_slice(&certs.ca_key), buf_slice(&csr),
                              &id, NULL, 0, &cert, NULL),
                     ERR_OK);
    assert_int_equal(pki_identity_of_pem(buf_slice(&cert), &got, NULL), ERR_OK);
    assert_string_equal(got.name, "real");
    assert_int_equal(got.member_id, 0);
}

/* A random one is longer than any that is given. */
static void a_serial_number_is_the_one_given_or_none(void **state)
{
    (void)state;
    static const uint64_t given[] = {0, 1, 65536, (uint64_t)1 << 47, UINT64_MAX};
    struct buf csr CLEANUP(buf_close) = BUF_INIT, key CLEANUP(buf_close) = BUF_INIT,
                   cert CLEANUP(buf_close) = BUF_INIT;
    struct pki_identity id = {.cluster_id = CERT_CLUSTER, .name = "ann", .kind = "admin"}, got;
    assert_int_equal(pki_csr_new("ann", &csr, &key, NULL), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(given); i++) {
        id.serial = given[i];
        assert_int_equal(pki_sign(buf_slice(&certs.ca), buf_slice(&certs.ca_key),
                                  buf_slice(&csr), &id, NULL, 0, &cert, NULL),
                         ERR_OK);
        assert_int_equal(pki_identity_of_pem(buf_slice(&cert), &got, NULL), ERR_OK);
        assert_true(got.serial == given[i]);
    }
}

static void what_cannot_go_into_a_certificate_is_refused(void **state)
{
    (void)state;
    struct buf csr CLEANUP(buf_close) = BUF_INIT, key CLEANUP(buf_close) = BUF_INIT,
                   cert CLEANUP(buf_close) = BUF_INIT;
    assert_int_equal(pki_csr_new("x", &csr, &key, NULL), ERR_OK);
    static const struct pki_identity bad[] = {
        {.cluster_id = "c1/../c2", .name = "n", .kind = "node"},
        {.cluster_id = "c1", .name = "n\n", .kind = "node"},
        {.cluster_id = "c1", .name = "", .kind = "node"},
        {.cluster_id = "", .name = "n", .kind = "node"},
        {.cluster_id = "c1", .name = "n", .kind = "no/de"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(pki_sign(buf_slice(&certs.ca), buf_slice(&certs.ca_key),
                                  buf_slice(&csr), &bad[i], NULL, 0, &cert, NULL),
                         ERR_INVALID);
    struct pki_identity good = {.cluster_id = "c1", .name = "n", .kind = "node"};
    static const char *const hosts[] = {"n1,URI:regent://c1/1/first"};
    assert_int_equal(pki_sign(buf_slice(&certs.ca), buf_slice(&certs.ca_key), buf_slice(&csr),
                              &good, hosts, 1, &cert, NULL),
                     ERR_INVALID);
    csr.p[csr.len / 2] ^= 1;
    assert_int_equal(pki_sign(buf_slice(&certs.ca), buf_slice(&certs.ca_key), buf_slice(&csr),
                              &good, NULL, 0, &cert, NULL),
                     ERR_INVALID);
    assert_int_equal(pki_sign(buf_slice(&certs.ca), buf_slice(&other.ca_key), buf_slice(&csr),
                              &good, NULL, 0, &cert, NULL),
                     ERR_INVALID);
}

static void request_of(EVP_PKEY *key, struct buf *ret)
{
    X509_REQ *req = X509_REQ_new();
    BIO *b = BIO_new(BIO_s_mem());
    char *data = NULL;
    assert_true(key != NULL && req != NULL && b != NULL);
    assert_int_equal(X509_REQ_set_pubkey(req, key), 1);
    assert_true(X509_REQ_sign(req, key, EVP_sha256()) != 0);
    assert_int_equal(PEM_write_bio_X509_REQ(b, req), 1);
    long n = BIO_get_mem_data(b, &data);
    buf_append(ret, data, (size_t)n);
    BIO_free(b);
    X509_REQ_free(req);
    EVP_PKEY_free(key);
}

/* Verifying one of 16384 bits takes a thousand times as long. */
static void a_request_of_another_kind_of_key_is_refused(void **state)
{
    (void)state;
    EVP_PKEY *keys[] = {EVP_RSA_gen(1024), EVP_EC_gen("P-384")};
    struct pki_identity id = {.cluster_id = CERT_CLUSTER, .name = "x", .kind = "client"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        struct buf csr CLEANUP(buf_close) = BUF_INIT, cert CLEANUP(buf_close) = BUF_INIT;
        struct errmsg e;
        request_of(keys[i], &csr);
        assert_int_equal(pki_sign(buf_slice(&certs.ca), buf_slice(&certs.ca_key),
                                  buf_slice(&csr), &id, NULL, 0, &cert, &e),
                         ERR_INVALID);
        assert_non_null(strstr(e.text, "P-256"));
    }
}

static void the_ca_itself_is_no_member(void **state)
{
    (void)state;
    struct pki_identity id;
    struct errmsg e;
    assert_int_equal(pki_identity_of_pem(buf_slice(&certs.ca), &id, &e), ERR_UNAUTHENTICATED);
}

static void mixed_up_files_are_named_with_reason_and_remedy(void **state)
{
    (void)state;
    const struct {
        const char *ca, *cert, *key, *says;
    } rows[] = {
        {"nothing.pem", "n1.pem", "n1.key", "nothing.pem: No such file"},
        {"ca.pem", "n1.pem", "n2.key", "does not belong to certificate"},
        {"ca.pem", "n1.key", "n1.key", "n1.key is not a PEM certificate"},
        {"ca.pem", "n1.pem", "n1.pem", "n1.pem is not a PEM private key"},
        {"n2.pem", "n1.pem", "n1.key", "n2.pem is not a CA certificate"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        SSL_CTX *ctx = NULL;
        struct errmsg e = {.text = ""};
        assert_int_not_equal(pki_server_context(certs_path(&certs, rows[i].ca),
                                                certs_path(&certs, rows[i].cert),
                                                certs_path(&certs, rows[i].key), &ctx, &e),
                             ERR_OK);
        assert_null(ctx);
        if (strstr(e.text, rows[i].says) == NULL)
            fail_msg("\"%s\" lacks \"%s\"", e.text, rows[i].says);
    }
    SSL_CTX *ctx = NULL;
    struct errmsg e = {.text = ""};
    assert_int_equal(pki_client_context(certs_path(&certs, "ca.pem"),
                                        certs_path(&other, "stranger.pem"),
                                        certs_path(&other, "stranger.key"), &ctx, &e),
                     ERR_INVALID);
    assert_non_null(strstr(e.text, "is not signed by the CA in"));
}

static void an_expired_certificate_can_still_be_loaded_to_be_renewed(void **state)
{
    (void)state;
    SSL_CTX *ctx = NULL;
    assert_int_equal(pki_client_context(certs_path(&certs, "ca.pem"),
                                        certs_path(&certs, "old.pem"),
                                        certs_path(&certs, "old.key"), &ctx, NULL),
                     ERR_OK);
    SSL_CTX_free(ctx);
}

static void files_are_written_whole_and_never_over_another(void **state)
{
    (void)state;
    const char *path = certs_path(&certs, "secret");
    struct buf got CLEANUP(buf_close) = BUF_INIT;
    struct stat st;
    assert_int_equal(pki_write_file(path, slice_str("one"), 0600, false, NULL), ERR_OK);
    assert_int_equal(pki_write_file(path, slice_str("two"), 0600, false, NULL), ERR_EXISTS);
    assert_int_equal(pki_read_file(path, 100, &got, NULL), ERR_OK);
    assert_true(slice_eq(buf_slice(&got), slice_str("one")));
    assert_int_equal(pki_write_file(path, slice_str("three"), 0640, true, NULL), ERR_OK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(pki_read_file(path, 4, &got, NULL), ERR_LIMIT);
    assert_int_equal(pki_read_file(certs_path(&certs, "nowhere"), 4, &got, NULL),
                     ERR_NOT_FOUND);
}

static void tokens_survive_their_text(void **state)
{
    (void)state;
    char fingerprint[PKI_FINGERPRINT_LEN + 1], text[PKI_TOKEN_MAX], hash[65], hash2[65];
    struct pki_token t, got;
    assert_int_equal(pki_fingerprint(buf_slice(&certs.ca), fingerprint, NULL), ERR_OK);
    pki_token_new(fingerprint, &t);
    pki_token_text(&t, text);
    assert_int_equal(pki_token_parse(text, &got, NULL), ERR_OK);
    assert_memory_equal(&t, &got, sizeof t);
    pki_token_hash(&t, hash);
    pki_token_hash(&got, hash2);
    assert_string_equal(hash, hash2);
    for (size_t n = 0; n < strlen(text); n++) {
        char cut[PKI_TOKEN_MAX];
        memcpy(cut, text, n);
        cut[n] = '\0';
        assert_int_equal(pki_token_parse(cut, &got, NULL), ERR_INVALID);
        memcpy(cut, text, strlen(text) + 1);
        cut[n] = 'x';
        assert_int_equal(pki_token_parse(cut, &got, NULL), ERR_INVALID);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_signed_certificate_says_who_it_is),
        cmocka_unit_test(the_signer_names_the_holder_not_the_request),
        cmocka_unit_test(a_serial_number_is_the_one_given_or_none),
        cmocka_unit_test(what_cannot_go_into_a_certificate_is_refused),
        cmocka_unit_test(a_request_of_another_kind_of_key_is_refused),
        cmocka_unit_test(the_ca_itself_is_no_member),
        cmocka_unit_test(mixed_up_files_are_named_with_reason_and_remedy),
        cmocka_unit_test(an_expired_certificate_can_still_be_loaded_to_be_renewed),
        cmocka_unit_test(files_are_written_whole_and_never_over_another),
        cmocka_unit_test(tokens_survive_their_text),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
