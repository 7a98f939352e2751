/* Small operations on files and processes. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/worker/worker_locks.h"
#include "agent/worker/worker_ops.h"
#include "base/str.h"

enum { AUTO_CONF_MAX = 262144 };

enum err signal_file_set(const char *data_dir, bool standby, struct errmsg *e)
{
    char path[FILES_PATH];
    enum err rv = files_path(path, data_dir, SIGNAL_FILE, e);
    if (rv != ERR_OK)
        return rv;
    if (standby)
        return files_exists(path) ? ERR_OK : files_write(path, slice_of(NULL, 0), 0600, e);
    rv = files_remove(path, e);
    /* The other name of the same wish; nobody here writes it, a restore may have. */
    if (rv == ERR_OK)
        rv = files_path(path, data_dir, "recovery.signal", e);
    return rv == ERR_OK ? files_remove(path, e) : rv;
}

/* Saves the fsyncs of a file that would not change: some of this is on the way of a failover. */
static bool is_so_already(const char *path, struct slice content, mode_t mode)
{
    char *now = malloc(content.n + 2);
    struct stat st;
    bool same = now != NULL && lstat(path, &st) == 0 && (st.st_mode & 07777) == mode &&
                files_read(path, now, content.n + 2, NULL) == ERR_OK &&
                strlen(now) == content.n && memcmp(now, content.p, content.n) == 0;
    free(now);
    return same;
}

typedef enum err write_fn(const char *path, struct slice content, mode_t mode,
                          struct errmsg *e);

static enum err write_files(const struct worker_req *q, write_fn *write, struct errmsg *e)
{
    struct msg_iter it;
    struct worker_file f;
    if (q->files.n == 0)
        return ERR_OK;
    enum err rv = msg_iter_init(&it, q->files);
    while (rv == ERR_OK) {
        char path[FILES_PATH];
        rv = msg_iter_next(&it, &msg_worker_file, &f, e);
        if (rv == ERR_NOT_FOUND)
            return ERR_OK;
        if (rv == ERR_OK)
            rv = files_path(path, q->data_dir, f.path, e);
        mode_t mode = f.mode == 0 ? 0600 : (mode_t)(f.mode & 0777);
        if (rv == ERR_OK && f.content.n > 0 && is_so_already(path, f.content, mode))
            continue;
        if (rv == ERR_OK)
            rv = write(path, f.content, mode, e);
    }
    return rv;
}

/* Durable. The lineage's fsync of the directory holds for the seal, too. */
static enum err note(const struct worker_req *q, struct errmsg *e)
{
    char path[FILES_PATH];
    enum err rv = ERR_OK;
    if (q->unseal)
        rv = files_path(path, q->data_dir, SEAL_FILE, e);
    if (rv == ERR_OK && q->unseal && q->lineage[0] == '\0')
        return files_remove(path, e);
    if (rv == ERR_OK && q->unseal && unlink(path) != 0 && errno != ENOENT)
        return err_set(e, err_from_errno(errno), "remove %s: %s", path, strerror(errno));
    return rv == ERR_OK ? lineage_write(q->data_dir, q->lineage, e) : rv;
}

/* For a PostgreSQL that runs: one that is started reads what op_prepare() has written anew, whatever a power loss
 * left. So nobody waits for the disk here, which is on the way of a failover; with a signal, the postmaster is told. */
enum err op_write(struct worker *w, const struct worker_req *q, struct worker_reply *r,
                  struct errmsg *e)
{
    enum err rv = note(q, e);
    if (rv == ERR_OK)
        rv = write_files(q, files_replace, e);
    return rv == ERR_OK && q->signal != 0 ? op_signal(w, q, r, e) : rv;
}

/* Calls fn for each text of a list with a NUL behind each. */
static enum err each_text(struct slice list, enum err (*fn)(const char *text, struct errmsg *e),
                          struct errmsg *e)
{
    enum err rv = ERR_OK;
    while (list.n > 0 && rv == ERR_OK) {
        size_t n = strnlen((const char *)list.p, list.n);
        if (n == list.n)
            return err_set(e, ERR_INVALID, "a list without its last NUL");
        rv = fn((const char *)list.p, e);
        list = slice_of(list.p + n + 1, list.n - n - 1);
    }
    return rv;
}

static bool sets_one_of(const char *line, struct slice names)
{
    while (names.n > 0) {
        const char *name = (const char *)names.p;
        size_t n = strnlen(name, names.n);
        if (n == names.n)
            return false;
        if (strncasecmp(line, name, n) == 0 && (line[n] == ' ' || line[n] == '='))
            return true;
        names = slice_of(names.p + n + 1, names.n - n - 1);
    }
    return false;
}

/* postgresql.auto.conf is read last and would win over what the agent wrote: ALTER SYSTEM, and what
 * pg_basebackup -R leaves there. */
enum err auto_conf_purge(const struct worker_req *q, struct errmsg *e)
{
    char path[FILES_PATH];
    struct buf out CLEANUP(buf_close) = BUF_INIT;
    enum err rv = files_path(path, q->data_dir, "postgresql.auto.conf", e);
    if (rv != ERR_OK || q->purge.n == 0 || !files_exists(path))
        return rv;
    char *text = malloc(AUTO_CONF_MAX);
    if (text == NULL)
        return err_set(e, ERR_IO, "out of memory");
    rv = files_read(path, text, AUTO_CONF_MAX, e);
    for (char *line = text; rv == ERR_OK && *line != '\0';) {
        char *end = strchr(line, '\n');
        size_t n = end != NULL ? (size_t)(end - line) + 1 : strlen(line);
        if (!sets_one_of(line, q->purge))
            buf_append(&out, line, n);
        line += n;
    }
    if (rv == ERR_OK && out.len != strlen(text))
        rv = files_write(path, buf_slice(&out), 0600, e);
    free(text);
    return rv;
}

