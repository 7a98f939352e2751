/* GET /journal: the newest decisions of every node, from the replicated journal. Pure. */
#ifndef REGENT_AGENT_REST_JOURNAL_H
#define REGENT_AGENT_REST_JOURNAL_H

#include "base/base.h"

enum { REST_JOURNAL_LINES = 20, REST_JOURNAL_MAX = 100 };

/* The body from a range reply's kvs, in their order: an array of {id, time, node, rule, reason, action, writes,
 * token}; malloc'ed. What cannot be read (of a newer version) is left out. NULL: no reply of ours. */
char *rest_journal_body(struct slice kvs);

#endif
