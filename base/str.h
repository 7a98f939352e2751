/* Text helpers that refuse instead of truncating. */
#ifndef REGENT_BASE_STR_H
#define REGENT_BASE_STR_H

#include "base/base.h"
#include "base/err.h"

/* Copies with NUL; ERR_LIMIT (and an empty dst) when it does not fit. */
enum err str_copy(char *dst, size_t size, const char *src) MUST_CHECK;
/* ERR_INVALID on NUL inside */
enum err str_copy_slice(char *dst, size_t size, struct slice src) MUST_CHECK;
/* For texts that people read, and copies between arrays of one size: cuts instead of refusing. */
void str_cut(char *dst, size_t size, const char *src);
enum err str_format(char *dst, size_t size, const char *fmt, ...) PRINTF(3, 4) MUST_CHECK;
/* Whole text must be a decimal number. */
enum err str_parse_u64(const char *text, uint64_t *ret_value) MUST_CHECK;
bool str_starts(const char *text, const char *prefix);
/* Lower-case hex; dst has 2*n+1 bytes. */
void hex_encode(char *dst, const void *p, size_t n);
/* Exactly n bytes from 2*n hex digits. */
enum err hex_decode(const char *text, void *dst, size_t n) MUST_CHECK;
/* Splits "host:port", "[v6]:port"; ERR_INVALID when the port is missing or not 1..65535. */
enum err str_host_port(const char *text, char *ret_host, size_t host_size, uint16_t *ret_port)
    MUST_CHECK;
/* Levenshtein distance, for "did you mean"; texts up to 63 bytes, longer ones count as far. */
size_t str_distance(const char *a, const char *b);

#endif
