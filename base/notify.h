/* sd_notify(3) without its library, which would bring a megabyte of others along; nothing outside systemd. One
 * notifier a process. */
#ifndef REGENT_BASE_NOTIFY_H
#define REGENT_BASE_NOTIFY_H

#include "base/base.h"

/* Takes NOTIFY_SOCKET and the watchdog's variables out of the environment: children do not speak for us.
 * Before there are threads. */
void notify_open(void);
void notify_send(const char *text); /* "READY=1"; any thread */
uint64_t notify_watchdog_us(void);  /* 0: off */

#endif
