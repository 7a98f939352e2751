/* The hardware watchdog against a device that is written down: when it is fed, and that it never outlives the deadline. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "agent/fence/watchdog.h"
#include "agent/watchdog.h"
#include "base/rng.h"

enum { FD = 77, S = 1000000, LOOK_US = 50000, LATE_US = 150000 };

/* A driver: counts in `now`, has a shortest time, may refuse to be stopped or to be anything. */
static struct {
    uint64_t now, fires; /* fires 0: it does not count */
    int seconds, shortest;
    bool nowayout, no_watchdog, closed;
    unsigned fed;
} dev;

static int dev_set_timeout(int fd, int *seconds)
{
    assert_int_equal(fd, FD);
    if (dev.no_watchdog)
        return -ENOTTY;
    dev.seconds = *seconds = MAX(*seconds, dev.shortest);
    if (dev.fires != 0)
        dev.fires = dev.now + (uint64_t)dev.seconds * S;
    return 0;
}

static int dev_run(int fd, bool on)
{
    assert_int_equal(fd, FD);
    if (!on && dev.nowayout)
        return -EBUSY;
    dev.fires = on ? dev.now + (uint64_t)dev.seconds * S : 0;
    return 0;
}

static int dev_feed(int fd)
{
    assert_int_equal(fd, FD);
    assert_true(dev.fires != 0);
    dev.fires = dev.now + (uint64_t)dev.seconds * S;
    dev.fed++;
    return 0;
}

static void dev_close(int fd)
{
    assert_int_equal(fd, FD);
    dev.closed = true;
    if (!dev.nowayout)
        dev.fires = 0;
}

static const struct watchdog_device device = {
    .set_timeout = dev_set_timeout, .run = dev_run, .feed = dev_feed, .close = dev_close};

/* As the daemon hands it over: opened, and so counting. */
static void take(struct watchdog *g, bool required, uint64_t ttl_ms)
{
    watchdog_init(g);
    g->device = &device;
    dev.seconds = 60;
    dev.fires = dev.now + (uint64_t)60 * S;
    watchdog_take(g, FD, required, watchdog_wanted_s(ttl_ms), watchdog_longest_s(ttl_ms));
}

static void reset(void)
{
    memset(&dev, 0, sizeof dev);
    dev.now = (uint64_t)1000 * S;
}

static void its_time_follows_from_the_ttl(void **state)
{
    (void)state;
    static const struct {
        uint64_t ttl_ms;
        unsigned wanted_s, longest_s;
    } rows[] = {{2000, 1, 1}, {3000, 1, 1}, {5000, 2, 3}, {10000, 4, 6}, {30000, 13, 18}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(watchdog_wanted_s(rows[i].ttl_ms), rows[i].wanted_s);
        assert_int_equal(watchdog_longest_s(rows[i].ttl_ms), rows[i].longest_s);
    }
}

static void with_nothing_at_stake_it_is_stopped(void **state)
{
    (void)state;
    struct watchdog g;
    reset();
    take(&g, false, 5000);
    assert_int_equal(watchdog_tick(&g, WATCHDOG_REST, dev.now, 0), UINT64_MAX);
    assert_int_equal(dev.seconds, 2);
    assert_int_equal(dev.fires, 0);
    assert_string_equal(g.trouble, "");
    watchdog_leave(&g);
    assert_true(dev.closed);
}

static void it_is_fed_only_while_its_time_fits_before_the_deadline(void **state)
{
    (void)state;
    struct watchdog g;
    reset();
    take(&g, false, 5000);
    (void)watchdog_tick(&g, WATCHDOG_REST, dev.now, 0);
    (void)watchdog_tick(&g, WATCHDOG_GUARD, dev.now, 2 * S - 1);
    assert_int_equal(dev.fires, 0); /* it would count beyond the deadline */
    (void)watchdog_tick(&g, WATCHDOG_GUARD, dev.now, 4 * S);
    assert_int_equal(dev.fires, dev.now + 2 * S);
    dev.now += S;
    (void)watchdog_tick(&g, WATCHDOG_GUARD, dev.now, 3 * S);
    assert_int_equal(dev.fires, dev.now + 2 * S);
    uint64_t fires = dev.fires;
    dev.now += S;
    (void)watchdog_tick(&g, WATCHDOG_GUARD, dev.now, 2 * S - 1);
    assert_int_equal(dev.fires, fires);
    (void)watchdog_tick(&g, WATCHDOG_STARVE, dev.now, 4 * S);
    assert_int_equal(dev.fires, fires);
    (void)watchdog_tick(&g, WATCHDOG_REST, dev.now, 0);
    assert_int_equal(dev.fires, 0);
}

