/* The DNS server's knowledge and its answers: one query in, one reply out. Authoritative for
 * <scope>.<domain>, TTL 1:
 *
 *   primary            the leader that runs
 *   replica            standbys that take readers
 *   sync               standbys that may be promoted without loss
 *   <member>           a node
 *
 * by A or AAAA (CNAME where a node is known by a name), and SRV, also below _postgresql._tcp.<name>.
 * No I/O; the decoder and encoder are ldns'. docs/dns.md is the manual. */
#ifndef REGENT_AGENT_DNS_ANSWER_H
#define REGENT_AGENT_DNS_ANSWER_H

#include "agent/core/view.h"

enum {
    DNS_PLAIN_MAX = 512,
    DNS_EDNS_MAX = 1232,
    DNS_STREAM_MAX = 32768, /* by TCP: every node with its service and address */
    DNS_QUERY_MAX = 1500,
    DNS_ZONE_MAX = 200
};

struct dns_member {
    char name[64];
    char host[128];
    uint64_t port;
    bool leads, reads, is_sync;
};

struct dns_facts {
    char zone[DNS_ZONE_MAX]; /* "demo.regent.", in lower case */
    char self[64];
    bool stale; /* the copy is not confirmed: SERVFAIL, another server may know better */
    struct dns_member members[VIEW_MEMBERS];
    size_t members_n;
};

/* ERR_INVALID: no zone can be made of them. */
enum err dns_facts_init(struct dns_facts *f, const char *scope, const char *domain,
                        const char *self) MUST_CHECK;
void dns_facts_take(struct dns_facts *f, const struct view *v);
/* Until when they may be told, by CLOCK_BOOTTIME: a leader that stood still knows not who leads when its lease has ended. */
uint64_t dns_fresh_until(const struct view *v);
/* Bytes written to ret; 0: nothing is to be said to that. stream: it came by TCP, where the client's size does not
 * count; else at most DNS_EDNS_MAX. */
size_t dns_answer(const struct dns_facts *f, const uint8_t *query, size_t n, bool stream,
                  uint8_t ret[static DNS_STREAM_MAX]);

#endif
