#include "base/clock.h"

#include <stdio.h>
#include <string.h>
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

/* "+01:00", "-0130", "+02"; "Z". */
static enum err parse_zone(const char *text, int64_t *ret_s)
{
    unsigned digit[4] = {0};
    size_t n = 0;
    *ret_s = 0;
    if (text[0] == '\0')
        return ERR_UNSUPPORTED;
    if (strcmp(text, "Z") == 0)
        return ERR_OK;
    if (text[0] != '+' && text[0] != '-')
        return ERR_INVALID;
    for (const char *p = text + 1; *p != '\0'; p++) {
        if (*p == ':' && n == 2)
            continue;
        if (*p < '0' || *p > '9' || n == ARRAY_LEN(digit))
            return ERR_INVALID;
        digit[n++] = (unsigned)(*p - '0');
    }
    if (n != 2 && n != 4)
        return ERR_INVALID;
    *ret_s = (digit[0] * 10 + digit[1]) * 3600 + (digit[2] * 10 + digit[3]) * 60;
    *ret_s = text[0] == '-' ? -*ret_s : *ret_s;
    return ERR_OK;
}

enum err clock_wall_parse(const char *text, uint64_t *ret_wall_ms)
{
    struct tm t = {0};
    int64_t zone_s;
    bool spaced = strchr(text, 'T') == NULL;
    const char *rest = strptime(text, spaced ? "%Y-%m-%d %H:%M" : "%Y-%m-%dT%H:%M", &t);
    if (rest != NULL && *rest == ':')
        rest = strptime(rest, ":%S", &t);
    if (rest == NULL)
        return ERR_INVALID;
    if (*rest == '.')
        rest += 1 + strspn(rest + 1, "0123456789");
    enum err rv = parse_zone(rest, &zone_s);
    if (rv != ERR_OK)
        return rv;
    int64_t s = (int64_t)timegm(&t) - zone_s;
    if (s <= 0)
        return ERR_INVALID;
    *ret_wall_ms = (uint64_t)s * 1000;
    return ERR_OK;
}
