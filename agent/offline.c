/* Work on the store without a running node, for `regentctl dcs snapshot status|restore` and `recover`:
 * regentctl speaks only the wire protocol, the files are regentd's. */
#include <stdio.h>

#include "agent/daemon.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"

enum { EXIT_REFUSED = 4 };

static enum err run(enum offline_task task, const struct dcs_options *o, const char *file,
                    struct buf *ret_json, struct errmsg *e)
{
    switch (task) {
    case OFFLINE_STATUS:
        return dcs_snapshot_status(file, ret_json, e);
    case OFFLINE_RESTORE:
        return dcs_restore(o, file, ret_json, e);
    case OFFLINE_PLAN:
        return dcs_recover(o, true, ret_json, e);
    case OFFLINE_RECOVER:
        return dcs_recover(o, false, ret_json, e);
    case OFFLINE_NONE:
        break;
    }
    UNREACHABLE();
}

int offline_run(enum offline_task task, const struct config *c, const char *file)
{
    struct errmsg e = {0};
    struct buf json CLEANUP(buf_close) = BUF_INIT;
    struct dcs_options o = {0};
    const char *data_dir = c != NULL ? c->data_dir : "";
    char *ca_key CLEANUP(mem_cleanup) = mem_printf("%s/pki/ca.key", data_dir);
    char *secrets CLEANUP(mem_cleanup) = mem_printf("%s/secrets.yml", data_dir);
    if (c != NULL)
        daemon_dcs_options(c, ca_key, secrets, &o);
    log_setup(LOG_ERROR, LOG_LOGFMT);
    enum err rv = run(task, &o, file, &json, &e);
    if (rv != ERR_OK) {
        (void)fprintf(stderr, "%s\n", e.text);
        return rv == ERR_PRECONDITION ? EXIT_REFUSED : 1;
    }
    (void)fwrite(json.p, 1, json.len, stdout);
    return fflush(stdout) == 0 ? 0 : 1;
}
