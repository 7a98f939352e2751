#include "agent/templates.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <unistd.h>

#include "agent/command.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "conf/template.h"
#include "conf/template_list.h"
#include "proto/model.h"
#include "proto/pki.h"

enum {
    TEMPLATES_MAGIC = 0x52e70002,
    RETRY_MIN_MS = 1000,
    RETRY_MAX_MS = 60000,
    ASK_EVERY_MS = 5000,
};

/* What an entry is at: each step ends in the next, or in IDLE with a time to try again. */
enum step { STEP_IDLE, STEP_RENDER, STEP_CHECK, STEP_PLACE, STEP_RELOAD };

struct job {
    const struct template_entry *entry;
    bool dirty;        /* the model has moved since it was last rendered */
    bool reload;       /* the program has not been told of the file in place */
    uint64_t retry_ms; /* not before; CLOCK_BOOTTIME */
    uint64_t backoff_ms;
};

struct templates {
    uint32_t magic;
    uv_loop_t *loop;
    uv_timer_t timer;
    uv_work_t work;
    const struct config *config;
    struct template_list list;
    struct job jobs[TEMPLATES_MAX];
    enum step step;
    struct job *job; /* the one under way; NULL: none */
    struct command_child *child;
    bool closing;
    /* the model */
    struct member_rec known[VIEW_MEMBERS]; /* sorted by name; also those that are down now */
    size_t known_n;
    bool missing, asked;
    uint64_t asked_ms, revision;
    struct leader_rec leader;
    bool has_leader;
    struct sync_rec sync;
    struct buf shape; /* the model without anybody's `set`, to see whether it moved */
    /* the worker's: nobody else touches them while work is under way */
    struct buf model;
    bool changed;
    enum err status;
    struct errmsg e;
};

static void go_on(struct templates *t);

/* ---- the model ---- */

static void remember(struct templates *t, const struct member_rec *m)
{
    size_t i = 0;
    while (i < t->known_n && strcmp(t->known[i].name, m->name) < 0)
        i++;
    bool is_new = i == t->known_n || strcmp(t->known[i].name, m->name) != 0;
    if (is_new && t->known_n == VIEW_MEMBERS)
        return;
    if (is_new) {
        memmove(&t->known[i + 1], &t->known[i], (t->known_n - i) * sizeof t->known[0]);
        t->known_n++;
    }
    t->known[i] = *m;
}

static void make_model(const struct templates *t, const struct template_entry *entry,
                       struct buf *ret_json)
{
    struct model_pair set[TEMPLATE_SETS_MAX];
    size_t n = entry != NULL ? entry->set_n : 0;
    for (size_t i = 0; i < n; i++)
        set[i] = (struct model_pair){entry->set[i].key, entry->set[i].value};
    struct model_facts f = {.scope = t->config->scope,
                            .self = t->config->name,
                            .members = t->known,
                            .members_n = t->known_n,
                            .leader = t->has_leader ? &t->leader : NULL,
                            .sync = &t->sync,
                            .set = set,
                            .set_n = n};
    buf_clear(ret_json);
    model_json(&f, ret_json);
}

static void look_for_change(struct templates *t)
{
    struct buf shape = BUF_INIT;
    make_model(t, NULL, &shape);
    bool same = slice_eq(buf_slice(&shape), buf_slice(&t->shape));
    buf_close(&t->shape);
    t->shape = shape;
    for (size_t i = 0; i < t->list.n && !same; i++) {
        t->jobs[i].dirty = true;
        t->jobs[i].retry_ms = 0;
        t->jobs[i].backoff_ms = 0;
    }
    if (!same)
        go_on(t);
}

void templates_publish(struct templates *t, const struct mirror *m)
{
    if (t == NULL || t->closing || !m->complete || m->revision == t->revision)
        return;
    CHECK_MAGIC(t, TEMPLATES_MAGIC);
    size_t live = 0;
    t->revision = m->revision;
    for (size_t i = 0; i < m->members_n; i++) {
        if (m->members[i].conn_port == 0)
            continue; /* a witness, or nothing known of it yet */
        remember(t, &m->members[i]);
        live++;
    }
    t->missing = t->known_n > live;
    t->has_leader = m->leader_meta.present;
    t->leader = m->leader;
    t->sync = m->sync;
    look_for_change(t);
}

bool templates_members_due(struct templates *t, uint64_t now_ms)
{
    if (t == NULL || t->closing || !t->missing || t->asked ||
        now_ms < t->asked_ms + ASK_EVERY_MS)
        return false;
    t->asked = true;
    t->asked_ms = now_ms;
    return true;
}

