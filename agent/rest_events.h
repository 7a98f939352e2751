/* GET /events: server-sent events for the status page. Each stream is a response that never ends; it sleeps
 * (suspended in the HTTP library) until there is news. Bounded in number and in what waits: a reader that does
 * not keep up gets the newest state, not all of them. */
#ifndef REGENT_AGENT_REST_EVENTS_H
#define REGENT_AGENT_REST_EVENTS_H

#include <microhttpd.h>

#include "base/base.h"

enum { EVENTS_STREAMS_MAX = 16, EVENTS_EVERY_MS = 500 };

struct rest_events;

/* The text of one event, malloc'ed; first: of its stream. In the HTTP library's thread. */
typedef char *rest_events_make(void *arg, bool first);

struct rest_events *rest_events_new(rest_events_make *make, void *arg);
/* Ends all streams, so that the HTTP library can be stopped. */
void rest_events_end(struct rest_events *e);
/* After the HTTP library has been stopped. NULL is allowed. */
void rest_events_free(struct rest_events *e);
/* Agent thread: there is news. */
void rest_events_wake(struct rest_events *e, uint64_t now_ms);
/* Answers a request by a new stream. False: there are EVENTS_STREAMS_MAX already. */
bool rest_events_answer(struct rest_events *e, struct MHD_Connection *conn,
                        enum MHD_Result *ret_result);

#endif
