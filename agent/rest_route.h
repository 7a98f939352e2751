/* What the REST interface answers: the paths, and the answer to a reading request. No HTTP in here. */
#ifndef REGENT_AGENT_REST_ROUTE_H
#define REGENT_AGENT_REST_ROUTE_H

#include "agent/rest_body.h"
#include "agent/rest_check.h"

enum route_kind {
    ROUTE_CHECK, /* code by a check, the status as the body */
    ROUTE_PROBE, /* code by a check, no body */
    ROUTE_STATUS,
    ROUTE_JSON,
    ROUTE_CONFIG,
    ROUTE_FAILSAFE,
    ROUTE_METRICS,
    ROUTE_OPENAPI,
    ROUTE_EVENTS,  /* a stream: rest_events.h answers */
    ROUTE_JOURNAL, /* rest_jobs.h reads it */
};

struct rest_route {
    const char *path;
    enum route_kind kind;
    rest_check *check; /* ROUTE_CHECK, ROUTE_PROBE */
    bool tags;         /* and tag_* parameters count */
    bool lag;          /* lag does */
    rest_body *body;
    const char *summary;
};

/* A request that changes something: rest_order.h. */
struct rest_verb {
    const char *method, *path;
    int kind; /* enum rest_verb_kind */
    const char *summary;
    const char *codes; /* besides those of who may not: "200 503" */
};

struct rest_reply {
    unsigned code;
    char *body;       /* malloc'ed; NULL: none */
    const char *type; /* media type */
};

extern const struct rest_route rest_routes[];
extern const size_t rest_routes_n;
extern const struct rest_verb rest_verbs[];
extern const size_t rest_verbs_n;

/* NULL: no such path. */
const struct rest_route *rest_route_find(const char *path);
const struct rest_verb *rest_verb_find(const char *method, const char *path);
/* with_body: GET; else (HEAD, OPTIONS) the code alone. */
void rest_answer(const struct rest_facts *f, const struct rest_route *r,
                 const struct rest_query *q, uint64_t now_ms, bool with_body,
                 struct rest_reply *ret);
/* rest_openapi.c: the description of all that (OpenAPI 3.0); malloc'ed. */
char *rest_openapi_body(void);

#endif
