/* Requests of the REST interface that change something: what their bodies mean, and what can be refused at
 * once. Patroni 4.1's bodies, codes and texts. No HTTP and no I/O in here. */
#ifndef REGENT_AGENT_REST_ORDER_H
#define REGENT_AGENT_REST_ORDER_H

#include "agent/rest_route.h"

enum rest_verb_kind {
    VERB_CONFIG_PATCH,
    VERB_CONFIG_PUT,
    VERB_SWITCHOVER,
    VERB_SWITCHOVER_DELETE,
    VERB_FAILOVER,
    VERB_RESTART,
    VERB_RESTART_DELETE,
    VERB_RELOAD,
    VERB_REINITIALIZE,
    VERB_JOURNAL, /* changes nothing, but is read from the DCS: not in rest_verbs */
};

struct rest_order {
    enum rest_verb_kind kind;
    /* VERB_SWITCHOVER, VERB_FAILOVER; id is set by who carries it out */
    struct failover_rec failover;
    struct request_rec request; /* VERB_RESTART, VERB_REINITIALIZE; likewise */
    char *config;               /* VERB_CONFIG_*: the document as given; owned */
    uint64_t limit;             /* VERB_JOURNAL */
};

/* True: *ret_order is to be carried out (rest_order_close() it). False: *ret_reply says why not. `wall_ms` for
 * schedules. */
bool rest_order_parse(enum rest_verb_kind kind, struct slice body, const struct rest_facts *f,
                      uint64_t wall_ms, struct rest_order *ret_order,
                      struct rest_reply *ret_reply);
void rest_order_close(struct rest_order *o);

/* Lays a PATCH (null deletes, objects are merged) over a document, or takes a PUT as it is, and checks what
 * comes out, as dynamic_check_edit() does. *ret_text is malloc'ed JSON; NULL on an error. */
enum err rest_config_merge(const struct dynamic_edit *edit, const char *given, bool patch,
                           char **ret_text, struct errmsg *e) MUST_CHECK;

struct rest_reply rest_text(unsigned code, const char *fmt, ...) PRINTF(2, 3);

#endif