void templates_members(struct templates *t, const struct member_list *list)
{
    size_t kept = 0;
    if (t == NULL)
        return;
    t->asked = false;
    for (size_t i = 0; list != NULL && i < t->known_n; i++) {
        bool is_member = false;
        for (size_t k = 0; k < list->members_n; k++)
            is_member = is_member || strcmp(list->members[k].name, t->known[i].name) == 0;
        if (is_member)
            t->known[kept++] = t->known[i];
    }
    if (list == NULL || t->closing)
        return;
    t->known_n = kept;
    look_for_change(t);
}

/* ---- steps ---- */

static void new_path(const struct template_entry *entry, char ret[static 4096])
{
    (void)snprintf(ret, 4096, "%s.new", entry->target);
}

static void done(struct templates *t, struct job *j, const char *how)
{
    j->backoff_ms = 0;
    j->reload = false;
    if (how != NULL)
        log_event(LOG_INFO, "template", KV(KV_STR("name", j->entry->name)), "%s: %s",
                  j->entry->target, how);
    t->job = NULL;
    t->step = STEP_IDLE;
    go_on(t);
}

/* The file in place stays as it is; the job is tried again. `quiet`: nothing is wrong. */
static void failed(struct templates *t, const char *what, const struct errmsg *e, bool quiet)
{
    struct job *j = t->job;
    j->dirty = j->dirty || t->step != STEP_RELOAD;
    j->backoff_ms = MIN(MAX(2 * j->backoff_ms, (uint64_t)RETRY_MIN_MS), (uint64_t)RETRY_MAX_MS);
    j->retry_ms = clock_boot_ms() + j->backoff_ms;
    if (!quiet)
        log_event(LOG_ERROR, "template", KV(KV_STR("name", j->entry->name)),
                  "%s: %s; %s, tried again in %llu s", what, e->text,
                  t->step == STEP_RELOAD ? "the file is in place" : "the last good file stays",
                  (unsigned long long)j->backoff_ms / 1000);
    t->job = NULL;
    t->step = STEP_IDLE;
    go_on(t);
}

static void read_source(const struct template_entry *entry, struct buf *ret_text,
                        struct templates *t)
{
    const char *text = template_builtin(entry->source);
    if (text != NULL)
        buf_append_slice(ret_text, slice_str(text));
    else
        t->status = pki_read_file(entry->source, TEMPLATE_TEXT_MAX, ret_text, &t->e);
}

/* Worker thread. */
static void work_render(uv_work_t *w)
{
    struct templates *t = w->data;
    const struct template_entry *entry = t->job->entry;
    struct buf source CLEANUP(buf_close) = BUF_INIT;
    struct buf text CLEANUP(buf_close) = BUF_INIT;
    struct buf old CLEANUP(buf_close) = BUF_INIT;
    struct errmsg ignored;
    char path[4096];
    read_source(entry, &source, t);
    if (t->status == ERR_OK)
        t->status = template_render(entry->source, buf_slice(&source), buf_slice(&t->model),
                                    &text, &t->e);
    if (t->status != ERR_OK)
        return;
    t->changed = pki_read_file(entry->target, TEMPLATE_OUT_MAX, &old, &ignored) != ERR_OK ||
                 !slice_eq(buf_slice(&old), buf_slice(&text));
    new_path(entry, path);
    if (t->changed)
        t->status = pki_write_file(path, buf_slice(&text), entry->mode, true, &t->e);
}

/* Worker thread. */
static void work_place(uv_work_t *w)
{
    struct templates *t = w->data;
    const char *target = t->job->entry->target;
    char path[4096];
    new_path(t->job->entry, path);
    if (rename(path, target) != 0) {
        t->status = err_set(&t->e, err_from_errno(errno), "cannot replace %s: %s", target,
                            strerror(errno));
        return;
    }
    str_cut(path, sizeof path, target);
    int fd = open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd); /* after a crash of the machine the file is made anew */
        (void)close(fd);
    }
}

static void on_command(void *arg, enum err status, const struct errmsg *e);

static void start_command(struct templates *t, enum step step, const char *shell,
                          const char *file)
{
    struct errmsg e = {0};
    char *env_file CLEANUP(mem_cleanup) = mem_printf("FILE=%s", file);
    char *env_name CLEANUP(mem_cleanup) = mem_printf("TEMPLATE=%s", t->job->entry->name);
    const char *env[] = {env_file, env_name, NULL};
    t->step = step;
    struct command_order o = {.shell = shell, .env = env};
    if (command_start(t->loop, &o, on_command, t, &t->child, &e) != ERR_OK)
        failed(t, shell, &e, false);
}