static void a_longer_time_waits_until_it_fits(void **state)
{
    (void)state;
    struct watchdog g;
    reset();
    take(&g, false, 5000);
    (void)watchdog_tick(&g, WATCHDOG_REST, dev.now, 0);
    (void)watchdog_tick(&g, WATCHDOG_GUARD, dev.now, 4 * S);
    watchdog_take(&g, -1, true, watchdog_wanted_s(30000), watchdog_longest_s(30000));
    dev.now += S;
    (void)watchdog_tick(&g, WATCHDOG_GUARD, dev.now, 3 * S);
    assert_int_equal(dev.seconds, 2);
    assert_true(dev.fires <= dev.now + 3 * S);
    (void)watchdog_tick(&g, WATCHDOG_GUARD, dev.now, 26 * S);
    assert_int_equal(dev.seconds, 13);
    watchdog_take(&g, -1, true, watchdog_wanted_s(5000), watchdog_longest_s(5000));
    (void)watchdog_tick(&g, WATCHDOG_GUARD, dev.now, 4 * S);
    assert_int_equal(dev.fires, dev.now + 2 * S);
}

static void one_that_cannot_be_stopped_is_fed_at_rest(void **state)
{
    (void)state;
    struct watchdog g;
    reset();
    dev.nowayout = true;
    take(&g, false, 5000);
    for (unsigned i = 0; i < 1000; i++) {
        (void)watchdog_tick(&g, WATCHDOG_REST, dev.now, 0);
        assert_true(dev.fires > dev.now);
        dev.now += 10 * LOOK_US; /* as seldom as the fence looks when it is idle */
        assert_true(dev.fires > dev.now);
    }
    assert_true(g.pinned);
}

static void what_is_too_slow_or_no_watchdog_is_not_kept(void **state)
{
    (void)state;
    struct watchdog g;
    reset();
    dev.shortest = 10;
    take(&g, false, 5000);
    (void)watchdog_tick(&g, WATCHDOG_REST, dev.now, 0);
    assert_int_equal(g.fd, -1);
    assert_true(dev.closed && dev.fires == 0);
    assert_non_null(strstr(g.trouble, "its time would be 10 s, and 3 s are the most"));
    reset();
    dev.no_watchdog = true;
    take(&g, false, 5000);
    (void)watchdog_tick(&g, WATCHDOG_REST, dev.now, 0);
    assert_true(g.fd == -1 && dev.closed);
    assert_non_null(strstr(g.trouble, "it is no watchdog"));
    watchdog_take(&g, -1, true, 2, 3);
    assert_string_equal(g.trouble, "no device was handed over");
}

/* Renewals come and stay away, the fence is late; at every moment: were it to stand still from now on, the machine
 * would be reset before the deadline. And while renewals come in time it is never reset. */
static void it_never_outlives_the_deadline(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 7);
    for (unsigned run = 0; run < 50; run++) {
        struct watchdog g;
        reset();
        uint64_t ttl_ms = 2000 + rng_below(&r, 20000), hold = ttl_ms * 900;
        take(&g, false, ttl_ms);
        (void)watchdog_tick(&g, WATCHDOG_REST, dev.now, 0);
        uint64_t deadline = dev.now + hold, ended = dev.now + 20 * hold;
        while (dev.now < ended && dev.now < deadline) {
            if (rng_below(&r, 40) == 0)
                deadline = dev.now + hold - rng_below(&r, hold / 8);
            uint64_t wake = watchdog_tick(&g, WATCHDOG_GUARD, dev.now, deadline - dev.now);
            uint64_t late = rng_below(&r, 20) == 0 ? rng_below(&r, LATE_US) : 0;
            assert_true(dev.fires <= deadline);
            dev.now += MIN(wake, (uint64_t)LOOK_US) + late;
            assert_true(dev.fires > dev.now || deadline <= dev.now + LATE_US + LOOK_US);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_time_follows_from_the_ttl),
        cmocka_unit_test(with_nothing_at_stake_it_is_stopped),
        cmocka_unit_test(it_is_fed_only_while_its_time_fits_before_the_deadline),
        cmocka_unit_test(a_longer_time_waits_until_it_fits),
        cmocka_unit_test(one_that_cannot_be_stopped_is_fed_at_rest),
        cmocka_unit_test(what_is_too_slow_or_no_watchdog_is_not_kept),
        cmocka_unit_test(it_never_outlives_the_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
