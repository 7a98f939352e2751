#include "dcs/heard.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/mutant.h"
#include "proto/pki.h"

enum { HEARD_EVERY_MS = 600000, HEARD_FILE_MAX = 16 * 1024 };

#define HEADER "regent heard 1\n"

/* ---- the file: a line a member ---- */

static void encode(const struct raft_heard *all, size_t n, struct buf *ret_text)
{
    char line[100];
    buf_append_slice(ret_text, slice_str(HEADER));
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(line, sizeof line, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %d\n", all[i].id,
                       all[i].term, all[i].index, all[i].voted);
        buf_append_slice(ret_text, slice_str(line));
    }
    buf_append_slice(ret_text, slice_str("end\n")); /* a shortened file is none */
}

static bool number(const char **at, uint64_t *ret)
{
    char *end;
    *ret = strtoull(*at, &end, 10);
    bool found = end != *at;
    *at = end;
    return found;
}

static bool decode(const char *text, struct raft_heard ret[static RAFT_CORE_MEMBERS_MAX],
                   size_t *ret_n)
{
    if (strncmp(text, HEADER, sizeof HEADER - 1) != 0)
        return false;
    text += sizeof HEADER - 1;
    for (*ret_n = 0; *ret_n < RAFT_CORE_MEMBERS_MAX && strcmp(text, "end\n") != 0; ++*ret_n) {
        struct raft_heard *h = &ret[*ret_n];
        uint64_t voted;
        if (!number(&text, &h->id) || !number(&text, &h->term) || !number(&text, &h->index) ||
            !number(&text, &voted) || *text++ != '\n' || h->id == 0)
            return false;
        h->voted = voted != 0;
    }
    return strcmp(text, "end\n") == 0;
}

/* ---- reading ---- */

/* What a process that was killed while it wrote has left: the name has its id in it. */
static void remove_unfinished(const char *data_dir)
{
    static const char prefix[] = "heard.tmp.";
    DIR *d = opendir(data_dir);
    struct dirent *f;
    while (d != NULL && (f = readdir(d)) != NULL)
        if (strncmp(f->d_name, prefix, sizeof prefix - 1) == 0)
            (void)unlinkat(dirfd(d), f->d_name, 0);
    if (d != NULL)
        (void)closedir(d);
}

void heard_start(struct heard *h, const char *data_dir, struct node *n)
{
    struct buf CLEANUP(buf_close) text = BUF_INIT;
    struct errmsg e;
    int len = snprintf(h->path, sizeof h->path, "%s/heard", data_dir);
    ASSERT(len > 0 && (size_t)len < sizeof h->path);
    h->written_ms = clock_boot_ms();
    remove_unfinished(data_dir);
    if (access(h->path, F_OK) != 0)
        return;
    enum err err = pki_read_file(h->path, HEARD_FILE_MAX, &text, &e);
    buf_append_slice(&text, slice_of("", 1));
    if (err != ERR_OK || !decode((const char *)text.p, h->all, &h->n)) {
        log_event(LOG_WARN, "heard_unreadable", NO_KV,
                  "%s cannot be read; what other members said before the start is not known",
                  h->path);
        h->n = 0;
    }
    for (size_t i = 0; i < h->n && !MUTANT(heard_unread); i++)
        node_hear(n, &h->all[i]);
}

/* ---- writing ---- */

static bool same(const struct raft_heard *a, const struct raft_heard *b)
{
    return a->id == b->id && a->term == b->term && a->index == b->index && a->voted == b->voted;
}

/* Takes what is known now. False: nothing new, or nothing that has to be written already. */
static bool take(struct heard *h, const struct node *n, bool due)
{
    struct raft_heard now[RAFT_CORE_MEMBERS_MAX];
    size_t k = node_heard_all(n, now);
    bool changed = k != h->n;
    due = due || changed; /* a new member, or below a new term */
    for (size_t i = 0; i < MIN(k, h->n); i++) {
        changed = changed || !same(&now[i], &h->all[i]);
        due = due || now[i].id != h->all[i].id || now[i].term != h->all[i].term;
    }
    if (changed && due) {
        memcpy(h->all, now, k * sizeof now[0]);
        h->n = k;
    }
    return changed && due;
}

struct job {
    uv_work_t work;
    struct heard *h;
    struct buf text;
    enum err status;
    struct errmsg e;
};

static void on_work(uv_work_t *w)
{
    struct job *j = container_of(w, struct job, work);
    j->status = pki_write_file(j->h->path, buf_slice(&j->text), 0600, true, &j->e);
}

static void on_done(uv_work_t *w, int status)
{
    struct job *j = container_of(w, struct job, work);
    (void)status;
    j->h->writing = false;
    if (j->status != ERR_OK && !j->h->failed)
        log_event(LOG_WARN, "heard_failed", NO_KV, "%s", j->e.text);
    j->h->failed = j->status != ERR_OK;
    buf_close(&j->text);
    mem_free(j);
}

void heard_tick(struct heard *h, struct node *n)
{
    uint64_t now_ms = clock_boot_ms();
    if (h->writing || !take(h, n, now_ms >= h->written_ms + HEARD_EVERY_MS))
        return;
    struct job *j = mem_alloc(sizeof *j);
    j->h = h;
    encode(h->all, h->n, &j->text);
    h->writing = true;
    h->written_ms = now_ms;
    int rc = uv_queue_work(h->loop, &j->work, on_work, on_done);
    ASSERT(rc == 0);
}

void heard_end(struct heard *h, struct node *n)
{
    struct buf CLEANUP(buf_close) text = BUF_INIT;
    struct errmsg e;
    if (h->written_ms == 0 || h->writing || !take(h, n, true))
        return;
    encode(h->all, h->n, &text);
    if (pki_write_file(h->path, buf_slice(&text), 0600, true, &e) != ERR_OK)
        log_event(LOG_WARN, "heard_failed", NO_KV, "%s", e.text);
}
