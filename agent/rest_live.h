/* What the status page shows, as one JSON object: the events of GET /events. */
#ifndef REGENT_AGENT_REST_LIVE_H
#define REGENT_AGENT_REST_LIVE_H

#include "agent/rest_facts.h"

/* past: with the lag of the last minutes. malloc'ed. */
char *rest_live_text(const struct rest_facts *f, uint64_t now_ms, bool past);

#endif
