/* Which processes belong to one PostgreSQL? Asked by the fence when it sweeps, by its child before a
 * start, and by the daemon's second guard. Reads /proc, allocates nothing, touches no file of PGDATA.
 *
 * A living process belongs to it when
 *   - its line of parents leads to the postmaster, or
 *   - it leads to the reaper (the fence is a subreaper: what the postmaster leaves behind comes to it)
 *     without passing one of `except` (workers, the logger), or
 *   - neither is so, its working directory is PGDATA and its program bears the postmaster's name: every
 *     PostgreSQL process changes to PGDATA, so this finds what a dead fence and a dead postmaster left;
 *     where the working directory is not ours to see (PostgreSQL runs as another user), its cgroup is the
 *     one that the fence made.
 * Zombies are dead. */
#ifndef REGENT_AGENT_FENCE_TREE_H
#define REGENT_AGENT_FENCE_TREE_H

#include <sys/types.h>

#include "agent/fence/proto.h"
#include "base/base.h"

struct proc_stat {
    pid_t pid, ppid;
    char state;           /* as in proc(5) */
    uint64_t start_ticks; /* since boot: pid and start name a process for ever */
};

struct tree {
    pid_t root;                /* postmaster; 0: gone */
    uint64_t root_start_ticks; /* 0: not checked */
    pid_t reaper;              /* 0: none */
    pid_t except[FENCE_WORKERS_MAX + 1];
    char exe[64];                /* "": postgres */
    char pgdata[FENCE_PATH_MAX]; /* canonical; "": unknown */
    pid_t cgroup_of;             /* the fence whose cgroup it may be in; 0: none */
};

/* False when there is no such process. */
bool proc_stat_read(pid_t pid, struct proc_stat *ret_stat);
static inline bool proc_is_dead(const struct proc_stat *s)
{
    return s->state == 'Z' || s->state == 'X' || s->state == 'x';
}

/* The canonical working directory; empty and false when it cannot be read. */
bool proc_cwd(pid_t pid, char *ret_path, size_t size);

bool tree_has(const struct tree *t, const struct proc_stat *s);
/* Living processes of it; sends signal_number to each when it is not 0. -1: /proc cannot be read. */
int tree_signal(const struct tree *t, int signal_number);
/* Signals the very process (pid, start), never a later one that inherited the pid. */
bool proc_signal(const struct proc_stat *s, int signal_number);

#endif
