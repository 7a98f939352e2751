/* What pg_controldata and pg_waldump print, as numbers. Pure; what does not fit is refused. */
#ifndef REGENT_AGENT_WORKER_WORKER_CONTROL_H
#define REGENT_AGENT_WORKER_WORKER_CONTROL_H

#include "base/base.h"
#include "base/err.h"

struct control_data {
    uint64_t system_id;
    char state[40]; /* "in production", "shut down", "shut down in recovery", ... */
    uint64_t checkpoint_lsn;
    uint64_t redo_lsn;
    uint64_t timeline;
    uint64_t recovery_lsn; /* minimum recovery ending location */
    uint64_t recovery_timeline;
    uint64_t segment_bytes;
    /* "100/8/10/0/64": the settings a standby of this data needs at least, as agent/pg_limits.h has them */
    char limits[64];
};

enum err control_parse(const char *text, struct control_data *ret, struct errmsg *e) MUST_CHECK;
/* Where the record at lsn ends, from the first line of `pg_waldump --limit 1`: what a standby must
 * have flushed to own the whole record. */
enum err control_record_end(const char *line, uint64_t lsn, uint64_t segment_bytes,
                            uint64_t *ret_end, struct errmsg *e) MUST_CHECK;
/* First LSN behind the segment of that name; ERR_INVALID when it is not a WAL segment's name. */
enum err control_segment_end(const char *name, uint64_t segment_bytes, uint64_t *ret_timeline,
                             uint64_t *ret_end) MUST_CHECK;

#endif
