/* pg_rewind, with what it leaves to its caller: crash recovery first, the diverged tail kept, and a
 * new incarnation at the end. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/pg_text.h"
#include "agent/worker/worker_locks.h"
#include "agent/worker/worker_ops.h"
#include "base/str.h"

enum { TAIL_SEGMENTS_MAX = 64, RECOVERY_TIMEOUT_MS = 3600 * 1000 };

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
    struct tool t = {0};
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
    if (dry)
        tool_arg(&t, "--dry-run");
    return tool_run(w, &t, out, e);
}

/* "servers diverged at WAL location 0/3000148 on timeline 1" */
static bool diverged_at(const char *text, uint64_t *ret_lsn, uint64_t *ret_timeline)
{
    char lsn[24];
    char *end = NULL;
    const char *p = strstr(text, "diverged at WAL location ");
    const char *on = p != NULL ? strstr(p, " on timeline ") : NULL;
    if (p == NULL || on == NULL)
        return false;
    p += strlen("diverged at WAL location ");
    if (on < p || str_copy_slice(lsn, sizeof lsn, slice_of(p, (size_t)(on - p))) != ERR_OK)
        return false;
    on += strlen(" on timeline ");
    *ret_timeline = strtoul(on, &end, 10);
    return end != on && pg_lsn_parse(lsn, ret_lsn) == ERR_OK;
}

static enum err copy_file(const char *from, const char *to, struct errmsg *e)
{
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ssize_t n = in >= 0 && out >= 0 ? 1 : -1;
    while (n > 0)
        n = sendfile(out, in, NULL, 1U << 24);
    enum err rv = n == 0 && fsync(out) == 0
                      ? ERR_OK
                      : err_set(e, err_from_errno(errno), "copy %s: %s", from, strerror(errno));
    if (in >= 0)
        (void)close(in);
    if (out >= 0)
        (void)close(out);
    return rv;
}

/* One entry of pg_wal: copied when it holds something behind the point. */
static enum err keep_segment(const struct worker_req *q, const char *name, const char *to,
                             uint64_t lsn, uint64_t timeline, uint64_t segment, unsigned *kept,
                             struct errmsg *e)
{
    char source[FILES_PATH];
    char copy[FILES_PATH];
    uint64_t tl;
    uint64_t end;
    struct stat st;
    if (control_segment_end(name, segment, &tl, &end) != ERR_OK || tl < timeline || end <= lsn)
        return ERR_OK;
    enum err rv = str_format(source, sizeof source, "%s/pg_wal/%s", q->data_dir, name);
    if (rv == ERR_OK)
        rv = files_path(copy, to, name, e);
    if (rv != ERR_OK)
        return rv;
    if (stat(source, &st) != 0 || *kept >= TAIL_SEGMENTS_MAX)
        return err_set(e, ERR_LIMIT, "more than %d segments diverged", TAIL_SEGMENTS_MAX);
    *kept += 1;
    return copy_file(source, copy, e);
}

/* The WAL from the point of divergence on, kept beside the data: what it holds is lost otherwise. */
static enum err keep_tail(const struct worker_req *q, const char *text, uint64_t segment,
                          struct worker_reply *r, struct errmsg *e)
{
    char to[FILES_PATH];
    char wal[FILES_PATH];
    char stamp[20];
    uint64_t lsn;
    uint64_t timeline;
    unsigned kept = 0;
    if (!diverged_at(text, &lsn, &timeline))
        return ERR_OK;
    files_stamp(stamp);
    enum err rv = str_format(to, sizeof to, "%s.diverged-%s", q->data_dir, stamp);
    if (rv == ERR_OK)
        rv = files_path(wal, q->data_dir, "pg_wal", e);
    if (rv == ERR_OK)
        rv = files_own_dir(to, e);
    DIR *d = rv == ERR_OK ? opendir(wal) : NULL;
    if (rv == ERR_OK && d == NULL)
        rv = err_set(e, err_from_errno(errno), "open %s: %s", wal, strerror(errno));
    for (struct dirent *entry; rv == ERR_OK && d != NULL && (entry = readdir(d)) != NULL;)
        rv = keep_segment(q, entry->d_name, to, lsn, timeline, segment, &kept, e);
    if (d != NULL)
        (void)closedir(d);
    if (rv == ERR_OK)
        (void)snprintf(r->text, sizeof r->text, "%u diverged WAL segments kept in %.380s", kept,
                       to);
    return rv;
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
    if (needed && keep_tail(q, buf_cstr(&out), c.segment_bytes, r, &note) != ERR_OK)
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
