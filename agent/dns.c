#include "agent/dns.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/dns_answer.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"

enum { DNS_MAGIC = 0x52ed0053, QUERY_MAX = 1500 };

struct dns {
    uint32_t magic;
    int fd, stop;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    struct dns_facts facts;
    uint64_t fresh_until_ms; /* CLOCK_BOOTTIME: a loop that stands still confirms nothing */
};

static void answer_one(struct dns *d)
{
    uint8_t query[QUERY_MAX];
    uint8_t reply[DNS_EDNS_MAX];
    struct sockaddr_storage from;
    socklen_t from_n = sizeof from;
    struct dns_facts facts;
    ssize_t n =
        recvfrom(d->fd, query, sizeof query, MSG_DONTWAIT, (struct sockaddr *)&from, &from_n);
    if (n <= 0)
        return;
    (void)pthread_mutex_lock(&d->lock);
    facts = d->facts;
    facts.stale = facts.stale || clock_boot_ms() >= d->fresh_until_ms;
    (void)pthread_mutex_unlock(&d->lock);
    size_t size = dns_answer(&facts, query, (size_t)n, reply);
    if (size > 0)
        (void)sendto(d->fd, reply, size, MSG_DONTWAIT | MSG_NOSIGNAL,
                     (const struct sockaddr *)&from, from_n);
}

static void *run(void *arg)
{
    struct dns *d = arg;
    for (;;) {
        struct pollfd p[] = {{.fd = d->fd, .events = POLLIN},
                             {.fd = d->stop, .events = POLLIN}};
        if (poll(p, ARRAY_LEN(p), -1) < 0 && errno != EINTR)
            return NULL;
        if (p[1].revents != 0)
            return NULL;
        if (p[0].revents != 0)
            answer_one(d);
    }
}

static enum err bind_socket(const char *listen_on, int *ret_fd, struct errmsg *e)
{
    char host[256];
    char service[8];
    uint16_t port;
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *ai = NULL;
    if (str_host_port(listen_on, host, sizeof host, &port) != ERR_OK)
        return err_set(e, ERR_INVALID, "dns.listen: \"%s\" is not host:port", listen_on);
    (void)snprintf(service, sizeof service, "%u", port);
    int rv = getaddrinfo(host, service, &hints, &ai);
    if (rv != 0)
        return err_set(e, ERR_INVALID, "dns.listen: cannot resolve \"%s\": %s", host,
                       gai_strerror(rv));
    int fd = socket(ai->ai_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int why = fd < 0 || bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 ? errno : 0;
    freeaddrinfo(ai);
    if (why == 0) {
        *ret_fd = fd;
        return ERR_OK;
    }
    if (fd >= 0)
        (void)close(fd);
    return err_set(e, err_from_errno(why), "dns.listen: cannot listen on %s: %s%s", listen_on,
                   strerror(why),
                   why == EACCES ? "; a port below 1024 needs CAP_NET_BIND_SERVICE" : "");
}

/* Signals are the main thread's. */
static int start_thread(struct dns *d)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rv = pthread_create(&d->thread, NULL, run, d);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rv;
}

enum err dns_start(const struct config *c, struct dns **ret_dns, struct errmsg *e)
{
    int fd = -1;
    *ret_dns = NULL;
    if (c->dns.listen[0] == '\0')
        return ERR_OK;
    struct dns *d = mem_alloc(sizeof *d);
    enum err rv = dns_facts_init(&d->facts, c->scope, c->dns.domain, c->name);
    if (rv != ERR_OK)
        rv = err_set(e, rv, "dns.domain: \"%.80s\" is no domain", c->dns.domain);
    if (rv == ERR_OK)
        rv = bind_socket(c->dns.listen, &fd, e);
    if (rv != ERR_OK) {
        mem_free(d);
        return rv;
    }
    d->magic = DNS_MAGIC;
    d->fd = fd;
    d->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    (void)pthread_mutex_init(&d->lock, NULL);
    ASSERT(d->stop >= 0 && start_thread(d) == 0);
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
    d->fresh_until_ms = v->now_ms + v->config.ttl_ms;
    (void)pthread_mutex_unlock(&d->lock);
}
