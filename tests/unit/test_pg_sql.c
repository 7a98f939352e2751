/* Connections to one of several hosts. The servers here are sockets that say nothing, or hang up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <sys/socket.h>

#include "agent/pg_sql.h"

enum { SILENT_MS = 200, PATIENCE_MS = 60000 };

/* No label of a name is that long: whatever looks it up needs nobody for it. */
#define NO_NAME "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

struct server {
    int fd;
    unsigned port;
};

static struct server server_new(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    struct server s = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    assert_true(s.fd >= 0);
    assert_int_equal(bind(s.fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(s.fd, 8), 0);
    assert_int_equal(getsockname(s.fd, (struct sockaddr *)&a, &n), 0);
    s.port = ntohs(a.sin_port);
    return s;
}

/* Connections that have come since the last call. */
static unsigned came(const struct server *s)
{
    unsigned n = 0;
    for (int fd = accept(s->fd, NULL, NULL); fd >= 0; fd = accept(s->fd, NULL, NULL)) {
        n++;
        (void)close(fd);
    }
    return n;
}

struct answer {
    unsigned times;
    enum err status;
    struct errmsg e;
};

static void told(void *arg, const struct pg_sql_reply *r)
{
    struct answer *a = arg;
    a->times++;
    a->status = r->status;
    a->e = r->e;
}

static struct answer ask_for(uv_loop_t *loop, struct pg_sql *s, const char *hosts,
                             const char *ports, uint64_t limit_ms)
{
    struct answer a = {.times = 0};
    struct pg_sql_target t = {.n = 0};
    pg_sql_target_add(&t, "host", hosts);
    pg_sql_target_add(&t, "port", ports);
    pg_sql_target_add(&t, "user", "x");
    pg_sql_target_add(&t, "sslmode", "disable");
    pg_sql_target_add(&t, "gssencmode", "disable");
    pg_sql_connect(s, &t, limit_ms, told, &a);
    assert_int_equal(a.times, 0);
    while (a.times == 0)
        (void)uv_run(loop, UV_RUN_ONCE);
    assert_int_equal(a.times, 1);
    return a;
}

static struct answer ask(uv_loop_t *loop, struct pg_sql *s, const char *hosts,
                         const char *ports)
{
    return ask_for(loop, s, hosts, ports, SILENT_MS);
}

static void close_all(uv_loop_t *loop, struct pg_sql *s)
{
    pg_sql_free(s);
    while (uv_loop_close(loop) != 0)
        (void)uv_run(loop, UV_RUN_ONCE);
}

/* One that is silent costs its own try, not those of the others. */
static void of_several_hosts_each_failure_is_followed_by_the_next(void **state)
{
    uv_loop_t loop;
    char ports[40];
    struct server a = server_new();
    struct server b = server_new();
    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    struct pg_sql *s = pg_sql_new(&loop);
    (void)snprintf(ports, sizeof ports, "%u,%u", a.port, b.port);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(ask(&loop, s, "127.0.0.1,127.0.0.1", ports).status, ERR_TIMEOUT);
        assert_int_equal(came(&a), i % 2 == 0);
        assert_int_equal(came(&b), i % 2 == 1);
    }
    close_all(&loop, s);
    (void)close(a.fd);
    (void)close(b.fd);
}

static void a_name_among_addresses_is_looked_up_with_one_port_for_all(void **state)
{
    uv_loop_t loop;
    char port[8];
    struct server a = server_new();
    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    struct pg_sql *s = pg_sql_new(&loop);
    (void)snprintf(port, sizeof port, "%u", a.port);
    struct answer r = ask_for(&loop, s, NO_NAME ",127.0.0.1", port, PATIENCE_MS);
    assert_int_equal(r.status, ERR_UNAVAILABLE);
    assert_string_equal(r.e.text, "the host name is not known");
    assert_int_equal(ask(&loop, s, NO_NAME ",127.0.0.1", port).status, ERR_TIMEOUT);
    assert_int_equal(came(&a), 1);
    close_all(&loop, s);
    (void)close(a.fd);
}

static void more_hosts_than_ports_are_refused(void **state)
{
    uv_loop_t loop;
    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    struct pg_sql *s = pg_sql_new(&loop);
    assert_int_equal(
        ask_for(&loop, s, "127.0.0.1,127.0.0.1,127.0.0.1", "1,2", PATIENCE_MS).status,
        ERR_UNAVAILABLE);
    assert_int_equal(
        ask_for(&loop, s, "127.0.0.1,127.0.0.1,127.0.0.1", "1,2", PATIENCE_MS).status,
        ERR_UNAVAILABLE);
    assert_int_equal(
        ask_for(&loop, s, "127.0.0.1,127.0.0.1,127.0.0.1", "1,2", PATIENCE_MS).status,
        ERR_INVALID);
    close_all(&loop, s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_several_hosts_each_failure_is_followed_by_the_next),
        cmocka_unit_test(a_name_among_addresses_is_looked_up_with_one_port_for_all),
        cmocka_unit_test(more_hosts_than_ports_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
