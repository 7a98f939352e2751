/* `regentctl dcs snapshot status` and `restore`, and what recover shares with them. */
#include "dcs/offline.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/mem.h"
#include "base/str.h"
#include "dcs/dcs_private.h"
#include "proto/trailer.h"

enum { PEM_MAX = 256 * 1024 };

static enum err io_error(struct errmsg *e, const char *path)
{
    return err_set(e, err_from_errno(errno), "%s: %s", path, strerror(errno));
}

/* ---- the saved file ---- */

static enum err read_trailer(int fd, const char *file, struct trailer *ret, struct errmsg *e)
{
    uint8_t end[TRAILER_SIZE];
    struct stat st;
    if (fstat(fd, &st) != 0)
        return io_error(e, file);
    if (st.st_size < TRAILER_SIZE ||
        pread(fd, end, sizeof end, st.st_size - TRAILER_SIZE) != TRAILER_SIZE ||
        trailer_decode(end, ret) != ERR_OK)
        return err_set(
            e, ERR_CORRUPT,
            "%s was not written by `regentctl dcs snapshot save`, or its end is missing", file);
    if (ret->size != (uint64_t)st.st_size - TRAILER_SIZE)
        return err_set(e, ERR_CORRUPT, "%s has %lld bytes, %llu were saved: it is damaged",
                       file, (long long)st.st_size,
                       (unsigned long long)ret->size + TRAILER_SIZE);
    return ERR_OK;
}

/* The database in front of the trailer, into `to` (-1: nowhere), with its SHA-256 compared. */
static enum err read_database(int fd, const char *file, const struct trailer *t, int to,
                              struct errmsg *e)
{
    uint8_t piece[64 * 1024], sha[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    ASSERT(md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1);
    enum err rc = ERR_OK;
    for (uint64_t at = 0; rc == ERR_OK && at < t->size;) {
        size_t want = (size_t)MIN(t->size - at, (uint64_t)sizeof piece);
        ssize_t n = pread(fd, piece, want, (off_t)at);
        if (n <= 0 || (to >= 0 && write(to, piece, (size_t)n) != n)) {
            rc = io_error(e, file);
            break;
        }
        ASSERT(EVP_DigestUpdate(md, piece, (size_t)n) == 1);
        at += (uint64_t)n;
    }
    ASSERT(EVP_DigestFinal_ex(md, sha, NULL) == 1);
    EVP_MD_CTX_free(md);
    if (rc == ERR_OK && memcmp(sha, t->sha256, sizeof t->sha256) != 0)
        rc = err_set(e, ERR_CORRUPT, "%s is damaged: its SHA-256 differs", file);
    return rc;
}

static enum err read_saved(const char *file, const char *copy, struct trailer *ret,
                           struct errmsg *e)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return io_error(e, file);
    int to = copy == NULL ? -1 : open(copy, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    enum err rc = copy != NULL && to < 0 ? io_error(e, copy) : read_trailer(fd, file, ret, e);
    rc = rc == ERR_OK ? read_database(fd, file, ret, to, e) : rc;
    (void)close(fd);
    if (to >= 0)
        (void)close(to);
    return rc;
}

void offline_json(const struct offline *x, struct buf *out)
{
    const struct state_facts *f = &x->facts;
    buf_printf(out,
               "{\"cluster_id\": \"%s\", \"scope\": \"%s\", \"epoch\": %" PRIu64
               ", \"term\": %" PRIu64 ", \"index\": %" PRIu64 ", \"revision\": %" PRIu64
               ", \"keys\": %" PRIu64 ", \"next_member\": %" PRIu64
               ", \"primary\": \"%s\", \"members\": [",
               f->cluster_id, f->scope, f->epoch, x->term, f->index, f->revision, f->keys,
               f->next_member, f->primary);
    for (size_t i = 0; i < f->n_members; i++)
        buf_printf(out, "%s\"%s\"", i == 0 ? "" : ", ", f->members[i].name);
    buf_printf(out, "]");
}

/* Names go into the JSON as they are. */
static enum err check_names(const struct state_facts *f, struct errmsg *e)
{
    const char *const texts[] = {f->cluster_id, f->scope, f->primary};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        if (strpbrk(texts[i], "\"\\\n\r\t") != NULL)
            return err_set(e, ERR_CORRUPT, "the name \"%s\" in the state cannot be", texts[i]);
    return ERR_OK;
}

enum err dcs_snapshot_status(const char *file, struct buf *ret_json, struct errmsg *e)
{
    struct offline *x = mem_alloc(sizeof *x);
    struct trailer t = {0};
    enum err rc = read_saved(file, NULL, &t, e);
    rc = rc == ERR_OK ? state_file_facts(file, &x->facts, e) : rc;
    rc = rc == ERR_OK ? check_names(&x->facts, e) : rc;
    if (rc == ERR_OK) {
        x->term = t.term;
        offline_json(x, ret_json);
        buf_printf(ret_json, ", \"size\": %" PRIu64 "}\n", t.size);
    }
    mem_free(x);
    return rc;
}

/* ---- the working directory ---- */

static void empty_dir(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *f;
    while (d != NULL && (f = readdir(d)) != NULL) {
        char path[4096];
        if (f->d_name[0] != '.' &&
            str_format(path, sizeof path, "%s/%s", dir, f->d_name) == ERR_OK)
            (void)unlink(path);
    }
    if (d != NULL)
        (void)closedir(d);
}

enum err offline_begin(struct offline *x, const struct dcs_options *o, struct errmsg *e)
{
    *x = (struct offline){.o = o, .lock_fd = -1};
    if (str_format(x->tmp, sizeof x->tmp, "%s/reborn.tmp", o->data_dir) != ERR_OK)
        return err_set(e, ERR_INVALID, "data_dir is too long a path");
    (void)snprintf(x->work, sizeof x->work, "%s/state.work", x->tmp);
    enum err rc = dcs_lock(o->data_dir, &x->lock_fd, e);
    return rc == ERR_EXISTS
               ? err_set(e, ERR_PRECONDITION, "regentd runs in %s: stop it first", o->data_dir)
               : rc;
}

enum err offline_workdir(struct offline *x, struct errmsg *e)
{
    empty_dir(x->tmp);
    return mkdir(x->tmp, 0700) == 0 || errno == EEXIST ? ERR_OK : io_error(e, x->tmp);
}

enum err offline_look(struct offline *x, struct errmsg *e)
{
    enum err rc = state_file_facts(x->work, &x->facts, e);
    return rc == ERR_OK ? check_names(&x->facts, e) : rc;
}

void offline_end(struct offline *x)
{
    if (x->lock_fd < 0)
        return;
    empty_dir(x->tmp);
    (void)rmdir(x->tmp);
    (void)close(x->lock_fd);
}

enum err offline_sync_dir(const char *dir, struct errmsg *e)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum err rc = fd >= 0 && fsync(fd) == 0 ? ERR_OK : io_error(e, dir);
    if (fd >= 0)
        (void)close(fd);
    return rc;
}

