#include "agent/dns_stream.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"

void dns_streams_init(struct dns_streams *s, int listener, dns_stream_answer *answer, void *arg)
{
    s->listener = listener;
    s->answer = answer;
    s->arg = arg;
    for (size_t i = 0; i < DNS_STREAMS; i++)
        s->at[i].fd = -1;
}

static void end(struct dns_stream *t)
{
    if (t->fd >= 0)
        (void)close(t->fd);
    t->fd = -1;
}

void dns_streams_close(struct dns_streams *s)
{
    for (size_t i = 0; i < DNS_STREAMS; i++)
        end(&s->at[i]);
    (void)close(s->listener);
}

int dns_streams_wait(const struct dns_streams *s, uint64_t now_ms,
                     struct pollfd ret[static 1 + DNS_STREAMS])
{
    uint64_t first_ms = UINT64_MAX;
    ret[0] = (struct pollfd){.fd = s->listener, .events = POLLIN};
    for (size_t i = 0; i < DNS_STREAMS; i++) {
        const struct dns_stream *t = &s->at[i];
        ret[1 + i] = (struct pollfd){.fd = t->fd, .events = t->out_n > 0 ? POLLOUT : POLLIN};
        if (t->fd >= 0)
            first_ms = MIN(first_ms, t->until_ms);
    }
    return first_ms == UINT64_MAX ? -1 : (int)(first_ms - MIN(first_ms, now_ms));
}

/* ---- one connection; false: it ends ---- */

static bool again(ssize_t n)
{
    return n < 0 && (errno == EAGAIN || errno == EINTR);
}

static bool write_out(struct dns_stream *t)
{
    ssize_t n =
        send(t->fd, t->out + t->out_at, t->out_n - t->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n <= 0)
        return again(n);
    t->out_at += (size_t)n;
    if (t->out_at == t->out_n)
        t->out_n = t->out_at = 0;
    return true;
}

/* One query that has come whole is answered, the bytes behind it stay for later. */
static bool answer_one(struct dns_streams *s, struct dns_stream *t, uint64_t now_ms)
{
    size_t n = t->in_n < 2 ? 0 : (size_t)t->in[0] << 8 | t->in[1];
    if (n > DNS_QUERY_MAX)
        return false;
    if (t->in_n < 2 || t->in_n < 2 + n)
        return true;
    size_t size = s->answer(s->arg, t->in + 2, n, t->out + 2);
    if (size == 0)
        return false; /* noise */
    ASSERT(size <= DNS_STREAM_MAX);
    t->out[0] = (uint8_t)(size >> 8);
    t->out[1] = (uint8_t)size;
    t->out_n = 2 + size;
    t->in_n -= 2 + n;
    memmove(t->in, t->in + 2 + n, t->in_n);
    t->until_ms = now_ms + DNS_IDLE_MS;
    return write_out(t);
}

static bool read_in(struct dns_stream *t)
{
    ssize_t n = recv(t->fd, t->in + t->in_n, sizeof t->in - t->in_n, MSG_DONTWAIT);
    if (n <= 0)
        return again(n);
    t->in_n += (size_t)n;
    return true;
}

static bool serve(struct dns_streams *s, struct dns_stream *t, uint64_t now_ms)
{
    if (!(t->out_n > 0 ? write_out(t) : read_in(t)))
        return false;
    for (size_t before = SIZE_MAX; t->out_n == 0 && t->in_n < before;) {
        before = t->in_n;
        if (!answer_one(s, t, now_ms))
            return false;
    }
    return true;
}

/* ---- all ---- */

static void admit(struct dns_streams *s, uint64_t now_ms)
{
    int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct dns_stream *place = &s->at[0];
    if (fd < 0)
        return;
    for (size_t i = 0; i < DNS_STREAMS && place->fd >= 0; i++)
        if (s->at[i].fd < 0 || s->at[i].until_ms < place->until_ms)
            place = &s->at[i];
    end(place);
    place->fd = fd;
    place->in_n = place->out_n = place->out_at = 0;
    place->until_ms = now_ms + DNS_IDLE_MS;
}

void dns_streams_step(struct dns_streams *s, uint64_t now_ms,
                      const struct pollfd p[static 1 + DNS_STREAMS])
{
    for (size_t i = 0; i < DNS_STREAMS; i++) {
        struct dns_stream *t = &s->at[i];
        bool over = t->fd >= 0 && now_ms >= t->until_ms;
        if (t->fd >= 0 && (over || (p[1 + i].revents != 0 && !serve(s, t, now_ms))))
            end(t);
    }
    if (p[0].revents != 0)
        admit(s, now_ms);
}
