/* The DNS server of a node (`dns.listen`, UDP and TCP): a thread of its own that answers from a copy of the newest view.
 * It never touches the loop, the DCS or PostgreSQL; off by default. */
#ifndef REGENT_AGENT_DNS_H
#define REGENT_AGENT_DNS_H

#include "agent/core/view.h"
#include "conf/config.h"

struct dns;

/* *ret_dns is NULL when dns.listen is empty. */
enum err dns_start(const struct config *c, struct dns **ret_dns, struct errmsg *e) MUST_CHECK;
/* NULL is allowed, here and below. */
void dns_stop(struct dns *d);
/* Agent thread. */
void dns_publish(struct dns *d, const struct view *v);

#endif