enum err offline_move(const struct offline *x, const char *name, const char *to,
                      struct errmsg *e)
{
    char from[4096];
    (void)snprintf(from, sizeof from, "%s/%s", x->tmp, name);
    if (access(from, F_OK) != 0)
        return ERR_OK;
    return rename(from, to) == 0 ? ERR_OK : io_error(e, to);
}

/* ---- founding ---- */

/* Data first: a log that names a snapshot must find it. */
static enum err sync_file(const char *path, struct errmsg *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    enum err rc = fd >= 0 && fsync(fd) == 0 ? ERR_OK : io_error(e, path);
    if (fd >= 0)
        (void)close(fd);
    return rc;
}

static enum err make_log(struct offline *x, struct raft_snapshot_info *info, struct errmsg *e)
{
    struct log_store *log = NULL;
    struct raft_core_disk disk;
    enum err rc = log_store_open(x->tmp, &log, &disk, e);
    if (rc != ERR_OK)
        return rc;
    log_store_loaded(log);
    rc = log_store_reborn(log, info, e);
    log_store_close(log);
    return rc;
}

enum err offline_found(struct offline *x, const char *cluster_id, uint64_t *ret_index,
                       struct errmsg *e)
{
    const struct dcs_options *o = x->o;
    char path[4096];
    struct member self = {.id = x->facts.next_member, .state = "active"};
    struct raft_snapshot_info *info = mem_alloc(sizeof *info);
    struct raft_membership *m = &info->membership;
    info->index = x->facts.index + REBIRTH_INDICES;
    info->term = x->term + 1;
    *m = (struct raft_membership){.index = info->index, .n = 1};
    m->servers[0] = (struct raft_server){.id = self.id, .role = RAFT_ROLE_VOTER};
    const char *address = o->connect_address != NULL ? o->connect_address : o->listen;
    const char *role = strcmp(o->role, "witness") == 0 ? "witness" : "voter";
    (void)snprintf(path, sizeof path, "%s/snapshot-%llu.db", x->tmp,
                   (unsigned long long)info->index);
    enum err rc = str_copy(self.name, sizeof self.name, o->name);
    rc = rc == ERR_OK ? str_copy(self.address, sizeof self.address, address) : rc;
    rc = rc == ERR_OK ? str_copy(self.role, sizeof self.role, role) : rc;
    rc = rc == ERR_OK ? str_copy(m->servers[0].address, sizeof m->servers[0].address, address)
                      : rc;
    if (rc != ERR_OK)
        rc = err_set(e, rc, "name or address is too long");
    rc = rc == ERR_OK ? state_file_rebirth(x->work, cluster_id, &self, e) : rc;
    if (rc == ERR_OK && rename(x->work, path) != 0)
        rc = io_error(e, path);
    rc = rc == ERR_OK ? sync_file(path, e) : rc;
    rc = rc == ERR_OK ? state_file_digest(path, info->sha256, &info->size, e) : rc;
    rc = rc == ERR_OK ? make_log(x, info, e) : rc;
    *ret_index = info->index;
    mem_free(info);
    return rc;
}

