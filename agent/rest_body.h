/* The JSON bodies of the REST interface, in Patroni's shapes. All are malloc'ed, for free(). */
#ifndef REGENT_AGENT_REST_BODY_H
#define REGENT_AGENT_REST_BODY_H

#include "agent/rest_facts.h"

/* The release of Patroni whose interface this is; it is what `patroni.version` says. */
#define REST_PATRONI_VERSION "4.1.4"

typedef char *rest_body(const struct rest_facts *f, uint64_t now_ms);
rest_body rest_status_body, rest_cluster_body, rest_history_body, rest_discovery_body;
/* NULL: there is no dynamic configuration. */
rest_body rest_config_body;

/* What this node does, in Patroni's words, and their number in patroni_postgres_state. */
const char *rest_state(const struct rest_facts *f, uint64_t now_ms, int *ret_number);
/* "demoted": it was the primary, and its lease has ended. */
const char *rest_role(const struct rest_facts *f, uint64_t now_ms);
/* "15.8" -> 150008, as PostgreSQL's server_version_num; 0: not known. */
uint64_t rest_server_version(const char *text);
/* Wall clock, in seconds, when the DCS was last heard of. */
uint64_t rest_dcs_seen_s(const struct rest_facts *f);

#endif
