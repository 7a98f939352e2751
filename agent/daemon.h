/* What regentd holds, and its life: DCS, client, fence, PostgreSQL, engine, REST, signals. Main thread. */
#ifndef REGENT_AGENT_DAEMON_H
#define REGENT_AGENT_DAEMON_H

#include <uv.h>

#include "agent/callbacks.h"
#include "agent/dns.h"
#include "agent/engine.h"
#include "agent/host_watch.h"
#include "agent/rest.h"
#include "agent/rest_jobs.h"
#include "agent/templates.h"
#include "agent/vip.h"
#include "agent/watchdog.h"
#include "dcs/dcs.h"

enum {
    DAEMON_STOP_LIMIT_MS = 60000,
    DAEMON_STARTED_MS = 60000, /* what only the start needs is behind us */
    DAEMON_HOUR_MS = 3600000
};

struct daemon {
    struct config config;
    struct config_rec bootstrap;
    struct msg_arena bootstrap_arena;
    uv_loop_t loop;
    uv_timer_t wake, limit, alive, frugal;
    uv_signal_t term, interrupt, leave, hangup;
    uint64_t wake_at_ms;
    struct dcs *dcs;
    struct client *client;
    struct client_watch *watch;
    struct fence *fence;
    struct postgres *postgres;
    struct rest *rest;
    struct rest_jobs *jobs;
    struct templates *templates;
    struct callbacks *callbacks; /* NULL: a witness */
    struct dns *dns;
    struct host_watch *host;
    struct vip_keeper *vip;
    struct watchdog_keeper *watchdog;
    struct engine *engine;
    const char *fence_socket; /* of a fence that is a service of its own; NULL: rootless */
    bool restarting;
    bool closing;
    bool witness;
    bool failed; /* it ends because it must not go on */
};

/* Starts everything; uv_run() on `loop` until the last handle is closed. On an error what was started is
 * taken down again, PostgreSQL is left alone. */
enum err daemon_start(struct daemon *d, struct errmsg *e) MUST_CHECK;
/* Ends this daemon in order, as SIGTERM does; once. The process then ends with an error. */
void daemon_give_up(struct daemon *d);
/* Closes everything of the agent; the loop then ends. */
void daemon_finish(struct daemon *d);
/* Reads the configuration file again and takes over what a daemon that runs can; the log says what, and what waits for a
 * new start. A file with mistakes changes nothing. */
void daemon_reread(struct daemon *d);
/* After the loop: frees, stops the DCS. */
void daemon_close(struct daemon *d);

/* What the DCS is given; borrows everything. */
void daemon_dcs_options(const struct config *c, const char *ca_key, const char *secrets,
                        struct dcs_options *ret_options);

/* offline.c: what regentd does instead of running; prints a JSON object. */
enum offline_task {
    OFFLINE_NONE,
    OFFLINE_STATUS,
    OFFLINE_RESTORE,
    OFFLINE_PLAN,
    OFFLINE_RECOVER
};
/* c: NULL for OFFLINE_STATUS. Exit code: 0, 1, or 4 when it is refused. */
int offline_run(enum offline_task task, const struct config *c, const char *file);

/* daemon_ports.c: what the engine is given; `arg` is the daemon. */
extern const struct engine_ports daemon_ports;
extern const struct rest_jobs_ports daemon_rest_ports;

#endif
