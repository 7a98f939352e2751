/* What lies in the data directory, as facts. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "agent/worker/worker_ops.h"
#include "base/str.h"

enum { CAUTIOUS_RATE = 64 << 20, RECOVERY_BASE_MS = 200, SEGMENTS_MAX = 65536 };

/* WAL written since the redo point. Segments ahead of the last one are old ones kept for reuse:
 * older than the one before them. */
static uint64_t wal_since_redo(const char *data_dir, const struct control_data *c)
{
    uint64_t start = c->redo_lsn - c->redo_lsn % c->segment_bytes;
    uint64_t at = start;
    struct timespec last = {0, 0};
    for (unsigned i = 0; i < SEGMENTS_MAX; i++, at += c->segment_bytes) {
        char path[FILES_PATH];
        struct stat st;
        if (str_format(path, sizeof path, "%s/pg_wal/%08" PRIX64 "%08" PRIX64 "%08" PRIX64,
                       data_dir, c->timeline, at >> 32,
                       (at & 0xffffffffU) / c->segment_bytes) != ERR_OK ||
            stat(path, &st) != 0)
            break;
        if (st.st_mtim.tv_sec < last.tv_sec ||
            (st.st_mtim.tv_sec == last.tv_sec && st.st_mtim.tv_nsec < last.tv_nsec))
            break;
        last = st.st_mtim;
    }
    return at > c->redo_lsn ? at - c->redo_lsn : 0;
}

/* End of the shutdown checkpoint's record: a standby that has flushed it has everything. */
static uint64_t shutdown_end(struct worker *w, const char *bin_dir, const char *data_dir,
                             const struct control_data *c)
{
    uint64_t end = 0;
    struct buf out CLEANUP(buf_close) = BUF_INIT;
    struct wal_at at = {bin_dir, data_dir, c->timeline, c->checkpoint_lsn};
    if (wal_record(w, &at, &out, NULL) != ERR_OK ||
        strstr(buf_cstr(&out), "CHECKPOINT_SHUTDOWN") == NULL ||
        control_record_end(buf_cstr(&out), c->checkpoint_lsn, c->segment_bytes, &end, NULL) !=
            ERR_OK)
        return 0;
    return end;
}

static void read_seal(const struct worker_req *q, struct worker_reply *r)
{
    char path[FILES_PATH];
    char text[160];
    char *at = text;
    uint64_t number[3];
    if (files_path(path, q->data_dir, SEAL_FILE, NULL) != ERR_OK ||
        files_read(path, text, sizeof text, NULL) != ERR_OK ||
        strcmp(r->incarnation, strsep(&at, " ")) != 0)
        return;
    for (size_t i = 0; i < ARRAY_LEN(number); i++) {
        char *word = at != NULL ? strsep(&at, " \n") : NULL;
        if (word == NULL || str_parse_u64(word, &number[i]) != ERR_OK)
            return;
    }
    r->seal_token = number[0];
    r->seal_lsn = number[1];
    r->seal_timeline = number[2];
}

static void read_lineage(const struct worker_req *q, struct worker_reply *r)
{
    char path[FILES_PATH];
    if (files_path(path, q->data_dir, LINEAGE_FILE, NULL) != ERR_OK ||
        files_read(path, r->lineage, sizeof r->lineage, NULL) != ERR_OK)
        return;
    r->lineage[strcspn(r->lineage, "\n")] = '\0';
}

static void broken(struct worker_reply *r, const struct errmsg *e)
{
    memcpy(r->data, "broken", sizeof "broken");
    (void)snprintf(r->trouble, sizeof r->trouble, "%s", e->text);
}

