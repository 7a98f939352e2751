/* Looks at a server that answers every question with an error. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "agent/pg_monitor.h"

enum { PATIENCE_S = 60 };

static struct {
    int listener;
    char port[8];
    unsigned questions; /* of the first connection */
} server;

static bool take(int fd, void *ret, size_t n)
{
    return recv(fd, ret, n, MSG_WAITALL) == (ssize_t)n;
}

/* The body of a message whose length comes next. */
static bool skip_body(int fd)
{
    uint8_t junk[16384];
    uint32_t n;
    if (!take(fd, &n, sizeof n))
        return false;
    n = ntohl(n) - (uint32_t)sizeof n;
    assert_true(n <= sizeof junk);
    return n == 0 || take(fd, junk, n);
}

static void put(int fd, const void *text, size_t n)
{
    assert_int_equal(send(fd, text, n, MSG_NOSIGNAL), n);
}

static int next_connection(void)
{
    static const char ready[] = "R\0\0\0\10\0\0\0\0Z\0\0\0\5I";
    const struct timeval limit = {.tv_sec = PATIENCE_S};
    int fd = accept(server.listener, NULL, NULL);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
    assert_true(skip_body(fd)); /* the startup message has no type */
    put(fd, ready, sizeof ready - 1);
    return fd;
}

static void *serve(void *arg)
{
    static const char error[] = "E\0\0\0\44SERROR\0C55000\0Mnot in recovery\0\0Z\0\0\0\5I";
    char type;
    int fd = next_connection();
    (void)arg;
    while (take(fd, &type, 1) && type == 'Q' && skip_body(fd)) {
        server.questions++;
        put(fd, error, sizeof error - 1);
    }
    (void)close(fd);
    (void)close(next_connection());
    return NULL;
}

static void start_server(pthread_t *ret_thread)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval limit = {.tv_sec = PATIENCE_S};
    socklen_t n = sizeof a;
    server.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server.listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(server.listener, 4), 0);
    assert_int_equal(setsockopt(server.listener, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit),
                     0);
    assert_int_equal(getsockname(server.listener, (struct sockaddr *)&a, &n), 0);
    (void)snprintf(server.port, sizeof server.port, "%u", ntohs(a.sin_port));
    assert_int_equal(pthread_create(ret_thread, NULL, serve, NULL), 0);
}

static void target(void *arg, struct pg_sql_target *t, enum pg_monitor_kind kind)
{
    (void)arg;
    (void)kind;
    pg_sql_target_add(t, "host", "127.0.0.1");
    pg_sql_target_add(t, "port", server.port);
    pg_sql_target_add(t, "user", "x");
    pg_sql_target_add(t, "sslmode", "disable");
    pg_sql_target_add(t, "gssencmode", "disable");
}

static void looked(void *arg)
{
    bool *told = arg;
    *told = true;
}

/* An error is asked about once more, on the same connection, before it counts. */
static void a_look_that_is_refused_is_tried_again_at_once(void **state)
{
    uv_loop_t loop;
    pthread_t thread;
    bool told = false;
    (void)state;
    start_server(&thread);
    assert_int_equal(uv_loop_init(&loop), 0);
    struct pg_monitor *m = pg_monitor_new(&loop, target, looked, &told);
    pg_monitor_run(m, true, false);
    while (!told)
        (void)uv_run(&loop, UV_RUN_ONCE);
    assert_false(pg_monitor_accepts(m));
    assert_string_equal(pg_monitor_error(m), "not in recovery");
    told = false;
    while (!told)
        (void)uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(server.questions, 2);
    pg_monitor_free(m);
    while (uv_loop_close(&loop) != 0)
        (void)uv_run(&loop, UV_RUN_ONCE);
    (void)close(server.listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_look_that_is_refused_is_tried_again_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
