/* What a rewind throws away, kept for people beside the data: the WAL from the point of divergence on, and
 * a list of the transactions in it. Bounded in number and size: the oldest goes first. */
#include "agent/worker/worker_salvage.h"

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
#include "agent/worker/worker_ops.h"
#include "base/str.h"

enum {
    KEPT_MAX = 5, /* divergences */
    TAIL_SEGMENTS_MAX = 64,
    LIST_MAX = 16 << 20, /* bytes of the list */
    LIST_TIMEOUT_MS = 300 * 1000,
};

#define LIST_FILE "transactions.txt"
#define MARK ".diverged-"

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

struct tail {
    const struct worker_req *q;
    char to[FILES_PATH];
    uint64_t lsn, timeline; /* where it begins; timelines before this one are everybody's */
    uint64_t segment_bytes;
    unsigned kept;
};

/* One entry of pg_wal: copied when it holds something behind the point. */
static enum err keep_segment(struct tail *t, const char *name, struct errmsg *e)
{
    char source[FILES_PATH];
    char copy[FILES_PATH];
    uint64_t tl;
    uint64_t end;
    struct stat st;
    if (control_segment_end(name, t->segment_bytes, &tl, &end) != ERR_OK || tl < t->timeline ||
        end <= t->lsn)
        return ERR_OK;
    enum err rv = str_format(source, sizeof source, "%s/pg_wal/%s", t->q->data_dir, name);
    if (rv == ERR_OK)
        rv = files_path(copy, t->to, name, e);
    if (rv != ERR_OK)
        return rv;
    if (stat(source, &st) != 0 || t->kept >= TAIL_SEGMENTS_MAX)
        return err_set(e, ERR_LIMIT, "more than %d segments diverged", TAIL_SEGMENTS_MAX);
    t->kept++;
    return copy_file(source, copy, e);
}

static enum err keep_segments(struct tail *t, struct errmsg *e)
{
    char wal[FILES_PATH];
    enum err rv = files_path(wal, t->q->data_dir, "pg_wal", e);
    DIR *d = rv == ERR_OK ? opendir(wal) : NULL;
    if (rv == ERR_OK && d == NULL)
        rv = err_set(e, err_from_errno(errno), "open %s: %s", wal, strerror(errno));
    for (struct dirent *entry; rv == ERR_OK && d != NULL && (entry = readdir(d)) != NULL;)
        rv = keep_segment(t, entry->d_name, e);
    if (d != NULL)
        (void)closedir(d);
    return rv;
}

/* ---- the list ---- */

struct list {
    int fd;
    size_t written;
    uint64_t commits;
    char line[256]; /* its beginning says what it is */
    size_t n;
};

static void count_line(struct list *l)
{
    l->line[l->n] = '\0';
    l->commits += strstr(l->line, "desc: COMMIT") != NULL;
    l->n = 0;
}

static void take_piece(void *arg, struct slice piece)
{
    struct list *l = arg;
    for (size_t i = 0; i < piece.n; i++) {
        if (piece.p[i] == '\n')
            count_line(l);
        else if (l->n + 1 < sizeof l->line)
            l->line[l->n++] = (char)piece.p[i];
    }
    size_t n = MIN(piece.n, LIST_MAX - l->written);
    ssize_t done = n > 0 ? write(l->fd, piece.p, n) : 0;
    l->written += done > 0 ? (size_t)done : 0;
}

/* The log ends somewhere, which pg_waldump calls an error: what it said before counts. */
static void list_transactions(struct worker *w, const struct tail *t, const char *bin_dir,
                              uint64_t own_timeline, uint64_t *ret_commits)
{
    char program[FILES_PATH];
    char path[FILES_PATH];
    char lsn[24];
    char timeline[24];
    struct errmsg unused;
    struct list l = {.fd = -1};
    struct tool tool = {.timeout_ms = LIST_TIMEOUT_MS, .take = take_piece, .arg = &l};
    if (files_path(program, bin_dir, "pg_waldump", NULL) != ERR_OK ||
        files_path(path, t->to, LIST_FILE, NULL) != ERR_OK)
        return;
    l.fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (l.fd < 0)
        return;
    (void)snprintf(lsn, sizeof lsn, "%" PRIX64 "/%" PRIX64, t->lsn >> 32, t->lsn & 0xffffffffU);
    (void)snprintf(timeline, sizeof timeline, "%" PRIu64, own_timeline);
    const char *args[] = {program, "-p", t->to, "-s", lsn, "-t", timeline, "-r", "Transaction"};
    for (size_t i = 0; i < ARRAY_LEN(args); i++)
        tool_arg(&tool, args[i]);
    enum err rv = tool_run(w, &tool, NULL, &unused);
    (void)rv;
    (void)close(l.fd);
    *ret_commits = l.commits;
}

/* ---- the bound ---- */

/* The oldest of our directories beside the data, and how many there are. */
static size_t find_oldest(const char *parent, const char *prefix, char ret[static 256])
{
    DIR *d = opendir(parent);
    size_t n = 0;
    ret[0] = '\0';
    for (struct dirent *entry; d != NULL && (entry = readdir(d)) != NULL;) {
        if (!str_starts(entry->d_name, prefix))
            continue;
        n++;
        if (ret[0] == '\0' || strcmp(entry->d_name, ret) < 0)
            str_cut(ret, 256, entry->d_name);
    }
    if (d != NULL)
        (void)closedir(d);
    return n;
}

static void make_room(const char *data_dir)
{
    char parent[FILES_PATH];
    char prefix[256];
    char oldest[256];
    char path[FILES_PATH];
    const char *name = strrchr(data_dir, '/');
    if (name == NULL || files_parent(parent, data_dir, NULL) != ERR_OK ||
        str_format(prefix, sizeof prefix, "%s" MARK, name + 1) != ERR_OK)
        return;
    while (find_oldest(parent, prefix, oldest) >= KEPT_MAX)
        if (files_path(path, parent, oldest, NULL) != ERR_OK ||
            files_remove_tree(path, NULL) != ERR_OK)
            return;
}

enum err salvage(struct worker *w, const struct worker_req *q, const char *bin_dir,
                 const char *rewind_says, const struct control_data *c, char *ret_text,
                 size_t size, struct errmsg *e)
{
    struct tail t = {.q = q, .segment_bytes = c->segment_bytes};
    uint64_t commits = 0;
    char stamp[20];
    if (!diverged_at(rewind_says, &t.lsn, &t.timeline))
        return ERR_OK;
    make_room(q->data_dir);
    files_stamp(stamp);
    enum err rv = str_format(t.to, sizeof t.to, "%s" MARK "%s", q->data_dir, stamp);
    if (rv == ERR_OK)
        rv = files_own_dir(t.to, e);
    if (rv == ERR_OK)
        rv = keep_segments(&t, e);
    if (rv != ERR_OK)
        return rv;
    list_transactions(w, &t, bin_dir, c->timeline, &commits);
    (void)snprintf(ret_text, size,
                   "%" PRIu64 " transaction(s) from %" PRIX64 "/%" PRIX64
                   " on that nobody else has: %u WAL segment(s) and a list kept in %.120s",
                   commits, t.lsn >> 32, t.lsn & 0xffffffffU, t.kept, t.to);
    return ERR_OK;
}
