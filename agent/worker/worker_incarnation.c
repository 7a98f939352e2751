/* The files that say whose life this data is, and for which loss it is sealed. */
#include <inttypes.h>
#include <stdio.h>

#include "agent/pg_text.h"
#include "agent/worker/worker_ops.h"
#include "base/rng.h"
#include "base/str.h"

enum err incarnation_read(const char *data_dir, const char *name, char ret[static 40],
                          struct errmsg *e)
{
    char path[FILES_PATH];
    char text[160];
    ret[0] = '\0';
    enum err rv = files_path(path, data_dir, INCARNATION_FILE, e);
    if (rv == ERR_OK)
        rv = files_read(path, text, sizeof text, e);
    if (rv != ERR_OK)
        return rv;
    char *blank = strchr(text, ' ');
    char *end = strchr(text, '\n');
    if (blank == NULL || end == NULL || blank > end || blank - text != 36)
        return err_set(e, ERR_CORRUPT, "%s is damaged", path);
    *end = '\0';
    *blank = '\0';
    if (strcmp(blank + 1, name) != 0)
        return err_set(e, ERR_NOT_FOUND, "%s is of node %.63s: a copy that was not finished",
                       path, blank + 1);
    return str_copy(ret, 40, text);
}

static void new_uuid(char ret[static 40])
{
    uint8_t r[16];
    char hex[33];
    rng_system(r, sizeof r);
    r[6] = (uint8_t)((r[6] & 0x0f) | 0x40); /* RFC 9562, version 4 */
    r[8] = (uint8_t)((r[8] & 0x3f) | 0x80);
    hex_encode(hex, r, sizeof r);
    (void)snprintf(ret, 40, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16,
                   hex + 20);
}

enum err incarnation_write(const char *data_dir, const char *name, char ret[static 40],
                           struct errmsg *e)
{
    char path[FILES_PATH];
    char text[160];
    char uuid[40];
    enum err rv = files_path(path, data_dir, INCARNATION_FILE, e);
    if (rv != ERR_OK)
        return rv;
    if (name[0] == '\0' || strpbrk(name, " \n") != NULL)
        return err_set(e, ERR_INVALID, "no node name for the incarnation");
    new_uuid(uuid);
    (void)snprintf(text, sizeof text, "%s %s\n", uuid, name);
    rv = files_write(path, slice_str(text), 0600, e);
    if (rv == ERR_OK)
        memcpy(ret, uuid, sizeof uuid);
    return rv;
}

enum err incarnation_void(const char *data_dir, struct errmsg *e)
{
    static const char *const files[] = {INCARNATION_FILE, SEAL_FILE, LINEAGE_FILE};
    enum err rv = ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(files) && rv == ERR_OK; i++) {
        char path[FILES_PATH];
        rv = files_path(path, data_dir, files[i], e);
        if (rv == ERR_OK)
            rv = files_remove(path, e);
    }
    return rv;
}

enum err lineage_write(const char *data_dir, const char *lineage, struct errmsg *e)
{
    char path[FILES_PATH];
    char text[200];
    if (lineage[0] == '\0')
        return ERR_OK;
    enum err rv = files_path(path, data_dir, LINEAGE_FILE, e);
    if (rv == ERR_OK)
        rv = str_format(text, sizeof text, "%s\n", lineage);
    return rv == ERR_OK ? files_write(path, slice_str(text), 0600, e) : rv;
}

enum err op_lineage(struct worker *w, const struct worker_req *q, struct worker_reply *r,
                    struct errmsg *e)
{
    (void)w;
    (void)r;
    return lineage_write(q->data_dir, q->lineage, e);
}

/* The seal names the incarnation: one that came along with a copy seals nothing. */
enum err op_seal(struct worker *w, const struct worker_req *q, struct worker_reply *r,
                 struct errmsg *e)
{
    char path[FILES_PATH];
    char text[160];
    (void)w;
    (void)r;
    enum err rv = files_path(path, q->data_dir, SEAL_FILE, e);
    if (rv != ERR_OK)
        return rv;
    (void)snprintf(text, sizeof text, "%s %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
                   q->incarnation, q->token, q->lsn, q->timeline);
    return files_write(path, slice_str(text), 0600, e);
}
