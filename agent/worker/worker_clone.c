/* A copy of another node's data, in place of what is here.
 *
 * The copy is made in a new directory beside the data (within it where it cannot be renamed); only when it is whole is
 * the old data moved aside and the new moved in, so that a clone that fails costs nothing. A crash between the two
 * renames leaves no data directory: it is cloned again. Old data is deleted only where the operator's policy or order
 * says so. */
#include "agent/worker/worker_place.h"

static enum err run_basebackup(struct worker *w, const struct worker_req *q,
                               const char *bin_dir, const struct place *p, struct errmsg *e)
{
    char path[FILES_PATH];
    struct buf conninfo CLEANUP(buf_close) = BUF_INIT;
    struct tool t = {.says_percent = true};
    enum err rv = files_path(path, bin_dir, "pg_basebackup", e);
    if (rv != ERR_OK)
        return rv;
    tool_conninfo(q, NULL, &conninfo);
    const char *args[] = {path,
                          "-D",
                          p->fresh,
                          "-X",
                          "stream",
                          "--checkpoint=fast",
                          "--no-password",
                          "--progress",
                          "-d",
                          buf_cstr(&conninfo)};
    for (size_t i = 0; i < ARRAY_LEN(args); i++)
        tool_arg(&t, args[i]);
    rv = tool_args(&t, q->args, NULL, e);
    return rv == ERR_OK ? tool_run(w, &t, NULL, e) : rv;
}

static enum err copy(struct worker *w, const struct worker_req *q, const char *bin_dir,
                     const struct place *p, struct errmsg *e)
{
    enum err rv = run_basebackup(w, q, bin_dir, p, e);
    if (rv != ERR_OK && place_is_short(p))
        (void)err_wrap(e, rv,
                       "there may be no room beside the old data, which `regentctl reinit "
                       "--remove-data` deletes first");
    return rv;
}

enum err op_clone(struct worker *w, const struct worker_req *q, struct worker_reply *r,
                  struct errmsg *e)
{
    struct place p = {.exists = false};
    enum err rv = place_find(q, &p, e);
    if (rv == ERR_OK)
        rv = programs_find(q, r->bin_dir, e);
    if (rv == ERR_OK)
        rv = q->remove_old || place_is_half_deleted(&p) ? place_give_up(&p, r, e)
                                                        : place_check(&p, e);
    if (rv == ERR_OK)
        rv = files_remove_tree(p.fresh, e); /* of a clone that was cut short */
    if (rv == ERR_OK)
        rv = copy(w, q, r->bin_dir, &p, e);
    /* What the source says of itself came along. */
    if (rv == ERR_OK)
        rv = incarnation_void(p.fresh, e);
    if (rv == ERR_OK)
        rv = signal_file_set(p.fresh, true, e);
    if (rv == ERR_OK)
        rv = lineage_write(p.fresh, q->lineage, e);
    if (rv == ERR_OK)
        rv = incarnation_write(p.fresh, q->name, r->incarnation, e);
    if (rv == ERR_OK)
        rv = place_exchange(&p, r, e);
    if (rv == ERR_OK && q->remove_old)
        place_drop_old(&p, r);
    return rv;
}
