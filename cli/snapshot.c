/* dcs snapshot save: a copy of the store, streamed from a node, verified, with a trailer behind it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "proto/trailer.h"

enum { MAKE_MS = 60000 }; /* the node copies up to 288 MiB */

struct save {
    struct client_sync *client;
    int fd;
    const char *path;
    struct trailer t;
    EVP_MD_CTX *sha;
};

static enum err io_error(const struct save *s, struct errmsg *e)
{
    return err_set(e, err_from_errno(errno), "%s: %s", s->path, strerror(errno));
}

static enum err put(struct save *s, struct slice data, struct errmsg *e)
{
    while (data.n > 0) {
        ssize_t n = write(s->fd, data.p, data.n);
        if (n <= 0)
            return io_error(s, e);
        data = slice_of(data.p + n, data.n - (size_t)n);
    }
    return ERR_OK;
}

static enum err stream(struct save *s, uint64_t id, struct errmsg *e)
{
    struct snapshot_piece req = {.id = id};
    struct snapshot_data piece;
    while (req.offset < s->t.size) {
        enum err rv = client_sync_call(s->client, METHOD_SNAPSHOT_PIECE, &req,
                                       2 * CLIENT_DEADLINE_MS, &piece, e);
        if (rv != ERR_OK)
            return rv;
        if (piece.data.n == 0 || piece.data.n > s->t.size - req.offset)
            return err_set(e, ERR_CORRUPT, "the copy has not the length that was announced");
        if (EVP_DigestUpdate(s->sha, piece.data.p, piece.data.n) != 1)
            return err_set(e, ERR_INTERNAL, "SHA-256 failed");
        rv = put(s, piece.data, e);
        if (rv != ERR_OK)
            return rv;
        req.offset += piece.data.n;
    }
    return ERR_OK;
}

static enum err finish(struct save *s, const char *file, struct errmsg *e)
{
    uint8_t sha[EVP_MAX_MD_SIZE];
    uint8_t end[TRAILER_SIZE];
    if (EVP_DigestFinal_ex(s->sha, sha, NULL) != 1 ||
        memcmp(sha, s->t.sha256, sizeof s->t.sha256) != 0)
        return err_set(e, ERR_CORRUPT, "the copy arrived damaged: its SHA-256 differs");
    trailer_encode(&s->t, end);
    enum err rv = put(s, slice_of(end, sizeof end), e);
    if (rv == ERR_OK && (fsync(s->fd) != 0 || link(s->path, file) != 0))
        rv = err_set(e, err_from_errno(errno), "%s: %s", file, strerror(errno));
    return rv;
}

static enum err save(struct save *s, const char *file, struct snapshot_info *ret_info,
                     struct errmsg *e)
{
    static const struct empty nothing;
    s->fd = open(s->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (s->fd < 0)
        return io_error(s, e);
    enum err rv =
        client_sync_call(s->client, METHOD_SNAPSHOT_SAVE, &nothing, MAKE_MS, ret_info, e);
    if (rv == ERR_OK && ret_info->sha256.n != sizeof s->t.sha256)
        rv = err_set(e, ERR_CORRUPT, "the node sent no SHA-256");
    if (rv != ERR_OK)
        return rv;
    /* borrowed until the next call */
    memcpy(s->t.sha256, ret_info->sha256.p, sizeof s->t.sha256);
    s->t.size = ret_info->size;
    s->t.term = ret_info->term;
    rv = stream(s, ret_info->id, e);
    return rv == ERR_OK ? finish(s, file, e) : rv;
}

static void report(const struct cli *c, const struct snapshot_info *i, const char *file)
{
    if (c->format == CLI_JSON)
        (void)printf(
            "{\"file\": \"%s\", \"member\": \"%s\", \"cluster_id\": \"%s\", \"index\": "
            "%" PRIu64 ", \"term\": %" PRIu64 ", \"revision\": %" PRIu64 ", \"size\": %" PRIu64
            "}\n",
            file, i->member, i->cluster_id, i->index, i->term, i->revision, i->size);
    else
        (void)printf("saved revision %" PRIu64 " (index %" PRIu64 ", %" PRIu64
                     " KiB) of %s to %s\n",
                     i->revision, i->index, i->size / 1024, i->member, file);
}

int cmd_dcs_snapshot_save(struct cli *c, int argc, char **argv)
{
    struct errmsg e = {0};
    struct snapshot_info info = {0};
    if (argc != 2 || argv[1][0] == '-')
        return cli_usage("one FILE to write is needed");
    if (access(argv[1], F_OK) == 0)
        return cli_fail(ERR_EXISTS, "%s exists already: nothing is overwritten", argv[1]);
    enum err rv = cli_connect(c);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    char *part CLEANUP(mem_cleanup) = mem_printf("%s.part", argv[1]);
    struct save s = {.client = c->client, .fd = -1, .path = part, .sha = EVP_MD_CTX_new()};
    rv = s.sha != NULL && EVP_DigestInit_ex(s.sha, EVP_sha256(), NULL) == 1
             ? save(&s, argv[1], &info, &e)
             : err_set(&e, ERR_INTERNAL, "SHA-256 failed");
    EVP_MD_CTX_free(s.sha);
    if (s.fd >= 0) {
        (void)close(s.fd);
        (void)unlink(part);
    }
    if (rv != ERR_OK)
        return cli_fail(rv, "%s", e.text);
    report(c, &info, argv[1]);
    return CLI_DONE;
}
