#include "base/mutant.h"

#include <stdlib.h>
#include <string.h>

static const char *chosen = "";

/* Before main(), and never again: threads only read it. */
__attribute__((constructor)) static void choose(void)
{
    const char *name = getenv("REGENT_MUTANT");
    if (name != NULL)
        chosen = name;
}

bool mutant_is(const char *name)
{
    return strcmp(name, chosen) == 0;
}
