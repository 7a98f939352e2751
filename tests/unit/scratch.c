#include "tests/unit/scratch.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

static bool has_room(const char *place)
{
    const uint64_t wanted_bytes = (uint64_t)1024 * 1024 * 1024;
    struct statvfs s;
    return access(place, W_OK | X_OK) == 0 && statvfs(place, &s) == 0 &&
           (uint64_t)s.f_bavail * s.f_frsize >= wanted_bytes;
}

void scratch_dir(char *ret, size_t size, const char *name)
{
    int n = snprintf(ret, size, "%s/regent-%s-XXXXXX",
                     has_room("/dev/shm") ? "/dev/shm" : "/tmp", name);
    if (n > 0 && (size_t)n < size && mkdtemp(ret) != NULL)
        return;
    perror(ret);
    abort();
}
