#include "base/clock.h"

#include <stdio.h>
#include <time.h>

#include "base/assert.h"
#include "base/mutant.h"

static uint64_t read_us(clockid_t id)
{
    struct timespec t;
    int rv = clock_gettime(id, &t);
    ASSERT(rv == 0);
    return (uint64_t)t.tv_sec * 1000000U + (uint64_t)t.tv_nsec / 1000U;
}

uint64_t clock_boot_ms(void)
{
    return read_us(MUTANT(wall_clock) ? CLOCK_REALTIME : CLOCK_BOOTTIME) / 1000U;
}

uint64_t clock_boot_us(void)
{
    return read_us(CLOCK_BOOTTIME);
}

uint64_t clock_mono_ms(void)
{
    return read_us(CLOCK_MONOTONIC) / 1000U;
}

uint64_t clock_raw_ms(void)
{
    return read_us(CLOCK_MONOTONIC_RAW) / 1000U;
}

uint64_t clock_wall_ms(void)
{
    return read_us(CLOCK_REALTIME) / 1000U;
}

void clock_wall_text(uint64_t wall_ms, char ret_text[static CLOCK_TEXT_MAX])
{
    time_t s = (time_t)(wall_ms / 1000U);
    struct tm tm;
    char day[24];
    if (gmtime_r(&s, &tm) == NULL || strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        day[0] = '\0';
    (void)snprintf(ret_text, CLOCK_TEXT_MAX, "%s.%03uZ", day, (unsigned)(wall_ms % 1000U));
}
