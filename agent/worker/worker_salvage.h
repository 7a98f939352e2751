/* What a rewind throws away, kept beside the data (PGDATA.diverged-UTC). */
#ifndef REGENT_AGENT_WORKER_WORKER_SALVAGE_H
#define REGENT_AGENT_WORKER_WORKER_SALVAGE_H

#include "agent/worker/worker_control.h"
#include "agent/worker/worker_tool.h"

/* `rewind_says`: what pg_rewind --dry-run wrote; `c`: of this data. Copies the WAL behind the point of
 * divergence, lists its transactions with pg_waldump, and fills ret_text with words for people; "" when
 * nothing diverged. At most five such directories are kept, of 64 segments each. */
enum err salvage(struct worker *w, const struct worker_req *q, const char *bin_dir,
                 const char *rewind_says, const struct control_data *c, char *ret_text,
                 size_t size, struct errmsg *e) MUST_CHECK;

#endif
