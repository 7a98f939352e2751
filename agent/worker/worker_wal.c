/* WAL that lies in pg_wal, read with pg_waldump. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "agent/worker/worker_ops.h"
#include "base/str.h"

enum { RECORD_TIMEOUT_MS = 10000 };

enum err wal_record(struct worker *w, const struct wal_at *at, struct buf *output,
                    struct errmsg *e)
{
    char path[FILES_PATH];
    char wal[FILES_PATH];
    char lsn[24];
    char timeline[24];
    struct tool t = {.timeout_ms = RECORD_TIMEOUT_MS};
    enum err rv = files_path(path, at->bin_dir, "pg_waldump", e);
    if (rv == ERR_OK)
        rv = files_path(wal, at->data_dir, "pg_wal", e);
    if (rv != ERR_OK)
        return rv;
    (void)snprintf(lsn, sizeof lsn, "%" PRIX64 "/%" PRIX64, at->lsn >> 32,
                   at->lsn & 0xffffffffU);
    (void)snprintf(timeline, sizeof timeline, "%" PRIu64, at->timeline);
    const char *args[] = {path, "-p", wal, "-s", lsn, "-t", timeline, "-n", "1"};
    for (size_t i = 0; i < ARRAY_LEN(args); i++)
        tool_arg(&t, args[i]);
    return tool_run(w, &t, output, e);
}

/* In words of its own pg_waldump says that the log ends there; everything else that goes wrong proves nothing. */
static enum err is_record(struct worker *w, const struct wal_at *at, bool *ret_is,
                          struct errmsg *e)
{
    enum err rv = wal_record(w, at, NULL, e);
    bool ends =
        rv == ERR_IO && (strstr(e->text, "could not find a valid record after") != NULL ||
                         strstr(e->text, "could not find file") != NULL);
    *ret_is = rv == ERR_OK;
    return ends ? ERR_OK : rv;
}

/* A file that comes from the archive takes the place of the one that is there: for a moment there is none. */
static bool being_restored(const char *wal)
{
    char path[FILES_PATH];
    return files_path(path, wal, "RECOVERYXLOG", NULL) != ERR_OK || files_exists(path);
}

static enum err follows(struct worker *w, struct wal_at *at, const char *name,
                        uint64_t segment_bytes, bool *ret_is, struct errmsg *e)
{
    uint64_t end = 0;
    if (control_segment_end(name, segment_bytes, &at->timeline, &end) != ERR_OK ||
        at->lsn >= end || at->lsn < end - segment_bytes)
        return ERR_OK;
    return is_record(w, at, ret_is, e);
}

enum err op_wal(struct worker *w, const struct worker_req *q, struct worker_reply *r,
                struct errmsg *e)
{
    char bin_dir[WORKER_PATH];
    char wal[FILES_PATH];
    struct control_data c;
    bool is = false;
    enum err rv = programs_find(q, bin_dir, e);
    if (rv == ERR_OK)
        rv = control_read(w, bin_dir, q->data_dir, &c, e);
    if (rv == ERR_OK)
        rv = files_path(wal, q->data_dir, "pg_wal", e);
    if (rv != ERR_OK)
        return rv;
    is = being_restored(wal);
    DIR *d = opendir(wal);
    if (d == NULL)
        return err_set(e, err_from_errno(errno), "open %s: %s", wal, strerror(errno));
    struct wal_at at = {.bin_dir = bin_dir, .data_dir = q->data_dir, .lsn = q->lsn};
    for (struct dirent *entry; rv == ERR_OK && !is && (entry = readdir(d)) != NULL;)
        rv = follows(w, &at, entry->d_name, c.segment_bytes, &is, e);
    (void)closedir(d);
    r->more = is;
    return rv;
}
