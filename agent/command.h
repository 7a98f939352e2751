/* A shell command of the administrator (a check, a reload, a hook): a child in a session of its own that
 * can hang without harm. Loop thread of the agent. */
#ifndef REGENT_AGENT_COMMAND_H
#define REGENT_AGENT_COMMAND_H

#include <uv.h>

#include "base/base.h"
#include "base/err.h"

enum { COMMAND_LIMIT_MS = 30000, COMMAND_TEXT_MAX = 400, COMMAND_ENV_MAX = 8 };

#define COMMAND_NO_LIMIT UINT64_MAX

struct command_child;

/* Once, later. ERR_OK: exit status 0. Else e says how it ended and what it said last. */
typedef void command_cb(void *arg, enum err status, const struct errmsg *e);

struct command_order {
    const char *shell;
    const char *const *env; /* "NAME=VALUE", NULL-terminated; NULL: nothing more */
    /* then it is killed with all it has started; 0: COMMAND_LIMIT_MS; COMMAND_NO_LIMIT */
    uint64_t limit_ms;
};

/* Runs it by /bin/sh. Its environment: PATH, HOME, USER, LOGNAME, LANG, LC_ALL, TZ and TMPDIR as they are here, and
 * o->env; nothing else, for ours may hold passwords. ERR_IO: it could not be started, cb is not called. */
enum err command_start(uv_loop_t *loop, const struct command_order *o, command_cb *cb,
                       void *arg, struct command_child **ret_child, struct errmsg *e)
    MUST_CHECK;
/* Kills it; cb comes all the same. */
void command_kill(struct command_child *c);

#endif
