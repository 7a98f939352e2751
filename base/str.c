#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>

enum err str_copy_slice(char *dst, size_t size, struct slice src)
{
    if (size == 0)
        return ERR_LIMIT;
    dst[0] = '\0';
    if (src.n >= size)
        return ERR_LIMIT;
    if (src.n != 0 && memchr(src.p, 0, src.n) != NULL)
        return ERR_INVALID;
    if (src.n != 0)
        memcpy(dst, src.p, src.n);
    dst[src.n] = '\0';
    return ERR_OK;
}

enum err str_copy(char *dst, size_t size, const char *src)
{
    return str_copy_slice(dst, size, slice_str(src));
}

void str_cut(char *dst, size_t size, const char *src)
{
    if (size == 0)
        return;
    size_t n = strnlen(src, size - 1);
    memmove(dst, src, n);
    dst[n] = '\0';
}

enum err str_format(char *dst, size_t size, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(dst, size, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= size) {
        if (size != 0)
            dst[0] = '\0';
        return ERR_LIMIT;
    }
    return ERR_OK;
}

enum err str_parse_u64(const char *text, uint64_t *ret_value)
{
    uint64_t v = 0;
    if (*text == '\0')
        return ERR_INVALID;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return ERR_INVALID;
        uint64_t digit = (uint64_t)(*text - '0');
        if (v > (UINT64_MAX - digit) / 10)
            return ERR_LIMIT;
        v = v * 10 + digit;
    }
    *ret_value = v;
    return ERR_OK;
}

bool str_starts(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

void hex_encode(char *dst, const void *p, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *from = p;
    for (size_t i = 0; i < n; i++) {
        dst[2 * i] = digits[from[i] >> 4];
        dst[2 * i + 1] = digits[from[i] & 15];
    }
    dst[2 * n] = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

enum err hex_decode(const char *text, void *dst, size_t n)
{
    uint8_t *to = dst;
    if (strlen(text) != 2 * n)
        return ERR_INVALID;
    for (size_t i = 0; i < n; i++) {
        int hi = hex_digit(text[2 * i]);
        int lo = hex_digit(text[2 * i + 1]);
        if (hi < 0 || lo < 0)
            return ERR_INVALID;
        to[i] = (uint8_t)(hi << 4 | lo);
    }
    return ERR_OK;
}

enum err str_host_port(const char *text, char *ret_host, size_t host_size, uint16_t *ret_port)
{
    const char *colon = strrchr(text, ':');
    if (colon == NULL || colon == text)
        return ERR_INVALID;
    uint64_t port;
    if (str_parse_u64(colon + 1, &port) != ERR_OK || port == 0 || port > 65535)
        return ERR_INVALID;
    struct slice host = slice_of(text, (size_t)(colon - text));
    bool bracketed = host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']';
    if (bracketed)
        host = slice_of(host.p + 1, host.n - 2);
    else if (memchr(host.p, ':', host.n) != NULL)
        return ERR_INVALID;
    if (host.n == 0 || str_copy_slice(ret_host, host_size, host) != ERR_OK)
        return ERR_INVALID;
    *ret_port = (uint16_t)port;
    return ERR_OK;
}

size_t str_distance(const char *a, const char *b)
{
    enum { LONGEST = 63 };
    size_t n = strlen(a);
    size_t m = strlen(b);
    if (n > LONGEST || m > LONGEST)
        return LONGEST;
    size_t row[LONGEST + 1];
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t above = row[j];
            size_t replace = diagonal + (a[i - 1] != b[j - 1]);
            row[j] = MIN(MIN(above, row[j - 1]) + 1, replace);
            diagonal = above;
        }
    }
    return row[m];
}
