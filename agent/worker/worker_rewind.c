/* pg_rewind, with what it leaves to its caller: crash recovery first, the diverged tail kept, and a
 * new incarnation at the end. */
#include <stdio.h>

#include "agent/worker/worker_locks.h"
#include "agent/worker/worker_ops.h"
#include "agent/worker/worker_salvage.h"
#include "base/str.h"

enum { RECOVERY_TIMEOUT_MS = 3600 * 1000 };

static bool is_clean(const struct control_data *c)
{
    return strcmp(c->state, "shut down") == 0 || strcmp(c->state, "shut down in recovery") == 0;
}

/* Single-user mode replays the WAL and shuts down; no connection is possible meanwhile. */
static enum err recover(struct worker *w, const struct worker_req *q, const char *bin_dir,
                        struct errmsg *e)
{
    char path[FILES_PATH];
    struct tool t = {.timeout_ms = RECOVERY_TIMEOUT_MS};
    enum err rv = files_path(path, bin_dir, "postgres", e);
    if (rv != ERR_OK)
        return rv;
    const char *args[] = {path,       "--single",         "-D", q->data_dir,
                          "-c",       "archive_mode=off", "-c", "synchronous_standby_names=",
                          "template1"};
    for (size_t i = 0; i < ARRAY_LEN(args); i++)
        tool_arg(&t, args[i]);
    char lock[FILES_PATH];
    if (files_path(lock, q->data_dir, "postmaster.pid", NULL) == ERR_OK)
        locks_remove_dead(lock, q->data_dir);
    rv = tool_run(w, &t, NULL, e);
    return rv == ERR_OK ? rv : err_wrap(e, rv, "crash recovery before the rewind");
}

static enum err make_clean(struct worker *w, const struct worker_req *q, const char *bin_dir,
                           struct errmsg *e)
{
    struct control_data c;
    enum err rv = control_read(w, bin_dir, q->data_dir, &c, e);
    if (rv != ERR_OK || is_clean(&c))
        return rv;
    /* Recovery of a standby's data ends in a line of its own: from here on it is no copy of
     * anything. A primary's data stays what it was. */
    if (strcmp(c.state, "in archive recovery") == 0)
        rv = incarnation_void(q->data_dir, e);
    if (rv == ERR_OK)
        rv = signal_file_set(q->data_dir, false, e);
    return rv == ERR_OK ? recover(w, q, bin_dir, e) : rv;
}

static enum err run_rewind(struct worker *w, const struct worker_req *q, const char *bin_dir,
                           bool dry, struct buf *out, struct errmsg *e)
{
    char path[FILES_PATH];
    char source[1400];
    struct buf conninfo CLEANUP(buf_close) = BUF_INIT;
    struct tool t = {.says_percent = !dry};
    enum err rv = files_path(path, bin_dir, "pg_rewind", e);
    tool_conninfo(q, "postgres", &conninfo);
    if (rv == ERR_OK)
        rv = str_format(source, sizeof source, "--source-server=%s", buf_cstr(&conninfo));
    if (rv != ERR_OK)
        return rv;
    tool_arg(&t, path);
    tool_arg(&t, "-D");
    tool_arg(&t, q->data_dir);
    tool_arg(&t, source);
    tool_arg(&t, "--no-ensure-shutdown");
    tool_arg(&t, dry ? "--dry-run" : "--progress");
    return tool_run(w, &t, out, e);
}

static enum err verify(struct worker *w, const struct worker_req *q, const char *bin_dir,
                       uint64_t system_id, bool rewound, struct errmsg *e)
{
    char path[FILES_PATH];
    struct control_data c;
    enum err rv = control_read(w, bin_dir, q->data_dir, &c, e);
    if (rv == ERR_OK && c.system_id != system_id)
        rv = err_set(e, ERR_CORRUPT, "pg_rewind left another system identifier");
    if (rv == ERR_OK)
        rv = files_path(path, q->data_dir, "backup_label", e);
    if (rv == ERR_OK && rewound && !files_exists(path))
        rv = err_set(e, ERR_CORRUPT, "pg_rewind left no backup_label");
    return rv;
}

static enum err rewind_it(struct worker *w, const struct worker_req *q, const char *bin_dir,
                          struct worker_reply *r, struct errmsg *e)
{
    struct control_data c;
    struct errmsg note = {0};
    struct buf out CLEANUP(buf_close) = BUF_INIT;
    enum err rv = control_read(w, bin_dir, q->data_dir, &c, e);
    if (rv == ERR_OK)
        rv = run_rewind(w, q, bin_dir, true, &out, e);
    if (rv != ERR_OK)
        return rv;
    /* The same timeline id given out twice looks like no divergence to it. */
    if (strstr(buf_cstr(&out), "same timeline") != NULL)
        return err_set(
            e, ERR_PRECONDITION,
            "pg_rewind sees the same timeline on both sides and would change nothing: "
            "clone instead");
    bool needed = strstr(buf_cstr(&out), "no rewind required") == NULL;
    if (needed &&
        salvage(w, q, bin_dir, buf_cstr(&out), &c, r->text, sizeof r->text, &note) != ERR_OK)
        (void)snprintf(r->text, sizeof r->text, "diverged WAL is not kept: %.440s", note.text);
    rv = incarnation_void(q->data_dir, e);
    if (rv == ERR_OK && needed)
        rv = run_rewind(w, q, bin_dir, false, &out, e);
    return rv == ERR_OK ? verify(w, q, bin_dir, c.system_id, needed, e) : rv;
}

enum err op_rewind(struct worker *w, const struct worker_req *q, struct worker_reply *r,
                   struct errmsg *e)
{
    struct worker_req before = *q;
    before.lineage[0] = '\0'; /* the rewound data's, not this one's */
    before.standby = false;
    enum err rv = programs_find(q, r->bin_dir, e);
    if (rv == ERR_OK)
        rv = op_prepare(w, &before, r, e);
    if (rv == ERR_OK)
        rv = make_clean(w, q, r->bin_dir, e);
    if (rv == ERR_OK)
        rv = rewind_it(w, q, r->bin_dir, r, e);
    /* pg_rewind copied the source's own files; none of them speaks for this data. */
    if (rv == ERR_OK)
        rv = incarnation_void(q->data_dir, e);
    if (rv == ERR_OK)
        rv = signal_file_set(q->data_dir, true, e);
    if (rv == ERR_OK)
        rv = lineage_write(q->data_dir, q->lineage, e);
    return rv == ERR_OK ? incarnation_write(q->data_dir, q->name, r->incarnation, e) : rv;
}
