/* What systemd is about to do with us. */
#ifndef REGENT_AGENT_SYSTEMD_H
#define REGENT_AGENT_SYSTEMD_H

#include "base/base.h"

/* True when the job under way for our unit is a restart: then PostgreSQL is left for the next daemon. False
 * without systemd, or when it does not answer within half a second. Blocks so long; any thread. */
bool systemd_restarts_us(void);

#endif