static void look_at_control(struct worker *w, const struct worker_req *q,
                            struct worker_reply *r)
{
    struct control_data c;
    struct errmsg e = {0};
    if (control_read(w, r->bin_dir, q->data_dir, &c, &e) != ERR_OK) {
        broken(r, &e);
        return;
    }
    r->system_id = c.system_id;
    r->checkpoint_lsn = c.checkpoint_lsn;
    r->redo_lsn = c.redo_lsn;
    r->timeline = c.timeline;
    r->recovery_lsn = c.recovery_lsn;
    r->recovery_timeline = c.recovery_timeline;
    memcpy(r->state, c.state, sizeof r->state);
    memcpy(r->limits, c.limits, sizeof r->limits);
    if (strcmp(c.state, "shut down") == 0) {
        r->shutdown_lsn = shutdown_end(w, r->bin_dir, q->data_dir, &c);
    } else if (strcmp(c.state, "shut down in recovery") != 0) {
        uint64_t rate = q->wal_rate != 0 ? q->wal_rate : CAUTIOUS_RATE;
        r->recovery_ms = RECOVERY_BASE_MS + wal_since_redo(q->data_dir, &c) / (rate / 1000 + 1);
    }
}

static enum err is_there(const char *data_dir, bool *ret_empty, struct errmsg *e)
{
    enum err rv = files_dir_empty(data_dir, ret_empty, e);
    if (rv == ERR_NOT_FOUND) {
        *ret_empty = true;
        return ERR_OK;
    }
    return rv;
}

static void look(struct worker *w, const struct worker_req *q, struct worker_reply *r)
{
    char path[FILES_PATH];
    struct errmsg e = {0};
    enum err rv = files_path(path, q->data_dir, SIGNAL_FILE, &e);
    r->standby = rv == ERR_OK && files_exists(path);
    rv = files_path(path, q->data_dir, FRESH_FILE, &e);
    r->fresh = rv == ERR_OK && files_exists(path);
    memcpy(r->data, "ours", sizeof "ours");
    look_at_control(w, q, r);
    if (strcmp(r->data, "ours") != 0)
        return;
    rv = incarnation_read(q->data_dir, q->name, r->incarnation, &e);
    if (rv == ERR_OK) {
        read_seal(q, r);
        read_lineage(q, r);
        return;
    }
    bool foreign = rv == ERR_NOT_FOUND && strstr(e.text, "copy") == NULL;
    if (foreign)
        (void)err_set(&e, rv,
                      "%.80s has no " INCARNATION_FILE
                      ": an unfinished initdb, clone or rewind, or data of another server",
                      q->data_dir);
    broken(r, &e);
    if (foreign)
        memcpy(r->data, "foreign", sizeof "foreign");
}

enum err op_probe(struct worker *w, const struct worker_req *q, struct worker_reply *r,
                  struct errmsg *e)
{
    /* The programs do not change under a running worker without its being restarted. */
    static char known_dir[WORKER_PATH];
    static char known_version[16];
    bool empty = false;
    struct errmsg why = {0};
    enum err rv = is_there(q->data_dir, &empty, e);
    if (rv != ERR_OK)
        return rv;
    rv = programs_find(q, r->bin_dir, &why);
    if (rv == ERR_OK && strcmp(known_dir, r->bin_dir) != 0) {
        rv = programs_version(w, r->bin_dir, known_version, &why);
        if (rv == ERR_OK)
            memcpy(known_dir, r->bin_dir, sizeof known_dir);
    }
    if (rv == ERR_CANCELLED)
        return err_set(e, rv, "cancelled");
    if (rv != ERR_OK) {
        memcpy(r->data, empty ? "empty" : "broken", sizeof "broken" - (empty ? 1 : 0));
        (void)snprintf(r->trouble, sizeof r->trouble, "%s", why.text);
        return ERR_OK;
    }
    memcpy(r->version, known_version, sizeof r->version);
    if (empty)
        memcpy(r->data, "empty", sizeof "empty");
    else
        look(w, q, r);
    return w->cancelled || w->gone ? err_set(e, ERR_CANCELLED, "cancelled") : ERR_OK;
}
