/* DNS over TCP: queries in pieces and one behind the other, and clients that send noise, too much or nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/dns_stream.h"
#include "base/str.h"

static struct dns_streams streams;
static struct sockaddr_in address;
static uint64_t now_ms;

/* The query comes back, doubled; one that begins with '!' is noise, one with '#' has a long answer. */
static size_t echo(void *arg, const uint8_t *query, size_t n,
                   uint8_t ret[static DNS_STREAM_MAX])
{
    (void)arg;
    if (n == 0 || query[0] == '!')
        return 0;
    memcpy(ret, query, n);
    memcpy(ret + n, query, n);
    memset(ret + 2 * n, 'x', query[0] == '#' ? DNS_STREAM_MAX - 2 * n : 0);
    return query[0] == '#' ? DNS_STREAM_MAX : 2 * n;
}

static int setup(void **state)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t n = sizeof address;
    (void)state;
    address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 64), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    now_ms = 1000;
    dns_streams_init(&streams, fd, echo, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dns_streams_close(&streams);
    return 0;
}

static void turn(void)
{
    struct pollfd p[1 + DNS_STREAMS];
    (void)dns_streams_wait(&streams, now_ms, p);
    (void)poll(p, ARRAY_LEN(p), 50);
    dns_streams_step(&streams, now_ms, p);
}

static int client(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    turn();
    return fd;
}

static void put(int fd, const char *bytes, size_t n)
{
    assert_int_equal(send(fd, bytes, n, MSG_NOSIGNAL), n);
    turn();
}

/* What has come, up to `size`; 0: the end of the connection; -1: nothing. */
static ssize_t take(int fd, char *ret, size_t size)
{
    for (int i = 0; i < 200; i++) {
        ssize_t n = recv(fd, ret, size, MSG_DONTWAIT);
        if (n >= 0)
            return n;
        turn();
    }
    return -1;
}

static void says(int fd, const char *bytes, size_t n)
{
    char got[64];
    size_t have = 0;
    while (have < n) {
        ssize_t more = take(fd, got + have, n - have);
        assert_true(more > 0);
        have += (size_t)more;
    }
    assert_memory_equal(got, bytes, n);
}

static bool ended(int fd)
{
    char byte;
    for (int i = 0; i < 20; i++) {
        ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno == ECONNRESET))
            return true;
        turn();
    }
    return false;
}

static void a_query_may_come_byte_by_byte(void **state)
{
    static const char query[] = "\0\3abc";
    (void)state;
    int fd = client();
    for (size_t i = 0; i < 5; i++)
        put(fd, &query[i], 1);
    says(fd, "\0\6abcabc", 8);
    (void)close(fd);
}

static void queries_may_follow_each_other(void **state)
{
    (void)state;
    int fd = client();
    put(fd, "\0\1a\0\2bc\0\1", 9);
    says(fd, "\0\2aa\0\4bcbc", 10);
    put(fd, "d", 1);
    says(fd, "\0\2dd", 4);
    (void)close(fd);
}

static void long_answers_wait_for_their_reader(void **state)
{
    (void)state;
    static char all[64 * (2 + DNS_STREAM_MAX)];
    int fd = client();
    for (int i = 0; i < 64; i++)
        put(fd, "\0\1#", 3);
    size_t have = 0;
    ssize_t n;
    while (have < sizeof all && (n = take(fd, all + have, sizeof all - have)) > 0)
        have += (size_t)n;
    assert_int_equal(have, sizeof all);
    for (size_t i = 0; i < 64; i++)
        assert_memory_equal(all + i * (2 + DNS_STREAM_MAX), "\x80\0##x", 5);
    (void)close(fd);
}

static void noise_and_too_much_end_the_connection(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
    } bad[] = {
        {"\0\1!", 3}, {"\0\0", 2}, {"\xff\xff", 2}, {"\5\xdd", 2}, {"GET / HTTP/1.1", 14}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int fd = client();
        put(fd, bad[i].bytes, bad[i].n);
        assert_true(ended(fd));
        (void)close(fd);
    }
}

static void who_is_silent_goes(void **state)
{
    struct pollfd p[1 + DNS_STREAMS];
    (void)state;
    assert_int_equal(dns_streams_wait(&streams, now_ms, p), -1);
    int fd = client();
    now_ms += 1000;
    put(fd, "\0\5on", 4); /* the rest never comes */
    assert_int_equal(dns_streams_wait(&streams, now_ms, p), DNS_IDLE_MS - 1000);
    assert_false(ended(fd));
    now_ms += DNS_IDLE_MS - 1000;
    assert_true(ended(fd));
    (void)close(fd);
}

static void who_comes_takes_the_place_of_the_most_silent(void **state)
{
    int fds[DNS_STREAMS];
    (void)state;
    for (size_t i = 0; i < DNS_STREAMS; i++) {
        fds[i] = client();
        now_ms += 10;
    }
    put(fds[0], "\0\1a", 3);
    says(fds[0], "\0\2aa", 4);
    int late = client();
    assert_true(ended(fds[1]));
    put(late, "\0\1b", 3);
    says(late, "\0\2bb", 4);
    put(fds[0], "\0\1c", 3);
    says(fds[0], "\0\2cc", 4);
    (void)close(late);
    for (size_t i = 0; i < DNS_STREAMS; i++)
        (void)close(fds[i]);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(a_query_may_come_byte_by_byte),
        CASE(queries_may_follow_each_other),
        CASE(long_answers_wait_for_their_reader),
        CASE(noise_and_too_much_end_the_connection),
        CASE(who_is_silent_goes),
        CASE(who_comes_takes_the_place_of_the_most_silent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
