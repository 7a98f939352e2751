/* Files in PGDATA, written so that a power loss leaves the old or the new one: content, fsync,
 * rename, fsync of the directory. */
#ifndef REGENT_AGENT_WORKER_WORKER_FILES_H
#define REGENT_AGENT_WORKER_WORKER_FILES_H

#include <sys/types.h>

#include "base/base.h"
#include "base/err.h"

enum { FILES_PATH = 1024 };

/* In a data directory that cannot be renamed: where new data is made before it takes the place of what is there. */
#define NEW_DIR "regent.new"

/* dir/name; a name that is absolute stands for itself. */
enum err files_path(char ret[static FILES_PATH], const char *dir, const char *name,
                    struct errmsg *e) MUST_CHECK;
enum err files_write(const char *path, struct slice content, mode_t mode, struct errmsg *e)
    MUST_CHECK;
/* The same, but nothing is waited for: after a power loss the file may be the old one, or damaged. */
enum err files_replace(const char *path, struct slice content, mode_t mode, struct errmsg *e)
    MUST_CHECK;
/* Whole small file with a NUL behind it; ERR_NOT_FOUND, ERR_LIMIT when it has size bytes or more. */
enum err files_read(const char *path, char *ret, size_t size, struct errmsg *e) MUST_CHECK;
/* The last bytes of a file, from the start of a line. */
enum err files_tail(const char *path, char *ret, size_t size, struct errmsg *e) MUST_CHECK;
/* Durable; a file that is not there is fine. */
enum err files_remove(const char *path, struct errmsg *e) MUST_CHECK;
enum err files_rename(const char *from, const char *to, struct errmsg *e) MUST_CHECK;
enum err files_sync_dir(const char *path, struct errmsg *e) MUST_CHECK;
bool files_exists(const char *path);
/* ERR_NOT_FOUND when there is no such directory; lost+found does not count, nor data that was being made (NEW_DIR). */
enum err files_dir_empty(const char *path, bool *ret_empty, struct errmsg *e) MUST_CHECK;
/* A directory of our own: made 0700, or already there, ours, and closed to other users. */
enum err files_own_dir(const char *path, struct errmsg *e) MUST_CHECK;
/* The directory that holds path. */
enum err files_parent(char ret[static FILES_PATH], const char *path, struct errmsg *e)
    MUST_CHECK;
/* Removes a tree that this program made; stays on its file system, follows no link. */
enum err files_remove_tree(const char *path, struct errmsg *e) MUST_CHECK;
/* The same for what is in a directory, but for its entry `last`, which goes last (NULL: no such), and lost+found. */
enum err files_clear_dir(const char *path, const char *last, struct errmsg *e) MUST_CHECK;
/* What a tree takes on its file system. */
uint64_t files_tree_bytes(const char *path);
/* false: it was not seen to its end in this time (0: without an end). */
bool files_tree_bytes_within(const char *path, uint64_t limit_ms, uint64_t *ret_bytes);
/* "20260102T030405Z": for names of what is moved aside. */
void files_stamp(char ret[static 20]);

#endif
