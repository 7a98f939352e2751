/* Lock files that PostgreSQL would take for valid although nobody holds them. */
#ifndef REGENT_AGENT_WORKER_LOCKS_H
#define REGENT_AGENT_WORKER_LOCKS_H

/* Removes the lock file at `path` (first line: a pid) unless a living process that works in `data_dir`
 * bears the pid. PostgreSQL itself asks only whether some process bears it: also a zombie that PID 1 has not
 * reaped, also a stranger after a reboot. Call it only while no PostgreSQL of this data is running. */
void locks_remove_dead(const char *path, const char *data_dir);

/* The postmaster that works in data_dir; 0: none. */
unsigned long locks_holder(const char *data_dir);

#endif
