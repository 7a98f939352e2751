/* Work on the files of the store: done by regentd, which regentctl runs for it. */
#ifndef REGENT_CLI_OFFLINE_H
#define REGENT_CLI_OFFLINE_H

#include <jansson.h>

#include "cli/cli.h"

/* Runs regentd with these arguments, as the owner of `dir` when this is root (NULL: as we are). The object
 * it printed, the caller's; NULL: *ret_code says how regentctl ends, and why is said. */
json_t *offline_regentd(const char *const *arguments, const char *dir, int *ret_code);

#endif
