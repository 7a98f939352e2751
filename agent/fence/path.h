/* Unix sockets whose path may be longer than sun_path: reached through the directory's descriptor. */
#ifndef REGENT_AGENT_FENCE_PATH_H
#define REGENT_AGENT_FENCE_PATH_H

#include <sys/un.h>

#include "base/base.h"

/* Fills the address; *ret_dir (-1: not needed) must stay open until connect() or bind() is done and
 * then be closed. False when the directory cannot be opened or the name is too long. */
bool path_sockaddr(const char *path, struct sockaddr_un *ret_address, int *ret_dir);

#endif
