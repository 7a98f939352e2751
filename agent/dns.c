#include "agent/dns.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/dns_stream.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/thread.h"

enum { DNS_MAGIC = 0x52ed0053 };

struct dns {
    uint32_t magic;
    int fd, stop; /* UDP; eventfd */
    struct dns_streams streams;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    struct dns_facts facts;
    uint64_t fresh_until_ms; /* CLOCK_BOOTTIME: a loop that stands still confirms nothing */
};

static size_t answer(struct dns *d, const uint8_t *query, size_t n, bool stream, uint8_t *ret)
{
    struct dns_facts facts;
    (void)pthread_mutex_lock(&d->lock);
    facts = d->facts;
    facts.stale = facts.stale || clock_boot_ms() >= d->fresh_until_ms;
    (void)pthread_mutex_unlock(&d->lock);
    return dns_answer(&facts, query, n, stream, ret);
}

static size_t on_stream(void *arg, const uint8_t *query, size_t n,
                        uint8_t ret[static DNS_STREAM_MAX])
{
    struct dns *d = arg;
    CHECK_MAGIC(d, DNS_MAGIC);
    return answer(d, query, n, true, ret);
}

static void answer_packet(struct dns *d)
{
    uint8_t query[DNS_QUERY_MAX];
    uint8_t reply[DNS_STREAM_MAX];
    struct sockaddr_storage from;
    socklen_t from_n = sizeof from;
    ssize_t n =
        recvfrom(d->fd, query, sizeof query, MSG_DONTWAIT, (struct sockaddr *)&from, &from_n);
    if (n <= 0)
        return;
    size_t size = answer(d, query, (size_t)n, false, reply);
    if (size > 0)
        (void)sendto(d->fd, reply, size, MSG_DONTWAIT | MSG_NOSIGNAL,
                     (const struct sockaddr *)&from, from_n);
}

static void *run(void *arg)
{
    struct dns *d = arg;
    for (;;) {
        struct pollfd p[2 + 1 + DNS_STREAMS] = {{.fd = d->fd, .events = POLLIN},
                                                {.fd = d->stop, .events = POLLIN}};
        int wait_ms = dns_streams_wait(&d->streams, clock_boot_ms(), p + 2);
        if (poll(p, ARRAY_LEN(p), wait_ms) < 0) {
            if (errno == EINTR)
                continue;
            return NULL;
        }
        if (p[1].revents != 0)
            return NULL;
        if (p[0].revents != 0)
            answer_packet(d);
        dns_streams_step(&d->streams, clock_boot_ms(), p + 2);
    }
}

static enum err bind_socket(const char *listen_on, int type, int *ret_fd, struct errmsg *e)
{
    char host[256];
    char service[8];
    uint16_t port;
    int one = 1;
    struct addrinfo hints = {.ai_socktype = type, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *ai = NULL;
    if (str_host_port(listen_on, host, sizeof host, &port) != ERR_OK)
        return err_set(e, ERR_INVALID, "dns.listen: \"%s\" is not host:port", listen_on);
    (void)snprintf(service, sizeof service, "%u", port);
    int rv = getaddrinfo(host, service, &hints, &ai);
    if (rv != 0)
        return err_set(e, ERR_INVALID, "dns.listen: cannot resolve \"%s\": %s", host,
                       gai_strerror(rv));
    int fd = socket(ai->ai_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool stream = type == SOCK_STREAM;
    bool good = fd >= 0 &&
                (!stream || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0) &&
                bind(fd, ai->ai_addr, ai->ai_addrlen) == 0 &&
                (!stream || listen(fd, DNS_STREAMS) == 0);
    int why = good ? 0 : errno;
    freeaddrinfo(ai);
    if (why == 0) {
        *ret_fd = fd;
        return ERR_OK;
    }
    if (fd >= 0)
        (void)close(fd);
    return err_set(e, err_from_errno(why), "dns.listen: cannot listen on %s by %s: %s%s",
                   listen_on, stream ? "TCP" : "UDP", strerror(why),
                   why == EACCES ? "; a port below 1024 needs CAP_NET_BIND_SERVICE" : "");
}

enum err dns_start(const struct config *c, struct dns **ret_dns, struct errmsg *e)
{
    int fd = -1;
    int listener = -1;
    *ret_dns = NULL;
    if (c->dns.listen[0] == '\0')
        return ERR_OK;
    struct dns *d = mem_alloc(sizeof *d);
    enum err rv = dns_facts_init(&d->facts, c->scope, c->dns.domain, c->name);
    if (rv != ERR_OK)
        rv = err_set(e, rv, "dns.domain: \"%.80s\" is no domain", c->dns.domain);
    if (rv == ERR_OK)
        rv = bind_socket(c->dns.listen, SOCK_DGRAM, &fd, e);
    if (rv == ERR_OK)
        rv = bind_socket(c->dns.listen, SOCK_STREAM, &listener, e);
    if (rv != ERR_OK) {
        if (fd >= 0)
            (void)close(fd);
        mem_free(d);
        return rv;
    }
    d->magic = DNS_MAGIC;
    d->fd = fd;
    dns_streams_init(&d->streams, listener, on_stream, d);
    d->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    (void)pthread_mutex_init(&d->lock, NULL);
    ASSERT(d->stop >= 0 && thread_start(&d->thread, run, d) == 0);
    *ret_dns = d;
    return ERR_OK;
}

void dns_stop(struct dns *d)
{
    if (d == NULL)
        return;
    CHECK_MAGIC(d, DNS_MAGIC);
    (void)!write(d->stop, &(uint64_t){1}, sizeof(uint64_t));
    (void)pthread_join(d->thread, NULL);
    (void)pthread_mutex_destroy(&d->lock);
    (void)close(d->stop);
    (void)close(d->fd);
    dns_streams_close(&d->streams);
    d->magic = 0;
    mem_free(d);
}

void dns_publish(struct dns *d, const struct view *v)
{
    if (d == NULL)
        return;
    CHECK_MAGIC(d, DNS_MAGIC);
    (void)pthread_mutex_lock(&d->lock);
    dns_facts_take(&d->facts, v);
    d->fresh_until_ms = dns_fresh_until(v);
    (void)pthread_mutex_unlock(&d->lock);
}
