#include "dcs/watch.h"

#include "base/assert.h"
#include "base/mem.h"
#include "base/mutant.h"

void watch_hub_init(struct watch_hub *h)
{
    memset(h, 0, sizeof *h);
    list_init(&h->watches);
}

void watch_hub_close(struct watch_hub *h)
{
    while (!list_empty(&h->watches)) {
        watch_free(h, container_of(h->watches.next, struct watch, link));
    }
    buf_close(&h->plain);
    buf_close(&h->with_prev);
    buf_close(&h->out);
}

size_t watch_hub_behind(const struct watch_hub *h)
{
    size_t n = 0;
    for (const struct list *l = h->watches.next; l != &h->watches; l = l->next) {
        n += container_of(l, struct watch, link)->behind;
    }
    return n;
}

enum err watch_add(struct watch_hub *h, const struct watch_req *req, uint64_t revision,
                   watch_send *send, void *arg, struct watch **ret_watch)
{
    ASSERT(send != NULL);
    if (h->n >= WATCH_MAX) {
        return ERR_LIMIT;
    }
    struct watch *w = mem_alloc(sizeof *w);
    list_init(&w->link);
    w->id = ++h->last_id;
    buf_append_slice(&w->key, req->key);
    buf_append_slice(&w->end, req->end);
    w->prev_kv = req->prev_kv;
    w->no_put = req->no_put;
    w->no_delete = req->no_delete;
    w->progress_ms =
        req->progress_ms == 0 ? 0 : MAX(req->progress_ms, (uint64_t)WATCH_PROGRESS_MS_MIN);
    w->next_revision = req->start_revision != 0 ? req->start_revision : revision + 1;
    w->window = req->credit != 0;
    w->credit = MIN(req->credit, (uint64_t)WATCH_CREDIT_MAX);
    w->send = send;
    w->arg = arg;
    list_push(&h->watches, &w->link);
    h->n++;
    *ret_watch = w;
    return ERR_OK;
}

struct watch *watch_find(struct watch_hub *h, uint64_t id, const void *arg)
{
    for (struct list *l = h->watches.next; l != &h->watches; l = l->next) {
        struct watch *w = container_of(l, struct watch, link);
        if (w->id == id && w->arg == arg) {
            return w;
        }
    }
    return NULL;
}

void watch_free(struct watch_hub *h, struct watch *w)
{
    ASSERT(h->n > 0 && h->only != w);
    watch_catch_up(h, w, false);
    list_remove(&w->link);
    h->n--;
    buf_close(&w->key);
    buf_close(&w->end);
    msg_list_close(&w->events.list);
    mem_free(w);
}

void watch_free_all_of(struct watch_hub *h, const void *arg)
{
    for (struct list *l = h->watches.next, *next; l != &h->watches; l = next) {
        next = l->next;
        struct watch *w = container_of(l, struct watch, link);
        if (w->arg == arg) {
            watch_free(h, w);
        }
    }
}

static bool covers(const struct watch *w, struct slice key)
{
    struct slice from = buf_slice(&w->key), end = buf_slice(&w->end);
    if (end.n == 0) {
        return slice_eq(key, from);
    }
    bool open_end = end.n == 1 && end.p[0] == 0;
    return slice_cmp(key, from) >= 0 && (open_end || slice_cmp(key, end) < 0);
}

static void encode(struct buf *out, bool deleted, const struct kv *kv, const struct kv *prev)
{
    struct event ev = {.kv = *kv};
    memcpy(ev.type, deleted ? "delete" : "put", deleted ? sizeof "delete" : sizeof "put");
    if (prev != NULL) {
        ev.prev = *prev;
    }
    buf_clear(out);
    msg_encode(&msg_event, &ev, out);
    ASSERT(buf_ok(out));
}

/* A pair has at most 6 fields; an event adds itself, its type and the fields that hold the pairs. */
enum { ELEMENTS_PLAIN = 17, ELEMENTS_WITH_PREV = 31 };

static bool send_one(struct watch_hub *h, struct watch *w, const struct watch_event *ev,
                     bool must)
{
    buf_clear(&h->out);
    msg_encode(&msg_watch_event, ev, &h->out);
    ASSERT(buf_ok(&h->out));
    return w->send(w->arg, buf_slice(&h->out), must);
}

static void drop_events(struct watch *w)
{
    msg_list_close(&w->events.list);
    w->events = (struct watch_events){0};
}

/* What is gathered so far, as one message. */
static void send_part(struct watch_hub *h, struct watch *w, uint64_t revision, bool more)
{
    struct buf CLEANUP(buf_close) events = BUF_INIT;
    struct watch_events part = w->events;
    w->events = (struct watch_events){0};
    msg_list_end(&part.list, &events);
    struct watch_event ev = {
        .watch = w->id, .revision = revision, .events = buf_slice(&events), .more = more};
    ev.used = MIN(w->credit, (uint64_t)events.len); /* 0 without a window */
    w->credit -= ev.used;
    w->slow = !send_one(h, w, &ev, w->in_parts);
    w->in_parts = more;
    w->quiet_ms = 0;
}

static void note(struct watch_hub *h, struct watch *w, const struct buf *one, size_t elements,
                 uint64_t revision)
{
    struct watch_events *v = &w->events;
    w->revision_bytes += one->len;
    w->over = w->over || w->revision_bytes > WATCH_REVISION_MAX;
    if (w->over) {
        drop_events(w);
        return;
    }
    if (v->list.n > 0 && (v->elements + elements > WATCH_ELEMENTS_MAX ||
                          v->list.body.len + one->len > WATCH_BYTES_MAX)) {
        send_part(h, w, revision, true);
        if (w->slow) {
            return;
        }
    }
    v->elements += elements;
    buf_append_slice(&v->list.body, buf_slice(one));
    v->list.n++;
}

