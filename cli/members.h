/* Shared by the member commands. */
#ifndef REGENT_CLI_MEMBERS_H
#define REGENT_CLI_MEMBERS_H

#include "cli/cli.h"

void members_print(const struct cli *c, const struct member_list *list);

#endif
