/* A password from a person or from a pipe: never an argument, never shown, not left in memory by us. */
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "cli/pg.h"

static bool read_line(FILE *from, char ret[static SECRET_MAX])
{
    if (fgets(ret, SECRET_MAX, from) == NULL)
        return false;
    bool whole = strchr(ret, '\n') != NULL || feof(from);
    ret[strcspn(ret, "\r\n")] = '\0';
    return whole;
}

static bool ask(FILE *tty, const char *prompt, char ret[static SECRET_MAX])
{
    struct termios before;
    struct termios silent;
    bool echoes = tcgetattr(fileno(tty), &before) == 0;
    silent = before;
    silent.c_lflag &= ~(tcflag_t)ECHO;
    (void)fprintf(stderr, "%s: ", prompt);
    if (echoes)
        (void)tcsetattr(fileno(tty), TCSAFLUSH, &silent);
    bool got = read_line(tty, ret);
    if (echoes)
        (void)tcsetattr(fileno(tty), TCSAFLUSH, &before);
    (void)fputc('\n', stderr);
    return got;
}

static enum err check(const char *secret, bool got)
{
    if (got && secret[0] != '\0')
        return ERR_OK;
    (void)cli_fail(ERR_INVALID, "the password is %s; nothing changed",
                   got ? "empty" : "missing, or longer than 255 characters");
    return ERR_INVALID;
}

enum err secret_read(const char *prompt, bool twice, char ret[static SECRET_MAX])
{
    char again[SECRET_MAX];
    if (isatty(STDIN_FILENO) == 0)
        return check(ret, read_line(stdin, ret));
    enum err rv = check(ret, ask(stdin, prompt, ret));
    if (rv != ERR_OK || !twice)
        return rv;
    bool same = ask(stdin, "The same again", again) && strcmp(again, ret) == 0;
    explicit_bzero(again, sizeof again);
    if (same)
        return ERR_OK;
    (void)cli_fail(ERR_INVALID, "the two differ; nothing changed");
    return ERR_INVALID;
}
