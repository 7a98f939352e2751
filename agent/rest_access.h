/* Who may use the unsafe verbs of REST: by address, by certificate, by name and password. Threads of the HTTP
 * library; everything is fixed at the start. */
#ifndef REGENT_AGENT_REST_ACCESS_H
#define REGENT_AGENT_REST_ACCESS_H

#include <microhttpd.h>

#include "conf/config.h"

struct rest_access {
    const struct config *config; /* borrowed */
    struct {
        int family; /* AF_INET, AF_INET6 */
        uint8_t address[16];
        unsigned bits;
    } allowed[CONF_LIST_MAX];
    size_t allowed_n; /* 0: everybody */
    enum { CLIENT_NONE, CLIENT_OPTIONAL, CLIENT_REQUIRED } verify;
};

/* ERR_INVALID names what is no address, network or mode. */
enum err rest_access_init(struct rest_access *a, const struct config *c, struct errmsg *e)
    MUST_CHECK;

struct rest_refusal {
    unsigned code; /* 0: admitted */
    const char *text;
    bool challenge; /* with WWW-Authenticate */
};
/* For any request: verify_client required. */
struct rest_refusal rest_access_any(const struct rest_access *a, struct MHD_Connection *conn);
/* For one that changes something; also refused when a browser sends it from a page that is not ours: it would add
 * the name and password by itself. */
struct rest_refusal rest_access_unsafe(const struct rest_access *a,
                                       struct MHD_Connection *conn);

/* What a request that changes something needs: "password", "certificate"; "no": none is taken. */
const char *rest_access_way(const struct rest_access *a);

/* For tests. Is this Origin (NULL: no browser) the page of the node that is named in Host? */
bool rest_access_own_page(const char *origin, const char *host);
bool rest_access_from(const struct rest_access *a, const struct sockaddr *from);

#endif
