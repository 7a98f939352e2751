/* Clocks. Leases and deadlines live on CLOCK_BOOTTIME (it runs on in suspend); wall time is for
 * people only and decides nothing. Milliseconds unless the name says otherwise. */
#ifndef REGENT_BASE_CLOCK_H
#define REGENT_BASE_CLOCK_H

#include "base/base.h"
#include "base/err.h"

uint64_t clock_boot_ms(void);
uint64_t clock_boot_us(void);
uint64_t clock_mono_ms(void);
uint64_t clock_raw_ms(void);  /* CLOCK_MONOTONIC_RAW: not slewed */
uint64_t clock_wall_ms(void); /* since 1970, UTC */

enum { CLOCK_TEXT_MAX = 32 };
/* 2026-01-02T03:04:05.678Z */
void clock_wall_text(uint64_t wall_ms, char ret_text[static CLOCK_TEXT_MAX]);
/* ISO 8601 with a zone: 2026-01-31T04:00[:00[.5]]+01:00, ...Z, or a space for the T. ERR_UNSUPPORTED: the zone
 * is missing; ERR_INVALID: anything else. */
enum err clock_wall_parse(const char *text, uint64_t *ret_wall_ms) MUST_CHECK;

#endif
