/* DNS over TCP (RFC 7766): a fixed number of connections, each with one query or one answer under way. Whoever
 * is silent for DNS_IDLE_MS goes, and, when all places are taken, whoever has been so for the longest. For the
 * thread of dns.c alone. */
#ifndef REGENT_AGENT_DNS_STREAM_H
#define REGENT_AGENT_DNS_STREAM_H

#include <poll.h>

#include "agent/dns_answer.h"

enum { DNS_STREAMS = 16, DNS_IDLE_MS = 5000 };

/* As dns_answer(), for a stream. */
typedef size_t dns_stream_answer(void *arg, const uint8_t *query, size_t n,
                                 uint8_t ret[static DNS_STREAM_MAX]);

struct dns_stream {
    int fd; /* -1: free */
    uint64_t until_ms;
    size_t in_n, out_n, out_at; /* out_n 0: a query is read, else its answer written */
    uint8_t in[2 + DNS_QUERY_MAX], out[2 + DNS_STREAM_MAX];
};

struct dns_streams {
    int listener; /* owned */
    struct dns_stream at[DNS_STREAMS];
    dns_stream_answer *answer;
    void *arg;
};

void dns_streams_init(struct dns_streams *s, int listener, dns_stream_answer *answer,
                      void *arg);
void dns_streams_close(struct dns_streams *s);
/* What to wait for: 1 + DNS_STREAMS entries; for so long at most, in ms (-1: no limit). */
int dns_streams_wait(const struct dns_streams *s, uint64_t now_ms,
                     struct pollfd ret[static 1 + DNS_STREAMS]);
/* What has come of it. Never blocks. */
void dns_streams_step(struct dns_streams *s, uint64_t now_ms,
                      const struct pollfd p[static 1 + DNS_STREAMS]);

#endif
