/* The worker: the process beside the fence that does every file operation and runs every tool in
 * PGDATA, so that a hung disk stops neither Raft nor the agent's loop. It runs as the user that owns
 * PGDATA and keeps no state of its own: what it knows is in the request or on the disk.
 *
 * Its socket carries worker_messages.h: one request at a time, and `cancel`, which ends the tool
 * under way. A daemon that goes away cancels too; tools die with the worker. */
#ifndef REGENT_AGENT_WORKER_WORKER_H
#define REGENT_AGENT_WORKER_WORKER_H

#include "base/base.h"

/* Serves fd until it ends; an exit status. fd is a connected stream socket, or a listening one: then
 * each connection is served in turn, and never two at once. Uses fd alone. */
int worker_main(int fd);

#endif
