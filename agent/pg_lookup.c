#include "agent/pg_lookup.h"

#include <arpa/inet.h>
#include <netdb.h>

#include "base/mem.h"

/* Cannot be stopped once a thread works on it, so it outlives its owner's interest. */
struct pg_lookup {
    uv_getaddrinfo_t req;
    pg_lookup_cb *cb; /* NULL: nobody waits any more */
    void *arg;
    char *text[2 * PG_SQL_PARAMS];
    size_t n;
};

static const char *host_of(const struct pg_sql_target *t)
{
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->keywords[i], "host") == 0)
            return t->values[i];
    return NULL;
}

bool pg_lookup_needed(const struct pg_sql_target *t)
{
    unsigned char raw[sizeof(struct in6_addr)];
    const char *host = host_of(t);
    return host != NULL && host[0] != '/' && inet_pton(AF_INET, host, raw) != 1 &&
           inet_pton(AF_INET6, host, raw) != 1;
}

static void lookup_free(struct pg_lookup *l)
{
    for (size_t i = 0; i < l->n; i++) {
        explicit_bzero(l->text[i], strlen(l->text[i])); /* one of them is a password */
        mem_free(l->text[i]);
    }
    mem_free(l);
}

/* host stays beside hostaddr: certificates are checked against it. */
static void resolved_cb(uv_getaddrinfo_t *req, int status, struct addrinfo *found)
{
    struct pg_lookup *l = container_of(req, struct pg_lookup, req);
    char address[NI_MAXHOST] = "";
    struct pg_sql_target t = {.n = 0};
    if (status == 0 && getnameinfo(found->ai_addr, found->ai_addrlen, address, sizeof address,
                                   NULL, 0, NI_NUMERICHOST) != 0)
        address[0] = '\0';
    uv_freeaddrinfo(found);
    for (size_t i = 0; i + 1 < l->n; i += 2)
        pg_sql_target_add(&t, l->text[i], l->text[i + 1]);
    pg_sql_target_add(&t, "hostaddr", address);
    if (l->cb != NULL)
        l->cb(l->arg, address[0] != '\0' ? &t : NULL);
    lookup_free(l);
}

struct pg_lookup *pg_lookup_start(uv_loop_t *loop, const struct pg_sql_target *t,
                                  pg_lookup_cb *cb, void *arg)
{
    struct pg_lookup *l = mem_alloc(sizeof *l);
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    l->cb = cb;
    l->arg = arg;
    for (size_t i = 0; i < t->n; i++) {
        l->text[l->n++] = mem_strdup(t->keywords[i]);
        l->text[l->n++] = mem_strdup(t->values[i]);
    }
    if (uv_getaddrinfo(loop, &l->req, resolved_cb, host_of(t), NULL, &hints) == 0)
        return l;
    lookup_free(l);
    return NULL;
}

void pg_lookup_drop(struct pg_lookup *l)
{
    if (l == NULL)
        return;
    l->cb = NULL;
    (void)uv_cancel((uv_req_t *)&l->req);
}
