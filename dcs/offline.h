/* What restore and recover share: a working directory, a state made a new cluster's, its files put in
 * place. For offline*.c alone. */
#ifndef REGENT_DCS_OFFLINE_H
#define REGENT_DCS_OFFLINE_H

#include "base/buf.h"
#include "dcs/dcs.h"
#include "dcs/state_rebirth.h"

struct offline {
    const struct dcs_options *o;
    int lock_fd;     /* -1: not held */
    char tmp[3072];  /* working directory below data_dir */
    char work[3200]; /* the state, one plain file in it */
    uint64_t term;   /* newest known */
    struct state_facts facts;
};

/* Takes the lock; ERR_PRECONDITION while a node runs. */
enum err offline_begin(struct offline *x, const struct dcs_options *o, struct errmsg *e)
    MUST_CHECK;
/* The working directory, empty. */
enum err offline_workdir(struct offline *x, struct errmsg *e) MUST_CHECK;
/* facts of the file `work`. */
enum err offline_look(struct offline *x, struct errmsg *e) MUST_CHECK;
/* From `work`: snapshot-N.db and log.db of the new cluster, in the working directory. */
enum err offline_found(struct offline *x, const char *cluster_id, uint64_t *ret_index,
                       struct errmsg *e) MUST_CHECK;
/* Moves one file of the working directory to `to`; nothing when it is not there (any more). */
enum err offline_move(const struct offline *x, const char *name, const char *to,
                      struct errmsg *e) MUST_CHECK;
enum err offline_sync_dir(const char *dir, struct errmsg *e) MUST_CHECK;
/* the facts, without the last brace */
void offline_json(const struct offline *x, struct buf *out);
void offline_end(struct offline *x); /* removes the working directory, gives the lock back */

#endif