static void on_work(uv_work_t *w, int status);

static void start_work(struct templates *t, enum step step, uv_work_cb cb)
{
    t->step = step;
    t->status = ERR_OK;
    t->e.text[0] = '\0';
    ASSERT(uv_queue_work(t->loop, &t->work, cb, on_work) == 0);
}

static void after_place(struct templates *t)
{
    struct job *j = t->job;
    if (j->reload && j->entry->reload != NULL) {
        start_command(t, STEP_RELOAD, j->entry->reload, j->entry->target);
        return;
    }
    done(t, j, t->step == STEP_PLACE ? "written" : NULL);
}

static void after_render(struct templates *t)
{
    const struct template_entry *entry = t->job->entry;
    char path[4096];
    new_path(entry, path);
    if (!t->changed)
        after_place(t);
    else if (entry->check != NULL)
        start_command(t, STEP_CHECK, entry->check, path);
    else
        start_work(t, STEP_PLACE, work_place);
}

static void closed(uv_handle_t *h)
{
    struct templates *t = h->data;
    template_list_close(&t->list);
    buf_close(&t->shape);
    buf_close(&t->model);
    t->magic = 0;
    mem_free(t);
}

static void on_work(uv_work_t *w, int status)
{
    struct templates *t = w->data;
    (void)status;
    if (t->closing) {
        uv_close((uv_handle_t *)&t->timer, closed);
        return;
    }
    if (t->status != ERR_OK) {
        failed(t, t->job->entry->target, &t->e, t->status == ERR_UNAVAILABLE);
        return;
    }
    if (t->step == STEP_RENDER) {
        after_render(t);
        return;
    }
    t->job->reload = true;
    after_place(t);
}

static void on_command(void *arg, enum err status, const struct errmsg *e)
{
    struct templates *t = arg;
    t->child = NULL;
    if (t->closing) {
        uv_close((uv_handle_t *)&t->timer, closed);
        return;
    }
    struct job *j = t->job;
    if (status != ERR_OK) {
        failed(t, t->step == STEP_CHECK ? j->entry->check : j->entry->reload, e, false);
    } else if (t->step == STEP_CHECK) {
        start_work(t, STEP_PLACE, work_place);
    } else {
        done(t, j, "in place, and its program told");
    }
}

static void on_timer(uv_timer_t *timer)
{
    go_on(timer->data);
}

/* One job at a time; with none due, at the time the next one is. */
static void go_on(struct templates *t)
{
    uint64_t now_ms = clock_boot_ms();
    uint64_t next_ms = UINT64_MAX;
    if (t->job != NULL || t->closing)
        return;
    for (size_t i = 0; i < t->list.n; i++) {
        struct job *j = &t->jobs[i];
        if ((!j->dirty && !j->reload) || t->revision == 0)
            continue;
        if (now_ms < j->retry_ms) {
            next_ms = MIN(next_ms, j->retry_ms - now_ms);
            continue;
        }
        j->dirty = false;
        t->job = j;
        make_model(t, j->entry, &t->model);
        start_work(t, STEP_RENDER, work_render);
        return;
    }
    if (next_ms != UINT64_MAX)
        uv_timer_start(&t->timer, on_timer, next_ms, 0);
}

/* ---- life ---- */

enum err templates_start(uv_loop_t *loop, const struct config *c,
                         struct templates **ret_templates, struct errmsg *e)
{
    struct template_list list;
    *ret_templates = NULL;
    enum err rv = template_list_parse(c->templates_json, &list, e);
    if (rv != ERR_OK || list.n == 0)
        return rv;
    struct templates *t = mem_alloc(sizeof *t);
    t->magic = TEMPLATES_MAGIC;
    t->loop = loop;
    t->config = c;
    t->list = list;
    t->work.data = t;
    ASSERT(uv_timer_init(loop, &t->timer) == 0);
    t->timer.data = t;
    for (size_t i = 0; i < list.n; i++) {
        t->jobs[i].entry = &t->list.entries[i];
        t->jobs[i].reload = true; /* whether the last daemon got that far nobody knows */
    }
    *ret_templates = t;
    return ERR_OK;
}

void templates_stop(struct templates *t)
{
    if (t == NULL)
        return;
    CHECK_MAGIC(t, TEMPLATES_MAGIC);
    t->closing = true;
    if (t->child != NULL)
        command_kill(t->child); /* on_command() goes on */
    else if (t->job == NULL)
        uv_close((uv_handle_t *)&t->timer, closed);
}
