/* The worker's operations, one function each; see worker_messages.h for what they need and do.
 *
 * A data directory is *ours* when regent.incarnation names this node. The file is the last thing an
 * initdb, a clone and a rewind write; it is not there, or names the node it was copied from, when
 * one of them was cut short. */
#ifndef REGENT_AGENT_WORKER_WORKER_OPS_H
#define REGENT_AGENT_WORKER_WORKER_OPS_H

#include "agent/worker/worker_control.h"
#include "agent/worker/worker_files.h"
#include "agent/worker/worker_tool.h"

#define INCARNATION_FILE "regent.incarnation"
#define SEAL_FILE "regent.seal"
#define LINEAGE_FILE "regent.lineage"
#define FRESH_FILE "regent.fresh"
#define HEALTH_FILE "regent.health"
#define REMOVE_FILE "regent.remove"
#define SIGNAL_FILE "standby.signal"
#define BASE_CONF_FILE "postgresql.base.conf"

typedef enum err worker_op(struct worker *w, const struct worker_req *q, struct worker_reply *r,
                           struct errmsg *e);

worker_op op_probe, op_prepare, op_write, op_seal, op_lineage, op_signal, op_tail, op_initdb,
    op_clone, op_rewind, op_made, op_bootstrap, op_restore, op_health, op_adopt, op_wal;

/* ---- shared between them ---- */

/* The directory of PostgreSQL's programs: as asked for, else by the version of the data, else the
 * newest in the usual places. */
enum err programs_find(const struct worker_req *q, char ret[static WORKER_PATH],
                       struct errmsg *e) MUST_CHECK;
/* "15.8" of the programs there. */
enum err programs_version(struct worker *w, const char *bin_dir, char ret[static 16],
                          struct errmsg *e) MUST_CHECK;
/* pg_controldata of the data directory. */
enum err control_read(struct worker *w, const char *bin_dir, const char *data_dir,
                      struct control_data *ret, struct errmsg *e) MUST_CHECK;
/* worker_wal.c: what pg_waldump prints for the first record at or behind that place. ERR_IO: there is none, among
 * others. */
struct wal_at {
    const char *bin_dir, *data_dir;
    uint64_t timeline, lsn;
};
enum err wal_record(struct worker *w, const struct wal_at *at, struct buf *output,
                    struct errmsg *e) MUST_CHECK;
/* Of recovery: settings that auto.conf would win with; q->purge. */
enum err auto_conf_purge(const struct worker_req *q, struct errmsg *e) MUST_CHECK;
/* worker_recover.c: runs archive recovery to its end, where nobody can connect; the data is a primary's then, shut
 * down cleanly, on a timeline of its own. */
enum err recover_to_target(struct worker *w, const struct worker_req *q, const char *bin_dir,
                           struct errmsg *e) MUST_CHECK;
/* The superuser q->user exists and has q->password: in single-user mode. */
enum err superuser_set(struct worker *w, const struct worker_req *q, const char *bin_dir,
                       struct errmsg *e) MUST_CHECK;
/* Marks data that a bootstrap has made. */
enum err fresh_write(const char *data_dir, struct errmsg *e) MUST_CHECK;
/* Standby or not, by the file; durable. */
enum err signal_file_set(const char *data_dir, bool standby, struct errmsg *e) MUST_CHECK;

/* ERR_NOT_FOUND: none, or another node's. */
enum err incarnation_read(const char *data_dir, const char *name, char ret[static 40],
                          struct errmsg *e) MUST_CHECK;
enum err incarnation_write(const char *data_dir, const char *name, char ret[static 40],
                           struct errmsg *e) MUST_CHECK;
/* worker_req.slots. */
enum err slots_lay_down(const struct worker_req *q, struct errmsg *e) MUST_CHECK;
/* Does nothing for "". */
enum err lineage_write(const char *data_dir, const char *lineage, struct errmsg *e) MUST_CHECK;
/* Incarnation, seal and lineage: the first step of everything that makes the data something else. */
enum err incarnation_void(const char *data_dir, struct errmsg *e) MUST_CHECK;

/* "host='...' port='...' ..." for tools: no secret in it. */
void tool_conninfo(const struct worker_req *q, const char *dbname, struct buf *ret);

#endif
