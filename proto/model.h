/* The cluster as templates and other programs see it: one JSON object made of the HA records, the same
 * in the daemon and in the CLI. docs/templates.md names every value. Pure. */
#ifndef REGENT_PROTO_MODEL_H
#define REGENT_PROTO_MODEL_H

#include "proto/messages.h"

struct model_pair {
    const char *name, *value;
};

/* All borrowed. */
struct model_facts {
    const char *scope;
    const char *self;                 /* the node that asks */
    const struct member_rec *members; /* sorted by name */
    size_t members_n;
    const struct leader_rec *leader; /* NULL: there is none */
    const struct sync_rec *sync;
    const struct model_pair *set; /* the user's own values */
    size_t set_n;
};

/* "members", "standbys", "synchronous", "leader" (null: none runs), "self", "scope", "set". */
void model_json(const struct model_facts *f, struct buf *ret_json);
/* This member may be promoted without a loss: it is in V of the sync record. */
bool model_is_sync(const struct sync_rec *sync, const struct member_rec *m);

#endif
