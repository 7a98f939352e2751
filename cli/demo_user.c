/* Whose the demo is, and which programs it runs. PostgreSQL refuses root, so as root everything is
 * done as an ordinary user; that user may be unable to reach programs in root's directories: then
 * they are copied into DIR/bin. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/demo.h"

enum { REMOVE_FDS = 16 };

static const char *const demo_programs[DEMO_PROGRAMS] = {"regentctl", "regentd",
                                                         "regent-fence"};

static bool runs(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

static bool in_path(const char *program, char *ret, size_t size)
{
    const char *path = getenv("PATH");
    char *dirs CLEANUP(mem_cleanup) = mem_strdup(path != NULL ? path : "");
    char *save = NULL;
    for (char *dir = strtok_r(dirs, ":", &save); dir != NULL; dir = strtok_r(NULL, ":", &save))
        if (dir[0] == '/' && str_format(ret, size, "%s/%s", dir, program) == ERR_OK &&
            runs(ret))
            return true;
    return false;
}

/* Its name where the shell finds this very program by it, else its path. */
static void find_typed(struct demo *d)
{
    char path[DEMO_PATH_MAX];
    char *real = in_path("regentctl", path, sizeof path) ? realpath(path, NULL) : NULL;
    bool same = real != NULL && strcmp(real, d->self) == 0;
    free(real);
    str_cut(d->typed, sizeof d->typed, same ? "regentctl" : d->self);
}

static enum err find_programs(struct demo *d, struct errmsg *e)
{
    ssize_t n = readlink("/proc/self/exe", d->self, sizeof d->self - 1);
    d->self[n > 0 ? n : 0] = '\0';
    find_typed(d);
    const char *slash = strrchr(d->self, '/');
    int dir = slash != NULL ? (int)(slash - d->self) : 0;
    if (str_format(d->regentd, sizeof d->regentd, "%.*s/regentd", dir, d->self) == ERR_OK &&
        runs(d->regentd))
        return ERR_OK;
    if (in_path("regentd", d->regentd, sizeof d->regentd))
        return ERR_OK;
    const char *named = getenv("REGENTD");
    if (named != NULL && str_copy(d->regentd, sizeof d->regentd, named) == ERR_OK &&
        runs(d->regentd))
        return ERR_OK;
    return err_set(e, ERR_NOT_FOUND,
                   "regentd is neither in %.*s nor in PATH; set REGENTD to its path", dir,
                   d->self);
}

/* The owner of an existing demo; else postgres, the user behind sudo, nobody. */
static enum err pick_user(struct demo *d, struct errmsg *e)
{
    struct stat st;
    const char *names[] = {"postgres", getenv("SUDO_USER"), "nobody"};
    const struct passwd *p = NULL;
    if (d->marked && stat(d->dir, &st) == 0 && st.st_uid != 0)
        p = getpwuid(st.st_uid);
    for (size_t i = 0; i < ARRAY_LEN(names) && p == NULL; i++) {
        p = names[i] != NULL ? getpwnam(names[i]) : NULL;
        if (p != NULL && p->pw_uid == 0)
            p = NULL;
    }
    if (p == NULL)
        return err_set(
            e, ERR_NOT_FOUND,
            "PostgreSQL does not run as root, and there is no user `postgres` or `nobody`; "
            "run this as an ordinary user");
    d->uid = p->pw_uid;
    d->gid = p->pw_gid;
    return str_copy(d->user, sizeof d->user, p->pw_name);
}

enum err demo_user_pick(struct demo *d, struct errmsg *e)
{
    d->uid = geteuid();
    d->gid = getegid();
    enum err rv = find_programs(d, e);
    return rv == ERR_OK && d->uid == 0 ? pick_user(d, e) : rv;
}

enum err demo_user_become(struct demo *d, struct errmsg *e)
{
    if (geteuid() != 0)
        return ERR_OK;
    if (initgroups(d->user, d->gid) != 0 || setgid(d->gid) != 0 || setuid(d->uid) != 0)
        return err_set(e, ERR_DENIED, "cannot become user %s: %s", d->user, strerror(errno));
    (void)setenv("HOME", d->dir, 1);
    (void)setenv("USER", d->user, 1);
    (void)setenv("LOGNAME", d->user, 1);
    return chdir("/") == 0 ? ERR_OK
                           : err_set(e, ERR_IO, "cannot change to /: %s", strerror(errno));
}

/* ---- programs ---- */

