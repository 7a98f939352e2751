#ifndef REGENT_CLI_EDIT_H
#define REGENT_CLI_EDIT_H

#include "cli/cli.h"

/* The text in VISUAL, EDITOR or what the system calls editor. Says why not. */
enum err edit_in_editor(struct buf *text) MUST_CHECK;
/* As diff -u shows it, on standard output. */
enum err edit_show_difference(const struct buf *before, const struct buf *after) MUST_CHECK;
bool edit_confirmed(const char *question);

#endif