static void offer(struct watch_hub *h, struct watch *w, bool deleted, const struct kv *kv,
                  const struct kv *prev)
{
    bool old = kv->mod_revision < w->next_revision + (MUTANT(watch_skips_one) ? 1 : 0);
    if (old || w->over || w->slow || w->behind || (w->catching_up && !h->replaying) ||
        (deleted ? w->no_delete : w->no_put) || !covers(w, kv->key)) {
        return;
    }
    bool with_prev = w->prev_kv && prev != NULL && prev->mod_revision != 0;
    if (with_prev && h->with_prev.len == 0) {
        encode(&h->with_prev, deleted, kv, prev);
    }
    if (with_prev && w->revision_bytes + h->with_prev.len <= WATCH_BYTES_MAX) {
        note(h, w, &h->with_prev, ELEMENTS_WITH_PREV, kv->mod_revision);
        return;
    }
    if (h->plain.len == 0) {
        encode(&h->plain, deleted, kv, NULL);
    }
    note(h, w, &h->plain, ELEMENTS_PLAIN, kv->mod_revision);
}

void watch_event(struct watch_hub *h, bool deleted, const struct kv *kv, const struct kv *prev)
{
    buf_clear(&h->plain);
    buf_clear(&h->with_prev);
    if (h->replaying) {
        if (h->only != NULL) {
            offer(h, h->only, deleted, kv, prev);
        }
        return;
    }
    for (struct list *l = h->watches.next; l != &h->watches; l = l->next) {
        offer(h, container_of(l, struct watch, link), deleted, kv, prev);
    }
}

/* false: the watch has ended. */
static bool report(struct watch_hub *h, struct watch *w, uint64_t revision)
{
    if (w->behind || (w->catching_up && !h->replaying)) {
        w->next_revision = MUTANT(window_skips_missed) ? revision + 1 : w->next_revision;
        return true;
    }
    if (w->over) {
        struct watch_event over = {
            .watch = w->id, .revision = revision, .compacted = revision, .cancelled = true};
        (void)send_one(h, w, &over, true);
        return false;
    }
    if (!w->slow && w->events.list.n > 0) {
        send_part(h, w, revision, false);
    }
    if (w->slow) {
        struct watch_event end = {.watch = w->id, .revision = revision, .cancelled = true};
        (void)send_one(h, w, &end, true);
        return false;
    }
    w->next_revision = MAX(w->next_revision, revision + 1);
    w->revision_bytes = 0;
    w->in_parts = false;
    w->behind = w->window && w->credit == 0;
    return true;
}

bool watch_grant(struct watch *w, uint64_t credit)
{
    ASSERT(w->window);
    w->credit =
        MIN(w->credit + MIN(credit, (uint64_t)WATCH_CREDIT_MAX), (uint64_t)WATCH_CREDIT_MAX);
    bool open = w->behind && w->credit > 0;
    w->behind = w->behind && !open;
    return open;
}

void watch_progress(struct watch_hub *h, uint64_t elapsed_ms, uint64_t revision)
{
    ASSERT(!h->replaying);
    for (struct list *l = h->watches.next; l != &h->watches; l = l->next) {
        struct watch *w = container_of(l, struct watch, link);
        w->quiet_ms += elapsed_ms;
        if (w->progress_ms == 0 || w->quiet_ms < w->progress_ms || w->behind ||
            w->catching_up || w->next_revision > revision + 1) {
            continue;
        }
        struct watch_event ev = {.watch = w->id, .revision = revision};
        if (send_one(h, w, &ev, false)) {
            w->quiet_ms = 0;
        }
    }
}

void watch_revision_done(struct watch_hub *h, uint64_t revision)
{
    for (struct list *l = h->watches.next, *next; l != &h->watches; l = next) {
        next = l->next;
        struct watch *w = container_of(l, struct watch, link);
        if (h->replaying && w != h->only) {
            continue;
        }
        if (!report(h, w, revision)) {
            h->only = h->only == w ? NULL : h->only;
            watch_free(h, w);
        }
    }
}

void watch_catch_up(struct watch_hub *h, struct watch *w, bool yes)
{
    h->n_catching_up += yes && !w->catching_up;
    h->n_catching_up -= !yes && w->catching_up;
    w->catching_up = yes;
}

struct watch *watch_next_catching_up(struct watch_hub *h)
{
    for (struct list *l = h->watches.next; h->n_catching_up > 0 && l != &h->watches;
         l = l->next) {
        struct watch *w = container_of(l, struct watch, link);
        if (w->catching_up) {
            list_remove(&w->link);
            list_push(&h->watches, &w->link);
            return w;
        }
    }
    return NULL;
}

void watch_replay_begin(struct watch_hub *h, struct watch *w)
{
    ASSERT(!h->replaying);
    h->replaying = true;
    h->only = w;
}

bool watch_replay_end(struct watch_hub *h)
{
    ASSERT(h->replaying);
    bool alive = h->only != NULL;
    h->replaying = false;
    h->only = NULL;
    return alive;
}

void watch_end_compacted(struct watch_hub *h, struct watch *w, uint64_t compacted)
{
    struct watch_event ev = {.watch = w->id,
                             .revision = w->next_revision,
                             .compacted = compacted,
                             .cancelled = true};
    (void)send_one(h, w, &ev, true);
    watch_free(h, w);
}

void watch_end_all(struct watch_hub *h)
{
    ASSERT(!h->replaying);
    while (!list_empty(&h->watches)) {
        struct watch *w = container_of(h->watches.next, struct watch, link);
        struct watch_event ev = {
            .watch = w->id, .revision = w->next_revision, .cancelled = true};
        (void)send_one(h, w, &ev, true);
        watch_free(h, w);
    }
}
