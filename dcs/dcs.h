/* The DCS of this node, as the agent and main() see it: everything else in dcs/ is private.
 *
 * dcs_start() opens the databases, binds the port and runs the DCS loop in a thread of its own. A
 * storage error later ends the process (fail-stop). All talk goes through the wire protocol: the
 * agent connects with dcs_connect() and uses proto/client.h, so that there is one request path for
 * everybody. */
#ifndef REGENT_DCS_DCS_H
#define REGENT_DCS_DCS_H

#include "base/base.h"
#include "base/err.h"

enum { DCS_JOIN_MAX = 16 };

struct dcs_options {
    const char *scope;
    const char *name;
    const char *data_dir;        /* log.db, state.db, snapshots, regent.sock */
    const char *listen;          /* host:port */
    const char *connect_address; /* host:port that others dial */
    const char *role;            /* voter | learner | witness */
    const char *ca_file;
    const char *cert_file;
    const char *key_file;
    /* may be absent: then fetched from a voter, once this is one */
    const char *ca_key_file;
    const char *secrets_file;       /* handed to a joining node */
    const char *join[DCS_JOIN_MAX]; /* addresses of members known when this node joined */
    size_t n_join;
    uint64_t election_ms;    /* 0: 1000 */
    uint64_t heartbeat_ms;   /* 0: 100 */
    uint64_t snapshot_every; /* entries of the log; 0: 65536; smaller in tests */
    /* Copies that are made by themselves (dcs/archive.h). NULL: DATA_DIR/backups; 0: none. */
    const char *archive_dir;
    uint64_t archive_interval_s;
    uint64_t archive_keep;
    /* called before the process ends; may be NULL */
    void (*on_fatal)(void *arg, const char *what);
    void *arg;
};

struct dcs;

/* ---- without a running node ---- */

struct buf;
/* A file of `regentctl dcs snapshot save`, verified: what is in it, as a JSON object. */
enum err dcs_snapshot_status(const char *file, struct buf *ret_json, struct errmsg *e)
    MUST_CHECK;
/* Makes the state in `file` the first one of a new cluster, of which this node, whose certificate is
 * there already (member id: next_member of the status), is the only member. */
enum err dcs_restore(const struct dcs_options *o, const char *file, struct buf *ret_json,
                     struct errmsg *e) MUST_CHECK;
/* The same with this node's own state after the loss of the majority for ever: everything in its log counts
 * as committed; new CA, new cluster id, so that the old members are locked out. What was there is set
 * aside in the data directory. plan: only says what it would do. An interrupted one goes on when called
 * again. */
enum err dcs_recover(const struct dcs_options *o, bool plan, struct buf *ret_json,
                     struct errmsg *e) MUST_CHECK;

/* Checks everything that can be wrong before it changes anything on disk. An empty data directory
 * whose certificate says "first" (regentctl init) bootstraps; every other one joins. */
enum err dcs_start(const struct dcs_options *o, struct dcs **ret_dcs, struct errmsg *e)
    MUST_CHECK;
/* Leaves leadership first when it can, then stops the thread and closes the databases. */
void dcs_stop(struct dcs *d);
/* A connected stream socket to this node's DCS with admin rights (both ends close by themselves);
 * -1 when the DCS is stopping. Any thread. Fits client_options.connect_fd. */
int dcs_connect(void *dcs);
uint64_t dcs_member_id(const struct dcs *d);
const char *dcs_cluster_id(const struct dcs *d);

#endif
