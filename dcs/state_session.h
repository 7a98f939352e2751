/* Sessions: what makes a request apply once although it is sent again. In memory over the table
 * `session`; kept results are rows of `result`. The same on every member at the same index. */
#ifndef REGENT_DCS_STATE_SESSION_H
#define REGENT_DCS_STATE_SESSION_H

#include "base/base.h"

enum {
    SESSIONS_MAX = 1024,
    SESSION_WINDOW = 64,            /* results kept: those of the last so many sequences */
    SESSION_RESULT_MAX = 16 * 1024, /* bytes; a longer result is kept in its short form */
};

struct session {
    uint64_t id;
    uint64_t nonce;
    uint64_t last_seq;   /* highest applied */
    uint64_t used_index; /* Raft index of the last request */
    bool dirty;          /* differs from the table */
    /* Hashes of its kept results, by slot; those not `known` (0: all after a start) are in the table. */
    uint64_t known;
    uint64_t result_hash[SESSION_WINDOW];
};

/* Sorted by id, which only grows. */
struct session_table {
    struct session v[SESSIONS_MAX];
    size_t n;
    size_t n_dirty;
    uint64_t sum; /* of the sessions' rows (dcs/row_hash.h), as they are in memory */
};

void session_table_clear(struct session_table *t);

struct session *session_find(struct session_table *t, uint64_t id);        /* NULL: none */
struct session *session_of_nonce(struct session_table *t, uint64_t nonce); /* NULL: none */
struct session *session_add(struct session_table *t, const struct session *s);
void session_remove(struct session_table *t, struct session *s);
void session_touch(struct session_table *t, struct session *s, uint64_t seq, uint64_t index);

#endif
