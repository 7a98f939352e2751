/* The dynamic configuration of a file. conf/dynamic.c checks it, agent/core/view_config.c knows its meaning. */

#include "conf/dynamic.h"
#include "agent/mirror.h"

enum err config_from_json(struct slice json, struct config_rec *ret_config,
                          struct msg_arena *arena, struct errmsg *e)
{
    struct buf normal CLEANUP(buf_close) = BUF_INIT;
    enum err rv = dynamic_check(json, &normal, e);
    return rv == ERR_OK
               ? msg_from_json(&msg_config_rec, buf_slice(&normal), ret_config, arena, e)
               : rv;
}
