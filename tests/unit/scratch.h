/* Where unit tests and simulators put their files: in memory where there is room, for hundreds of databases are made and none
 * has to outlive a power loss. A container's /dev/shm may have 64 MiB: then on disk. */
#ifndef REGENT_TEST_SCRATCH_H
#define REGENT_TEST_SCRATCH_H

#include <stddef.h>

/* A new directory of the caller's own, "BASE/regent-NAME-XXXXXX" in `ret`; aborts when there is none. */
void scratch_dir(char *ret, size_t size, const char *name);

#endif
