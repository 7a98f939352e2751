#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/offline.h"

enum { ARGUMENTS_MAX = 8, NOT_RUN = 127, OUTPUT_MAX = 65536 };

/* What it writes must belong to the user that the daemon runs as. */
static bool become_owner(const char *dir)
{
    struct stat st;
    if (dir == NULL || geteuid() != 0 || stat(dir, &st) != 0 || st.st_uid == 0)
        return true;
    const struct passwd *p = getpwuid(st.st_uid);
    return (p == NULL ? setgroups(0, NULL) : initgroups(p->pw_name, st.st_gid)) == 0 &&
           setgid(st.st_gid) == 0 && setuid(st.st_uid) == 0;
}

static NORETURN void be_regentd(const char *const *arguments, const char *dir, int out,
                                int complaints)
{
    char self[512], beside[600];
    const char *argv[ARGUMENTS_MAX + 2] = {"regentd"};
    const char *named = getenv("REGENTD");
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    int at = slash != NULL ? (int)(slash - self) : 0;
    (void)snprintf(beside, sizeof beside, "%.*s/regentd", at, self);
    for (size_t i = 0; i < ARGUMENTS_MAX && arguments[i] != NULL; i++)
        argv[1 + i] = arguments[i];
    if (become_owner(dir) && dup2(out, STDOUT_FILENO) >= 0 &&
        dup2(complaints, STDERR_FILENO) >= 0) {
        (void)execv(beside, (char *const *)(uintptr_t)argv);
        (void)execvp(named != NULL ? named : "regentd", (char *const *)(uintptr_t)argv);
    }
    (void)dprintf(complaints, "cannot run regentd: %s; it is expected beside regentctl",
                  strerror(errno));
    _exit(NOT_RUN);
}

static void take_text(int fd, struct buf *ret)
{
    char piece[4096];
    ssize_t n;
    for (off_t at = 0; (n = pread(fd, piece, sizeof piece, at)) > 0; at += n)
        buf_append(ret, piece, (size_t)n);
    (void)close(fd);
}

static int run(const char *const *arguments, const char *dir, struct buf *ret_out,
               struct buf *ret_complaints)
{
    int status = 0;
    int out = memfd_create("out", MFD_CLOEXEC);
    int complaints = memfd_create("complaints", MFD_CLOEXEC);
    pid_t child = out >= 0 && complaints >= 0 ? fork() : -1;
    if (child == 0)
        be_regentd(arguments, dir, out, complaints);
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (out >= 0)
        take_text(out, ret_out);
    if (complaints >= 0)
        take_text(complaints, ret_complaints);
    return child > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

json_t *offline_regentd(const char *const *arguments, const char *dir, int *ret_code)
{
    struct buf out CLEANUP(buf_close) = {.max = OUTPUT_MAX};
    struct buf complaints CLEANUP(buf_close) = {.max = OUTPUT_MAX};
    int code = run(arguments, dir, &out, &complaints);
    json_t *o = code == 0 ? json_loadb((const char *)out.p, out.len, 0, NULL) : NULL;
    if (o != NULL)
        return o;
    while (complaints.len > 0 && complaints.p[complaints.len - 1] == '\n')
        complaints.len--;
    (void)cli_fail(ERR_IO, "%.*s", (int)complaints.len,
                   complaints.len > 0 ? (const char *)complaints.p : "");
    *ret_code = code == CLI_REFUSED ? CLI_REFUSED : CLI_FAILED;
    return NULL;
}
