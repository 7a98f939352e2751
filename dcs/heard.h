/* The file `heard` of the data directory: what the other members said to this one (struct raft_heard), so that
 * a member that forgot it is told so although this process was started anew meanwhile. It is written when a
 * member has come to a new term, every ten minutes when anything is new, and at the end; a loss of it, or an
 * old one, only makes this member know less. Loop thread; the file's work is a worker's. */
#ifndef REGENT_DCS_HEARD_H
#define REGENT_DCS_HEARD_H

#include <uv.h>

#include "dcs/node.h"

struct heard {
    uv_loop_t *loop;
    char path[3100];
    struct raft_heard all[RAFT_CORE_MEMBERS_MAX]; /* as written last */
    size_t n;
    uint64_t written_ms;
    bool writing; /* a worker is */
    bool failed;  /* and it is in the log */
};

/* loop is set. Reads the file and tells the node; ERR_CORRUPT is not an error here: it is said, and nothing
 * is known. */
void heard_start(struct heard *h, const char *data_dir, struct node *n);
void heard_tick(struct heard *h, struct node *n); /* once a second */
void heard_end(struct heard *h, struct node *n);  /* writes at once, when it was started */

#endif
