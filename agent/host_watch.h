/* What this machine is like, for people and alerts: room on the disks, and how long it will last; how long the
 * certificate does. Looked at every 20 s in a worker of libuv: a disk that hangs holds up nothing here.
 * Loop thread of the agent. */
#ifndef REGENT_AGENT_HOST_WATCH_H
#define REGENT_AGENT_HOST_WATCH_H

#include <uv.h>

#include "conf/config.h"

enum { HOST_SAMPLES = 90, HOST_EVERY_MS = 20000, HOST_PATIENCE_MS = 300000 };

struct host_disk {
    bool known;
    uint64_t free_bytes, total_bytes;
    uint64_t full_in_s; /* as it has gone for the last half hour; 0: it is not filling up */
};

struct host_seen {
    uint64_t looks;
    struct host_disk state, pgdata; /* where data_dir and PGDATA are */
    bool has_certificate;
    int64_t certificate_s; /* until the node's certificate expires; negative: it has */
};

struct host_sample {
    uint64_t at_ms, free_bytes;
};

/* The newest HOST_SAMPLES of one disk; zeroed: none. */
struct host_history {
    struct host_sample samples[HOST_SAMPLES];
    size_t n, next;
};

struct host_watch;

/* `c` must outlive it. */
struct host_watch *host_watch_new(uv_loop_t *loop, const struct config *c);
/* Frees itself when what runs has ended. NULL is allowed. */
void host_watch_stop(struct host_watch *h);
const struct host_seen *host_watch_seen(const struct host_watch *h);

/* Pure: adds a sample; seconds until the disk is full if it goes on like that, 0: it does not, or less than
 * HOST_PATIENCE_MS is known. */
uint64_t host_forecast(struct host_history *h, struct host_sample now);

#endif
