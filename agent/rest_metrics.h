/* GET /metrics, in Prometheus' text format: Patroni's names, etcd's where the meaning is the same, ours. */
#ifndef REGENT_AGENT_REST_METRICS_H
#define REGENT_AGENT_REST_METRICS_H

#include "agent/rest_facts.h"

/* malloc'ed, for free(). */
char *rest_metrics_body(const struct rest_facts *f, uint64_t now_ms);

#endif
