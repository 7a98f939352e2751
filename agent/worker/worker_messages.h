/* What the agent and its worker say to each other: MessagePack maps, one after the other, described
 * once here. A request is answered by any number of replies of kind "progress" and exactly one
 * "done" with the same id; `cancel` has none of its own.
 *
 * Both ends are the same release on the same host: there is no version. */
#ifndef REGENT_AGENT_WORKER_WORKER_MESSAGES_H
#define REGENT_AGENT_WORKER_WORKER_MESSAGES_H

#include "base/base.h"
#include "proto/mp.h"
#include "proto/msg.h"

enum { WORKER_PATH = 512, WORKER_FRAME_MAX = 1 << 20 };

/* op            needs                                     does
 * probe         name data_dir bin_dir wal_rate            fills the reply from what lies on the disk
 * prepare       data_dir files slots dirs standby purge lineage unseal everything before a start: directories, files,
 *                                                         standby.signal; owned settings leave
 *                                                         postgresql.auto.conf
 * write         data_dir files lineage unseal             files alone; those that are so already stay
 * seal          data_dir incarnation token lsn timeline   the durable seal
 * made          data_dir                                  the new cluster is complete: no longer fresh
 * lineage       data_dir lineage                          view_pg.lineage, durable
 * signal        data_dir pid signal                       to a process of this PostgreSQL; pid 0: the
 *                                                         postmaster
 * initdb        name data_dir bin_dir args user password
 * clone         name data_dir bin_dir host port user passfile args remove_old   (host port: also ports read_write)
 * bootstrap     name data_dir bin_dir command args recovery keep_recovery purge user password
 *                                                         new data by a program of the administrator, recovered to
 *                                                         its target when that is asked for
 * adopt         name data_dir bin_dir user password       data of a primary that is there becomes a new cluster's; a
 *                                                         server that runs on it is stopped
 * restore       name data_dir bin_dir command args host port user passfile keep_data remove_old lineage
 *                                                         a copy by a program of the administrator
 * rewind        name data_dir bin_dir host port user passfile files dirs
 * tail          path                                      the end of a log, into text
 * wal           data_dir bin_dir lsn                      more: does pg_wal go on behind lsn, on any timeline?
 * health        data_dir                                  writes to the disks, and says how much room they have
 * cancel                                                  ends what runs; id is that request's */
#define WORKER_FILE(U64, BOOL, TEXT, BYTES, MANY)             \
    TEXT(path, WORKER_PATH) /* absolute, or below data_dir */ \
    BYTES(content)                                            \
    U64(mode) /* 0: 0600 */

#define WORKER_REQ(U64, BOOL, TEXT, BYTES, MANY)                                         \
    U64(id)                                                                              \
    TEXT(op, 16)                                                                         \
    TEXT(name, 64) /* of this node: an incarnation that names another one is not ours */ \
    TEXT(data_dir, WORKER_PATH)                                                          \
    TEXT(bin_dir, WORKER_PATH) /* "": found by version in the usual places */            \
    TEXT(path, WORKER_PATH)    /* prepare: of the socket */                              \
    MANY(files, worker_file)                                                             \
    MANY(slots, worker_file) /* prepare: state files of slots, path: the slot's name */  \
    BYTES(command)           /* shell, NUL at its end */                                 \
    BOOL(keep_data)                                                                      \
    BOOL(remove_old) /* clone, restore: the old data is deleted, not moved aside */      \
    BOOL(keep_recovery)                                                                  \
    BYTES(recovery) /* lines of a configuration file */                                  \
    BYTES(args)     /* NUL after each */                                                 \
    BYTES(dirs)     /* NUL after each; made 0700 when missing */                         \
    BYTES(purge)    /* NUL after each: settings taken out of postgresql.auto.conf */     \
    BOOL(standby)                                                                        \
    BOOL(unseal) /* prepare, write: lift the seal first */                               \
    TEXT(user, 64)                                                                       \
    BYTES(password)                                                                      \
    TEXT(host, 256)                                                                      \
    U64(port)                                                                            \
    TEXT(ports, 64)  /* of several hosts; "": port */                                    \
    BOOL(read_write) /* ... whoever takes writes */                                      \
    TEXT(passfile, WORKER_PATH)                                                          \
    TEXT(slot, 64)                                                                       \
    TEXT(incarnation, 40)                                                                \
    TEXT(lineage, 160) /* prepare, lineage, clone, rewind: noted; "": left as it is */   \
    U64(token)                                                                           \
    U64(lsn)                                                                             \
    U64(timeline)                                                                        \
    U64(pid)                                                                             \
    U64(signal)                                                                          \
    U64(wal_rate) /* bytes of WAL a second that recovery replays; 0: a cautious guess */

#define WORKER_REPLY(U64, BOOL, TEXT, BYTES, MANY)                                            \
    U64(id)                                                                                   \
    TEXT(kind, 12)  /* progress | done */                                                     \
    TEXT(error, 32) /* err_name(); "" when done well */                                       \
    TEXT(text, 512) /* the error in words; of tail: the lines */                              \
    U64(percent)    /* progress: of what it copies */                                         \
    U64(bytes)      /* progress: in the data directory; 0: not looked at */                   \
    TEXT(data,                                                                                \
         12) /* probe: empty | ours | broken | foreign (sound, made by nobody of ours) */     \
    TEXT(trouble, 160)                                                                        \
    TEXT(version, 16)          /* of the programs: "15.8" */                                  \
    TEXT(bin_dir, WORKER_PATH) /* where they are */                                           \
    TEXT(incarnation, 40)                                                                     \
    TEXT(lineage, 160)                                                                        \
    BOOL(standby)                                                                             \
    BOOL(fresh) /* made here, and not yet complete */                                         \
    U64(system_id)                                                                            \
    TEXT(state, 40) /* pg_controldata's "Database cluster state" */                           \
    U64(checkpoint_lsn)                                                                       \
    U64(redo_lsn)                                                                             \
    U64(timeline)     /* of the latest checkpoint */                                          \
    U64(recovery_lsn) /* minimum recovery end */                                              \
    U64(recovery_timeline)                                                                    \
    U64(shutdown_lsn) /* end of the shutdown checkpoint's record; 0: not shut down cleanly */ \
    U64(recovery_ms)                                                                          \
    TEXT(limits, 64) /* pg_limits.h: what a standby of this data needs at least */            \
    U64(seal_token)                                                                           \
    U64(seal_lsn)                                                                             \
    U64(seal_timeline)                                                                        \
    BOOL(more)     /* wal */                                                                  \
    U64(data_free) /* health: bytes */                                                        \
    U64(data_size)                                                                            \
    U64(wal_free)                                                                             \
    U64(wal_size)

#define W_U64(f) uint64_t f;
#define W_BOOL(f) bool f;
#define W_TEXT(f, n) char f[n];
#define W_BYTES(f) struct slice f;
#define W_MANY(f, m) struct slice f;
struct worker_file {
    WORKER_FILE(W_U64, W_BOOL, W_TEXT, W_BYTES, W_MANY)
};
struct worker_req {
    WORKER_REQ(W_U64, W_BOOL, W_TEXT, W_BYTES, W_MANY)
};
struct worker_reply {
    WORKER_REPLY(W_U64, W_BOOL, W_TEXT, W_BYTES, W_MANY)
};
#undef W_U64
#undef W_BOOL
#undef W_TEXT
#undef W_BYTES
#undef W_MANY

extern const struct msg msg_worker_file;
extern const struct msg msg_worker_req;
extern const struct msg msg_worker_reply;
extern const struct mp_limits worker_limits;

#endif