/* Runs fn as the user in a process of its own: does it say yes? */
static bool as_user(struct demo *d, bool (*fn)(const struct demo *d))
{
    int status = 1;
    (void)fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        _exit(demo_user_become(d, NULL) == ERR_OK && fn(d) ? 0 : 1);
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool can_run_all(const struct demo *d)
{
    return runs(d->self) && runs(d->regentd);
}

/* Written beside and renamed: the old one may be running. */
static bool copy_program(const struct demo *d, int from, const char *name)
{
    char temporary[DEMO_PATH_MAX];
    char path[DEMO_PATH_MAX];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/bin/%s", d->dir, name);
    (void)snprintf(temporary, sizeof temporary, "%s/bin/.%s", d->dir, name);
    (void)unlink(temporary);
    int to = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
    bool ok = to >= 0 && fstat(from, &st) == 0;
    for (off_t at = 0; ok && at < st.st_size;)
        ok = sendfile(to, from, &at, (size_t)(st.st_size - at)) > 0;
    if (to >= 0)
        (void)close(to);
    return ok && rename(temporary, path) == 0;
}

static bool copy_all(const struct demo *d)
{
    char dir[DEMO_PATH_MAX];
    (void)snprintf(dir, sizeof dir, "%s/bin", d->dir);
    bool ok = mkdir(dir, 0755) == 0 || errno == EEXIST;
    for (size_t i = 0; i < DEMO_PROGRAMS && ok; i++)
        ok = copy_program(d, d->sources[i], demo_programs[i]);
    return ok;
}

/* As regentd looks for it: beside itself, in ../libexec/regent, else where REGENT_FENCE says. */
static bool find_fence(const struct demo *d, char *ret, size_t size)
{
    int dir = (int)(strrchr(d->regentd, '/') - d->regentd);
    const char *named = getenv("REGENT_FENCE");
    if (str_format(ret, size, "%.*s/regent-fence", dir, d->regentd) == ERR_OK && runs(ret))
        return true;
    if (str_format(ret, size, "%.*s/../libexec/regent/regent-fence", dir, d->regentd) ==
            ERR_OK &&
        runs(ret))
        return true;
    return named != NULL && str_copy(ret, size, named) == ERR_OK && runs(ret);
}

/* Read as root, written as the user: root writes nothing into a directory of somebody else. */
static enum err copy_programs(struct demo *d, struct errmsg *e)
{
    char fence[DEMO_PATH_MAX];
    if (!find_fence(d, fence, sizeof fence))
        return err_set(e, ERR_NOT_FOUND,
                       "regent-fence is not beside %s; set REGENT_FENCE to its path",
                       d->regentd);
    const char *const from[DEMO_PROGRAMS] = {d->self, d->regentd, fence};
    enum err rv = ERR_OK;
    for (size_t i = 0; i < DEMO_PROGRAMS; i++) {
        d->sources[i] = open(from[i], O_RDONLY | O_CLOEXEC);
        if (d->sources[i] < 0)
            rv = err_set(e, err_from_errno(errno), "cannot read %s: %s", from[i],
                         strerror(errno));
    }
    if (rv == ERR_OK && !as_user(d, copy_all))
        rv = err_set(e, ERR_IO,
                     "cannot copy the programs, which user %s cannot reach, to %s/bin", d->user,
                     d->dir);
    for (size_t i = 0; i < DEMO_PROGRAMS; i++)
        if (d->sources[i] >= 0)
            (void)close(d->sources[i]);
    (void)snprintf(d->self, sizeof d->self, "%s/bin/regentctl", d->dir);
    (void)snprintf(d->regentd, sizeof d->regentd, "%s/bin/regentd", d->dir);
    return rv;
}

/* ---- DIR ---- */

static enum err make_dirs(const char *dir, struct errmsg *e)
{
    char path[DEMO_PATH_MAX];
    for (const char *p = strchr(dir + 1, '/');; p = strchr(p + 1, '/')) {
        size_t n = p != NULL ? (size_t)(p - dir) : strlen(dir);
        if (str_copy_slice(path, sizeof path, slice_of(dir, n)) != ERR_OK)
            return err_set(e, ERR_LIMIT, "%s is too long a path", dir);
        if (mkdir(path, p != NULL ? 0755 : 0700) != 0 && errno != EEXIST)
            return err_set(e, err_from_errno(errno),
                           "cannot create %s: %s; choose another --dir", path, strerror(errno));
        if (p == NULL)
            return ERR_OK;
    }
}

static enum err mark(struct demo *d, struct errmsg *e)
{
    char path[DEMO_PATH_MAX];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/" DEMO_MARKER, d->dir);
    if (stat(d->dir, &st) != 0 || st.st_uid != geteuid())
        return err_set(e, ERR_DENIED, "%s belongs to another user; choose another --dir",
                       d->dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return err_set(e, err_from_errno(errno), "cannot write %s: %s; choose another --dir",
                       path, strerror(errno));
    (void)dprintf(fd, "`regentctl demo down` deletes this directory.\n");
    (void)close(fd);
    d->marked = true;
    return ERR_OK;
}

enum err demo_user_prepare(struct demo *d, struct errmsg *e)
{
    enum err rv = d->marked ? ERR_OK : make_dirs(d->dir, e);
    char *canonical = rv == ERR_OK ? realpath(d->dir, NULL) : NULL;
    if (rv == ERR_OK &&
        (canonical == NULL || str_copy(d->dir, sizeof d->dir, canonical) != ERR_OK))
        rv = err_set(e, ERR_LIMIT,
                     "%s is longer than %d characters: too long for unix sockets below it; "
                     "choose a shorter --dir",
                     canonical != NULL ? canonical : d->dir, DEMO_DIR_MAX - 1);
    free(canonical);
    if (rv == ERR_OK && !d->marked) {
        rv = mark(d, e);
        if (rv == ERR_OK && geteuid() == 0 && (chown(d->dir, d->uid, d->gid) != 0))
            rv = err_set(e, ERR_DENIED, "cannot give %s to user %s: %s", d->dir, d->user,
                         strerror(errno));
    }
    if (rv == ERR_OK && geteuid() == 0 && !as_user(d, can_run_all))
        rv = copy_programs(d, e);
    return rv;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    /* DIR itself is the caller's; what could not be removed shows when DIR is. */
    if (ftw->level > 0)
        (void)remove(path);
    return 0;
}

static bool remove_below(const struct demo *d)
{
    return nftw(d->dir, remove_one, REMOVE_FDS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) == 0;
}

enum err demo_user_remove(struct demo *d, struct errmsg *e)
{
    (void)as_user(d, remove_below);
    if (rmdir(d->dir) != 0)
        return err_set(e, err_from_errno(errno), "cannot remove %s: %s", d->dir,
                       strerror(errno));
    return ERR_OK;
}
