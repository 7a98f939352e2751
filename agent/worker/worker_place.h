/* Where new data goes, and what becomes of the old: moved aside, never deleted but by the operator's policy or order. */
#ifndef REGENT_AGENT_WORKER_WORKER_PLACE_H
#define REGENT_AGENT_WORKER_WORKER_PLACE_H

#include "agent/worker/worker_ops.h"

struct place {
    char target[FILES_PATH]; /* the data directory, links resolved */
    char parent[FILES_PATH];
    /* where new data is made: beside the data directory, or within it when that cannot be renamed */
    char fresh[FILES_PATH];
    /* where the old data is now; "": it is where it was, or there is none */
    char old[FILES_PATH];
    bool exists;
    bool empty;
    bool in_place;
};

/* Refuses the root of a file system: nobody could copy from a data directory with lost+found in it. */
enum err place_find(const struct worker_req *q, struct place *p, struct errmsg *e) MUST_CHECK;
/* Everything that would stop the exchange is found before hours are spent on the copy. */
enum err place_check(const struct place *p, struct errmsg *e) MUST_CHECK;
/* Why a copy may have failed while the old data is kept: that it has no room beside it. */
bool place_is_short(const struct place *p);
/* What is in `fresh` is whole: it becomes the data. */
enum err place_exchange(struct place *p, struct worker_reply *r, struct errmsg *e) MUST_CHECK;
/* Instead of place_check(), where the old data need not be kept. Where it cannot stand beside the copy (no
 * room for both, a mount point, tablespaces) it is deleted here; else place_drop_old() does it when the copy is whole.
 * A deletion, or an exchange within the directory, that was cut short is known by REMOVE_FILE: what is there is deleted. */
enum err place_give_up(struct place *p, struct worker_reply *r, struct errmsg *e) MUST_CHECK;
bool place_is_half_deleted(const struct place *p);
void place_drop_old(struct place *p, struct worker_reply *r);
/* For programs that write the data directory itself: an empty one, the old data aside. */
enum err place_clear(struct place *p, struct worker_reply *r, struct errmsg *e) MUST_CHECK;
/* What such a program has left goes, the old data comes back. */
void place_undo(struct place *p);

#endif
