/* What a command writes, as text. */
#ifndef REGENT_TESTS_CLI_FIXTURE_H
#define REGENT_TESTS_CLI_FIXTURE_H

#include "base/base.h"

/* From here to capture_end() what goes to fd (1 or 2) is kept; one at a time. */
void capture_begin(int fd);
/* The text, valid until the next capture_begin(). */
const char *capture_end(void);

/* An empty directory, and its end with everything below it. */
void scratch_make(char *ret, size_t size);
void scratch_remove(const char *dir);
/* Number of files and directories below dir. */
size_t scratch_count(const char *dir);

#endif
