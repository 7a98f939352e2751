/* The JSON bodies of the REST interface, in Patroni's shapes. */
#ifndef REGENT_AGENT_REST_BODY_H
#define REGENT_AGENT_REST_BODY_H

#include "agent/core/view.h"

struct rest_facts {
    bool known; /* something has been published */
    char scope[64];
    char pg_version[16];
    char rule[48];
    struct view view;
};

/* malloc'ed, for free(). */
char *rest_status_body(const struct rest_facts *f);
char *rest_cluster_body(const struct rest_facts *f);
char *rest_history_body(const struct rest_facts *f);

#endif
