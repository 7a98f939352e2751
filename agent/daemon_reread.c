/* SIGHUP and `regentctl reload`: the file of the node is read again. */
#include <string.h>

#include "agent/daemon.h"
#include "base/log.h"
#include "base/mem.h"

static enum err read_again(const struct daemon *d, struct config *ret, struct errmsg *e)
{
    struct buf report CLEANUP(buf_close) = {.max = 65536};
    enum err rv = config_load(d->config.path, ret, &report);
    if (rv != ERR_OK)
        return err_set(e, rv, "%.*s", (int)strcspn(buf_cstr(&report), "\n"), buf_cstr(&report));
    char *secrets CLEANUP(mem_cleanup) = mem_printf("%s/secrets.yml", ret->data_dir);
    rv = d->witness ? ERR_OK : config_load_secrets(ret, secrets, e);
    if (rv != ERR_OK)
        config_close(ret);
    return rv;
}

static void put_in_force(struct daemon *d)
{
    enum log_level level = LOG_INFO;
    if (log_level_parse(d->config.log.level, &level) != ERR_OK)
        level = LOG_INFO;
    log_setup(level, strcmp(d->config.log.format, "json") == 0 ? LOG_JSON : LOG_LOGFMT);
    engine_set_pre_promote(d->engine,
                           !d->witness && d->config.postgresql.pre_promote[0] != '\0');
}

void daemon_reread(struct daemon *d)
{
    struct config next;
    struct errmsg e = {0};
    struct buf taken CLEANUP(buf_close) = BUF_INIT;
    struct buf waiting CLEANUP(buf_close) = BUF_INIT;
    if (read_again(d, &next, &e) != ERR_OK) {
        log_event(LOG_ERROR, "reread", NO_KV, "nothing is changed: %s", e.text);
        return;
    }
    config_take(&d->config, &next, &taken, &waiting);
    config_close(&next);
    put_in_force(d);
    engine_set_file_waits(d->engine, buf_cstr(&waiting));
    log_event(LOG_INFO, "reread", NO_KV, "the configuration file was read again, in force: %s",
              taken.len > 0 ? buf_cstr(&taken) : "nothing new");
    if (waiting.len > 0)
        log_event(LOG_WARN, "reread", NO_KV, "in force when the daemon is started again: %s",
                  buf_cstr(&waiting));
}
