/* The data of a server that Regent has not made becomes a new cluster's. The fence can only guard what it has started
 * itself, so a server that runs is stopped; docs/decisions/0013-adoption.md */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "agent/worker/worker_locks.h"
#include "agent/worker/worker_ops.h"
#include "base/clock.h"

enum { STOP_MS = 60000, STOP_POLL_MS = 20 };

/* A fast stop: what clients have committed stays. Never harder: who asked for an adoption can look why. */
static enum err stop_server(struct worker *w, const char *data_dir, struct errmsg *e)
{
    unsigned long pid = locks_holder(data_dir);
    uint64_t until_ms = clock_mono_ms() + STOP_MS;
    if (pid != 0)
        (void)kill((pid_t)pid, SIGINT);
    while (locks_holder(data_dir) != 0) {
        worker_listen(w);
        if (w->cancelled || w->gone)
            return err_set(e, ERR_CANCELLED, "cancelled");
        if (clock_mono_ms() >= until_ms)
            return err_set(
                e, ERR_TIMEOUT,
                "the server that runs in %.200s (process %lu) has not stopped within %d s",
                data_dir, pid, STOP_MS / 1000);
        (void)nanosleep(&(struct timespec){.tv_nsec = STOP_POLL_MS * 1000000L}, NULL);
    }
    return ERR_OK;
}

/* `regentctl adopt` has carried over what they say; as it stands there, some would contradict ours. */
static enum err set_conf_aside(const struct worker_req *q, struct errmsg *e)
{
    static const char *const files[][2] = {{"postgresql.conf", "postgresql.adopted.conf"},
                                           {"pg_hba.conf", "pg_hba.adopted.conf"},
                                           {"pg_ident.conf", "pg_ident.adopted.conf"}};
    enum err rv = ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(files) && rv == ERR_OK; i++) {
        char from[FILES_PATH];
        char to[FILES_PATH];
        rv = files_path(from, q->data_dir, files[i][0], e);
        if (rv == ERR_OK)
            rv = files_path(to, q->data_dir, files[i][1], e);
        if (rv == ERR_OK && files_exists(from))
            rv = files_rename(from, to, e);
    }
    return rv;
}

static enum err check_primary(const struct worker_req *q, const struct control_data *c,
                              struct errmsg *e)
{
    static const char *const signals[] = {SIGNAL_FILE, "recovery.signal"};
    bool standby =
        strstr(c->state, "recovery") != NULL && strcmp(c->state, "in crash recovery") != 0;
    for (size_t i = 0; i < ARRAY_LEN(signals); i++) {
        char path[FILES_PATH];
        standby = standby || (files_path(path, q->data_dir, signals[i], NULL) == ERR_OK &&
                              files_exists(path));
    }
    return !standby
               ? ERR_OK
               : err_set(
                     e, ERR_PRECONDITION,
                     "%.200s is a standby's: adopt its primary, and let this node be cloned",
                     q->data_dir);
}

enum err op_adopt(struct worker *w, const struct worker_req *q, struct worker_reply *r,
                  struct errmsg *e)
{
    struct control_data c;
    char lineage[40];
    enum err rv = programs_find(q, r->bin_dir, e);
    if (rv == ERR_OK)
        rv = control_read(w, r->bin_dir, q->data_dir, &c, e);
    if (rv == ERR_OK)
        rv = check_primary(q, &c, e);
    if (rv == ERR_OK)
        rv = stop_server(w, q->data_dir, e);
    if (rv == ERR_OK)
        rv = superuser_set(w, q, r->bin_dir, e);
    if (rv == ERR_OK)
        rv = set_conf_aside(q, e);
    if (rv == ERR_OK)
        rv = control_read(w, r->bin_dir, q->data_dir, &c, e);
    if (rv != ERR_OK)
        return rv;
    (void)snprintf(lineage, sizeof lineage, "%" PRIu64 ":1", c.timeline);
    rv = lineage_write(q->data_dir, lineage, e);
    return rv == ERR_OK ? incarnation_write(q->data_dir, q->name, r->incarnation, e) : rv;
}
