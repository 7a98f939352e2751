/* State of logical slots, copied from the leader, laid down where PostgreSQL finds it at its next start. */
#include "agent/worker/worker_files.h"
#include "agent/worker/worker_ops.h"
#include "base/str.h"

/* PostgreSQL refuses to start on a slot without its state, and removes what ends in .tmp: so the directory gets its
 * name last. One that is there already stays. */
static enum err lay_down(const char *data_dir, const struct worker_file *f, struct errmsg *e)
{
    char all[FILES_PATH];
    char path[FILES_PATH];
    char temp[FILES_PATH];
    char state[FILES_PATH];
    if (strspn(f->path, "abcdefghijklmnopqrstuvwxyz0123456789_") != strlen(f->path))
        return err_set(e, ERR_INVALID, "\"%.64s\" is no name of a slot", f->path);
    enum err rv = files_path(all, data_dir, "pg_replslot", e);
    if (rv == ERR_OK)
        rv = files_path(path, all, f->path, e);
    if (rv == ERR_OK && (str_format(temp, sizeof temp, "%s.tmp", path) != ERR_OK ||
                         str_format(state, sizeof state, "%s/state", temp) != ERR_OK))
        rv = err_set(e, ERR_LIMIT, "path is too long: %.200s", path);
    if (rv != ERR_OK || files_exists(path))
        return rv;
    rv = files_own_dir(temp, e);
    if (rv == ERR_OK)
        rv = files_write(state, f->content, 0600, e);
    return rv == ERR_OK ? files_rename(temp, path, e) : rv;
}

enum err slots_lay_down(const struct worker_req *q, struct errmsg *e)
{
    struct msg_iter it;
    struct worker_file f;
    if (q->slots.n == 0)
        return ERR_OK;
    enum err rv = msg_iter_init(&it, q->slots);
    while (rv == ERR_OK) {
        rv = msg_iter_next(&it, &msg_worker_file, &f, e);
        if (rv == ERR_NOT_FOUND)
            return ERR_OK;
        if (rv == ERR_OK)
            rv = lay_down(q->data_dir, &f, e);
    }
    return rv;
}
