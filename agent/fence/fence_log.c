#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "agent/fence/warden.h"
#include "base/clock.h"

/* base/log allocates, and its write may wait for a disk; this one does neither: standard error is the
 * logger's pipe (warden_setup.c), not blocking. A line that does not fit is lost. */
void fence_log(const char *level, const char *event, const char *fmt, ...)
{
    char line[1024], text[512], when[CLOCK_TEXT_MAX];
    clock_wall_text(clock_wall_ms(), when);
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    int n = snprintf(line, sizeof line,
                     "ts=%s level=%s program=regent-fence pid=%d event=%s msg=\"%s\"\n", when,
                     level, (int)getpid(), event, text);
    if (n > 0)
        (void)!write(STDERR_FILENO, line, MIN((size_t)n, sizeof line - 1));
}