/* ---- restore ---- */

static enum err check_place(const struct offline *x, struct pki_identity *ret_id,
                            struct errmsg *e)
{
    struct buf CLEANUP(buf_close) cert = BUF_INIT;
    char *log = mem_printf("%s/log.db", x->o->data_dir);
    enum err rc = pki_read_file(x->o->cert_file, PEM_MAX, &cert, e);
    rc = rc == ERR_OK ? pki_identity_of_pem(buf_slice(&cert), ret_id, e) : rc;
    if (rc == ERR_OK && access(log, F_OK) == 0)
        rc = err_set(e, ERR_EXISTS,
                     "%s exists: a snapshot is restored to an empty directory only", log);
    mem_free(log);
    if (rc == ERR_OK && ret_id->member_id != x->facts.next_member)
        rc = err_set(e, ERR_INVALID,
                     "%s is for member %llu, the new cluster's only one has the id %llu",
                     x->o->cert_file, (unsigned long long)ret_id->member_id,
                     (unsigned long long)x->facts.next_member);
    return rc;
}

/* log.db comes last: without it there is no node here. */
static enum err put_in_place(struct offline *x, uint64_t index, struct errmsg *e)
{
    char name[64];
    (void)snprintf(name, sizeof name, "snapshot-%llu.db", (unsigned long long)index);
    char *snapshot = mem_printf("%s/%s", x->o->data_dir, name);
    char *log = mem_printf("%s/log.db", x->o->data_dir);
    enum err rc = offline_move(x, name, snapshot, e);
    rc = rc == ERR_OK ? offline_sync_dir(x->o->data_dir, e) : rc;
    rc = rc == ERR_OK ? offline_move(x, "log.db", log, e) : rc;
    rc = rc == ERR_OK ? offline_sync_dir(x->o->data_dir, e) : rc;
    mem_free(snapshot);
    mem_free(log);
    return rc;
}

enum err dcs_restore(const struct dcs_options *o, const char *file, struct buf *ret_json,
                     struct errmsg *e)
{
    struct offline *x = mem_alloc(sizeof *x);
    struct pki_identity id;
    struct trailer t = {0};
    uint64_t index = 0;
    enum err rc = offline_begin(x, o, e);
    rc = rc == ERR_OK ? offline_workdir(x, e) : rc;
    rc = rc == ERR_OK ? read_saved(file, x->work, &t, e) : rc;
    rc = rc == ERR_OK ? offline_look(x, e) : rc;
    rc = rc == ERR_OK ? check_place(x, &id, e) : rc;
    if (rc == ERR_OK) {
        x->term = t.term;
        rc = offline_found(x, id.cluster_id, &index, e);
    }
    rc = rc == ERR_OK ? put_in_place(x, index, e) : rc;
    if (rc == ERR_OK) {
        offline_json(x, ret_json);
        buf_printf(ret_json, ", \"new_cluster_id\": \"%s\", \"new_revision\": %llu}\n",
                   id.cluster_id, (unsigned long long)(x->facts.revision + REBIRTH_REVISIONS));
    }
    offline_end(x);
    mem_free(x);
    return rc;
}
