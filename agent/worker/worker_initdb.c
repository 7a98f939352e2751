/* A new cluster. The superuser's password goes through a pipe: never argv, never a file.
 *
 * It is made beside the data directory and moved in when it is whole: one that was cut short is in nobody's way. */
#include <errno.h>
#include <sys/stat.h>

#include "agent/worker/worker_place.h"
#include "base/mem.h"
#include "base/str.h"

static bool given(const char *option, const char *name)
{
    size_t n = strlen(name);
    return strncmp(option, name, n) == 0 && (option[n] == '\0' || option[n] == '=');
}

/* What is the agent's to say: where, who, how they prove it. */
static bool reserved(const char *option)
{
    static const char *const ours[] = {
        "--pgdata", "--auth",     "--auth-host",         "--auth-local",    "--username",
        "--pwfile", "--pwprompt", "--no-data-checksums", "--data-checksums"};
    for (size_t i = 0; i < ARRAY_LEN(ours); i++)
        if (given(option, ours[i]))
            return true;
    /* Short forms (-D, -A, -U, -W, -k) say the same. */
    return option[0] != '-' || option[1] != '-';
}

static enum err run_initdb(struct worker *w, const struct worker_req *q, const char *bin_dir,
                           const char *data_dir, struct errmsg *e)
{
    char path[FILES_PATH];
    char user[96];
    char input[512];
    struct tool t = {0};
    enum err rv = files_path(path, bin_dir, "initdb", e);
    if (rv != ERR_OK)
        return rv;
    if (q->password.n == 0 || q->password.n > 400 ||
        memchr(q->password.p, '\n', q->password.n) != NULL)
        return err_set(e, ERR_INVALID,
                       "the superuser's password is empty, too long or has a line break");
    rv = str_format(user, sizeof user, "--username=%s", q->user);
    if (rv == ERR_OK)
        rv = str_format(input, sizeof input, "%.*s\n", (int)q->password.n,
                        (const char *)q->password.p);
    if (rv != ERR_OK)
        return err_set(e, rv, "the superuser's name or password is too long");
    tool_arg(&t, path);
    tool_arg(&t, "-D");
    tool_arg(&t, data_dir);
    tool_arg(&t, user);
    tool_arg(&t, "--data-checksums");
    tool_arg(&t, "--auth=scram-sha-256");
    tool_arg(&t, "--pwfile=/dev/stdin");
    rv = tool_args(&t, q->args, reserved, e);
    t.input = slice_str(input);
    if (rv == ERR_OK)
        rv = tool_run(w, &t, NULL, e);
    explicit_bzero(input, sizeof input);
    return rv;
}

enum err fresh_write(const char *data_dir, struct errmsg *e)
{
    char path[FILES_PATH];
    enum err rv = files_path(path, data_dir, FRESH_FILE, e);
    return rv == ERR_OK ? files_write(path, slice_of(NULL, 0), 0600, e) : rv;
}

enum err op_made(struct worker *w, const struct worker_req *q, struct worker_reply *r,
                 struct errmsg *e)
{
    char path[FILES_PATH];
    (void)w;
    (void)r;
    enum err rv = files_path(path, q->data_dir, FRESH_FILE, e);
    return rv == ERR_OK ? files_remove(path, e) : rv;
}

enum err op_initdb(struct worker *w, const struct worker_req *q, struct worker_reply *r,
                   struct errmsg *e)
{
    struct place p = {.exists = false};
    enum err rv = place_find(q, &p, e);
    if (rv == ERR_OK && !p.empty)
        rv = err_set(e, ERR_EXISTS, "%s is not empty: initdb needs an empty directory",
                     q->data_dir);
    if (rv == ERR_OK)
        rv = programs_find(q, r->bin_dir, e);
    if (rv == ERR_OK)
        rv = files_remove_tree(p.fresh, e); /* of one that was cut short */
    if (rv == ERR_OK)
        rv = run_initdb(w, q, r->bin_dir, p.fresh, e);
    if (rv == ERR_OK)
        rv = lineage_write(p.fresh, q->lineage, e);
    if (rv == ERR_OK)
        rv = fresh_write(p.fresh, e);
    if (rv == ERR_OK)
        rv = incarnation_write(p.fresh, q->name, r->incarnation, e);
    return rv == ERR_OK ? place_exchange(&p, r, e) : rv;
}
