/* A cgroup (v2) of its own for PostgreSQL, below the fence's, where that is delegated: it is killed and
 * frozen at one stroke. Without one every function is a no-op that says so, and the tree serves.
 * All files are opened at the start: nothing is looked up when time is short. */
#ifndef REGENT_AGENT_FENCE_CGROUP_H
#define REGENT_AGENT_FENCE_CGROUP_H

#include <sys/types.h>

#include "agent/fence/proto.h"
#include "base/base.h"

struct cgroup {
    bool made;   /* the directory and its files are there */
    bool usable; /* a postmaster has been seen inside */
    bool frozen; /* asked for */
    int procs, kill, freeze, events;
    char path[FENCE_PATH_MAX];
};

void cgroup_open(struct cgroup *c); /* also removes those of dead fences */
void cgroup_close(struct cgroup *c);
/* In the child, before exec: moves itself. */
bool cgroup_enter(const struct cgroup *c);
/* After exec: is it inside? Sets usable. */
bool cgroup_verify(struct cgroup *c, pid_t pid);
bool cgroup_kill(const struct cgroup *c);
bool cgroup_freeze(struct cgroup *c, bool on);
/* Has the kernel stopped all of it? */
bool cgroup_is_frozen(const struct cgroup *c);

#endif
