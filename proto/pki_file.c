/* Files and join tokens. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/rng.h"
#include "base/str.h"
#include "proto/pki.h"

enum { FILE_PATH_MAX = 4096 };

static enum err io_error(const char *verb, const char *path, struct errmsg *e)
{
    int n = errno;
    return err_set(e, err_from_errno(n), "cannot %s %s: %s%s", verb, path, strerror(n),
                   n == EACCES ? " (it must be accessible to the user that runs this program)"
                               : "");
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
}

static enum err write_all(int fd, struct slice data, const char *path, struct errmsg *e)
{
    for (size_t done = 0; done < data.n;) {
        ssize_t n = write(fd, data.p + done, data.n - done);
        if (n < 0 && errno != EINTR)
            return io_error("write", path, e);
        done += n > 0 ? (size_t)n : 0;
    }
    return fsync(fd) == 0 ? ERR_OK : io_error("sync", path, e);
}

/* The name survives a crash only when its directory is synced too. */
static enum err sync_directory_of(const char *path, struct errmsg *e)
{
    char dir[FILE_PATH_MAX];
    if (str_copy(dir, sizeof dir, path) != ERR_OK)
        return err_set(e, ERR_LIMIT, "path is too long: %s", path);
    char *slash = strrchr(dir, '/');
    if (slash == NULL)
        memcpy(dir, ".", 2);
    else if (slash == dir)
        slash[1] = '\0';
    else
        *slash = '\0';
    int fd CLEANUP(close_fd) = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 && fsync(fd) == 0 ? ERR_OK : io_error("sync", dir, e);
}

/* rename() replaces; link() refuses an existing file without a gap between look and leap. */
static enum err put_in_place(const char *tmp, const char *path, bool replace, struct errmsg *e)
{
    if (replace)
        return rename(tmp, path) == 0 ? ERR_OK : io_error("replace", path, e);
    if (link(tmp, path) != 0)
        return errno == EEXIST
                   ? err_set(e, ERR_EXISTS, "%s exists already; move it away first", path)
                   : io_error("create", path, e);
    if (unlink(tmp) == 0)
        return ERR_OK;
    enum err rc = io_error("remove", tmp, e);
    (void)unlink(path); /* it was made here: what failed has changed nothing */
    return rc;
}

enum err pki_write_file(const char *path, struct slice data, unsigned mode, bool replace,
                        struct errmsg *e)
{
    char tmp[FILE_PATH_MAX];
    if (str_format(tmp, sizeof tmp, "%s.tmp.%ld", path, (long)getpid()) != ERR_OK)
        return err_set(e, ERR_LIMIT, "path is too long: %s", path);
    (void)unlink(tmp);
    int fd CLEANUP(close_fd) =
        open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return io_error("create", tmp, e);
    enum err rc = write_all(fd, data, tmp, e);
    if (rc == ERR_OK && fchmod(fd, (mode_t)mode) != 0)
        rc = io_error("set the mode of", tmp, e);
    if (rc == ERR_OK)
        rc = put_in_place(tmp, path, replace, e);
    if (rc != ERR_OK) {
        (void)unlink(tmp);
        return rc;
    }
    rc = sync_directory_of(path, e);
    if (rc != ERR_OK && !replace)
        (void)unlink(path);
    return rc;
}

enum err pki_read_file(const char *path, size_t max, struct buf *ret_data, struct errmsg *e)
{
    int fd CLEANUP(close_fd) = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return io_error("read", path, e);
    buf_clear(ret_data);
    for (;;) {
        uint8_t piece[4096];
        ssize_t n = read(fd, piece, sizeof piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return io_error("read", path, e);
        if (n == 0)
            break;
        buf_append(ret_data, piece, (size_t)n);
        OPENSSL_cleanse(piece, (size_t)n); /* it may have been a key */
        if (!buf_ok(ret_data) || ret_data->len > max)
            return err_set(e, ERR_LIMIT, "%s is longer than %zu bytes", path, max);
    }
    return ERR_OK;
}

/* ---- tokens ---- */

void pki_token_new(const char *ca_fingerprint, struct pki_token *ret_token)
{
    unsigned char id[8], secret[16];
    ASSERT(strlen(ca_fingerprint) == PKI_FINGERPRINT_LEN);
    rng_system(id, sizeof id);
    rng_system(secret, sizeof secret);
    hex_encode(ret_token->id, id, sizeof id);
    hex_encode(ret_token->secret, secret, sizeof secret);
    memcpy(ret_token->ca_fingerprint, ca_fingerprint, PKI_FINGERPRINT_LEN + 1);
    OPENSSL_cleanse(secret, sizeof secret);
}

void pki_token_text(const struct pki_token *t, char ret_text[static PKI_TOKEN_MAX])
{
    enum err rc = str_format(ret_text, PKI_TOKEN_MAX, "rgt1.%s.%s.%s", t->id, t->secret,
                             t->ca_fingerprint);
    ASSERT(rc == ERR_OK);
}

/* `digits` hex digits and then `end`; moves behind them. */
static bool take_hex(const char **text, char *to, size_t digits, char end)
{
    unsigned char bytes[PKI_FINGERPRINT_LEN / 2];
    const char *p = *text;
    if (strnlen(p, digits + 1) < digits || p[digits] != end)
        return false;
    memcpy(to, p, digits);
    to[digits] = '\0';
    *text = p + digits + 1;
    return hex_decode(to, bytes, digits / 2) == ERR_OK;
}

enum err pki_token_parse(const char *text, struct pki_token *ret_token, struct errmsg *e)
{
    struct pki_token t;
    const char *p = text;
    if (!str_starts(p, "rgt1."))
        return err_set(
            e, ERR_INVALID,
            "not a join token: it begins with rgt1. (regentctl token create makes one)");
    p += strlen("rgt1.");
    if (!take_hex(&p, t.id, 16, '.') || !take_hex(&p, t.secret, 32, '.') ||
        !take_hex(&p, t.ca_fingerprint, PKI_FINGERPRINT_LEN, '\0'))
        return err_set(
            e, ERR_INVALID,
            "the join token is damaged; copy the whole line of regentctl token create");
    *ret_token = t;
    return ERR_OK;
}

void pki_token_hash(const struct pki_token *t, char ret_hex[static 65])
{
    unsigned char digest[SHA256_DIGEST_LENGTH];
    (void)SHA256((const unsigned char *)t->secret, strlen(t->secret), digest);
    hex_encode(ret_hex, digest, sizeof digest);
}
