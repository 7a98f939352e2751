#include "agent/rest_events.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"

enum { STREAM_MAGIC = 0x52e7e715, BLOCK = 16 * 1024 };

struct stream {
    uint32_t magic;
    struct rest_events *events;
    struct stream *next;
    struct MHD_Connection *conn;
    bool suspended; /* guarded by the lock, as `news` */
    bool news;
    bool first;
    uint64_t sent_ms;
    char *text; /* what is being sent; owned */
    size_t n, at;
};

struct rest_events {
    pthread_mutex_t lock; /* guards the list and the flags */
    struct stream *streams;
    size_t n;
    bool ending;
    rest_events_make *make;
    void *arg;
};

struct rest_events *rest_events_new(rest_events_make *make, void *arg)
{
    struct rest_events *e = mem_alloc(sizeof *e);
    (void)pthread_mutex_init(&e->lock, NULL);
    e->make = make;
    e->arg = arg;
    return e;
}

static void resume(struct stream *s)
{
    if (!s->suspended)
        return;
    s->suspended = false;
    MHD_resume_connection(s->conn);
}

void rest_events_end(struct rest_events *e)
{
    (void)pthread_mutex_lock(&e->lock);
    e->ending = true;
    for (struct stream *s = e->streams; s != NULL; s = s->next)
        resume(s);
    (void)pthread_mutex_unlock(&e->lock);
}

void rest_events_free(struct rest_events *e)
{
    if (e == NULL)
        return;
    ASSERT(e->streams == NULL);
    (void)pthread_mutex_destroy(&e->lock);
    mem_free(e);
}

void rest_events_wake(struct rest_events *e, uint64_t now_ms)
{
    (void)pthread_mutex_lock(&e->lock);
    for (struct stream *s = e->streams; s != NULL; s = s->next) {
        if (now_ms < s->sent_ms + EVENTS_EVERY_MS)
            continue;
        s->news = true;
        s->sent_ms = now_ms;
        resume(s);
    }
    (void)pthread_mutex_unlock(&e->lock);
}

/* False: there is none, and the connection sleeps. */
static bool take_news(struct stream *s)
{
    (void)pthread_mutex_lock(&s->events->lock);
    bool news = s->news;
    s->news = false;
    if (!news && !s->events->ending) {
        s->suspended = true;
        MHD_suspend_connection(s->conn);
    }
    (void)pthread_mutex_unlock(&s->events->lock);
    return news;
}

static void compose(struct stream *s)
{
    char *json = s->events->make(s->events->arg, s->first);
    mem_free(TAKE(s->text));
    s->text = mem_printf("%sdata: %s\n\n", s->first ? "retry: 1000\n" : "", json);
    s->n = strlen(s->text);
    s->at = 0;
    s->first = false;
    free(json);
}

static ssize_t on_read(void *arg, uint64_t position, char *to, size_t room)
{
    struct stream *s = arg;
    CHECK_MAGIC(s, STREAM_MAGIC);
    (void)position;
    if (s->events->ending)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (s->at == s->n) {
        if (!take_news(s))
            return 0;
        compose(s);
    }
    size_t n = MIN(room, s->n - s->at);
    memcpy(to, s->text + s->at, n);
    s->at += n;
    return (ssize_t)n;
}

static void on_free(void *arg)
{
    struct stream *s = arg;
    CHECK_MAGIC(s, STREAM_MAGIC);
    struct rest_events *e = s->events;
    (void)pthread_mutex_lock(&e->lock);
    struct stream **at = &e->streams;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    e->n--;
    (void)pthread_mutex_unlock(&e->lock);
    s->magic = 0;
    mem_free(s->text);
    mem_free(s);
}

static struct stream *add(struct rest_events *e, struct MHD_Connection *conn)
{
    struct stream *s = NULL;
    (void)pthread_mutex_lock(&e->lock);
    if (e->n < EVENTS_STREAMS_MAX && !e->ending) {
        s = mem_alloc(sizeof *s);
        *s = (struct stream){.magic = STREAM_MAGIC,
                             .events = e,
                             .next = e->streams,
                             .conn = conn,
                             .news = true,
                             .first = true,
                             .sent_ms = clock_boot_ms()};
        e->streams = s;
        e->n++;
    }
    (void)pthread_mutex_unlock(&e->lock);
    return s;
}

bool rest_events_answer(struct rest_events *e, struct MHD_Connection *conn,
                        enum MHD_Result *ret_result)
{
    struct stream *s = add(e, conn);
    if (s == NULL)
        return false;
    struct MHD_Response *r =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, on_read, s, on_free);
    if (r == NULL) {
        on_free(s);
        *ret_result = MHD_NO;
        return true;
    }
    (void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, "text/event-stream");
    (void)MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    *ret_result = MHD_queue_response(conn, MHD_HTTP_OK, r);
    MHD_destroy_response(r);
    return true;
}
