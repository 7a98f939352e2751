/* What edit-config needs of a person: an editor, a look at the difference, a yes. */
#include "cli/edit.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/str.h"
#include "proto/pki.h"

enum { PATH_LEN = 256, NOT_RUN = -1, TEXT_MAX = 1 << 20 };

static enum err write_file(const struct buf *text, char path[static PATH_LEN])
{
    const char *dir = getenv("TMPDIR");
    (void)snprintf(path, PATH_LEN, "%.200s/regent-config-XXXXXX.yml",
                   dir != NULL && dir[0] == '/' ? dir : "/tmp");
    int fd = mkstemps(path, (int)strlen(".yml"));
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
    bool good = f != NULL && fwrite(text->p, 1, text->len, f) == text->len;
    good = f != NULL && fclose(f) == 0 && good;
    if (good)
        return ERR_OK;
    enum err rv = err_from_errno(errno);
    (void)cli_fail(rv, "cannot write %s: %s", path, strerror(errno));
    if (fd >= 0)
        (void)unlink(path);
    path[0] = '\0';
    return rv;
}

/* Its exit code; NOT_RUN. */
static int run(const char *const *argv)
{
    pid_t pid;
    int status = 0;
    (void)fflush(stdout);
    if (posix_spawnp(&pid, argv[0], NULL, NULL, (char **)(uintptr_t)argv, environ) != 0)
        return NOT_RUN;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : NOT_RUN;
}

enum err edit_in_editor(struct buf *text)
{
    /* As with git and others: the variable may hold arguments, so a shell reads it. */
    static const char use_editor[] =
        "eval \"exec ${VISUAL:-${EDITOR:-$(command -v editor || command -v vi || echo nano)}} "
        "\\\"\\$1\\\"\"";
    char path[PATH_LEN];
    struct errmsg e = {0};
    enum err rv = write_file(text, path);
    if (rv != ERR_OK)
        return rv;
    int code = run((const char *[]){"sh", "-c", use_editor, "editor", path, NULL});
    if (code != 0)
        rv = err_set(&e, ERR_CANCELLED, "the editor ended with %d; name one with EDITOR", code);
    buf_clear(text);
    if (rv == ERR_OK)
        rv = pki_read_file(path, TEXT_MAX, text, &e);
    (void)unlink(path);
    if (rv != ERR_OK)
        (void)cli_fail(rv, "%s; nothing changed", e.text);
    return rv;
}

enum err edit_show_difference(const struct buf *before, const struct buf *after)
{
    char a[PATH_LEN];
    char b[PATH_LEN] = "";
    enum err rv = write_file(before, a);
    if (rv == ERR_OK)
        rv = write_file(after, b);
    if (rv == ERR_OK && run((const char *[]){"diff", "-u", "--label", "before", "--label",
                                             "after", a, b, NULL}) == NOT_RUN)
        (void)fwrite(after->p, 1, after->len, stdout);
    if (a[0] != '\0')
        (void)unlink(a);
    if (b[0] != '\0')
        (void)unlink(b);
    return rv;
}

bool edit_confirmed(const char *question)
{
    char line[16] = "";
    (void)printf("%s [y/N]: ", question);
    (void)fflush(stdout);
    return fgets(line, sizeof line, stdin) != NULL && (line[0] == 'y' || line[0] == 'Y');
}
