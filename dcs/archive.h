/* Copies of the state that this node makes by itself, every so often, and keeps the newest of: files as
 * those of `regentctl dcs snapshot save`, which `dcs snapshot status` and `restore` read. For the day when
 * somebody has deleted what they should not have; against lost nodes there are the other nodes. */
#ifndef REGENT_DCS_ARCHIVE_H
#define REGENT_DCS_ARCHIVE_H

#include <uv.h>

#include "dcs/node.h"

enum { ARCHIVE_AGAIN_MS = 60000 }; /* after one that failed */

struct archive {
    uv_loop_t *loop;
    char dir[3072];
    uint64_t interval_ms; /* 0: none are made */
    uint64_t keep;
    uint64_t next_ms;  /* CLOCK_BOOTTIME */
    uint64_t revision; /* of the last one: the same is not copied twice */
    bool making;       /* a worker is */
    bool failed;       /* and it is in the log */
};

/* With loop, dir, interval_ms and keep set: looks when the newest of the files was made. */
void archive_start(struct archive *a);
/* Once a second. bytes: of the state; a copy that would fill the disk is not made. */
void archive_tick(struct archive *a, struct node *n, uint64_t bytes);

#endif
