/* Is this node fit to lead? Four signs, the worst counts (enum sick): a write to the disks of data and WAL
 * that does not come back or fails; no room there for another WAL segment; a PostgreSQL that lives and
 * answers nobody; an archive that takes nothing while the disk fills up.
 *
 * The disk is written to by a worker of its own, every 2 s; one that hangs is left alone until it answers.
 * Whatever it is, it is seen within 5 s. A node counts as sick until nothing of it has been seen for half a
 * minute. Loop thread of the agent. */
#ifndef REGENT_AGENT_PG_HEALTH_H
#define REGENT_AGENT_PG_HEALTH_H

#include "agent/core/view.h"
#include "agent/host_watch.h"
#include "agent/pg_worker.h"

enum {
    HEALTH_EVERY_MS = 2000,
    HEALTH_LATE_MS = 2000,
    HEALTH_HOLD_MS = 30000,
    HEALTH_ROOM = 16 << 20,    /* bytes: a WAL segment as PostgreSQL comes */
    HEALTH_FULL_SOON_S = 3600, /* with an archive that fails */
};

/* What it is judged by. Pure data; a zeroed one is healthy. */
struct health_signs {
    bool late;        /* the write that is under way should have come back */
    enum err written; /* how the last one ended */
    char text[120];   /* and why it failed */
    bool room_known;
    uint64_t data_free, wal_free, wal_size; /* bytes */
    uint64_t full_in_s;                     /* the disk of the WAL, by its forecast; 0: never */
    const char *hung;                       /* pg_monitor_hung(); NULL: it answers */
    const char *unarchived;                 /* WAL file that could not be archived; "" none */
};

/* Pure. ret_why: words for people, without numbers that change from look to look. */
enum sick health_judge(const struct health_signs *s, const char *data_dir, char *ret_why,
                       size_t size);

/* The worst there was lately. Zeroed: healthy. */
struct health {
    enum sick sick;
    uint64_t failing_ms; /* since when something has been wrong without a break; 0: not now */
    uint64_t seen_ms;    /* when something was wrong last */
    char why[120];
};
/* Pure. */
void health_note(struct health *h, enum sick now, const char *why, uint64_t now_ms);

struct pg_health;

struct pg_health *pg_health_new(uv_loop_t *loop, struct fence *fence);
void pg_health_free(struct pg_health *h);
/* Every half second or so. `q`: the request "health" of this data; NULL: there is no data to write beside
 * now (none yet, or it is being replaced). True when what pg_health_seen() says has changed. */
bool pg_health_step(struct pg_health *h, const struct worker_req *q, const char *hung,
                    const char *unarchived);
const struct health *pg_health_seen(const struct pg_health *h);

#endif
