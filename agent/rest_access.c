#include "agent/rest_access.h"

#include <arpa/inet.h>
#include <gnutls/gnutls.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

/* ---- by address ---- */

static bool parse_network(const char *text, int *ret_family, uint8_t ret_address[static 16],
                          unsigned *ret_bits)
{
    char address[64];
    uint64_t bits = 0;
    size_t n = strcspn(text, "/");
    if (str_copy_slice(address, sizeof address, slice_of(text, n)) != ERR_OK)
        return false;
    *ret_family = strchr(address, ':') != NULL ? AF_INET6 : AF_INET;
    unsigned most = *ret_family == AF_INET6 ? 128 : 32;
    if (inet_pton(*ret_family, address, ret_address) != 1)
        return false;
    if (text[n] == '\0')
        bits = most;
    else if (str_parse_u64(text + n + 1, &bits) != ERR_OK || bits > most)
        return false;
    *ret_bits = (unsigned)bits;
    return true;
}

enum err rest_access_init(struct rest_access *a, const struct config *c, struct errmsg *e)
{
    static const char *const modes[] = {"none", "optional", "required"};
    *a = (struct rest_access){.config = c};
    const char *mode = c->restapi.verify_client;
    size_t at = 0;
    while (at < ARRAY_LEN(modes) && strcmp(modes[at], mode[0] != '\0' ? mode : "none") != 0)
        at++;
    if (at == ARRAY_LEN(modes))
        return err_set(e, ERR_INVALID,
                       "restapi.verify_client: \"%s\" is none of none, optional, required",
                       mode);
    a->verify = at == 0 ? CLIENT_NONE : at == 1 ? CLIENT_OPTIONAL : CLIENT_REQUIRED;
    if (a->verify != CLIENT_NONE &&
        (c->restapi.certfile[0] == '\0' || c->restapi.cafile[0] == '\0'))
        return err_set(e, ERR_INVALID,
                       "restapi.verify_client: %s needs restapi.certfile and restapi.cafile",
                       mode);
    for (size_t i = 0; i < c->restapi.n_allowlist; i++) {
        const char *text = c->restapi.allowlist[i];
        if (!parse_network(text, &a->allowed[i].family, a->allowed[i].address,
                           &a->allowed[i].bits))
            return err_set(e, ERR_INVALID,
                           "restapi.allowlist: \"%s\" is no address and no network like "
                           "10.0.0.0/8",
                           text);
        a->allowed_n++;
    }
    return ERR_OK;
}

static bool same_network(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned whole = bits / 8;
    uint8_t mask = (uint8_t)(0xFF00U >> (bits % 8));
    return memcmp(a, b, whole) == 0 && (bits % 8 == 0 || ((a[whole] ^ b[whole]) & mask) == 0);
}

bool rest_access_from(const struct rest_access *a, const struct sockaddr *from)
{
    const void *address = NULL;
    int family = from != NULL ? from->sa_family : AF_UNSPEC;
    if (family == AF_INET)
        address = &((const struct sockaddr_in *)(const void *)from)->sin_addr;
    else if (family == AF_INET6)
        address = &((const struct sockaddr_in6 *)(const void *)from)->sin6_addr;
    if (a->allowed_n == 0)
        return true;
    if (family == AF_INET6 && IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)address)) {
        family = AF_INET;
        address = (const uint8_t *)address + 12;
    }
    for (size_t i = 0; address != NULL && i < a->allowed_n; i++)
        if (a->allowed[i].family == family &&
            same_network(a->allowed[i].address, address, a->allowed[i].bits))
            return true;
    return false;
}

/* ---- by certificate ---- */

/* It came with a certificate that restapi.cafile has signed and that is valid now. */
static bool certified(struct MHD_Connection *conn)
{
    const union MHD_ConnectionInfo *i =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    unsigned status = 1;
    unsigned n = 0;
    if (i == NULL || i->tls_session == NULL)
        return false;
    gnutls_session_t session = (gnutls_session_t)i->tls_session;
    return gnutls_certificate_get_peers(session, &n) != NULL && n > 0 &&
           gnutls_certificate_verify_peers2(session, &status) == 0 && status == 0;
}

/* ---- by name and password ---- */

/* As long for a wrong one as for the right one. */
static bool same_secret(const char *given, const char *wanted)
{
    size_t n = strlen(wanted);
    bool as_long = strlen(given) == n;
    return CRYPTO_memcmp(as_long ? given : wanted, wanted, n) == 0 && as_long;
}

static bool authenticated(const struct conf_user *u, struct MHD_Connection *conn)
{
    char *password = NULL;
    char *name = MHD_basic_auth_get_username_password(conn, &password);
    bool good = name != NULL && password != NULL && same_secret(password, u->password) &&
                same_secret(name, u->username);
    if (password != NULL)
        explicit_bzero(password, strlen(password));
    MHD_free(password);
    MHD_free(name);
    return good;
}

/* ---- all ---- */

struct rest_refusal rest_access_any(const struct rest_access *a, struct MHD_Connection *conn)
{
    if (a->verify == CLIENT_REQUIRED && !certified(conn))
        return (struct rest_refusal){403, "client certificate required", false};
    return (struct rest_refusal){0};
}

static const char *header(struct MHD_Connection *conn, const char *name)
{
    return MHD_lookup_connection_value(conn, MHD_HEADER_KIND, name);
}

bool rest_access_own_page(const char *origin, const char *host)
{
    if (origin == NULL)
        return true;
    const char *from = strstr(origin, "://");
    return from != NULL && host != NULL && strcasecmp(from + 3, host) == 0;
}

static bool has_user(const struct rest_access *a)
{
    const char *name = a->config->restapi.authentication.username;
    return name != NULL && name[0] != '\0';
}

const char *rest_access_way(const struct rest_access *a)
{
    return has_user(a) ? "password" : a->verify != CLIENT_NONE ? "certificate" : "no";
}

struct rest_refusal rest_access_unsafe(const struct rest_access *a, struct MHD_Connection *conn)
{
    const struct conf_user *u = &a->config->restapi.authentication;
    const union MHD_ConnectionInfo *i =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    if (!rest_access_from(a, i != NULL ? i->client_addr : NULL))
        return (struct rest_refusal){403, "Access is denied", false};
    if (!rest_access_own_page(header(conn, MHD_HTTP_HEADER_ORIGIN),
                              header(conn, MHD_HTTP_HEADER_HOST)))
        return (struct rest_refusal){403, "this request comes from another site's page", false};
    if (a->verify != CLIENT_NONE && !certified(conn))
        return (struct rest_refusal){403, "client certificate required", false};
    if (!has_user(a) && a->verify == CLIENT_NONE)
        return (struct rest_refusal){
            403,
            "requests that change something need restapi.authentication or client "
            "certificates in the configuration, from this machine too; or use regentctl",
            false};
    if (!has_user(a))
        return (struct rest_refusal){0};
    bool asks = header(conn, "X-Requested-With") == NULL; /* the status page asks by itself */
    if (header(conn, MHD_HTTP_HEADER_AUTHORIZATION) == NULL)
        return (struct rest_refusal){401, "no auth header received", asks};
    if (!authenticated(u, conn))
        return (struct rest_refusal){401, "not authenticated", asks};
    return (struct rest_refusal){0};
}