/* The first start after initdb keeps its file: ours includes it. */
static enum err keep_base_conf(const char *data_dir, struct errmsg *e)
{
    char base[FILES_PATH];
    char conf[FILES_PATH];
    enum err rv = files_path(base, data_dir, BASE_CONF_FILE, e);
    if (rv == ERR_OK)
        rv = files_path(conf, data_dir, "postgresql.conf", e);
    if (rv != ERR_OK || files_exists(base))
        return rv;
    if (!files_exists(conf)) /* as Debian has it: elsewhere */
        return files_write(base, slice_str("# no postgresql.conf was found here\n"), 0600, e);
    return files_rename(conf, base, e);
}

/* `path` is the directory of the socket. */
static void remove_dead_locks(const struct worker_req *q)
{
    char path[FILES_PATH];
    if (snprintf(path, sizeof path, "%s/postmaster.pid", q->data_dir) < (int)sizeof path)
        locks_remove_dead(path, q->data_dir);
    if (q->path[0] != '\0' && snprintf(path, sizeof path, "%s/.s.PGSQL.%" PRIu64 ".lock",
                                       q->path, q->port) < (int)sizeof path)
        locks_remove_dead(path, q->data_dir);
}

enum err op_prepare(struct worker *w, const struct worker_req *q, struct worker_reply *r,
                    struct errmsg *e)
{
    (void)w;
    (void)r;
    remove_dead_locks(q);
    enum err rv = each_text(q->dirs, files_own_dir, e);
    if (rv == ERR_OK)
        rv = keep_base_conf(q->data_dir, e);
    if (rv == ERR_OK)
        rv = note(q, e);
    if (rv == ERR_OK)
        rv = write_files(q, files_write, e);
    if (rv == ERR_OK)
        rv = auto_conf_purge(q, e);
    if (rv == ERR_OK)
        rv = slots_lay_down(q, e);
    return rv == ERR_OK ? signal_file_set(q->data_dir, q->standby, e) : rv;
}

/* Field 4 of /proc/PID/stat, behind the name, which may hold anything. */
static uint64_t parent_of(uint64_t pid)
{
    char path[64];
    char text[1024];
    (void)snprintf(path, sizeof path, "/proc/%" PRIu64 "/stat", pid);
    if (files_read(path, text, sizeof text, NULL) != ERR_OK)
        return 0;
    const char *close = strrchr(text, ')');
    return close != NULL && strlen(close) > 4 ? strtoul(close + 4, NULL, 10) : 0;
}

/* Only to a child of this data directory's postmaster: the number may be somebody else's by now. */
enum err op_signal(struct worker *w, const struct worker_req *q, struct worker_reply *r,
                   struct errmsg *e)
{
    char path[FILES_PATH];
    char text[2048];
    (void)w;
    (void)r;
    enum err rv = files_path(path, q->data_dir, "postmaster.pid", e);
    if (rv == ERR_OK)
        rv = files_read(path, text, sizeof text, e);
    if (rv != ERR_OK)
        return rv;
    uint64_t postmaster = strtoul(text, NULL, 10);
    uint64_t pid = q->pid == 0 ? postmaster : q->pid;
    if (pid <= 1 || (q->pid != 0 && parent_of(pid) != postmaster))
        return err_set(e, ERR_NOT_FOUND, "process %" PRIu64 " is not of this PostgreSQL",
                       q->pid);
    if (kill((pid_t)pid, (int)q->signal) != 0)
        return err_set(e, err_from_errno(errno), "kill %" PRIu64 ": %s", q->pid,
                       strerror(errno));
    return ERR_OK;
}

static bool has(const char *line, size_t n, const char *words)
{
    return memmem(line, n, words, strlen(words)) != NULL;
}

/* Where the last reason for a server to end begins, with the line before, since it was started last; a client that
 * comes too early or too late is none. NULL: it gave none. */
static const char *cause(const char *log)
{
    const char *found = NULL;
    const char *before = log;
    for (const char *line = log; *line != '\0';) {
        size_t n = strcspn(line, "\n");
        if (has(line, n, "LOG:  starting PostgreSQL "))
            found = NULL;
        else if ((has(line, n, "FATAL:  ") || has(line, n, "PANIC:  ")) &&
                 !has(line, n, "the database system is "))
            found = before;
        before = line;
        line += n + (line[n] == '\n');
    }
    return found;
}

enum err op_tail(struct worker *w, const struct worker_req *q, struct worker_reply *r,
                 struct errmsg *e)
{
    char log[8192];
    (void)w;
    enum err rv = files_tail(q->path, log, sizeof log, e);
    const char *why = rv == ERR_OK ? cause(log) : NULL;
    if (why == NULL)
        return rv == ERR_OK ? files_tail(q->path, r->text, sizeof r->text, e) : rv;
    (void)snprintf(r->text, sizeof r->text, "%s", why);
    return ERR_OK;
}
