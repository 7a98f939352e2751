/* Data made by a program of the administrator: a new cluster, or a copy. It writes the data directory itself, as
 * PostgreSQL's user; what it leaves is looked at before anybody relies on it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/worker/worker_place.h"
#include "base/mem.h"
#include "base/str.h"

/* Its options become words of their own, whatever is in them. */
static enum err run_command(struct worker *w, const struct worker_req *q, struct errmsg *e)
{
    struct tool t = {.passfile = q->passfile[0] != '\0' ? q->passfile : NULL,
                     .fills = q->data_dir};
    if (q->command.n == 0 || q->command.p[q->command.n - 1] != '\0')
        return err_set(e, ERR_INVALID, "no command");
    char *line CLEANUP(mem_cleanup) = mem_printf("%s \"$@\"", (const char *)q->command.p);
    const char *args[] = {"/bin/sh", "-c", line, "regent"};
    for (size_t i = 0; i < ARRAY_LEN(args); i++)
        tool_arg(&t, args[i]);
    enum err rv = tool_args(&t, q->args, NULL, e);
    return rv == ERR_OK ? tool_run(w, &t, NULL, e) : rv;
}

/* The promotion that made `timeline`, by a text of "timeline:token" pairs; 0: it does not say. */
static uint64_t token_of(const char *lineage, uint64_t timeline)
{
    for (const char *p = lineage; *p != '\0'; p += *p == ',') {
        char *end;
        uint64_t id = strtoull(p, &end, 10);
        uint64_t token = *end == ':' ? strtoull(end + 1, &end, 10) : 0;
        if (id == timeline && token != 0)
            return token;
        p = end + strcspn(end, ",");
    }
    return 0;
}

/* Timeline numbers repeat: data of another promotion with the leader's number would be streamed to, not noticed. */
static enum err check_copy(struct worker *w, const struct worker_req *q, const char *bin_dir,
                           struct errmsg *e)
{
    struct control_data c;
    char path[FILES_PATH];
    char own[200] = "";
    enum err rv = control_read(w, bin_dir, q->data_dir, &c, e);
    if (rv == ERR_OK)
        rv = files_path(path, q->data_dir, LINEAGE_FILE, e);
    if (rv != ERR_OK)
        return rv;
    if (files_exists(path))
        rv = files_read(path, own, sizeof own, e);
    uint64_t here = token_of(own, c.timeline);
    uint64_t there = token_of(q->lineage, c.timeline);
    if (rv == ERR_OK && here != 0 && there != 0 && here != there)
        rv = err_set(e, ERR_PRECONDITION,
                     "it made data of another promotion to timeline %" PRIu64
                     " than the leader's",
                     c.timeline);
    return rv;
}

static enum err make_ours(const struct worker_req *q, struct worker_reply *r, struct errmsg *e)
{
    enum err rv = incarnation_void(q->data_dir, e);
    if (rv == ERR_OK)
        rv = signal_file_set(q->data_dir, true, e);
    if (rv == ERR_OK)
        rv = lineage_write(q->data_dir, q->lineage, e);
    return rv == ERR_OK ? incarnation_write(q->data_dir, q->name, r->incarnation, e) : rv;
}

/* Old data that is to be kept is worth nothing by itself from here on: it is neither the old nor the new. */
static enum err begin(const struct worker_req *q, struct place *p, struct worker_reply *r,
                      struct errmsg *e)
{
    if (!q->keep_data) {
        bool gone = q->remove_old || place_is_half_deleted(p);
        enum err rv = gone ? place_give_up(p, r, e) : place_check(p, e);
        return rv == ERR_OK ? place_clear(p, r, e) : rv;
    }
    return p->empty ? place_clear(p, r, e) : incarnation_void(p->target, e);
}

enum err op_restore(struct worker *w, const struct worker_req *q, struct worker_reply *r,
                    struct errmsg *e)
{
    struct place p = {.exists = false};
    enum err rv = place_find(q, &p, e);
    if (rv == ERR_OK)
        rv = programs_find(q, r->bin_dir, e);
    if (rv == ERR_OK)
        rv = begin(q, &p, r, e);
    if (rv != ERR_OK)
        return rv;
    rv = run_command(w, q, e);
    if (rv == ERR_OK)
        rv = check_copy(w, q, r->bin_dir, e);
    if (rv == ERR_OK)
        rv = make_ours(q, r, e);
    if (rv != ERR_OK && (!q->keep_data || p.empty)) {
        place_undo(&p);
        r->text[0] = '\0';
    }
    if (rv == ERR_OK && q->remove_old)
        place_drop_old(&p, r);
    return rv;
}

/* Who restores a backup gets the files of the cluster it came from. */
static enum err make_first(struct worker *w, const struct worker_req *q, struct worker_reply *r,
                           struct errmsg *e)
{
    struct control_data c;
    char lineage[40];
    enum err rv = incarnation_void(q->data_dir, e);
    if (rv == ERR_OK)
        rv = recover_to_target(w, q, r->bin_dir, e);
    if (rv == ERR_OK)
        rv = superuser_set(w, q, r->bin_dir, e);
    if (rv == ERR_OK)
        rv = control_read(w, r->bin_dir, q->data_dir, &c, e);
    if (rv != ERR_OK)
        return rv;
    (void)snprintf(lineage, sizeof lineage, "%" PRIu64 ":1", c.timeline);
    rv = lineage_write(q->data_dir, lineage, e);
    if (rv == ERR_OK)
        rv = fresh_write(q->data_dir, e);
    return rv == ERR_OK ? incarnation_write(q->data_dir, q->name, r->incarnation, e) : rv;
}

enum err op_bootstrap(struct worker *w, const struct worker_req *q, struct worker_reply *r,
                      struct errmsg *e)
{
    struct place p = {.exists = false};
    enum err rv = place_find(q, &p, e);
    if (rv == ERR_OK && !p.empty)
        rv = err_set(e, ERR_EXISTS, "%s is not empty: a new cluster needs an empty directory",
                     q->data_dir);
    if (rv == ERR_OK)
        rv = place_clear(&p, r, e);
    if (rv != ERR_OK)
        return rv;
    rv = run_command(w, q, e);
    if (rv == ERR_OK)
        rv = programs_find(q, r->bin_dir, e);
    if (rv == ERR_OK)
        rv = make_first(w, q, r, e);
    if (rv != ERR_OK)
        place_undo(&p); /* as initdb does: the directory was empty */
    return rv;
}
