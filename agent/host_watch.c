#include "agent/host_watch.h"

#include <sys/statvfs.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "proto/pki.h"

enum { HOST_MAGIC = 0x52e40571, CERT_MAX = 1 << 16 };

struct host_watch {
    uint32_t magic;
    const struct config *config;
    uv_timer_t timer;
    uv_work_t work;
    bool working, closing;
    struct host_history state, pgdata;
    struct host_seen seen;
    struct host_seen found; /* the worker's */
};

uint64_t host_forecast(struct host_history *h, struct host_sample now)
{
    h->samples[h->next] = now;
    h->next = (h->next + 1) % HOST_SAMPLES;
    h->n = MIN(h->n + 1, (size_t)HOST_SAMPLES);
    const struct host_sample *first = &h->samples[h->n < HOST_SAMPLES ? 0 : h->next];
    uint64_t ms = now.at_ms - MIN(now.at_ms, first->at_ms);
    if (ms < HOST_PATIENCE_MS || first->free_bytes <= now.free_bytes)
        return 0;
    double per_ms = (double)(first->free_bytes - now.free_bytes) / (double)ms;
    double left_s = (double)now.free_bytes / per_ms / 1000;
    return left_s < 1 ? 1 : (uint64_t)left_s;
}

static void look_at_disk(const char *path, struct host_disk *ret)
{
    struct statvfs s;
    *ret = (struct host_disk){0};
    if (path[0] == '\0' || statvfs(path, &s) != 0)
        return;
    ret->known = true;
    ret->free_bytes = (uint64_t)s.f_bavail * s.f_frsize;
    ret->total_bytes = (uint64_t)s.f_blocks * s.f_frsize;
}

/* Worker thread. */
static void work(uv_work_t *w)
{
    struct host_watch *h = w->data;
    struct buf cert CLEANUP(buf_close) = BUF_INIT;
    struct errmsg e = {0};
    look_at_disk(h->config->data_dir, &h->found.state);
    look_at_disk(h->config->postgresql.data_dir, &h->found.pgdata);
    h->found.has_certificate =
        pki_read_file(h->config->dcs.tls.cert, CERT_MAX, &cert, &e) == ERR_OK &&
        pki_seconds_left(buf_slice(&cert), &h->found.certificate_s, &e) == ERR_OK;
}

static void forecast(struct host_history *history, struct host_disk *d)
{
    if (d->known)
        d->full_in_s =
            host_forecast(history, (struct host_sample){clock_boot_ms(), d->free_bytes});
}

static void on_closed(uv_handle_t *handle)
{
    struct host_watch *h = handle->data;
    h->magic = 0;
    mem_free(h);
}

static void after_work(uv_work_t *w, int status)
{
    struct host_watch *h = w->data;
    (void)status;
    CHECK_MAGIC(h, HOST_MAGIC);
    h->working = false;
    if (h->closing) {
        uv_close((uv_handle_t *)&h->timer, on_closed);
        return;
    }
    h->found.looks = h->seen.looks + 1;
    forecast(&h->state, &h->found.state);
    forecast(&h->pgdata, &h->found.pgdata);
    h->seen = h->found;
}

static void on_timer(uv_timer_t *t)
{
    struct host_watch *h = t->data;
    if (h->working)
        return; /* the disk hangs */
    h->working = true;
    ASSERT(uv_queue_work(t->loop, &h->work, work, after_work) == 0);
}

struct host_watch *host_watch_new(uv_loop_t *loop, const struct config *c)
{
    struct host_watch *h = mem_alloc(sizeof *h);
    h->magic = HOST_MAGIC;
    h->config = c;
    h->work.data = h;
    ASSERT(uv_timer_init(loop, &h->timer) == 0);
    h->timer.data = h;
    uv_timer_start(&h->timer, on_timer, 0, HOST_EVERY_MS);
    return h;
}

void host_watch_stop(struct host_watch *h)
{
    if (h == NULL)
        return;
    CHECK_MAGIC(h, HOST_MAGIC);
    h->closing = true;
    if (!h->working)
        uv_close((uv_handle_t *)&h->timer, on_closed);
}

const struct host_seen *host_watch_seen(const struct host_watch *h)
{
    CHECK_MAGIC(h, HOST_MAGIC);
    return &h->seen;
}
