#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

void assert_fail(const char *expr, const char *file, int line, const char *func)
{
    (void)fprintf(stderr, "level=fatal event=assert file=%s line=%d func=%s msg=\"%s\"\n", file,
                  line, func, expr);
    abort();
}
